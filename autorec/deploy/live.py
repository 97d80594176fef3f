"""The part of a ranker that moves with traffic: statistics that count on while it serves."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from autorec.candidate import Candidate
from autorec.data.encoder import Encoder
from autorec.data.events import check_flags, read_events
from autorec.data.state import Limits, LiveState
from autorec.deploy.ranking import Ranking
from autorec.errors import ConfigError
from autorec.schema import Layout, Schema
from autorec.tasks.base import Task

if TYPE_CHECKING:
    from autorec.data.derivation import Derivation

_GOING_LIVE = threading.Lock()


class Counting:
    """What a `Ranker` has of its statistics.

    The encoder is the one place where their values come from. It may be shared with other rankers,
    and threads may be encoding: a live state comes with an encoder of the ranker's own, which takes
    the place of the old one in one step.
    """

    schema: Schema
    task: Task
    candidate: Candidate
    encoder: Encoder
    _ranking: Ranking

    @property
    def statistics(self) -> tuple[str, ...]:
        """Counts and rates that the model reads and `update` moves; none: ()."""
        return self.encoder.derivation.statistics if self.encoder.derivation else ()

    @property
    def live(self) -> LiveState | None:
        """What the statistics are read from since the first update; None before."""
        return self.encoder.derivation.live if self.encoder.derivation else None

    def go_live(self, limits: Limits | None = None) -> bool:
        """Make the live state now and not in the first `update`; scores keep their bits.

        It takes about a second per two million distinct values.

        Args:
            limits: how much the state holds; it stays with the state.

        Returns:
            Whether there is one; a model that reads no statistics has none.

        Raises:
            ConfigError: there is one with other limits already.
        """
        with _GOING_LIVE:
            derivation = self.encoder.derivation
            if derivation is None or not derivation.moving:
                return False
            if derivation.live is None:
                self._read_from(derivation.counting_on(limits))
            elif limits not in (None, derivation.live.limits):
                raise ConfigError(
                    f"a live state keeps its limits, {derivation.live.limits}, but got {limits}; "
                    "give them when it is made"
                )
        return True

    def warm(self) -> None:
        """Put the statistics of training into one table now, and not in the third small request.

        It takes about a second per two million distinct values; 500 candidates are then served
        several times faster. Scores keep their bits. With a live state there is nothing to do.
        """
        if self.encoder.derivation is not None:
            self.encoder.derivation.warm()

    def update(self, events: Any, *, seen: bool = True, labels: bool = True) -> int:
        """Count new events; from then on `score` and `rank` read statistics that know them.

        An event whose label comes later is given twice: when it happens with `labels=False`, and
        with its label and `seen=False`. Everything is read and checked before anything counts.

        Args:
            events: data as in `score`; of the features, only those behind `statistics` are needed.
                The label column may be absent, or null where a label is not known.
            seen: whether counts take the events.
            labels: whether rates take their labels.

        Returns:
            Events that were taken; 0 where the model reads no `statistics`, which is no error.

        Raises:
            DataError: columns are missing, or values or labels do not fit their column.
            ConfigError: neither `seen` nor `labels`.
        """
        check_flags(seen, labels)
        derivation = self.encoder.derivation
        if derivation is None or not derivation.moving:
            return 0
        named = self.schema.label
        told = (named, self.task.label_map) if labels and named is not None else None
        parts = read_events(events, self.encoder, derivation.moving, told, seen=seen)
        self.go_live()
        if (live := self.live) is not None:
            for part in parts:
                live.update(part, seen=seen, labels=labels)
        return sum(map(len, parts))

    def _read_only(self) -> None:
        """Make no derived column that the model does not read."""
        if (derivation := self.encoder.derivation) is not None:
            names = columns_of(self.candidate, self.encoder.layout)
            if derivation.reads != names:
                self.encoder = self.encoder.extended(derivation.reading(names))

    def _read_from(self, derivation: Derivation) -> None:
        """Give the ranker an encoder of its own with other derived values, in one step."""
        self.encoder = self._ranking.encoder = self.encoder.extended(derivation)


def columns_of(candidate: Candidate, layout: Layout) -> frozenset[str]:
    """Return the derived ids and statistics that a candidate reads, as they are or as bins."""
    read = candidate.features
    sparse = [layout.sparse[at] for at in read.sparse_of(layout)]
    dense = [layout.dense[at] for at in read.dense_of(layout)]
    names = {field.source if field.binned else field.name for field in sparse if field.form}
    return frozenset(names | {field.name for field in dense if field.form})
