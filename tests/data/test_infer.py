"""What columns are taken for, from their values and names, and what is said about it."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autorec.data import datasets, evidence
from autorec.data.infer import infer
from autorec.data.kinds import meaning, words
from autorec.data.roles import folded
from autorec.data.simulate import simulate
from autorec.data.sources import open_source
from autorec.errors import DataError, SchemaError
from autorec.schema import Field, Role, Schema

N = 3000
RNG = np.random.default_rng(0)


class Counting:
    """A source that notes which columns were read, and how many rows of each."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self.schema = table, table.schema
        self.read: dict[str, int] = {}

    def batches(self, columns: Any = None, batch_rows: int = 65_536) -> Any:
        for batch in self.table.select(columns).to_batches(max_chunksize=min(batch_rows, 1000)):
            for name in columns:
                self.read[name] = self.read.get(name, 0) + batch.num_rows
            yield batch


def of(values: Any, name: str = "x", rows: int | None = None, **more: Any) -> Field:
    """Return the field of one column beside a label."""
    column = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
    label = np.arange(len(column)) % 2
    return infer(open_source(pa.table({name: column, "label": label})), **more)[name]


def what(field: Field) -> str:
    return field.kind.value if field.role is Role.FEATURE else field.role.value


def shuffled(values: Any) -> list[Any]:
    return [values[i] for i in np.random.default_rng(1).permutation(len(values))]


HEX = [f"{k:08x}" for k in RNG.integers(0, 2**32, 2000)]
GENRES = [
    "Action|Comedy",
    "Comedy",
    "Action",
    "Drama|Action",
    "Drama|Comedy",
    "Drama",
    "Comedy|War",
]
GENRES += ["War", "War|Drama", "War|Action", "Action|Comedy|Drama"]
POWER = np.floor(RNG.pareto(0.8, N) * 3).clip(max=10**6).astype(int)
DAY = datetime.date(2024, 1, 1)
DAYS = [DAY + datetime.timedelta(days=k % 300) for k in range(N)]

WORDS = [f"{a}{b}" for a in "bdfgklmnprstvz" for b in ("an", "ek", "or", "ulé", "ист")]
TITLES = [" ".join(RNG.choice(WORDS, 2 + k % 4)) + f" {k}" for k in range(N)]

