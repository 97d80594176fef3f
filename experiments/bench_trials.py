"""How many one-epoch trials a minute: AutoRec's search beside plain Optuna and a PyTorch loop?

python experiments/bench_trials.py --seconds 120 --rounds 2

Frappe, two workers of one thread each on one journal, MLP and DCNv2 networks: AutoRec's engine,
runner and trainer, and the script a user would write without it (`peers/plain_trials.py`:
DataLoader, an embedding a field, dense Adam, Optuna's TPE). Both are counted from the moment all
workers have ended their first trial to the last trial of the worker that ends first. The spaces
have the same ranges; AutoRec's also asks how two blocks are wired. AutoRec keeps the weights,
predictions and curve of every trial on disk; the plain one keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from _bench import encoded
from _results import write
from optuna.distributions import BaseDistribution, CategoricalDistribution

from autorec.architecture import SPARSE
from autorec.job import DEADLINE, Fidelity, Job, Report, Score
from autorec.run import Run
from autorec.schema import Layout
from autorec.search_spaces.ctr import CtrSpace

HERE = Path(__file__).parent
TRIALS = "trials-"
Row = dict[str, Any]


class Comparable(CtrSpace):
    """MLP and cross blocks on plain embeddings, without schedules, averages and distillation."""

    def __init__(self, layout: Layout, rows: int) -> None:
        super().__init__(layout, rows=rows, blocks=2, kinds=("mlp", "cross"), families=("neural",))
        self.raws = [SPARSE]
        self.genes = self._all_genes()

    def recipe_genes(self) -> dict[str, BaseDistribution]:
        """Return the genes that the plain script has too."""
        fixed = {"schedule": "constant", "ema": 0.0, "distil": "none"}
        found = super().recipe_genes()
        return found | {name: CategoricalDistribution((v,)) for name, v in fixed.items()}


def our_worker(folder: Path, given: argparse.Namespace) -> None:
    """Search with AutoRec in this process, and note when each trial ended."""
    import torch

    from autorec.search.engine import make_engine
    from autorec.search.runner import run_worker
    from autorec.search.study import join_study
    from autorec.worker import make_evaluate

    torch.set_num_threads(1)
    run = Run.open(folder)
    space = Comparable(run.encoder().layout, run.config.n_train)
    evaluate = make_evaluate(run)
    notes = folder / f"{TRIALS}{os.getpid()}.jsonl"

    def noted(job: Job, report: Report) -> Score:
        score = evaluate(job, report)
        if score.status == DEADLINE:
            return score
        note = {"at": time.time(), "cpu": time.process_time(), "auc": score.metrics["auc"]}
        with notes.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")
        return score

    sampler = make_engine(given.engine, space, given.seed)
    study = join_study(folder, name="trials", space=space, sampler=sampler)
    end, once = time.time() + given.seconds, Fidelity(rows=given.rows or run.config.n_train)
    run_worker(study, space, noted, seed=given.seed, deadline=end, fidelity=once)


def begin(folder: Path, who: str, given: argparse.Namespace, seed: int) -> list[list[str]]:
    """Make the study and return the command lines of its workers."""
    from autorec.search.study import open_study

    for path in folder.glob(f"{TRIALS}*.jsonl"):
        path.unlink()
    if who == "plain":
        line = [sys.executable, str(HERE / "peers" / "plain_trials.py"), str(folder)]
        return [[*line, str(seed), str(given.seconds), str(given.rows), TRIALS]] * given.workers
    for path in (*folder.glob("study*"), folder / "trials"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    run = Run.open(folder)
    open_study(folder, name="trials", space=Comparable(run.encoder().layout, run.config.n_train))
    line = [sys.executable, str(HERE / "bench_trials.py"), "--worker", str(folder)]
    line += ["--engine", given.engine, "--seconds", str(given.seconds), "--seed", str(seed)]
    line += ["--rows", str(given.rows)]
    return [line] * given.workers


def measured(folder: Path, who: str, given: argparse.Namespace, seed: int) -> Row:
    """Run the workers of one side and count the trials that ended while all were warm."""
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONWARNINGS": "ignore"}
    env = {**os.environ, **quiet}
    workers = [subprocess.Popen(line, env=env) for line in begin(folder, who, given, seed)]
    codes = [worker.wait() for worker in workers]
    notes = [
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted(folder.glob(f"{TRIALS}*.jsonl"))
    ]
    row: Row = {"who": who, "seed": seed, "workers": given.workers}
    if any(codes) or len(notes) < given.workers:
        return {**row, "fault": f"workers ended with {codes}; {len(notes)} of them had a trial"}
    warm, last = max(own[0]["at"] for own in notes), min(own[-1]["at"] for own in notes)
    # A trial counts where it ended, so that the one that ends at `warm` is before the window.
    ended = [note["at"] for own in notes for note in own if warm < note["at"] <= last]
    cpu = sum(own[-1]["cpu"] - own[0]["cpu"] for own in notes)
    row |= {"trials": len(ended), "seconds": round(last - warm, 1), "cpu_s": round(cpu, 1)}
    row["trials_per_minute"] = round(60 * len(ended) / max(last - warm, 1e-9), 2)
    within = sum(len(own) - 1 for own in notes)
    row["trials_per_cpu_minute"] = round(60 * within / max(cpu, 1e-9), 2)
    row["best_valid_auc"] = round(max(note["auc"] for own in notes for note in own), 5)
    return row


def compared(given: argparse.Namespace) -> None:
    """Measure both sides in turns and write the result."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = encoded("frappe", Path(scratch) / "run")
        for turn in range(given.rounds):
            for who in ("autorec", "plain"):
                rows.append(measured(folder, who, given, given.seed + turn))
                print(rows[-1], flush=True)
    facts: Row = {"engine": given.engine, "seconds": given.seconds, "rows_a_trial": given.rows}
    for unit in ("trials_per_minute", "trials_per_cpu_minute"):
        sides = [[row.get(unit) for row in rows if row["who"] == w] for w in ("autorec", "plain")]
        ratios = [ours / plain for ours, plain in zip(*sides, strict=True) if ours and plain]
        facts[f"{unit}_ratio"] = round(median(ratios), 2) if ratios else None
    print(write("bench_trials", rows, **facts, **({"note": given.note} if given.note else {})))


def main() -> None:
    """Compare, or be a worker of the comparison."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", default="tpe")
    parser.add_argument("--rows", type=int, default=0, help="of a trial; 0: one epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--note", default="", help="kept beside the figures")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        our_worker(given.worker, given)
    else:
        compared(given)


if __name__ == "__main__":
    main()
