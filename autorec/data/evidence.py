"""What a bounded look at a table says of each column, before anything is decided about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from autorec.data.casting import EXACT, canonical, flat, is_list, is_text
from autorec.errors import DataError

SAMPLE_ROWS = 200_000
SAMPLE_CELLS = 20_000_000
SAMPLE_BYTES = 256 << 20


class Rows(Protocol):
    """The part of a source that is used here: a stream that can be read again."""

    schema: Any

    def batches(self, columns: Any = None, batch_rows: int = 65536) -> Any:
        """Return a new iterator over record batches with `columns`."""
        ...


@dataclass(frozen=True)
class Look:
    """The sampled values of one column.

    Attributes:
        name: of the column.
        dtype: its Arrow type.
        array: the sample (n,), decoded; numbers and text in the one type of their family.
        whole: whether the sample is the whole table.
        settled: whether all rows of the table are like the sample, if that has one value only.
        note: what was assumed when the column was read.
    """

    name: str
    dtype: Any
    array: Any
    whole: bool
    settled: bool = True
    note: str = ""

    @property
    def rows(self) -> int:
        """Rows of the sample."""
        return len(self.array)

    @cached_property
    def present(self) -> Any:
        """The values that are not null."""
        return self.array.drop_null()

    @cached_property
    def unique(self) -> Any:
        """The distinct values, in no order; empty for lists."""
        return self.present.slice(0, 0) if is_list(self.array.type) else self.present.unique()

    @property
    def distinct(self) -> int:
        """How many distinct values there are."""
        return len(self.unique)

    @property
    def empty(self) -> bool:
        """Whether there is no value at all."""
        return len(self.present) == 0

    @property
    def constant(self) -> bool:
        """Whether all rows have one value, not null."""
        return self.distinct == 1 and len(self.present) == self.rows

    @property
    def huge(self) -> bool:
        """Whether there are so many values that each names a thing: over 1000 and a tenth."""
        return self.distinct > 1000 and self.distinct > len(self.present) / 10

    @cached_property
    def ints(self) -> npt.NDArray[np.int64] | None:
        """The values (m,) in row order as integers; None where any is not, or is past int64."""
        t, kind = pa.types, self.array.type
        if t.is_integer(kind) and not t.is_uint64(kind):
            return np.asarray(self.present.to_numpy(zero_copy_only=False))
        if not (t.is_floating(kind) or t.is_uint64(kind)) or self.empty:
            return None
        values: npt.NDArray[Any] = self.present.to_numpy(zero_copy_only=False)
        if not ((np.abs(values.astype(np.float64)) < EXACT) & (values == np.floor(values))).all():
            return None
        return values.astype(np.int64)

    @cached_property
    def counted(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The distinct integers, ascending, and how often each occurs."""
        values = self.ints if self.ints is not None else np.zeros(0, np.int64)
        return np.unique(values, return_counts=True)

    def told(self) -> str:
        """Return type and number of values, for people."""
        where = f"{self.rows:,} rows" if self.whole else f"the first {self.rows:,} rows"
        if is_list(self.dtype):
            return f"{self.dtype}, in {where}"
        value = "value" if self.distinct == 1 else "values"
        return f"{self.dtype}, {self.distinct:,} distinct {value} in {where}"


def look(source: Rows, notes: dict[str, str] | None = None) -> dict[str, Look]:
    """Return a look at each column from the first rows of a table.

    At most 200,000 rows, 20 million cells and 256 MiB are held. Columns that show one value or
    none there are read on until another turns up, since a log sorted by day begins with one day.

    Raises:
        DataError: the table has no rows, or cannot be read.
    """
    names = list(source.schema.names)
    most = max(1000, min(SAMPLE_ROWS, SAMPLE_CELLS // max(len(names), 1)))
    held, rows, size, whole = [], 0, 0, True
    for batch in source.batches(names, min(most, 65_536)):
        if rows >= most or size >= SAMPLE_BYTES:
            whole = False
            break
        held.append(batch.slice(0, most - rows))
        rows, size = rows + held[-1].num_rows, size + held[-1].nbytes
        whole = held[-1].num_rows == batch.num_rows
    if not rows:
        raise DataError("a table must have rows to tell what its columns are, but it has none")
    table = pa.Table.from_batches(held)
    looks = {}
    for name in names:
        array = plain(table.column(name).combine_chunks(), name)
        kind = source.schema.field(name).type
        looks[name] = Look(name, kind, array, whole, note=(notes or {}).get(name, ""))
    flat_ones = [one for one in looks.values() if one.empty or one.constant]
    varied = set() if whole else _varied(source, flat_ones)
    return {
        name: Look(name, one.dtype, one.array, whole, name not in varied, one.note)
        for name, one in looks.items()
    }


def plain(array: Any, name: str) -> Any:
    """Return values (n,) in the one type of their family; lists and odd types stay."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    array = flat(array)
    if pa.types.is_decimal(array.type):
        return array.cast(pa.float64())
    if is_list(array.type) or pa.types.is_interval(array.type):
        return array
    return canonical(array, name)


def _varied(source: Rows, looks: Sequence[Look]) -> set[str]:
    """Return the columns, of one value or none so far, that have another later on."""
    left = {one.name: one for one in looks}
    varied: set[str] = set()
    if not left:
        return varied
    for batch in source.batches(list(left)):
        for name, one in list(left.items()):
            if name in varied:
                continue
            array = batch.column(batch.schema.get_field_index(name))
            same = array.null_count == len(array)
            if not one.empty:
                found = plain(array, name)
                same = found.null_count == 0 and found.unique().equals(one.unique)
            if not same:
                varied.add(name)
        if len(varied) == len(left):
            break
    return varied


def number_text(values: Any) -> bool:
    """Tell whether all texts (m,) read as finite numbers; false where there are none."""
    if not len(values) or not is_text(values.type):
        return False
    try:
        numbers = pc.utf8_trim_whitespace(values).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return bool(pc.all(pc.is_finite(numbers)).as_py())
