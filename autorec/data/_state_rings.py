"""The last events of entities: a short ascending row of moments, and of what happened, for each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autorec.data._state_keys import ABSENT, KeyTable, distinct
from autorec.data.features._files import Arrays
from autorec.data.features._keys import Ints, Mask
from autorec.data.timeline import UNKNOWN

NOBODY = ABSENT  # the row of who is not there, which stays empty


class Merged(NamedTuple):
    """Old and new events of the entities of an update, by entity, time and value.

    Attributes:
        row, time: (m,) row of the entity, and moment.
        new: (m,) whether the event came with the update.
        full: (m,) whether the entity has more events than its row holds.
        had_dropped: (m,) whether it had dropped events before.
    """

    row: Ints
    time: Ints
    new: Mask
    full: Mask
    had_dropped: Mask


class Rings:
    """Times and values of the last `depth` events of at most `entities` entities.

    Beyond that, those whose last event is longest ago are forgotten, a quarter of them at once.
    An event that comes late takes its place in time. Memory: 16 * depth + 16 bytes an entity, and
    21 to 43 more for its key.

    Attributes:
        time, value: (K, depth) int64, ascending from the left, `UNKNOWN` and 0 behind them.
        newest: (K,) the last moment.
        dropped: (K,) the last moment that has left the row, `UNKNOWN` where none has.
    """

    def __init__(self, depth: int, entities: int) -> None:
        self.depth, self.entities = depth, entities
        self._clear(0)

    def _clear(self, room: int) -> None:
        self._table = KeyTable(room)
        self._used, size = 1, 1 + room
        self.time: Ints = np.full((size, self.depth), UNKNOWN, np.int64)
        self.value: Ints = np.zeros((size, self.depth), np.int64)
        self.newest: Ints = np.full(size, UNKNOWN, np.int64)
        self.dropped: Ints = np.full(size, UNKNOWN, np.int64)

    def __len__(self) -> int:
        return self._used - 1

    def rows(self, key: Ints, known: Mask) -> Ints:
        """Return the row (n,) of each entity, `NOBODY` where it is not known."""
        return np.where(known, self._table.find(key), NOBODY)

    def room(self, key: Ints) -> tuple[Ints, Ints | None]:
        """Make room for entities (n,); return their rows, and where old rows went or None.

        At most a quarter of `entities` may differ.
        """
        keys, place = np.unique(key, return_inverse=True)
        new = keys[self._table.find(keys) == NOBODY]
        moved = None
        if len(self) + len(new) > self.entities:
            moved = self._forget(keys)
            new = keys[self._table.find(keys) == NOBODY]
        if self._used + len(new) > len(self.newest):
            self._lengthen(max(len(new), min(2 * self._used, self.entities - self._used)))
        self._table.add(new, self._used + np.arange(len(new)))
        self._used += len(new)
        return self._table.find(keys)[place], moved

    def _lengthen(self, more: int) -> None:
        def longer(values: Ints, fill: int) -> Ints:
            return np.concatenate([values, np.full((more, *values.shape[1:]), fill, np.int64)])

        self.time, self.value = longer(self.time, UNKNOWN), longer(self.value, 0)
        self.newest, self.dropped = longer(self.newest, UNKNOWN), longer(self.dropped, UNKNOWN)

    def _forget(self, needed: Ints) -> Ints:
        """Keep the latest three quarters, less room for `needed`; return new rows of old ones."""
        keys, rows = self._table.items()
        keep = max(0, self.entities - max(self.entities // 4, len(needed)))
        order = np.lexsort((keys, self.newest[rows]))[len(rows) - min(keep, len(rows)) :]
        old, held = rows[order], (self.time, self.value, self.newest, self.dropped)
        moved = np.zeros(len(self.newest), np.int64)
        self._clear(self.entities)
        moved[old] = 1 + np.arange(len(old))
        for mine, values in zip(
            (self.time, self.value, self.newest, self.dropped), held, strict=True
        ):
            mine[1 : 1 + len(old)] = values[old]
        self._table.add(keys[order], moved[old])
        self._used = 1 + len(old)
        return moved

    def add(self, row: Ints, time: Ints, value: Ints) -> Merged:
        """Put events (n,) with known times into their rows."""
        rows = distinct(row)
        held = self.time[rows]
        filled = held != UNKNOWN
        owner = np.repeat(rows, filled.sum(1))
        every = np.concatenate([owner, row]), np.concatenate([held[filled], time])
        what = np.concatenate([self.value[rows][filled], value])
        new = np.arange(len(what)) >= len(owner)
        order = np.lexsort((new, what, every[1], every[0]))
        owner, times, what, new = every[0][order], every[1][order], what[order], new[order]
        first = np.searchsorted(owner, rows)
        end = np.append(first[1:], len(owner))
        group = np.repeat(np.arange(len(rows)), end - first)
        over = np.maximum(end - first - self.depth, 0)
        had = (self.dropped[rows] != UNKNOWN)[group]
        place = np.arange(len(owner)) - first[group] - over[group]
        stays = place >= 0
        self.time[rows], self.value[rows] = UNKNOWN, 0
        self.time[owner[stays], place[stays]] = times[stays]
        self.value[owner[stays], place[stays]] = what[stays]
        self.newest[rows] = times[end - 1]
        gone = times[np.maximum(first + over - 1, 0)]
        gone = np.where(over > 0, gone, UNKNOWN)
        self.dropped[rows] = np.maximum(self.dropped[rows], gone)
        return Merged(owner, times, new, (over > 0)[group], had)

    def state(self) -> Arrays:
        """Return keys, rows and their events as 1-d arrays of K entries or K * depth."""
        keys, rows = self._table.items()
        out: Arrays = {"key": keys, "dropped": self.dropped[rows]}
        for place in range(self.depth):
            out[f"time {place}"] = self.time[rows, place]
            out[f"value {place}"] = self.value[rows, place]
        return out

    def restore(self, held: Arrays) -> Ints:
        """Take what `state` gave; return the rows (K,) of its entries."""
        count = len(held["key"])
        self._clear(count)
        rows = 1 + np.arange(count)
        self._table.add(held["key"], rows)
        self._used = 1 + count
        for place in range(self.depth):
            self.time[rows, place] = held[f"time {place}"]
            self.value[rows, place] = held[f"value {place}"]
        self.dropped[rows] = held["dropped"]
        self.newest[rows] = self.time[rows].max(1)
        return rows


class Buckets:
    """Events of busy entities, counted in `parts` equal parts of each window: H entities at a time.

    The events of the last w seconds are those of the whole parts, and of the oldest part the share
    that lies inside: the error is at most the events of that one part, w / parts long. Memory:
    12 * windows * (parts + 2) bytes a busy entity.
    """

    def __init__(self, windows: tuple[int, ...], parts: int) -> None:
        self.windows, self.parts = windows, parts
        self.lengths = np.array([max(1, -(-window // parts)) for window in windows], np.int64)
        self.of_row: Ints = np.zeros(1, np.int64)  # 0: no buckets
        shape = (1, len(windows), parts + 2)
        self.part: Ints = np.full(shape, UNKNOWN, np.int64)
        self.count = np.zeros(shape, np.int32)
        self.used = 1

    def move(self, moved: Ints, size: int) -> None:
        """Follow rows to new places: `moved` (K,) tells the new row, 0 of what is gone."""
        old = np.flatnonzero(moved[: len(self.of_row)] * self.of_row[: len(moved)])
        held = self.of_row[old]
        self.of_row = np.zeros(size, np.int64)
        self.of_row[moved[old]] = 1 + np.arange(len(old))
        blank = np.zeros(1, np.int64)
        keep = np.concatenate([blank, held])
        self.part, self.count = self.part[keep], self.count[keep]
        self.used = 1 + len(old)

    def add(self, row: Ints, time: Ints, size: int) -> None:
        """Count events (n,) of rows, which get buckets where they have none."""
        if len(self.of_row) < size:
            self.of_row = np.concatenate([self.of_row, np.zeros(size - len(self.of_row), np.int64)])
        new = distinct(row[self.of_row[row] == 0])
        if self.used + len(new) > len(self.part):
            more = max(len(new), len(self.part))
            shape = (more, *self.part.shape[1:])
            self.part = np.concatenate([self.part, np.full(shape, UNKNOWN, np.int64)])
            self.count = np.concatenate([self.count, np.zeros(shape, np.int32)])
        self.of_row[new] = self.used + np.arange(len(new))
        self.used += len(new)
        slots = self.parts + 2
        parts, counts = self.part.reshape(-1), self.count.reshape(-1)
        for window, length in enumerate(self.lengths.tolist()):
            part = time // length
            at = (self.of_row[row] * len(self.windows) + window) * slots + part % slots
            before = parts[at]
            # The newest part of a slot wins; what is older than it has left the window.
            np.maximum.at(parts, at, part)
            counts[at[before < parts[at]]] = 0
            np.add.at(counts, at[part == parts[at]], 1)

    def near(self, row: Ints, time: Ints, window: int) -> Ints:
        """Return the events (n,) of rows with buckets in a window before `time` (n,)."""
        length = int(self.lengths[window])
        busy = self.of_row[row]
        part, count = self.part[busy, window], self.count[busy, window]
        oldest = (time - self.windows[window])[:, None]
        # Rows that never saw a part are far below every window; no product with them may wrap.
        inside = (part > oldest // length) & (part <= (time // length)[:, None])
        edge = part == oldest // length
        share = ((oldest // length + 1) * length - oldest) / length
        events = (count * inside).sum(1) + (count * edge * share).sum(1)
        return np.asarray(np.rint(events).astype(np.int64))
