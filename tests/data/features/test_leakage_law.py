"""The leakage law, on every transform of the folder by itself, and on some that break it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.features.base import TRANSFORMS, Transform, encoded
from autorec.data.timeline import UNKNOWN
from autorec.schema import DenseField, Layout, ListField, SparseField

LAYOUT = Layout(
    sparse=(
        SparseField("user", 7, "user"),
        SparseField("item", 6, "item"),
        SparseField("c", 4, "c"),
    ),
    lists=(ListField("tags", 9, 4),),
    dense=(DenseField("price", nullable=True),),
)
Make = Callable[[], Transform]


def rows(n: int, *, timed: bool, seed: int = 0) -> Columns:
    """Rows with nulls, unknown values, equal rows, ties and null times."""
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, field.rows, n) for field in LAYOUT.sparse], 1)
    dense = rng.normal(size=(n, 1)).round(1).astype(np.float32)
    dense[rng.random(n) < 0.1] = np.nan
    time = rng.integers(0, n // 3, n)
    time[rng.random(n) < 0.08] = UNKNOWN
    return Columns(
        LAYOUT,
        n,
        codes.astype(np.int32),
        {"tags": rng.integers(0, 9, (n, 4)).astype(np.int32)},
        dense,
        label=rng.integers(0, 2, n).astype(np.float32),
        group=rng.integers(0, 5, n),
        time=time if timed else None,
    )


def table(values: Encoded) -> np.ndarray[Any, Any]:
    """All values (n, Q) of n rows as float64, with NaN as a number of its own."""
    parts = [values.codes, *(values.lists[name] for name in sorted(values.lists)), values.dense]
    return np.nan_to_num(np.concatenate(parts, 1).astype(np.float64), nan=-1e9)


def fitted(make: Make, columns: Columns) -> Transform:
    transform = make()
    transform.fit(columns)
    return transform


def trained(make: Make, columns: Columns) -> np.ndarray[Any, Any]:
    return table(fitted(make, columns).train_values(columns))


def own_label(make: Make, timed: bool, folder: Path) -> None:
    """A row's own label does not enter its values; one of a vocabulary enters nothing."""
    columns = rows(48, timed=timed)
    before, only_ids = trained(make, columns), make().vocabulary
    for i in range(len(columns)):
        label = columns.label.copy()
        label[i] = 1 - label[i]
        after = trained(make, replace(columns, label=label))
        np.testing.assert_array_equal(after[i], before[i], "a row sees its own label")
        if only_ids:
            np.testing.assert_array_equal(after, before, "a vocabulary reads labels")


def later_row(make: Make, timed: bool, folder: Path) -> None:
    """A row changes no value of another row at its own time or before."""
    if not timed or make().vocabulary:
        return
    columns, other = rows(48, timed=True), rows(48, timed=True, seed=1)
    before = trained(make, columns)
    for j in range(len(columns)):
        codes, label = columns.codes.copy(), columns.label.copy()
        codes[j], label[j] = other.codes[j], 1 - label[j]
        after = trained(make, replace(columns, codes=codes, label=label))
        kept = (columns.time <= columns.time[j]) & (np.arange(len(columns)) != j)
        np.testing.assert_array_equal(after[kept], before[kept], "a later row enters a value")


def replay(make: Make, timed: bool, folder: Path) -> None:
    """A training row has the values that serving would have given it at its time."""
    if not timed or make().vocabulary:
        return
    columns = rows(48, timed=True)
    want = trained(make, columns)
    for moment in np.unique(columns.time)[2:]:
        past, now = columns.time < moment, columns.time == moment
        served = fitted(make, columns.take(past)).apply(replace(columns.take(now), label=None))
        np.testing.assert_array_equal(table(served), want[now], "serving and training differ")


