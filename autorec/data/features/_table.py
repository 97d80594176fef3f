"""Counts and label sums of keys, learned chunk by chunk and looked up without a loop over rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt

from autorec.data.columns import Columns
from autorec.data.features._keys import Cross, Ints, Mask, slices

Floats = npt.NDArray[np.float64]

_DIRECT = 1 << 22  # slots of a table that is addressed by the key itself: at most 16 MiB
_PENDING = 1 << 21  # distinct keys that are gathered before they are merged
_LARGE, _MANY = 1 << 17, 1 << 12  # keys of a table, and of a request, that pay for a sort
_STEP = 2.0**20


def exact(label: npt.NDArray[np.float32]) -> Floats:
    """Return labels (n,) as multiples of 2**-20, whose float64 sums do not depend on their order.

    Exact while a sum stays below 2**33; it lets a row's own label be taken out without a trace.
    """
    return np.rint(label.astype(np.float64) * _STEP) / _STEP


class Table:
    """U distinct keys with the rows and the label sum of each.

    Attributes:
        keys: (U,) int64, ascending.
        count: (U,) float64, rows of the key.
        total: (U,) float64, their label sum; zeros where no labels were read.
    """

    def __init__(self, keys: Ints, count: Floats, total: Floats) -> None:
        self.keys = keys
        # One zero behind them for what is not found: a look-up of few rows copies no table.
        self._counts, self._totals = np.append(count, 0.0), np.append(total, 0.0)
        self.count, self.total = self._counts[:-1], self._totals[:-1]
        self._direct: npt.NDArray[np.int32] | None = None
        if len(keys) and keys[-1] < max(_DIRECT, 4 * len(keys)):
            self._direct = np.full(int(keys[-1]) + 2, len(keys), np.int32)
            self._direct[keys] = np.arange(len(keys), dtype=np.int32)

    @classmethod
    def learn(cls, columns: Columns, cross: Cross, *, labels: bool = False) -> Table:
        """Count the known keys of n rows in memory of O(U + chunk)."""
        gather = _Direct(cross.span) if cross.span <= _DIRECT else _Sorted()
        for part in slices(len(columns)):
            rows = columns.take(part)
            keys, known = cross.keys(rows)
            label = rows.label if labels else None
            gather.add(keys[known], None if label is None else exact(label[known]))
        return cls(*gather.result())

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, keys: Ints, known: Mask) -> Ints:
        """Return the place (n,) of each key, U where the row is not known or the key is new."""
        if not len(self.keys):
            return np.zeros(len(keys), np.int64)
        if self._direct is not None:
            # A key with an unknown code is never learned, so that its slot is empty without a mask.
            return self._direct.take(keys, mode="clip").astype(np.int64)
        at = self._search(keys)
        np.minimum(at, len(self.keys) - 1, out=at)
        return np.where(known & (self.keys[at] == keys), at, len(self.keys))

    def _search(self, keys: Ints) -> Ints:
        """Return where each key (n,) would stand among the sorted ones.

        Many keys go through a large table in their order, so that it stays in cache: 262,144 in
        800,000 take 0.1 s so, and 0.26 s as they come (one core of a Xeon, 2026).
        """
        if len(self.keys) < _LARGE or len(keys) < _MANY:
            return np.searchsorted(self.keys, keys)
        order = np.argsort(keys)
        out = np.empty(len(keys), np.int64)
        out[order] = np.searchsorted(self.keys, keys[order])
        return out

    @cached_property
    def logs(self) -> npt.NDArray[np.float32]:
        """log1p of the rows of each key, and 0 for none behind them: (U + 1,)."""
        return np.asarray(np.log1p(self._counts), np.float32)

    def counts(self, places: Ints) -> Floats:
        """Return the rows (n,) of the keys at places of `find`, 0 where there is none."""
        return self._counts[places]

    def totals(self, places: Ints) -> Floats:
        """Return the label sums (n,) of the keys at places of `find`, 0 where there is none."""
        return self._totals[places]

    def arrays(self, *, labels: bool = False) -> dict[str, npt.NDArray[np.generic]]:
        """Return what `of` reads back."""
        held = {"key": self.keys, "count": self.count}
        return {**held, "total": self.total} if labels else {**held}

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Table:
        """Return the table of saved arrays."""
        count = np.asarray(arrays["count"], np.float64)
        total = np.asarray(arrays.get("total", np.zeros(len(count))), np.float64)
        return cls(np.asarray(arrays["key"], np.int64), count, total)


class _Direct:
    """Sums in one slot per possible key."""

    def __init__(self, span: int) -> None:
        self._count, self._total = np.zeros(span), np.zeros(span)

    def add(self, keys: Ints, label: Floats | None) -> None:
        span = len(self._count)
        self._count += np.bincount(keys, minlength=span)
        if label is not None:
            self._total += np.bincount(keys, label, minlength=span)

    def result(self) -> tuple[Ints, Floats, Floats]:
        keys = np.flatnonzero(self._count)
        return keys, self._count[keys], self._total[keys]


class _Sorted:
    """Sums of sorted keys, merged now and then so that memory follows the distinct keys."""

    def __init__(self) -> None:
        self._parts: list[tuple[Ints, Floats, Floats]] = []
        self._waiting, self._merged = 0, 0

    def add(self, keys: Ints, label: Floats | None) -> None:
        part = _summed(keys, np.ones(len(keys)), label)
        self._parts.append(part)
        self._waiting += len(part[0])
        if self._waiting > max(_PENDING, self._merged):
            self._merge()

    def _merge(self) -> None:
        keys, count, total = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        self._parts = [_summed(keys, count, total)]
        self._waiting, self._merged = 0, len(self._parts[0][0])

    def result(self) -> tuple[Ints, Floats, Floats]:
        self._merge()
        return self._parts[0]


def _summed(keys: Ints, count: Floats, total: Floats | None) -> tuple[Ints, Floats, Floats]:
    if not len(keys):
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    order = np.argsort(keys)
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sums = np.zeros(len(starts)) if total is None else np.add.reduceat(total[order], starts)
    return ordered[starts], np.add.reduceat(count[order], starts), sums
