"""One optimiser step on the touched rows of a table, without a gradient of its size.

Gradient rows of equal ids are added up in the order of the batch before any square (float32
sums, float64 for float64 tables), so the result is that of dense training on those rows and does
not depend on chance. What an untouched row would have done in dense training is made up for by
`embedding_catch_up_`; without it the rules are the lazy ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autorec.errors import ConfigError
from autorec.kernels._dispatch import choice, on_triton, op
from autorec.kernels._jit import Arg, blocks, constexpr, device, power_of_two, tl
from autorec.kernels._law import SUMS, Case, Inputs
from autorec.kernels._rules import (
    ALGOS,
    Rule,
    State,
    advance,
    at_step,
    device_sizes,
    device_step,
    history,
    new_state,
    plain_step,
    put,
    take,
)
from autorec.kernels._sums import accumulator
from autorec.kernels.embedding_plan import Plan, embedding_plan

_KERNEL = "embedding_update"


def embedding_update_(
    table: Tensor,
    state: State,
    grad: Tensor,
    plan: Plan,
    *,
    rule: Rule,
    lr: float | Tensor,
    step: int | Tensor,
    scale: Tensor | None = None,
    backend: str | None = None,
) -> None:
    """Update the rows of `plan` in place.

    Args:
        table: (N, D), contiguous.
        state: of `new_state`; changed.
        grad: gradient of each lookup, (..., D), in the order of the ids of the plan.
        plan: of the same batch.
        rule: optimiser.
        lr: learning rate, or all of them by step (steps + 1,) on the device.
        step: number of this step in the run, from 1; a tensor (1,) int32 for captured graphs.
        scale: (1,) factor of the gradient: clipping, or the inverse of a loss scale.
        backend: "torch", "triton" or "auto".

    Raises:
        ConfigError: the gradient does not fit the plan, or the table is not contiguous.
    """
    if not table.is_contiguous() or grad.shape[-1:] != table.shape[1:]:
        raise ConfigError(
            f"the gradient must be (..., D) of a contiguous table (N, D), got "
            f"{tuple(grad.shape)} and {tuple(table.shape)} with strides {table.stride()}"
        )
    rows = grad.reshape(-1, table.shape[1])
    if len(rows) != len(plan.order):
        raise ConfigError(
            f"the gradient must have a row for each lookup of the plan, got {len(rows)} rows and "
            f"{len(plan.order)} lookups; pass the plan of the same batch"
        )
    factor = torch.ones(1, dtype=accumulator(table.dtype), device=table.device)
    _update(
        table,
        list(state),
        rows.contiguous(),
        list(plan),
        [history(lr, table), at_step(step, table), factor if scale is None else scale],
        algo=rule.algo,
        constants=[rule.eps, rule.beta1, rule.beta2, rule.l2, rule.weight_decay],
        backend=choice(backend),
    )


def row_sums(grad: Tensor, plan: Plan) -> Tensor:
    """Return the gradient (R, D) of each touched row, for a norm; torch only, R is read back."""
    runs = int(plan.runs)
    bounds = plan.bounds[: runs + 1].long()
    flat = grad.reshape(-1, grad.shape[-1])
    flat = flat.to(accumulator(grad.dtype))
    if not runs:
        return flat[:0]
    return torch.nn.functional.embedding_bag(
        plan.order[: int(bounds[-1])], flat, bounds, mode="sum", include_last_offset=True
    )


def reference(
    table: Tensor,
    state: State,
    grad: Tensor,
    plan: Plan,
    *,
    rule: Rule,
    lr: float | Tensor,
    step: int,
    scale: Tensor | None = None,
) -> None:
    """Do the same row by row and lookup by lookup."""
    lrs = history(lr, table)
    now = float(lrs[step if len(lrs) > 1 else 0])
    flat = grad.reshape(-1, table.shape[1])
    for run in range(int(plan.runs)):
        row = plan.rows[run : run + 1].long()
        total = torch.zeros_like(flat[:1])
        for position in plan.order[plan.bounds[run] : plan.bounds[run + 1]].tolist():
            total = total + flat[position]
        total = (total if scale is None else total * scale).to(accumulator(table.dtype))
        put(table, state, row, plain_step(take(table, state, row), total, now, rule))
        state.last[row] = step


def cases() -> list[Case]:
    """Return the shapes that the law is held to."""
    found = []
    for algo in ALGOS:
        for b, n, d in [(50, 7, 8), (64, 1, 10), (1, 1, 1), (0, 5, 4)]:
            make = _maker(b, n, d, algo)
            found.append(Case(f"{algo}_b{b}n{n}d{d}", make, _BOUNDS, (), ("table", "state")))
        for d in (16, 64) if algo in ("rowwise_adagrad", "adam") else (16,):
            make = _maker(4096, 2000, d, algo)
            bound = {torch.float32: 5e-6}
            named = ("table", "state")
            found.append(Case(f"{algo}_real_d{d}", make, bound, (), named, shape_class=True))
    return found


_BOUNDS = {torch.float64: SUMS[torch.float64], torch.float32: SUMS[torch.float32]}


def _maker(b: int, n: int, d: int, algo: str) -> Any:
    def make(generator: torch.Generator, dtype: torch.dtype) -> Inputs:
        rule = Rule(algo, l2=0.01, weight_decay=0.02)
        ids = torch.randint(-1, n, (b,), generator=generator, dtype=torch.int32)
        table, grad = (
            torch.randn(size, d, generator=generator, dtype=torch.float64).to(dtype)
            for size in (n, b)
        )
        state = new_state(table, algo, step=4)
        for part in state[:2]:
            part.copy_(torch.rand(part.shape, generator=generator, dtype=torch.float64))
        state.steps.copy_(torch.randint(0, 9, (n,), generator=generator))
        plan = embedding_plan(ids, n=n)
        lrs = torch.linspace(0.1, 0.05, 9, dtype=accumulator(dtype))
        scale = torch.full((1,), 0.5, dtype=accumulator(dtype))
        named = {"rule": rule, "lr": lrs, "step": 5, "scale": scale}
        return {"table": table, "state": state, "grad": grad, "plan": plan, **named}

    return make


@op("embedding_update_", mutates=("table", "state"))
def _update(
    table: Tensor,
    state: list[Tensor],
    grad: Tensor,
    plan: list[Tensor],
    times: list[Tensor],
    *,
    algo: str,
    constants: list[float],
    backend: str,
) -> None:
    rule = Rule(algo, *constants)
    if not on_triton(_KERNEL, table, backend):
        _update_torch(table, State(*state), grad, Plan(*plan), times=times, rule=rule)
        return
    first, second, count, last = state
    order, rows, bounds, runs = plan
    wide = power_of_two(table.shape[1])
    block = max(min(1024 // wide, 32), 2)
    held = (table, *(part if len(part) else table for part in (first, second)), count, last)
    lrs, step, scale = times
    pointers = (*held, grad, order, rows, bounds, runs, lrs, step, scale)
    numbers = (min(len(lrs) - 1, 1), rule.l2, rule.weight_decay)
    sizes = {"BR": block, "BD": wide, "ROW": second.shape[1] != table.shape[1]}
    sizes |= device_sizes(table, rule)
    _update_rows.launch(blocks(len(rows), block), *pointers, *numbers, **sizes)


@_update.register_fake  # type: ignore[untyped-decorator]
def _(*args: Any, **options: Any) -> None:
    return None


def _update_torch(
    table: Tensor, state: State, grad: Tensor, plan: Plan, *, times: list[Tensor], rule: Rule
) -> None:
    lrs, step, scale = times
    touched = plan.rows[: int(plan.runs)].long()
    total = row_sums(grad.to(accumulator(table.dtype)), plan).mul_(scale)
    rows = take(table, state, touched)
    advance(rows, total, lrs[int(step) if len(lrs) > 1 else 0].reshape(1), rule)
    put(table, state, touched, rows)
    state.last.index_fill_(0, touched, int(step))


@device
def _update_rows(
    table: Arg,
    first: Arg,
    second: Arg,
    count: Arg,
    last: Arg,
    grad: Arg,
    order: Arg,
    rows: Arg,
    bounds: Arg,
    runs: Arg,
    lrs: Arg,
    step: Arg,
    scale: Arg,
    stride: Arg,
    l2: Arg,
    decay: Arg,
    BR: constexpr,
    BD: constexpr,
    ROW: constexpr,
    D: constexpr,
    ALGO: constexpr,
    EPS: constexpr,
    B1: constexpr,
    B2: constexpr,
    DOUBLE: constexpr,
) -> None:
    exact = tl.float64 if DOUBLE else tl.float32
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    d = tl.arange(0, BD)
    live = r < tl.load(runs)
    keep = live[:, None] & (d < D)[None, :]
    begin = tl.load(bounds + r, mask=live, other=0)
    end = tl.load(bounds + r + 1, mask=live, other=0)
    g = tl.zeros((BR, BD), exact)
    for k in range(0, tl.max(end - begin, axis=0)):
        more = begin + k < end
        position = tl.load(order + begin + k, mask=more, other=0)
        mask = more[:, None] & (d < D)[None, :]
        g += tl.load(grad + position[:, None] * D + d[None, :], mask=mask, other=0.0).to(exact)
    g = g * tl.load(scale).to(exact)
    row = tl.load(rows + r, mask=live, other=0).to(tl.int64)
    at = row[:, None] * D + d[None, :]
    w = tl.load(table + at, mask=keep, other=0.0).to(exact)
    m, v = w, w
    if ALGO >= 3:
        m = tl.load(first + at, mask=keep, other=0.0).to(exact)
    if ROW and ALGO > 0:
        v = tl.load(second + row, mask=live, other=1.0).to(exact)[:, None]
    elif ALGO > 0:
        v = tl.load(second + at, mask=keep, other=1.0).to(exact)
    c = tl.load(count + row, mask=live, other=0) + 1
    now = tl.load(step)
    lr = tl.load(lrs + now * stride).to(exact)
    w, m, v = device_step(w, m, v, g, c[:, None], lr, l2, decay, D, ALGO, EPS, B1, B2)
    tl.store(table + at, w.to(table.dtype.element_ty), mask=keep)
    if ALGO >= 3:
        tl.store(first + at, m.to(first.dtype.element_ty), mask=keep)
    if ROW and ALGO > 0:
        tl.store(second + row[:, None], v.to(second.dtype.element_ty), mask=live[:, None])
    elif ALGO > 0:
        tl.store(second + at, v.to(second.dtype.element_ty), mask=keep)
    tl.store(count + row, c, mask=live)
    tl.store(last + row, now, mask=live)
