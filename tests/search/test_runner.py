"""The worker loop: what is trained, copied, failed and told, alone and beside other workers."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from autorec.candidate import Candidate
from autorec.errors import TrainingError
from autorec.job import Evaluate, Fidelity, Job, Report, Score
from autorec.search.engine import make_engine
from autorec.search.halving import Halving
from autorec.search.journal import open_journal
from autorec.search.process import Process
from autorec.search.runner import MOST_COPIES, MOST_FAILURES, Outcome, run_worker
from autorec.search.study import enqueue_candidate, open_study, records
from autorec.search_spaces.ctr import CtrSpace
from autorec.seeding import derive
from autorec.space import Space

Work = Callable[..., Outcome]


@pytest.fixture
def study() -> optuna.Study:
    """A maximising study in memory."""
    return optuna.create_study(direction="maximize")


def soon(seconds: float = 60.0) -> float:
    """Return the unix time in so many seconds."""
    return time.time() + seconds


def work(study: optuna.Study, space: Space, evaluate: Evaluate, **more: Any) -> Outcome:
    """Run a worker with a random engine and a deadline of a minute."""
    study.sampler = make_engine("random", space, 0)
    return run_worker(study, space, evaluate, **{"seed": 0, "deadline": soon(), **more})


def test_a_trial_gets_its_job_and_keeps_its_result(
    study: optuna.Study, ctr_space: CtrSpace
) -> None:
    jobs: list[Job] = []

    def evaluate(job: Job, report: Report) -> Score:
        jobs.append(job)
        return Score(0.7, {"auc": 0.7}, 500, 1.5, info={"params": 10})

    deadline = soon()
    fidelity = Fidelity(rows=500, hash_cap=100)
    outcome = work(study, ctr_space, evaluate, deadline=deadline, fidelity=fidelity, n_trials=3)
    assert outcome == Outcome("n_trials", 3)
    for job, trial, record in zip(jobs, study.trials, records(study), strict=True):
        raw = ctr_space.decode(trial.params)
        assert job.candidate == record.candidate == ctr_space.canonical(raw)
        assert record.key == ctr_space.key(raw)
        assert job.seed == derive(0, "trial", trial.number) == trial.user_attrs["seed"]
        assert (job.trial, job.deadline, job.fidelity) == (trial.number, deadline, fidelity)
        assert (job.parent, job.edits) == (None, ())
        assert Job.from_json(job.to_json()) == job
        assert record.score == Score(0.7, {"auc": 0.7}, 500, 1.5, info={"params": 10})
        assert (record.status, record.value, trial.value) == ("complete", 0.7, 0.7)
        assert record.worker == Process.current()
        assert trial.user_attrs["worker"]["lease"] > deadline
        assert (record.name or "").endswith(f"#{trial.number}")


def test_baselines_outside_the_space_are_evaluated_as_they_are(
    study: optuna.Study, ctr_space: CtrSpace
) -> None:
    seen: list[Candidate] = []

    def evaluate(job: Job, report: Report) -> Score:
        seen.append(job.candidate)
        return Score(0.5, {}, 1, 0.1)

    named = ctr_space.baselines()
    for name, candidate in named:
        enqueue_candidate(study, ctr_space, candidate, name, baseline=True)
    work(study, ctr_space, evaluate, n_trials=len(named))
    assert seen == [ctr_space.canonical(candidate) for _, candidate in named]
    assert [record.name for record in records(study)] == [name for name, _ in named]
    assert [bool(trial.params) for trial in study.trials] == [False, False, True]
    assert all(record.baseline for record in records(study))


def test_a_finished_key_is_copied_and_an_empty_space_ends_the_worker(
    study: optuna.Study, toys: ModuleType
) -> None:
    space = toys.Toy(points=3)
    trained: list[float] = []

    def evaluate(job: Job, report: Report) -> Score:
        trained.append(float(job.candidate.recipe["x"]))
        status = "stopped" if trained[-1] == 1 else "complete"
        return Score(trained[-1], {}, 100, 0.1, status)

    outcome = work(study, space, evaluate)
    assert outcome.reason == "exhausted"
    assert sorted(trained) == [0, 1, 2]
    found = records(study)
    copies = [record for record in found if record.copied_from is not None]
    assert len(copies) == len(found) - 3 >= MOST_COPIES
    for copy in copies:
        source = found[copy.copied_from or 0]
        assert source.copied_from is None and source.number < copy.number
        assert (copy.key, copy.score, copy.state) == (source.key, source.score, source.state)
        assert copy.value == source.value == study.trials[copy.number].value
    assert {record.state for record in copies} == {"COMPLETE", "PRUNED"}


def test_a_key_cut_short_or_failed_is_trained_again(study: optuna.Study, toys: ModuleType) -> None:
    space = toys.Toy(points=1)
    endings = iter(["deadline", "fail", "complete"])

    def evaluate(job: Job, report: Report) -> Score:
        status = next(endings)
        if status == "fail":
            raise TrainingError("once")
        return Score(0.1, {}, 1, 0.1, status)

    work(study, space, evaluate, n_trials=5)
    assert [r.status for r in records(study)] == ["deadline", "failed"] + ["complete"] * 3
    assert [r.copied_from for r in records(study)] == [None, None, None, 2, 2]


@pytest.mark.parametrize(
    "error", [TrainingError("diverged at step 7"), MemoryError(), ZeroDivisionError("division")]
)
def test_a_failure_is_written_before_it_is_told(
    study: optuna.Study, toys: ModuleType, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    tell = study.tell

    def watch(trial: optuna.Trial, *args: Any, **more: Any) -> Any:
        calls.append("failure" if "failure" in trial.user_attrs else "result")
        return tell(trial, *args, **more)

    def evaluate(job: Job, report: Report) -> Score:
        if job.trial == 1:
            raise error
        return Score(0.1, {}, 1, 0.1)

    monkeypatch.setattr(study, "tell", watch)
    outcome = work(study, toys.Toy(), evaluate, n_trials=3)
    assert outcome == Outcome("n_trials", 3)
    assert calls == ["result", "failure", "result"]
    first, second, third = records(study)
    assert (first.status, second.status, third.status) == ("complete", "failed", "complete")
    failure = second.failure or {}
    assert failure["type"] == type(error).__name__
    assert failure["message"] == (str(error) or "MemoryError")
    assert "evaluate" in "".join(failure["traceback"])
    assert failure["params"] == study.trials[1].params
    assert 10 < failure["peak_memory_mb"] < 100_000
    assert second.candidate is not None and not second.lost


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_a_failure(
    study: optuna.Study, toys: ModuleType, value: float
) -> None:
    def evaluate(job: Job, report: Report) -> Score:
        if job.trial == 0:
            return Score(value, {}, 1, 0.1)
        report(10, value)
        return Score(0.0, {}, 1, 0.1)

    work(study, toys.Toy(), evaluate, n_trials=2)
    messages = [(record.failure or {})["message"] for record in records(study)]
    assert messages[0].startswith(f"a score is a finite number, but got {value} after 1 rows")
    assert messages[1] == f"a score is a finite number, but got {value} at 10 rows"


def test_the_same_failure_again_and_again_ends_the_worker(
    study: optuna.Study, toys: ModuleType
) -> None:
    def evaluate(job: Job, report: Report) -> Score:
        raise TrainingError(f"no column 'x' at row {job.trial}")

    with pytest.raises(
        TrainingError, match=r"5 in a row failed with TrainingError: no column 'x' at row 4; mend"
    ):
        work(study, toys.Toy(), evaluate)
    assert [record.status for record in records(study)] == ["failed"] * MOST_FAILURES


def test_different_failures_and_successes_between_do_not(
    study: optuna.Study, toys: ModuleType
) -> None:
    def evaluate(job: Job, report: Report) -> Score:
        if job.trial == 4:
            return Score(0.1, {}, 1, 0.1)
        raise TrainingError("one" if job.trial < 8 else "two")

    outcome = work(study, toys.Toy(), evaluate, n_trials=12)
    assert outcome == Outcome("n_trials", 12)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_trial_is_failed_as_such(
    study: optuna.Study, toys: ModuleType, error: type[BaseException]
) -> None:
    def evaluate(job: Job, report: Report) -> Score:
        raise error

    with pytest.raises(error):
        work(study, toys.Toy(), evaluate)
    record = records(study)[0]
    assert (record.status, record.lost) == ("failed", True)
    assert (record.failure or {})["type"] == "interrupted"
    assert len(study.trials) == 1


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
@pytest.mark.parametrize("where", ["train", "write"])
def test_a_signal_comes_only_where_it_can_be_taken(
    study: optuna.Study,
    toys: ModuleType,
    number: int,
    error: type[BaseException],
    where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    write = optuna.Trial.set_user_attr

    def set_user_attr(trial: optuna.Trial, key: str, value: Any) -> None:
        if key == "rungs" and where == "write":
            os.kill(os.getpid(), number)
            done.append("kept out")
        write(trial, key, value)

    def evaluate(job: Job, report: Report) -> Score:
        if where == "train":
            os.kill(os.getpid(), number)
            done.append("behind the signal")
        report(100, 0.5)
        done.append("behind the report")
        return Score(0.1, {}, 1, 0.1)

    before = signal.getsignal(number)
    monkeypatch.setattr(optuna.Trial, "set_user_attr", set_user_attr)
    with pytest.raises(error) as caught:
        work(study, toys.Toy(), evaluate, halving=Halving((100,)))
    assert done == (["kept out"] if where == "write" else [])
    assert signal.getsignal(number) == before
    if number == signal.SIGTERM:
        assert getattr(caught.value, "code", None) == 143
    assert (records(study)[0].failure or {})["type"] == "interrupted"
    assert records(study)[0].rungs == (((100, 0.5),) if where == "write" else ())


def test_a_program_with_handlers_of_its_own_keeps_them(
    study: optuna.Study, toys: ModuleType
) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:

        def evaluate(job: Job, report: Report) -> Score:
            os.kill(os.getpid(), signal.SIGTERM)
            return Score(0.1, {}, 1, 0.1)

        assert work(study, toys.Toy(), evaluate, n_trials=1) == Outcome("n_trials", 1)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_stop_ends_the_worker_even_within_a_trial(study: optuna.Study, toys: ModuleType) -> None:
    asked: list[int] = []

    def evaluate(job: Job, report: Report) -> Score:
        try:
            while True:
                report(1, 0.1)
        except Exception:  # a trainer may guard itself; the end must pass through
            return Score(0.1, {}, 1, 0.1)

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 5

    assert work(study, toys.Toy(), evaluate, stop=stop) == Outcome("stopped", 0)
    assert records(study)[0].lost
    assert work(study, toys.Toy(), evaluate, stop=lambda: True) == Outcome("stopped", 0)
    assert len(study.trials) == 1


def test_no_trial_begins_that_could_not_end(
    study: optuna.Study, toys: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = toys.sleeper(0.0)
    assert work(study, toys.Toy(), quick, deadline=soon(0.9)) == Outcome("deadline", 0)
    assert work(study, toys.Toy(), quick, deadline=soon(5.0), n_trials=1).trials == 1
    monkeypatch.setattr("autorec.search.runner._median_seconds", lambda trials: 20.0)
    assert work(study, toys.Toy(), quick, deadline=soon(4.5)) == Outcome("deadline", 0)
    assert work(study, toys.Toy(), quick, deadline=soon(7.0), n_trials=2).trials == 1


def test_a_trial_gets_at_most_its_share_of_the_time(study: optuna.Study, toys: ModuleType) -> None:
    deadlines: list[float] = []

    def evaluate(job: Job, report: Report) -> Score:
        deadlines.append(job.deadline - time.time())
        return Score(0.5, {}, 100, 0.1)

    work(study, toys.Toy(), evaluate, most_seconds=7.0, n_trials=2)
    work(study, toys.Toy(), evaluate, most_seconds=7.0, deadline=soon(4.0), n_trials=3)
    assert 6.0 < deadlines[0] <= 7.0 and 6.0 < deadlines[1] <= 7.0
    assert 3.0 < deadlines[2] <= 4.0


def test_a_search_without_a_deadline_gives_its_trials_a_lease_all_the_same(
    study: optuna.Study, toys: ModuleType
) -> None:
    work(study, toys.Toy(), toys.sleeper(0.0), deadline=math.inf, n_trials=1)
    lease = study.trials[0].user_attrs["worker"]["lease"]
    assert math.isfinite(lease) and lease > soon(3600)


def test_the_median_duration_leaves_out_copies_and_failures(toys: ModuleType) -> None:
    from datetime import datetime, timedelta

    from autorec.search.runner import _median_seconds

    start = datetime(2024, 1, 1)

    def trial(
        seconds: float, state: TrialState = TrialState.COMPLETE, **attrs: int
    ) -> optuna.trial.FrozenTrial:
        made = optuna.trial.create_trial(
            state=state, value=0.0 if state == TrialState.COMPLETE else None, user_attrs=attrs
        )
        made.datetime_start, made.datetime_complete = start, start + timedelta(seconds=seconds)
        return made

    trials = [trial(2), trial(4), trial(90), trial(0, copied_from=1), trial(0, copied_from=1)]
    trials += [trial(0, TrialState.FAIL), trial(3, TrialState.PRUNED)]
    assert _median_seconds(trials) == 3.5
    assert _median_seconds([]) == 0.0


def test_halving_stops_the_worse_and_keeps_their_value(
    study: optuna.Study, toys: ModuleType
) -> None:
    # Trial n scores `scores[n]` from the first report on; three rungs, two reports between them.
    scores = [0.5, 0.6, 0.1, 0.7, 0.2, 0.65, 0.3, 0.8, 0.0]

    def evaluate(job: Job, report: Report) -> Score:
        value = scores[job.trial]
        for rows in range(50, 1000, 50):
            if not report(rows, value - 1 / rows):
                return Score(value, {}, rows, 0.1, "stopped")
        return Score(value, {}, 1000, 0.1)

    work(study, toys.Toy(), evaluate, halving=Halving((100, 300, 900)), n_trials=len(scores))
    found = records(study)
    stopped = {record.number: record.rungs[-1][0] for record in found if record.status == "stopped"}
    assert stopped == _naive_halving(scores, (100, 300, 900))
    assert stopped, "a test in which nothing is stopped shows nothing"
    for record, trial in zip(found, study.trials, strict=True):
        assert record.value == scores[record.number] == trial.value
        assert (trial.state == TrialState.PRUNED) == (record.number in stopped)
        assert all(rung in trial.intermediate_values for rung, _ in record.rungs)


def _naive_halving(scores: list[float], rungs: tuple[int, ...]) -> dict[int, int]:
    reached: dict[int, list[float]] = {rung: [] for rung in rungs}
    stopped = {}
    for number, score in enumerate(scores):
        for rung in rungs:
            reached[rung].append(score - 1 / rung)
            ranked = sorted(reached[rung], reverse=True)
            if len(ranked) >= 3 and score - 1 / rung < ranked[len(ranked) // 3 - 1]:
                stopped[number] = rung
                break
    return stopped


def test_classes_families_and_baselines_are_kept_apart(
    study: optuna.Study, toys: ModuleType
) -> None:
    verdicts: list[bool] = []
    values = iter([0.9, 0.8, 0.7, 0.1, 0.0, 0.05])

    def evaluate(job: Job, report: Report) -> Score:
        value = next(values)
        if job.trial == 3:  # it has inherited weights
            report(0, 0.7)
        verdicts.append(report(100, value))
        return Score(value, {}, 100, 0.1)

    for x in (0.1, 0.2, 0.3):
        study.enqueue_trial({"x": x, "kind": "flat"})
    study.enqueue_trial({"x": 0.4, "kind": "flat"})
    study.enqueue_trial({"x": 0.5, "kind": "flat"}, user_attrs={"baseline": True})
    study.enqueue_trial({"x": 0.6, "kind": "flat"})
    work(study, toys.Toy(), evaluate, halving=Halving((100,)), n_trials=6)
    #                   few   few   worst  child baseline worst
    assert verdicts == [True, True, False, True, True, False]


def test_halving_with_several_objectives(toys: ModuleType) -> None:
    study = optuna.create_study(directions=["maximize", "maximize"])
    scores = [0.5, 0.6, 0.1, 0.7]

    def evaluate(job: Job, report: Report) -> Score:
        value = scores[job.trial]
        going = report(100, value)
        return Score(value, {"ms": 2.0}, 100, 0.1, "complete" if going else "stopped")

    work(
        study,
        toys.Toy(),
        evaluate,
        halving=Halving((100,)),
        n_trials=4,
        values=lambda score: [score.value, -score.metrics["ms"]],
    )
    assert [trial.values for trial in study.trials] == [[0.5, -2.0], [0.6, -2.0], None, [0.7, -2.0]]
    assert [record.status for record in records(study)][2] == "stopped"
    assert records(study)[2].value == 0.1


@pytest.mark.parametrize("where", ["memory", "journal"])
def test_workers_share_the_number_of_trials_exactly(
    where: str, toys: ModuleType, tmp_path: Path
) -> None:
    memory: Any = {
        "memory": lambda: optuna.storages.InMemoryStorage(),
        "journal": lambda: open_journal(tmp_path),
    }[where]()
    study = optuna.create_study(direction="maximize", storage=memory, study_name="s")
    space = toys.Toy()
    trained: list[int] = []

    def evaluate(job: Job, report: Report) -> Score:
        trained.append(job.trial)
        if job.trial == 3:
            raise TrainingError("it counts all the same")
        return Score(0.1, {}, 1, 0.1)

    for n_trials in (8, 13):
        outcomes = _in_threads(3, lambda _, n=n_trials: work(study, space, evaluate, n_trials=n))
        assert {outcome.reason for outcome in outcomes} == {"n_trials"}
        assert sum(outcome.trials for outcome in outcomes) == (8 if n_trials == 8 else 5)
        assert len(set(trained)) == len(trained) == n_trials
        assert sum(not record.lost for record in records(study)) == n_trials


def _in_threads(count: int, run: Callable[[int], Outcome]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda i=i: outcomes.append(run(i)))  # type: ignore[misc]
        for i in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == count
    return outcomes


def test_a_trial_too_many_is_lost(
    study: optuna.Study, toys: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = study.ask

    def late() -> optuna.Trial:
        ask()  # another worker is faster by a moment
        return ask()

    space = toys.Toy()
    enqueue_candidate(study, space, toys.toy(0.1), "first")
    enqueue_candidate(study, space, toys.toy(0.2), "second")
    with monkeypatch.context() as patched:
        patched.setattr(study, "ask", late)
        assert work(study, space, toys.sleeper(0), n_trials=1) == Outcome("n_trials", 0)
    first, second = records(study)
    assert (first.status, second.status, second.lost) == ("running", "failed", True)
    assert "the last place in n_trials" in (second.failure or {})["message"]
    study.tell(0, 0.5)
    assert enqueue_candidate(study, space, toys.toy(0.2), "second"), "it was not tried"
    assert work(study, space, toys.sleeper(0), n_trials=2) == Outcome("n_trials", 1)
    assert [r.name for r in records(study) if not r.lost] == ["first", "second"]


def test_threads_on_one_journal_lose_nothing(toys: ModuleType, tmp_path: Path) -> None:
    space = toys.Toy(points=12)
    open_study(tmp_path, name="run", space=space)

    def worker(number: int) -> Outcome:
        own = open_study(tmp_path, name="run", space=space)
        return work(own, space, toys.sleeper(0.002), n_trials=30)

    outcomes = _in_threads(3, worker)
    found = records(open_study(tmp_path, name="run", space=space))
    assert sum(outcome.trials for outcome in outcomes) == 30
    assert sum(record.status == "complete" for record in found) == 30
    for record in found:
        if record.candidate is None:
            continue
        assert record.key == space.key(record.candidate)
        assert record.value == toys.worth_of(record.candidate)
        if record.copied_from is not None:
            assert found[record.copied_from].key == record.key
    assert any(record.copied_from is not None for record in found)


def test_a_trial_that_another_process_failed_is_let_go(
    study: optuna.Study, toys: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    def evaluate(job: Job, report: Report) -> Score:
        if job.trial == 0:
            study.tell(0, state=TrialState.FAIL)
        return Score(0.1, {}, 1, 0.1)

    assert work(study, toys.Toy(), evaluate, n_trials=2) == Outcome("n_trials", 2)
    assert "trial 0 was ended by another process" in caplog.text
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]


def _start(
    toys: ModuleType, folder: Path, seconds: float, n_trials: int
) -> subprocess.Popen[bytes]:
    script = str(Path(toys.__file__ or ""))
    arguments = [str(folder), str(os.getpid()), str(seconds), str(soon(120)), str(n_trials)]
    return subprocess.Popen([sys.executable, script, *arguments])


def _until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.02)


def test_killed_in_the_middle_and_resumed(toys: ModuleType, tmp_path: Path) -> None:
    space = toys.Toy()
    study = open_study(tmp_path, name=toys.NAME, space=space)
    killed = _start(toys, tmp_path, 0.05, 0)

    def in_training_after_four() -> bool:
        killed.send_signal(signal.SIGSTOP)
        found = records(study)
        done = sum(record.status == "complete" for record in found)
        if done >= 4 and found[-1].status == "running" and found[-1].key:
            return True
        killed.send_signal(signal.SIGCONT)
        return False

    _until(in_training_after_four)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = [record for record in records(study) if record.status == "complete"]
    cut = [record.number for record in records(study) if record.status == "running"]
    assert cut

    resumed = open_study(tmp_path, name=toys.NAME, space=space)
    for number in cut:
        failure = records(resumed)[number].failure or {}
        assert f"the worker {killed.pid} is gone" in failure["message"]
        assert records(resumed)[number].lost
    goal = len(before) + 3
    last = _start(toys, tmp_path, 0.0, goal)
    assert last.wait(60) == 0
    after = records(resumed)
    assert [record for record in after if record in before] == before
    trained = [r.key for r in after if r.status == "complete" and r.copied_from is None]
    assert len(trained) == len(set(trained)) == goal
    assert {r.number for r in after if r.status == "failed"} == set(cut)
    assert not [r for r in after if r.status == "running"]


def test_sigterm_to_a_worker_fails_its_trial(toys: ModuleType, tmp_path: Path) -> None:
    study = open_study(tmp_path, name=toys.NAME, space=toys.Toy())
    worker = _start(toys, tmp_path, 60.0, 0)
    _until(lambda: any(record.key for record in records(study)))
    time.sleep(0.1)
    worker.terminate()
    assert worker.wait(30) == 143
    record = records(study)[0]
    assert (record.status, (record.failure or {})["type"]) == ("failed", "interrupted")
