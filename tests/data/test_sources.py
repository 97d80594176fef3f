"""Sources: every container gives the same rows, again and again, in bounded memory."""

from __future__ import annotations

import csv as python_csv
import gc
import gzip
import itertools
import math
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv, feather, ipc

from autorec.data import delimited, dialect, reading
from autorec.data.reading import Source, TableSource, conformed, regular
from autorec.data.sources import open_source
from autorec.errors import ConfigError, DataError, SchemaError

ROWS = 1000
READ = r"files that are read: Parquet \(\.parquet\), Arrow and Feather"


def sample(rows: int = ROWS, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    score = pa.array(rng.normal(size=rows).round(3), mask=rng.random(rows) < 0.1)
    return pa.table(
        {
            "user": rng.integers(2**53, 2**53 + 50, rows),
            "item": pa.array([f"i{k}" for k in rng.integers(20, size=rows)]),
            "score": score,
            "click": rng.random(rows) < 0.3,
        }
    )


def rows_of(source: Source, columns: Any = None) -> list[dict[str, Any]]:
    return [row for batch in source.batches(columns) for row in batch.to_pylist()]


def batches_of(table: pa.Table) -> Iterator[pa.RecordBatch]:
    yield from table.to_batches(max_chunksize=77)


def write_ipc(table: pa.Table, path: Path, **options: Any) -> Path:
    with ipc.new_file(str(path), table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=100)
    return path


def write_stream(table: pa.Table, path: Path) -> Path:
    with ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    return path


def write_csv(table: pa.Table, path: Path, separator: str = ",") -> Path:
    options = csv.WriteOptions(delimiter=separator, quoting_style="needed")
    csv.write_csv(table, str(path), options)
    return path


def write_parquet(table: pa.Table, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def write_gz(table: pa.Table, path: Path) -> Path:
    plain = write_csv(table, path.with_suffix(".plain")).read_bytes()
    path.write_bytes(gzip.compress(plain[:999]) + gzip.compress(plain[999:]))  # two members
    return path


def parts(table: pa.Table, folder: Path, write: Callable[..., Path], ending: str) -> Path:
    folder.mkdir()
    for at in range(3):
        write(table.slice(at * 400, 400), folder / f"part-{at}{ending}")
    (folder / "_SUCCESS").write_text("")
    (folder / ".part-0.crc").write_text("x")
    return folder


class Capsule:
    """An object of some other library that gives an Arrow stream and nothing else."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


class Flag(pa.ExtensionType):  # type: ignore[misc]
    """A type of some other library over a plain one."""

    def __init__(self) -> None:
        super().__init__(pa.int8(), "test.flag")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Flag:
        return cls()


CONTAINERS: dict[str, Callable[[pa.Table, Path], Any]] = {
    "table": lambda t, _: t,
    "batch": lambda t, _: t.combine_chunks().to_batches()[0],
    "pandas": lambda t, _: t.to_pandas(),
    "pandas with an index": lambda t, _: t.to_pandas().set_index(np.arange(ROWS)[::-1]),
    "pandas on arrow": lambda t, _: t.to_pandas(types_mapper=pd.ArrowDtype),
    "polars": lambda t, _: pl.from_arrow(t),
    "lazy": lambda t, _: pl.from_arrow(t).lazy(),
    "dataset": lambda t, d: ds.dataset(str(parts(t, d / "parts", write_parquet, ".parquet"))),
    "dataset in memory": lambda t, _: ds.dataset(t),
    "reader": lambda t, _: t.to_reader(),
    "capsule": lambda t, _: Capsule(t),
    "generator": lambda t, _: batches_of(t),
    "generator of tables": lambda t, _: (t.slice(s, 300) for s in range(0, ROWS, 300)),
    "generator of frames": lambda t, _: (t.slice(s, 500).to_pandas() for s in (0, 500)),
    "list of batches": lambda t, _: list(batches_of(t)),
    "list of frames": lambda t, _: [pl.from_arrow(t.slice(s, 500)) for s in (0, 500)],
    "list of dicts": lambda t, _: t.to_pylist(),
    "dict of lists": lambda t, _: t.to_pydict(),
    "parquet": lambda t, d: write_parquet(t, d / "t.parquet", row_group_size=77),
    "parquet as text": lambda t, d: str(write_parquet(t, d / "t.parquet")),
    "parquet without an ending": lambda t, d: write_parquet(t, d / "t"),
    "csv": lambda t, d: write_csv(t, d / "t.csv"),
    "csv without an ending": lambda t, d: write_csv(t, d / "train"),
    "csv of an odd ending": lambda t, d: write_csv(t, d / "train.inter"),
    "tsv": lambda t, d: write_csv(t, d / "t.tsv", "\t"),
    "bars": lambda t, d: write_csv(t, d / "t.txt", "|"),
    "semicolons": lambda t, d: write_csv(t, d / "t.csv", ";"),
    "gz": lambda t, d: write_gz(t, d / "t.csv.gz"),
    "arrow": lambda t, d: write_ipc(t, d / "t.arrow"),
    "arrow, compressed": lambda t, d: write_ipc(t, d / "t.ipc", compression="lz4"),
    "arrow stream": lambda t, d: write_stream(t, d / "t.arrows"),
    "feather": lambda t, d: feather.write_feather(t, str(d / "t.feather")) or d / "t.feather",
    "polars arrow": lambda t, d: pl.from_arrow(t).write_ipc(d / "p.arrow") or d / "p.arrow",
    "polars parquet": lambda t, d: pl.from_arrow(t).write_parquet(d / "p.pq") or d / "p.pq",
    "folder": lambda t, d: parts(t, d / "parts", write_parquet, ".parquet"),
    "folder of csv": lambda t, d: parts(t, d / "parts", write_csv, ".csv"),
    "glob": lambda t, d: f"{parts(t, d / 'parts', write_parquet, '.parquet')}/*.parquet",
    "deep glob": lambda t, d: f"{parts(t, d / 'a', write_csv, '.csv').parent}/**/*.csv",
    "glob of folders": lambda t, d: f"{parts(t, d / 'a', write_ipc, '.arrow').parent}/a*",
    "list of paths": lambda t, d: sorted(parts(t, d / "a", write_csv, ".csv").glob("*.csv")),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_rows_every_time(name: str, tmp_path: Path) -> None:
    table = sample()
    source = open_source(CONTAINERS[name](table, tmp_path), spool=tmp_path / "spool")
    want = table.to_pylist()
    assert source.schema.names == table.schema.names
    assert source.num_rows == ROWS
    assert source.description
    assert rows_of(source) == want
    assert rows_of(source) == want, "the second pass differs"
    assert source.to_table().to_pylist() == want
    assert source.to_table(["click"]).to_pydict() == {"click": table["click"].to_pylist()}
    assert source.head(7).to_pylist() == want[:7]
    assert source.head(0).num_rows == 0 and source.head(10**6).num_rows == ROWS
    picked = [{"score": row["score"], "user": row["user"]} for row in want]
    assert rows_of(source, ["score", "user"]) == picked
    sizes = [batch.num_rows for batch in source.batches(batch_rows=300)]
    assert sizes == [300, 300, 300, 100]
    assert {batch.schema for batch in source.batches(batch_rows=300)} == {source.schema}
    assert sum(batch.num_rows for batch in source.batches([])) == ROWS


@pytest.mark.parametrize("name", ["csv", "parquet", "generator", "lazy", "arrow"])
def test_passes_may_overlap_and_stop_early(name: str, tmp_path: Path) -> None:
    source = open_source(CONTAINERS[name](sample(), tmp_path))
    first, second = source.batches(batch_rows=10), source.batches(batch_rows=10)
    pairs = list(itertools.islice(zip(first, second, strict=True), 20))
    assert all(a.equals(b) for a, b in pairs)
    del first, second
    assert source.to_table().num_rows == ROWS


def test_a_source_is_a_source() -> None:
    source = open_source(sample())
    assert open_source(source) is source
    assert repr(source) == "<Source: Arrow Table: 1000 rows, 4 columns>"


def test_dict_rows_may_lack_keys() -> None:
    source = open_source([{"a": 1}, {"b": "x", "a": 2}, {"b": None}])
    assert source.to_table().to_pydict() == {"a": [1, 2, None], "b": [None, "x", None]}


def test_columns_of_a_dict_may_be_any_iterable() -> None:
    source = open_source({"a": np.arange(2), "b": pd.Series(["x", "y"]), "c": range(2)})
    assert source.to_table().to_pydict() == {"a": [0, 1], "b": ["x", "y"], "c": [0, 1]}


def test_pandas_gaps_are_null_and_numbers_are_not_copied() -> None:
    frame = pd.DataFrame({"x": np.arange(1e6), 3: [None, "a"] * 500_000})
    before = pa.total_allocated_bytes()
    source = open_source(frame[["x"]])
    assert pa.total_allocated_bytes() - before < 1e6
    assert open_source(frame).head(2).to_pydict() == {"x": [0.0, 1.0], "3": [None, "a"]}
    assert source.num_rows == 10**6


def test_rows_are_cut_into_batches_of_any_size() -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 12))
    def check(sizes: list[int], rows: int) -> None:
        values = list(range(sum(sizes)))
        schema = pa.schema([("a", pa.int64())])
        starts = np.cumsum([0, *sizes])[:-1]
        pieces = [
            pa.record_batch({"a": pa.array(values[s : s + n], pa.int64())})
            for s, n in zip(starts, sizes, strict=True)
        ]
        found = [batch["a"].to_pylist() for batch in regular(iter(pieces), schema, rows)]
        assert found == [values[s : s + rows] for s in range(0, len(values), rows)]

    check()


def test_wide_rows_come_fewer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH_BYTES", 10_000)
    table = pa.table({"text": ["x" * 1000] * 100, "n": range(100)})
    found = list(open_source(table).batches())
    assert max(batch.nbytes for batch in found) < 10_100 and len(found) > 9
    assert pa.Table.from_batches(found).equals(table)


@pytest.mark.parametrize(
    ("array", "dtype", "values"),
    [
        (pa.array(["a", None, "b"]).dictionary_encode(), "string", ["a", None, "b"]),
        (pa.array([1, 1, None]).dictionary_encode(), "int64", [1, 1, None]),
        (pc.run_end_encode(pa.array([1, 1, None])), "int64", [1, 1, None]),
        (pa.array(["a", None], pa.string_view()), "large_string", ["a", None]),
        (pa.array([b"a", None], pa.binary_view()), "large_binary", [b"a", None]),
        (pa.array([[1], None], pa.list_view(pa.int8())), "list<item: int8>", [[1], None]),
        (
            pa.array([["a"], [], None], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
            "list<item: string>",
            [["a"], [], None],
        ),
        (
            pa.array([[1.5, 2]], pa.list_(pa.float32(), 2)),
            "fixed_size_list<item: float>[2]",
            [[1.5, 2.0]],
        ),
        (
            pa.ExtensionArray.from_storage(Flag(), pa.array([1, 0], pa.int8())),
            "int8",
            [1, 0],
        ),
        (pa.array([None, None]), "null", [None, None]),
    ],
)
def test_encodings_are_decoded(array: Any, dtype: str, values: list[Any]) -> None:
    found = open_source(pa.table({"x": array})).to_table()
    assert str(found.schema.field("x").type) == dtype
    assert found["x"].to_pylist() == values


def test_categoricals_are_decoded_from_every_container(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": pd.Categorical(["a", None, "b"])})
    frame.to_parquet(tmp_path / "c.parquet")
    other = pl.DataFrame({"x": pl.Series(["a", None, "b"], dtype=pl.Categorical)})
    enum = other.cast(pl.Enum(["a", "b"]))
    for data in (frame, tmp_path / "c.parquet", other, enum, other.lazy(), Capsule(other)):
        source = open_source(data)
        assert str(source.schema.field("x").type) in ("string", "large_string")
        assert source.to_table()["x"].to_pylist() == ["a", None, "b"]


def test_dictionaries_that_differ_from_batch_to_batch_are_spooled(tmp_path: Path) -> None:
    def coded() -> Iterator[pa.RecordBatch]:
        for words in (["a", "b"], ["c", "a"], ["b"]):
            yield pa.record_batch({"x": pa.array(words).dictionary_encode()})

    found = open_source(coded(), spool=tmp_path).to_table()
    assert found["x"].to_pylist() == ["a", "b", "c", "a", "b"]


def test_a_spool_folder_is_used_and_left_clean(tmp_path: Path) -> None:
    spool = tmp_path / "deep" / "spool"
    source = open_source(batches_of(sample()), spool=spool)
    assert [path.suffix for path in spool.rglob("*.*")] == [".arrow"]
    assert source.to_table().equals(sample())
    other = open_source(batches_of(sample(seed=1)), spool=spool)
    assert len(list(spool.iterdir())) == 2 and not other.to_table().equals(sample())
    del source, other
    gc.collect()
    assert list(spool.iterdir()) == []


def test_without_a_spool_folder_a_temporary_one_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = open_source(pl.from_arrow(sample()).lazy())
    assert len(list(tmp_path.glob("autorec-*/rows.parquet"))) == 1
    running = source.batches(batch_rows=10)
    assert next(running).num_rows == 10
    del source
    gc.collect()
    assert sum(batch.num_rows for batch in running) == ROWS - 10, "a running pass keeps the file"
    del running
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_spooled_stream_is_mapped_not_read(tmp_path: Path) -> None:
    big = pa.table({"x": np.arange(2_000_000)})
    source = open_source((batch for batch in big.to_batches(max_chunksize=65_536)), spool=tmp_path)
    before = pa.total_allocated_bytes()
    held = list(source.batches())
    assert pa.total_allocated_bytes() - before < 1e6
    assert sum(batch.num_rows for batch in held) == 2_000_000


def test_a_lazy_frame_is_never_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("collected")

    lazy = pl.scan_parquet(write_parquet(sample(), tmp_path / "t.parquet")).filter(pl.col("click"))
    monkeypatch.setattr(pl.LazyFrame, "collect", forbidden)
    source = open_source(lazy, spool=tmp_path / "spool")
    assert source.num_rows == sample()["click"].to_pylist().count(True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: iter([]), "the iterator gave nothing; was it read before"),
        (lambda: iter([1, 2]), "must give record batches or tables, but gave int at 0"),
        (
            lambda: iter([pa.record_batch({"a": [1]}), {"a": 1}]),
            "but gave dict at 1; a list of dicts is read as it is",
        ),
        (
            lambda: iter([pa.record_batch({"a": [1]}), pa.record_batch({"b": [1]})]),
            r"must have the columns of the first, but 'a' is missing in one with \['b'\]",
        ),
        (
            lambda: iter([pa.record_batch({"a": [1]}), pa.record_batch({"a": ["x"]})]),
            "must keep one type, but 'a' is int64 and here string: Failed to parse string",
        ),
        (
            lambda: pl.LazyFrame({"a": ["x"]}).with_columns(pl.col("a").cast(pl.Int64)),
            "a polars query must run, but this one fails: .*mend the query",
        ),
        (
            lambda: pl.LazyFrame({"a": [1]}).select("b"),
            "a polars query must run, but this one fails: ",
        ),
    ],
)
def test_a_stream_that_fails_leaves_nothing_behind(
    spoil: Callable[[], Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for spool in (tmp_path, None):
        with pytest.raises(DataError, match=message):
            open_source(spoil(), spool=spool)
        assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_caller_s_generator_is_the_caller_s(tmp_path: Path) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"a": [1]})
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        open_source(broken(), spool=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"written to disk first, but .*file gives: .*more room"):
        open_source(batches_of(sample()), spool=tmp_path / "file")


def test_a_read_out_reader_says_so() -> None:
    reader = sample().to_reader()
    reader.read_all()
    with pytest.raises(DataError, match="a table must have rows, but there are none in: stream"):
        open_source(reader)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "data must be a pandas, polars or Arrow table.* but got int; convert it"),
        (None, "but got NoneType"),
        (np.zeros(3), "but got numpy.ndarray"),
        (pd.Series([1]), "but (that of Series is not: .*; give a table|got pandas.*Series; conv)"),
        (pl.Series([1]), "an Arrow stream must be one of record batches, but that of Series"),
        (object, "but got type"),
        ([], "a table must have rows, but the list is empty"),
        ([1, 2], r"must hold only dicts, only paths or only tables, but .* \['int'\]"),
        ([{"a": 1}, "x"], r"this one holds \['dict', 'str'\]"),
        ([object()], "an iterator must give record batches or tables, but gave object at 0"),
        ({}, "a table must have columns, but there are none in: dict of columns"),
        ([{}], "a table must have columns, but there are none in: list of dicts"),
        ({"a": 1}, "must map each column to a list of values, but 'a' is 1; put it into a list"),
        ({"a": "xyz"}, "but 'a' is 'xyz'"),
        ({"a": [1], "b": [1, 2]}, r"of one length, but have \{'a': 1, 'b': 2\}"),
        ({"a": [1, "x"]}, "must be of one plain type, but those of 'a' are not: .*to text"),
        ({"a": [2**70]}, "must be of one plain type, but those of 'a' are not"),
        ({"a": []}, "a table must have rows, but there are none in: dict of columns: 0 rows"),
        (pd.DataFrame({"a": [1, "x"]}, dtype=object), "those of 'a' are not"),
        (pd.DataFrame({"a": pd.arrays.SparseArray([1])}), "those of 'a' are not"),
        (pd.DataFrame(), "a table must have columns, but there are none in: pandas DataFrame"),
        (pd.DataFrame({"a": []}), "must have rows, but there are none in: pandas DataFrame: 0"),
        (sample(0), "must have rows, but there are none in: Arrow Table"),
        (pl.DataFrame({"a": []}), "must have rows, but there are none in: polars DataFrame"),
        (pl.LazyFrame({"a": [1]}).filter(False), "there are none in: polars LazyFrame"),
        (ds.dataset(sample(0)), "there are none in: Arrow dataset: 0 rows"),
        (
            [pa.table({"a": [1]}), pa.table({"b": [1]})],
            r"columns of the first, \['a'\], but that at 1 has \['b'\]",
        ),
        ([pa.table({"a": [1]}), pa.table({"a": ["x"]})], "column types of the first, but"),
        ("nowhere.csv", "must lead to a file or folder, but there is none at nowhere.csv"),
        ("nowhere/*.csv", "a glob must match at least one file, but 'nowhere/.*' matches none"),
        ("s3://bucket/x", r"must be on this machine, but got 's3://bucket/x'; .*dataset\("),
    ],
)
def test_what_cannot_be_read_is_said(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(data)


def test_no_rows_are_accepted_on_demand() -> None:
    assert open_source(sample(0), allow_empty=True).to_table().equals(sample(0))
    with pytest.raises(DataError, match="a table must have columns"):
        open_source(pa.table({}), allow_empty=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), r"must differ, but \['a'\] occur more than"),
        (pd.DataFrame([[1, 2]], columns=["0", 0]), r"must differ, but \['0'\] occur more than"),
        (
            pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])),
            r"plain column names, but the frame has 2 levels of them such as \('a', 'b'\)",
        ),
        (pa.table([[1], [2]], names=["a", "a"]), r"must differ, but \['a'\] occur more than once"),
        (
            pa.table({"s": [{"x": 1}]}),
            r"'s' is nested: struct<x: int64>; flatten it \(one column for each field\) or drop",
        ),
        (pa.table({"s": [[{"x": 1}]]}), "'s' is nested: struct<x: int64>"),
        (
            pa.table({"s": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))}),
            "'s' is nested: map",
        ),
        (iter([pa.record_batch({"s": [{"x": 1}]})]), "'s' is nested: struct"),
    ],
)
def test_columns_that_cannot_be_used_are_said(data: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        open_source(data)


def test_what_is_asked_of_batches_is_checked_at_once() -> None:
    source = open_source(sample())
    with pytest.raises(SchemaError, match=r"the column 'Usr' must be in the table.* mean 'user'"):
        source.batches(["Usr"])
    for rows in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match="batch_rows must be an integer of at least 1"):
            source.batches(batch_rows=rows)  # type: ignore[arg-type]


def test_a_batch_without_a_column_is_not_read_as_another() -> None:
    schema = pa.schema([("a", pa.int64())])
    with pytest.raises(DataError, match="'a' is missing in one with"):
        conformed(pa.record_batch({"b": [1]}), schema)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", b"", "must have content, but .*x.parquet has 0 bytes"),
        ("x.parquet", b"PAR1 and nothing", r"x.parquet must be a whole Parquet file, but .*: "),
        ("x.parquet", b"a,b\n1,2\n", r"x.parquet must be a whole Parquet file, but .*: "),
        ("x.arrow", b"ARROW1 and nothing", r"x.arrow must be a whole Arrow file, but .*: "),
        ("x.feather", b"FEA1 and more", "must be of version 2, but .*x.feather is of version 1"),
        ("x.xlsx", b"PK\x03\x04\0\0", f"x.xlsx must be of a known type, but it holds b.*{READ}"),
        ("x.json", b'{"a": 1, "b": 2}\n{"a": 3, "b": 4}', f"has the ending '.json' and.*{READ}"),
        ("LICENSE", b"You may, or not,\nuse this.\n", f"has no ending and its lines do.*{READ}"),
        ("x.csv.gz", b"\x1f\x8b\x08\0nonsense", "x.csv.gz must be a whole gzip file"),
    ],
)
def test_files_that_cannot_be_read_are_named(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / name)


@pytest.mark.parametrize("write", [write_parquet, write_ipc])
def test_a_file_cut_or_spoilt_is_named(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(sample(), tmp_path / ("t.parquet" if write is write_parquet else "t.arrow"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"t\.\w+ must be a whole \w+ file.*write it again"):
        open_source(path)


def test_a_page_spoilt_inside_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = write_parquet(sample(), tmp_path / "t.parquet", compression="gzip")
    whole = bytearray(path.read_bytes())
    whole[40:400] = b"\xff" * 360
    path.write_bytes(whole)
    source = open_source(path)
    with pytest.raises(DataError, match=r"t\.parquet must be a whole Parquet file, but cannot"):
        source.to_table()


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    path = write_parquet(sample(), tmp_path / "t.parquet")
    source = open_source(path)
    path.unlink()
    with pytest.raises(DataError, match=r"t\.parquet must be a whole Parquet file, but cannot"):
        source.to_table()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = write_parquet(sample(), tmp_path / "t.parquet")
    path.chmod(0)
    with pytest.raises(DataError, match=r"t\.parquet must be .*Permission denied"):
        open_source(path)


def test_folders_of_days_become_a_column(tmp_path: Path) -> None:
    for day, value in ((1, 10), (2, 20), ("__HIVE_DEFAULT_PARTITION__", 30)):
        write_parquet(pa.table({"a": [value]}), tmp_path / f"log/day={day}/x=u%2Fv/p.parquet")
    want = [
        {"a": 10, "day": 1, "x": "u/v"},
        {"a": 20, "day": 2, "x": "u/v"},
        {"a": 30, "day": None, "x": "u/v"},
    ]
    for data in (tmp_path / "log", f"{tmp_path}/log/*/*/*.parquet", f"{tmp_path}/log/day=*"):
        assert rows_of(open_source(data)) == want
    source = open_source(tmp_path / "log")
    assert rows_of(source, ["day"]) == [{"day": 1}, {"day": 2}, {"day": None}]
    assert str(source.schema.field("day").type) == "int64"
    only = open_source(tmp_path / "log" / "day=1" / "x=u%2Fv" / "p.parquet")
    assert only.schema.names == ["a"], "folders above what was named say nothing"


def test_codes_of_folders_keep_their_zeros(tmp_path: Path) -> None:
    for hour in ("07", "12"):
        (tmp_path / f"hour={hour}").mkdir()
        write_csv(pa.table({"a": [1], "b": [2]}), tmp_path / f"hour={hour}" / "p.csv")
    assert open_source(tmp_path).to_table()["hour"].to_pylist() == ["07", "12"]


def test_a_column_in_the_file_wins_over_its_folder(tmp_path: Path) -> None:
    write_parquet(pa.table({"day": [7], "a": [1]}), tmp_path / "day=1" / "p.parquet")
    assert rows_of(open_source(tmp_path)) == [{"day": 7, "a": 1}]


@pytest.mark.parametrize("write", [write_parquet, write_ipc, write_csv])
def test_files_may_order_their_columns_differently(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    write(pa.table({"a": [1], "b": ["x"]}), tmp_path / "1")
    write(pa.table({"b": ["y"], "a": [2]}), tmp_path / "2")
    assert rows_of(open_source(tmp_path)) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def test_files_may_differ_in_width_and_missing_types(tmp_path: Path) -> None:
    write_parquet(pa.table({"a": pa.array([1], pa.int8()), "b": pa.nulls(1)}), tmp_path / "1.pq")
    write_parquet(pa.table({"a": [2**40], "b": ["x"]}), tmp_path / "2.pq")
    source = open_source(tmp_path)
    assert [str(kind) for kind in source.schema.types] == ["int64", "string"]
    assert rows_of(source) == [{"a": 1, "b": None}, {"a": 2**40, "b": "x"}]


@pytest.mark.parametrize("write", [write_parquet, write_csv])
def test_files_of_other_columns_are_named(write: Callable[..., Path], tmp_path: Path) -> None:
    write(pa.table({"a": [1], "b": [1]}), tmp_path / "1")
    write(pa.table({"a": [1], "c": [1]}), tmp_path / "2")
    message = r"columns of the first, .*1, but .*2 lacks \['b'\] and .*2 has \['c'\] beside them"
    with pytest.raises(SchemaError, match=message):
        open_source(tmp_path)


def test_files_of_other_types_are_named(tmp_path: Path) -> None:
    write_parquet(pa.table({"a": [1]}), tmp_path / "1.pq")
    write_parquet(pa.table({"a": ["x"]}), tmp_path / "2.pq")
    message = r"one type a column, but 'a' is int64 in .*1\.pq and string in .*2\.pq; write them"
    with pytest.raises(SchemaError, match=message):
        open_source(tmp_path)
    (tmp_path / "2.pq").unlink()
    write_csv(pa.table({"a": [1], "b": [2]}), tmp_path / "2.csv")
    with pytest.raises(DataError, match=r"of one type, but .*1\.pq is Parquet and .*2\.csv is CSV"):
        open_source(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"must hold data files, but .*empty has none; {READ}"):
        open_source(tmp_path / "empty")


def test_integers_that_a_float_would_change_are_refused(tmp_path: Path) -> None:
    write_parquet(pa.table({"a": [0.5]}), tmp_path / "1.pq")
    write_parquet(pa.table({"a": [2**53 + 1]}), tmp_path / "2.pq")
    with pytest.raises(DataError, match="'a' is double and here int64"):
        open_source(tmp_path).to_table()


def test_a_bare_source_needs_only_a_stream() -> None:
    class Two(Source):
        def _stream(self, columns: list[str], batch_rows: int) -> Iterator[Any]:
            yield pa.record_batch({"b": ["x"], "a": [1]})
            yield pa.record_batch({"a": [2], "b": ["y"]})

    source = Two(pa.schema([("a", pa.int64()), ("b", pa.string())]), None, "two batches")
    assert open_source(source).to_table().to_pydict() == {"a": [1, 2], "b": ["x", "y"]}
    empty = TableSource(sample(0), "nothing")
    empty.num_rows = None
    with pytest.raises(DataError, match="there are none in: nothing"):
        open_source(empty)


def text(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types are guessed from the first hundred bytes or so, and every later one is a surprise."""
    monkeypatch.setattr(delimited, "_FIRST", 100)
    monkeypatch.setattr(dialect, "_BLOCK", 80)


LATE = "\n".join(f"{k},{k}" for k in range(100, 200))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("late", "dtype", "value", "note"),
    [
        ("7", "int64", 7, None),
        ("", "int64", None, None),
        ("NA", "int64", None, None),
        (" 7 ", "int64", 7, None),
        ("9007199254740993", "int64", 2**53 + 1, None),
        ("-9223372036854775808", "int64", -(2**63), None),
        ("0.5", "double", 0.5, None),
        ("1e3", "double", 1000.0, None),
        ("abc", "string", "abc", "read as text: as int64 its value 'abc' would not be exact"),
        ("2024-01-01", "string", "2024-01-01", "its value '2024-01-01' would"),
        ("9223372036854775808", "string", "9223372036854775808", "its value '922337"),
        ("1_000", "string", "1_000", "its value '1_000'"),
    ],
)
def test_a_value_late_in_a_csv_widens_its_column(
    late: str, dtype: str, value: Any, note: str | None, tmp_path: Path
) -> None:
    source = open_source(text(tmp_path, f"a,b\n{LATE}\n{late},1\n"))
    assert [str(kind) for kind in source.schema.types] == [dtype, "int64"]
    found = source.to_table()["a"].to_pylist()
    assert found[-1] == value
    kind = {"int64": int, "double": float, "string": str}[dtype]
    assert found[:-1] == [kind(k) for k in range(100, 200)]
    assert set(source.notes) == ({"a"} if note else set())
    assert note is None or note in source.notes["a"]


@pytest.mark.usefixtures("small_blocks")
def test_ids_in_a_column_with_one_fraction_stay_exact(tmp_path: Path) -> None:
    for late in ("0.5\n9007199254740993", "9007199254740993\n0.5"):
        numbers = "\n".join(f"{k}" for k in range(100, 200))
        source = open_source(text(tmp_path, f"a\n{numbers}\n{late}\n"))
        found = source.to_table()["a"].to_pylist()
        assert found[:2] == ["100", "101"] and sorted(found)[:1] == ["0.5"]
        assert "9007199254740993" in found


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("first", "late", "dtype", "value"),
    [
        ("", "5", "int64", 5),
        ("", "0.5", "double", 0.5),
        ("", "x", "string", "x"),
        ("", "007", "string", "007"),
        ("", "99999999999999999999", "string", "99999999999999999999"),
        ("0.5", "x", "string", "x"),
        ("true", "maybe", "string", "maybe"),
        ("2024-01-01", "soon", "string", "soon"),
        ("2024-01-01 10:00:00", "2024-01-01", "timestamp[s]", datetime(2024, 1, 1)),
        ("x", "", "string", None),
    ],
)
def test_columns_that_begin_otherwise_are_settled_too(
    first: str, late: str, dtype: str, value: Any, tmp_path: Path
) -> None:
    source = open_source(text(tmp_path, "a,b\n" + f"{first},1\n" * 50 + f"{late},1\n"))
    assert str(source.schema.field("a").type) == dtype
    assert source.to_table()["a"].to_pylist()[-1] == value


