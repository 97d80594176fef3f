"""What rows missed while no batch touched them: dense training, replayed row by row.

In dense training a whole-table L2, a decoupled decay and the first moment of Adam move every row
at every step. A row that lags is brought up to date before it is read, by as many steps without
a gradient as it missed, each with the learning rate of its own step: the same result as dense
training, to rounding. Where nothing decays and the first moment has died out (after
`Rule.replayed` steps) the rest is done at once, the moments by powers of their decay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autorec.kernels._dispatch import choice, on_triton, op
from autorec.kernels._jit import Arg, blocks, constexpr, device, power_of_two, tl
from autorec.kernels._law import Case, Inputs
from autorec.kernels._rules import (
    ALGOS,
    Rows,
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
from autorec.kernels._sums import accumulator, need_table
from autorec.kernels.embedding_plan import Plan, all_rows, embedding_plan

_KERNEL = "embedding_catch_up"


def embedding_catch_up_(
    table: Tensor,
    state: State,
    plan: Plan | None = None,
    *,
    rule: Rule,
    lr: float | Tensor,
    step: int | Tensor,
    backend: str | None = None,
) -> None:
    """Bring rows up to date in place, as if every step up to `step` had been dense.

    In a training step t: catch up the rows of the plan to t - 1, gather, backward, update at t.
    Before evaluation, saving or growth: catch up without a plan, which takes all rows.

    Args:
        table: (N, D), contiguous.
        state: of `new_state`; changed.
        plan: rows to bring up; none: all rows.
        rule: optimiser of the run.
        lr: learning rate, or all of them by step (steps + 1,) on the device.
        step: last step that is done.
        backend: "torch", "triton" or "auto".

    Raises:
        ConfigError: the table is not contiguous.
    """
    need_table(table)
    touched = all_rows(table) if plan is None else plan
    _catch_up(
        table,
        list(state),
        [touched.rows, touched.runs],
        [history(lr, table), at_step(step, table)],
        algo=rule.algo,
        constants=[rule.eps, rule.beta1, rule.beta2, rule.l2, rule.weight_decay],
        backend=choice(backend),
    )


def reference(
    table: Tensor,
    state: State,
    plan: Plan | None = None,
    *,
    rule: Rule,
    lr: float | Tensor,
    step: int,
) -> None:
    """Do the same row by row and step by step, never at once."""
    lrs = history(lr, table)
    rows = range(len(table)) if plan is None else plan.rows[: int(plan.runs)].tolist()
    for row in rows:
        at = torch.tensor([row])
        found = take(table, state, at)
        for missed in range(int(state.last[row]) + 1, step + 1):
            now = float(lrs[missed if len(lrs) > 1 else 0])
            found = plain_step(found, torch.zeros_like(found.w), now, rule)
        put(table, state, at, found)
        state.last[row] = max(step, int(state.last[row]))


def cases() -> list[Case]:
    """Return the shapes that the law is held to."""
    found, bounds = [], {torch.float64: 1e-13, torch.float32: 5e-6}
    decays = {"none": (0.0, 0.0), "l2": (0.02, 0.0), "decay": (0.0, 0.05)}
    named = ("table", "state")
    for algo in ALGOS:
        for kind, (l2, decay) in decays.items():
            rule = Rule(algo, l2=l2, weight_decay=decay, beta1=0.3)
            make = _maker(5, 6, rule, whole=kind == "l2")
            found.append(Case(f"{algo}_{kind}", make, bounds, (), named))
        for d in (16, 64) if algo in ("rowwise_adagrad", "adam") else (16,):
            make = _maker(2000, d, Rule(algo, l2=0.01), whole=False)
            bound = {torch.float32: 5e-6}
            found.append(Case(f"{algo}_real_d{d}", make, bound, (), named, shape_class=True))
    return found


def _maker(n: int, d: int, rule: Rule, *, whole: bool) -> Any:
    def make(generator: torch.Generator, dtype: torch.dtype) -> Inputs:
        ids = torch.randint(-1, n, (n,), generator=generator, dtype=torch.int32)
        table = torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype)
        state = new_state(table, rule.algo)
        for part in state[:2]:
            part.copy_(torch.rand(part.shape, generator=generator, dtype=torch.float64))
        state.last.copy_(torch.randint(0, 40, (n,), generator=generator))
        state.steps.copy_(state.last - torch.randint(0, 2, (n,), generator=generator))
        state.steps.clamp_(min=0)
        plan = None if whole else embedding_plan(ids, n=n)
        lrs = torch.linspace(0.1, 0.05, 42, dtype=accumulator(dtype))
        return {"table": table, "state": state, "plan": plan, "rule": rule, "lr": lrs, "step": 40}

    return make


@op("embedding_catch_up_", mutates=("table", "state"))
def _catch_up(
    table: Tensor,
    state: list[Tensor],
    plan: list[Tensor],
    times: list[Tensor],
    *,
    algo: str,
    constants: list[float],
    backend: str,
) -> None:
    rule, (rows, runs), (lrs, step) = Rule(algo, *constants), plan, times
    if not on_triton(_KERNEL, table, backend):
        _catch_up_torch(table, State(*state), rows[: int(runs)].long(), times, rule)
        return
    first, second, count, last = state
    wide = power_of_two(table.shape[1])
    block = max(min(1024 // wide, 32), 2)
    held = (table, *(part if len(part) else table for part in (first, second)), count, last)
    replayed = rule.replayed(table.dtype)
    longest = 2**30 if replayed < 0 else replayed
    numbers = (min(len(lrs) - 1, 1), longest, rule.l2, rule.weight_decay)
    sizes = {"BR": block, "BD": wide, "ROW": second.shape[1] != table.shape[1]}
    sizes |= device_sizes(table, rule)
    pointers = (*held, rows, runs, lrs, step)
    _replay.launch(blocks(len(rows), block), *pointers, *numbers, **sizes)


@_catch_up.register_fake  # type: ignore[untyped-decorator]
def _(*args: Any, **options: Any) -> None:
    return None


def _catch_up_torch(
    table: Tensor, state: State, rows: Tensor, times: list[Tensor], rule: Rule
) -> None:
    """Replay rows sorted by what they missed, the longest first, so that all slices are views."""
    lrs, until = times[0], int(times[1])
    missed = until - state.last.index_select(0, rows)
    missed, by_gap = torch.sort(missed.clamp_(min=0), descending=True, stable=True)
    behind = int((missed > 0).sum())
    missed, rows = missed[:behind], rows[by_gap[:behind]]
    if not behind:
        return
    found = take(table, state, rows)
    replayed = rule.replayed(table.dtype)
    steps = missed.clamp(max=replayed) if replayed >= 0 else missed
    done = (until - missed).unsqueeze(1)
    left = (len(steps) - steps.flip(0).bincount().cumsum(0)).tolist()
    for k in range(1, int(steps[0]) + 1):
        n = left[k - 1]
        now = lrs[done[:n] + k] if len(lrs) > 1 else lrs
        advance(found.head(n), None, now, rule)
    _at_once(found, (missed - steps).unsqueeze(1), rule)
    put(table, state, rows, found)
    state.last.index_fill_(0, rows, until)


def _at_once(found: Rows, rest: Tensor, rule: Rule) -> None:
    """Do the steps that move no weight any more."""
    found.steps.add_(rest)
    if rule.adaptive:
        found.first.mul_(rule.beta1 ** rest.to(found.w.dtype))
        found.second.mul_(rule.beta2 ** rest.to(found.w.dtype))


@device
def _replay(
    table: Arg,
    first: Arg,
    second: Arg,
    count: Arg,
    last: Arg,
    rows: Arg,
    runs: Arg,
    lrs: Arg,
    step: Arg,
    stride: Arg,
    longest: Arg,
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
    until = tl.load(step)
    before = tl.load(last + row, mask=live, other=2147483647)
    c = tl.load(count + row, mask=live, other=0)
    missed = tl.where(live, tl.maximum(until - tl.minimum(before, until), 0), 0)
    steps = tl.minimum(missed, longest)
    for k in range(1, tl.max(steps, axis=0) + 1):
        now = k <= steps
        lr = tl.load(lrs + (before + k) * stride, mask=now, other=0.0).to(exact)[:, None]
        age = (c + k)[:, None]
        new_w, new_m, new_v = device_step(w, m, v, 0.0, age, lr, l2, decay, D, ALGO, EPS, B1, B2)
        w = tl.where(now[:, None], new_w, w)
        m = tl.where(now[:, None], new_m, m)
        v = tl.where(now[:, None], new_v, v)
    if ALGO >= 3:
        rest = (missed - steps).to(exact)[:, None]
        m = m * tl.exp(rest * tl.log(tl.full(rest.shape, B1, exact)))
        v = v * tl.exp(rest * tl.log(tl.full(rest.shape, B2, exact)))
        tl.store(first + at, m.to(first.dtype.element_ty), mask=keep)
    tl.store(table + at, w.to(table.dtype.element_ty), mask=keep)
    if ROW and ALGO > 0:
        tl.store(second + row[:, None], v.to(second.dtype.element_ty), mask=live[:, None])
    elif ALGO > 0:
        tl.store(second + at, v.to(second.dtype.element_ty), mask=keep)
    tl.store(count + row, c + missed, mask=live)
    tl.store(last + row, tl.maximum(before, until), mask=live)
