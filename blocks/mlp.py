"""Multilayer perceptron with optional normalisation and dropout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from torch import Tensor, nn

from autorec.blocks._dropout import Dropout
from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined, linear
from autorec.blocks.growth import Feed, IndexMap, Plan, longer, unheard
from autorec.errors import GrowthError

_NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class MLP(Block):
    """`layers` times Linear(width), normalisation, ReLU, dropout: flat (B, d) to flat (B, width).

    Linears start Xavier-normal with zero bias, which is how public CTR leaderboards were won
    (specification of today's CTR recipes; a default Kaiming-uniform start was not better there).

    Args:
        shapes: shapes of the inputs, joined to (B, d).
        width: units of every layer.
        layers: number of layers.
        dropout: probability of zeroing a unit in training.
        norm: `"none"`, `"batch"` or `"layer"`.
    """

    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("width", "layers")

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        width: int = 400,
        layers: int = 3,
        dropout: float = 0.0,
        norm: str = "none",
    ) -> None:
        super().__init__(shapes, width=width, layers=layers, dropout=dropout, norm=norm)
        self.widths = [joined(shapes).size] + [width] * layers
        steps: list[nn.Module] = []
        for inner, outer in pairwise(self.widths):
            steps.append(linear(inner, outer))
            if norm != "none":
                steps.append(_NORMS[norm](outer))
            steps.append(nn.ReLU())
            if dropout > 0:
                steps.append(Dropout(dropout))
        self.steps = nn.Sequential(*steps)
        self.shape = Flat(width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "width": IntDistribution(32, 1024, log=True),
            "layers": IntDistribution(1, 4),
            "dropout": FloatDistribution(0.0, 0.5, step=0.1),
            "norm": CategoricalDistribution(("none", "batch", "layer")),
        }

    def flops(self) -> int:
        return sum(2 * inner * outer for inner, outer in pairwise(self.widths))

    def weights(self) -> int:
        per_unit = 3 if self.arguments["norm"] != "none" else 1
        return sum(inner * outer + per_unit * outer for inner, outer in pairwise(self.widths))

    def grow_into(self, grown: MLP, feed: Feed) -> Plan:
        units = longer(self.widths[1], grown.widths[1])
        deeper = len(grown.widths) > len(self.widths)
        if self.arguments["norm"] == "layer" and (deeper or len(units) > self.widths[1]):
            raise GrowthError(
                "layer normalisation mixes all units of a layer, so that no fresh unit or layer "
                f"leaves the function as it was, but got width={grown.widths[1]} and "
                f"layers={len(grown.widths) - 1}; use norm='none' or 'batch'"
            )
        tensors: dict[str, tuple[IndexMap, ...]] = {}
        inputs = feed.units
        for position, step in enumerate(grown.steps):
            if position >= len(self.steps):
                _pass_through(step, self.widths[1])
                continue
            if isinstance(step, nn.Linear):
                unheard(step.weight, units, inputs)
                tensors[f"steps.{position}.weight"] = (units, inputs)
                tensors[f"steps.{position}.bias"] = (units,)
                inputs = units
            elif isinstance(step, tuple(_NORMS.values())):
                for name, tensor in [*step.named_parameters(), *step.named_buffers()]:
                    tensors[f"steps.{position}.{name}"] = (units,) if tensor.dim() else ()
        return Plan(tensors, units)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, width)."""
        out: Tensor = self.steps(join(inputs))
        return out


@torch.no_grad()
def _pass_through(step: nn.Module, old: int) -> None:
    """Make a fresh layer hand on the first `old` units, which ReLU has left non-negative."""
    if isinstance(step, nn.Linear):
        step.weight[:old] = 0.0
        step.weight[range(old), range(old)] = 1.0
    elif isinstance(step, nn.BatchNorm1d) and step.running_var is not None:
        step.running_var.fill_(1.0 - step.eps)
