"""Permutation importance: a planted order, loops, and what belongs to one column."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autorec.data.columns import Columns
from autorec.data.labels import LabelStats
from autorec.errors import DataError
from autorec.evaluate.permutation import importances, keep, kept, ordered, shuffled
from autorec.schema import DenseField, Layout, ListField, SparseField
from autorec.search_spaces.ctr import CtrSpace
from autorec.seeding import numpy_rng
from autorec.tasks import task

LAYOUT = Layout(
    (
        SparseField("item", 4, "item"),
        SparseField("noise", 4, "noise"),
        SparseField("x#bin", 4, "x", binned=True),
        SparseField("item*day", 4, "item*day", form="id"),
    ),
    (ListField("tags", 5, 3),),
    (DenseField("x"), DenseField("weak")),
)
STRENGTH = {"x": 2.0, "item": 1.2, "tags": 0.6, "weak": 0.15, "noise": 0.0}


def logit(columns: Columns) -> np.ndarray:
    """The truth, which is also the model: a number half by itself and half by its bins."""
    item = STRENGTH["item"] * (columns.codes[:, 0] - 1.5)
    number = STRENGTH["x"] * 0.5 * (columns.dense[:, 0] + columns.codes[:, 2] - 1.5)
    tags = STRENGTH["tags"] * 2 * (columns.lists["tags"] == 2).any(axis=1)
    return item + number + tags + STRENGTH["weak"] * columns.dense[:, 1] - 0.5


def predict(columns: Columns) -> np.ndarray:
    return 1 / (1 + np.exp(-logit(columns).astype(np.float64)))


def log(rows: int = 6000, *, rating: bool = False) -> Columns:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (rows, 4)).astype(np.int32)
    dense = rng.standard_normal((rows, 2)).astype(np.float32)
    codes[:, 2] = np.digitize(dense[:, 0], [-0.7, 0.0, 0.7])
    tags = rng.integers(0, 5, (rows, 3)).astype(np.int32)
    made = Columns(LAYOUT, rows, codes, {"tags": tags}, dense)
    noisy = logit(made) + rng.standard_normal(rows)
    label = noisy if rating else rng.random(rows) < predict(made)
    return replace(made, label=label.astype(np.float32))


def ctr(metric: str = "auc"):
    stats = LabelStats("y", "int", 10, 0, 0, ((0, 5), (1, 5)), 2, 0.0, 1.0, 0.5, 0.5)
    return task("ctr").from_stats(stats, eval_metric=metric)


@pytest.mark.parametrize("metric", ["auc", "logloss"])
def test_a_planted_order_comes_out_with_its_signs(metric: str) -> None:
    found = importances(predict, log(), ctr(metric))
    assert ordered(found) == tuple(one.column for one in found) == tuple(STRENGTH)
    assert {one.column: one.fall.low > 0 for one in found} == {
        "x": True,
        "item": True,
        "tags": True,
        "weak": True,
        "noise": False,
    }
    assert found[-1].fall.value == found[-1].fall.low == found[-1].fall.high == 0.0
    assert all(one.fall.low <= one.fall.value <= one.fall.high for one in found)


def test_a_fall_is_that_of_a_loop() -> None:
    columns, repeats = log(400), 2
    found = {o.column: o for o in importances(predict, columns, ctr(), repeats=repeats, seed=7)}
    for name in STRENGTH:
        falls = []
        for repeat in range(repeats):
            order = numpy_rng(7, "importance", name, repeat).permutation(400)
            rows = []
            for row in range(400):
                one, other = columns.take(slice(row, row + 1)), order[row]
                codes, dense = one.codes.copy(), one.dense.copy()
                lists = dict(one.lists)
                for at, field in enumerate(LAYOUT.sparse):
                    if field.source == name:
                        codes[0, at] = columns.codes[other, at]
                for at, number in enumerate(LAYOUT.dense):
                    if number.name == name:
                        dense[0, at] = columns.dense[other, at]
                if name == "tags":
                    lists["tags"] = columns.lists["tags"][[other]]
                rows.append(predict(replace(one, codes=codes, dense=dense, lists=lists))[0])
            whole, torn = (
                ctr().metric(np.asarray(columns.label), p)
                for p in (predict(columns), np.array(rows))
            )
            falls.append(whole - torn)
        assert found[name].fall.value == pytest.approx(np.mean(falls), abs=1e-12)
        assert found[name].repeats == repeats


def test_only_the_asked_column_is_shuffled() -> None:
    columns = log(200)
    order = np.random.default_rng(1).permutation(200)
    torn = shuffled(columns, "x", order)
    np.testing.assert_array_equal(torn.codes[:, 2], columns.codes[order, 2])
    np.testing.assert_array_equal(torn.dense[:, 0], columns.dense[order, 0])
    np.testing.assert_array_equal(torn.codes[:, [0, 1, 3]], columns.codes[:, [0, 1, 3]])
    np.testing.assert_array_equal(torn.dense[:, 1], columns.dense[:, 1])
    assert torn.lists["tags"] is columns.lists["tags"] and torn.label is columns.label
    for name in ("item*day", "x#bin"):
        same = shuffled(columns, name, order)
        assert same.codes is columns.codes and same.dense is columns.dense


def test_rows_and_repeats_are_bounded_and_seeded() -> None:
    seen: list[int] = []

    def counted(columns: Columns) -> np.ndarray:
        seen.append(len(columns))
        return predict(columns)

    columns = log(3000)
    first = importances(counted, columns, ctr(), rows=500, repeats=2, replicates=20)
    assert seen == [500] * (1 + 2 * len(STRENGTH))
    assert first == importances(predict, columns, ctr(), rows=500, repeats=2, replicates=20)
    assert first != importances(predict, columns, ctr(), rows=500, repeats=2, replicates=20, seed=1)
    late = importances(counted, columns, ctr(), rows=500, replicates=20, late=lambda: True)
    assert {one.repeats for one in late} == {1}


def test_ratings_fall_in_their_own_units() -> None:
    stats = LabelStats("y", "double", 10, 0, 0, (), 1000, -9.0, 9.0, 0.0, 2.0)
    found = importances(
        logit, log(rating=True), task("rating").from_stats(stats, eval_metric="rmse")
    )
    assert ordered(found) == tuple(STRENGTH) and found[0].fall.low > 0


def test_the_order_goes_through_the_run_folder_into_the_space(tmp_path: Path) -> None:
    assert kept(tmp_path) is None
    found = importances(predict, log(500), ctr(), replicates=20)
    keep(found, tmp_path)
    assert kept(tmp_path) == found
    space = CtrSpace(LAYOUT, kinds=["mlp"])
    space.learn_order(ordered(kept(tmp_path) or []))
    drops = {space.sample(numpy_rng(0, "drop", n)).features.without for n in range(40)}
    assert drops == {(), ("noise",), ("noise", "weak")}


def test_rows_without_labels_are_refused() -> None:
    with pytest.raises(DataError, match="measured on rows with labels, but got 9 rows without"):
        importances(predict, replace(log(9), label=None), ctr())
