"""Greedy forward choice: what is chosen enters the residuals, and the rest is measured anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autorec.data._screening_gain import (
    Cells,
    Gain,
    cells,
    counts,
    leaves,
    of_cells,
    of_values,
    values,
)
from autorec.data._screening_sample import Residual, Sample, main_effects
from autorec.data._screening_scan import Clock, Key

FORMS = ("count", "rate")
TIME = "time"
# A cross of one field more must gain more than this multiple of the cross without it.
_WORTH_A_FIELD = 1.1
_STEPS, _RECENT = 3, 6


@dataclass
class Chooser:
    """The state of a greedy choice among crosses.

    Attributes:
        sample: n rows.
        found: residuals of what is chosen.
        gains: of each statistic, when it was measured last.
        chosen: in order, with the gain at their turn.
    """

    sample: Sample
    found: Residual
    gains: dict[Key, Gain] = field(default_factory=dict)
    chosen: dict[Key, Gain] = field(default_factory=dict)
    _held: dict[Key, Cells] = field(default_factory=dict)

    @classmethod
    def of(cls, sample: Sample, found: Residual, moments: Sequence[Cells]) -> Chooser:
        """Return an empty choice among crosses, and statistics of time with cells of their own."""
        return cls(sample, found, _held={((-1 - at,), TIME): c for at, c in enumerate(moments)})

    @property
    def moments(self) -> list[Key]:
        """The statistics of time."""
        return [key for key in self._held if key[1] == TIME]

    def measure(self, key: Key) -> Gain:
        """Return the present gain of a statistic, in the form that training rows will have."""
        cell = self._cells(key)
        if key[1] == "rate" and self.sample.time is not None:
            gain = of_values(values(self.sample, cell, self.found), self.found)
        else:
            gain = of_cells(cell, self.found)
        self.gains[key] = gain
        return gain

    def take(self, key: Key) -> None:
        """Put a statistic into the residuals, and let what it overlaps with settle."""
        self.chosen[key] = self.gains[key]
        for _ in range(_STEPS):
            self._step(key)
        for other in list(self.chosen)[-_RECENT:]:
            self._step(other)
        self.found = main_effects(self.sample, self.found)

    def best(self, clock: Clock, bar: float) -> Key | None:
        """Return the statistic with the highest gain of those above the bar, or None.

        Gains shrink as others are chosen, so that only those which once were higher than the best
        present one are measured again. A triple gives way to a pair of its fields that gains
        nearly as much.
        """
        fresh: set[Key] = set()
        while True:
            open_ = [key for key in self.gains if key not in self.chosen and self._passes(key, bar)]
            if not open_ or clock.past():
                return None
            top = max(open_, key=lambda key: self.gains[key].gain)
            if top in fresh:
                smaller = [k for k in open_ if len(k[0]) < len(top[0]) and set(k[0]) <= set(top[0])]
                smaller = [k for k in smaller if self._rivals(k, top)]
                stale = [key for key in smaller if key not in fresh]
                if not stale:
                    return max(smaller, key=lambda key: self.gains[key].gain, default=top)
                top = stale[0]
            self.measure(top)
            fresh.add(top)

    def _rivals(self, key: Key, top: Key) -> bool:
        return self.gains[key].gain * _WORTH_A_FIELD >= self.gains[top].gain

    def _passes(self, key: Key, bar: float) -> bool:
        gain = self.gains[key]
        return gain.gain > 0.0 and gain.z >= bar

    def _step(self, key: Key) -> None:
        """Add one Newton step of a statistic to the margin."""
        cell = self._cells(key)
        if key[1] != "rate":
            step = leaves(cell, self.found)
        else:
            # Values of other rows: those that hold a row's own label would hide what is left of it.
            step = values(self.sample, cell, self.found) * min(self.measure(key).scale, 2.0)
        self.found = Residual.at(self.sample, self.found.margin + step)

    def _cells(self, key: Key) -> Cells:
        if key not in self._held:
            fields, form = key
            cell = cells(self.sample, fields)
            cell = Cells(cell.at.astype(np.int32), cell.size)
            self._held[(fields, "rate")] = cell
            if form == "count":
                self._held[key] = counts(self.sample, cell, ordered=True)
        return self._held[key]

    def again(self, found: Residual) -> Chooser:
        """Return an empty choice on other residuals that keeps the cells of all crosses."""
        return Chooser(self.sample, found, _held=self._held)
