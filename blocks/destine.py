"""DESTINE: self-attention over fields, pairs apart from single fields (Xu et al., CIKM 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from autorec.blocks._heads import HeadBlock, HeadLayer
from autorec.blocks.base import Fields, Shape, join, joined_fields, linear
from autorec.blocks.growth import IndexMap, longer, unheard


class _DisentangledLayer(HeadLayer):
    def __init__(
        self, inner: int, heads: int, width: int, dropout: float, *, scale: bool, relu: bool
    ) -> None:
        super().__init__(inner, heads, width, dropout, scale=scale)
        self.relu = relu
        self.unary = linear(inner, heads, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.query(x), self.key(x), self.value(x)]
        if self.relu:
            parts = [part.relu() for part in parts]
        queries, keys, values = [self.split(part) for part in parts]
        # Keys stay as they are: a query times their mean is the same for all k, and cancels.
        queries = queries - queries.mean(dim=2, keepdim=True)
        pairs = (self.scaled(queries) @ keys.mT).softmax(dim=3)
        single = self.unary(x).softmax(dim=1).mT.unsqueeze(2)
        return self.attend(pairs + single, x, values)

    def plan(
        self, old: HeadLayer, units: IndexMap, inputs: IndexMap
    ) -> dict[str, tuple[IndexMap, ...]]:
        heads = longer(old.heads, self.heads)
        unheard(self.unary.weight, heads, inputs)
        return {**super().plan(old, units, inputs), "unary.weight": (heads, inputs)}


class Destine(HeadBlock):
    """`layers` times disentangled attention: fields (B, F, D) to fields (B, F, H * width).

    With e_m the field m that a layer reads, q_m = Q e_m, k_m = K e_m, v_m = V e_m in every of the
    H heads, and q', k' their means over the fields,

        a_mk = softmax over k of (q_m - q') . (k_k - k')  +  softmax over k of u . e_k:

    what the pair (m, k) says, and what field k says by itself, each of sum 1. A layer gives the
    sums over k of a_mk v_k, concatenated over the heads, + R e_m; no activation behind it. There
    are no biases: those of q, k and u would cancel.
    Parameters of a layer that reads i entries per field: i H (4 width + 1).

    Args:
        shapes: shapes of the inputs, joined to (B, F, D).
        layers: number of layers.
        heads: number of heads H.
        width: units of each head.
        dropout: probability of zeroing an attention weight in training.
        scale: divide the products by sqrt(width), as the public runs do and the authors' code not.
        relu: ReLU of q, k and v before they are used. Not searched: off in the authors' code.
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
        relu: bool = False,
    ) -> None:
        more: dict[str, Any] = {"dropout": dropout, "scale": scale, "relu": relu}
        super().__init__(shapes, layers=layers, heads=heads, width=width, **more)
        self.read = joined_fields(shapes)
        self.heads, self.units = heads, heads * width
        inner = [self.read.width] + [self.units] * (layers - 1)
        self.layers = nn.ModuleList(
            [_DisentangledLayer(size, heads, width, **more) for size in inner]
        )
        self.shape = Fields(self.read.fields, self.units)

    def flops(self) -> int:
        fields, heads = self.read.fields, self.heads
        per_layer = fields**2 * (4 * self.units + 7 * heads) + fields * (4 * self.units + 5 * heads)
        return len(self.layers) * per_layer + 2 * fields * self.weights()

    def weights(self) -> int:
        return sum(size * (4 * self.units + self.heads) for size in self.sizes())

    def refusal(self, larger: Mapping[str, int]) -> str | None:
        if self.arguments["relu"] and larger.keys() & {"layers", "width"}:
            return "zeros behind a ReLU have no gradient and would never be heard (relu=True)"
        return None

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to fields (B, F, heads * width)."""
        out = join(inputs)
        for layer in self.layers:
            out = layer(out)
        return out
