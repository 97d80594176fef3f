"""The neural family: networks of blocks, and the linear model as a network without any."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from autorec.build import Network
from autorec.candidate import Candidate, Recipe
from autorec.job import Job, Report
from autorec.schema import Layout
from autorec.seeding import derive, numpy_rng, torch_seeded
from autorec.tasks.base import Task
from autorec.train import precision, weights
from autorec.train.batches import Batches, Rows
from autorec.train.distil import Objective, objective
from autorec.train.fit import Array, Trained, TrainingData
from autorec.train.inherit import EVALUATIONS, Parent, begin, lineage
from autorec.train.loop import IMPROVED, Budget, Outcome, train

if TYPE_CHECKING:
    from autorec.data.store import Columns

_PREDICT_ROWS = 8192
# Early stopping looks at this many validation rows; the score of a trial is read on all of them.
_MONITOR_ROWS = 100_000
_EVAL_ROWS = 1_000_000


class NeuralModel:
    """A trained network. Predictions are made in batches of 8,192 rows."""

    def __init__(self, network: Network, task: Task, hash_cap: int | None = None) -> None:
        self.network = network
        self.task = task
        self.hash_cap = hash_cap

    def predict(self, columns: Columns) -> Array:
        """Return predictions (N,), float64, in the task's units."""
        outputs = network_outputs(self.network, Rows(columns))
        return self.task.predict(outputs)

    def save(self, folder: Path) -> None:
        """Write `model.safetensors`."""
        weights.write(self.network, folder, self.hash_cap)


def load(folder: Path, candidate: Candidate, layout: Layout, task: Task) -> NeuralModel:
    """Read what `NeuralModel.save` wrote.

    Raises:
        RankerError: the file is missing, damaged, or holds another architecture.
    """
    network, cap = weights.read(folder, candidate, layout)
    return NeuralModel(network, task, cap)


def network_outputs(network: nn.Module, rows: Rows, *, low: bool = False) -> np.ndarray:
    """Return outputs (N,) float32 of a network in evaluation mode; `low`: products in bfloat16."""
    network.eval()
    device = next(network.parameters()).device
    half = torch.autocast(device.type, torch.bfloat16, enabled=low)
    with torch.inference_mode(), half:
        parts = [network(batch.to(device)).cpu() for batch in rows.in_order(_PREDICT_ROWS)]
    out: np.ndarray = torch.cat(parts).float().numpy() if parts else np.zeros(0, np.float32)
    return out


class _Monitor:
    """Scores a network on at most `_MONITOR_ROWS` validation rows, the same at every call.

    What training in half precision is steered by is computed so too: in float32 it would take a
    fifth of the time (DNN, Frappe). The score of the trial is read in float32 at the end.
    """

    def __init__(self, valid: Columns, task: Task, low: bool) -> None:
        whole = valid.n_rows
        if valid.n_rows > _MONITOR_ROWS:
            rng = numpy_rng(0, "monitor", valid.n_rows)
            picked = np.sort(rng.choice(valid.n_rows, _MONITOR_ROWS, replace=False))
            valid = valid.take(picked)
        self.columns = valid
        self.rows = Rows(valid)
        self.task, self.low = task, low
        self.final = len(self.columns) == whole and not low
        self.best_score, self.best_prediction = -math.inf, np.zeros(0)

    def __call__(self, network: nn.Module) -> float:
        prediction = self._predict(network)
        score = self.score(prediction)
        if score > self.best_score + IMPROVED:
            self.best_score, self.best_prediction = score, prediction
        return score

    def before(self, network: nn.Module) -> float:
        """Return the score of weights that were inherited, which is none of this training."""
        return self.score(self._predict(network))

    def score(self, prediction: Array) -> float:
        """Return the score of predictions (N,) for the monitored rows, higher is better."""
        task, columns = self.task, self.columns
        label = np.asarray(columns.label)
        value = task.metric(label, prediction, columns.weight, columns.group)
        return task.score({task.eval_metric: value})

    def _predict(self, network: nn.Module) -> Array:
        return self.task.predict(network_outputs(network, self.rows, low=self.low))


def fit(
    job: Job, data: TrainingData, report: Report, replay: Mapping[str, Any] | None = None
) -> Trained:
    """Train a network (see `autorec.train.fit.fit`)."""
    recipe, cap = job.candidate.recipe, job.fidelity.hash_cap
    start = begin(job, data)
    network, parent = start.network, start.parent
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    size = int(recipe.number("batch_size", 4096))
    low = precision.low(data.precision, network.flops(), size)
    batches = Batches(data.train, size, seed=derive(job.seed, "batches"))
    monitor = None if data.valid is None else _Monitor(data.valid, data.task, low)
    if parent is not None:
        recipe = recipe.changed(lr=recipe.number("lr", 1e-3) * parent.rate)
        if monitor is not None:
            report(0, monitor.before(network))
    started = time.perf_counter()
    with torch_seeded(job.seed, "dropout"):
        outcome = train(
            network,
            batches,
            _minimised(network, data.task, recipe, low),
            recipe,
            _budget(job, data, batches.n, replay, parent),
            evaluate=monitor,
            report=report,
            tables=network.tables(),
        )
    info = _info(network, outcome, batches.n, time.perf_counter() - started)
    info["precision"] = precision.BFLOAT16 if low else precision.FLOAT32
    info |= start.facts(job, outcome.best_rows)
    return Trained(
        NeuralModel(network.cpu(), data.task, cap),
        job.candidate,
        outcome.rows,
        outcome.status,
        outcome.history,
        info,
        lineage(parent, _replay(outcome, batches.n)),
        valid_prediction=monitor.best_prediction if monitor and monitor.final else None,
    )


def _minimised(network: Network, task: Task, recipe: Recipe, low: bool) -> Objective:
    """Return the loss of a batch, with its products in low precision if asked."""
    plain = objective(network, task, str(recipe.get("distil", "none")))
    return precision.under(plain, network.base.device) if low else plain


def _info(network: Network, outcome: Outcome, n: int, seconds: float) -> dict[str, Any]:
    return {
        "params": network.weights(),
        "flops": network.flops(),
        "epochs": round(outcome.rows / n, 3),
        "best_rows": outcome.best_rows,
        "rows_per_s": round(outcome.rows / max(seconds, 1e-9)),
    }


def _replay(outcome: Outcome, n: int) -> dict[str, Any]:
    """Return what repeats this training on other rows: epochs, and where the rate was cut."""
    cuts = [cut / n for cut in outcome.cuts if cut < outcome.best_rows]
    return {"epochs": outcome.best_rows / n, "cuts": cuts}


def _budget(
    job: Job,
    data: TrainingData,
    n: int,
    replay: Mapping[str, Any] | None,
    parent: Parent | None,
) -> Budget:
    """Return what training may use; without validation rows, what repeats `replay` on `n` rows."""

    def late() -> bool:
        return time.time() >= job.deadline or data.late()

    eval_rows = data.eval_rows or min(n, _EVAL_ROWS)
    if parent is not None:
        rows = min(parent.rows, job.fidelity.rows or parent.rows)
        return Budget(late, min(eval_rows, math.ceil(rows / EVALUATIONS)), rows)
    if data.valid is not None:
        return Budget(late, eval_rows, job.fidelity.rows)
    plan = dict(replay or {"epochs": 1.0})
    cuts = tuple(round(epoch * n) for epoch in plan.get("cuts", ()))
    return Budget(late, eval_rows, max(1, round(plan["epochs"] * n)), cuts)
