"""What a label column holds (`LabelStats`), and how its values become numbers (`LabelMap`)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from autorec.data.casting import canonical, first_failure, flat, is_list, is_text, numbers
from autorec.data.hashing import hash_values
from autorec.data.numeric import Moments
from autorec.data.reading import absent
from autorec.errors import ConfigError, DataError, SchemaError

DISTINCT = 1000
SHOWN = 64
_KINDS = ("binary", "number")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
LARGEST = float(np.finfo(np.float32).max)


class Rows(Protocol):
    """The part of a source that is used here."""

    schema: Any

    def batches(self, columns: Any = None, batch_rows: int = 65536) -> Any:
        """Return a new iterator over record batches with `columns`."""
        ...


@dataclass(frozen=True)
class LabelStats:
    """What a label column holds.

    Attributes:
        name, dtype: of the column; the type as Arrow writes it.
        rows: all rows, with and without a label.
        nulls: rows without a value.
        nonfinite: rows with NaN or an infinity.
        values: the 64 most frequent values with their counts, equal counts in the order of the
            values; nulls and non-finite numbers are left out. Above 1000 distinct values they are
            the most frequent of 1000 that a hash picks, each with its exact count.
        distinct: how many values there are; 1000 means 1000 or more.
        minimum, maximum, mean, std: of the finite values (population deviation); None where the
            values are no numbers, or there are none.
    """

    name: str
    dtype: str
    rows: int
    nulls: int
    nonfinite: int
    values: tuple[tuple[Any, int], ...]
    distinct: int
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None


def label_stats(source: Rows, name: str) -> LabelStats:
    """Return what a label column holds, in one pass over it and in bounded memory.

    The order of the rows and their batches do not matter.

    Raises:
        SchemaError: there is no such column, or it has no single value a row.
    """
    if name not in source.schema.names:
        raise SchemaError(absent(name, source.schema.names, "label column"))
    dtype = source.schema.field(name).type
    if is_list(dtype):
        raise SchemaError(
            f"a label must be one value a row, but the label column {name!r} holds {dtype}; "
            "choose another column"
        )
    counts, moments = _Counts(), Moments()
    rows = nulls = nonfinite = 0
    low, high = math.inf, -math.inf
    for batch in source.batches([name]):
        array = flat(batch.column(0))
        rows += len(array)
        nulls += array.null_count
        array = array.drop_null()
        if pa.types.is_decimal(array.type):
            array = array.cast(pa.float64())
        if pa.types.is_floating(array.type):
            finite = pc.is_finite(array)
            nonfinite += len(array) - (pc.sum(finite).as_py() or 0)
            array = array.filter(finite)
        array = canonical(array, name)
        counts.add(array)
        if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
            values = numbers(array, name)
            moments.add(values)
            low = min(low, float(values.min(initial=low)))
            high = max(high, float(values.max(initial=high)))
    told = (low, high, moments.mean, moments.std) if moments.count else (None,) * 4
    return LabelStats(name, str(dtype), rows, nulls, nonfinite, counts.top(), len(counts), *told)


class _Counts:
    """Exact counts of the values whose hashes are the `DISTINCT` smallest.

    A value among the smallest of all was among the smallest of every part, so it is counted from
    its first row on, and the outcome does not depend on the order of the rows.
    """

    def __init__(self) -> None:
        self._held: dict[int, list[Any]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def add(self, array: Any) -> None:
        counted = pc.value_counts(array)
        values, counts = counted.field(0), counted.field(1).to_numpy()
        hashes = hash_values(values)
        small = np.arange(len(hashes))
        if len(small) > DISTINCT:
            small = np.argpartition(hashes, DISTINCT)[:DISTINCT]
        kept = values.take(pa.array(small)).to_pylist()
        for key, value, count in zip(hashes[small], kept, counts[small], strict=True):
            self._held.setdefault(int(key), [value, 0])[1] += int(count)
        if len(self._held) > DISTINCT:
            self._held = {key: self._held[key] for key in sorted(self._held)[:DISTINCT]}

    def top(self) -> tuple[tuple[Any, int], ...]:
        ranked = sorted(self._held.values(), key=lambda held: held[0])
        ranked.sort(key=lambda held: -held[1])
        return tuple((value, count) for value, count in ranked[:SHOWN])


@dataclass(frozen=True)
class LabelMap:
    """How raw labels become numbers.

    Attributes:
        kind: "binary" (`negative` becomes 0, `positive` 1) or "number" (kept as it is).
        negative, positive: two values; 1, 1.0, True, "1" and "true" are the same one, since a
            column may change its type from file to file.

    Raises:
        ConfigError: another kind, or a binary map without two different values.
    """

    kind: str
    negative: Any = None
    positive: Any = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ConfigError(f"a label map must be one of {list(_KINDS)}, but got {self.kind!r}")
        pair = (self.negative, self.positive)
        if self.kind == "binary" and (None in pair or _key(pair[0]) == _key(pair[1])):
            raise ConfigError(
                f"a binary label must have two different values, but got {pair[0]!r} and "
                f"{pair[1]!r}; name both"
            )

    def apply(self, array: Any) -> npt.NDArray[np.float32]:
        """Return the labels (n,) of a `pa.Array` or `pa.ChunkedArray`.

        Raises:
            DataError: a label is missing, not finite, or unknown.
        """
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        array = flat(array)
        if array.null_count:
            raise DataError(
                f"every row must have a label, but it is null in {array.null_count} of "
                f"{len(array)} rows; drop or fill these rows"
            )
        if pa.types.is_floating(array.type):
            _all_finite(array.to_numpy(zero_copy_only=False))
        return self._binary(array) if self.kind == "binary" else _numbers(array)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LabelMap:
        """Read what `to_json` wrote."""
        return cls(data["kind"], data.get("negative"), data.get("positive"))

    def _binary(self, array: Any) -> npt.NDArray[np.float32]:
        known = {_key(self.negative): 0.0, _key(self.positive): 1.0}
        coded = canonical(array, "label").dictionary_encode()
        values = coded.dictionary.to_pylist()
        table = np.array([known.get(_key(value), np.nan) for value in values], np.float32)
        indices = coded.indices.to_numpy(zero_copy_only=False)
        out: npt.NDArray[np.float32] = table[indices]
        unknown = np.isnan(out)
        if unknown.any():
            strange = [value for value, code in zip(values, table, strict=True) if np.isnan(code)]
            count = int((indices == values.index(strange[0])).sum())
            more = f" and {len(strange) - 1} more values are unknown" if len(strange) > 1 else ""
            raise DataError(
                f"a label must be {self.negative!r} or {self.positive!r}, but {strange[0]!r} is in "
                f"{count} of {len(out)} rows{more}; drop or mend these {int(unknown.sum())} rows"
            )
        return out


def _numbers(array: Any) -> npt.NDArray[np.float32]:
    if is_text(array.type):
        array = pc.utf8_trim_whitespace(array)
        try:
            array = array.cast(pa.float64())
        except pa.ArrowInvalid as error:
            word = first_failure(array, lambda part: part.cast(pa.float64()))[0]
            count = pc.sum(pc.equal(array, word)).as_py()
            raise DataError(
                f"a label must be a number, but {word.as_py()!r} is in {count} of {len(array)} "
                "rows; drop or mend these rows"
            ) from error
    values = numbers(array, "label")
    _all_finite(values)
    large = np.abs(values) > LARGEST
    if large.any():
        raise DataError(
            f"a label must fit a 32-bit float, but {float(values[large][0])!r} is in "
            f"{int((values == values[large][0]).sum())} of {len(values)} rows; rescale the column"
        )
    return values.astype(np.float32)


def _all_finite(values: npt.NDArray[Any]) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        raise DataError(
            f"labels must be finite, but {int(bad.sum())} of {len(values)} rows have "
            f"{float(values[bad][0])}; drop or fill these rows"
        )


def _key(value: Any) -> Any:
    """Return one key for the values that mean the same: 1, 1.0, True, '1' and 'true'."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.casefold() in ("true", "false"):
        return text.casefold() == "true"
    if not text.isascii() or not _NUMBER.fullmatch(text):
        return value
    number = float(text)
    return int(text) if text.lstrip("+-").isdecimal() else number
