"""EDCN: cross and deep tower that share every layer (Chen et al., CIKM 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from torch import Tensor, nn

from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined_fields, linear
from autorec.blocks.growth import Feed, Plan, need_same_inputs, same, unchanged
from autorec.blocks.mlp import MLP


class _Hadamard(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, cross: Tensor, deep: Tensor) -> Tensor:
        return cross * deep


class _Add(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, cross: Tensor, deep: Tensor) -> Tensor:
        return cross + deep


class _Concat(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = linear(2 * width, width)

    def forward(self, cross: Tensor, deep: Tensor) -> Tensor:
        out: Tensor = self.map(torch.cat([cross, deep], dim=1))
        return out.relu()


class _Attention(nn.Module):
    """Sum of both towers, each weighed unit by unit: `softmax(P ReLU(W x + b)) * x`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.ModuleList([linear(width, width) for _ in range(2)])
        self.outer = nn.ModuleList([linear(width, width, bias=False) for _ in range(2)])

    def forward(self, cross: Tensor, deep: Tensor) -> Tensor:
        one = self.outer[0](self.inner[0](cross).relu()).softmax(dim=1)
        two = self.outer[1](self.inner[1](deep).relu()).softmax(dim=1)
        out: Tensor = one * cross + two * deep
        return out


_BRIDGES = {"hadamard": _Hadamard, "add": _Add, "concat": _Concat, "attention": _Attention}


class _Layer(nn.Module):
    """Regulation, a cross and a deep layer, and the bridge behind them."""

    def __init__(self, fields: int, width: int, bridge: str, dropout: float, norm: str) -> None:
        super().__init__()
        size = fields * width
        self.width = width
        self.gates = nn.Parameter(torch.ones(2, fields))
        batch = norm == "batch"
        self.norms = nn.ModuleList([nn.BatchNorm1d(size) for _ in range(2 * batch)])
        self.cross = linear(size, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(size))
        self.deep = MLP([Flat(size)], width=size, layers=1, dropout=dropout)
        self.bridge = _BRIDGES[bridge](size)

    def regulate(self, x: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Return x (B, F D), its fields weighed for the cross and for the deep tower."""
        gates = (self.gates / temperature).softmax(dim=1)
        one, two = gates.unsqueeze(2).expand(-1, -1, self.width).flatten(1)
        regulated = x * one, x * two
        if not len(self.norms):
            return regulated
        return self.norms[0](regulated[0]), self.norms[1](regulated[1])

    def forward(self, first: Tensor, cross: Tensor, deep: Tensor) -> tuple[Tensor, ...]:
        """Return (cross, deep, bridge) of the layer, each (B, F D)."""
        cross = first * self.cross(cross) + self.bias + cross
        deep = self.deep([deep])
        return cross, deep, self.bridge(cross, deep)


class EDCN(Block):
    """`layers` times regulation, cross and deep layer, bridge: fields (B, F, D) to flat (B, 3 F D).

    With x the flattened fields, and then what the bridge of the layer before gave:

        c = norm(x * g_c),  h = norm(x * g_h),  each field times its entry of
            softmax(gates / temperature)
        c <- c0 * (w . c) + b + c,  h <- dropout(ReLU(W h + a)),  x <- bridge(c, h)

    with c0 the regulated input of the first cross layer. The output is (c, h, x) of the last layer.
    Bridges: c * h; c + h; ReLU(W (c, h) + b); softmax(P ReLU(Q c + q)) * c + (the same, with its
    own weights, of h), softmax over the d = F D units.

    Gates start at 1 / F, which the norms make good: without them a deep stack starts near 0.

    Parameters: layers * (2 F + d^2 + 3 d) and in every layer 4 d with norms, 2 d^2 + d with bridge
    `"concat"`, 4 d^2 + 2 d with `"attention"`.

    Args:
        shapes: shapes of the inputs, joined to (B, F, D).
        layers: number of layers.
        bridge: `"hadamard"`, `"add"`, `"concat"` or `"attention"`.
        temperature: of the gates; the lower, the more they choose among fields.
        dropout: probability of zeroing a unit of the deep tower in training.
        norm: behind the gates of either tower, `"none"` or `"batch"`.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "flat"

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        layers: int = 3,
        bridge: str = "hadamard",
        temperature: float = 1.0,
        dropout: float = 0.0,
        norm: str = "none",
    ) -> None:
        super().__init__(
            shapes,
            **{"layers": layers, "bridge": bridge, "temperature": temperature},
            **{"dropout": dropout, "norm": norm},
        )
        self.read = read = joined_fields(shapes)
        self.temperature = temperature
        self.layers = nn.ModuleList(
            [_Layer(read.fields, read.width, bridge, dropout, norm) for _ in range(layers)]
        )
        self.shape = Flat(3 * read.size)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "layers": IntDistribution(1, 4),
            "bridge": CategoricalDistribution(tuple(_BRIDGES)),
            "temperature": FloatDistribution(0.1, 10.0, log=True),
            "dropout": FloatDistribution(0.0, 0.5, step=0.1),
            "norm": CategoricalDistribution(("none", "batch")),
        }

    def flops(self) -> int:
        size = self.read.size
        bridge = {"concat": 4 * size**2, "attention": 8 * size**2 + 8 * size}
        extra = bridge.get(self.arguments["bridge"], size)
        return len(self.layers) * (2 * size**2 + 8 * size + extra)

    def weights(self) -> int:
        size = self.read.size
        bridge = {"concat": 2 * size**2 + size, "attention": 4 * size**2 + 2 * size}
        extra = bridge.get(self.arguments["bridge"], 0)
        norm = 4 * size if self.arguments["norm"] != "none" else 0
        return len(self.layers) * (2 * self.read.fields + size**2 + 3 * size + norm + extra)

    def grow_into(self, grown: EDCN, feed: Feed) -> Plan:
        # A fresh field would take weight from the old ones in the softmax of the gates, and a fresh
        # layer hears the bridge only, from which neither tower can be told.
        need_same_inputs(self, feed)
        return Plan(unchanged(grown, ["layers"]), same(self.shape.size))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to flat (B, 3 F D)."""
        x = join(inputs).flatten(1)
        first: Tensor | None = None
        parts: tuple[Tensor, ...] = ()
        for module in self.layers:
            layer: _Layer = module  # type: ignore[assignment]
            cross, deep = layer.regulate(x, self.temperature)
            first = cross if first is None else first
            parts = layer(first, cross, deep)
            x = parts[2]
        return torch.cat(parts, dim=1)
