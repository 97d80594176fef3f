"""How good is every named architecture on Frappe, with the recipe it was published with?

python experiments/named_frappe.py --seeds 0 1 2 --workers 2
python experiments/named_frappe.py --seeds 3 4 --names FinalMLP FinalNet DESTINE
python experiments/named_frappe.py --precision float32 --result named_frappe_float32 --names DNN
python experiments/named_frappe.py --table

Runs that `results/named_frappe.json` holds for the same candidate are not repeated, so that the
table can be filled in pieces. Given train, validation and test files; the training file is a
reconstruction (its negatives carry re-drawn items), so that figures compare with others on these
very files, and to about .001 AUC with the public leaderboard. Each run selects its epoch on
validation rows and reads the test file once.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from _bench import Bench, encoded
from _filling import fill, kept
from _results import spread

NAME = "named_frappe"
# Test AUC and logloss: BARS leaderboard frappe_x1 (true training file).
BARS = {
    "LR": (0.9356, 0.3076),
    "FM": (0.9671, 0.2065),
    "DNN": (0.9833, 0.1622),
    "Wide&Deep": (0.9841, 0.1490),
    "DeepFM": (0.9842, 0.1482),
    "DCN": (0.9839, 0.1527),
    "DCNv2": (0.9845, 0.1491),
    "xDeepFM": (0.9845, 0.1466),
    "AutoInt+": (0.9848, 0.1490),
    "FiBiNET": (0.9832, 0.1941),
    "PNN": (0.9841, 0.1540),
    "MaskNet": (0.9837, 0.1696),
    "FinalMLP": (0.9861, 0.1484),
    "FinalNet": (0.9857, 0.1311),
    "EDCN": (0.9850, 0.1547),
    "DESTINE": (0.9856, 0.1434),
}
# FuxiCTR 2.3.10 with the published configurations on these very files, seed 2021.
FUXICTR = {
    "DNN": (0.98393, 0.1583),
    "DeepFM": (0.98487, 0.1576),
    "DCNv2": (0.98464, 0.1569),
    "FinalMLP": (0.98554, 0.1499),
    "FinalNet": (0.98437, 0.1372),
}
_BENCH: list[Bench] = []


def _open(folder: str, precision: str | None) -> None:
    import torch

    torch.set_num_threads(1)
    _BENCH.append(Bench(Path(folder), precision))


def _one(name: str, seed: int) -> dict[str, Any]:
    bench = _BENCH[0]
    candidate = bench.space.named()[name]
    return {
        "name": name,
        "seed": seed,
        "key": bench.space.key(candidate),
        **bench.measure(candidate, seed),
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row["test"] for row in rows if row["name"] == name]
        found[name] = {m: spread([row[m] for row in own]) for m in ("auc", "logloss")}
        found[name]["seeds"] = len(own)
    return dict(sorted(found.items(), key=lambda pair: -pair[1]["auc"]["mean"]))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown, best mean AUC first."""
    out = [
        "| model | seeds | test AUC | test logloss | FuxiCTR, same files | BARS |",
        "|---|---|---|---|---|---|",
    ]
    for name, own in _summary(rows).items():
        auc, loss = own["auc"], own["logloss"]
        peers = [
            f"{known[name][0]} / {known[name][1]}" if name in known else "-"
            for known in (FUXICTR, BARS)
        ]
        figures = [f"{m['mean']:.5f} ± {m['std']:.5f}" for m in (auc, loss)]
        out.append(f"| {name} | {own['seeds']} | {' | '.join(figures)} | {' | '.join(peers)} |")
    return "\n".join(out)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=1e9, help="start no run after this")
    parser.add_argument("--folder", type=Path, help="where encoded columns are, or go")
    parser.add_argument("--precision", help="float32 or bfloat16; what suits the machine if absent")
    parser.add_argument("--result", default=NAME)
    parser.add_argument("--table", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Train what is asked for and not yet known, and write it after every run."""
    asked = _asked()
    rows = kept(asked.result)
    if asked.table:
        print(table(rows))
        return
    folder = encoded("frappe", asked.folder or Path(tempfile.mkdtemp()) / "run")
    named = Bench(folder).space
    keys = {name: named.key(candidate) for name, candidate in named.named().items()}
    rows = [row for row in rows if row["key"] == keys.get(row["name"])]
    done = {(row["name"], row["seed"]) for row in rows}
    wanted = [(n, s) for s in asked.seeds for n in asked.names or keys if (n, s) not in done]
    fill(
        asked.result,
        rows,
        wanted,
        _one,
        lambda found: {"summary": _summary(found)},
        workers=asked.workers,
        minutes=asked.minutes,
        begin=_open,
        given=(str(folder), asked.precision),
    )
    print(table(rows))


if __name__ == "__main__":
    main()
