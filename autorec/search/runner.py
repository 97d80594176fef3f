"""The worker: asks for a trial, has it evaluated, tells the result, and survives what fails."""

from __future__ import annotations

import logging
import math
import re
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from autorec.candidate import Candidate
from autorec.errors import TrainingError
from autorec.job import DEADLINE, STOPPED, Evaluate, Fidelity, Job, Score
from autorec.search.engine import FINISHED
from autorec.search.halving import ROOT, Halving
from autorec.search.interrupts import Interrupts
from autorec.search.lineage import lineage
from autorec.search.process import Process, peak_memory_mb, reset_peak_memory
from autorec.search.records import INTERRUPTED, lost
from autorec.search.reporter import Ended, Reporter
from autorec.search.study import held
from autorec.seeding import derive
from autorec.space import Space

MOST_COPIES = 30
MOST_FAILURES = 5
LEASE_GRACE = 60.0
LONGEST_LEASE = 86_400.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Why a worker ended (`deadline`, `n_trials`, `exhausted`, `stopped`) and how many it ran."""

    reason: str
    trials: int


def run_worker(
    study: Study,
    space: Space,
    evaluate: Evaluate,
    *,
    seed: int,
    deadline: float,
    halving: Halving | None = None,
    fidelity: Fidelity | None = None,
    n_trials: int | None = None,
    most_seconds: float = math.inf,
    stop: Callable[[], bool] = lambda: False,
    values: Callable[[Score], Sequence[float]] = lambda score: [score.value],
) -> Outcome:
    """Run trials of `study` until the deadline, the number of trials, or the end of the space.

    A trial is trained on the canonical form of its candidate; the child of edits on its edited
    form, from the weights of its parent where `evaluate` has them. A key that is finished is not
    trained again (cut short by a deadline is not finished): its score is copied. A trial that
    fails is told with its reason and the loop goes on. No trial is begun when less time is left
    than a second, or a quarter of the median duration of the study's trials.

    Args:
        evaluate: trains and scores a job; it watches the job's deadline itself.
        seed: seeds each trial together with its number.
        deadline: unix time, seconds.
        halving: rungs at which trials are compared; None: every trial runs to its end. Baselines
            always do, and families are compared among themselves, since rows presented to a
            boosted tree are not steps.
        fidelity: work that each candidate gets; None: all rows.
        n_trials: most trials of the whole study, failed ones counted, lost ones not; several
            workers share it exactly.
        most_seconds: most time of one trial, which then ends like one that met the deadline.
        stop: asked before each trial and at each report; True ends the worker, and fails the
            running trial as interrupted.
        values: what the study's objectives are told of a score, all maximised.

    Raises:
        TrainingError: five trials in a row failed for the same reason.
        KeyboardInterrupt, SystemExit: on Ctrl-C and SIGTERM, after the trial was failed as
            interrupted.
    """
    with Interrupts() as interrupts:
        worker = _Worker(study, space, evaluate, seed, deadline, interrupts)
        worker.halving = halving or Halving(())
        worker.fidelity = fidelity or Fidelity()
        worker.n_trials, worker.stop, worker.values = n_trials, stop, values
        worker.most_seconds = most_seconds
        return worker.run()


class _Worker:
    halving: Halving
    fidelity: Fidelity
    n_trials: int | None
    most_seconds: float
    stop: Callable[[], bool]
    values: Callable[[Score], Sequence[float]]

    def __init__(
        self,
        study: Study,
        space: Space,
        evaluate: Evaluate,
        seed: int,
        deadline: float,
        interrupts: Interrupts,
    ) -> None:
        self.study, self.space, self.evaluate = study, space, evaluate
        self.seed, self.deadline, self.interrupts = seed, deadline, interrupts
        self.single = len(study.directions) == 1
        self.trials = self.copies = self.failures = 0
        self.last_reason = ""

    def run(self) -> Outcome:
        while not (reason := self.reason_to_end()):
            self.interrupts.check()
            trial = self.study.ask()
            if self.is_surplus(trial.number):
                self.fail(trial, INTERRUPTED, "another worker took the last place in n_trials")
                return Outcome("n_trials", self.trials)
            try:
                with held(self.study, trial.number):
                    self.run_trial(trial)
            except Ended:
                return Outcome("stopped", self.trials)
            self.trials += 1
        return Outcome(reason, self.trials)

    def reason_to_end(self) -> str:
        if self.stop():
            return "stopped"
        if self.copies >= MOST_COPIES:
            return "exhausted"
        trials = self.study.get_trials(deepcopy=False)
        if self.n_trials is not None and sum(map(_counts, trials)) >= self.n_trials:
            return "n_trials"
        least = max(1.0, 0.25 * _median_seconds(trials))
        return "deadline" if self.deadline - time.time() < least else ""

    def is_surplus(self, number: int) -> bool:
        """Tell whether the trial is one too many, as every worker would judge it."""
        if self.n_trials is None:
            return False
        before = [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if _counts(trial)
            and (trial.number < number or (trial.number > number and trial.state.is_finished()))
        ]
        return len(before) >= self.n_trials

    def run_trial(self, trial: Trial) -> None:
        reset_peak_memory()
        try:
            job = self.prepare(trial)
            source = self.finished_twin(trial)
            if source is not None:
                trial.set_user_attr("copied_from", source.number)
                self.tell(trial, Score.from_json(source.user_attrs["score"]), {})
            else:
                report = Reporter(self.study, trial, self.halving, self.interrupts, self.stop)
                with self.interrupts.let_in():
                    score = self.evaluate(job, report)
                self.tell(trial, score, report.rungs)
            self.copies = 0 if source is None else self.copies + 1
            self.failures = 0
        except UpdateFinishedTrialError:
            _log.warning("trial %d was ended by another process; its result is lost", trial.number)
        except Exception as error:
            self.fail(trial, type(error).__name__, error)
            self.count_failure(error)
        except BaseException as error:
            self.fail(trial, INTERRUPTED, error)
            raise

    def prepare(self, trial: Trial) -> Job:
        """Name the worker, choose the candidate, write both, and return the job."""
        lease = self.deadline + LEASE_GRACE
        if not math.isfinite(lease):  # JSON has no infinity
            lease = time.time() + LONGEST_LEASE
        trial.set_user_attr("worker", {**Process.current().to_json(), "lease": lease})
        given = trial.user_attrs
        twin = self.space.canonical(
            Candidate.from_json(given["candidate"])
            if "candidate" in given
            else self.space.suggest(trial)
        )
        # `trial` does not know what the engine has written of parent and edits by now.
        attrs = self.study._storage.get_trial(trial._trial_id).user_attrs
        line = lineage(self.study, attrs, twin, self.space)
        job = Job(
            trial=trial.number,
            candidate=twin if line is None else line.candidate,
            seed=derive(self.seed, "trial", trial.number),
            deadline=min(self.deadline, time.time() + self.most_seconds),
            fidelity=self.fidelity,
            parent=None if line is None else line.parent,
            edits=() if line is None else line.edits,
        )
        written: dict[str, Any] = {
            "key": self.space.key(twin),
            "seed": job.seed,
            "lane": f"{ROOT}/{twin.family}",
            "candidate": job.candidate.to_json(),
        }
        if "name" not in attrs:
            written["name"] = f"{_label(twin)} #{trial.number}"
        for name, value in written.items():
            trial.set_user_attr(name, value)
        return job

    def finished_twin(self, trial: Trial) -> FrozenTrial | None:
        """Return the first trial that was trained with the same key and came to its own end."""
        key = trial.user_attrs["key"]
        for other in self.study.get_trials(deepcopy=False, states=FINISHED):
            attrs = other.user_attrs
            if (
                attrs.get("key") == key
                and "copied_from" not in attrs
                and attrs.get("score", {}).get("status", DEADLINE) != DEADLINE
            ):
                return other
        return None

    def tell(self, trial: Trial, score: Score, reported: dict[int, float]) -> None:
        if not math.isfinite(score.value):
            raise TrainingError(
                f"a score is a finite number, but got {score.value} after {score.rows} rows; "
                "lower the learning rate, or look at the label for values that are not finite"
            )
        trial.set_user_attr("score", score.to_json())
        for name in ("inherited", "not_inherited"):
            if name in score.info:
                trial.set_user_attr(name, score.info[name])
        if score.status != STOPPED:
            self.study.tell(trial, list(self.values(score)))
            return
        if self.single:  # Optuna keeps the value of its last report for a pruned trial
            last = max(reported, default=-1)
            if reported.get(last) != score.value:
                trial.report(score.value, max(score.rows, last + 1))
        self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial, kind: str, error: BaseException | str) -> None:
        lines: list[str] = []
        if isinstance(error, BaseException):
            lines = traceback.format_exception(type(error), error, error.__traceback__)
        try:
            failure = {
                "type": kind,
                "message": str(error)[:2000] or kind,
                "traceback": "".join(lines).rstrip().splitlines()[-8:],
                "params": trial.params,
                "peak_memory_mb": round(peak_memory_mb(), 1),
            }
            trial.set_user_attr("failure", failure)
            self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        except UpdateFinishedTrialError:
            _log.warning("trial %d was ended by another process before: %s", trial.number, error)

    def count_failure(self, error: Exception) -> None:
        # Numbers differ from trial to trial (rows, steps, bytes) where the fault is the same.
        reason = f"{type(error).__name__}: {re.sub(r'[0-9.]+', '#', str(error))}"
        self.failures = self.failures + 1 if reason == self.last_reason else 1
        self.last_reason = reason
        if self.failures >= MOST_FAILURES:
            raise TrainingError(
                f"trials fail for reasons of their own, but {MOST_FAILURES} in a row failed with "
                f"{type(error).__name__}: {error}; mend that cause and resume the search"
            ) from error


def _counts(trial: FrozenTrial) -> bool:
    return trial.state != TrialState.WAITING and not lost(trial)


def _median_seconds(trials: Sequence[FrozenTrial]) -> float:
    seconds = [
        trial.duration.total_seconds()
        for trial in trials
        if trial.state in FINISHED and trial.duration and "copied_from" not in trial.user_attrs
    ]
    return statistics.median(seconds) if seconds else 0.0


def _label(candidate: Candidate) -> str:
    nodes = candidate.architecture.nodes if candidate.architecture else ()
    kinds = sorted({node.kind for node in nodes})
    return "+".join(kinds) if kinds else "linear" if candidate.architecture else candidate.family
