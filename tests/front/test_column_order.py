"""The first trees of a fit tell which columns matter, and candidates may then leave some out."""

from __future__ import annotations

import time

import numpy as np
import pytest

from autorec import AutoRec
from autorec.candidate import TREE
from autorec.evaluate.permutation import kept, ordered
from autorec.job import Fidelity, Job
from autorec.run import Run
from autorec.worker import ColumnOrder, make_evaluate


@pytest.fixture(scope="module")
def run(log, tmp_path_factory):
    """A short fit, whose search ends before an order would be worth its seconds."""
    ar = AutoRec(label="click", path=tmp_path_factory.mktemp("order") / "run", verbosity=0)
    ar.fit(log, time_limit=20, n_trials=2, num_workers=1, refit=False, mlflow=False)
    assert ar.importance_.empty
    assert list(ar.importance_) == ["column", "fall", "low", "high"]
    return Run.open(ar.path_)


def trees(space):
    drawn = (space.sample(np.random.default_rng(seed)) for seed in range(100))
    return next(candidate for candidate in drawn if candidate.family == TREE)


def test_the_first_trees_measure_the_order_and_every_worker_learns_it(run):
    space, end = run.space(), time.time() + 600
    order = ColumnOrder(run, space, end)
    assert space.field_order is None
    job = Job(900, space.canonical(trees(space)), 0, end, Fidelity())
    make_evaluate(run, order=order)(job, lambda rows, score: True)
    found = kept(run.folder)
    assert found is not None and space.field_order == ordered(found)
    assert [one.fall.value for one in found] == sorted((f.fall.value for f in found), reverse=True)
    other = run.space()
    ColumnOrder(run, other, end)
    assert other.field_order == space.field_order
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(60)]
    least = set(space.field_order[len(space.field_order) // 2 :])
    assert any(one.features.without for one in drawn)
    assert all(set(one.features.without) <= least for one in drawn)
    again = [space.decode(space.params(one)) for one in drawn]
    assert [space.key(one) for one in again] == [space.key(one) for one in drawn]


def test_an_order_is_not_measured_when_it_comes_too_late(run, tmp_path, monkeypatch):
    space = run.space()
    late = ColumnOrder(run, space, time.time() + 10)
    space.field_order = None
    monkeypatch.setattr("autorec.evaluate.permutation.kept", lambda folder: None)
    asked = []
    monkeypatch.setattr("autorec.evaluate.permutation.importances", lambda *a, **k: asked.append(a))
    job = Job(901, space.canonical(trees(space)), 0, time.time() + 10, Fidelity())
    late.measure(job, None, run.data())
    assert not asked and space.field_order is None
