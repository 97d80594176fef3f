"""What does asking an engine cost? Ask plus tell at 500 trials, in memory and on the journal.

python experiments/engine_overhead.py --trials 500 --asked 25

A study is filled with random candidates and a score that favours two crosses; then every engine
proposes, and the score is told. Counted is processor time of the thread: asking, proposing all
genes, telling; not the score. The first proposal of an engine reads the whole study and learns
from it; it stands apart, as do refits, which are the largest of the others. `load` is that of the
machine: other programs on its cores make processor time longer.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import optuna
from _results import write

from autorec.candidate import NEURAL, Candidate
from autorec.schema import DenseField, Layout, SparseField
from autorec.search.engine import ENGINES, make_engine
from autorec.search.journal import open_journal
from autorec.search_spaces.ctr import CtrSpace
from autorec.space import Space

STORAGES = ("memory", "journal")


def space(blocks: int) -> CtrSpace:
    """Return the space of click prediction on two ids and a number."""
    return CtrSpace(
        Layout(
            sparse=(
                SparseField("user", 100, "user"),
                SparseField("item", 50, "item"),
                SparseField("age#bin", 10, "age", binned=True),
            ),
            dense=(DenseField("age"),),
        ),
        blocks=blocks,
    )


def score(candidate: Candidate) -> float:
    """Return a score that costs nothing: two crosses and a rate of 1e-3 are best."""
    plan = candidate.architecture
    if candidate.family != NEURAL or plan is None:
        return -5.0
    crosses = sum(node.kind == "cross" for node in plan.nodes)
    return -abs(crosses - 2) - 3 * abs(math.log10(float(candidate.recipe["lr"])) + 3)


def filled(own: Space, trials: int, storage: str, folder: Path) -> optuna.Study:
    """Return a study with `trials` random candidates."""
    study = optuna.create_study(
        direction="maximize",
        storage=open_journal(folder) if storage == "journal" else None,
        sampler=make_engine("random", own, 1),
    )
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, score(own.suggest(trial)))
    return study


def measure(study: optuna.Study, own: Space, engine: str, asked: int) -> dict[str, Any]:
    """Return milliseconds of ask plus tell of one engine."""
    study.sampler = make_engine(engine, own, 0)
    cpu, wall = [], []
    for _ in range(asked + 1):
        began, began_wall = time.thread_time(), time.perf_counter()
        trial = study.ask()
        candidate = own.suggest(trial)
        between, between_wall = time.thread_time(), time.perf_counter()
        value = score(candidate)
        again, again_wall = time.thread_time(), time.perf_counter()
        study.tell(trial, value)
        cpu.append(1e3 * (time.thread_time() - again + between - began))
        wall.append(1e3 * (time.perf_counter() - again_wall + between_wall - began_wall))
    return {
        "engine": engine,
        "first_ms": round(cpu[0], 1),
        "median_ms": round(median(cpu[1:]), 1),
        "largest_ms": round(max(cpu[1:]), 1),
        "median_wall_ms": round(median(wall[1:]), 1),
    }


def main() -> None:
    """Measure every engine on every storage and write medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--asked", type=int, default=25)
    parser.add_argument("--blocks", type=int, default=4)
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    own = space(asked.blocks)
    rows = []
    for storage in STORAGES:
        for engine in ENGINES.names():
            with tempfile.TemporaryDirectory() as folder:
                study = filled(own, asked.trials, storage, Path(folder))
                found = measure(study, own, engine, asked.asked)
            rows.append({"storage": storage, "trials": asked.trials, **found})
            print(rows[-1], flush=True)
    facts = {"blocks": asked.blocks, "genes": len(own.genes), "load": round(os.getloadavg()[0], 1)}
    print(write("engine_overhead", rows, **facts))


if __name__ == "__main__":
    main()
