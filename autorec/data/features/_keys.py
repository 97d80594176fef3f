"""One int64 key per row for a field or a cross of fields, and hashes of whole rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from autorec.data.columns import Columns
from autorec.data.hashing import mix
from autorec.data.vocabulary import NULL, UNKNOWN
from autorec.schema import Layout

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

CHUNK = 1 << 18  # rows at a time: 2 MiB for each int64 that is between codes and values
_WIDEST = 1 << 62
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Cross:
    """The values that one or several fields take together.

    Two rows have one key where all codes agree. The key counts in mixed radix, and is a 63-bit hash
    where the tables of the fields multiply to 2**62 or more. A row is known where no code is out of
    vocabulary: rare values share that code, so that a statistic of it would mix strangers.

    Attributes:
        fields: names of plain fields of the layout.
        rows: table rows of each field.
    """

    fields: tuple[str, ...]
    rows: tuple[int, ...]

    @property
    def span(self) -> int:
        """All keys lie below it."""
        return min(prod(self.rows), 1 << 63)

    def keys(self, columns: Columns, *, entity: bool = False) -> tuple[Ints, Mask]:
        """Return the key (n,) of each row and whether the row is known (n,).

        Args:
            columns: n rows of the layout of fit.
            entity: whether a null leaves a row unknown, too: nobody has no history.
        """
        at = places(columns.layout)
        codes = [columns.codes[:, at[name]] for name in self.fields]
        known = codes[0] != UNKNOWN
        for column in codes[1:]:
            known &= column != UNKNOWN
        for column in codes if entity else ():
            known &= column != NULL
        if len(codes) > 1 and prod(self.rows) >= _WIDEST:
            return (_fold(codes) >> np.uint64(1)).view(np.int64), known
        keys = codes[0].astype(np.int64)
        for column, rows in zip(codes[1:], self.rows[1:], strict=True):
            keys *= rows
            keys += column
        return keys, known


def slices(rows: int) -> Iterator[slice]:
    """Yield slices of at most `CHUNK` rows that cover `rows`."""
    for start in range(0, rows, CHUNK):
        yield slice(start, min(start + CHUNK, rows))


def pieces(columns: Columns) -> Iterator[tuple[slice, Columns]]:
    """Yield the rows in parts of at most `CHUNK`, each with its place; few rows as they are."""
    if len(columns) <= CHUNK:
        yield slice(0, len(columns)), columns
        return
    for part in slices(len(columns)):
        yield part, columns.take(part)


def places(layout: Layout) -> dict[str, int]:
    """Return the column of each plain field; one layout is asked for many times in a row."""
    global _last
    held = _last
    if held[0] is not layout:
        held = layout, {field.name: at for at, field in enumerate(layout.sparse)}
        _last = held
    return held[1]


_last: tuple[Layout, dict[str, int]] = (Layout(), {})


def title(fields: Sequence[str]) -> str:
    """Return the name of a cross: its fields with `*` between them."""
    return "*".join(fields)


def contents(columns: Columns, seed: int) -> npt.NDArray[np.uint64]:
    """Return one hash (n,) of all that a row is but its label and weight.

    Equal rows hash alike, so that neither their order nor a label decides where they belong.
    """
    parts: list[Any] = [columns.codes[:, i] for i in range(columns.codes.shape[1])]
    for name in sorted(columns.lists):
        parts += list(columns.lists[name].T)
    parts += [column.view(np.uint32) for column in np.ascontiguousarray(columns.dense.T)]
    parts += [column for column in (columns.group, columns.time) if column is not None]
    return _fold(parts, seed)


def _fold(parts: Sequence[npt.NDArray[Any]], seed: int = 0) -> npt.NDArray[np.uint64]:
    out = np.full(len(parts[0]), np.uint64(seed))
    for part in parts:
        out *= _ODD
        out += part.astype(np.uint64)
        out ^= out >> np.uint64(29)
    return mix(out)