def held_out(make: Make, timed: bool, folder: Path) -> None:
    """Held-out rows have no label, do not see one another and enter no statistic."""
    columns, valid = rows(48, timed=timed), rows(30, timed=timed, seed=2)
    transform = fitted(make, columns)
    before = table(transform.train_values(columns))
    batch = table(transform.apply(valid))
    single = [table(transform.apply(replace(valid, label=None).take([i]))) for i in range(30)]
    np.testing.assert_array_equal(np.concatenate(single), batch, "held-out rows see one another")
    after = table(transform.train_values(columns))
    np.testing.assert_array_equal(after, before, "a held-out row entered a statistic")


def reloaded(make: Make, timed: bool, folder: Path) -> None:
    """A saved and reloaded transform gives the same, bit for bit."""
    columns, valid = rows(48, timed=timed), rows(30, timed=timed, seed=2)
    transform = fitted(make, columns)
    transform.save(folder / "saved")
    again = type(transform).load(folder / "saved")
    assert again == transform
    assert again.layout == transform.layout
    for a, b in (
        (transform.apply(valid), again.apply(valid)),
        (transform.train_values(columns), again.train_values(columns)),
    ):
        np.testing.assert_array_equal(table(a), table(b), "a reloaded transform differs")
        assert a.dense.tobytes() == b.dense.tobytes()


def order_of_rows(make: Make, timed: bool, folder: Path) -> None:
    """A permutation of the training rows permutes their values and changes no other row."""
    columns, valid = rows(48, timed=timed), rows(30, timed=timed, seed=2)
    first = fitted(make, columns)
    mixed = np.random.default_rng(3).permutation(48)
    second = fitted(make, columns.take(mixed))
    permuted = table(second.train_values(columns.take(mixed)))
    want = table(first.train_values(columns))[mixed]
    np.testing.assert_array_equal(permuted, want, "values follow the order of rows")
    np.testing.assert_array_equal(table(second.apply(valid)), table(first.apply(valid)))


def as_the_layout_says(make: Make, timed: bool, folder: Path) -> None:
    """Names, shapes, types and ranges are those of the layout."""
    columns, valid = rows(48, timed=timed), rows(30, timed=timed, seed=2)
    transform = fitted(make, columns)
    layout = transform.layout
    for n, values in ((48, transform.train_values(columns)), (30, transform.apply(valid))):
        assert values.codes.shape == (n, len(layout.sparse))
        assert values.dense.shape == (n, len(layout.dense))
        assert (values.codes.dtype, values.dense.dtype) == (np.int32, np.float32)
        assert sorted(values.lists) == sorted(field.name for field in layout.lists)
        assert (values.codes >= 0).all()
        assert (values.codes < [field.rows for field in layout.sparse]).all()
        for field in layout.lists:
            assert values.lists[field.name].shape == (n, field.length)
            assert values.lists[field.name].dtype == np.int32
            assert ((values.lists[field.name] >= 0) & (values.lists[field.name] < field.rows)).all()
        missing = np.isnan(values.dense).any(0)
        promised = np.array([not field.nullable for field in layout.dense], bool)
        assert not (missing & promised).any(), "missing where the layout promises values"


LAWS = (own_label, later_row, replay, held_out, reloaded, order_of_rows, as_the_layout_says)
CASES = [
    (name, timed, number)
    for name in TRANSFORMS.names()
    for timed in (False, True)
    for number in range(len(TRANSFORMS.get(name).cases(LAYOUT, timed)))
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("name", "timed", "number"), CASES)
def test_law(law: Callable[..., None], name: str, timed: bool, number: int, tmp_path: Path) -> None:
    law(lambda: TRANSFORMS.get(name).cases(LAYOUT, timed)[number], timed, tmp_path)


def test_every_transform_is_tried() -> None:
    assert {name for name, _, _ in CASES} == set(TRANSFORMS.names())
    assert TRANSFORMS.names()


