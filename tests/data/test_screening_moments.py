"""Statistics of time in the screening: planted ones are kept, nothing where nothing is, ageing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autorec.data import _screening_moments as moments
from autorec.data import _screening_sample as sample
from autorec.data.columns import Columns
from autorec.data.features.date_parts import DateParts
from autorec.data.features.recency import Recency
from autorec.data.screening import Asked, Screening, screen
from autorec.schema import Layout, SparseField

DAY, START = 86_400, 1_700_000_000
BOTH = Asked("user", "item")


def hours_since(user: Any, time: Any) -> Any:
    """Return the hours (n,) since the last row of the user, NaN for the first, by a loop."""
    last: dict[int, int] = {}
    out = np.full(len(user), np.nan)
    for row in range(len(user)):
        if user[row] in last:
            out[row] = (time[row] - last[user[row]]) / 3600
        last[user[row]] = time[row]
    return out


def log(
    rows: int = 12_000,
    users: int = 300,
    *,
    days: int = 60,
    since: float = 0.0,
    hour: float = 0.0,
    skewed: bool = False,
    seed: int = 0,
) -> Columns:
    """Return clicks at random times whose chance may follow the hours since the user's last one."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, users, rows), rng.integers(0, 80, rows)
    if skewed:
        user, item = (np.minimum(rng.zipf(z, rows), 20_000) - 1 for z in (1.3, 1.15))
    time = START + np.sort(rng.choice(days * DAY, rows, replace=False))
    margin = rng.normal(0, 0.5, user.max() + 1)[user] + rng.normal(0, 0.5, item.max() + 1)[item] - 1
    if since:
        passed = np.log1p(hours_since(user, time))
        scaled = (passed - np.nanmean(passed)) / np.nanstd(passed)
        margin += since * np.nan_to_num(scaled)
    margin += hour * np.where(time // 3600 % 24 < 12, 1.0, -1.0)
    codes = np.stack([user, item, rng.integers(0, 5, rows)], 1) + 2
    names = ("user", "item", "place")
    fields = [SparseField(n, int(c.max()) + 1, n) for n, c in zip(names, codes.T, strict=True)]
    return Columns(
        Layout(tuple(fields)),
        rows,
        codes.astype(np.int32),
        {},
        np.empty((rows, 0), np.float32),
        label=(margin + rng.logistic(size=rows) > 0).astype(np.float32),
        time=time,
    )


def kept(found: Screening) -> list[str]:
    return [one.name for one in found.evidence if one.kept]


def test_the_time_since_the_last_event_is_found_and_nothing_else() -> None:
    found = screen(log(since=0.5), binary=True, seconds=60.0, asked=BOTH)
    assert kept(found) == ["user.since"]
    assert found.evidence[0].form == "count" and found.evidence[0].z > 10
    assert found.chosen() == ["user.since"]
    assert found.transforms() == [Recency(("user",), ())]
    assert Screening.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert "user.since" in found.explain()


def test_the_hour_is_found_where_the_log_repeats_it() -> None:
    found = screen(log(hour=0.4), binary=True, seconds=60.0, asked=BOTH)
    assert kept(found) == ["time.hour"]
    assert found.transforms() == [DateParts(("hour",), numbers=True)]
    names = {one.name for one in found.evidence}
    assert "time.weekday" in names
    short = screen(log(hour=0.4, days=1), binary=True, seconds=60.0, asked=BOTH)
    assert not [one for one in short.evidence if one.name.startswith("time.")]
    assert not kept(screen(log(hour=0.4), binary=True, seconds=60.0))


@pytest.mark.parametrize("ahead", [0, 6 * DAY])
@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_kept_at_random_times(seed: int, skewed: bool, ahead: int) -> None:
    made = log(rows=8_000, seed=seed, skewed=skewed)
    asked = replace(BOTH, ahead=ahead)
    assert not kept(screen(made, binary=True, seed=seed, seconds=60.0, asked=asked))


def test_what_ages_until_validation_is_not_kept() -> None:
    """Users come back daily: after six days without a log the hours since tell nothing."""
    made = log(since=0.5)
    assert not kept(screen(made, binary=True, seconds=60.0, asked=replace(BOTH, ahead=6 * DAY)))
    soon = replace(BOTH, ahead=2 * 3600)
    assert kept(screen(made, binary=True, seconds=60.0, asked=soon)) == ["user.since"]
    hour = log(hour=0.4)
    later = screen(hour, binary=True, seconds=60.0, asked=replace(BOTH, ahead=6 * DAY))
    assert kept(later) == ["time.hour"]


def test_crosses_are_told_of_other_rows_where_validation_lies_among_them() -> None:
    rng = np.random.default_rng(0)
    made = log()
    rate = rng.random((5, 82))[made.codes[:, 2] - 2, made.codes[:, 1]]
    made = replace(made, label=(rng.random(len(made)) < rate).astype(np.float32))
    among = screen(made, binary=True, seconds=60.0, asked=BOTH)
    behind = screen(made, binary=True, seconds=60.0, asked=replace(BOTH, ahead=DAY))
    forms = [
        {one.form for one in found.transforms() if hasattr(one, "form")}
        for found in (among, behind)
    ]
    assert forms[0] <= {"out-of-fold", "leave-one-out"} and forms[1] == {"auto"}
    assert "item*place" in kept(among) and "item*place" in kept(behind)


def cells_of(made: Columns, asked: Asked) -> tuple[Any, dict[str, Any]]:
    drawn = sample.draw(made, binary=True, rows=600, seed=0)
    assert drawn is not None
    found, wide, tried = moments.moments(made, drawn, sample.base(drawn), asked)
    assert tried >= len(found)
    names = {one.column or f"{one.fields[0]}.count": cell for one, cell in found.items()}
    return drawn, {"windows": wide, **names}


def test_cells_order_rows_as_a_loop_counts_them() -> None:
    """Bins are monotone in the value, so that equal bins hold neighbouring values only."""
    made = log(rows=600, users=12)
    _, found = cells_of(made, BOTH)
    user, item, time = made.codes[:, 0], made.codes[:, 1], made.time
    window = found["windows"][0]

    def naive(of: Any, row: int) -> Any:
        return np.flatnonzero((of == of[row]) & (time < time[row]))

    pair = user.astype(np.int64) * 1000 + item
    want = {
        "user.since": hours_since(user, time),
        f"item.within_{window:g}s": [
            (time[naive(item, row)] >= time[row] - window).sum() for row in range(600)
        ],
        "user*item.seen": [len(naive(pair, row)) > 0 for row in range(600)],
        "time.hour": time // 3600 % 24,
    }
    for name, values in want.items():
        values = np.asarray(values, np.float64)
        order = np.argsort(values, kind="stable")  # NaN last, as its bin
        assert (np.diff(found[name].at[order].astype(int)) >= 0).all(), name
        assert len(np.unique(found[name].at)) > 1


def test_rows_behind_the_sample_and_labels_elsewhere_do_not_count() -> None:
    made = log(since=0.5)
    label = made.label.copy()
    label[:6_000] = 1 - label[:6_000]
    first, second = (
        screen(one, binary=True, rows=6_000, seconds=60.0, asked=BOTH).evidence
        for one in (made, replace(made, label=label))
    )
    assert first == second and kept(Screening(first, 0, 0, 0.0)) == ["user.since"]


@pytest.mark.parametrize(
    ("days", "want"),
    [
        (1 / 1440, ()),
        (1 / 24, (60, 600)),
        (1, (600, 3_600, 21_600)),
        (30, (21_600, 86_400, 604_800)),
        (1000, (86_400, 604_800, 2_592_000)),
    ],
)
def test_windows_suit_the_span(days: float, want: tuple[int, ...]) -> None:
    found = moments.windows(days * DAY)
    assert found == want
    assert all(days * DAY / 1000 <= window <= days * DAY / 4 for window in found)


def test_odd_logs_give_nothing() -> None:
    made = log(rows=1_000)
    still = replace(made, time=np.full(1_000, START))
    none = replace(made, time=None)
    unknown = replace(made, time=np.full(1_000, np.iinfo(np.int64).min))
    for odd in (still, none, unknown):
        assert not kept(screen(odd, binary=True, asked=BOTH))
    alone = screen(log(since=0.8), binary=True, seconds=60.0, asked=Asked("user"))
    assert kept(alone) == ["user.since"]
    assert not kept(screen(log(since=0.8), binary=True, seconds=60.0, asked=Asked(time=False)))
