"""The popularity family: the smoothed mean label of each item, the baseline nobody may lose to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file

from autorec.candidate import Candidate
from autorec.errors import RankerError
from autorec.job import Job, Report
from autorec.schema import Layout
from autorec.tasks.base import Task
from autorec.train.fit import Array, Trained, TrainingData

if TYPE_CHECKING:
    from autorec.data.store import Columns

_FILE = "popularity.safetensors"


class PopularityModel:
    """Mean label per code of one id field; the overall mean where there is no item.

    Args:
        field: index of the item among the id fields, -1 for none.
        means: (rows of the field,) float64; one number without an item.
    """

    def __init__(self, field: int, means: Array) -> None:
        self.field = field
        self.means = means

    def predict(self, columns: Columns) -> Array:
        """Return predictions (N,), float64, in the task's units."""
        if self.field < 0:
            return np.full(columns.n_rows, self.means[0])
        found: Array = self.means[columns.codes[:, self.field]]
        return found

    def save(self, folder: Path) -> None:
        """Write `popularity.safetensors`."""
        save_file({"means": self.means, "field": np.array([self.field])}, folder / _FILE)


def load(folder: Path, candidate: Candidate, layout: Layout, task: Task) -> PopularityModel:
    """Read what `PopularityModel.save` wrote.

    Raises:
        RankerError: the file is missing or damaged.
    """
    path = folder / _FILE
    try:
        arrays = load_file(path)
        return PopularityModel(int(arrays["field"][0]), arrays["means"])
    except Exception as error:  # safetensors raises its own type from Rust
        raise RankerError(f"{path} must hold item means, but reading it failed: {error}") from error


def fit(
    job: Job, data: TrainingData, report: Report, replay: Mapping[str, Any] | None = None
) -> Trained:
    """Average labels per item, pulled to the overall mean by `prior_strength` pseudo-rows.

    The row for unseen items (code 1) and null items (code 0) is the overall mean unless training
    rows carry those codes.
    """
    names = [field.name for field in data.layout.sparse]
    field = names.index(data.item) if data.item in names else -1
    label = np.asarray(data.train.label, np.float64)
    given = data.train.weight
    weight = np.ones(len(label)) if given is None else np.asarray(given, np.float64)
    mean = float(np.average(label, weights=weight)) if weight.sum() > 0 else float(label.mean())
    means = np.array([mean])
    if field >= 0:
        strength = job.candidate.recipe.number("prior_strength", 20.0)
        codes, rows = np.asarray(data.train.codes[:, field]), data.layout.sparse[field].rows
        counts = np.bincount(codes, weights=weight, minlength=rows)
        sums = np.bincount(codes, weights=weight * label, minlength=rows)
        means = (sums + strength * mean) / (counts + strength)
    info = {"params": len(means), "flops": 0, "epochs": 1.0, "best_rows": len(label)}
    return Trained(PopularityModel(field, means), job.candidate, rows=len(label), info=info)
