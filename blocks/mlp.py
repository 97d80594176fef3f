"""Multilayer perceptron with optional batch normalisation and dropout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from torch import Tensor, nn

from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined


class MLP(Block):
    """`layers` times Linear(width), normalisation, ReLU, dropout: flat (B, d) to flat (B, width).

    Linears start Xavier-normal with zero bias, which is how public CTR leaderboards were won
    (specification of today's CTR recipes; a default Kaiming-uniform start was not better there).

    Args:
        shapes: shapes of the inputs, joined to (B, d).
        width: units of every layer.
        layers: number of layers.
        dropout: probability of zeroing a unit in training.
        norm: `"none"` or `"batch"`.
    """

    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "flat"

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        width: int = 400,
        layers: int = 3,
        dropout: float = 0.0,
        norm: str = "none",
    ) -> None:
        super().__init__()
        self.widths = [joined(shapes).size] + [width] * layers
        steps: list[nn.Module] = []
        for inner, outer in pairwise(self.widths):
            linear = nn.Linear(inner, outer)
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            steps.append(linear)
            if norm == "batch":
                steps.append(nn.BatchNorm1d(outer))
            steps.append(nn.ReLU())
            if dropout > 0:
                steps.append(nn.Dropout(dropout))
        self.steps = nn.Sequential(*steps)
        self.shape = Flat(width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "width": IntDistribution(32, 1024, log=True),
            "layers": IntDistribution(1, 4),
            "dropout": FloatDistribution(0.0, 0.5, step=0.1),
            "norm": CategoricalDistribution(("none", "batch")),
        }

    def flops(self) -> int:
        return sum(2 * inner * outer for inner, outer in pairwise(self.widths))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, width)."""
        out: Tensor = self.steps(join(inputs))
        return out
