"""Cross network of DCNv2 (Wang et al., WWW 2021), full matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from optuna.distributions import BaseDistribution, IntDistribution
from torch import Tensor, nn

from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined, linear
from autorec.blocks.growth import Feed, IndexMap, Plan, unheard


class Cross(Block):
    """`layers` times `x <- x0 * (W x + b) + x` with x0 the input: flat (B, d) to flat (B, d).

    Layer l adds interactions of order l + 1. Parameters: layers * (d^2 + d).
    """

    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("layers",)

    def __init__(self, shapes: Sequence[Shape], *, layers: int = 3) -> None:
        super().__init__(shapes, layers=layers)
        self.width = joined(shapes).size
        self.layers = nn.ModuleList([linear(self.width, self.width) for _ in range(layers)])
        self.shape = Flat(self.width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {"layers": IntDistribution(1, 4)}

    def flops(self) -> int:
        return len(self.layers) * (2 * self.width**2 + 3 * self.width)

    def weights(self) -> int:
        return len(self.layers) * (self.width**2 + self.width)

    def grow_into(self, grown: Cross, feed: Feed) -> Plan:
        tensors: dict[str, tuple[IndexMap, ...]] = {}
        for position, layer in enumerate(grown.layers):
            weight: Tensor = layer.weight  # type: ignore[assignment]
            if position >= len(self.layers):
                nn.init.zeros_(weight)
                continue
            unheard(weight, feed.units, feed.units)
            tensors[f"layers.{position}.weight"] = (feed.units, feed.units)
            tensors[f"layers.{position}.bias"] = (feed.units,)
        return Plan(tensors, feed.units)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, sum d_i)."""
        first = join(inputs)
        out = first
        for layer in self.layers:
            out = first * layer(out) + out
        return out
