"""Does screening find planted crosses among 40 fields, and nothing where nothing is planted?

python experiments/screening_planted.py --seeds 0 1 2 3 4

Fields have 2 to 12 values and main effects. A planted cross is a product of signs, which shows in
none of its parts, or a table of normal effects, which shows in all of them; three pairs and three
triples are planted at a time. Precision is that of the first k kept, k the number planted. Without
planted crosses, ten more seeds count what is kept; one log has sparse users besides.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from _results import spread, write

from autorec.data import _screening_scan
from autorec.data.columns import Columns
from autorec.data.screening import screen
from autorec.data.simulate import signs
from autorec.schema import Layout, SparseField
from autorec.seeding import numpy_rng

NAME = "screening_planted"
# Seconds of one core: other processes on the machine do not count.
_screening_scan._clock = time.process_time
ROWS, FIELDS = 100_000, 40
PLANTED = ("sign", "table", "mixed")


def log(
    seed: int, kind: str, *, rows: int = ROWS, fields: int = FIELDS, users: int = 0, rating: bool
) -> tuple[Columns, set[frozenset[str]]]:
    """Return a log with planted crosses of a kind ("none" for none) and their fields."""
    rng = numpy_rng(seed, "planted", kind)
    sizes = rng.integers(1, 7, fields) * 2
    if users:
        sizes[0] = users
    codes = np.stack([rng.integers(0, size, rows) for size in sizes], 1)
    margin = np.full(rows, -1.0)
    for at, size in enumerate(sizes):
        margin += rng.normal(0, 1.0 if at == 0 and users else 0.3, size)[codes[:, at]]
    free = rng.permutation(np.arange(1, fields))
    planted = []
    for number, width in enumerate((2, 2, 2, 3, 3, 3) if kind != "none" else ()):
        chosen, free = free[:width], free[width:]
        planted.append(frozenset(f"f{at}" for at in chosen))
        if kind == "table" or (kind == "mixed" and number % 2):
            effect = rng.normal(0, 0.6, sizes[chosen])
            margin += effect[tuple(codes[:, at] for at in chosen)]
        else:
            margin += 0.5 * np.prod([signs(int(sizes[a]), rng)[codes[:, a]] for a in chosen], 0)
    label = margin + rng.normal(size=rows)
    if not rating:
        label = (rng.random(rows) < 1.0 / (1.0 + np.exp(-margin))).astype(float)
    layout = Layout(
        tuple(SparseField(f"f{at}", int(size) + 2, f"f{at}") for at, size in enumerate(sizes))
    )
    dense = np.empty((rows, 0), np.float32)
    given = (codes + 2).astype(np.int32)
    return Columns(layout, rows, given, {}, dense, label.astype(np.float32)), set(planted)


def one(seed: int, kind: str, *, rating: bool = False, users: int = 0) -> dict[str, Any]:
    """Screen one log."""
    columns, planted = log(seed, kind, users=users, rating=rating)
    found = screen(columns, binary=not rating, seed=seed)
    kept = [frozenset(each.fields) for each in found.evidence if each.kept]
    right = len(set(kept[: len(planted)]) & planted)
    row = {"seed": seed, "kind": kind, "rating": rating, "users": users, "kept": len(kept)}
    row |= {"planted": len(planted), "right": right, "seconds": round(found.seconds, 2)}
    return row | {"tried": found.tried, "found": len(set(kept) & planted)}


def main() -> None:
    """Screen all logs and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    asked = parser.parse_args()
    rows = []
    for seed in asked.seeds:
        for kind in PLANTED:
            rows.append(one(seed, kind))
            print(rows[-1], flush=True)
        rows.append(one(seed, "mixed", rating=True))
        print(rows[-1], flush=True)
    for seed in asked.seeds:
        for more, users in ((0, 0), (100, 0), (200, 30_000)):
            rows.append(one(seed + more, "none", users=users))
            print(rows[-1], flush=True)
    planted = [row for row in rows if row["planted"]]
    precision = {
        kind: spread([row["right"] / row["planted"] for row in planted if row["kind"] == kind])
        for kind in PLANTED
    }
    facts = {
        "precision": precision,
        "kept_without_signal": sum(row["kept"] for row in rows if not row["planted"]),
        "seconds": spread([row["seconds"] for row in rows]),
    }
    print(facts, write(NAME, rows, seeds=asked.seeds, **facts))


if __name__ == "__main__":
    main()
