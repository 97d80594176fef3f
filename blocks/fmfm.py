"""Field-matrixed factorisation machine (Sun et al., WWW 2021), second order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import BaseDistribution
from torch import Tensor, nn

from autorec.blocks._pairs import pair_ends, pair_map
from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined_fields
from autorec.blocks.growth import Feed, Plan, same


class FmFM(Block):
    """Sum over i < j of `e_i M_ij e_j^T`: fields (B, F, D) to flat (B, 1).

    The matrices M_ij (D, D) are laid out as one matrix (F D, F D) that is block-wise strictly
    upper triangular. Half of its product with the flattened input is spent on zeros, but that
    product is a single one and stores (B, F D) where a product per pair would store
    (B, F (F - 1) / 2, D). With one field there is no pair and the output is 0.
    Parameters: F (F - 1) / 2 * D^2.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "flat"

    def __init__(self, shapes: Sequence[Shape]) -> None:
        super().__init__(shapes)
        self.input = joined_fields(shapes)
        left, right = pair_ends(self.input.fields)
        self.positions: Tensor
        self.register_buffer("positions", left * self.input.fields + right, persistent=False)
        self.weight = nn.Parameter(torch.empty(len(left), self.input.width, self.input.width))
        # Xavier-normal of each matrix: fans of D and D.
        nn.init.normal_(self.weight, std=self.input.width**-0.5)
        self.shape = Flat(1)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {}

    def flops(self) -> int:
        return 2 * self.input.size**2 + 2 * self.input.size

    def weights(self) -> int:
        pairs = self.input.fields * (self.input.fields - 1) // 2
        return pairs * self.input.width**2

    def grow_into(self, grown: FmFM, feed: Feed) -> Plan:
        nn.init.zeros_(grown.weight)
        width = feed.width or ()
        return Plan({"weight": (pair_map(feed.units), width, width)}, same(1))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to flat (B, 1)."""
        flat = join(inputs).flatten(1)
        return ((flat @ self._matrix()) * flat).sum(dim=1, keepdim=True)

    def _matrix(self) -> Tensor:
        count, width = self.input.fields, self.input.width
        blocks = self.weight.new_zeros(count * count, width, width)
        blocks = blocks.index_copy(0, self.positions, self.weight)
        return blocks.view(count, count, width, width).transpose(1, 2).flatten(2).flatten(0, 1)
