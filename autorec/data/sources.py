"""Every table behind one noun: whatever a caller holds becomes a `Source` that streams.

A fit reads its table several times, so what can be read only once (a generator, a reader, a
polars query) is written to disk once and mapped; everything else is read where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from autorec.data.delimited import CsvSource
from autorec.data.files import FileSource
from autorec.data.paths import TEXT, find, kind_of
from autorec.data.reading import FAILURES, Source, TableSource, first_line, readable
from autorec.data.spool import query, stream
from autorec.errors import DataError, SchemaError

__all__ = ["Source", "open_source"]

ACCEPTED = (
    "a pandas, polars or Arrow table, a polars LazyFrame, a pyarrow Dataset, a path, glob or folder"
    " of Parquet, CSV or Arrow files, an iterator of record batches, a list of dicts or a dict of "
    "lists"
)
_BUFFERED = ds.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)


def open_source(data: Any, *, spool: Path | None = None, allow_empty: bool = False) -> Source:
    """Return `data` as a table that can be streamed again and again.

    Args:
        data: pandas or polars DataFrame, polars LazyFrame, pyarrow Table, RecordBatch or Dataset,
            anything else that gives an Arrow stream, a path to Parquet, CSV, TSV or Arrow files
            (a glob, a folder or a list of paths too), an iterator of record batches or tables, a
            list of dicts, a dict of lists.
        spool: folder where what can be read only once is written; a temporary folder, removed
            with the source, by default.
        allow_empty: accept a table without rows.

    Raises:
        DataError: nothing is there, a file cannot be read or is of an unknown type, there are no
            columns or no rows, or `data` is no table.
        SchemaError: column names occur twice, files differ in their columns, or a column is
            nested.
    """
    source = data if isinstance(data, Source) else _opened(data, spool)
    if not source.schema.names:
        raise DataError(f"a table must have columns, but there are none in: {source.description}")
    if not allow_empty:
        rows = source.num_rows
        if rows is None:
            rows = source.head(1).num_rows
        if rows == 0:
            raise DataError(f"a table must have rows, but there are none in: {source.description}")
    return source


def _opened(data: Any, spool: Path | None) -> Source:
    if isinstance(data, (str, Path)):
        return _of_paths([data])
    if isinstance(data, pd.DataFrame):
        return _of_pandas(data)
    if isinstance(data, (pa.Table, pa.RecordBatch)):
        return _in_memory(table_of(data), f"Arrow {type(data).__name__}")
    if isinstance(data, ds.Dataset):
        return _DatasetSource(data)
    if isinstance(data, Mapping):
        return _in_memory(_of_columns(data), "dict of columns")
    if isinstance(data, (list, tuple)):
        return _of_sequence(data)
    if _is_polars(data, "LazyFrame"):
        return query(data, spool)
    if _is_polars(data, "DataFrame"):
        return _in_memory(data.to_arrow(), "polars DataFrame")
    if hasattr(data, "__arrow_c_stream__"):
        return stream(_reader_of(data), spool, f"stream of a {type(data).__name__}")
    if isinstance(data, Iterator):
        return stream(map(_element, _numbered(data)), spool, "iterator")
    raise _unsupported(data)


def _unsupported(data: Any) -> DataError:
    kind = type(data)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return DataError(f"data must be {ACCEPTED}, but got {name}; convert it to one of these")


def table_of(data: Any) -> Any:
    """Return a table in memory (pandas, polars, Arrow) as `pa.Table`, or raise DataError."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, pd.DataFrame):
        return _pandas_table(data)
    if _is_polars(data, "DataFrame"):
        return data.to_arrow()
    if hasattr(data, "__arrow_c_stream__"):
        return _reader_of(data).read_all()
    if hasattr(data, "__arrow_c_array__"):
        return pa.Table.from_batches([pa.record_batch(data)])
    raise _unsupported(data)


