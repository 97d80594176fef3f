"""What blocks of pairs of fields share: the order of the pairs, and how it follows the fields."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from autorec.blocks.base import Block, joined_fields
from autorec.blocks.growth import FRESH, Feed, IndexMap, same
from autorec.errors import GrowthError


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
