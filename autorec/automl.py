"""The front door: `AutoRec(...).fit(table, time_limit=600)` and what can be done afterwards."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autorec import starting
from autorec.attributes import FittedAttributes
from autorec.errors import ConfigError, DataError
from autorec.fitting import Fitted, Limits, run_fit
from autorec.leaderboard import rows as leaderboard_rows
from autorec.prepare import Options, Prepared, Roles
from autorec.progress import Progress
from autorec.track import Tracker
from autorec.trials import trial_ranker

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from autorec.data.check import Finding
    from autorec.deploy.ranker import Ranker
    from autorec.search.records import TrialRecord
    from autorec.tracking.registry import ModelVersionInfo


class AutoRec(FittedAttributes):
    """Finds, trains and keeps a recommender for a table of clicks or ratings.

    Args:
        task: `"ctr"`, `"rating"`, or `"auto"` to read it off the label.
        label: column to predict. This and the next five are guessed from well-known names if None.
        user_id, item_id: id columns of user and item.
        timestamp: column that orders rows; with it the split is by time.
        group: column that grouped metrics (GAUC) average over; the user if None.
        sample_weight: column of row weights, at least 0.
        feature_types: kind by column (`id`, `categorical`, `numeric`, `list`, `text`, `timestamp`,
            `ignore`), overriding inference.
        eval_metric: what the search maximises: ctr `auc` (default), `gauc`, `logloss`,
            `normalized_entropy`, `ece`; rating `rmse` (default), `mae`.
        path: run folder; None makes one below `autorec-runs/`.
        seed: of split, search and training.
        verbosity: 0 silent, 1 decisions and results, 2 also progress.

    After `fit` or `load`: `schema_`, `task_`, `best_model_`, `best_score_`, `best_candidate_`,
    `best_architecture_`, `screening_`, `importance_`, `study_`, `n_trials_`, `baselines_`,
    `failures_`, `timings_`, `split_`, `mlflow_run_id_`, `path_`.
    """

    def __init__(
        self,
        task: str = "auto",
        *,
        label: str | None = None,
        user_id: str | None = None,
        item_id: str | None = None,
        timestamp: str | None = None,
        group: str | None = None,
        sample_weight: str | None = None,
        feature_types: Mapping[str, str] | None = None,
        eval_metric: str | None = None,
        path: str | Path | None = None,
        seed: int = 0,
        verbosity: int = 2,
    ) -> None:
        self.task, self.eval_metric, self.seed = task, eval_metric, int(seed)
        self.path, self.verbosity = None if path is None else Path(path), verbosity
        types = dict(feature_types) if feature_types else None
        self.roles = Roles(label, user_id, item_id, timestamp, group, sample_weight, types)

    def fit(
        self,
        train_data: Any,
        *,
        tuning_data: Any = None,
        time_limit: float | None = 600,
        n_trials: int | None = None,
        search: str = "tpe",
        search_space: str | Mapping[str, Any] = "auto",
        starts: Sequence[str] | None = None,
        features: int = 24,
        split: str = "auto",
        holdout_frac: float = 0.1,
        refit: bool = True,
        num_workers: int | str = "auto",
        storage: str | None = None,
        resume: bool = False,
        mlflow: bool | str = True,
    ) -> AutoRec:
        """Search, train and keep the best recommender within a time limit.

        Args:
            train_data: pandas, polars (lazy too) or Arrow table or dataset, a Parquet or CSV path,
                glob or folder, or an iterator of Arrow record batches.
            tuning_data: validation rows of your own; otherwise `split` holds out `holdout_frac`.
            time_limit: seconds for everything: reading, encoding, baselines, search and refit.
            n_trials: most trials, baselines included; None: as many as the time allows.
            search: engine: `"tpe"`, `"evolution"`, `"bayesian"`, `"morphism"` or `"random"`.
            search_space: `"auto"` for the task's own, a name, or {"name": ..., arguments}.
            starts: named architectures to try first, such as ["DeepFM", "FinalNet"].
            features: most statistics of field crosses (counts, label rates, ids) that are derived
                from training rows where screening finds them worth it; 0: none.
            split: `"time"` (default with a timestamp), `"user"`, `"random"`.
            refit: train the winner once more on all rows if time is left.
            num_workers: processes; `"auto"`: one per core, at most eight.
            storage: Optuna storage URL; None keeps a journal in the run folder.
            resume: go on with the interrupted search in `path`.
            mlflow: True keeps an MLflow store in the run folder, a string names one, False is off.

        Raises:
            SchemaError, DataError: the table cannot be learnt from; nothing is left written.
            ConfigError: an argument has no such value, or `path` holds another run.
            BudgetError: the limits leave no room for any model.
        """
        limits, threads = starting.limits(time_limit, n_trials, num_workers, refit)
        _known_engine(search)
        options = Options(
            task=self.task,
            eval_metric=self.eval_metric,
            split=split,
            holdout=holdout_frac,
            search=search,
            space=starting.with_starts(search_space, starts),
            seed=self.seed,
            threads=threads,
            storage=storage,
            features=starting.screening(features, time_limit),
        )
        progress = Progress(self.verbosity)
        folder = starting.run_folder(self.path, resume)
        prepared = starting.prepared_run(
            folder, train_data, tuning_data, self.roles, options, progress
        )
        tracker = Tracker(prepared, mlflow, {"time_limit": time_limit})
        return self._run_fit(prepared, limits, tracker, progress)

    def _run_fit(
        self, prepared: Prepared, limits: Limits, tracker: Tracker, progress: Progress
    ) -> AutoRec:
        progress.measure(prepared.run.task())
        with progress:
            fitted = run_fit(prepared, limits, tracker, progress)
        self._run, self._ranker, self._winner = fitted.run, fitted.ranker, fitted.winner
        self._study = fitted.study
        fitted.run.write(winner=fitted.winner.number, refitted=fitted.refitted)
        self._finish(fitted, tracker, progress, limits.started)
        return self

    def _finish(self, fitted: Fitted, tracker: Tracker, progress: Progress, started: float) -> None:
        from autorec.report import render

        facts = {
            "winner": fitted.winner.name,
            "refitted": fitted.refitted,
            "interrupted": fitted.interrupted,
            "timings": fitted.timings,
        }
        report = render(self)
        (fitted.run.folder / "report.html").write_text(report, encoding="utf-8")
        status = "KILLED" if fitted.interrupted else "FINISHED"
        tracker.finish(list(self._records()), status, report, facts)
        metric = fitted.run.task().eval_metric
        score = fitted.winner.score
        value = score.metrics[metric] if score else math.nan
        progress.say(
            f"best   {fitted.winner.name}: validation {metric} {value:.4f}"
            + (" (refitted on all rows)" if fitted.refitted else "")
            + f"\nrun    {fitted.run.folder}  ({time.time() - started:.0f} s)"
        )

    def _ranker_of(self, model: str | int | None) -> Ranker:
        run, ranker = self._need()
        if model is None:
            return ranker
        trial = self._trial(model)
        return ranker if trial is None else trial_ranker(run, trial, ranker)

    def _trial(self, model: str | int) -> TrialRecord:
        from autorec.search.records import records

        run, _ = self._need()
        kept = [t for t in records(self.study_) if run.has_weights(t.number)]
        for trial in kept:
            if model in (trial.name, trial.number):
                return trial
        raise ConfigError(
            f"model must name a trial whose weights are kept, {[t.name for t in kept]}, "
            f"but got {model!r}"
        )

    def predict_proba(self, data: Any, *, model: str | int | None = None) -> np.ndarray:
        """Return P(positive) for each row, (N,) float64 (ctr only).

        Args:
            data: rows with the feature columns; other columns are ignored.
            model: name or number of a trial instead of the winner.

        Raises:
            DataError: columns are missing or hold values that do not fit.
        """
        if self.task_ != "ctr":
            raise ConfigError(f"predict_proba needs task 'ctr', but this is {self.task_!r}")
        return self._ranker_of(model).score(data)

    def predict(self, data: Any, *, model: str | int | None = None) -> np.ndarray:
        """Return ratings (N,) float64, or for ctr the more probable label value of each row."""
        import numpy as np

        scores = self._ranker_of(model).score(data)
        if self.task_ != "ctr":
            return scores
        labels = self._ranker_of(None).task.label_map
        chosen: np.ndarray = np.where(scores >= 0.5, labels.positive, labels.negative)
        return chosen

    def rank(
        self,
        users: Any = None,
        *,
        candidates: Any = None,
        k: int = 10,
        filter_seen: bool = True,
        context: Mapping[str, Any] | None = None,
        model: str | int | None = None,
    ) -> pd.DataFrame:
        """Return the k best items of each user: columns user_id, item_id, score, rank.

        Args:
            users: an id, a list of ids, or a frame with the user's columns; None: all known users.
            candidates: item ids, or a frame of items; None: every item of the log.
            filter_seen: leave out items that the user has met.
            context: values of the columns that belong to neither user nor item.
        """
        ranker = self._ranker_of(model)
        best: pd.DataFrame = ranker.rank(
            users, candidates=candidates, k=k, filter_seen=filter_seen, context=context
        )
        return best

    def evaluate(
        self, data: Any, *, model: str | int | None = None, ci: bool = True
    ) -> dict[str, Any]:
        """Return every metric of the task on labelled rows, raw.

        With `ci`, `<metric>_lo` and `<metric>_hi` hold a 95 % bootstrap interval of `eval_metric`.

        Raises:
            DataError: the label column is missing.
        """
        from autorec.data.sources import open_source
        from autorec.data.store import group_key, weights

        run, _ = self._need()
        schema, task = run.schema(), run.task()
        source = open_source(data)
        wanted = [n for n in (schema.label, schema.weight, schema.group) if n]
        missing = [name for name in wanted if name not in source.schema.names]
        if missing:
            raise DataError(f"evaluate needs the columns {wanted}, but the data lacks {missing}")
        table = source.to_table(wanted)
        label = task.label_map.apply(table.column(str(schema.label)))
        weight = weights(table.column(schema.weight), schema.weight) if schema.weight else None
        group = group_key(table.column(schema.group)) if schema.group else None
        scores = self._ranker_of(model).score(data)
        found: dict[str, Any] = dict(task.metrics(label, scores, weight, group))
        if ci:
            from autorec.evaluate.intervals import bootstrap

            by = group if task.metric.grouped else None
            interval = bootstrap(task.eval_metric, label, scores, weight=weight, group=by)
            found[f"{task.eval_metric}_lo"] = interval.low
            found[f"{task.eval_metric}_hi"] = interval.high
        return found

    def leaderboard(self, data: Any = None, *, all_trials: bool = False) -> pd.DataFrame:
        """Return the board, best first; `score_*` are higher-is-better, raw metrics beside them.

        Args:
            data: labelled rows; adds `score_test` for every trial whose weights are kept.
            all_trials: also trials that halving stopped or that failed.
        """
        from autorec.data.frames import data_frame
        from autorec.search.records import records

        run, _ = self._need()
        trials = records(self.study_)
        tests = {}
        if data is not None:
            task = run.task()
            for trial in trials:
                if trial.state == "COMPLETE" and run.has_weights(trial.number):
                    metrics = self.evaluate(data, model=trial.number, ci=False)
                    tests[trial.number] = task.score(metrics)
        found = leaderboard_rows(trials, run, all_trials=all_trials, tests=tests)
        return data_frame(found)

    def check(self, data: Any = None, *, tuning_data: Any = None) -> list[Finding]:
        """Return findings about leaks, drift and columns, worst first; needs no fit."""
        from autorec.data.check import check
        from autorec.data.sources import open_source

        source = open_source(data)
        tuning = None if tuning_data is None else open_source(tuning_data)
        return check(source, self.roles.infer(source), None, tuning)

    def save(self, path: str | Path | None = None) -> Path:
        """Write the ranker (weights, encoder, manifest) to `path` and return it.

        The run folder holds one already, in `ranker/`; None returns that.
        """
        run, ranker = self._need()
        if path is None:
            return run.folder / "ranker"
        return ranker.save(Path(path))

    @classmethod
    def load(cls, path: str | Path, *, verbosity: int = 1) -> AutoRec:
        """Return a fitted AutoRec from a run folder, a saved ranker, or `models:/name@alias`.

        Raises:
            RankerError: there is neither, or files are missing or altered.
        """
        from autorec.loading import load

        return load(cls, path, verbosity)

    def deploy(
        self, name: str, *, alias: str | None = "champion", registry_uri: str | None = None
    ) -> ModelVersionInfo:
        """Register the ranker as a new version of `name` in the MLflow registry and move the alias.

        Raises:
            ConfigError: the name is not allowed.
            RankerError: the ranker is incomplete, or MLflow did not take it.
        """
        from autorec.deploy.registration import deploy
        from autorec.tracking.store import initialise

        run, _ = self._need()
        store = initialise(run.folder, run.config.tracking_uri, registry_uri=registry_uri)
        folder = run.folder / "ranker"
        source = run.config.mlflow_run_id
        return deploy(folder, name, store=store, alias=alias, source_run_id=source)

    def report(self, path: str | Path | None = None) -> Path:
        """Write a self-contained HTML report and return its path."""
        from autorec.report import render

        run, _ = self._need()
        target = Path(path) if path else run.folder / "report.html"
        target.write_text(render(self), encoding="utf-8")
        return target


def _known_engine(search: str) -> None:
    from autorec.search.engine import ENGINES

    ENGINES.module(search)
