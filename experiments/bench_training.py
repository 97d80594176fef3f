"""How fast does AutoRec train beside FuxiCTR, TorchRec, DeepCTR-Torch and RecBole?

python experiments/peers/make.py                      # once: an environment for each peer
python experiments/bench_training.py --data frappe criteo --rounds 5 --seconds 10
python experiments/bench_training.py --quality --seeds 0 1 2 --data frappe
python experiments/bench_training.py --table

All train the same shapes on the same rows with Adam and batches of 4096, each in a process of its
own with its own public loop (`peers/*_run.py`). Contenders are set up together and measured in
turns, in slices: a ratio compares slices of one round. Rows per CPU second (all threads) hold on a
busy machine; rows per second count on an idle one. On a CUDA device only AutoRec is measured, in
samples per second. `--quality` trains AutoRec and FuxiCTR to their own ends instead and reads the
test rows once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _contenders import CONTENDERS, Contender, command, once
from _filling import kept
from _limits import limits
from _results import spread, write
from _same_rows import same_rows
from peers._contender import facts
from peers._shapes import MODELS, products

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
NAME = "bench_training"
Row = dict[str, Any]


def measured(given: argparse.Namespace, data: str, model: str) -> list[Row]:
    """Measure all contenders on one model, in turns; one row each."""
    folder = rows_of(given, data)
    field = [Contender(name, command(name, given, folder, model)) for name in contenders(given)]
    slices: dict[str, list[Row]] = {c.name: [] for c in field}
    load = os.getloadavg()[0]
    try:
        for one in field:
            one.ready()
        for turn in range(given.rounds):
            for one in field[turn % len(field) :] + field[: turn % len(field)]:
                slices[one.name].append(one.slice(given.seconds))
        ends = {one.name: one.end() for one in field}
    finally:
        for one in field:
            one.kill()
    flops = next((end["flops"] for end in ends.values() if "flops" in end), None)
    rows = []
    for one in field:
        row: Row = {"data": data, "model": model, "contender": one.name}
        row |= {"batch": given.batch, "threads": given.threads, "load": round(load, 1)}
        row |= {"fault": one.fault} if one.fault else _figures(slices[one.name], flops)
        rows.append({**row, **ends[one.name]})
    ratios(rows)
    return rows


def _figures(slices: Sequence[Row], flops: int | None) -> Row:
    """Return medians and ranges over the slices of one contender."""
    found: Row = {}
    for unit, seconds in (("rows_per_cpu_s", "cpu_s"), ("rows_per_s", "wall_s")):
        rates = [s["rows"] / s[seconds] for s in slices]
        found[unit] = round(median(rates))
        found[f"{unit}_all"] = [round(rate) for rate in rates]
    found["step_cpu_ms"] = round(1e3 * median(s["cpu_s"] / s["steps"] for s in slices), 2)
    found["cpu_share"] = round(median(s["cpu_s"] / s["wall_s"] for s in slices), 2)
    found["peak_rss_mb"] = max(s["peak_rss_mb"] for s in slices)
    found["rss_mb"] = median(s["rss_mb"] for s in slices)
    if flops:  # forward once, backward twice; of AutoRec's network, which is everybody's here
        found["gflops_per_cpu_s"] = round(3e-9 * flops * found["rows_per_cpu_s"], 1)
    return found


def ratios(rows: list[Row]) -> None:
    """Add to every peer's row how many times faster each AutoRec is: by round, and the median."""
    unit = "rows_per_s_all" if torch.cuda.is_available() else "rows_per_cpu_s_all"
    ours = [row for row in rows if row["contender"].startswith("autorec") and unit in row]
    for row in rows:
        for own in ours if unit in row and row not in ours else ():
            times = [a / b for a, b in zip(own[unit], row[unit], strict=True)]
            name = own["contender"]
            row[f"{name}_over_it"] = round(median(times), 2)
            row[f"{name}_over_it_range"] = [round(min(times), 2), round(max(times), 2)]


def contenders(given: argparse.Namespace) -> list[str]:
    """Return who takes part: those asked for whose environment exists."""
    if torch.cuda.is_available():
        return [name for name in given.contenders if name.startswith("autorec")]
    return [n for n in given.contenders if CONTENDERS[n].python(given.peers).is_file()]


