"""Field gate of FinalNet (Zhu et al., SIGIR 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from torch import Tensor, nn

from autorec.blocks.base import Block, Fields, Shape, TensorKind, join, joined_fields
from autorec.blocks.growth import FRESH, Feed, IndexMap, Plan, unheard


class FieldGate(Block):
    """`E * (W E + b)`, concatenated with E, added to E, or alone: fields (B, F, D) to fields.

    W (F, F) mixes fields, each of the D positions by itself, so that each field is scaled by a sum
    over all fields. W starts at 0 and b at 1: a gate starts open. Gives (B, 2F, D), E first, for
    `residual="concat"` and (B, F, D) otherwise. Parameters: F^2 + F.

    Args:
        shapes: shapes of the inputs, joined to (B, F, D).
        residual: `"concat"`, `"sum"` or `"none"`.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "field"

    def __init__(self, shapes: Sequence[Shape], *, residual: str = "concat") -> None:
        super().__init__(shapes, residual=residual)
        read = joined_fields(shapes)
        self.fields, self.width = read.fields, read.width
        self.residual = residual
        self.gate = nn.Linear(self.fields, self.fields)
        nn.init.zeros_(self.gate.weight)
        nn.init.ones_(self.gate.bias)
        self.shape = Fields(2 * self.fields if residual == "concat" else self.fields, self.width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {"residual": CategoricalDistribution(("concat", "sum", "none"))}

    def flops(self) -> int:
        return (2 * self.fields**2 + 2 * self.fields) * self.width

    def weights(self) -> int:
        return self.fields**2 + self.fields

    def grow_into(self, grown: FieldGate, feed: Feed) -> Plan:
        unheard(grown.gate.weight, feed.units, feed.units)
        tensors: dict[str, tuple[IndexMap, ...]] = {
            "gate.weight": (feed.units, feed.units),
            "gate.bias": (feed.units,),
        }
        outputs = feed.units
        if self.residual == "concat":
            outputs += tuple(unit + self.fields if unit != FRESH else FRESH for unit in feed.units)
        return Plan(tensors, outputs, feed.width)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to fields (B, F or 2F, D)."""
        fields = join(inputs)
        gated: Tensor = fields * self.gate(fields.transpose(1, 2)).transpose(1, 2)
        if self.residual == "concat":
            return torch.cat([fields, gated], dim=1)
        return fields + gated if self.residual == "sum" else gated
