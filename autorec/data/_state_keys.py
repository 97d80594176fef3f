"""A table from int64 keys to places, searched and filled by arrays, not one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from autorec.data.features._keys import Ints, Mask

ABSENT = 0  # the place of a key that is not there
_LEAST = 10  # bits of the smallest table
# Odd numbers that spread keys: 2**64 over the golden ratio (Knuth, TAOCP 3, section 6.4), and the
# square root of two, less one; and what undoes a product with them.
_SPREAD = 0x9E3779B97F4A7C15, 0x6A09E667F3BCC909
_FIRST, _SECOND = (np.uint64(each) for each in _SPREAD)
_UNDO_FIRST, _UNDO_SECOND = (np.uint64(pow(each, -1, 1 << 64)) for each in _SPREAD)
_HALF, _ONE, _FREE = np.uint64(32), np.uint64(1), np.uint64(0)
_ROUNDS = 200  # of moving keys, before a table is taken to be too full for them
Words = npt.NDArray[np.uint64]


class KeyTable:
    """Different keys, each with a place of its own from 1 to their number; 21 to 43 bytes a key.

    A key stands in one of two slots (cuckoo hashing: Pagh and Rodler, Journal of Algorithms 51(2),
    2004), so that a search is two gathers and no loop. At most 3/8 of the slots are taken: from
    1/2 on, keys would find no room. The slot is the upper part of a hash that can be undone, so
    that the lower part is all there is to keep of the key (Cleary, IEEE Transactions on Computers
    33(9), 1984), and its place fits beside it. 4000 keys in a table of 33 M slots take 0.06 ms, and
    0.10 where keys and places have arrays of their own (one core of an EPYC, 2026-11).

    Attributes:
        words: (C,) uint64: from above the lower part of the hash, a bit that tells which of the
            two hashes it is, and the place, which is `ABSENT` in a free slot.
        used: how many keys there are.
    """

    def __init__(self, room: int = 0) -> None:
        self._clear(_bits(room))

    def _clear(self, bits: int) -> None:
        self.words: Words = np.zeros(1 << bits, np.uint64)
        self.used, self._bits = 0, bits
        self._lower, self._upper = np.uint64(bits), np.uint64(64 - bits)
        self._other = np.uint64(1 << (bits - 1))

    def __len__(self) -> int:
        return len(self.words)

    def find(self, keys: Ints) -> Ints:
        """Return the place (n,) of each key, `ABSENT` where it is not there."""
        one, two = _hashes(keys)
        here, there = self.words.take(_at(one, self._upper)), self.words.take(_at(two, self._upper))
        # What is left of a word where the hash is the same, is a place; anything else is larger,
        # and with 1 taken away, a free slot is, too.
        one <<= self._lower
        here ^= one
        here -= _ONE
        two <<= self._lower
        two |= self._other
        there ^= two
        there -= _ONE
        np.minimum(here, there, out=here)
        here += _ONE
        here *= here < self._other
        return here.view(np.int64)

    def add(self, keys: Ints, places: Ints) -> None:
        """Take keys (n,) that differ and are absent, with places that differ and are free."""
        self.reserve(len(keys))
        keys, places = self._put(keys, places)
        if len(keys):
            self._rebuild(self._bits + 1, keys, places)

    def reserve(self, more: int) -> None:
        """Make room for so many keys; each growth doubles the slots at least."""
        bits = _bits(self.used + more)
        if bits > self._bits:
            self._rebuild(bits, np.empty(0, np.int64), np.empty(0, np.int64))

    def items(self) -> tuple[Ints, Ints]:
        """Return all keys (U,), in no order, and their places."""
        slots = np.flatnonzero(self.words)
        keys, places, _ = self._read(slots, self.words[slots])
        return keys, places

    def _rebuild(self, bits: int, keys: Ints, places: Ints) -> None:
        """Put what is held and `keys` into 2**`bits` slots, or more where these do not do."""
        while True:
            held = self.items()
            keys, places = np.concatenate([held[0], keys]), np.concatenate([held[1], places])
            self._clear(bits)
            keys, places = self._put(keys, places)
            if not len(keys):
                return
            bits += 1

    def _put(self, keys: Ints, places: Ints) -> tuple[Ints, Ints]:
        """Put keys (n,) into slots; return those that found none, with their places.

        All of them go to their first slots at once. Whoever was there before, and all but one of
        those that meet there, go on to their other slots, and so on.
        """
        self.used += len(keys)
        other = np.zeros(len(keys), np.bool_)
        for _ in range(_ROUNDS):
            if not len(keys):
                break
            hashes = np.where(other, *_hashes(keys)[::-1])
            at = _at(hashes, self._upper)
            words = hashes << self._lower | other * self._other | places.view(np.uint64)
            before = self.words[at]
            self.words[at] = words
            stays = self.words[at] == words
            moves, waits = stays & (before != _FREE), ~stays
            moved, their_places, their_other = self._read(at[moves], before[moves])
            keys = np.concatenate([moved, keys[waits]])
            places = np.concatenate([their_places, places[waits]])
            other = ~np.concatenate([their_other, other[waits]])
        self.used -= len(keys)
        return keys, places

    def _read(self, slots: Ints, words: Words) -> tuple[Ints, Ints, Mask]:
        """Return key (n,) and place of the words of slots, and which stand in their second slot."""
        hashes = slots.view(np.uint64) << self._upper | words >> self._lower
        other = words & self._other != _FREE
        keys = _undone(np.where(other, _undone(hashes, _UNDO_SECOND), hashes), _UNDO_FIRST)
        places = words & (self._other - _ONE)
        return keys.view(np.int64), places.view(np.int64), other


def _hashes(keys: Ints) -> tuple[Words, Words]:
    """Return two hashes (n,) of keys, each of which tells the key."""
    plain = keys.view(np.uint64)
    one = plain >> _HALF
    one ^= plain
    one *= _FIRST
    two = one >> _HALF
    two ^= one
    two *= _SECOND
    return one, two


def _undone(hashes: Words, undo: np.uint64) -> Words:
    before = hashes * undo
    return np.asarray(before ^ (before >> _HALF))


def _at(hashes: Words, upper: np.uint64) -> Ints:
    return (hashes >> upper).view(np.int64)


def _bits(keys: int) -> int:
    return max(_LEAST, (8 * keys // 3).bit_length())


def distinct(values: Ints) -> Ints:
    """Return the different values (U,), ascending.

    `np.unique` of numpy 2.3 hashes instead: 2 us a value where many differ, a sort 0.1 us.
    """
    ordered = np.sort(values)
    first = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
    return np.asarray(ordered[first])


def longer(values: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Return values (n, ...) with zeros behind them, (size, ...)."""
    out = np.zeros((size, *values.shape[1:]), values.dtype)
    out[: len(values)] = values
    return out
