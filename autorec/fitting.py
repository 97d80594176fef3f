"""One fit from start to end: prepare, search with workers, choose, refit, and make the ranker.

The parent process trains nothing while workers search. It watches the study, shows progress, logs
to MLflow, keeps the weights of the leaders only, and decides when the search has to end so that the
refit and the ranker still fit into the time limit.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autorec.candidate import NEURAL, POPULARITY
from autorec.choosing import Refits
from autorec.errors import AutoRecError, TrainingError
from autorec.job import Job
from autorec.prepare import Prepared, timed
from autorec.progress import Progress
from autorec.refit import Refitted, refit
from autorec.rehearsal import rehearse
from autorec.run import Run
from autorec.searching import (
    open_search,
    record_refit,
    remark,
    train_baseline,
    worker_environment,
)
from autorec.seeding import derive
from autorec.track import Tracker
from autorec.trials import best_of, make_ranker

if TYPE_CHECKING:
    import optuna

    from autorec.deploy.ranker import Ranker
    from autorec.search.pool import WorkerPool
    from autorec.search.records import TrialRecord

_KEPT = 6
# Most of the time limit (and seconds) of one trial: a slow network would hold a worker to the end.
_TRIAL_SHARE, _TRIAL_LEAST = 0.3, 10.0
_POLL = 0.25
# Seconds kept for what follows the search: ranker (besides reading the log), report, MLflow.
_FINISH = 3.0
# Seconds that a worker gets to score the trial it has to end, before it is killed.
_WIND_DOWN = 3.0


@dataclass
class Fitted:
    """What a fit leaves: the run, its study, the chosen trial and the ranker made of it."""

    run: Run
    study: optuna.Study
    winner: TrialRecord
    ranker: Ranker
    refitted: bool
    interrupted: bool
    timings: dict[str, float]


@dataclass(frozen=True)
class Limits:
    """How much a fit may use: `end` in unix seconds, number of trials, workers, and whether to
    refit.
    """

    started: float
    end: float
    n_trials: int | None
    workers: int
    refit: bool

    @property
    def total(self) -> float:
        """Seconds from start to end."""
        return self.end - self.started


def run_fit(prepared: Prepared, limits: Limits, tracker: Tracker, progress: Progress) -> Fitted:
    """Search, choose the best trial by its validation score, refit it, make the ranker.

    Ctrl-C ends the search, or the refit, and returns the best so far; a second one is passed on.

    Raises:
        BudgetError: no candidate could be trained at all.
        TrainingError: every worker died of the same fault.
    """
    run, space, timings = prepared.run, prepared.space, prepared.timings
    study = open_search(run, space)
    search = _Search(prepared, study, limits, tracker, progress)
    with timed(timings, "search"):
        interrupted = search.run()
        if not interrupted and search.reserved_in_vain():
            interrupted = search.run()
    winner = search.best() or train_baseline(run, study, space)
    again = None
    if limits.refit and not interrupted:
        winner, again = _trained_again(prepared, winner, search, progress)
        if again is not None:
            record_refit(run, space, winner, again.rows, again.seconds)
    with timed(timings, "finish"):
        ranker = make_ranker(prepared, winner, again)
        ranker.save(run.folder / "ranker")
    run.write(timings=timings)
    return Fitted(run, study, winner, ranker, again is not None, interrupted, timings)


class _Search:
    """The parent's watch over its workers."""

    pool: WorkerPool | None = None

    def __init__(
        self,
        prepared: Prepared,
        study: optuna.Study,
        limits: Limits,
        tracker: Tracker,
        progress: Progress,
    ) -> None:
        self.prepared, self.study, self.limits = prepared, study, limits
        self.run_, self.tracker, self.progress = prepared.run, tracker, progress
        self.wind_down, self.reserved = min(_WIND_DOWN, 0.05 * limits.total), False
        self.deadline = limits.end - self.finish_seconds() - self.wind_down
        self.refits = Refits(self.run_, prepared.timings, limits.total, self.wind_down)
        self._checks = threading.Thread(target=self._remark, name="checks", daemon=True)

    def finish_seconds(self) -> float:
        """Return the seconds that the ranker will take: it reads the log twice."""
        timings = self.prepared.timings
        least = min(_FINISH, 0.08 * self.limits.total)
        return least + timings.get("read", 0.0) + timings.get("encode", 0.0)

    @property
    def end(self) -> float:
        """When the last training has to be over, in unix seconds."""
        return self.deadline + self.wind_down

    def choice(self, best: TrialRecord) -> TrialRecord:
        """Return the trial that becomes the model: `best`, or an equal that can be refitted."""
        if not self.limits.refit:
            return best
        return self.refits.choice(best, self._trials(), self.end)

    def rival(self, best: TrialRecord) -> TrialRecord | None:
        """Return a trial that may overtake `best`, for whose refit there is no time, by its own."""
        return self.refits.rival(best, self._trials(), self.end) if self.limits.refit else None

    def refit_fits(self, trial: TrialRecord) -> bool:
        """Tell whether the refit of `trial` may end in time."""
        return self.refits.fits(trial, self.end)

    def reserved_in_vain(self) -> bool:
        """Tell whether time was kept for a refit that now takes too long, and is left to search.

        The trials that were running when the search stopped may have brought a new winner.
        """
        best = self.best()
        left = self.deadline - time.time()
        if (
            not self.reserved
            or best is None
            or self.refit_fits(self.choice(best))
            or self.rival(best) is not None
            or not left > 0.1 * self.limits.total
        ):
            return False
        self.limits = replace(self.limits, refit=False)
        return True

    def best(self) -> TrialRecord | None:
        """Return the trial of the highest validation score whose weights are kept."""
        return best_of(self._trials(), self.run_)

    def _trials(self) -> list[TrialRecord]:
        from autorec.search.records import records

        return records(self.study)

    def run(self) -> bool:
        """Search until time or trials are used up; tell whether Ctrl-C ended it."""
        from autorec.search.pool import WorkerPool

        self.pool = pool = WorkerPool(
            self._command,
            self.limits.workers,
            worker_environment(self.run_.config.threads),
            folder=self.run_.folder / "logs",
            study=self.study,
            deadline=self.deadline + self.wind_down,
        )
        try:
            with pool:
                self.tracker.begin()  # importing MLflow takes seconds in which workers start too
                if not self._checks.ident:
                    self._checks.start()
                pool.wait(self._tick, every=_POLL)
        except KeyboardInterrupt:
            self.progress.say("interrupted: the best model so far is kept")
            return True
        except TrainingError as error:
            if self.best() is None:
                raise
            self.progress.say(f"the search ended early: {error}")
        finally:
            self._tick()
            self.run_.stop_file.unlink(missing_ok=True)
        return False

    def _remark(self) -> None:
        remark(self.prepared, self.progress.say)

    def _command(self, slot: int) -> list[str]:
        limit = self.limits.n_trials or 0
        words = [str(self.run_.folder), repr(self.deadline), str(os.getpid()), str(limit)]
        words.append(repr(max(_TRIAL_LEAST, _TRIAL_SHARE * self.limits.total)))
        return [sys.executable, "-m", "autorec.worker", *words]

    def _tick(self) -> None:
        trials = self._trials()
        best = best_of(trials, self.run_)
        self._drop_old_weights(trials)
        self.tracker.log(trials)
        self.progress.update(trials, best, self.limits)
        reserve = self.refits.reserve(trials) if self.limits.refit else 0.0
        if time.time() >= self.deadline - reserve:
            self.reserved = reserve > 0
            if self.pool is not None and not self.run_.stop_file.exists():
                # A slow network would else be scoring itself in the time of the refit.
                self.pool.deadline = min(self.pool.deadline, time.time() + self.wind_down)
            self.run_.stop_file.touch()

    def _drop_old_weights(self, trials: list[TrialRecord]) -> None:
        done = [t for t in trials if t.value is not None and self.run_.has_weights(t.number)]
        leaders = sorted(done, key=lambda t: -float(t.value or 0.0))[:_KEPT]
        neural = [t for t in done if t.candidate and t.candidate.family == NEURAL]
        kept = {t.number for t in leaders} | {t.number for t in done if t.baseline}
        kept |= {max(neural, key=lambda t: float(t.value or 0.0)).number} if neural else set()
        for trial in done:
            if trial.number not in kept:
                self.run_.drop_weights(trial.number)


