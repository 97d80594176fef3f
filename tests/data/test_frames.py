"""Tables in for prediction, and results back in the caller's container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from autorec.data.frames import data_frame, like, to_table
from autorec.errors import DataError, SchemaError

TABLE = pa.table({"user": [1, 2, None], "tags": [["a"], [], None], "when": ["x", None, "z"]})


@pytest.mark.parametrize(
    "data",
    [
        TABLE,
        TABLE.to_batches()[0],
        TABLE.to_pylist(),
        TABLE.to_pydict(),
        pl.from_arrow(TABLE),
        pl.from_arrow(TABLE).lazy(),
        ds.dataset(TABLE),
        TABLE.to_pandas().assign(user=pd.array([1, 2, None], "Int64")).set_index([[7, 7, 8]]),
    ],
)
def test_any_table_becomes_an_arrow_table(data: Any) -> None:
    found = to_table(data)
    assert isinstance(found, pa.Table)
    assert found.to_pylist() == TABLE.to_pylist()


def test_paths_become_one_table(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "1.parquet")
    pq.write_table(TABLE, tmp_path / "2.parquet")
    assert to_table(tmp_path / "1.parquet").equals(TABLE)
    assert to_table(str(tmp_path / "*.parquet")).num_rows == 6
    assert to_table([tmp_path / "2.parquet"]).equals(TABLE)


@pytest.mark.parametrize(
    "data", [TABLE.slice(0, 0), TABLE.slice(0, 0).to_pandas(), pl.from_arrow(TABLE.slice(0, 0))]
)
def test_no_rows_are_a_table_too(data: Any) -> None:
    found = to_table(data)
    assert found.num_rows == 0 and found.column_names == TABLE.column_names


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(DataError, match="data must be a pandas, polars or Arrow table"):
        to_table(3)
    with pytest.raises(DataError, match="a table must have columns"):
        to_table(pd.DataFrame())
    with pytest.raises(SchemaError, match="'s' is nested"):
        to_table([{"s": {"x": 1}}])


SCORE = np.array([0.5, 0.25, 1.0])
NAMES = pa.array(["a", None, "c"])
COLUMNS = {"score": SCORE, "name": NAMES, "rank": pa.chunked_array([[1, 2], [3]])}
WANT = {"score": [0.5, 0.25, 1.0], "name": ["a", None, "c"], "rank": [1, 2, 3]}


def test_pandas_gets_pandas_with_its_index() -> None:
    index = pd.MultiIndex.from_tuples([("x", 1), ("x", 1), ("y", 2)], names=["k", "n"])
    given = pd.DataFrame({"user": [1, 2, 3]}, index=index)
    found = like(given, COLUMNS)
    assert isinstance(found, pd.DataFrame)
    assert found.index.equals(given.index) and found.index.names == ["k", "n"]
    assert found["score"].tolist() == WANT["score"] and found["rank"].tolist() == WANT["rank"]
    assert found["name"].isna().tolist() == [False, True, False]
    assert list(found.columns) == list(WANT)


@pytest.mark.parametrize("given", [TABLE, TABLE.to_batches()[0], ds.dataset(TABLE)])
def test_arrow_gets_arrow(given: Any) -> None:
    found = like(given, COLUMNS)
    assert isinstance(found, pa.Table) and found.to_pydict() == WANT


@pytest.mark.parametrize("given", [pl.from_arrow(TABLE), pl.from_arrow(TABLE).lazy()])
def test_polars_gets_polars(given: Any) -> None:
    found = like(given, COLUMNS)
    assert isinstance(found, pl.DataFrame) and found.to_dict(as_series=False) == WANT


@pytest.mark.parametrize("given", [[{"user": 1}], {"user": [1]}, "rows.csv", Path("rows.csv")])
def test_everything_else_gets_pandas(given: Any) -> None:
    found = like(given, COLUMNS)
    assert isinstance(found, pd.DataFrame) and found.index.tolist() == [0, 1, 2]
    assert found["score"].tolist() == WANT["score"]


def test_results_must_fit_the_rows() -> None:
    with pytest.raises(DataError, match="one row for each of the 2 given, but have 3"):
        like(pd.DataFrame({"a": [1, 2]}), COLUMNS)
    with pytest.raises(DataError, match=r"of one length, but have \{'a': 3, 'b': 1\}"):
        like(TABLE, {"a": SCORE, "b": SCORE[:1]})


def test_rows_become_a_frame_of_all_their_columns() -> None:
    found = data_frame([{"b": 1}, {"b": 2, "a": "x"}])
    assert list(found.columns) == ["b", "a"] and found["b"].tolist() == [1, 2]
    assert data_frame([]).empty