@pytest.mark.parametrize(
    ("values", "dtype", "want"),
    [
        ("1 2 3", "int64", [1, 2, 3]),
        ("1 null 3", "int64", [1, None, 3]),
        ("10000094504618440000 1", "string", ["10000094504618440000", "1"]),
        ("9007199254740993 0.5", "string", ["9007199254740993", "0.5"]),
        ("01002 94110", "string", ["01002", "94110"]),
        ("0 1", "int64", [0, 1]),
        ("0.5 1", "double", [0.5, 1.0]),
        ("1e300 0.5 inf", "double", [1e300, 0.5, math.inf]),
        ("true false", "bool", [True, False]),
        ("a ä", "string", ["a", "ä"]),
        ("2024-01-31 2024-02-01", "date32[day]", [date(2024, 1, 31), date(2024, 2, 1)]),
        ("NA DE", "string", ["NA", "DE"]),
    ],
)
def test_types_of_a_csv(values: str, dtype: str, want: list[Any], tmp_path: Path) -> None:
    source = open_source(text(tmp_path, "a,b\n" + "".join(f"{v},1\n" for v in values.split())))
    assert str(source.schema.field("a").type) == dtype
    assert source.to_table()["a"].to_pylist() == want


def test_types_of_several_csv_files_are_made_one(tmp_path: Path) -> None:
    text(tmp_path, "a,b,c,d\n1,1,,x\n", "1.csv")
    text(tmp_path, "a,b,c,d\n0.5,x,7,true\n", "2.csv")
    source = open_source(tmp_path)
    assert [str(kind) for kind in source.schema.types] == ["double", "string", "int64", "string"]
    assert rows_of(source) == [
        {"a": 1.0, "b": "1", "c": None, "d": "x"},
        {"a": 0.5, "b": "x", "c": 7, "d": "true"},
    ]
    assert source.notes["b"] == "read as text: files have it as int64 and string"
    text(tmp_path, "a,b,c,d\n9007199254740993,x,7,true\n", "3.csv")
    assert open_source(tmp_path).to_table()["a"].to_pylist() == ["1", "0.5", "9007199254740993"]


