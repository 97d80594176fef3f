"""Timestamps of any column type as one number per row, in one unit per type.

Timestamps, dates and ISO text become int64 microseconds since 1970 (a time without a zone is read
as UTC). Integers stay what they are, whatever their unit. Floats are read as seconds: the stored
value is round(x * 1e6), which keeps the order of fractions of a second; a split uses the float
itself.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from autorec.data.casting import conform, flat, is_text
from autorec.errors import DataError
from autorec.schema import Schema

Ints = npt.NDArray[np.int64]
UNKNOWN = np.iinfo(np.int64).min  # a null timestamp in the store: sorts before every known one
MICROSECONDS, INTEGERS, FLOATS = "us", "int", "float"

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EXACT = 2.0**63


def unit(dtype: str) -> str:
    """Return how a column of this Arrow type (as text) counts time: 'us', 'int' or 'float'."""
    if dtype.startswith(("int", "uint")):
        return INTEGERS
    return FLOATS if dtype in ("halffloat", "float", "double") else MICROSECONDS


def moments(array: Any, column: str, dtype: str = "") -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the times (n,) of an Arrow array and a mask (n,) of the nulls.

    Args:
        array: the timestamps.
        column: name for error messages.
        dtype: Arrow type of the column in training, as text; its unit is kept for tables where
            the column arrives in another type ("" for the type of the array).

    Returns:
        int64, or float64 where the unit is 'float'; nulls hold 0.

    Raises:
        DataError: text that is no time, a type that is none, or a change of unit.
    """
    array = flat(array)
    wanted = unit(dtype) if dtype else unit(str(array.type))
    t = pa.types
    if t.is_null(array.type):
        out = pa.nulls(len(array), pa.int64())
    elif wanted == INTEGERS:
        out = conform(array, pa.int64(), column, dtype or None)
    elif wanted == FLOATS:
        out = conform(array, pa.float64(), column, dtype or None)
    elif is_text(array.type):
        out = _parse(array, column)
    elif t.is_timestamp(array.type) or t.is_date(array.type):
        zone = getattr(array.type, "tz", None)
        out = array.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    else:
        raise DataError(
            f"column {column!r} orders rows in time, but has type {array.type}"
            f"{f' where training had {dtype}' if dtype else ''}; give timestamps, dates, "
            "ISO text or numbers"
        )
    missing = out.is_null().to_numpy(zero_copy_only=False)
    return pc.fill_null(out, 0).to_numpy(zero_copy_only=False), missing


def stored(array: Any, column: str, dtype: str = "") -> Ints:
    """Return what the store keeps (n,): int64, nulls as the smallest integer (`UNKNOWN`).

    Raises:
        DataError: as `moments`, or a float too large to be seconds.
    """
    values, missing = moments(array, column, dtype)
    if values.dtype.kind == "f":
        scaled = values * 1e6
        if not (np.abs(scaled) < _EXACT).all():
            raise DataError(
                f"float times are read as seconds and must lie within 9.2e12, but column "
                f"{column!r} has {values[~(np.abs(scaled) < _EXACT)][0]!r}; use integers"
            )
        values = np.rint(scaled).astype(np.int64)
    return np.where(missing, UNKNOWN, values) if missing.any() else values


def of_rows(batch: Any, schema: Schema) -> Ints | None:
    """Return the stored times (n,) of the rows of a batch; None where it has no such column.

    Raises:
        DataError: as `stored`.
    """
    column = schema.timestamp
    if column is None or column not in batch.schema.names:
        return None
    return stored(batch.column(column), column, schema[column].dtype)


def told(value: float, dtype: str) -> str:
    """Return a time for people: ISO where the unit is microseconds, else the number."""
    if unit(dtype) != MICROSECONDS:
        return repr(value)
    try:
        return (_EPOCH + timedelta(microseconds=int(value))).isoformat()
    except OverflowError:
        return f"{value} us after 1970"


def _parse(array: Any, column: str) -> Any:
    """Return ISO text as int64 microseconds; Arrow reads the plain forms, pandas all the rest."""
    try:
        return array.cast(pa.timestamp("us")).cast(pa.int64())
    except pa.ArrowInvalid:
        pass
    text = array.to_pandas().astype(object)
    parsed = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    bad = parsed.isna().to_numpy() & array.is_valid().to_numpy(zero_copy_only=False)
    if bad.any():
        raise DataError(
            f"text in column {column!r} must be ISO times such as '2024-01-31T12:00:00', but got "
            f"{text[int(np.flatnonzero(bad)[0])]!r}; convert the column to timestamps"
        )
    plain = parsed.dt.tz_convert(None).to_numpy().astype("datetime64[us]")
    return pa.array(plain.astype(np.int64), mask=parsed.isna().to_numpy())
