"""Cross network of DCNv2 (Wang et al., WWW 2021), full matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from optuna.distributions import BaseDistribution, IntDistribution
from torch import Tensor, nn

from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined


class Cross(Block):
    """`layers` times `x <- x0 * (W x + b) + x` with x0 the input: flat (B, d) to flat (B, d).

    Layer l adds interactions of order l + 1. Parameters: layers * (d^2 + d).
    """

    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "flat"

    def __init__(self, shapes: Sequence[Shape], *, layers: int = 3) -> None:
        super().__init__()
        self.width = joined(shapes).size
        self.layers = nn.ModuleList([nn.Linear(self.width, self.width) for _ in range(layers)])
        for linear in self.layers:
            nn.init.xavier_normal_(linear.weight)  # type: ignore[arg-type]
            nn.init.zeros_(linear.bias)  # type: ignore[arg-type]
        self.shape = Flat(self.width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {"layers": IntDistribution(1, 4)}

    def flops(self) -> int:
        return len(self.layers) * (2 * self.width**2 + 3 * self.width)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, sum d_i)."""
        first = join(inputs)
        out = first
        for linear in self.layers:
            out = first * linear(out) + out
        return out
