"""Each rule fires on the fault it names, with its numbers, and is silent on a sound table."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from autorec.data.check import Finding, check
from autorec.data.sources import open_source
from autorec.data.split import plan_split
from autorec.schema import Field, Kind, Role, Schema

NOW = 1_750_000_000
N = 2000
ROLES = {"click": Role.LABEL, "user": Role.USER, "item": Role.ITEM, "ts": Role.TIMESTAMP}
ROLES["w"] = Role.WEIGHT
KINDS = {"ts": Kind.TIMESTAMP, "price": Kind.NUMERIC, "w": Kind.NUMERIC, "tags": Kind.LIST}


def log(n: int = N, seed: int = 0, start: int = NOW - 10_000_000) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "click": rng.integers(0, 2, n),
        "user": rng.integers(0, 300, n),
        "item": [f"i{k}" for k in rng.integers(0, 50, n)],
        "tags": [["a", "b"][: k % 3] for k in range(n)],
        "price": rng.normal(size=n),
        "ts": start + rng.permutation(n) * 60,
    }


class Empty:
    """A table without rows, which a source refuses."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema

    def batches(self, columns: Any = None, batch_rows: int = 0) -> Any:
        return iter(())

    def head(self, n: int) -> pa.Table:
        return self.schema.empty_table()


def schema_of(table: pa.Table) -> Schema:
    return Schema(
        tuple(
            Field(c.name, KINDS.get(c.name, Kind.ID), ROLES.get(c.name, Role.FEATURE), str(c.type))
            for c in table.schema
        )
    )


def found(columns: dict[str, Any], tuning: dict[str, Any] | None = None, **more: Any) -> Any:
    table = pa.table(columns)
    schema = schema_of(table)
    source = open_source(table)
    plan = plan_split(source, schema, method=more["split"]) if "split" in more else None
    other = None if tuning is None else open_source(pa.table(tuning))
    return check(source, schema, plan, other, now=more.get("now", NOW))


def of(rule: str, findings: list[Finding]) -> Finding:
    """Return the only finding of a rule."""
    named = [finding for finding in findings if finding.rule == rule]
    assert len(named) == 1, [(f.rule, f.column) for f in findings]
    return named[0]


def test_a_sound_table_has_no_findings() -> None:
    late = log(500, 1, NOW - 1_000_000)
    assert found(log(), late, split="time") == []
    ratings = {**log(), "click": np.random.default_rng(2).integers(1, 6, N)}
    assert found(ratings) == []


# ---- the label


@pytest.mark.parametrize(
    "leak",
    [
        lambda y, rng: y * 5.0 + rng.normal(size=N) * 0.01,
        lambda y, rng: -y + rng.random(N) * 0.5,
        lambda y, rng: pa.array([None if k else 1.0 for k in y]),  # only its absence tells
        lambda y, rng: (y - 0.5) ** 2 * rng.choice([-1, 1], N) + np.where(y, 9.0, 0.0),
    ],
    ids=["above", "below", "absent", "far"],
)
def test_a_number_that_knows_the_label(leak: Any) -> None:
    columns = log()
    columns["price"] = leak(columns["click"], np.random.default_rng(3))
    finding = of("leak", found(columns))
    assert (finding.severity, finding.column) == ("error", "price")
    assert "'price' leaks the label 'click' (auc 1.0000 on 2000 rows)" in finding.message
    assert finding.evidence["auc"] >= 0.999


def test_a_category_that_knows_the_label() -> None:
    columns = log()
    columns["code"] = [f"{'yn'[y]}{k % 7}" for k, y in enumerate(columns["click"])]
    assert of("leak", found(columns)).column == "code"
    ratings = np.random.default_rng(4).integers(1, 6, N)
    columns = {**log(), "click": ratings, "code": [f"stars {k}" for k in ratings]}
    finding = of("leak", found(columns))
    assert finding.evidence["correlation"] > 0.999
    columns = {**log(), "click": ratings, "price": 3.0 - ratings / 2}
    assert of("leak", found(columns)).column == "price"


def test_what_is_no_leak() -> None:
    columns = log()
    rng = np.random.default_rng(5)
    columns["price"] = columns["click"] + rng.normal(size=N) * 0.5  # strong, and honest
    columns["user"] = np.arange(N) // 2  # each user has two rows; a mean over all would know
    assert [f.rule for f in found(columns)] == []
    few = {name: list(values)[:40] for name, values in log().items()}
    few["price"] = [float(y) * 2 for y in few["click"]]  # luck on 40 rows
    assert [f.rule for f in found(few) if f.rule == "leak"] == []


