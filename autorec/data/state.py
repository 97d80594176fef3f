"""The statistics of a served ranker: what fitted transforms learned, and every event since.

Values of training rows come from the rows before them. A ranker that is served for a month must
therefore count on, or its counts, rates and times since the last event grow stale. The state is
that memory: made from the transforms, updated by events, saved beside the weights.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autorec.data._state_events import LiveItems, LiveRecency
from autorec.data._state_statistics import Statistics
from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.features import _files
from autorec.data.features._checks import at_least
from autorec.data.features.base import Transform
from autorec.data.features.counts import Counts
from autorec.data.features.last_items import LastItems
from autorec.data.features.rates import Rates
from autorec.data.features.recency import Recency
from autorec.data.folders import whole
from autorec.data.sealed import Sealed
from autorec.data.timeline import UNKNOWN
from autorec.errors import ConfigError
from autorec.schema import Layout

FORMAT = 1
JSON = "state.json"
_FOLDER = Sealed("state", JSON, FORMAT, "save the ranker again")
_TRIES = 3  # readings beside a writer before a reader waits for it
Codes = npt.NDArray[np.int32]
Read = tuple[list[Codes], dict[str, Codes], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Limits:
    """How much a state holds.

    Attributes:
        keys: exact keys of a field or cross; the others share a sketch of about 9 MB (see
            `autorec.data._state_sketch`), whose bound has `epsilon` and `delta`.
        entities: with a history; beyond, those whose last event is longest ago are forgotten.
        depth: moments that recency keeps of an entity.
        parts: of a window with more events than that; its error is the events of one part.
    """

    keys: int = 1_000_000
    epsilon: float = 1e-4
    delta: float = 1e-3
    entities: int = 1_000_000
    depth: int = 16
    parts: int = 16

    def __post_init__(self) -> None:
        for name, least in (("keys", 0), ("entities", 4), ("depth", 1), ("parts", 1)):
            at_least(name, getattr(self, name), least)
        for name in ("epsilon", "delta"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ConfigError(f"{name} lies between 0 and 1, but got {getattr(self, name)!r}")


class LiveState:
    """What transforms know, counting on. Made by `of` or `load`.

    `apply` gives what `Transform.apply` gives right after fit; `update` adds events. Where a
    transform does not move with traffic (a vocabulary, bins, dates), its own values are given.
    All transforms read columns of the encoder; none reads what another one gives.

    One thread may write while others read: a reading that a writer has crossed is made again, and
    after three of them the reader waits. Writers wait for one another.

    `newest` is the time of the newest event that `update` took, `UNKNOWN` before the first.

    Counts and rates are one matrix product, one search and one gather.
    """

    def __init__(self, transforms: Sequence[Transform], limits: Limits) -> None:
        self.limits = limits
        self._transforms = [each.emptied() if each.moves else each for each in transforms]
        self._layouts = [each.layout for each in transforms]
        self.layout = Layout(
            tuple(field for each in self._layouts for field in each.sparse),
            tuple(field for each in self._layouts for field in each.lists),
            tuple(field for each in self._layouts for field in each.dense),
        )
        self._needs_time = any(each.needs_time for each in transforms)
        self._checked: Layout | None = None
        self._lock, self._version, self.newest = threading.Lock(), 0, UNKNOWN
        self._plan()

    def _plan(self) -> None:
        """Give every transform its reader and its columns."""
        counts: dict[int, Counts] = {}
        rates: dict[int, Rates] = {}
        self._events: dict[int, tuple[LiveRecency | LiveItems, int]] = {}
        self._still: list[tuple[Transform, int]] = []
        limits, at = self.limits, 0
        for number, (each, layout) in enumerate(zip(self._transforms, self._layouts, strict=True)):
            if isinstance(each, Counts):
                counts[at] = each
            elif isinstance(each, Rates):
                rates[at] = each
            elif isinstance(each, (Recency, LastItems)):
                self._events[number] = (_live(each, limits), at)
            else:
                self._still.append((each, at))
            at += len(layout.dense)
        self._statistics = Statistics(counts, rates, limits.keys, limits.epsilon, limits.delta)

    @classmethod
    def of(
        cls, transforms: Sequence[Transform], *, limits: Limits | None = None, empty: bool = False
    ) -> LiveState:
        """Return the state of fitted transforms.

        Args:
            transforms: fitted on the same training rows; they are not changed or kept.
            limits: how much is held; a transform with more keys keeps its most frequent ones exact.
            empty: whether to begin before the first training row instead of behind the last one.

        Raises:
            NotFittedError: a transform has not been fitted.
            ConfigError: rates of different rows.
        """
        made = cls(transforms, limits or Limits())
        if empty:
            return made
        made._statistics.learn(
            [each for each in transforms if isinstance(each, Counts)],
            [each for each in transforms if isinstance(each, Rates)],
        )
        for number, (_, at) in made._events.items():
            made._events[number] = (_live(transforms[number], made.limits), at)
        return made

    def apply(self, columns: Columns) -> Encoded:
        """Return the values of n rows, in the order of `layout`.

        Raises:
            ConfigError: a column is absent or of another size than in fit, or times are.
        """
        codes, lists, dense = self._undisturbed(columns)
        joined = np.concatenate(codes, axis=1) if codes else np.empty((len(columns), 0), np.int32)
        return Encoded(joined, lists, np.ascontiguousarray(dense.T))

    def numbers(self, columns: Columns) -> npt.NDArray[np.float32]:
        """Return the floats of `apply` as they are read: (Q, n), a row for each column."""
        return self._undisturbed(columns)[2]

    def _undisturbed(self, columns: Columns) -> Read:
        """Return codes, lists and floats (Q, n) of a reading that no writer crossed."""
        self._check(columns)
        for _ in range(_TRIES):
            version = self._version
            if version % 2:
                break
            try:
                values = self._read(columns)
            except (IndexError, ValueError):
                if version == self._version:  # arrays of two sizes come from a writer only
                    raise
                continue
            if version == self._version:
                return values
        with self._lock:
            return self._read(columns)

    def _check(self, columns: Columns) -> None:
        timed = columns.time is not None or not self._needs_time
        if columns.layout is self._checked and timed:
            return
        for each in self._transforms:
            each.check(columns)
        self._checked = columns.layout

    def _read(self, columns: Columns) -> Read:
        dense = np.empty((len(self.layout.dense), len(columns)), np.float32)
        codes: list[Codes] = []
        lists: dict[str, Codes] = {}
        if len(columns):
            self._statistics.read(columns, dense)
        for number, (live, at) in self._events.items():
            if isinstance(live, LiveItems):
                lists[self._layouts[number].lists[0].name] = live.read(columns)
            else:
                live.read(columns, dense[at : at + len(self._layouts[number].dense)])
        for each, at in self._still:
            values = each.apply(columns)
            codes.append(values.codes)
            lists.update(values.lists)
            dense[at : at + values.dense.shape[1]] = values.dense.T
        return codes, lists, dense

    def update(self, columns: Columns, *, seen: bool = True, labels: bool = True) -> None:
        """Add n events, in any order of their times.

        An event whose label comes later is added twice: when it happens with `labels=False`, and
        when the label is there with `seen=False`. Rows of one moment that must not see one another
        are read before any of them is added.

        Args:
            columns: n rows; without labels, or with NaN where one is not known, rates stay.
            seen: whether counts, recency and last items take the rows.
            labels: whether rates take their labels.

        Raises:
            ConfigError: a column is absent or of another size than in fit, or times are.
        """
        self._check(columns)
        if not len(columns):
            return
        with self._lock:
            self._version += 1
            if seen and columns.time is not None:
                self.newest = max(self.newest, int(columns.time.max()))
            try:
                self._statistics.update(columns, seen=seen, labels=labels)
                for live, _ in self._events.values() if seen else ():
                    live.update(columns)
            finally:
                self._version += 1

    def replay(self, columns: Columns) -> Encoded:
        """Return the values (in row order) that n rows would have had at their times, and add them.

        Rows of one moment do not see one another. From an empty state, this is what `train_values`
        gives in its ordered form; it costs one `apply` and one `update` a moment.

        Raises:
            ConfigError: no times, or a column is absent or of another size than in fit.
        """
        if columns.time is None:
            raise ConfigError("a replay follows the times of rows, but there are none; name them")
        order = np.argsort(columns.time, kind="stable")
        moments = columns.time[order]
        starts = np.flatnonzero(np.append(True, moments[1:] != moments[:-1]))[: len(order)]
        parts = []
        for rows in np.split(order, starts[1:]):
            now = columns.take(rows)
            parts.append(self.apply(now))
            self.update(now)
        back = np.argsort(order, kind="stable")
        return Encoded(
            np.concatenate([part.codes for part in parts])[back],
            {
                field.name: np.concatenate([part.lists[field.name] for part in parts])[back]
                for field in self.layout.lists
            },
            np.concatenate([part.dense for part in parts])[back],
        )

    def save(self, folder: Path | str) -> None:
        """Write `state.json`, Arrow tables and the transforms; the folder appears whole.

        Raises:
            DataError: the folder holds something that is no state.
        """
        with self._lock, whole(Path(folder), JSON) as partial:
            tables = {f"cells {name}": t for name, t in self._statistics.cells.state().items()}
            for number, (live, _) in self._events.items():
                tables |= {f"events {number} {name}": t for name, t in live.state().items()}
            for number, each in enumerate(self._transforms):
                each.save(partial / f"transform-{number:04d}")
            body = {"limits": asdict(self.limits), "newest": self.newest}
            body["transforms"] = len(self._transforms)
            _files.fill(partial, _FOLDER, body, tables)

    @classmethod
    def load(cls, folder: Path | str) -> LiveState:
        """Read what `save` wrote; every value comes out the same.

        Raises:
            RankerError: no state, a newer version, or a file that is missing or altered.
        """
        body, tables = _files.read(Path(folder), _FOLDER)
        places = [Path(folder) / f"transform-{at:04d}" for at in range(body["transforms"])]
        made = cls([*map(Transform.load, places)], Limits(**body["limits"]))
        made.newest = body.get("newest", UNKNOWN)
        made._statistics.cells.restore(_files.below(tables, "cells"))
        for number, (live, _) in made._events.items():
            live.restore(_files.below(tables, f"events {number}"))
        return made


def _live(made: Any, limits: Limits) -> LiveRecency | LiveItems:
    """Return the reader of a recency or of last items."""
    if isinstance(made, Recency):
        cross = made.cross(made.fields)
        return LiveRecency(made, cross, limits.depth, limits.entities, limits.parts)
    return LiveItems(made, made.cross([made.user]), made.cross([made.item]), limits.entities)
