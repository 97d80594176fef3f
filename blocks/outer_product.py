"""Outer products of PNN (Qu et al., ICDM 2016), each against a kernel of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import BaseDistribution
from torch import Tensor, nn

from autorec.blocks._pairs import no_pairs, pair_ends, pair_outputs
from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined_fields
from autorec.blocks.growth import FRESH, Feed, Plan


class OuterProduct(Block):
    """All `e_i^T W_ij e_j` with i < j: fields (B, F, D) to flat (B, F (F - 1) / 2).

    Each output is the outer product of two fields weighted by a matrix W_ij of its own, without
    the outer product being stored. Pairs come in the order (0, 1), (0, 2), ..., (1, 2), ... With
    one field there is no pair and the output is one 0. Parameters: F (F - 1) / 2 * D^2.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "flat"

    def __init__(self, shapes: Sequence[Shape]) -> None:
        super().__init__(shapes)
        self.width = joined_fields(shapes).width
        left, right = pair_ends(joined_fields(shapes).fields)
        self.left: Tensor
        self.right: Tensor
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.pairs = len(left)
        self.weight = nn.Parameter(torch.empty(self.pairs, self.width, self.width))
        # Xavier-normal of each matrix: fans of D and D.
        nn.init.normal_(self.weight, std=self.width**-0.5)
        self.shape = Flat(max(1, self.pairs))

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {}

    def flops(self) -> int:
        return self.pairs * (2 * self.width**2 + 2 * self.width)

    def weights(self) -> int:
        return self.pairs * self.width**2

    def grow_into(self, grown: OuterProduct, feed: Feed) -> Plan:
        outputs, width = pair_outputs(self, feed), feed.width or ()
        pairs = outputs if self.pairs else ()
        with torch.no_grad():
            # An old pair hears a fresh part of D from either side; a fresh pair is a fresh output.
            grown.weight[[source != FRESH for source in pairs]] = 0.0
        return Plan({"weight": (pairs, width, width)}, outputs)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to flat (B, pairs)."""
        fields = join(inputs)
        if not self.pairs:
            # The weight is empty: its sum is 0 and gives it a gradient.
            return no_pairs(fields) + self.weight.sum()
        left, right = fields.index_select(1, self.left), fields.index_select(1, self.right)
        return (torch.einsum("bpd,pde->bpe", left, self.weight) * right).sum(dim=2)
