"""Edits of an architecture as plain values: what a search may ask of a trained network.

The edits are those of network morphism (Wei et al., ICML 2016; Auto-Keras, Jin et al., KDD 2019) on
a DAG of interaction blocks. Each is meant to keep the function of the network that it changes;
whether the blocks at hand can do so is decided where the weights are carried (`autorec.morph`).

Children are *edited forms*: no node is renumbered, new nodes come last, and the two id tables keep
their names, so that weights can be followed. They must be built as they stand, not canonical.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, IntDistribution

from autorec.architecture import DENSE, PAIRS, SPARSE, SPARSE2, Architecture, Node, Source, Value
from autorec.candidate import Candidate
from autorec.errors import SpaceError

if TYPE_CHECKING:
    import numpy as np

    from autorec.search_spaces._dag import DagSpace

NEW = -1
DEEPEN, WIDEN, EMBEDDING, LINEAR = "deepen", "widen", "embedding", "linear"
ADD_BLOCK, ADD_EDGE, STACK, SWAP = "add_block", "add_edge", "stack", "swap"
KINDS = (DEEPEN, WIDEN, EMBEDDING, LINEAR, ADD_BLOCK, ADD_EDGE, STACK, SWAP)
# Blocks that hand their input on while their weights are zero: they can be put behind a stream.
STACKED = ("cross", "cross_gated", "cross_lowrank", "cross_residual")
# A block and its gated or residual version.
SWAPS = {"mlp": "gated_mlp", "cross": "cross_gated", "cross_lowrank": "cross_residual"}
_DEPTHS = ("layers", "layers1", "layers2", "blocks")
# D of the first embedding in a network that had none: that of the known recipes.
_FIRST_WIDTH = 16
_TABLES = (SPARSE, SPARSE2, PAIRS)
_Args = tuple[tuple[str, Value], ...]


@dataclass(frozen=True)
class Edit:
    """One change of an architecture; plain, hashable, JSON-able.

    Attributes:
        kind: one of `KINDS`.
        node: the node that changes, -1 where the edit is not of a node.
        argument: the argument that grows; for a new or swapped block, its kind.
        value: what the argument grows to.
        inputs: what a new block reads, or the source of a new edge.
        args: arguments of a new or swapped block.
        numeric: what the child's `Features.numeric` becomes, empty where it stays.

    Raises:
        SpaceError: the kind is unknown.
    """

    kind: str
    node: int = NEW
    argument: str = ""
    value: int = 0
    inputs: tuple[Source, ...] = ()
    args: _Args = ()
    numeric: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpaceError(f"an edit is one of {KINDS}, but got {self.kind!r}")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; `from_json` reads it back."""
        return {**asdict(self), "inputs": list(self.inputs), "args": dict(self.args)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Edit:
        """Read what `to_json` wrote."""
        inputs, args = tuple(data["inputs"]), tuple(sorted(data["args"].items()))
        return cls(**{**data, "inputs": inputs, "args": args})


@dataclass(frozen=True)
class Edited:
    """A child, and for each of its nodes the node of the parent that it was, -1 where new."""

    candidate: Candidate
    nodes: tuple[int, ...]


def apply(candidate: Candidate, edit: Edit, space: DagSpace) -> Edited:
    """Return the child of `candidate` by `edit`.

    Args:
        candidate: canonical in `space`, or a child that this function gave.
        edit: one of `edits(candidate, space)`, or another of the same form.
        space: where the child must lie.

    Raises:
        SpaceError: `candidate` has no architecture, the edit does not fit it, or the child lies
            outside the space.
    """
    plan = candidate.architecture
    if plan is None:
        raise SpaceError(f"only networks are edited, but got the family {candidate.family!r}")
    if edit.kind not in (EMBEDDING, LINEAR, ADD_BLOCK) and not 0 <= edit.node < len(plan.nodes):
        raise SpaceError(f"{edit.kind} is of one of {len(plan.nodes)} nodes, but got {edit.node}")
    changed = _CHANGES[edit.kind](plan, edit)
    if not plan.embedding_width and _has_width(changed, space):
        changed = replace(changed, embedding_width=_FIRST_WIDTH)
    numeric = edit.numeric or candidate.features.numeric
    features = replace(candidate.features, numeric=numeric)
    child = replace(candidate, architecture=changed, features=features)
    decoded = space.decode(space.params(child))
    count = len(changed.nodes)
    nodes = decoded.architecture.nodes[:count] if decoded.architecture else ()
    if [_form(node) for node in nodes] != [_form(node) for node in changed.nodes]:
        raise SpaceError(f"a child lies in the space of its parent, but got {edit} of {candidate}")
    child = replace(child, architecture=replace(changed, nodes=nodes), recipe=decoded.recipe)
    kept = tuple(range(len(plan.nodes)))
    return Edited(child, kept + (NEW,) * (count - len(kept)))


def apply_all(candidate: Candidate, chain: Sequence[Edit], space: DagSpace) -> Edited:
    """Return the child of `candidate` by all edits of `chain`, one after the other.

    Raises:
        SpaceError: as `apply`.
    """
    count = len(candidate.architecture.nodes) if candidate.architecture else 0
    child = candidate
    for edit in chain:
        child = apply(child, edit, space).candidate
    total = len(child.architecture.nodes) if child.architecture else 0
    return Edited(child, (*range(count), *[NEW] * (total - count)))


def edits(candidate: Candidate, space: DagSpace) -> list[Edit]:
    """Return every edit of `candidate` whose child lies in `space`; none for a tree.

    Arguments grow to their next value (doubled where their scale is logarithmic). A new block
    starts with its own defaults, but as small as it can be in what can grow later, and reads one
    input. A stream that a new node would read no longer reached the head, so that only raw inputs
    and nodes that are read already get readers, and blocks of `STACKED` may follow a stream.
    """
    plan = candidate.architecture
    if plan is None:
        return []
    found = [*_growths(plan, space), *_edges(candidate, plan, space), *_swaps(plan, space)]
    width = next_value(space.genes["embedding.width"], plan.embedding_width)
    if plan.embedding_width and width is not None:
        found.append(Edit(EMBEDDING, value=width))
    if not plan.linear:
        found.append(Edit(LINEAR))
    if len(plan.nodes) < space.blocks:
        found += _new_blocks(candidate, plan, space)
    return found


def random_edit(candidate: Candidate, space: DagSpace, rng: np.random.Generator) -> Edit:
    """Return one of `edits`, drawn by kind first, so that the many new blocks do not crowd it.

    Raises:
        SpaceError: there is no edit of this candidate.
    """
    found = edits(candidate, space)
    if not found:
        raise SpaceError(f"only networks below the limits are edited, but got {candidate}")
    kinds = [kind for kind in KINDS if any(edit.kind == kind for edit in found)]
    kind = kinds[int(rng.integers(len(kinds)))]
    of_kind = [edit for edit in found if edit.kind == kind]
    return of_kind[int(rng.integers(len(of_kind)))]


def next_value(gene: BaseDistribution, value: Value | None) -> int | None:
    """Return the next larger value of an integer gene, None at its end or for other genes."""
    if not isinstance(gene, IntDistribution) or not isinstance(value, int) or value >= gene.high:
        return None
    return min(gene.high, 2 * value) if gene.log else value + gene.step


def _form(node: Node) -> tuple[Any, ...]:
    return node.kind, node.inputs, [name for name, _ in node.args]


def _has_width(plan: Architecture, space: DagSpace) -> bool:
    kinds = {kind for kind, cls in space.classes.items() if cls.reads == "field"}
    fields = not kinds.isdisjoint(node.kind for node in plan.nodes)
    return fields or any(plan.reads(raw) for raw in _TABLES)


def _growths(plan: Architecture, space: DagSpace) -> Iterator[Edit]:
    for position, node in enumerate(plan.nodes):
        cls, args = space.classes[node.kind], dict(node.args)
        for name in cls.grows:
            value = next_value(cls.choices()[name], args.get(name))
            if value is not None:
                yield Edit(DEEPEN if name in _DEPTHS else WIDEN, position, name, value)


def _sources(candidate: Candidate, plan: Architecture, space: DagSpace) -> dict[Source, str]:
    """Return what may get another reader, with the `numeric` that the child then needs."""
    features, layout = candidate.features, space.layout

    def tables(wanted: str) -> int:
        return len(features.lists_of(layout) + replace(features, numeric=wanted).sparse_of(layout))

    found: dict[Source, str] = {}
    if replace(features, numeric="both").dense_of(layout):
        found[DENSE] = "" if features.dense else "both"
    # More fields in a table that is there already would change what reads it.
    wider = "" if tables(features.numeric) else "both"
    if count := tables(wider or features.numeric):
        found[SPARSE] = wider
        found |= {SPARSE2: wider} if plan.reads(SPARSE) else {}
        found |= {PAIRS: wider} if PAIRS in space.raws and count > 1 else {}
    return found | {i: "" for i in range(len(plan.nodes)) if i not in plan.sinks}


def _edges(candidate: Candidate, plan: Architecture, space: DagSpace) -> Iterator[Edit]:
    for source, numeric in _sources(candidate, plan, space).items():
        for position, node in enumerate(plan.nodes):
            later = isinstance(source, str) or source < position
            if later and source not in node.inputs:
                yield Edit(ADD_EDGE, position, inputs=(source,), numeric=numeric)


def _new_blocks(candidate: Candidate, plan: Architecture, space: DagSpace) -> Iterator[Edit]:
    sources = _sources(candidate, plan, space)
    for kind in space.kinds:
        args = _smallest(space.classes[kind])
        for source, numeric in sources.items():
            yield Edit(ADD_BLOCK, NEW, kind, inputs=(source,), args=args, numeric=numeric)
        if kind in STACKED:
            yield from (Edit(STACK, sink, kind, args=args) for sink in plan.sinks)


@cache
def _smallest(cls: Any) -> _Args:
    choices, defaults = cls.choices(), inspect.signature(cls.__init__).parameters
    found = {name: defaults[name].default for name in choices}
    return tuple(sorted({**found, **{name: choices[name].low for name in cls.grows}}.items()))


def _swaps(plan: Architecture, space: DagSpace) -> Iterator[Edit]:
    for position, node in enumerate(plan.nodes):
        kind = SWAPS.get(node.kind)
        if kind is None or kind not in space.classes:
            continue
        args: dict[str, Value] | None = dict(node.args)
        if kind == "cross_residual":
            args = _residual(dict(node.args))
        if args is not None:
            yield Edit(SWAP, position, kind, args=space.node(kind, **args).args)


def _residual(args: dict[str, Value]) -> dict[str, Value] | None:
    """Return arguments of a residual cross whose parallel half is a low-rank cross of `args`."""
    rank, layers = int(args["rank"]), int(args["layers"])
    for heads in range(1, 5):
        if rank % heads == 0 and 8 <= rank // heads <= 64 and layers <= 3:
            return {"layers": layers, "rank": rank // heads, "heads": heads, "parallel": True}
    return None


def _node_changed(plan: Architecture, position: int, **changes: Any) -> Architecture:
    nodes = list(plan.nodes)
    nodes[position] = replace(nodes[position], **changes)
    return replace(plan, nodes=tuple(nodes))


def _grown(plan: Architecture, edit: Edit) -> Architecture:
    args = dict(plan.nodes[edit.node].args)
    old = args.get(edit.argument)
    if old is None or isinstance(old, str) or edit.value <= old:
        raise SpaceError(f"an argument of node {edit.node} grows from {old}, but got {edit}")
    return _node_changed(plan, edit.node, args=tuple({**args, edit.argument: edit.value}.items()))


def _with_edge(plan: Architecture, edit: Edit) -> Architecture:
    return _node_changed(plan, edit.node, inputs=plan.nodes[edit.node].inputs + edit.inputs)


def _with_block(plan: Architecture, edit: Edit) -> Architecture:
    inputs = edit.inputs if edit.kind == ADD_BLOCK else (edit.node,)
    return replace(plan, nodes=(*plan.nodes, Node(edit.argument, inputs, edit.args)))


_CHANGES: dict[str, Callable[[Architecture, Edit], Architecture]] = {
    DEEPEN: _grown,
    WIDEN: _grown,
    EMBEDDING: lambda plan, edit: replace(plan, embedding_width=edit.value),
    LINEAR: lambda plan, edit: replace(plan, linear=True),
    ADD_BLOCK: _with_block,
    ADD_EDGE: _with_edge,
    STACK: _with_block,
    SWAP: lambda p, e: _node_changed(p, e.node, kind=e.argument, args=e.args),
}
