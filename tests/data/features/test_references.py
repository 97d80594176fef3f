"""Each transform against a loop over rows, whole and cut into small chunks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from autorec.data.columns import Columns
from autorec.data.features import _keys, _table
from autorec.data.features._keys import contents
from autorec.data.features.base import Transform
from autorec.data.features.counts import Counts
from autorec.data.features.cross_ids import CrossIds
from autorec.data.features.date_parts import DateParts
from autorec.data.features.last_items import LastItems
from autorec.data.features.list_statistics import ListStatistics
from autorec.data.features.numeric_bins import NumericBins
from autorec.data.features.rates import Rates
from autorec.data.features.recency import Recency
from autorec.data.timeline import UNKNOWN
from autorec.schema import DenseField, Layout, ListField, SparseField
from autorec.seeding import derive

NAMES = ("user", "item", "c")
LAYOUT = Layout(
    sparse=tuple(SparseField(name, rows, name) for name, rows in zip(NAMES, (9, 7, 4))),
    lists=(ListField("tags", 6, 5),),
    dense=(DenseField("price", nullable=True),),
)
FIELDS = [("user",), ("c", "item"), ("user", "item", "c")]


def rows(n: int = 150, *, timed: bool = False, seed: int = 0) -> Columns:
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, field.rows, n) for field in LAYOUT.sparse], 1)
    dense = rng.normal(size=(n, 1)).round(1).astype(np.float32)
    dense[rng.random(n) < 0.1] = np.nan
    time = rng.integers(0, n // 2, n)
    time[rng.random(n) < 0.05] = UNKNOWN
    return Columns(
        LAYOUT,
        n,
        codes.astype(np.int32),
        {"tags": rng.integers(0, 6, (n, 5)).astype(np.int32)},
        dense,
        label=rng.integers(0, 2, n).astype(np.float32),
        group=rng.integers(0, 5, n),
        time=time if timed else None,
    )


TRAIN, TIMED = rows(), rows(timed=True)
OTHER, LATE = rows(40, seed=1), rows(40, timed=True, seed=1)


@pytest.fixture(params=["whole", "chunks", "sorted", "hashed"])
def paths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take every way through keys and tables, whatever the size of the data."""
    if request.param != "whole":
        monkeypatch.setattr(_keys, "CHUNK", 7)
    if request.param in ("sorted", "hashed"):
        monkeypatch.setattr(_table, "_DIRECT", 0)
        monkeypatch.setattr(_table, "_PENDING", 20)
        monkeypatch.setattr(_table, "_LARGE", 0)
        monkeypatch.setattr(_table, "_MANY", 3)
    if request.param == "hashed":
        monkeypatch.setattr(_keys, "_WIDEST", 1)
    return str(request.param)


def both(transform: Transform, train: Columns, other: Columns) -> tuple[Any, Any]:
    transform.fit(train)
    return transform.train_values(train), transform.apply(other)


def key(columns: Columns, i: int, fields: Iterable[str]) -> tuple[int, ...] | None:
    """The values of a row, None where one is out of vocabulary."""
    codes = tuple(int(columns.codes[i, NAMES.index(name)]) for name in fields)
    return None if 1 in codes else codes


def entity(columns: Columns, i: int, fields: Iterable[str]) -> tuple[int, ...] | None:
    codes = key(columns, i, fields)
    return None if codes is None or 0 in codes or columns.time[i] == UNKNOWN else codes


def seen(train: Columns, other: Columns, i: int, form: str) -> list[int]:
    """The training rows that row i of `other` may learn from."""
    every = range(len(train))
    if train is not other:
        return list(every)
    if form == "leave-one-out":
        return [j for j in every if j != i]
    if form == "ordered":
        return [j for j in every if train.time[j] < train.time[i]]
    folds = contents(train, derive(0, "features.rates")) % np.uint64(5)
    return [j for j in every if folds[j] != folds[i]]


def naive_count(train: Columns, other: Columns, fields: tuple[str, ...], form: str) -> list[float]:
    out = []
    for i in range(len(other)):
        mine = key(other, i, fields)
        same = [j for j in seen(train, other, i, form) if key(train, j, fields) == mine]
        out.append(math.log1p(len(same)) if mine else 0.0)
    return out


