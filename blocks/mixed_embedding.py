"""Id tables of a width by field: mixed dimensions (Ginart et al., ISIT 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from autorec.blocks._halved import HalvedTableBlock, narrowed
from autorec.blocks.base import TensorKind

_POWERS = (-0.5, -0.25, 0.25, 0.5)


class MixedEmbedding(HalvedTableBlock):
    """Rows of width D (R_f / R)^power for a field of R_f codes, times a matrix (d_f, D) of its own.

    R is the largest field for a power above 0: small vocabularies need few numbers to tell their
    values apart, and a fourth root is the rule of thumb of practice. It is the smallest for a power
    below 0, as in the paper: codes of large vocabularies are rare, so that wide rows of theirs are
    memory that hardly learns. Widths are D halved a whole number of times, the nearest on a scale
    of logarithms, and at least 2; fields of width D have no matrix.

    Args:
        rows: codes of each id field.
        list_rows: codes of each list field.
        width: D, of the widest field.
        power: how much the width follows the vocabulary.
    """

    gives: ClassVar[TensorKind] = "field"
    # A smaller table is a small part of a network, whatever its width.
    least_codes: ClassVar[int] = 10_000

    def __init__(
        self,
        rows: Sequence[int],
        list_rows: Sequence[int] = (),
        *,
        width: int,
        power: float = 0.25,
    ) -> None:
        counts = (*rows, *list_rows)
        super().__init__(rows, list_rows, width, halvings(counts, power), power=power)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "width": IntDistribution(4, 64, log=True),
            "power": CategoricalDistribution(_POWERS),
        }

    @classmethod
    def distinct(cls, rows: Sequence[int], width: int, **arguments: Any) -> dict[str, Any] | None:
        found = _widths(rows, width, arguments["power"])
        if set(found) <= {width}:
            return None
        known = [power for power in _POWERS if _widths(rows, width, power) == found]
        return {"power": known[0] if known else arguments["power"]}


def halvings(rows: Sequence[int], power: float) -> tuple[int, ...]:
    """Return how often D is halved for each of the fields of so many codes."""
    if not rows:
        return ()
    reference = max(rows) if power > 0 else min(rows)
    ratios = [abs(math.log2(max(count, 1) / max(reference, 1))) for count in rows]
    return tuple(math.floor(abs(power) * ratio + 0.5) for ratio in ratios)


def _widths(rows: Sequence[int], width: int, power: float) -> list[int]:
    return [narrowed(width, k) for k in halvings(rows, power)]
