"""Id table with fewer rows than ids: the hashing trick (Weinberger et al., ICML 2009)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from torch import Tensor

from autorec.blocks._tables import TableBlock, starts, table
from autorec.blocks.base import TensorKind

# 2^32 divided by the golden ratio, made odd: the multiplier of Fibonacci hashing (Knuth, vol. 3).
_MULTIPLIER = 2654435769


class HashedEmbedding(TableBlock):
    """Codes share rows: codes (B, F) and lists (B, L) to fields (B, F + lists, D).

    A field of R codes keeps 2 + ceil((R - 2) / ratio) rows. A code above 1 reads a row chosen by
    multiplicative hashing, so that neighbouring codes, which are alike in frequency, spread over
    the table; codes 0 (missing) and 1 (unknown) keep rows of their own.

    Args:
        rows: codes of each id field.
        list_rows: codes of each list field.
        width: D.
        ratio: codes per row.
    """

    gives: ClassVar[TensorKind] = "field"

    def __init__(
        self, rows: Sequence[int], list_rows: Sequence[int] = (), *, width: int, ratio: int = 4
    ) -> None:
        super().__init__(rows, list_rows, width, ratio=ratio)
        kept = [_kept(count, ratio) for count in self.counts]
        begins = starts([2 + count for count in kept])
        self.table = table(begins[-1], width)
        self.first: Tensor
        self.kept: Tensor
        self.register_buffer("first", torch.tensor(begins[:-1]), persistent=False)
        self.register_buffer("kept", torch.tensor(kept), persistent=False)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "width": IntDistribution(4, 64, log=True),
            "ratio": CategoricalDistribution((2, 4, 16, 64)),
        }

    def weights(self) -> int:
        kept = sum(2 + _kept(count, self.arguments["ratio"]) for count in self.counts)
        return int(kept * self.arguments["width"])

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Codes (B, F), then one (B, L_i) per list, all int32, to fields (B, F + lists, D)."""
        return self.looked_up(inputs)

    def rows_of(self, codes: Tensor, field: slice) -> Tensor:
        wide = codes.long()
        # Low bits of the product hardly mix; the high ones of 32 do.
        mixed = ((wide * _MULTIPLIER) & 0xFFFFFFFF) >> 8
        place = torch.where(wide < 2, wide, 2 + mixed % self.kept[field])
        return self.read(self.table, place + self.first[field])


def _kept(count: int, ratio: int) -> int:
    return math.ceil(max(count - 2, 1) / ratio)
