"""What a ranker remembers of its training log: the users, the items, and the usual values.

A model scores rows. To rank, rows have to be made from a user and the items of a catalogue, so the
columns of a log are told apart: those that belong to the user, those that belong to the item, and
the rest, which describe the request (its *context*) and get a usual value unless the caller gives
one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.ipc

from autorec.data.casting import canonical, conform, flat, value_type
from autorec.data.frames import to_table
from autorec.data.hashing import hash_values
from autorec.data.text import lengths_of
from autorec.data.vocabulary import raw
from autorec.errors import ConfigError, DataError
from autorec.schema import Schema

USER, ITEM, CONTEXT = "user", "item", "context"
SEEN, COUNT, MEAN = "#seen", "#count", "#mean"
FILES = {USER: "users.arrow", ITEM: "items.arrow", CONTEXT: "defaults.arrow"}

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """N users (or items) ready to be encoded.

    Attributes:
        ids: (N,) of the id column's type.
        rows: (N,) rows in the table of users (or items), -1 where unknown.
        table: (N, features) every feature column; those of the other side hold usual values.
        given: columns that the caller's own table brought, and the lengths (`<column>#length`) of
            the texts that it brought or that belong to the side.
    """

    ids: pa.ChunkedArray
    rows: Rows
    table: pa.Table
    given: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class Entities:
    """Users, items and usual values of a training log.

    Attributes:
        schema: of the log.
        sides: feature column -> "user", "item" or "context".
        defaults: one row, the usual value of every feature.
        users: id, user columns, `#count` of rows and `#seen`, rows of `items` in the order met.
        items: id, item columns, `#count` of rows, `#mean` label; most frequent item first.
    """

    schema: Schema
    sides: dict[str, str]
    defaults: pa.Table
    users: pa.Table | None = None
    items: pa.Table | None = None
    _finders: dict[str, _Finder] = field(default_factory=dict, repr=False)

    def save(self, folder: Path) -> None:
        """Write `users.arrow`, `items.arrow` and `defaults.arrow` into an existing folder."""
        tables = {USER: self.users, ITEM: self.items, CONTEXT: self.defaults}
        for side, table in tables.items():
            if table is not None:
                with pa.ipc.new_file(str(folder / FILES[side]), table.schema) as writer:
                    writer.write_table(table)

    @classmethod
    def load(cls, folder: Path, schema: Schema, sides: Mapping[str, str]) -> Entities:
        """Read what `save` wrote; the tables stay on disk, mapped into memory."""

        def read(side: str) -> Any:
            with pa.memory_map(str(folder / FILES[side])) as file:
                return pa.ipc.open_file(file).read_all()

        return cls(
            schema,
            dict(sides),
            read(CONTEXT),
            read(USER) if schema.user else None,
            read(ITEM) if schema.item else None,
        )

    def columns(self, side: str) -> list[str]:
        """Return the feature columns of a side, its id among them."""
        return [name for name, found in self.sides.items() if found == side]

    def usual(self, side: str) -> dict[str, Any]:
        """Return the usual value of each column of a side."""
        return {name: self.defaults[name][0].as_py() for name in self.columns(side)}

    def seen(self, row: int) -> npt.NDArray[np.int32]:
        """Return the rows of `items` that the user at `row` of `users` has seen."""
        if self.users is None or row < 0:
            return np.zeros(0, np.int32)
        values: npt.NDArray[np.int32] = self.users[SEEN][row].values.to_numpy()
        return values

    def all(self, side: str, context: Mapping[str, Any] | None = None) -> Side:
        """Return every user (or item); one nameless user where the log has no user column."""
        table = self._table(side)
        if table is None:
            empty = pa.chunked_array([pa.nulls(1)])
            return self._side(side, empty, np.full(1, -1), None, context)
        ids = table[self._id(side)]
        return self._side(side, ids, np.arange(len(ids)), None, context)

    def some(self, side: str, given: Any, context: Mapping[str, Any] | None = None) -> Side:
        """Return the users (or items) that the caller names: an id, ids, or a table.

        Columns that a table has win over `context`, and both over what is remembered. What is
        neither given nor remembered gets its usual value.

        Raises:
            ConfigError: a dict, or ids of a side that the log has no column for.
            DataError: the table lacks the id column, or a value does not fit its column.
        """
        if isinstance(given, Mapping):
            raise ConfigError(
                f"{side}s are ids or a table (pandas, polars, Arrow or a list of dicts), but got a "
                f"dict of {list(given)[:5]}; put it into a list for one {side}"
            )
        name, frame = self._id(side), to_table(given) if is_frame(given) else None
        if frame is not None and name is not None and name not in frame.column_names:
            raise DataError(
                f"a table of {side}s must have the {side} column {name!r}, but it has "
                f"{frame.column_names}; add it, null where the {side} is unknown"
            )
        if name is None:
            if frame is None:
                raise ConfigError(
                    f"the log has no {side} column, so {side} ids mean nothing, but got "
                    f"{given!r}; leave {side}s out or give a table of context columns"
                )
            ids = pa.chunked_array([pa.nulls(len(frame))])
            return self._side(side, ids, np.full(len(frame), -1), frame, context)
        ids = self.ids(side, given if frame is None else frame[name])
        return self._side(side, ids, self.find(side, ids), frame, context)

    def ids(self, side: str, values: Any) -> pa.ChunkedArray:
        """Return one id or many as an array of the type that the log had.

        Raises:
            DataError: a value cannot be an id of that type.
        """
        name = str(self._id(side))
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            values = [values]
        if not isinstance(values, (pa.ChunkedArray, pa.Array)):
            values = array_of([_plain(value) for value in values], name)
        fitted = self.defaults.schema.field(name).type
        kind = canonical(pa.nulls(0, fitted), name).type
        chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
        cast = [raw(conform(chunk, kind, name, fitted), fitted) for chunk in chunks]
        return pa.chunked_array(cast, fitted)

    def find(self, side: str, ids: pa.ChunkedArray) -> Rows:
        """Return the row of each id in `users` (or `items`), -1 where it is unknown or null."""
        if side not in self._finders:
            self._finders[side] = _Finder(self._table(side)[self._id(side)])
        return self._finders[side](ids)

    def match(self, ids: pa.ChunkedArray, wanted: pa.ChunkedArray) -> Rows:
        """Return the first position in `ids` of each of `wanted`, -1 where absent or null."""
        return _Finder(ids)(wanted)

    def size(self, side: str) -> int:
        """Return the number of users (or items)."""
        table = self._table(side)
        return 0 if table is None else int(table.num_rows)

    def frame(self, columns: Mapping[str, Any]) -> Any:
        """Return a pandas DataFrame of arrays of one length."""
        return pa.table(dict(columns)).to_pandas()

    def _table(self, side: str) -> Any:
        return self.users if side == USER else self.items

    def _id(self, side: str) -> str | None:
        return self.schema.user if side == USER else self.schema.item

    def _side(self, side: str, ids: Any, rows: Rows, frame: pa.Table | None, context: Any) -> Side:
        allowed = {name for name, found in self.sides.items() if found in (side, CONTEXT)}
        given = set() if frame is None else allowed.intersection(frame.column_names)
        context = {} if context is None else dict(context)
        remembered = self._remembered(side, rows)
        zeros = np.zeros(len(rows), np.int64)
        columns: dict[str, Any] = {}
        for name in self.sides:
            if name == self._id(side):
                columns[name] = ids
            elif name in given and frame is not None:
                columns[name] = frame[name]
            elif name in context:
                columns[name] = array_of([_plain(context[name])], name).take(zeros)
            elif name in remembered.column_names:
                columns[name] = remembered[name]
            else:
                columns[name] = self.defaults[name].take(zeros)
        own = given.union(self.columns(side))
        texts = {length for length, name in lengths_of(self.schema.features).items() if name in own}
        return Side(ids, rows, pa.table(columns), frozenset(given | texts))

    def _remembered(self, side: str, rows: Rows) -> pa.Table:
        """Return the side's own columns at `rows`, the usual values where a row is -1."""
        names = [name for name in self.columns(side) if name != self._id(side)]
        table = self._table(side)
        if table is None or not names:
            return pa.table({})
        both = pa.concat_tables([table.select(names), self.defaults.select(names)])
        return both.take(np.where(rows < 0, len(table), rows))


