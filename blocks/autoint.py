"""AutoInt: multi-head self-attention over fields (Song et al., CIKM 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from torch import Tensor, nn

from autorec.blocks._heads import HeadBlock, HeadLayer
from autorec.blocks.base import Fields, Shape, join, joined_fields
from autorec.blocks.growth import IndexMap


class _AttentionLayer(HeadLayer):
    def __init__(self, inner: int, heads: int, width: int, norm: str, **more: Any) -> None:
        super().__init__(inner, heads, width, **more)
        self.norm = nn.LayerNorm(heads * width) if norm == "layer" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        queries, keys = self.split(self.query(x)), self.split(self.key(x))
        weights = (self.scaled(queries) @ keys.mT).softmax(dim=3)
        out: Tensor = self.norm(self.attend(weights, x, self.split(self.value(x))))
        return out.relu()

    def plan(
        self, old: HeadLayer, units: IndexMap, inputs: IndexMap
    ) -> dict[str, tuple[IndexMap, ...]]:
        norms = [f"norm.{name}" for name, _ in self.norm.named_parameters()]
        return {**super().plan(old, units, inputs), **dict.fromkeys(norms, (units,))}


class AutoInt(HeadBlock):
    """`layers` times self-attention: fields (B, F, D) to fields (B, F, H * width).

    With e_m the field m that a layer reads, and in every of the H heads

        a_mk = softmax over k of (Q e_m) . (K e_k),   o_m = sum over k of a_mk V e_k,

    a layer gives ReLU(o_m of all heads, concatenated, + R e_m). As published, the products are not
    divided by sqrt(width), and there is no bias; the public runs divide and normalise. Parameters
    of a layer that reads i entries per field: 4 i H width, or 3 i H width without residual, and
    2 H width more with a norm.

    Args:
        shapes: shapes of the inputs, joined to (B, F, D).
        layers: number of layers.
        heads: number of heads H.
        width: units of each head.
        dropout: probability of zeroing an attention weight in training.
        scale: divide the products by sqrt(width).
        norm: of each field before the ReLU, `"none"` or `"layer"`.
        residual: add R e_m. Not searched: without it the paper lost on each of its data sets.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        layers: int = 2,
        heads: int = 2,
        width: int = 32,
        dropout: float = 0.0,
        scale: bool = False,
        norm: str = "none",
        residual: bool = True,
    ) -> None:
        more: dict[str, Any] = {
            "scale": scale,
            "norm": norm,
            "dropout": dropout,
            "residual": residual,
        }
        super().__init__(shapes, layers=layers, heads=heads, width=width, **more)
        self.read = joined_fields(shapes)
        self.heads, self.units = heads, heads * width
        self.maps = 4 if residual else 3
        inner = [self.read.width] + [self.units] * (layers - 1)
        self.layers = nn.ModuleList([_AttentionLayer(size, heads, width, **more) for size in inner])
        self.shape = Fields(self.read.fields, self.units)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {**super().choices(), "norm": CategoricalDistribution(("none", "layer"))}

    def flops(self) -> int:
        fields, units = self.read.fields, self.units
        per_layer = fields**2 * (4 * units + 6 * self.heads) + 2 * fields * units
        per_layer += 7 * fields * units if self.arguments["norm"] == "layer" else 0
        return len(self.layers) * per_layer + 2 * fields * self._maps()

    def weights(self) -> int:
        norms = 2 * self.units if self.arguments["norm"] == "layer" else 0
        return self._maps() + len(self.layers) * norms

    def _maps(self) -> int:
        return sum(self.maps * size * self.units for size in self.sizes())

    def refusal(self, larger: Mapping[str, int]) -> str | None:
        if self.arguments["norm"] == "layer":
            return "layer normalisation mixes all units of a field (norm='layer')"
        if "layers" in larger and not self.arguments["residual"]:
            return "a layer hands on what it reads through its residual map only (residual=True)"
        return None

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to fields (B, F, heads * width)."""
        out = join(inputs)
        for layer in self.layers:
            out = layer(out)
        return out
