"""The search as the parent sees it: its study, the environment of workers, and the last resort."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from autorec.errors import BudgetError
from autorec.job import Score
from autorec.run import Run
from autorec.trials import best_of

if TYPE_CHECKING:
    import optuna

    from autorec.prepare import Prepared
    from autorec.search.records import TrialRecord
    from autorec.space import Space


def open_search(run: Run, space: Space) -> optuna.Study:
    """Open the study of a run, with baselines and known good candidates in its queue."""
    from autorec.search.study import enqueue_candidate, open_study

    config = run.config
    study = open_study(run.folder, name=config.name, space=space, storage=config.storage)
    run.write(study=study.study_name)
    enqueue_baselines(study, space)
    for name, candidate in space.starts():
        enqueue_candidate(study, space, candidate, name)
    return study


def remark(prepared: Prepared, say: Callable[[str], None]) -> None:
    """Look for leaks and other faults of the table, keep what is found, and say the worst."""
    from autorec.data.check import check
    from autorec.data.split import SplitPlan

    run = prepared.run
    plan = SplitPlan.from_json(run.config.split)
    try:
        findings = check(prepared.source, run.schema(), plan, prepared.tuning)
    except Exception as error:  # a fit is worth more than remarks on its table
        say(f"check left out: {type(error).__name__}: {error}")
        return
    run.keep_findings([vars(finding) for finding in findings])
    for finding in findings:
        if finding.severity != "info":
            say(f"{finding.severity}: {finding.message}")


def record_refit(run: Run, space: Space, winner: TrialRecord, rows: int, seconds: float) -> None:
    """Write the refit of `winner` into the run's final study, apart from the search."""
    from autorec.search.study import add_refit, open_study

    config, metrics = run.config, dict(winner.score.metrics) if winner.score else {}
    final = open_study(
        run.folder, name=config.name, space=space, storage=config.storage, final=True
    )
    add_refit(final, winner, Score(float(winner.value or 0.0), metrics, rows, seconds))


def enqueue_baselines(study: optuna.Study, space: Space) -> None:
    """Put the baselines that have not been trained into the queue."""
    from autorec.search.study import enqueue_candidate

    for name, candidate in space.baselines():
        enqueue_candidate(study, space, candidate, name, baseline=True)


def worker_environment(threads: int) -> dict[str, str]:
    """Return the workers' environment: their share of the cores, and threads that wait asleep.

    With two workers on two cores, LightGBM's threads spinning at barriers made a 50-round fit take
    6.5 s instead of 1.8 (2 cores, 2026-11-22).
    """
    count = str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, count), "OMP_WAIT_POLICY": "passive"}


def train_baseline(run: Run, study: optuna.Study, space: Space) -> TrialRecord:
    """Train the popularity baseline here: a fit never returns without a model."""
    from autorec.search.records import records
    from autorec.search.runner import run_worker
    from autorec.worker import make_evaluate

    enqueue_baselines(study, space)  # one that was killed with its worker is out of the queue
    run_worker(
        study,
        space,
        make_evaluate(run),
        seed=run.config.seed,
        deadline=time.time() + 5.0,
        stop=lambda: best_of(records(study), run) is not None,
    )
    found = best_of(records(study), run)
    if found is None:
        reasons = [t.failure["message"] for t in records(study) if t.failure]
        raise BudgetError(
            "a fit needs at least one trained candidate, but none ended in time; raise time_limit"
            + (f". First failure: {reasons[0]}" if reasons else "")
        )
    return found
