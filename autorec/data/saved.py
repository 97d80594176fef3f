"""The files of an encoder: `encoder.json` with a version and checksums, and Arrow vocabularies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from autorec.data.folders import whole
from autorec.data.vocabulary import Vocabulary
from autorec.errors import RankerError

FORMAT = 1
_JSON = "encoder.json"


def write(folder: Path, body: dict[str, Any], vocabularies: Mapping[str, Vocabulary]) -> None:
    """Write an encoder's facts and vocabularies into `folder`, whole or not at all."""
    with whole(folder, _JSON) as partial:
        files = []
        for number, (name, vocabulary) in enumerate(vocabularies.items()):
            file = f"vocabulary-{number:04d}.arrow"
            fitted = pa.field("fitted", vocabulary.fitted)  # an empty column keeps the type
            schema = pa.schema([pa.field("values", vocabulary.values.type)])
            with pa.OSFile(str(partial / file), "wb") as sink:
                told = schema.with_metadata(
                    {"fitted": pa.schema([fitted]).serialize().to_pybytes()}
                )
                with pa.ipc.new_file(sink, told) as out:
                    out.write_batch(pa.record_batch([vocabulary.values], schema=told))
            digest = hashlib.sha256((partial / file).read_bytes()).hexdigest()
            files.append({"column": name, "file": file, "sha256": digest})
        body = {"format": FORMAT, **body, "vocabularies": files}
        (partial / _JSON).write_text(json.dumps({**body, "sha256": _digest(body)}, indent=1))


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Vocabulary]]:
    """Return what `write` was given.

    Raises:
        RankerError: no encoder, a newer version, or a file that is missing or altered.
    """
    try:
        body = json.loads((folder / _JSON).read_text("utf-8"))
        version, told = body["format"], body.pop("sha256", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RankerError(
            f"a saved encoder is a folder with a readable {_JSON}, but {folder} gives: {error}; "
            "save the model again"
        ) from error
    if not isinstance(version, int) or version > FORMAT:
        raise RankerError(
            f"this version of autorec reads encoders up to format {FORMAT}, but {folder} has "
            f"format {version!r}; install the version that wrote it, or a newer one"
        )
    if told != _digest(body):
        raise _altered(folder / _JSON)
    return body, {f["column"]: _vocabulary(folder, f) for f in body["vocabularies"]}


def _vocabulary(folder: Path, entry: Mapping[str, str]) -> Vocabulary:
    path = folder / entry["file"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RankerError(
            f"a saved encoder needs all its files, but {path} cannot be read ({error}); "
            "copy the whole folder"
        ) from error
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise _altered(path)
    with pa.ipc.open_file(pa.py_buffer(data)) as source:
        batch = source.get_batch(0)
        fitted = pa.ipc.read_schema(pa.py_buffer(source.schema.metadata[b"fitted"])).field(0).type
    return Vocabulary(entry["column"], batch.column(0), fitted)


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _altered(path: Path) -> RankerError:
    return RankerError(
        f"a saved encoder must be as it was written, but {path} was altered or cut short; "
        "copy the folder again"
    )
