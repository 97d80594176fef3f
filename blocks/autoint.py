"""AutoInt: multi-head self-attention over fields (Song et al., CIKM 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from autorec.blocks._heads import HeadBlock, HeadLayer
from autorec.blocks.base import Fields, Shape, join, joined_fields


class _AttentionLayer(HeadLayer):
    def forward(self, x: Tensor) -> Tensor:
        queries, keys = self.split(self.query(x)), self.split(self.key(x))
        weights = (queries @ keys.mT).softmax(dim=3)
        return self.attend(weights, x, self.split(self.value(x))).relu()


class AutoInt(HeadBlock):
    """`layers` times self-attention: fields (B, F, D) to fields (B, F, H * width).

    With e_m the field m that a layer reads, and in every of the H heads

        a_mk = softmax over k of (Q e_m) . (K e_k),   o_m = sum over k of a_mk V e_k,

    a layer gives ReLU(o_m of all heads, concatenated, + R e_m). As published, the products are not
    divided by sqrt(width), and there is no bias. Parameters of a layer that reads i entries per
    field: 4 i H width, or 3 i H width without residual.

    Args:
        shapes: shapes of the inputs, joined to (B, F, D).
        layers: number of layers.
        heads: number of heads H.
        width: units of each head.
        dropout: probability of zeroing an attention weight in training.
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
        residual: bool = True,
    ) -> None:
        super().__init__(
            shapes, layers=layers, heads=heads, width=width, dropout=dropout, residual=residual
        )
        self.read = joined_fields(shapes)
        self.heads, self.units = heads, heads * width
        self.maps = 4 if residual else 3
        inner = [self.read.width] + [self.units] * (layers - 1)
        self.layers = nn.ModuleList(
            [_AttentionLayer(size, heads, width, dropout, residual) for size in inner]
        )
        self.shape = Fields(self.read.fields, self.units)

    def flops(self) -> int:
        fields = self.read.fields
        per_layer = fields**2 * (4 * self.units + 6 * self.heads) + 2 * fields * self.units
        return len(self.layers) * per_layer + 2 * fields * self.weights()

    def weights(self) -> int:
        return sum(self.maps * size * self.units for size in self.sizes())

    def refusal(self, larger: Mapping[str, int]) -> str | None:
        if "layers" in larger and not self.arguments["residual"]:
            return "a layer hands on what it reads through its residual map only (residual=True)"
        return None

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to fields (B, F, heads * width)."""
        out = join(inputs)
        for layer in self.layers:
            out = layer(out)
        return out
