"""What is written is what was encoded, whole or not at all, and in little memory."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from autorec.data.encoder import Encoded, Encoder
from autorec.data.labels import LabelMap
from autorec.data.sources import open_source
from autorec.data.split import plan_split
from autorec.data.store import Columns, ColumnWriter, group_key, weights, write_columns
from autorec.errors import ConfigError, DataError
from autorec.schema import Field, Kind, Role, Schema

SCHEMA = Schema(
    (
        Field("user", Kind.ID, Role.USER, "int64"),
        Field("item", Kind.ID, Role.ITEM, "string"),
        Field("tags", Kind.LIST, Role.FEATURE, "list<item: string>"),
        Field("price", Kind.NUMERIC, Role.FEATURE, "double"),
        Field("click", Kind.CATEGORICAL, Role.LABEL, "int64"),
        Field("ts", Kind.TIMESTAMP, Role.TIMESTAMP, "int64"),
        Field("w", Kind.NUMERIC, Role.WEIGHT, "double"),
    )
)
LABELS = LabelMap("binary", negative=0, positive=1)


def clicks(n: int = 60) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "user": rng.integers(0, 9, n),
            "item": [f"i{k}" for k in rng.integers(0, 9, n)],
            "tags": [["a", "b"][: k % 3] for k in range(n)],
            "price": [None if k % 7 == 0 else float(k) for k in range(n)],
            "click": rng.integers(0, 2, n),
            "ts": rng.permutation(n),
            "w": rng.random(n),
        }
    )


class Cut:
    """A table whose batches have `rows` rows, whatever is asked."""

    def __init__(self, table: pa.Table, rows: int) -> None:
        self.table, self.rows = table, rows

    def batches(self, columns: Any = None, batch_rows: int = 0) -> Any:
        table = self.table if columns is None else self.table.select(list(columns))
        return iter(table.to_batches(max_chunksize=self.rows))


def fitted(table: pa.Table) -> Encoder:
    return Encoder.fit(lambda: iter(table.to_batches()), SCHEMA, min_count=1)


def same(left: Columns, right: Columns) -> None:
    assert (left.layout, left.n_rows) == (right.layout, right.n_rows)
    for name in ("codes", "dense", "label", "weight", "group", "time"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert left.lists.keys() == right.lists.keys()
    for name, array in left.lists.items():
        np.testing.assert_array_equal(array, right.lists[name])


def test_written_columns_are_the_encoded_ones(tmp_path: Path) -> None:
    table = clicks()
    encoder, source = fitted(table), open_source(table)
    plan = plan_split(source, SCHEMA, holdout=0.25)
    got = write_columns(source, SCHEMA, encoder, LABELS, plan, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train", "valid"]
    late = table["ts"].to_numpy() >= 45
    for name, mask in (("train", ~late), ("valid", late)):
        part = table.filter(pa.array(mask))
        columns = got[name]
        assert columns.n_rows == len(columns) == int(mask.sum())
        encoded = encoder.encode(part)
        np.testing.assert_array_equal(columns.codes, encoded.codes)
        np.testing.assert_array_equal(columns.dense, encoded.dense)
        np.testing.assert_array_equal(columns.lists["tags"], encoded.lists["tags"])
        np.testing.assert_array_equal(columns.label, part["click"].to_numpy().astype("f4"))
        np.testing.assert_array_equal(columns.weight, part["w"].to_numpy().astype("f4"))
        np.testing.assert_array_equal(columns.time, part["ts"].to_numpy())
        np.testing.assert_array_equal(columns.group, group_key(part["user"]))
        same(Columns.open(tmp_path / name), columns)
        kinds = {columns.codes.dtype, columns.lists["tags"].dtype}
        assert kinds == {np.dtype(np.int32)}
        assert columns.label is not None
        assert columns.label.dtype == columns.dense.dtype == np.float32


def test_the_cut_into_batches_changes_nothing(tmp_path: Path) -> None:
    """Groups above all: a vocabulary per batch would number users anew in each."""
    table = clicks()
    encoder = fitted(table)
    plan = plan_split(open_source(table), SCHEMA, method="random", holdout=0.3)
    found = [
        write_columns(Cut(table, rows), SCHEMA, encoder, LABELS, plan, tmp_path / str(rows))
        for rows in (1, 7, 60)
    ]
    for other in found[1:]:
        same(found[0]["train"], other["train"])
        same(found[0]["valid"], other["valid"])


def test_a_group_is_a_hash_of_the_raw_value() -> None:
    users = [5, 7, 5, 2**40]
    wanted = group_key(pa.array(users))
    assert wanted.dtype == np.int64
    assert wanted[0] == wanted[2]
    assert len({*wanted.tolist()}) == 3
    for kind in (pa.uint64(), pa.float64()):
        np.testing.assert_array_equal(group_key(pa.array(users, kind)), wanted)
    small = pa.array([5, 7, 5], pa.int32())
    np.testing.assert_array_equal(group_key(small), wanted[:3])
    text = group_key(pa.array(["u1", None, "u2", None]))
    assert text[1] == text[3]
    np.testing.assert_array_equal(
        group_key(pa.array(["u1", None, "u2", None]).dictionary_encode()), text
    )


def test_without_a_plan_there_is_one_part(tmp_path: Path) -> None:
    table = clicks()
    plain = Schema(tuple(f for f in SCHEMA.fields if f.name not in ("w", "ts", "user")))
    encoder = Encoder.fit(lambda: iter(table.to_batches()), plain, min_count=1)
    got = write_columns(open_source(table), plain, encoder, None, None, tmp_path, part="tuning")
    assert list(got) == ["tuning"]
    assert (tmp_path / "tuning").is_dir()
    columns = got["tuning"]
    assert columns.n_rows == 60
    assert {columns.label, columns.weight, columns.group, columns.time} == {None}
    given = plan_split(open_source(table), plain, method="given")
    got = write_columns(open_source(table), plain, encoder, LABELS, given, tmp_path)
    assert list(got) == ["train"]


def test_take(tmp_path: Path) -> None:
    table = clicks()
    written = write_columns(open_source(table), SCHEMA, fitted(table), LABELS, None, tmp_path)
    columns = written["train"]
    view = columns.take(slice(10, 20))
    assert view.n_rows == 10
    assert np.shares_memory(view.codes, columns.codes)
    assert np.shares_memory(view.lists["tags"], columns.lists["tags"])
    copy = columns.take(np.arange(10, 20))
    same(copy, view)
    assert not np.shares_memory(copy.codes, columns.codes)
    same(columns.take(np.arange(60) % 60 >= 50), columns.take(slice(50, None)))
    row = 3 * 4 + 2 * 4 + 4 + 4 + 4 + 8 + 8  # codes, tags, price, label, weight, group, time
    assert columns.nbytes == 60 * row
    assert copy.nbytes == 10 * row


def test_a_map_can_be_written_to_but_keeps_its_file(tmp_path: Path) -> None:
    table = clicks()
    columns = write_columns(open_source(table), SCHEMA, fitted(table), LABELS, None, tmp_path)
    columns["train"].codes[:] = -1
    assert (Columns.open(tmp_path / "train").codes >= 0).all()


def test_columns_in_memory() -> None:
    table = clicks()
    encoder = fitted(table)
    columns = Columns.of(encoder.layout, encoder.encode(table), label=np.zeros(60, np.float32))
    assert columns.n_rows == 60
    assert columns.weight is None
    assert columns.take(slice(5)).label is not None


# ---- refusals


def test_weights_of_a_whole_table() -> None:
    chunks = pa.chunked_array([pa.array([1, 0]), pa.array([2])])
    for column in (chunks, chunks.dictionary_encode()):
        assert weights(column, "w").tolist() == [1.0, 0.0, 2.0]
    assert weights(pa.array(["0.5"]), "w").dtype == np.float32


@pytest.mark.parametrize("bad", [-1.0, None, math.nan, math.inf])
def test_weights_are_finite_and_not_negative(bad: float | None, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'w' breaks this 2 times in rows 10 to 13, first with .*"):
        weights(pa.array([0.0, bad, 1.0, bad], pa.float64()), "w", 10)
    table = clicks()
    spoiled = [*table["w"].to_pylist()[:-1], bad]
    table = table.set_column(6, "w", pa.array(spoiled, pa.float64()))
    with pytest.raises(DataError, match="at row 59;"):
        write_columns(Cut(table, 9), SCHEMA, fitted(table), LABELS, None, tmp_path)
    assert list(tmp_path.iterdir()) == []  # nothing half written stays


def test_a_missing_column_or_an_empty_side_is_told(tmp_path: Path) -> None:
    table = clicks()
    encoder = fitted(table)
    plan = plan_split(open_source(table), SCHEMA, holdout=0.25)
    early = table.filter(pa.array(table["ts"].to_numpy() < 40))
    with pytest.raises(DataError, match="'valid' has none of 40"):
        write_columns(open_source(early), SCHEMA, encoder, LABELS, plan, tmp_path)
    with pytest.raises(DataError, match="'train' has none of 0"):
        write_columns(Cut(table.slice(0, 0), 1), SCHEMA, encoder, LABELS, None, tmp_path)
    unlabelled = Schema(tuple(f for f in SCHEMA.fields if f.name != "click"))
    with pytest.raises(ConfigError, match="a schema with a label column"):
        write_columns(open_source(table), unlabelled, encoder, LABELS, None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_checks_shapes_and_optional_columns(tmp_path: Path) -> None:
    table = clicks()
    encoder = fitted(table)
    encoded = encoder.encode(table)
    label = np.zeros(60, np.float32)
    with ColumnWriter(tmp_path / "c", encoder.layout) as writer:
        writer.append(encoded, label=label)
        with pytest.raises(ConfigError, match=r"same of .* but got \[\] after \['label'\]"):
            writer.append(encoded)
        with pytest.raises(ConfigError, match=r"'label' is \(3,\) and not \(60,\)"):
            writer.append(encoded, label=label[:3])
        narrow = Encoded(encoded.codes[:, :1], encoded.lists, encoded.dense)
        with pytest.raises(ConfigError, match=r"'codes' is \(60, 1\) and not \(60, 3\)"):
            writer.append(narrow, label=label)
        with pytest.raises(ConfigError, match=r"'list:tags' is nothing"):
            writer.append(Encoded(encoded.codes, {}, encoded.dense), label=label)
        assert not (tmp_path / "c").exists()
        assert writer.close().n_rows == 60
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    with ColumnWriter(tmp_path / "c", encoder.layout) as writer:  # replaces the first
        writer.close()
    empty = Columns.open(tmp_path / "c")
    assert empty.n_rows == 0
    assert empty.codes.shape == (0, 3)
    with pytest.raises(ConfigError, match=r"but got \['labels'\]"):
        ColumnWriter(tmp_path / "d", encoder.layout).append(encoded, labels=label)


def test_damaged_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a folder with a readable meta.json"):
        Columns.open(tmp_path)
    table = clicks()
    write_columns(open_source(table), SCHEMA, fitted(table), LABELS, None, tmp_path)
    folder = tmp_path / "train"
    data = (folder / "codes.i4").read_bytes()
    (folder / "codes.i4").write_bytes(data[:-4])
    with pytest.raises(DataError, match=r"codes.i4 has 716 bytes and not 720"):
        Columns.open(folder)
    (folder / "codes.i4").unlink()
    with pytest.raises(DataError, match=r"codes.i4 has None bytes and not 720"):
        Columns.open(folder)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "format": 2}))
    with pytest.raises(DataError, match=r"have format 1, but .* has 2"):
        Columns.open(folder)


# ---- memory

MEMORY = """
    import sys
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from autorec.data.encoder import Encoder
    from autorec.data.labels import LabelMap
    from autorec.data.sources import open_source
    from autorec.data.split import plan_split, training_batches
    from autorec.data.store import write_columns
    from autorec.schema import Field, Kind, Role, Schema

    def status(name):
        text = Path("/proc/self/status").read_text()
        return int(text.split(name + ":")[1].split()[0]) / 1024

    folder = Path(sys.argv[1])
    source = open_source(folder / "big.parquet")
    fields = [Field(name, Kind.ID) for name in ("a", "b", "c")]
    fields += [Field("user", Kind.ID, Role.USER), Field("x", Kind.NUMERIC)]
    fields += [Field("y", Kind.CATEGORICAL, Role.LABEL), Field("t", Kind.TIMESTAMP, Role.TIMESTAMP)]
    schema = Schema(tuple(fields))
    before = status("VmRSS")
    plan = plan_split(source, schema)
    encoder = Encoder.fit(training_batches(source, plan), schema)
    labels = LabelMap("binary", negative=0, positive=1)
    columns = write_columns(source, schema, encoder, labels, plan, folder / "out")
    rows = columns["train"].n_rows + columns["valid"].n_rows
    print(rows, encoder.layout.sparse[0].rows, status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_file_larger_than_the_memory_used_is_encoded(tmp_path: Path) -> None:
    """660 MB of values in 2 M rows pass through at most 200 MB."""
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    n, groups = 25_000, 80
    words = pa.array([f"{k:05d}" + "abcdefgh" * 12 for k in range(1000)])
    decoded = 0
    writer = None
    for part in range(groups):
        columns = {
            name: pa.DictionaryArray.from_arrays(rng.integers(0, 1000, n, np.int32), words)
            for name in ("a", "b", "c")
        }
        columns["user"] = pa.array(rng.integers(0, 50_000, n))
        columns["x"] = pa.array(rng.normal(size=n))
        columns["y"] = pa.array(rng.integers(0, 2, n))
        columns["t"] = pa.array(np.arange(part * n, (part + 1) * n))
        table = pa.table({name: array.cast(flat(array.type)) for name, array in columns.items()})
        decoded += table.nbytes
        writer = writer or pq.ParquetWriter(tmp_path / "big.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    assert decoded > 600e6
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEMORY), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows, vocabulary, growth = done.stdout.split()
    assert (int(rows), int(vocabulary)) == (n * groups, 1002)
    assert float(growth) < 200, f"{growth} MB"


def flat(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
