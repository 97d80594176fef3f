"""Trials as the rest of the house reads them: one frozen value a trial, whatever state it is in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autorec.candidate import Candidate
from autorec.job import COMPLETE, Score
from autorec.search.process import Process

FAILED = "failed"
RUNNING = "running"
WAITING = "waiting"
INTERRUPTED = "interrupted"
DIED = "died"


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a study.

    `state` is Optuna's word (`COMPLETE`, `PRUNED`, `FAIL`, `RUNNING`, `WAITING`); `status` is ours:
    `complete`, `stopped` (by halving), `deadline`, `failed`, `running` or `waiting`.
    `value` is the score, higher is better. `rungs` maps rows presented to the best score so far.
    `failure` holds `type`, `message`, `traceback`, `params`, `peak_memory_mb`; its type is
    `interrupted` or `died` where the candidate was not to blame. Times are unix seconds.
    `copied_from` is the number of the trial whose score this one shares, having the same key.
    """

    number: int
    state: str
    status: str
    name: str | None = None
    candidate: Candidate | None = None
    key: str | None = None
    value: float | None = None
    score: Score | None = None
    rungs: tuple[tuple[int, float], ...] = ()
    failure: dict[str, Any] | None = None
    started: float | None = None
    finished: float | None = None
    worker: Process | None = None
    baseline: bool = False
    copied_from: int | None = None

    @property
    def lost(self) -> bool:
        """Whether the trial ended for a reason that says nothing about its candidate."""
        return (self.failure or {}).get("type") in (INTERRUPTED, DIED)


_cache: WeakKeyDictionary[Study, dict[int, TrialRecord]] = WeakKeyDictionary()


def records(study: Study) -> list[TrialRecord]:
    """Return all trials of `study` by number; what is finished is decoded once and kept."""
    kept = _cache.setdefault(study, {})
    found = []
    for trial in study.get_trials(deepcopy=False):
        record = kept.get(trial.number) or _record(trial)
        if trial.state.is_finished():
            kept[trial.number] = record
        found.append(record)
    return found


def lost(trial: FrozenTrial) -> bool:
    """Tell whether `trial` ended for a reason that says nothing about its candidate."""
    return trial.user_attrs.get("failure", {}).get("type") in (INTERRUPTED, DIED)


def _record(trial: FrozenTrial) -> TrialRecord:
    attrs = trial.user_attrs
    worker = attrs.get("worker")
    record = TrialRecord(
        number=trial.number,
        state=trial.state.name,
        status=_status(trial),
        name=attrs.get("name"),
        candidate=Candidate.from_json(attrs["candidate"]) if "candidate" in attrs else None,
        key=attrs.get("key"),
        rungs=tuple(sorted((int(rows), best) for rows, best in attrs.get("rungs", {}).items())),
        failure=attrs.get("failure"),
        started=trial.datetime_start.timestamp() if trial.datetime_start else None,
        finished=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        worker=Process.from_json(worker) if worker else None,
        baseline=bool(attrs.get("baseline")),
        copied_from=attrs.get("copied_from"),
    )
    if "score" not in attrs or trial.state == TrialState.FAIL:
        return replace(record, value=trial.values[0] if trial.values else None)
    score = Score.from_json(attrs["score"])
    return replace(record, score=score, value=score.value)


def _status(trial: FrozenTrial) -> str:
    if trial.state.is_finished() and trial.state != TrialState.FAIL:
        return str(trial.user_attrs.get("score", {}).get("status", COMPLETE))
    names = {TrialState.FAIL: FAILED, TrialState.RUNNING: RUNNING, TrialState.WAITING: WAITING}
    return names[trial.state]
