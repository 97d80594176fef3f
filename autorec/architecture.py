"""An architecture is a DAG of blocks, as a plain value that can be compared, hashed and written
down.

Raw form: what a search proposes, block by block, with `none` blocks and connections that lead
nowhere.
Canonical form: only what has an effect, in an order that does not depend on how it was numbered.
Two candidates that compute the same family of functions have the same canonical form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from autorec.errors import SpaceError
from autorec.search_spaces._numbering import numbered, written

Value = bool | int | float | str
Source = int | str
DENSE = "dense"
SPARSE = "sparse"
SPARSE2 = "sparse2"
PAIRS = "pairs"
RAWS = (DENSE, SPARSE, SPARSE2, PAIRS)
NONE = "none"
TABLE = "embedding"
BINS = "bins"
SHARED = "shared"
# Own tables of crosses: how often their width is halved below D.
CROSSES = {"full": 0, "half": 1, "quarter": 2}


@dataclass(frozen=True)
class Node:
    """One block: its kind, where its inputs come from, and its own arguments.

    `inputs` holds raw inputs (`RAWS`) or indices of earlier nodes, without repetition; it is kept
    sorted, so that the order in which connections were proposed leaves no trace. The raw inputs are
    numbers (`"dense"`), embedded ids (`"sparse"`), the same ids in a second, independent table
    (`"sparse2"`), and products of field-aware embeddings, one field per pair of ids (`"pairs"`).
    """

    kind: str
    inputs: tuple[Source, ...] = ()
    args: tuple[tuple[str, Value], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(sorted(set(self.inputs), key=_input_order)))
        object.__setattr__(self, "args", tuple(sorted(self.args)))

    @property
    def nodes_read(self) -> tuple[int, ...]:
        """Indices of the earlier nodes that this one reads."""
        return tuple(source for source in self.inputs if isinstance(source, int))


def _input_order(source: Source) -> tuple[int, Source]:
    return (0, source) if isinstance(source, str) else (1, source)


@dataclass(frozen=True)
class Architecture:
    """Nodes in an order in which each reads only earlier ones.

    Every tensor that no node reads is a stream and goes to the head. `linear` adds a first-order
    term: one weight per id and per number. `embedding_width` is D, the same for all fields; 0 in
    canonical form when nothing reads embeddings. `embedding` names the kind of id table (a block of
    the role `"table"`) and `embedding_args` its own arguments. `crosses` tells where derived
    crosses are looked up: in the tables of the other ids (`SHARED`), or in plain ones of their own,
    whose width is a share of D (`CROSSES`). `numbers` tells how numbers become fields: as the
    quantile bins of the columns (`BINS`), or by a block of the role `"numbers"`, which takes the
    place of those bins in the two id tables.

    Raises:
        SpaceError: a node reads itself, a later node, or an input that does not exist; or there is
            no such place for crosses.
    """

    nodes: tuple[Node, ...]
    embedding_width: int
    linear: bool = False
    embedding: str = TABLE
    embedding_args: tuple[tuple[str, Value], ...] = ()
    crosses: str = SHARED
    numbers: str = BINS
    numbers_args: tuple[tuple[str, Value], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "embedding_args", tuple(sorted(self.embedding_args)))
        object.__setattr__(self, "numbers_args", tuple(sorted(self.numbers_args)))
        if self.crosses not in (SHARED, *CROSSES):
            raise SpaceError(
                f"crosses are looked up in {(SHARED, *CROSSES)}, but got {self.crosses!r}"
            )
        for position, node in enumerate(self.nodes):
            for source in node.inputs:
                known = source in RAWS if isinstance(source, str) else source < position
                if not known:
                    raise SpaceError(
                        f"a node reads one of {RAWS} or an earlier node, but node {position} "
                        f"({node.kind}) reads {source!r}"
                    )

    @property
    def sinks(self) -> tuple[int, ...]:
        """Indices of the nodes that no other node reads."""
        read = {source for node in self.nodes for source in node.nodes_read}
        return tuple(i for i in range(len(self.nodes)) if i not in read)

    def reads(self, raw: str) -> bool:
        """Tell whether any node reads the raw input `raw` (one of `RAWS`)."""
        return any(raw in node.inputs for node in self.nodes)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form, crosses and numbers only where they are not the default."""
        more: dict[str, Any] = {} if self.crosses == SHARED else {"crosses": self.crosses}
        if self.numbers != BINS:
            more["numbers"] = {"kind": self.numbers, "args": dict(self.numbers_args)}
        return {
            **more,
            "nodes": [
                {"kind": node.kind, "inputs": list(node.inputs), "args": dict(node.args)}
                for node in self.nodes
            ],
            "embedding_width": self.embedding_width,
            "linear": self.linear,
            "embedding": {"kind": self.embedding, "args": dict(self.embedding_args)},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Architecture:
        """Read what `to_json` wrote."""
        nodes = tuple(
            Node(node["kind"], tuple(node["inputs"]), tuple(node["args"].items()))
            for node in data["nodes"]
        )
        table, numbers = data["embedding"], data.get("numbers", {"kind": BINS, "args": {}})
        return cls(
            nodes,
            int(data["embedding_width"]),
            bool(data["linear"]),
            table["kind"],
            tuple(table["args"].items()),
            data.get("crosses", SHARED),
            numbers["kind"],
            tuple(numbers["args"].items()),
        )

    def describe(self) -> str:
        """Return the architecture as a small diagram of text, one node a line, for people."""
        table = (
            "" if self.embedding == TABLE else f" in {_call(self.embedding, self.embedding_args)}"
        )
        width = self.embedding_width
        head = f"ids embedded at width {width}{table}" if width else "no embedding"
        head += "" if self.crosses == SHARED else f", crosses in their own ({self.crosses})"
        head += "" if self.numbers == BINS else f", numbers by {self._numbers()}"
        calls = [_call(node.kind, node.args) for node in self.nodes]
        longest = max(map(len, calls), default=0)
        lines = [head + (" + linear term -> head" if self.linear else "")]
        for i, (node, call) in enumerate(zip(self.nodes, calls, strict=True)):
            reads = " + ".join(s if isinstance(s, str) else f"[{s + 1}]" for s in node.inputs)
            to = " -> head" if i in self.sinks else ""
            lines.append(f"[{i + 1}] {call.ljust(longest)} <- {reads}{to}")
        return "\n".join(lines)

    def _numbers(self) -> str:
        return _call(self.numbers, self.numbers_args)


def _call(kind: str, args: tuple[tuple[str, Value], ...]) -> str:
    return f"{kind}({', '.join(f'{name}={value}' for name, value in args)})"


def canonical(
    architecture: Architecture, raws: frozenset[str], field_kinds: frozenset[str] = frozenset()
) -> Architecture:
    """Return the canonical form of `architecture` on data that has the raw inputs `raws`.

    Removed: `none` nodes, nodes that no raw input reaches, connections from either. A candidate
    left without any node is its linear term. `field_kinds` names the blocks that read fields (B, F,
    D): they lift flat inputs to width D, so that D has an effect even where no table is read. Nodes
    are renumbered canonically; the two id tables are named so that swapping them changes nothing.
    """
    # Searches ask for many candidates that differ in their recipe alone. True, 1 and 1.0 are equal
    # keys of a cache and different values, so that types are part of the key.
    args = [arg for node in architecture.nodes for arg in node.args]
    args += [*architecture.embedding_args, *architecture.numbers_args]
    types = tuple(type(value) for _, value in args)
    types += (type(architecture.linear), type(architecture.embedding_width))
    return _canonical(architecture, raws, field_kinds, types)


@lru_cache(maxsize=4096)
def _canonical(
    architecture: Architecture,
    raws: frozenset[str],
    field_kinds: frozenset[str],
    _types: tuple[type, ...],
) -> Architecture:
    live = _live_nodes(architecture, raws)
    nodes = min((numbered(one) for one in _table_namings(live)), key=written)
    linear = architecture.linear or not nodes
    embedded = any({SPARSE, SPARSE2} & set(node.inputs) for node in nodes)
    width_matters = embedded or any(
        PAIRS in node.inputs or node.kind in field_kinds for node in nodes
    )
    return Architecture(
        nodes,
        architecture.embedding_width if width_matters else 0,
        linear,
        architecture.embedding if embedded else TABLE,
        architecture.embedding_args if embedded else (),
        architecture.crosses if embedded or linear else SHARED,
        architecture.numbers if embedded else BINS,
        architecture.numbers_args if embedded else (),
    )


def _table_namings(nodes: list[Node]) -> list[list[Node]]:
    """Return `nodes` under each naming of the two id tables; a single table is always the first."""
    read = {source for node in nodes for source in node.inputs}
    if SPARSE2 not in read:
        return [nodes]
    other: dict[Source, Source] = {SPARSE: SPARSE2, SPARSE2: SPARSE}
    swapped = [
        replace(node, inputs=tuple(other.get(source, source) for source in node.inputs))
        for node in nodes
    ]
    return [nodes, swapped] if SPARSE in read else [swapped]


def _live_nodes(architecture: Architecture, raws: frozenset[str]) -> list[Node]:
    new_index: dict[int, int] = {}
    live: list[Node] = []
    for i, node in enumerate(architecture.nodes):
        inputs: list[Source] = []
        for source in node.inputs:
            if isinstance(source, str):
                inputs += [source] if source in raws else []
            elif source in new_index:
                inputs.append(new_index[source])
        if node.kind == NONE or not inputs:
            continue
        new_index[i] = len(live)
        live.append(replace(node, inputs=tuple(inputs)))
    return live
