"""One entry of the table: a candidate trained at one fidelity, schedule and seed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from _bench import Bench
from tabular_ctr.space import title
from tabular_ctr.table import CUT, CUT_ROWS, FULL, LOW_ROWS, Job, Row
from torch import nn

from autorec.build import build
from autorec.candidate import Recipe
from autorec.errors import ConfigError, TrainingError
from autorec.seeding import derive, torch_seeded
from autorec.tasks.metrics import auc, logloss
from autorec.train.batches import Batches, Rows
from autorec.train.distil import objective
from autorec.train.loop import Budget, train
from autorec.train.neural import network_outputs


class Trainer:
    """Trains entries on the encoded rows of `bench`, in float32 on `device`.

    Seeds of weights, batches and dropout are those of `autorec.train.fit`, so that all trainings of
    one candidate and seed begin with the very same steps, whatever their fidelity and schedule.
    """

    def __init__(self, bench: Bench, device: str = "cpu") -> None:
        self.data, self.device = bench.data, device
        parts = {"valid": bench.data.valid, "test": bench.run.columns("test")}
        if parts["valid"] is None:
            raise ConfigError("the table needs validation rows, but the run has none; encode anew")
        self.labels = {
            part: np.asarray(columns.label) for part, columns in parts.items() if columns
        }
        self.parts = {part: Rows(columns) for part, columns in parts.items() if columns}

    def measure(self, candidate: Any, job: Job) -> Row:
        """Train a canonical candidate and return its entry.

        An entry holds, per evaluation (each epoch), rows presented and validation AUC and logloss;
        test AUC and logloss of the best epoch; processor seconds of training with its evaluations
        (of the host where `device` is a GPU); parameters, and FLOPs a row.
        """
        key, fidelity, schedule, seed = job
        data = self.data
        network = build(candidate, data.layout, bias=data.task.bias(), seed=seed).to(self.device)
        row: Row = {
            "key": key,
            "title": title(candidate),
            "fidelity": fidelity,
            "schedule": schedule,
            "seed": seed,
        }
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            row |= {"status": "complete", **self._train(network, candidate.recipe, job)}
        except TrainingError as error:
            row |= {"status": f"failed: {error}", "rows": [], "auc": [], "logloss": []}
        row["cpu_s"] = round(time.process_time() - cpu, 2)
        row["seconds"] = round(time.perf_counter() - wall, 2)
        if row["auc"]:
            row["test_auc"], row["test_logloss"] = self._scores(network, "test")
        params, flops = network.weights(), network.flops()
        return {**row, "params": params, "flops": flops, "device": self.device}

    def _train(self, network: Any, recipe: Recipe, job: Job) -> Row:
        _, fidelity, schedule, seed = job
        losses = []

        def evaluate(module: nn.Module) -> float:
            found, loss = self._scores(module, "valid")
            losses.append(loss)
            return found

        accelerated = schedule == CUT
        rows = None if fidelity == FULL else LOW_ROWS
        batches = Batches(self.data.train, int(recipe["batch_size"]), seed=derive(seed, "batches"))
        with torch_seeded(seed, "dropout"):
            outcome = train(
                network,
                batches,
                objective(network, self.data.task, "none"),
                recipe.changed(schedule="constant" if accelerated else "plateau"),
                Budget(lambda: False, batches.n, rows, (CUT_ROWS,) if accelerated else None),
                evaluate=evaluate,
                report=lambda _rows, _score: True,
                tables=network.tables(),
            )
        history = outcome.history
        found = [round(float(point["score"]), 6) for point in history]
        return {"rows": [int(p["rows"]) for p in history], "auc": found, "logloss": losses}

    def _scores(self, network: nn.Module, part: str) -> tuple[float, float]:
        """Return AUC and logloss of a network on a part of the data."""
        label = self.labels[part]
        prediction = self.data.task.predict(network_outputs(network, self.parts[part]))
        return round(auc(label, prediction), 6), round(logloss(label, prediction), 6)
