"""How a text file is written: compression, encoding, separator and header line, by its content."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from autorec.data.paths import named_as_text, packing, unknown
from autorec.data.reading import readable
from autorec.errors import DataError, SchemaError

SEPARATORS = (",", "\t", "|", ";")
_SAMPLE = 1 << 18
_BLOCK = 1 << 20  # Arrow reads 32 blocks ahead
_LINES = 100
_AGREE = 0.8  # share of lines that must have as many values as the header to trust a separator
_UTF8, _LATIN1, _UTF16 = "utf8", "latin-1", "utf-16"  # pyarrow reads "utf8" without a copy


@dataclass(frozen=True)
class Dialect:
    """How the lines of a file are to be read.

    Attributes:
        names: of the columns, in their order.
        skip: lines up to and including the header.
        packed: "gzip", "bz2", "zstd" or None.
        quoted: whether a value may stand in double quotes.
        multiline: whether a quoted value may go over several lines.
        block: bytes that are parsed at a time.
    """

    names: tuple[str, ...]
    separator: str
    skip: int
    encoding: str
    packed: str | None
    block: int
    quoted: bool = True
    multiline: bool = False

    def __str__(self) -> str:
        kinds = {",": "comma", "\t": "tab", "|": "'|'", ";": "semicolon"}
        encoding = "" if self.encoding == _UTF8 else f", {self.encoding}"
        return f"{kinds[self.separator]}-separated{encoding}"


def sniff(path: Path) -> Dialect:
    """Return how a text file is written.

    Raises:
        DataError: it is no text with separators, or its first line is no header.
        SchemaError: two columns have one name.
    """
    packed = packing(path)
    with readable(path, packed or "text"), pa.input_stream(str(path), compression=packed) as stream:
        sample = stream.read(_SAMPLE)
    text, encoding = _decoded(path, sample)
    lines = re.split(r"\r\n|\n|\r", text)
    if len(sample) == _SAMPLE and len(lines) > 1:
        lines.pop()  # cut off somewhere
    blank = next((at for at, line in enumerate(lines) if line.strip()), None)
    if blank is None:
        raise DataError(f"a CSV file must have a header line and rows, but {path} has only blanks")
    body = [line for line in lines[blank:] if line.strip()][:_LINES]
    separator = _separator(path, body)
    names = _names(path, separator, _values(body[0], separator))
    return Dialect(names, separator, blank + 1, encoding, packed, _BLOCK)


def _decoded(path: Path, sample: bytes) -> tuple[str, str]:
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return codecs.getincrementaldecoder(_UTF16)(errors="replace").decode(sample), _UTF16
    if b"\0" in sample:
        raise unknown(path, "it holds binary data")
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(sample), _UTF8
    except UnicodeDecodeError:
        return sample.decode(_LATIN1), _LATIN1


def _separator(path: Path, lines: Sequence[str]) -> str:
    """Return the separator that cuts most lines into as many values as the header."""
    found = []
    for separator in SEPARATORS:
        width = len(_values(lines[0], separator))
        agree = sum(len(_values(line, separator)) == width for line in lines) / len(lines)
        if width > 1:
            found.append((agree, width, separator))
    best = max(found, key=lambda one: one[:2], default=(0.0, 1, ","))
    if named_as_text(path):
        if "::" in lines[0] and best[0] < _AGREE:
            raise DataError(
                f"values must be separated by one character, but those of {path} are by '::'; "
                "read it yourself and pass the table: pandas.read_csv(..., sep='::', "
                "engine='python', names=[...])"
            )
        return best[2]
    json = lines[0].lstrip().startswith(("{", "[", "<"))
    if json or len(lines) < 2 or best[0] < _AGREE:
        ending = f"the ending {path.suffix!r}" if path.suffix else "no ending"
        raise unknown(path, f"it has {ending} and its lines do not look like separated values")
    return best[2]


def _values(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return line.split(separator)


def _names(path: Path, separator: str, values: Sequence[str]) -> tuple[str, ...]:
    names = [value.strip() for value in values]
    filled = [name for name in names if name]
    twice = sorted(name for name, count in Counter(filled).items() if count > 1)
    numbers = sum(map(_is_number, names))
    counted = names in ([str(i + start) for i in range(len(names))] for start in (0, 1))
    spaced = len(names) == 1 and all(map(_is_number, names[0].split()))
    if (numbers > len(names) / 2 and not counted) or (twice and numbers) or spaced:
        shown = ", ".join(map(repr, names[:5]))
        raise DataError(
            f"a CSV file must begin with a line of column names, but the first line of {path} "
            f"looks like data: {shown}, ...; add such a line, or read the file yourself and pass "
            f"the table: pandas.read_csv(..., sep={separator!r}, names=[...])"
        )
    if twice:
        raise SchemaError(
            f"column names must differ, but {twice} occur more than once in {path}; rename one"
        )
    return tuple(name or f"Unnamed: {at}" for at, name in enumerate(names))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