CASES: dict[str, tuple[Any, str, str, str]] = {
    # values, name, kind or role, part of the reason
    "words": (
        shuffled(["de", "fr", "it"] * 1000),
        "x",
        "categorical",
        "3 distinct values in 3,000",
    ),
    "two words": (["m", "f"] * 1500, "x", "categorical", "text"),
    "many words": (RNG.choice(HEX, N), "x", "id", "distinct values in 3,000 rows: text"),
    "no two alike": ([f"t{k}" for k in range(N)], "x", "ignore", "no two rows share a value"),
    "titles": (TITLES, "x", "text", "mostly of three words or more; say feature_types={'x': 'cat"),
    "titles of items": (RNG.choice(TITLES[:2000], N), "x", "text", "of three words or more"),
    "few titles": (RNG.choice(TITLES[:900], N), "x", "categorical", "text"),
    "titles of two words": (
        [" ".join(RNG.choice(WORDS, 2)) for _ in range(N)],
        "x",
        "id",
        "distinct values in 3,000 rows: text",
    ),
    "names of files": ([f"a-b/c_d.e {k} f-g" for k in range(N)], "x", "ignore", "no two rows"),
    "texts of times": (
        [f"Mon 2024-03-01 {k // 60:02}:{k % 60:02} +00:00 UTC" for k in range(N)],
        "x",
        "ignore",
        "no two rows",
    ),
    "joined words": (shuffled(GENRES * 300), "x", "list", "joined by '|', 4 distinct parts"),
    "a bar here and there": (["a|b", "c", "d", "e", "f"] * 600, "x", "categorical", "text"),
    "joined by commas": (
        [g.replace("|", ", ") for g in shuffled(GENRES * 300)],
        "x",
        "categorical",
        "parts joined by ',' (4 distinct) are not split; join by '|'",
    ),
    "zip codes": ([f"{k:05d}" for k in RNG.integers(0, 300, N)], "zip", "categorical", "text"),
    "text of numbers": (
        [f"{k / 4}" for k in RNG.integers(0, 300, N)],
        "x",
        "categorical",
        "all are numbers: say feature_types={'x': 'numeric'} for amounts",
    ),
    "text of times": ([f"{d} 10:00:00" for d in DAYS], "x", "timestamp", "ISO text, a time, which"),
    "nearly text of times": (
        [*(str(d) for d in DAYS[:-1]), "2024-13-99"],
        "x",
        "categorical",
        "text",
    ),
    "lists": ([["a", "b"], ["a"], []] * 1000, "x", "list", "list<item: string>, in 3,000 rows"),
    "lists of codes": ([[1, 2], [3], []] * 1000, "x", "list", "several values a row"),
    "vectors": ([[0.5, 0.25]] * N, "x", "ignore", "vectors of numbers are not read"),
    "lists of lists": ([[[1]], [[2, 3]]] * 1500, "x", "ignore", "lists of lists are not read"),
    "booleans": ([True, False, None] * 1000, "x", "categorical", "yes or no"),
    "fractions": (RNG.normal(size=N), "x", "numeric", "fractional numbers"),
    "few fractions": ([0.5, 1.5] * 1500, "x", "numeric", "fractional numbers"),
    "whole floats": (RNG.integers(0, 5, N) * 1.0, "x", "numeric", "numbers"),
    "ids with gaps": ([1.0, 2.0, None, 3.0] * 750, "x", "categorical", "all whole: few integers"),
    "floats named ids": (
        RNG.integers(0, 200, N) * 1.0,
        "shop_id",
        "categorical",
        "named like a co",
    ),
    "decimals": (
        [Decimal("1.25"), Decimal("2.50"), Decimal("3.75")] * 1000,
        "x",
        "numeric",
        "frac",
    ),
    "two integers": ([0, 1] * 1500, "age", "categorical", "two values"),
    "few integers": (
        RNG.integers(0, 50, N),
        "x",
        "categorical",
        "int64, 50 distinct values in 3,00",
    ),
    "codes": (RNG.integers(0, 400, N), "x", "categorical", "nothing says amounts, so codes; say"),
    "codes from an offset": (
        RNG.integers(5149, 5382, N),
        "x",
        "categorical",
        "5,149 to 5,381 near",
    ),
    "an amount from an offset": (RNG.integers(5149, 5382, N), "price", "categorical", "numbered"),
    "hashes": (RNG.integers(-(2**63), 2**63 - 1, 1500).repeat(2), "x", "id", "so codes"),
    "hashes of 32 bits": (RNG.integers(0, 2**32, 400).repeat(8), "x", "categorical", "so codes"),
    "named a code": (POWER, "app_id", "categorical", "named like a code"),
    "named a code, camel": (RNG.integers(0, 2000, N), "merchantId", "id", "named like a code"),
    "named an amount": (
        RNG.integers(10, 400, N),
        "item_price_usd",
        "numeric",
        "named like an amoun",
    ),
    "age": (
        RNG.integers(7, 74, N),
        "age",
        "numeric",
        "named like an amount; say feature_types={'a",
    ),
    "bands of age": (
        shuffled([1, 18, 25, 35, 45, 50] * 500),
        "age",
        "numeric",
        "named like an amou",
    ),
    "an age group": (shuffled([1, 18, 25, 35, 45, 50] * 500), "age_group", "categorical", "a code"),
    "year": (RNG.integers(1922, 1999, N), "year", "numeric", "named like an amount"),
    "years without a name": (
        RNG.integers(1922, 1999, N),
        "x",
        "numeric",
        "years from 1922 to 1998",
    ),
    "counts": (POWER, "x", "numeric", "the shape of a count, half of them at most"),
    "counts with gaps": (
        [*(POWER[1:] * 1.0), None],
        "x",
        "numeric",
        "all whole: the shape of a count",
    ),
    "negative values": (RNG.integers(-60, 60, N), "x", "numeric", "negative values, from -60"),
    "a lone minus one": (
        np.where(RNG.random(N) < 0.6, -1, RNG.integers(100_000, 100_250, N)),
        "x",
        "categorical",
        "so codes",
    ),
    "popular codes": (
        np.minimum(RNG.geometric(0.005, N), 1500),
        "item_rank_code",
        "categorical",
        "named like a code",
    ),
    "codes from the most popular on": (
        [*range(300), *range(300), *RNG.integers(0, 5, N - 600)],
        "x",
        "categorical",
        "so codes",
    ),
    "numbers of rows": (np.arange(N) + 17, "x", "ignore", "numbers the rows from 17"),
    "an index": (np.arange(N), "Unnamed: 0", "ignore", "numbers the rows from 0"),
    "integers past int64": (
        pa.array((2**63 + np.arange(300, dtype=np.uint64)).repeat(10)),
        "x",
        "categorical",
        "integers past 2^53",
    ),
    "seconds": (
        RNG.integers(1_600_000_000, 1_700_000_000, N),
        "seen_at",
        "timestamp",
        "s since 1970, 2020-09-13 to",
    ),
    "seconds without a name": (
        RNG.integers(1_600_000_000, 1_700_000_000, N),
        "x",
        "ignore",
        "no two rows share",
    ),
    "times": (pa.array(DAYS).cast(pa.timestamp("s")), "x", "timestamp", "not shown to a model"),
    "days": (DAYS, "x", "timestamp", "date32[day], 300 distinct values in 3,000 rows: a time, whi"),
    "times of day": (
        pa.array(RNG.integers(0, 86_400, N).astype("int32")).cast(pa.time32("s")),
        "x",
        "numeric",
        "length",
    ),
    "spans": (pa.array(RNG.integers(0, 99, N), pa.duration("s")), "x", "numeric", "nanoseconds"),
    "bytes": ([b"a", b"b", b"c"] * 1000, "x", "categorical", "bytes"),
    "nothing": (pa.nulls(N), "x", "ignore", "all values are null"),
    "no text": (
        pa.nulls(N, pa.string()),
        "x",
        "ignore",
        "string, 0 distinct values in 3,000 rows: ",
    ),
    "no lists": (pa.nulls(N, pa.list_(pa.int64())), "x", "ignore", "all values are null"),
    "one word": (
        ["a"] * N,
        "x",
        "ignore",
        "string, 1 distinct value in 3,000 rows: all rows have a",
    ),
    "one number": ([2.5] * N, "x", "ignore", "all rows have 2.5"),
    "one word or none": (["a", None] * 1500, "x", "categorical", "1 distinct value in 3,000 rows"),
}


