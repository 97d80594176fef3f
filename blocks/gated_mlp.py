"""Multilayer perceptron with dense gates: LiRank (Borisyuk et al., KDD 2024)."""

from __future__ import annotations

import math
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

_NORMS = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
# sigmoid(2) = 0.88: a gate that starts nearly open lets the layer start as that of a plain MLP.
_OPEN = 2.0
_Maps = tuple[IndexMap, ...]


class _GatedLayer(nn.Module):
    def __init__(self, inner: int, outer: int, norm: str, rank: int) -> None:
        super().__init__()
        self.map = linear(inner, outer)
        self.norm = _NORMS[norm](outer)
        self.down = linear(outer, rank, bias=False) if rank else nn.Identity()
        self.gate = linear(rank or outer, outer)
        nn.init.constant_(self.gate.bias, _OPEN)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.norm(self.map(x)).relu()
        gate: Tensor = self.gate(self.down(hidden)).sigmoid()
        return hidden * gate

    @torch.no_grad()
    def pass_through(self, old: int) -> None:
        """Hand on the first `old` units, which ReLU and gate of the layer below left non-negative.

        Their gates hear nothing and stand at sigmoid(bias), which the weights make up for.
        """
        self.map.weight[:old] = 0.0
        self.map.weight[range(old), range(old)] = 1.0 + math.exp(-_OPEN)
        self.gate.weight[:old] = 0.0
        if isinstance(self.norm, nn.BatchNorm1d) and self.norm.running_var is not None:
            self.norm.running_var.fill_(1.0 - self.norm.eps)

    def plan(self, units: IndexMap, inputs: IndexMap, ranks: IndexMap) -> dict[str, _Maps]:
        """Silence fresh entries for old units; return the index maps of all tensors by name."""
        unheard(self.map.weight, units, inputs)
        maps: dict[str, _Maps] = {"map.weight": (units, inputs), "map.bias": (units,)}
        for name, tensor in [*self.norm.named_parameters(), *self.norm.named_buffers()]:
            maps[f"norm.{name}"] = (units,) if tensor.dim() else ()
        if isinstance(self.down, nn.Linear):
            unheard(self.down.weight, ranks, units)
            maps["down.weight"] = (ranks, units)
        read = ranks or units
        unheard(self.gate.weight, units, read)
        return {**maps, "gate.weight": (units, read), "gate.bias": (units,)}


class GatedMLP(Block):
    """`layers` times `h <- h' * sigmoid(G h' + g)` with `h' = ReLU(norm(W h + c))`.

    Flat (B, d) to flat (B, width). Every unit is scaled by how all units of its layer stand. g
    starts at 2, so that gates start nearly open. Parameters of a layer that reads i units:
    (i + 1) width, 2 width with a norm, (width + 1) width for a full G or (2 gate_rank + 1) width.

    Args:
        shapes: shapes of the inputs, joined to (B, d).
        width: units of every layer.
        layers: number of layers.
        dropout: probability of zeroing a unit after its gate in training.
        norm: `"none"`, `"batch"` or `"layer"`.
        gate_rank: rank of G; 0 is a full matrix.
    """

    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("width", "layers", "gate_rank")

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        width: int = 400,
        layers: int = 2,
        dropout: float = 0.0,
        norm: str = "none",
        gate_rank: int = 0,
    ) -> None:
        super().__init__(
            shapes, width=width, layers=layers, dropout=dropout, norm=norm, gate_rank=gate_rank
        )
        self.widths = [joined(shapes).size] + [width] * layers
        self.rank = gate_rank
        self.layers = nn.ModuleList(
            [_GatedLayer(inner, outer, norm, gate_rank) for inner, outer in pairwise(self.widths)]
        )
        self.dropout = Dropout(dropout)
        self.shape = Flat(width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "width": IntDistribution(32, 1024, log=True),
            "layers": IntDistribution(1, 4),
            "dropout": FloatDistribution(0.0, 0.5, step=0.1),
            "norm": CategoricalDistribution(("none", "batch", "layer")),
            "gate_rank": IntDistribution(0, 64, step=16),
        }

    def flops(self) -> int:
        width = self.widths[1]
        gate = 2 * width * (2 * self.rank or width) + 6 * width
        return sum(2 * inner * outer + gate for inner, outer in pairwise(self.widths))

    def weights(self) -> int:
        width = self.widths[1]
        per_unit = 4 if self.arguments["norm"] != "none" else 2
        gate = width * (2 * self.rank or width)
        return sum(
            inner * outer + per_unit * width + gate for inner, outer in pairwise(self.widths)
        )

    def grow_into(self, grown: GatedMLP, feed: Feed) -> Plan:
        self._need_growable(grown)
        units = longer(self.widths[1], grown.widths[1])
        ranks = longer(self.rank, grown.rank)
        tensors: dict[str, _Maps] = {}
        inputs = feed.units
        for position, layer in enumerate(grown.layers):
            gated: _GatedLayer = layer  # type: ignore[assignment]
            if position >= len(self.layers):
                gated.pass_through(self.widths[1])
                continue
            for name, maps in gated.plan(units, inputs, ranks).items():
                tensors[f"layers.{position}.{name}"] = maps
            inputs = units
        return Plan(tensors, units)

    def _need_growable(self, grown: GatedMLP) -> None:
        if self.arguments["norm"] == "layer" and grown.widths[1:] != self.widths[1:]:
            raise GrowthError(
                "layer normalisation mixes all units of a layer, so that no fresh unit or layer "
                f"leaves the function as it was, but got width={grown.widths[1]} and "
                f"layers={len(grown.layers)}; use norm='none' or 'batch'"
            )
        if grown.rank and not self.rank:
            raise GrowthError(
                "a gate of gate_rank=0 has a full matrix, which no rank holds exactly, but got "
                f"gate_rank={grown.rank}; leave it out"
            )

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, width)."""
        out = join(inputs)
        for layer in self.layers:
            out = self.dropout(layer(out))
        return out
