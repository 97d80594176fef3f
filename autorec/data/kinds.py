"""The rules that read the kind of a column off its values and its name, each with its reason.

The hard case are integers. Codes taken for amounts lose nearly everything, amounts taken for codes
lose little where values repeat; so an integer is a number only where something says so: its name,
negative values, years, or the shape of a count (dense small values, a long thin tail).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from autorec.data import timeline
from autorec.data.casting import is_list, is_text
from autorec.data.evidence import Look, number_text
from autorec.data.sequences import SEPARATOR
from autorec.data.text import sentences
from autorec.errors import DataError
from autorec.schema import Kind

FEW = 50
_CODES = (
    "account app area asin band bin brand browser bucket carrier cat category channel city class",
    "cluster code codes color colour country county currency device district domain ean flag",
    "gender genre group guid hash hashed hour id identifier ids idx index isbn isp job key lang",
    "language level locale model month network occupation os platform position profession",
    "province quarter region segment sex site sku state status tier type uid uuid version week",
    "weekday zip zone",
)
_AMOUNTS = (
    "age ages amount amt average avg balance bid bids budget click clicks cnt cost count counts",
    "days depth discount distance downloads duration elapsed fee followers height hours",
    "impressions income interval length likes mean median minutes ms percent percentage plays",
    "points popularity price prices qty quantity rate rating ratings ratio revenue reviews salary",
    "sales score scores secs seconds size spend stock sum tax temperature total turnover views",
    "visits volume votes weight width year years yr",
)
CODES = frozenset(word for line in _CODES for word in line.split())
AMOUNTS = frozenset(word for line in _AMOUNTS for word in line.split())
TIMES = frozenset(("at", "date", "datetime", "epoch", "seen", "time", "timestamp", "ts", "unix"))
_THINGS = (
    "account ad article book business category city customer device doc item job merchant movie "
    "news post product seller session shop song store track user video visitor"
)
_JOINED = re.compile(rf"(?:{'|'.join(_THINGS.split())})ids?|.*(?:code|hash)")
_JOINED_AMOUNT = re.compile(r".*(?:count|price|amount|score|duration)")
_NUMBERED = re.compile(r"(?:c|cat|cate|category|categorical|sparse)[_-]?\d+")
_MEASURED = re.compile(r"(?:num|numeric|int|integer|dense|cont|continuous|float)[_-]?\d+")
_YEARS = (1900, 2035)
_UNIT = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SPAN = (315_532_800, 4_102_444_800)  # 1980 to 2100 in seconds since 1970
_UNIQUE_ROWS = 1000
_COUNTED_ROWS = 100


@dataclass(frozen=True)
class Verdict:
    """The kind of a column, why, and whether it is of use at all."""

    kind: Kind
    reason: str
    useless: bool = False


def judge(look: Look) -> Verdict:
    """Return the kind of a column that nobody has said anything about."""
    seen, kind, t = look.told(), look.dtype, pa.types
    if look.settled and (look.empty or look.constant):
        what = "all values are null" if look.empty else f"all rows have {look.unique[0]}"
        timed = t.is_timestamp(kind) or t.is_date(kind)
        return Verdict(Kind.TIMESTAMP if timed else Kind.CATEGORICAL, f"{seen}: {what}", True)
    if is_list(kind):
        return _list(look, seen)
    if t.is_timestamp(kind) or t.is_date(kind):
        return Verdict(Kind.TIMESTAMP, f"{seen}: {_NO_TIME}")
    if t.is_boolean(kind):
        return Verdict(Kind.CATEGORICAL, f"{seen}: yes or no")
    if t.is_interval(kind):
        return Verdict(Kind.CATEGORICAL, f"{seen}: intervals are not read", useless=True)
    if t.is_time(kind) or t.is_duration(kind):
        return Verdict(Kind.NUMERIC, f"{seen}: a length of time, in nanoseconds")
    if is_text(kind):
        return _text(look, seen)
    if t.is_floating(kind) or t.is_decimal(kind):
        return _float(look, seen)
    return _integer(look, seen) if t.is_integer(kind) else _codes(look, seen, "bytes")


_NO_TIME = "a time, which orders rows but is not shown to a model"


def time_unit(look: Look) -> str | None:
    """Return what makes the values look like times, or None.

    Times are Arrow times and dates, ISO text, numbers that count seconds (or ms, us, ns) since
    1970 to a moment between 1980 and 2100, and integers such as 20240131.
    """
    t = pa.types
    if t.is_timestamp(look.dtype) or t.is_date(look.dtype):
        return str(look.dtype)
    if is_text(look.dtype):
        return "ISO text" if iso_text(look) else None
    if not (t.is_integer(look.dtype) or t.is_floating(look.dtype)) or look.empty:
        return None
    ends = pc.min_max(look.present)
    low, high = float(ends["min"].as_py()), float(ends["max"].as_py())
    for name, unit in _UNIT.items():
        if _SPAN[0] * unit <= low and high <= _SPAN[1] * unit:
            start, end = (datetime.fromtimestamp(v / unit, timezone.utc) for v in (low, high))
            return f"{name} since 1970, {start:%Y-%m-%d} to {end:%Y-%m-%d}"
    values = look.counted[0]
    days = low >= 19_000_101 and high <= 21_001_231 and len(values) > 0
    if days and ((values // 100 % 100 - 1) < 12).all() and ((values % 100 - 1) < 31).all():
        return f"days from {int(low)} to {int(high)}"
    return None


def iso_text(look: Look) -> bool:
    """Tell whether text holds ISO dates or times only, by up to 1000 distinct values."""
    values = look.unique.slice(0, 1000)
    dates = pc.match_substring_regex(values, r"^\s*\d{4}-\d{2}-\d{2}") if len(values) else None
    if dates is None or not pc.all(dates).as_py():
        return False
    try:
        timeline.moments(values, look.name)
    except DataError:
        return False
    return True


def _override(look: Look, kind: Kind) -> str:
    return f"say feature_types={{{look.name!r}: {kind.value!r}}} if not"


def _list(look: Look, seen: str) -> Verdict:
    inner = look.dtype.value_type
    if is_list(inner):
        return Verdict(Kind.LIST, f"{seen}: lists of lists are not read", useless=True)
    if pa.types.is_floating(inner):
        values = look.present.flatten().drop_null()
        if pc.any(pc.not_equal(values, pc.floor(values))).as_py():
            why = f"{seen}: vectors of numbers are not read; {_override(look, Kind.LIST)}"
            return Verdict(Kind.LIST, why, useless=True)
    return Verdict(Kind.LIST, f"{seen}: several values a row")


def _text(look: Look, seen: str) -> Verdict:
    if iso_text(look):
        return Verdict(Kind.TIMESTAMP, f"{seen}: ISO text, {_NO_TIME}")
    parts = _parts(look.unique, SEPARATOR)
    if parts is not None:
        why = f"{seen}: values joined by {SEPARATOR!r}, {parts:,} distinct parts"
        return Verdict(Kind.LIST, why)
    if sentences(look.unique):
        why = f"{seen}: mostly of three words or more; {_override(look, Kind.CATEGORICAL)}"
        return Verdict(Kind.TEXT, why)
    verdict = _codes(look, seen, "text")
    for separator in (",", ";"):
        if (parts := _parts(look.unique, separator)) is not None:
            hint = f"parts joined by {separator!r} ({parts:,} distinct) are not split; join by '|'"
            return Verdict(verdict.kind, f"{verdict.reason}; {hint}", verdict.useless)
    if number_text(look.unique):
        hint = f"all are numbers: {_override(look, Kind.NUMERIC).replace('if not', 'for amounts')}"
        return Verdict(verdict.kind, f"{verdict.reason}; {hint}", verdict.useless)
    return verdict


def _parts(values: Any, separator: str) -> int | None:
    """Return how many parts texts have if splitting halves the distinct values, else None."""
    joined = pc.match_substring(values, separator) if len(values) else None
    if joined is None or (pc.sum(joined).as_py() or 0) < max(2, len(values) / 10):
        return None
    split = pc.utf8_trim_whitespace(pc.split_pattern(values, separator).flatten()).unique()
    count = len(split) - (pc.sum(pc.equal(split, "")).as_py() or 0)
    return count if 0 < 2 * count <= len(values) else None


def _float(look: Look, seen: str) -> Verdict:
    if look.ints is None:
        return Verdict(Kind.NUMERIC, f"{seen}: fractional numbers")
    # Integers with a gap become floats in pandas; floats without one were meant as floats.
    if len(look.present) < look.rows or meaning(look.name) == "code":
        return _integer(look, f"{seen}, all whole")
    return Verdict(Kind.NUMERIC, f"{seen}: numbers")


def _integer(look: Look, seen: str) -> Verdict:
    if look.ints is None:
        return _codes(look, seen, "integers past 2^53")
    if _counts_rows(look):
        first = int(look.ints[0])
        return Verdict(Kind.NUMERIC, f"{seen}: numbers the rows from {first:,}", useless=True)
    name = meaning(look.name)
    if look.distinct <= 2:
        return Verdict(Kind.CATEGORICAL, f"{seen}: two values")
    if name == "code":
        return _codes(look, seen, "named like a code")
    why = _offset(look)
    if why:
        return _codes(look, seen, why)
    why = "named like an amount" if name == "amount" else _amount(look)
    if why:
        return Verdict(Kind.NUMERIC, f"{seen}: {why}; {_override(look, Kind.CATEGORICAL)}")
    unit = time_unit(look)
    if unit and TIMES.intersection(words(look.name)):
        return Verdict(Kind.TIMESTAMP, f"{seen}: {unit}, {_NO_TIME}")
    if look.distinct <= FEW:
        return _codes(look, seen, "few integers")
    return _codes(look, seen, f"nothing says amounts, so codes; {_override(look, Kind.NUMERIC)}")


def _codes(look: Look, seen: str, why: str) -> Verdict:
    n = len(look.present)
    if look.whole and look.distinct == n >= _UNIQUE_ROWS:
        hint = f"no two rows share a value, so there is nothing to learn; {why}"
        return Verdict(Kind.ID, f"{seen}: {hint}", useless=True)
    return Verdict(Kind.ID if look.huge else Kind.CATEGORICAL, f"{seen}: {why}")


def words(name: str) -> list[str]:
    """Return the lower-case words of a name: 'userAge_7d' is user, age, 7, d."""
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    return [word.lower() for word in found]


def meaning(name: str) -> str | None:
    """Return "code" or "amount" where a name says it: the last word that tells decides."""
    lower = name.lower()
    if _NUMBERED.fullmatch(lower):
        return "code"
    if _MEASURED.fullmatch(lower):
        return "amount"
    found = words(name)
    if found[:1] in (["num"], ["n"], ["nb"]) and len(found) > 1:
        return "amount"
    for word in reversed(found):
        if word in CODES or _JOINED.fullmatch(word):
            return "code"
        if word in AMOUNTS or _JOINED_AMOUNT.fullmatch(word):
            return "amount"
    return None


def _counts_rows(look: Look) -> bool:
    values = look.ints
    named = {"index", "row", "rownum", "unnamed"}.intersection(words(look.name)) or not look.name
    least = 2 if named else _COUNTED_ROWS
    if values is None or len(values) < max(least, look.rows):
        return False
    return bool((np.diff(values) == 1).all())


def _offset(look: Look) -> str:
    """Say whether integers are codes numbered from an offset, as 5,069 to 5,148."""
    values = look.counted[0]
    low, high = int(values[0]), int(values[-1])
    dense = len(values) / (high - low + 1) > 0.5
    years = _YEARS[0] <= low and high <= _YEARS[1]
    if dense and low >= 1000 and high - low < low / 5 and not years:
        return f"numbered from {low:,} to {high:,} nearly without gaps"
    return ""


def _amount(look: Look) -> str:
    """Say what makes integers amounts, if anything does."""
    values, counts = look.counted
    d = len(values)
    if d >= 20 and _YEARS[0] <= values[0] and values[-1] <= _YEARS[1]:
        return f"years from {values[0]} to {values[-1]}"
    if d > FEW and (values < 0).sum() > 1 and np.abs(values).max() < 10**9:
        return f"negative values, from {values[0]:,}"
    if values[0] == -1:  # a lone -1 stands for a missing code as often as for an amount
        values, counts = values[1:], counts[1:]
    if len(values) < 15 or abs(int(values[0])) > 10:
        return ""
    span = int(values[-1]) - int(values[0])
    middle = int(values[np.searchsorted(np.cumsum(counts), counts.sum() / 2)]) - int(values[0])
    dense = float((np.diff(values[:20]) == 1).mean())
    filled = len(values) / (span + 1)
    if middle <= 0.06 * span and (filled < 0.05 or (dense >= 0.5 and filled < 0.7)):
        return f"the shape of a count, half of them at most {middle + int(values[0]):,}"
    return ""
