"""Bootstrap intervals: how far a metric would move on another sample of the same rows or users.

Resampling draws row (or group) numbers with replacement; a metric under a resample is the metric
with each row's weight times how often it was drawn. So nothing is copied, and AUC sorts once for
all replicates: 200 replicates of 60 000 rows take 0.2 s (one CPU core, Nov 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autorec.errors import ConfigError, DataError
from autorec.seeding import numpy_rng
from autorec.tasks.metrics import METRICS, Metric, group_aucs, ranked_auc

Array = npt.NDArray[np.float64]
MetricLike = str | Metric | Callable[..., float]
ENOUGH = 0.5  # an interval of fewer defined replicates than this share is NaN


@dataclass(frozen=True)
class Interval:
    """A value and the percentile bootstrap interval around it.

    `low` and `high` are NaN where the value is, or where over half of the resamples are undefined.
    """

    value: float
    low: float
    high: float
    level: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def _metric(metric: MetricLike) -> Metric:
    if isinstance(metric, Metric):
        return metric
    if not isinstance(metric, str):
        return Metric(getattr(metric, "__name__", "metric"), metric, True, "score")
    if metric not in METRICS:
        raise ConfigError(f"metric must be one of {sorted(METRICS)}, but got {metric!r}")
    return METRICS[metric]


def _check(replicates: int, level: float) -> None:
    if replicates < 2:
        raise ConfigError(f"replicates must be at least 2, but got {replicates}")
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level must lie between 0 and 1, but got {level}; 0.95 is usual")


class _Resampled:
    """A metric of one prediction as a function of how often each unit (row or group) was drawn."""

    def __init__(
        self,
        metric: Metric,
        label: npt.ArrayLike,
        prediction: npt.ArrayLike,
        weight: npt.ArrayLike | None,
        group: npt.NDArray[np.intp] | None,
    ) -> None:
        self.metric = metric
        self.label = np.asarray(label, dtype=np.float64)
        self.prediction = np.asarray(prediction, dtype=np.float64)
        self.weight = None if weight is None else np.asarray(weight, dtype=np.float64)
        self.group = group
        self.value = metric(self.label, self.prediction, self.weight, group)
        self._at = self._prepare()

    def _prepare(self) -> Callable[[Array], float]:
        if self.metric is METRICS["gauc"] and self.group is not None:
            return self._within_groups(self.group)
        if self.metric is METRICS["auc"]:
            at = ranked_auc(self.label, self.prediction)
            return lambda drawn: at(self._weights(drawn))
        return lambda drawn: self.metric(
            self.label, self.prediction, self._weights(drawn), self.group
        )

    def _within_groups(self, group: npt.NDArray[np.intp]) -> Callable[[Array], float]:
        """A group drawn twice keeps its AUC and counts twice, so the AUCs are computed once."""
        value, total = group_aucs(self.label, self.prediction, group, self.weight)
        valid = ~np.isnan(value)
        mass, won = total[valid], (total * value)[valid]

        def at(drawn: Array) -> float:
            times = drawn[valid]
            count = float(times @ mass)
            return float(times @ won) / count if count > 0 else float("nan")

        return at

    def _weights(self, drawn: Array) -> Array:
        times = drawn if self.group is None else drawn[self.group]
        return times if self.weight is None else times * self.weight

    def __call__(self, drawn: Array) -> float:
        return self._at(drawn)


def _codes(group: npt.ArrayLike | None, rows: int) -> tuple[npt.NDArray[np.intp] | None, int]:
    """Return groups numbered from 0 (None without groups) and how many units can be drawn."""
    if group is None:
        return None, rows
    column = np.asarray(group)
    if column.shape != (rows,):
        raise DataError(f"group must have one value per row ({rows},), but got {column.shape}")
    codes = np.unique(column, return_inverse=True)[1]
    return codes, int(codes.max()) + 1 if rows else 0


def draws(units: int, replicates: int, seed: int) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the unit numbers (units,) of each replicate, drawn with replacement."""
    rng = numpy_rng(seed, "bootstrap")
    for _ in range(replicates):
        yield rng.integers(0, units, size=units)


def _interval(value: float, samples: Array, level: float) -> Interval:
    defined = samples[~np.isnan(samples)]
    if np.isnan(value) or len(defined) < ENOUGH * len(samples):
        return Interval(value, float("nan"), float("nan"), level)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)


def _sample(
    parts: list[_Resampled], combine: Callable[..., float], units: int, replicates: int, seed: int
) -> Array:
    samples = np.full(replicates, np.nan)
    if units:
        for i, drawn in enumerate(draws(units, replicates, seed)):
            times = np.bincount(drawn, minlength=units).astype(np.float64)
            samples[i] = combine(*[part(times) for part in parts])
    return samples


def bootstrap(
    metric: MetricLike,
    label: npt.ArrayLike,
    prediction: npt.ArrayLike,
    *,
    weight: npt.ArrayLike | None = None,
    group: npt.ArrayLike | None = None,
    replicates: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return a metric with its percentile bootstrap interval.

    Args:
        metric: name, `Metric`, or function of (label, prediction, weight) that takes row weights.
        label: (N,) labels.
        prediction: (N,) predictions.
        weight: (N,) sample weights, at least 0.
        group: (N,) users; if given, whole groups are resampled, which is right where the rows of a
            user resemble each other, and needed by grouped metrics.
        replicates: resamples drawn.
        level: share of the resamples inside the interval.
        seed: the same seed gives the same interval.

    Raises:
        ConfigError: unknown metric, a grouped metric without group, fewer than 2 replicates.
        DataError: columns of different length.
    """
    _check(replicates, level)
    codes, units = _codes(group, len(np.asarray(label)))
    part = _Resampled(_metric(metric), label, prediction, weight, codes)
    samples = _sample([part], lambda value: value, units, replicates, seed)
    return _interval(part.value, samples, level)


def paired_difference(
    metric: MetricLike,
    label: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    weight: npt.ArrayLike | None = None,
    group: npt.ArrayLike | None = None,
    replicates: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return metric(a) - metric(b) with its interval, both on the same resamples.

    Much narrower than the two single intervals suggest, because a hard row is hard for both. The
    difference is raw: for a metric that is better when lower, below 0 means that `a` is better.
    Arguments and errors are those of `bootstrap`, with predictions `a` and `b` (N,).
    """
    _check(replicates, level)
    codes, units = _codes(group, len(np.asarray(label)))
    chosen = _metric(metric)
    parts = [_Resampled(chosen, label, prediction, weight, codes) for prediction in (a, b)]
    samples = _sample(parts, lambda of_a, of_b: of_a - of_b, units, replicates, seed)
    return _interval(parts[0].value - parts[1].value, samples, level)
