"""One table for all id fields: codes to field embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from optuna.distributions import BaseDistribution, IntDistribution
from torch import Tensor

from autorec.blocks._tables import TableBlock, starts, table
from autorec.blocks.base import TensorKind


class Embedding(TableBlock):
    """Rows of one shared table: codes (B, F) and lists of codes (B, L) to fields (B, F + lists, D).

    All fields lie in one parameter, so that a batch costs one gather, one optimiser step and one
    regulariser instead of one per field.

    Args:
        rows: table rows of each id field, in order of the codes.
        list_rows: table rows of each list field.
        width: D.
    """

    gives: ClassVar[TensorKind] = "field"
    least_codes: ClassVar[int] = 0

    def __init__(self, rows: Sequence[int], list_rows: Sequence[int] = (), *, width: int) -> None:
        super().__init__(rows, list_rows, width)
        begins = starts(self.counts)
        self.table = table(begins[-1], width)
        self.offsets: Tensor
        offsets = torch.tensor(begins[: self.ids], dtype=torch.int32)
        self.register_buffer("offsets", offsets, persistent=False)
        self.starts = begins[:-1]

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {"width": IntDistribution(4, 64, log=True)}

    def weights(self) -> int:
        return sum(self.counts) * int(self.arguments["width"])

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Codes (B, F), then one (B, L_i) per list, all int32, to fields (B, F + lists, D)."""
        if self.tapped:
            return self.looked_up(inputs)
        codes, *lists = inputs
        parts = []
        if codes.shape[1]:
            parts.append(F.embedding(codes + self.offsets, self.table))
        for start, values in zip(self.starts[self.ids :], lists, strict=True):
            parts.append(self._pooled(values, start).unsqueeze(1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def rows_of(self, codes: Tensor, field: slice) -> Tensor:
        first = self.offsets if field.stop == self.ids else self.starts[field.start]
        return self.read(self.table, codes + first)

    def _pooled(self, values: Tensor, start: int) -> Tensor:
        # embedding_bag leaves out `padding_idx` and gives 0 for an empty bag, which gets row 0
        # here.
        mean = F.embedding_bag(values + start, self.table, mode="mean", padding_idx=start)
        empty = (values == 0).all(dim=1, keepdim=True)
        return torch.where(empty, self.table[start], mean)
