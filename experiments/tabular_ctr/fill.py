"""Fill the table of the tabular CTR benchmark, in pieces; what it holds is not trained again.

python experiments/tabular_ctr/fill.py --minutes 60 --workers 2
python experiments/tabular_ctr/fill.py --device cuda --workers 4
python experiments/tabular_ctr/fill.py --plan

Order of work, so that a table filled in part is of use already: `subset`, 100 candidates drawn
from all kinds and wirings alike, at low fidelity; `low`, the others in random order; `full`, 100
candidates spread over the whole range of low scores, trained to their own end; `top`, the best 20
by low score at both fidelities with three seeds; `seeds`, low fidelity of the spread candidates
with two more seeds. Low fidelity is three epochs under the accelerated schedule (learning rate cut
to a tenth after two); what the plain schedule gives after as many rows is part of the curve of a
full training, whose first steps are the same. Entries of one table are made on one kind of device:
float32 sums in another order change an AUC in its fourth digit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from _bench import Bench, encoded
from _filling import fill
from tabular_ctr.space import FRAPPE, TabularSpace, every
from tabular_ctr.table import (
    CUT,
    FULL,
    LOW,
    NAME,
    PLAIN,
    PROTOCOL,
    Job,
    Row,
    Table,
    best,
    load,
    save,
)

from autorec.candidate import Candidate
from autorec.errors import ConfigError
from autorec.seeding import numpy_rng

PHASES = ("subset", "low", "full", "top", "seeds")
SUBSET = SPREAD = 100
TOP = 20
CANDIDATES = 885
_OPEN: dict[str, Any] = {}


def subset(keys: Sequence[str], count: int = SUBSET) -> list[str]:
    """Return one random key of each of `count` equal runs of `keys`: alike ones lie together."""
    rng = numpy_rng(0, "tabular subset", len(keys))
    ends = [len(keys) * i // count for i in range(count + 1)]
    picked = [keys[int(rng.integers(low, high))] for low, high in pairwise(ends) if low < high]
    return [picked[i] for i in rng.permutation(len(picked))]


def spread(scores: dict[str, float], taken: set[str], count: int = SPREAD) -> list[str]:
    """Return keys so that each of `count` equal parts of the ranking of `scores` has one.

    Args:
        scores: by key.
        taken: keys that serve for the part they lie in: they are not returned.
        count: parts; a part without any candidate is left out.
    """
    ranked = sorted(scores, key=lambda key: (-scores[key], key))
    ends = [len(ranked) * i // count for i in range(count + 1)]
    parts = [ranked[low:high] for low, high in pairwise(ends) if low < high]
    return [part[len(part) // 2] for part in parts if not taken & set(part)]


def wanted(phase: str, keys: Sequence[str], table: Table) -> list[Job]:
    """Return what `phase` asks for and `table` does not hold, in order."""
    low = table.column(LOW, CUT)
    scores = {key: value for key, row in low.items() if (value := best(row)) is not None}
    full = {job[0] for job in table.entries if job[1:] == (FULL, PLAIN, 0)}
    if phase == "subset":
        jobs = [(key, LOW, CUT, 0) for key in subset(keys)]
    elif phase == "low":
        order = numpy_rng(0, "tabular rest", len(keys)).permutation(len(keys))
        jobs = [(keys[i], LOW, CUT, 0) for i in order]
    elif phase == "full":
        jobs = [(key, FULL, PLAIN, 0) for key in spread(scores, full)]
    elif phase == "top":
        chosen = sorted(scores, key=lambda key: (-scores[key], key))[:TOP]
        kinds = [(FULL, PLAIN, 0), (FULL, PLAIN, 1), (FULL, PLAIN, 2), (LOW, CUT, 1), (LOW, CUT, 2)]
        jobs = [(key, *kind) for kind in kinds for key in chosen]
    elif phase == "seeds":
        jobs = [(key, LOW, CUT, seed) for seed in (1, 2) for key in sorted(full & set(scores))]
    else:
        raise ConfigError(f"a phase is one of {PHASES}, but got {phase!r}")
    return [job for job in jobs if job not in table.entries]


def plan(keys: Sequence[str], table: Table) -> str:
    """Return what is held and left at low and full fidelity, with processor hours by the median."""
    lines = []
    for fidelity, phases in ((LOW, ("low",)), (FULL, ("full",))):
        known = [row["cpu_s"] for job, row in table.entries.items() if job[1] == fidelity]
        left = sum(len(wanted(phase, keys, table)) for phase in phases)
        hours = f"{left * sum(known) / len(known) / 3600:.2f} CPU hours" if known else "unknown"
        middle = f"median {median(known):.1f} CPU s" if known else "none measured"
        lines.append(f"{fidelity}: {len(known)} held ({middle}), {left} left, about {hours}")
    return "\n".join(lines)


def facts(rows: list[Row]) -> dict[str, Any]:
    """Return what the file says beside its entries."""
    low = [row for row in rows if row["fidelity"] == LOW]
    seconds = [row["cpu_s"] for row in low]
    return {
        "candidates": CANDIDATES,
        "protocol": PROTOCOL,
        "low_entries": len(low),
        "full_entries": len(rows) - len(low),
        "low_cpu_s": {"median": median(seconds), "sum": round(sum(seconds))} if seconds else {},
    }


def _open(folder: str, device: str) -> None:
    import torch
    from tabular_ctr.training import Trainer

    torch.set_num_threads(1)
    bench = Bench(Path(folder), "float32")
    space = TabularSpace()
    _OPEN["trainer"] = Trainer(bench, device)
    _OPEN["candidates"] = {space.key(candidate): candidate for candidate in every(space)}


def _one(*job: Any) -> Row:
    candidates: dict[str, Candidate] = _OPEN["candidates"]
    found: Row = _OPEN["trainer"].measure(candidates[job[0]], job)
    return found


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no training after this")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--phases", nargs="+", default=list(PHASES), choices=PHASES)
    parser.add_argument("--folder", type=Path, help="where encoded columns are, or go")
    parser.add_argument("--result", default=NAME)
    parser.add_argument("--plan", action="store_true", help="say what is left and train nothing")
    return parser.parse_args()


def main() -> None:
    """Train what is asked for and not yet known, and write it after every entry."""
    asked = _asked()
    end = time.time() + 60 * asked.minutes
    space, table = TabularSpace(), load(asked.result)
    keys = [space.key(candidate) for candidate in every(space)]
    if asked.plan:
        print(plan(keys, table))
        return
    devices = {row["device"] for row in table.entries.values()} - {asked.device}
    if devices:
        raise ConfigError(
            f"one table is filled on one kind of device, but {asked.result} has entries of "
            f"{sorted(devices)} and --device is {asked.device}; give another --result"
        )
    folder = encoded("frappe", asked.folder or Path(tempfile.mkdtemp()) / "run")
    if Bench(folder).data.layout != FRAPPE:
        raise ConfigError(f"the table is of the columns {FRAPPE}, but {folder} holds others")
    rows = list(table.entries.values())
    for phase in asked.phases:
        jobs = wanted(phase, keys, Table(rows))
        minutes = (end - time.time()) / 60
        if jobs and minutes > 0:
            work = {"workers": asked.workers, "minutes": minutes, "save": save}
            given = (str(folder), asked.device)
            fill(asked.result, rows, jobs, _one, facts, begin=_open, given=given, **work)
    print(plan(keys, Table(rows)))


if __name__ == "__main__":
    main()
