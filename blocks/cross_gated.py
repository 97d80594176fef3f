"""Gated cross network, GDCN (Wang et al., CIKM 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from optuna.distributions import BaseDistribution, IntDistribution
from torch import Tensor, nn

from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined, linear
from autorec.blocks.growth import Feed, IndexMap, Plan, unheard


class GatedCross(Block):
    """`layers` times `x <- x0 * (W x + b) * sigmoid(G x) + x`: flat (B, d) to flat (B, d).

    x0 is the input. The gate decides, unit by unit, how much of the interactions of order l + 1
    layer l lets through. Parameters: layers * (2 d^2 + d).

    Args:
        shapes: shapes of the inputs, joined to (B, d).
        layers: number of layers.
    """

    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("layers",)

    def __init__(self, shapes: Sequence[Shape], *, layers: int = 3) -> None:
        super().__init__(shapes, layers=layers)
        self.width = width = joined(shapes).size
        self.crosses = nn.ModuleList([linear(width, width) for _ in range(layers)])
        self.gates = nn.ModuleList([linear(width, width, bias=False) for _ in range(layers)])
        self.shape = Flat(width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {"layers": IntDistribution(1, 4)}

    def flops(self) -> int:
        return len(self.gates) * (4 * self.width**2 + 8 * self.width)

    def weights(self) -> int:
        return len(self.gates) * (2 * self.width**2 + self.width)

    def grow_into(self, grown: GatedCross, feed: Feed) -> Plan:
        tensors: dict[str, tuple[IndexMap, ...]] = {}
        for position, (cross, gate) in enumerate(zip(grown.crosses, grown.gates, strict=True)):
            weight: Tensor = cross.weight  # type: ignore[assignment]
            gating: Tensor = gate.weight  # type: ignore[assignment]
            if position >= len(self.gates):
                nn.init.zeros_(weight)
                continue
            unheard(weight, feed.units, feed.units)
            unheard(gating, feed.units, feed.units)
            tensors[f"crosses.{position}.weight"] = (feed.units, feed.units)
            tensors[f"crosses.{position}.bias"] = (feed.units,)
            tensors[f"gates.{position}.weight"] = (feed.units, feed.units)
        return Plan(tensors, feed.units)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, sum d_i)."""
        first = join(inputs)
        out = first
        for cross, gate in zip(self.crosses, self.gates, strict=True):
            out = first * cross(out) * gate(out).sigmoid() + out
        return out
