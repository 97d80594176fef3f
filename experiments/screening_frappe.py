"""How good is LightGBM on Frappe with the crosses that screening finds on training rows?

python experiments/screening_frappe.py --seeds 0 1 2

The given train, validation and test files; the training file is a reconstruction (its negatives
carry re-drawn items). LightGBM has its default settings and the ids as categories, as the tree
family of `fit` does, and stops by validation logloss after 50 rounds without a better one. The
seed decides the rows that screening samples, and LightGBM. Each model reads the test file once.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
from _bench import encoded
from _results import spread, write

from autorec.data.columns import Columns
from autorec.data.features.base import Transform, joined
from autorec.data.screening import screen
from autorec.run import Run
from autorec.tasks.base import Task

NAME = "screening_frappe"
KEPT = (3, 5, 10, 16, 24)
PARTS = ("train", "valid", "test")


def fitted(transforms: list[Transform], data: dict[str, Columns]) -> dict[str, Columns]:
    """Return the rows of each part with the values of all transforms, fitted on training rows."""
    parts: dict[str, list[Any]] = {part: [] for part in data}
    for transform in transforms:
        transform.fit(data["train"])
        for part, rows in data.items():
            values = transform.train_values(rows) if part == "train" else transform.apply(rows)
            parts[part].append((transform.layout, values))
    return {part: joined(rows, parts[part]) for part, rows in data.items()}


def matrix(columns: Columns) -> npt.NDArray[np.float32]:
    """Return codes, then numbers (N, C)."""
    return np.concatenate([columns.codes, columns.dense], axis=1, dtype=np.float32)


def boosted(data: dict[str, Columns], task: Task, seed: int) -> dict[str, Any]:
    """Train LightGBM with early stopping and return the metrics of all other parts."""
    params = {"objective": "binary", "num_threads": 1, "verbosity": -1, "seed": seed}
    params |= {"deterministic": True, "force_col_wise": True}
    categories = list(range(len(data["train"].layout.sparse)))
    sets: dict[str, Any] = {}
    for part in ("train", "valid"):
        sets[part] = lightgbm.Dataset(
            matrix(data[part]),
            data[part].label,
            reference=sets.get("train"),
            categorical_feature=categories,
        )
    stop = lightgbm.early_stopping(50, verbose=False)
    booster = lightgbm.train(params, sets["train"], 3000, [sets["valid"]], callbacks=[stop])
    found: dict[str, Any] = {"trees": booster.best_iteration}
    for part, rows in data.items():
        if part != "train":
            prediction = np.asarray(booster.predict(matrix(rows), num_threads=1))
            metrics = task.metrics(rows.label, prediction, None, None)
            found[part] = {name: round(metrics[name], 5) for name in ("auc", "logloss")}
    return found


def one(run: Run, seed: int, rows: int, test: bool) -> list[dict[str, Any]]:
    """Screen once, and train with the first so many of what is kept."""
    data = {part: run.columns(part) for part in (PARTS if test else PARTS[:2])}
    found = screen(data["train"], binary=True, seed=seed, rows=rows, seconds=30.0)
    print(found.explain(), flush=True)
    transforms = found.transforms()
    result = []
    for most in sorted({min(most, len(transforms)) for most in KEPT}):
        started = time.process_time()
        trained = boosted(fitted(transforms[:most], data), run.task(), seed)
        row = {"seed": seed, "kept": most, "screening_s": round(found.seconds, 2), **trained}
        row["crosses"] = ["*".join((*t.inputs, type(t).__name__)) for t in transforms[:most]]
        result.append(row | {"cpu_s": round(time.process_time() - started, 1)})
        print({k: v for k, v in result[-1].items() if k != "crosses"}, flush=True)
    return result


def main() -> None:
    """Screen and train with all seeds and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=100_000, help="of the sample")
    parser.add_argument("--folder", type=Path, help="where encoded columns are, or go")
    parser.add_argument("--no-test", action="store_true", help="validation only; writes nothing")
    asked = parser.parse_args()
    run = Run.open(encoded("frappe", asked.folder or Path(tempfile.mkdtemp()) / "run"))
    rows = [row for seed in asked.seeds for row in one(run, seed, asked.rows, not asked.no_test)]
    if asked.no_test:
        return
    most = {seed: max(row["kept"] for row in rows if row["seed"] == seed) for seed in asked.seeds}
    all_kept = [row["test"] for row in rows if row["kept"] == most[row["seed"]]]
    facts = {name: spread([row[name] for row in all_kept]) for name in ("auc", "logloss")}
    print(facts, write(NAME, rows, seeds=asked.seeds, sample=asked.rows, test_all_kept=facts))


if __name__ == "__main__":
    main()
