"""One optimiser step of a network: dense weights by Adam, id tables by their own rule.

Small tables are dense weights. Gradients of both, whole-table L2 included, are clipped by one norm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from autorec.blocks._tables import TableBlock
from autorec.candidate import Recipe
from autorec.train.average import Average, Decay
from autorec.train.tables import IdTable, Plans, rule_of

CLIP_NORM = 10.0
# Below this many rows a lookup of a batch a table stays dense. CPU milliseconds of a step's work on
# one table, dense and by rows, width 16: 41,000 lookups, 5,400 rows (Frappe) 3.4 and 3.0; 30,000
# rows 4.2 and 4.6; 106,000 lookups, 100,000 rows 13.4 and 12.6; 1 M rows 63 and 29 (one core of a
# busy AMD EPYC, torch 2.13, 2026-11-23): alike up to the number of lookups, then by rows.
_DENSE_ROWS = 1.0
_EPS = 1e-6  # of torch.nn.utils.clip_grad_norm_


class Optimizers:
    """Everything that one training keeps beside its weights.

    Args:
        module: whose weights are trained.
        recipe: embedding_l2, cross_l2 (of crosses with tables of their own; embedding_l2 where it
            is not given), ema, weight_decay (decoupled, of all weights), table_optimizer.
        tables: parameters under L2.
        lookups: rows that a batch reads of one table.
    """

    def __init__(
        self,
        module: nn.Module,
        recipe: Recipe,
        *,
        tables: Sequence[nn.Parameter],
        lookups: int,
    ) -> None:
        l2 = recipe.number("embedding_l2", 0.0)
        decay, ema = recipe.number("weight_decay", 0.0), recipe.number("ema", 0.0)
        name = str(recipe.get("table_optimizer", "adam"))
        learned = [p for p in module.parameters() if p.requires_grad]
        self.device = learned[0].device
        self.decay = Decay(ema) if ema else None
        self.blocks = [part for part in module.modules() if isinstance(part, TableBlock)]
        self.by_rows: dict[nn.Parameter, IdTable] = {}
        self.l2 = dict.fromkeys(tables, l2)
        rule, lazy = rule_of(name, l2=l2, weight_decay=decay)
        for block in self.blocks:
            own = replace(rule, l2=recipe.number(block.l2, l2))
            for table in (p for p in block.parameters() if p in self.l2):
                self.l2[table] = own.l2
                if not (name == "adam" and self._dense(table, lookups)):
                    self.by_rows[table] = IdTable(table, own, lazy=lazy, decay=self.decay)
        self.parameters = [p for p in learned if p not in self.by_rows]
        self.dense_tables = [p for p in tables if p not in self.by_rows]
        # One pass over Adam's state instead of nine: 26 ms against 132 on 20.8 M parameters (CPU).
        made = torch.optim.AdamW if decay else torch.optim.Adam
        self.optimizer = made(self.parameters, weight_decay=decay, fused=True)
        self.average = Average(self.parameters, self.decay) if self.decay else None
        self.steps, self.lr = 0, math.nan
        self.plans = Plans()

    def _dense(self, table: nn.Parameter, lookups: int) -> bool:
        """Tell whether dense Adam is the faster way to the same weights."""
        return self.device.type != "cpu" or len(table) < _DENSE_ROWS * lookups

    def zero(self) -> Tensor:
        """Return a zero on the device."""
        return torch.zeros((), device=self.device)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let the tables' reads inside the block pass through here."""

        def read(table: nn.Parameter, rows: Tensor) -> Tensor:
            found = self.by_rows.get(table)
            return nn.functional.embedding(rows, table) if found is None else found.read(rows)

        for block in self.blocks if self.by_rows else ():
            block.reader = read
        try:
            yield
        finally:
            for block in self.blocks:
                block.reader = None

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Take one step with the gradients that backward left, and leave none."""
        self.steps, self.lr = self.steps + 1, lr
        for table in self.by_rows.values():
            table.collect(self.plans)
        scale = self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for table in self.by_rows.values():
            table.step(self.steps, lr, scale)
        if self.average:
            self.average.update(self.steps)

    def _clip(self) -> float:
        """Scale the dense gradients to `CLIP_NORM` with those of the tables; return the factor."""
        for weight in self.dense_tables:
            if weight.grad is not None and self.l2[weight] > 0:
                weight.grad.add_(weight.detach(), alpha=self.l2[weight])
        if self.device.type != "cpu" and not self.by_rows:
            torch.nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)  # without a synchronisation
            return 1.0
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(grads))
        dense = float(norms.double().square().sum())
        tables = self.by_rows.values()
        if math.sqrt(dense + sum(table.square(exact=False) for table in tables)) < CLIP_NORM - 1e-3:
            return 1.0
        norm = math.sqrt(dense + sum(table.square(exact=True) for table in tables))
        scale = CLIP_NORM / (norm + _EPS)
        if scale >= 1.0:
            return 1.0
        torch._foreach_mul_(grads, scale)
        return scale

    @torch.no_grad()
    def flush(self) -> None:
        """Bring every row of every table to the last step."""
        for table in self.by_rows.values():
            table.flush(self.steps)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their averages, where there are any."""
        for table in self.by_rows.values():
            table.swap()
        if self.average:
            self.average.swap()
