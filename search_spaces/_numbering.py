"""A numbering of the nodes of a DAG that depends on the graph alone, not on how it was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autorec.architecture import Node


def written(nodes: Sequence[Node]) -> tuple[Any, ...]:
    """Return `nodes` as strings, which have an order."""
    return tuple((n.kind, str(n.args), tuple(map(str, n.inputs))) for n in nodes)


def numbered(nodes: list[Node]) -> tuple[Node, ...]:
    """Renumber `nodes` so that equal graphs give equal tuples, however they were numbered."""
    if not nodes:
        return ()
    return min(_discrete_orders(nodes, _refine(nodes, [0] * len(nodes))))[1]


def _refine(nodes: list[Node], colours: list[int]) -> list[int]:
    """Colour refinement: nodes keep one colour only while nothing tells them apart."""
    while True:
        readers: list[list[int]] = [[] for _ in nodes]
        for i, node in enumerate(nodes):
            for source in node.nodes_read:
                readers[source].append(colours[i])
        marks = []
        for i, node in enumerate(nodes):
            raw = tuple(s for s in node.inputs if isinstance(s, str))
            read = tuple(sorted(colours[s] for s in node.nodes_read))
            args = tuple((name, type(value).__name__, str(value)) for name, value in node.args)
            marks.append((colours[i], node.kind, args, raw, read, tuple(sorted(readers[i]))))
        ranks = {mark: rank for rank, mark in enumerate(sorted(set(marks)))}
        refined = [ranks[mark] for mark in marks]
        if len(set(refined)) == len(set(colours)):
            return refined
        colours = refined


def _discrete_orders(
    nodes: list[Node], colours: list[int]
) -> list[tuple[tuple[Any, ...], tuple[Node, ...]]]:
    """Split ties one node at a time and return every resulting numbering (few: twins are tried
    once).
    """
    shared = sorted({c for c in colours if colours.count(c) > 1})
    if not shared:
        return [_renumber(nodes, colours)]
    tied = [i for i, colour in enumerate(colours) if colour == shared[0]]
    found = []
    seen: set[tuple[Any, ...]] = set()
    for i in tied:
        # Nodes with the very same inputs and readers are interchangeable: one stands for all.
        readers = tuple(j for j, node in enumerate(nodes) if i in node.inputs)
        twin = (nodes[i].inputs, readers)
        if twin in seen:
            continue
        seen.add(twin)
        split = [2 * colour + (j != i) for j, colour in enumerate(colours)]
        found += _discrete_orders(nodes, _refine(nodes, split))
    return found


def _renumber(nodes: list[Node], colours: list[int]) -> tuple[tuple[Any, ...], tuple[Node, ...]]:
    depth: list[int] = []
    for node in nodes:
        depth.append(1 + max((depth[s] for s in node.nodes_read), default=0))
    order = sorted(range(len(nodes)), key=lambda i: (depth[i], colours[i]))
    place = {old: new for new, old in enumerate(order)}
    renumbered = tuple(
        replace(
            nodes[i],
            inputs=tuple(s if isinstance(s, str) else place[s] for s in nodes[i].inputs),
        )
        for i in order
    )
    return written(renumbered), renumbered
