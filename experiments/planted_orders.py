"""Which interactions can each block see? Simulated logs with one planted cross of order 2, 3 or 4.

python experiments/planted_orders.py --seeds 0 1 2 --workers 2
python experiments/planted_orders.py --table

A planted cross of order k is a product of k signs, invisible to whoever lacks one of its fields, on
top of main effects; the log knows its Bayes AUC. Every block stands alone between one id table and
the head, beside a linear term that takes the main effects, with one recipe for all, of a fixed
number of epochs. Reported is the share (AUC - A) / (B - A) of validation rows: B is the Bayes AUC
and A what the linear term reaches.
`residual = low rank` pairs the Residual DCN with a low-rank DCNv2 of as many parameters.
Runs that `results/planted_orders.json` holds are not repeated.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from _filling import fill, kept
from _results import spread

from autorec.architecture import Node
from autorec.build import cost
from autorec.candidate import Candidate, Recipe
from autorec.search_spaces.ctr import CtrSpace

NAME = "planted_orders"
ROWS, WIDTH = 60_000, 8
ORDERS = (2, 3, 4)
# A product of signs tells nothing until all of them are known: early stopping would end most runs
# on that plateau, which says more about patience than about blocks.
RECIPE: dict[str, Any] = {
    "lr": 1e-2,
    "embedding_l2": 1e-6,
    "batch_size": 256,
    "schedule": "cosine",
    "epochs": 16,
    "ema": 0.0,
    "distil": "none",
}
PAIR = ("residual = low rank, residual", "residual = low rank, low rank")


def log(order: int, seed: int) -> Any:
    """Return a log with one planted cross among four small contexts."""
    from autorec.data.simulate import simulate

    contexts = {"device": 4, "page": 6, "channel": 6, "region": 8}
    return simulate(
        ROWS,
        users=20,
        items=20,
        contexts=contexts,
        order=order,
        strength=1.5,
        numeric=0,
        genres=0,
        position_bias=0.0,
        seed=seed,
    )


def candidates(space: CtrSpace) -> dict[str, Candidate]:
    """Return one network per block, by the name of the block, and the linear model."""
    recipe = Recipe(RECIPE)

    def alone(*nodes: Node) -> Candidate:
        return space.network(nodes, recipe, width=WIDTH, linear=True)

    found = {"linear term": alone()}
    found |= {kind: alone(space.node(kind)) for kind in space.kinds}
    residual = alone(space.node("cross_residual", layers=3, rank=8, heads=1, parallel=True))
    wanted = cost(space.canonical(residual), space.layout)[0]
    plain = [alone(space.node("cross_lowrank", layers=3, rank=rank)) for rank in range(4, 65)]
    nearest = min(plain, key=lambda c: abs(cost(space.canonical(c), space.layout)[0] - wanted))
    return {**found, PAIR[0]: residual, PAIR[1]: nearest}


def _one(name: str, order: int, seed: int) -> dict[str, Any]:
    import torch
    from _bench import Bench

    from autorec.prepare import Options, Roles, prepare

    torch.set_num_threads(1)
    made = log(order, seed)
    folder = Path(tempfile.gettempdir()) / f"autorec-planted-{os.getpid()}-{order}-{seed}"
    if not (folder / "run.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        kinds = {"position": "categorical"}
        table = made.table.drop_columns(["ts"])
        roles = Roles("click", "user", "item", feature_types=kinds)
        prepare(folder, table, None, roles, Options(task="ctr", split="random"), lambda _: None)
    bench = Bench(folder)
    candidate = candidates(bench.space)[name]  # type: ignore[arg-type]
    found = bench.measure(candidate, seed, rows=20 * bench.data.train.n_rows)
    auc = found["valid"]["auc"]
    own = {"name": name, "order": order, "seed": seed, "auc": auc, "bayes": made.bayes_auc}
    return {**own, "params": found["params"], "cpu_s": found["cpu_s"], "epochs": found["epochs"]}


def _summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    base = {(r["order"], r["seed"]): r["auc"] for r in rows if r["name"] == "linear term"}
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        low = base.get((row["order"], row["seed"]))
        if low is not None and row["name"] != "linear term":
            share = (row["auc"] - low) / (row["bayes"] - low)
            found.setdefault(row["name"], {}).setdefault(str(row["order"]), []).append(share)
    shares = {
        name: {order: spread(values) for order, values in orders.items()}
        for name, orders in found.items()
    }
    return dict(sorted(shares.items(), key=lambda kv: -sum(s["mean"] for s in kv[1].values())))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown, best sum of shares first."""
    out = ["| block | order 2 | order 3 | order 4 |", "|---|---|---|---|"]
    for name, orders in _summary(rows).items():
        cells = [
            f"{100 * orders[str(k)]['mean']:.0f} ± {100 * orders[str(k)]['std']:.0f}"
            if str(k) in orders
            else "-"
            for k in ORDERS
        ]
        out.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(out)


def main() -> None:
    """Train what is asked for and not yet known, and write it after every run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=1e9, help="start no run after this")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    rows = kept(NAME)
    if asked.table:
        print(table(rows))
        return
    kinds = ["linear term", *_kinds(), *PAIR]
    done = {(row["name"], row["order"], row["seed"]) for row in rows}
    every = [(n, k, s) for s in asked.seeds for k in ORDERS for n in kinds]
    wanted = [job for job in every if job not in done]
    fill(
        NAME,
        rows,
        wanted,
        _one,
        lambda found: {"recipe": RECIPE, "shares": _summary(found)},
        workers=asked.workers,
        minutes=asked.minutes,
    )
    print(table(rows))


def _kinds() -> list[str]:
    from autorec.schema import Layout, SparseField

    return list(CtrSpace(Layout(sparse=(SparseField("a", 9, "a"),))).kinds)


if __name__ == "__main__":
    main()