@pytest.mark.parametrize("case", CASES)
def test_kinds_and_reasons(case: str) -> None:
    values, name, want, reason = CASES[case]
    field = of(values, name)
    assert what(field) == want, field
    assert reason in field.reason, field


@pytest.mark.parametrize("case", CASES)
def test_the_order_of_rows_decides_nothing_but_what_counts_rows(case: str) -> None:
    values, name, want, _ = CASES[case]
    column = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
    mixed = column.take(pa.array(np.random.default_rng(3).permutation(len(column))))
    found = of(mixed, name)
    if case in ("numbers of rows", "an index"):
        want = "ignore"
        assert "no two rows share a value" in found.reason
    assert what(found) == want, found


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**64 - 1)), min_size=1, max_size=30),
        st.lists(st.one_of(st.none(), st.floats()), min_size=1, max_size=30),
        st.lists(st.one_of(st.none(), st.text(max_size=5)), min_size=1, max_size=30),
        st.lists(st.one_of(st.none(), st.lists(st.floats(), max_size=3)), min_size=1, max_size=30),
        st.lists(st.one_of(st.none(), st.datetimes()), min_size=1, max_size=30),
        st.lists(st.one_of(st.none(), st.binary(max_size=3)), min_size=1, max_size=30),
        st.lists(st.one_of(st.none(), st.decimals(-99, 99, places=2)), min_size=1, max_size=30),
    ),
    st.sampled_from(
        ["x", "user", "item", "ts", "weight", "age", "y_id", "group", "date", "rating"]
    ),
)
def test_whatever_a_column_holds_it_is_decided_and_explained(values: list[Any], name: str) -> None:
    try:
        column = pa.array(values)
    except (pa.ArrowInvalid, OverflowError):  # integers of both signs past 64 bits
        return
    table = pa.table({name: column, "click": np.arange(len(values)) % 2})
    schema = infer(open_source(table), label="click")
    assert [field.name for field in schema.fields] == [name, "click"]
    assert schema[name].reason and schema[name].dtype == str(column.type)
    assert Schema.from_json(schema.to_json()) == schema and name in schema.explain()


