"""The live state against fitted transforms, loops over events, and the bounds that it states."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autorec.data import _state_cells, _state_keys, _state_rings
from autorec.data._state_keys import ABSENT, KeyTable
from autorec.data._state_rings import Buckets, Rings
from autorec.data._state_sketch import Sketch
from autorec.data.columns import Columns
from autorec.data.features.base import TRANSFORMS, Transform, joined
from autorec.data.features.counts import Counts
from autorec.data.features.cross_ids import CrossIds
from autorec.data.features.last_items import LastItems
from autorec.data.features.rates import Rates
from autorec.data.features.recency import Recency
from autorec.data.state import Limits, LiveState
from autorec.data.timeline import UNKNOWN
from autorec.errors import ConfigError, NotFittedError, RankerError
from autorec.schema import DenseField, Layout, ListField, SparseField

SIZES = {"user": 9, "item": 7, "c": 4}
LAYOUT = Layout(
    sparse=tuple(SparseField(name, rows, name) for name, rows in SIZES.items()),
    lists=(ListField("tags", 6, 5),),
    dense=(DenseField("price", nullable=True),),
)


def rows(n: int = 150, *, seed: int = 0, label: bool = True) -> Columns:
    """Rows with nulls, unknown values, equal rows, ties and null times."""
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, size, n) for size in SIZES.values()], 1)
    time = rng.integers(0, n // 2, n)
    time[rng.random(n) < 0.05] = UNKNOWN
    return Columns(
        LAYOUT,
        n,
        codes.astype(np.int32),
        {"tags": rng.integers(0, 6, (n, 5)).astype(np.int32)},
        rng.normal(size=(n, 1)).astype(np.float32),
        label=rng.normal(size=n).round(1).astype(np.float32) if label else None,
        time=time,
    )


TRAIN = rows()
LATE = replace(rows(40, seed=1, label=False), time=np.full(40, 200))


def moving() -> list[Transform]:
    """Statistics of every kind whose training values are ordered."""
    return [
        Counts(("user",)),
        Recency(("item",), (3, 20), unit="s"),
        Rates(("user", "item", "c"), strength=3.0),
        Counts(("item", "c")),
        Rates(("item",), strength=3.0),
        LastItems("user", "item", 4),
        Rates(("c", "user")),
        Recency(("user", "c"), (7,), unit="s"),
        Counts(("user", "item", "c")),
    ]


def fitted(made: list[Transform], columns: Columns = TRAIN) -> list[Transform]:
    for each in made:
        each.fit(columns)
    return made


def assert_same(state_values: Any, values: list[Any]) -> None:
    """Compare with the columns of the transforms side by side."""
    np.testing.assert_array_equal(state_values.dense, np.concatenate([v.dense for v in values], 1))
    np.testing.assert_array_equal(state_values.codes, np.concatenate([v.codes for v in values], 1))
    lists = {name: each for v in values for name, each in v.lists.items()}
    assert state_values.lists.keys() == lists.keys()
    for name, each in lists.items():
        np.testing.assert_array_equal(state_values.lists[name], each)


@pytest.fixture(params=["direct", "looked-up", "wide"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take every way from codes to cells, whatever the size of the data."""
    if request.param != "direct":
        monkeypatch.setattr(_state_cells, "_DIRECT", 1)
    if request.param == "wide":
        monkeypatch.setattr(_state_cells, "_EXACT", 2)
    return str(request.param)


@pytest.mark.parametrize("columns", [LATE, LATE.take([7]), LATE.take(slice(0, 0))], ids=len)
def test_right_after_fit_it_gives_what_the_transforms_give(ways: str, columns: Columns) -> None:
    every = [k for name in TRANSFORMS.names() for k in TRANSFORMS.get(name).cases(LAYOUT, True)]
    names: set[str] = set()
    unlike = []
    for each in fitted([*every, *moving()]):
        layout = each.layout
        mine = {f.name for f in (*layout.sparse, *layout.lists, *layout.dense)}
        if not mine & names:
            names |= mine
            unlike.append(each)
    assert {type(each).__name__ for each in unlike} >= {"Counts", "Rates", "CrossIds", "DateParts"}
    state = LiveState.of(unlike, limits=Limits(depth=200))
    assert_same(state.apply(columns), [each.apply(columns) for each in unlike])
    wide = joined(columns, [(state.layout, state.apply(columns))])
    assert len(wide.layout.dense) == wide.dense.shape[1]


def test_replay_from_nothing_gives_the_ordered_values_of_training(ways: str) -> None:
    made = fitted(moving())
    state = LiveState.of(made, empty=True, limits=Limits(depth=200))
    want = [each.train_values(TRAIN) for each in made]
    assert_same(state.replay(TRAIN), want)
    assert_same(state.apply(LATE), [each.apply(LATE) for each in made])


