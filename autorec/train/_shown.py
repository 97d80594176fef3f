"""Lists and texts as a fixed number of columns: for trees, which see no sequences.

A list becomes one 0/1 column for each of a few of its values, and the number of its values. Which
ones is decided on training rows: first those whose rows differ in their mean label by more than
chance, by the loss that a split on them saves; then the most frequent others. The hashed words of a
text are chosen alike, where the first codes of a vocabulary mean nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from autorec.errors import RankerError
from autorec.schema import Layout, ListField

if TYPE_CHECKING:
    from autorec.data.store import Columns

Shown = Mapping[str, tuple[int, ...]]

MOST = 32  # values of a list that are shown
_FILE = "lists.json"
_ROWS = 200_000  # training rows that are looked at, evenly spaced
_PART = 1 << 15  # rows at a time
_SURE, _LEAST, _PRIOR = 0.01, 20, 10.0


def choose(columns: Columns) -> dict[str, tuple[int, ...]]:
    """Return the codes of each list field that are shown, at most `MOST`, the best first.

    Memory: 16 bytes for each code of the field, and a few MB.

    Args:
        columns: training rows with labels.
    """
    if not columns.layout.lists:
        return {}
    step = max(1, -(-columns.n_rows // _ROWS))
    label = np.zeros(0) if columns.label is None else columns.label[::step].astype(np.float64)
    return {
        field.name: _best(field, columns.lists[field.name][::step], label)
        for field in columns.layout.lists
    }


def _best(
    field: ListField, values: npt.NDArray[np.int32], label: npt.NDArray[np.float64]
) -> tuple[int, ...]:
    """Return the codes to show of n rows (n, L) with labels (n,)."""
    if field.rows - 1 <= MOST:
        return tuple(range(1, field.rows))
    rows, total = _sums(field, values, label - label.mean() if len(label) else label)
    there = np.flatnonzero(rows)
    gain = total[there] ** 2 / (rows[there] + _PRIOR)
    # Labels of rows with a value that tells nothing sum to 0, give or take this.
    spread = np.sqrt(rows[there] * label.var()) if len(label) else np.zeros(len(there))
    bar = NormalDist().inv_cdf(1.0 - _SURE / max(2, 2 * len(there)))
    sure = (rows[there] >= _LEAST) & (np.abs(total[there]) > bar * spread)
    order = np.lexsort((there, -rows[there], np.where(sure, -gain, np.inf)))
    return tuple(there[order[:MOST]].tolist())


def _sums(
    field: ListField, values: npt.NDArray[np.int32], label: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the rows with each code, and their label sum; a row counts once."""
    rows, total = np.zeros(field.rows), np.zeros(field.rows)
    for start in range(0, len(values), _PART):
        part = np.sort(values[start : start + _PART], axis=1)
        new = part > 0
        new[:, 1:] &= part[:, 1:] != part[:, :-1]
        codes = part[new]
        rows += np.bincount(codes, minlength=field.rows)
        own = np.repeat(label[start : start + _PART], new.sum(axis=1)) if len(label) else None
        if own is not None:
            total += np.bincount(codes, own, field.rows)
    return rows, total


def flags(
    field: ListField, values: npt.NDArray[np.int32], codes: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Return 0 or 1 for each of K codes, and the number of values: (n, K + 1) of rows (n, L)."""
    slot = np.zeros(field.rows, np.int8)
    slot[list(codes)] = np.arange(1, len(codes) + 1)
    out = np.zeros((len(values), len(codes) + 1), np.float32)
    for start in range(0, len(values), _PART):
        part = values[start : start + _PART]
        found = slot[part]
        row, place = np.nonzero(found)
        out[start + row, found[row, place] - 1] = 1.0
        out[start : start + _PART, -1] = (part > 0).sum(axis=1)
    return out


def first(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Return the first codes of each list, the most frequent ones of a vocabulary."""
    return {f.name: tuple(range(1, 1 + min(MOST, f.rows - 1))) for f in layout.lists}


def save(folder: Path, shown: Shown) -> None:
    """Write the codes; nothing where there are no lists."""
    if shown:
        text = json.dumps({name: list(codes) for name, codes in shown.items()})
        (folder / _FILE).write_text(text, encoding="utf-8")


def load(folder: Path, layout: Layout) -> dict[str, tuple[int, ...]]:
    """Read what `save` wrote; a folder without it is of a model that sees the first codes.

    Raises:
        RankerError: the file is damaged, or of other lists.
    """
    path = folder / _FILE
    if not path.is_file():
        return first(layout)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {field.name: tuple(map(int, told[field.name])) for field in layout.lists}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RankerError(
            f"{path} must hold the codes of the lists that the trees read, but reading it failed: "
            f"{error!r}; copy the whole folder"
        ) from error
