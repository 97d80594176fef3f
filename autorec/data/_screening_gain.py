"""What a statistic of a cross would gain on rows that it was not fitted on, in closed form.

With residuals g and curvatures h of the rows of one cell (a combination of values, or a bin of
counts), sums G and H, a row that is predicted by the OTHER rows of its cell gets v = (G - g) /
(H + prior). Summed over rows, g v is A = sum over cells of (G^2 - sum g^2) / (H + prior): its mean
is 0 where the cells tell nothing, and no row's value has seen its own label. With the best
multiple of v, whose fit costs half a row's worth of loss, the second-order gain is A^2 / 2 B,
where B is the sum of h v^2.

Without signal A is close to a weighted sum of (chi-square - 1), one a cell, which is skewed where
few cells carry most weight. Its first three moments are matched by one chi-square variable, and
that is made normal by Wilson and Hilferty (PNAS 17, 1931), so that `z` may be held against normal
quantiles. Where there is time, v comes from strictly earlier rows, A is a martingale, and z is A
over the root of the sum of its squared steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autorec.data._screening_sample import PRIOR, Mask, Residual, Sample
from autorec.data.features._order import earlier
from autorec.data.features._table import Floats
from autorec.data.hashing import mix

# Counts up to 8 apart, then four bins to an octave.
EDGES = np.unique(np.rint(np.concatenate([np.arange(9), 2.0 ** np.arange(3, 31, 0.25)])))


class Gain(NamedTuple):
    """Gain in loss units a row, its normal score, and the best multiple of the values."""

    gain: float
    z: float
    scale: float


NOTHING = Gain(0.0, 0.0, 0.0)


Places = npt.NDArray[np.int8] | npt.NDArray[np.int32] | npt.NDArray[np.int64]


class Cells(NamedTuple):
    """The cell (n,) of each row, from 0 to `size`; cell `size` is of rows that are not known."""

    at: Places
    size: int


def cells(sample: Sample, fields: Sequence[int], slots: int = 0, last: int = 0) -> Cells:
    """Return the cell of each row under a cross.

    Args:
        sample: n rows.
        fields: places of its fields.
        slots: of a hash that keys share where they span more, for a first look; 0 is exact.
        last: how many of the last rows are wanted; 0 for all.
    """
    key, span = sample.codes[fields[0]][-last:], sample.sizes[fields[0]]
    known: Mask | None = sample.known[fields[0]]
    for field in fields[1:]:
        key = key * sample.sizes[field]
        key += sample.codes[field][-last:]
        span *= sample.sizes[field]
        mask = sample.known[field]
        known = mask if known is None else known if mask is None else known & mask
        if span >= 1 << 40:  # the next product would leave 63 bits
            values, key = np.unique(key, return_inverse=True)
            span = len(values)
    known = None if known is None else known[-last:]
    if slots and span > slots:
        key = (mix(key.view(np.uint64)) % np.uint64(slots)).view(np.int64)
        span = slots
    elif not slots and span > 4 * len(key):
        values, key = np.unique(key, return_inverse=True)
        span = len(values)
    return Cells(key if known is None else np.where(known, key, span), span)


def of_cells(cell: Cells, found: Residual) -> Gain:
    """Return what the other rows of its cell tell about a row."""
    rows = np.bincount(cell.at, minlength=cell.size)[: cell.size]
    there = np.flatnonzero(rows > 1)  # a row alone in its cell learns nothing, and costs nothing
    slope, square, bend = (
        _sums(cell.at, each, cell.size)[there]
        for each in (found.slope, found.slope * found.slope, found.bend)
    )
    return _of_sums(rows[there].astype(np.float64), slope, square, bend, found.prior, len(cell.at))


def glance(cell: Cells, found: Residual, table: npt.NDArray[np.int8]) -> tuple[Gain, Gain]:
    """Return the gains of counts and of rates of a cross, in a fourth of the time of both apart.

    All rows of a cell have one count, so that the bins of counts are summed over cells, not rows.
    The curvature of a cell is taken as the mean one, and rows that are not known are left out.

    Args:
        cell: of the last n rows.
        found: of all rows.
        table: from `bins`, for n rows or more.
    """
    last = len(cell.at)
    rows = np.bincount(cell.at, minlength=cell.size)[: cell.size]
    there = np.flatnonzero(rows)
    n = rows[there]
    slope = _sums(cell.at, found.slope[-last:], cell.size)[there]
    square = _sums(cell.at, found.square[-last:], cell.size)[there]
    each = found.prior / PRIOR
    size = n.astype(np.float64)
    rate = _of_sums(size, slope, square, size * each, found.prior, last)
    at = table[n - 1]
    size = _sums(at, size)
    slope, square = _sums(at, slope), _sums(at, square)
    full = size > 0
    size, slope, square = size[full], slope[full], square[full]
    return _of_sums(size, slope, square, size * each, found.prior, last), rate


def _of_sums(
    n: Floats, slope: Floats, square: Floats, bend: Floats, prior: float, rows: int
) -> Gain:
    """Return the gain of cells with n rows and sums of g, g^2 and h each."""
    weight = 1.0 / (bend + prior)
    own = slope * slope
    value = float(np.dot(own - square, weight))
    cost = float(np.dot(bend * weight * weight, own - (2.0 * own - square) / n))
    share = square * weight
    share *= share
    share *= 1.0 - 1.0 / n
    return _gain(value, cost, rows, _score(value, share))


def _sums(at: Places, values: Floats, size: int = 0) -> Floats:
    """Return the sum of the values (n,) at each place from 0, in float64."""
    return np.asarray(np.bincount(at, values, size), np.float64)


def _score(value: float, squares: Floats) -> float:
    """Return the normal score of a sum of share * (chi-square - 1) that came out as `value`."""
    second, third = float(squares.sum()), float(np.dot(squares, np.sqrt(squares)))
    if second <= 0.0 or third <= 0.0:
        return 0.0
    freedom = second**3 / third**2
    ratio = max(0.0, 1.0 + value / np.sqrt(second * freedom))
    spread = 2.0 / (9.0 * freedom)
    return float((np.cbrt(ratio) - 1.0 + spread) / np.sqrt(spread))


def _gain(value: float, cost: float, rows: int, z: float) -> Gain:
    if cost <= 0.0:
        return NOTHING
    # A negative product is evidence against the values, and stays negative.
    return Gain(value * abs(value) / (2.0 * cost * rows), z, max(0.0, value / cost))


def binned(count: npt.NDArray[np.generic]) -> Cells:
    """Return the bin of each count (n,)."""
    return Cells(bins(int(count.max()) + 1)[count.astype(np.int64)], len(EDGES))


def bins(rows: int) -> npt.NDArray[np.int8]:
    """Return the bin of each count from 0 to rows - 1."""
    return (np.searchsorted(EDGES, np.arange(rows), side="right") - 1).astype(np.int8)


def counts(sample: Sample, cell: Cells, *, ordered: bool) -> Cells:
    """Return the bin (n,) of how many other rows share a row's cell, or strictly earlier ones."""
    known = cell.at < cell.size
    if ordered and sample.time is not None:
        found, _ = earlier(cell.at.astype(np.int64), sample.time)
        return binned(np.where(known, found, 0.0))
    rows = np.bincount(cell.at, minlength=cell.size + 1) - 1
    rows[cell.size] = 0
    return binned(rows[cell.at])


