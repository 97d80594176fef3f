"""Label columns: what they hold, and how their values become numbers."""

from __future__ import annotations

import json
import math
from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autorec.data.labels import LabelMap, LabelStats, label_stats
from autorec.data.sources import open_source
from autorec.errors import ConfigError, DataError, SchemaError


class Cut:
    """A table in pieces of a few rows."""

    def __init__(self, table: pa.Table, rows: int) -> None:
        self.table, self.rows, self.schema = table, rows, table.schema

    def batches(self, columns: Any = None, batch_rows: int = 0) -> Any:
        return iter(self.table.select(columns).to_batches(max_chunksize=self.rows))


def stats(array: Any, rows: int = 10**6) -> LabelStats:
    return label_stats(Cut(pa.table({"y": array, "x": pa.nulls(len(array))}), rows), "y")


def naive(values: list[Any]) -> dict[str, Any]:
    """What a label column holds, counted in plain Python."""
    present = [v for v in values if v is not None]
    finite = [v for v in present if not isinstance(v, float) or math.isfinite(v)]
    counts = sorted(sorted(Counter(finite).items()), key=lambda pair: -pair[1])
    numbers = [float(v) for v in finite if isinstance(v, (int, float)) and not isinstance(v, bool)]
    known = bool(numbers)
    return {
        "rows": len(values),
        "nulls": len(values) - len(present),
        "nonfinite": len(present) - len(finite),
        "values": tuple(counts[:64]),
        "distinct": min(len(counts), 1000),
        "minimum": min(numbers) if known else None,
        "maximum": max(numbers) if known else None,
        "mean": pytest.approx(np.mean(numbers), rel=1e-12, abs=1e-9) if known else None,
        "std": pytest.approx(np.std(numbers), rel=1e-9, abs=1e-9) if known else None,
    }


FLOATS = st.one_of(
    st.none(), st.sampled_from([0.0, 1.0, 2.5, math.nan, math.inf, -math.inf]), st.floats(-9, 9)
)


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(
        st.lists(FLOATS, max_size=40),
        st.lists(st.one_of(st.none(), st.integers(-3, 3), st.integers(-(2**40), 2**40))),
        st.lists(st.one_of(st.none(), st.booleans()), max_size=40),
        st.lists(st.one_of(st.none(), st.sampled_from(["yes", "no", ""])), max_size=40),
    ),
    st.integers(1, 20),
    st.randoms(use_true_random=False),
)
def test_statistics_equal_those_of_plain_python(values: list[Any], rows: int, random: Any) -> None:
    kind = {bool: pa.bool_(), int: pa.int64(), str: pa.string()}
    first = next((v for v in values if v is not None), 0.0)
    array = pa.array(values, kind.get(type(first), pa.float64()))
    found = stats(array, rows)
    want = naive([v + 0.0 if isinstance(v, float) else v for v in array.to_pylist()])
    assert {name: getattr(found, name) for name in want} == want
    assert (found.name, found.dtype) == ("y", str(array.type))
    shuffled = array.take(pa.array(random.sample(range(len(array)), len(array)), pa.int64()))
    other = stats(shuffled, 7)
    assert (other.values, other.distinct) == (found.values, found.distinct)


def test_many_values_are_counted_exactly_whatever_their_order() -> None:
    rng = np.random.default_rng(0)
    for distinct, want in ((999, 999), (1000, 1000), (1001, 1000), (30_000, 1000)):
        values = np.concatenate([np.arange(distinct), rng.integers(0, distinct, 3 * distinct)])
        counts = Counter(values.tolist())
        seen = set()
        for seed, rows in ((1, 10**6), (2, 997), (3, 50)):
            mixed = np.random.default_rng(seed).permutation(values)
            if rows == 50 and distinct > 2000:
                continue
            found = stats(pa.array(mixed), rows)
            assert found.distinct == want
            assert len(found.values) == 64
            assert all(counts[value] == count for value, count in found.values)
            assert [count for _, count in found.values] == sorted(
                (count for _, count in found.values), reverse=True
            )
            seen.add(found.values)
        assert len(seen) == 1
        if distinct <= 1000:
            top = sorted(sorted(counts.items()), key=lambda pair: -pair[1])[:64]
            assert seen == {tuple(top)}


def test_the_deviation_of_large_numbers_does_not_cancel() -> None:
    values = 1e9 + np.random.default_rng(0).normal(size=10_000)
    found = stats(pa.array(values), 100)
    assert found.std == pytest.approx(np.std(values - 1e9), rel=1e-6)


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array(["b", "a", "b"]).dictionary_encode(), (("b", 2), ("a", 1))),
        (pa.array([1, 2, 2], pa.uint8()), ((2, 2), (1, 1))),
        (pa.array([Decimal("0.50"), Decimal("1.00")]), ((0.5, 1), (1.0, 1))),
        (pa.array([-0.0, 0.0]), ((0.0, 2),)),
        (pa.array([0.1, 0.5], pa.float32()), ((float(np.float32(0.1)), 1), (0.5, 1))),
        (pa.nulls(3), ()),
    ],
)
def test_values_come_plain(array: Any, values: Any) -> None:
    found = stats(array)
    assert found.values == values
    assert (found.rows, found.nulls) == (len(array), array.null_count)
    numeric = bool(values) and not isinstance(values[0][0], str)
    assert found.minimum == (min(v for v, _ in values) if numeric else None)


def test_statistics_of_a_source() -> None:
    found = label_stats(open_source([{"y": 1}, {"y": 3}, {"y": None}]), "y")
    want = LabelStats("y", "int64", 3, 1, 0, ((1, 1), (3, 1)), 2, 1.0, 3.0, 2.0, 1.0)
    assert found == want


