"""What can be read only once is written once: to a folder of the caller, or to a temporary one."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from autorec.data.files import FileSource
from autorec.data.paths import ARROW, PARQUET, File
from autorec.data.reading import BATCH_ROWS, Source, conformed, first_line, plain_schema, regular
from autorec.errors import DataError


def stream(given: Any, spool: Path | None, what: str) -> Source:
    """Write record batches to an Arrow file and return it, memory-mapped.

    Args:
        given: a `pa.RecordBatchReader`, or an iterator of them.
        spool: where to write.
        what: for people.

    Raises:
        DataError: nothing was given, batches differ in columns or types, or the disk is full.
        SchemaError: see `plain_schema`.
    """
    readers = iter([given] if isinstance(given, pa.RecordBatchReader) else given)
    first = next(readers, None)
    if first is None:
        raise DataError(f"a table must have rows, but the {what} gave nothing; was it read before?")
    schema = plain_schema(first.schema)
    batches = (batch for reader in chain([first], readers) for batch in _read(reader, what))

    def write(path: Path) -> None:
        plain = (conformed(batch, schema) for batch in batches)
        with ipc.new_file(str(path), schema) as writer:
            for batch in regular(plain, schema, BATCH_ROWS):
                writer.write_batch(batch)

    return _written(write, ARROW, spool, what)


def query(frame: Any, spool: Path | None) -> Source:
    """Run a polars LazyFrame once, in its streaming engine, into a Parquet file.

    Raises:
        DataError: the query fails, or the disk is full.
    """

    def write(path: Path) -> None:
        try:
            frame.sink_parquet(path, row_group_size=BATCH_ROWS, compression="uncompressed")
        except Exception as error:  # polars has classes of its own, and need not be installed
            raise DataError(
                f"a polars query must run, but this one fails: {first_line(error)}; "
                "mend the query or collect it yourself"
            ) from error

    return _written(write, PARQUET, spool, "polars LazyFrame")


def _read(reader: Any, what: str) -> Iterator[Any]:
    """Yield the batches of a reader; the errors of whoever feeds it say so."""
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"a stream must give all its batches, but the {what} fails: {first_line(error)}"
            ) from error
        yield batch


def _written(write: Callable[[Path], None], kind: str, spool: Path | None, what: str) -> Source:
    """Return the source of a file that `write` makes; the file goes when the source does.

    The file has a folder of its own: a failed polars query may still have a thread that would make
    the file again after it was removed, and cannot without its folder.
    """
    folder, remove = Path(spool or tempfile.gettempdir()), _nothing
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="autorec-", dir=folder))
        remove = partial(shutil.rmtree, made, ignore_errors=True)
        path = made / f"rows.{kind.lower()}"
        write(path)
        source = FileSource(kind, [File(path)], what)
    except BaseException as error:
        remove()
        if isinstance(error, OSError):
            raise DataError(
                f"what can be read only once is written to disk first, but {folder} gives: "
                f"{first_line(error)}; give a folder with more room"
            ) from error
        raise
    weakref.finalize(source, remove)
    return source


def _nothing() -> None:
    """Remove nothing: no file was made yet."""
