"""Counts and rates of a request, all at once: the matrix form of `Counts.apply`, `Rates.apply`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autorec.data._state_cells import Addresses, Cells, Found
from autorec.data._state_keys import distinct
from autorec.data.columns import Columns
from autorec.data.features._keys import Cross, Ints
from autorec.data.features._table import Floats, Table, exact
from autorec.data.features.counts import Counts
from autorec.data.features.rates import Rates
from autorec.errors import ConfigError

WHOLE = Cross((), ())  # the level of all rows


class _Crossed(NamedTuple):
    """The rates of m crosses of up to k fields: output columns (m,), where their numbers stand."""

    columns: slice | Ints
    parents: Ints  # (k, m), into the single rates and a row of zeros behind them
    fields: Floats  # (m, 1), how many fields each has
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
        self._count_columns = _run(list(counts))
        self._has_counts = bool(counts)
        self._count_levels = _levels(addresses, [each.fields for each in counts.values()])
        self._plan(rates, addresses)

    def _plan(self, rates: Mapping[int, Rates], addresses: Addresses) -> None:
        """Lay out what is read once: all rows, single rates, crosses by their number of fields."""
        singles: dict[tuple[str, float], int] = {}
        for each in rates.values():
            for name in each.fields:
                singles.setdefault((name, each.strength), len(singles))
        self._single_strength = np.array([[m] for _, m in singles]).reshape(-1, 1)
        alone = {at: each for at, each in rates.items() if len(each.fields) == 1}
        self._alone = np.array(list(alone), np.int64)
        self._alone_from = np.array(
            [singles[each.fields[0], each.strength] for each in alone.values()], np.int64
        )
        levels: list[tuple[str, ...]] = [(), *((name,) for name, _ in singles)]
        self._singles = slice(1, len(levels))
        crossed = {at: each for at, each in rates.items() if len(each.fields) > 1}
        most = max((len(each.fields) for each in crossed.values()), default=0)
        parents = np.full((most, len(crossed)), len(singles), np.int64)
        for column, each in enumerate(crossed.values()):
            places = [singles[name, each.strength] for name in each.fields]
            parents[: len(places), column] = places
        self._crossed = _Crossed(
            _run(list(crossed)),
            parents,
            np.array([[float(len(each.fields))] for each in crossed.values()]),
            slice(len(levels), len(levels) + len(crossed)),
            np.array([[each.strength] for each in crossed.values()]),
        )
        self._support = _levels(addresses, [*levels, *(r.fields for r in crossed.values())])

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
        if self._has_counts:
            out[self._count_columns] = self.cells.logged(found, self._count_levels)
        if len(self._single_strength):
            self._read_rates(found, out)

    def _read_rates(self, found: Found, out: npt.NDArray[np.float32]) -> None:
        count, total = self.cells.support(found, self._support)
        prior = total[0] / np.maximum(count[0], 1.0)
        single = np.zeros((len(self._single_strength) + 1, count.shape[1]))
        _shrink(
            single[:-1], count[self._singles], total[self._singles], self._single_strength, prior
        )
        if len(self._alone):
            out[self._alone] = single.take(self._alone_from, axis=0)
        crossed = self._crossed
        if not len(crossed.strength):
            return
        parent = single.take(crossed.parents[0], axis=0)
        for each in crossed.parents[1:]:
            parent += single.take(each, axis=0)  # of zeros where a cross has fewer fields
        parent /= crossed.fields
        _shrink(parent, count[crossed.level], total[crossed.level], crossed.strength, parent)
        out[crossed.columns] = parent

    def update(self, columns: Columns, *, seen: bool, labels: bool) -> None:
        """Add n rows; `seen` counts them, `labels` takes their labels where they are known."""
        label = exact(columns.label) if labels and columns.label is not None else None
        if seen or label is not None:
            self.cells.update(columns, seen=seen, label=label)


def _shrink(out: Floats, count: Floats, total: Floats, strength: Floats, parent: Floats) -> None:
    """Write (total + m * parent) / (count + m), each (k, n), to `out`, which may be `parent`."""
    np.multiply(strength, parent, out=out)
    out += total
    out /= count + strength


def _run(columns: list[int]) -> slice | Ints:
    """Return columns that follow one another as a slice, which is written to in half the time."""
    if columns and columns == list(range(columns[0], columns[0] + len(columns))):
        return slice(columns[0], columns[0] + len(columns))
    return np.array(columns, np.int64)


def _levels(addresses: Addresses, fields: Sequence[tuple[str, ...]]) -> Ints:
    return np.array([addresses.place[each] for each in fields], np.int64)
