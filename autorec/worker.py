"""One worker: `python -m autorec.worker FOLDER DEADLINE PARENT_PID N_TRIALS SECONDS`, or a refit.

A process of its own, started by name rather than forked or spawned: a user's script needs no
`__main__` guard, and a worker that runs out of memory takes nothing with it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from autorec.errors import TrainingError
from autorec.job import Evaluate, Job, Report, Score
from autorec.run import Run
from autorec.search.pool import GIVE_UP


def make_evaluate(run: Run, late: Callable[[], bool] = lambda: False) -> Evaluate:
    """Return the callable that trains one job on the columns of `run` and keeps its weights.

    Args:
        run: the run folder.
        late: tells, besides the job's own deadline, that training has to come to its end.
    """
    from autorec.train.fit import fit

    data = replace(run.data(), late=late)

    def evaluate(job: Job, report: Report) -> Score:
        trained = fit(replace(job, threads=run.config.threads), data, report)
        score = trained.score(data.task)
        folder = run.trial_folder(job.trial)
        partial = folder.with_name(f".{folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "model").mkdir(parents=True)
        trained.model.save(partial / "model")
        (partial / "curve.json").write_text(json.dumps(trained.history), encoding="utf-8")
        if trained.valid_prediction is not None:
            import numpy as np

            np.save(partial / "valid.npy", trained.valid_prediction)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
        return score

    return evaluate


class _Busy:
    """Wraps an evaluate callable and knows whether it is at work."""

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate, self.now = evaluate, False

    def __call__(self, job: Job, report: Report) -> Score:
        self.now = True
        try:
            return self.evaluate(job, report)
        finally:
            self.now = False


def work(
    folder: Path, deadline: float, parent: int, n_trials: int | None, most_seconds: float
) -> None:
    """Run trials of the study in `folder` until the deadline, the stop file or the parent's end.

    A trial gets at most `most_seconds`.
    """
    import torch

    from autorec.search.engine import make_engine
    from autorec.search.halving import Halving
    from autorec.search.process import die_with_parent, orphaned
    from autorec.search.runner import run_worker
    from autorec.search.study import join_study

    die_with_parent(parent)
    run = Run.open(folder)
    config, space = run.config, run.space()
    torch.set_num_threads(config.threads)
    engine = make_engine(config.search, space, config.seed)
    study = join_study(
        folder, name=config.name, space=space, storage=config.storage, sampler=engine
    )
    evaluate = _Busy(make_evaluate(run, lambda: run.stop_file.exists()))
    run_worker(
        study,
        space,
        evaluate,
        seed=config.seed,
        deadline=deadline,
        halving=Halving(config.rungs),
        n_trials=n_trials,
        most_seconds=most_seconds,
        # A trial that is running ends by `late`, with its score; only then does the worker stop.
        stop=lambda: orphaned(parent) or (not evaluate.now and run.stop_file.exists()),
    )


def main() -> None:
    """Read the arguments and work."""
    if sys.argv[2] == "refit":
        from autorec.refit import refit_here
        from autorec.search.process import die_with_parent

        die_with_parent(int(sys.argv[3]))
        refit_here(Run.open(sys.argv[1]))
        return
    folder, deadline, parent, n_trials, seconds = sys.argv[1:6]
    limit = int(n_trials) or None
    try:
        work(Path(folder), float(deadline), int(parent), limit, float(seconds))
    except TrainingError as error:  # the same fault again and again: a new worker would meet it too
        print(error, file=sys.stderr)
        sys.exit(GIVE_UP)


if __name__ == "__main__":
    main()
