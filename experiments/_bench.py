"""Train single candidates on a named data set, outside any search: for tables and ablations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autorec import datasets
from autorec.candidate import Candidate
from autorec.data.sources import open_source
from autorec.data.store import write_columns
from autorec.job import Fidelity, Job
from autorec.prepare import Options, Roles, prepare
from autorec.run import Run
from autorec.train.fit import Trained, TrainingData, fit


def encoded(
    name: str, folder: Path, *, load: Mapping[str, Any] | None = None, **options: Any
) -> Path:
    """Encode a data set on its training rows, its test rows too where it has them.

    Args:
        name: of the data set; its own validation file is used where it has one.
        folder: where the encoded columns go; one that is already written is left as it is.
        load: further arguments of `datasets.load`.
        options: of `autorec.prepare.Options` (task, split, seed).
    """
    if (folder / "run.json").is_file():
        return folder
    data = datasets.load(name, **(load or {}))
    roles = Roles(data.label, data.user_id, data.item_id, data.timestamp)
    roles = replace(roles, feature_types=data.feature_types)
    folder.mkdir(parents=True, exist_ok=True)
    run = prepare(folder, data.train, data.valid, roles, Options(**options), lambda _: None).run
    if data.test is not None:
        source, schema, labels = open_source(data.test), run.schema(), run.task().label_map
        columns = folder / "columns"
        write_columns(source, schema, run.encoder(), labels, None, columns, part="test")
    return folder


class Bench:
    """The encoded rows in `folder` (see `encoded`), and training of one candidate after another.

    `precision` is that of matrix products in training; None takes what suits the machine.
    """

    def __init__(self, folder: Path, precision: str | None = None) -> None:
        self.run = Run.open(folder)
        self.space = self.run.space()
        data: TrainingData = self.run.data()
        self.data = replace(data, precision=precision or data.precision)
        self.has_test = (folder / "columns" / "test").is_dir()

    def train(
        self, candidate: Candidate, seed: int, *, rows: int | None = None, threads: int = 1
    ) -> Trained:
        """Train one candidate to its own end (or `rows` presented)."""
        plain = self.space.canonical(candidate)
        job = Job(0, plain, seed, time.time() + 86400, Fidelity(rows=rows), threads)
        return fit(job, self.data, lambda _rows, _score: True)

    def measure(self, candidate: Candidate, seed: int, **options: Any) -> dict[str, Any]:
        """Train and return validation metrics, test metrics (read once, here) and costs."""
        cpu = time.process_time()
        trained = self.train(candidate, seed, **options)
        cpu = time.process_time() - cpu
        found: dict[str, Any] = {"valid": trained.metrics, "rows": trained.rows}
        found |= {"seconds": round(trained.seconds, 1), "cpu_s": round(cpu, 1)}
        found |= {"params": trained.info.get("params"), "status": trained.status}
        found["precision"] = trained.info.get("precision")
        found["epochs"] = round(trained.rows / self.data.train.n_rows, 2)
        if self.has_test:
            test = self.run.columns("test")
            prediction = trained.model.predict(test)
            found["test"] = self.data.task.metrics(test.label, prediction, test.weight, test.group)
        return found
