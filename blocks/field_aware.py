"""Field-aware pairs (Juan et al., FFM, RecSys 2016; as fields also in ONN, Yang et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import BaseDistribution, IntDistribution
from torch import Tensor

from autorec.blocks._tables import TableBlock, starts, table
from autorec.blocks.base import Fields, TensorKind
from autorec.blocks.growth import Feed, Plan, longer, same


class FieldAware(TableBlock):
    """e_i^(j) * e_j^(i) for every pair i < j: codes (B, F) and lists to fields (B, F(F-1)/2, D).

    Every id has F vectors, one for each field it can meet, so that what it learns with one field is
    not disturbed by another. The sum over pairs and D is FFM; a network on top is ONN. With one
    field there is no pair and the output is one field of zeros. Rows start at N(0, 1e-2): from 1e-4
    the products, and with them their gradients, start at 1e-8 and hardly move.

    Parameters: rows x F x D.

    Args:
        rows: codes of each id field.
        list_rows: codes of each list field.
        width: D.
    """

    role: ClassVar[str] = "pairs"
    gives: ClassVar[TensorKind] = "field"

    def __init__(self, rows: Sequence[int], list_rows: Sequence[int] = (), *, width: int) -> None:
        super().__init__(rows, list_rows, width)
        fields = len(self.counts)
        begins = starts(self.counts)
        self.table = table(begins[-1], fields * width)
        torch.nn.init.normal_(self.table, std=1e-2)
        left, right = torch.triu_indices(fields, fields, offset=1)
        self.first: Tensor
        self.left: Tensor
        self.right: Tensor
        self.register_buffer("first", torch.tensor(begins[:-1]), persistent=False)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.shape = Fields(max(1, len(left)), width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {"width": IntDistribution(4, 64, log=True)}

    def flops(self) -> int:
        return len(self.left) * int(self.arguments["width"])

    def weights(self) -> int:
        return sum(self.counts) * len(self.counts) * int(self.arguments["width"])

    def grow_into(self, grown: FieldAware, feed: Feed) -> Plan:
        fields, old = len(self.counts), self.arguments["width"]
        width = longer(old, grown.arguments["width"])
        each = [
            part if part < 0 else field * old + part for field in range(fields) for part in width
        ]
        tensors = {"table": (same(sum(self.counts)), tuple(each))}
        return Plan(tensors, same(max(1, len(self.left))), width)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Codes (B, F), then one (B, L_i) per list, all int32, to fields (B, pairs, D)."""
        joined = self.looked_up(inputs)
        # (B, field, field it meets, D)
        met: Tensor = joined.view(*joined.shape[:2], len(self.counts), -1)
        if not len(self.left):
            return met[:, 0] * 0.0
        return met[:, self.left, self.right] * met[:, self.right, self.left]

    def rows_of(self, codes: Tensor, field: slice) -> Tensor:
        return self.read(self.table, codes.long() + self.first[field])