@dataclass
class Leak(Transform):
    """Mean label of the user, lawful in nothing but its manners; subclasses leak in one way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._total, self._count = np.zeros(7), np.zeros(7)

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("user",)

    @classmethod
    def cases(cls, layout: Layout, timed: bool) -> list[Any]:
        return [cls()]

    def _learn(self, columns: Columns) -> None:
        self._total = np.bincount(columns.codes[:, 0], columns.label, minlength=7)
        self._count = np.bincount(columns.codes[:, 0], minlength=7).astype(float)

    def _values(self, columns: Columns) -> Encoded:
        user = columns.codes[:, 0]
        return encoded(len(columns), dense=[self._total[user] / np.maximum(self._count[user], 1.0)])

    def _layout(self) -> Layout:
        return Layout(dense=(DenseField("leak"),))

    def _state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {"users": {"total": self._total, "count": self._count}}

    def _restore(self, facts: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
        self._total, self._count = tables["users"]["total"], tables["users"]["count"]


class LeaveOneOut(Leak):
    """Its own label is gone, but later rows are not."""

    def _training(self, columns: Columns) -> Encoded:
        user = columns.codes[:, 0]
        rest = np.maximum(self._count[user] - 1, 1.0)
        return encoded(len(columns), dense=[(self._total[user] - columns.label) / rest])


class Ties(Leak):
    """Rows of its own moment count as earlier."""

    def _training(self, columns: Columns) -> Encoded:
        user, time = columns.codes[:, 0], columns.time
        out = np.empty(len(columns))
        for i in range(len(columns)):
            seen = (user == user[i]) & (time <= time[i])
            seen[i] = False
            out[i] = columns.label[seen].sum() / max(seen.sum(), 1)
        return encoded(len(columns), dense=[out])


class Learns(LeaveOneOut):
    """Applying it counts the rows."""

    def _values(self, columns: Columns) -> Encoded:
        self._count = self._count + np.bincount(columns.codes[:, 0], minlength=7)
        return super()._values(columns)


class OfTheBatch(LeaveOneOut):
    """Its values depend on the rows beside it."""

    def _values(self, columns: Columns) -> Encoded:
        values = super()._values(columns)
        return replace(values, dense=values.dense - values.dense.mean())


class ByPlace(LeaveOneOut):
    """Earlier in the file instead of earlier in time."""

    def _training(self, columns: Columns) -> Encoded:
        user = columns.codes[:, 0]
        out = [columns.label[:i][user[:i] == user[i]].sum() for i in range(len(columns))]
        return encoded(len(columns), dense=[np.array(out)])


class Forgets(LeaveOneOut):
    """What is saved is not all that was learned."""

    def _restore(self, facts: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
        super()._restore(facts, tables)
        self._total = self._total.round(-1)


class ReadsLabels(Leak):
    """Calls itself a vocabulary and numbers its codes by label."""

    vocabulary = True


class OtherRange(LeaveOneOut):
    """Promises no missing values and gives some."""

    def _values(self, columns: Columns) -> Encoded:
        values = super()._values(columns)
        return replace(values, dense=np.where(values.dense > 0.5, np.float32(np.nan), values.dense))


@pytest.mark.parametrize(
    ("kind", "law", "timed", "told"),
    [
        (Leak, own_label, False, "sees its own label"),
        (Leak, own_label, True, "sees its own label"),
        (ReadsLabels, own_label, False, "sees its own label"),
        (LeaveOneOut, later_row, True, "a later row"),
        (LeaveOneOut, replay, True, "serving and training differ"),
        (Ties, later_row, True, "a later row"),
        (Ties, replay, True, "serving and training differ"),
        (Learns, held_out, False, "held-out row"),
        (OfTheBatch, held_out, False, "see one another"),
        (ByPlace, order_of_rows, False, "order of rows"),
        (ByPlace, later_row, True, "a later row"),
        (Forgets, reloaded, False, "reloaded transform differs"),
        (OtherRange, as_the_layout_says, False, "missing where"),
    ],
)
def test_a_leak_is_caught(
    kind: type[Leak], law: Callable[..., None], timed: bool, told: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=told):
        law(kind, timed, tmp_path)


@pytest.mark.parametrize("law", [own_label, held_out, reloaded, order_of_rows])
def test_what_does_not_leak_passes(law: Callable[..., None], tmp_path: Path) -> None:
    law(LeaveOneOut, False, tmp_path)
