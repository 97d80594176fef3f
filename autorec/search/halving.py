"""Asynchronous successive halving (Li et al. 2020, stopping variant) by training rows.

It is ours, and not one of Optuna's pruners, because those refuse several objectives, compare
children that inherited weights with roots that started from nothing, and rank by the number of
reports. A rung is a number of training rows presented, so that batch sizes compare fairly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autorec.errors import ConfigError

ROOT = "root"
CHILD = "child"


@dataclass(frozen=True)
class Halving:
    """Lets the best `1 / factor` of the trials of one class pass each rung.

    Args:
        rungs: training rows presented, ascending; empty: every trial runs to its end.
        factor: at each rung about one trial in `factor` goes on.

    Raises:
        ConfigError: rungs are not ascending positive numbers, or the factor is below 2.
    """

    rungs: tuple[int, ...]
    factor: int = 3

    def __post_init__(self) -> None:
        if any(a >= b for a, b in zip((0, *self.rungs), self.rungs, strict=False)):
            raise ConfigError(f"rungs are ascending numbers of rows, but got {self.rungs}")
        if self.factor < 2:
            raise ConfigError(f"halving needs a factor of at least 2, but got {self.factor}")

    def rung(self, rows: int) -> int | None:
        """Return the highest rung that a trial has climbed after `rows`, or None below the first.

        Only the highest counts: a score that was first measured at a higher rung says nothing
        about the rungs that were passed without a look.
        """
        return max((rung for rung in self.rungs if rung <= rows), default=None)

    def decide(self, own: float, others: Sequence[float]) -> bool:
        """Tell whether a trial goes on.

        `own` is its best score so far when it climbs a rung, `others` are those of the trials of
        its class that have climbed the rung before it; higher is better. While there are fewer
        than `factor` scores, its own among them, every trial goes on. Equals go on together.
        """
        scores = [own, *others]
        if len(scores) < self.factor:
            return True
        kept = len(scores) // self.factor
        return own >= sorted(scores, reverse=True)[kept - 1]


def plan_rungs(
    n_train: int,
    max_rows: int | None = None,
    *,
    factor: int = 3,
    count: int = 3,
    least: int = 10_000,
) -> tuple[int, ...]:
    """Return the rungs for `n_train` training rows: `count` cuts by `factor` below the horizon.

    The horizon is `max_rows`, the most rows that a trial may be presented, or nine epochs, by
    which most click models have turned over. Rungs below `least` rows are left out: scores there
    are noise, and training such a table to its end costs no more than judging it early.

    Raises:
        ConfigError: a number of rows is not positive.
    """
    if n_train < 1 or (max_rows is not None and max_rows < 1):
        raise ConfigError(
            f"rungs need at least 1 training row, but got n_train={n_train}, max_rows={max_rows}"
        )
    horizon = max_rows if max_rows is not None else 9 * n_train
    rungs = {math.ceil(horizon / factor**cut) for cut in range(1, count + 1)}
    return tuple(sorted(rung for rung in rungs if least <= rung < horizon))
