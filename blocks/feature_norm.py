"""Layer normalisation of every field by itself (Wang et al., MaskNet, DLP-KDD 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from optuna.distributions import BaseDistribution
from torch import Tensor, nn

from autorec.blocks.base import Block, Shape, TensorKind, join, joined_fields
from autorec.blocks.growth import Feed, Plan, need_same_width


class FeatureNorm(Block):
    """`(E - mean) / sqrt(variance + 1e-5) * g + b`: fields (B, F, D) to fields (B, F, D).

    Mean and variance run over the D entries of one field in one row; g and b, (F, D), are each
    field's own. With D = 1 the normalised entry would be 0 whatever it was, so it is left out there
    and the block gives E * g + b. Parameters: 2 F D.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "field"

    def __init__(self, shapes: Sequence[Shape]) -> None:
        super().__init__(shapes)
        self.shape = read = joined_fields(shapes)
        self.scale = nn.Parameter(torch.ones(read.fields, read.width))
        self.shift = nn.Parameter(torch.zeros(read.fields, read.width))

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {}

    def flops(self) -> int:
        return 7 * self.shape.size

    def weights(self) -> int:
        return 2 * self.shape.size

    def grow_into(self, grown: FeatureNorm, feed: Feed) -> Plan:
        need_same_width(self, feed)
        maps = (feed.units, feed.width or ())
        return Plan({"scale": maps, "shift": maps}, feed.units, feed.width)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to fields (B, F, D)."""
        fields = join(inputs)
        width = fields.shape[2]
        normed = F.layer_norm(fields, (width,)) if width > 1 else fields
        return normed * self.scale + self.shift