def test_one_row_after_the_other() -> None:
    order = np.lexsort((np.arange(150), TRAIN.time))
    columns = replace(TRAIN.take(order), time=np.arange(150))  # no ties, so that order is all
    made = fitted(moving(), columns)
    state = LiveState.of(made, empty=True, limits=Limits(depth=200))
    got = []
    for i in range(150):
        got.append(state.apply(columns.take([i])).dense)
        state.update(columns.take([i]))
    want = np.concatenate([each.train_values(columns).dense for each in made], 1)
    np.testing.assert_array_equal(np.concatenate(got), want)


def test_updates_give_what_a_fit_on_all_rows_gives() -> None:
    more = replace(rows(90, seed=5), time=np.sort(rows(90, seed=5).time % 75) + 75)
    both = replace(
        TRAIN.take(np.r_[0:150, 0:90]),
        codes=np.concatenate([TRAIN.codes, more.codes]),
        label=np.concatenate([TRAIN.label, more.label]),
        time=np.concatenate([TRAIN.time, more.time]),
    )
    state = LiveState.of(fitted(moving()), limits=Limits(depth=300))
    state.update(more.take(slice(0, 1)))
    state.update(more.take(slice(1, 90)))
    assert_same(state.apply(LATE), [each.apply(LATE) for each in fitted(moving(), both)])


def test_an_event_and_its_label_may_come_apart() -> None:
    whole = LiveState.of(fitted(moving()), limits=Limits(depth=200))
    apart = LiveState.of(fitted(moving()), limits=Limits(depth=200))
    events = replace(rows(30, seed=3), time=np.arange(160, 190))
    whole.update(events)
    apart.update(replace(events, label=None))
    before = apart.apply(LATE).dense
    unknown = replace(events, label=np.where(np.arange(30) < 10, np.nan, events.label))
    apart.update(unknown, seen=False)
    known_later = replace(events, label=np.where(np.arange(30) < 10, events.label, np.nan))
    apart.update(known_later, seen=False)
    np.testing.assert_array_equal(apart.apply(LATE).dense, whole.apply(LATE).dense)
    assert (before != whole.apply(LATE).dense).any()


def test_saved_and_loaded_it_goes_on_the_same(ways: str, tmp_path: Path) -> None:
    made = fitted([*moving(), CrossIds(("user", "item"), 1)])
    limits = Limits(keys=20, depth=2, parts=4, entities=6)
    state = LiveState.of(made, limits=limits)
    state.update(replace(rows(30, seed=3), time=np.arange(160, 190)))
    state.save(tmp_path / "state")
    again = LiveState.load(tmp_path / "state")
    assert again.limits == limits
    assert again.layout == state.layout
    for _ in range(2):
        assert_same(again.apply(LATE), [state.apply(LATE)])
        for one in (state, again):
            one.update(replace(rows(30, seed=4), time=np.arange(170, 200)))
    state.save(tmp_path / "state")  # over itself
    body = (tmp_path / "state" / "state.json").read_text("utf-8")
    (tmp_path / "state" / "state.json").write_text(body.replace('"depth": 2', '"depth": 3'))
    with pytest.raises(RankerError, match=r"state\.json was altered"):
        LiveState.load(tmp_path / "state")


def test_making_a_state_leaves_the_transforms_as_they_were() -> None:
    made = fitted(moving())
    before = [each.apply(LATE) for each in made]
    state = LiveState.of(made)
    state.update(replace(TRAIN, time=TRAIN.time + 200))
    for each, want in zip(made, before, strict=True):
        np.testing.assert_array_equal(each.apply(LATE).dense, want.dense)


def test_what_it_refuses() -> None:
    with pytest.raises(NotFittedError, match="call fit first"):
        LiveState.of([Counts(("user",))])
    rates = [*fitted([Rates(("user",))]), *fitted([Rates(("item",))], TRAIN.take(slice(0, 9)))]
    with pytest.raises(ConfigError, match="rates of one state are fitted on the same rows"):
        LiveState.of(rates)
    state = LiveState.of(fitted(moving()))
    with pytest.raises(ConfigError, match=r"Recency needs \['a timestamp'\]"):
        state.apply(replace(LATE, time=None))
    with pytest.raises(ConfigError, match="replay follows the times"):
        state.replay(replace(LATE, time=None))
    wider = replace(LAYOUT, sparse=(SparseField("user", 10, "user"), *LAYOUT.sparse[1:]))
    with pytest.raises(ConfigError, match=r"sizes \{'user': \[9, 1\]\}, but got"):
        state.apply(replace(LATE, layout=wider))
    with pytest.raises(ConfigError, match=r"epsilon lies between 0 and 1, but got 1\.0"):
        Limits(epsilon=1.0)
    with pytest.raises(ConfigError, match="entities must be at least 4, but got 3"):
        Limits(entities=3)


