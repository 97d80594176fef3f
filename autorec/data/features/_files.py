"""The files of a fitted transform: `transform.json` with a checksum, and Arrow tables of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autorec.data.folders import whole
from autorec.data.sealed import Sealed, entry

FORMAT = 1
JSON = "transform.json"
Arrays = dict[str, npt.NDArray[Any]]
_FOLDER = Sealed("transform", JSON, FORMAT, "save it again")


def write(folder: Path, body: Mapping[str, Any], tables: Mapping[str, Arrays]) -> None:
    """Write facts and tables of equally long 1-d arrays; the folder appears whole."""
    with whole(folder, JSON) as partial:
        fill(partial, _FOLDER, body, tables)


def fill(folder: Path, kind: Sealed, body: Mapping[str, Any], tables: Mapping[str, Arrays]) -> None:
    """Write facts and tables into a folder that `whole` gave."""
    files = []
    for number, (name, arrays) in enumerate(tables.items()):
        path = folder / f"table-{number:04d}.arrow"
        batch = pa.record_batch({key: pa.array(array) for key, array in arrays.items()})
        with (
            pa.OSFile(str(path), "wb") as sink,
            pa.ipc.new_file(sink, batch.schema) as out,
        ):
            out.write_batch(batch)
        files.append({"table": name, **entry(path)})
    kind.write(folder, {**body, "tables": files})


def read(folder: Path, kind: Sealed = _FOLDER) -> tuple[dict[str, Any], dict[str, Arrays]]:
    """Return what `write` or `fill` was given; the arrays are read-only.

    Raises:
        RankerError: no such folder, a newer version, or a file that is missing or altered.
    """
    body = kind.read(folder)
    return body, {file["table"]: _table(folder, kind, file) for file in body["tables"]}


def _table(folder: Path, kind: Sealed, file: Mapping[str, str]) -> Arrays:
    with pa.ipc.open_file(pa.py_buffer(kind.data(folder, file))) as source:
        batch = source.get_batch(0)
    return {name: np.asarray(batch.column(name)) for name in batch.schema.names}


def below(tables: dict[str, Arrays], start: str) -> dict[str, Arrays]:
    """Return the tables whose names begin with a word, without it."""
    return {n.removeprefix(f"{start} "): t for n, t in tables.items() if n.startswith(f"{start} ")}