def naive_rate(train: Columns, other: Columns, fields: tuple[str, ...], form: str) -> list[float]:
    out = []
    for i in range(len(other)):
        known = seen(train, other, i, form)

        def shrunk(names: tuple[str, ...], prior: float, i: int = i, known: Any = known) -> float:
            mine = key(other, i, names)
            same = [j for j in known if mine and key(train, j, names) == mine]
            return (sum(train.label[same].tolist()) + 3.0 * prior) / (len(same) + 3.0)

        prior = sum(train.label[known].tolist()) / max(len(known), 1)
        single = [shrunk((name,), prior) for name in fields]
        rate = sum(single) / len(single)
        out.append(rate if len(fields) == 1 else shrunk(fields, rate))
    return out


@pytest.mark.parametrize("fields", FIELDS, ids=len)
@pytest.mark.parametrize("form", ["leave-one-out", "ordered"])
def test_counts(fields: tuple[str, ...], form: str, paths: str) -> None:
    train, other = (TIMED, LATE) if form == "ordered" else (TRAIN, OTHER)
    mine, theirs = both(Counts(fields, form), train, other)
    assert mine.dense[:, 0] == pytest.approx(naive_count(train, train, fields, form), rel=1e-6)
    assert theirs.dense[:, 0] == pytest.approx(naive_count(train, other, fields, form), rel=1e-6)


@pytest.mark.parametrize("fields", FIELDS, ids=len)
@pytest.mark.parametrize("form", ["out-of-fold", "leave-one-out", "ordered"])
def test_rates(fields: tuple[str, ...], form: str, paths: str) -> None:
    train, other = (TIMED, LATE) if form == "ordered" else (TRAIN, OTHER)
    mine, theirs = both(Rates(fields, form, strength=3.0), train, other)
    assert mine.dense[:, 0] == pytest.approx(naive_rate(train, train, fields, form), rel=1e-6)
    assert theirs.dense[:, 0] == pytest.approx(naive_rate(train, other, fields, form), rel=1e-6)


@pytest.mark.parametrize("form", ["out-of-fold", "leave-one-out", "ordered"])
def test_statistics_of_what_was_never_seen(form: str) -> None:
    unknown = [
        replace(c, codes=np.maximum(c.codes * [0, 1, 1], [[1, 0, 0]])) for c in (TIMED, LATE)
    ]
    for fields in FIELDS:
        mine, theirs = both(Rates(fields, form, strength=3.0), *unknown)
        want = naive_rate(unknown[0], unknown[0], fields, form)
        assert mine.dense[:, 0] == pytest.approx(want, rel=1e-6)
        want = naive_rate(*unknown, fields, form)
        assert theirs.dense[:, 0] == pytest.approx(want, rel=1e-6)
    for values in both(Counts(("user", "item")), *unknown):
        assert not values.dense.any()


@pytest.mark.parametrize(("kind", "plain"), [(Counts, "leave-one-out"), (Rates, "out-of-fold")])
def test_auto_takes_the_order_where_there_is_one(kind: Any, plain: str) -> None:
    for columns, form in ((TIMED, "ordered"), (TRAIN, plain)):
        auto, told = kind(("user",)), kind(("user",), form)
        for transform in (auto, told):
            transform.fit(columns)
        values = [t.train_values(columns).dense for t in (auto, told)]
        np.testing.assert_array_equal(*values)


def test_a_fold_is_of_the_row_and_not_of_its_label_or_place() -> None:
    double = TRAIN.take(np.r_[0:150, 0:150])
    flipped = replace(double, label=1 - double.label)
    folds = contents(double, 3)
    np.testing.assert_array_equal(folds[:150], folds[150:])
    np.testing.assert_array_equal(folds, contents(flipped, 3))
    assert len(np.unique(folds)) == 150
    assert (contents(double, 4) != folds).all()
    parts = np.bincount((folds[:150] % np.uint64(5)).astype(int), minlength=5)
    assert parts.min() > 15


