"""Quadratic neural network QNN-alpha (Li et al., 2025, arXiv 2505.17999)."""

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

from autorec.blocks._dropout import Dropout
from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined, linear
from autorec.blocks.growth import FRESH, Feed, IndexMap, Plan, carry, unheard

_NORMS = {"none": nn.Identity, "batch": nn.BatchNorm1d}
# A fresh layer has no weight behind its ReLU that could be 0, and a ReLU at 0 is dead. At this
# scale it changes x below the rounding of float32, while every ReLU is active on half of the rows.
_SILENT = 1e-12


class _Gates(nn.Module):
    """`ReLU(norm(W x + c))`, R maps in one: (B, d) to (B, R d)."""

    def __init__(self, width: int, heads: int, norm: str) -> None:
        super().__init__()
        self.map = linear(width, heads * width)
        self.norm = _NORMS[norm](heads * width)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.norm(self.map(x))
        return hidden.relu()

    def scales(self) -> list[str]:
        """Return the names of the tensors that the maps are linear in."""
        last = "map" if isinstance(self.norm, nn.Identity) else "norm"
        return [f"{last}.weight", f"{last}.bias"]


class QuadraticNetwork(Block):
    """`layers` times `x <- x * sum_r H_r + x` with `H = ReLU(norm(W x + c))`, r = 1 to `heads`.

    Flat (B, d) to flat (B, d); H is (B, R, d) with R = `heads`. A layer of a quadratic network
    whose second factor is x itself, so that only one matrix per map is learned. Dropout acts on H
    and on x after each layer. The authors also split the embeddings in heads and multiply x in
    the order of these by H; that shuffles units only, and is left out (one head, as they did on
    Criteo and Frappe). Parameters: layers * (R d^2 + R d), and 2 R d more a layer with a norm.

    Args:
        shapes: shapes of the inputs, joined to (B, d).
        layers: number of layers.
        heads: number of maps R that a layer multiplies x by.
        dropout: probability of zeroing a unit in training.
        norm: `"none"` or `"batch"`.
    """

    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("layers", "heads")

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        layers: int = 3,
        heads: int = 2,
        dropout: float = 0.0,
        norm: str = "none",
    ) -> None:
        super().__init__(shapes, layers=layers, heads=heads, dropout=dropout, norm=norm)
        self.width = joined(shapes).size
        self.heads = heads
        self.layers = nn.ModuleList([_Gates(self.width, heads, norm) for _ in range(layers)])
        self.dropout = Dropout(dropout)
        self.shape = Flat(self.width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "layers": IntDistribution(1, 4),
            "heads": IntDistribution(1, 16, log=True),
            "dropout": FloatDistribution(0.0, 0.5, step=0.1),
            "norm": CategoricalDistribution(("none", "batch")),
        }

    def flops(self) -> int:
        units = self.heads * self.width
        return len(self.layers) * (2 * units * self.width + 3 * units + 2 * self.width)

    def weights(self) -> int:
        per_unit = 3 if self.arguments["norm"] != "none" else 1
        return len(self.layers) * self.heads * self.width * (self.width + per_unit)

    def grow_into(self, grown: QuadraticNetwork, feed: Feed) -> Plan:
        rows = _rows(self, grown, feed)
        tensors: dict[str, tuple[IndexMap, ...]] = {}
        for position, layer in enumerate(grown.layers):
            gates: _Gates = layer  # type: ignore[assignment]
            if position >= len(self.layers):
                for name in gates.scales():
                    with torch.no_grad():
                        gates.get_parameter(name).mul_(_SILENT)
                continue
            unheard(gates.map.weight, rows, feed.units)
            for name, tensor in [*gates.named_parameters(), *gates.named_buffers()]:
                maps = (rows, feed.units) if tensor.dim() == 2 else (rows,)
                tensors[f"layers.{position}.{name}"] = maps if tensor.dim() else ()
        return Plan(_split(self, grown, tensors), feed.units)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, sum d_i)."""
        out = join(inputs)
        for layer in self.layers:
            gates = self.dropout(layer(out)).unflatten(1, (self.heads, self.width))
            out = self.dropout(out * gates.sum(dim=1) + out)
        return out


def _rows(old: QuadraticNetwork, grown: QuadraticNetwork, feed: Feed) -> IndexMap:
    """Return where the units of all maps come from; a fresh map is a copy of an old one."""
    starts = [old.width * (head % old.heads) for head in range(grown.heads)]
    return tuple(
        start + unit if unit != FRESH else FRESH for start in starts for unit in feed.units
    )


@torch.no_grad()
def _split(
    old: QuadraticNetwork, grown: QuadraticNetwork, tensors: dict[str, tuple[IndexMap, ...]]
) -> dict[str, tuple[IndexMap, ...]]:
    """Let the copies of a map share its height, and return the plan without what has changed.

    ReLU(a) = sum_k ReLU(s_k a) for positive shares s_k of 1, so that no map has to be silent.
    Shares are drawn for each unit, or the copies would stay equal in training.
    """
    if grown.heads == old.heads:
        return tensors
    sources = torch.arange(grown.heads) % old.heads
    # In float64, so that the shares of a float64 map add up to 1 as well.
    shares = torch.rand(grown.heads, grown.width, dtype=torch.float64) + 0.5
    totals = torch.zeros(old.heads, grown.width).double().index_add(0, sources, shares)
    heights = (shares / totals[sources]).flatten()
    carry(old, grown, tensors)
    left = dict(tensors)
    for position, layer in enumerate(old.layers):
        gates: _Gates = layer  # type: ignore[assignment]
        for name in [f"layers.{position}.{scaled}" for scaled in gates.scales()]:
            parameter = grown.get_parameter(name)
            own = heights.to(parameter)
            parameter.mul_(own.view(-1, 1) if parameter.dim() == 2 else own)
            rows, *rest = tensors[name]
            split = (own != 1.0).tolist()
            left[name] = (
                tuple(FRESH if cut else row for row, cut in zip(rows, split, strict=True)),
                *rest,
            )
    return left
