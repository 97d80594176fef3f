"""The last items of a user before the row, as a list column: a history where a table has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.features._checks import at_least, some_fields
from autorec.data.features._files import Arrays
from autorec.data.features._keys import pieces
from autorec.data.features._order import Log
from autorec.data.features.base import Transform, encoded
from autorec.data.features.counts import untimed
from autorec.data.vocabulary import NULL
from autorec.schema import Layout, ListField

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class LastItems(Transform):
    """Codes of the last `length` items of the user's training rows strictly before the row.

    Gives one list column `<item>.last`, first to last, 0 behind them. Items of one moment are
    ordered by their code; null items are left out, out-of-vocabulary ones stay as code 1. A null
    or out-of-vocabulary user has no history, nor has a row without a time.

    Memory: 24 bytes an event on disk, 32 in use.

    Args:
        user, item: names of plain fields.
        length: k.
    """

    needs_time: ClassVar[bool] = True
    moves: ClassVar[bool] = True

    user: str
    item: str
    length: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        some_fields((self.user, self.item), 2, 2)
        at_least("length", self.length, 1)
        self._log: Log

    @property
    def inputs(self) -> tuple[str, ...]:
        """User and item."""
        return (self.user, self.item)

    @classmethod
    def cases(cls, layout: Layout, timed: bool) -> list[Self]:
        """Return histories of one item and of several."""
        names = [field.name for field in layout.sparse]
        if not timed or len(names) < 2:
            return []
        return [cls(names[0], names[1], length) for length in (1, 4)]

    @property
    def log(self) -> Log:
        """The events, after `fit`."""
        return self._log

    def _learn(self, columns: Columns) -> None:
        if columns.time is None:
            raise untimed()
        keys, known = self.cross([self.user]).keys(columns, entity=True)
        item, _ = self.cross([self.item]).keys(columns)
        self._log = Log.learn(keys, columns.time, known & (item != NULL), item)

    def _values(self, columns: Columns) -> Encoded:
        cross = self.cross([self.user])
        out = np.zeros((len(columns), self.length), np.int32)
        for part, rows in pieces(columns):
            if rows.time is None:
                raise untimed()
            keys, known = cross.keys(rows, entity=True)
            span = self._log.before(keys, rows.time, known)
            kept = np.minimum(span.end - span.first, self.length)
            place = np.arange(self.length)
            at = (span.end - kept)[:, None] + place
            filled = place < kept[:, None]
            out[part][filled] = self._log.value[at[filled]]
        return encoded(len(columns), lists={f"{self.item}.last": out})

    def _layout(self) -> Layout:
        rows = self._sizes[self.item][0]
        return Layout(lists=(ListField(f"{self.item}.last", rows, self.length),))

    def _state(self) -> tuple[dict[str, Any], dict[str, Arrays]]:
        log = self._log
        return {}, {"log": {"key": log.key, "time": log.time, "item": log.value}}

    def _restore(self, facts: Mapping[str, Any], tables: Mapping[str, Arrays]) -> None:
        log = tables["log"]
        self._log = Log(log["key"], log["time"], log["item"])
