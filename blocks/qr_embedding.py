"""Quotient-remainder embeddings (Shi et al., KDD 2020), summed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from torch import Tensor

from autorec.blocks._tables import TableBlock, starts, table
from autorec.blocks.base import TensorKind


class QREmbedding(TableBlock):
    """E_r[c mod m] + E_q[c div m] with m = ceil(R / ratio) for a field of R codes.

    Every code keeps a vector of its own, as no two share quotient and remainder, in
    m + ceil(R / m) rows instead of R. The sum is used rather than the product, which hardly trains
    from rows that start near zero (LiRank, KDD 2024, section on hashing).

    Args:
        rows: codes of each id field.
        list_rows: codes of each list field.
        width: D.
        ratio: codes per remainder row.
    """

    gives: ClassVar[TensorKind] = "field"

    def __init__(
        self, rows: Sequence[int], list_rows: Sequence[int] = (), *, width: int, ratio: int = 16
    ) -> None:
        super().__init__(rows, list_rows, width, ratio=ratio)
        modulus = [math.ceil(count / ratio) for count in self.counts]
        quotients = [math.ceil(r / m) for r, m in zip(self.counts, modulus, strict=True)]
        self.remainder = table(sum(modulus), width)
        self.quotient = table(sum(quotients), width)
        self.modulus: Tensor
        self.remainder_first: Tensor
        self.quotient_first: Tensor
        first = torch.tensor(starts(modulus)[:-1])
        self.register_buffer("modulus", torch.tensor(modulus), persistent=False)
        self.register_buffer("remainder_first", first, persistent=False)
        second = torch.tensor(starts(quotients)[:-1])
        self.register_buffer("quotient_first", second, persistent=False)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "width": IntDistribution(4, 64, log=True),
            "ratio": CategoricalDistribution((4, 16, 64, 256)),
        }

    def weights(self) -> int:
        modulus = [math.ceil(count / self.arguments["ratio"]) for count in self.counts]
        rows = sum(m + math.ceil(r / m) for r, m in zip(self.counts, modulus, strict=True))
        return int(rows * self.arguments["width"])

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Codes (B, F), then one (B, L_i) per list, all int32, to fields (B, F + lists, D)."""
        return self.looked_up(inputs)

    def rows_of(self, codes: Tensor, field: slice) -> Tensor:
        wide, modulus = codes.long(), self.modulus[field]
        remainder = self.read(self.remainder, wide % modulus + self.remainder_first[field])
        quotient = self.read(self.quotient, wide // modulus + self.quotient_first[field])
        return remainder + quotient
