"""Derived columns behind an encoder: their values, their files, and their way into the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from autorec.data.columns import Columns
from autorec.data.derivation import Derivation, most_statistics, widen
from autorec.data.encoder import Encoder
from autorec.data.features.counts import Counts
from autorec.data.features.cross_ids import CrossIds
from autorec.data.features.date_parts import DateParts
from autorec.data.features.rates import Rates
from autorec.data.sources import open_source
from autorec.data.store import ColumnWriter
from autorec.errors import ConfigError, RankerError
from autorec.schema import Field, Kind, Layout, Role, Schema, SparseField

LAYOUT = Layout(sparse=(SparseField("user", 9, "user"), SparseField("item", 7, "item")))
WANTED = (
    Counts(("user", "item"), "leave-one-out"),
    CrossIds(("user", "item")),
    Rates(("item",), "out-of-fold"),
)


def rows(n: int, seed: int) -> Columns:
    rng = np.random.default_rng(seed)
    return Columns(
        LAYOUT,
        n,
        np.stack([rng.integers(0, 9, n), rng.integers(0, 7, n)], 1).astype(np.int32),
        {},
        np.empty((n, 0), np.float32),
        label=rng.integers(0, 2, n).astype(np.float32),
        group=rng.integers(0, 9, n),
    )


@pytest.fixture(scope="module")
def made() -> tuple[Derivation, Columns, object]:
    train = rows(300, 0)
    derivation, values = Derivation.fit(WANTED, train)
    return derivation, train, values


def test_the_layout_tells_forms_and_keeps_the_order_of_choice(made) -> None:
    layout = made[0].layout
    assert [(f.name, f.form, f.binned) for f in layout.sparse] == [
        ("user*item", "id", False),
        ("user*item.count#bin", "count", True),
        ("item.rate#bin", "rate", True),
    ]
    assert [(f.name, f.form) for f in layout.dense] == [
        ("user*item.count", "count"),
        ("item.rate", "rate"),
    ]
    assert [f.source for f in layout.sparse[1:]] == ["user*item.count", "item.rate"]


def test_training_rows_get_their_own_values_and_others_those_of_all_rows(made) -> None:
    derivation, train, values = made
    other = rows(50, 1)
    applied = derivation.apply(other)
    for at, transform in enumerate([WANTED[0], WANTED[2]]):
        again = replace(transform)
        again.fit(train)
        scale = derivation.numeric[at]
        own = again.train_values(train).dense[:, 0].astype(np.float64)
        new = again.apply(other).dense[:, 0].astype(np.float64)
        np.testing.assert_array_equal(values.dense[:, at], scale.dense(own))
        np.testing.assert_array_equal(values.codes[:, 1 + at], scale.bins(own))
        np.testing.assert_array_equal(applied.dense[:, at], scale.dense(new))
        np.testing.assert_array_equal(applied.codes[:, 1 + at], scale.bins(new))
    # A training row that met its own pair once leaves itself out, another row does not.
    pairs = train.codes[:, 0] * 7 + train.codes[:, 1]
    known = (train.codes != 1).all(axis=1)  # code 1 is out of vocabulary, and counts nothing
    once = np.flatnonzero(known & (np.bincount(pairs)[pairs] == 1))
    again = derivation.apply(train)
    assert len(once) and (again.dense[once, 0] > values.dense[once, 0]).all()
    assert abs(values.dense.mean(axis=0)).max() < 1e-5
    assert abs(values.dense.std(axis=0) - 1).max() < 1e-5


def test_the_label_of_a_row_is_not_in_its_own_columns(made) -> None:
    _, train, values = made
    for row in (0, 17, 299):
        label = train.label.copy()
        label[row] = 1 - label[row]
        derivation, changed = Derivation.fit(WANTED, replace(train, label=label))
        raw = derivation.transforms[2].train_values(replace(train, label=label)).dense[row]
        np.testing.assert_array_equal(raw, made[0].transforms[2].train_values(train).dense[row])
        np.testing.assert_array_equal(changed.codes[row, 0], values.codes[row, 0])


def test_saved_and_read_it_gives_the_same_bits(made, tmp_path: Path) -> None:
    derivation, _, _ = made
    derivation.save(tmp_path / "d")
    again = Derivation.load(tmp_path / "d")
    one, two = derivation.apply(rows(80, 2)), again.apply(rows(80, 2))
    np.testing.assert_array_equal(one.codes, two.codes)
    np.testing.assert_array_equal(one.dense, two.dense)
    assert again.layout == derivation.layout
    (tmp_path / "d" / "001" / "transform.json").unlink()
    with pytest.raises(RankerError, match="a saved transform"):
        Derivation.load(tmp_path / "d")


def test_what_is_no_id_and_no_statistic_is_refused() -> None:
    with pytest.raises(ConfigError, match="derived columns come from"):
        Derivation.fit([DateParts()], rows(10, 0))
    taken = replace(LAYOUT, sparse=(*LAYOUT.sparse, SparseField("user*item", 3, "x")))
    derivation, _ = Derivation.fit([WANTED[1]], rows(50, 0))
    with pytest.raises(ConfigError, match="'user\\*item'"):
        derivation.behind(taken)


def test_widened_rows_keep_what_they_had(made, tmp_path: Path) -> None:
    derivation, train, values = made
    with ColumnWriter(tmp_path / "c", LAYOUT) as writer:
        writer.append(train_values(train), label=train.label, group=train.group)
        writer.close()
    wide = widen(tmp_path / "c", derivation.behind(LAYOUT), values)
    np.testing.assert_array_equal(wide.codes[:, :2], train.codes)
    np.testing.assert_array_equal(wide.codes[:, 2:], values.codes)
    np.testing.assert_array_equal(wide.dense, values.dense)
    np.testing.assert_array_equal(wide.label, train.label)
    np.testing.assert_array_equal(wide.group, train.group)
    assert wide.weight is None and wide.time is None


def train_values(columns: Columns):
    from autorec.data.encoder import Encoded

    return Encoded(columns.codes, {}, columns.dense)


def test_memory_bounds_the_number_of_statistics() -> None:
    assert most_statistics(0) > 1000
    assert most_statistics(1_000_000) >= 24
    assert most_statistics(10**9) == 0


def test_an_extended_encoder_gives_its_own_columns_and_the_derived_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "user": rng.integers(0, 9, 200),
            "item": rng.integers(0, 7, 200),
            "price": rng.normal(size=200),
        }
    )
    schema = Schema(
        (
            Field("user", Kind.ID, Role.USER, "int64"),
            Field("item", Kind.ID, Role.ITEM, "int64"),
            Field("price", Kind.NUMERIC, Role.FEATURE, "double"),
        )
    )
    source = open_source(table)
    encoder = Encoder.fit(lambda: source.batches(["user", "item", "price"]), schema)
    plain = Columns.of(encoder.layout, encoder.encode(table), label=np.ones(200, np.float32))
    derivation, _ = Derivation.fit(WANTED[:2], plain)
    extended = encoder.extended(derivation)
    assert extended.base == encoder.layout
    encoded = extended.encode(table)
    np.testing.assert_array_equal(encoded.codes[:, :3], plain.codes)
    np.testing.assert_array_equal(encoded.codes[:, 3:], derivation.apply(plain).codes)
    np.testing.assert_array_equal(extended.derive(extended.plain(table)).dense, encoded.dense)
    assert encoded.codes.shape[1] == len(extended.layout.sparse)
    assert encoded.dense.shape[1] == len(extended.layout.dense) == 2
    extended.save(tmp_path / "e")
    again = Encoder.load(tmp_path / "e")
    np.testing.assert_array_equal(again.encode(table).codes, encoded.codes)
    np.testing.assert_array_equal(again.encode(table).dense, encoded.dense)
    assert again.layout == extended.layout
