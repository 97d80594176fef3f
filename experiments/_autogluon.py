"""AutoGluon in an environment of its own, on parquet files that are written for it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_INSIDE = """
import json, sys, time
import pandas as pd
import autogluon.tabular as ag
folder, limit = sys.argv[1], float(sys.argv[2])
parts = {n: pd.read_parquet(f"{folder}/{n}.parquet") for n in ("train", "valid", "test")}
started = time.time()
predictor = ag.TabularPredictor("label", eval_metric="roc_auc", path=f"{folder}/ag", verbosity=1)
fit = {"tuning_data": parts["valid"], "time_limit": limit, "num_cpus": 2}
predictor.fit(parts["train"], **fit)
wall = time.time() - started
p = predictor.predict_proba(parts["test"])[1]
pd.DataFrame({"p": p.to_numpy()}).to_parquet(f"{folder}/predictions.parquet")
board = predictor.leaderboard(silent=True)
print("FOUND" + json.dumps({"wall_s": round(wall, 1), "version": ag.__version__,
    "winner": board.iloc[0]["model"], "score_val": float(board.iloc[0]["score_val"])}))
"""


def autogluon(
    python: str, folder: Path, parts: dict[str, pd.DataFrame], limit: float
) -> tuple[dict[str, Any], np.ndarray]:
    """Fit on train, tune on valid, and return what it says and test predictions (N,).

    Its own seeds are fixed: two runs differ by what they find time for.

    Args:
        python: of its environment (`pip install "autogluon.tabular[lightgbm,catboost]"`).
        folder: for its files.
        parts: train, valid and test, with a column `label`; ids as pandas categories.
        limit: seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in parts.items():
        frame.to_parquet(folder / f"{name}.parquet")
    command = [python, "-c", _INSIDE, str(folder), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    return json.loads(line[5:]), pd.read_parquet(folder / "predictions.parquet")["p"].to_numpy()
