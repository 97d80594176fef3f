"""Opening, resuming, queueing, dead trials, and the one read model."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from autorec.candidate import LINEAR, POPULARITY, TREE
from autorec.errors import ConfigError
from autorec.job import Score
from autorec.search.process import Process
from autorec.search.study import (
    enqueue_candidate,
    fail_dead,
    fail_worker,
    held,
    join_study,
    open_study,
    records,
    study_name,
)
from autorec.search_spaces.ctr import CtrSpace

STORAGES = ["journal", "memory", "database"]


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """None (the default journal), Optuna's memory, or a database."""
    if request.param == "database":
        return f"sqlite:///{tmp_path}/study.db"
    return None if request.param == "journal" else optuna.storages.InMemoryStorage()


def gone() -> Process:
    """Return a process of this host that is over."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return Process(Process.current().host, done.pid, "x:1")


def running(study: optuna.Study, worker: dict[str, Any] | None) -> int:
    """Ask for a trial, have `worker` run it, and return its number."""
    trial = study.ask()
    if worker is not None:
        trial.set_user_attr("worker", worker)
    return trial.number


def test_the_name_holds_the_version_of_the_space(toys: ModuleType, tmp_path: Path) -> None:
    space = toys.Toy()
    study = open_study(tmp_path, name="run", space=space)
    assert study.study_name == f"run-{space.version}" == study_name("run", space)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert (tmp_path / "study.journal").exists()
    final = open_study(tmp_path, name="run", space=space, final=True)
    assert final.study_name == "run-final"
    assert final.user_attrs["run"]["final"] is True


def test_several_objectives_are_all_maximised(toys: ModuleType, tmp_path: Path) -> None:
    study = open_study(tmp_path, name="run", space=toys.Toy(), objectives=2)
    assert set(study.directions) == {optuna.study.StudyDirection.MAXIMIZE}
    assert len(study.directions) == 2


def test_a_study_with_trials_is_only_continued_on_demand(
    toys: ModuleType, tmp_path: Path, storage: Any
) -> None:
    space = toys.Toy()
    study = open_study(tmp_path, name="run", space=space, storage=storage, resume=False)
    study.tell(study.ask(), 1.0)
    again = open_study(tmp_path, name="run", space=space, storage=storage, resume=True)
    assert len(again.trials) == 1
    with pytest.raises(ConfigError, match=r"has 1 trials; pass resume=True or another folder"):
        open_study(tmp_path, name="run", space=space, storage=storage, resume=False)


def test_a_worker_joins_what_was_opened(toys: ModuleType, tmp_path: Path, storage: Any) -> None:
    space = toys.Toy()
    with pytest.raises(ConfigError, match="a study is opened before it is joined, but there is no"):
        join_study(tmp_path, name="run", space=space, storage=storage)
    study = open_study(tmp_path, name="run", space=space, storage=storage)
    enqueue_candidate(study, space, toys.toy(0.5), "half")
    sampler = optuna.samplers.RandomSampler(seed=0)
    joined = join_study(tmp_path, name="run", space=space, storage=storage, sampler=sampler)
    assert joined.sampler is sampler
    assert space.suggest(joined.ask()) == toys.toy(0.5)


def test_every_start_and_the_tree_baseline_lie_in_the_space(
    ctr_space: CtrSpace, tmp_path: Path
) -> None:
    study = open_study(tmp_path, name="run", space=ctr_space)
    named = [(*pair, True) for pair in ctr_space.baselines()]
    named += [(*pair, False) for pair in ctr_space.starts()]
    for name, candidate, baseline in named:
        assert enqueue_candidate(study, ctr_space, candidate, name, baseline=baseline)
    for name, candidate, baseline in named:
        trial = study.ask()
        attrs = trial.user_attrs
        assert (attrs["name"], attrs["baseline"]) == (name, baseline)
        if candidate.family in (LINEAR, POPULARITY):
            assert attrs["candidate"] == candidate.to_json()
            assert not ctr_space.contains(candidate)
        else:
            assert "candidate" not in attrs
            asked = ctr_space.suggest(trial)
            assert ctr_space.key(asked) == ctr_space.key(candidate)
            assert trial.params == ctr_space.params(candidate)


def test_a_name_is_queued_once(toys: ModuleType, tmp_path: Path, storage: Any) -> None:
    space = toys.Toy()
    study = open_study(tmp_path, name="run", space=space, storage=storage)
    assert enqueue_candidate(study, space, toys.toy(0.5), "half")
    assert not enqueue_candidate(study, space, toys.toy(0.5), "half")
    number = study.ask().number
    study.tell(number, state=TrialState.FAIL)
    resumed = open_study(tmp_path, name="run", space=space, storage=storage)
    assert not enqueue_candidate(resumed, space, toys.toy(0.5), "half"), "it failed by itself"
    assert enqueue_candidate(resumed, space, toys.toy(0.6), "more")


def test_a_name_whose_trial_was_killed_is_queued_again(toys: ModuleType, tmp_path: Path) -> None:
    space = toys.Toy()
    study = open_study(tmp_path, name="run", space=space)
    enqueue_candidate(study, space, toys.toy(0.5), "half")
    running(study, {**gone().to_json(), "lease": 0.0})
    resumed = open_study(tmp_path, name="run", space=space)
    assert records(resumed)[0].lost
    assert enqueue_candidate(resumed, space, toys.toy(0.5), "half")
    assert not enqueue_candidate(resumed, space, toys.toy(0.5), "half")


def test_the_best_of_another_version_begin_a_new_study(
    toys: ModuleType, tmp_path: Path, storage: Any
) -> None:
    old, new = toys.Toy(tag="a"), toys.Toy(tag="b")
    assert old.version != new.version
    study = open_study(tmp_path, name="run", space=old, storage=storage)
    outside = toys.Candidate(TREE, toys.Recipe({"depth": 3}))
    tried = [(toys.toy(x / 10), x / 10) for x in range(8)] + [(toys.toy(0.7), 0.1), (outside, 9.0)]
    for candidate, value in tried:
        trial = study.ask()
        trial.set_user_attr("candidate", candidate.to_json())
        study.tell(trial, value)
    baseline = study.ask()
    baseline.set_user_attr("candidate", toys.toy(0.99).to_json())
    baseline.set_user_attr("baseline", True)
    study.tell(baseline, 10.0)
    other = open_study(tmp_path, name="running", space=toys.Toy(tag="c"), storage=storage)
    assert not other.trials, "another run's name begins alike"

    fresh = open_study(tmp_path, name="run", space=new, storage=storage)
    queue = [fresh.ask() for _ in range(5)]
    assert [new.suggest(trial).recipe["x"] for trial in queue] == [0.7, 0.6, 0.5, 0.4, 0.3]
    assert queue[0].user_attrs["name"] == f"7 ({old.version})"
    assert len(fresh.trials) == 5
    assert len(open_study(tmp_path, name="run", space=new, storage=storage).trials) == 5
    alone = open_study(tmp_path, name="run", space=toys.Toy(tag="d"), storage=storage, resume=False)
    assert not alone.trials


def test_dead_trials_are_failed_and_live_ones_kept(
    toys: ModuleType, tmp_path: Path, storage: Any
) -> None:
    study = open_study(tmp_path, name="run", space=toys.Toy(), storage=storage)
    soon, past = time.time() + 60, time.time() - 1
    here = Process.current()
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        alive = Process(here.host, sleeping.pid, "").to_json()
        reused = Process(here.host, sleeping.pid, "y:1").to_json()
        numbers = {
            "alive": running(study, {**alive, "lease": past}),
            "gone": running(study, {**gone().to_json(), "lease": soon}),
            "reused": running(study, {**reused, "lease": soon}),
            "far": running(study, {"host": "far", "pid": 1, "started": "z", "lease": soon}),
            "late": running(study, {"host": "far", "pid": 1, "started": "z", "lease": past}),
            "ours": running(study, {**here.to_json(), "lease": soon}),
            "left": running(study, {**here.to_json(), "lease": soon}),
            "nameless": running(study, None),
        }
        with held(study, numbers["ours"]):
            failed = fail_dead(study)
        assert failed == [numbers[name] for name in ("gone", "reused", "late", "left")]
        found = {record.number: record for record in records(study)}
        assert "is gone" in (found[numbers["gone"]].failure or {})["message"]
        assert "did not end within its lease" in (found[numbers["late"]].failure or {})["message"]
        assert found[numbers["gone"]].lost
        assert found[numbers["alive"]].status == found[numbers["nameless"]].status == "running"
        with held(study, numbers["ours"]):
            assert fail_dead(study) == []
    finally:
        sleeping.kill()
        sleeping.wait()


def test_a_killed_worker_that_nobody_waited_for_is_dead() -> None:
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    identity = Process(Process.current().host, zombie.pid, "")
    while not identity.dead:  # it stays in the table until wait() below
        time.sleep(0.01)
    zombie.wait()
    assert not Process.current().dead
    assert not Process(Process.current().host, os.getppid(), "").dead


def test_a_nameless_trial_dies_after_a_while(
    toys: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(tmp_path, name="run", space=toys.Toy())
    study.ask()
    monkeypatch.setattr("autorec.search.study._NAMELESS_SECONDS", -1.0)
    assert fail_dead(study) == [0]


def test_the_trials_of_one_worker_are_failed(toys: ModuleType, tmp_path: Path) -> None:
    study = open_study(tmp_path, name="run", space=toys.Toy())
    here = Process.current()
    mine = running(study, {**here.to_json(), "lease": 0.0})
    running(study, {**here.to_json(), "pid": here.pid + 1, "lease": 0.0})
    running(study, {**here.to_json(), "host": "far", "lease": 0.0})
    assert fail_worker(study, here.pid, "was killed by SIGKILL") == [mine]
    failure = records(study)[mine].failure
    assert failure is not None and failure["message"] == "the worker was killed by SIGKILL"
    assert failure["type"] == "died"
    assert fail_worker(study, here.pid, "again") == []


def test_records_say_what_the_trials_are(toys: ModuleType, tmp_path: Path, storage: Any) -> None:
    study = open_study(tmp_path, name="run", space=toys.Toy(), storage=storage)
    enqueue_candidate(study, toys.Toy(), toys.toy(0.1), "first", baseline=True)
    done = study.ask()
    score = Score(0.5, {"auc": 0.5}, 1000, 2.0, "deadline", {"params": 3})
    attrs = {
        "key": "k",
        "candidate": toys.toy(0.1).to_json(),
        "rungs": {"300": 0.4, "100": 0.2},
        "worker": {**Process.current().to_json(), "lease": 1.0},
        "score": score.to_json(),
    }
    for name, value in attrs.items():
        done.set_user_attr(name, value)
    study.tell(done, 0.5)
    copied = study.ask()
    copied.set_user_attr("copied_from", 0)
    copied.set_user_attr("score", {**score.to_json(), "status": "stopped"})
    study.tell(copied, state=TrialState.PRUNED)
    study.ask()
    enqueue_candidate(study, toys.Toy(), toys.toy(0.2), "later")

    first, second, third, fourth = records(study)
    assert (first.name, first.baseline, first.key) == ("first", True, "k")
    assert (first.state, first.status, first.value) == ("COMPLETE", "deadline", 0.5)
    assert first.candidate == toys.toy(0.1)
    assert first.score == score
    assert first.rungs == ((100, 0.2), (300, 0.4))
    assert first.worker == Process.current()
    assert first.started is not None and first.finished is not None
    assert abs(first.finished - time.time()) < 60
    assert 0 <= first.finished - first.started < 60
    assert (second.state, second.status, second.copied_from) == ("PRUNED", "stopped", 0)
    assert second.value == 0.5
    assert (third.status, third.finished) == ("running", None)
    assert (fourth.status, fourth.name, fourth.started) == ("waiting", "later", None)


def test_records_are_decoded_once_and_follow_changes(toys: ModuleType, tmp_path: Path) -> None:
    study = open_study(tmp_path, name="run", space=toys.Toy())
    one, two = study.ask(), study.ask()
    study.tell(one, 1.0)
    before = records(study)
    study.tell(two, 2.0)
    after = records(study)
    assert after[0] is before[0]
    assert (before[1].status, after[1].status) == ("running", "complete")
    assert records(open_study(tmp_path, name="run", space=toys.Toy())) == after


def test_opening_leaves_the_log_level_of_optuna_alone(
    toys: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    open_study(tmp_path, name="run", space=toys.Toy())
    open_study(tmp_path, name="run", space=toys.Toy())
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert capsys.readouterr().err == ""