def test_columns_that_are_no_labels() -> None:
    with pytest.raises(SchemaError, match=r"the label column 'yy' must be in the table.* mean 'y'"):
        label_stats(Cut(pa.table({"y": [1]}), 1), "yy")
    with pytest.raises(SchemaError, match="one value a row, but the label column 'y' holds list"):
        stats(pa.array([[1]]))


SAME = [
    (pa.array([0, 1]), "int"),
    (pa.array([0, 1], pa.int8()), "int8"),
    (pa.array([0, 1], pa.uint64()), "uint64"),
    (pa.array([0.0, 1.0]), "float"),
    (pa.array([False, True]), "bool"),
    (pa.array(["0", "1"]), "text"),
    (pa.array(["0.0", " 1.0 "]), "text of floats"),
    (pa.array(["false", "True"]), "words of booleans"),
    (pa.array(["0", "1"]).dictionary_encode(), "dictionary"),
    (pa.array([Decimal("0.00"), Decimal("1.00")]), "decimal"),
    (pa.chunked_array([[0], [], [1]]), "chunks"),
]


@pytest.mark.parametrize(("array", "name"), SAME)
@pytest.mark.parametrize("pair", [(0, 1), (False, True), (0.0, 1.0), ("0", "1")])
def test_a_label_may_change_its_type(array: Any, name: str, pair: tuple[Any, Any]) -> None:
    found = LabelMap("binary", *pair).apply(array)
    assert found.dtype == np.float32 and found.tolist() == [0.0, 1.0], name


@pytest.mark.parametrize(
    ("pair", "values", "want"),
    [
        ((-1, 1), [1, -1, 1], [1, 0, 1]),
        ((1, 0), [1, 0], [0, 1]),
        (("no", "yes"), ["yes", "no", "yes"], [1, 0, 1]),
        (("No", "no"), ["no", "No"], [1, 0]),
        (("", "x"), ["", "x"], [0, 1]),
        ((2**53, 2**53 + 1), [2**53 + 1, 2**53], [1, 0]),
        ((0.5, 4.5), [4.5, 0.5], [1, 0]),
        (("nan", "1e3"), ["1000", "nan"], [1, 0]),
    ],
)
def test_binary_labels(pair: tuple[Any, Any], values: list[Any], want: list[float]) -> None:
    mapping = LabelMap("binary", *pair)
    assert mapping.apply(pa.array(values)).tolist() == want
    assert LabelMap.from_json(json.loads(json.dumps(mapping.to_json()))) == mapping
    assert mapping.apply(pa.array([], pa.int64())).tolist() == []


@pytest.mark.parametrize(
    ("array", "want"),
    [
        (pa.array([1, 5]), [1.0, 5.0]),
        (pa.array([0.5, -2.25]), [0.5, -2.25]),
        (pa.array([True, False]), [1.0, 0.0]),
        (pa.array([" 1.5", "2"]), [1.5, 2.0]),
        (pa.array([Decimal("1.25")]), [1.25]),
        (pa.array([3, 4]).dictionary_encode(), [3.0, 4.0]),
        (pa.chunked_array([[1], [2]]), [1.0, 2.0]),
    ],
)
def test_number_labels(array: Any, want: list[float]) -> None:
    mapping = LabelMap("number")
    found = mapping.apply(array)
    assert found.dtype == np.float32 and found.tolist() == want
    assert LabelMap.from_json(json.loads(json.dumps(mapping.to_json()))) == mapping


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (pa.array([0, 1, 2, 2]), "must be 0 or 1, but 2 is in 2 of 4 rows; drop or mend these 2"),
        (pa.array([0, 2, 3]), "but 2 is in 1 of 3 rows and 1 more values are unknown; .* these 2"),
        (pa.array(["0", "maybe"]), "must be 0 or 1, but 'maybe' is in 1 of 2 rows; drop"),
        (pa.array([0.5]), "must be 0 or 1, but 0.5 is in 1 of 1 rows"),
        (pa.array([0, None, None]), "must have a label, but it is null in 2 of 3 rows; drop or"),
        (pa.nulls(2), "must have a label, but it is null in 2 of 2 rows"),
        (pa.array([0.0, math.nan, math.inf]), "must be finite, but 2 of 3 rows have nan; drop or"),
        (pa.array([0.0, -math.inf]), "must be finite, but 1 of 2 rows have -inf"),
    ],
)
def test_binary_labels_that_are_unknown_are_named(array: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelMap("binary", 0, 1).apply(array)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (pa.array(["1", "two", "two"]), "must be a number, but 'two' is in 2 of 3 rows; drop or"),
        (pa.array(["1", None]), "must have a label, but it is null in 1 of 2 rows"),
        (pa.array(["1", "nan"]), "must be finite, but 1 of 2 rows have nan"),
        (pa.array([1.0, math.inf]), "must be finite, but 1 of 2 rows have inf"),
        (pa.array([1.0, 1e300]), "must fit a 32-bit float, but 1e\\+300 is in 1 of 2 rows; resc"),
        (pa.array([[1]]), "is numeric, but has type list"),
    ],
)
def test_number_labels_that_are_none_are_named(array: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelMap("number").apply(array)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("stars",), r"must be one of \['binary', 'number'\], but got 'stars'"),
        (("binary",), "must have two different values, but got None and None"),
        (("binary", 1, None), "but got 1 and None; name both"),
        (("binary", 1, 1), "but got 1 and 1"),
        (("binary", 1, "1.0"), "but got 1 and '1.0'"),
        (("binary", "true", True), "but got 'true' and True"),
    ],
)
def test_maps_that_cannot_be(args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LabelMap(*args)
