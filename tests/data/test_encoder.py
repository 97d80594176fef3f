"""Codes and floats against a per-row reference; exact ids; types that change; files that break."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autorec.data.encoder import Encoder
from autorec.data.numeric import CLIP, NumericFit
from autorec.data.sources import open_source
from autorec.data.split import plan_split, training_batches
from autorec.errors import ConfigError, DataError, RankerError, SchemaError
from autorec.schema import Field, Kind, Role, Schema

KINDS = {"i": Kind.ID, "c": Kind.CATEGORICAL, "l": Kind.LIST, "n": Kind.NUMERIC}


def schema_of(*names: str) -> Schema:
    """The first letter of a name is its kind."""
    return Schema(tuple(Field(name, KINDS[name[0]]) for name in names))


def stream(table: pa.Table, rows: int = 3) -> Callable[[], Iterator[pa.RecordBatch]]:
    return lambda: iter(table.to_batches(max_chunksize=rows))


def fit(table: pa.Table, rows: int = 3, **options: Any) -> Encoder:
    options.setdefault("min_count", 1)
    return Encoder.fit(stream(table, rows), schema_of(*table.column_names), **options)


def one(array: pa.Array, **options: Any) -> Encoder:
    return fit(pa.table({"i": array}), **options)


def codes(encoder: Encoder, array: Any) -> list[int]:
    return encoder.encode(pa.table({"i": array})).codes[:, 0].tolist()  # type: ignore[no-any-return]


# ---- a per-row reference


def naive_vocabulary(values: list[Any], min_count: int, most: int | None) -> dict[Any, int]:
    counts = Counter(value for value in values if value is not None)
    kept = sorted((v for v in counts if counts[v] >= min_count), key=lambda v: (-counts[v], v))
    return {value: code for code, value in enumerate(kept[:most], start=2)}


def naive_code(value: Any, vocabulary: dict[Any, int]) -> int:
    return 0 if value is None else vocabulary.get(value, 1)


def naive_bins(values: list[float | None], bins: int) -> list[int]:
    finite = sorted(v for v in values if v is not None)
    distinct = sorted(set(finite))
    if len(distinct) <= bins:
        edges = distinct[:-1]
    else:
        wanted = [math.ceil(len(finite) * k / bins) for k in range(1, bins)]
        edges = sorted({finite[k - 1] for k in wanted} - {distinct[-1]})
    return [0 if v is None else 2 + sum(edge < v for edge in edges) for v in values]


def naive_dense(values: list[float | None], log: bool) -> list[float]:
    def scale(v: float) -> float:
        return math.copysign(math.log1p(abs(v)), v) if log else v

    scaled = [scale(v) for v in values if v is not None]
    mean = math.fsum(scaled) / max(len(scaled), 1)
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in scaled) / max(len(scaled), 1))
    std = std if len(set(scaled)) > 1 else 1.0
    return [
        math.nan if v is None else min(max((scale(v) - mean) / std, -CLIP), CLIP) for v in values
    ]


ID = st.none() | st.sampled_from([0, 1, -1, 2**24, 2**24 + 1, 2**53, 2**53 + 1, 2**62, -(2**63)])
WORD = st.none() | st.sampled_from(["", "a", "b", "ab", "Ünï", "a" * 9, "a" * 8])
NUMBER = st.none() | st.integers(-20, 20).map(lambda v: v / 4)
ROW = st.tuples(ID, WORD, NUMBER, st.none() | st.lists(WORD, max_size=5))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(ROW, min_size=1, max_size=30),
    min_count=st.integers(1, 3),
    most=st.none() | st.integers(1, 3),
    bins=st.integers(2, 6),
    width=st.integers(1, 4),
    cut=st.integers(1, 30),
)
def test_equals_the_naive_encoder(
    rows: list[Any], min_count: int, most: int | None, bins: int, width: int, cut: int
) -> None:
    ids, words, numbers, lists = (list(column) for column in zip(*rows, strict=True))
    table = pa.table(
        {
            "i": pa.array(ids, pa.int64()),
            "c": pa.array(words, pa.string()),
            "n": pa.array(numbers, pa.float64()),
            "l": pa.array(lists, pa.list_(pa.string())),
        }
    )
    got = fit(
        table, cut, min_count=min_count, max_vocabulary=most, bins=bins, max_list_length=width
    )
    out = got.encode(table)
    names = [column.name for column in got.layout.sparse]
    assert names == ["i", "c", "n#bin"]
    for at, values in enumerate((ids, words)):
        vocabulary = naive_vocabulary(values, min_count, most)
        assert out.codes[:, at].tolist() == [naive_code(v, vocabulary) for v in values]
        assert got.layout.sparse[at].rows == 2 + len(vocabulary)
        assert got.vocabulary(names[at]).to_pylist() == list(vocabulary)
        decoded = [v if v in vocabulary else None for v in values]
        assert got.decode(names[at], out.codes[:, at]).to_pylist() == decoded
    assert out.codes[:, 2].tolist() == naive_bins(numbers, bins)
    assert out.codes[:, 2].max() < got.layout.sparse[2].rows
    dense = naive_dense(numbers, got.numeric("n").log)
    np.testing.assert_allclose(out.dense[:, 0], dense, rtol=1e-5, atol=1e-6)
    assert got.layout.dense[0].nullable == (None in numbers)

    inner = [[v for v in row or [] if v is not None] for row in lists]
    vocabulary = naive_vocabulary([v for row in inner for v in row], min_count, most)
    length = max(1, min(width, max(len(row) for row in inner)))
    padded = [[naive_code(v, vocabulary) for v in row[-length:]] for row in inner]
    assert got.layout.lists[0].length == length
    assert out.lists["l"].tolist() == [row + [0] * (length - len(row)) for row in padded]


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(ROW, min_size=2, max_size=30), data=st.data())
def test_the_order_and_the_cut_of_the_rows_change_nothing(rows: list[Any], data: Any) -> None:
    def learned(rows: list[Any], cut: int) -> dict[str, Any]:
        ids, words, numbers, lists = (list(column) for column in zip(*rows, strict=True))
        columns = [pa.array(ids, pa.int64()), pa.array(words, pa.large_string())]
        columns += [pa.array(numbers, pa.float32()), pa.array(lists, pa.list_(pa.string()))]
        got = fit(pa.table(columns, names=["i", "c", "n", "l"]), cut, bins=4)
        vocabularies = {name: got.vocabulary(name).to_pylist() for name in ("i", "c", "l")}
        return {**vocabularies, "layout": got.layout, "edges": got.numeric("n").edges}

    other = data.draw(st.permutations(rows))
    assert learned(rows, 30) == learned(list(other), data.draw(st.integers(1, 9)))


def test_a_small_batch_finds_the_same_codes_as_a_large_one() -> None:
    """A batch shorter than the vocabulary takes another way through the text."""
    words = pa.array([f"{'x' * (k % 20)}{k}" for k in range(500)])
    encoder = one(words, rows=500)
    asked = pa.array([None, "none of these", *words.to_pylist()])
    whole = codes(encoder, asked)
    assert whole[:2] == [0, 1]
    assert sorted(whole[2:]) == list(range(2, 502))
    assert [codes(encoder, asked.slice(k, 1))[0] for k in range(len(asked))] == whole


def test_texts_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def collide(values: Any) -> Any:
        return np.zeros(len(values), np.uint64)

    monkeypatch.setattr("autorec.data.vocabulary.hash_text", collide)
    encoder = one(pa.array(["a", "b", "c"]))
    assert [codes(encoder, pa.array([word]))[0] for word in "cbax"] == [4, 3, 2, 1]


# ---- exact values of every type

EDGES = [2**24, 2**31, 2**32, 2**53, 2**62]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64()])
def test_neighbouring_ids_stay_apart(kind: pa.DataType) -> None:
    ids = sorted({edge + step for edge in EDGES for step in (-2, -1, 0, 1, 2)})
    ids += [2**64 - 1, 2**63] if kind == pa.uint64() else [-(2**63), 2**63 - 1]
    encoder = one(pa.array(ids, kind))
    found = codes(encoder, pa.array(ids, kind))
    assert sorted(found) == list(range(2, 2 + len(ids)))
    assert encoder.decode("i", np.array(found)).to_pylist() == ids
    assert encoder.decode("i", np.array(found)).type == kind
    assert codes(encoder, pa.array([str(i) for i in ids])) == found
    assert codes(encoder, pa.array([5], kind)) == [1]


DAY = dt.datetime(2024, 2, 29, 12, 30)
TYPED = [
    pa.array([3, 1, 1], pa.int8()),
    pa.array([3, 1, 1], pa.uint16()),
    pa.array([3.0, 1.0, 1.0], pa.float32()),
    pa.array([0.5, 1.0, 1.0], pa.float64()),
    pa.array(["b", "a", "a"], pa.string()),
    pa.array(["b", "a", "a"], pa.large_string()),
    pa.array(["b", "a", "a"]).dictionary_encode(),
    pa.array([7, 5, 5]).dictionary_encode(),
    pa.array([True, False, False]),
    pa.array([DAY.date(), dt.date(1, 1, 1), dt.date(1, 1, 1)]),
    pa.array([DAY.date(), dt.date(1, 1, 1), dt.date(1, 1, 1)], pa.date64()),
    pa.array([DAY, dt.datetime(2000, 1, 1), dt.datetime(2000, 1, 1)], pa.timestamp("ns")),
    pa.array([DAY, dt.datetime(2000, 1, 1), dt.datetime(2000, 1, 1)], pa.timestamp("s", "UTC")),
    pa.array([Decimal("1.50"), Decimal("1.25"), Decimal("1.25")]),
    pa.array([Decimal(3), Decimal(2), Decimal(2)], pa.decimal128(10, 0)),
    pa.array([dt.time(5), dt.time(1), dt.time(1)], pa.time32("s")),
    pa.array([dt.timedelta(5), dt.timedelta(1), dt.timedelta(1)], pa.duration("ms")),
    pa.array([b"b", b"\xff", b"\xff"], pa.binary()),
]


@pytest.mark.parametrize("array", TYPED, ids=lambda array: str(array.type))
def test_every_plain_type_is_encoded_decoded_and_saved(array: pa.Array, tmp_path: Path) -> None:
    with_null = pa.chunked_array([array, pa.nulls(1, array.type)])
    encoder = one(with_null)
    encoder.save(tmp_path / "encoder")
    for used in (encoder, Encoder.load(tmp_path / "encoder")):
        assert codes(used, with_null) == [3, 2, 2, 0]
        plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
        decoded = used.decode("i", np.array([3, 2, 2, 0, 1]))
        assert decoded.type == plain.type
        assert decoded.to_pylist() == [*plain.to_pylist(), None, None]


def test_floats_that_hold_ids_are_those_ids() -> None:
    encoder = one(pa.array([1, 2, 2, None]))
    assert codes(encoder, pa.array([1.0, 2.0, math.nan, 3.0])) == [3, 2, 0, 1]
    encoder = one(pa.array([1.0, 2.0, 2.0, math.nan, -0.0]))
    assert codes(encoder, pa.array([1, 2, None, 7, 0])) == [4, 2, 0, 1, 3]
    assert codes(encoder, pa.array([1.0, 2.5, None, 0.0])) == [4, 1, 0, 3]


@pytest.mark.parametrize(
    ("trained", "served"),
    [
        (pa.array([42, 7]), pa.array(["42", "7", None])),
        (pa.array([42, 7]), pa.array(["42.0", "7.0", None])),
        (pa.array([42, 7]), pa.array([42.0, 7.0, None])),
        (pa.array([42, 7]), pa.array([42, 7, None], pa.uint8())),
        (pa.array([42, 7]), pa.array(["42", "7", None]).dictionary_encode()),
        (pa.array(["42", "7"]), pa.array([42, 7, None])),
        (pa.array(["42", "7"]), pa.array([42.0, 7.0, None])),
        (pa.array(["1.5", "7"]), pa.array([1.5, 7.0, None])),
        (pa.array([1.5, 7.0]), pa.array(["1.5", "7", None])),
        (pa.array([True, False]), pa.array([1, 0, None])),
        (pa.array([True, False]), pa.array(["true", "false", None])),
        (pa.array([1, 0]), pa.array([True, False, None])),
        (pa.array([DAY.date(), dt.date(2000, 1, 1)]), pa.array(["2024-02-29", "2000-01-01", None])),
        (
            pa.array([dt.date(2024, 2, 29), dt.date(2000, 1, 1)]),
            pa.array([dt.datetime(2024, 2, 29), dt.datetime(2000, 1, 1), None]),
        ),
        (pa.array(["a", "b"]), pa.array([None, None, None])),
    ],
    ids=lambda array: str(array.type),
)
def test_a_column_that_arrives_in_another_type(trained: pa.Array, served: pa.Array) -> None:
    encoder = one(trained)
    own = [*codes(encoder, trained), 0]
    assert codes(encoder, served) == (own if served.null_count < 3 else [0, 0, 0])


@pytest.mark.parametrize(
    ("trained", "served", "told"),
    [
        (pa.array([1]), pa.array(["1", None, "x7"]), "'i' was fitted on int64.*got string.*'x7'"),
        (pa.array([1]), pa.array([1.0, 42.5]), "'i' was fitted on int64.*got double with 42.5"),
        (pa.array([1]), pa.array([2.0**24 + 2], pa.float32()), "got float with 16777218.0"),
        (pa.array([1]), pa.array([2.0**53]), "got double with 9007199254740992.0"),
        (pa.array([1]), pa.array([2**63], pa.uint64()), "got uint64 with 9223372036854775808"),
        (pa.array([1.5]), pa.array(["1.5", "y"]), "'i' was fitted on double.*'y'"),
        (pa.array([True]), pa.array([1, 2]), "fitted on bool.*got int64 with 2"),
        (pa.array([dt.date(2000, 1, 1)]), pa.array([DAY]), "fitted on date32.*got timestamp"),
        (pa.array([dt.date(2000, 1, 1)]), pa.array([5]), "fitted on date32.*got int64 with 5"),
        (pa.array([1]), pa.array([[1]]), "'i' has type list<item: int64>"),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_a_value_without_a_counterpart_is_named(
    trained: pa.Array, served: pa.Array, told: str
) -> None:
    with pytest.raises(DataError, match=told):
        codes(one(trained), served)


def test_unknown_values_and_nulls() -> None:
    encoder = one(pa.array(["a", "a", "b", None, "b", "c"]), min_count=2)
    assert codes(encoder, pa.array(["a", "b", "c", None, "new"])) == [2, 3, 1, 0, 1]
    nothing = one(pa.nulls(3))
    assert nothing.layout.sparse[0].rows == 2
    assert codes(nothing, pa.array(["a", None])) == [1, 0]
    assert len(nothing.vocabulary("i")) == 0
    late = one(pa.chunked_array([pa.nulls(3, pa.int64()), pa.array([5, 5, 5])]))
    assert codes(late, pa.array([5])) == [2]


# ---- numbers


def numeric(values: Any, **options: Any) -> Encoder:
    return fit(pa.table({"n": values}), rows=1000, **options)


def test_missing_numbers_are_nan_and_code_0() -> None:
    encoder = numeric(pa.array([1.0, None, math.nan, 3.0]))
    out = encoder.encode(pa.table({"n": pa.array([None, math.nan, 1.0, 99.0])}))
    assert np.isnan(out.dense[:2]).all()
    np.testing.assert_allclose(out.dense[2:, 0], [-1.0, CLIP])
    assert out.codes[:, 0].tolist() == [0, 0, 2, 3]
    assert encoder.layout.dense[0].nullable
    assert encoder.layout.sparse[0].binned
    assert (encoder.layout.sparse[0].name, encoder.layout.sparse[0].source) == ("n#bin", "n")
    assert not numeric(pa.array([1.0, 2.0])).layout.dense[0].nullable


@pytest.mark.parametrize("bad", [math.inf, -math.inf])
def test_infinite_numbers_are_counted(bad: float) -> None:
    rows = pa.array([1.0, bad, None, 2.0, bad, bad])
    with pytest.raises(DataError, match=r"finite or null.*'n' has 3"):
        numeric(rows)
    with pytest.raises(DataError, match=r"finite or null.*'n' has 3"):
        numeric(pa.array([1.0])).encode(pa.table({"n": rows}))


def test_text_that_is_a_number_is_read() -> None:
    encoder = numeric(pa.array([1, 2, 3, 4]))
    left = encoder.encode(pa.table({"n": pa.array(["1", " 4.0", None])}))
    right = encoder.encode(pa.table({"n": pa.array([1.0, 4.0, None])}))
    np.testing.assert_array_equal(left.dense, right.dense)
    np.testing.assert_array_equal(left.codes, right.codes)
    with pytest.raises(DataError, match=r"'n' is numeric, but holds 'four'.*categorical"):
        encoder.encode(pa.table({"n": pa.array(["1", "four"])}))
    with pytest.raises(DataError, match="'n' is numeric, but has type list"):
        encoder.encode(pa.table({"n": pa.array([[1]])}))


def test_the_logarithm_is_for_long_tails() -> None:
    rng = np.random.default_rng(0)
    assert numeric(pa.array(rng.lognormal(3, 2, 5000))).numeric("n").log
    assert numeric(pa.array(-rng.lognormal(3, 2, 5000))).numeric("n").log
    assert numeric(pa.array([1e200, -1e308, 1e308, 1.0])).numeric("n").log
    assert not numeric(pa.array(rng.normal(size=5000))).numeric("n").log
    assert not numeric(pa.array([0] * 999 + [1])).numeric("n").log  # the logarithm is no help


def test_a_constant_or_distant_column_is_not_blown_up() -> None:
    encoder = numeric(pa.array([0.1] * 1000))
    assert abs(encoder.encode(pa.table({"n": pa.array([0.1])})).dense[0, 0]) < 1e-12
    assert encoder.layout.sparse[0].rows == 3
    far = pa.array(1.7e9 + np.arange(1000.0))  # a naive sum of squares loses these
    out = numeric(far).encode(pa.table({"n": far})).dense[:, 0]
    assert abs(out.std() - 1) < 1e-6


def test_quantiles_of_a_column_too_wide_to_count() -> None:
    """Half the rows hold one value; it is seen although few values are sampled."""
    rng = np.random.default_rng(1)
    values = np.concatenate([np.zeros(20_000), rng.normal(size=20_000)])

    def learned(order: np.ndarray[Any, Any], batch: int) -> tuple[float, ...]:
        fit = NumericFit("n", bins=8, sample=1024)
        for start in range(0, len(order), batch):
            fit.add(pa.array(order[start : start + batch]))
        assert fit.settle()
        for start in range(0, len(order), batch):
            fit.count(pa.array(order[start : start + batch]))
        return fit.result().edges

    edges = learned(values, 40_000)
    assert edges == learned(rng.permutation(values), 7_001)
    shares = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) / len(values)
    zero = int(np.searchsorted(edges, 0.0))
    assert 0.5 <= shares[zero] < 0.63
    assert np.delete(shares, zero).max() < 0.14
    assert np.delete(shares, zero).min() > 0.05


def test_the_encoder_takes_the_second_pass() -> None:
    values = np.random.default_rng(2).normal(size=70_000)
    encoder = fit(pa.table({"n": values}), rows=8192, bins=10)
    found = encoder.encode(pa.table({"n": values})).codes[:, 0]
    shares = np.bincount(found)[2:] / len(values)
    assert len(shares) == 10
    assert np.abs(shares - 0.1).max() < 0.002


# ---- lists

FORMS = [
    pa.array([["a", "b", "c"], [], None, ["b", None], ["b"]]),
    pa.array([["a", "b", "c"], [], None, ["b", None], ["b"]], pa.large_list(pa.large_string())),
    pa.array(["a|b|c", "", None, "b||", " b "]),
    pa.array(["a|b|c", "", None, "b||", " b "]).dictionary_encode(),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: str(form.type))
@pytest.mark.parametrize("fitted", FORMS, ids=lambda form: str(form.type))
def test_lists_keep_their_last_values(fitted: pa.Array, form: pa.Array) -> None:
    encoder = fit(pa.table({"l": fitted}), max_list_length=2, min_count=2)
    assert encoder.vocabulary("l").to_pylist() == ["b"]
    out = encoder.encode(pa.table({"l": form})).lists["l"]
    assert out.tolist() == [[2, 1], [0, 0], [0, 0], [2, 0], [2, 0]]
    assert encoder.encode(pa.table({"l": form.slice(3)})).lists["l"].tolist() == [[2, 0], [2, 0]]


def test_lists_of_numbers_and_single_values() -> None:
    fixed = pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2))
    encoder = fit(pa.table({"l": fixed}))
    assert encoder.layout.lists[0].length == 2
    for rows in (pa.array(["1|4"]), pa.array([[1.0, 4.0]])):
        assert encoder.encode(pa.table({"l": rows})).lists["l"].tolist() == [[2, 5]]
    assert encoder.encode(pa.table({"l": pa.array([3])})).lists["l"].tolist() == [[4, 0]]
    empty = fit(pa.table({"l": pa.array([[], None], pa.list_(pa.string()))}))
    assert empty.layout.lists[0].length == 1
    assert empty.encode(pa.table({"l": pa.array([["a"]])})).lists["l"].tolist() == [[1]]


# ---- tables

TABLE = pa.table(
    {
        "i": pa.array([1, 2, 2, None]),
        "n": pa.array([0.5, None, 2.5, 1.0]),
        "l": pa.array([["x"], ["x", "y"], [], None]),
        "c": pa.array(["a", "b", "a", None]),
    }
)


def test_a_table_a_batch_and_its_rows_agree() -> None:
    encoder = fit(TABLE)
    extra = TABLE.append_column("more", pa.array(["?"] * 4))
    whole = encoder.encode(extra.select(["more", "l", "c", "n", "i"]))
    assert len(whole) == 4
    assert whole.codes.dtype == whole.lists["l"].dtype == np.int32
    assert whole.dense.dtype == np.float32
    assert [c.name for c in encoder.layout.sparse] == ["i", "c", "n#bin"]
    for cut in (1, 3, 4):
        parts = [encoder.encode(batch) for batch in TABLE.to_batches(max_chunksize=cut)]
        np.testing.assert_array_equal(np.concatenate([p.codes for p in parts]), whole.codes)
        np.testing.assert_array_equal(np.concatenate([p.dense for p in parts]), whole.dense)
        np.testing.assert_array_equal(
            np.concatenate([p.lists["l"] for p in parts]), whole.lists["l"]
        )
    none = encoder.encode(TABLE.slice(0, 0))
    assert none.codes.shape == (0, 3)
    assert none.lists["l"].shape == (0, 2)


def test_all_missing_columns_are_named_at_once() -> None:
    with pytest.raises(DataError, match=r"\['c', 'n'\] are missing"):
        fit(TABLE).encode(TABLE.select(["i", "l"]))
    double = pa.table([TABLE["i"], *TABLE.columns], names=["i", "i", "n", "l", "c"])
    with pytest.raises(DataError, match=r"\['i'\] occur twice"):
        fit(TABLE).encode(double)


def test_only_features_are_learned() -> None:
    fields = [Field("i", Kind.ID, Role.USER), Field("n", Kind.NUMERIC, Role.LABEL)]
    fields += [Field("c", Kind.TIMESTAMP), Field("l", Kind.LIST, Role.IGNORE)]
    encoder = Encoder.fit(stream(TABLE), Schema(tuple(fields)), min_count=1)
    assert [column.name for column in encoder.layout.sparse] == ["i"]
    assert not encoder.layout.lists
    assert not encoder.layout.dense
    assert encoder.encode(TABLE.select(["i"])).dense.shape == (4, 0)


def test_a_fit_that_cannot_be() -> None:
    with pytest.raises(DataError, match="needs training rows, but got 0"):
        fit(TABLE.slice(0, 0))
    with pytest.raises(SchemaError, match="at least one feature"):
        Encoder.fit(stream(TABLE), Schema((Field("i", Kind.ID, Role.LABEL),)))
    with pytest.raises(SchemaError, match="'n#bin', but a column has that name"):
        fit(pa.table({"n": [1.0], "n#bin": [1.0]}))
    with pytest.raises(DataError, match=r"\['i'\] are missing"):
        Encoder.fit(stream(TABLE.select(["c"])), schema_of("i"))
    for option in ("min_count", "max_list_length", "max_vocabulary", "bins"):
        with pytest.raises(ConfigError, match=f"{option} must be an integer of at least"):
            fit(TABLE, **{option: 0})
    encoder = fit(TABLE)
    with pytest.raises(SchemaError, match=r"no column 'n' with a vocabulary"):
        encoder.vocabulary("n")
    with pytest.raises(SchemaError, match="no numeric column 'i'"):
        encoder.numeric("i")
    with pytest.raises(DataError, match=r"codes of 'i' lie in 0\.\.3, but got 4"):
        encoder.decode("i", np.array([2, 4]))


def test_no_validation_row_is_learned_from(tmp_path: Path) -> None:
    def learned(seed: int) -> str:
        rng = np.random.default_rng(seed)
        late = rng.integers(0, 10**6, 100)
        table = pa.table(
            {
                "i": np.concatenate([np.arange(900) % 50, late]),
                "n": np.concatenate([np.linspace(-1, 1, 900), late * 1e3]),
                "t": np.arange(1000),
            }
        )
        fields = [Field("t", Kind.TIMESTAMP, Role.TIMESTAMP, "int64")]
        schema = Schema((*schema_of("i", "n").fields, *fields))
        source = open_source(table)
        plan = plan_split(source, schema, holdout=0.1)
        folder = tmp_path / str(seed)
        Encoder.fit(training_batches(source, plan), schema, min_count=1).save(folder)
        return (folder / "encoder.json").read_text()

    assert learned(1) == learned(2)


# ---- files


def test_a_loaded_encoder_is_the_saved_one(tmp_path: Path) -> None:
    encoder = fit(TABLE, bins=3, max_list_length=7, max_vocabulary=9)
    for _ in range(2):  # a second save replaces the first
        encoder.save(tmp_path / "a" / "encoder")
    loaded = Encoder.load(tmp_path / "a" / "encoder")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["encoder"]
    assert loaded.layout == encoder.layout
    assert loaded.schema == encoder.schema
    assert (loaded.min_count, loaded.bins) == (1, 3)
    assert (loaded.max_list_length, loaded.max_vocabulary) == (7, 9)
    left, right = encoder.encode(TABLE), loaded.encode(TABLE)
    np.testing.assert_array_equal(left.codes, right.codes)
    np.testing.assert_array_equal(left.dense, right.dense)
    np.testing.assert_array_equal(left.lists["l"], right.lists["l"])
    names = {path.suffix for path in (tmp_path / "a" / "encoder").iterdir()}
    assert names == {".json", ".arrow"}


def test_a_damaged_or_newer_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RankerError, match=r"a folder with a readable encoder.json"):
        Encoder.load(tmp_path / "none")
    fit(TABLE).save(tmp_path / "e")
    facts = tmp_path / "e" / "encoder.json"
    text = facts.read_text()
    vocabulary = tmp_path / "e" / "vocabulary-0000.arrow"
    data = vocabulary.read_bytes()
    vocabulary.write_bytes(data[:200] + b"\x01" + data[201:])
    with pytest.raises(RankerError, match=r"vocabulary-0000.arrow was altered or cut short"):
        Encoder.load(tmp_path / "e")
    vocabulary.unlink()
    with pytest.raises(RankerError, match=r"vocabulary-0000.arrow cannot be read"):
        Encoder.load(tmp_path / "e")
    vocabulary.write_bytes(data)
    facts.write_text(text[:-100])
    with pytest.raises(RankerError, match=r"a folder with a readable encoder.json"):
        Encoder.load(tmp_path / "e")
    facts.write_text(json.dumps({**json.loads(text), "format": 99}))
    with pytest.raises(RankerError, match=r"up to format 2, but .* has format 99"):
        Encoder.load(tmp_path / "e")
    facts.write_text(text.replace('"min_count": 1', '"min_count": 2'))
    with pytest.raises(RankerError, match=r"encoder.json was altered"):
        Encoder.load(tmp_path / "e")
    facts.write_text(text)
    Encoder.load(tmp_path / "e")


def test_other_files_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match=r"only a folder that holds encoder.json is written over"):
        fit(TABLE).save(tmp_path / "notes")
    assert [path.name for path in tmp_path.rglob("*.*")] == ["mine.txt"]
