"""No row changes sides when rows move, a cut in time is one cut, and both sides have rows."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autorec.data import split, timeline
from autorec.data.hashing import hash_rows, hash_values
from autorec.data.sources import open_source
from autorec.data.split import SplitPlan, plan_split, training_batches
from autorec.errors import ConfigError, DataError, SchemaError
from autorec.schema import Field, Kind, Role, Schema

METHODS = ("time", "user", "random")
ROLES = {"user": Role.USER, "item": Role.ITEM, "ts": Role.TIMESTAMP, "click": Role.LABEL}


class Plain:
    """A table with any number of rows, none too."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def batches(self, columns: Any = None, batch_rows: int = 11) -> Any:
        table = self.table if columns is None else self.table.select(list(columns))
        return iter(table.to_batches(max_chunksize=batch_rows))


def schema_of(table: pa.Table) -> Schema:
    fields = []
    for column in table.schema:
        role = ROLES.get(column.name, Role.FEATURE)
        kind = Kind.TIMESTAMP if role is Role.TIMESTAMP else Kind.ID
        fields.append(Field(column.name, kind, role, str(column.type)))
    return Schema(tuple(fields))


def plan_of(table: pa.Table, **options: Any) -> SplitPlan:
    return plan_split(Plain(table), schema_of(table), **options)


def sides(plan: SplitPlan, table: pa.Table, rows: int = 7) -> list[int]:
    parts = [plan.assign(batch) for batch in table.to_batches(max_chunksize=rows)]
    return np.concatenate(parts).tolist() if parts else []


def log(users: list[int | None], times: list[int]) -> pa.Table:
    n = len(users)
    return pa.table(
        {
            "user": pa.array(users, pa.int64()),
            "item": [f"i{k % 5}" for k in range(n)],
            "tags": [["a"] * (k % 3) for k in range(n)],
            "ts": pa.array(times, pa.int64()),
        }
    )


# ---- laws


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.none() | st.integers(0, 6), st.integers(0, 9)), min_size=2, max_size=40
    ),
    method=st.sampled_from(METHODS),
    holdout=st.sampled_from([0.01, 0.1, 0.5, 0.9]),
    seed=st.integers(0, 5),
    cut=st.integers(1, 40),
    data=st.data(),
)
def test_moving_rows_moves_no_row_to_the_other_side(
    rows: list[Any], method: str, holdout: float, seed: int, cut: int, data: Any
) -> None:
    table = log([row[0] for row in rows], [row[1] for row in rows])
    order = data.draw(st.permutations(range(len(rows))))
    moved = table.take(order)
    moved = pa.Table.from_batches(moved.to_batches(max_chunksize=cut)).select(
        data.draw(st.permutations(table.column_names))
    )
    try:
        plan = plan_of(table, method=method, holdout=holdout, seed=seed)
    except DataError as error:
        with pytest.raises(DataError, match="two different") as other:
            plan_of(moved, method=method, holdout=holdout, seed=seed)
        assert str(other.value) == str(error)
        return
    before, after = sides(plan, table), sides(plan, moved, cut)
    assert plan_of(moved, method=method, holdout=holdout, seed=seed) == plan
    assert after == [before[k] for k in order]
    assert {*before} == {0, 1}
    assert SplitPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    if method == "time":
        times = table["ts"].to_pylist()
        train = [t for t, side in zip(times, before, strict=True) if not side]
        assert max(train) < min(t for t, side in zip(times, before, strict=True) if side)
    if method == "user":
        pairs = {*zip(table["user"].to_pylist(), before, strict=True)}
        assert len(pairs) == len(set(table["user"].to_pylist()))


def test_equal_rows_stay_together() -> None:
    table = pa.concat_tables([log([*range(50)], [*range(50)])] * 4)
    found = np.array(sides(plan_of(table, method="random", holdout=0.3), table))
    assert (found.reshape(4, 50) == found[:50]).all()
    assert found.mean() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("method", ["user", "random"])
def test_the_seed_decides(method: str) -> None:
    table = log([*range(200)], [*range(200)])
    plans = [plan_of(table, method=method, seed=seed, holdout=0.5) for seed in range(3)]
    found = [sides(plan, table) for plan in plans]
    assert found[0] != found[1] != found[2]
    assert all(sum(side) == 100 for side in found)  # a small table is cut at the exact share


@pytest.mark.parametrize("method", ["user", "random"])
def test_a_large_table_is_read_only_as_far_as_needed(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split, "_EXACT_ROWS", 100)
    rng = np.random.default_rng(0)
    table = log(rng.permutation(5000).tolist(), rng.integers(0, 99, 5000).tolist())
    plan = plan_of(table, method=method, holdout=0.2)
    assert plan == plan_of(table.take(rng.permutation(5000)), method=method, holdout=0.2)
    assert np.mean(sides(plan, table)) == pytest.approx(0.2, abs=0.02)
    two = log([0, 1] * 500, [3] * 1000)
    for seed in range(5):  # a fixed bound would mostly put both users on one side
        plan = plan_of(two, method="user", holdout=0.01, seed=seed)
        assert {*sides(plan, two)} == {0, 1}


