"""Exponential cross network of DCNv3 (Li et al., 2024, arXiv 2407.13349)."""

from __future__ import annotations

from optuna.distributions import BaseDistribution, IntDistribution
from torch import Tensor

from autorec.blocks._dcnv3 import SelfMaskBlock
from autorec.blocks.base import join


class ExponentialCross(SelfMaskBlock):
    """`layers` times `x <- x * ([c, c * m] + b) + x`: flat (B, d) to flat (B, d).

    c = W x has ceil(d / 2) units, m = ReLU(LN(c)) masks out noise. Each layer multiplies x by a
    map of itself, so that L layers reach interactions of order 2^L (the mask not counted).
    Parameters, with h = ceil(d / 2): layers * (h d + d + 2 h), without the last term if h = 1, and
    2 more a layer with a batch norm.
    """

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        # A fifth layer is of order 32: of entries above 10 float32 overflows.
        return {**super().choices(), "layers": IntDistribution(1, 4)}

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, sum d_i)."""
        out = join(inputs)
        for layer in self.layers:
            out = self.dropout(out * layer(out) + out)
        return out
