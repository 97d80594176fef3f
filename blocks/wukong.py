"""Wukong: stacked factorisation machines (Zhang et al., ICML 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from torch import Tensor, nn

from autorec.blocks._dropout import Dropout
from autorec.blocks.base import Block, Fields, Shape, TensorKind, join, joined_fields, linear
from autorec.blocks.growth import Feed, Plan, longer, need_same_inputs, same, unchanged
from autorec.errors import ConfigError


class _WukongLayer(nn.Module):
    """`LN([FMB(X); LCB(X)] + R X)`: (B, n, D) to (B, fields, D)."""

    def __init__(self, read: Fields, fields: int, rank: int, width: int, dropout: float) -> None:
        super().__init__()
        self.linear_fields = fields // 2
        self.machine_fields = fields - self.linear_fields
        self.products = linear(read.fields, rank, bias=False)
        # The norm of a single entry is constant and would hide it.
        lone = read.fields * rank == 1
        self.products_norm = nn.Identity() if lone else nn.LayerNorm(read.fields * rank)
        self.expand = linear(read.fields * rank, width)
        self.contract = linear(width, self.machine_fields * read.width)
        self.compress = linear(read.fields, self.linear_fields, bias=False)
        fits = read.fields == fields
        self.residual = None if fits else linear(read.fields, fields, bias=False)
        # Over each field's D entries, as some have it, a small D blows rounding up: with D = 3,
        # rows whose entries nearly agree came out of float32 with errors of 3e-5.
        self.norm = nn.LayerNorm((fields, read.width))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        across = x.mT
        products = self.products_norm((x @ self.products(across)).flatten(1))
        hidden = self.dropout(self.expand(products).relu())
        machine = self.contract(hidden).unflatten(1, (self.machine_fields, -1))
        out = torch.cat([machine, self.compress(across).mT], dim=1)
        kept = x if self.residual is None else self.residual(across).mT
        normed: Tensor = self.norm(out + kept)
        return normed


class Wukong(Block):
    """`layers` times `X <- LN([FMB(X); LCB(X)] + R X)`: fields (B, F, D) to (B, fields, D).

    With n the fields that a layer reads, and Y (n, rank), W, R matrices over fields,

        FMB(X) = W2 ReLU(W1 LN(flat(X X^T Y)) + b1) + b2, as the first ceil(fields / 2) fields,
        LCB(X) = W X, as the last floor(fields / 2) fields,

    and R = 1 where n = fields. The outer LN normalises all fields D entries of a row together, the
    inner one its n rank products (none where that is 1). Layer l reaches interactions of order 2^l.
    Parameters of a layer, with m = ceil(fields / 2): 3 n rank + (n rank + 1) width + (width + 1) m
    D + n (fields - m) + 2 fields D, and n fields for R.

    Only `width` grows: each layer normalises what it gives and all its products together, so that
    no layer is an identity, and no fresh rank or field leaves the old ones as they are.

    Args:
        shapes: shapes of the inputs, joined to (B, F, D).
        layers: number of layers.
        fields: fields that each layer gives, at least 2.
        rank: columns of Y.
        width: hidden units of FMB.
        dropout: probability of zeroing a hidden unit in training.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "field"
    grows: ClassVar[tuple[str, ...]] = ("width",)

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        layers: int = 2,
        fields: int = 8,
        rank: int = 8,
        width: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            shapes, layers=layers, fields=fields, rank=rank, width=width, dropout=dropout
        )
        if fields < 2:
            raise ConfigError(
                f"fields is shared by two parts and so at least 2, but got {fields}; raise it"
            )
        read = joined_fields(shapes)
        self.rank, self.hidden = rank, width
        self.shape = self.given = Fields(fields, read.width)
        self.counts = [read.fields] + [fields] * (layers - 1)
        self.layers = nn.ModuleList(
            [
                _WukongLayer(Fields(count, read.width), fields, rank, width, dropout)
                for count in self.counts
            ]
        )

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "layers": IntDistribution(1, 4),
            "fields": IntDistribution(2, 32, log=True),
            "rank": IntDistribution(2, 32, log=True),
            "width": IntDistribution(16, 512, log=True),
            "dropout": FloatDistribution(0.0, 0.5, step=0.1),
        }

    def flops(self) -> int:
        total = 0
        for count in self.counts:
            products = count * self.rank
            machine = self.hidden * (products + self._machine * self.given.width)
            maps = count * (self.given.fields - self._machine + self._mapped(count))
            total += 2 * (2 * products + maps) * self.given.width + 2 * machine
            total += 7 * products + 2 * self.hidden + 9 * self.given.size
        return total

    def weights(self) -> int:
        total, width = 0, self.given.width
        for count in self.counts:
            products = count * self.rank
            norms = 2 * self.given.size + (2 * products if products > 1 else 0)
            machine = (products + 1) * self.hidden + (self.hidden + 1) * self._machine * width
            maps = count * (self.given.fields - self._machine + self._mapped(count))
            total += products + norms + machine + maps
        return total

    @property
    def _machine(self) -> int:
        return self.given.fields - self.given.fields // 2

    def _mapped(self, count: int) -> int:
        """Return the rows of R in a layer that reads `count` fields."""
        return self.given.fields if count != self.given.fields else 0

    @torch.no_grad()
    def grow_into(self, grown: Wukong, feed: Feed) -> Plan:
        need_same_inputs(self, feed)
        units = longer(self.hidden, grown.hidden)
        tensors = unchanged(self, ["layers"])
        for position, module in enumerate(grown.layers):
            layer: _WukongLayer = module  # type: ignore[assignment]
            layer.contract.weight[:, self.hidden :] = 0.0
            name = f"layers.{position}"
            tensors[f"{name}.expand.weight"] = (units, same(layer.expand.in_features))
            tensors[f"{name}.expand.bias"] = (units,)
            tensors[f"{name}.contract.weight"] = (same(layer.contract.out_features), units)
        return Plan(tensors, same(self.given.fields), same(self.given.width))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to fields (B, fields, D)."""
        out = join(inputs)
        for layer in self.layers:
            out = layer(out)
        return out
