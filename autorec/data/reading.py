"""`Source`: a table that can be streamed again and again in bounded memory, and its plain types.

Everything downstream sees plain columns only: dictionaries (pandas categoricals, polars enums),
views, run-end and extension types are decoded batch by batch, so that a column means the same
from whatever container it came.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from autorec.errors import ConfigError, DataError, SchemaError

BATCH_ROWS = 65_536
BATCH_BYTES = 64 << 20  # batches of wide rows are cut here, so that memory is bounded in bytes
FAILURES = (pa.ArrowException, OSError, NotImplementedError, ValueError, TypeError, KeyError)


class Source(ABC):
    """A table that can be read any number of times.

    Attributes:
        schema: names and plain Arrow types of the columns.
        num_rows: rows of the table, None where only reading it all would tell.
        description: what it is, for people.
        notes: column name to what had to be assumed when it was read.
    """

    def __init__(
        self,
        schema: Any,
        num_rows: int | None,
        description: str,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self.schema = plain_schema(schema)
        self.num_rows = num_rows
        self.description = description
        self.notes = dict(notes or {})

    def __repr__(self) -> str:
        return f"<Source: {self.description}>"

    @abstractmethod
    def _stream(self, columns: list[str], batch_rows: int) -> Iterator[Any]:
        """Yield record batches that hold at least `columns`, in any order and any encoding."""

    def batches(
        self, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Return a new iterator over all rows in order.

        Args:
            columns: what to read, in this order; all columns by default. Others are not read.
            batch_rows: rows of a batch, the last one apart; fewer where rows are so wide that a
                batch would pass 64 MiB.

        Raises:
            SchemaError: a column does not exist.
            ConfigError: `batch_rows` is below 1.
            DataError: a file cannot be read (any more).
        """
        if isinstance(batch_rows, bool) or not isinstance(batch_rows, int) or batch_rows < 1:
            raise ConfigError(f"batch_rows must be an integer of at least 1, but got {batch_rows}")
        names = list(self.schema.names if columns is None else columns)
        for name in names:
            if name not in self.schema.names:
                raise SchemaError(absent(name, self.schema.names))
        schema = pa.schema([self.schema.field(name) for name in names])
        return regular(self._plain(schema, batch_rows), schema, batch_rows)

    def head(self, n: int) -> pa.Table:
        """Return the first `n` rows of all columns, or all rows where there are fewer."""
        kept, rows = [], 0
        for batch in self.batches(batch_rows=max(1, min(n, BATCH_ROWS))):
            if rows >= n:
                break
            kept.append(batch.slice(0, n - rows))
            rows += kept[-1].num_rows
        return pa.Table.from_batches(kept, self.schema)

    def to_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows of `columns` (all by default) in memory."""
        batches = list(self.batches(columns))
        names = self.schema.names if columns is None else columns
        schema = pa.schema([self.schema.field(name) for name in names])
        return pa.Table.from_batches(batches, schema)

    def _plain(self, schema: Any, batch_rows: int) -> Iterator[Any]:
        # Without columns, the rows of the first are still there to be counted.
        names = schema.names or self.schema.names[:1]
        for batch in self._stream(names, batch_rows):
            if schema.names:
                yield conformed(batch, schema)
            else:
                yield batch.select([])


class TableSource(Source):
    """A table in memory."""

    def __init__(self, table: Any, description: str) -> None:
        super().__init__(table.schema, table.num_rows, description)
        self._table = table

    def _stream(self, columns: list[str], batch_rows: int) -> Iterator[Any]:
        yield from self._table.select(columns).to_batches(max_chunksize=batch_rows)


def plain_schema(schema: Any) -> Any:
    """Return a schema with plain types and without metadata.

    Raises:
        SchemaError: a name occurs twice, or a column holds structs, maps or unions.
    """
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise SchemaError(f"column names must differ, but {twice} occur more than once; rename one")
    return pa.schema([pa.field(field.name, plain_type(field.type, field.name)) for field in schema])


def plain_type(kind: Any, column: str) -> Any:
    """Return the type of the decoded values of a column.

    Raises:
        SchemaError: the column is nested otherwise than as lists.
    """
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type, column)
    if t.is_dictionary(kind) or _is(kind, "run_end_encoded"):
        return plain_type(kind.value_type, column)
    if _is(kind, "string_view"):
        return pa.large_string()
    if _is(kind, "binary_view"):
        return pa.large_binary()
    if t.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type, column), kind.list_size)
    if t.is_list(kind) or _is(kind, "list_view"):
        return pa.list_(plain_type(kind.value_type, column))
    if t.is_large_list(kind) or _is(kind, "large_list_view"):
        return pa.large_list(plain_type(kind.value_type, column))
    if t.is_nested(kind):
        raise SchemaError(
            f"a column must hold plain values or lists of them, but {column!r} is nested: {kind}; "
            f"flatten it (one column for each field) or drop it"
        )
    return kind


def decoded(array: Any, to: Any) -> Any:
    """Return the values (n,) of an array as plain type `to`."""
    kind, t = array.type, pa.types
    if kind == to:
        return array
    if isinstance(kind, pa.BaseExtensionType):
        return decoded(array.storage, to)
    if t.is_dictionary(kind):
        values = decoded(array.dictionary, plain_type(kind.value_type, ""))
        return pa.DictionaryArray.from_arrays(array.indices, values).dictionary_decode().cast(to)
    if _is(kind, "run_end_encoded"):
        return decoded(pc.run_end_decode(array), to)
    if _is(kind, "list_view") or _is(kind, "large_list_view"):
        return pa.array(array.to_pylist(), to)  # pyarrow 25 casts a trailing null to a bad array
    try:
        return array.cast(to)
    except pa.ArrowNotImplementedError:
        if not _has_views(kind):
            raise
        return pa.array(array.to_pylist(), to)  # pyarrow 17 casts no views


def conformed(batch: Any, schema: Any) -> Any:
    """Return a batch with exactly the columns and types of `schema`.

    Raises:
        DataError: a column is missing, or its values do not fit the type.
    """
    columns = []
    for field in schema:
        at = batch.schema.get_field_index(field.name)
        if at < 0:
            raise DataError(
                f"every batch must have the columns of the first, but {field.name!r} is missing in "
                f"one with {batch.schema.names}; add it, with nulls where nothing is known"
            )
        array = batch.column(at)
        try:
            columns.append(decoded(array, field.type))
        except FAILURES as error:
            raise DataError(
                f"a column must keep one type, but {field.name!r} is {field.type} and here "
                f"{array.type}: {first_line(error)}; make it one type"
            ) from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def regular(batches: Iterable[Any], schema: Any, rows: int) -> Iterator[Any]:
    """Yield the same rows `rows` at a time, however the batches were cut; the last has the rest."""
    held: list[Any] = []
    count = size = 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, rows - count)
            fit = piece.num_rows * (BATCH_BYTES - size) // max(piece.nbytes, 1)
            piece = piece.slice(0, max(fit, 0 if held else 1))
            start, count, size = start + piece.num_rows, count + piece.num_rows, size + piece.nbytes
            held += [piece] if piece.num_rows else []
            if count == rows or not fit:
                yield from _joined(held, schema)
                held, count, size = [], 0, 0
    yield from _joined(held, schema)


def _joined(held: list[Any], schema: Any) -> Iterator[Any]:
    if len(held) < 2 or not schema.names:
        yield from held
    else:
        yield from pa.Table.from_batches(held, schema).combine_chunks().to_batches()


@contextmanager
def readable(path: Any, kind: str) -> Iterator[None]:
    """Turn what goes wrong while a file is read into a DataError that names it."""
    try:
        yield
    except FAILURES as error:
        if isinstance(error, (DataError, SchemaError, ConfigError)):
            raise
        raise DataError(
            f"{path} must be a whole {kind} file, but cannot be read: {first_line(error)}; "
            "write it again"
        ) from error


def absent(name: Any, names: Sequence[str], what: str = "column") -> str:
    """Return the message for a name that no column has: near names first, then all."""
    folded = {other.casefold(): other for other in names}
    near = difflib.get_close_matches(str(name).casefold(), list(folded), n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(repr(folded[match]) for match in near)}? " if near else ""
    shown = list(names[:50])
    more = f" and {len(names) - 50} more" if len(names) > 50 else ""
    return f"the {what} {name!r} must be in the table, but it is not; {hint}it has {shown}{more}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its class where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0][:300].rstrip(".") if text else type(error).__name__


def _has_views(kind: Any) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _has_views(kind.value_type)
    return _is(kind, "string_view") or _is(kind, "binary_view")


def _is(kind: Any, name: str) -> bool:
    """Ask `pa.types.is_<name>`, which older releases of pyarrow may lack."""
    test = getattr(pa.types, f"is_{name}", None)
    return bool(test is not None and test(kind))
