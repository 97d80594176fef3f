"""Numeric columns: one standardised float and one quantile bin per value.

The float: infinities are an error; `sign(x) * log1p(|x|)` is applied first when the skewness of
the training sample exceeds 2 in size and the logarithm shrinks it by a tenth or more; then the
training mean is subtracted and the training deviation divided out, both in float64; the result is
clipped to [-10, 10]. Null and NaN stay NaN.

The bin: code 0 for null, 1 unused, from 2 the bins (-inf, e1], (e1, e2], ... (em, inf), whose
edges are training quantiles; with at most `bins` distinct values each value has its own bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autorec.data.casting import numbers
from autorec.data.vocabulary import FIRST, NULL, Codes, ValueCounter

Floats = npt.NDArray[np.float64]

CLIP = 10.0
SKEWED = 2.0
SAMPLE = 1 << 16  # distinct values kept of a column
_THIN = 8  # every 8th of them parts the rows of the second pass: they then fit the cache


@dataclass(frozen=True)
class Numeric:
    """The fitted transform of one numeric column.

    Attributes:
        log: whether signed log1p comes first.
        mean: training mean after that, in its units.
        std: training deviation after that; 1 for a constant column.
        nullable: whether training rows had nulls.
        edges: upper ends of all bins but the last, ascending, in raw units.
    """

    column: str
    log: bool
    mean: float
    std: float
    nullable: bool
    edges: tuple[float, ...]

    @property
    def rows(self) -> int:
        """Rows of an embedding table over the bins: the bins, null and the unused code 1."""
        return FIRST + len(self.edges) + 1

    def dense(self, values: Floats) -> npt.NDArray[np.float32]:
        """Return raw values (n,) standardised and clipped, NaN kept."""
        scaled = signed_log(values) if self.log else values
        with np.errstate(over="ignore"):  # what overflows is clipped
            out = (scaled - self.mean) / self.std
        return np.clip(out, -CLIP, CLIP).astype(np.float32)

    def bins(self, values: Floats) -> Codes:
        """Return the bin code (n,) of raw values."""
        codes = np.searchsorted(np.asarray(self.edges, np.float64), values, side="left") + FIRST
        return np.where(np.isnan(values), NULL, codes).astype(np.int32)


class Moments:
    """Mean and deviation of a stream, merged batch by batch without cancellation (Chan et al.)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, values: Floats) -> None:
        """Take in finite values (n,)."""
        n = len(values)
        if not n:
            return
        with np.errstate(over="ignore", invalid="ignore"):  # the logarithm is used instead
            mean = float(values.mean())
            squares = float(np.square(values - mean).sum())
            delta, total = mean - self.mean, self.count + n
            self.squares += squares + float(np.float64(delta) * delta) * self.count * (n / total)
            self.mean += delta * (n / total)
        self.count = total

    @property
    def std(self) -> float:
        """Population deviation; infinite where float64 overflowed."""
        var = self.squares / max(self.count, 1)
        return float(np.sqrt(var)) if np.isfinite(var) and np.isfinite(self.mean) else np.inf


class NumericFit:
    """Learns a `Numeric` from a stream of batches in bounded memory.

    Quantiles come from the distinct values with the smallest hashes. Where there are more than
    `SAMPLE` of them, a second pass counts all rows between the sampled values, so that a value
    which holds half the rows is seen even when it is not in the sample. Neither pass depends on
    the order of rows.
    """

    def __init__(self, column: str, bins: int, sample: int = SAMPLE) -> None:
        self.column, self._bins = column, bins
        self.infinite, self._nulls = 0, 0
        self._plain, self._log = Moments(), Moments()
        self._low, self._high = np.inf, -np.inf
        self._counter = ValueCounter(column, sample)
        self._values: Floats = np.empty(0)
        self._counts: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def add(self, array: Any) -> None:
        """Take in one Arrow array of training values (first pass)."""
        values = numbers(array, self.column)
        finite = np.isfinite(values)
        if not finite.all():
            infinite = int(np.isinf(values).sum())
            self.infinite += infinite
            self._nulls += len(values) - int(finite.sum()) - infinite
            values = values[finite]
        if len(values):
            self._low = min(self._low, float(values.min()))
            self._high = max(self._high, float(values.max()))
            self._plain.add(values)
            self._log.add(signed_log(values))
            self._counter.add(pa.array(values))

    def settle(self) -> bool:
        """End the first pass; tell whether `count` must see every batch once more."""
        table = self._counter.result()
        values = table["v"].to_numpy().astype(np.float64)
        order = np.argsort(values)
        self._values = values[order]
        self._counts = table["n"].to_numpy()[order].astype(np.int64)
        if self._counter.pruned:
            self._values = np.unique(np.append(self._values[::_THIN], [self._low, self._high]))
            self._counts = np.zeros(len(self._values), np.int64)
        return self._counter.pruned

    def count(self, array: Any) -> None:
        """Count one batch between the sampled values (second pass, where `settle` asked for it)."""
        values = numbers(array, self.column)
        at = np.searchsorted(self._values, values[np.isfinite(values)], side="left")
        self._counts += np.bincount(at, minlength=len(self._values))[: len(self._values)]

    def result(self) -> Numeric:
        """Return the fitted transform."""
        log = is_skewed(self._values, self._counts) or not np.isfinite(self._plain.std)
        moments = self._log if log else self._plain
        std = moments.std
        size = max(abs(self._low), abs(self._high)) if moments.count else 1.0
        size = float(np.log1p(size)) if log else size
        # Rounding of the mean of a constant column must not be blown up to a feature.
        if not moments.count or self._low == self._high or std <= 1e-12 * size:
            std = 1.0
        return Numeric(
            column=self.column,
            log=log,
            mean=moments.mean,
            std=std,
            nullable=self._nulls > 0 or moments.count == 0,
            edges=tuple(quantile_edges(self._values, self._counts, self._bins).tolist()),
        )


def signed_log(values: Floats) -> Floats:
    """Return sign(x) * log1p(|x|)."""
    return np.copysign(np.log1p(np.abs(values)), values)


def skewness(values: Floats, counts: npt.NDArray[np.int64]) -> float:
    """Return the skewness of distinct values (n,) with their counts; 0 for constant ones."""
    if len(values) < 2:
        return 0.0
    scaled = values / np.abs(values).max()  # the third power of 1e200 would overflow
    share = counts / counts.sum()
    centred = scaled - np.sum(share * scaled)
    variance = float(np.sum(share * centred**2))
    return float(np.sum(share * centred**3)) / variance**1.5 if variance > 1e-24 else 0.0


def is_skewed(values: Floats, counts: npt.NDArray[np.int64]) -> bool:
    """Tell whether the logarithm is worth taking: see the rule at the top of this module."""
    plain = abs(skewness(values, counts))
    return plain > SKEWED and abs(skewness(signed_log(values), counts)) < 0.9 * plain


def quantile_edges(values: Floats, counts: npt.NDArray[np.int64], bins: int) -> Floats:
    """Return at most bins - 1 ascending edges that part the counted values into even bins.

    Args:
        values: distinct values (n,), ascending.
        counts: rows (n,) of each value.
        bins: most bins wanted.
    """
    if len(values) <= bins:
        return values[:-1]
    up_to = np.cumsum(counts)
    wanted = up_to[-1] * np.arange(1, bins) / bins
    edges = np.unique(values[np.searchsorted(up_to, wanted, side="left")])
    return np.asarray(edges[edges < values[-1]])