def test_a_sorted_log_is_not_judged_by_its_first_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "SAMPLE_ROWS", 2000)
    late = 7000
    table = pa.table(
        {
            "label": np.arange(8000) % 2,
            "day": [1] * late + [2] * 1000,
            "null": pa.array([None] * late + [1.5] * 1000),
            "gap": pa.array([1] * late + [None] * 1000),
            "same": ["x"] * 8000,
            "none": pa.nulls(8000),
            "varied": np.arange(8000) % 7,
            "unique": [f"u{k % 4000}" for k in range(8000)],
        }
    )
    source = Counting(table)
    schema = infer(source)  # type: ignore[arg-type]
    assert [what(field) for field in schema.fields] == [
        *("label", "categorical", "numeric", "categorical", "ignore", "ignore", "categorical", "id")
    ]
    assert schema["day"].reason.startswith("int64, 1 distinct value in the first 2,000 rows")
    assert source.read["varied"] <= 3000, "columns that vary are read once"
    assert source.read["same"] > 8000, "columns that do not are read on"


def test_the_sample_is_bounded_in_cells_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"label": np.arange(9000) % 2, "text": ["x" * 100] * 4500 + ["y"] * 4500})
    for name, value in (("SAMPLE_CELLS", 2000), ("SAMPLE_BYTES", 50_000)):
        with monkeypatch.context() as patch:
            patch.setattr(evidence, name, value)
            source = Counting(table)
            infer(source)  # type: ignore[arg-type]
            assert source.read["label"] <= 3000


@pytest.mark.parametrize(
    ("columns", "want"),
    [
        (["click", "user_id", "item_id", "timestamp"], "click user_id item_id timestamp"),
        (["userId", "movieId", "rating", "ts"], "rating userId movieId ts"),
        (
            ["User ID", "Product-ID", "is_click", "event_time"],
            "is_click User ID Product-ID event_time",
        ),
        (
            ["user_id:token", "item_id:token", "label:float"],
            "label:float user_id:token item_id:token",
        ),
        (["visitorid", "asin", "target", "date"], "target visitorid asin date"),
        (["uid", "ad_id", "y", "sample_weight"], "y uid ad_id sample_weight"),
        (["rating", "click", "label"], "label"),
        (["rating", "click"], "click"),
        (["clicks", "stars"], "stars"),
    ],
)
def test_roles_are_guessed_from_names(columns: list[str], want: str) -> None:
    data: dict[str, Any] = {}
    for name in columns:
        data[name] = np.arange(N) % (2 if "id" not in name.lower() else 60)
        if name in ("timestamp", "ts", "event_time", "date"):
            data[name] = 1_600_000_000 + np.arange(N)
    schema = infer(open_source(data))
    held = {role: next((f for f in schema.fields if f.role is role), None) for role in Role}
    roles = (Role.LABEL, Role.USER, Role.ITEM, Role.TIMESTAMP, Role.WEIGHT)
    found = [field for role in roles if (field := held[role]) is not None]
    assert " ".join(field.name for field in found) == want
    assert all("guessed from its name; override with" in field.reason for field in found)
    user = held[Role.USER]
    assert user is None or f"user_id=... or feature_types={{{user.name!r}: ...}}" in user.reason


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("time", np.arange(N) % 24),
        ("ts", RNG.normal(size=N)),
        ("timestamp", ["soon", "later", "now"] * 1000),
        ("date", np.arange(N) % 31),
        ("weight", ["light", "heavy", "none"] * 1000),
        ("weight", RNG.normal(size=N)),
        ("user", RNG.normal(size=N)),
        ("user", [["a"], ["b"], []] * 1000),
        ("item", RNG.normal(size=N)),
        ("rating", ["good", "bad", "fair"] * 1000),
        ("rating", [["a"], ["b"], []] * 1000),
    ],
)
def test_names_are_not_believed_where_the_values_do_not_fit(name: str, values: Any) -> None:
    schema = infer(open_source({name: values, "y": np.arange(N) % 2}))
    assert schema[name].role is Role.FEATURE and schema.label == "y"


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (1_600_000_000 + np.arange(N), "s since 1970, 2020-09-13 to 2020-09-13"),
        (1_600_000_000_000 + np.arange(N), "ms since 1970, 2020-09-13"),
        (1_600_000_000_000_000 + np.arange(N), "us since 1970, 2020-09-13"),
        (1_600_000_000_000_000_000 + np.arange(N), "ns since 1970, 2020-09-13"),
        (1_600_000_000.5 + np.arange(N), "s since 1970"),
        ([int(f"{d:%Y%m%d}") for d in DAYS], "days from 20240101 to 20241026"),
        ([f"{d}T10:00:00Z" for d in DAYS], "ISO text"),
        (DAYS, "300 distinct values"),
    ],
)
def test_times_are_recognised(values: Any, unit: str) -> None:
    field = of(values, "ts")
    assert field.role is Role.TIMESTAMP and unit in field.reason


