"""Metrics of all tasks, vectorised in float64, exact with ties and sample weights.

Labels of the binary metrics are 0 and 1. A metric whose value is undefined on the rows given (one
class only, no group with both classes, no weight, a NaN in the prediction) returns NaN and never a
stand-in such as 0.5: the caller decides whether that matters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from autorec.errors import ConfigError, DataError

Array = npt.NDArray[np.float64]

LOGLOSS_EPS = 1e-7  # the smallest probability that float32 sigmoid outputs still tell from 0
ECE_BINS = 15


def _columns(
    label: npt.ArrayLike, prediction: npt.ArrayLike, weight: npt.ArrayLike | None
) -> tuple[Array, Array, Array]:
    """Return label, prediction and weight (1 where none is given), each (N,) float64."""
    y = np.asarray(label, dtype=np.float64)
    p = np.asarray(prediction, dtype=np.float64)
    w = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    if y.ndim != 1 or not y.shape == p.shape == w.shape:
        raise DataError(
            "label, prediction and weight must be (N,) of one length, but got shapes "
            f"{y.shape}, {p.shape} and {w.shape}"
        )
    if weight is not None and not (w >= 0).all():
        bad = w[~(w >= 0)][0]
        raise DataError(f"sample weights must be at least 0, but got {bad}; drop those rows")
    return y, p, w


def _starts(*keys: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return where runs of equal keys begin in sorted columns of at least one row."""
    change = np.zeros(len(keys[0]), dtype=bool)
    change[0] = True
    for key in keys:
        change[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(change)


def ranked_auc(label: npt.ArrayLike, score: npt.ArrayLike) -> Callable[[Array], float]:
    """Sort once and return a function from weights (N,) to the AUC under them.

    A bootstrap calls it with how often each row was drawn, and so sorts once for all replicates.
    """
    y, s, _ = _columns(label, score, None)
    if np.isnan(s).any():
        return lambda weight: float("nan")
    positive, negative = np.flatnonzero(y > 0.5), np.flatnonzero(y <= 0.5)
    negative = negative[np.argsort(s[negative])]
    beaten = np.searchsorted(s[negative], s[positive], side="left")
    tied = np.searchsorted(s[negative], s[positive], side="right")

    def at(weight: Array) -> float:
        mass = np.concatenate([[0.0], np.cumsum(weight[negative])])  # of the negatives below
        w = weight[positive]
        pairs = float(w.sum() * mass[-1])
        return float(0.5 * (w @ (mass[beaten] + mass[tied]))) / pairs if pairs > 0 else float("nan")

    return at


def auc(label: npt.ArrayLike, score: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the area under the ROC curve; pairs of equal score count half.

    Args:
        label: (N,) 0 or 1.
        score: (N,) any number, higher means more likely positive.
        weight: (N,) at least 0; a pair weighs the product of its rows' weights.

    Returns:
        a number in [0, 1], or NaN where one class has no weight or a score is NaN.
    """
    y, s, w = _columns(label, score, weight)
    return ranked_auc(y, s)(w)


def _group_codes(group: npt.ArrayLike, rows: int) -> npt.NDArray[Any]:
    codes = np.asarray(group)
    if codes.shape != (rows,):
        raise DataError(f"group must have one value per row ({rows},), but got shape {codes.shape}")
    return codes if codes.dtype.kind in "iub" else np.unique(codes, return_inverse=True)[1]


def group_aucs(
    label: npt.ArrayLike,
    score: npt.ArrayLike,
    group: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Return the AUC and the summed weight of every group, in order of group: two (G,) arrays.

    The AUC of a group without both classes is NaN.
    """
    y, s, w = _columns(label, score, weight)
    codes = _group_codes(group, len(y))
    if len(y) == 0:
        return np.empty(0), np.empty(0)
    order = np.lexsort((s, codes))
    codes, s, w, positive = codes[order], s[order], w[order], y[order] > 0.5
    ties = _starts(codes, s)
    groups = np.searchsorted(ties, _starts(codes))  # where each group begins, counted in tie runs
    wp = np.add.reduceat(np.where(positive, w, 0.0), ties)
    wn = np.add.reduceat(np.where(positive, 0.0, w), ties)
    total_p, total_n = np.add.reduceat(wp, groups), np.add.reduceat(wn, groups)
    before = np.cumsum(wn) - wn
    below = before - np.repeat(before[groups], np.diff([*groups, len(ties)])) + 0.5 * wn
    won, pairs = np.add.reduceat(wp * below, groups), total_p * total_n
    poisoned = np.add.reduceat(np.isnan(s[ties]), groups) > 0
    valid = (pairs > 0) & ~poisoned
    value = np.divide(won, pairs, out=np.full(len(won), np.nan), where=valid)
    return value, total_p + total_n


def gauc(
    label: npt.ArrayLike,
    score: npt.ArrayLike,
    group: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
) -> float:
    """Return the mean AUC within groups, each group counted by its summed weight.

    Args:
        label: (N,) 0 or 1.
        score: (N,) any number, higher means more likely positive.
        group: (N,) integers or words, such as the user of each row.
        weight: (N,) at least 0; without it a group counts by its rows (its impressions).

    Returns:
        a number in [0, 1] over the groups that hold both classes; NaN where none does.
    """
    if np.isnan(np.asarray(score, dtype=np.float64)).any():
        return float("nan")
    value, total = group_aucs(label, score, group, weight)
    valid = ~np.isnan(value)
    return float(value[valid] @ total[valid] / total[valid].sum()) if valid.any() else float("nan")


def _mean(value: Array, weight: Array) -> float:
    total = float(weight.sum())
    return float(value @ weight) / total if total > 0 else float("nan")


def _entropy(label: Array, probability: Array) -> Array:
    p = np.clip(probability, LOGLOSS_EPS, 1.0 - LOGLOSS_EPS)
    return -(label * np.log(p) + (1.0 - label) * np.log1p(-p))


def logloss(
    label: npt.ArrayLike, probability: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> float:
    """Return the mean cross-entropy in nats, probabilities clipped to [1e-7, 1 - 1e-7]."""
    y, p, w = _columns(label, probability, weight)
    return _mean(_entropy(y, p), w)


def normalized_entropy(
    label: npt.ArrayLike, probability: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> float:
    """Return logloss over the logloss of always saying the base rate: 1 means nothing was learned.

    NaN where only one class has weight, since the base rate then explains everything.
    """
    y, p, w = _columns(label, probability, weight)
    rate = _mean(y, w)
    if not 0.0 < rate < 1.0:
        return float("nan")
    base = -(rate * np.log(rate) + (1.0 - rate) * np.log1p(-rate))
    return _mean(_entropy(y, p), w) / float(base)


def ece(
    label: npt.ArrayLike, probability: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> float:
    """Return the expected calibration error over 15 bins of equal mass (summed weight).

    A run of equal probabilities lies whole in the bin of its middle, so the value does not depend
    on the order of rows and a weight of 2 is the same as two rows. Equal mass and not equal width,
    because click probabilities crowd near 0 and would share one bin.
    """
    y, p, w = _columns(label, probability, weight)
    total = float(w.sum())
    if total <= 0 or np.isnan(p).any():
        return float("nan")
    order = np.argsort(p)
    starts = _starts(p[order])
    mass = np.add.reduceat(w[order], starts)
    gap = np.add.reduceat((w * (y - p))[order], starts)
    middle = (np.cumsum(mass) - 0.5 * mass) / total
    bins = np.minimum((middle * ECE_BINS).astype(np.intp), ECE_BINS - 1)
    return float(np.abs(np.bincount(bins, weights=gap, minlength=ECE_BINS)).sum()) / total


def rmse(
    label: npt.ArrayLike, prediction: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> float:
    """Return the root of the weighted mean squared error, in units of the label."""
    y, p, w = _columns(label, prediction, weight)
    return float(np.sqrt(_mean((y - p) ** 2, w)))


def mae(
    label: npt.ArrayLike, prediction: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> float:
    """Return the weighted mean absolute error, in units of the label."""
    y, p, w = _columns(label, prediction, weight)
    return _mean(np.abs(y - p), w)


@dataclass(frozen=True)
class Metric:
    """One metric and what it asks for.

    `needs` names the prediction: a calibrated `probability`, a `score` whose order alone matters,
    or a `value` in units of the label. A `grouped` metric takes a group per row as third argument.
    """

    name: str
    function: Callable[..., float]
    greater_is_better: bool
    needs: Literal["probability", "score", "value"]
    grouped: bool = False

    def __call__(
        self,
        label: npt.ArrayLike,
        prediction: npt.ArrayLike,
        weight: npt.ArrayLike | None = None,
        group: npt.ArrayLike | None = None,
    ) -> float:
        """Return the metric on (N,) columns, NaN where it is undefined.

        Raises:
            DataError: columns of different length, a negative weight.
            ConfigError: a grouped metric without `group`.
        """
        if not self.grouped:
            return self.function(label, prediction, weight)
        if group is None:
            raise ConfigError(
                f"the metric {self.name!r} is a mean over groups, but no group is given; "
                "name a user or group column"
            )
        return self.function(label, prediction, group, weight)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("auc", auc, True, "score"),
        Metric("gauc", gauc, True, "score", grouped=True),
        Metric("logloss", logloss, False, "probability"),
        Metric("normalized_entropy", normalized_entropy, False, "probability"),
        Metric("ece", ece, False, "probability"),
        Metric("rmse", rmse, False, "value"),
        Metric("mae", mae, False, "value"),
    )
}
