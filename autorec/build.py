"""From a candidate's architecture to a network: the one place where blocks are wired.

Alignment is explicit: a block that reads flat tensors gets its field inputs flattened, a block that
reads fields gets its flat inputs lifted by a linear map to one more field of width D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from autorec.architecture import DENSE, SPARSE, Architecture, Source
from autorec.blocks.base import Block, Fields, Flat, Shape
from autorec.candidate import Candidate
from autorec.catalogue import Catalogue
from autorec.errors import SpaceError
from autorec.seeding import torch_seeded

if TYPE_CHECKING:
    from autorec.schema import Layout

BLOCKS = Catalogue("autorec.blocks", leaf="Block")
_FIRST = "first order"


class Inputs(Protocol):
    """What a network reads of a batch of B rows (see `autorec.train.batches.Batch`)."""

    @property
    def codes(self) -> Tensor:
        """int32 (B, F): one code per id field of the layout."""

    @property
    def lists(self) -> Sequence[Tensor]:
        """int32 (B, L_i): one tensor per list field of the layout."""

    @property
    def dense(self) -> Tensor:
        """float32 (B, Q): one number per dense field of the layout, NaN where missing."""


class _Lift(nn.Module):
    """Flat (B, d) to one field (B, 1, D)."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, width, bias=False)
        nn.init.xavier_normal_(self.linear.weight)

    def forward(self, flat: Tensor) -> Tensor:
        return self.linear(flat).unsqueeze(1)  # type: ignore[no-any-return]


