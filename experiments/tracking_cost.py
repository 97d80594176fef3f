"""Does tracking slow training? The same search with MLflow on and off, interleaved.

python experiments/tracking_cost.py --pairs 3

Compared are the seconds inside trials, the same ones on both sides (one worker, same seeds, run to
their own end), and those of the whole fit.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from _results import write

from autorec import AutoRec
from autorec.data.simulate import simulate


def one(table: object, mlflow: bool) -> dict[str, float]:
    """Fit once and return seconds inside trials and of the whole fit."""
    folder = Path(tempfile.mkdtemp()) / "run"
    ar = AutoRec(label="click", path=folder, verbosity=0)
    started = time.time()
    ar.fit(table, time_limit=None, n_trials=5, num_workers=1, refit=False, mlflow=mlflow)
    wall = time.time() - started
    board = ar.leaderboard(all_trials=True)
    shutil.rmtree(folder.parent)
    return {"wall_s": wall, "trials_s": float(board["fit_time_s"].sum()), "trials": len(board)}


def main() -> None:
    """Run pairs and write medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=3)
    asked = parser.parse_args()
    table = simulate(20_000, seed=0).table
    rows = []
    for pair in range(asked.pairs):
        for mlflow in (True, False):
            rows.append({"pair": pair, "mlflow": mlflow, **one(table, mlflow)})
            print(rows[-1], flush=True)
    ratios = {
        name: round(
            median(on[name] / off[name] for on, off in zip(rows[::2], rows[1::2], strict=True)), 3
        )
        for name in ("trials_s", "wall_s")
    }
    print(ratios, write("tracking_cost", rows, on_over_off=ratios))


if __name__ == "__main__":
    main()