def log(**more: Any) -> dict[str, Any]:
    return {
        "who": np.arange(N) % 50,
        "thing": [f"i{k % 90}" for k in range(N)],
        "ok": np.arange(N) % 2,
        "n": np.arange(N) % 60,
        "text": [f"w{k % 9}" for k in range(N)],
        "list": [["a"]] * N,
        "when": DAYS,
        "w": np.ones(N),
        **more,
    }


def test_what_is_named_is_taken() -> None:
    schema = infer(
        open_source(log(user=np.arange(N) % 7)),
        label="ok",
        user_id="who",
        item_id="thing",
        timestamp="when",
        group="text",
        sample_weight="w",
        feature_types={"n": "numeric", "user": "ignore"},
    )
    roles = {field.name: (field.role.value, field.kind.value) for field in schema.fields}
    assert roles == {
        "who": ("user", "id"),
        "thing": ("item", "id"),
        "ok": ("label", "categorical"),
        "n": ("feature", "numeric"),
        "text": ("group", "id"),
        "list": ("feature", "list"),
        "when": ("timestamp", "timestamp"),
        "w": ("weight", "numeric"),
        "user": ("ignore", "categorical"),
    }
    assert schema["ok"].reason == "int64, 2 distinct values in 3,000 rows: the label, as given"
    assert schema["n"].reason.endswith("rows: numeric, as given")
    assert schema["user"].reason.endswith("rows: ignored, as given")
    assert [field.name for field in schema.features] == ["who", "thing", "n", "list"]


def test_any_number_may_order_rows_if_it_is_named() -> None:
    schema = infer(open_source(log()), label="ok", timestamp="n")
    assert schema.timestamp == "n" and "the timestamp, as given" in schema["n"].reason


def test_types_may_give_roles() -> None:
    types = {"ok": "label", "who": "user", "thing": "item", "text": "group", "w": "weight"}
    schema = infer(open_source(log()), feature_types=types)
    assert {name: schema[name].role.value for name in types} == types


def test_groups_may_be_the_users() -> None:
    schema = infer(open_source(log()), label="ok", user_id="who", group="who")
    assert schema["who"].role is Role.USER and schema.group == "who"


def test_a_column_with_a_type_is_not_guessed_about() -> None:
    data = {"click": np.arange(N) % 2, "user": np.arange(N) % 9, "rating": np.arange(N) % 5}
    schema = infer(open_source(data), feature_types={"user": "categorical", "click": "categorical"})
    assert what(schema["user"]) == "categorical" and what(schema["click"]) == "categorical"
    assert schema.label == "rating" and schema.user is None


def test_a_time_called_a_timestamp_may_be_the_timestamp() -> None:
    data = {"click": np.arange(N) % 2, "ts": np.arange(N), "hour": np.arange(N) % 24}
    schema = infer(open_source(data), feature_types={"ts": "timestamp", "hour": "timestamp"})
    assert schema.timestamp == "ts", "well-known name"
    assert what(schema["hour"]) == "timestamp" and "not shown to a model" in schema["hour"].reason
    assert [field.name for field in schema.features] == []


def test_a_given_kind_holds_for_constant_columns_too() -> None:
    schema = infer(open_source(log()), label="ok", feature_types={"w": "numeric"})
    assert what(schema["w"]) == "numeric"


def test_a_text_may_be_given() -> None:
    field = of(["a", "b"] * 50, "title", feature_types={"title": "text"})
    assert (what(field), field.reason.partition(": ")[2]) == ("text", "text, as given")
    assert what(of(TITLES, "title", feature_types={"title": "id"})) == "id"
    assert what(of(TITLES, "item")) == "item", "a well-known name goes before what the values are"


def test_the_kind_of_a_label_may_be_given() -> None:
    schema = infer(open_source(log()), label="n", feature_types={"n": "categorical"})
    assert schema["n"].kind.value == "categorical"
    assert infer(open_source(log()), label="n")["n"].kind.value == "numeric"
    assert infer(open_source(log()), label="text")["text"].kind.value == "categorical"


