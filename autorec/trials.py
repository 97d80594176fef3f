"""Trials of a run as models: which one is best, its weights, and a ranker made of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autorec.errors import BudgetError
from autorec.run import Run

if TYPE_CHECKING:
    from autorec.deploy.ranker import Ranker
    from autorec.prepare import Prepared
    from autorec.refit import Refitted
    from autorec.search.records import TrialRecord


def best_of(trials: list[TrialRecord], run: Run) -> TrialRecord | None:
    """Return the trial with weights and the highest score; trials that halving stopped are out."""
    done = [
        trial
        for trial in trials
        if trial.state == "COMPLETE" and trial.value is not None and run.has_weights(trial.number)
    ]
    return max(done, key=lambda trial: float(trial.value or 0.0)) if done else None


def load_trial_model(run: Run, trial: TrialRecord) -> Any:
    """Return the model of a trial whose weights are kept."""
    from autorec.train.fit import load_model

    if trial.candidate is None:
        raise BudgetError(f"trial {trial.number} never began, so it has no model")
    folder = run.trial_folder(trial.number) / "model"
    return load_model(folder, trial.candidate, run.encoder().layout, run.task())


def trial_ranker(run: Run, trial: TrialRecord, like: Ranker) -> Ranker:
    """Return a ranker for another trial of the run, sharing users and items with `like`."""
    return replace(
        like,
        candidate=trial.candidate or like.candidate,
        encoder=run.encoder(),
        model=load_trial_model(run, trial),
        metrics=dict(trial.score.metrics) if trial.score else {},
    )


def make_ranker(prepared: Prepared, winner: TrialRecord, again: Refitted | None) -> Ranker:
    """Return the ranker of the winning trial, with the model of all rows where there is one."""
    from autorec.deploy.ranker import Ranker
    from autorec.refit import whole

    source = prepared.source if again is None else whole(prepared)
    encoder = prepared.run.encoder() if again is None else again.encoder
    if winner.candidate is None or winner.score is None:
        raise BudgetError(f"a winner has a candidate and a score, but got {winner}")
    return Ranker.make(
        source,
        prepared.run.schema(),
        prepared.run.task(),
        winner.candidate,
        encoder,
        load_trial_model(prepared.run, winner) if again is None else again.model,
        metrics=winner.score.metrics,
    )
