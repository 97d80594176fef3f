"""Linear cross network of DCNv3 (Li et al., 2024, arXiv 2407.13349)."""

from __future__ import annotations

from torch import Tensor

from autorec.blocks._dcnv3 import SelfMaskBlock
from autorec.blocks.base import join


class LinearCross(SelfMaskBlock):
    """`layers` times `x <- x0 * ([c, c * m] + b) + x` with x0 the input: flat (B, d) to (B, d).

    c = W x has ceil(d / 2) units, m = ReLU(LN(c)) masks out noise. Each layer multiplies by the
    input, so that L layers reach interactions of order L + 1 (the mask not counted).
    Parameters, with h = ceil(d / 2): layers * (h d + d + 2 h), without the last term if h = 1, and
    2 more a layer with a batch norm.
    """

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to flat (B, sum d_i)."""
        first = join(inputs)
        out = first
        for layer in self.layers:
            out = self.dropout(first * layer(out) + out)
        return out
