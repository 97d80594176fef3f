"""The parent's decisions: when to stop, whether to refit, whose weights to keep, who is best."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import pytest

from autorec import AutoRec
from autorec.fitting import Limits, _Search
from autorec.job import Score
from autorec.starting import share_cores
from autorec.trials import best_of


def record(number, value, *, state="COMPLETE", family="neural", seconds=10.0, **changes):
    score = Score(value, {}, rows=1000, seconds=seconds, info={"best_rows": 800})
    facts = {
        "number": number,
        "value": value,
        "state": state,
        "score": score,
        "candidate": SimpleNamespace(family=family),
        "baseline": False,
    }
    return SimpleNamespace(**{**facts, **changes})


class FakeRun:
    def __init__(self, kept):
        self.kept = set(kept)
        self.config = SimpleNamespace(n_train=900, n_valid=100)

    def has_weights(self, number):
        return number in self.kept

    def drop_weights(self, number):
        self.kept.discard(number)


def search(run, *, total=100.0, refit=True, encode=1.0):
    now = time.time()
    limits = Limits(now, now + total, None, 2, refit)
    prepared = SimpleNamespace(run=run, timings={"read": 1.0, "encode": encode})
    return _Search(prepared, None, limits, None, None)


def test_the_best_has_the_highest_score_and_weights():
    trials = [record(0, 0.7), record(1, 0.9), record(2, 0.8), record(3, 0.95, state="PRUNED")]
    assert best_of(trials, FakeRun([0, 2, 3])).number == 2
    assert best_of(trials, FakeRun([])) is None


def test_the_refit_is_estimated_from_rows_to_the_best_and_growth():
    found = search(FakeRun([])).refits.seconds(record(0, 0.9, seconds=10.0))
    assert found == pytest.approx(1.3 * 10.0 * 0.8 * (1000 / 900) + 1.5 * 1.0 + 4.0)


def test_a_refit_that_would_take_too_long_is_not_reserved():
    slow, quick = record(0, 0.9, seconds=60.0), record(1, 0.9, seconds=5.0)
    watch = search(FakeRun([0, 1]))
    assert watch.refits.reserve([slow]) == 0.0
    assert watch.refits.reserve([quick]) > 5.0
    assert watch.refits.reserve([slow, quick, record(1, 0.1, family="popularity")]) > 5.0
    assert search(FakeRun([0]), total=math.inf).refits.reserve([quick]) == 0.0
    assert watch.refit_fits(quick) and not watch.refit_fits(record(2, 0.9, seconds=500.0))


@pytest.mark.parametrize(("value", "chosen"), [(0.899, 1), (0.5, 0)])
def test_an_equal_that_can_be_refitted_becomes_the_model(monkeypatch, value, chosen):
    best, other = record(0, 0.9, seconds=500.0), record(1, value, seconds=5.0, family="tree")
    simple = record(2, 0.8995, seconds=0.1, family="popularity")
    trials = [best, other, simple]
    monkeypatch.setattr("autorec.search.records.records", lambda study: trials)
    asked = []

    def around(which, run):
        asked.append(which)
        return {0: (0.89, 0.91)}

    monkeypatch.setattr("autorec.choosing.intervals", around)
    assert search(FakeRun([0, 1, 2])).choice(best).number == chosen
    assert asked == [[best]]
    assert search(FakeRun([0, 1, 2]), refit=False).choice(best) is best
    assert search(FakeRun([0, 2])).choice(best) is best
    assert search(FakeRun([0, 1, 2])).choice(record(3, 0.9, seconds=1.0)).number == 3
    assert len(asked) == 1


def test_weights_of_leaders_baselines_and_the_best_network_are_kept():
    run = FakeRun(range(12))
    trials = [record(i, 0.5 + i / 100, family="tree") for i in range(10)]
    trials += [record(10, 0.1, baseline=True, family="popularity"), record(11, 0.2)]
    search(run)._drop_old_weights(trials)
    assert run.kept == {4, 5, 6, 7, 8, 9, 10, 11}


def test_short_limits_leave_most_of_the_time_to_the_search():
    for total in (4.0, 20.0, 600.0):
        watch = search(FakeRun([]), total=total, encode=0.1)
        assert watch.deadline - watch.limits.started > 0.55 * total
        assert watch.deadline < watch.limits.end
    assert search(FakeRun([]), total=math.inf).deadline == math.inf


def test_workers_that_were_told_to_stop_do_not_eat_the_time_of_the_refit(tmp_path, monkeypatch):
    run = FakeRun([0])
    run.stop_file = tmp_path / "stop"
    watch = search(run)
    best = record(0, 0.9, seconds=5.0)
    monkeypatch.setattr("autorec.search.records.records", lambda study: [best])
    watch.tracker = SimpleNamespace(log=lambda trials: None)
    watch.progress = SimpleNamespace(update=lambda *facts: None)
    watch.pool = SimpleNamespace(deadline=watch.limits.end)
    watch._tick()
    assert not run.stop_file.exists() and watch.pool.deadline == watch.limits.end
    watch.deadline = time.time() + 1.0  # the refit of `best` no longer fits behind another trial
    watch._tick()
    assert run.stop_file.exists() and watch.reserved
    assert watch.pool.deadline <= time.time() + watch.wind_down
    first = watch.pool.deadline
    watch._tick()
    assert watch.pool.deadline == first


def test_cores_are_shared_among_workers():
    workers, threads = share_cores("auto")
    assert 1 <= workers <= 8 and threads >= 1
    assert share_cores(1000) == (1000, 1)


def test_a_limit_of_seconds_still_returns_a_baseline(log, tmp_path):
    ar = AutoRec(label="click", path=tmp_path / "run", verbosity=0)
    started = time.time()
    ar.fit(log, time_limit=0.5, mlflow=False)
    assert time.time() - started < 20
    assert ar.best_model_ == "popularity"
    assert ar.predict_proba(log).shape == (len(log),)
