"""Binary labels: did the user click, buy, like? The network's output is a logit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from autorec.data.labels import LabelMap, LabelStats
from autorec.errors import DataError
from autorec.tasks.base import Task, is_number, mean_loss, require_usable, same_shape

POSITIVE_WORDS = frozenset(
    {"yes", "true", "click", "clicked", "1", "y", "t", "pos", "positive", "like", "liked"}
)
# Beside these, any other word is the positive one: "no" comes after "bought" in the alphabet.
NEGATIVE_WORDS = frozenset(
    {"no", "false", "not_clicked", "0", "-1", "n", "f", "neg", "negative", "none", "dislike"}
)


def _order_words(name: str, words: list[str]) -> tuple[str, str, str]:
    first, second = sorted(words)
    for known, other in ((first, second), (second, first)):
        said = known.strip().lower()
        if said in POSITIVE_WORDS and other.strip().lower() not in POSITIVE_WORDS:
            return other, known, f"{name} is binary: {known!r} is positive, a known word for yes"
        if said in NEGATIVE_WORDS and other.strip().lower() not in NEGATIVE_WORDS:
            return known, other, f"{name} is binary: {other!r} is positive, {known!r} means no"
    return (
        first,
        second,
        f"{name} is binary: {second!r} is positive because it comes later in the alphabet than "
        f"{first!r}; use a 0/1 label if it should be the other way round",
    )


def _order(stats: LabelStats) -> tuple[Any, Any, str]:
    """Return the negative value, the positive value, and why."""
    values = [value for value, _ in stats.values]
    if all(isinstance(value, bool) for value in values):
        return False, True, f"{stats.name} is boolean: True is positive"
    if all(is_number(value) for value in values):
        low, high = sorted(values)
        return low, high, f"{stats.name} has two numbers: {high!r} is positive, {low!r} negative"
    if all(isinstance(value, str) for value in values):
        return _order_words(stats.name, values)
    raise DataError(
        "a binary label must be booleans, two numbers or two words, but the label column "
        f"{stats.name!r} of type {stats.dtype} has {values[0]!r} and {values[1]!r}; convert it"
    )


@dataclass(frozen=True)
class Ctr(Task):
    """Probability of the positive class.

    Attributes:
        base_rate: share of positive rows in the column, in (0, 1).
    """

    name: ClassVar[str] = "ctr"
    metric_names: ClassVar[tuple[str, ...]] = (
        "auc",
        "gauc",
        "logloss",
        "normalized_entropy",
        "ece",
    )

    base_rate: float

    @classmethod
    def from_stats(
        cls, stats: LabelStats, *, eval_metric: str | None = None, grouped: bool = False
    ) -> Ctr:
        """Return the task for a column of two values (0/1, booleans, -1/1, two numbers, two words).

        Raises:
            DataError: nulls, non-finite numbers, one value only, or more than two values.
            ConfigError: see `Task`.
        """
        require_usable(stats)
        if stats.distinct > 2:
            shown = ", ".join(repr(value) for value, _ in stats.values[:5])
            more = ", ..." if stats.distinct > 5 else ""
            count = f"{stats.distinct} or more" if stats.distinct >= 1000 else str(stats.distinct)
            raise DataError(
                f"a binary label must have two values, but the label column {stats.name!r} has "
                f'{count}: {shown}{more}; use task="rating" for numbers or make it binary'
            )
        negative, positive, reason = _order(stats)
        counts = dict(stats.values)
        return cls(
            label_map=LabelMap(kind="binary", negative=negative, positive=positive),
            reason=reason,
            eval_metric=eval_metric or "auc",
            grouped=grouped,
            base_rate=counts[positive] / (counts[positive] + counts[negative]),
        )

    def bias(self) -> float:
        """Return the logit of the base rate."""
        return math.log(self.base_rate) - math.log1p(-self.base_rate)

    def loss(
        self, output: torch.Tensor, label: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the weighted mean cross-entropy of logits (B,) and labels (B,) 0 or 1."""
        same_shape(output, label)
        rows = torch.nn.functional.binary_cross_entropy_with_logits(
            output.float(), label.float(), reduction="none"
        )
        return mean_loss(rows, weight)

    def _predict_array(self, output: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.exp(-np.logaddexp(0.0, -output))

    def _predict_tensor(self, output: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(output.float())
