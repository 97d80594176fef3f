"""Look-ups in a log of events: against a loop, and both ways of searching against each other."""

from __future__ import annotations

import numpy as np
import pytest

from autorec.data.features import _order
from autorec.data.features._order import Log
from autorec.data.timeline import UNKNOWN


def made(n: int, seed: int, wide: bool) -> tuple[Log, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    key, time = rng.integers(0, 9, n) * 3, rng.integers(-50, 50, n) * (2**55 if wide else 1)
    known = rng.random(n) < 0.9
    time[rng.random(n) < 0.1] = UNKNOWN
    return Log.learn(key, time, known), key, time, known


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("n", [1, 2, 200])
def test_events_before_and_near_are_those_of_a_loop(n: int, wide: bool) -> None:
    log, key, time, known = made(n, 0, wide)
    there = known & (time != UNKNOWN)
    if n == 200:
        assert (log._joint is None) == wide
    rng = np.random.default_rng(1)
    asked = rng.integers(-1, 30, 300)
    at = rng.integers(-60, 60, 300) * (2**55 if wide else 1)
    at[::17] = UNKNOWN
    sure = rng.random(300) < 0.9
    back = 20 * (2**55 if wide else 1)
    span = log.before(asked, at, sure)
    near = log.near(span, at, back)
    for row in range(300):
        mine = there & (key == asked[row]) & (time < at[row])
        count = int(mine.sum()) if sure[row] and at[row] != UNKNOWN else 0
        assert span.end[row] - span.first[row] == count
        lately = mine & (time >= at[row] - back) if count else mine & False
        assert near[row] == lately.sum()


def test_both_ways_of_searching_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    log, key, time, known = made(500, 2, wide=False)
    spans = log.before(key, time, known)
    near = log.near(spans, time, 7)
    assert log._joint is not None
    monkeypatch.setattr(_order, "_WIDEST", 1)
    other, *_ = made(500, 2, wide=False)
    assert other._joint is None
    halved = other.before(key, time, known)
    for one, two in zip(spans, halved, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(other.near(halved, time, 7), near)


def test_an_empty_log_knows_nothing() -> None:
    nothing = np.zeros(0, np.int64)
    log = Log(nothing, nothing, nothing)
    span = log.before(np.arange(3), np.arange(3), np.ones(3, np.bool_))
    assert not (span.end - span.first).any() and not log.near(span, np.arange(3), 5).any()
