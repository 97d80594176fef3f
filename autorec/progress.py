"""What a person sees while a fit runs: one live line, and a line for everything worth keeping."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autorec.fitting import Limits
    from autorec.search.records import TrialRecord
    from autorec.tasks.base import Task


class Progress:
    """Prints decisions, finished leaders, and a live line on a terminal.

    Args:
        verbosity: 0 nothing, 1 decisions and results, 2 also each new leader and the live line.
    """

    def __init__(self, verbosity: int = 2) -> None:
        from rich.console import Console

        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.verbosity, self.metric, self.sign = verbosity, "score", 1.0
        self._live: Any = None
        self._best: int | None = None

    def measure(self, task: Task) -> None:
        """Show the metric of `task` from now on."""
        self.metric = task.eval_metric
        self.sign = 1.0 if task.metric.greater_is_better else -1.0

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self.verbosity >= 1:
            self.console.print(text, markup=False)

    def __enter__(self) -> Progress:
        if self.verbosity >= 2 and self.console.is_terminal:
            self._live = self.console.status("starting workers", spinner="dots")
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, trials: list[TrialRecord], best: TrialRecord | None, limits: Limits) -> None:
        """Show the state of the search."""
        if self.verbosity < 2:
            return
        line = self.line(trials, best, limits)
        if best is not None and best.number != self._best:
            self._best = best.number
            self.console.print(f"  {line}  <- {best.name}", markup=False)
        if self._live is not None:
            self._live.update(line)

    def line(self, trials: list[TrialRecord], best: TrialRecord | None, limits: Limits) -> str:
        """Return `trial 7 · best auc 0.7312 (+0.0121 over lightgbm) · 4:10 left`."""
        ended = sum(trial.state in ("COMPLETE", "PRUNED", "FAIL") for trial in trials)
        parts = [f"trial {ended}" + (f"/{limits.n_trials}" if limits.n_trials else "")]
        if best is not None and best.value is not None:
            parts.append(
                f"best {self.metric} {self.sign * best.value:.4f}{self._gain(trials, best)}"
            )
        if math.isfinite(limits.end):
            left = max(0, round(limits.end - time.time()))
            parts.append(f"{left // 60}:{left % 60:02d} left")
        return " · ".join(parts)

    @staticmethod
    def _gain(trials: list[TrialRecord], best: TrialRecord) -> str:
        scored = [trial for trial in trials if trial.baseline and trial.value is not None]
        if not scored or best.value is None:
            return ""
        bar = max(scored, key=lambda trial: float(trial.value or 0.0))
        if bar.number == best.number:
            return " (a baseline)"
        return f" ({best.value - float(bar.value or 0.0):+.4f} over {bar.name})"
