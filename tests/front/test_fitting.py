"""The parent's decisions: when to stop, whether to refit, whose weights to keep, who is best."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest

from autorec import AutoRec
from autorec.errors import BudgetError
from autorec.fitting import Limits, _Search, _trained_again
from autorec.job import Score
from autorec.rehearsal import _halves, rehearse
from autorec.run import Run
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


def test_where_the_leader_cannot_be_refitted_time_is_kept_for_two_trainings_of_another():
    slow, quick, middle = (
        record(n, 0.9 - n / 100, seconds=s) for n, s in ((0, 80.0), (1, 6.0), (2, 15.0))
    )
    refits = search(FakeRun([0, 1, 2])).refits
    twice = 2 * refits.seconds(quick) + 2 * refits.wind_down
    assert refits.reserve([quick, slow]) == pytest.approx(twice)
    once = refits.seconds(middle) + 2 * refits.wind_down
    assert refits.reserve([middle, slow]) == pytest.approx(once)
    end = time.time() + 60.0
    assert refits.rival(slow, [quick, slow], end) is quick
    assert refits.rival(quick, [quick, slow], end) is None
    assert refits.rival(slow, [slow], end) is None


@pytest.fixture(scope="module")
def searched(log, tmp_path_factory):
    """A fit without refit: a linear model and a tree, with validation predictions."""
    ar = AutoRec(label="click", path=tmp_path_factory.mktemp("searched") / "run", verbosity=0)
    ar.fit(log, time_limit=120, n_trials=3, num_workers=1, refit=False, mlflow=False)
    return ar


def test_a_rehearsal_learns_from_one_half_and_compares_on_the_other(searched):
    from autorec.search.records import records

    run = Run.open(searched.path)
    trials = [t for t in records(searched.study_) if run.has_weights(t.number)]
    tree = next(t for t in trials if t.candidate.family == "tree")
    other = next(t for t in trials if t.candidate.family == "popularity")
    before = [run.columns(part).codes.copy() for part in ("train", "valid")]
    found = rehearse(run, other, tree, time.time() + 60)
    valid, kept = run.columns("valid"), _halves(run)[1]
    assert found.rows == len(kept) == len(valid) - len(valid) // 2
    own = run.task().metrics(valid.label[kept], run.prediction(other.number)[kept])
    assert found.best_score == pytest.approx(own[run.task().eval_metric])
    assert found.won == (found.rival_score >= found.best_score)
    assert found.rival_score > 0.5 and run.rehearsal()["rival"] == tree.number
    for part, codes in zip(("train", "valid"), before, strict=True):
        np.testing.assert_array_equal(run.columns(part).codes, codes)
    assert sorted(p.name for p in (run.folder / "columns").iterdir()) == ["train", "valid"]


def test_halves_share_no_row_and_the_later_one_is_compared_on(searched):
    run = Run.open(searched.path)
    learned, kept = _halves(run)
    assert sorted([*learned, *kept]) == list(range(len(run.columns("valid"))))
    late = SimpleNamespace(
        config=SimpleNamespace(seed=0, split={"method": "time"}),
        columns=lambda part: TimedRows(np.array([5, 1, 9, 3])),
    )
    first, second = _halves(late)
    assert list(first) == [1, 3] and list(second) == [0, 2]


class TimedRows:
    def __init__(self, time):
        self.time = time

    def __len__(self):
        return len(self.time)


@pytest.mark.parametrize(("won", "fails"), [(True, False), (False, False), (True, True)])
def test_the_runner_up_becomes_the_model_only_if_it_wins_and_is_refitted(monkeypatch, won, fails):
    best, other = record(0, 0.9, seconds=500.0), record(1, 0.5, seconds=5.0, family="tree")
    for each in (best, other):
        each.name, each.score.info["replay"] = f"trial {each.number}", {}
    monkeypatch.setattr("autorec.search.records.records", lambda study: [best, other])
    monkeypatch.setattr("autorec.choosing.intervals", lambda which, run: {0: (0.89, 0.91)})
    monkeypatch.setattr("autorec.fitting.rehearse", lambda *facts: SimpleNamespace(won=won))

    def again(prepared, job, replay):
        if fails:
            raise BudgetError("late")
        return f"all rows, trial {job.trial}"

    monkeypatch.setattr("autorec.fitting.refit", again)
    run = FakeRun([0, 1])
    run.config.seed, run.config.threads = 0, 1
    watch, said = search(run), []
    progress = SimpleNamespace(say=said.append)
    winner, refitted = _trained_again(watch.prepared, best, watch, progress)
    assert winner is (other if won and not fails else best)
    assert refitted == ("all rows, trial 1" if won and not fails else None)
    assert ("refit left out: late" in said) == fails