def test_what_was_assumed_when_reading_is_said(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("code,y\n007,1\n12,0\n")
    assert infer(open_source(path))["code"].reason.endswith(
        "; read as text: as int64 its value '007' would not be exact"
    )


NAMED = r"\['who', 'thing', 'ok', 'n', 'text', 'list', 'when', 'w'\]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, f"a fit needs a label, but none of the columns {NAMED} has a usual name .label, cl"),
        ({"label": "OK"}, f"column of label= 'OK' must be .* did you mean 'ok'. it has {NAMED}"),
        (
            {"label": "zzz"},
            f"the column of label= 'zzz' must be in .*, but it is not; it has {NAMED}",
        ),
        ({"label": "ok", "user_id": "hwo"}, "column of user_id= 'hwo' must .* you mean 'who'"),
        ({"label": "ok", "item_id": "things"}, "column of item_id= 'things' must .* mean 'thing'"),
        ({"label": "ok", "timestamp": "wen"}, "column of timestamp= 'wen' must .* mean 'when'"),
        ({"label": "ok", "group": "txt"}, "column of group= 'txt' must be .* mean 'text'"),
        (
            {"label": "ok", "sample_weight": "q"},
            "column of sample_weight= 'q' must be in the table",
        ),
        (
            {"label": "ok", "feature_types": {"lists": "list"}},
            "the column of feature_types 'lists' must be in the table.* mean 'list'",
        ),
        (
            {"label": "ok", "feature_types": {"n": "numerical"}},
            r"must map columns to \['id', 'categorical', 'numeric', 'list', 'text', 'timestamp', "
            r"'label', 'user', 'item', 'group', 'weight', 'ignore'\], but 'n' has 'numerical'; did "
            "you mean 'numeric'",
        ),
        ({"label": "ok", "feature_types": {"n": 3}}, "but 'n' has 3; choose one of them"),
        (
            {"label": "ok", "user_id": "ok"},
            "can have one role, but 'ok' is to be the label and the user; copy it under another",
        ),
        ({"label": "ok", "item_id": "n", "group": "n"}, "'n' is to be the item and the group"),
        (
            {"label": "ok", "feature_types": {"n": "label"}},
            "only one column can be the label: label='ok' and feature_types=.'n': 'label'.",
        ),
        (
            {"label": "ok", "feature_types": {"ok": "ignore"}},
            "a column with a role cannot be ignored, but 'ok' has label='ok' and",
        ),
        (
            {"label": "list"},
            "the label must be one value a row, but 'list' holds list<item: string",
        ),
        ({"label": "when"}, "must be a number, a boolean or a word, but 'when' holds date32"),
        ({"label": "ok", "user_id": "list"}, "the user must be one value a row, but 'list' holds"),
        ({"label": "ok", "sample_weight": "text"}, "weight must be a number, but 'text' holds str"),
        (
            {"label": "ok", "timestamp": "text"},
            r"must be a time, a date, ISO text or a number, but column 'text' \(string\) is none: "
            "text in column 'text' must be ISO times",
        ),
        ({"label": "ok", "timestamp": "list"}, "the timestamp must be one value a row"),
        (
            {"label": "ok", "feature_types": {"text": "numeric"}},
            "calls 'text' numeric, but it holds string such as 'w0'; convert it or leave it out",
        ),
        ({"label": "ok", "feature_types": {"list": "numeric"}}, r"such as \['a'\]"),
        ({"label": "ok", "feature_types": {"list": "id"}}, "calls 'list' id, but it holds list"),
        ({"label": "ok", "feature_types": {"n": "text"}}, "calls 'n' text, but it holds int64"),
        ({"label": "ok", "feature_types": {"list": "text"}}, "calls 'list' text, but it holds lis"),
        (
            {"label": "ok", "item_id": "text", "feature_types": {"text": "text"}},
            "the item is id or categorical, but feature_types calls 'text' text; leave it out",
        ),
        ({"label": "ok", "feature_types": {"n": "list"}}, "calls 'n' list, but it holds int64"),
        ({"label": "ok", "feature_types": {"text": "timestamp"}}, "ISO text or a number, but"),
        (
            {"label": "ok", "user_id": "who", "feature_types": {"who": "numeric"}},
            "the user is id or categorical, but feature_types calls 'who' numeric; leave it out",
        ),
    ],
)
def test_what_does_not_fit_is_said(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        infer(open_source(log()), **arguments)


def test_no_rows_are_no_evidence() -> None:
    with pytest.raises(DataError, match="must have rows to tell what its columns are, but it has"):
        infer(open_source(pa.table({"y": pa.nulls(0)}), allow_empty=True))


def test_a_wide_table_is_not_listed_in_full() -> None:
    with pytest.raises(SchemaError, match="'c49'\\] and 10 more has a usual name"):
        infer(open_source({f"c{k}": [1, 2] for k in range(60)}))


@pytest.mark.parametrize(
    ("name", "found", "said"),
    [
        ("userAge_7d", ["user", "age", "7", "d"], "amount"),
        ("HTTPCode", ["http", "code"], "code"),
        ("C14", ["c", "14"], "code"),
        ("cat_3", ["cat", "3"], "code"),
        ("num_3", ["num", "3"], "amount"),
        ("I1", ["i", "1"], None),
        ("price_usd", ["price", "usd"], "amount"),
        ("zipcode", ["zipcode"], "code"),
        ("viewcount", ["viewcount"], "amount"),
        ("movieid", ["movieid"], "code"),
        ("paid", ["paid"], None),
        ("account", ["account"], "code"),
        ("num_user_ids", ["num", "user", "ids"], "amount"),
        ("price_bucket", ["price", "bucket"], "code"),
        ("", [], None),
    ],
)
def test_names_are_read_by_their_words(name: str, found: list[str], said: str | None) -> None:
    assert words(name) == found and meaning(name) == said


def test_names_are_folded() -> None:
    names = ["user_id", "userId", "USER-ID", "User Id", "user_id:token", "user.id"]
    assert {folded(name) for name in names} == {"userid"}


def test_simulated_clicks_are_understood() -> None:
    table = simulate(2000, seed=1).table
    schema = infer(open_source(table))
    assert (schema.label, schema.user, schema.item) == ("click", "user", "item")
    assert schema.timestamp == "ts" and schema["genres"].kind.value == "list"
    numbers = [f.name for f in schema.features if f.kind.value == "numeric"]
    assert numbers == [name for name in table.column_names if name.startswith("number")]


@pytest.mark.parametrize("name", ["frappe", "movielens-100k", "movielens-1m", "avazu"])
def test_real_data_needs_no_types(name: str, data_root: Path) -> None:
    data = datasets.load(name, data_root)
    source = open_source(data.train)
    schema = infer(source)
    assert (schema.label, schema.user, schema.item) == (data.label, data.user_id, data.item_id)
    assert schema.timestamp == data.timestamp
    same = {"id": "categorical"}
    found = {key: schema[key].kind.value for key in data.feature_types}
    assert {key: same.get(kind, kind) for key, kind in found.items()} == {
        key: same.get(kind, kind) for key, kind in data.feature_types.items()
    }
    given = infer(
        source,
        label=data.label,
        user_id=data.user_id,
        item_id=data.item_id,
        timestamp=data.timestamp,
        feature_types=data.feature_types,
    )
    assert {key: given[key].kind.value for key in data.feature_types} == data.feature_types


def test_counts_of_criteo_are_numbers_and_its_codes_are_not(data_root: Path) -> None:
    table = datasets.load("criteo-kaggle", data_root).train
    schema = infer(open_source(table))
    kinds = {field.name: field.kind.value for field in schema.features}
    assert {kinds[f"C{i}"] for i in range(1, 27)} == {"categorical", "id"}
    counts = [kinds[f"I{i}"] for i in range(1, 14)]
    assert counts.count("numeric") == 12 and kinds["I10"] == "categorical", "I10 has 6 values"


def test_every_frappe_column_is_a_code(data_root: Path) -> None:
    schema = infer(open_source(data_root / "frappe" / "frappe_x1_train.RECONSTRUCTED.csv"))
    assert len(schema.features) == 10
    assert {field.kind.value for field in schema.features} == {"id", "categorical"}
    anonymous = pd.read_csv(data_root / "frappe" / "frappe_x1_valid.csv")
    anonymous.columns = ["label", *(f"f_{letter}" for letter in "abcdefghij")]
    schema = infer(open_source(anonymous))
    assert {field.kind.value for field in schema.features} == {"categorical"}