# ---- time


def stamped(times: Any) -> pa.Table:
    return pa.table({"user": [0] * len(times), "ts": times})


@pytest.mark.parametrize(
    ("times", "holdout", "validates"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 0.2, [8, 9]),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 0.001, [9]),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 0.999, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ([0, 1, 2, 3, 4, 5, 7, 7, 7, 9], 0.2, [9]),  # 1 of 10 is nearer to 2 than 4 is
        ([0, 1, 2, 3, 4, 5, 6, 8, 8, 9], 0.2, [8, 8, 9]),
        ([5, 5, 5, 5, 9], 0.8, [9]),
        ([1, 9, 9, 9, 9], 0.1, [9, 9, 9, 9]),
        ([3, 2], 0.1, [3]),
    ],
)
def test_the_last_rows_validate(times: list[int], holdout: float, validates: list[int]) -> None:
    table = stamped(pa.array(times))
    plan = plan_of(table, holdout=holdout)
    assert plan.method == "time"
    assert plan.column == "ts"
    found = [t for t, side in zip(times, sides(plan, table), strict=True) if side]
    assert found == validates
    assert plan.cutoff == min(validates)


DAYS = [dt.datetime(2024, 1, day, 6, 30) for day in range(1, 11)]


@pytest.mark.parametrize(
    "times",
    [
        pa.array(DAYS, pa.timestamp("s")),
        pa.array(DAYS, pa.timestamp("ns")),
        pa.array(DAYS, pa.timestamp("us", "UTC")),
        pa.array([day.date() for day in DAYS]),
        pa.array([day.isoformat() for day in DAYS]),
        pa.array([day.strftime("%Y-%m-%d %H:%M:%S") for day in DAYS]),
        pa.array([f"{day.isoformat()}.123456789Z" for day in DAYS]),
        pa.array([f"{day.isoformat()}+05:00" for day in DAYS]).dictionary_encode(),
        pa.array([day.timestamp() for day in DAYS]),
        pa.array([k / 10 for k in range(10)]),
        pa.array([2**53 + k for k in range(10)]),
    ],
    ids=lambda array: f"{array.type}-{array[0]}",
)
def test_every_type_of_time_is_ordered(times: pa.Array) -> None:
    table = stamped(times)
    plan = plan_of(table, holdout=0.3)
    assert sides(plan, table) == [0] * 7 + [1] * 3
    stored = timeline.stored(times, "ts")
    assert stored.dtype == np.int64
    assert (np.diff(stored) > 0).all()


def test_the_unit_of_stored_times() -> None:
    day = 19_723 * 86_400  # 2024-01-01
    for array in (
        pa.array([dt.datetime(2024, 1, 1), None], pa.timestamp("ms")),
        pa.array([dt.date(2024, 1, 1), None]),
        pa.array(["2024-01-01T01:00:00+01:00", None]),
        pa.array([float(day), None]),
    ):
        assert timeline.stored(array, "ts").tolist() == [day * 10**6, timeline.UNKNOWN]
    assert timeline.stored(pa.array([day, None]), "ts").tolist() == [day, timeline.UNKNOWN]
    # The unit is that of training, whatever a later file holds.
    assert timeline.stored(pa.array([5.0, None]), "ts", "int32").tolist() == [5, timeline.UNKNOWN]
    assert timeline.stored(pa.array([5]), "ts", "double").tolist() == [5_000_000]
    with pytest.raises(DataError, match=r"read as seconds and must lie within 9.2e12"):
        timeline.stored(pa.array([1.7e18]), "ts")
    with pytest.raises(DataError, match="has type int64 where training had timestamp"):
        timeline.stored(pa.array([5]), "ts", "timestamp[us]")
    with pytest.raises(DataError, match=r"must be ISO times .* but got 'soon'"):
        timeline.stored(pa.array(["2024-01-01", None, "soon"]), "ts")


def test_a_plan_keeps_the_unit_of_its_column() -> None:
    table = stamped(pa.array([0, 1, 2, 3]))
    plan = plan_of(table, holdout=0.5)
    assert sides(plan, stamped(pa.array([0.0, 1.0, 2.0, 3.0]))) == [0, 0, 1, 1]


# ---- defaults and refusals


def test_auto_is_time_where_there_is_one() -> None:
    table = log([*range(20)], [*range(20)])
    assert plan_of(table).method == "time"
    assert "from 18 on validate: 2 of 20" in plan_of(table).reason
    plain = table.drop_columns(["ts"])
    assert plan_of(plain).method == "random"
    assert plan_of(plain).columns == ("item", "tags", "user")


def test_given_rows_all_train() -> None:
    table = log([1, 2], [1, 2])
    plan = plan_of(table, method="given")
    assert sides(plan, table) == [0, 0]
    assert plan.needs == ()


