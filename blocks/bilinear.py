"""Bilinear interaction of FiBiNET (Huang et al., RecSys 2019), and its sum of FiBiNET++
(Zhang et al., CIKM 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from torch import Tensor, nn

from autorec.blocks._pairs import no_pairs, pair_ends, pair_map, pair_outputs
from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined_fields
from autorec.blocks.growth import FRESH, Feed, IndexMap, Plan, crossed, same
from autorec.errors import ConfigError

_KINDS = ("all", "each", "interaction")
_PRODUCTS = ("hadamard", "inner")


class Bilinear(Block):
    """`(v_i W) * v_j` for all i < j: fields (B, F, D) to flat (B, pairs D) or (B, pairs).

    There are P = F (F - 1) / 2 pairs, in the order (0, 1), (0, 2), ..., (1, 2), ... With one
    field there is no pair and the output is one 0. Parameters: K D^2 with K matrices.

    Args:
        shapes: shapes of the inputs, joined to (B, F, D).
        kind: which pairs share W: `"all"` (K = 1), `"each"` those with the same i (K = F - 1), or
            `"interaction"` none (K = P).
        product: `"hadamard"` gives the D products of each pair, `"inner"` their sum.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "flat"

    def __init__(
        self, shapes: Sequence[Shape], *, kind: str = "all", product: str = "hadamard"
    ) -> None:
        super().__init__(shapes, kind=kind, product=product)
        for name, value, known in (("kind", kind, _KINDS), ("product", product, _PRODUCTS)):
            if value not in known:
                raise ConfigError(f"{name} is one of {known}, but got {value!r}; choose one")
        self.kind, self.product = kind, product
        self.input = joined_fields(shapes)
        count, width = self.input.fields, self.input.width
        left, right = pair_ends(count)
        self.left: Tensor
        self.right: Tensor
        self.positions: Tensor
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.register_buffer("positions", left * count + right, persistent=False)
        self.pairs = len(left)
        shared = {"all": min(1, self.pairs), "each": count - 1, "interaction": self.pairs}
        self.matrices = shared[kind]
        self.weight = nn.Parameter(torch.empty(self.matrices, width, width))
        # Xavier-normal of each matrix: fans of D and D.
        nn.init.normal_(self.weight, std=width**-0.5)
        self.shape = Flat(max(1, self.pairs * (width if product == "hadamard" else 1)))

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "kind": CategoricalDistribution(_KINDS),
            "product": CategoricalDistribution(_PRODUCTS),
        }

    def flops(self) -> int:
        count, width = self.input.fields, self.input.width
        mapped = {"all": count, "each": count - 1, "interaction": self.pairs}[self.kind]
        if not self.pairs:
            return 0
        if self.kind != "interaction" and self.product == "inner":
            return mapped * (2 * width**2 + 2 * count * width)
        return mapped * 2 * width**2 + 2 * self.pairs * width

    def weights(self) -> int:
        return self.matrices * self.input.width**2

    def grow_into(self, grown: Bilinear, feed: Feed) -> Plan:
        outputs, width = pair_outputs(self, feed), feed.width or ()
        matrices = self._matrix_map(feed.units)
        old = torch.tensor([source != FRESH for source in matrices], dtype=torch.bool)
        if self.product == "hadamard":
            fresh = torch.tensor([source == FRESH for source in width])
            heard = old.view(-1, 1, 1) & fresh.view(-1, 1)
            if self.pairs:
                outputs = crossed(outputs, width, self.input.width)
        else:
            # The sum hears a fresh part of D from either side.
            heard = old.view(-1, 1, 1)
        with torch.no_grad():
            grown.weight.masked_fill_(heard.to(grown.weight.device), 0.0)
        return Plan({"weight": (matrices, width, width)}, outputs)

    def _matrix_map(self, units: IndexMap) -> IndexMap:
        if self.kind == "all":
            return same(self.matrices)
        if self.kind == "interaction":
            return pair_map(units)
        # The last field is on no left side, so that an old last field has no old matrix.
        return tuple(source if source < self.matrices else FRESH for source in units[:-1])

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to flat (B, pairs D) or (B, pairs)."""
        fields = join(inputs)
        if not self.pairs:
            # The weight is empty: its sum is 0 and gives it a gradient.
            return no_pairs(fields) + self.weight.sum()
        if self.kind == "interaction":
            left = fields.index_select(1, self.left)
            mapped = torch.einsum("bpd,pde->bpe", left, self.weight)
        else:
            whole = self._mapped_fields(fields)
            if self.product == "inner":
                return (whole @ fields.mT).flatten(1).index_select(1, self.positions)
            mapped = whole.index_select(1, self.left)
        products = mapped * fields.index_select(1, self.right)
        return products.flatten(1) if self.product == "hadamard" else products.sum(dim=2)

    def _mapped_fields(self, fields: Tensor) -> Tensor:
        if self.kind == "all":
            return fields @ self.weight[0]
        return torch.einsum("bfd,fde->bfe", fields[:, :-1], self.weight)
