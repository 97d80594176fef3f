"""Record batches bounded by bytes: rows of long texts or lists come fewer at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

BATCH_BYTES = 4 << 20
BATCH_ROWS = 1 << 16
_LEAST_ROWS = 1 << 10
_PROBE = 1000


class Rows(Protocol):
    """The part of a source that is used here: a stream that can be read again."""

    def batches(
        self, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
    ) -> Iterator[Any]:
        """Return a new iterator over record batches with `columns`."""
        ...


def stream(source: Rows, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Return a new iterator over record batches of about `BATCH_BYTES`, at most `BATCH_ROWS` rows.

    The size of a row is that of the first thousand rows.
    """
    first = next(iter(source.batches(columns, _PROBE)), None)
    wide = first.nbytes / max(first.num_rows, 1) if first is not None else 1.0
    rows = int(BATCH_BYTES / max(wide, 1.0))
    return source.batches(columns, max(_LEAST_ROWS, min(BATCH_ROWS, rows)))
