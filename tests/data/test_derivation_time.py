"""Derived statistics of time: the leakage law through the whole path, serving, and files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from autorec import deriving
from autorec.data.columns import Columns
from autorec.data.derivation import Derivation
from autorec.data.encoder import Encoded, Encoder
from autorec.data.features.counts import Counts
from autorec.data.features.date_parts import DateParts
from autorec.data.features.rates import Rates
from autorec.data.features.recency import Recency
from autorec.data.state import LiveState
from autorec.data.timeline import UNKNOWN
from autorec.deriving import Wanted, derive, derive_again
from autorec.errors import ConfigError, RankerError
from autorec.prepare import Options, Roles, choose_split, choose_task, encode
from autorec.schema import Layout, SparseField

LAYOUT = Layout(sparse=(SparseField("user", 9, "user"), SparseField("item", 7, "item")))
TRANSFORMS = (
    Recency(("user",), (50, 200), unit="s"),
    Counts(("item",)),
    Rates(("user", "item")),
    Recency(("user", "item"), (), unit="s"),
    DateParts(("hour",), unit="s", numbers=True),
)
CHOSEN = (
    "item.count",
    "user.within_50s",
    "user*item.seen",
    "user*item.rate",
    "time.hour",
    "user.since",
)
RATE, HOUR = 3, 4


def rows(n: int, seed: int, start: int = 0) -> Columns:
    """Rows with nulls, unknown values, ties and null times."""
    rng = np.random.default_rng(seed)
    time = start + rng.integers(0, 8 * n, n)
    time[rng.random(n) < 0.05] = UNKNOWN
    return Columns(
        LAYOUT,
        n,
        np.stack([rng.integers(0, 9, n), rng.integers(0, 7, n)], 1).astype(np.int32),
        {},
        np.empty((n, 0), np.float32),
        label=rng.integers(0, 2, n).astype(np.float32),
        time=time,
    )


def unscaled(derivation: Derivation, values: Encoded) -> Any:
    """Return the statistics (n, Q) as they were before scale and logarithm; NaN is -1."""
    raw = []
    for scale, column in zip(derivation.numeric, values.dense.T, strict=True):
        plain = column.astype(np.float64) * scale.std + scale.mean
        raw.append(np.expm1(plain) if scale.log else plain)
    return np.nan_to_num(np.stack(raw, 1), nan=-1.0)


def trained(columns: Columns) -> Any:
    return unscaled(*Derivation.fit(TRANSFORMS, columns, CHOSEN))


@pytest.fixture(scope="module")
def made() -> tuple[Derivation, Columns, Encoded]:
    train = rows(300, 0)
    derivation, values = Derivation.fit(TRANSFORMS, train, CHOSEN)
    return derivation, train, values


def test_the_chosen_columns_come_in_order(made: Any) -> None:
    derivation = made[0]
    assert [f.name for f in derivation.layout.dense] == list(CHOSEN)
    forms = [f.form for f in derivation.layout.dense]
    assert forms == ["count"] * RATE + ["rate"] + ["count"] * 2
    assert [f.source for f in derivation.layout.sparse] == list(CHOSEN)
    assert derivation.timed and [f.nullable for f in derivation.layout.dense][-2:] == [True, True]
    with pytest.raises(ConfigError, match=r"'user\.after'"):
        Derivation.fit(TRANSFORMS, rows(50, 0), ["user.after"])


def test_values_are_those_of_a_loop(made: Any) -> None:
    derivation, train, values = made
    raw, user, time = unscaled(derivation, values), train.codes[:, 0], train.time
    for row in range(0, 300, 7):
        if user[row] < 2 or time[row] == UNKNOWN:
            assert raw[row, -1] == -1.0
            continue
        before = np.flatnonzero((user == user[row]) & (time < time[row]) & (time != UNKNOWN))
        since = np.log1p(time[row] - time[before].max()) if len(before) else -1.0
        near = (time[before] >= time[row] - 50).sum()
        assert raw[row, -1] == pytest.approx(since, abs=1e-4)
        assert raw[row, 1] == pytest.approx(np.log1p(near), abs=1e-4)
        assert raw[row, HOUR] == pytest.approx(time[row] // 3600 % 24, abs=1e-4)


def test_a_row_does_not_see_its_own_label(made: Any) -> None:
    _, train, _ = made
    before = trained(train)
    for row in range(0, 300, 13):
        label = train.label.copy()
        label[row] = 1 - label[row]
        after = trained(replace(train, label=label))
        np.testing.assert_allclose(after[row], before[row], atol=1e-5)
        others = np.delete(np.arange(len(CHOSEN)), RATE)
        np.testing.assert_allclose(after[:, others], before[:, others], atol=1e-5)


def test_a_row_does_not_see_later_ones(made: Any) -> None:
    _, train, _ = made
    before = trained(train)
    for row in range(0, 300, 13):
        codes = train.codes.copy()
        codes[row] = (codes[row] + 1) % (9, 7)
        after = trained(replace(train, codes=codes))
        kept = (train.time <= train.time[row]) & (np.arange(300) != row)
        np.testing.assert_allclose(after[kept], before[kept], atol=1e-4)
        assert not np.allclose(after, before, atol=1e-4)


def test_held_out_rows_enter_nothing_and_ask_at_their_time(made: Any) -> None:
    derivation = made[0]
    other = rows(60, 1, start=1500)
    whole = derivation.apply(other)
    for row in range(60):
        one = derivation.apply(replace(other, label=None).take([row]))
        np.testing.assert_array_equal(one.dense[0], whole.dense[row])
        np.testing.assert_array_equal(one.codes[0], whole.codes[row])
    bare = Encoded(other.codes, {}, other.dense)
    np.testing.assert_array_equal(derivation.append(LAYOUT, bare, other.time).dense, whole.dense)
    later = derivation.append(LAYOUT, bare, other.time + 10_000)
    assert not np.array_equal(later.dense[:, -1], whole.dense[:, -1], equal_nan=True)


def test_without_a_time_rows_ask_about_the_moment_behind_training(made: Any) -> None:
    derivation, train, _ = made
    other = rows(60, 1)
    assert derivation.newest == train.time.max()
    bare = Encoded(other.codes, {}, other.dense)
    behind = np.full(60, train.time.max() + 1)
    want = derivation.append(LAYOUT, bare, behind)
    for found in (derivation.append(LAYOUT, bare), derivation.apply(replace(other, time=None))):
        np.testing.assert_array_equal(found.dense, want.dense)
        np.testing.assert_array_equal(found.codes[:, -len(CHOSEN) :], want.codes[:, 2:])


def test_serving_agrees_with_training_on_replay(made: Any) -> None:
    derivation, train, values = made
    state = LiveState.of(derivation.moved(timed=True), empty=True)
    replayed = state.replay(train)
    names = [field.name for field in state.layout.dense]
    for at, name in enumerate(CHOSEN):
        if name == "time.hour":
            continue  # it moves with the clock, not with traffic
        column = replayed.dense[:, names.index(name)].astype(np.float64)
        np.testing.assert_array_equal(values.dense[:, at], derivation.numeric[at].dense(column))


def test_a_live_state_of_all_that_moves_counts_on(made: Any) -> None:
    derivation, train, _ = made
    now = replace(rows(40, 3), time=np.full(40, train.time.max() + 5))
    live = derivation.counting_on(LiveState.of(derivation.moved(timed=True)))
    np.testing.assert_array_equal(live.apply(now).dense, derivation.apply(now).dense)
    np.testing.assert_array_equal(live.apply(now).codes, derivation.apply(now).codes)
    assert live.live is not None
    live.live.update(now)
    soon = replace(now, time=now.time + 7)
    after = unscaled(live, live.apply(soon))
    known = now.codes[:, 0] > 1
    assert after[known, -1] == pytest.approx(np.log1p(7), abs=1e-4)


def test_what_events_without_times_move_is_read_live_and_the_rest_as_training_left_it(
    made: Any,
) -> None:
    derivation = made[0]
    counted = LiveState.of(derivation.moved(timed=False))
    assert [f.name for f in counted.layout.dense] == ["item.count", "user*item.rate"]
    live = derivation.counting_on(counted)
    other = rows(40, 4)
    np.testing.assert_array_equal(live.apply(other).dense, derivation.apply(other).dense)
    counted.update(replace(other, time=None))
    now, before = (np.nan_to_num(one.apply(other).dense) for one in (live, derivation))
    moved = (now != before).any(axis=0)
    assert moved[0] and moved[RATE] and not moved[[1, 2, 5]].any()
    with pytest.raises(RankerError, match="must count what the model reads"):
        derivation.counting_on(LiveState.of(derivation.moved(timed=True)[:1]))


def test_zeros_stand_where_a_statistic_is_not_read(made: Any) -> None:
    derivation, _, _ = made
    other = rows(40, 5)
    few, whole = derivation.reading({"user.since"}), derivation.apply(other)
    assert few.timed and few.moved(timed=False) == ()
    np.testing.assert_array_equal(few.apply(other).dense[:, -1], whole.dense[:, -1])
    assert not few.apply(other).dense[:, :-1].any()
    assert not derivation.reading({"item.count"}).timed


def test_it_comes_back_from_files(made: Any, tmp_path: Path) -> None:
    derivation, _, _ = made
    derivation.save(tmp_path / "d")
    again, other = Derivation.load(tmp_path / "d"), rows(40, 6)
    assert (again.chosen, again.newest) == (CHOSEN, derivation.newest)
    assert again.layout == derivation.layout
    for columns in (other, replace(other, time=None)):
        assert again.apply(columns).dense.tobytes() == derivation.apply(columns).dense.tobytes()


def clicks(n: int = 6_000, seed: int = 0) -> pd.DataFrame:
    """A log whose clicks follow the time since the user's last one."""
    rng = np.random.default_rng(seed)
    time = 1_700_000_000 + np.sort(rng.choice(60 * 86_400, n, replace=False))
    user, item = rng.integers(0, 150, n), rng.integers(0, 40, n)
    last = pd.Series(time).groupby(user).shift().to_numpy()
    since = np.nan_to_num(np.log1p((time - last) / 3600) - 3.5)
    return pd.DataFrame(
        {
            "user": user,
            "item": item,
            "ts": pd.to_datetime(time, unit="s"),
            "click": (0.8 * since - 1 + rng.logistic(size=n) > 0).astype(int),
        }
    )


