"""Encoded rows on disk: raw little-endian binary, written in one stream and mapped when read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from autorec.data import timeline
from autorec.data.casting import numbers
from autorec.data.columns import FORMAT, META, OPTIONAL, Array, Columns, files_of
from autorec.data.encoder import Encoded, Encoder, require
from autorec.data.folders import begin, publish
from autorec.data.hashing import hash_values
from autorec.data.split import TRAIN, VALID, SplitPlan
from autorec.data.streaming import Rows, stream
from autorec.errors import ConfigError, DataError
from autorec.schema import Layout, Schema

__all__ = ["ColumnWriter", "Columns", "group_key", "weights", "write_columns"]


class Labels(Protocol):
    """The part of a label map that is used here."""

    def apply(self, array: Any) -> npt.NDArray[np.float32]:
        """Return the float32 label (n,) of each raw value."""
        ...


class ColumnWriter:
    """Appends encoded rows to a hidden folder that takes its name when it is closed.

    Args:
        folder: where the columns will be; earlier columns there are replaced on `close`.
        layout: that of the encoder.
    """

    def __init__(self, folder: Path | str, layout: Layout) -> None:
        self.n_rows = 0
        self._folder, self._layout = Path(folder), layout
        self._partial = begin(self._folder)
        self._optional: list[str] | None = None
        self._open: dict[str, tuple[BinaryIO, str, tuple[int, ...]]] = {}

    def __enter__(self) -> ColumnWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.abort()

    def append(self, encoded: Encoded, **optional: Array | None) -> None:
        """Write n more rows.

        Args:
            encoded: from the encoder of this layout.
            **optional: `label`, `weight`, `group`, `time` (n,); the same ones in every call.

        Raises:
            ConfigError: a shape differs from the layout, or the optional columns change.
        """
        given = {name: array for name, array in optional.items() if array is not None}
        self._begin(sorted(given))
        arrays = {"codes": encoded.codes, "dense": encoded.dense, **given}
        arrays.update({f"list:{name}": array for name, array in encoded.lists.items()})
        for name, (_, _, shape) in self._open.items():
            want = (len(encoded), *shape)
            if name not in arrays or arrays[name].shape != want:
                got = arrays[name].shape if name in arrays else "nothing"
                raise ConfigError(
                    f"appended columns must fit the layout, but {name!r} is {got} and not {want}; "
                    "encode with the encoder of this layout"
                )
        for name, (file, dtype, _) in self._open.items():
            np.ascontiguousarray(arrays[name], dtype).tofile(file)
        self.n_rows += len(encoded)

    def close(self) -> Columns:
        """Give the folder its name and return its columns, memory-mapped."""
        self._begin([] if self._optional is None else self._optional)
        for file, _, _ in self._open.values():
            file.close()
        meta = {"format": FORMAT, "rows": self.n_rows, "optional": self._optional}
        text = json.dumps({**meta, "layout": self._layout.to_json()}, indent=1)
        (self._partial / META).write_text(text, "utf-8")
        publish(self._partial, self._folder, META)
        return Columns.open(self._folder)

    def abort(self) -> None:
        """Remove what was written, unless it was closed."""
        for file, _, _ in self._open.values():
            file.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _begin(self, optional: list[str]) -> None:
        """Open the files at the first call; later ones must name the same optional columns."""
        unknown = sorted(set(optional) - set(OPTIONAL))
        if unknown or (self._optional is not None and optional != self._optional):
            raise ConfigError(
                f"every append gives the same of {list(OPTIONAL)}, but got {optional} after "
                f"{self._optional}"
            )
        if self._optional is None:
            self._optional = optional
            for name, (file, dtype, shape) in files_of(self._layout, optional).items():
                self._open[name] = ((self._partial / file).open("wb"), dtype, shape)


def write_columns(
    source: Rows,
    schema: Schema,
    encoder: Encoder,
    label_map: Labels | None,
    plan: SplitPlan | None,
    folder: Path | str,
    *,
    part: str = "train",
) -> dict[str, Columns]:
    """Stream a table once and write its encoded rows.

    Args:
        source: the table.
        schema: names label, weight, group and timestamp; the last three are kept where they exist.
        encoder: fitted on the training rows.
        label_map: raw labels to floats; None leaves labels out.
        plan: with rows on both sides, `folder/train` and `folder/valid` are written.
        folder: parent of the written folders.
        part: name of the only folder where the plan is None or "given".

    Returns:
        The written columns by name of their folder.

    Raises:
        DataError: a label or weight that cannot be used, a missing column, or an empty side.
    """
    split = plan is not None and plan.method != "given"
    parts = {TRAIN: "train", VALID: "valid"} if split else {TRAIN: part}
    reader = _Reader(schema, encoder, label_map)
    needs = [*reader.needs, *(plan.needs if plan is not None and split else ())]
    writers = {
        side: ColumnWriter(Path(folder) / name, encoder.layout) for side, name in parts.items()
    }
    try:
        row = 0
        for batch in stream(source, list(dict.fromkeys(needs))):
            require(batch, needs)
            encoded, optional = encoder.encode(batch), reader.read(batch, row)
            row += batch.num_rows
            sides = plan.assign(batch) if plan is not None and split else None
            for side, writer in writers.items():
                _append(writer, encoded, optional, None if sides is None else sides == side)
        for side, writer in writers.items():
            if not writer.n_rows:
                raise DataError(
                    f"both sides of a split need rows, but {parts[side]!r} has none of {row}; "
                    "check the table and the split"
                )
        return {parts[side]: writer.close() for side, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.abort()


class _Reader:
    """Reads label, weight, group and time of a batch."""

    def __init__(self, schema: Schema, encoder: Encoder, labels: Labels | None) -> None:
        self._schema, self._labels = schema, labels
        roles = [schema.weight, schema.group, schema.timestamp]
        if labels is not None and schema.label is None:
            raise ConfigError("a label map needs a schema with a label column; pass label=...")
        roles += [schema.label] if labels is not None else []
        features = [field.name for field in encoder.schema.features]
        self.needs = list(dict.fromkeys([*features, *(name for name in roles if name)]))

    def read(self, batch: Any, row: int) -> dict[str, Array]:
        """Return the optional columns of a batch that begins at `row` of its table."""
        schema = self._schema
        out: dict[str, Array] = {}
        if self._labels is not None and schema.label:
            out["label"] = self._labels.apply(batch.column(schema.label))
        if schema.weight:
            out["weight"] = weights(batch.column(schema.weight), schema.weight, row)
        if schema.group:
            out["group"] = group_key(batch.column(schema.group), schema.group)
        if (name := schema.timestamp) is not None:
            out["time"] = timeline.stored(batch.column(name), name, schema[name].dtype)
        return out


def weights(array: Any, column: str, row: int = 0) -> npt.NDArray[np.float32]:
    """Return sample weights (n,) as float32; zero leaves a row out.

    Raises:
        DataError: a negative, null or infinite weight (with count and first place).
    """
    values = numbers(array, column)
    good = np.isfinite(values) & (values >= 0)
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        raise DataError(
            f"weights must be finite and not negative, but column {column!r} breaks this "
            f"{int((~good).sum())} times in rows {row} to {row + len(values) - 1}, first with "
            f"{array[first].as_py()!r} at row {first + row}; "
            "mend or drop these rows"
        )
    return values.astype(np.float32)


def group_key(array: Any, column: str = "") -> npt.NDArray[np.int64]:
    """Return the group (n,) of each row: a stable hash of the raw value; nulls are one group."""
    return hash_values(array, column).view(np.int64)


def _append(
    writer: ColumnWriter, encoded: Encoded, optional: Mapping[str, Array], mask: Any
) -> None:
    if mask is not None and not mask.all():
        lists = {name: array[mask] for name, array in encoded.lists.items()}
        encoded = Encoded(encoded.codes[mask], lists, encoded.dense[mask])
        optional = {name: array[mask] for name, array in optional.items()}
    writer.append(encoded, **optional)
