"""Streams Parquet and Arrow files, one or many, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import ipc

from autorec.data.paths import ARROW, PARQUET, File, told
from autorec.data.reading import BATCH_BYTES, Source, plain_schema, readable
from autorec.errors import SchemaError

_BUFFER = 1 << 20
_FEWEST = 256


class FileSource(Source):
    """The rows of binary files one after another.

    Args:
        kind: PARQUET or ARROW.
        files: one or more.
        description: for people; the paths by default.

    Raises:
        SchemaError: the files have different columns, or types that do not go together.
        DataError: a file cannot be read.
    """

    def __init__(self, kind: str, files: Sequence[File], description: str = "") -> None:
        self.files = tuple(files)
        self._kind = kind
        schemas, rows = [], 0
        for file in self.files:
            with readable(file.path, kind):
                schema, more = _FACTS[kind](file.path)
                schemas.append((file.path, plain_schema(schema)))
            rows += more
        schema = unified(schemas)
        self._keys = key_types(self.files, schema.names)
        self._first = schema.names[:1]
        schema = with_keys(schema, self._keys)
        described = description or told(kind, self.files)
        super().__init__(schema, rows, f"{described}: {rows} rows, {len(schema)} columns")

    def _stream(self, columns: list[str], batch_rows: int) -> Iterator[Any]:
        inside = [name for name in columns if name not in self._keys] or self._first
        for file in self.files:
            with readable(file.path, self._kind):
                for batch in _BATCHES[self._kind](file.path, inside, batch_rows):
                    yield keyed(batch, file, self._keys)


def unified(schemas: Sequence[tuple[Path, Any]]) -> Any:
    """Return the one schema of several files: columns of the first, types that hold all values.

    Raises:
        SchemaError: a file has other columns, or a type that does not go with the rest.
    """
    first, schema = schemas[0]
    for path, other in schemas[1:]:
        same_columns(first, schema.names, path, other.names)
        for at, field in enumerate(schema):
            theirs = other.field(field.name)
            if theirs.type == field.type:
                continue
            try:
                pair = [pa.schema([field]), pa.schema([theirs])]
                both = pa.unify_schemas(pair, promote_options="permissive")
            except pa.ArrowException as error:
                raise SchemaError(
                    f"files read together must have one type a column, but {field.name!r} is "
                    f"{field.type} in {first} and {theirs.type} in {path}; write them alike"
                ) from error
            schema = schema.set(at, both.field(0))
    return schema


def same_columns(first: Path, names: Sequence[str], path: Path, others: Sequence[str]) -> None:
    """Check that two files have the same columns, in any order.

    Raises:
        SchemaError: they have not; the message names the file and the columns.
    """
    missing = [name for name in names if name not in others]
    extra = [name for name in others if name not in names]
    if missing or extra:
        said = [f"{path} lacks {missing}"] if missing else []
        said += [f"{path} has {extra} beside them"] if extra else []
        raise SchemaError(
            f"files read together must have the columns of the first, {first}, but "
            f"{' and '.join(said)}; write them alike or read them apart"
        )


def key_types(files: Sequence[File], inside: Sequence[str]) -> dict[str, Any]:
    """Return the columns that only folders name (`day=...`): int64 where all are integers."""
    types = {}
    for name in dict.fromkeys(name for file in files for name, _ in file.keys):
        if name not in inside:
            values = [dict(file.keys).get(name) for file in files]
            types[name] = pa.int64() if all(map(_whole, values)) else pa.string()
    return types


def with_keys(schema: Any, keys: Mapping[str, Any]) -> Any:
    """Return a schema with the columns of the folders behind its own."""
    for name, kind in keys.items():
        schema = schema.append(pa.field(name, kind))
    return schema


def keyed(batch: Any, file: File, keys: Mapping[str, Any]) -> Any:
    """Return a batch with the columns of the folders of its file behind its own."""
    have = dict(file.keys)
    arrays = list(batch.columns)
    for name, kind in keys.items():
        scalar = pa.scalar(have.get(name), pa.string()).cast(kind)
        arrays.append(pa.repeat(scalar, batch.num_rows))
    return pa.RecordBatch.from_arrays(arrays, [*batch.schema.names, *keys]) if keys else batch


def _whole(value: str | None) -> bool:
    """Tell whether a text is an integer as Python writes it: '7', but not '07'."""
    if value is None:
        return True
    digits = value.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) < 19 and str(int(value)) == value


def _parquet_facts(path: Path) -> tuple[Any, int]:
    with pq.ParquetFile(path) as file:
        return file.schema_arrow, file.metadata.num_rows


def _parquet_batches(path: Path, columns: list[str], batch_rows: int) -> Iterator[Any]:
    # Without a buffered stream pyarrow holds the bytes of whole row groups.
    with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
        meta = file.metadata
        size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        fit = BATCH_BYTES * meta.num_rows // max(size, 1)
        yield from file.iter_batches(min(batch_rows, max(fit, _FEWEST)), columns=columns)


def _arrow_facts(path: Path) -> tuple[Any, int]:
    with pa.memory_map(str(path)) as stream:
        if _is_stream(path):
            with ipc.open_stream(stream) as reader:
                return reader.schema, sum(batch.num_rows for batch in reader)
        with ipc.open_file(stream) as reader:
            schema = reader.schema
    return schema, ds.dataset(str(path), format="ipc").count_rows()


def _arrow_batches(path: Path, columns: list[str], _: int) -> Iterator[Any]:
    stream = pa.memory_map(str(path))
    if _is_stream(path):
        with ipc.open_stream(stream) as reader:
            yield from reader
        return
    options = ipc.IpcReadOptions()
    with ipc.open_file(stream) as reader:
        if reader.num_record_batches and not _is_mapped(reader.get_batch(0), stream):
            # Compressed: only what is asked for is unpacked. Arrow copies what it picks, so the
            # columns of mapped files are picked by the caller, who gets them without a copy.
            names = reader.schema.names
            options.included_fields = [at for at, name in enumerate(names) if name in columns]
    with ipc.open_file(stream, options=options) as reader:
        for at in range(reader.num_record_batches):
            yield reader.get_batch(at)


def _is_mapped(batch: Any, stream: Any) -> bool:
    """Tell whether the values of a batch lie in the mapped file itself."""
    stream.seek(0)
    start = stream.read_buffer(1).address
    buffers = [one for array in batch.columns for one in array.buffers() if one is not None]
    return all(start <= one.address < start + stream.size() for one in buffers if one.size)


def _is_stream(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"\xff\xff\xff\xff"


_FACTS = {PARQUET: _parquet_facts, ARROW: _arrow_facts}
_BATCHES = {PARQUET: _parquet_batches, ARROW: _arrow_batches}
