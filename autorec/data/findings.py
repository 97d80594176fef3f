"""What the checks look at: a bounded sample of a table, and full scans of its few small columns.

Reading a table of any size in full takes too long for a check that runs before every fit, so
features are judged on the first rows; label, weight and time, where one bad value in a billion
matters, are scanned whole.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autorec.data import timeline
from autorec.data.casting import flat, is_text, numbers
from autorec.data.hashing import hash_rows, hash_values
from autorec.data.split import SplitPlan
from autorec.data.streaming import Rows, stream
from autorec.schema import Field, Kind, Schema

SAMPLE_ROWS = 200_000
SEVERITIES = ("error", "warning", "info")
_DAY = 86_400.0


@dataclass(frozen=True)
class Finding:
    """Something that a user should know about their table.

    Attributes:
        severity: "error" (do not train on this), "warning" or "info".
        column: the column it is about, None for the table.
        rule: name of the check.
        message: the rule, what was found, and what to do.
        evidence: the numbers behind it, JSON-able.
    """

    severity: str
    column: str | None
    rule: str
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self)


class Table(Rows, Protocol):
    """The part of a source that is used here."""

    @property
    def schema(self) -> Any:
        """The Arrow schema."""
        ...

    def head(self, n: int) -> Any:
        """Return the first n rows as a `pa.Table`."""
        ...


@dataclass
class Scan:
    """What a full pass over label, weight and time of a table found."""

    rows: int = 0
    label_nulls: int = 0
    label_infinite: int = 0
    label_values: set[Any] = field(default_factory=set)  # up to 3
    weight_bad: int = 0
    weight_first: Any = None
    weight_positive: int = 0
    time_nulls: int = 0
    time_low: float | None = None
    time_high: float | None = None
    future: int = 0


class Facts:
    """All that the rules may ask about a table; what nobody asks for is not computed."""

    def __init__(
        self,
        source: Table,
        schema: Schema,
        plan: SplitPlan | None,
        tuning: Table | None,
        now: float,
    ) -> None:
        self.source, self.schema, self.plan, self.tuning = source, schema, plan, tuning
        self.now = now

    @cached_property
    def sample(self) -> Any:
        """The first rows, columns of the schema only, as one `pa.Table`."""
        names = [f.name for f in self.schema.fields if f.name in self.source.schema.names]
        return self.source.head(SAMPLE_ROWS).select(names).combine_chunks()

    @cached_property
    def tuning_sample(self) -> Any:
        """The first rows of the tuning data, or None."""
        if self.tuning is None:
            return None
        names = [f.name for f in self.schema.fields if f.name in self.tuning.schema.names]
        return self.tuning.head(SAMPLE_ROWS).select(names).combine_chunks()

    @cached_property
    def scan(self) -> Scan:
        """Full pass over label, weight and time."""
        return self._scan(self.source)

    @cached_property
    def tuning_scan(self) -> Scan | None:
        """The same of the tuning data."""
        return None if self.tuning is None else self._scan(self.tuning)

    @property
    def features(self) -> list[Field]:
        """Features that the table has."""
        return [f for f in self.schema.features if f.name in self.sample.schema.names]

    @property
    def ids(self) -> list[Field]:
        """Features with one id or category per row."""
        return [f for f in self.features if f.kind in (Kind.ID, Kind.CATEGORICAL)]

    def column(self, name: str, rows: int = SAMPLE_ROWS) -> Any:
        """Return the first rows of a sampled column as one plain `pa.Array`."""
        return flat(self.sample[name].slice(0, rows).combine_chunks())

    def missing(self, name: str) -> npt.NDArray[np.bool_]:
        """Return a mask (n,) of the null and NaN values of a sampled column."""
        array = self.column(name)
        return np.asarray(array.is_null(nan_is_null=True).to_numpy(zero_copy_only=False))

    def row_keys(self, names: list[str]) -> npt.NDArray[np.uint64]:
        """Return a hash (n,) of some columns of each sampled row."""
        return hash_rows({name: self.sample[name] for name in names})

    def distinct(self, name: str) -> int:
        """Count the different values of a sampled column, nulls left out."""
        return len(np.unique(hash_values(self.column(name), name)[~self.missing(name)]))

    @cached_property
    def clock(self) -> float | None:
        """Units of the time column in a second, or None where numbers are no time since 1970."""
        name = self.schema.timestamp
        if name is None:
            return None
        dtype = self.schema[name].dtype
        values, null = timeline.moments(self.column(name), name, dtype)
        if timeline.unit(dtype or str(self.column(name).type)) == timeline.MICROSECONDS:
            return 1e6
        if null.all():
            return None
        middle = float(np.median(values[~null]))
        # 1980 to 2130 in seconds; the same span in finer units does not overlap with it.
        return next((u for u in (1.0, 1e3, 1e6, 1e9) if 3.2e8 <= middle / u <= 5.05e9), None)

    def _scan(self, source: Table) -> Scan:
        schema, scan = self.schema, Scan()
        held = set(source.schema.names)
        roles = (schema.label, schema.weight, schema.timestamp)
        names = [name for name in roles if name is not None and name in held]
        for batch in stream(source, names) if names else ():
            scan.rows += batch.num_rows
            if schema.label in names:
                _scan_label(scan, batch.column(schema.label), str(schema.label))
            if schema.weight in names:
                _scan_weight(scan, batch.column(schema.weight), str(schema.weight))
            if schema.timestamp in names:
                self._scan_time(scan, batch.column(schema.timestamp), str(schema.timestamp))
        return scan

    def _scan_time(self, scan: Scan, array: Any, name: str) -> None:
        values, null = timeline.moments(array, name, self.schema[name].dtype)
        scan.time_nulls += int(null.sum())
        values = values[~null]
        if not len(values):
            return
        low, high = values.min().item(), values.max().item()
        scan.time_low = low if scan.time_low is None else min(low, scan.time_low)
        scan.time_high = high if scan.time_high is None else max(high, scan.time_high)
        if self.clock is not None:
            scan.future += int((values > (self.now + _DAY) * self.clock).sum())


def _scan_label(scan: Scan, array: Any, name: str) -> None:
    array = flat(array)
    null = array.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    scan.label_nulls += int(null.sum())
    if pa.types.is_floating(array.type):
        scan.label_infinite += int(np.isinf(numbers(array, name)).sum())
    if len(scan.label_values) < 3:
        known = array.filter(pa.array(~null)).unique()
        scan.label_values |= set(known.slice(0, 3).to_pylist())


def _scan_weight(scan: Scan, array: Any, name: str) -> None:
    values = numbers(array, name)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        if not scan.weight_bad:
            scan.weight_first = flat(array)[int(np.flatnonzero(bad)[0])].as_py()
        scan.weight_bad += int(bad.sum())
    scan.weight_positive += int((values > 0).sum())


def is_number(kind: Any) -> bool:
    """Tell whether an Arrow type holds numbers or booleans."""
    t = pa.types
    return bool(
        not is_text(kind)
        and (t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind) or t.is_boolean(kind))
    )
