"""Which rows validate: a pure function of their values, never of their place in a file.

A global cut-off in time is the default wherever there is a timestamp, since random and per-user
splits show a model the future. Permuting the rows or cutting the table into other batches moves
no row to the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autorec.data import timeline
from autorec.data.encoder import require
from autorec.data.hashing import UInts, hash_rows, hash_values, mix
from autorec.data.streaming import Rows, stream
from autorec.errors import ConfigError, DataError, SchemaError
from autorec.schema import Schema
from autorec.seeding import derive

METHODS = ("auto", "time", "user", "random", "given")
TRAIN, VALID = 0, 1

_EXACT_ROWS = 200_000  # a table of up to this many rows is cut at exact shares of its hashes


@dataclass(frozen=True)
class SplitPlan:
    """A decided split.

    Attributes:
        method: "time", "user", "random", or "given" (validation rows come from elsewhere).
        holdout: share of rows that was asked for.
        seed: decides the side of a row under "user" and "random".
        cutoff: "time": rows at or after it validate, in the unit of the column (microseconds
            since 1970 for timestamps, dates and text); otherwise rows with a hash below it.
        column: the column that is read, None for "random" and "given".
        reason: one sentence for people.
        columns: what "random" hashes.
        dtype: Arrow type of the time column, as text.
    """

    method: str
    holdout: float
    seed: int
    cutoff: float | int | str | None
    column: str | None
    reason: str
    columns: tuple[str, ...] = ()
    dtype: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns that `assign` reads."""
        return (self.column,) if self.column is not None else self.columns

    def assign(self, batch: Any) -> npt.NDArray[np.int8]:
        """Return the side (n,) of each row of a record batch: 0 trains, 1 validates.

        Raises:
            DataError: a column is missing or a time is null.
        """
        if self.method == "given":
            return np.zeros(batch.num_rows, np.int8)
        require(batch, list(self.needs))
        if self.method == "time":
            side = _times(batch, str(self.column), self.dtype) >= self.cutoff
        else:
            side = _hashes(batch, self.needs, self.seed) < np.uint64(int(self.cutoff or 0))
        return np.asarray(side).astype(np.int8)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; `from_json` reads it back."""
        return {**asdict(self), "columns": list(self.columns)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SplitPlan:
        """Read what `to_json` wrote."""
        return cls(**{**data, "columns": tuple(data["columns"])})


def plan_split(
    source: Rows,
    schema: Schema,
    *,
    method: str = "auto",
    holdout: float = 0.1,
    seed: int = 0,
) -> SplitPlan:
    """Decide which rows validate.

    - "auto": "time" where the schema has a timestamp, else "random".
    - "time": one global cut-off; the last `holdout` of the rows validates. Rows of one time stay
      together, on the side that brings the share closest to `holdout`.
    - "user": whole users, by a hash of the raw value and the seed.
    - "random": by a hash of the values of all columns and the seed; equal rows stay together.
    - "given": every row trains.

    Args:
        source: the table; "time" reads its column once, the others as far as they need.
        schema: names timestamp and user; "random" hashes all its columns.
        method: one of the above.
        holdout: share of rows that validate, between 0 and 1.
        seed: of the hashes.

    Raises:
        ConfigError: an unknown method, or a holdout outside (0, 1).
        SchemaError: the method needs a role that no column has.
        DataError: fewer than 2 rows, one time, user or content only, or null times.
    """
    if method not in METHODS:
        raise ConfigError(f"the split must be one of {list(METHODS)}, but got {method!r}")
    if isinstance(holdout, bool) or not 0.0 < holdout < 1.0:
        raise ConfigError(
            f"the holdout is a share of rows between 0 and 1, but got {holdout!r}; try 0.1"
        )
    if method == "given":
        return SplitPlan(method, holdout, seed, None, None, "validation rows are given apart")
    chosen = method
    if method == "auto":
        chosen = "time" if schema.timestamp else "random"
    if chosen == "time":
        return _plan_time(source, schema, holdout, seed)
    return _plan_hash(source, schema, chosen, holdout, seed)


def training_batches(
    source: Rows, plan: SplitPlan | None, columns: list[str] | None = None
) -> Callable[[], Iterator[Any]]:
    """Return a function that streams the training rows of `source` anew each time it is called.

    Args:
        source: the table.
        plan: the split, None for all rows.
        columns: columns of the batches, None for all.
    """

    def batches() -> Iterator[Any]:
        wanted = columns
        if columns is not None and plan is not None:
            wanted = [*columns, *(name for name in plan.needs if name not in columns)]
        for batch in stream(source, wanted):
            if plan is None or plan.method == "given":
                yield batch
                continue
            kept = batch.filter(pa.array(plan.assign(batch) == TRAIN))
            yield kept if columns is None else kept.select(columns)

    return batches


def _plan_time(source: Rows, schema: Schema, holdout: float, seed: int) -> SplitPlan:
    column = schema.timestamp
    if column is None:
        raise SchemaError("a split by time needs a timestamp column; pass timestamp=...")
    dtype, times = _all_times(source, column, schema[column].dtype)
    n = len(times)
    if n < 2:
        raise _too_few(n)
    wanted = min(max(round(holdout * n), 1), n - 1)
    times.partition(n - wanted)
    cut = times[n - wanted]
    # Rows at the cut go to the side that is nearer to what was asked, where both sides keep rows.
    later = times[times > cut]
    tied = int((times >= cut).sum())
    if later.size and (tied == n or abs(len(later) - wanted) < abs(tied - wanted)):
        cut, tied = later.min(), len(later)
    if tied == n:
        raise DataError(
            f"a split by time needs two different times, but all {n} rows of {column!r} have "
            f"{timeline.told(cut.item(), dtype)}; use split='random' or another column"
        )
    reason = (
        f"rows of {column!r} from {timeline.told(cut.item(), dtype)} on validate: "
        f"{tied} of {n}, the latest"
    )
    return SplitPlan("time", holdout, seed, cut.item(), column, reason, dtype=dtype)


def _all_times(source: Rows, column: str, dtype: str) -> tuple[str, npt.NDArray[Any]]:
    """Return the type of a time column and all its times (n,), 8 bytes a row, doubled to grow."""
    times: npt.NDArray[Any] = np.empty(0, np.int64)
    n = 0
    for batch in stream(source, [column]):
        require(batch, [column])
        dtype = dtype or str(batch.column(column).type)
        part = _times(batch, column, dtype)
        if n + len(part) > len(times):
            room = max(getattr(source, "num_rows", None) or 0, 2 * n, n + len(part))
            grown = np.empty(room, part.dtype)
            grown[:n] = times[:n]
            times = grown
        times[n : n + len(part)] = part
        n += len(part)
    return dtype, times[:n]


def _plan_hash(source: Rows, schema: Schema, method: str, holdout: float, seed: int) -> SplitPlan:
    column = schema.user if method == "user" else None
    if method == "user" and column is None:
        raise SchemaError("a split by user needs a user column; pass user_id=...")
    columns = tuple(sorted(field.name for field in schema.fields)) if column is None else ()
    needs = [column] if column is not None else list(columns)
    bound = np.uint64(round(holdout * 2**64))
    parts: list[UInts] = []
    n, sides = 0, set()
    for batch in stream(source, needs):
        require(batch, needs)
        hashed = _hashes(batch, tuple(needs), seed)
        n += len(hashed)
        parts.append(hashed)
        sides |= set(np.unique(hashed < bound).tolist())
        if n > _EXACT_ROWS:
            if len(sides) == 2:  # a large table: a fixed bound, with rows on both sides, is enough
                break
            parts = [np.unique(np.concatenate(parts))]
    if n < 2:
        raise _too_few(n)
    large = n > _EXACT_ROWS and len(sides) == 2
    cutoff = int(bound) if large else _nearest_cut(np.concatenate(parts), holdout, method)
    what = f"whole users of {column!r}" if column else "rows by their content"
    reason = f"{what} validate by a hash with seed {seed}, about {holdout:.0%}"
    return SplitPlan(method, holdout, seed, cutoff, column, reason, columns=columns)


def _nearest_cut(hashed: UInts, holdout: float, method: str) -> int:
    """Return the bound of hashes below which lies the share of rows nearest to `holdout`."""
    values, counts = np.unique(hashed, return_counts=True)
    if len(values) < 2:
        what = "user" if method == "user" else "row content"
        raise DataError(
            f"a {method} split needs two different values, but all {len(hashed)} rows have one "
            f"{what}; use another split or more data"
        )
    below = np.cumsum(counts)[:-1]
    nearest = int(np.argmin(np.abs(below - holdout * len(hashed))))
    return int(values[nearest + 1])


def _hashes(batch: Any, needs: tuple[str, ...], seed: int) -> UInts:
    """Return the seeded hash (n,) of each row over the columns `needs`."""
    salt = np.uint64(derive(seed, "split"))
    if len(needs) == 1:
        return mix(hash_values(batch.column(needs[0]), needs[0]) ^ salt)
    return mix(hash_rows({name: batch.column(name) for name in needs}) ^ salt)


def _times(batch: Any, column: str, dtype: str) -> npt.NDArray[Any]:
    values, missing = timeline.moments(batch.column(column), column, dtype)
    if missing.any():
        raise DataError(
            f"a split by time needs a time in every row, but {int(missing.sum())} of "
            f"{len(missing)} rows have none in {column!r}; drop them or use split='random'"
        )
    return values


def _too_few(rows: int) -> DataError:
    return DataError(
        f"a table needs at least 2 rows to be split, but this one has {rows}; add rows or give "
        "validation rows apart"
    )
