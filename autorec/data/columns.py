"""Encoded rows in memory or behind memory maps, and the layout of their files on disk.

Every trial of a search reads the same columns, so they are encoded once; a map costs no memory
until rows are read, and worker processes share its pages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autorec.data.encoder import Encoded
from autorec.errors import DataError
from autorec.schema import Layout

FORMAT = 1
META = "meta.json"
OPTIONAL = {"label": "<f4", "weight": "<f4", "group": "<i8", "time": "<i8"}
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Columns:
    """N encoded rows, in memory or memory-mapped.

    Attributes:
        layout: what the columns mean.
        n_rows: N.
        codes: (N, F) int32, one column per `layout.sparse`.
        lists: name to (N, L) int32.
        dense: (N, Q) float32, NaN where missing.
        label: (N,) float32 or None.
        weight: (N,) float32 or None.
        group: (N,) int64 hash of the raw value that grouped metrics average over, or None.
        time: (N,) int64 (see `autorec.data.timeline`; a null time is the smallest), or None.
    """

    layout: Layout
    n_rows: int
    codes: npt.NDArray[np.int32]
    lists: dict[str, npt.NDArray[np.int32]]
    dense: npt.NDArray[np.float32]
    label: npt.NDArray[np.float32] | None = None
    weight: npt.NDArray[np.float32] | None = None
    group: npt.NDArray[np.int64] | None = None
    time: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.n_rows

    @classmethod
    def of(cls, layout: Layout, encoded: Encoded, **optional: Array | None) -> Columns:
        """Return encoded rows in memory, with `label`, `weight`, `group` or `time` beside them."""
        return cls(
            layout, len(encoded), encoded.codes, dict(encoded.lists), encoded.dense, **optional
        )

    @classmethod
    def open(cls, folder: Path | str) -> Columns:
        """Map the columns of a folder that `ColumnWriter` closed.

        Writing to an array changes this process's copy only, never the file.

        Raises:
            DataError: no such folder, another format, or a file of a wrong size.
        """
        folder = Path(folder)
        try:
            meta = json.loads((folder / META).read_text("utf-8"))
            version, rows = meta["format"], int(meta["rows"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"stored columns are a folder with a readable {META}, but {folder} gives: "
                f"{error}; encode the table again"
            ) from error
        if version != FORMAT:
            raise DataError(
                f"stored columns have format {FORMAT}, but {folder} has {version!r}; "
                "encode the table again"
            )
        layout = Layout.from_json(meta["layout"])
        arrays = {
            name: _map(folder / file, dtype, (rows, *shape))
            for name, (file, dtype, shape) in files_of(layout, meta["optional"]).items()
        }
        return cls(
            layout=layout,
            n_rows=rows,
            codes=arrays.pop("codes"),
            dense=arrays.pop("dense"),
            lists={f.name: arrays.pop(f"list:{f.name}") for f in layout.lists},
            **arrays,
        )

    def take(self, rows: slice | Array) -> Columns:
        """Return some rows: a slice gives views, an array of indices or a mask gives copies."""

        def part(array: Any) -> Any:
            return None if array is None else array[rows]

        codes = part(self.codes)
        return replace(
            self,
            n_rows=len(codes),
            codes=codes,
            dense=part(self.dense),
            lists={name: part(array) for name, array in self.lists.items()},
            **{name: part(getattr(self, name)) for name in OPTIONAL},
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, mapped or not."""
        optional = [getattr(self, name) for name in OPTIONAL]
        held = [self.codes, self.dense, *self.lists.values(), *optional]
        return sum(int(array.nbytes) for array in held if array is not None)


def files_of(layout: Layout, optional: list[str]) -> dict[str, tuple[str, str, tuple[int, ...]]]:
    """Return file, dtype and shape of a row for each array of a layout."""
    files: dict[str, tuple[str, str, tuple[int, ...]]] = {
        "codes": ("codes.i4", "<i4", (len(layout.sparse),)),
        "dense": ("dense.f4", "<f4", (len(layout.dense),)),
    }
    for number, column in enumerate(layout.lists):
        files[f"list:{column.name}"] = (f"list-{number:04d}.i4", "<i4", (column.length,))
    for name in optional:
        files[name] = (f"{name}.{OPTIONAL[name][1:]}", OPTIONAL[name], ())
    return files


def _map(path: Path, dtype: str, shape: tuple[int, ...]) -> Array:
    """Map a raw file of a known shape."""
    want = int(np.prod(shape)) * np.dtype(dtype).itemsize
    got = path.stat().st_size if path.is_file() else None
    if got != want:
        raise DataError(
            f"stored columns must be whole, but {path} has {got} bytes and not {want}; "
            "encode the table again"
        )
    if not want:
        return np.empty(shape, dtype)
    # Copy-on-write: torch warns about arrays it could not write to, and the file stays as it is.
    return np.memmap(path, dtype, mode="c", shape=shape).view(np.ndarray)
