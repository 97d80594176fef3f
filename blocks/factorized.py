"""Factorised interaction layers of FinalNet (Zhu et al., SIGIR 2023)."""

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
from autorec.blocks.growth import FRESH, Feed, IndexMap, Plan, longer, unheard
from autorec.errors import GrowthError

_NORMS = {"none": nn.Identity, "batch": nn.BatchNorm1d}
# Rows of (h2, h1) that a layer of `width` units computes. An odd width has one more h2 than h1.
_PARTS = {
    "concat": lambda width: (width - width // 2, width // 2),
    "sum": lambda width: (width, width),
}


class _FactorizedLayer(nn.Module):
    """`ReLU(norm(merge(h2, h1 * h2)))` with `[h2; h1] = W x + b`: (B, i) to (B, width)."""

    def __init__(self, inner: int, width: int, norm: str, merge: str) -> None:
        super().__init__()
        self.parts: tuple[int, int] = _PARTS[merge](width)
        self.merge = merge
        self.map = linear(inner, sum(self.parts))
        self.norm = _NORMS[norm](width)

    def forward(self, x: Tensor) -> Tensor:
        second, first = self.map(x).split(self.parts, dim=1)
        product = first * second[:, : self.parts[1]]
        joint = self.merge == "concat"
        merged = torch.cat([second, product], dim=1) if joint else second + product
        out: Tensor = self.norm(merged).relu()
        return out

    def rows(self, old: _FactorizedLayer) -> IndexMap:
        """Return where the rows of W come from in the W of a narrower `old` layer."""
        first = longer(old.parts[1], self.parts[1])
        moved = tuple(old.parts[0] + unit if unit != FRESH else FRESH for unit in first)
        return longer(old.parts[0], self.parts[0]) + moved

    @torch.no_grad()
    def pass_through(self, old: int) -> None:
        """Set h2 = x and h1 = 0 on the first `old` units, which ReLU has left non-negative."""
        self.map.weight[:old] = 0.0
        self.map.weight[range(old), range(old)] = 1.0
        self.map.weight[self.parts[0] : self.parts[0] + old] = 0.0
        if isinstance(self.norm, nn.BatchNorm1d) and self.norm.running_var is not None:
            self.norm.running_var.fill_(1.0 - self.norm.eps)


class FactorizedNetwork(Block):
    """`layers` times `[h2; h1] = W x + b`, `[h2, h1 * h2]` or `h2 + h1 * h2`, norm, ReLU, dropout.

    Flat (B, d) to flat (B, width). A layer doubles the order of interactions. With
    `merge="concat"` h1 and h2 have width / 2 units (h2 one more where width is odd) and a layer
    costs what a linear layer costs; with `"sum"` they have width units each and it costs twice
    that. Parameters of a layer that reads i units: (i + 1) width, twice that for `"sum"`, and
    2 width more with a norm.

    Args:
        shapes: shapes of the inputs, joined to (B, d).
        width: units that every layer gives.
        layers: number of layers.
        dropout: probability of zeroing a unit in training.
        norm: `"none"` or `"batch"`.
        merge: `"concat"` or `"sum"`.
    """

    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("width", "layers")

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        width: int = 400,
        layers: int = 2,
        dropout: float = 0.0,
        norm: str = "none",
        merge: str = "concat",
    ) -> None:
        super().__init__(
            shapes, width=width, layers=layers, dropout=dropout, norm=norm, merge=merge
        )
        self.merge = merge
        self.widths = [joined(shapes).size] + [width] * layers
        self.layers = nn.ModuleList(
            [_FactorizedLayer(inner, outer, norm, merge) for inner, outer in pairwise(self.widths)]
        )
        self.dropout = Dropout(dropout)
        self.shape = Flat(width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "width": IntDistribution(32, 1024, log=True),
            # Three layers are of order 8 already, and no tuned FinalNet has more.
            "layers": IntDistribution(1, 3),
            "dropout": FloatDistribution(0.0, 0.5, step=0.1),
            "norm": CategoricalDistribution(("none", "batch")),
            "merge": CategoricalDistribution(("concat", "sum")),
        }

    def flops(self) -> int:
        width = self.widths[1]
        rows = sum(_PARTS[self.merge](width))
        return sum(2 * inner * rows + 2 * width for inner in self.widths[:-1])

    def weights(self) -> int:
        width = self.widths[1]
        rows = sum(_PARTS[self.merge](width))
        norm = 2 * width if self.arguments["norm"] != "none" else 0
        return sum(inner * rows + rows + norm for inner in self.widths[:-1])

    def grow_into(self, grown: FactorizedNetwork, feed: Feed) -> Plan:
        if self.merge == "concat" and len(grown.layers) > len(self.layers):
            raise GrowthError(
                "half of the units of a layer with merge='concat' are products, so that no fresh "
                f"layer hands on what it reads, but got layers={len(grown.layers)}; use "
                "merge='sum' or grow width"
            )
        units, inputs = longer(self.widths[1], grown.widths[1]), feed.units
        tensors: dict[str, tuple[IndexMap, ...]] = {}
        for position, layer in enumerate(grown.layers):
            made: _FactorizedLayer = layer  # type: ignore[assignment]
            if position >= len(self.layers):
                made.pass_through(self.widths[1])
                continue
            old: _FactorizedLayer = self.layers[position]  # type: ignore[assignment]
            rows = made.rows(old)
            units = rows if self.merge == "concat" else units
            unheard(made.map.weight, rows, inputs)
            tensors[f"layers.{position}.map.weight"] = (rows, inputs)
            tensors[f"layers.{position}.map.bias"] = (rows,)
            for name, tensor in [*made.norm.named_parameters(), *made.norm.named_buffers()]:
                tensors[f"layers.{position}.norm.{name}"] = (units,) if tensor.dim() else ()
            inputs = units
        return Plan(tensors, units)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, width)."""
        out = join(inputs)
        for layer in self.layers:
            out = self.dropout(layer(out))
        return out