def test_a_feature_equal_to_the_label() -> None:
    columns = log()
    columns["copy"] = columns["click"].astype(np.float64)
    findings = found(columns)
    finding = of("equals_label", findings)
    assert (finding.severity, finding.column) == ("error", "copy")
    assert "in all 2000 sampled rows" in finding.message
    assert findings[0] == finding
    assert [f for f in findings if f.rule == "leak"] == []


def test_labels_that_cannot_be_used() -> None:
    columns = {**log(), "click": [None, None] + [0.0, 1.0] * (N // 2 - 1)}
    finding = of("label_nulls", found(columns))
    assert (finding.severity, finding.evidence) == ("error", {"nulls": 2, "rows": N})
    constant = of("label_constant", found({**log(), "click": ["yes"] * N}))
    assert "'click' is always 'yes'" in constant.message
    columns = {**log(), "click": [np.inf] + [1.0, 2.0, 3.0, 4.0] * 499 + [5.0, 6.0, 7.0]}
    assert of("label_infinite", found(columns)).evidence["infinite"] == 1


# ---- values


@pytest.mark.parametrize("bad", [-2.0, None, np.nan, np.inf])
def test_weights(bad: float | None) -> None:
    columns = {**log(), "w": [1.0] * (N - 3) + [bad] * 3}
    finding = of("bad_weights", found(columns))
    assert finding.severity == "error"
    assert finding.evidence == {"bad": 3, "rows": N, "first": str(bad)}
    assert of("zero_weights", found({**log(), "w": [0.0] * N})).column == "w"


def test_infinite_numbers() -> None:
    columns = log()
    columns["price"][:4] = np.inf
    finding = of("non_finite", found(columns))
    assert (finding.severity, finding.evidence) == ("error", {"infinite": 4, "rows": N})


def test_duplicates() -> None:
    few = {name: [*values, *list(values)[:20]] for name, values in log().items()}
    finding = of("duplicates", found(few))
    assert (finding.severity, finding.evidence["share"]) == ("info", 20 / 2020)
    many = {name: [*values, *list(values)[:500]] for name, values in log().items()}
    assert of("duplicates", found(many)).severity == "warning"


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ([None] * N, "all_null"),
        (["x"] * N, "constant"),
        (["x", "y"] + [None] * (N - 2), "null_share"),
    ],
)
def test_columns_that_say_little(values: list[Any], rule: str) -> None:
    columns = {**log(), "extra": pa.array(values, pa.string())}
    finding = of(rule, found(columns))
    assert (finding.severity, finding.column) == ("info", "extra")
    assert finding.evidence["nulls"] == values.count(None)
    halves = {**log(), "extra": ["x", None, None, "y", "x"] * (N // 5)}
    assert found(halves) == []


def test_ids_that_never_repeat() -> None:
    rng = np.random.default_rng(6)
    columns = {**log(), "request": [f"{k:x}" for k in rng.permutation(N) * 7919]}
    finding = of("unique_ids", found(columns))
    assert (finding.severity, finding.column) == ("warning", "request")
    assert finding.evidence == {"distinct": N, "rows": N}


# ---- time


def test_ids_in_the_order_of_time() -> None:
    columns = log()
    columns["session"] = [f"s{k:09d}" for k in columns["ts"] // 300]
    finding = of("ordered_id", found(columns))
    assert (finding.severity, finding.column) == ("warning", "session")
    assert finding.evidence["spearman"] > 0.99
    assert finding.evidence["against"] == "'ts'"
    columns = {**log(), "row": -np.arange(N)}
    del columns["ts"]
    finding = of("ordered_id", found(columns))
    assert (finding.column, finding.evidence["spearman"]) == ("row", pytest.approx(-1))
    assert finding.evidence["against"] == "the order of the rows"
    columns["price"] = np.arange(N) * 1.0
    assert len([f for f in found(columns) if f.rule == "ordered_id"]) == 2


def test_a_random_split_of_a_table_with_times() -> None:
    for split in ("random", "user"):
        finding = of("split_ignores_time", found(log(), split=split))
        assert finding.severity == "warning"
        assert finding.evidence == {"method": split}
    untimed = log()
    del untimed["ts"]
    assert found(untimed, split="random") == []


@pytest.mark.parametrize("form", ["s", "ms", "us", "ns", "float", "timestamp", "iso"])
def test_times_in_the_future(form: str) -> None:
    columns = log()
    seconds = columns["ts"]
    seconds[:3] = NOW + 2 * 86_400
    seconds[3] = NOW + 3600  # clocks differ by an hour; that is no finding
    moments = [dt.datetime.fromtimestamp(int(s), dt.timezone.utc) for s in seconds]
    columns["ts"] = {
        "s": seconds,
        "ms": seconds * 10**3,
        "us": seconds * 10**6,
        "ns": seconds * 10**9,
        "float": seconds + 0.5,
        "timestamp": pa.array(moments, pa.timestamp("ms", "UTC")),
        "iso": [moment.isoformat() for moment in moments],
    }[form]
    finding = of("future_time", found(columns))
    assert (finding.severity, finding.column) == ("warning", "ts")
    assert finding.evidence["count"] == 3
    assert finding.evidence["max"].startswith("2025-06-17T15:06:40")
    assert "3 of 2000 times in 'ts'" in finding.message


def test_numbers_that_are_no_dates_are_never_in_the_future() -> None:
    assert found({**log(), "ts": np.arange(N)[::-1]}) == []
    assert found({**log(), "ts": [20_240_101 + k % 28 for k in range(N)]}) == []


def test_rows_without_a_time() -> None:
    columns = log()
    columns["ts"] = pa.array([None, None, *columns["ts"][2:].tolist()])
    assert of("time_nulls", found(columns)).evidence == {"nulls": 2, "rows": N}


# ---- tuning data


def test_tuning_rows_that_were_trained_on() -> None:
    train = log()
    tuning = {name: list(values)[:200] for name, values in train.items()}
    tuning["price"] = [0.0] * 200  # the same event, whatever else differs
    findings = found(train, tuning)
    finding = of("shared_rows", findings)
    assert finding.severity == "warning"
    assert finding.evidence == {"share": 1.0, "rows": 200, "columns": ["user", "item", "ts"]}
    overlap = of("time_overlap", findings)
    assert overlap.severity == "warning"
    assert overlap.evidence["training_ends"] == str(max(train["ts"]))
    for columns in (train, tuning):
        del columns["ts"]
    assert [f for f in found(train, tuning) if f.rule in ("shared_rows", "time_overlap")] == []


def test_tuning_ids_that_are_new() -> None:
    late = log(200, 1, NOW - 1_000_000)
    late["user"] = late["user"] + 200  # two thirds are beyond the 300 that were seen
    finding = of("cold_start", found(log(), late))
    assert (finding.severity, finding.column) == ("info", "user")
    assert finding.evidence["share"] == np.mean(late["user"] >= 300)


def test_tuning_columns_that_are_missing() -> None:
    late = log(200, 1, NOW - 1_000_000)
    del late["price"], late["click"]
    finding = of("tuning_columns", found(log(), late))
    assert finding.severity == "error"
    assert "['click', 'price'] are missing" in finding.message


# ---- the whole


def test_errors_come_first_and_are_plain_values() -> None:
    columns = {**log(), "copy": log()["click"], "none": pa.nulls(N, pa.string())}
    findings = found(columns, split="random")
    assert [f.severity for f in findings] == ["error", "warning", "info"]
    assert findings[0].to_json() == {
        "severity": "error",
        "column": "copy",
        "rule": "equals_label",
        "message": findings[0].message,
        "evidence": {"rows": N},
    }


def test_what_cannot_be_read_is_a_finding() -> None:
    columns = {**log(), "price": ["cheap"] * N}
    assert "'price' is numeric, but holds 'cheap'" in of("unreadable", found(columns)).message
    empty = Empty(pa.table(log()).schema)
    assert [f.rule for f in check(empty, schema_of(empty.head(0)))] == ["empty"]


def test_a_large_table_takes_seconds() -> None:
    rng = np.random.default_rng(7)
    n = 300_000
    columns = {"click": rng.integers(0, 2, n), "ts": np.arange(n)}
    columns |= {f"c{k}": rng.integers(0, 10**k, n) for k in range(1, 6)}
    columns["user"] = rng.integers(0, 10**5, n)
    table = pa.table(columns)
    start = time.perf_counter()
    assert check(open_source(table), schema_of(table), now=NOW) == []
    assert time.perf_counter() - start < 10
