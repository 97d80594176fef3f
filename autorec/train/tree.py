"""The tree family: LightGBM on raw numbers and native categories, an honest competitor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np

from autorec.candidate import Candidate, Features
from autorec.errors import RankerError
from autorec.job import COMPLETE, DEADLINE, STOPPED, Job, Report
from autorec.schema import Layout
from autorec.tasks.base import Task
from autorec.train import _shown
from autorec.train.fit import Array, Trained, TrainingData

if TYPE_CHECKING:
    from autorec.data.store import Columns

_FILE = "model.lightgbm.txt"
_PATIENCE = 50
_METRICS = {"rmse": "rmse", "mae": "l1", "auc": "auc", "gauc": "auc"}


class TreeModel:
    """A boosted ensemble of `lightgbm.Booster`, and the values of lists that it sees."""

    def __init__(self, booster: Any, features: Features, task: Task, shown: _shown.Shown) -> None:
        self.booster, self.features, self.task = booster, features, task
        self.shown = shown

    def predict(self, columns: Columns) -> Array:
        """Return predictions (N,), float64, in the task's units."""
        parts = []
        for start in range(0, columns.n_rows, 1 << 18):
            piece = columns.take(slice(start, start + (1 << 18)))
            # Waking a second thread costs more than the trees of a few rows: 15 ms against 0.3.
            threads = 1 if piece.n_rows < 2048 else 0
            seen = matrix(piece, self.features, self.shown)
            parts.append(self.booster.predict(seen, num_threads=threads))
        raw = np.concatenate(parts) if parts else np.zeros(0)
        return self.task.clip(raw.astype(np.float64))

    def save(self, folder: Path) -> None:
        """Write LightGBM's own text format, and the values of lists."""
        (folder / _FILE).write_text(self.booster.model_to_string(), encoding="utf-8")
        _shown.save(folder, self.shown)


def load(folder: Path, candidate: Candidate, layout: Layout, task: Task) -> TreeModel:
    """Read what `TreeModel.save` wrote.

    Raises:
        RankerError: a file is missing or damaged.
    """
    path = folder / _FILE
    try:
        text = path.read_text(encoding="utf-8")
        booster = lightgbm.Booster(model_str=text)
    except (OSError, lightgbm.basic.LightGBMError) as error:
        raise RankerError(
            f"{path} must hold a LightGBM model, but reading it failed: {error}"
        ) from error
    return TreeModel(booster, candidate.features, task, _shown.load(folder, layout))


def matrix(columns: Columns, features: Features, shown: _shown.Shown | None = None) -> np.ndarray:
    """Return the columns as LightGBM sees them: codes (category columns), numbers, list flags.

    float32 (N, C); float64 where a table has more than 2^24 rows, whose codes float32 would merge.

    Args:
        columns: N rows.
        features: which columns are read.
        shown: codes of each list that have a column; None: the first ones.
    """
    layout, read = columns.layout, features.plain()
    ids = read.sparse_of(layout)
    wide = any(layout.sparse[i].rows > 1 << 24 for i in ids)
    parts = [columns.codes[:, ids], columns.dense[:, read.dense_of(layout)]]
    held = _shown.first(layout) if shown is None else shown
    for field in (layout.lists[i] for i in read.lists_of(layout)):
        parts.append(_shown.flags(field, columns.lists[field.name], held[field.name]))
    return np.concatenate(parts, axis=1, dtype=np.float64 if wide else np.float32)


