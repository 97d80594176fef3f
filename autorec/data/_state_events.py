"""Recency and last items of a state: what `Recency` and `LastItems` give, from rings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from autorec.data._state_rings import Buckets, Rings
from autorec.data.columns import Columns
from autorec.data.features._files import Arrays
from autorec.data.features._keys import Cross, Ints
from autorec.data.features._order import logged
from autorec.data.features.last_items import LastItems
from autorec.data.features.recency import Recency
from autorec.data.timeline import UNKNOWN
from autorec.data.vocabulary import NULL


def _times(columns: Columns) -> Ints:
    """Return the times (n,) of columns that were checked to have them."""
    return columns.time if columns.time is not None else np.zeros(0, np.int64)


def _asked(rings: Rings, cross: Cross, columns: Columns) -> tuple[Ints, Ints]:
    """Return row and time (n,) of each row's entity; (1,) where all are one, as of one user."""
    time = _times(columns)
    key, known = cross.keys(columns, entity=True)
    if len(key) > 1 and (key == key[0]).all() and (time == time[0]).all():
        key, known, time = key[:1], known[:1], time[:1]
    row = rings.rows(key, known)
    row[time == UNKNOWN] = 0
    return row, time


def _learned(
    key: Ints, time: Ints, value: Ints, entities: int
) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield events (n,) in the order of time, in parts whose entities find room at once."""
    order = np.argsort(time, kind="stable")
    most = max(1, entities // 4)
    for start in range(0, len(order), most):
        part = order[start : start + most]
        yield key[part], time[part], value[part]


class LiveRecency:
    """Last moments of each entity, and counts of busy ones.

    Exact for a row that is not earlier than the last `depth` events of its entity, and for windows
    that hold no more than them; a window with more is estimated from `parts` (see `Buckets`).
    """

    def __init__(self, made: Recency, cross: Cross, depth: int, entities: int, parts: int) -> None:
        self.cross, self.ticks = cross, made.ticks
        self.windows = tuple(int(window * self.ticks) for window in made.windows)
        self.rings = Rings(depth, entities)
        self.buckets = Buckets(self.windows, parts)
        log = made.log
        for key, time, value in _learned(log.key, log.time, log.value, entities):
            self._add(key, time, value)

    def read(self, columns: Columns, out: npt.NDArray[np.float32]) -> None:
        """Write since, seen and the windows of n rows into `out` (2 + windows, n)."""
        row, time = _asked(self.rings, self.cross, columns)
        now = np.where(row > 0, time, 0)
        held = self.rings.time.take(row, axis=0)
        last, dropped = self.rings.newest[row], self.rings.dropped[row]
        before = None
        if (last >= now).any():  # some events are not earlier than their row
            before = held < now[:, None]
            last = np.where(before, held, UNKNOWN).max(1)
        last = np.where((last == UNKNOWN) & (dropped < now), dropped, last)
        seen = last != UNKNOWN
        since = logged((now - np.where(seen, last, now)) / self.ticks)
        out[0] = np.where(seen, since, np.float32(np.nan))
        out[1] = seen
        for at, window in enumerate(self.windows):
            near = held >= (now - window)[:, None]
            count = np.count_nonzero(near if before is None else near & before, axis=1)
            lost = np.flatnonzero((dropped != UNKNOWN) & (dropped >= now - window))
            if len(lost):
                told = self.buckets.near(row[lost], now[lost], at)
                count[lost] = np.maximum(count[lost], told)
            out[2 + at] = logged(count)

    def update(self, columns: Columns) -> None:
        """Take n rows as events."""
        time = _times(columns)
        key, known = self.cross.keys(columns, entity=True)
        keep = known & (time != UNKNOWN)
        value = np.zeros(len(columns), np.int64)
        for part in _learned(key[keep], time[keep], value[keep], self.rings.entities):
            self._add(*part)

    def _add(self, key: Ints, time: Ints, value: Ints) -> None:
        row, moved = self.rings.room(key)
        if moved is not None:
            self.buckets.move(moved, len(self.rings.newest))
        merged = self.rings.add(row, time, value)
        busy = merged.full & (merged.new | ~merged.had_dropped)
        if busy.any():
            self.buckets.add(merged.row[busy], merged.time[busy], len(self.rings.newest))

    def state(self) -> dict[str, Arrays]:
        """Return named tables of arrays."""
        held = self.rings.state()
        rows = self.rings.rows(held["key"], np.ones(len(held["key"]), np.bool_))
        padded = np.zeros(len(self.rings.newest), np.int64)
        padded[: len(self.buckets.of_row)] = self.buckets.of_row
        entry = np.flatnonzero(padded[rows])
        busy = padded[rows[entry]]
        buckets: Arrays = {"entry": entry}
        for window in range(len(self.windows)):
            for part in range(self.buckets.parts + 2):
                buckets[f"part {window} {part}"] = self.buckets.part[busy, window, part]
                buckets[f"count {window} {part}"] = self.buckets.count[busy, window, part]
        return {"rings": held, "buckets": buckets}

    def restore(self, tables: Mapping[str, Arrays]) -> None:
        """Take what `state` gave."""
        rows, held = self.rings.restore(tables["rings"]), tables["buckets"]
        mine = rows[held["entry"]]
        made = self.buckets = Buckets(self.windows, self.buckets.parts)
        made.of_row = np.zeros(len(self.rings.newest), np.int64)
        made.of_row[mine] = 1 + np.arange(len(mine))
        made.used = 1 + len(mine)
        shape = (made.used, len(self.windows), made.parts + 2)
        made.part, made.count = np.full(shape, UNKNOWN, np.int64), np.zeros(shape, np.int32)
        for window in range(len(self.windows)):
            for part in range(made.parts + 2):
                made.part[1:, window, part] = held[f"part {window} {part}"]
                made.count[1:, window, part] = held[f"count {window} {part}"]


class LiveItems:
    """The last items of each user.

    Exact for a row that is later than all events of its user; an earlier one sees those of the last
    `length` events that are before it.
    """

    def __init__(self, made: LastItems, user: Cross, item: Cross, users: int) -> None:
        self.user, self.item = user, item
        self.rings = Rings(made.length, users)
        log = made.log
        for key, time, value in _learned(log.key, log.time, log.value, users):
            self.rings.add(self.rings.room(key)[0], time, value)

    def read(self, columns: Columns) -> npt.NDArray[np.int32]:
        """Return the items (n, length), first to last."""
        row, time = _asked(self.rings, self.user, columns)
        items = self.rings.value.take(row, axis=0)
        if (self.rings.newest[row] >= time).any():
            items = np.where(self.rings.time[row] < time[:, None], items, 0)
        out = np.empty((len(columns), self.rings.depth), np.int32)
        out[:] = items
        return out

    def update(self, columns: Columns) -> None:
        """Take n rows as events."""
        time = _times(columns)
        key, known = self.user.keys(columns, entity=True)
        item, _ = self.item.keys(columns)
        keep = known & (time != UNKNOWN) & (item != NULL)
        for part in _learned(key[keep], time[keep], item[keep], self.rings.entities):
            self.rings.add(self.rings.room(part[0])[0], *part[1:])

    def state(self) -> dict[str, Arrays]:
        """Return named tables of arrays."""
        return {"rings": self.rings.state()}

    def restore(self, tables: Mapping[str, Arrays]) -> None:
        """Take what `state` gave."""
        self.rings.restore(tables["rings"])