def test_support_moves_a_rate_from_its_prior_to_its_mean() -> None:
    codes = np.zeros((1001, 3), np.int32) + 2
    codes[1000] = 3
    label = np.zeros(1001, np.float32)
    label[1000] = 1.0
    columns = replace(TRAIN.take(np.zeros(1001, int)), codes=codes, label=label)
    _, values = both(Rates(("user",), strength=10.0), columns, columns.take([0, 1000]))
    assert values.dense[:, 0] == pytest.approx([0.01 / 1010.99, (1 + 10 / 1001) / 11], abs=1e-5)


@pytest.mark.parametrize("fields", FIELDS[1:], ids=len)
@pytest.mark.parametrize(("least", "limit"), [(1, 1000), (2, 1000), (2, 5), (4, 1)])
def test_cross_ids(fields: tuple[str, ...], least: int, limit: int, paths: str) -> None:
    transform = CrossIds(fields, min_count=least, limit=limit, buckets=3)
    mine, theirs = both(transform, TRAIN, OTHER)
    keys = [key(TRAIN, i, fields) for i in range(len(TRAIN))]
    count = {k: keys.count(k) for k in keys if k and keys.count(k) >= least}
    code: dict[Any, int] = {}
    for columns, values in ((TRAIN, mine), (OTHER, theirs)):
        for i in range(len(columns)):
            got, k = int(values.codes[i, 0]), key(columns, i, fields)
            if k not in count:
                assert got == 1
            else:
                assert code.setdefault(k, got) == got >= 2
    own = {k: c for k, c in code.items() if c < 2 + limit}
    assert len(set(own.values())) == len(own) == min(limit, len(count))
    assert all(
        count[a] >= count[b]
        for a, b in itertools.permutations(code, 2)
        if own.get(a, 1e9) < code[b]
    )
    over = set(code.values()) - set(own.values())
    assert over <= {2 + limit, 3 + limit, 4 + limit}
    rows_wanted = 2 + min(limit, len(count)) + (3 if len(count) > limit else 0)
    assert transform.layout.sparse[0].rows == rows_wanted


@pytest.mark.parametrize("fields", FIELDS, ids=len)
def test_recency(fields: tuple[str, ...], paths: str) -> None:
    transform = Recency(fields, windows=(3, 20), unit="s")
    for columns, values in zip((TIMED, LATE), both(transform, TIMED, LATE)):
        for i in range(len(columns)):
            mine, now = entity(columns, i, fields), int(columns.time[i])
            events = [
                int(TIMED.time[j])
                for j in range(len(TIMED))
                if mine and entity(TIMED, j, fields) == mine and TIMED.time[j] < now
            ]
            near = [math.log1p(sum(t >= now - w for t in events)) for w in (3, 20)]
            since = math.log1p(now - max(events)) if events else math.nan
            want = [since, float(bool(events)), *near]
            assert values.dense[i] == pytest.approx(want, rel=1e-6, nan_ok=True)
    names = [field.name for field in transform.layout.dense]
    start = "*".join(fields)
    assert names == [f"{start}.{part}" for part in ("since", "seen", "within_3s", "within_20s")]


@pytest.mark.parametrize("unit", ["ms", "us", "auto"])
def test_recency_counts_seconds_in_every_unit(unit: str) -> None:
    ticks = {"ms": 1_000, "us": 1_000_000, "auto": 1_000_000_000}[unit]
    start = 0 if unit != "auto" else 1_700_000_000
    known = np.where(TIMED.time == UNKNOWN, UNKNOWN, (start + TIMED.time) * ticks)
    scaled = replace(TIMED, time=known)
    want, _ = both(Recency(("user",), unit="s"), TIMED, LATE)
    got, _ = both(Recency(("user",), unit=unit), scaled, scaled)
    np.testing.assert_allclose(got.dense, want.dense, rtol=1e-6)


@pytest.mark.parametrize("length", [1, 3, 200])
def test_last_items(length: int, paths: str) -> None:
    transform = LastItems("user", "item", length)
    for columns, values in zip((TIMED, LATE), both(transform, TIMED, LATE)):
        for i in range(len(columns)):
            mine = entity(columns, i, ["user"])
            events = sorted(
                (int(TIMED.time[j]), int(TIMED.codes[j, 1]))
                for j in range(len(TIMED))
                if mine
                and entity(TIMED, j, ["user"]) == mine
                and TIMED.time[j] < columns.time[i]
                and TIMED.codes[j, 1] != 0
            )
            items = [item for _, item in events][-length:]
            want = items + [0] * (length - len(items))
            assert values.lists["item.last"][i].tolist() == want
    assert transform.layout.lists == (ListField("item.last", 7, length),)


