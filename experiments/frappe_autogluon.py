"""What AutoGluon finds on Frappe under the same limit, cores and files as `frappe_fit.py`.

python experiments/frappe_autogluon.py --python <its environment>/bin/python --time-limit 300

AutoGluon lives in an environment of its own (`pip install "autogluon.tabular[lightgbm,catboost]"`);
this script writes the files for it, runs it there, and keeps what comes out. Validation rows are
given as `tuning_data`, test is read once a seed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from _results import spread, write

from autorec import datasets

_INSIDE = """
import json, sys, time
import pandas as pd
from autogluon.tabular import TabularPredictor
from sklearn.metrics import log_loss, roc_auc_score
import autogluon.tabular as ag
folder, limit, seed, metric = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
parts = {n: pd.read_parquet(f"{folder}/{n}.parquet") for n in ("train", "valid", "test")}
label, features = "label", [c for c in parts["train"] if c != "label"]
for part in parts.values():
    part[features] = part[features].astype("category")
started = time.time()
predictor = TabularPredictor(label, eval_metric=metric, path=f"{folder}/ag-{seed}", verbosity=1)
predictor.fit(parts["train"], tuning_data=parts["valid"], time_limit=limit, num_cpus=2)
wall = time.time() - started
p = predictor.predict_proba(parts["test"])[1]
board = predictor.leaderboard(silent=True)
print("FOUND" + json.dumps({"seed": seed, "wall_s": round(wall, 1), "version": ag.__version__,
    "winner": board.iloc[0]["model"], "score_val": float(board.iloc[0]["score_val"]),
    "auc": float(roc_auc_score(parts["test"][label], p)),
    "logloss": float(log_loss(parts["test"][label], p))}))
"""


def one(python: str, folder: Path, limit: float, seed: int) -> dict[str, Any]:
    """Run AutoGluon once and return what it printed."""
    command = [python, "-c", _INSIDE, str(folder), str(limit), str(seed), "roc_auc"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    found: dict[str, Any] = json.loads(line[5:])
    return found


def main() -> None:
    """Run all seeds and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--time-limit", type=float, default=300)
    asked = parser.parse_args()
    data = datasets.load("frappe")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for part in ("train", "valid", "test"):
            table = getattr(data, part).to_pandas()
            table.rename(columns={data.label: "label"}).to_parquet(f"{name}/{part}.parquet")
        for seed in asked.seeds:
            rows.append(one(asked.python, Path(name), asked.time_limit, seed))
            print(rows[-1], flush=True)
    facts = {metric: spread([row[metric] for row in rows]) for metric in ("auc", "logloss")}
    print(write("frappe_autogluon", rows, time_limit=asked.time_limit, test=facts))


if __name__ == "__main__":
    main()
