"""Small encoded logs with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from autorec.data.columns import Columns
from autorec.data.labels import LabelStats
from autorec.schema import DenseField, Layout, ListField, SparseField
from autorec.tasks import task as task_class


def log(rows: int, seed: int, *, rating: bool = False) -> Columns:
    """A log whose label depends on a cross of two ids, a number and a list."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(2, 12, (rows, 2)).astype(np.int32)
    binned = rng.integers(2, 6, (rows, 1)).astype(np.int32)
    number = ((binned[:, 0] - 3.5) + 0.3 * rng.standard_normal(rows)).astype(np.float32)
    number[rng.random(rows) < 0.05] = np.nan
    words = rng.integers(0, 5, (rows, 3)).astype(np.int32)
    signs = np.where((codes[:, 0] % 2) == (codes[:, 1] % 2), 1.5, -1.5)
    logit = signs + 0.8 * np.nan_to_num(number) + 0.5 * (words == 2).any(axis=1)
    if rating:
        label = np.clip(3 + logit + 0.3 * rng.standard_normal(rows), 1, 5)
    else:
        label = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(float)
    layout = Layout(
        (
            SparseField("user", 12, "user"),
            SparseField("item", 12, "item"),
            SparseField("x#bin", 6, "x", binned=True),
        ),
        (ListField("words", 5, 3),),
        (DenseField("x", nullable=True),),
    )
    return Columns(
        layout,
        rows,
        np.concatenate([codes, binned], axis=1),
        {"words": words},
        number[:, None],
        label=label.astype(np.float32),
    )


def stats(columns: Columns, rating: bool) -> LabelStats:
    label = np.asarray(columns.label, np.float64)
    values = tuple((float(v), int(n)) for v, n in zip(*np.unique(label, return_counts=True)))
    return LabelStats(
        "label",
        "double",
        len(label),
        0,
        0,
        values[:64] if rating else ((0, values[0][1]), (1, values[1][1])),
        min(len(values), 1000),
        float(label.min()),
        float(label.max()),
        float(label.mean()),
        float(label.std()),
    )


@pytest.fixture(scope="module")
def click_data():
    from autorec.train.fit import TrainingData

    train, valid = log(6000, 0), log(3000, 1)
    task = task_class("ctr").from_stats(stats(train, False))
    return TrainingData(train, valid, train.layout, task, "item")


@pytest.fixture(scope="module")
def rating_data():
    from autorec.train.fit import TrainingData

    train, valid = log(6000, 2, rating=True), log(3000, 3, rating=True)
    task = task_class("rating").from_stats(stats(train, True))
    return TrainingData(train, valid, train.layout, task, "item")
