"""The search's memory: opening and resuming studies, the queue of candidates, dead trials."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autorec.candidate import Candidate
from autorec.errors import ConfigError
from autorec.job import Score
from autorec.search.engine import FINISHED, worth
from autorec.search.journal import open_journal
from autorec.search.process import Process
from autorec.search.records import DIED, TrialRecord, lost, records
from autorec.space import Space

__all__ = [
    "TrialRecord",
    "add_refit",
    "enqueue_candidate",
    "fail_dead",
    "fail_worker",
    "join_study",
    "open_study",
    "records",
    "study_name",
]

# A trial gets its worker's name milliseconds after it was asked for; older ones without lost it.
_NAMELESS_SECONDS = 60.0
_WARM_STARTS = 5
# Trials that this process runs right now. One that is not here and carries our pid was lost.
_held: set[tuple[str, int]] = set()


def study_name(name: str, space: Space, *, final: bool = False) -> str:
    """Return the study's name in its storage: the space's version is part of it."""
    return f"{name}-final" if final else f"{name}-{space.version}"


def open_study(
    folder: Path,
    *,
    name: str,
    space: Space,
    storage: str | BaseStorage | None = None,
    resume: bool = True,
    final: bool = False,
    objectives: int = 1,
    sampler: optuna.samplers.BaseSampler | None = None,
) -> Study:
    """Open the maximising study of a run, once, in the parent; workers call `join_study`.

    A new study whose storage holds studies of other versions of the space begins with their best
    candidates in its queue. A resumed one has its dead trials failed.

    Args:
        folder: the run's folder, which holds the journal unless `storage` is given.
        storage: an Optuna storage or its URL.
        resume: whether a study that has trials may be continued, and one of another version used.
        final: opens `<name>-final`, the study of re-tests and refits.
        objectives: number of values of a trial, all maximised.
        sampler: who proposes, where the parent runs trials itself.

    Raises:
        ConfigError: the study has trials and `resume` is off.
    """
    memory = open_journal(folder) if storage is None else storage
    full = study_name(name, space, final=final)
    with _quiet():
        study = optuna.create_study(
            storage=memory,
            study_name=full,
            directions=["maximize"] * objectives,
            sampler=sampler,
            load_if_exists=True,
        )
    if not study.get_trials(deepcopy=False):
        study.set_user_attr("run", {"name": name, "version": space.version, "final": final})
        if resume and not final:
            _start_from_other_versions(study, name, space)
    elif not resume:
        raise ConfigError(
            f"a new search needs a folder without one, but study {full!r} has "
            f"{len(study.get_trials(deepcopy=False))} trials; pass resume=True or another folder"
        )
    else:
        fail_dead(study)
    return study


def join_study(
    folder: Path,
    *,
    name: str,
    space: Space,
    storage: str | BaseStorage | None = None,
    final: bool = False,
    sampler: optuna.samplers.BaseSampler | None = None,
) -> Study:
    """Return the study that the parent has opened, for a worker.

    Raises:
        ConfigError: there is no such study.
    """
    full = study_name(name, space, final=final)
    return load_study(folder, full, storage=storage, sampler=sampler)


def load_study(
    folder: Path,
    full: str,
    *,
    storage: str | BaseStorage | None = None,
    sampler: optuna.samplers.BaseSampler | None = None,
) -> Study:
    """Return a study by its full name: readable long after its space has changed.

    Raises:
        ConfigError: there is no such study.
    """
    memory = open_journal(folder) if storage is None else storage
    try:
        with _quiet():
            return optuna.load_study(study_name=full, storage=memory, sampler=sampler)
    except KeyError as error:
        raise ConfigError(
            f"a study is opened before it is joined, but there is no {full!r} in "
            f"{folder if storage is None else storage}; open it first, with the same columns"
        ) from error


def enqueue_candidate(
    study: Study, space: Space, candidate: Candidate, name: str, *, baseline: bool = False
) -> bool:
    """Put `candidate` into the queue of `study` and tell whether it was new there, by its name.

    A name that is already in the study is left alone, unless all its trials were lost (killed or
    interrupted). A candidate outside the space has no genes to fix and travels whole, as JSON.
    """
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get("name") == name and not lost(trial):
            return False
    attrs: dict[str, Any] = {"name": name, "baseline": baseline}
    if space.contains(candidate):
        study.enqueue_trial(space.params(candidate), user_attrs=attrs)
    else:
        study.enqueue_trial({}, user_attrs={**attrs, "candidate": candidate.to_json()})
    return True


def add_refit(study: Study, winner: TrialRecord, score: Score) -> None:
    """Write the refit of `winner` into the final study.

    A refit has no validation rows of its own: its value is the winner's, and says so.
    """
    if winner.candidate is None or winner.value is None:
        raise ConfigError(f"only a scored trial is refitted, but got trial {winner.number}")
    attrs = {
        "name": f"{winner.name} refit",
        "key": winner.key,
        "candidate": winner.candidate.to_json(),
        "score": score.to_json(),
        "value_of_trial": winner.number,
    }
    study.add_trial(optuna.trial.create_trial(value=winner.value, user_attrs=attrs))


def _start_from_other_versions(study: Study, name: str, space: Space) -> None:
    found: dict[str, tuple[float, str, Candidate]] = {}
    for full in optuna.get_all_study_names(study._storage):
        if full == study.study_name or not full.startswith(f"{name}-"):
            continue
        with _quiet():
            other = optuna.load_study(study_name=full, storage=study._storage)
        run = other.user_attrs.get("run", {})
        if run.get("name") != name or run.get("final"):
            continue
        for trial in other.get_trials(deepcopy=False, states=FINISHED):
            value, attrs = worth(other, trial), trial.user_attrs
            if value is None or attrs.get("baseline") or "candidate" not in attrs:
                continue
            candidate = Candidate.from_json(attrs["candidate"])
            label = f"{attrs.get('name', trial.number)} ({run['version']})"
            key = space.key(candidate)
            if key not in found or value > found[key][0]:
                found[key] = (value, label, candidate)
    kept = 0
    for _, label, candidate in sorted(found.values(), key=lambda f: (-f[0], f[1])):
        if kept < _WARM_STARTS and space.contains(candidate):
            kept += enqueue_candidate(study, space, candidate, label)


def fail_dead(study: Study) -> list[int]:
    """Fail running trials whose process is over, with the reason, and return their numbers.

    On this host a process is over when its pid is gone or belongs to one that started later; on
    another host when its lease has run out.
    """
    failed = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        reason = _death(study, trial)
        if reason and fail_lost(study, trial, reason):
            failed.append(trial.number)
    return failed


def fail_worker(study: Study, pid: int, reason: str) -> list[int]:
    """Fail the running trials of the worker `pid` of this host and return their numbers."""
    failed = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get("worker")
        if not worker or worker["pid"] != pid or not Process.from_json(worker).here:
            continue
        if fail_lost(study, trial, f"the worker {reason}"):
            failed.append(trial.number)
    return failed


def _death(study: Study, trial: FrozenTrial) -> str | None:
    worker = trial.user_attrs.get("worker")
    if worker is None:
        asked = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        if time.time() - asked > _NAMELESS_SECONDS:
            return "the worker ended before it gave the trial its name"
        return None
    process = Process.from_json(worker)
    if not process.here:
        if time.time() > worker["lease"]:
            return f"the worker {process.pid} on {process.host} did not end within its lease"
        return None
    if process == Process.current():
        held = (study.study_name, trial.number) in _held
        return None if held else "the search in this process ended without telling the trial"
    return f"the worker {process.pid} is gone" if process.dead else None


def fail_lost(study: Study, trial: FrozenTrial, message: str) -> bool:
    """Fail `trial` as lost and tell whether it was still running."""
    reason = {"type": DIED, "message": message, "traceback": [], "params": dict(trial.params)}
    try:
        study._storage.set_trial_user_attr(trial._trial_id, "failure", reason)
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    except UpdateFinishedTrialError:  # the worker, or another parent, was faster
        return False
    return True


@contextmanager
def held(study: Study, number: int) -> Iterator[None]:
    """Mark a trial as being run by this process."""
    place = (study.study_name, number)
    _held.add(place)
    try:
        yield
    finally:
        _held.discard(place)


_LOGGING = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out Optuna's notes on opening a study; its warnings pass."""
    with _LOGGING:
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)