@pytest.mark.parametrize("ticks", [1, 1_000, 1_000_000])
def test_date_parts(ticks: int) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    seconds = np.r_[np.random.default_rng(0).integers(2**28, 2**31, 150), [-1, 0, 951_782_399]]
    time = np.r_[seconds * ticks + ticks // 2, [UNKNOWN]]
    columns = replace(TIMED.take(np.zeros(154, int)), time=time)
    values, _ = both(DateParts(), columns, columns)
    for i, second in enumerate(seconds.tolist()):
        date = epoch + timedelta(seconds=second)
        parts = [date.hour, date.weekday(), date.day - 1, int(date.weekday() >= 5)]
        assert values.codes[i].tolist() == [2 + part for part in parts]
        day = date.hour * 3600 + date.minute * 60 + date.second + (ticks // 2) / ticks
        week = (date.weekday() * 86_400 + day) / 604_800
        angles = [2 * math.pi * share for share in (day / 86_400, week)]
        want = [wave(angle) for angle in angles for wave in (math.sin, math.cos)]
        assert values.dense[i] == pytest.approx(want, abs=1e-6)
    assert values.codes[-1].tolist() == [0, 0, 0, 0]
    assert np.isnan(values.dense[-1]).all()


def test_list_statistics(paths: str) -> None:
    transform = ListStatistics("tags")
    values, _ = both(transform, TRAIN, OTHER)
    lists = [[v for v in row if v] for row in TRAIN.lists["tags"].tolist()]
    want = [[math.log1p(len(row)), math.log1p(len(set(row)))] for row in lists]
    np.testing.assert_allclose(values.dense, want, rtol=1e-6)


@pytest.mark.parametrize("bins", [2, 5, 200])
def test_quantile_bins(bins: int, paths: str) -> None:
    transform = NumericBins("price", bins=bins)
    values, theirs = both(transform, TRAIN, OTHER)
    price, code = TRAIN.dense[:, 0], values.codes[:, 0]
    np.testing.assert_array_equal(code == 0, np.isnan(price))
    known = np.argsort(price[code > 0])
    assert (np.diff(code[code > 0][known]) >= 0).all()
    held = np.bincount(code[code > 0])[2:]
    assert (
        len(held)
        == transform.layout.sparse[0].rows - 2
        == min(bins, len(np.unique(price[code > 0])))
    )
    most = max(np.unique(price, return_counts=True)[1])
    assert held.max() <= (code > 0).sum() / bins + most
    pairs = dict(zip(price.tolist(), code.tolist()))
    both_seen = [
        (pairs[p], c) for p, c in zip(OTHER.dense[:, 0].tolist(), theirs.codes[:, 0]) if p in pairs
    ]
    assert both_seen and all(a == b for a, b in both_seen)


@pytest.mark.parametrize("log", [False, True])
def test_log_square_bins(log: bool, paths: str) -> None:
    raw = np.r_[-5.0, -1.0, 0.0, 0.5, np.arange(1, 147)]
    mean, std = (2.0, 1.5) if log else (40.0, 35.0)
    stored = np.copysign(np.log1p(abs(raw)), raw) if log else raw
    dense = ((stored - mean) / std).astype(np.float32)[:, None]
    columns = replace(TRAIN, dense=dense)
    transform = NumericBins("price", "log-square", log=log, mean=mean, std=std)
    values, _ = both(transform, columns, columns)
    want = [
        2 + ((x >= 0) + (x >= 1) if x < 2 else 3 + math.floor(math.log(x) ** 2))
        for x in raw.tolist()
    ]
    assert values.codes[:, 0].tolist() == want
    beyond = replace(columns.take([0]), dense=np.full((1, 1), 9.0, np.float32))
    assert transform.apply(beyond).codes[0, 0] == max(want) == transform.layout.sparse[0].rows - 1
