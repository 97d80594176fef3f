"""Train single candidates on a named data set, outside any search: for tables and ablations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autorec import datasets
from autorec.candidate import Candidate
from autorec.data.columns import Columns
from autorec.data.sources import open_source
from autorec.data.store import write_columns
from autorec.job import Fidelity, Job
from autorec.prepare import Options, Prepared, Roles, prepare
from autorec.train.fit import Trained, TrainingData, fit


class Bench:
    """A data set, encoded on its training rows, with its validation and test rows.

    Args:
        name: of the data set; its own validation file is used where it has one.
        folder: where the encoded columns go; an existing one is used again.
        load: further arguments of `datasets.load`.
        options: of `autorec.prepare.prepare` (task, split, seed).
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        load: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        data = datasets.load(name, **(load or {}))
        roles = Roles(data.label, data.user_id, data.item_id, data.timestamp)
        roles = replace(roles, feature_types=data.feature_types)
        folder.mkdir(parents=True, exist_ok=True)
        prepared: Prepared = prepare(
            folder, data.train, data.valid, roles, Options(**options), lambda _: None
        )
        self.run, self.space = prepared.run, prepared.space
        self.data: TrainingData = self.run.data()
        self.test: Columns | None = None
        if data.test is not None:
            source = open_source(data.test)
            schema, task = self.run.schema(), self.run.task()
            parts = write_columns(
                source, schema, self.run.encoder(), task.label_map, None, folder / "columns",
                part="test",
            )
            self.test = parts["test"]

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
        found["epochs"] = round(trained.rows / self.data.train.n_rows, 2)
        if self.test is not None:
            test = self.test
            found["test"] = self.data.task.metrics(
                test.label, trained.model.predict(test), test.weight, test.group
            )
        return found
