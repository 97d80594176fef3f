"""Compressed interaction network of xDeepFM (Lian et al., KDD 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import BaseDistribution, IntDistribution
from torch import Tensor, nn

from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined_fields, linear
from autorec.blocks.growth import Feed, IndexMap, Plan, crossed, longer, need_same_width, unheard


class CIN(Block):
    """`X^k_h = sum_ij W^k_h,ij (X^{k-1}_i * X^0_j)`, X^0 the fields (B, F, D), summed over D.

    Gives the sums over D of the H maps of each of K layers: flat (B, K H). Layer k holds
    interactions of order k + 1. No bias and no activation, as the paper found best.
    Parameters: H F^2 + (K - 1) H^2 F.

    Args:
        shapes: shapes of the inputs, joined to (B, F, D).
        maps: H, feature maps of every layer.
        layers: K.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("layers", "maps")

    def __init__(self, shapes: Sequence[Shape], *, maps: int = 16, layers: int = 2) -> None:
        super().__init__(shapes, maps=maps, layers=layers)
        self.input = joined_fields(shapes)
        self.heights = [self.input.fields] + [maps] * (layers - 1)
        self.maps = maps
        made = [linear(height * self.input.fields, maps, bias=False) for height in self.heights]
        self.layers = nn.ModuleList(made)
        self.shape = Flat(maps * layers)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {"maps": IntDistribution(4, 64, log=True), "layers": IntDistribution(1, 3)}

    def flops(self) -> int:
        return sum(
            height * self.input.size * (2 * self.maps + 1) + self.maps * self.input.width
            for height in self.heights
        )

    def weights(self) -> int:
        return sum(height * self.input.fields * self.maps for height in self.heights)

    def grow_into(self, grown: CIN, feed: Feed) -> Plan:
        need_same_width(self, feed)
        maps = longer(self.maps, grown.maps)
        tensors: dict[str, tuple[IndexMap, ...]] = {}
        before = feed.units
        for position, layer in enumerate(grown.layers[: len(self.layers)]):
            weight: Tensor = layer.weight  # type: ignore[assignment]
            inputs = crossed(before, feed.units, self.input.fields)
            unheard(weight, maps, inputs)
            tensors[f"layers.{position}.weight"] = (maps, inputs)
            before = maps
        old = crossed(longer(len(self.layers), len(grown.layers)), maps, self.maps)
        return Plan(tensors, old)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to flat (B, K H)."""
        # With D before the fields, a layer is one matrix product over (B D, H F) without a copy;
        # a convolution over (B, H F, D) took twice as long (512 rows, F 24, D 16, H 16, one core).
        first = join(inputs).transpose(1, 2).contiguous()
        out, sums = first, []
        for layer in self.layers:
            out = layer((out.unsqueeze(3) * first.unsqueeze(2)).flatten(2))
            sums.append(out.sum(dim=1))
        return torch.cat(sums, dim=1)
