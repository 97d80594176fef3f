"""MaskNet: blocks behind masks that the instance guides (Wang et al., DLP-KDD 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from torch import Tensor, nn

from autorec.blocks._dropout import Dropout
from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined_fields, linear
from autorec.blocks.growth import Feed, IndexMap, Plan, longer, need_same_width, same, unheard
from autorec.errors import GrowthError


class _MaskBlock(nn.Module):
    """`ReLU(LN(W (x * M(e))))` with mask `M(e) = W2 ReLU(W1 e + b1) + b2` of the size of x."""

    def __init__(self, guide: int, size: int, width: int, reduction: float) -> None:
        super().__init__()
        self.size = size
        self.aggregated = max(1, int(reduction * size))
        self.aggregate = linear(guide, self.aggregated)
        self.project = linear(self.aggregated, size)
        self.hidden = linear(size, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        mask = self.project(self.aggregate(guide).relu())
        out: Tensor = self.norm(self.hidden(x * mask)).relu()
        return out

    def plan(self, old: _MaskBlock, units: IndexMap, guide: IndexMap) -> dict[str, IndexMaps]:
        """Silence fresh entries for old units; return the index maps of all tensors by name."""
        inner, outer = longer(old.aggregated, self.aggregated), same(self.hidden.out_features)
        unheard(self.aggregate.weight, inner, guide)
        unheard(self.project.weight, units, inner)
        unheard(self.hidden.weight, outer, units)
        return {
            "aggregate.weight": (inner, guide),
            "aggregate.bias": (inner,),
            "project.weight": (units, inner),
            "project.bias": (units,),
            "hidden.weight": (outer, units),
            "norm.weight": (outer,),
            "norm.bias": (outer,),
        }


IndexMaps = tuple[IndexMap, ...]


class MaskNet(Block):
    """`ReLU(LN(W (x * M(e))))` with e the embeddings, in a row or side by side.

    Fields (B, F, D) to flat (B, d). e is (B, F D). x is the output of the block before, or e, with
    `normed` each field of it normalised by a LayerNorm of its own. Side by side all read that, and
    d = blocks * width; in a row d = width. M has two layers, the first of reduction * s units for
    an x of size s. Parameters of a block with a = int(reduction * s): (F D + 1) a + (a + 1) s +
    s width + 2 width; and 2 F D for the fields' norms if `normed`.

    Args:
        shapes: shapes of the inputs, joined to (B, F, D).
        blocks: number of blocks.
        width: units of every block.
        reduction: size of the mask's hidden layer over that of what it masks.
        parallel: blocks side by side instead of in a row.
        dropout: probability of zeroing a unit of a block's output in training.
        normed: normalise the fields of e that the first masks are laid on.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("blocks",)

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        blocks: int = 2,
        width: int = 256,
        reduction: float = 1.0,
        parallel: bool = True,
        dropout: float = 0.0,
        normed: bool = True,
    ) -> None:
        super().__init__(
            shapes,
            blocks=blocks,
            width=width,
            reduction=reduction,
            parallel=parallel,
            dropout=dropout,
            normed=normed,
        )
        self.fields = joined_fields(shapes)
        self.width, self.parallel = width, parallel
        self.normed = normed
        if normed:
            self.scale = nn.Parameter(torch.ones(self.fields.fields, self.fields.width))
            self.shift = nn.Parameter(torch.zeros(self.fields.fields, self.fields.width))
        guide = self.fields.size
        sizes = [guide] * blocks if parallel else [guide] + [width] * (blocks - 1)
        self.blocks = nn.ModuleList([_MaskBlock(guide, size, width, reduction) for size in sizes])
        self.dropout = Dropout(dropout)
        self.shape = Flat(blocks * width if parallel else width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "blocks": IntDistribution(1, 6),
            "width": IntDistribution(32, 512, log=True),
            "reduction": FloatDistribution(0.5, 2.0, step=0.5),
            "parallel": CategoricalDistribution((True, False)),
            "dropout": FloatDistribution(0.0, 0.5, step=0.1),
            "normed": CategoricalDistribution((True, False)),
        }

    def flops(self) -> int:
        guide = self.fields.size
        total = 7 * guide if self.normed else 0
        for size, inner in self._sizes():
            total += 2 * (guide * inner + inner * size + size * self.width)
            total += size + 8 * self.width
        return total

    def weights(self) -> int:
        guide = self.fields.size
        norms = 2 * guide if self.normed else 0
        return norms + sum(
            (guide + 1) * inner + (inner + 1) * size + (size + 2) * self.width
            for size, inner in self._sizes()
        )

    def _sizes(self) -> list[tuple[int, int]]:
        """Return (size of what is masked, size of the mask's hidden layer) of each block."""
        blocks: list[_MaskBlock] = list(self.blocks)  # type: ignore[arg-type]
        return [(block.size, block.aggregated) for block in blocks]

    def grow_into(self, grown: MaskNet, feed: Feed) -> Plan:
        need_same_width(self, feed)
        if not self.parallel and len(grown.blocks) > len(self.blocks):
            raise GrowthError(
                "a block normalises what it gives, so that none hands on what it reads, but got "
                f"blocks={len(grown.blocks)} in a row; use parallel=True"
            )
        each = (feed.units, same(self.fields.width))
        tensors: dict[str, IndexMaps] = {"scale": each, "shift": each} if self.normed else {}
        units = feed.flat
        for position, block in enumerate(self.blocks):
            old: _MaskBlock = block  # type: ignore[assignment]
            made: _MaskBlock = grown.blocks[position]  # type: ignore[assignment]
            for name, maps in made.plan(old, units, feed.flat).items():
                tensors[f"blocks.{position}.{name}"] = maps
            units = units if self.parallel else same(self.width)
        return Plan(tensors, longer(self.shape.size, grown.shape.size))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to flat (B, blocks * width) or (B, width)."""
        fields = join(inputs)
        guide = fields.flatten(1)
        out = guide
        if self.normed:
            normed = F.layer_norm(fields, (self.fields.width,)) * self.scale + self.shift
            out = normed.flatten(1)
        if self.parallel:
            return torch.cat([self.dropout(block(out, guide)) for block in self.blocks], dim=1)
        for block in self.blocks:
            out = self.dropout(block(out, guide))
        return out