def values(sample: Sample, cell: Cells, found: Residual) -> Floats:
    """Return v (n,) of each row: from the other rows of its cell, or the strictly earlier ones."""
    known = cell.at < cell.size
    if sample.time is not None:
        count, slope = earlier(cell.at.astype(np.int64), sample.time, found.slope)
        bend = count * (found.bend.mean() if sample.binary else 1.0)
        return np.where(known, slope / (bend + found.prior), 0.0)
    slope = np.bincount(cell.at, found.slope, cell.size + 1)[cell.at] - found.slope
    bend = np.bincount(cell.at, found.bend, cell.size + 1)[cell.at] - found.bend
    return np.where(known, slope / (bend + found.prior), 0.0)


def of_values(value: Floats, found: Residual) -> Gain:
    """Return the gain of ordered values (n,)."""
    step = found.slope * value
    total, square = float(step.sum()), float((step * step).sum())
    cost = float((found.bend * value * value).sum())
    return _gain(total, cost, len(value), total / np.sqrt(square) if square > 0.0 else 0.0)


def leaves(cell: Cells, found: Residual) -> Floats:
    """Return the best constant (n,) of each row's cell; for cells of many rows."""
    slope = np.bincount(cell.at, found.slope, cell.size + 1)
    bend = np.bincount(cell.at, found.bend, cell.size + 1)
    return np.asarray((slope / (bend + found.prior))[cell.at])