class _DatasetSource(Source):
    """An Arrow dataset: partitions, filters and remote file systems are its own."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        with readable("the dataset", "data"):
            rows = dataset.count_rows()
        width = len(dataset.schema.names)
        super().__init__(dataset.schema, rows, f"Arrow dataset: {rows} rows, {width} columns")

    def _stream(self, columns: list[str], batch_rows: int) -> Iterator[Any]:
        # Arrow holds whole row groups, and by default 16 batches and 4 files are in flight. On 24
        # row groups of 10 MB: 180 MB, with bounds but no buffer 298 MB, with both 86 MB (pyarrow
        # 25, 2 cores, 2026-11).
        options: dict[str, Any] = {"batch_readahead": 2, "fragment_readahead": 1}
        if isinstance(getattr(self._dataset, "format", None), ds.ParquetFileFormat):
            options["fragment_scan_options"] = _BUFFERED
        with readable("the dataset", "data"):
            yield from self._dataset.to_batches(columns=columns, batch_size=batch_rows, **options)


def _of_paths(given: Sequence[str | Path]) -> Source:
    files = find(given)
    kinds = {file.path: kind_of(file.path) for file in files}
    first, kind = next(iter(kinds.items()))
    for path, other in kinds.items():
        if other != kind:
            raise DataError(
                f"files read together must be of one type, but {first} is {kind} and {path} is "
                f"{other}; use a glob such as '*{first.suffix}'"
            )
    return CsvSource(files) if kind == TEXT else FileSource(kind, files)


def _of_pandas(frame: pd.DataFrame) -> Source:
    return _in_memory(_pandas_table(frame), "pandas DataFrame")


def _pandas_table(frame: pd.DataFrame) -> Any:
    """Return a frame as a table; numbers are not copied. The index is no column."""
    if isinstance(frame.columns, pd.MultiIndex):
        raise SchemaError(
            f"a table must have plain column names, but the frame has {frame.columns.nlevels} "
            f"levels of them such as {frame.columns[0]!r}; join them"
        )
    names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SchemaError(f"column names must differ, but {twice} occur more than once; rename one")
    arrays = []
    for at, name in enumerate(names):
        series = frame.iloc[:, at]
        arrays.append(_array(name, lambda s=series: pa.Array.from_pandas(s)))
    if not names:
        return pa.table({})
    return pa.table(arrays, names=names)


def _of_columns(data: Mapping[Any, Any]) -> Any:
    columns: dict[str, Any] = {}
    for name, values in data.items():
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise DataError(
                f"a dict must map each column to a list of values, but {name!r} is {values!r}; "
                "put it into a list"
            )
        held = values if hasattr(values, "__len__") else list(values)
        columns[str(name)] = _array(str(name), lambda v=held: pa.array(v))
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"columns must be of one length, but have {lengths}; cut or fill them")
    return pa.table(columns)


def _of_sequence(data: Sequence[Any]) -> Source:
    if not data:
        raise DataError("a table must have rows, but the list is empty; give it at least one")
    if all(isinstance(row, Mapping) for row in data):
        names = dict.fromkeys(name for row in data for name in row)
        columns = {name: [row.get(name) for row in data] for name in names}
        return _in_memory(_of_columns(columns), "list of dicts")
    if all(isinstance(path, (str, Path)) for path in data):
        return _of_paths(data)
    if any(isinstance(one, (str, Path, Mapping, int, float)) or one is None for one in data):
        raise DataError(
            "a list must hold only dicts, only paths or only tables, but this one holds "
            f"{sorted({type(one).__name__ for one in data})}; make them alike"
        )
    return _in_memory(_concatenated([_element(pair) for pair in enumerate(data)]), "list of tables")


def _concatenated(readers: Sequence[Any]) -> Any:
    first, *rest = [reader.read_all() for reader in readers]
    tables = [first]
    for at, table in enumerate(rest, 1):
        if set(table.schema.names) != set(first.schema.names):
            raise DataError(
                f"every table must have the columns of the first, {first.schema.names}, but that "
                f"at {at} has {table.schema.names}; make them alike"
            )
        tables.append(table.select(first.schema.names))
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"every table must have the column types of the first, but {first_line(error)}; "
            "make them alike"
        ) from error


def _numbered(data: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    return iter(enumerate(data))


def _element(pair: tuple[int, Any]) -> Any:
    """Return what an iterator gave as a reader of record batches."""
    at, given = pair
    if isinstance(given, pa.RecordBatchReader):
        return given
    try:
        return table_of(given).to_reader()
    except DataError as error:
        if not str(error).startswith("data must be"):
            raise
        raise DataError(
            "an iterator must give record batches or tables, but gave "
            f"{type(given).__name__} at {at}; a list of dicts is read as it is"
        ) from error


def _reader_of(data: Any) -> Any:
    try:
        return pa.RecordBatchReader.from_stream(data)
    except FAILURES as error:
        raise DataError(
            f"an Arrow stream must be one of record batches, but that of {type(data).__name__} is "
            f"not: {first_line(error)}; give a table"
        ) from error


def _array(name: str, make: Any) -> Any:
    try:
        return make()
    except (*FAILURES, OverflowError) as error:
        raise DataError(
            f"the values of a column must be of one plain type, but those of {name!r} are not: "
            f"{first_line(error)}; convert the column, for example to text"
        ) from error


def _in_memory(table: Any, what: str) -> Source:
    return TableSource(table, f"{what}: {table.num_rows} rows, {table.num_columns} columns")


def _is_polars(data: Any, name: str) -> bool:
    kind = type(data)
    return kind.__name__ == name and kind.__module__.partition(".")[0] == "polars"