def rows_of(given: argparse.Namespace, data: str) -> Path:
    """Return the folder with the rows of a data set; they are written at the first call."""
    return same_rows(data, given.cache, rows=given.rows)


def machine(given: argparse.Namespace, data: str) -> Row:
    """Return the machine's limits at the shapes of a data set."""
    found = facts(rows_of(given, data))
    fields = len(found["sparse"]) + len(found["dense"])
    table = sum(field["rows"] for field in found["sparse"])
    shapes = {pair for model in given.models for pair in products(data, model, fields)}
    width = 10 if data == "frappe" else 16
    return limits(given.batch, sorted(shapes), (table, width), len(found["sparse"]))


def speed(given: argparse.Namespace) -> None:
    """Measure what is asked, write after every model; other models' rows are kept."""
    rows = kept(given.result)
    torch.set_num_threads(given.threads)
    best = {data: machine(given, data) for data in given.data}
    for data in given.data:
        print(data, best[data], flush=True)
        for model in given.models:
            rows = [row for row in rows if (row["data"], row["model"]) != (data, model)]
            rows += measured(given, data, model)
            print(table(rows[-len(contenders(given)) :]), flush=True)
            cell = [row for row in rows if (row["data"], row["model"]) == (data, model)]
            for row in cell:
                row |= {"seconds": given.seconds, **({"note": given.note} if given.note else {})}
            cell[0]["limits"] = best[data]
            write(given.result, rows)


def quality(given: argparse.Namespace) -> None:
    """Train AutoRec and FuxiCTR to the end, in turns over seeds, and write both test AUCs."""
    name = f"{given.result}_quality"
    rows = kept(name)
    keys = [(d, m, s) for d in given.data for m in given.models for s in given.seeds]
    for data, model, seed in keys:
        for who in [n for n in contenders(given) if n in ("autorec", "autorec-float32", "fuxictr")]:
            key: Row = {"data": data, "model": model, "contender": who, "seed": seed}
            if any(key.items() <= row.items() for row in rows):
                continue
            rows.append({**key, **once(command(who, given, rows_of(given, data), model, seed))})
            print(rows[-1], flush=True)
            note = {"note": given.note} if given.note else {}
            write(name, rows, summary=summary(rows), **note)


def summary(rows: list[Row]) -> Row:
    """Return mean, deviation and range of the test AUC and the CPU seconds of each contender."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(f"{row['data']} {row['model']} {row['contender']}", []).append(row)
    figures = ("auc", "logloss", "cpu_s")
    return {k: {m: spread([r[m] for r in own]) for m in figures} for k, own in found.items()}


def table(rows: list[Row]) -> str:
    """Return the rows in Markdown."""
    out = ["| data | model | contender | rows/CPU-s (range) | rows/s | peak MB | AutoRec over it |"]
    out.append("|---|---|---|---|---|---|---|")
    for row in rows:
        head = f"| {row['data']} | {row['model']} | {row['contender']} |"
        if "fault" in row:
            out.append(f"{head} {row['fault']} | | | |")
            continue
        every = row["rows_per_cpu_s_all"]
        rate = f"{row['rows_per_cpu_s']:,} ({min(every):,} to {max(every):,})"
        over = f"{row.get('autorec_over_it', '')} {row.get('autorec_over_it_range', '')}"
        out.append(f"{head} {rate} | {row['rows_per_s']:,} | {row['peak_rss_mb']:.0f} | {over} |")
    return "\n".join(out)


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+", default=["frappe", "criteo"])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of one slice")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=400_000, help="of the Criteo-shaped log")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peers", type=Path, default=CACHE / "autorec-peers")
    parser.add_argument("--cache", type=Path, default=CACHE / "autorec-bench")
    parser.add_argument("--result", default=NAME)
    parser.add_argument("--note", default="", help="kept beside the figures, such as: provisional")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        print(table(kept(given.result)))
    else:
        (quality if given.quality else speed)(given)


if __name__ == "__main__":
    main()
