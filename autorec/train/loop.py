"""One training loop for every network. It knows no model by name.

The recipe is the one that public CTR leaderboards are won with: Adam, L2 on the whole id tables in
every batch, gradient norm clipped at 10, evaluation every epoch, learning rate divided by ten when
the score stalls, stop at the second stall in a row, best weights restored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from autorec.candidate import Recipe
from autorec.errors import TrainingError
from autorec.job import COMPLETE, DEADLINE, STOPPED, Report
from autorec.train.batches import Batches
from autorec.train.best import Best
from autorec.train.optimizers import Optimizers

MAX_EPOCHS = 100
PATIENCE = 2
LR_CUT = 0.1
LR_FLOOR = 1e-6
IMPROVED = 1e-6


@dataclass(frozen=True)
class Budget:
    """What one training may use.

    `late` is asked after every batch whether to end now; `rows` presented at most (None: no cap),
    an evaluation after every `eval_rows` rows, and on replay the rows at which the learning rate is
    cut.
    """

    late: Callable[[], bool]
    eval_rows: int
    rows: int | None = None
    cuts: tuple[int, ...] | None = None


@dataclass
class Outcome:
    """How a training went. The module holds the best weights when this is returned."""

    status: str = COMPLETE
    rows: int = 0
    best_rows: int = 0
    best_score: float = -math.inf
    cuts: list[int] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)


def train(
    module: nn.Module,
    batches: Batches,
    objective: Callable[[Any], Tensor],
    recipe: Recipe,
    budget: Budget,
    *,
    evaluate: Callable[[nn.Module], float] | None,
    report: Report,
    tables: Sequence[nn.Parameter] = (),
) -> Outcome:
    """Train `module` in place and leave its best weights in it.

    Args:
        module: whose weights are trained.
        batches: training rows; an epoch is one pass.
        objective: batch -> mean loss, through `module`.
        recipe: lr, embedding_l2, schedule, epochs (cosine), ema, weight_decay, table_optimizer.
        budget: rows, deadline and how often to evaluate.
        evaluate: module -> score, higher is better; None trains to `budget.rows` and keeps the
            last weights (refit on all rows).
        report: called after every evaluation; False stops.
        tables: parameters under whole-table L2.

    Raises:
        TrainingError: the loss is not finite.
    """
    training = _Training(module, batches, objective, recipe, budget, tables=tables)
    training.evaluate, training.report = evaluate, report
    with training.optimizers.reading():
        return training.run()


class _Training:
    evaluate: Callable[[nn.Module], float] | None
    report: Report

    def __init__(
        self,
        module: nn.Module,
        batches: Batches,
        objective: Callable[[Any], Tensor],
        recipe: Recipe,
        budget: Budget,
        *,
        tables: Sequence[nn.Parameter],
    ) -> None:
        self.module, self.batches, self.objective = module, batches, objective
        self.budget = budget
        self.schedule = str(recipe.get("schedule", "plateau"))
        self.lr = recipe.number("lr", 1e-3)
        self.optimizers = Optimizers(module, recipe, tables=tables, lookups=batches.lookups)
        self.device = self.optimizers.device
        self.planned = self._planned_rows(recipe)
        self.outcome = Outcome()
        self.best = Best()
        self.stalls, self.done = 0, False
        self.loss_sum = self.optimizers.zero()
        self.steps_since = 0

    def _planned_rows(self, recipe: Recipe) -> int:
        if self.budget.cuts is not None and self.budget.rows:
            return self.budget.rows  # a lineage takes more epochs than the recipe of its last child
        epochs = recipe.number("epochs", 1) if self.schedule == "cosine" else MAX_EPOCHS
        planned: int = math.ceil(epochs * self.batches.n)
        return min(planned, self.budget.rows) if self.budget.rows else planned

    def run(self) -> Outcome:
        self.module.train()
        next_eval, epoch, going = self.budget.eval_rows, 0, True
        while going:
            for batch in self.batches.epoch(epoch):
                self._step(batch)
                self.outcome.rows += len(batch)
                going = self._goes_on()
                if self.evaluate and (self.outcome.rows >= next_eval or not going):
                    next_eval = self.outcome.rows + self.budget.eval_rows
                    going = self._evaluate(going)
                if not going:
                    break
            epoch += 1
        self._finish()
        return self.outcome

    def _step(self, batch: Any) -> None:
        loss = self.objective(batch.to(self.device))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers.step(self._rate())
        self.loss_sum += loss.detach()
        self.steps_since += 1

    def _rate(self) -> float:
        lr = self.lr
        if self.schedule == "cosine":
            done = min(1.0, self.outcome.rows / max(1, self.planned))
            lr *= min(1.0, done / 0.05 + 0.1) * 0.5 * (1 + math.cos(math.pi * done))
        elif self.budget.cuts is not None:
            lr *= LR_CUT ** sum(self.outcome.rows >= cut for cut in self.budget.cuts)
        return max(lr, LR_FLOOR)

    def _goes_on(self) -> bool:
        if self.outcome.rows >= self.planned:
            return False
        if self.budget.late():
            self.outcome.status = DEADLINE
            return False
        return True

    def _evaluate(self, going: bool) -> bool:
        """Score the weights, keep them if they are the best; tell whether to go on."""
        assert_finite(float(self.loss_sum), self.outcome.rows)
        self.optimizers.flush()
        self.optimizers.swap()
        score = self.evaluate(self.module) if self.evaluate else math.nan
        outcome = self.outcome
        mean_loss = float(self.loss_sum) / max(1, self.steps_since)
        outcome.history.append(
            {
                "rows": outcome.rows,
                "score": score,
                "loss": mean_loss,
                "lr": self.optimizers.lr,
            }
        )
        self.loss_sum.zero_()
        self.steps_since = 0
        if score > outcome.best_score + IMPROVED:
            outcome.best_score, outcome.best_rows, self.stalls = score, outcome.rows, 0
        else:
            self.stalls += 1
        going = self._goes_on_after(score) and going
        self._keep(going)
        self.module.train()
        return going

    def _goes_on_after(self, score: float) -> bool:
        if not self.report(self.outcome.rows, score):
            self.outcome.status = STOPPED
            return False
        return self._after_stall()

    def _keep(self, going: bool) -> None:
        """Keep the weights that were scored if they are the best; where training ends with them
        they stay where they are, and no copy is made.
        """
        self.done = self.stalls == 0 and not going
        if self.stalls == 0 and going:
            self.best.keep(self.module)
        if not self.done:
            self.optimizers.swap()

    def _after_stall(self) -> bool:
        if self.stalls == 0 or self.schedule == "cosine":
            return True
        if self.stalls >= PATIENCE:
            return False
        if self.schedule == "plateau":
            self.lr = max(self.lr * LR_CUT, LR_FLOOR)
            self.outcome.cuts.append(self.outcome.rows)
        return True

    def _finish(self) -> None:
        if self.best and not self.done:
            self.best.restore(self.module)
        elif not self.done:
            assert_finite(float(self.loss_sum), self.outcome.rows)
            self.optimizers.flush()
            self.optimizers.swap()
            self.outcome.best_rows = self.outcome.rows
        self.module.eval()


def assert_finite(loss_sum: float, rows: int) -> None:
    """Refuse a training that has diverged.

    Raises:
        TrainingError: the sum of losses is NaN or infinite.
    """
    if not math.isfinite(loss_sum):
        raise TrainingError(
            f"the loss must stay finite, but it is {loss_sum} after {rows:,} rows; lower the "
            "learning rate or check numeric columns for extreme values"
        )
