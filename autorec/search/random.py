"""Random search: every candidate drawn anew, the opponent that other engines must beat."""

from __future__ import annotations

from optuna.study import Study
from optuna.trial import FrozenTrial

from autorec.candidate import Candidate
from autorec.search.engine import Engine


class Random(Engine):
    """Draws each gene uniformly, or log-uniformly where its distribution is `log`."""

    def propose(self, study: Study, trial: FrozenTrial) -> Candidate | None:
        """Return a candidate that depends on seed and trial number only."""
        return None if self.space is None else self.space.sample(self.rng(trial, "sample"))
