"""Which numbers of fitted transforms become derived columns, and where each is read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autorec.data._serving import Together
from autorec.data.columns import Columns
from autorec.data.features.base import Transform
from autorec.data.features.date_parts import DateParts
from autorec.data.numeric import Numeric, NumericFit
from autorec.data.state import LiveState
from autorec.data.timeline import UNKNOWN
from autorec.errors import ConfigError
from autorec.schema import DenseField

BINS = 32
_FORMS = {
    "counts": "count",
    "rates": "rate",
    "cross_ids": "id",
    "recency": "count",
    "date_parts": "count",
}


class Number(NamedTuple):
    """A statistic: what it is called, and which column of which transform it is."""

    field: DenseField
    transform: int
    column: int


def form_of(transform: Transform) -> str:
    """Return "id", "count" or "rate"; statistics of time are counts.

    Raises:
        ConfigError: another kind of transform, or parts of a date that are no numbers.
    """
    name = type(transform).__module__.rpartition(".")[2]
    whole = isinstance(transform, DateParts) and not transform.numbers
    if name not in _FORMS or whole:
        raise ConfigError(f"derived columns come from {sorted(_FORMS)}, but got {transform!r}")
    return _FORMS[name]


def numbers_of(transforms: Sequence[Transform], chosen: Sequence[str] | None) -> list[Number]:
    """Return the chosen statistics of fitted transforms in their order; None: all of them.

    Raises:
        ConfigError: no transform gives a chosen one.
    """
    found = [
        Number(replace(field, form=form_of(each)), at, column)
        for at, each in enumerate(transforms)
        for column, field in enumerate(each.layout.dense)
    ]
    if chosen is None:
        return found
    named = {one.field.name: one for one in found}
    if missing := [name for name in chosen if name not in named]:
        raise ConfigError(
            f"chosen statistics are among {sorted(named)}, but {missing} are not; "
            "leave them out or add their transforms"
        )
    return [named[name] for name in chosen]


class Reader:
    """Reads Q statistics of rows, each from a live state where that has it, else from a transform.

    Args:
        transforms: fitted.
        numbers: the statistics.
        live: counts on for some of them; None for none.
    """

    def __init__(
        self, transforms: Sequence[Transform], numbers: Sequence[Number], live: LiveState | None
    ) -> None:
        held = [] if live is None else [field.name for field in live.layout.dense]
        place = {name: at for at, name in enumerate(held)}
        self.live, self._transforms, self._rows = live, transforms, len(numbers)
        moved = [at for at, one in enumerate(numbers) if one.field.name in place]
        self._to = np.array(moved, np.intp)
        self._from = np.array([place[numbers[at].field.name] for at in moved], np.intp)
        same = len(moved) == len(numbers) == len(held)
        self._straight = same and bool((self._from == np.arange(len(held))).all())
        self._fitted: dict[int, list[tuple[int, int]]] = {}
        for at, one in enumerate(numbers):
            if one.field.name not in place:
                self._fitted.setdefault(one.transform, []).append((at, one.column))
        fitted = [at for at, places in self._fitted.items() if len(places) == 1]
        self.together = Together({self._fitted[at][0][0]: transforms[at] for at in fitted})
        self.timed = any(transforms[one.transform].needs_time for one in numbers)

    def read(self, columns: Columns) -> npt.NDArray[np.float32]:
        """Return the statistics (Q, n) of n rows, which have times where `timed`."""
        if self.live is not None and self._straight:
            return self.live.numbers(columns)
        out = np.empty((self._rows, len(columns)), np.float32)
        if self.live is not None and len(self._to):
            out[self._to] = self.live.numbers(columns)[self._from]
        written = self.together.read(columns, out)
        for at, places in self._fitted.items():
            if places[0][0] in written:
                continue
            values = self._transforms[at].apply(columns).dense
            for row, column in places:
                out[row] = values[:, column]
        return out


def after(newest: int, rows: int) -> npt.NDArray[np.int64]:
    """Return the moment (n,) behind the newest one; unknown times where none is known."""
    return np.full(rows, newest if newest == UNKNOWN else newest + 1, np.int64)


def learned(field: DenseField, column: np.ndarray) -> Numeric:
    """Return scale and bins of a statistic (N,)."""
    fit = NumericFit(field.name, BINS)
    fit.add(pa.array(column))
    if fit.settle():
        fit.count(pa.array(column))
    return fit.result()
