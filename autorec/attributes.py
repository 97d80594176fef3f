"""What a fitted AutoRec tells about itself: the attributes with a trailing underscore."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autorec.errors import NotFittedError
from autorec.run import Run

if TYPE_CHECKING:
    import optuna
    import pandas as pd

    from autorec.candidate import Candidate
    from autorec.data.screening import Screening
    from autorec.deploy.ranker import Ranker
    from autorec.schema import Schema
    from autorec.search.records import TrialRecord


class FittedAttributes:
    """Reads the run folder and the ranker; every attribute asks for a fit first."""

    _run: Run | None = None
    _ranker: Ranker | None = None
    _winner: TrialRecord | None = None
    _study: optuna.Study | None = None

    def _need(self) -> tuple[Run, Ranker]:
        if self._run is None or self._ranker is None:
            raise NotFittedError(
                "this needs a fitted AutoRec, but neither fit nor load was called; call "
                "ar.fit(data) or AutoRec.load(path)"
            )
        return self._run, self._ranker

    @property
    def study_(self) -> optuna.Study:
        """The Optuna study of the search."""
        run, _ = self._need()
        if self._study is None:
            from autorec.search.study import load_study

            config = run.config
            self._study = load_study(run.folder, config.study, storage=config.storage)
        return self._study

    @property
    def schema_(self) -> Schema:
        """The schema of the log."""
        return self._need()[1].schema

    @property
    def task_(self) -> str:
        """Name of the task."""
        return self._need()[1].task.name

    @property
    def screening_(self) -> Screening | None:
        """Which statistics of field crosses were tried and kept; None where none were tried."""
        return self._need()[0].screening()

    @property
    def importance_(self) -> pd.DataFrame:
        """By how much the score of the first trees falls when a column is shuffled, largest first.

        Columns: `column`, `fall` of the validation score (higher is more important), and its 95 %
        interval `low`, `high`. Empty where no fit has measured it (too little time).
        """
        from autorec.data.frames import data_frame
        from autorec.evaluate.permutation import kept

        found = kept(self._need()[0].folder) or []
        rows = [
            {"column": o.column, "fall": o.fall.value, "low": o.fall.low, "high": o.fall.high}
            for o in found
        ]
        return data_frame(rows, ["column", "fall", "low", "high"])

    @property
    def best_candidate_(self) -> Candidate:
        """Features, architecture and recipe of the winner."""
        return self._need()[1].candidate

    @property
    def best_architecture_(self) -> str:
        """The winner as text, one block a line."""
        return self.best_candidate_.describe()

    @property
    def best_model_(self) -> str:
        """Name of the winning trial."""
        self._need()
        return str(self._winner.name) if self._winner else self.best_candidate_.family

    @property
    def best_score_(self) -> float:
        """Validation score of the winner, higher is better."""
        _, ranker = self._need()
        return ranker.task.score(ranker.metrics)

    @property
    def n_trials_(self) -> int:
        """Number of trials that have ended."""
        return sum(t.state in ("COMPLETE", "PRUNED", "FAIL") for t in self._records())

    @property
    def baselines_(self) -> dict[str, float | None]:
        """Validation score of each baseline."""
        return {str(t.name): t.value for t in self._records() if t.baseline}

    @property
    def failures_(self) -> dict[str, str]:
        """Reason of each failed trial, by name."""
        return {
            t.name or str(t.number): str(t.failure["message"]) for t in self._records() if t.failure
        }

    @property
    def timings_(self) -> dict[str, float]:
        """Seconds of each stage."""
        return dict(self._need()[0].config.timings)

    @property
    def split_(self) -> str:
        """How validation rows were chosen, in words."""
        return str(self._need()[0].config.split["reason"])

    @property
    def mlflow_run_id_(self) -> str | None:
        """Id of the parent run in MLflow."""
        return self._need()[0].config.mlflow_run_id

    @property
    def path_(self) -> Path:
        """The run folder."""
        return self._need()[0].folder

    def _records(self) -> Sequence[TrialRecord]:
        from autorec.search.records import records

        return records(self.study_)
