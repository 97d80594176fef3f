"""The closed sub-space of the tabular benchmark: every point of it can be listed and trained.

Networks of one or two blocks on the id columns of Frappe, beside a linear term, with one fixed
recipe. Two blocks lie side by side or in a row, and the second of a row reads the ids again or
not. It is a `CtrSpace` whose genes have few values, so that every engine searches it as it is, and
whatever its distributions can give has one of the keys of `every`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autorec.architecture import SPARSE, Node, Value
from autorec.candidate import NEURAL, Candidate
from autorec.errors import SpaceError
from autorec.schema import Layout, SparseField
from autorec.search_spaces.ctr import CtrSpace
from autorec.space import Space

_ROWS = {
    "user": 942,
    "item": 4084,
    "daytime": 9,
    "weekday": 9,
    "isweekend": 4,
    "homework": 5,
    "cost": 4,
    "weather": 11,
    "country": 82,
    "city": 233,
}
# The columns of Frappe, encoded on the given training file. Keys do not depend on table rows.
FRAPPE = Layout(sparse=tuple(SparseField(name, rows, name) for name, rows in _ROWS.items()))
BLOCKS = 2


def _one_of(low: int, high: int) -> IntDistribution:
    """Return a gene of the two numbers `low` and `high`; equal, of one."""
    return IntDistribution(low, high, step=max(1, high - low))


def _only(value: Value) -> CategoricalDistribution:
    return CategoricalDistribution((value,))


_HIDDEN = {"dropout": _only(0.1), "norm": _only("batch")}
# Cheap kinds only: attention, CIN and their like cost several times as much a row.
GRID: dict[str, dict[str, BaseDistribution]] = {
    "mlp": {"width": _one_of(64, 256), "layers": _one_of(1, 3), **_HIDDEN},
    "cross": {"layers": _one_of(1, 3)},
    "cross_lowrank": {"layers": _one_of(2, 2), "rank": _one_of(16, 16)},
    "fm": {},
    "inner_product": {},
    "senet": {"reduction": _one_of(3, 3), "activation": _only("relu")},
    "factorized": {
        "width": _one_of(128, 128),
        "layers": _one_of(2, 2),
        "merge": _only("concat"),
        **_HIDDEN,
    },
    "two_stream": {
        "width1": _one_of(128, 128),
        "layers1": _one_of(1, 1),
        "dropout1": _only(0.1),
        "width2": _one_of(64, 64),
        "layers2": _one_of(1, 1),
        "dropout2": _only(0.1),
        "norm": _only("batch"),
        "heads": _one_of(2, 2),
        "gate": _only("fields"),
        "gate_width": _one_of(64, 64),
    },
    "gated_mlp": {
        "width": _one_of(128, 128),
        "layers": _one_of(2, 2),
        "gate_rank": _one_of(16, 16),
        **_HIDDEN,
    },
}
RECIPE: dict[str, Value] = {
    "lr": 1e-3,
    "embedding_l2": 0.05,
    "batch_size": 1024,
    "schedule": "plateau",
    "ema": 0.0,
    "distil": "none",
}
_RECIPE_GENES: dict[str, BaseDistribution] = {
    **{name: _only(value) for name, value in RECIPE.items()},
    "epochs": IntDistribution(1, 1),
}


def _narrowed(cls: Any, genes: dict[str, BaseDistribution]) -> Any:
    """Return a block class that declares `genes` as its choices: edits ask the class for them."""
    if set(genes) != set(cls.choices()):
        raise SpaceError(
            f"a block's genes are {sorted(cls.choices())}, but the grid of {cls.__name__} has "
            f"{sorted(genes)}; name every one"
        )
    return type(cls.__name__, (cls,), {"choices": classmethod(lambda _: dict(genes))})


class TabularSpace(CtrSpace):
    """Up to two blocks of `GRID` on id columns, with the recipe of the benchmark."""

    name: ClassVar[str] = "tabular_ctr"

    def __init__(self, layout: Layout = FRAPPE) -> None:
        if layout.dense or layout.lists:
            raise SpaceError(f"the tabular benchmark has id columns only, but got {layout}")
        super().__init__(layout, rows=200_000, blocks=BLOCKS, kinds=list(GRID), families=(NEURAL,))
        self.raws = (SPARSE,)
        self.classes = {kind: _narrowed(cls, GRID[kind]) for kind, cls in self.classes.items()}
        self._choices = {kind: dict(genes) for kind, genes in GRID.items()}
        self._width = _one_of(4, 16)
        # A candidate without blocks is its linear term: free, the gene would double the table.
        self.genes: Mapping[str, BaseDistribution] = {
            **self._all_genes(),
            "head.linear": _only(True),
            # Only the first block can be the one that reads nothing but ids: were this gene free,
            # no change of a single gene would wake an empty network.
            "block1.sparse": _only(True),
        }
        # Engines ask for the forms of the same 1,568 raw candidates again and again: with this
        # memory 200 trials of evolution take 5 s instead of 10 (2 cores under load, 2026-11-23).
        self._forms: dict[Candidate, Candidate] = {}
        self._keys: dict[Candidate, str] = {}

    def canonical(self, candidate: Candidate) -> Candidate:
        if candidate not in self._forms:
            self._forms[candidate] = super().canonical(candidate)
        return self._forms[candidate]

    def key(self, candidate: Candidate) -> str:
        """Return 16 hex digits of `title`, which outlives changes of how candidates are written."""
        form = self.canonical(candidate)
        if form not in self._keys:
            self._keys[form] = hashlib.sha256(title(form).encode()).hexdigest()[:16]
        return self._keys[form]

    def _block_params(self, i: int, node: Node) -> dict[str, Value]:
        found = super()._block_params(i, node)
        return {**found, "block1.sparse": True} if i == 1 else found

    def size(self) -> float:
        return super().size() / 2  # one input of the first block is fixed

    def recipe_genes(self) -> dict[str, BaseDistribution]:
        """Return genes of one value each."""
        return _RECIPE_GENES

    def own_starts(self) -> list[tuple[str, Candidate]]:
        """Return none: engines begin with nothing known."""
        return []

    def baselines(self) -> list[tuple[str, Candidate]]:
        """Return none: they lie outside the table."""
        return []

    def to_json(self) -> dict[str, Any]:
        """Return the name; the space has no arguments besides its columns."""
        return {"name": self.name, "arguments": {}}


def title(candidate: Candidate) -> str:
    """Return a canonical candidate in one line: embedding width, then blocks and what they read."""
    plan = candidate.architecture
    if plan is None:
        raise SpaceError(f"candidates of the table are networks, but got {candidate}")
    blocks = []
    for node in plan.nodes:
        free = [(n, v) for n, v in node.args if len(values(GRID[node.kind][n])) > 1]
        args = ", ".join(f"{name}={value}" for name, value in free)
        reads = " + ".join("ids" if s == SPARSE else f"block {int(s) + 1}" for s in node.inputs)
        blocks.append(f"{node.kind}({args}) of {reads}")
    return f"width {plan.embedding_width}: {'; '.join(blocks) or 'linear'}"


def values(gene: BaseDistribution) -> list[Value]:
    """Return every value of a gene.

    Raises:
        SpaceError: it has no finite list of values.
    """
    if isinstance(gene, CategoricalDistribution):
        return list(gene.choices)  # type: ignore[arg-type]
    if isinstance(gene, IntDistribution):
        return list(range(gene.low, gene.high + 1, gene.step))
    if isinstance(gene, FloatDistribution) and gene.single():
        return [gene.low]
    raise SpaceError(f"a closed space has genes of few values, but got {gene}")


def walks(space: Space) -> Iterator[Candidate]:
    """Yield the raw candidate of every path through a closed space, in the order of its genes."""
    path: list[tuple[str, list[Value]]] = []  # answers that are still to be given, this one first

    while True:
        asked = 0

        def ask(name: str) -> Value:
            nonlocal asked
            asked += 1
            if asked > len(path):
                path.append((name, values(space.genes[name])))
            return path[asked - 1][1][0]

        yield space.walk(ask)
        while path and len(path[-1][1]) == 1:
            path.pop()
        if not path:
            return
        path[-1] = (path[-1][0], path[-1][1][1:])


def every(space: Space | None = None) -> list[Candidate]:
    """Return all canonical candidates of a closed space, each key once, alike ones side by side."""
    whole = space or TabularSpace()
    found = {whole.key(raw): whole.canonical(raw) for raw in walks(whole)}
    return sorted(found.values(), key=_likeness)


def _likeness(candidate: Candidate) -> tuple[Any, ...]:
    plan = candidate.architecture
    if plan is None:
        return ()
    wiring = tuple(tuple(map(str, node.inputs)) for node in plan.nodes)
    kinds = tuple(node.kind for node in plan.nodes)
    args = tuple(str(node.args) for node in plan.nodes)
    return len(plan.nodes), wiring, kinds, plan.embedding_width, args
