"""Rows on disk, written again with derived columns behind their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autorec.data.columns import OPTIONAL, Columns
from autorec.data.encoder import Encoded
from autorec.data.store import ColumnWriter
from autorec.schema import Layout

if TYPE_CHECKING:
    from autorec.data.derivation import Derivation

_ROWS = 1 << 18


def widen(folder: Path, layout: Layout, more: Encoded | Derivation) -> Columns:
    """Write the rows in `folder` again with derived columns behind, and return them, mapped.

    Args:
        folder: of rows without derived columns.
        layout: of the rows with them.
        more: the values of these rows, or what gives them.
    """
    old = Columns.open(folder)
    with ColumnWriter(folder, layout) as writer:
        for part in parts(len(old), _ROWS):
            rows = old.take(part)
            own = Encoded(rows.codes, rows.lists, rows.dense)
            if isinstance(more, Encoded):
                wide = _side_by_side(own, Encoded(more.codes[part], {}, more.dense[part]))
            else:
                wide = more.append(old.layout, own, rows.time)
            optional = {name: getattr(rows, name) for name in OPTIONAL}
            writer.append(wide, **optional)
        return writer.close()


def parts(rows: int, most: int) -> Iterator[slice]:
    """Yield slices of at most `most` rows that cover `rows`."""
    for start in range(0, rows, most):
        yield slice(start, min(rows, start + most))


def _side_by_side(one: Encoded, two: Encoded) -> Encoded:
    return Encoded(
        np.concatenate([one.codes, two.codes], axis=1),
        dict(one.lists),
        np.concatenate([one.dense, two.dense], axis=1),
    )
