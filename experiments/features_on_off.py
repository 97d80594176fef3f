"""Do statistics of crosses ever hurt? Fits with them and without, on small public logs.

python experiments/features_on_off.py --data movielens-100k --split time --seeds 0 1 2
python experiments/features_on_off.py --data criteo-kaggle avazu --split random
python experiments/features_on_off.py --table

MovieLens as clicks (4 or 5 stars). A fifth of the rows is test: the newest ones with `--split
time`, else random ones; the fit splits the rest in the same way and validation decides. Test is
read once a fit. Fits that `results/features_on_off.json` holds are not repeated. The interval is a
bootstrap of the difference of test AUC over test rows, both rankers on the same ones.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from _results import HERE, spread, write

from autorec import AutoRec, datasets
from autorec.evaluate.intervals import bootstrap, paired_difference

NAME = "features_on_off"
_MOVIES = ("movielens-100k", "movielens-1m")


def parts(name: str, split: str, seed: int) -> tuple[Any, pa.Table, pa.Table]:
    """Return the data set, its training rows and its test rows."""
    data = datasets.load(name, **({"as_ctr": True} if name in _MOVIES else {}))
    data = data.split(0.2, method=split, seed=seed)
    return data, data.train, data.test


def one(name: str, split: str, seed: int, limit: float) -> dict[str, Any]:
    """Fit with and without, and return both test AUCs and the interval of their difference."""
    data, train, test = parts(name, split, seed)
    label = test[data.label].to_numpy(zero_copy_only=False).astype(np.float64)
    found: dict[str, Any] = {"data": name, "split": split, "seed": seed, "limit": limit}
    predictions = {}
    for state, most in (("on", 24), ("off", 0)):
        folder = Path(tempfile.mkdtemp()) / "run"
        ar = AutoRec(
            "ctr",
            label=data.label,
            user_id=data.user_id,
            item_id=data.item_id,
            timestamp=data.timestamp,
            feature_types=data.feature_types,
            path=folder,
            seed=seed,
            verbosity=0,
        )
        started = time.time()
        ar.fit(train, split=split, time_limit=limit, features=most, mlflow=False)
        wall = round(time.time() - started, 1)
        predictions[state] = ar.predict_proba(test)
        kept = ar.screening_
        found[state] = {"wall_s": wall, "model": ar.best_model_, "valid": ar.best_score_}
        found[state]["kept"] = sum(one.kept for one in kept.evidence) if kept else 0
        found[state]["auc"] = bootstrap("auc", label, predictions[state]).value
        shutil.rmtree(folder.parent)
    gain = paired_difference("auc", label, predictions["on"], predictions["off"])
    found["gain"] = {"auc": gain.value, "low": gain.low, "high": gain.high}
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return a line per data set and split: mean test AUC on, off, gain and intervals."""
    lines = []
    for key in dict.fromkeys((row["data"], row["split"]) for row in rows):
        own = [row for row in rows if (row["data"], row["split"]) == key]
        on, off = (spread([row[s]["auc"] for row in own]) for s in ("on", "off"))
        gains = ", ".join(
            f"{row['gain']['auc']:+.4f} [{row['gain']['low']:+.4f}, {row['gain']['high']:+.4f}]"
            for row in own
        )
        lines.append(f"{key[0]:16} {key[1]:7} on {on['mean']:.4f} off {off['mean']:.4f}  {gains}")
    return "\n".join(lines)


def main() -> None:
    """Fit what is asked for and not yet known."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+", default=["movielens-100k"])
    parser.add_argument("--split", nargs="+", default=["time", "random"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--time-limit", type=float, default=60)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    path = HERE / "results" / f"{NAME}.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    known = {(row["data"], row["split"], row["seed"], row["limit"]) for row in rows}
    every = [(d, s, n) for d in asked.data for s in asked.split for n in asked.seeds]
    for name, split, seed in every if not asked.table else ():
        if (name, split, seed, asked.time_limit) not in known:
            rows.append(one(name, split, seed, asked.time_limit))
            print(rows[-1], flush=True)
            write(NAME, rows)
    print(table(rows))


if __name__ == "__main__":
    main()
