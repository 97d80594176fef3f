"""What AutoGluon finds on Frappe under the same limit, cores and files as `frappe_fit.py`.

python experiments/frappe_autogluon.py --python <its environment>/bin/python --time-limit 300

Validation rows are given as `tuning_data`, test is read once a run.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from _autogluon import autogluon
from _results import spread, write

from autorec import datasets
from autorec.tasks import metrics


def main() -> None:
    """Run it so many times and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", required=True)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--time-limit", type=float, default=300)
    asked = parser.parse_args()
    data = datasets.load("frappe")
    rows, parts = [], {}
    for part in ("train", "valid", "test"):
        frame = getattr(data, part).to_pandas().rename(columns={data.label: "label"})
        ids = [name for name in frame if name != "label"]
        parts[part] = frame.assign(**{name: frame[name].astype("category") for name in ids})
    for run in range(asked.runs):
        with tempfile.TemporaryDirectory() as name:
            found, p = autogluon(asked.python, Path(name), parts, asked.time_limit)
        found["run"], label = run, parts["test"]["label"].to_numpy()
        found |= {name: metrics.METRICS[name](label, p) for name in ("auc", "logloss")}
        rows.append(found)
        print(rows[-1], flush=True)
    facts = {metric: spread([row[metric] for row in rows]) for metric in ("auc", "logloss")}
    print(write("frappe_autogluon", rows, time_limit=asked.time_limit, test=facts))


if __name__ == "__main__":
    main()