def zipf(n: int, keys: int, seed: int) -> np.ndarray[Any, Any]:
    """A stream whose key k comes about 1 / (k + 1) as often as key 0, spread over int64."""
    share = 1.0 / np.arange(1, keys + 1)
    drawn = np.random.default_rng(seed).choice(keys, n, p=share / share.sum())
    return drawn * 1_000_003


@pytest.mark.parametrize("seed", range(3))
def test_the_sketch_keeps_its_bound_on_a_skewed_stream(seed: int) -> None:
    epsilon, delta = 2e-3, 0.05
    stream = zipf(60_000, 20_000, seed)
    sketch = Sketch(1, epsilon=epsilon, delta=delta, seed=seed)
    plain = np.zeros_like(sketch.cells[0])
    for part in np.array_split(stream, 100):
        keys, count = np.unique(part, return_counts=True)
        sketch.add(keys, count[None].astype(float))
        for place in sketch._places(keys).T:
            np.add.at(plain, place, count)
    keys, true = np.unique(stream, return_counts=True)
    error = sketch.read(keys)[0] - true
    assert (error >= 0).all()
    # One draw of the hashes has about delta of the keys outside; a third more is chance.
    assert (error > epsilon * len(stream)).mean() <= delta * 1.33
    assert (sketch.read(keys)[0] <= plain[sketch._places(keys)].min(1)).all()
    assert error.mean() < 0.7 * (plain[sketch._places(keys)].min(1) - true).mean()
    absent = np.arange(5, 5000, 10)
    assert (sketch.read(absent)[0] > epsilon * len(stream)).mean() <= delta * 1.33