@pytest.mark.usefixtures("small_blocks")
def test_a_fraction_late_in_the_last_file_spoils_no_id_of_the_first(tmp_path: Path) -> None:
    text(tmp_path, "a,b\n9007199254740993,1\n", "1.csv")
    text(tmp_path, f"a,b\n{LATE}\n0.5,1\n", "2.csv")
    found = open_source(tmp_path).to_table()["a"].to_pylist()
    assert found[0] == "9007199254740993" and found[-1] == "0.5"


def expected(column: list[str]) -> list[Any]:
    """Read a column of texts as the naive reader would, that sees all of it at once."""

    def whole(value: str) -> bool:
        return re.fullmatch(r"[+-]?\d+", value) is not None

    present = [value for value in column if value != ""]
    padded = any(re.match(r"[+-]?0\d", value) for value in present)
    if all(whole(v) and abs(int(v)) < 2**63 for v in present) and not padded:
        return [None if v == "" else int(v) for v in column]
    long = any(whole(v) and abs(int(v)) > 2**53 for v in present)
    if all(re.fullmatch(r"[+-]?\d+(\.\d+)?", v) for v in present) and not (long or padded):
        return [None if v == "" else float(v) for v in column]
    return [None if v == "" else v for v in column]


CELLS = st.one_of(
    st.integers(-9, 9).map(str),
    st.sampled_from(["", "0.5", "-2.25", str(2**53 + 1), str(2**62), "word", 'a"b', "x,y"]),
)


