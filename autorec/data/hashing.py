"""Stable 64-bit hashes of raw values: the same in every batch, file, process and integer width.

Groups, random splits and row samples are keyed by these hashes and never by a per-chunk
vocabulary, so that no result depends on how a table is cut into batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from autorec.data.casting import canonical, is_list
from autorec.errors import DataError

UInts = npt.NDArray[np.uint64]

_NULL = 0x9E6C63D0876A9A4B
_SALTS = {"float": 0x5851F42D4C957F2D, "big": 0xD6E8FEB86659FD93, "text": 0xA0761D6478BD642F}


def mix(values: UInts) -> UInts:
    """Return the splitmix64 finaliser of each element: a bijection in which every bit matters."""
    out = values + np.uint64(0x9E3779B97F4A7C15)
    out ^= out >> np.uint64(30)
    out *= np.uint64(0xBF58476D1CE4E5B9)
    out ^= out >> np.uint64(27)
    out *= np.uint64(0x94D049BB133111EB)
    out ^= out >> np.uint64(31)
    return out


def hash_values(array: Any, column: str = "") -> UInts:
    """Return one hash (n,) per value of an Arrow array.

    Integers of every width, booleans and floats that hold an integer share one hash per number;
    all nulls and NaNs share another. Text and numbers never hash alike on purpose.

    Args:
        array: `pa.Array` or `pa.ChunkedArray` with n values.
        column: name for error messages.

    Raises:
        DataError: the type holds nothing that can be hashed (a union, for example).
    """
    if isinstance(array, pa.ChunkedArray):
        parts = [hash_values(chunk, column) for chunk in array.chunks]
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        return _through_dictionary(array, column)
    if is_list(array.type) or pa.types.is_struct(array.type) or pa.types.is_map(array.type):
        return _hash_nested(array, column)
    values = canonical(array, column)
    if pa.types.is_null(values.type):
        out = np.zeros(len(values), np.uint64)
    elif pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type):
        out = hash_text(
            values
        )  # 90 ns a value of 26 bytes; dictionary_encode first costs up to 260
    else:
        out = _hash_numbers(values)
    return _with_nulls(out, values)


def hash_rows(columns: dict[str, Any]) -> UInts:
    """Return one hash (n,) per row of equally long Arrow arrays; the order of columns is free."""
    total: UInts | None = None
    for name, array in columns.items():
        title = hash_text(pa.array([name], pa.large_string()))
        hashed = mix(hash_values(array, name) ^ title)
        total = hashed if total is None else total + hashed
    if total is None:
        raise DataError("a row hash needs at least one column, but got none; keep a column")
    return mix(total)


def hash_text(values: Any) -> UInts:
    """Return one hash (n,) per value of a large_string or large_binary array (nulls as empty)."""
    n = len(values)
    buffers = values.buffers()
    offsets = np.frombuffer(buffers[1], np.int64)[values.offset : values.offset + n + 1]
    raw = np.frombuffer(buffers[2] or b"", np.uint8)
    lengths = np.diff(offsets)
    padded = np.concatenate([raw[: offsets[-1] if n else 0], np.zeros(8, np.uint8)])
    # One 64-bit word at every byte offset: a strided view, so reading it copies only what is asked.
    words = np.ndarray((len(padded) - 7,), dtype="<u8", buffer=padded.data, strides=(1,))
    out = mix(lengths.astype(np.uint64) ^ np.uint64(_SALTS["text"]))
    rows = np.flatnonzero(lengths > 0)
    start = 0
    while rows.size:
        word = words[offsets[rows] + start].astype(np.uint64)
        left = np.minimum(lengths[rows] - start, 8).astype(np.uint64)
        word &= np.uint64(2**64 - 1) >> (np.uint64(64) - np.uint64(8) * left)
        out[rows] = mix(out[rows] ^ word)
        start += 8
        rows = rows[lengths[rows] > start]
    return out


def as_words(values: Any) -> npt.NDArray[np.int64]:
    """Return the 64 bits (n,) of each value of a canonical number, boolean or date; nulls as 0."""
    kind = values.type
    if pa.types.is_floating(kind):
        numbers: npt.NDArray[np.float64] = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False)
        return np.ascontiguousarray(numbers).view(np.int64)
    if pa.types.is_boolean(kind) or pa.types.is_date(kind):
        values = values.cast(pa.int32()).cast(pa.int64())
    elif pa.types.is_timestamp(kind):
        values = values.cast(pa.int64())
    filled = pc.fill_null(values, 0) if values.null_count else values
    return np.asarray(filled.to_numpy(zero_copy_only=False)).view(np.int64)


def _hash_numbers(values: Any) -> UInts:
    kind = values.type
    if pa.types.is_floating(kind):
        numbers = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False)
        whole = (np.abs(numbers) < 2.0**63) & (numbers == np.floor(numbers))
        ints = np.where(whole, numbers, 0.0).astype(np.int64).view(np.uint64)
        bits = as_words(values).view(np.uint64) ^ np.uint64(_SALTS["float"])
        return mix(np.where(whole, ints, bits))
    if pa.types.is_timestamp(kind):  # one instant has one hash in every unit
        values = pa.array(_microseconds(values), mask=_mask(values))
    words = as_words(values).view(np.uint64)
    if pa.types.is_uint64(kind):
        words = np.where(words >> np.uint64(63), words ^ np.uint64(_SALTS["big"]), words)
    return mix(words)


def _microseconds(values: Any) -> npt.NDArray[np.int64]:
    plain = values.cast(pa.timestamp("us", values.type.tz), safe=False).cast(pa.int64())
    return np.asarray(pc.fill_null(plain, 0).to_numpy(zero_copy_only=False))


def _mask(values: Any) -> npt.NDArray[np.bool_]:
    return np.asarray(values.is_null().to_numpy(zero_copy_only=False))


def _with_nulls(hashed: UInts, values: Any) -> UInts:
    if values.null_count:
        hashed = np.where(_mask(values), np.uint64(_NULL), hashed)
    return hashed


def _through_dictionary(array: Any, column: str) -> UInts:
    each = hash_values(array.dictionary, column)
    at = pc.fill_null(array.indices, 0).to_numpy(zero_copy_only=False)
    out = each[at] if len(each) else np.zeros(len(array), np.uint64)
    return _with_nulls(out, array.indices)


def _hash_nested(array: Any, column: str) -> UInts:
    """Hash lists by their values in order and structs by their fields."""
    if pa.types.is_struct(array.type):
        parts = {
            array.type.field(i).name: part
            for i, part in enumerate(array.flatten())  # flatten puts the parent's nulls below
        }
        out = hash_rows(parts) if parts else np.zeros(len(array), np.uint64)
        return _with_nulls(out, array)
    if pa.types.is_map(array.type):
        array = array.cast(
            pa.list_(pa.struct([("k", array.type.key_type), ("v", array.type.item_type)]))
        )
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    lengths = lengths.astype(np.int64)
    ends = np.cumsum(lengths)
    place = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    inner = mix(hash_values(array.flatten(), column) ^ mix(place.astype(np.uint64)))
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(inner, dtype=np.uint64)])
    out = mix((total[ends] - total[ends - lengths]) ^ mix(lengths.astype(np.uint64)))
    return _with_nulls(out, array)
