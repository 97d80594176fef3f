"""Numbers as fields by soft bins: AutoDis (Guo et al., KDD 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from torch import Tensor, nn

from autorec.blocks.base import Block, Fields, Shape, TensorKind, join, joined
from autorec.blocks.growth import Feed, IndexMap, Plan, longer, same
from autorec.errors import ConfigError

_SLOPE = 0.01
_STD = 0.01


class SoftBins(Block):
    """`softmax((h M + a h) / t) T`, `h = LeakyReLU(w x + b)`: flat (B, Q) to fields (B, Q, D).

    Each number x has its own w and b (H), M (H, H) and T (H, D): its field is a mixture of the H
    rows of T, and the bins move while the network learns. A number that is NaN belongs to all bins
    alike. The paper has no b: all its bins would meet at 0, where standardised numbers are densest.
    w and b start so that bin k is likeliest near the k-th of H quantiles of a standard normal.
    Parameters: Q (2 H + H H + H D).

    Args:
        shapes: shapes of the inputs, joined to (B, Q) standardised numbers.
        width: D.
        bins: H.
        temperature: t; a low one picks one bin, a high one blurs.
        skip: a.
    """

    # Of numbers only: a space that wired it behind any block would give each of its units H bins.
    role: ClassVar[str] = "numbers"
    reads: ClassVar[TensorKind] = "flat"
    gives: ClassVar[TensorKind] = "field"
    grows: ClassVar[tuple[str, ...]] = ("width",)

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        width: int = 16,
        bins: int = 16,
        temperature: float = 0.5,
        skip: float = 1.0,
    ) -> None:
        super().__init__(shapes, width=width, bins=bins, temperature=temperature, skip=skip)
        if bins < 2 or not temperature > 0:
            raise ConfigError(
                "soft bins are at least 2 at a temperature above 0, but got "
                f"bins={bins}, temperature={temperature}; raise them"
            )
        self.temperature, self.skip = temperature, skip
        numbers = joined(shapes).size
        self.shape: Fields = Fields(numbers, width)
        centre = math.sqrt(2.0) * torch.erfinv((2 * torch.arange(bins) + 1) / bins - 1)
        self.weight = nn.Parameter(centre.repeat(numbers, 1))
        self.bias = nn.Parameter(-0.5 * self.weight.detach().square())
        self.mix = nn.Parameter(torch.randn(numbers, bins, bins) / bins)
        self.table = nn.Parameter(_STD * torch.randn(numbers, bins, width))

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "width": IntDistribution(4, 64, log=True),
            "bins": IntDistribution(4, 32, step=4),
            "temperature": FloatDistribution(0.2, 2.0, log=True),
        }

    def flops(self) -> int:
        numbers, bins, width = self.table.shape
        return 2 * numbers * bins * (bins + width) + 10 * numbers * bins

    def weights(self) -> int:
        numbers, bins, width = self.table.shape
        return numbers * bins * (2 + bins + width)

    def grow_into(self, grown: SoftBins, feed: Feed) -> Plan:
        bins = same(self.weight.shape[1])
        width = longer(self.shape.width, grown.shape.width)
        tensors: dict[str, tuple[IndexMap, ...]]
        tensors = dict.fromkeys(("weight", "bias"), (feed.units, bins))
        return Plan(
            {**tensors, "mix": (feed.units, bins, bins), "table": (feed.units, bins, width)},
            feed.units,
            width,
        )

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Flat (B, d_i) to fields (B, Q, D)."""
        numbers = join(inputs).unsqueeze(2)
        missing = numbers.isnan()
        hidden = F.leaky_relu(numbers.nan_to_num(0.0) * self.weight + self.bias, _SLOPE)
        logits = torch.einsum("bqh,qhk->bqk", hidden, self.mix) + self.skip * hidden
        # One logit for all bins: equal shares, and no gradient from a number that is not there.
        logits = logits.masked_fill(missing, 0.0)
        shares = torch.softmax(logits / self.temperature, dim=2)
        return torch.einsum("bqh,qhd->bqd", shares, self.table)
