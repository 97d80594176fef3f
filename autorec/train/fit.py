"""`fit`: from a job and columns to a trained model, whatever its family.

A family is a module of this folder with a class of the `Model` contract; `FAMILIES` maps the family
of a candidate to it.
"""

from __future__ import annotations

import importlib
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from autorec.candidate import LINEAR, NEURAL, POPULARITY, TREE, Candidate
from autorec.job import COMPLETE, Job, Report, Score
from autorec.schema import Layout
from autorec.tasks.base import Task

if TYPE_CHECKING:
    from autorec.data.store import Columns
    from autorec.train.inherit import Parents

Array = npt.NDArray[np.float64]
FAMILIES = {NEURAL: "neural", LINEAR: "neural", TREE: "tree", POPULARITY: "popularity"}


@dataclass(frozen=True)
class TrainingData:
    """The rows to learn from, the rows to select on, and what they mean.

    `valid` is None for a refit on all rows. `item` names the id field of the item, where there is
    one. `precision` is that of matrix products in training (`autorec.train.precision`). `parents`
    holds the networks that a child may inherit from; without it every training is a root's.
    """

    train: Columns
    valid: Columns | None
    layout: Layout
    task: Task
    item: str | None = None
    eval_rows: int | None = None
    precision: str = "float32"
    late: Callable[[], bool] = lambda: False
    parents: Parents | None = None


class Model(Protocol):
    """What every family gives back; its module's `load` reads what `save` wrote."""

    def predict(self, columns: Columns) -> Array:
        """Return predictions (N,) float64 in the task's units: probabilities or ratings."""

    def save(self, folder: Path) -> None:
        """Write the model into an existing folder, without pickle."""


@dataclass
class Trained:
    """A trained model and how it came about.

    `history` holds one row per evaluation. `replay` holds what a refit on other rows needs to
    repeat the training without a validation set: epochs and learning-rate cuts, those of forebears
    included, or boosting rounds.
    `valid_prediction` (N,) is left by a family that has it at hand, and computed otherwise.
    """

    model: Model
    candidate: Candidate
    rows: int = 0
    status: str = COMPLETE
    history: list[dict[str, float]] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    replay: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    valid_prediction: Array | None = None

    def score(self, task: Task) -> Score:
        """Return the score of the validation metrics."""
        return Score(
            value=task.score(self.metrics),
            metrics=self.metrics,
            rows=self.rows,
            seconds=self.seconds,
            status=self.status,
            info={**self.info, "replay": self.replay},
        )


def fit(
    job: Job, data: TrainingData, report: Report, *, replay: Mapping[str, Any] | None = None
) -> Trained:
    """Train the candidate of `job` within its fidelity and deadline.

    Args:
        job: candidate (canonical on the layout), seed, fidelity, absolute deadline.
        data: columns; with `valid=None` the training repeats `replay` instead of early stopping.
        report: called at every evaluation with (rows presented, score); False stops.
        replay: `Trained.replay` of an earlier fit of the same candidate.

    Raises:
        TrainingError: training diverged or no step could be made.
    """
    started = time.perf_counter()
    family = importlib.import_module(f"autorec.train.{FAMILIES[job.candidate.family]}")
    trained: Trained = family.fit(job, data, report, replay)
    trained.info.setdefault("n_train", data.train.n_rows)
    if data.valid is not None:
        valid = data.valid
        prediction = trained.valid_prediction
        if prediction is None:
            prediction = trained.valid_prediction = trained.model.predict(valid)
        trained.metrics = data.task.metrics(valid.label, prediction, valid.weight, valid.group)  # type: ignore[arg-type]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    trained.info.setdefault("memory_mb", round(peak, 1))
    trained.seconds = time.perf_counter() - started
    return trained


def load_model(folder: Path, candidate: Candidate, layout: Layout, task: Task) -> Model:
    """Read a model that `Model.save` wrote, by the family of its candidate."""
    family = importlib.import_module(f"autorec.train.{FAMILIES[candidate.family]}")
    model: Model = family.load(folder, candidate, layout, task)
    return model