@pytest.mark.usefixtures("small_blocks")
def test_any_csv_reads_as_if_all_of_it_were_seen_at_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(CELLS, CELLS, st.integers(1, 12)), min_size=1, max_size=12))
    def check(runs: list[tuple[str, str, int]]) -> None:
        rows = [(a, b, "1") for a, b, times in runs for _ in range(times)]
        path = tmp_path_factory.mktemp("csv") / "t.csv"
        with path.open("w", newline="") as file:
            writer = python_csv.writer(file, lineterminator="\r\n")
            writer.writerows([("a", "b", "c"), *rows])
        source = open_source(path)
        found = source.to_table().to_pydict()
        assert source.num_rows == len(rows)
        for at, name in enumerate("abc"):
            assert found[name] == expected([row[at] for row in rows]), name
            assert source.to_table([name])[name].to_pylist() == found[name]

    check()


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("a,b\r\n1,x\r\n2,y\r\n", [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ("\ufeffa,b\n1,x\n", [{"a": 1, "b": "x"}]),
        ("\n\n a , b\n1,x\n\n2,y", [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ("a,b\n1,ä\n".encode("latin-1"), [{"a": 1, "b": "ä"}]),
        ("a,b\n1,ä\n".encode("utf-16"), [{"a": 1, "b": "ä"}]),
        ('a,b\n"1","x, ""y"""\n', [{"a": 1, "b": 'x, "y"'}]),
        ('a,b\n1,""\n2,x\n', [{"a": 1, "b": None}, {"a": 2, "b": "x"}]),
        (",a\n0,x\n1,y\n", [{"Unnamed: 0": 0, "a": "x"}, {"Unnamed: 0": 1, "a": "y"}]),
        ("0,1,2\n5,6,7\n", [{"0": 5, "1": 6, "2": 7}]),
        ("a\n1\n\n3\n", [{"a": 1}, {"a": None}, {"a": 3}]),
        (
            'a\tb\n1\t5" screen\n2\tso "it" is\n',
            [{"a": 1, "b": '5" screen'}, {"a": 2, "b": 'so "it" is'}],
        ),
        ('a\tb\n1\t"odd\n2\ty\n', [{"a": 1, "b": '"odd'}, {"a": 2, "b": "y"}]),
        ("id;text\n1;a,b\n2;c,d,e\n", [{"id": 1, "text": "a,b"}, {"id": 2, "text": "c,d,e"}]),
        ("id,genres\n1,a|b\n2,c|d\n", [{"id": 1, "genres": "a|b"}, {"id": 2, "genres": "c|d"}]),
    ],
)
def test_ways_to_write_a_csv(content: str | bytes, rows: list[Any], tmp_path: Path) -> None:
    assert rows_of(open_source(text(tmp_path, content))) == rows


@pytest.mark.usefixtures("small_blocks")
def test_a_value_may_go_over_lines(tmp_path: Path) -> None:
    rows = [(str(k), f"line {k}\nand, more\n" * (k % 3)) for k in range(60)]
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        python_csv.writer(file).writerows([("a", "b"), *rows])
    found = rows_of(open_source(path))
    assert found == [{"a": int(a), "b": b or None} for a, b in rows]


@pytest.mark.usefixtures("small_blocks")
def test_a_line_may_be_longer_than_a_block(tmp_path: Path) -> None:
    rows = ["x" * length for length in (5, 10, 90, 700, 5000, 5)]
    content = "a,b\n" + "".join(f"{row},1\n" for row in rows)
    assert open_source(text(tmp_path, content)).to_table()["a"].to_pylist() == rows


@pytest.mark.usefixtures("small_blocks")
def test_a_letter_late_in_a_file_tells_its_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialect, "_SAMPLE", 50)
    content = "a,b\n" + "1,x\n" * 100 + "2,é\n"
    for encoding in ("utf-8", "latin-1"):
        found = open_source(text(tmp_path, content.encode(encoding))).to_table()
        assert found["b"].to_pylist()[-1] == "é"
        assert found.num_rows == 101


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("a,b\n", "t.csv", "a table must have rows, but there are none in: CSV file .*t.csv"),
        ("\n \n", "t.csv", "must have a header line and rows, but .*t.csv has only blanks"),
        (
            "a,b\n1,2\n1,2,3\n",
            "t.csv",
            r"but .*t\.csv has 2 columns and 3 values in the line '1,2,3'; mend this line",
        ),
        (
            "1,2,3.5\n2,3,4.5\n",
            "t.csv",
            r"with a line of column names, but the first line of .*t\.csv looks like data: '1', "
            r"'2', '3\.5', \.\.\.; add such a line.*sep=',', names=",
        ),
        ("0\tx\t0\ty\n1\tz\t1\tu\n", "t.tsv", "looks like data: '0', 'x', '0', 'y'"),
        ("1 2\n3 4\n", "t.txt", "looks like data: '1 2'"),
        ("1::Toy Story::Animation|Comedy\n2::Heat::Action\n", "m.dat", "those of .* are by '::'"),
        ("a,b\n1,\0\n", "t.csv", "t.csv must be of a known type, but it holds binary data"),
    ],
)
def test_a_csv_that_cannot_be_read_is_named(
    content: str, name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        open_source(text(tmp_path, content, name))


def test_a_csv_with_one_name_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"must differ, but \['a'\] occur more than once in .*t"):
        open_source(text(tmp_path, "a,b,a\nx,y,z\n"))


