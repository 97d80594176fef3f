"""The files of a fitted transform: `transform.json` with a checksum, and Arrow tables of arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autorec.data.folders import whole
from autorec.errors import RankerError

FORMAT = 1
JSON = "transform.json"
Arrays = dict[str, npt.NDArray[Any]]


def write(folder: Path, body: Mapping[str, Any], tables: Mapping[str, Arrays]) -> None:
    """Write facts and tables of equally long 1-d arrays; the folder appears whole."""
    with whole(folder, JSON) as partial:
        files = []
        for number, (name, arrays) in enumerate(tables.items()):
            file = f"table-{number:04d}.arrow"
            batch = pa.record_batch({key: pa.array(array) for key, array in arrays.items()})
            with (
                pa.OSFile(str(partial / file), "wb") as sink,
                pa.ipc.new_file(sink, batch.schema) as out,
            ):
                out.write_batch(batch)
            digest = hashlib.sha256((partial / file).read_bytes()).hexdigest()
            files.append({"table": name, "file": file, "sha256": digest})
        body = {"format": FORMAT, **body, "tables": files}
        (partial / JSON).write_text(json.dumps({**body, "sha256": _digest(body)}, indent=1))


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Arrays]]:
    """Return what `write` was given.

    Raises:
        RankerError: no transform, a newer version, or a file that is missing or altered.
    """
    try:
        body = json.loads((folder / JSON).read_text("utf-8"))
        version, told = body["format"], body.pop("sha256", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RankerError(
            f"a saved transform is a folder with a readable {JSON}, but {folder} gives: {error}; "
            "save it again"
        ) from error
    if not isinstance(version, int) or version > FORMAT:
        raise RankerError(
            f"this version of autorec reads transforms up to format {FORMAT}, but {folder} has "
            f"format {version!r}; install the version that wrote it, or a newer one"
        )
    if told != _digest(body):
        raise _altered(folder / JSON)
    return body, {entry["table"]: _table(folder, entry) for entry in body["tables"]}


def _table(folder: Path, entry: Mapping[str, str]) -> Arrays:
    path = folder / entry["file"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RankerError(
            f"a saved transform needs all its files, but {path} cannot be read ({error}); "
            "copy the whole folder"
        ) from error
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise _altered(path)
    with pa.ipc.open_file(pa.py_buffer(data)) as source:
        batch = source.get_batch(0)
    return {name: np.asarray(batch.column(name)) for name in batch.schema.names}


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _altered(path: Path) -> RankerError:
    return RankerError(
        f"a saved transform must be as it was written, but {path} was altered or cut short; "
        "copy the folder again"
    )