def _trained_again(
    prepared: Prepared, best: TrialRecord, search: _Search, progress: Progress
) -> tuple[TrialRecord, Refitted | None]:
    """Return the trial that becomes the model, trained on all rows; `best` where that fails.

    The weights of the search are kept when a refit fails, runs late, or is interrupted.
    """
    chosen = search.choice(best)
    try:
        rival = None if search.refit_fits(chosen) else search.rival(best)
        if rival is not None:
            progress.say(f"train {rival.name} on half of the validation rows too")
            with timed(prepared.timings, "rehearsal"):
                found = rehearse(prepared.run, best, rival, search.end)
            chosen = rival if found.won else best
        candidate, score = chosen.candidate, chosen.score
        if candidate is None or score is None or candidate.family == POPULARITY:
            return best, None
        if not search.refit_fits(chosen):
            return best, None
        progress.say(f"refit {chosen.name} on all rows")
        # With a thread per core a busy machine makes the refit several times slower than the trial
        # was, by which its time was reserved; with the trial's own threads it is at least as fast.
        config = prepared.run.config
        seed = derive(config.seed, "refit")
        job = Job(chosen.number, candidate, seed, search.end, threads=config.threads)
        with timed(prepared.timings, "refit"):
            return chosen, refit(prepared, job, score.info["replay"])
    except KeyboardInterrupt:
        progress.say("interrupted: the weights of the search are kept")
    except (AutoRecError, MemoryError) as error:
        progress.say(f"refit left out: {error}")
    return best, None
