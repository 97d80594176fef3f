"""Ratings: MovieLens-100K on the official fold u1, and MovieLens-1M with a global time split.

python experiments/movielens_rating.py --seeds 0 1 2 --time-limit 300
python experiments/movielens_rating.py --data movielens-1m --seeds 0 --time-limit 300
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from _results import spread, write

from autorec import AutoRec, datasets


def one(name: str, seed: int, time_limit: float) -> dict[str, Any]:
    """Fit one seed; test rows of u1 are random rows of each user, so validation is too."""
    fold = name == "movielens-100k"
    data = datasets.load(name, **({"fold": "u1"} if fold else {}))
    train, test = data.train, data.test
    if test is None:
        data = data.split(0.1, method="time")
        train, test = data.train, data.test
    folder = Path(tempfile.mkdtemp()) / "run"
    ar = AutoRec("rating", **data.roles, path=folder, seed=seed)
    started = time.time()
    ar.fit(train, time_limit=time_limit, split="random" if fold else "auto")
    wall = time.time() - started
    board = ar.leaderboard(test)
    columns = ["rank", "model", "family", "score_val", "score_test", "fit_time_s", "status"]
    print(board[columns].to_string())
    found = {
        "data": name,
        "seed": seed,
        "wall_s": round(wall, 1),
        "trials": ar.n_trials_,
        "timings": ar.timings_,
        "winner": ar.best_model_,
        "refitted": ar._need()[0].config.refitted,
        **ar.evaluate(test),
        "board": board[columns].to_dict("records"),
    }
    shutil.rmtree(folder.parent)
    return found


def main() -> None:
    """Run all seeds and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="movielens-100k")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--time-limit", type=float, default=300)
    asked = parser.parse_args()
    rows = []
    for seed in asked.seeds:
        rows.append(one(asked.data, seed, asked.time_limit))
        rmse = spread([row["rmse"] for row in rows])
        name = f"{asked.data.replace('-', '_')}_rating"
        print(rows[-1]["rmse"], rmse, write(name, rows, time_limit=asked.time_limit, rmse=rmse))


if __name__ == "__main__":
    main()