class _Finder:
    """Finds ids by their hashes: (N,) sorted once, then a binary search an id."""

    def __init__(self, ids: pa.ChunkedArray) -> None:
        keys = hash_values(ids)
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]

    def __call__(self, ids: pa.ChunkedArray) -> Rows:
        if not len(self.keys):
            return np.full(len(ids), -1, np.int64)
        keys = hash_values(ids)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = (self.keys[place] == keys) & ids.is_valid().to_numpy()
        return np.where(known, self.order[place], -1)


def is_frame(given: Any) -> bool:
    """Tell whether `given` is a table (pandas, polars, Arrow, a path, a list of dicts), not ids."""
    if isinstance(given, (pd.DataFrame, pa.Table, pa.RecordBatch, Path)):
        return True
    if isinstance(given, list):
        return bool(given) and isinstance(given[0], Mapping)
    kind = type(given)
    return kind.__module__.split(".")[0] == "polars" and kind.__name__ in ("DataFrame", "LazyFrame")


def array_of(values: list[Any], name: str) -> pa.Array:
    """Return Python values as an array.

    Raises:
        DataError: the values are of several types.
    """
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(
            f"values of the column {name!r} must be of one type, but got {values[:3]!r}: {error}"
        ) from error


def flattened(table: Any) -> Any:
    """Return a table (or batch) whose columns are no dictionaries and no extension types."""
    columns = {}
    for name in table.schema.names:
        column = table[name]
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        kind = value_type(column.type)
        columns[name] = pa.chunked_array([flat(chunk) for chunk in chunks], kind)
    return pa.table(columns)


def _plain(value: Any) -> Any:
    """Return a Python value, None for NaN: pandas hands out nulls of any type as NaN."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value
