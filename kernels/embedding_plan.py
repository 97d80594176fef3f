"""The plan of a batch: which rows it touches and which lookups belong to each.

From ids alone, so that it can be made a batch ahead. Keys are int32 where the table allows; the
sort is stable, so that sums over a run always add in the order of the batch. Sizes do not depend
on the data: results are padded and the number of runs stays on the device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from autorec.errors import ConfigError
from autorec.kernels._dispatch import choice, op
from autorec.kernels._law import Case, Inputs


class Plan(NamedTuple):
    """Runs of equal rows among E lookups.

    Attributes:
        order: (E,) int64 positions of the lookups, sorted by row; those without a row last.
        rows: (E,) distinct rows, ascending; padded with N.
        bounds: (E + 1,) int32 where each run begins in `order`, the end of the last one after it;
            padded with that end.
        runs: (1,) int32 number of runs.
    """

    order: Tensor
    rows: Tensor
    bounds: Tensor
    runs: Tensor


def embedding_plan(
    ids: Tensor, starts: Tensor | None = None, *, n: int, backend: str | None = None
) -> Plan:
    """Return the plan of a batch.

    The same torch operators run on every device, without a synchronisation: on CUDA the sort is
    a radix sort already.

    Args:
        ids: int32 or int64 of any shape; below 0 means no value, and takes part in no run.
        starts: (F,) first row of each field, added to the last axis of `ids`.
        n: rows of the table; every key lies below it.
        backend: accepted as everywhere; both are the same code.

    Raises:
        ConfigError: the table has no rows, or there are 2^31 lookups or more.
    """
    if n < 1 or ids.numel() >= 2**31:
        raise ConfigError(
            f"a plan needs a table with rows and fewer than 2^31 lookups, got n={n} and "
            f"{ids.numel()} lookups; split the batch"
        )
    choice(backend)
    return Plan(*_plan(ids, starts, n))


def all_rows(table: Tensor) -> Plan:
    """Return the plan that touches every row of a table (N, D), without lookups."""
    n = len(table)
    rows = torch.arange(n, dtype=_key_dtype(n), device=table.device)
    bounds = torch.zeros(n + 1, dtype=torch.int32, device=table.device)
    runs = torch.full((1,), n, dtype=torch.int32, device=table.device)
    return Plan(bounds[:0].long(), rows, bounds, runs)


def reference(ids: Tensor, starts: Tensor | None = None, *, n: int) -> Plan:
    """Do the same with a dictionary of lists."""
    keys = (ids if starts is None else torch.where(ids < 0, ids, ids + starts)).flatten().tolist()
    lookups: dict[int, list[int]] = {}
    for position, key in enumerate(keys):
        lookups.setdefault(key if key >= 0 else n, []).append(position)
    rows = sorted(lookups.keys() - {n})
    order = [position for row in sorted(lookups) for position in lookups[row]]
    bounds = [0]
    for row in rows:
        bounds.append(bounds[-1] + len(lookups[row]))
    padding = len(keys) - len(rows)
    return Plan(
        torch.tensor(order, dtype=torch.int64),
        torch.tensor(rows + [n] * padding, dtype=torch.int64),
        torch.tensor(bounds + [bounds[-1]] * padding, dtype=torch.int32),
        torch.tensor([len(rows)], dtype=torch.int32),
    )


def cases() -> list[Case]:
    """Return the shapes that the law is held to."""
    exact = {torch.float32: 0.0}
    shapes = [(7, 3, 50), (64, 5, 2), (1, 1, 1), (0, 2, 5), (200, 1, 3)]
    found = [Case(f"b{b}f{f}n{n}", _maker(b, f, n), exact) for b, f, n in shapes]
    return [*found, Case("all_missing", _maker(9, 2, 0), exact)]


def _maker(b: int, f: int, size: int) -> Any:
    def make(generator: torch.Generator, dtype: torch.dtype) -> Inputs:
        ids = torch.randint(-1, max(size, 0), (b, f), generator=generator, dtype=torch.int32)
        return {"ids": ids, "starts": torch.arange(f) * size, "n": max(size, 1) * f}

    return make


def _key_dtype(n: int) -> torch.dtype:
    return torch.int32 if n < 2**31 - 1 else torch.int64


@op("embedding_plan")
def _plan(ids: Tensor, starts: Tensor | None, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    keys = (ids if starts is None else ids + starts).to(_key_dtype(n))
    keys, order = torch.sort(keys.masked_fill_(ids < 0, n).flatten(), stable=True)
    size, positions = len(keys), torch.arange(len(keys), dtype=torch.int64, device=ids.device)
    # A slot behind the runs takes what is no beginning of one.
    first = keys < n
    first[1:] &= keys[1:] != keys[:-1]
    run = torch.where(first, first.cumsum(0) - 1, size + 1)
    rows = torch.full((size + 2,), n, dtype=keys.dtype, device=ids.device)
    rows.scatter_(0, run, keys)
    known = (keys < n).sum(dtype=torch.int32)
    bounds = known.expand(size + 2).clone()
    bounds.scatter_(0, run, positions.to(torch.int32))
    runs = first.sum(dtype=torch.int32).reshape(1)
    return order, rows[:size].clone(), bounds[: size + 1].clone(), runs


@_plan.register_fake  # type: ignore[untyped-decorator]
def _(ids: Tensor, starts: Tensor | None, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    size = ids.numel()
    return (
        ids.new_empty((size,), dtype=torch.int64),
        ids.new_empty((size,), dtype=_key_dtype(n)),
        ids.new_empty((size + 1,), dtype=torch.int32),
        ids.new_empty((1,), dtype=torch.int32),
    )
