"""One Arrow type per family of values, and casts between families that lose nothing or fail.

A column that was integers in training may be served as text or as floats (a CSV, a pandas frame
with a gap). Its values must find the same codes, or the error must name the column and a value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from autorec.errors import DataError

EXACT = 2**53  # integers below are exact in a float64, and no other integer rounds to them
_DIGITS = {"halffloat": 2**11, "float": 2**24, "double": EXACT}
_FAILURES = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError)


def is_list(kind: Any) -> bool:
    """Tell whether an Arrow type holds a list per row."""
    t = pa.types
    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind))


def is_text(kind: Any) -> bool:
    """Tell whether an Arrow type holds text, in any of its layouts."""
    t = pa.types
    view = getattr(t, "is_string_view", lambda _: False)
    return bool(t.is_string(kind) or t.is_large_string(kind) or view(kind))


def value_type(kind: Any) -> Any:
    """Return the type below a dictionary or an extension type."""
    if isinstance(kind, pa.BaseExtensionType):
        return value_type(kind.storage_type)
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def flat(array: Any) -> Any:
    """Return an array in one chunk, without its dictionary or extension type."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def canonical(array: Any, column: str) -> Any:
    """Return the same values (n,) in the one type of their family.

    Integers become int64 (uint64 stays), floats float64 with NaN as null and one zero, text
    large_string, binary large_binary, whole decimals int64 and others text, times of day and
    durations int64 nanoseconds. Booleans, dates (date32) and timestamps stay.

    Raises:
        DataError: the column holds lists, structs or another type without single values.
    """
    array = flat(array)
    kind, t = array.type, pa.types
    if t.is_integer(kind):
        return array if t.is_uint64(kind) else array.cast(pa.int64())
    if t.is_floating(kind):
        return pc.add(_without_nan(array.cast(pa.float64())), 0.0)  # -0.0 becomes 0.0
    if is_text(kind):
        return array.cast(pa.large_string())
    if t.is_null(kind) or t.is_boolean(kind) or t.is_timestamp(kind):
        return array
    if t.is_date(kind):
        return array.cast(pa.date32())
    if t.is_decimal(kind):
        whole = kind.scale == 0 and kind.precision <= 18
        return array.cast(pa.int64() if whole else pa.large_string())
    if t.is_time(kind):
        return array.cast(pa.time64("ns")).cast(pa.int64())
    if t.is_duration(kind):
        return array.cast(pa.duration("ns")).cast(pa.int64())
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind):
        return array.cast(pa.large_binary())
    raise DataError(
        f"a column needs one plain value per row, but {column!r} has type {kind}; "
        "flatten it or leave it out with feature_types={...: 'ignore'}"
    )


def conform(array: Any, to: Any, column: str, fitted: Any = None) -> Any:
    """Return `array` (n,) as canonical type `to`, exactly.

    Args:
        array: values of any plain type.
        to: a canonical type, as `canonical` returns.
        column: name for error messages.
        fitted: type of the column in training; a float column read back in the type it was
            fitted from is trusted below 2**53, another float only to the digits it holds.

    Raises:
        DataError: a value has no exact counterpart.
    """
    array = flat(array)
    if array.type == to and not pa.types.is_floating(to):
        return array
    got = array.type
    values = canonical(array, column)
    if values.type == to:
        return values
    if pa.types.is_null(values.type) or values.null_count == len(values):
        return pa.nulls(len(values), to)
    if pa.types.is_null(to):  # nothing was seen in training, so every value is unknown
        return values
    limit = EXACT if got == fitted else _DIGITS.get(str(got), EXACT)
    cast = _route(values.type, to, limit)
    if cast is not None:
        out = _attempt(cast, values)
        if out is not None:
            return out
    bad = values if cast is None else first_failure(values, cast)
    raise DataError(
        f"column {column!r} was fitted on {fitted or to} and must keep values of that type, but "
        f"got {got} with {_example(bad)}, which has no exact {to} value; cast the column first"
    )


def first_failure(values: Any, cast: Callable[[Any], Any]) -> Any:
    """Return the length-1 slice with the first value that `cast` refuses, found by bisection."""
    while len(values) > 1:
        half = len(values) // 2
        left = values.slice(0, half)
        values = left if _attempt(cast, left) is None else values.slice(half)
    return values


