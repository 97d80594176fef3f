"""Fitted counts and rates of small requests, read as one matrix instead of one by one."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from autorec.data._state_statistics import Statistics
from autorec.data.columns import Columns
from autorec.data.features.base import Transform
from autorec.data.features.counts import Counts
from autorec.data.features.rates import Rates
from autorec.schema import Layout

ROWS = 1 << 14  # of a request at most: in many rows, the search of each transform weighs more
WAIT = 3  # requests before the statistics are put together; a single one is not worth the time
_ALL = 1 << 62  # keys of a field or cross that are held: no limit
_EPSILON, _DELTA = 1e-4, 1e-3  # of a sketch that is never made


class Together:
    """The counts and rates among fitted transforms, in one table of cells (see `Statistics`).

    Every value has the bits that the transforms give. The table is made by `make`, or in the third
    small request; other threads read the transforms until it is there. It takes about a second for
    two million distinct values, and memory beside the transforms: 28 bytes for each possible value
    of small fields and crosses (at most 2**20 together), and 50 to 71 for each other distinct one.

    Args:
        transforms: fitted ones by the row of their values in `out` of `read`; what is neither
            `Counts` nor `Rates`, and rates of different rows, are left out.
    """

    def __init__(self, transforms: Mapping[int, Transform]) -> None:
        self._counts = {at: each for at, each in transforms.items() if isinstance(each, Counts)}
        self._rates = {at: each for at, each in transforms.items() if isinstance(each, Rates)}
        if len({each.whole for each in self._rates.values()}) > 1:
            self._rates = {}
        self.rows = frozenset((*self._counts, *self._rates))
        self._made: Statistics | None = None
        self._making, self._asked = threading.Lock(), 0
        self._checked: Layout | None = None

    def make(self) -> None:
        """Put the statistics together now; nothing happens where they are."""
        with self._making:
            if self._made is None and self.rows:
                made = Statistics(self._counts, self._rates, _ALL, _EPSILON, _DELTA)
                made.learn([*self._counts.values()], [*self._rates.values()])
                self._made = made

    def read(self, columns: Columns, out: npt.NDArray[np.float32]) -> frozenset[int]:
        """Write the values of n rows into `out` (Q, n); return which of its rows are written.

        Raises:
            ConfigError: a column is absent or of another size than in fit.
        """
        if len(columns) > ROWS or not self.rows or not len(columns):
            return frozenset()
        made = self._made
        if made is None:
            self._asked += 1
            if self._asked < WAIT or self._making.locked():
                return frozenset()
            self.make()
            return self.read(columns, out)
        if columns.layout is not self._checked:
            for each in (*self._counts.values(), *self._rates.values()):
                each.check(columns)
            self._checked = columns.layout
        made.read(columns, out)
        return self.rows
