"""What of a fit goes to MLflow: one parent run, one child per finished trial, the final report."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autorec.prepare import Prepared
from autorec.run import Run

if TYPE_CHECKING:
    from autorec.search.records import TrialRecord
    from autorec.tracking.runs import RunLogger

_log = logging.getLogger(__name__)


class Tracker:
    """Feeds finished trials to MLflow, each once, without ever holding up the search.

    The store is opened in a thread once the workers have been started: only this process writes to
    it, and importing MLflow takes seconds. Trials that finish before it is open are logged after.

    Args:
        prepared: the run.
        mlflow: False is off, True keeps a store in the run folder, a string names one.
        facts: further parameters of the parent run.
    """

    def __init__(self, prepared: Prepared, mlflow: bool | str, facts: Mapping[str, Any]) -> None:
        self.on = mlflow is not False
        self.space, self.run, self.facts = prepared.space, prepared.run, dict(facts)
        self._uri = mlflow if isinstance(mlflow, str) else prepared.run.config.tracking_uri
        self._logger: RunLogger | None = None
        self._error: Exception | None = None
        self._logged: set[int] = set()
        self._thread = threading.Thread(target=self._open, name="mlflow", daemon=True)

    def begin(self) -> None:
        """Open the store in the background."""
        if self.on and not self._thread.ident:
            self._thread.start()

    def _open(self) -> None:
        try:
            from autorec.tracking.runs import RunLogger
            from autorec.tracking.store import initialise

            logger = RunLogger(initialise(self.run.folder, self._uri))
            known = self.run.config.mlflow_run_id
            if known is None or not logger.attach(known):
                facts = {**_facts(self.run), "space_version": self.space.version, **self.facts}
                run_id = logger.start_parent(self.run.folder.name, facts, {"autorec": "fit"})
                self.run.write(mlflow_run_id=run_id, tracking_uri=self._uri)
            self._logged = set(logger.children)
            self._logger = logger
        except Exception as error:  # told by `log`, in the thread of the fit
            self._error = error

    def log(self, trials: list[TrialRecord]) -> None:
        """Log the trials that have finished since the last call.

        Raises:
            ConfigError: the store that the user named cannot be opened. One of our own that fails
            costs the tracking, not the fit.
        """
        if self._error is not None:
            error, self._error = self._error, None
            if self._uri is not None:
                raise error
            _log.warning("this fit is not tracked: %s", error)
        if self._logger is None:
            return
        for trial in trials:
            ended = trial.state in ("COMPLETE", "PRUNED", "FAIL")
            if not ended or trial.number in self._logged or trial.started is None:
                continue
            self._logged.add(trial.number)
            self._log_one(self._logger, trial, self.run)

    def _log_one(self, logger: RunLogger, trial: TrialRecord, run: Run) -> None:
        candidate, score = trial.candidate, trial.score
        metrics: dict[str, Any] = {}
        if score is not None:
            numbers = {k: v for k, v in score.info.items() if isinstance(v, (int, float))}
            metrics = {"score": score.value, **score.metrics, **numbers, "seconds": score.seconds}
        params: dict[str, Any] = {}
        artifacts: dict[str, Any] = {}
        if candidate is not None:
            inside = self.space.contains(candidate)
            params = dict(self.space.params(candidate) if inside else candidate.recipe)
            params["family"] = candidate.family
            artifacts = {
                "architecture.json": candidate.to_json(),
                "architecture.txt": candidate.describe(),
            }
        if trial.failure:
            artifacts["failure.json"] = trial.failure
        curve = [
            {"step": int(point["rows"]), **{k: v for k, v in point.items() if k != "rows"}}
            for point in run.curve(trial.number)
        ]
        logger.log_trial(
            trial.number,
            name=trial.name or f"trial {trial.number}",
            params=params,
            metrics=metrics,
            started=float(trial.started or 0.0),
            ended=float(trial.finished or trial.started or 0.0),
            status=trial.status,
            curve=curve,
            tags={"key": trial.key, "baseline": trial.baseline, "copied_from": trial.copied_from},
            artifacts=artifacts,
        )

    def finish(
        self, trials: list[TrialRecord], status: str, report: str, facts: dict[str, Any]
    ) -> None:
        """Log what is left, the report and the facts of the winner, and close the parent run."""
        if not self.on or not self._thread.ident:
            return
        self._thread.join()
        self.log(trials)
        if self._logger is None:
            return
        self._logger.log_artifact_text("report.html", report)
        self._logger.log_artifact_json("fit.json", facts)
        self._logger.finish(status)


def _facts(run: Run) -> dict[str, Any]:
    config = run.config
    return {
        "task": config.task["task"],
        "eval_metric": config.task["eval_metric"],
        "search": config.search,
        "space": config.space["name"],
        "split": config.split["method"],
        "seed": config.seed,
        "n_train": config.n_train,
        "n_valid": config.n_valid,
    }
