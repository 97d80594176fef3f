"""What a running trial reports to: it keeps the trial's rungs and decides whether it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable

from optuna.study import Study
from optuna.trial import Trial

from autorec.errors import TrainingError
from autorec.search.halving import CHILD, ROOT, Halving
from autorec.search.interrupts import Interrupts


class Ended(BaseException):
    """The worker was asked to stop while a trial ran; passes through what catches Exception."""


class Reporter:
    """The `report` of one trial (see `autorec.job.Report`).

    At the first evaluation on each rung the best score so far is written to the trial and compared
    with those of the trials of its lane: the same class (root or child) and family. Baselines are
    compared with, but never stopped. A trial is a root until it reports a score before its first
    step: only then has it inherited weights.

    Args:
        interrupts: kept out while the study is written.
        stop: asked at every report.
    """

    def __init__(
        self,
        study: Study,
        trial: Trial,
        halving: Halving,
        interrupts: Interrupts,
        stop: Callable[[], bool],
    ) -> None:
        self.study, self.trial, self.halving = study, trial, halving
        self.interrupts, self.stop = interrupts, stop
        attrs = trial.user_attrs
        self.lane, self.spared = attrs["lane"], bool(attrs.get("baseline"))
        self.best = -math.inf
        self.rungs: dict[int, float] = {}

    def __call__(self, rows: int, score: float) -> bool:
        """Take the score after `rows` presented rows and tell whether the trial goes on.

        Raises:
            TrainingError: the score is not finite.
            Ended: the worker is to stop.
        """
        with self.interrupts.keep_out():
            if self.stop():
                raise Ended
            if not math.isfinite(score):
                raise TrainingError(f"a score is a finite number, but got {score} at {rows} rows")
            if rows == 0:  # the score of its parent, which is none of its own
                self.lane = self.lane.replace(ROOT, CHILD, 1)
                self.trial.set_user_attr("lane", self.lane)
                return True
            self.best = max(self.best, float(score))
            rung = self.halving.rung(rows)
            return rung is None or rung in self.rungs or self._climb(rung)

    def _climb(self, rung: int) -> bool:
        self.rungs[rung] = self.best
        self.trial.set_user_attr("rungs", {str(rows): best for rows, best in self.rungs.items()})
        if len(self.study.directions) == 1:  # Optuna takes no reports with several objectives
            self.trial.report(self.best, rung)
        others = [
            other.user_attrs["rungs"][str(rung)]
            for other in self.study.get_trials(deepcopy=False)
            if other.number != self.trial.number
            and other.user_attrs.get("lane") == self.lane
            and str(rung) in other.user_attrs.get("rungs", {})
        ]
        return self.spared or self.halving.decide(self.best, others)
