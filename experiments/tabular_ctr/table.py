"""The table of the tabular benchmark: what is trained, how it is read and written."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import mean
from typing import Any

from _results import HERE, write
from optuna.distributions import BaseDistribution
from tabular_ctr.space import GRID, RECIPE, values

from autorec.errors import DataError

NAME = "tabular_ctr"
LOW, FULL = "low", "full"
# The plain schedule divides the learning rate by ten when the validation AUC stalls, and stops at
# the second stall in a row; the accelerated one divides it after `CUT_ROWS` whatever happens.
PLAIN, CUT = "plain", "cut"
FIDELITIES, SCHEDULES = (LOW, FULL), (PLAIN, CUT)
TRAIN_ROWS = 202_027
LOW_ROWS = 3 * TRAIN_ROWS
CUT_ROWS = 2 * TRAIN_ROWS


def _written(genes: Mapping[str, BaseDistribution]) -> str:
    return ", ".join(f"{name} {'|'.join(map(str, values(g)))}" for name, g in genes.items())


PROTOCOL: dict[str, Any] = {
    "recipe": RECIPE,
    "grid": {kind: _written(genes) for kind, genes in GRID.items()},
    "low_rows": LOW_ROWS,
    "cut_rows": CUT_ROWS,
    "precision": "float32",
}
Row = dict[str, Any]
Job = tuple[str, str, str, int]  # key, fidelity, schedule, seed


def job_of(row: Row) -> Job:
    """Return what an entry is the answer to."""
    return row["key"], row["fidelity"], row["schedule"], row["seed"]


def best(row: Row) -> float | None:
    """Return the highest validation AUC of an entry, None where its training failed."""
    return max(row["auc"], default=None)


def at(row: Row, rows: int) -> float | None:
    """Return the highest validation AUC of an entry up to `rows` presented, None before any."""
    return max((a for n, a in zip(row["rows"], row["auc"], strict=True) if n <= rows), default=None)


class Table:
    """Entries by candidate, fidelity, schedule and seed.

    Args:
        rows: entries as `training.measure` gives them, with their `key`.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.entries: dict[Job, Row] = {job_of(row): row for row in rows}

    def column(self, fidelity: str, schedule: str, seed: int = 0) -> dict[str, Row]:
        """Return the trained entries of one fidelity, schedule and seed, by key."""
        asked = (fidelity, schedule, seed)
        return {job[0]: r for job, r in self.entries.items() if job[1:] == asked and r["auc"]}

    def judged(self, metric: str = "test_auc") -> dict[str, float]:
        """Return the mean of `metric` over the seeds at full fidelity, plain schedule, by key."""
        found: dict[str, list[float]] = defaultdict(list)
        for (key, fidelity, schedule, _), row in self.entries.items():
            if (fidelity, schedule) == (FULL, PLAIN) and row["auc"]:
                found[key].append(best(row) if metric == "auc" else row[metric])  # type: ignore[arg-type]
        return {key: mean(values) for key, values in found.items()}


def save(name: str, rows: list[Row], facts: Mapping[str, Any]) -> None:
    """Write `results/<name>.json`, one line an entry, renamed into place whole."""
    partial = write(f".{name}.{os.getpid()}", [], **facts)
    head = json.loads(partial.read_text(encoding="utf-8"))
    head = {**head, "experiment": name}
    del head["rows"]
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    text = f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n{lines}\n ]\n}}\n'
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, HERE / "results" / f"{name}.json")


def load(name: str = NAME) -> Table:
    """Read `results/<name>.json`.

    Raises:
        DataError: the file was filled with other fidelities or another recipe.
    """
    path = HERE / "results" / f"{name}.json"
    if not path.is_file():
        return Table([])
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["protocol"] != PROTOCOL:
        raise DataError(
            f"entries of one table share their protocol {PROTOCOL}, but {path.name} was filled "
            f"with {found['protocol']}; move it away"
        )
    return Table(found["rows"])
