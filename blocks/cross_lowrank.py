"""Cross network of DCNv2 with low-rank matrices (Wang et al., WWW 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from optuna.distributions import BaseDistribution, IntDistribution
from torch import Tensor, nn

from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined, linear
from autorec.blocks.growth import Feed, IndexMap, Plan, longer, unheard


class LowRankCross(Block):
    """`layers` times `x <- x0 * (U V^T x + b) + x`: flat (B, d) to flat (B, d).

    x0 is the input, U and V are (d, R) with R = `rank`. Layer l adds interactions of order l + 1.
    Parameters: layers * (2 R d + d).

    Args:
        shapes: shapes of the inputs, joined to (B, d).
        layers: number of layers.
        rank: rank of every layer's matrix; below d / 2 it is cheaper than a full one.
    """

    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("layers", "rank")

    def __init__(self, shapes: Sequence[Shape], *, layers: int = 2, rank: int = 64) -> None:
        super().__init__(shapes, layers=layers, rank=rank)
        self.width, self.rank = joined(shapes).size, rank
        self.downs = nn.ModuleList([linear(self.width, rank, bias=False) for _ in range(layers)])
        self.ups = nn.ModuleList([linear(rank, self.width) for _ in range(layers)])
        self.shape = Flat(self.width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {"layers": IntDistribution(1, 4), "rank": IntDistribution(4, 256, log=True)}

    def flops(self) -> int:
        return len(self.ups) * (4 * self.rank * self.width + 3 * self.width)

    def weights(self) -> int:
        return len(self.ups) * (2 * self.rank * self.width + self.width)

    def grow_into(self, grown: LowRankCross, feed: Feed) -> Plan:
        ranks = longer(self.rank, grown.rank)
        tensors: dict[str, tuple[IndexMap, ...]] = {}
        for position, (down, up) in enumerate(zip(grown.downs, grown.ups, strict=True)):
            inner: Tensor = down.weight  # type: ignore[assignment]
            outer: Tensor = up.weight  # type: ignore[assignment]
            if position >= len(self.ups):
                nn.init.zeros_(outer)
                continue
            unheard(inner, ranks, feed.units)
            unheard(outer, feed.units, ranks)
            tensors[f"downs.{position}.weight"] = (ranks, feed.units)
            tensors[f"ups.{position}.weight"] = (feed.units, ranks)
            tensors[f"ups.{position}.bias"] = (feed.units,)
        return Plan(tensors, feed.units)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, sum d_i)."""
        first = join(inputs)
        out = first
        for down, up in zip(self.downs, self.ups, strict=True):
            out = first * up(down(out)) + out
        return out
