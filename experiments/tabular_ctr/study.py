"""Which engine finds good candidates of the table with the fewest trained rows?

python experiments/tabular_ctr/study.py --workers 2
python experiments/tabular_ctr/study.py --engines random evolution --seeds 5 --budget 50
python experiments/tabular_ctr/study.py --show

Every engine runs with 30 seeds, is told validation AUCs of low-fidelity trainings, and pays for the
rows of each key once. Regret is judged twice: by what the engine was told, against the best of the
table, and by the test AUC of the full training of the candidate it would hand on, against the best
of the table there; where that full training is not known, the run is left out of the mean, and how
many were left in stands beside it. Engines are compared in pairs of equal seed by Wilcoxon's
signed-rank test after 50 and 200 trainings, p adjusted after Holm.

Candidates that the table has not been filled with are refused (see `simulate`): until it is full,
results are of the known candidates alone, and `known` says how many those are. Runs that were made
on another state of the table are made again. Writes `results/tabular_ctr_search.json` and `.svg`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
import warnings
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import optuna

sys.path.insert(0, str(Path(__file__).parents[1]))

from _filling import fill
from _results import HERE
from tabular_ctr.simulate import curve, engine, engines, holm, signed_rank, simulate
from tabular_ctr.space import TabularSpace, every
from tabular_ctr.table import CUT, LOW, NAME, Row, Table, best, load, save

POINTS = (10, 20, 50, 100, 200)
TESTED = (50, 200)
# Proposals per training and per share of the space that is known: what is not is refused.
ASKED, MOST_ASKED = 10, 100
_OPEN: dict[str, Any] = {}


class Judge:
    """Regrets of runs on one state of a table.

    Args:
        table: what was searched.
        budget: trainings that were paid for, at most.
    """

    def __init__(self, table: Table, budget: int) -> None:
        self.entries = table.column(LOW, CUT)
        self.budget = budget
        told = {key: best(row) for key, row in self.entries.items()}
        self.told = {key: value for key, value in told.items() if value is not None}
        self.judged = table.judged()

    @property
    def digest(self) -> str:
        """12 hex digits over what engines are told."""
        text = json.dumps(sorted(self.told.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def regrets(self, rows: Sequence[Row], *, full: bool = False) -> np.ndarray:
        """Return regrets (runs, budget) of the runs in the order of their seeds."""
        worth = self.judged if full else self.told
        ordered = sorted(rows, key=lambda row: row["seed"])
        curves = [curve(row["improved"], worth, self.budget) for row in ordered]
        return np.asarray(curves).reshape(len(curves), self.budget)

    def summary(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return, per engine and number of trainings, its regrets and the place of what it found.

        `found` counts the runs that have been told any score by then, `judged` those whose
        candidate has a full training; means are over these. `place` is the median over seeds, 1 for
        the best of the table.
        """
        ranked = sorted(self.told.values(), reverse=True)
        found: dict[str, Any] = {}
        for name in dict.fromkeys(row["engine"] for row in rows):
            own = [row for row in rows if row["engine"] == name]
            low, full = self.regrets(own), self.regrets(own, full=True)
            found[name] = {"seeds": len(own)}
            for point in POINTS:
                if point > self.budget:
                    continue
                column, judged = low[:, point - 1], full[:, point - 1]
                reached = ranked[0] - column[np.isfinite(column)]
                places = [1 + sum(value > own + 1e-12 for value in ranked) for own in reached]
                found[name][str(point)] = {
                    "regret": _mean(column),
                    "found": len(places),
                    "place": float(np.median(places)) if places else None,
                    "test_regret": _mean(judged),
                    "judged": int(np.isfinite(judged).sum()),
                }
            counts = ("trained", "asked", "copies", "unknown", "outside", "seconds")
            found[name] |= {c: round(float(np.mean([r[c] for r in own])), 1) for c in counts}
        return found

    def tests(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the signed-rank tests of all pairs of engines over the seeds that both have."""
        by = {(row["engine"], row["seed"]): row for row in rows}
        names = list(dict.fromkeys(row["engine"] for row in rows))
        found = []
        for point in (p for p in TESTED if p <= self.budget):
            pairs: dict[tuple[str, str], tuple[float, float | None, int]] = {}
            for one, other in combinations(names, 2):
                seeds = [s for n, s in by if n == one and (other, s) in by]
                sides = [
                    self.regrets([by[n, s] for s in seeds])[:, point - 1] for n in (one, other)
                ]
                p = signed_rank(sides[0].tolist(), sides[1].tolist())
                pairs[one, other] = (p, _mean(sides[0] - sides[1]), len(seeds))
            adjusted = holm({pair: p for pair, (p, _, _) in pairs.items()})
            for (one, other), (p, gap, seeds_used) in pairs.items():
                line = {"after": point, "one": one, "other": other, "gap": gap}
                found.append({**line, "p": p, "holm": adjusted[one, other], "seeds": seeds_used})
        return found


def _mean(values: np.ndarray) -> float | None:
    """Return the mean of what is known, None where nothing is."""
    known = values[np.isfinite(values)]
    return round(float(known.mean()), 6) if len(known) else None


def _open(name: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = TabularSpace()
    _OPEN.update(space=space, table=load(name), points={space.key(c) for c in every(space)})


def _one(name: str, seed: int, budget: int) -> Row:
    space, points, started = _OPEN["space"], _OPEN["points"], time.process_time()
    entries = _OPEN["table"].column(LOW, CUT)
    refused = len(points) / max(1, len(entries))
    walk = simulate(
        engine(name, space, seed),
        space,
        entries,
        points=points,
        budget=budget,
        most_asked=round(budget * min(ASKED * refused, MOST_ASKED)),
    )
    seconds = round(time.process_time() - started, 2)
    return {"engine": name, "seed": seed, "budget": budget, **walk.to_json(), "seconds": seconds}


def draw(judge: Judge, rows: Sequence[Row], path: Path) -> None:
    """Draw the mean regret of every engine, with its standard error, as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    steps = np.arange(1, judge.budget + 1)
    for name in dict.fromkeys(row["engine"] for row in rows):
        found = judge.regrets([row for row in rows if row["engine"] == name])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # all NaN before the first training
            middle = np.nanmean(found, axis=0)
            error = np.nanstd(found, axis=0) / np.sqrt(len(found))
        (line,) = axes.plot(steps, middle, label=name)
        axes.fill_between(steps, middle - error, middle + error, alpha=0.2, color=line.get_color())
    axes.set_yscale("symlog", linthresh=1e-4)
    axes.set_xlabel(f"low-fidelity trainings paid, of {len(judge.told)} known candidates")
    axes.set_ylabel("regret, validation AUC")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engines", nargs="+", default=engines(), choices=engines())
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--budget", type=int, default=200, help="low-fidelity trainings")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after this")
    parser.add_argument("--table", default=NAME)
    parser.add_argument("--result", default=f"{NAME}_search")
    parser.add_argument("--show", action="store_true", help="print what is known and run nothing")
    return parser.parse_args()


