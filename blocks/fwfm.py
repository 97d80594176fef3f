"""Field-weighted factorisation machine (Pan et al., WWW 2018), second order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import BaseDistribution
from torch import Tensor, nn

from autorec.blocks._pairs import pair_ends, pair_map
from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined_fields
from autorec.blocks.growth import Feed, Plan, need_same_width, same


class FwFM(Block):
    """Sum over i < j of `r_ij <e_i, e_j>`: fields (B, F, D) to flat (B, 1).

    Computed as the sum of (R E) * E with R strictly upper triangular: one matrix product, and
    nothing larger than the input is stored. With one field there is no pair and the output is 0.
    Parameters: F (F - 1) / 2.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "flat"

    def __init__(self, shapes: Sequence[Shape]) -> None:
        super().__init__(shapes)
        self.input = joined_fields(shapes)
        left, right = pair_ends(self.input.fields)
        self.positions: Tensor
        self.register_buffer("positions", left * self.input.fields + right, persistent=False)
        self.weight = nn.Parameter(torch.empty(len(left)))
        # Xavier-normal of the linear map from all pairs to one unit.
        nn.init.normal_(self.weight, std=(2 / (len(left) + 1)) ** 0.5)
        self.shape = Flat(1)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {}

    def flops(self) -> int:
        return 2 * self.input.fields * self.input.size + 2 * self.input.size

    def weights(self) -> int:
        return self.input.fields * (self.input.fields - 1) // 2

    def grow_into(self, grown: FwFM, feed: Feed) -> Plan:
        need_same_width(self, feed)
        nn.init.zeros_(grown.weight)
        return Plan({"weight": (pair_map(feed.units),)}, same(1))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to flat (B, 1)."""
        fields, count = join(inputs), self.input.fields
        strengths = self.weight.new_zeros(count * count).index_copy(0, self.positions, self.weight)
        heard = strengths.view(count, count) @ fields
        return (heard * fields).sum(dim=(1, 2)).unsqueeze(1)
