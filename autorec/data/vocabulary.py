"""Values of a column counted in one bounded pass, and looked up as codes.

Code 0 is null, 1 is a value that training did not keep, and the vocabulary starts at 2 with the
most frequent value, so that a smaller table is a prefix of a larger one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from autorec.data.casting import canonical, conform, is_text, value_type
from autorec.data.hashing import as_words, hash_text, hash_values
from autorec.errors import DataError

Codes = npt.NDArray[np.int32]
NULL, UNKNOWN, FIRST = 0, 1, 2

_PENDING = 1 << 16  # rows of value counts that are gathered before they are merged
_DENSE = 8  # a direct table may have this many slots per value: 32 bytes, what a hash table takes


class ValueCounter:
    """Counts the values of one column batch by batch, with no Python per row.

    Memory grows with the number of distinct values; `limit` bounds it by keeping the values with
    the smallest hashes only. Which values are kept does not depend on the order of the rows, and
    the counts of kept values are exact: a value below the final bound was below every earlier one.
    """

    def __init__(self, column: str, limit: int | None = None) -> None:
        self.column = column
        self.fitted: Any = pa.null()
        self.pruned = False
        self._limit = limit
        self._bound = np.uint64(2**64 - 1)
        self._type: Any = pa.null()
        self._merged = self._table(pa.nulls(0), pa.array([], pa.int64()))
        self._pending: list[Any] = []
        self._rows = 0

    def add(self, array: Any) -> None:
        """Count the values of one Arrow array; null and NaN are left out.

        Raises:
            DataError: the type cannot be counted, or does not fit the batches before.
        """
        given = array.type
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if self.pruned:
            array = array.filter(pa.array(hash_values(array, self.column) <= self._bound))
        coded = pa.types.is_dictionary(array.type)
        if not coded:
            kind = canonical(array.slice(0, 0), self.column).type
            array = array.cast(kind) if is_text(array.type) else array
        found = pc.value_counts(array.indices if coded else array)
        values, counts = found.field("values"), found.field("counts")
        if coded:
            values = array.dictionary.take(values)
        if pa.types.is_null(self._type) and not pa.types.is_null(values.type):
            self.fitted = value_type(given)
            self._type = canonical(values, self.column).type
        values = conform(values, self._type, self.column, self.fitted)
        keep = values.is_valid()
        self._pending.append(self._table(values.filter(keep), counts.filter(keep)))
        self._rows += self._pending[-1].num_rows
        if self._rows > max(_PENDING, self._merged.num_rows):
            self._merge()

    def result(self) -> Any:
        """Return a table of distinct values `v` and their counts `n`, in no special order."""
        self._merge()
        return self._merged

    @staticmethod
    def _table(values: Any, counts: Any) -> Any:
        return pa.table({"v": values, "n": counts})

    def _merge(self) -> None:
        if not self._pending:
            return
        parts = [self._merged, *self._pending] if self._merged.num_rows else self._pending
        parts = [part for part in parts if part.num_rows] or parts[-1:]
        both = pa.concat_tables(parts)
        grouped = both.group_by("v", use_threads=False).aggregate([("n", "sum")])
        self._merged = self._table(grouped["v"], grouped["n_sum"]).combine_chunks()
        self._pending, self._rows = [], 0
        if self._limit is not None and self._merged.num_rows > self._limit:
            hashes = hash_values(self._merged["v"])
            self._bound = np.partition(hashes, self._limit - 1)[self._limit - 1]
            self._merged = self._merged.filter(pa.array(hashes <= self._bound)).combine_chunks()
            self.pruned = True


class Vocabulary:
    """The kept values of one column and the way from a value to its code and back.

    Attributes:
        values: `pa.Array` of V distinct canonical values; the value of code c is `values[c - 2]`.
        fitted: Arrow type of the column in training, which `decode` gives back.
    """

    def __init__(self, column: str, values: Any, fitted: Any) -> None:
        self.column, self.values, self.fitted = column, values, fitted
        kind = values.type
        self._text = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
        self._table: Codes | None = None
        self._low = np.int64(0)
        self._index: Any = None
        if pa.types.is_null(kind) or not len(values):
            return
        words = hash_text(values).view(np.int64) if self._text else as_words(values)
        # Two texts of one hash would hide one another; they are then searched by value.
        self._collides = self._text and len(np.unique(words)) < len(words)
        low, high = int(words.min()), int(words.max())
        if not self._text and high - low < _DENSE * len(words) + 1024:
            self._low = np.int64(low)
            self._table = np.full(high - low + 1, UNKNOWN, np.int32)
            self._table[words - self._low] = np.arange(FIRST, FIRST + len(words), dtype=np.int32)
        elif not self._collides:
            self._index = pd.Index(words)
            self._index.get_indexer(
                words[:1]
            )  # builds its hash table now and not in a server thread

    @classmethod
    def from_counts(
        cls, counter: ValueCounter, *, min_count: int, most: int | None = None
    ) -> Vocabulary:
        """Keep values seen at least `min_count` times, by count (descending), then by value.

        Args:
            counter: the counted training column.
            min_count: rarer values become code 1.
            most: keep at most this many values.
        """
        table = counter.result()
        values = table["v"].combine_chunks()
        counts = table["n"].combine_chunks()
        keep = pc.greater_equal(counts, min_count)
        kept = pa.table({"v": values.filter(keep), "n": counts.filter(keep)})
        if not pa.types.is_null(values.type):
            keys = [("n", "descending"), ("v", "ascending")]
            kept = kept.take(pc.sort_indices(kept, sort_keys=keys))
        return cls(counter.column, kept["v"].slice(0, most).combine_chunks(), counter.fitted)

    @property
    def rows(self) -> int:
        """Rows of an embedding table: the V values, null and unknown."""
        return FIRST + len(self.values)

    def encode(self, array: Any) -> Codes:
        """Return one code (n,) per value of an Arrow array.

        Raises:
            DataError: the type differs from training and a value has no exact counterpart.
        """
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if pa.types.is_dictionary(array.type):
            codes = np.append(self.encode(array.dictionary), np.int32(NULL))
            at = pc.fill_null(array.indices.cast(pa.int64()), -1)
            return np.asarray(codes[at.to_numpy(zero_copy_only=False)])
        values = conform(array, self.values.type, self.column, self.fitted)
        codes = self._search(values)
        if values.null_count:
            codes[values.is_null().to_numpy(zero_copy_only=False)] = NULL
        return codes

    def decode(self, codes: npt.NDArray[Any]) -> Any:
        """Return the raw values (n,) as `pa.Array` of the training type; codes 0 and 1 are null.

        Raises:
            DataError: a code lies outside the vocabulary.
        """
        codes = np.asarray(codes)
        if codes.size and not (codes.min() >= 0 and codes.max() < self.rows):
            bad = codes[(codes < 0) | (codes >= self.rows)][0]
            raise DataError(
                f"codes of {self.column!r} lie in 0..{self.rows - 1}, but got {bad}; "
                "decode with the encoder that encoded"
            )
        at = pa.array(codes.astype(np.int64) - FIRST, mask=codes < FIRST)
        return raw(self.values.take(at), self.fitted)

    def _search(self, values: Any) -> Codes:
        """Return codes (n,) of canonical values; those of nulls are arbitrary."""
        n = len(values)
        if not len(self.values):
            return np.full(n, UNKNOWN, np.int32)
        if not self._text:
            words = as_words(values)
            if self._table is not None:
                # Differences wrap around, so one unsigned comparison tests both ends.
                at = (words - self._low).view(np.uint64)
                known = at < np.uint64(len(self._table))
                return np.where(known, self._table[np.where(known, at, 0)], np.int32(UNKNOWN))
            found = self._index.get_indexer(words) + FIRST
            return np.asarray(found).clip(UNKNOWN).astype(np.int32)
        # Arrow builds its table anew in each call: 30 M values/s while V <= n, 0.2 at 1 M values.
        if self._collides or len(self.values) <= n:
            place = pc.fill_null(pc.index_in(values, value_set=self.values), -1)
            return np.asarray(place.to_numpy(zero_copy_only=False) + FIRST).astype(np.int32)
        found = np.asarray(self._index.get_indexer(hash_text(values).view(np.int64)))
        same = pc.equal(self.values.take(pa.array(found.clip(0))), values)
        known = pc.fill_null(same, False).to_numpy(zero_copy_only=False) & (found >= 0)
        return np.where(known, found + FIRST, UNKNOWN).astype(np.int32)


def raw(values: Any, fitted: Any) -> Any:
    """Return canonical values in the type of the training column, where it can hold them."""
    t = pa.types
    if values.type == fitted:
        return values
    try:
        if t.is_time(fitted):
            return values.cast(pa.time64("ns")).cast(fitted)
        if t.is_duration(fitted):
            return values.cast(pa.duration("ns")).cast(fitted)
        if t.is_decimal(fitted) and t.is_integer(values.type):
            values = values.cast(pa.decimal128(19, 0))  # wide enough for any int64
        return values.cast(fitted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return values
