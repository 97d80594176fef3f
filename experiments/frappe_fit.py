"""How good is what `fit` finds on Frappe in ten minutes on two cores, tree and network apart?

python experiments/frappe_fit.py --seeds 0 1 2 --time-limit 600
python experiments/frappe_fit.py --time-limit 300 --name frappe_features
python experiments/frappe_fit.py --time-limit 300 --name frappe_plain --features 0

The given train, validation and test files; the training file is a reconstruction (its negatives
carry re-drawn items), so figures are comparable with others on these files and to about .001 AUC
with the public leaderboard. The test file is read once per seed, after the fit.
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


def one(seed: int, time_limit: float, features: int) -> dict[str, Any]:
    """Fit one seed and return test metrics of the winner, the best network and LightGBM."""
    data = datasets.load("frappe")
    folder = Path(tempfile.mkdtemp()) / "run"
    ar = AutoRec(**data.roles, path=folder, seed=seed)
    started = time.time()
    ar.fit(data.train, tuning_data=data.valid, time_limit=time_limit, features=features)
    wall = time.time() - started
    board = ar.leaderboard()
    print(board.iloc[:, :12].to_string())
    found: dict[str, Any] = {"seed": seed, "wall_s": round(wall, 1), "trials": ar.n_trials_}
    found["timings"] = ar.timings_
    found["statistics"] = sum(e.kept for e in ar.screening_.evidence) if ar.screening_ else 0
    found["winner"] = {"model": ar.best_model_, "refitted": bool(ar._need()[0].config.refitted)}
    found["winner"].update(ar.evaluate(data.test, ci=True))
    for family in ("neural", "tree", "linear", "popularity"):
        rows = board[(board["family"] == family) & (board["status"] == "complete")]
        if len(rows):
            best = rows.iloc[0]
            metrics = ar.evaluate(data.test, model=int(best["trial"]), ci=False)
            found[family] = {"model": best["model"], "score_val": best["score_val"], **metrics}
    shutil.rmtree(folder.parent)
    return found


def main() -> None:
    """Run all seeds and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--time-limit", type=float, default=600)
    parser.add_argument("--name", default="frappe_fit")
    parser.add_argument("--features", type=int, default=24, help="most statistics of crosses")
    asked = parser.parse_args()
    rows = []
    for seed in asked.seeds:
        rows.append(one(seed, asked.time_limit, asked.features))
        print(rows[-1], flush=True)
        facts = {
            family: {
                metric: spread([row[family][metric] for row in rows if family in row])
                for metric in ("auc", "logloss")
            }
            for family in ("winner", "neural", "tree")
            if any(family in row for row in rows)
        }
        made = {"time_limit": asked.time_limit, "features": asked.features, "test": facts}
        print(write(asked.name, rows, **made))


if __name__ == "__main__":
    main()
