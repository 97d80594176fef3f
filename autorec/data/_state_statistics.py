"""Counts and rates of a request, all at once: the matrix form of `Counts.apply`, `Rates.apply`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autorec.data._state_cells import Addresses, Cells
from autorec.data._state_keys import distinct
from autorec.data.columns import Columns
from autorec.data.features._keys import Cross, Ints
from autorec.data.features._table import Floats, Table, exact
from autorec.data.features.counts import Counts
from autorec.data.features.rates import Rates
from autorec.errors import ConfigError

WHOLE = Cross((), ())  # the level of all rows


class _Group(NamedTuple):
    """The rates of crosses of k fields: output columns (m,), where their numbers stand."""

    columns: Ints
    parents: Ints  # (k, m), into the single rates
    level: slice  # of the support
    strength: Floats  # (m, 1)


class Statistics:
    """Every `Counts` and `Rates` of a state, and the cells that they share.

    Args:
        counts, rates: fitted transforms by the output column of each.
        limit: keys of a level that are exact.
        epsilon, delta: of the estimates beyond.
    """

    def __init__(
        self,
        counts: Mapping[int, Counts],
        rates: Mapping[int, Rates],
        limit: int,
        epsilon: float,
        delta: float,
    ) -> None:
        made: list[Counts | Rates] = [*counts.values(), *rates.values()]
        crosses = [WHOLE, *(cross for each in made for cross in each.tables)]
        addresses = Addresses(crosses)
        self.cells = Cells(addresses, limit, epsilon, delta)
        self._count_columns = np.array(list(counts), np.int64)
        self._count_levels = _levels(addresses, [each.fields for each in counts.values()])
        self._plan(rates, addresses)

    def _plan(self, rates: Mapping[int, Rates], addresses: Addresses) -> None:
        """Lay out what is read once: all rows, single rates, crosses by their number of fields."""
        singles: dict[tuple[str, float], int] = {}
        for each in rates.values():
            for name in each.fields:
                singles.setdefault((name, each.strength), len(singles))
        self._single_strength = np.array([[m] for _, m in singles]).reshape(-1, 1)
        levels: list[tuple[str, ...]] = [(), *((name,) for name, _ in singles)]
        self._singles = slice(1, len(levels))
        self._groups: list[_Group] = []
        for size in (1, 2, 3):
            mine = {at: each for at, each in rates.items() if len(each.fields) == size}
            if not mine:
                continue
            first = len(levels)
            levels += [r.fields for r in mine.values()] if size > 1 else []
            parents = [[singles[name, r.strength] for name in r.fields] for r in mine.values()]
            self._groups.append(
                _Group(
                    np.array(list(mine), np.int64),
                    np.array(parents, np.int64).T.copy(),
                    slice(first, len(levels)),
                    np.array([[r.strength] for r in mine.values()]),
                )
            )
        self._support = _levels(addresses, levels)

    def learn(self, counts: Sequence[Counts], rates: Sequence[Rates]) -> None:
        """Take what fitted transforms know.

        Raises:
            ConfigError: rates of different rows.
        """
        held: dict[Cross, list[Table | None]] = {}
        for count in counts:
            for cross, table in count.tables.items():
                held.setdefault(cross, [None, None])[0] = table
        for rate in rates:
            for cross, table in rate.tables.items():
                held.setdefault(cross, [None, None])[1] = table
        whole = {rate.whole for rate in rates}
        if len(whole) > 1:
            raise ConfigError(
                "rates of one state are fitted on the same rows, but theirs have (rows, label sum) "
                f"{sorted(whole)}; fit them together"
            )
        for rows, total in whole:
            if rows:
                self.cells.add(
                    np.array([self._address(WHOLE)]), np.array([[rows], [rows], [total]])
                )
        tabled = {cross: [t for t in tables if t is not None] for cross, tables in held.items()}
        self.cells.reserve(
            sum(
                min(self.cells.limit, *map(len, tables))
                for cross, tables in tabled.items()
                if self.cells.addresses.place[cross.fields] >= self.cells.addresses.cells
            )
        )
        for cross, (counted, rated) in held.items():
            self._take(cross, counted, rated)

    def _take(self, cross: Cross, counted: Table | None, rated: Table | None) -> None:
        """Put the keys of one or two tables of a cross into the cells."""
        parts = [table.keys for table in (counted, rated) if table is not None]
        keys = parts[0]
        if not np.array_equal(keys, parts[-1]):
            keys = distinct(np.concatenate(parts))
        amounts = np.zeros((3, len(keys)))
        every = np.ones(len(keys), np.bool_)
        if counted is not None:
            amounts[0] = counted.counts(counted.find(keys, every))
        if rated is not None:
            place = rated.find(keys, every)
            amounts[1], amounts[2] = rated.counts(place), rated.totals(place)
        address = self.cells.addresses.of_keys(cross, keys)
        order = np.argsort(address)
        self.cells.add(address[order], amounts[:, order])

    def _address(self, cross: Cross) -> int:
        addresses = self.cells.addresses
        return addresses.bases[addresses.place[cross.fields]]

    def read(self, columns: Columns, out: npt.NDArray[np.float32]) -> None:
        """Write the values of n rows into their places of `out` (Q, n)."""
        found = self.cells.find(columns)
        if len(self._count_columns):
            out[self._count_columns] = self.cells.logged(found, self._count_levels)
        if not self._groups:
            return
        count, total = self.cells.support(found, self._support)
        prior = total[0] / np.maximum(count[0], 1.0)
        single = _shrunk(count[self._singles], total[self._singles], self._single_strength, prior)
        for group in self._groups:
            parent = single.take(group.parents[0], axis=0)
            for each in group.parents[1:]:
                parent += single.take(each, axis=0)
            if len(group.parents) > 1:
                parent /= len(group.parents)
                parent = _shrunk(count[group.level], total[group.level], group.strength, parent)
            out[group.columns] = parent

    def update(self, columns: Columns, *, seen: bool, labels: bool) -> None:
        """Add n rows; `seen` counts them, `labels` takes their labels where they are known."""
        label = exact(columns.label) if labels and columns.label is not None else None
        if seen or label is not None:
            self.cells.update(columns, seen=seen, label=label)


def _shrunk(count: Floats, total: Floats, strength: Floats, parent: Floats) -> Floats:
    """Return (total + m * parent) / (count + m), each (k, n)."""
    rate = strength * parent
    rate += total
    rate /= count + strength
    return rate


def _levels(addresses: Addresses, fields: Sequence[tuple[str, ...]]) -> Ints:
    return np.array([addresses.place[each] for each in fields], np.int64)
