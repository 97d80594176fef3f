"""One worker: `python -m autorec.worker FOLDER DEADLINE PARENT_PID N_TRIALS SECONDS`, or a refit.

A process of its own, started by name rather than forked or spawned: a user's script needs no
`__main__` guard, and a worker that runs out of memory takes nothing with it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autorec.candidate import TREE
from autorec.errors import AutoRecError, TrainingError
from autorec.job import Evaluate, Job, Report, Score
from autorec.run import Run
from autorec.search.pool import GIVE_UP

if TYPE_CHECKING:
    from autorec.space import Space
    from autorec.train.fit import Model, TrainingData

# Shuffles of columns are predicted on so many rows; a second round of them only within so long.
_SHUFFLED_ROWS, _SHUFFLE_SECONDS = 4000, 2.0
# With less time left, an order of columns comes too late to be worth its seconds.
_ORDER_SECONDS = 60.0


def make_evaluate(
    run: Run,
    late: Callable[[], bool] = lambda: False,
    *,
    inherits: bool = False,
    order: ColumnOrder | None = None,
) -> Evaluate:
    """Return the callable that trains one job on the columns of `run` and keeps its weights.

    Args:
        run: the run folder.
        late: tells, besides the job's own deadline, that training has to come to its end.
        inherits: keep the best networks in `parents/` for the children of edits, which start from
            their weights; without it every job is trained from scratch.
        order: is told the models, and tells the space which columns matter.
    """
    from autorec.train.fit import fit
    from autorec.train.inherit import Parents

    parents = Parents(run.folder / "parents") if inherits else None
    data = replace(run.data(), late=late, parents=parents)

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
        if parents is not None:
            with suppress(FileNotFoundError):  # the parent process drops what lags behind
                parents.keep(job.trial, trained, score.value, folder / "model")
        if order is not None:
            order.measure(job, trained.model, data)
        return score

    return evaluate


class ColumnOrder:
    """Which columns matter: measured once a run, on the first trees that read them all.

    From then on candidates may leave out the least important ones (`DagSpace.learn_order`).

    Args:
        run: keeps the order, so that all workers and a resumed search know it.
        space: what learns it; one that leaves no columns out learns nothing.
        deadline: of the search, in unix seconds.
    """

    def __init__(self, run: Run, space: Space, deadline: float) -> None:
        from autorec.search_spaces._dag import DagSpace

        self.run, self.deadline = run, deadline
        self.space = space if isinstance(space, DagSpace) else None
        self.learn()

    def learn(self) -> None:
        """Tell the space what is known by now."""
        from autorec.evaluate.permutation import kept, ordered

        if self.space is not None and self.space.field_order is None:
            known = kept(self.run.folder)
            if known is not None:
                self.space.learn_order(ordered(known))

    def measure(self, job: Job, model: Model, data: TrainingData) -> None:
        """Measure the order where none is known, and learn it; at the end of every trial."""
        from autorec.evaluate.permutation import importances, keep

        self.learn()
        candidate, now = job.candidate, time.time()
        late = now + _ORDER_SECONDS > self.deadline
        if self.space is None or self.space.field_order is not None or data.valid is None or late:
            return
        if candidate.family == TREE and not candidate.features.without:
            with suppress(AutoRecError):  # a search without an order is still a search
                found = importances(
                    model.predict,
                    data.valid,
                    data.task,
                    rows=_SHUFFLED_ROWS,
                    repeats=2,
                    late=lambda: time.time() > now + _SHUFFLE_SECONDS,
                )
                keep(found, self.run.folder)
            self.learn()


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

    from autorec.build import cost
    from autorec.search.engine import Engine, make_engine
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
    inherits = isinstance(engine, Engine) and engine.inherits
    if isinstance(engine, Engine):
        engine.weigh = lambda candidate: cost(candidate, space.layout)[0]
    order = ColumnOrder(run, space, deadline)
    stopped = run.stop_file.exists
    evaluate = _Busy(make_evaluate(run, stopped, inherits=inherits, order=order))
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