def main() -> None:
    """Run what is asked for and not yet known on this state of the table."""
    asked = _asked()
    judge = Judge(load(asked.table), asked.budget)
    path = HERE / "results" / f"{asked.result}.json"
    held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"rows": []}
    same = held.get("digest") == judge.digest and held.get("budget") == asked.budget
    rows: list[Row] = held["rows"] if same else []
    if asked.show:
        print(json.dumps({"summary": judge.summary(rows), "tests": judge.tests(rows)}, indent=1))
        return
    done = {(row["engine"], row["seed"]) for row in rows}
    every_run = [(n, s) for s in range(asked.seeds) for n in asked.engines]
    jobs = [(*run, asked.budget) for run in every_run if run not in done]

    points = len(every())

    def facts(found: list[Row]) -> dict[str, Any]:
        own = {"table": asked.table, "digest": judge.digest, "budget": asked.budget}
        own |= {"known": len(judge.told), "points": points}
        return {**own, "summary": judge.summary(found), "tests": judge.tests(found)}

    work = {"workers": asked.workers, "minutes": asked.minutes, "save": save}
    fill(asked.result, rows, jobs, _one, facts, begin=_open, given=(asked.table,), **work)
    if rows:
        draw(judge, rows, path.with_suffix(".svg"))
        print(json.dumps(judge.summary(rows), indent=1))


if __name__ == "__main__":
    main()
