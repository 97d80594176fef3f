"""How long ago an entity, or a combination of values, was last seen, and how often lately."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.features._checks import some_fields
from autorec.data.features._files import Arrays
from autorec.data.features._keys import pieces, title
from autorec.data.features._order import TICKS, Log, check_unit, logged, unit_of
from autorec.data.features.base import Transform
from autorec.data.features.counts import untimed
from autorec.errors import ConfigError
from autorec.schema import DenseField, Layout

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class Recency(Transform):
    """What happened to an entity strictly before the row, in the log of the training rows.

    Dense columns: `<a*b>.since` log1p of the seconds since the last event, NaN where there is
    none; `<a*b>.seen` 1 or 0; `<a*b>.within_<w>s` log1p of the events at most w seconds old.
    Null and out-of-vocabulary values have no history, nor has a row without a time.

    Memory: 16 bytes an event on disk, 32 in use.

    Args:
        fields: one to three names of plain fields: the entity.
        windows: in seconds.
        unit: of the stored time: "s", "ms", "us", "ns", or "auto" by the size of its median.
    """

    needs_time: ClassVar[bool] = True
    moves: ClassVar[bool] = True

    fields: tuple[str, ...]
    windows: tuple[float, ...] = (3_600, 86_400, 604_800)
    unit: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fields = some_fields(self.fields, 1, 3)
        self.windows = tuple(self.windows)
        different = len(set(self.windows)) == len(self.windows)
        if not different or not all(0 < window < np.inf for window in self.windows):
            raise ConfigError(
                f"windows must be different numbers of seconds above 0, but got {self.windows!r}"
            )
        check_unit(self.unit)
        self._unit = self.unit
        self._log: Log

    @property
    def inputs(self) -> tuple[str, ...]:
        """The fields of the entity."""
        return self.fields

    @classmethod
    def cases(cls, layout: Layout, timed: bool) -> list[Self]:
        """Return the recency of one field and of a cross of two."""
        names = tuple(field.name for field in layout.sparse)
        sizes = range(1, min(2, len(names)) + 1) if timed else ()
        return [cls(names[:size], windows=(2, 10), unit="s") for size in sizes]

    @property
    def log(self) -> Log:
        """The events, after `fit`."""
        return self._log

    @property
    def ticks(self) -> int:
        """Units of the stored time in a second, after `fit`."""
        return TICKS[self._unit]

    def _learn(self, columns: Columns) -> None:
        if columns.time is None:
            raise untimed()
        self._unit = unit_of(columns.time) if self.unit == "auto" else self.unit
        keys, known = self.cross(self.fields).keys(columns, entity=True)
        self._log = Log.learn(keys, columns.time, known)

    def _values(self, columns: Columns) -> Encoded:
        cross, ticks = self.cross(self.fields), TICKS[self._unit]
        out = np.empty((len(columns), 2 + len(self.windows)), np.float32)
        for part, rows in pieces(columns):
            if rows.time is None:
                raise untimed()
            keys, known = cross.keys(rows, entity=True)
            span = self._log.before(keys, rows.time, known)
            seen = span.end > span.first
            # A row that saw nothing asks for its own time, and its zero is blanked.
            last = rows.time.copy()
            last[seen] = self._log.time[span.end[seen] - 1]
            since = logged((rows.time - last) / ticks)
            out[part, 0] = np.where(seen, since, np.float32(np.nan))
            out[part, 1] = seen
            for place, window in enumerate(self.windows, 2):
                near = self._log.near(span, rows.time, int(window * ticks))
                out[part, place] = logged(near)
        return Encoded(np.empty((len(columns), 0), np.int32), {}, out)

    def _layout(self) -> Layout:
        name = title(self.fields)
        near = [DenseField(f"{name}.within_{window:g}s") for window in self.windows]
        return Layout(
            dense=(DenseField(f"{name}.since", nullable=True), DenseField(f"{name}.seen"), *near)
        )

    def _state(self) -> tuple[dict[str, Any], dict[str, Arrays]]:
        return {"unit": self._unit}, {"log": {"key": self._log.key, "time": self._log.time}}

    def _restore(self, facts: Mapping[str, Any], tables: Mapping[str, Arrays]) -> None:
        log = tables["log"]
        self._unit = facts["unit"]
        self._log = Log(log["key"], log["time"], np.zeros(len(log["key"]), np.int64))
