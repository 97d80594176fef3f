"""Cross network of DCN, one vector per layer (Wang et al., ADKDD 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import BaseDistribution, IntDistribution
from torch import Tensor, nn

from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined
from autorec.blocks.growth import Feed, Plan, longer, unheard


class CrossV1(Block):
    """`layers` times `x <- x0 * (w . x) + b + x` with x0 the input: flat (B, d) to flat (B, d).

    Every layer adds a multiple of x0 that is one number per row, and the same b to all rows:
    x_l = x0 * a_l + c_l with numbers a_l and vectors c_l = b_1 + ... + b_l. Only the numbers have
    to be followed from layer to layer, `a <- a + a (w . x0) + w . c`, after one product of x0 with
    all w. Parameters: 2 * layers * d.

    Args:
        shapes: shapes of the inputs, joined to (B, d).
        layers: number of layers; layer l adds interactions of order l + 1.
    """

    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("layers",)

    def __init__(self, shapes: Sequence[Shape], *, layers: int = 3) -> None:
        super().__init__(shapes, layers=layers)
        self.width = joined(shapes).size
        # Xavier-normal for each map of d inputs to one number.
        self.weight = nn.Parameter(torch.randn(layers, self.width) * (2 / (self.width + 1)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(layers, self.width))
        self.shape = Flat(self.width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {"layers": IntDistribution(1, 4)}

    def flops(self) -> int:
        layers = len(self.weight)
        return layers * (2 * self.width + 3) + 2 * self.width

    def weights(self) -> int:
        return 2 * len(self.weight) * self.width

    def grow_into(self, grown: CrossV1, feed: Feed) -> Plan:
        layers = longer(len(self.weight), len(grown.weight))
        unheard(grown.weight, layers, feed.units)
        nn.init.zeros_(grown.weight[len(self.weight) :])
        maps = (layers, feed.units)
        return Plan({"weight": maps, "bias": maps}, feed.units)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, sum d_i)."""
        first = join(inputs)
        # Under autocast the product is bf16, in which 1 + 1e-3 is 1: numbers are added in full.
        heard = nn.functional.linear(first, self.weight).to(self.weight.dtype)
        total = self.bias.cumsum(dim=0)
        shared = (self.weight * (total - self.bias)).sum(dim=1)
        scale = torch.ones_like(heard[:, :1])
        for layer in range(len(self.weight)):
            scale = scale + scale * heard[:, layer : layer + 1] + shared[layer]
        return first * scale + total[-1]
