"""An open-addressed table of int64 keys that is searched and filled by arrays, not one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from autorec.data.features._keys import Ints, Mask

EMPTY = -1
_LEAST = 10  # bits of the smallest table
# 2**64 over the golden ratio: neighbouring keys land far apart (Knuth, TAOCP 3, section 6.4).
_ODD = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_FEW = 128  # keys that take several steps at once
_STEPS = np.arange(1, 17)


class KeyTable:
    """Different keys from 0 on, at most half of the slots taken; 8 bytes a slot.

    A key steps on by 1, 2, 3, ... slots until it finds room, which visits all slots of a power of
    two. Steps of 1 make runs: of 4000 keys the last needed 24 steps, so 10, and a search of them in
    a table of 16 M slots took 0.21 ms, so 0.13; the last few keys take 16 steps at once, which cut
    a search of 1500 keys from 0.077 to 0.048 ms (one core of an EPYC, 2026-11).

    A search ends at the key or at a free slot of its chain, so that whatever is stored by slot and
    holds zeros in free slots answers for absent keys, too, without a mask.

    Attributes:
        keys: (C,) int64, the key of each slot, `EMPTY` where it is free.
        used: how many keys there are.
    """

    def __init__(self, room: int = 0) -> None:
        bits = max(_LEAST, int(2 * room - 1).bit_length() if room else 0)
        self.keys: Ints = np.full(1 << bits, EMPTY, np.int64)
        self.used = 0
        self._shift = np.uint64(64 - bits)

    def __len__(self) -> int:
        return len(self.keys)

    def fits(self, more: int) -> bool:
        """Tell whether `more` keys find room."""
        return 2 * (self.used + more) <= len(self.keys)

    def find(self, keys: Ints) -> Ints:
        """Return the slot (n,) of each key, or the free slot where its chain ends."""
        slots = self._home(keys)
        left = self._onward(keys, slots)
        at, mine, step = slots.take(left), keys.take(left), 0
        while len(left) > _FEW:
            step += 1
            at += step
            at &= len(self.keys) - 1
            slots[left] = at
            go = self._onward(mine, at)
            left, at, mine = left.take(go), at.take(go), mine.take(go)
        while len(left):
            near = at[:, None] + (_STEPS * step + _STEPS * (_STEPS + 1) // 2)
            near &= len(self.keys) - 1
            held = self.keys.take(near)
            ends = held == mine[:, None]
            ends |= held == EMPTY
            ended = ends.any(axis=1)
            place = np.where(ended, ends.argmax(axis=1), len(_STEPS) - 1)
            at = near[np.arange(len(left)), place]
            slots[left] = at
            go = np.flatnonzero(~ended)
            left, at, mine, step = left.take(go), at.take(go), mine.take(go), step + len(_STEPS)
        return slots

    def _onward(self, keys: Ints, slots: Ints) -> Ints:
        """Return which keys (n,) meet another one in their slots."""
        held = self.keys.take(slots)
        other = held != keys
        other &= held != EMPTY
        return np.flatnonzero(other)

    def has(self, keys: Ints, slots: Ints) -> Mask:
        """Tell which keys (n,) are there, by the slots that `find` gave."""
        return np.asarray(self.keys[slots] == keys)

    def add(self, keys: Ints) -> Ints:
        """Take keys (n,) that differ and are absent, for which there is room; return their slots.

        All keys move along their chains at once; of those that meet in a free slot one stays.
        """
        slots = self._home(keys)
        left, step = np.arange(len(keys)), 0
        while len(left):
            at, mine = slots[left], keys[left]
            free = self.keys[at] == EMPTY
            self.keys[at[free]] = mine[free]
            left, step = left[self.keys[at] != mine], step + 1
            slots[left] = (slots[left] + step) & (len(self.keys) - 1)
        self.used += len(keys)
        return slots

    def slots(self) -> Ints:
        """Return the slots (U,) that are taken."""
        return np.flatnonzero(self.keys != EMPTY)

    def larger(self, more: int) -> tuple[KeyTable, Ints, Ints]:
        """Return a table with room for `more` keys, and old and new slots (U,).

        Sizes are powers of two, so that each growth doubles the slots at least.
        """
        made = KeyTable(self.used + more)
        old = self.slots()
        return made, old, made.add(self.keys[old])

    def _home(self, keys: Ints) -> Ints:
        hashed = keys.view(np.uint64)
        hashed = (hashed ^ (hashed >> _HALF)) * _ODD
        hashed >>= self._shift
        return hashed.view(np.int64)


def distinct(values: Ints) -> Ints:
    """Return the different values (U,), ascending.

    `np.unique` of numpy 2.3 hashes instead: 2 us a value where many differ, a sort 0.1 us.
    """
    ordered = np.sort(values)
    first = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
    return np.asarray(ordered[first])


def grown(values: npt.NDArray[Any], size: int, old: Ints, new: Ints) -> npt.NDArray[Any]:
    """Return zeros (size, ...) with the entries of `values` at `old` moved to `new`."""
    out = np.zeros((size, *values.shape[1:]), values.dtype)
    out[new] = values[old]
    return out