def derived(folder: Path, frame: pd.DataFrame, tuning: pd.DataFrame, **wanted: Any) -> Encoder:
    """Encode and derive as a fit does, with validation rows of its own."""
    from autorec.data.sources import open_source

    source, held = (open_source(pa.Table.from_pandas(one)) for one in (frame, tuning))
    schema = Roles("click", "user", "item", "ts").infer(source)
    task, plan = (
        choose_task(source, schema, Options()),
        choose_split(source, schema, held, Options()),
    )
    encoder, _ = encode(folder, source, held, schema, task, plan)
    options = Wanted(**{"most": 8, "seconds": 60.0, **wanted})
    return derive(folder, encoder, task, options, 0, lambda _: None)


def test_derive_finds_writes_and_keeps_validation_out(tmp_path: Path) -> None:
    frame = clicks()
    among = np.random.default_rng(0).random(len(frame)) < 0.1  # rows at times of training
    train, valid = frame[~among], frame[among]
    other = valid.assign(user=valid["user"].to_numpy()[::-1], click=1 - valid["click"])
    one, two = derived(tmp_path / "a", train, valid), derived(tmp_path / "b", train, other)
    assert one.derivation is not None and one.derivation.chosen == ("user.since",)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    same = [f for f in files if f.parts[0] == "encoder" or f.parts[:2] == ("columns", "train")]
    assert len(same) > 5
    for file in same:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    rows_ = Columns.open(tmp_path / "a" / "columns" / "valid")
    want = one.derivation.append(one.base, one.plain(pa.Table.from_pandas(valid)), rows_.time)
    np.testing.assert_array_equal(rows_.dense, want.dense)
    np.testing.assert_array_equal(one.encode(pa.Table.from_pandas(valid)).dense, want.dense)
    bare = one.encode(pa.Table.from_pandas(valid.drop(columns="ts")))
    assert not np.array_equal(bare.dense, want.dense, equal_nan=True)
    again = derive_again(one, two.derivation, _plain(tmp_path / "c", train, one))
    np.testing.assert_array_equal(
        Columns.open(tmp_path / "c").dense, Columns.open(tmp_path / "a/columns/train").dense
    )
    assert again.layout == one.layout


