"""One small function per thing that can be wrong with the times of a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from autorec.data import timeline
from autorec.data.casting import flat, numbers
from autorec.data.findings import Facts, Finding
from autorec.schema import Kind

_ORDERED = 0.99
_ORDER_ROWS = 50_000
_LEAST = 20  # with fewer rows, order is chance


def time_overlap(facts: Facts) -> Iterator[Finding]:
    """Tuning data begin after training data end."""
    name, scan, tuning = facts.schema.timestamp, facts.scan, facts.tuning_scan
    if name is None or tuning is None or scan.time_high is None or tuning.time_low is None:
        return
    if tuning.time_low < scan.time_high:
        dtype = facts.schema[name].dtype or str(facts.column(name).type)
        begin, end = timeline.told(tuning.time_low, dtype), timeline.told(scan.time_high, dtype)
        yield Finding(
            "warning",
            name,
            "time_overlap",
            f"tuning data should be later than training data, but begin at {begin} before these "
            f"end at {end}; scores will look better than the future",
            {"tuning_begins": begin, "training_ends": end},
        )


def split_ignores_time(facts: Facts) -> Iterator[Finding]:
    """A table with times is split by time."""
    name, plan = facts.schema.timestamp, facts.plan
    if name is not None and plan is not None and plan.method in ("random", "user"):
        yield Finding(
            "warning",
            name,
            "split_ignores_time",
            f"a table with times should be split by time, but the split is {plan.method!r}, which "
            f"trains on the future of validation rows; use split='time' on {name!r}",
            {"method": plan.method},
        )


def future_times(facts: Facts) -> Iterator[Finding]:
    """No event lies more than a day ahead."""
    name, scan = facts.schema.timestamp, facts.scan
    if name is not None and scan.future and scan.time_high is not None and facts.clock:
        last = timeline.told(scan.time_high / facts.clock * 1e6, "timestamp[us]")
        yield Finding(
            "warning",
            name,
            "future_time",
            f"events lie in the past, but {scan.future} of {scan.rows} times in {name!r} are more "
            f"than a day ahead, up to {last}; check the unit and the clock that wrote them",
            {"count": scan.future, "rows": scan.rows, "max": last},
        )


def time_nulls(facts: Facts) -> Iterator[Finding]:
    """Every row has a time."""
    name, scan = facts.schema.timestamp, facts.scan
    if name is not None and scan.time_nulls:
        yield Finding(
            "warning",
            name,
            "time_nulls",
            f"a row without a time cannot be ordered, but {scan.time_nulls} of {scan.rows} in "
            f"{name!r} are null; drop them or split otherwise",
            {"nulls": scan.time_nulls, "rows": scan.rows},
        )


def ordered_ids(facts: Facts) -> Iterator[Finding]:
    """No id counts up with time, or with the rows of the table."""
    for field in facts.features:
        if field.kind in (Kind.LIST, Kind.TEXT):
            continue
        against, rho = _order(facts, field.name, field.kind)
        if abs(rho) > _ORDERED:
            yield Finding(
                "warning",
                field.name,
                "ordered_id",
                f"an id should carry no order, but {field.name!r} rises or falls with {against} "
                f"(rank correlation {rho:.3f}): a model can read the time from it; leave it out",
                {"spearman": rho, "against": against},
            )


def _order(facts: Facts, name: str, kind: Kind) -> tuple[str, float]:
    """Return what the values follow most, and the rank correlation with it."""
    array = facts.column(name, _ORDER_ROWS)
    known = ~facts.missing(name)[:_ORDER_ROWS]
    if known.sum() < _LEAST:
        return "", 0.0
    ranks = _ranks(array)
    distinct = len(np.unique(ranks[known]))
    stamp = facts.schema.timestamp
    timed = stamp in facts.sample.schema.names and kind is not Kind.NUMERIC
    if stamp is not None and timed and distinct >= _LEAST:
        times, null = timeline.moments(
            facts.column(stamp, _ORDER_ROWS), stamp, facts.schema[stamp].dtype
        )
        both = known & ~null
        rho = correlation(ranks[both], _ranks(pa.array(times))[both])
        if abs(rho) > _ORDERED:
            return f"{stamp!r}", rho
    if kind is Kind.NUMERIC:  # a row number is whole; a measurement may well drift
        values = numbers(array, name)[known]
        if not (values == np.floor(values)).all():
            return "", 0.0
    if distinct == known.sum():
        return "the order of the rows", correlation(ranks[known], np.flatnonzero(known))
    return "", 0.0


def _ranks(array: Any) -> npt.NDArray[np.float64]:
    """Return average ranks (n,) of any sortable values."""
    array = flat(array)
    array = array.cast(pa.int8()) if pa.types.is_boolean(array.type) else array
    dense = pc.rank(array, sort_keys="ascending", tiebreaker="dense").to_numpy() - 1
    dense = dense.astype(np.int64)
    counts = np.bincount(dense)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[dense])


def correlation(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    """Return Pearson's correlation of two samples (n,); 0 where one is constant."""
    if len(left) < 2:
        return 0.0
    x, y = left - left.mean(), right - right.mean()
    size = float(np.sqrt(np.square(x).sum() * np.square(y).sum()))
    return float((x * y).sum() / size) if size > 0 else 0.0
