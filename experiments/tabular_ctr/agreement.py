"""Does a cheap training order candidates like a full one, and one seed like another?

python experiments/tabular_ctr/agreement.py

Kendall's tau between what a candidate scores after some rows and at the end of its full training,
for the accelerated schedule and the plain one, and between seeds; all on candidates whose full
training the table holds. `kept` is the share of the best tenth at full fidelity that a cut to the
best third after those rows would have let pass. It decides which rung halving may trust.
Writes `results/tabular_ctr_agreement.json`; 95 % intervals by bootstrap over candidates.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from _results import write
from tabular_ctr.table import CUT, FULL, LOW, NAME, PLAIN, TRAIN_ROWS, Table, at, best, load

from autorec.seeding import numpy_rng

PLAIN_EPOCHS = (1, 2, 3, 4, 6, 9, 12)
LEAST = 8
DRAWS = 1000


def tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Kendall's tau-b, NaN where one side is constant."""
    from scipy.stats import kendalltau

    if len(set(one)) < 2 or len(set(other)) < 2:
        return math.nan
    return float(kendalltau(one, other).statistic)


def kept(cheap: Sequence[float], dear: Sequence[float]) -> float:
    """Return the share of the best tenth by `dear` that lies in the best third by `cheap`."""
    tenth = np.argsort(-np.asarray(dear), kind="stable")[: max(1, len(dear) // 10)]
    third = np.argsort(-np.asarray(cheap), kind="stable")[: max(1, math.ceil(len(cheap) / 3))]
    return len(set(tenth.tolist()) & set(third.tolist())) / len(tenth)


def compared(name: str, cheap: Mapping[str, Any], dear: Mapping[str, Any]) -> dict[str, Any]:
    """Return one line of the result for the keys whose values both sides know."""
    keys = [k for k in dear if dear[k] is not None and cheap.get(k) is not None]
    if len(keys) < LEAST:
        return {"pair": name, "n": len(keys)}
    one, other = (np.asarray([side[k] for k in keys], float) for side in (cheap, dear))
    rng = numpy_rng(0, "tabular agreement", name)
    picks = rng.integers(len(keys), size=(DRAWS, len(keys)))
    drawn = [tau(one[pick].tolist(), other[pick].tolist()) for pick in picks]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    found = {"tau": tau(one.tolist(), other.tolist()), "low": float(low), "high": float(high)}
    found |= {"kept": kept(one.tolist(), other.tolist()), "gap_sd": float(np.std(one - other))}
    return {"pair": name, "n": len(keys), **{k: round(v, 4) for k, v in found.items()}}


def agreement(table: Table) -> list[dict[str, Any]]:
    """Return all comparisons that the table allows; too few candidates leave `n` alone."""
    full, low = table.column(FULL, PLAIN), table.column(LOW, CUT)
    ends = {"valid": {k: best(r) for k, r in full.items()}}
    ends["test"] = {k: r["test_auc"] for k, r in full.items()}
    found = []
    for part, end in ends.items():
        for epochs in (1, 2, 3):
            cheap = {k: at(r, epochs * TRAIN_ROWS) for k, r in low.items()}
            found.append(compared(f"cut, {epochs} epochs - full {part}", cheap, end))
        for epochs in PLAIN_EPOCHS:
            plain = {k: at(r, epochs * TRAIN_ROWS) for k, r in full.items()}
            found.append(compared(f"plain, {epochs} epochs - full {part}", plain, end))
    for name, fidelity, schedule in (("cut low", LOW, CUT), ("full", FULL, PLAIN)):
        seeds = [table.column(fidelity, schedule, seed) for seed in (0, 1, 2)]
        sides = [{key: best(row) for key, row in one.items()} for one in seeds]
        for i, j in ((0, 1), (0, 2), (1, 2)):
            found.append(compared(f"{name}, seed {i} - seed {j}", sides[i], sides[j]))
    return found


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", default=NAME)
    parser.add_argument("--result", default=f"{NAME}_agreement")
    asked = parser.parse_args()
    found = agreement(load(asked.table))
    for row in found:
        print(row)
    write(asked.result, found, least=LEAST, draws=DRAWS, table=asked.table)


if __name__ == "__main__":
    main()
