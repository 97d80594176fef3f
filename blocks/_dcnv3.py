"""What the two cross networks of DCNv3 (Li et al., 2024, arXiv 2407.13349) share."""

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
from autorec.blocks.base import Block, Flat, Shape, TensorKind, joined, linear
from autorec.blocks.growth import Feed, Plan, unchanged
from autorec.errors import GrowthError


class SelfMask(nn.Module):
    """`[c, c * ReLU(LN(c))] + b` with c = W x of half the width: (B, d) to (B, d).

    c has ceil(d / 2) units; an odd d cuts the last unit of the concatenation. b starts uniform in
    [0, 1) as in the authors' code. LayerNorm of a single unit is constant and would hide c, so it
    is left out up to d = 2. With `norm="batch"` c is brought to mean 0 and variance 1 over all
    units and rows of the batch together, then scaled and shifted by one number each.
    """

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        half = (width + 1) // 2
        self.rest = width - half
        self.cross = linear(width, half, bias=False)
        self.scale = nn.BatchNorm1d(1) if norm == "batch" else None
        self.norm = nn.LayerNorm(half) if half > 1 else nn.Identity()
        self.bias = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the factor that multiplies the input of the layer."""
        crossed = self.cross(x)
        if self.scale is not None:
            crossed = self.scale(crossed.unsqueeze(1)).squeeze(1)
        masked = crossed * self.norm(crossed).relu()
        return torch.cat([crossed, masked[:, : self.rest]], dim=1) + self.bias


class SelfMaskBlock(Block):
    """`layers` times a SelfMask; a subclass says in `forward` what each of them multiplies.

    Args:
        shapes: shapes of the inputs, joined to (B, d).
        layers: number of layers L.
        dropout: probability of zeroing a unit after each layer in training.
        norm: of c, `"none"` or `"batch"`. Embeddings start small, and without it c is nearly zero
            for many epochs where an L2 penalty keeps them so.
    """

    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("layers",)

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        layers: int = 3,
        dropout: float = 0.0,
        norm: str = "none",
    ) -> None:
        super().__init__(shapes, layers=layers, dropout=dropout, norm=norm)
        self.width = joined(shapes).size
        self.layers = nn.ModuleList([SelfMask(self.width, norm) for _ in range(layers)])
        self.dropout = Dropout(dropout)
        self.shape = Flat(self.width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "layers": IntDistribution(1, 5),
            "dropout": FloatDistribution(0.0, 0.5, step=0.1),
            "norm": CategoricalDistribution(("none", "batch")),
        }

    def flops(self) -> int:
        half = (self.width + 1) // 2
        scaled = 2 * half if self.arguments["norm"] == "batch" else 0
        return len(self.layers) * (2 * half * self.width + 10 * half + 3 * self.width + scaled)

    def weights(self) -> int:
        half = (self.width + 1) // 2
        norm = 2 * half if half > 1 else 0
        norm += 2 if self.arguments["norm"] == "batch" else 0
        return len(self.layers) * (half * self.width + norm + self.width)

    def grow_into(self, grown: SelfMaskBlock, feed: Feed) -> Plan:
        if feed.changed:
            raise GrowthError(
                f"{type(self).__name__} normalises its crossed units together, so that fresh "
                f"inputs would change its function, but its input grows to {list(feed.shapes)}; "
                "read them elsewhere"
            )
        if len(grown.layers) > len(self.layers) and self.arguments["norm"] == "batch":
            raise GrowthError(
                "a fresh layer starts with c = 0, which a batch norm would blow up at its first "
                f"step, but layers grows to {len(grown.layers)}; use norm='none'"
            )
        for layer in grown.layers[len(self.layers) :]:
            # With c = 0 and b = 0 the factor is 0; the unmasked half of c still has a gradient.
            for name, parameter in layer.named_parameters():
                if not name.startswith("norm."):
                    nn.init.zeros_(parameter)
        return Plan(unchanged(self, ["layers"]), feed.units)
