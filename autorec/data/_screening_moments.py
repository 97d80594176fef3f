"""What a row's own time tells beside crosses: which statistics are tried, and their cells.

Candidates are how long ago user, item and their pair were last seen, how often user and item were
seen before and within windows that suit the span of the log, whether the pair was, and the parts of
the date that the log repeats. Each becomes at most 32 quantile bins, which are screened as the
cells of a cross are: what the other rows of its bin tell about a row.

Where validation lies behind training in time, the log of a row there ends with training, and its
statistics age. They are tried under that condition, too: the latest rows of the sample play
validation, with a log that ends before them as long as it will. What earlier rows tell about a
statistic must still save loss there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from autorec.data._screening_gain import Cells
from autorec.data._screening_sample import Mask, Residual, Sample
from autorec.data.columns import Columns
from autorec.data.features._keys import title
from autorec.data.features._order import TICKS, unit_of
from autorec.data.features.date_parts import DateParts
from autorec.data.features.recency import Recency
from autorec.data.numeric import quantile_edges
from autorec.data.timeline import UNKNOWN
from autorec.schema import Layout

if TYPE_CHECKING:
    from autorec.data.features.base import Transform

Numbers = npt.NDArray[np.float32]

_WINDOWS = (60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000)
_MOST_WINDOWS = 3
_SHORTEST, _LONGEST = 1_000, 4  # a window is this fraction of the log at least, and at most
_PERIODS = {"hour": 2 * 86_400, "weekday": 14 * 86_400}  # seconds in which each value comes twice
_LOG_ROWS = 400_000  # latest rows that a sample may know of
_BINS = 32
_AGED = 0.3  # largest share of the sample that plays validation
_SURE = 2.33  # normal score that chance reaches once in a hundred


@dataclass(frozen=True)
class Moment:
    """A statistic of time: the entity (no field for a date), and the column of its transform.

    How often an entity was seen has no column: it is its count.
    """

    fields: tuple[str, ...]
    column: str


@dataclass(frozen=True)
class Asked:
    """What is asked about time.

    Attributes:
        user, item: names of plain fields; None where there is no such role.
        ahead: how far validation reaches behind the last training row, in the unit of the stored
            time; 0 where it does not lie behind it.
        time: whether statistics of time are tried.
    """

    user: str | None = None
    item: str | None = None
    ahead: int = 0
    time: bool = True


def windows(seconds: float) -> tuple[float, ...]:
    """Return the seconds of the windows, at most three, that suit a log of so many seconds."""
    fit = [w for w in _WINDOWS if seconds / _SHORTEST <= w <= seconds / _LONGEST]
    return tuple(fit[-_MOST_WINDOWS:])


def transform_of(
    fields: tuple[str, ...], columns: set[str], windows: tuple[float, ...]
) -> Transform:
    """Return the transform that gives some statistics of an entity, or of the date (no field)."""
    if not fields:
        parts = tuple(part for part in _PERIODS if f"time.{part}" in columns)
        return DateParts(parts, numbers=True)
    near = [w for w in windows if f"{title(fields)}.within_{w:g}s" in columns]
    return Recency(fields, tuple(near))


def moments(
    columns: Columns,
    sample: Sample,
    found: Residual,
    asked: Asked | None,
    late: Callable[[], bool] = lambda: False,
) -> tuple[dict[Moment, Cells], tuple[float, ...], int]:
    """Return the cells (n,) of the statistics to screen, the windows, and how many were tried.

    Args:
        columns: N training rows with times.
        sample: n of them.
        found: what is unexplained of the sample.
        asked: the entities, and where validation lies; None: no statistic is tried.
        late: tells when no other entity is to be begun.
    """
    if asked is None or not asked.time or columns.time is None or sample.rows is None:
        return {}, (), 0
    known = columns.time[columns.time != UNKNOWN]
    if not len(known) or known.min() == known.max():
        return {}, (), 0
    ticks = TICKS[unit_of(columns.time)]
    log, picked = _log(columns, asked, sample.rows)
    span = (int(known.max()) - int(known.min())) / ticks
    wide = windows(span)
    rows = log.take(picked)
    aged = _aged(sample, known, asked.ahead)
    past = _before(columns, asked, aged.end) if aged is not None else None
    made: dict[Moment, Cells] = {}
    tried = 0
    for transform, wanted in _tried(asked, wide, span):
        if late():
            break
        transform.fit(log)
        ordered = transform.apply(rows).dense  # by the time of a row, as in training
        old: Numbers | None = None
        if aged is not None and past is not None:
            transform.fit(past)
            old = transform.apply(rows.take(aged.rows)).dense
        tried += len(wanted)
        for at, moment in wanted:
            cell, edges = _cells(ordered[:, at])
            if edges is None:
                continue
            if aged is None or (old is not None and _lasts(cell, edges, old[:, at], aged, found)):
                made[moment] = cell
    return made, wide, tried


def _tried(
    asked: Asked, wide: tuple[float, ...], span: float
) -> Iterator[tuple[Transform, list[tuple[int, Moment]]]]:
    """Yield transforms, and the places and names of those of their columns that are tried."""
    entities = [(name,) for name in (asked.user, asked.item) if name is not None]
    for fields in entities:
        near = [Moment(fields, f"{fields[0]}.within_{w:g}s") for w in wide]
        since, ever = Moment(fields, f"{fields[0]}.since"), Moment(fields, "")
        # What was seen within a window of the whole log is what was ever counted. Validation rows
        # among training rows would count later ones, too.
        last, more = ((span + 1.0,), (ever,)) if asked.ahead > 0 else ((), ())
        at = (0, *range(2, 2 + len(wide) + len(last)))
        yield Recency(fields, (*wide, *last)), [*zip(at, (since, *near, *more), strict=True)]
    if asked.user is not None and asked.item is not None:
        both = (asked.user, asked.item)
        names = [f"{title(both)}.{what}" for what in ("since", "seen")]
        yield Recency(both, ()), [(at, Moment(both, name)) for at, name in enumerate(names)]
    parts = tuple(name for name, least in _PERIODS.items() if span >= least)
    if parts:
        dates = [(at, Moment((), f"time.{name}")) for at, name in enumerate(parts)]
        yield DateParts(parts, numbers=True), dates


def _log(
    columns: Columns, asked: Asked, wanted: npt.NDArray[np.int64]
) -> tuple[Columns, npt.NDArray[np.int64]]:
    """Return the latest rows with the fields that are asked about, and where `wanted` (n,) are."""
    keep = _latest(columns, None)
    keep[wanted] = True
    place = np.cumsum(keep) - 1
    return _narrow(columns, asked, keep), place[wanted]


def _before(columns: Columns, asked: Asked, end: int) -> Columns | None:
    """Return the latest rows before a time, None where there are none."""
    keep = _latest(columns, end)
    return _narrow(columns, asked, keep) if keep.any() else None


def _latest(columns: Columns, end: int | None) -> Mask:
    """Return which rows (N,) are the latest, whole in time, of those before `end`."""
    time = columns.time if columns.time is not None else np.zeros(0, np.int64)
    there = np.ones(len(time), np.bool_) if end is None else time < end
    count = int(there.sum())
    if count > _LOG_ROWS:
        times = time[there]
        there &= time >= np.partition(times, count - _LOG_ROWS)[count - _LOG_ROWS]
    return there


def _narrow(columns: Columns, asked: Asked, keep: Mask) -> Columns:
    """Return some rows with no columns but user and item."""
    names = [name for name in (asked.user, asked.item) if name is not None]
    at = [i for i, f in enumerate(columns.layout.sparse) if f.name in names and not f.binned]
    layout = Layout(tuple(columns.layout.sparse[i] for i in at))
    codes = columns.codes[:, at]
    nothing = np.empty((len(columns), 0), np.float32)
    few = Columns(layout, len(columns), codes, {}, nothing, time=columns.time)
    return few if keep.all() else few.take(keep)


@dataclass(frozen=True)
class _Aged:
    """Rows of the sample that play validation (n,), and the end of the log that they know."""

    rows: Mask
    end: int


def _aged(sample: Sample, known: npt.NDArray[np.int64], ahead: int) -> _Aged | None:
    """Return the rows that play validation; None where validation is not behind training.

    Validation rows lie half of `ahead` behind the end of their log in the mean. Where the sample is
    too short for that, the log of its latest rows ends so much before them.
    """
    if ahead <= 0 or sample.time is None:
        return None
    last, n = int(known.max()), len(sample)
    first = max(last - ahead, int(sample.time[int((1.0 - _AGED) * n)]))
    rows = sample.time >= first
    if rows.all() or not rows.any():
        return None
    return _Aged(rows, min(first, last - ahead // 2))


def _cells(values: Numbers) -> tuple[Cells, npt.NDArray[np.float64] | None]:
    """Return the bin (n,) of each value, and the edges; None where there is one bin only."""
    missing = np.isnan(values)
    distinct, counts = np.unique(values[~missing].astype(np.float64), return_counts=True)
    if len(distinct) + bool(missing.any()) < 2:
        return Cells(np.zeros(len(values), np.int8), 1), None
    edges = quantile_edges(distinct, counts, _BINS) if len(distinct) else distinct
    return Cells(_binned(values, edges), _BINS + 1), edges


def _binned(values: Numbers, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Return the bin (n,) of each value, `_BINS` where it is missing."""
    at = np.searchsorted(edges, values.astype(np.float64), side="left")
    return np.where(np.isnan(values), _BINS, at).astype(np.int8)


def _lasts(
    cell: Cells, edges: npt.NDArray[np.float64], old: Numbers, aged: _Aged, found: Residual
) -> bool:
    """Tell whether what earlier rows tell saves loss on the latest ones, as aged values.

    Args:
        cell: of the sample (n,).
        edges: of the bins.
        old: aged values (m,) of the rows that play validation.
        aged: these rows.
        found: what is unexplained of the sample.
    """
    early = ~aged.rows
    slope = np.bincount(cell.at[early], found.slope[early], cell.size)
    bend = np.bincount(cell.at[early], found.bend[early], cell.size)
    value = (slope / (bend + found.prior))[_binned(old, edges)]
    left, curve = found.slope[aged.rows], found.bend[aged.rows]
    saved = float((left * value).sum()) - 0.5 * float((curve * value * value).sum())
    # What moves all rows alike is no information, and follows any drift of the label.
    step = left * (value - np.average(value, weights=curve))
    square = float((step * step).sum())
    return bool(saved > 0.0 and square > 0.0 and float(step.sum()) >= _SURE * np.sqrt(square))
