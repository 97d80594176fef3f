"""Which trial becomes the model: the best one, or an equal that can still learn from all rows."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autorec.candidate import POPULARITY
from autorec.leaderboard import intervals
from autorec.run import Run
from autorec.trials import best_of

if TYPE_CHECKING:
    from autorec.search.records import TrialRecord

_SHARE = 0.35
# Seconds until a refit's process has loaded torch and read the columns: 3.8 on a cold machine.
_START = 4.0


@dataclass(frozen=True)
class Refits:
    """What training a trial once more on all rows takes, and for which trials there is time.

    Attributes:
        run: whose trials they are.
        timings: seconds of the stages before the search.
        total: seconds of the whole fit.
        wind_down: seconds that workers get to end.
    """

    run: Run
    timings: Mapping[str, float]
    total: float
    wind_down: float

    def seconds(self, trial: TrialRecord) -> float:
        """Return the seconds that training on all rows will take, encoding included."""
        score, config = trial.score, self.run.config
        if score is None or not score.rows:
            return math.inf
        share = float(score.info.get("best_rows", score.rows)) / score.rows
        share *= (config.n_train + config.n_valid) / max(1, config.n_train)
        before = self.timings.get("encode", 0.0) + self.timings.get("features", 0.0)
        return 1.3 * score.seconds * share + 1.5 * before + _START

    def fits(self, trial: TrialRecord, end: float) -> bool:
        """Tell whether a refit that begins now may end by `end`; it is left out if it does not.

        The estimate comes from a worker that shared the machine, so that it is an upper one.
        """
        return time.time() + 0.8 * self.seconds(trial) <= end

    def reserve(self, trials: Sequence[TrialRecord]) -> float:
        """Return the seconds to keep for a refit of the best trial of those that allow one.

        Where the leader does not, the refit is rehearsed before (`autorec.rehearsal`), so that it
        gets twice the time.
        """
        if not math.isfinite(self.total):
            return 0.0
        most = _SHARE * self.total - 2 * self.wind_down
        leader = self._best(trials)
        wanted = math.inf if leader is None else self.seconds(leader)
        for times in (2, 1):
            if wanted > most:
                found = self._best([t for t in trials if times * self.seconds(t) <= most])
                wanted = math.inf if found is None else times * self.seconds(found)
        return 0.0 if wanted > most else wanted + 2 * self.wind_down

    def choice(self, best: TrialRecord, trials: Sequence[TrialRecord], end: float) -> TrialRecord:
        """Return `best`, or an equal of it whose refit ends by `end` where that of `best` cannot.

        An equal has a score within the 95 % bootstrap interval of the best one. To learn from all
        rows is worth more than a lead within that noise: .003 test AUC on Frappe, where a network
        led a tree by .0004 and could not be trained again.
        """
        if self.fits(best, end):
            return best
        other = self._best([t for t in trials if t.number != best.number and self.fits(t, end)])
        if other is None:
            return best
        low = intervals([best], self.run).get(best.number, (None, None))[0]
        equal = low is not None and float(other.value or 0.0) >= low
        return other if equal else best

    def rival(
        self, best: TrialRecord, trials: Sequence[TrialRecord], end: float
    ) -> TrialRecord | None:
        """Return the best trial that can be trained twice by `end`, where `best` cannot once.

        Whether learning from validation rows makes up for what it lacks is for a rehearsal to say.
        """
        if self.fits(best, end):
            return None
        now = time.time()
        others = [t for t in trials if t.number != best.number]
        return self._best([t for t in others if now + 1.6 * self.seconds(t) <= end])

    def _best(self, trials: Sequence[TrialRecord]) -> TrialRecord | None:
        learning = [t for t in trials if t.candidate and t.candidate.family != POPULARITY]
        return best_of(learning, self.run)