def test_a_csv_cut_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = text(tmp_path, "a,b\n1,2\n3,4\n")
    source = open_source(path)
    text(tmp_path, "a,b\n1,2\n3,x\n")
    with pytest.raises(DataError, match=r"t\.csv must be a whole CSV file.*invalid value 'x'"):
        source.to_table()


def test_real_files(data_root: Path) -> None:
    frappe = open_source(data_root / "frappe" / "frappe_x1_train.RECONSTRUCTED.csv")
    assert frappe.num_rows == 202_027 and {str(t) for t in frappe.schema.types} == {"int64"}
    avazu = open_source(data_root / "avazu" / "autorec_train-10k")
    assert avazu.num_rows == 9_999 and avazu.schema.names[:3] == ["id", "click", "hour"]
    assert avazu.to_table(["id"])["id"][0].as_py() == "1000009418151094273"
    assert pc.count_distinct(avazu.to_table(["id"])["id"]).as_py() == 9_999
    views = open_source(data_root / "jobs" / "Job_Views.csv")
    assert views.num_rows == 12_370 and views.schema.names[0] == "Applicant.ID"
    for name in ("ml-100k/u.item", "ml-100k/u.data", "criteo/autorec_train-10k.txt"):
        with pytest.raises(DataError, match="looks like data"):
            open_source(data_root / name)
    with pytest.raises(DataError, match="by '::'"):
        open_source(data_root / "ml-1m" / "movies.dat")
    with pytest.raises(DataError, match="must be of a known type"):
        open_source(data_root / "ml-100k" / "README")


