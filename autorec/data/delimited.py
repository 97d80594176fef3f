"""Streams CSV and TSV files with types that are settled before the first row is given out.

Arrow infers types from the first block and stops at the first value that breaks them, perhaps
hours into a fit. Here the files are read once when they are opened: a value that breaks the type
of its column widens the type, and every later pass has the types that all rows agree with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from autorec.data.casting import EXACT, is_text
from autorec.data.dialect import sniff
from autorec.data.files import key_types, keyed, same_columns, with_keys
from autorec.data.paths import TEXT, File, told
from autorec.data.reading import Source, first_line, readable
from autorec.errors import DataError

_FIRST = 4 << 20  # bytes that the first guess of the types looks at
_WIDEST = 256 << 20  # bytes of the longest line
_CONFLICT = re.compile(
    r"CSV column #(\d+): (?:Row #\d+: )?CSV conversion error to ([^:]+): (.*)", re.DOTALL
)
_VALUE = re.compile(r"invalid value '(.*)'", re.DOTALL)
_INTEGER = re.compile(r"[+-]?[0-9]+")
# What a number would not give back: leading zeros, and integers that no float64 holds.
_PADDED, _LONG = r"^\s*[+-]?0[0-9]", r"^\s*[+-]?[0-9]{16,}\s*$"


class CsvSource(Source):
    """The rows of text files one after another.

    A column is an integer, a float, a boolean or a time where all its values are, else text.
    Integers past int64 and codes with leading zeros are text, so that ids stay exact. Empty
    values are null, and so are NA, NaN, null and the like in columns of numbers.

    Raises:
        SchemaError: the files have different columns.
        DataError: a file cannot be read, or its lines have unequal numbers of values.
    """

    def __init__(self, files: Sequence[File]) -> None:
        self.files = tuple(files)
        self._dialects = [sniff(file.path) for file in self.files]
        self._types: dict[str, Any] = {}
        self._fractions: set[tuple[int, str]] = set()  # large floats that were no integers
        self._notes: dict[str, str] = {}
        names = self._dialects[0].names
        for at, file in enumerate(self.files):
            same_columns(self.files[0].path, names, file.path, self._dialects[at].names)
            self._merge(self._first_types(at))
        rows = self._settle()
        self._keys = key_types(self.files, names)
        schema = with_keys(pa.schema([(name, self._types[name]) for name in names]), self._keys)
        described = f"{told(TEXT, self.files)} ({self._dialects[0]}): {rows} rows"
        super().__init__(schema, rows, f"{described}, {len(schema)} columns", self._notes)

    def _stream(self, columns: list[str], batch_rows: int) -> Iterator[Any]:
        inside = [name for name in columns if name not in self._keys] or [*self._types][:1]
        for at, file in enumerate(self.files):
            with readable(file.path, TEXT), self._reader(at, self._types, inside) as reader:
                for batch in reader:
                    yield keyed(_blank_as_null(batch), file, self._keys)

    def _reader(
        self, at: int, types: dict[str, Any], include: Sequence[str] = (), *, first: bool = False
    ) -> Any:
        """Return a reader of a file, or one that gives the first block of it only."""
        dialect = self._dialects[at]
        stream = pa.input_stream(str(self.files[at].path), compression=dialect.packed)
        if first:
            with stream as whole:
                stream = pa.BufferReader(whole.read(_FIRST + 1))
        return csv.open_csv(
            stream,
            csv.ReadOptions(
                block_size=_FIRST if first else dialect.block,
                skip_rows=dialect.skip,
                column_names=list(dialect.names),
                encoding=dialect.encoding,
            ),
            csv.ParseOptions(
                delimiter=dialect.separator,
                quote_char='"' if dialect.quoted else False,
                newlines_in_values=dialect.multiline,
                ignore_empty_lines=len(dialect.names) > 1,
            ),
            csv.ConvertOptions(column_types=types, include_columns=list(include)),
        )

    def _first_types(self, at: int) -> dict[str, Any]:
        """Return the types that fit the first block of a file."""
        types: dict[str, Any] = self._retrying(at, lambda: self._guess(at))
        return types

    def _guess(self, at: int) -> dict[str, Any]:
        with self._reader(at, {}, first=True) as reader:
            types = {field.name: field.type for field in reader.schema}
        # Arrow calls text that is not UTF-8 binary; the pass over all rows finds the encoding.
        types = {n: pa.string() if pa.types.is_binary(kind) else kind for n, kind in types.items()}
        numbers = {n: pa.string() for n, k in types.items() if k in (pa.int64(), pa.float64())}
        if numbers:
            with self._reader(at, numbers, list(numbers), first=True) as reader:
                for name, values in _columns(next(iter(reader), None)):
                    pattern = _PADDED if types[name] == pa.int64() else _LONG
                    found = values.filter(pc.match_substring_regex(values, pattern))
                    if len(found):
                        self._as_text(name, types[name], found[0].as_py())
                        types[name] = pa.string()
        return types

    def _merge(self, types: dict[str, Any]) -> None:
        for name, kind in types.items():
            held = self._types.get(name, pa.null())
            if pa.types.is_null(held) or held == kind:
                self._types[name] = kind
            elif {held, kind} == {pa.int64(), pa.float64()}:
                self._types[name] = pa.float64()
            elif not pa.types.is_null(kind):
                self._notes.setdefault(name, f"read as text: files have it as {held} and {kind}")
                self._types[name] = pa.string()

    def _settle(self) -> int:
        """Read every file until the types fit all its rows; return the number of rows."""
        counts: list[int] = []
        while len(counts) < len(self.files):
            at, floats = len(counts), self._floats()
            counts.append(self._retrying(at, lambda at=at: self._scan(at)))
            if self._floats() - floats:
                counts = []  # what was exact as integers may not be as floats
        return sum(counts)

    def _floats(self) -> set[str]:
        return {name for name, kind in self._types.items() if kind == pa.float64()}

    def _scan(self, at: int) -> int:
        rows, floats = 0, [name for name in self._floats() if (at, name) not in self._fractions]
        with self._reader(at, self._types) as reader:
            for batch in reader:
                rows += batch.num_rows
                if _goes_over_lines(batch) and not self._dialects[at].multiline:
                    self._judge_quotes(at)
                    raise _Again
                for name in floats:
                    top = pc.max(pc.abs(batch[name])).as_py()
                    if top is not None and top >= EXACT:
                        self._judge_float(at, name)
                        raise _Again
        return rows

    def _judge_float(self, at: int, name: str) -> None:
        """Read a column of floats as text if one of them is an integer that no float holds."""
        with self._reader(at, {name: pa.string()}, [name]) as reader:
            for batch in reader:
                found = batch[name].filter(pc.match_substring_regex(batch[name], _LONG))
                if len(found):
                    self._as_text(name, pa.float64(), found[0].as_py())
                    return
        self._fractions.add((at, name))

    def _judge_quotes(self, at: int) -> None:
        """Decide whether a value goes over lines or a quote that never closes swallows them."""
        dialect = self._dialects[at]
        self._dialects[at] = replace(dialect, quoted=False)
        try:
            with self._reader(at, dict.fromkeys(dialect.names, pa.binary())) as reader:
                for _ in reader:
                    pass
        except pa.ArrowInvalid:  # without quotes the lines do not come out even
            self._dialects[at] = replace(dialect, multiline=True)

    def _retrying(self, at: int, read: Any) -> Any:
        """Return `read()`, after widening types and changing the dialect as often as needed."""
        path = self.files[at].path
        first: Exception | None = None
        while True:
            try:
                with readable(path, TEXT):
                    try:
                        return read()
                    except pa.ArrowInvalid as error:
                        if not (self._lengthened(at, error) or self._widened(at, str(error))):
                            raise
            except _Again:
                continue
            except DataError as error:
                first = first or error
                if not self._reworded(at):
                    raise _unreadable(path, first) from first

    def _lengthened(self, at: int, error: Exception) -> bool:
        """Read larger blocks if a line did not fit into one; tell whether that was it."""
        dialect = self._dialects[at]
        if "straddling" not in str(error) or dialect.block >= _WIDEST:
            return False
        self._dialects[at] = replace(dialect, block=8 * dialect.block)
        return True

    def _widened(self, at: int, message: str) -> bool:
        """Widen the type of the column that an error of Arrow names; tell whether it did."""
        conflict = _CONFLICT.search(message)
        if conflict is None:
            return False
        if "invalid UTF8" in conflict[3]:
            other = replace(self._dialects[at], encoding="latin-1")
            changed = other != self._dialects[at]
            self._dialects[at] = other
            return changed
        name = self._dialects[at].names[int(conflict[1])]
        value, held = _VALUE.search(conflict[3]), self._types.get(name)
        if held is None or is_text(held):
            return False
        text = value[1].strip() if value else ""
        kind = _wider(held, text)
        if is_text(kind):
            self._as_text(name, held, text)
        else:
            self._types[name] = kind
        return True

    def _as_text(self, name: str, held: Any, value: str) -> None:
        self._types[name] = pa.string()
        if not pa.types.is_null(held):
            self._notes[name] = f"read as text: as {held} its value {value!r} would not be exact"

    def _reworded(self, at: int) -> bool:
        """Try the next way to read lines that do not come out even; tell whether there is one."""
        dialect = self._dialects[at]
        if dialect.quoted and not dialect.multiline:
            self._dialects[at] = replace(dialect, multiline=True)
        elif dialect.quoted:
            self._dialects[at] = replace(dialect, quoted=False, multiline=False)
        else:
            return False
        return True


class _Again(Exception):
    """Types or dialect changed between two batches; the file has to be read from its start."""


def _goes_over_lines(batch: Any) -> bool:
    texts = (array for array in batch.columns if is_text(array.type))
    return any(pc.any(pc.match_substring(array, "\n")).as_py() for array in texts)


def _columns(batch: Any) -> Iterator[tuple[str, Any]]:
    return zip(batch.schema.names, batch.columns, strict=True) if batch is not None else iter(())


def _wider(held: Any, value: str) -> Any:
    """Return the next type of a column of type `held` that has the value `value`."""
    if not (pa.types.is_null(held) or held == pa.int64()):
        return pa.string()
    if _INTEGER.fullmatch(value):
        fits = -(2**63) <= int(value) < 2**63
        padded = re.match(_PADDED, value) is not None
        return pa.int64() if fits and not padded else pa.string()
    try:
        float(value.replace("_", "x"))
    except ValueError:
        return pa.string()
    return pa.float64()


def _blank_as_null(batch: Any) -> Any:
    """Return a batch whose empty texts are null."""
    for at, field in enumerate(batch.schema):
        if is_text(field.type):
            blank = pc.equal(batch.column(at), "")
            if pc.any(blank).as_py():
                kept = pc.if_else(blank, pa.scalar(None, field.type), batch.column(at))
                batch = batch.set_column(at, field.name, kept)
    return batch


def _unreadable(path: Any, error: Exception) -> DataError:
    uneven = re.search(r"Expected (\d+) columns, got (\d+): ?(.*)", str(error.__cause__ or error))
    if uneven is None:
        return DataError(first_line(error))
    return DataError(
        f"every line of a CSV file must have a value for each column, but {path} has "
        f"{uneven[1]} columns and {uneven[2]} values in the line {uneven[3][:80]!r}; mend this line"
    )
