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


class KeyTable:
    """Different keys from 0 on, at most half of the slots taken; 8 bytes a slot.

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
        held = self.keys[slots]
        left = np.flatnonzero((held != keys) & (held != EMPTY))
        while len(left):
            slots[left] = at = (slots[left] + 1) & (len(self.keys) - 1)
            held = self.keys[at]
            left = left[(held != keys[left]) & (held != EMPTY)]
        return slots

    def has(self, keys: Ints, slots: Ints) -> Mask:
        """Tell which keys (n,) are there, by the slots that `find` gave."""
        return np.asarray(self.keys[slots] == keys)

    def add(self, keys: Ints) -> Ints:
        """Take keys (n,) that differ and are absent, for which there is room; return their slots.

        All keys move along their chains at once; of those that meet in a free slot one stays.
        """
        slots = self._home(keys)
        left = np.arange(len(keys))
        while len(left):
            at, mine = slots[left], keys[left]
            free = self.keys[at] == EMPTY
            self.keys[at[free]] = mine[free]
            left = left[self.keys[at] != mine]
            slots[left] = (slots[left] + 1) & (len(self.keys) - 1)
        self.used += len(keys)
        return slots

    def slots(self) -> Ints:
        """Return the slots (U,) that are taken."""
        return np.flatnonzero(self.keys != EMPTY)

    def larger(self, more: int) -> tuple[KeyTable, Ints, Ints]:
        """Return a table with room for twice what it will hold, and old and new slots (U,)."""
        made = KeyTable(2 * (self.used + more))
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