def numbers(array: Any, column: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a numeric column (n,) as float64, null and NaN as NaN; infinities are kept.

    Raises:
        DataError: text that is no number, or a type that is none.
    """
    array = flat(array)
    kind, t = array.type, pa.types
    if t.is_null(kind):
        return np.full(len(array), np.nan)
    if is_text(kind):
        out = _attempt(_to_double, array)
        if out is None:
            bad = _example(first_failure(array, _to_double))
            raise DataError(
                f"column {column!r} is numeric, but holds {bad}; clean it or call it categorical "
                f"with feature_types={{{column!r}: 'categorical'}}"
            )
    elif t.is_boolean(kind):
        out = array.cast(pa.int8()).cast(pa.float64())
    elif t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind):
        out = array.cast(pa.float64(), safe=False)
    elif t.is_temporal(kind) and not t.is_interval(kind):
        plain = canonical(array, column)
        if not t.is_integer(plain.type):
            plain = plain.cast(pa.timestamp("us", getattr(plain.type, "tz", None)), safe=False)
        out = plain.cast(pa.int64()).cast(pa.float64(), safe=False)
    else:
        raise DataError(
            f"column {column!r} is numeric, but has type {kind}; "
            f"call it what it is with feature_types={{{column!r}: ...}}"
        )
    return np.asarray(pc.fill_null(out, float("nan")).to_numpy(zero_copy_only=False))


def _to_double(values: Any) -> Any:
    return pc.utf8_trim_whitespace(values).cast(pa.float64())


def _without_nan(values: Any) -> Any:
    if pc.any(pc.is_nan(values)).as_py():
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    return values


def _example(values: Any) -> str:
    kept = values.drop_null()
    return repr(kept[0].as_py()) if len(kept) else "null"


def _attempt(cast: Callable[[Any], Any], values: Any) -> Any:
    """Return `cast(values)`, or None where it is refused."""
    try:
        return cast(values)
    except _FAILURES:
        return None


def _family(kind: Any) -> str:
    t = pa.types
    if t.is_integer(kind):
        return "int"
    if t.is_floating(kind):
        return "float"
    if is_text(kind):
        return "text"
    if t.is_boolean(kind):
        return "bool"
    return "time" if t.is_date(kind) or t.is_timestamp(kind) else "binary"


def _route(have: Any, to: Any, limit: int) -> Callable[[Any], Any] | None:
    """Return the cast from one canonical type to another, or None where none is unambiguous."""
    pair = (_family(have), _family(to))

    def plain(values: Any) -> Any:
        return values.cast(to)

    def returns(values: Any) -> Any:  # exact when the way back gives the same values
        out = values.cast(to)
        if not out.cast(have).equals(values):
            raise pa.ArrowInvalid("the cast loses something")
        return out

    if pair in {("int", "int"), ("int", "text"), ("int", "float"), ("bool", "int")}:
        return plain
    if pair in {("bool", "text"), ("time", "text"), ("text", "bool"), ("text", "float")}:
        return plain
    if pair in {("text", "time"), ("binary", "text"), ("text", "binary")}:
        return plain
    if pair in {("int", "bool"), ("time", "time")}:
        return returns
    if pair == ("float", "int"):
        return lambda values: _whole(values, limit).cast(to)
    if pair == ("float", "text"):
        return lambda values: _float_text(values, limit).cast(to)
    if pair == ("text", "int"):
        return lambda values: _text_int(values, to)
    return None


def _whole(values: Any, limit: int) -> Any:
    """Return floats as int64; a fraction or a value past the digits of the type is refused."""
    if pc.max(pc.abs(values)).as_py() >= limit:  # 2**53 may have been 2**53 + 1
        raise pa.ArrowInvalid("the float has lost digits")
    return values.cast(pa.int64())


def _float_text(values: Any, limit: int) -> Any:
    """Return 42.0 as '42' and 1.5 as '1.5'."""
    whole = pc.and_(pc.equal(values, pc.floor(values)), pc.is_finite(values))
    ints = _whole(pc.if_else(whole, values, 0.0), limit)
    return pc.if_else(whole, ints.cast(pa.large_string()), values.cast(pa.large_string()))


def _text_int(values: Any, to: Any) -> Any:
    """Return '42', and '42.0' as floats are written, as integers."""
    direct = _attempt(lambda part: part.cast(to), values)
    return _whole(values.cast(pa.float64()), EXACT).cast(to) if direct is None else direct
