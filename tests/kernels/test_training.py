"""Sparse training is dense training: 200 steps against torch.optim and written-out rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from autorec.kernels._rules import ALGOS, Rule, State, new_state
from autorec.kernels.embedding_catch_up import embedding_catch_up_
from autorec.kernels.embedding_gather import embedding_gather, row_tap
from autorec.kernels.embedding_plan import embedding_plan
from autorec.kernels.embedding_update import embedding_update_, row_sums
from autorec.seeding import torch_generator

N, D, STEPS, CLIP = 40, 4, 200, 0.5


def _ids(step: int) -> Tensor:
    """Skewed ids (6, 2): some rows at every step, some not for a hundred, one never."""
    drawn = torch.rand(6, 2, generator=torch_generator(1, "ids", step))
    return (drawn.pow(4) * (N - 1)).long()


def _loss(rows: Tensor, step: int) -> Tensor:
    goal = torch.randn(6, generator=torch_generator(1, "goal", step), dtype=torch.float64)
    return ((rows.prod(1).sum(1) - goal.to(rows)) ** 2).mean()


def _start(dtype: torch.dtype) -> Tensor:
    drawn = torch.randn(N, D, generator=torch_generator(1, "table"), dtype=torch.float64)
    return (0.7 * drawn).to(dtype)


def _rates() -> Tensor:
    return torch.linspace(0.05, 0.01, STEPS + 1, dtype=torch.float64)


def _factor(norm: Tensor) -> Tensor:
    return (CLIP / (norm + 1e-6)).clamp(max=1.0).reshape(1)


def sparse(rule: Rule, dtype: torch.dtype, *, exact: bool = True) -> tuple[Tensor, State]:
    """Train by gather, tap, plan, catch-up and update, the gradient clipped to norm `CLIP`."""
    table, lrs = _start(dtype), _rates().to(dtype)
    state = new_state(table, rule.algo)
    for step in range(1, STEPS + 1):
        ids = _ids(step)
        plan = embedding_plan(ids, n=N)
        if exact:
            embedding_catch_up_(table, state, plan, rule=rule, lr=lrs, step=step - 1)
        tap = row_tap(table, ids)
        rows = embedding_gather(table, ids, tap=tap)
        assert isinstance(rows, Tensor)
        _loss(rows, step).backward()
        assert tap.grad is not None
        scale = _factor(row_sums(tap.grad, plan).norm())
        embedding_update_(table, state, tap.grad, plan, rule=rule, lr=lrs, step=step, scale=scale)
    if exact:
        embedding_catch_up_(table, state, rule=rule, lr=lrs, step=STEPS)
    return table, state


def dense(make: Callable[[Tensor], Any], *, decay: float = 0.0) -> Tensor:
    """Train the same with a dense gradient in float64."""
    table = _start(torch.float64).requires_grad_()
    optimiser, lrs = make(table), _rates()
    for step in range(1, STEPS + 1):
        optimiser.zero_grad()
        _loss(torch.embedding(table, _ids(step)), step).backward()
        assert table.grad is not None
        table.grad.mul_(_factor(table.grad.norm()))
        for group in optimiser.param_groups:
            group["lr"] = float(lrs[step])
        if decay:
            with torch.no_grad():
                table.mul_(1 - float(lrs[step]) * decay)
        optimiser.step()
    return table.detach()


class Rowwise(torch.optim.Optimizer):
    """Row-wise Adagrad and Adam over a whole table, written out."""

    def __init__(self, table: Tensor, *, adam: bool, l2: float) -> None:
        super().__init__([table], {"lr": 0.0})
        self.adam, self.l2, self.t = adam, l2, 0
        self.m, self.v = torch.zeros_like(table), torch.zeros(N, 1, dtype=table.dtype)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        (group,), self.t = self.param_groups, self.t + 1
        (table,) = group["params"]
        g = table.grad + self.l2 * table
        square = g.square().mean(1, keepdim=True)
        if self.adam:
            self.m = 0.9 * self.m + 0.1 * g
            self.v = 0.999 * self.v + 0.001 * square
            top, bottom = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
            table.sub_(group["lr"] * top / (bottom.sqrt() + 1e-8))
        else:
            self.v += square
            table.sub_(group["lr"] * g / (self.v.sqrt() + 1e-8))


def _twin(algo: str, l2: float) -> Callable[[Tensor], Any]:
    adam = {"eps": 1e-8, "weight_decay": l2}
    return {
        "sgd": lambda table: torch.optim.SGD([table], lr=0.1, weight_decay=l2),
        "adagrad": lambda table: torch.optim.Adagrad([table], eps=1e-8, weight_decay=l2),
        "adam": lambda table: torch.optim.Adam([table], **adam),
        "rowwise_adagrad": lambda table: Rowwise(table, adam=False, l2=l2),
        "rowwise_adam": lambda table: Rowwise(table, adam=True, l2=l2),
    }[algo]


KINDS = [(algo, 0.03, 0.0) for algo in ALGOS]
KINDS += [("sgd", 0.0, 0.0), ("adam", 0.0, 0.0), ("adam", 0.0, 0.3), ("rowwise_adam", 0.0, 0.0)]


@pytest.mark.parametrize(("algo", "l2", "decay"), KINDS)
def test_two_hundred_steps_equal_dense_training(algo: str, l2: float, decay: float) -> None:
    wanted = dense(_twin(algo, l2), decay=decay)
    rule = Rule(algo, l2=l2, weight_decay=decay)
    got, state = sparse(rule, torch.float64)
    assert float((got - wanted).norm() / wanted.norm()) < 1e-11
    assert state.last.unique().tolist() == [STEPS]
    assert state.steps.unique().tolist() == [STEPS]


def test_in_float32_training_is_dense_training_to_rounding() -> None:
    got, _ = sparse(Rule("adam", l2=0.03), torch.float32)
    wanted = dense(_twin("adam", 0.03))
    assert float((got.double() - wanted).norm() / wanted.norm()) < 1e-5


def test_lazy_rows_stay_where_they_are() -> None:
    got, state = sparse(Rule("adam", l2=0.03), torch.float64, exact=False)
    untouched = state.steps == 0
    assert untouched.any() and not untouched.all()
    assert torch.equal(got[untouched], _start(torch.float64)[untouched])
    assert not torch.allclose(got, dense(_twin("adam", 0.03)), atol=1e-3)


def test_training_twice_is_the_same_to_the_bit() -> None:
    first, second = (sparse(Rule("adam", l2=0.01), torch.float32)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_rows_that_come_later_have_their_own_counters() -> None:
    rule, lrs = Rule("adam"), 0.1
    table = _start(torch.float64)
    state = new_state(table, "adam")
    ids = torch.arange(N)
    plan = embedding_plan(ids, n=N)
    for step in range(1, 51):
        embedding_update_(table, state, table.cos(), plan, rule=rule, lr=lrs, step=step)
    fresh = torch.zeros(2, D, dtype=table.dtype)
    table = torch.cat([table, fresh])
    parts = zip(state, new_state(fresh, "adam", step=50))
    state = State(*(torch.cat([old, new]) for old, new in parts))
    plan = embedding_plan(torch.tensor([N]), n=N + 2)
    embedding_catch_up_(table, state, plan, rule=rule, lr=lrs, step=50)
    grad = torch.full((1, D), 3.0, dtype=table.dtype)
    embedding_update_(table, state, grad, plan, rule=rule, lr=lrs, step=51)
    # The first step of Adam has the length of the learning rate.
    assert torch.allclose(table[N], torch.full((D,), -lrs, dtype=table.dtype))
    embedding_catch_up_(table, state, rule=rule, lr=lrs, step=51)
    assert state.steps[[0, N, N + 1]].tolist() == [51, 1, 1]
