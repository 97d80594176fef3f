"""RankMixer: parameter-free mixing of tokens, and a network per token (Zhu et al., CIKM 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from torch import Tensor, nn

from autorec.blocks._dropout import Dropout
from autorec.blocks.base import Block, Fields, Shape, TensorKind, join, joined_fields
from autorec.blocks.growth import FRESH, Feed, IndexMap, Plan, longer, same, unchanged
from autorec.errors import GrowthError


class _PerToken(nn.Module):
    """`x_t W_t + b_t` with weights of their own for each token: (B, T, i) to (B, T, o)."""

    def __init__(self, tokens: int, inner: int, outer: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tokens, inner, outer))
        self.bias = nn.Parameter(torch.zeros(tokens, outer))
        # Xavier-normal of each matrix.
        nn.init.normal_(self.weight, std=(2 / (inner + outer)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bti,tio->bto", x, self.weight) + self.bias


class _MixerLayer(nn.Module):
    def __init__(self, tokens: int, width: int, ratio: int, dropout: float) -> None:
        super().__init__()
        self.tokens = tokens
        self.mixing_norm = nn.LayerNorm(width)
        self.norm = nn.LayerNorm(width)
        self.expand = _PerToken(tokens, width, ratio * width)
        self.contract = _PerToken(tokens, ratio * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.mixing_norm(x).unflatten(2, (self.tokens, -1))
        x = x + heads.transpose(1, 2).flatten(2)
        out: Tensor = x + self.contract(self.dropout(F.gelu(self.expand(self.norm(x)))))
        return out


class TokenMixer(Block):
    """`layers` times mixing and a network per token: fields (B, F, D) to fields (B, F, w).

    Each of the T = F fields becomes a token of w entries by a linear map of its own; w is `width`
    rounded up to a multiple of T. A layer is

        x <- x + mix(LN(x)),   x_t <- x_t + W2_t GELU(W1_t LN(x_t) + b1_t) + b2_t.

    mix splits each token into T heads; the heads h of all tokens, in their order, are the new token
    h. All weights are a token's own, those of the norms are shared. Published with the norms behind
    the sums; here they stand before, with one more at the end, since a fresh layer is then the
    identity where it starts with zeros. Parameters, with r = ratio: T (D + 1) w + 2 w, and in each
    layer 2 T r w^2 + T (r + 1) w + 4 w.

    Args:
        shapes: shapes of the inputs, joined to (B, F, D).
        layers: number of layers.
        width: least entries per token.
        ratio: hidden units of a token's network over w.
        dropout: probability of zeroing a hidden unit in training.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "field"
    grows: ClassVar[tuple[str, ...]] = ("layers", "ratio")

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        layers: int = 2,
        width: int = 32,
        ratio: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(shapes, layers=layers, width=width, ratio=ratio, dropout=dropout)
        self.read = joined_fields(shapes)
        self.ratio = ratio
        tokens = self.read.fields
        # A norm of one entry is constant, so there are two at least.
        self.width = -(-max(2, width) // tokens) * tokens
        self.project = _PerToken(tokens, self.read.width, self.width)
        self.layers = nn.ModuleList(
            [_MixerLayer(tokens, self.width, ratio, dropout) for _ in range(layers)]
        )
        self.norm = nn.LayerNorm(self.width)
        self.shape = Fields(tokens, self.width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "layers": IntDistribution(1, 4),
            "width": IntDistribution(8, 128, log=True),
            "ratio": IntDistribution(1, 4),
            "dropout": FloatDistribution(0.0, 0.5, step=0.1),
        }

    def flops(self) -> int:
        hidden = self.ratio * self.width
        layer = 4 * hidden * self.width + 18 * self.width + 8 * hidden
        project = (2 * self.read.width + 8) * self.width
        return self.read.fields * (project + len(self.layers) * layer)

    def weights(self) -> int:
        tokens, hidden = self.read.fields, self.ratio * self.width
        layer = tokens * (2 * hidden * self.width + hidden + self.width) + 4 * self.width
        project = tokens * (self.read.width + 1) * self.width + 2 * self.width
        return project + len(self.layers) * layer

    @torch.no_grad()
    def grow_into(self, grown: TokenMixer, feed: Feed) -> Plan:
        if FRESH in feed.units:
            raise GrowthError(
                "TokenMixer deals the entries of a token out to all tokens, so that a fresh one "
                f"changes all, but its input grows to {list(feed.shapes)}; read them elsewhere"
            )
        tokens, width = same(self.read.fields), same(self.width)
        fresh = [part for part, source in enumerate(feed.width or ()) if source == FRESH]
        grown.project.weight[:, fresh] = 0.0
        old = self.ratio * self.width
        hidden = longer(old, grown.ratio * self.width)
        tensors = unchanged(grown, ["project.bias", "norm"])
        tensors["project.weight"] = (tokens, feed.width or (), width)
        for position, module in enumerate(grown.layers):
            layer: _MixerLayer = module  # type: ignore[assignment]
            if position >= len(self.layers):
                nn.init.zeros_(layer.mixing_norm.weight)
                nn.init.zeros_(layer.contract.weight)
                continue
            layer.contract.weight[:, old:] = 0.0
            maps: dict[str, tuple[IndexMap, ...]] = {
                **unchanged(layer, ["mixing_norm", "norm", "contract.bias"]),
                "expand.weight": (tokens, width, hidden),
                "expand.bias": (tokens, hidden),
                "contract.weight": (tokens, hidden, width),
            }
            tensors |= {f"layers.{position}.{name}": each for name, each in maps.items()}
        return Plan(tensors, feed.units, width)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to fields (B, F, w)."""
        out = self.project(join(inputs))
        for layer in self.layers:
            out = layer(out)
        normed: Tensor = self.norm(out)
        return normed
