"""Do statistics of crosses ever hurt, and who is first on small public logs?

python experiments/small_logs.py --data movielens-100k movielens-1m
python experiments/small_logs.py --data criteo-kaggle avazu --split random
python experiments/small_logs.py --who autogluon --python <its environment>/bin/python ...
python experiments/small_logs.py --table

MovieLens as clicks (4 or 5 stars). A fifth of the rows is test: the newest ones with `--split
time`, else random ones; the rest is split in the same way and validation decides. Test is read
once a contender. `on` and `off` are fits with statistics and without, `lightgbm` is LightGBM with
defaults and early stopping, `tuned` Optuna's TPE over its settings until the limit, `autogluon`
the real one. All use two cores and the same seconds. Runs that `results/small_logs.json` holds are
not repeated; `ahead` is a bootstrap over test rows of the AUC of `on` less that of a contender.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _autogluon import autogluon
from _results import HERE, write
from _trees import default_trees, tuned_trees

from autorec import AutoRec, datasets
from autorec.data.datasets import Dataset
from autorec.evaluate.intervals import bootstrap, paired_difference

NAME = "small_logs"
WHO = ("on", "off", "lightgbm", "tuned")
Result = tuple[dict[str, Any], np.ndarray]


def ours(data: Dataset, split: str, limit: float, seed: int, most: int) -> Result:
    """Fit AutoRec and return what it found and test predictions (N,)."""
    folder = Path(tempfile.mkdtemp()) / "run"
    ar = AutoRec("ctr", **data.roles, path=folder, seed=seed, verbosity=0)
    ar.fit(data.train, split=split, time_limit=limit, features=most, mlflow=False)
    kept = ar.screening_
    found = {"model": ar.best_model_, "valid": ar.best_score_}
    found["kept"] = sum(one.kept for one in kept.evidence) if kept else 0
    prediction = ar.predict_proba(data.test)
    shutil.rmtree(folder.parent)
    return found, prediction


def frames(data: Dataset, split: str, seed: int) -> dict[str, pd.DataFrame]:
    """Return train, valid and test for trees: ids as categories, lists as flags, hour and day."""
    rest = replace(data, test=None).split(0.2, method=split, seed=seed + 1)
    parts = {"train": rest.train, "valid": rest.test, "test": data.test}
    whole = pd.concat({name: table.to_pandas() for name, table in parts.items()})  # type: ignore[union-attr]
    for name in [*whole]:
        column = whole[name]
        if name == data.label:
            continue
        kind = data.feature_types.get(name, "")
        if isinstance(column.iloc[0], np.ndarray | list):
            flags = pd.get_dummies(column.explode()).groupby(level=[0, 1]).max()
            whole = whole.drop(columns=name).join(flags.astype(np.int8))
        elif pd.api.types.is_datetime64_any_dtype(column):
            whole[f"{name}_hour"], whole[f"{name}_day"] = column.dt.hour, column.dt.day_of_week
            whole[name] = column.astype("int64")
        elif (
            kind == "categorical" or name in (data.user_id, data.item_id) or column.dtype == object
        ):
            whole[name] = column.astype("category")
    whole = whole.rename(columns={data.label: "label"})
    whole.columns = pd.Index([str(name).replace("'", "") for name in whole.columns])
    return {name: whole.loc[name] for name in parts}


def contenders(
    data: Dataset, split: str, limit: float, seed: int, python: str
) -> dict[str, Callable[[], Result]]:
    """Return what every contender does."""

    def there() -> Result:
        with tempfile.TemporaryDirectory() as folder:
            return autogluon(python, Path(folder), frames(data, split, seed), limit)

    return {
        "on": lambda: ours(data, split, limit, seed, 24),
        "off": lambda: ours(data, split, limit, seed, 0),
        "lightgbm": lambda: default_trees(frames(data, split, seed), seed),
        "tuned": lambda: tuned_trees(frames(data, split, seed), limit, seed),
        "autogluon": there,
    }


def one(job: dict[str, Any], python: str, folder: Path) -> dict[str, Any]:
    """Run one contender, keep its test predictions in `folder`, and return its figures."""
    data = datasets.load(job["data"], **({"as_ctr": True} if "movie" in job["data"] else {}))
    split, seed = job["split"], job["seed"]
    data = data.split(0.2, method=split, seed=seed)
    started = time.time()
    found, prediction = contenders(data, split, job["limit"], seed, python)[job["who"]]()
    row = {**job, "wall_s": round(time.time() - started, 1), **found}
    label = data.test[data.label].to_numpy().astype(np.float64)  # type: ignore[index]
    for metric in ("auc", "logloss"):
        row[metric] = bootstrap(metric, label, prediction, replicates=50).value
    place = folder / "-".join(str(job[key]) for key in ("data", "split", "seed", "limit"))
    place.mkdir(parents=True, exist_ok=True)
    np.save(place / f"{job['who']}.npy", prediction)
    if job["who"] != "on" and (place / "on.npy").is_file():
        gain = paired_difference("auc", label, np.load(place / "on.npy"), prediction)
        row["ahead"] = {"auc": gain.value, "low": gain.low, "high": gain.high}
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown, one line a data set, split, seed and contender."""
    lines = ["| data | split | who | test AUC | logloss | `on` ahead by | s |", "|" + "---|" * 7]
    for row in sorted(rows, key=lambda r: (r["data"], r["split"], r["seed"], -r["auc"])):
        gain = row.get("ahead")
        by = f"{gain['auc']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]" if gain else ""
        figures = f"{row['auc']:.4f} | {row['logloss']:.4f} | {by} | {row['wall_s']:.0f}"
        lines.append(f"| {row['data']} | {row['split']} | {row['who']} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for and not yet known."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+", default=["movielens-100k"])
    parser.add_argument("--split", nargs="+", default=["time", "random"])
    parser.add_argument("--who", nargs="+", default=list(WHO))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--time-limit", type=float, default=60)
    parser.add_argument("--python", default="python", help="of AutoGluon's environment")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / NAME)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    path = HERE / "results" / f"{NAME}.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    keys = ("data", "split", "seed", "who", "limit")
    known = {tuple(row[key] for key in keys) for row in rows}
    every = [
        (data, split, seed, who, asked.time_limit)
        for data in asked.data
        for split in asked.split
        for seed in asked.seeds
        for who in asked.who
    ]
    for job in every if not asked.table else ():
        if job not in known:
            rows.append(one(dict(zip(keys, job, strict=True)), asked.python, asked.folder))
            print(rows[-1], flush=True)
            write(NAME, rows)
    print(table(rows))


if __name__ == "__main__":
    main()