@pytest.fixture
def memory() -> None:
    if not Path("/proc/self/status").is_file():
        pytest.skip("the peak memory of a process is read from /proc, which is absent")


def grown(code: str) -> float:
    """Return by how many MB the peak memory of a process grows while `code` runs."""
    # Not ru_maxrss: it begins with what the parent held when it forked.
    program = f"""
    import re, sys
    import numpy, pandas, pyarrow.parquet, pyarrow.dataset, pyarrow.csv, polars
    from autorec.data.sources import open_source
    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
    for warm in open_source(polars.LazyFrame({{"x": [1]}})).batches():
        pass
    before = peak()
    {code}
    print(peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


READ_ALL = "print(file=sys.stderr) if sum(b.num_rows for b in {}) else sys.exit('no rows')"


@pytest.mark.usefixtures("memory")
def test_a_large_parquet_file_is_not_held(tmp_path: Path) -> None:
    """One row group of 230 MB: read whole it grows by that much."""
    n = 2_400_000
    columns = {f"c{i}": np.random.default_rng(i).integers(0, 2**60, n) for i in range(12)}
    path = tmp_path / "big.parquet"
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False, "row_group_size": n}
    pq.write_table(pa.table(columns), path, **plain)
    assert path.stat().st_size > 220e6
    opened = f"open_source({str(path)!r})"
    assert grown(READ_ALL.format(f"{opened}.batches(['c0', 'c7'])")) < 60
    assert grown(READ_ALL.format(f"{opened}.batches()")) < 110
    # Arrow's own scanner holds some row groups, of 10 MB here.
    plain["row_group_size"] = 100_000
    pq.write_table(pa.table(columns), path, **plain)
    dataset = f"open_source(pyarrow.dataset.dataset({str(path)!r}))"
    assert grown(READ_ALL.format(f"{dataset}.batches()")) < 220


@pytest.mark.usefixtures("memory")
def test_a_large_csv_file_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    line = b"12345678,9876543210,some words here,0.25,2024-01-31 12:00:00\n"
    with path.open("wb") as file:
        file.write(b"user,item,text,x,when\n")
        for _ in range(60):
            file.write(line * 40_000)
    assert path.stat().st_size > 140e6
    code = READ_ALL.format(f"open_source({str(path)!r}).batches(['user', 'x'])")
    assert grown(code) < 110


@pytest.mark.usefixtures("memory")
def test_a_large_lazy_frame_is_not_held() -> None:
    """60 million rows, 960 MB where they are collected."""
    frame = "polars.LazyFrame({'a': range(12000)}).join(polars.LazyFrame({'b': range(5000)}), "
    code = READ_ALL.format(f"open_source({frame} how='cross')).batches(['a'])")
    assert grown(code) < 300


@pytest.mark.usefixtures("memory")
def test_a_large_generator_is_not_held() -> None:
    code = (
        "made = (pyarrow.record_batch({'x': numpy.arange(i, i + 10**6)}) for i in range(25))\n"
        "    source = open_source(made)\n"
        "    assert pyarrow.default_memory_pool().max_memory() < 60e6\n"
        "    sum(b.num_rows for b in source.batches())\n"
        "    assert pyarrow.default_memory_pool().max_memory() < 60e6"
    )
    grown(code)