def fit(
    job: Job, data: TrainingData, report: Report, replay: Mapping[str, Any] | None = None
) -> Trained:
    """Boost until the validation score has not improved for 50 rounds (see `autorec.train.fit`)."""
    params, rounds = _params(job, data.task), int(job.candidate.recipe.number("max_rounds", 3000))
    features = job.candidate.features
    categories = list(range(len(features.plain().sparse_of(data.layout))))
    shown = _shown.choose(data.train)
    train_set = _dataset(data.train, matrix(data.train, features, shown), params, categories)
    watch = _Watch(lambda: time.time() >= job.deadline or data.late())
    callbacks: list[Any] = [watch]
    valid_sets = []
    if data.valid is None:
        rounds = max(1, int((replay or {}).get("rounds", 100)))
    else:
        held_out = matrix(data.valid, features, shown)
        valid_sets = [_dataset(data.valid, held_out, params, categories, train_set)]
        del held_out
        callbacks.append(lightgbm.early_stopping(_PATIENCE, verbose=False))
    booster = lightgbm.train(
        params,
        train_set,
        rounds,
        valid_sets=valid_sets,
        callbacks=callbacks,
        feval=watch.see if valid_sets else None,
    )
    used = booster.best_iteration or booster.current_iteration()
    text = booster.model_to_string(num_iteration=used)
    model = TreeModel(lightgbm.Booster(model_str=text), features, data.task, shown)
    return _trained(job, data, model, watch, report)


def _params(job: Job, task: Task) -> dict[str, Any]:
    recipe = {name: value for name, value in job.candidate.recipe.items() if name != "max_rounds"}
    return {
        **recipe,
        "bagging_freq": 1 if job.candidate.recipe.number("bagging_fraction", 1.0) < 1 else 0,
        "objective": "regression" if task.name == "rating" else "binary",
        "metric": _METRICS.get(task.eval_metric, "binary_logloss"),
        "seed": job.seed % (1 << 31),
        "num_threads": job.threads,
        "verbosity": -1,
        "feature_pre_filter": False,
        # Pinned: left open, LightGBM times both layouts and the faster one of the moment wins.
        "force_col_wise": True,
        "deterministic": True,
    }


def _trained(
    job: Job, data: TrainingData, model: TreeModel, watch: _Watch, report: Report
) -> Trained:
    text = model.booster.model_to_string()
    used, n = model.booster.current_iteration(), data.train.n_rows
    sign = 1.0 if watch.higher_is_better else -1.0
    history = [{"rows": (i + 1) * n, "score": sign * score} for i, score in enumerate(watch.scores)]
    status = DEADLINE if watch.late else COMPLETE
    if history and not report(used * n, history[used - 1]["score"]):
        status = STOPPED
    leaves = sum(int(line[11:]) for line in text.splitlines() if line.startswith("num_leaves="))
    return Trained(
        model,
        job.candidate,
        rows=(len(history) or used) * n,
        status=status,
        history=history[:: max(1, len(history) // 200)],
        info={
            "params": leaves,
            "rounds": used,
            "epochs": float(used),
            "best_rows": used * n,
            "flops": None,
        },
        replay={"rounds": used},
        # Boosting knows them already; predicting 58,000 rows by 1,400 trees would take 16 s more.
        valid_prediction=None if watch.kept is None else data.task.clip(watch.kept),
    )


def _dataset(
    columns: Columns,
    seen: np.ndarray,
    params: dict[str, Any],
    categories: list[int],
    reference: Any = None,
) -> Any:
    return lightgbm.Dataset(
        seen,
        label=columns.label,
        weight=columns.weight,
        categorical_feature=categories,
        reference=reference,
        params=params,
    )


class _Watch:
    """Stops boosting at the deadline and keeps the validation curve."""

    before_iteration = False
    order = 0

    def __init__(self, ended: Callable[[], bool]) -> None:
        self.ended = ended
        self.late = False
        self.higher_is_better = True
        self.scores: list[float] = []
        self.kept: Array | None = None
        self._seen: Array = np.zeros(0)

    def see(self, prediction: Array, _: Any) -> list[Any]:
        """Take the validation predictions of this round; adds no metric."""
        self._seen = prediction
        return []

    def __call__(self, env: Any) -> None:
        results = env.evaluation_result_list or []
        if results:
            self.higher_is_better = bool(results[0][3])
            self._keep(float(results[0][2]))
        if not self.ended():
            return
        self.late = True
        pick = np.argmax if self.higher_is_better else np.argmin
        best = int(pick(self.scores)) if self.scores else env.iteration
        raise lightgbm.callback.EarlyStopException(best, results)

    def _keep(self, score: float) -> None:
        sign = 1.0 if self.higher_is_better else -1.0
        if not self.scores or sign * score > max(sign * s for s in self.scores):
            self.kept = self._seen.astype(np.float64)
        self.scores.append(score)
