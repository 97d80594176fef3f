"""What an encoder learns of each column while the training rows stream by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from autorec.data import text
from autorec.data.numeric import Numeric, NumericFit
from autorec.data.sequences import parts
from autorec.data.vocabulary import ValueCounter, Vocabulary
from autorec.errors import ConfigError, DataError, SchemaError
from autorec.schema import Field, Kind, Schema

BIN = "#bin"


@dataclass(frozen=True)
class Settings:
    """How an encoder is fitted: see `Encoder.fit`."""

    min_count: int = 2
    bins: int = 32
    max_list_length: int = 50
    max_vocabulary: int | None = None
    text_buckets: int = text.BUCKETS

    def __post_init__(self) -> None:
        least = {"min_count": 1, "bins": 2, "max_list_length": 1, "max_vocabulary": 1}
        least |= {"text_buckets": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if name == "max_vocabulary" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < bound:
                raise ConfigError(
                    f"{name} must be an integer of at least {bound}, but got {value!r}; raise it"
                )


class Fitting:
    """What is known of each column while the training rows stream by."""

    def __init__(self, fields: tuple[Field, ...], settings: Settings) -> None:
        self._fields, self._settings, self._rows = fields, settings, 0
        plain = [f.name for f in fields if f.kind not in (Kind.NUMERIC, Kind.TEXT)]
        self._counters = {name: ValueCounter(name) for name in plain}
        self._longest = {f.name: 1 for f in fields if f.kind in (Kind.LIST, Kind.TEXT)}
        numeric = [field.name for field in fields if field.kind is Kind.NUMERIC]
        self._numeric = {name: NumericFit(name, settings.bins) for name in numeric}
        self._texts = text.lengths_of(fields)
        self._numeric |= {name: NumericFit(name, settings.bins) for name in self._texts}

    def add(self, batch: Any) -> None:
        require(batch, [field.name for field in self._fields])
        self._rows += batch.num_rows
        for name, counter in self._counters.items():
            array = batch.column(name)
            if name in self._longest:
                array, lengths = parts(array)
                self._longest[name] = max(self._longest[name], int(lengths.max(initial=0)))
            counter.add(array)
        for name, fit in self._numeric.items():
            fit.add(self._numbers(batch, name))

    def _numbers(self, batch: Any, name: str) -> Any:
        """Return a numeric column, or the length of a text, whose longest row is noted."""
        if name not in self._texts:
            return batch.column(name)
        source = self._texts[name]
        counts = text.word_counts(batch.column(source), source)
        self._longest[source] = max(self._longest[source], int(counts.max(initial=0)))
        return pa.array(text.scaled(counts))

    def settle(self) -> bool:
        """End the first pass; tell whether any column needs a second."""
        if not self._rows:
            raise DataError("an encoder needs training rows, but got 0; check the table and split")
        finite({name: fit.infinite for name, fit in self._numeric.items() if fit.infinite})
        self._again = [name for name, fit in self._numeric.items() if fit.settle()]
        return bool(self._again)

    def count(self, batch: Any) -> None:
        for name in self._again:
            self._numeric[name].count(self._numbers(batch, name))

    def result(self) -> tuple[dict[str, Vocabulary], dict[str, Numeric], dict[str, int]]:
        low, most = self._settings.min_count, self._settings.max_vocabulary
        return (
            {
                name: Vocabulary.from_counts(counter, min_count=low, most=most)
                for name, counter in self._counters.items()
            },
            {name: fit.result() for name, fit in self._numeric.items()},
            {name: min(n, self._settings.max_list_length) for name, n in self._longest.items()},
        )


def require(batch: Any, names: list[str]) -> None:
    """Raise DataError unless a batch or table has each of `names` exactly once."""
    held = batch.schema.names
    missing = sorted({name for name in names if name not in held})
    if missing:
        raise DataError(
            f"all columns of the training table are needed, but {missing} are missing "
            f"(there are {held}); add them, with nulls where nothing is known"
        )
    twice = sorted({name for name in names if held.count(name) > 1})
    if twice:
        raise DataError(f"column names must differ, but {twice} occur twice; rename one")


def features_of(schema: Schema) -> tuple[Field, ...]:
    """Return the columns to encode, or raise SchemaError where the layout could not be named."""
    fields = schema.features
    if not fields:
        raise SchemaError(
            "a model needs at least one feature column, but the schema has none: "
            f"{[(f.name, f.role.value) for f in schema.fields]}; add a column or change a role"
        )
    names = {field.name for field in fields}
    for kind, what, end in ((Kind.NUMERIC, "bins", BIN), (Kind.TEXT, "length", text.LENGTH)):
        clash = [f.name for f in fields if f.kind is kind and f"{f.name}{end}" in names]
        if clash:
            verb = "are" if what == "bins" else "is"
            raise SchemaError(
                f"the {what} of {clash[0]!r} {verb} called '{clash[0]}{end}', but a column has "
                "that name; rename it"
            )
    return fields


def finite(infinite: Mapping[str, int]) -> None:
    if infinite:
        told = ", ".join(f"{name!r} has {count}" for name, count in infinite.items())
        raise DataError(
            f"numeric values must be finite or null, but of infinite ones {told}; "
            "replace them by null or a bound"
        )
