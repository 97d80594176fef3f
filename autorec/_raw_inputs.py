"""What a network reads of a batch: columns, id tables, tables of crosses, and numbers as fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from autorec.architecture import (
    BINS,
    CROSSES,
    DENSE,
    PAIRS,
    SHARED,
    SPARSE,
    SPARSE2,
    Architecture,
    Source,
    Value,
)
from autorec.blocks._halved import NarrowTable
from autorec.blocks._side_by_side import Part, SideBySide
from autorec.blocks.base import Block, Flat
from autorec.candidate import Candidate
from autorec.catalogue import Catalogue

if TYPE_CHECKING:
    from autorec.schema import Layout

BLOCKS = Catalogue("autorec.blocks", leaf="Block")
FIRST = "first order"


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


class RawInputs(nn.Module):
    """The part of a network that turns a batch into its raw inputs.

    Attributes:
        plan: the architecture.
        tables_read: what gives the fields of each raw input of ids that a node reads.
        first_order: one weight for every code, where the network has a linear term.
        kept, lists, numbers: positions of the columns of codes, lists and numbers, None: all.
        crosses, hard: positions, in what is kept, of crosses with tables of their own, and of bins
            that soft bins take the place of in the id tables.
        soft: positions of the numbers that go through soft bins.
    """

    plan: Architecture
    tables_read: nn.ModuleDict
    first_order: Block

    def read_columns(self, candidate: Candidate, layout: Layout, hash_cap: int | None) -> None:
        """Note which columns of `layout` a candidate reads, and how large their tables are."""
        features, plan = candidate.features, self.plan
        kept, lists = features.sparse_of(layout), features.lists_of(layout)
        fields = [layout.sparse[i] for i in kept]
        rows = [field.rows for field in fields]
        list_rows = [layout.lists[i].rows for i in lists]
        cap = max(hash_cap, 3) if hash_cap else None
        self.id_rows = [min(r, cap) if cap else r for r in rows]
        self.list_rows = [min(r, cap) if cap else r for r in list_rows]
        self.hash_cap = cap if cap and max([*rows, *list_rows], default=0) > cap else None
        self.table_rows = sum(self.id_rows) + sum(self.list_rows)
        self.kept = None if len(kept) == len(layout.sparse) else kept
        self.lists = None if len(lists) == len(layout.lists) else lists
        own = plan.crosses != SHARED
        self.crosses = [at for at, field in enumerate(fields) if field.form == "id" and own]
        self.soft = features.numbers_of(layout) if plan.numbers != BINS and features.bins else []
        self.hard = [at for at, field in enumerate(fields) if field.binned and self.soft]
        numbers = features.dense_of(layout)
        self.nullable = [i for i, at in enumerate(numbers) if layout.dense[at].nullable]
        self.dense_size = len(numbers) + len(self.nullable)
        self.numbers = None if len(numbers) == len(layout.dense) else numbers

    def made_tables(self) -> dict[str, Block]:
        """Return what gives the fields of each raw input of ids that a node reads."""
        plan, made = self.plan, {}
        if self.table_rows or self.soft:
            made = {raw: self._embedded(plan) for raw in (SPARSE, SPARSE2) if plan.reads(raw)}
        if self.table_rows and plan.reads(PAIRS):
            cls = BLOCKS.get("field_aware")
            made[PAIRS] = cls(self.id_rows, self.list_rows, width=plan.embedding_width)
        return made

    def _embedded(self, plan: Architecture) -> Block:
        """Return what gives the fields of one raw input of embedded ids."""
        more, width = [], plan.embedding_width
        if self.soft:
            cls, args = BLOCKS.get(plan.numbers), dict(plan.numbers_args)
            more.append(Part(cls([Flat(len(self.soft))], width=width, **args), numbers=True))
        halvings = CROSSES.get(plan.crosses, 0)
        return self.side_by_side(plan.embedding, dict(plan.embedding_args), width, halvings, more)

    def side_by_side(
        self,
        kind: str,
        args: dict[str, Value],
        width: int,
        halvings: int = 0,
        more: Sequence[Part] = (),
    ) -> Block:
        """Return a table of ids and lists, one of crosses where they have their own, and `more`.

        Where `more` gives fields for numbers, their bins are left out.
        """
        parts: list[Part] = []
        elsewhere = {*self.crosses, *(self.hard if more else ())}
        plain = tuple(at for at in range(len(self.id_rows)) if at not in elsewhere)
        if plain or self.list_rows:
            rows = [self.id_rows[at] for at in plain]
            table = BLOCKS.get(kind)(rows, self.list_rows, width=width, **args)
            parts.append(Part(table, plain, lists=True))
        if self.crosses:
            rows = [self.id_rows[at] for at in self.crosses]
            crosses = NarrowTable(rows, width=width, halvings=halvings)
            crosses.l2 = "cross_l2"
            parts.append(Part(crosses, tuple(self.crosses)))
        parts += more
        alone = len(parts) == 1 and parts[0].lists
        return parts[0].block if alone else SideBySide(parts, width=width)

    def raw_values(self, batch: Inputs) -> dict[Source, Tensor]:
        """Return the tensors of the raw inputs that are read, and of the first order (B,)."""
        values: dict[Source, Tensor] = {}
        if self.dense_size:
            read = batch.dense if self.numbers is None else batch.dense[:, self.numbers]
            numbers = read.nan_to_num(0.0)
            if self.nullable:
                missing = read[:, self.nullable].isnan().to(numbers.dtype)
                numbers = torch.cat([numbers, missing], dim=1)
            values[DENSE] = numbers
        if not self.table_rows and not self.tables_read:
            return values
        codes = batch.codes if self.kept is None else batch.codes[:, self.kept]
        lists = batch.lists if self.lists is None else [batch.lists[i] for i in self.lists]
        tables = [self._hashed(codes), *(self._hashed(part) for part in lists)]
        wider = [*tables, batch.dense[:, self.soft]]
        for raw, table in self.tables_read.items():
            values[raw] = table(wider if isinstance(table, SideBySide) else tables)
        if self.plan.linear and self.table_rows:
            split = isinstance(self.first_order, SideBySide)
            values[FIRST] = self.first_order(wider if split else tables).sum(dim=(1, 2))
        return values

    def _hashed(self, codes: Tensor) -> Tensor:
        if self.hash_cap is None:
            return codes
        folded = 2 + (codes - 2) % (self.hash_cap - 2)
        return torch.where(codes < self.hash_cap, codes, folded)
