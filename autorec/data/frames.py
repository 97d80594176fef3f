"""Tables as callers hold them: in for prediction, and results back in the same container."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from autorec.data.sources import open_source
from autorec.errors import DataError


def to_table(data: Any) -> pa.Table:
    """Return any table in memory, with plain types: dictionaries and categoricals are decoded.

    Args:
        data: what `open_source` takes; a table without rows too.

    Raises:
        DataError, SchemaError: as `open_source`.
    """
    return open_source(data, allow_empty=True).to_table()


def like(original: Any, columns: Mapping[str, npt.NDArray[Any] | pa.Array]) -> Any:
    """Return columns (N,) in the kind of container that `original` is.

    Args:
        original: what the caller gave.
        columns: name to numpy or Arrow array.

    Returns:
        pandas with the index of `original`, `polars.DataFrame` or `pa.Table` where it was one of
        these (polars lazy, Arrow batches and data sets included), else pandas.

    Raises:
        DataError: the columns differ in length, or from the rows of a pandas `original`.
    """
    arrays = {name: _array(column) for name, column in columns.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"columns must be of one length, but have {lengths}; give one value a row")
    package = type(original).__module__.partition(".")[0]
    if package == "pyarrow":
        return pa.table(arrays)
    if package == "polars":
        return sys.modules["polars"].from_arrow(pa.table(arrays))
    frame = pa.table(arrays).to_pandas()
    if isinstance(original, pd.DataFrame):
        if arrays and len(frame) != len(original):
            raise DataError(
                f"results must have one row for each of the {len(original)} given, but have "
                f"{len(frame)}"
            )
        frame.index = original.index
    return frame


def data_frame(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return rows as a pandas frame, columns as given or in the order in which rows name them."""
    return pd.DataFrame(list(rows), columns=None if columns is None else list(columns))


def _array(column: Any) -> Any:
    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks()
    return column if isinstance(column, pa.Array) else pa.array(np.asarray(column))
