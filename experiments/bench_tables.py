"""What does a training step spend on its id tables, and how does that grow with their rows?

python experiments/bench_tables.py --rows 10000 100000 1000000 10000000 --repeats 15

One table of width 16 read by batches of 4,096 rows and 26 fields, one thread, CPU time, the least
of all repeats: gather, backward, clip and update, without any network. The ids of a batch are as
skewed at every size (10,000 popular ids, spread over the table), so that only the table grows.
`dense` is a dense gradient with whole-table L2, clipping by norm and fused Adam.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from _results import write
from torch import Tensor, nn

from autorec.blocks.embedding import Embedding
from autorec.candidate import Recipe
from autorec.seeding import torch_generator
from autorec.train import optimizers
from autorec.train.optimizers import CLIP_NORM, Optimizers

BATCH, FIELDS, WIDTH, POPULAR, L2 = 4096, 26, 16, 10_000, 1e-5
DENSE = "dense"


class Table(nn.Module):
    """One table and one dense weight."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.embedding = Embedding([rows], width=WIDTH)
        self.base = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor, pull: Tensor) -> Tensor:
        """Ids (B, F) and gradients (B, F, D) to a loss."""
        rows = self.embedding.read(self.embedding.table, ids)
        return (rows * pull).sum() + self.base


def batches(rows: int, fields: int, number: int = 4) -> list[Tensor]:
    """Return int32 ids (B, F), Zipf over `POPULAR` ids (fewer in a smaller table)."""
    generator = torch_generator(0, "ids")
    popular = min(POPULAR, rows)
    place = torch.randperm(rows, generator=generator)[:popular]
    weight = 1 / torch.arange(1, popular + 1, dtype=torch.float64) ** 1.05
    drawn = torch.multinomial(weight, number * BATCH * fields, True, generator=generator)
    return list(place[drawn].to(torch.int32).view(number, BATCH, fields))


def stepper(rows: int, kind: str, fields: int) -> Callable[[int], None]:
    """Return one training step of a table, by turn."""
    module, ids = Table(rows), batches(rows, fields)
    pull = 1e-4 * torch.randn(BATCH, fields, WIDTH, generator=torch_generator(0, "pull"))
    if kind == DENSE:
        return _dense(module, ids, pull)
    recipe = Recipe({"embedding_l2": L2, "table_optimizer": kind})
    optimizers._DENSE_ROWS = 0.0
    found = Optimizers(module, recipe, tables=[module.embedding.table], lookups=1)

    def step(turn: int) -> None:
        with found.reading():
            module(ids[turn % len(ids)], pull).backward()
            found.step(1e-3)

    return step


def _dense(module: Table, ids: list[Tensor], pull: Tensor) -> Callable[[int], None]:
    weights, table = list(module.parameters()), module.embedding.table
    adam = torch.optim.Adam(weights, lr=1e-3, fused=True)

    def step(turn: int) -> None:
        adam.zero_grad(set_to_none=True)
        module(ids[turn % len(ids)], pull).backward()
        if table.grad is not None:
            table.grad.add_(table.detach(), alpha=L2)
        torch.nn.utils.clip_grad_norm_(weights, CLIP_NORM)
        adam.step()

    return step


def measure(rows: int, kind: str, fields: int, repeats: int) -> dict[str, Any]:
    """Return the CPU milliseconds of a step."""
    step, least = stepper(rows, kind, fields), math.inf
    for turn in range(repeats + 2):
        started = time.process_time()
        step(turn)
        if turn >= 2:
            least = min(least, time.process_time() - started)
    found = {"rows": rows, "kind": kind, "fields": fields, "ms": round(1e3 * least, 2)}
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = [10_000, 100_000, 1_000_000, 10_000_000]
    parser.add_argument("--rows", type=int, nargs="+", default=sizes)
    kinds = [DENSE, "adam", "lazy_adam", "lazy_rowwise_adagrad", "lazy_sgd"]
    parser.add_argument("--kinds", nargs="+", default=kinds)
    parser.add_argument("--fields", type=int, default=FIELDS)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--result", default="bench_tables")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        measure(size, kind, options.fields, options.repeats)
        for size in options.rows
        for kind in options.kinds
    ]
    if options.result:
        write(options.result, rows, batch=BATCH, width=WIDTH, popular=POPULAR, l2=L2, threads=1)


if __name__ == "__main__":
    main()
