"""Summaries of a stream of rows that stay small however long the stream is.

Each takes batches and keeps arrays that are compacted whenever they have doubled, so that memory is
bounded by what is kept and a row is sorted a constant number of times.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autorec.data.hashing import mix

Keys = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Rows that may wait before the arrays are compacted again.
_WAITING = 200_000
# A sample this deep per key says enough about it: a deeper one is thinned by rows, a shallower one
# by keys.
_DEEP = 64


class Sample:
    """At most `cap` rows: all rows of some keys, or some rows of all keys where keys are few.

    Rows are chosen by hashes of their keys and numbers: the same stream gives the same sample.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.size = 0
        self._few_keys = 0
        self._few_rows = 0
        self._parts: list[tuple[pa.RecordBatch, Keys, Keys]] = []

    def add(self, batch: pa.RecordBatch, keys: Keys, rows: Ints) -> None:
        """Take a batch with the key and the number of each row."""
        self._keep(batch, keys, rows.astype(np.uint64))
        while self.size > self.cap:
            self._thin()

    def table(self) -> pa.Table:
        """Return the kept rows in their order."""
        return pa.Table.from_batches([batch for batch, _, _ in self._parts])

    def _keep(self, batch: pa.RecordBatch, keys: Keys, rows: Keys) -> None:
        some_keys = mix(keys) < np.uint64(0xFFFFFFFFFFFFFFFF >> self._few_keys)
        some_rows = mix(~rows) < np.uint64(0xFFFFFFFFFFFFFFFF >> self._few_rows)
        chosen = np.flatnonzero(some_keys & some_rows)
        if len(chosen) or not self._parts:
            self._parts.append((batch.take(pa.array(chosen)), keys[chosen], rows[chosen]))
            self.size += len(chosen)

    def _thin(self) -> None:
        parts = self._parts
        distinct = len(np.unique(np.concatenate([keys for _, keys, _ in parts])))
        if self.size > _DEEP * distinct:
            self._few_rows += 1
        else:
            self._few_keys += 1
        self._parts, self.size = [], 0
        for part in parts:
            self._keep(*part)


class Latest:
    """The last row of each key, how many rows it had and the sum of their labels.

    Attributes, all (N,) or N rows, after `finish`:
        key: uint64. table: the last rows. count: rows. total: sum of labels. first: first row met.
    """

    def __init__(self) -> None:
        self.key: Keys = np.zeros(0, np.uint64)
        self.count: Ints = np.zeros(0, np.int64)
        self.total: Floats = np.zeros(0)
        self.first: Ints = np.zeros(0, np.int64)
        self.table: Any = None
        self._parts: list[tuple[pa.Table, tuple[Any, ...]]] = []
        self._waiting = 0

    def add(self, table: pa.Table, keys: Keys, time: Ints, rows: Ints, label: Floats) -> None:
        """Take a batch; the last row is the one with the largest time, then the largest number."""
        if not len(keys):
            return
        part = _last_rows(table, (keys, time, rows, np.ones(len(keys), np.int64), label, rows))
        self._parts.append(part)
        self._waiting += len(part[1][0])
        if self._waiting > max(_WAITING, 2 * len(self._parts[0][1][0])):
            self._compact()

    def finish(self, empty: pa.Schema) -> None:
        """Make the attributes; `empty` is the schema of the table where no row was added."""
        if not self._parts:
            self.table = empty.empty_table()
            return
        self._compact()
        self.table, (self.key, _, _, self.count, self.total, self.first) = self._parts[0]

    def _compact(self) -> None:
        table = pa.concat_tables([part for part, _ in self._parts])
        arrays = [
            np.concatenate(column) for column in zip(*(a for _, a in self._parts), strict=True)
        ]
        self._parts = [_last_rows(table, tuple(arrays))]
        self._waiting = 0


def _last_rows(table: pa.Table, arrays: tuple[Any, ...]) -> tuple[pa.Table, tuple[Any, ...]]:
    key, time, row, count, total, first = arrays
    order = np.lexsort((row, time, key))
    ends = np.flatnonzero(np.append(key[order][1:] != key[order][:-1], True))
    starts = np.append(0, ends[:-1] + 1)
    pick = order[ends]
    sums = np.add.reduceat(count[order], starts), np.add.reduceat(total[order], starts)
    firsts = np.minimum.reduceat(first[order], starts)
    return table.take(pa.array(pick)), (key[pick], time[pick], row[pick], *sums, firsts)


class Met:
    """Which items each user met, the last `cap` of each; fewer where all do not fit in `limit`."""

    def __init__(self, cap: int, limit: int) -> None:
        self.cap = cap
        self.limit = limit
        self._parts: list[tuple[Any, ...]] = []
        self._waiting = 0

    def add(self, users: Keys, items: Keys, time: Ints, rows: Ints) -> None:
        """Take a batch of meetings."""
        self._parts.append((users, items, time, rows))
        self._waiting += len(users)
        if self._waiting > max(_WAITING, 2 * len(self._parts[0][0])):
            self._compact()

    def lists(self, users: Keys, items: Keys) -> pa.ListArray:
        """Return per user the positions in `items` of what the user met, latest last."""
        self._compact()
        user, item, time, row = self._parts[0]
        place = _positions(users, user)
        order = np.lexsort((row, time, place))
        values = _positions(items, item[order]).astype(np.int32)
        ends = np.cumsum(np.bincount(place, minlength=len(users)))
        offsets = np.append(0, ends).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))

    def _compact(self) -> None:
        empty = (np.zeros(0, np.uint64),) * 2 + (np.zeros(0, np.int64),) * 2
        user, item, time, row = (np.concatenate(a) for a in zip(empty, *self._parts, strict=True))
        order = np.lexsort((row, time, item, user))
        user, item, time, row = user[order], item[order], time[order], row[order]
        last = np.append((user[1:] != user[:-1]) | (item[1:] != item[:-1]), True)[: len(user)]
        user, item, time, row = user[last], item[last], time[last], row[last]
        while True:
            late = _among_last(user, time, row, self.cap)
            if late.sum() <= self.limit or self.cap == 1:
                break
            self.cap //= 2
        self._parts = [(user[late], item[late], time[late], row[late])]
        self._waiting = 0


def _among_last(user: Keys, time: Ints, row: Ints, cap: int) -> npt.NDArray[np.bool_]:
    """Tell which meetings are among the last `cap` of their user."""
    order = np.lexsort((row, time, user))
    ranked = user[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)])
    sizes = np.diff(np.append(-1, ends))
    late = np.zeros(len(user), bool)
    late[order] = np.repeat(ends, sizes) - np.arange(len(ranked)) < cap
    return late


def _positions(values: Keys, wanted: Keys) -> Ints:
    """Return where in `values`, distinct, each of `wanted` is; all of them are there."""
    order = np.argsort(values, kind="stable")
    return order[np.searchsorted(values[order], wanted)] if len(wanted) else np.zeros(0, np.int64)
