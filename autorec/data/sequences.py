"""List columns as a padded block of codes: the last values of each row, first to last.

A row keeps its LAST values, because in a history they are the latest. Nulls inside a list, and
empty parts of a text such as 'a||b', are dropped; an empty or null list is all padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from autorec.data.casting import flat, is_list, is_text
from autorec.data.vocabulary import Codes

SEPARATOR = "|"


def parts(array: Any) -> tuple[Any, npt.NDArray[np.int64]]:
    """Return the values of all rows end to end, and how many each row (n,) has.

    Args:
        array: Arrow lists of any layout, text that is split on '|' and trimmed, or single values,
            each then a list of one.
    """
    array = flat(array)
    if is_text(array.type):
        array = pc.split_pattern(array.cast(pa.large_string()), SEPARATOR)
        lengths, values = _lengths(array), pc.utf8_trim_whitespace(array.flatten())
        keep = pc.not_equal(values, "")
    elif is_list(array.type):
        lengths, values = _lengths(array), array.flatten()
        keep = values.is_valid()
    else:
        lengths, values = np.ones(len(array), np.int64), array
        keep = values.is_valid()
    kept = pc.fill_null(keep, False).to_numpy(zero_copy_only=False)
    if kept.all():
        return values, lengths
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    ends = np.cumsum(lengths)
    return values.filter(pa.array(kept)), before[ends] - before[ends - lengths]


def pad(codes: Codes, lengths: npt.NDArray[np.int64], width: int, *, last: bool = True) -> Codes:
    """Return (n, L) with the last `width` codes of each row from the left, 0 behind them.

    Args:
        codes: (m,) of all rows end to end.
        lengths: (n,) codes of each row.
        width: L.
        last: whether a row keeps its last codes or its first.
    """
    n = len(lengths)
    kept = np.minimum(lengths, width)
    row = np.repeat(np.arange(n), kept)
    place = np.arange(len(row)) - np.repeat(np.cumsum(kept) - kept, kept)
    first = np.cumsum(lengths) - (kept if last else lengths)
    out = np.zeros((n, width), np.int32)
    out[row, place] = codes[np.repeat(first, kept) + place]
    return out


def _lengths(array: Any) -> npt.NDArray[np.int64]:
    found = pc.fill_null(pc.list_value_length(array), 0)
    return np.asarray(found.to_numpy(zero_copy_only=False)).astype(np.int64)
