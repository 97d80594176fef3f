"""Is the time limit kept? Wall clock of `fit(time_limit=120)` on three logs of different size.

python experiments/time_limits.py --time-limit 120

Cold start (importing autorec and torch, which the process does once) is measured apart.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _results import write

from autorec import AutoRec, datasets


def load(name: str) -> dict[str, Any]:
    """Return the arguments of AutoRec and fit for one log."""
    if name == "simulated-1m":
        from autorec.data.simulate import simulate

        return {"make": {"label": "click"}, "fit": {"train_data": simulate(1_000_000).table}}
    data = datasets.load(name)
    fit = {"train_data": data.train}
    if data.valid is not None:
        fit["tuning_data"] = data.valid
    return {"make": data.roles, "fit": fit}


def main() -> None:
    """Time each log and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--time-limit", type=float, default=120)
    parser.add_argument("--logs", nargs="+", default=["frappe", "movielens-1m", "simulated-1m"])
    asked = parser.parse_args()
    started = time.time()
    code = "import autorec.automl, autorec.fitting, torch, optuna, mlflow"
    subprocess.run([sys.executable, "-c", code], check=True)
    cold = round(time.time() - started, 1)
    rows = []
    for name in asked.logs:
        given = load(name)
        folder = Path(tempfile.mkdtemp()) / "run"
        ar = AutoRec(**given["make"], path=folder)
        started = time.time()
        ar.fit(**given["fit"], time_limit=asked.time_limit)
        wall = time.time() - started
        over = round(100 * (wall / asked.time_limit - 1), 1)
        rows.append({"log": name, "wall_s": round(wall, 1), "over_percent": over})
        rows[-1] |= {"trials": ar.n_trials_, "winner": ar.best_model_, "timings": ar.timings_}
        print(rows[-1], flush=True)
        shutil.rmtree(folder.parent)
    print(write("time_limits", rows, time_limit=asked.time_limit, cold_start_s=cold))


if __name__ == "__main__":
    main()
