"""The files of an encoder: `encoder.json` with a version and checksums, and Arrow vocabularies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from autorec.data.folders import whole
from autorec.data.sealed import Sealed, entry
from autorec.data.vocabulary import Vocabulary

FORMAT = 2  # 2: text columns, and their buckets among the settings
_FOLDER = Sealed("encoder", "encoder.json", FORMAT, "save the model again")


def write(folder: Path, body: dict[str, Any], vocabularies: Mapping[str, Vocabulary]) -> None:
    """Write an encoder's facts and vocabularies into `folder`, whole or not at all."""
    with whole(folder, _FOLDER.file) as partial:
        files = []
        for number, (name, vocabulary) in enumerate(vocabularies.items()):
            path = partial / f"vocabulary-{number:04d}.arrow"
            fitted = pa.field("fitted", vocabulary.fitted)  # an empty column keeps the type
            schema = pa.schema([pa.field("values", vocabulary.values.type)])
            with pa.OSFile(str(path), "wb") as sink:
                told = schema.with_metadata(
                    {"fitted": pa.schema([fitted]).serialize().to_pybytes()}
                )
                with pa.ipc.new_file(sink, told) as out:
                    out.write_batch(pa.record_batch([vocabulary.values], schema=told))
            files.append({"column": name, **entry(path)})
        _FOLDER.write(partial, {**body, "vocabularies": files})


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Vocabulary]]:
    """Return what `write` was given.

    Raises:
        RankerError: no encoder, a newer version, or a file that is missing or altered.
    """
    body = _FOLDER.read(folder)
    return body, {f["column"]: _vocabulary(folder, f) for f in body["vocabularies"]}


def _vocabulary(folder: Path, file: Mapping[str, str]) -> Vocabulary:
    with pa.ipc.open_file(pa.py_buffer(_FOLDER.data(folder, file))) as source:
        batch = source.get_batch(0)
        fitted = pa.ipc.read_schema(pa.py_buffer(source.schema.metadata[b"fitted"])).field(0).type
    return Vocabulary(file["column"], batch.column(0), fitted)
