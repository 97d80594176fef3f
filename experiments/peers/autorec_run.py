"""AutoRec as a contender: `autorec.train.fit.fit` on the shapes of the bench.

Variants: `auto` (matrix products in what suits the machine), `float32`, `bfloat16`. With `--split`
it says at the end where the time of a step goes; on a CUDA device it trains there.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from _contender import ROOT, Asked, Meter, asked, peak_mb, say

sys.path.insert(0, str(ROOT / "experiments"))
sys.path.insert(0, str(ROOT))

from _same_rows import own, with_precision

from autorec.architecture import Node
from autorec.build import cost
from autorec.candidate import Candidate, Features
from autorec.errors import TrainingError
from autorec.job import Job
from autorec.search_spaces._points import PointsSpace
from autorec.train.fit import Trained, TrainingData, fit

_SPLIT_SECONDS = 4.0
# The files of the training loop itself: what they call of others is a part of a step.
_LOOP = ("autorec/train/loop.py", "autorec/train/optimizers.py")
_FOR_EVER = {"epochs": 1e6, "cuts": []}
# Where a call from the training loop belongs, by what its file's path or its name holds; the first
# that fits.
_PARTS = (
    ("loader", ("train/batches.py",)),
    ("averages and copies", ("train/average.py", "train/best.py")),
    ("tables", ("kernels/", "train/tables.py", "'add_'")),
    ("clipping", ("clip_grad", "norm")),
    ("backward", ("backward",)),
    ("dense optimiser", ("torch/optim",)),
    ("forward and loss", ("build.py", "distil.py", "precision.py", "modules/module.py")),
)


def nodes(space: PointsSpace, model: str, s: dict[str, Any]) -> list[Node]:
    """Return the blocks of a model at a shape (see `_shapes.py`)."""
    norm = "batch" if s["norm"] else "none"
    drop = s["dropout"]
    if model == "FinalMLP":
        sides = {"width1": s["first"], "width2": s["second"], "layers1": 1, "layers2": 1}
        sides |= {"dropout1": drop, "dropout2": drop, "norm": norm, "heads": s["heads"]}
        return [space.node("two_stream", **sides, gate=s["fs"], gate_width=s["gate"])]
    deep = space.node("mlp", width=s["units"], layers=s["layers"], dropout=drop, norm=norm)
    if model == "AutoInt":
        heads = {"layers": s["attention"], "heads": s["heads"], "width": s["width"]}
        return [space.node("autoint", **heads, dropout=drop), deep]
    if model == "DCNv2":
        return [space.node("cross", layers=s["cross"]), deep]
    return [space.node("fm"), deep] if model == "DeepFM" else [deep]


def candidate(space: PointsSpace, given: Asked) -> Candidate:
    """Return the asked model as a canonical candidate. Numbers go in as fields, as peers do it."""
    s = given.shape
    recipe = space.start_recipe(lr=s["lr"], embedding_l2=s["l2"], batch_size=given.batch)
    found, linear = nodes(space, given.model, s), given.model == "DeepFM"
    made = space.network(found, recipe, width=s["embedding"], linear=linear)
    return space.canonical(replace(made, features=Features("bins")))


def job(given: Asked, wanted: Candidate) -> Job:
    """Return the work without an end."""
    return Job(0, wanted, given.seed, time.time() + 86400, threads=given.threads)


def settle() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def endless(
    given: Asked, wanted: Candidate, data: TrainingData, late: Callable[[], bool]
) -> Trained:
    """Train without evaluations until `late`, which is asked after every step."""
    data = replace(data, valid=None, late=late)
    return fit(job(given, wanted), data, lambda _rows, _score: True, replay=_FOR_EVER)


def speed(given: Asked, wanted: Candidate, data: TrainingData) -> None:
    """Be measured in slices, then say what was trained and, if asked, where its time goes."""
    meter = Meter(data.train.n_rows, given.batch, last=data.train.n_rows % given.batch > 1)
    meter.settle = settle
    trained = endless(given, wanted, data, meter.step)
    if trained.rows != meter.rows:
        raise TrainingError(
            "a step is counted whenever the training asks whether it is late, but it says "
            f"{trained.rows} rows and the meter {meter.rows}; count in another way"
        )
    params, flops = cost(wanted, data.layout)
    found: dict[str, Any] = {"params": params, "flops": flops}
    found["precision"] = trained.info["precision"]
    found["device"] = "cpu"
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name()
        found["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    if given.split:
        found["split"] = split(given, wanted, data)
    say(**found)


def split(given: Asked, wanted: Candidate, data: TrainingData) -> dict[str, float]:
    """Return the share of a step's CPU time by part.

    A part is what the training loop calls directly: loading, forward with loss, backward, clipping
    and optimisers, told apart by the files the calls lead to. Where tables have no optimiser of
    their own, they are in `dense optimiser`. On a CUDA device these are the times of the launches,
    not of the kernels.
    """
    end = time.perf_counter() + _SPLIT_SECONDS
    profile = cProfile.Profile(time.process_time)
    with profile:
        endless(given, wanted, data, lambda: time.perf_counter() > end)
    found: dict[str, float] = {}
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    whole = max(total for (path, _, _), (*_, total, _) in stats.items() if path.endswith(_LOOP))
    for (path, _, name), (*_, callers) in stats.items():
        if path.endswith(_LOOP):
            continue
        taken = sum(c[3] for (file, _, _), c in callers.items() if file.endswith(_LOOP))
        part = next((p for p, marks in _PARTS if any(m in path + name for m in marks)), "rest")
        found[part] = found.get(part, 0.0) + taken
    found["rest"] = max(0.0, whole - sum(t for part, t in found.items() if part != "rest"))
    return {part: round(t / whole, 3) for part, t in found.items()}


def quality(given: Asked, wanted: Candidate, data: TrainingData, test: Any) -> None:
    """Train to AutoRec's own end and say the test metrics of its best weights."""
    cpu, wall = time.process_time(), time.perf_counter()
    trained = fit(job(given, wanted), data, lambda _rows, _score: True)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    prediction = trained.model.predict(test)
    metrics = data.task.metrics(test.label, prediction, test.weight, test.group)
    found = {name: round(float(metrics[name]), 5) for name in ("auc", "logloss")}
    epochs = round(trained.rows / data.train.n_rows, 2)
    say(**found, epochs=epochs, cpu_s=round(cpu, 1), wall_s=round(wall, 1), peak_rss_mb=peak_mb())


def main() -> None:
    """Train the asked model."""
    given = asked()
    torch.set_num_threads(given.threads)
    data, space, test = own(given.folder)
    data = with_precision(data, given.variant or "auto")
    wanted = candidate(space, given)
    if given.quality:
        quality(given, wanted, data, test)
    else:
        speed(given, wanted, data)


if __name__ == "__main__":
    main()
