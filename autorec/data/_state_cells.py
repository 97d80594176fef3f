"""Rows and label sums of the values of fields and crosses: all statistics in one table of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autorec.data._state_keys import ABSENT, KeyTable, longer
from autorec.data._state_sketch import Sketch
from autorec.data.columns import Columns
from autorec.data.features._files import Arrays
from autorec.data.features._keys import Cross, Ints, Mask, title
from autorec.data.features._order import logged
from autorec.data.features._table import Floats
from autorec.data.hashing import mix
from autorec.data.vocabulary import UNKNOWN
from autorec.schema import Layout
from autorec.seeding import derive

_DIRECT = 1 << 20  # cells that are addressed by the key itself: 28 MiB
_EXACT = 1 << 53  # a float64 counts to here
_WIDE = 1 << 62
_WIDE_BITS = 54  # of the hash in an address that no float64 holds
_SUMS = ("seen", "labelled", "total")


class Addresses:
    """One int64 per row and level: below `direct` a cell, above it a key that is looked up.

    The levels are crosses with spans of their own, so that one matrix product gives all addresses
    of a request: it counts in mixed radix, and is exact below 2**53. Levels beyond get a hash with
    their number above its 54 bits. Levels with few possible keys come first and are `direct`.

    Attributes:
        levels: (L,) the crosses, those with cells of their own first.
        bases: first address of each level; of a wide one, its lowest hash.
        cells: levels that are addressed directly.
        direct: their cells.
    """

    def __init__(self, crosses: Sequence[Cross]) -> None:
        self.levels = tuple(sorted(dict.fromkeys(crosses), key=lambda cross: cross.span))
        self.place = {cross.fields: at for at, cross in enumerate(self.levels)}
        self.fields = sorted({name for cross in self.levels for name in cross.fields})
        self.bases: list[int] = []
        self.cells = self.direct = self.narrow = end = 0
        for at, cross in enumerate(self.levels):
            if end + cross.span >= _EXACT:
                self.bases.append(_WIDE | at << _WIDE_BITS)
                continue
            self.bases.append(end)
            end, self.narrow = end + cross.span, at + 1
            if end <= _DIRECT:
                self.cells, self.direct = at + 1, end
        self._radix = np.zeros((self.narrow, len(self.fields) + 1))
        self._reads = np.zeros((len(self.levels), len(self.fields)))
        for at, cross in enumerate(self.levels):
            scale = 1
            for name, rows in zip(reversed(cross.fields), reversed(cross.rows), strict=True):
                self._reads[at, self.fields.index(name)] = 1.0
                if at < self.narrow:
                    self._radix[at, self.fields.index(name)] = scale
                scale *= rows
            if at < self.narrow:
                self._radix[at, -1] = self.bases[at]
        self._places: tuple[Layout | None, Ints] = (None, np.zeros(0, np.int64))

    def of(self, columns: Columns) -> Ints:
        """Return the addresses (L, n) of n rows, of unknown rows, too."""
        codes = np.ones((len(self.fields) + 1, len(columns)))
        codes[:-1] = self._codes(columns)
        out = np.empty((len(self.levels), len(columns)), np.int64)
        out[: self.narrow] = self._radix @ codes
        for at in range(self.narrow, len(self.levels)):
            out[at] = self.of_keys(self.levels[at], self.levels[at].keys(columns)[0])
        return out

    def of_keys(self, cross: Cross, keys: Ints) -> Ints:
        """Return the addresses (n,) of keys of a level."""
        at = self.place[cross.fields]
        if at < self.narrow:
            return keys + self.bases[at]
        hashed = mix(keys.view(np.uint64) ^ np.uint64(derive(0, "state", *cross.fields)))
        return (hashed >> np.uint64(64 - _WIDE_BITS)).view(np.int64) | self.bases[at]

    def known(self, columns: Columns) -> Mask:
        """Tell of which levels each row is known (L, n): no code is out of vocabulary."""
        return np.asarray(self._reads @ (self._codes(columns) == UNKNOWN) == 0.0)

    def level(self, address: Ints) -> Ints:
        """Return the level (n,) of each address."""
        narrow = np.searchsorted(self.bases[: self.narrow], address, side="right") - 1
        wide = (address >> _WIDE_BITS) & ((1 << 8) - 1)
        return np.where(address < _WIDE, narrow, wide)

    def _codes(self, columns: Columns) -> npt.NDArray[np.int32]:
        layout, places = self._places
        if columns.layout is not layout:  # the same object in every request of a server
            names = [field.name for field in columns.layout.sparse]
            places = np.array([names.index(name) for name in self.fields], np.int64)
            self._places = columns.layout, places  # at once: threads may read other layouts
        return columns.codes.T[places]


class Found(NamedTuple):
    """Where the rows of a request stand: addresses and cells (L, n), and the rows themselves."""

    address: Ints
    cell: Ints
    columns: Columns


class Cells:
    """Sums of every key of every level: its rows, its rows with a label, and their label sum.

    Exact for the first `limit` keys of a level (of what a transform has learned, the most frequent
    ones), and estimated for the others by one sketch per level. Memory: 28 bytes for each possible
    key of levels that together have at most 2**20, and 50 to 85 bytes for each other key.

    Cells of levels that are addressed directly come first, then one of zeros for absent keys, then
    those of the keys of the table, in the order in which they came.
    """

    def __init__(self, addresses: Addresses, limit: int, epsilon: float, delta: float) -> None:
        self.addresses, self.limit = addresses, limit
        self.epsilon, self.delta = epsilon, delta
        self.sketches: dict[int, Sketch] = {}
        self._kept = np.zeros(len(addresses.levels), np.int64)
        self._table = KeyTable()
        size = addresses.direct + 1
        self._sums = np.zeros((size, 2))  # labelled rows and label sum, read together
        self._seen = np.zeros(size)
        self._logged = np.zeros(size, np.float32)

    def find(self, columns: Columns) -> Found:
        """Return where n rows stand; a key that is absent stands on a cell of zeros."""
        address = self.addresses.of(columns)
        cell, first = address, self.addresses.cells
        if first < len(address):
            cell = address.copy() if self.sketches else address  # which only sketches need again
            place = self._table.find(address[first:].ravel()).reshape(-1, len(columns))
            np.add(place, self.addresses.direct, out=cell[first:])
        return Found(address, cell, columns)

    def logged(self, found: Found, levels: Ints) -> npt.NDArray[np.float32]:
        """Return log1p of the rows (k, n) of some levels."""
        out = self._logged.take(found.cell[levels])
        for row, missing, estimate in self._estimates(found, levels):
            out[row, missing] = logged(estimate[0])
        return np.asarray(out)

    def support(self, found: Found, levels: Ints) -> tuple[Floats, Floats]:
        """Return labelled rows and label sums (k, n) of some levels."""
        both = self._sums.take(found.cell[levels], axis=0)  # a tenth of the time of an index
        count, total = both[..., 0], both[..., 1]
        for row, missing, estimate in self._estimates(found, levels):
            count[row, missing] = estimate[1]
            total[row, missing] = estimate[2] - estimate[3]
        return count, total

    def _estimates(self, found: Found, levels: Ints) -> list[tuple[int, Ints, Floats]]:
        """Return row of `levels`, absent rows and estimates (4, m) of levels with sketches."""
        out: list[tuple[int, Ints, Floats]] = []
        if not self.sketches:
            return out
        for row, level in enumerate(levels.tolist()):
            if level not in self.sketches:
                continue
            address, nowhere = found.address[level], self.addresses.direct + ABSENT
            absent = found.cell[level] == nowhere
            missing = np.flatnonzero(absent & self.addresses.known(found.columns)[level])
            out.append((row, missing, self.sketches[level].read(address[missing])))
        return out

    def update(self, columns: Columns, *, seen: bool, label: Floats | None) -> None:
        """Add n rows: to the rows of their keys, and where there are labels, to the label sums.

        Args:
            columns: n rows.
            seen: whether the rows are counted.
            label: (n,), NaN where it is not known.
        """
        known = self.addresses.known(columns)
        address, place = np.unique(self.addresses.of(columns)[known], return_inverse=True)
        row = np.broadcast_to(np.arange(len(columns)), known.shape)[known]
        amounts = np.zeros((3, len(address)))
        if seen:
            amounts[0] = np.bincount(place, minlength=len(address))
        if label is not None:
            told = ~np.isnan(label)
            amounts[1] = np.bincount(place, told[row], minlength=len(address))
            amounts[2] = np.bincount(place, np.where(told, label, 0.0)[row], minlength=len(address))
        below = np.zeros(len(address))
        if label is not None and (label < 0).any():
            below += np.bincount(place, np.fmin(label, 0.0)[row], minlength=len(address))
        self.add(address, amounts, -below)

    def add(self, address: Ints, amounts: Floats, negative: Floats | None = None) -> None:
        """Add amounts (3, n), of which labels below 0 made -`negative`, to ascending addresses."""
        direct = int(np.searchsorted(address, self.addresses.direct))
        keys = address[direct:]
        new = np.flatnonzero(self._table.find(keys) == ABSENT)
        if len(new):
            spilled = self._admit(keys, new, amounts[0, direct:])
            if len(spilled):
                self._spill(keys, spilled, amounts[:, direct:], negative, direct)
                keep = np.ones(len(address), np.bool_)
                keep[direct + spilled] = False
                address, amounts, keys = (
                    address[keep],
                    amounts[:, keep],
                    address[direct:][keep[direct:]],
                )
        cell = address.copy()
        cell[direct:] = self._table.find(keys) + self.addresses.direct
        self._seen[cell] += amounts[0]
        self._sums[cell] += amounts[1:].T
        self._logged[cell] = logged(self._seen[cell])

    def _admit(self, keys: Ints, new: Ints, rows: Floats) -> Ints:
        """Give slots to new keys that the limit allows, frequent ones first; return the rest."""
        level = self.addresses.level(keys[new])
        order = np.lexsort((-rows[new], level))
        ordered = level[order]
        rank = np.arange(len(new)) - np.searchsorted(ordered, ordered)
        allowed = np.empty(len(new), np.bool_)
        allowed[order] = rank + self._kept[ordered] < self.limit
        self._take(keys[new[allowed]])
        self._kept += np.bincount(level[allowed], minlength=len(self._kept))
        return new[~allowed]

    def _take(self, keys: Ints) -> None:
        """Give new keys (n,) the next cells."""
        self.reserve(len(keys))
        self._table.add(keys, 1 + self._table.used + np.arange(len(keys)))

    def reserve(self, more: int) -> None:
        """Make room for so many keys at once; cells grow by a half at least."""
        self._table.reserve(more)
        held = len(self._seen)
        needed = self.addresses.direct + 1 + self._table.used + more
        if needed > held:
            size = max(needed, held + (held - self.addresses.direct) // 2)
            self._sums = longer(self._sums, size)
            self._seen = longer(self._seen, size)
            self._logged = longer(self._logged, size)

    def _spill(
        self, keys: Ints, spilled: Ints, amounts: Floats, negative: Floats | None, first: int
    ) -> None:
        below = np.zeros(len(keys)) if negative is None else negative[first:]
        planes = np.stack([amounts[0], amounts[1], amounts[2] + below, below])
        level = self.addresses.level(keys[spilled])
        for one in np.unique(level).tolist():
            sketch = self._sketch(one)
            mine = spilled[level == one]
            sketch.add(keys[mine], planes[:, mine])

    def _sketch(self, level: int) -> Sketch:
        if level not in self.sketches:
            self.sketches[level] = Sketch(4, epsilon=self.epsilon, delta=self.delta, seed=level)
        return self.sketches[level]

    def state(self) -> dict[str, Arrays]:
        """Return named tables of arrays: the kept keys of each level, and its sketch."""
        first = self.addresses.direct
        keys, places = self._table.items()
        direct = np.flatnonzero(self._seen[:first] + self._sums[:first, 0])
        address = np.concatenate([direct, keys])
        cell = np.concatenate([direct, places + first])
        level = self.addresses.level(address)
        out: dict[str, Arrays] = {}
        for at, cross in enumerate(self.addresses.levels):
            mine = cell[level == at]
            sums = (self._seen[mine], self._sums[mine, 0], self._sums[mine, 1])
            held = dict(zip(_SUMS, sums, strict=True))
            name = title(cross.fields)
            out[f"keys {name}"] = {"key": address[level == at] - self.addresses.bases[at], **held}
            if at in self.sketches:
                planes = self.sketches[at].cells
                out[f"sketch {name}"] = {str(plane): row for plane, row in enumerate(planes)}
        return out

    def restore(self, tables: Mapping[str, Arrays]) -> None:
        """Take what `state` gave."""
        for at, cross in enumerate(self.addresses.levels):
            table = tables[f"keys {title(cross.fields)}"]
            order = np.argsort(table["key"])
            amounts = np.stack([table[name][order] for name in _SUMS])
            self.add(table["key"][order] + self.addresses.bases[at], amounts)
            sketch = tables.get(f"sketch {title(cross.fields)}")
            if sketch is not None:
                planes = [sketch[str(plane)] for plane in range(len(sketch))]
                self._sketch(at).cells = np.stack(planes)
