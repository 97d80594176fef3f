"""How long do the kernels take beside plain torch?

python experiments/bench_kernels.py --rows 1000000 --batch 4096 --repeats 15

On the CPU it times the torch paths with one thread; where there is a CUDA device, Triton's code
too. Both sides of a pair run in turns. Nothing is timed unless the kernel keeps the law there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from _results import write

from autorec.errors import TrainingError
from autorec.kernels import _law
from autorec.kernels._rules import Rule, new_state
from autorec.kernels.embedding_bag import embedding_bag
from autorec.kernels.embedding_catch_up import embedding_catch_up_
from autorec.kernels.embedding_gather import embedding_gather, row_tap
from autorec.kernels.embedding_plan import embedding_plan
from autorec.kernels.embedding_update import embedding_update_
from autorec.seeding import torch_generator

Work = Callable[[], object]
FIELDS = 39


def gate(device: str) -> None:
    """Raise TrainingError unless every kernel keeps the law on `device` in float32."""
    for name in _law.kernels():
        for case in _law.module(name).cases():
            if torch.float32 in case.tolerance and not case.shape_class:
                place = lambda part: part.clone().to(device)  # noqa: E731
                faults = [*_law.check(name, case, torch.float32, place=place)]
                if faults:
                    raise TrainingError(f"a kernel must keep the law to be timed: {name} {faults}")


def seconds(work: Work, device: str) -> float:
    """Return the wall seconds of one call."""
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def pair(ours: Work, plain: Work, *, repeats: int, device: str) -> dict[str, Any]:
    """Time two ways in turns after one call each to warm up."""
    times: list[tuple[float, float]] = []
    for turn in range(repeats + 1):
        found = (seconds(ours, device), seconds(plain, device))
        if turn:
            times.append(found)
    mine, theirs = (sorted(column) for column in zip(*times, strict=True))
    row: dict[str, Any] = {"ours_ms": round(1e3 * median(mine), 3)}
    row |= {"plain_ms": round(1e3 * median(theirs), 3)}
    row |= {"ours_min_ms": round(1e3 * mine[0], 3), "plain_min_ms": round(1e3 * theirs[0], 3)}
    row["ratio"] = round(median(b / a for a, b in times), 3)
    row["ratios"] = [round(b / a, 3) for a, b in times]
    return row


def looks(rows: int, batch: int, width: int, device: str) -> tuple[Any, Any, Any]:
    """Return table (rows, width), ids (batch, FIELDS) and first rows of equal fields."""
    generator = torch_generator(0, "bench", rows, batch)
    each = rows // FIELDS
    table = torch.randn(rows, width, generator=generator)
    ids = torch.randint(0, each, (batch, FIELDS), generator=generator, dtype=torch.int32)
    starts = torch.arange(FIELDS, dtype=torch.int32) * each
    return table.to(device), ids.to(device), starts.to(device)


def gathers(rows: int, batch: int, width: int, device: str) -> dict[str, tuple[Work, Work]]:
    """Return gather with FM, and mean bags of the fields, each beside plain torch."""
    table, ids, starts = looks(rows, batch, width, device)
    bounds = torch.arange(0, ids.numel() + 1, FIELDS, device=device, dtype=torch.int32)
    keys = (ids + starts).flatten()

    def plain() -> object:
        found = torch.nn.functional.embedding(ids + starts, table)
        total = found.sum(1)
        return found, 0.5 * (total.square() - found.square().sum(1)).sum(1, keepdim=True)

    def pooled() -> object:
        return torch.nn.functional.embedding(keys.view_as(ids), table).mean(1)

    return {
        "gather_fm": (lambda: embedding_gather(table, ids, starts, fm=True), plain),
        "bag_mean": (lambda: embedding_bag(table, keys, bounds, mean=True), pooled),
    }


def training(rows: int, batch: int, width: int, device: str, rule: Rule) -> tuple[Work, Work]:
    """Return a step of gather, backward and update, beside a dense gradient and torch.optim.

    With an L2 the rows are caught up first, which makes the step equal to the dense one; without
    one the rules are lazy.
    """
    table, ids, starts = looks(rows, batch, width, device)
    state, step = new_state(table, rule.algo), [0]
    weight = torch.nn.Parameter(table.clone())
    plain: torch.optim.Optimizer = torch.optim.Adam(
        [weight], lr=1e-3, weight_decay=rule.l2, fused=True
    )
    if rule.algo.endswith("adagrad"):
        plain = torch.optim.Adagrad([weight], lr=1e-3)

    def sparse() -> None:
        step[0] += 1
        plan = embedding_plan(ids, starts, n=rows)
        if rule.l2:
            embedding_catch_up_(table, state, plan, rule=rule, lr=1e-3, step=step[0] - 1)
        tap = row_tap(table, ids)
        out = embedding_gather(table, ids, starts, tap=tap)
        torch.autograd.backward([out], [out.detach()])  # type: ignore[union-attr,list-item]
        given = {"rule": rule, "lr": 1e-3, "step": step[0]}
        embedding_update_(table, state, tap.grad, plan, **given)  # type: ignore[arg-type]

    def dense() -> None:
        plain.zero_grad()
        out = torch.nn.functional.embedding(ids + starts, weight)
        out.backward(out.detach())  # type: ignore[no-untyped-call]
        plain.step()

    return sparse, dense


def main() -> None:
    """Time all pairs and write `experiments/results/bench_kernels.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=15)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        gate(device)
        for rows in asked.rows:
            shape = (rows, asked.batch, asked.width, device)
            pairs = gathers(*shape)
            for algo, l2 in (("rowwise_adagrad", 0.0), ("adam", 0.0), ("adam", 1e-5)):
                pairs[f"step_{algo}" + "_l2" * (l2 > 0)] = training(*shape, Rule(algo, l2=l2))
            for name, (ours, plain) in pairs.items():
                found = pair(ours, plain, repeats=asked.repeats, device=device)
                facts = {"batch": asked.batch, "width": asked.width, "fields": FIELDS}
                results.append({"what": name, "on": device, "rows": rows, **facts, **found})
                print(results[-1], flush=True)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(write("bench_kernels", results, threads=1, gpu=gpu, ratio="plain over ours"))


if __name__ == "__main__":
    main()