class Network(nn.Module):
    """Codes and numbers of a batch to outputs (B,), through the blocks of one architecture."""

    def __init__(
        self, candidate: Candidate, layout: Layout, bias: float, hash_cap: int | None = None
    ) -> None:
        super().__init__()
        plan = candidate.architecture
        if plan is None:
            raise SpaceError(f"only candidates with an architecture are built, but got {candidate}")
        self.plan = plan
        self._read_columns(candidate, layout, hash_cap)
        shapes: dict[Source, Shape] = {}
        if self.dense_size:
            shapes[DENSE] = Flat(self.dense_size)
        if self.table_rows and plan.reads(SPARSE):
            self.embedding: Block = BLOCKS.get("embedding")(
                self.id_rows, self.list_rows, width=plan.embedding_width
            )
            shapes[SPARSE] = _shape_of(self.embedding)
        self.blocks = nn.ModuleList()
        self.aligners = nn.ModuleList()
        for position, node in enumerate(plan.nodes):
            aligners, block = self._wire(node.kind, dict(node.args), node.inputs, shapes, plan)
            self.aligners.append(aligners)
            self.blocks.append(block)
            shapes[position] = _shape_of(block)
        self._make_head(plan, shapes, bias)

    def _read_columns(self, candidate: Candidate, layout: Layout, hash_cap: int | None) -> None:
        features = candidate.features
        kept = [i for i, f in enumerate(layout.sparse) if features.bins or not f.binned]
        rows = [layout.sparse[i].rows for i in kept]
        list_rows = [field.rows for field in layout.lists]
        cap = max(hash_cap, 3) if hash_cap else None
        self.id_rows = [min(r, cap) if cap else r for r in rows]
        self.list_rows = [min(r, cap) if cap else r for r in list_rows]
        self.hash_cap = cap if cap and max([*rows, *list_rows], default=0) > cap else None
        self.table_rows = sum(self.id_rows) + sum(self.list_rows)
        self.kept = None if len(kept) == len(layout.sparse) else kept
        dense = layout.dense if features.dense else ()
        self.nullable = [i for i, field in enumerate(dense) if field.nullable]
        self.dense_size = len(dense) + len(self.nullable)

    def _wire(
        self,
        kind: str,
        args: dict[str, Any],
        inputs: Sequence[Source],
        shapes: dict[Source, Shape],
        plan: Architecture,
    ) -> tuple[nn.ModuleList, nn.Module]:
        missing = [source for source in inputs if source not in shapes]
        if missing or not inputs:
            raise SpaceError(
                f"a {kind} block must read inputs that exist, but reads {list(inputs)} of "
                f"{list(shapes)}; build the canonical candidate"
            )
        cls = BLOCKS.get(kind)
        aligned = nn.ModuleList()
        given: list[Shape] = []
        for shape in [shapes[source] for source in inputs]:
            if cls.reads == "flat":
                aligned.append(nn.Flatten() if isinstance(shape, Fields) else nn.Identity())
                given.append(Flat(shape.size))
            elif isinstance(shape, Fields):
                aligned.append(nn.Identity())
                given.append(shape)
            else:
                aligned.append(_Lift(shape.size, plan.embedding_width))
                given.append(Fields(1, plan.embedding_width))
        return aligned, cls(given, **args)

    def _make_head(self, plan: Architecture, shapes: dict[Source, Shape], bias: float) -> None:
        size = sum(shapes[i].size for i in plan.sinks)
        self.head = nn.Linear(size, 1) if size else None
        if self.head is not None:
            nn.init.xavier_normal_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.base = nn.Parameter(torch.tensor(float(bias)))
        if not plan.linear:
            return
        if self.table_rows:
            self.first_order = BLOCKS.get("embedding")(self.id_rows, self.list_rows, width=1)
        if self.dense_size:
            self.first_order_dense = nn.Linear(self.dense_size, 1, bias=False)
            nn.init.zeros_(self.first_order_dense.weight)

    def tables(self) -> list[nn.Parameter]:
        """Return the id tables: the parameters that whole-table L2 applies to."""
        found = [getattr(self, name, None) for name in ("embedding", "first_order")]
        return [block.table for block in found if block is not None]

    def flops(self) -> int:
        """Return multiply-adds times two for one row in one forward pass, tables not counted."""
        total = sum(block.flops() for block in self.blocks)  # type: ignore[operator]
        linears = [m for m in self.aligners.modules() if isinstance(m, nn.Linear)]
        linears += [self.head] if self.head is not None else []
        return int(total + sum(2 * m.in_features * m.out_features for m in linears))

    def forward(self, batch: Inputs) -> Tensor:
        """Return outputs (B,) in the task's own scale (logits, standardised ratings)."""
        values = self._inputs(batch)
        for position, node in enumerate(self.plan.nodes):
            aligners: Any = self.aligners[position]
            inputs = [
                align(values[source]) for align, source in zip(aligners, node.inputs, strict=True)
            ]
            values[position] = self.blocks[position](inputs)
        out = self.base.expand(len(batch.codes))
        if self.head is not None:
            sinks = [values[i].flatten(1) for i in self.plan.sinks]
            out = out + self.head(torch.cat(sinks, dim=1)).squeeze(1)
        return self._add_first_order(out, values) if self.plan.linear else out

    def _inputs(self, batch: Inputs) -> dict[Source, Tensor]:
        values: dict[Source, Tensor] = {}
        if self.dense_size:
            numbers = batch.dense.nan_to_num(0.0)
            if self.nullable:
                missing = batch.dense[:, self.nullable].isnan().to(numbers.dtype)
                numbers = torch.cat([numbers, missing], dim=1)
            values[DENSE] = numbers
        if self.table_rows:
            codes = batch.codes if self.kept is None else batch.codes[:, self.kept]
            tables = [self._hashed(codes), *(self._hashed(part) for part in batch.lists)]
            if self.plan.reads(SPARSE):
                values[SPARSE] = self.embedding(tables)
            if self.plan.linear:
                values[_FIRST] = self.first_order(tables).sum(dim=(1, 2))
        return values

    def _hashed(self, codes: Tensor) -> Tensor:
        if self.hash_cap is None:
            return codes
        folded = 2 + (codes - 2) % (self.hash_cap - 2)
        return torch.where(codes < self.hash_cap, codes, folded)

    def _add_first_order(self, out: Tensor, values: dict[Source, Tensor]) -> Tensor:
        if self.table_rows:
            out = out + values[_FIRST]
        if self.dense_size:
            out = out + self.first_order_dense(values[DENSE]).squeeze(1)
        return out


def _shape_of(block: nn.Module) -> Shape:
    shape: Shape = block.shape  # type: ignore[assignment]
    return shape


def build(
    candidate: Candidate,
    layout: Layout,
    *,
    bias: float = 0.0,
    seed: int = 0,
    hash_cap: int | None = None,
) -> Network:
    """Return the network of a canonical neural or linear candidate, weights drawn from `seed`.

    Args:
        candidate: canonical on `layout` (`Space.canonical`).
        layout: the columns that a batch holds.
        bias: output of the untrained head (`Task.bias`).
        seed: of the initial weights; the global generator is left as it was.
        hash_cap: most rows of one id table; higher codes share rows.

    Raises:
        SpaceError: the candidate has no architecture, or is not canonical on this layout.
    """
    with torch_seeded(seed, "init"):
        return Network(candidate, layout, bias, hash_cap)
