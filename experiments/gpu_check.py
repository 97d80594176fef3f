"""The one command for a machine with a GPU: is everything right there, and how fast is it?

python experiments/gpu_check.py                      # all parts, under ten minutes
python experiments/gpu_check.py --parts law repeat --minutes 3
python experiments/gpu_check.py --allow-cpu          # the same parts on a CPU, to try the script

Parts: `law` holds every kernel against its reference in every case and type, shapes of real use
included; `repeat` runs each case again and compares bits; `train` trains the same candidates on the
CPU and on the device; `kernels` and `step` are the two benchmarks at the sizes of the device;
`search` is a fit of a minute. A part that fails is reported and the next one runs. The result goes
to `results/gpu_check-<date>.json`, and the exit status tells whether all parts passed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from _results import HERE, write

from autorec.kernels import _law
from autorec.seeding import torch_generator

Found = dict[str, Any]
_REPEATS = 20


def law(device: str, end: float) -> Found:
    """Hold every kernel against its reference; `faults` names what breaks the law."""
    faults, done = [], 0
    every = [(name, case) for name in _law.kernels() for case in _law.module(name).cases()]
    # Shapes of real use come last: their references take long, in float64 on the CPU.
    for name, case in sorted(every, key=lambda pair: pair[1].shape_class):
        for dtype in case.tolerance:
            if dtype == torch.float64 and case.shape_class:
                continue
            if time.time() > end:
                return {"checked": done, "faults": [*faults, "time was up before the end"]}
            broken = _law.check(name, case, dtype, place=lambda part: part.clone().to(device))
            faults += [f"{name} {case.name} {dtype}: {fault}" for fault in broken]
            done += 1
    return {"checked": done, "faults": faults}


def repeat(device: str, end: float) -> Found:
    """Run every case again and again on the same inputs; results must have the same bits."""
    faults, done = [], 0
    for name in _law.kernels():
        for case in _law.module(name).cases():
            if case.shape_class or torch.float32 not in case.tolerance or time.time() > end:
                continue
            drawn = case.make(torch_generator(0, name, case.name), torch.float32)
            first: dict[str, torch.Tensor] = {}
            for _ in range(_REPEATS):
                inputs = _law.placed(drawn, lambda part: part.clone().to(device))
                found = _law.run(_law.public(name), inputs, case)
                first = first or found
                other = [key for key in first if not torch.equal(first[key], found[key])]
                if other:
                    faults.append(f"{name} {case.name}: {other} differ between two runs")
                    break
            done += 1
    return {"checked": done, "faults": faults}


def train(device: str, end: float) -> Found:
    """Train on the CPU and on the device from the same seed; scores must agree within noise."""
    from _bench import Bench

    from autorec.data.simulate import simulate
    from autorec.prepare import Options, Roles, prepare

    made = simulate(40_000, users=500, items=300, seed=0)
    rows, faults = [], []
    with tempfile.TemporaryDirectory() as name:
        roles = Roles("click", "user", "item")
        folder, table = Path(name), made.table.drop_columns(["ts"])
        prepare(folder, table, None, roles, Options(task="ctr", split="random"), lambda _: None)
        bench = Bench(folder, "float32")
        for model in ("DNN", "DeepFM", "DCNv2", "FinalMLP"):
            candidate = bench.space.named()[model]
            scores = {where: _score_on(where, bench, candidate) for where in ("cpu", device)}
            rows.append({"model": model, **scores})
            if abs(scores["cpu"] - scores[device]) > 0.01:
                faults.append(f"{model}: validation AUC {scores}")
            if time.time() > end:
                break
    return {"rows": rows, "faults": faults}


def _score_on(where: str, bench: Any, candidate: Any) -> float:
    """Return the validation AUC after two epochs, on the CPU or on what torch finds."""
    with patch("torch.cuda.is_available", return_value=where == "cuda"):
        return float(bench.measure(candidate, 0, rows=2 * bench.data.train.n_rows)["valid"]["auc"])


def kernels(device: str, end: float) -> Found:
    """Time the kernels beside plain torch."""
    return _script("bench_kernels", "bench_kernels", ["--batch", "65536", "--repeats", "10"], end)


def step(device: str, end: float) -> Found:
    """Time whole training steps on the Criteo-shaped log, against bytes, FLOPs and the limits."""
    words = ["--data", "criteo", "--models", "MLP", "DeepFM", "DCNv2", "--contenders", "autorec"]
    words += ["--batch", "65536", "--rounds", "3", "--seconds", "5", "--rows", "1000000"]
    return _script("bench_training", "gpu_training", [*words, "--result", "gpu_training"], end)


def search(device: str, end: float) -> Found:
    """Fit a simulated log for a minute; the winner must beat the popularity baseline."""
    from autorec import AutoRec
    from autorec.data.simulate import simulate

    made = simulate(200_000, users=2000, items=1000, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        roles = {"user_id": "user", "item_id": "item", "timestamp": "ts"}
        ar = AutoRec(label="click", path=Path(folder) / "run", verbosity=0, **roles)  # type: ignore[arg-type]
        ar.fit(made.table, time_limit=min(60.0, end - time.time()), mlflow=False)
        board = ar.leaderboard()
        found = {"model": ar.best_model_, "valid": ar.best_score_, "trials": len(board)}
    base = float(board.loc[board["model"] == "popularity", "score_val"].max())
    faults = [] if ar.best_score_ > base else [f"{found} is no better than popularity, {base}"]
    return {**found, "popularity": base, "bayes": made.bayes_auc, "faults": faults}


def _script(name: str, result: str, words: list[str], end: float) -> Found:
    """Run another experiment and take its result; a file of that name is put back as it was."""
    path = HERE / "results" / f"{result}.json"
    before = path.read_bytes() if path.is_file() else None
    path.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / f"{name}.py"), *words]
    try:
        limit = max(5.0, end - time.time())
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        found = json.loads(path.read_text()) if path.is_file() else {}
        said = f"{name} ended with {done.returncode}: {done.stderr[-2000:]}"
    except subprocess.TimeoutExpired:
        said = f"{name} had no end within {limit:.0f} s"
    finally:
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)
    return {**found, "faults": [said] if " ended with 0:" not in said else []}


PARTS: dict[str, tuple[Callable[[str, float], Found], float]] = {
    "law": (law, 0.25),
    "repeat": (repeat, 0.1),
    "train": (train, 0.15),
    "kernels": (kernels, 0.15),
    "step": (step, 0.2),
    "search": (search, 0.15),
}


def main() -> None:
    """Run the parts within their shares of the time, and write one dated result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--allow-cpu", action="store_true")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not asked.allow_cpu:
        sys.exit("gpu_check needs a CUDA device, and torch finds none; try --allow-cpu")
    whole, rows = sum(PARTS[name][1] for name in asked.parts), []
    for name in asked.parts:
        work, share = PARTS[name]
        started = time.time()
        try:
            found = work(device, started + 60 * asked.minutes * share / whole)
        except Exception:
            found = {"faults": [traceback.format_exc(limit=-6)]}
        rows.append({"part": name, "seconds": round(time.time() - started, 1), **found})
        told = "passed" if not found["faults"] else "\n".join(found["faults"])
        print(f"{name} ({rows[-1]['seconds']} s): {told}", flush=True)
    gpu = torch.cuda.get_device_name() if device == "cuda" else "none"
    day = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    facts = {"gpu": gpu, "torch": torch.__version__, "cuda": torch.version.cuda}
    print(write(f"gpu_check-{day}", rows, **facts))
    sys.exit(any(row["faults"] for row in rows))


if __name__ == "__main__":
    main()