def test_keys_beyond_the_limit_are_estimated_and_frequent_ones_stay_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_state_cells, "_DIRECT", 1)
    n, users = 20_000, 3000
    layout = Layout(sparse=(SparseField("user", users, "user"),))
    codes = (2 + zipf(n, users - 2, 0) // 1_000_003).astype(np.int32)[:, None]
    label = np.random.default_rng(0).normal(size=n).astype(np.float32)
    none = np.zeros((n, 0), np.float32)
    columns = Columns(layout, n, codes, {}, none, label=label)
    made = [Counts(("user",)), Rates(("user",))]
    fitted(made, columns)
    state = LiveState.of(made, limits=Limits(keys=100, epsilon=1e-3, delta=1e-3))
    assert state._statistics.cells._table.used == 100
    one_each = columns.take(np.unique(codes[:, 0], return_index=True)[1])
    want, got = made[0].apply(one_each).dense[:, 0], state.apply(one_each).dense[:, 0]
    frequent = np.argsort(-want)[:90]
    np.testing.assert_array_equal(got[frequent], want[frequent])
    over = np.expm1(got.astype(np.float64)) - np.expm1(want.astype(np.float64))
    assert over.min() > -1e-3 * n and (over[over > 0.5] <= 1e-3 * n).mean() > 0.99
    rate = np.abs(state.apply(one_each).dense[:, 1] - made[1].apply(one_each).dense[:, 0])
    assert rate.max() < 0.5 and np.median(rate) < 0.01
    cells = state._statistics.cells
    size = sum(sketch.cells.nbytes for sketch in cells.sketches.values()) + cells._seen.nbytes
    rest = columns.take(slice(0, 5000))
    for _ in range(5):
        state.update(rest)
    assert size == sum(s.cells.nbytes for s in cells.sketches.values()) + cells._seen.nbytes
    unknown = replace(columns, codes=np.ones((n, 1), np.int32)).take([0])
    assert state.apply(unknown).dense[0, 0] == 0.0


def test_entities_beyond_the_limit_are_forgotten_oldest_first() -> None:
    rings = Rings(2, 8)
    for moment in range(100):
        key = np.array([moment % 3, 10 + moment])
        row, _ = rings.room(key)
        rings.add(row, np.full(2, moment), key)
        assert len(rings) <= 8
    every = np.ones(3, np.bool_)
    row = rings.rows(np.arange(3), every)
    np.testing.assert_array_equal(rings.time[row], [[96, 99], [94, 97], [95, 98]])
    np.testing.assert_array_equal(rings.value[row], [[0, 0], [1, 1], [2, 2]])
    assert rings.rows(np.array([10 + 99]), every[:1])[0] > 0
    assert rings.rows(np.array([10]), every[:1])[0] == 0


def test_late_events_take_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    key, time, value = rng.integers(0, 5, 200), rng.permutation(200), rng.integers(1, 9, 200)
    rings = Rings(6, 100)
    for part in np.array_split(np.arange(200), 17):
        row, _ = rings.room(key[part])
        rings.add(row, time[part], value[part])
    for one in range(5):
        mine = np.flatnonzero(key == one)
        last = mine[np.argsort(time[mine])][-6:]
        row = int(rings.rows(np.array([one]), np.ones(1, np.bool_))[0])
        assert rings.time[row].tolist() == time[last].tolist()
        assert rings.value[row].tolist() == value[last].tolist()
        assert rings.dropped[row] == np.sort(time[mine])[-7]
    assert _state_rings.NOBODY == 0
    assert (rings.time[0] == UNKNOWN).all()


@pytest.mark.parametrize("depth", [1, 5])
def test_busy_windows_are_off_by_one_part_at_most(depth: int) -> None:
    rng = np.random.default_rng(depth)
    n, parts = 4000, 8
    time = np.sort(rng.integers(0, 20_000, n))
    codes = np.full((n, 3), 3, np.int32)
    codes[:, 1] = rng.integers(2, 4, n)
    none = np.zeros((n, 5), np.int32)
    dense = np.zeros((n, 1), np.float32)
    columns = Columns(LAYOUT, n, codes, {"tags": none}, dense, time=time)
    made = Recency(("item",), (30, 400, 3000), unit="s")
    made.fit(columns)
    state = LiveState.of([made], empty=True, limits=Limits(depth=depth, parts=parts))
    for part in np.array_split(np.arange(n), 50):
        now = columns.take(part)
        ask = replace(now.take([0]), time=now.time[-1:] + 1)
        state.update(now)
        got = np.expm1(state.apply(ask).dense[0].astype(np.float64))
        mine = time[: part[-1] + 1][codes[: part[-1] + 1, 1] == ask.codes[0, 1]]
        assert got[0] == pytest.approx(ask.time[0] - mine.max(), rel=1e-6)
        for place, window in enumerate((30, 400, 3000), 2):
            low = ask.time[0] - window
            true = (mine >= low).sum()
            length = -(-window // parts)
            edge = (mine // length == low // length).sum()
            assert abs(got[place] - true) <= edge + 0.5 + 1e-3


def test_buckets_follow_their_rows_when_others_are_forgotten() -> None:
    buckets = Buckets((100,), 4)
    buckets.add(np.array([1, 2, 2, 3, 3, 3]), np.full(6, 50), 4)
    moved = np.array([0, 0, 2, 1])
    buckets.move(moved, 6)
    near = buckets.near(np.array([1, 2, 3]), np.full(3, 60), 0)
    assert near.tolist() == [3, 2, 0]


def test_a_key_table_is_a_dictionary() -> None:
    rng = np.random.default_rng(0)
    table: KeyTable = KeyTable()
    known: dict[int, int] = {}
    for _ in range(30):
        keys = np.unique(rng.integers(0, 2**62, 300) // rng.choice([1, 2**40, 2**55]))
        places = table.find(keys)
        assert places.tolist() == [known.get(key, ABSENT) for key in keys.tolist()]
        new = keys[places == ABSENT]
        mine = 1 + table.used + np.arange(len(new))
        table.add(new, mine)
        known |= dict(zip(new.tolist(), mine.tolist(), strict=True))
        assert table.used == len(known) <= 0.375 * len(table)
        held = table.items()
        assert dict(zip(held[0].tolist(), held[1].tolist(), strict=True)) == known


def test_a_key_table_grows_where_keys_find_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_state_keys, "_ROUNDS", 2)  # so that few collisions are too many
    keys = np.random.default_rng(0).permutation(5000)[:380].astype(np.int64)
    table = KeyTable(380)
    size = len(table)
    for part in np.array_split(np.arange(380), 19):
        table.add(keys[part], 1 + part)
    assert len(table) > size and table.used == 380
    assert (table.find(keys) == 1 + np.arange(380)).all()
    assert (table.find(5000 + keys) == ABSENT).all()


def test_readers_beside_a_writer_see_a_state_between_two_updates() -> None:
    made = fitted([Counts(("user",)), Counts(("user", "item")), Rates(("user", "item", "c"))])
    state = LiveState.of(made, empty=True)
    step = replace(TRAIN.take(np.r_[0, 0, 0, 0]), label=np.ones(4, np.float32))
    step = replace(step, codes=np.full((4, 3), 2, np.int32))
    ask, faults, done = replace(step, label=None).take([0]), [], threading.Event()

    def read() -> None:
        while not done.is_set():
            dense = state.apply(ask).dense[0]
            n = round(float(np.expm1(np.float64(dense[0]))))
            want = np.log1p([n, n])
            if n % 4 or not np.allclose(dense[:2], want, rtol=1e-6):
                faults.append(dense)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    rng = np.random.default_rng(0)
    for _ in range(300):
        state.update(step)
        state.update(replace(rows(40, seed=1), codes=rng.integers(3, 4, (40, 3)).astype(np.int32)))
    done.set()
    for thread in threads:
        thread.join()
    assert not faults
