"""Residual cross network of LiRank: attention in a low rank (Borisyuk et al., KDD 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)
from torch import Tensor, nn

from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined, linear
from autorec.blocks.cross_lowrank import LowRankCross
from autorec.blocks.growth import FRESH, Feed, IndexMap, Plan, longer, unheard

_QUERY_STD = 0.02


class _Layer(nn.Module):
    """One layer. Rows of `down` are ordered by head, within a head v before q before k."""

    def __init__(self, width: int, rank: int, heads: int, tau: float, skip: bool) -> None:
        super().__init__()
        self.sizes, self.tau, self.skip = (heads, 3, rank), tau, skip
        self.down = nn.Linear(width, 3 * heads * rank, bias=False)
        self.up = linear(heads * rank, width)
        with torch.no_grad():
            parts = self.down.weight.view(heads, 3, rank, width)
            parts[:, 0].normal_(std=(2 / (width + heads * rank)) ** 0.5)
            parts[:, 1:].normal_(std=_QUERY_STD)

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        value, query, key = self.down(x).unflatten(1, self.sizes).unbind(dim=2)
        mixed = (self.scores(query, key) @ value.unsqueeze(3)).squeeze(3)
        if self.skip:
            mixed = mixed + value
        out: Tensor = first * self.up(mixed.flatten(1)) + x
        return out

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Twice (B, H, R) to (B, H, R, R), rows of which sum to one."""
        query, key = _bounded(query) / self.tau, _bounded(key)
        return (query.unsqueeze(3) * key.unsqueeze(2)).softmax(dim=3)


class ResidualCross(Block):
    """`layers` times `x <- x0 * (U z + b) + x`, z = A v + v: flat (B, d) to (B, d) or (B, 2d).

    x0 is the input, v = V x, q = Q x and k = K x are H heads of R numbers, and each head has its
    own score matrix A = softmax(q k^T / tau), (R, R), with tau = `temperature` * sqrt(R). With
    A = 1 and without the skip "+ v" it is a low-rank cross network of rank H R.

    Softmax over products saturates as |x| grows, so that q and k are divided by
    sqrt(1 + mean square of the head): nearly nothing at the small start (Q and K have deviation
    0.02, A is near uniform), and a root mean square below 1 always. It has no parameters.

    Parameters: layers * (4 H R d + d), and layers * (2 H R d + d) more for the parallel network.

    Args:
        shapes: shapes of the inputs, joined to (B, d).
        layers: number of layers.
        rank: numbers of a head, R; all matrices have rank H R.
        heads: heads, H; memory for scores is layers * H * R^2 numbers per row.
        temperature: of the softmax, in units of sqrt(R).
        parallel: whether a plain low-rank cross network runs beside this one, its output (B, d)
            concatenated behind.
        skip: whether z has "+ v"; without it training was found less stable.
    """

    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("layers", "heads")

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        layers: int = 2,
        rank: int = 32,
        heads: int = 1,
        temperature: float = 1.0,
        parallel: bool = True,
        skip: bool = True,
    ) -> None:
        super().__init__(
            shapes,
            **{"layers": layers, "rank": rank, "heads": heads},
            **{"temperature": temperature, "parallel": parallel, "skip": skip},
        )
        self.width, self.rank, self.heads = joined(shapes).size, rank, heads
        tau = temperature * rank**0.5
        self.layers = nn.ModuleList(
            [_Layer(self.width, rank, heads, tau, skip) for _ in range(layers)]
        )
        self.plain = LowRankCross(shapes, layers=layers, rank=heads * rank) if parallel else None
        self.shape = Flat(2 * self.width if parallel else self.width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "layers": IntDistribution(1, 3),
            "rank": IntDistribution(8, 64, log=True),
            "heads": IntDistribution(1, 4),
            "temperature": CategoricalDistribution((0.5, 1.0, 2.0, 4.0)),
            "parallel": CategoricalDistribution((True, False)),
        }

    def flops(self) -> int:
        numbers = self.heads * self.rank
        # One pass for the outer product and one for the softmax beside the product with v.
        scores = 4 * numbers * self.rank + 8 * numbers
        plain = self.plain.flops() if self.plain is not None else 0
        return len(self.layers) * (8 * numbers * self.width + scores + 3 * self.width) + plain

    def weights(self) -> int:
        numbers = self.heads * self.rank
        plain = self.plain.weights() if self.plain is not None else 0
        return len(self.layers) * (4 * numbers * self.width + self.width) + plain

    def grow_into(self, grown: ResidualCross, feed: Feed) -> Plan:
        projected = longer(3 * self.heads * self.rank, 3 * grown.heads * self.rank)
        mixed = longer(self.heads * self.rank, grown.heads * self.rank)
        tensors: dict[str, tuple[IndexMap, ...]] = {}
        for position, module in enumerate(grown.layers):
            layer: _Layer = module  # type: ignore[assignment]
            if position >= len(self.layers):
                nn.init.zeros_(layer.up.weight)
                continue
            unheard(layer.down.weight, projected, feed.units)
            unheard(layer.up.weight, feed.units, mixed)
            tensors[f"layers.{position}.down.weight"] = (projected, feed.units)
            tensors[f"layers.{position}.up.weight"] = (feed.units, mixed)
            tensors[f"layers.{position}.up.bias"] = (feed.units,)
        if self.plain is None or grown.plain is None:
            return Plan(tensors, feed.units)
        plan = self.plain.grow_into(grown.plain, feed)
        tensors |= {f"plain.{name}": maps for name, maps in plan.tensors.items()}
        behind = tuple(unit if unit == FRESH else unit + self.width for unit in plan.outputs)
        return Plan(tensors, (*feed.units, *behind))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, d), or (B, 2d) with the parallel network."""
        first = join(inputs)
        out = first
        for layer in self.layers:
            out = layer(first, out)
        if self.plain is None:
            return out
        return torch.cat([out, self.plain([first])], dim=1)


def _bounded(x: Tensor) -> Tensor:
    """Divide every head by sqrt(1 + mean square)."""
    return x * (1.0 + x.square().mean(dim=2, keepdim=True)).rsqrt()
