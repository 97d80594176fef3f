"""Linear map with bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from optuna.distributions import BaseDistribution, IntDistribution
from torch import Tensor

from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined, linear
from autorec.blocks.growth import Feed, Plan, longer, unheard


class Linear(Block):
    """`W x + b`: flat (B, d) to flat (B, width). Parameters: d * width + width.

    Args:
        shapes: shapes of the inputs, joined to (B, d).
        width: units of the output.
    """

    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("width",)

    def __init__(self, shapes: Sequence[Shape], *, width: int = 64) -> None:
        super().__init__(shapes, width=width)
        self.inner = joined(shapes).size
        self.map = linear(self.inner, width)
        self.shape = Flat(width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {"width": IntDistribution(8, 512, log=True)}

    def flops(self) -> int:
        return 2 * self.map.weight.numel()

    def weights(self) -> int:
        return (self.inner + 1) * self.map.out_features

    def grow_into(self, grown: Linear, feed: Feed) -> Plan:
        units = longer(self.map.out_features, grown.map.out_features)
        unheard(grown.map.weight, units, feed.units)
        return Plan({"map.weight": (units, feed.units), "map.bias": (units,)}, units)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, width)."""
        out: Tensor = self.map(join(inputs))
        return out
