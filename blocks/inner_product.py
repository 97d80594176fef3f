"""Inner products of PNN (Qu et al., ICDM 2016), and what all blocks of pairs of fields share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

import torch
from optuna.distributions import BaseDistribution
from torch import Tensor

from autorec.blocks.base import Block, Flat, Shape, TensorKind, join, joined_fields
from autorec.blocks.growth import FRESH, Feed, IndexMap, Plan, need_same_width, same
from autorec.errors import GrowthError


class InnerProduct(Block):
    """All `<e_i, e_j>` with i < j: fields (B, F, D) to flat (B, F (F - 1) / 2).

    Pairs come in the order (0, 1), (0, 2), ..., (1, 2), ... With one field there is no pair and
    the output is one 0. No parameters.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "flat"

    def __init__(self, shapes: Sequence[Shape]) -> None:
        super().__init__(shapes)
        self.input = joined_fields(shapes)
        left, right = pair_ends(self.input.fields)
        self.positions: Tensor
        self.register_buffer("positions", left * self.input.fields + right, persistent=False)
        self.shape = Flat(max(1, len(left)))

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {}

    def flops(self) -> int:
        return 2 * self.input.fields * self.input.size

    def weights(self) -> int:
        return 0

    def grow_into(self, grown: InnerProduct, feed: Feed) -> Plan:
        need_same_width(self, feed)
        return Plan({}, pair_outputs(self, feed))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to flat (B, pairs)."""
        fields = join(inputs)
        if self.input.fields == 1:
            return no_pairs(fields)
        return (fields @ fields.mT).flatten(1).index_select(1, self.positions)


def pair_ends(fields: int) -> tuple[Tensor, Tensor]:
    """Return the first and the second field of every pair i < j, in lexicographic order."""
    left, right = torch.triu_indices(fields, fields, offset=1)
    return left, right


def no_pairs(fields: Tensor) -> Tensor:
    """Return zeros (B, 1) through which gradients still flow, for an input of one field."""
    return 0.0 * fields[:, 0, :1]


def pair_map(units: IndexMap) -> IndexMap:
    """Return the index map of pairs of fields that follows from that of the fields.

    Raises:
        GrowthError: the old fields have changed their order, and with it the sides of a pair.
    """
    kept = [source for source in units if source != FRESH]
    if kept != list(range(len(kept))):
        raise GrowthError(
            f"a block of pairs needs its old fields in their old order, but got {kept}; "
            "put fresh fields between or after them"
        )
    old = {pair: position for position, pair in enumerate(combinations(kept, 2))}
    return tuple(old.get(pair, FRESH) for pair in combinations(units, 2))


def pair_outputs(block: Block, feed: Feed) -> IndexMap:
    """Return the index map of pairs for a block that gives outputs pair by pair.

    Raises:
        GrowthError: the old input is a single field, whose output 0 belongs to no pair.
    """
    if not feed.changed:
        return same(max(1, len(pair_map(feed.units))))
    if joined_fields(block.shapes).fields == 1:
        raise GrowthError(
            f"{type(block).__name__} grows from at least two fields, but its input of one field "
            f"grows to {list(feed.shapes)}; add the block after the fields"
        )
    return pair_map(feed.units)


def crossed(outer: IndexMap, inner: IndexMap, old: int) -> IndexMap:
    """Return the map of two axes flattened into one, whose inner had `old` entries."""
    return tuple(
        high * old + low if FRESH not in (high, low) else FRESH for high in outer for low in inner
    )
