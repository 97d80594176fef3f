"""Id tables in training: one gradient row a touched row, and an optimiser state in one place.

A batch reads some thousand rows of a table. Their gradients come back one a lookup, are added up by
row, and update those rows alone. What a table's other rows do at that step is the rule's affair:

- the rules of `ALGOS` (`adam`, `sgd`, ...) are those of dense training: L2 and weight decay pull
  every row at every step, and Adam's momentum moves rows long after they were read;
- `lazy_adam` and its like leave every other row where it is, with L2 and decay of touched rows
  only and bias corrections by the steps of the row itself. Their cost does not grow with the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from autorec.errors import ConfigError
from autorec.kernels._rules import ALGOS, Rows, Rule, State, advance, new_state, put, take
from autorec.kernels.embedding_gather import embedding_gather
from autorec.kernels.embedding_plan import Plan, embedding_plan
from autorec.kernels.embedding_update import row_sums
from autorec.train.average import Decay

LAZY = "lazy_"
OPTIMIZERS = (*ALGOS, *(LAZY + algo for algo in ALGOS))
# Numbers that one pass works on: with what it keeps of them they stay in a core's cache.
_PIECE = 1 << 17
# sup |m| / sqrt(v) of Adam at (0.9, 0.999), by Cauchy and Schwarz: no weight moves further in a
# step than this many learning rates. A step of Adagrad is at most one.
_REACH = {"adam": 7.3, "rowwise_adam": 7.3, "adagrad": 1.0, "rowwise_adagrad": 1.0}


def rule_of(name: str, *, l2: float, weight_decay: float) -> tuple[Rule, bool]:
    """Return the rule that `name` means, and whether it is a lazy one.

    Raises:
        ConfigError: `name` is none of `OPTIMIZERS`.
    """
    if name not in OPTIMIZERS:
        raise ConfigError(
            f"table_optimizer must be one of {', '.join(OPTIMIZERS)}, but got {name!r}; "
            "choose one of them"
        )
    lazy = name.startswith(LAZY)
    return Rule(name.removeprefix(LAZY), l2=l2, weight_decay=weight_decay), lazy


def moves_all(rule: Rule, lazy: bool) -> bool:
    """Tell whether rows that no batch touches move at every step under a rule.

    They then cost a pass over the table a step, however it is put: replaying them later, row by
    row, takes as many operations. A pass is bound by the root and the divisions of Adam and not by
    memory: 0.6 ns a weight on 20 M weights, 0.5 on 0.1 M that stay in cache (one core of an AMD
    EPYC, torch 2.13, 2026-11-23), so that a replay of many steps at once would win a sixth.
    """
    return not lazy and (rule.l2 > 0 or rule.weight_decay > 0 or rule.adaptive)


class Plans:
    """The plan of the ids that were read last, for tables that are read alike."""

    def __init__(self) -> None:
        self.last: tuple[Tensor, int, Plan] | None = None

    def of(self, keys: Tensor, n: int) -> Plan:
        """Return the plan of row numbers (E,) in a table of `n` rows."""
        if self.last is not None and self.last[1] == n and torch.equal(keys, self.last[0]):
            return self.last[2]
        plan = embedding_plan(keys, n=n)
        self.last = (keys, n, plan)
        return plan


class IdTable:
    """One table (N, D) in training.

    Attributes:
        state: moments and counters of its optimiser, by row.
        shadow: average of the weights, or None.
    """

    def __init__(self, table: nn.Parameter, rule: Rule, *, lazy: bool, decay: Decay | None) -> None:
        self.table = table.detach()
        self.rule, self.lazy, self.decay = rule, lazy, decay
        self.state: State = new_state(self.table, rule.algo)
        self.shadow = None if decay is None else self.table.clone()
        self.whole = moves_all(rule, lazy)
        self.reads: list[tuple[Tensor, Tensor]] = []
        self.norm_bound = math.inf

    def read(self, rows: Tensor) -> Tensor:
        """Return rows (B, n, D) of int (B, n) as a leaf whose gradient `collect` takes."""
        with torch.no_grad():
            found: Any = embedding_gather(self.table, rows)
        leaf: Tensor = found.requires_grad_()
        self.reads.append((rows, leaf))
        return leaf

    def collect(self, plans: Plans) -> None:
        """Add up the gradients of all reads by row."""
        seen = [(rows, found.grad) for rows, found in self.reads if found.grad is not None]
        self.reads = []
        keys = [rows.flatten() for rows, _ in seen] or [torch.zeros(0, dtype=torch.int32)]
        width = self.table.shape[1]
        grads = [grad.reshape(-1, width) for _, grad in seen if grad is not None]
        joined = keys[0] if len(keys) == 1 else torch.cat(keys)
        plan = plans.of(joined.to(self.table.device), len(self.table))
        self.rows = plan.rows[: int(plan.runs)].long()
        flat = torch.cat(grads) if len(grads) != 1 else grads[0]
        self.sums = row_sums(flat, plan) if grads else self.table[:0]
        self.work = take(self.table, self.state, self.rows)

    def square(self, *, exact: bool) -> float:
        """Return the squared norm of the dense gradient, L2 of all rows included.

        Not `exact`: an upper bound that needs no pass over the table, where one would be needed.
        """
        l2 = self.rule.l2
        if self.lazy or not l2:
            return _square(self.sums.add(self.work.w, alpha=l2) if l2 else self.sums)
        if not exact:
            return (math.sqrt(_square(self.sums)) + l2 * self.norm_bound) ** 2
        norm = _square(self.table)
        self.norm_bound = math.sqrt(norm) * (1 + 1e-5)
        return _square(self.sums.add(self.work.w, alpha=l2)) + l2**2 * (norm - _square(self.work.w))

    def step(self, number: int, lr: float, scale: float) -> None:
        """Take step `number` of the run (from 1) with the collected gradient times `scale`."""
        rule = self.rule if scale == 1.0 else replace(self.rule, l2=self.rule.l2 * scale)
        rate = torch.tensor([lr], dtype=self.work.w.dtype, device=self.table.device)
        sums = self.sums if scale == 1.0 else self.sums.mul_(scale)
        reach = lr * _REACH.get(rule.algo, math.inf)
        self.norm_bound += reach * math.sqrt(self.table.numel())
        before = None
        if self.shadow is not None and not self.whole:
            before = self._averaged(self.rows, self.work.w, number - 1)
        advance(self.work, sums, rate, rule)
        if self.whole:
            for piece in self._pieces():
                advance(piece, None, rate, rule)
        put(self.table, self.state, self.rows, self.work)
        if before is not None and self.shadow is not None and self.decay is not None:
            before.lerp_(self.work.w.to(before.dtype), 1 - self.decay.at(number))
            self.shadow.index_copy_(0, self.rows, before)
        elif self.shadow is not None and self.decay is not None:
            self.shadow.lerp_(self.table, 1 - self.decay.at(number))
        if before is not None:
            self.state.last.index_fill_(0, self.rows, number)

    def flush(self, number: int) -> None:
        """Bring all rows to the end of step `number`: before an evaluation, saving or growth."""
        if self.shadow is not None and not self.whole:
            for rows in self._row_pieces():
                self.shadow[rows] = self._averaged(rows, self.table[rows], number)
        self.state.last.fill_(number)

    def swap(self) -> None:
        """Exchange the weights and their average."""
        if self.shadow is None:
            return
        for rows in self._row_pieces():
            held = self.table[rows].clone()
            self.table[rows] = self.shadow[rows]
            self.shadow[rows] = held

    def _averaged(self, rows: Tensor | slice, w: Tensor, number: int) -> Tensor:
        """Return the average (R, D) of rows after step `number`, their weights w unchanged since
        the step that is noted.
        """
        if self.shadow is None or self.decay is None:
            return w
        left = self.decay.since(self.state.last[rows], number).unsqueeze(1)
        w = w.to(self.shadow.dtype)
        return torch.lerp(w, self.shadow[rows], left.to(self.shadow.dtype))

    def _row_pieces(self) -> Iterator[slice]:
        size = max(1, _PIECE // self.table.shape[1])
        return (slice(begin, begin + size) for begin in range(0, len(self.table), size))

    def _pieces(self) -> Iterator[Rows]:
        first, second, steps, _ = self.state
        for rows in self._row_pieces():
            m, v = (part[rows] if len(part) else part for part in (first, second))
            yield Rows(self.table[rows], m, v, steps[rows].unsqueeze(1))


def _square(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x)) ** 2
