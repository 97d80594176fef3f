"""What a transform takes, refuses, saves and hands on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.features.base import TRANSFORMS, Transform, joined
from autorec.data.features.counts import Counts
from autorec.data.features.cross_ids import CrossIds
from autorec.data.features.date_parts import DateParts
from autorec.data.features.last_items import LastItems
from autorec.data.features.numeric_bins import NumericBins
from autorec.data.features.rates import Rates
from autorec.data.features.recency import Recency
from autorec.data.store import ColumnWriter
from autorec.errors import ConfigError, DataError, NotFittedError, RankerError
from autorec.schema import DenseField, Layout, ListField, SparseField

LAYOUT = Layout(
    sparse=(SparseField("user", 9, "user"), SparseField("item", 7, "item")),
    lists=(ListField("tags", 6, 5),),
    dense=(DenseField("price"),),
)


def rows(n: int = 60, *, timed: bool = True) -> Columns:
    rng = np.random.default_rng(n)
    return Columns(
        LAYOUT,
        n,
        np.stack([rng.integers(0, 9, n), rng.integers(0, 7, n)], 1).astype(np.int32),
        {"tags": rng.integers(0, 6, (n, 5)).astype(np.int32)},
        rng.normal(size=(n, 1)).astype(np.float32),
        label=rng.integers(0, 2, n).astype(np.float32),
        time=rng.integers(0, 20, n) if timed else None,
    )


def fitted(transform: Any, columns: Columns) -> Any:
    transform.fit(columns)
    return transform


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Counts(()), r"fields must be 1 to 3 different names, but got \(\)"),
        (lambda: Counts("user"), "fields must be 1 to 3 different names, but got 'user'"),
        (lambda: Counts(("a", "b", "c", "d")), "fields must be 1 to 3 different names"),
        (lambda: Rates(("a", "a")), "fields must be 1 to 3 different names"),
        (lambda: CrossIds(("a",)), "fields must be 2 to 3 different names"),
        (lambda: LastItems("a", "a"), "fields must be 2 to 2 different names"),
        (lambda: Counts(("a",), "out-of-fold"), r"form must be one of \['auto', 'leave-one-out'"),
        (lambda: Rates(("a",), strength=0.0), "strength must be above 0 and finite, but got 0.0"),
        (lambda: Rates(("a",), folds=1), "folds must be at least 2, but got 1"),
        (lambda: CrossIds(("a", "b"), min_count=0), "min_count must be at least 1, but got 0"),
        (lambda: LastItems("a", "b", 0), "length must be at least 1, but got 0"),
        (lambda: Recency(("a",), (1, 1)), r"windows must be different .*, but got \(1, 1\)"),
        (lambda: Recency(("a",), (0,)), r"windows must be different .*, but got \(0,\)"),
        (lambda: Recency(("a",), unit="h"), r"unit of time must be one of .*, but got 'h'"),
        (lambda: DateParts(("year",)), r"parts must be different ones of .*, but got \('year',\)"),
        (lambda: DateParts(()), r"parts must be different ones of"),
        (lambda: NumericBins("a", bins=1), "bins must be at least 2, but got 1"),
        (lambda: NumericBins("a", std=0.0), "std must be above 0 and finite, but got 0.0"),
    ],
)
def test_an_argument_out_of_range(make: Callable[[], Transform], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make()


@pytest.mark.parametrize(
    ("transform", "columns", "told"),
    [
        (Counts(("user", "shop")), rows(), r"Counts needs \['shop'\], but the columns have"),
        (Rates(("user",)), replace(rows(), label=None), r"Rates needs \['labels'\]"),
        (Recency(("user",)), rows(timed=False), r"Recency needs \['a timestamp'\]"),
        (Counts(("user",), "ordered"), rows(timed=False), "ordered statistics need a timestamp"),
        (Rates(("user",), "ordered"), rows(timed=False), "ordered statistics need a timestamp"),
    ],
)
def test_what_fit_needs(transform: Transform, columns: Columns, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        transform.fit(columns)


def test_rows_of_fit_and_other_rows() -> None:
    counts = Counts(("user",))
    with pytest.raises(NotFittedError, match="Counts has learned nothing yet; call fit first"):
        counts.apply(rows())
    with pytest.raises(NotFittedError, match="call fit first"):
        _ = counts.layout
    with pytest.raises(DataError, match="at least one row, but got 0"):
        counts.fit(rows().take(slice(0, 0)))
    counts.fit(rows())
    with pytest.raises(ConfigError, match="takes the 60 rows of fit, but got 30; use apply"):
        counts.train_values(rows(30))
    assert len(counts.apply(rows().take(slice(0, 0)))) == 0
    wider = replace(LAYOUT, sparse=(SparseField("user", 10, "user"), LAYOUT.sparse[1]))
    with pytest.raises(ConfigError, match=r"sizes \{'user': \[9, 1\]\}, but got"):
        counts.apply(replace(rows(), layout=wider))


def test_fields_are_found_by_name() -> None:
    turned = replace(
        rows(),
        codes=rows().codes[:, ::-1].copy(),
        layout=replace(LAYOUT, sparse=LAYOUT.sparse[::-1]),
    )
    counts = fitted(Counts(("user", "item")), rows())
    np.testing.assert_array_equal(counts.apply(turned).dense, counts.apply(rows()).dense)


@pytest.mark.parametrize("name", TRANSFORMS.names())
def test_arguments_are_json_and_the_folder_tells_the_class(name: str, tmp_path: Path) -> None:
    for number, made in enumerate(TRANSFORMS.get(name).cases(LAYOUT, True)):
        assert type(made)(**json.loads(json.dumps(asdict(made)))) == made
        made.fit(rows())
        made.save(tmp_path / str(number))
        again = Transform.load(tmp_path / str(number))
        assert type(again) is type(made)
        assert (again, again.layout) == (made, made.layout)
        made.save(tmp_path / str(number))  # over itself


def test_a_saved_transform_is_whole_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    with pytest.raises(RankerError, match=r"a folder with a readable transform\.json"):
        Transform.load(folder)
    fitted(Counts(("user",)), rows()).save(folder)
    body = (folder / "transform.json").read_text("utf-8")
    (folder / "transform.json").write_text(body.replace('"rows": 60', '"rows": 61'), "utf-8")
    with pytest.raises(RankerError, match=r"transform\.json was altered or cut short"):
        Transform.load(folder)
    newer = body.replace('"format": 1', '"format": 2')
    (folder / "transform.json").write_text(newer, "utf-8")
    with pytest.raises(RankerError, match=r"up to format 1, but .* has format 2"):
        Transform.load(folder)
    (folder / "transform.json").write_text(body, "utf-8")
    arrow = folder / "table-0000.arrow"
    raw = arrow.read_bytes()
    arrow.write_bytes(raw[:-1])
    with pytest.raises(RankerError, match=r"table-0000\.arrow was altered"):
        Transform.load(folder)
    arrow.unlink()
    with pytest.raises(RankerError, match="needs all its files"):
        Transform.load(folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(DataError, match=r"only a folder that holds transform\.json"):
        fitted(Counts(("user",)), rows()).save(other)
    assert (other / "notes.txt").read_text("utf-8") == "mine"


def test_values_join_the_columns_and_feed_another_transform() -> None:
    columns = rows()
    made = [Counts(("user", "item")), CrossIds(("user", "item"), 1), LastItems("user", "item", 3)]
    parts = [(t.layout, t.train_values(columns)) for t in (fitted(t, columns) for t in made)]
    wide = joined(columns, parts)
    assert [f.name for f in wide.layout.sparse] == ["user", "item", "user*item"]
    assert [f.name for f in wide.layout.dense] == ["price", "user*item.count"]
    assert [f.name for f in wide.layout.lists] == ["tags", "item.last"]
    np.testing.assert_array_equal(wide.codes[:, 2:], parts[1][1].codes)
    np.testing.assert_array_equal(wide.dense[:, 1:], parts[0][1].dense)
    np.testing.assert_array_equal(wide.lists["item.last"], parts[2][1].lists["item.last"])
    assert wide.label is columns.label
    bins = fitted(NumericBins("user*item.count", "log-square", log=True), wide)
    counted = np.rint(np.expm1(wide.dense[:, 1])).astype(int)
    want = [3 + n if n < 2 else 5 + int(math.log(n) ** 2) for n in counted.tolist()]
    assert counted.max() > 3
    np.testing.assert_array_equal(bins.train_values(wide).codes[:, 0], want)
    with pytest.raises(ConfigError, match=r"but \['user\*item'\] occur twice"):
        joined(columns, [parts[1], parts[1]])
    short = Encoded(np.zeros((3, 0), np.int32), {}, np.zeros((3, 0), np.float32))
    with pytest.raises(ConfigError, match=r"equally many rows, but got \[3, 60\]"):
        joined(columns, [(Layout(), short)])


@pytest.mark.parametrize("name", TRANSFORMS.names())
def test_mapped_columns_give_what_columns_in_memory_give(name: str, tmp_path: Path) -> None:
    columns = rows()
    with ColumnWriter(tmp_path / "columns", LAYOUT) as writer:
        encoded = Encoded(columns.codes, columns.lists, columns.dense)
        writer.append(encoded, label=columns.label, time=columns.time)
        mapped = writer.close()
    for made in TRANSFORMS.get(name).cases(LAYOUT, True):
        made.fit(mapped)
        got, here = made.train_values(mapped), made.apply(mapped)
        made.fit(columns)
        for a, b in ((got, made.train_values(columns)), (here, made.apply(columns))):
            assert a.codes.tobytes() == b.codes.tobytes()
            assert a.dense.tobytes() == b.dense.tobytes()
            assert all(a.lists[key].tobytes() == b.lists[key].tobytes() for key in b.lists)


def test_noise_is_not_learned_and_a_planted_pair_is() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    codes = np.stack([rng.integers(2, 9, n), rng.integers(2, 7, n)], 1).astype(np.int32)
    odd = (codes.sum(1) % 2).astype(np.float32)
    noise = rng.integers(0, 2, n).astype(np.float32)
    planted = np.where(rng.random(n) < 0.9, odd, 1 - odd)

    def correlation(label: Any, time: Any, *fields: str) -> float:
        columns = replace(rows(n), codes=codes, time=time, label=label)
        rates = fitted(Rates(fields), columns).train_values(columns).dense[:, 0]
        return float(np.corrcoef(rates, label)[0, 1])

    for time in (None, rng.permutation(n)):
        assert correlation(noise, time, "user", "item") < 0.06
        assert correlation(planted, time, "user", "item") > 0.7
        assert abs(correlation(planted, time, "user")) < 0.2


def test_labels_of_any_size_leave_no_trace_in_their_own_row() -> None:
    columns = rows(timed=False)
    label = np.random.default_rng(0).normal(2.7, 1.1, 60).astype(np.float32)
    before = fitted(Rates(("user",), "leave-one-out"), replace(columns, label=label))
    values = before.train_values(replace(columns, label=label)).dense
    for i in range(60):
        moved = label.copy()
        moved[i] = 1234.567
        after = fitted(Rates(("user",), "leave-one-out"), replace(columns, label=moved))
        got = after.train_values(replace(columns, label=moved)).dense[i]
        np.testing.assert_array_equal(got, values[i])
