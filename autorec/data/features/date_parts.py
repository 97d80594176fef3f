"""What the clock and the calendar say of a row: hour, weekday, day of the month, weekend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.features._files import Arrays
from autorec.data.features._keys import Ints
from autorec.data.features._order import TICKS, check_unit, unit_of
from autorec.data.features.base import Transform, encoded
from autorec.data.features.counts import untimed
from autorec.data.timeline import UNKNOWN
from autorec.data.vocabulary import FIRST, NULL
from autorec.errors import ConfigError
from autorec.schema import DenseField, Layout, SparseField

if TYPE_CHECKING:
    from typing_extensions import Self

# ids of each part; "cyclic" gives numbers
IDS = {"hour": 24, "weekday": 7, "day": 31, "weekend": 2}
PARTS = (*IDS, "cyclic")
CYCLES = {"day_cycle": 86_400, "week_cycle": 604_800}
_MONDAY = 3 * 86_400  # 1970 began on a Thursday


@dataclass
class DateParts(Transform):
    """Date parts of the row's own time, read as UTC.

    Ids: `time.hour`, `time.weekday` (Monday first), `time.day` of the month, `time.weekend`; code
    0 is a null time and 2 the first value. As numbers they count from 0, and a null time is NaN.
    "cyclic" gives the sine and cosine of the time of day and of the week, `time.day_cycle.sin` and
    so on, NaN for a null time.

    Args:
        parts: which of "hour", "weekday", "day", "weekend", "cyclic".
        unit: of the stored time: "s", "ms", "us", "ns", or "auto" by the size of its median.
        numbers: whether parts come as numbers and not as ids.
    """

    needs_time: ClassVar[bool] = True
    vocabulary: ClassVar[bool] = True

    parts: tuple[str, ...] = PARTS
    unit: str = "auto"
    numbers: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        given = tuple(self.parts)
        if not given or len(set(given)) < len(given) or not set(given) <= set(PARTS):
            raise ConfigError(
                f"parts must be different ones of {list(PARTS)}, but got {self.parts!r}"
            )
        self.parts = given
        check_unit(self.unit)
        self._unit, self._nullable = self.unit, False

    @property
    def inputs(self) -> tuple[str, ...]:
        """Nothing but the time."""
        return ()

    @classmethod
    def cases(cls, layout: Layout, timed: bool) -> list[Self]:
        """Return all parts, two of them, and two as numbers."""
        if not timed:
            return []
        return [cls(unit="s"), cls(("weekday", "cyclic")), cls(("hour", "weekday"), numbers=True)]

    def _learn(self, columns: Columns) -> None:
        time = _times(columns)
        self._unit = unit_of(time) if self.unit == "auto" else self.unit
        self._nullable = bool((time == UNKNOWN).any())

    def _values(self, columns: Columns) -> Encoded:
        time = _times(columns)
        known = time != UNKNOWN
        ticks = TICKS[self._unit]
        time = np.where(known, time, 0)
        seconds = time // ticks
        parts = [_part(name, seconds) for name in self._named]
        ids = [np.where(known, FIRST + part, NULL) for part in parts if not self.numbers]
        dense: list[npt.NDArray[np.float64]] = []
        dense += [np.where(known, part, np.nan) for part in parts if self.numbers]
        for length in CYCLES.values() if "cyclic" in self.parts else ():
            # The remainder of whole ticks first: a float64 of microseconds has no digits to lose.
            angle = 2 * np.pi * ((time + _MONDAY * ticks) % (length * ticks)) / (length * ticks)
            dense += [np.where(known, wave(angle), np.nan) for wave in (np.sin, np.cos)]
        return encoded(len(columns), ids, dense)

    def _layout(self) -> Layout:
        ids = () if self.numbers else self._named
        numbers = [f"time.{name}" for name in self._named if self.numbers]
        if "cyclic" in self.parts:
            numbers += [f"time.{cycle}.{wave}" for cycle in CYCLES for wave in ("sin", "cos")]
        return Layout(
            sparse=tuple(SparseField(f"time.{n}", FIRST + IDS[n], f"time.{n}") for n in ids),
            dense=tuple(DenseField(name, self._nullable) for name in numbers),
        )

    @property
    def _named(self) -> tuple[str, ...]:
        """The parts but "cyclic"."""
        return tuple(name for name in self.parts if name in IDS)

    def _state(self) -> tuple[dict[str, Any], dict[str, Arrays]]:
        return {"unit": self._unit, "nullable": self._nullable}, {}

    def _restore(self, facts: Mapping[str, Any], tables: Mapping[str, Arrays]) -> None:
        self._unit, self._nullable = facts["unit"], facts["nullable"]


def _part(name: str, seconds: Ints) -> Ints:
    """Return a part (n,), from 0, of whole seconds since 1970 (n,)."""
    days = seconds // 86_400
    if name == "hour":
        return seconds % 86_400 // 3_600
    if name == "day":
        date = days.astype("datetime64[D]")
        return np.asarray((date - date.astype("datetime64[M]")).astype(np.int64))
    weekday = (days + 3) % 7
    return weekday if name == "weekday" else (weekday >= 5).astype(np.int64)


def _times(columns: Columns) -> Ints:
    if columns.time is None:
        raise untimed()
    return np.asarray(columns.time)
