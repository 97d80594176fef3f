"""Telling user columns from item columns; remembering last values, counts and seen items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autorec.data import running
from autorec.data.encoder import Encoder
from autorec.data.entities import Entities
from autorec.data.labels import LabelMap
from autorec.data.remember import agreement, remember
from autorec.data.running import Latest, Met, Sample
from autorec.data.sources import open_source
from autorec.schema import Field, Kind, Role, Schema

KINDS = {"num": Kind.NUMERIC, "list": Kind.LIST, "id": Kind.ID, "cat": Kind.CATEGORICAL}
ROLES = {"user": Role.USER, "item": Role.ITEM, "label": Role.LABEL, "ts": Role.TIMESTAMP}


class Pieces:
    """A source that gives a table in pieces of a few rows."""

    def __init__(self, table: pa.Table, rows: int) -> None:
        self.table, self.rows, self.schema = table, rows, table.schema

    def batches(self, columns: Any = None, batch_rows: int = 0) -> Iterator[pa.RecordBatch]:
        yield from self.table.select(columns).to_batches(max_chunksize=self.rows)


def schema_of(table: pa.Table, **kinds: str) -> Schema:
    fields = []
    for column in table.schema:
        role = ROLES.get(column.name, Role.FEATURE)
        kind = KINDS[kinds.get(column.name, "id" if role in (Role.USER, Role.ITEM) else "cat")]
        kind = Kind.TIMESTAMP if role is Role.TIMESTAMP else kind
        fields.append(Field(column.name, kind, role, str(column.type)))
    return Schema(tuple(fields))


def remembered(table: pa.Table, rows: int = 10**6, binary: bool = True, **more: Any) -> Entities:
    kinds = {name: more.pop(name) for name in list(more) if more[name] in KINDS}
    schema = schema_of(table, **kinds)
    source = open_source(table)
    encoder = Encoder.fit(lambda: source.batches(), schema, min_count=1)
    label = LabelMap(kind="binary", negative=0, positive=1) if binary else LabelMap(kind="number")
    return remember(Pieces(table, rows), schema, encoder, label, **more)  # type: ignore[arg-type]


def crafted(rows: int = 4000, noise: float = 0.0, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    user, item = rng.integers(50, size=rows), rng.integers(80, size=rows)
    spoilt = rng.random(rows) < noise
    tags = [[f"t{i % 7}", f"t{i % 3}"][: i % 3] for i in range(80)]
    return pa.table(
        {
            "label": rng.integers(2, size=rows),
            "user": user,
            "item": item,
            "age": np.where(spoilt, -1, user * 3 % 11),
            "income": np.where(spoilt, 0.5, user * 0.25),
            "brand": [None if i % 9 == 0 else f"b{i % 5}" for i in item],
            "tags": pa.array([tags[i] for i in item], pa.list_(pa.string())),
            "hour": rng.integers(24, size=rows),
            "both": (user + item) % 4,
            "one": np.full(rows, 7),
            "noise": rng.normal(size=rows),
        }
    )


SIDES = {
    **{"user": "user", "age": "user", "income": "user"},
    **{"item": "item", "brand": "item", "tags": "item"},
    **{"hour": "context", "both": "context", "one": "context", "noise": "context"},
}


@pytest.mark.parametrize("noise", [0.0, 0.0005])
@pytest.mark.parametrize("cap", [100_000, 1000])
def test_columns_are_told_apart(noise: float, cap: int) -> None:
    found = remembered(
        crafted(20_000, noise), income="num", noise="num", tags="list", sample_rows=cap
    )
    assert found.sides == SIDES
    assert found.sides["hour"] == found.sides["both"] == "context"


def test_a_column_that_changes_is_context() -> None:
    found = remembered(crafted(20_000, 0.01), income="num", noise="num", tags="list")
    assert found.sides == {**SIDES, "age": "context", "income": "context"}


def test_repeats_of_one_pair_say_nothing() -> None:
    user = np.repeat(np.arange(30), 10)
    table = pa.table({"label": user % 2, "user": user, "item": user + 100, "price": user % 7})
    assert remembered(table).sides["price"] == "context"
    more = pa.table({"label": [0, 1] * 4, "user": [0, 1] * 4, "item": [100, 101, 102, 103] * 2})
    more = more.append_column("price", pa.array([0, 1, 2, 3] * 2))
    assert remembered(more).sides["price"] == "context"  # each item met one user
    table = pa.table({"label": [0, 1, 0, 1], "user": [0, 1, 1, 0], "item": [5, 6, 5, 6]})
    table = table.append_column("price", pa.array([3, 4, 3, 4]))
    assert remembered(table).sides["price"] == "item"


def test_one_user_is_no_evidence() -> None:
    table = pa.table({"label": [0, 1] * 20, "user": [1] * 40, "item": [*range(20)] * 2})
    table = table.append_column("age", pa.array([3] * 40))
    assert remembered(table).sides == {"user": "user", "item": "item", "age": "context"}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 3)), max_size=25))
def test_agreement_is_the_share_of_modes(rows: list[tuple[int, int, int]]) -> None:
    key, value, other = (np.array([r[i] for r in rows], np.int64) for i in range(3))
    groups = {k: [v for kk, v, _ in rows if kk == k] for k in set(key.tolist())}
    met = {k: len({o for kk, _, o in rows if kk == k}) for k in groups}
    kept = [values for k, values in groups.items() if met[k] > 1]
    want = 0.0
    if len(kept) > 1 and len(set(value.tolist())) > 1:
        want = sum(max(map(v.count, v)) for v in kept) / sum(map(len, kept))
    got = agreement(key.astype(np.uint64), value, other.astype(np.uint64))
    assert got == pytest.approx(want)


LOG = {
    "label": [1, 1, 0, 1, 1, 0, 1, 1],
    "user": ["a", "b", "a", None, "a", "b", "a", "b"],
    "item": [3, 4, 5, 3, 4, 3, 3, None],
    "ts": [50, 60, 40, 10, 20, 30, 70, 80],
    "age": [1, 2, 1, 9, 1, 3, 1, 2],
}


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_the_last_row_in_time_is_remembered(rows: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(running, "_WAITING", 2)
    found = remembered(pa.table(LOG), rows)
    assert found.users.to_pydict() == {
        "user": ["a", "b"],
        "#count": [4, 3],
        "#seen": [[1, 0], [1]],  # item 4 at 20, item 3 at 50 and 70; item 5 had no click
    }
    assert found.items.to_pydict() == {
        "item": [3, 4, 5],
        "#count": [4, 2, 1],
        "#mean": [0.75, 1.0, 0.0],
    }


def test_all_rows_are_seen_where_labels_are_numbers() -> None:
    table = pa.table({name: v for name, v in LOG.items() if name != "ts"})
    found = remembered(table, binary=False)
    assert found.users["#seen"].to_pylist() == [[2, 1, 0], [1, 0]]
    few = remembered(table, binary=False, seen=1)
    assert few.users["#seen"].to_pylist() == [[0], [0]]
    limited = remembered(table, binary=False, seen=4, pairs=2)
    assert limited.users["#seen"].to_pylist() == [[0], [0]]


def naive_last(rows: list[tuple[int, int, int]]) -> dict[int, tuple[int, int, int, int]]:
    out: dict[int, tuple[int, int, int, int]] = {}
    for number, (key, when, _) in enumerate(rows):
        best = max((t, n) for n, (k, t, _) in enumerate(rows) if k == key)
        own = [(n, v) for n, (k, _, v) in enumerate(rows) if k == key]
        out[key] = (best[1], len(own), sum(v for _, v in own), own[0][0])
        assert number >= 0 and when <= best[0]
    return out


ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(-3, 3), st.integers(0, 5)), min_size=1, max_size=30
)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(1, 8), st.integers(1, 6))
def test_running_summaries_equal_loops(rows: Any, cut: int, cap: int) -> None:
    before, running._WAITING = running._WAITING, 3
    latest, met = Latest(), Met(cap, 10**6)
    for start in range(0, len(rows), cut):
        part = rows[start : start + cut]
        key = np.array([k for k, _, _ in part], np.uint64)
        time = np.array([t for _, t, _ in part], np.int64)
        value = np.array([v for _, _, v in part])
        number = np.arange(start, start + len(part))
        latest.add(pa.table({"n": number}), key, time, number, value.astype(float))
        met.add(key, value.astype(np.uint64), time, number)
    latest.finish(pa.schema([("n", pa.int64())]))
    running._WAITING = before
    number = latest.table["n"].to_pylist()
    picked = zip(number, latest.count, latest.total, latest.first, strict=True)
    assert dict(zip(latest.key.tolist(), picked, strict=True)) == naive_last(rows)
    users, items = np.unique([k for k, _, _ in rows]), np.arange(6)
    want = []
    for user in users:
        last = {
            v: max((t, n) for n, (k, t, w) in enumerate(rows) if (k, w) == (user, v))
            for k, _, v in rows
            if k == user
        }
        want.append(sorted(last, key=lambda v: last[v])[-cap:])
    got = met.lists(users.astype(np.uint64), items.astype(np.uint64)).to_pylist()
    assert got == want


def test_a_sample_is_bounded_and_keeps_keys_whole() -> None:
    rng = np.random.default_rng(0)
    sample, few = Sample(500), Sample(500)
    keys = rng.integers(0, 3000, 30_000).astype(np.uint64)
    for start in range(0, len(keys), 1000):
        rows = np.arange(start, start + 1000)
        batch = pa.record_batch({"key": keys[rows], "row": rows})
        sample.add(batch, keys[rows], rows)
        few.add(batch, keys[rows] % np.uint64(4), rows)
    kept = sample.table().to_pandas()
    assert 50 <= len(kept) <= 500
    for key, part in kept.groupby("key"):
        assert len(part) == (keys == key).sum()
    assert 50 <= len(few.table()) <= 500
    assert set(few.table()["key"].to_numpy() % 4) == {0, 1, 2, 3}


def test_categories_and_nulls_are_remembered_as_values() -> None:
    table = pa.table(
        {
            "label": [0, 1] * 6,
            "user": pa.array(["a", "b", "c"] * 4).dictionary_encode(),
            "item": [*range(4)] * 3,
            "brand": pa.array([None, "x", "y", "x"] * 3).dictionary_encode(),
        }
    )
    found = remembered(table)
    assert found.sides["brand"] == "item"
    assert found.items.schema.field("brand").type == pa.string()
    assert found.items.sort_by("item")["brand"].to_pylist() == [None, "x", "y", "x"]
    assert found.usual("item")["brand"] == "x"
