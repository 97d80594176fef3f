"""Squeeze and excitation of fields in FiBiNET (Huang et al., RecSys 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from torch import Tensor, nn

from autorec.blocks.base import Block, Shape, TensorKind, join, joined_fields, linear
from autorec.blocks.growth import Feed, IndexMap, Plan, longer, need_same_width, unheard
from autorec.errors import ConfigError

# Biases of the gates: ReLU(1) = 1 and sigmoid(2) = 0.88, so that fields start nearly as they are.
_OPEN = {"relu": 1.0, "sigmoid": 2.0}


class SENet(Block):
    """`E * act(W2 ReLU(W1 z + b1) + b2)`, z the means over D: fields (B, F, D) to (B, F, D).

    Each field is scaled by one gate that has seen all fields; W1 maps the F means to h units, h =
    max(1, F // reduction). The paper has no biases: its gates start near 0 with small embeddings,
    and a ReLU gate that starts below 0 in all rows never learns. Here b2 starts at 1 (ReLU) or 2
    (sigmoid), so that gates start alive and nearly open. Parameters: 2 F h + h + F.

    Args:
        shapes: shapes of the inputs, joined to (B, F, D).
        reduction: fields per unit of the hidden layer.
        activation: of the gates, `"relu"` or `"sigmoid"`.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "field"

    def __init__(
        self, shapes: Sequence[Shape], *, reduction: int = 3, activation: str = "relu"
    ) -> None:
        super().__init__(shapes, reduction=reduction, activation=activation)
        if activation not in _OPEN:
            raise ConfigError(
                f"activation is one of {tuple(_OPEN)}, but got {activation!r}; choose one"
            )
        self.activation = activation
        self.shape = self.read = joined_fields(shapes)
        self.hidden = max(1, self.read.fields // reduction)
        self.squeeze = linear(self.read.fields, self.hidden)
        self.excite = linear(self.hidden, self.read.fields)
        nn.init.constant_(self.excite.bias, _OPEN[activation])

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "reduction": IntDistribution(1, 4),
            "activation": CategoricalDistribution(tuple(_OPEN)),
        }

    def flops(self) -> int:
        fields = self.read.fields
        return 4 * fields * self.hidden + 2 * self.read.size + 2 * self.hidden + 5 * fields

    def weights(self) -> int:
        fields = self.read.fields
        return 2 * fields * self.hidden + self.hidden + fields

    def grow_into(self, grown: SENet, feed: Feed) -> Plan:
        need_same_width(self, feed)
        hidden = longer(self.hidden, grown.hidden)
        unheard(grown.squeeze.weight, hidden, feed.units)
        unheard(grown.excite.weight, feed.units, hidden)
        tensors: dict[str, tuple[IndexMap, ...]] = {
            "squeeze.weight": (hidden, feed.units),
            "squeeze.bias": (hidden,),
            "excite.weight": (feed.units, hidden),
            "excite.bias": (feed.units,),
        }
        return Plan(tensors, feed.units, feed.width)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to fields (B, F, D)."""
        fields = join(inputs)
        gates = self.excite(self.squeeze(fields.mean(dim=2)).relu())
        gates = gates.relu() if self.activation == "relu" else torch.sigmoid(gates)
        out: Tensor = fields * gates.unsqueeze(2)
        return out