def _plain(folder: Path, frame: pd.DataFrame, encoder: Encoder) -> Path:
    from autorec.data.store import ColumnWriter
    from autorec.data.timeline import of_rows

    table = pa.Table.from_pandas(frame)
    with ColumnWriter(folder, encoder.base) as writer:
        label = frame["click"].to_numpy(np.float32)
        writer.append(encoder.plain(table), label=label, time=of_rows(table, encoder.schema))
        writer.close()
    return folder


def test_time_is_not_asked_where_it_is_not_wanted(tmp_path: Path) -> None:
    frame = clicks()
    found = derived(tmp_path / "a", frame[:5000], frame[5000:], time=False)
    assert found.derivation is None
    assert derived(tmp_path / "b", frame[:5000], frame[5000:], most=0).derivation is None


def test_validation_behind_training_is_told_to_the_screening(
    tmp_path: Path, monkeypatch: Any
) -> None:
    asked: list[Any] = []
    real = deriving._asked
    monkeypatch.setattr(deriving, "_asked", lambda *a: asked.append(real(*a)) or asked[-1])
    frame = clicks()
    derived(tmp_path / "a", frame[:5000], frame[5000:])
    reach = frame["ts"].iloc[-1] - frame["ts"].iloc[4999]
    assert (asked[0].user, asked[0].item) == ("user", "item")
    assert asked[0].ahead == int(reach.total_seconds() * 1e6)
    derived(tmp_path / "b", frame[::2], frame[1::2])
    assert asked[1].ahead == 0
