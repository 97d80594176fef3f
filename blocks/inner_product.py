"""Inner products of PNN (Qu et al., ICDM 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from optuna.distributions import BaseDistribution
from torch import Tensor

from autorec.blocks._pairs import no_pairs, pair_ends, pair_outputs
from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined_fields
from autorec.blocks.growth import Feed, Plan, need_same_width


class InnerProduct(Block):
    """All `<e_i, e_j>` with i < j: fields (B, F, D) to flat (B, F (F - 1) / 2).

    Pairs come in the order (0, 1), (0, 2), ..., (1, 2), ... With one field there is no pair and
    the output is one 0. No parameters.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "flat"

    def __init__(self, shapes: Sequence[Shape]) -> None:
        super().__init__(shapes)
        self.input = joined_fields(shapes)
        left, right = pair_ends(self.input.fields)
        self.positions: Tensor
        self.register_buffer("positions", left * self.input.fields + right, persistent=False)
        self.shape = Flat(max(1, len(left)))

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {}

    def flops(self) -> int:
        return 2 * self.input.fields * self.input.size

    def weights(self) -> int:
        return 0

    def grow_into(self, grown: InnerProduct, feed: Feed) -> Plan:
        need_same_width(self, feed)
        return Plan({}, pair_outputs(self, feed))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to flat (B, pairs)."""
        fields = join(inputs)
        if self.input.fields == 1:
            return no_pairs(fields)
        return (fields @ fields.mT).flatten(1).index_select(1, self.positions)