def test_a_split_that_cannot_be() -> None:
    two = log([1, 1], [1, 1])
    for method in METHODS:
        for rows in (0, 1):
            with pytest.raises(DataError, match=f"at least 2 rows to be split.* has {rows};"):
                plan_of(two.slice(0, rows), method=method)
    with pytest.raises(DataError, match="all 2 rows of 'ts' have 1;"):
        plan_of(two, method="time")
    same = dt.datetime(2024, 1, 1, 6)
    with pytest.raises(DataError, match="have 2024-01-01T06:00:00"):
        plan_of(stamped(pa.array([same, same])))
    with pytest.raises(DataError, match="all 2 rows have one user"):
        plan_of(two, method="user")
    twins = two.take([0, 0])
    with pytest.raises(DataError, match="all 2 rows have one row content"):
        plan_of(twins, method="random")
    with pytest.raises(DataError, match=r"1 of 3 rows have none in 'ts'"):
        plan_of(stamped(pa.array([1, None, 2])))
    with pytest.raises(DataError, match=r"1 of 3 rows have none in 'ts'"):
        plan_of(stamped(pa.array([1.0, np.nan, 2.0])))
    with pytest.raises(SchemaError, match="needs a timestamp column"):
        plan_of(two.drop_columns(["ts"]), method="time")
    with pytest.raises(SchemaError, match="needs a user column"):
        plan_of(two.drop_columns(["user"]), method="user")
    with pytest.raises(ConfigError, match=r"must be one of .* but got 'leave-one-out'"):
        plan_of(two, method="leave-one-out")
    for holdout in (0.0, 1.0, -0.1, True):
        with pytest.raises(ConfigError, match="share of rows between 0 and 1"):
            plan_of(two, holdout=holdout)
    plan = plan_of(log([1, 2], [1, 2]))
    with pytest.raises(DataError, match=r"\['ts'\] are missing"):
        plan.assign(two.select(["user"]).to_batches()[0])


@pytest.mark.parametrize("method", METHODS)
def test_training_batches_are_the_training_rows(method: str) -> None:
    table = log([*range(40)], [*range(40)])
    source = open_source(table)
    plan = plan_split(source, schema_of(table), method=method, holdout=0.25)
    wanted = [k for k, side in zip(range(40), sides(plan, table), strict=True) if not side]
    stream = training_batches(source, plan, ["item", "user"])
    for _ in range(2):
        got = pa.Table.from_batches(stream())
        assert got.column_names == ["item", "user"]
        assert got["user"].to_pylist() == wanted
    assert pa.Table.from_batches(training_batches(source, None)()).equals(table)


# ---- hashes


def test_a_hash_is_of_the_value_alone() -> None:
    numbers = [0, 1, -1, 7, 2**24 + 1]
    wanted = hash_values(pa.array(numbers, pa.int64())).tolist()
    assert len({*wanted}) == 5
    for kind in (pa.int32(), pa.float64()):
        assert hash_values(pa.array(numbers, kind)).tolist() == wanted
    chunks = pa.chunked_array([pa.array(numbers[:2]), pa.array(numbers[2:])])
    assert hash_values(chunks).tolist() == wanted
    assert hash_values(pa.array(numbers).dictionary_encode()).tolist() == wanted
    assert hash_values(pa.array([9, *numbers, 9]).slice(1, 5)).tolist() == wanted
    # A change of these constants would silently move rows between sides and groups.
    assert wanted[:2] == [16294208416658607535, 10451216379200822465]
    assert hash_values(pa.array(["user-1"])).tolist() == [USER_1]


USER_1 = 18359325689379401134


def test_texts_and_lists_hash_by_all_their_bytes() -> None:
    words = ["", "a", "b", "ab", "ba", "a" * 7, "a" * 8, "a" * 9, "a" * 16, "a\0", "\0", "\0\0"]
    words += [f"{'x' * k}{end}" for k in range(40) for end in "yz"]
    wanted = hash_values(pa.array(words)).tolist()
    assert len({*wanted}) == len(words)
    for kind in (pa.large_string(), pa.dictionary(pa.int16(), pa.string())):
        assert hash_values(pa.array(words, kind)).tolist() == wanted
    lists = [[], [1], [2], [1, 2], [2, 1], [1, 1], [None], None]
    for list_kind in (pa.list_(pa.int64()), pa.large_list(pa.int8())):
        found = hash_values(pa.array(lists, list_kind)).tolist()
        assert len({*found}) == len(lists)
        assert hash_values(pa.array(lists, list_kind).slice(3)).tolist() == found[3:]
    structs = pa.array([{"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": 1, "b": 2}, None])
    found = hash_values(structs).tolist()
    assert found[0] == found[2]
    assert len({*found}) == 3


def test_rows_hash_by_column() -> None:
    left, right = pa.array([1, 2]), pa.array([2, 1])
    assert len({*hash_rows({"a": left, "b": right}).tolist()}) == 2
    same = hash_rows({"b": right, "a": left})
    np.testing.assert_array_equal(hash_rows({"a": left, "b": right}), same)
    with pytest.raises(DataError, match="at least one column"):
        hash_rows({})
