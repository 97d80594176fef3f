"""Factorisation machine, second order (Rendle, ICDM 2010)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from optuna.distributions import BaseDistribution
from torch import Tensor

from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined
from autorec.blocks.growth import Feed, Plan, need_same_inputs, same


class FM(Block):
    """Sum over all pairs of fields of their inner product: fields (B, F, D) to flat (B, 1).

    Computed as half of (square of sum minus sum of squares), O(F D) instead of O(F^2 D). With one
    field there is no pair and the output is 0.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "flat"

    def __init__(self, shapes: Sequence[Shape]) -> None:
        super().__init__(shapes)
        self.numbers = joined(shapes).size
        self.shape = Flat(1)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {}

    def flops(self) -> int:
        return 4 * self.numbers

    def weights(self) -> int:
        return 0

    def grow_into(self, grown: FM, feed: Feed) -> Plan:
        need_same_inputs(self, feed)
        return Plan({}, same(1))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to flat (B, 1)."""
        fields = join(inputs)
        total = fields.sum(dim=1)
        pairs = total.square().sum(dim=1) - fields.square().sum(dim=(1, 2))
        return 0.5 * pairs.unsqueeze(1)
