"""What does a child save that starts from its parent's weights? Rows to reach the parent's score.

python experiments/inheritance.py --children 8 --seeds 3

Roots are named networks, trained on encoded Frappe. Each has children by one random edit, which are
trained twice: from the weights of the root, on at most 0.3 of its rows, and from scratch on as many
rows as the root took. Counted are the rows presented until the validation score of the root is
reached (within `--slack`), and the best score of either; a child whose weights no edit keeps
is counted as refused, with the reason.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from _bench import Bench, encoded
from _results import spread, write

NAME = "inheritance"
ROOTS = ("DeepFM", "DCNv2", "FinalMLP")


def root_of(bench: Bench, parents: Any, number: int, candidate: Any, seed: int, **more: Any) -> Any:
    """Train a root, keep its weights, and return it with its history."""
    history: list[tuple[int, float]] = []
    trained = fit_of(bench, number, candidate, seed, history, **more)
    folder = parents.folder / f"model-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    trained.model.save(folder)
    parents.keep(number, trained, float(number), folder)
    return trained, history


def fit_of(
    bench: Bench,
    number: int,
    candidate: Any,
    seed: int,
    history: list[tuple[int, float]],
    *,
    rows: int | None = None,
    parent: int | None = None,
    edits: tuple[Any, ...] = (),
    parents: Any = None,
) -> Any:
    """Train one candidate; `history` gets (rows presented, validation score)."""
    from autorec.job import Fidelity, Job
    from autorec.train.fit import fit

    job = Job(number, candidate, seed, time.time() + 86400, Fidelity(rows=rows))
    job = replace(job, parent=parent, edits=edits)

    def report(rows: int, score: float) -> bool:
        history.append((rows, score))
        return True

    return fit(job, replace(bench.data, parents=parents), report)


def reached(history: list[tuple[int, float]], target: float) -> int | None:
    """Return the rows of training at which `target` was first reached; None: never."""
    return next((rows for rows, score in history if rows and score >= target), None)


def child_of(
    bench: Bench, parents: Any, root: Any, number: int, seed: int, target: float
) -> dict[str, Any]:
    """Train one child of one random edit with and without the weights of its root."""
    from autorec.edits import apply, random_edit
    from autorec.seeding import numpy_rng

    edit = random_edit(root.candidate, bench.space, numpy_rng(seed, NAME, number))
    child = apply(root.candidate, edit, bench.space).candidate
    child = replace(child, recipe=bench.space.canonical(child).recipe)
    heir: list[tuple[int, float]] = []
    line = {"parent": number, "edits": (edit.to_json(),), "parents": parents}
    inherited = fit_of(bench, number, child, seed, heir, **line)
    row: dict[str, Any] = {"edit": edit.kind, "argument": edit.argument, "seed": seed}
    if inherited.info.get("inherited") is None:
        return {**row, "refused": inherited.info["not_inherited"]}
    alone: list[tuple[int, float]] = []
    fresh = fit_of(bench, number, child, seed, alone, rows=root.rows)
    return {
        **row,
        "start": heir[0][1],
        "heir": {"rows": inherited.rows, "reached": reached(heir, target)},
        "heir_score": max(score for rows, score in heir if rows),
        "heir_seconds": round(inherited.seconds, 2),
        "alone": {"rows": fresh.rows, "reached": reached(alone, target)},
        "alone_score": max(score for _, score in alone),
        "alone_seconds": round(fresh.seconds, 2),
    }


def measure(bench: Bench, name: str, options: Any) -> dict[str, Any]:
    """Return the rows of one root."""
    from autorec.train.inherit import Parents

    candidate = bench.space.canonical(bench.space.named()[name])
    found: list[dict[str, Any]] = []
    roots = []
    for seed in range(options.seeds):
        parents = Parents(options.folder / "parents" / f"{name}-{seed}")
        root, history = root_of(bench, parents, 0, candidate, seed, rows=options.rows)
        score = max(value for _, value in history)
        roots.append({"seed": seed, "score": score, "rows": root.rows, "replay": root.replay})
        for place in range(options.children):
            made = 1000 * seed + place
            row = child_of(bench, parents, root, 0, made, score - options.slack)
            found.append({"root_score": score, "root_rows": root.rows, **row})
            print(name, found[-1], flush=True)
    return {"root": name, "roots": roots, **summary(found), "children": found}


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the children of a root took and won, as shares of its rows."""
    done = [row for row in found if "refused" not in row]
    facts: dict[str, Any] = {"trained": len(done), "refused": len(found) - len(done)}
    for who in ("heir", "alone"):
        shares = [r[who]["reached"] / r["root_rows"] for r in done if r[who]["reached"]]
        facts[f"{who}_reached"] = len(shares)
        if done:
            gains = [row[f"{who}_score"] - row["root_score"] for row in done]
            facts[f"{who}_gain"] = spread(gains)
            facts[f"{who}_rows"] = spread([row[who]["rows"] / row["root_rows"] for row in done])
        if shares:
            facts[f"{who}_share"] = spread(shares)
    facts["largest_jump"] = max((abs(r["start"] - r["root_score"]) for r in done), default=0.0)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--roots", nargs="*", default=list(ROOTS))
    parser.add_argument("--children", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=None, help="most rows of a root")
    parser.add_argument("--slack", type=float, default=1e-4)
    parser.add_argument("--data", default="frappe")
    parser.add_argument("--folder", type=Path, help="where encoded columns are, or go")
    parser.add_argument("--name", default=NAME, help="of the result file")
    options = parser.parse_args()
    started = time.perf_counter()
    options.folder = options.folder or Path(tempfile.mkdtemp()) / "run"
    bench = Bench(encoded(options.data, options.folder))
    rows = [measure(bench, name, options) for name in options.roots]
    facts = {"data": options.data, "seeds": options.seeds, "slack": options.slack}
    seconds = round(time.perf_counter() - started)
    print(write(options.name, rows, seconds=seconds, **facts))
    for row in rows:
        print({key: value for key, value in row.items() if key not in ("children", "roots")})


if __name__ == "__main__":
    main()
