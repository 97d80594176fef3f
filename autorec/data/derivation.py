"""Derived columns: fitted transforms behind an encoder, in the form that every model reads.

A statistic gives a standardised number and its quantile bin, as a numeric column of the table does;
an id column stays what it is. Everything is fitted on training rows, which have values of their own
(see `autorec.data.features.base`). Other rows get their statistics from one place: from what was
fitted, or from a live state that has counted on since (see `autorec.data.state`).

A statistic of time asks for the time of its row. Rows that have none are asked about the moment
behind the last training row: what a request sees that comes right after training.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autorec.data._derivation_numbers import Reader, after, form_of, learned, numbers_of
from autorec.data._derivation_scales import Scales
from autorec.data._derivation_widen import parts, widen
from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.features.base import Transform, joined_layout
from autorec.data.folders import whole
from autorec.data.learning import BIN
from autorec.data.numeric import Numeric
from autorec.data.sealed import Sealed
from autorec.data.state import Limits, LiveState
from autorec.data.timeline import UNKNOWN
from autorec.errors import RankerError
from autorec.schema import Layout, SparseField

__all__ = ["Derivation", "most_statistics", "widen"]

FORMAT = 2
_JSON = "derivation.json"
_FOLDER = Sealed("derivation", _JSON, FORMAT, "save the model again")
_PIECE = 1 << 15  # rows whose values are made at a time
_BYTES = 2 << 30
_EVENTS_HAVE_TIMES = (
    False  # `read_events` reads none: statistics of time stay as training left them
)


class Derivation:
    """Fitted transforms with the scale and bins of their numbers. Made by `fit` or `load`.

    Attributes:
        transforms: fitted ones, in the order in which they were chosen.
        numeric: scale and bins of each statistic.
        live: where the statistics come from that it counts; None: from the transforms.
        reads: names of the ids and statistics that are wanted; None: all. The others are zeros.
        chosen: names of the statistics, in order; None: all that the transforms give.
        newest: time of the last training row; `UNKNOWN` without times.
        layout: the derived columns: ids, bins of the statistics, statistics.
        timed: whether a wanted statistic asks for the time of a row.
    """

    def __init__(
        self,
        transforms: Sequence[Transform],
        numeric: Sequence[Numeric],
        live: LiveState | None = None,
        reads: Collection[str] | None = None,
        *,
        chosen: Sequence[str] | None = None,
        newest: int = UNKNOWN,
    ) -> None:
        self.transforms, self.numeric, self.live = tuple(transforms), tuple(numeric), live
        self.reads = None if reads is None else frozenset(reads)
        self.chosen, self.newest = None if chosen is None else tuple(chosen), newest
        fields = [(form_of(t), t.layout) for t in self.transforms]
        ids = [replace(f, form=form) for form, one in fields for f in one.sparse]
        self._numbers = numbers_of(self.transforms, self.chosen)
        numbers = [one.field for one in self._numbers]
        bins = [
            SparseField(f"{f.name}{BIN}", one.rows, f.name, binned=True, form=f.form)
            for f, one in zip(numbers, self.numeric, strict=True)
        ]
        self.layout = Layout((*ids, *bins), (), tuple(numbers))
        self._ids = [at for at, field in enumerate(ids) if self._wanted(field.name)]
        self._at = np.flatnonzero([self._wanted(field.name) for field in numbers])
        self._first_bin = len(ids)
        self._of_ids = [
            t for t, (form, _) in zip(self.transforms, fields, strict=True) if form == "id"
        ]
        self._all = len(self._ids) + len(self._at) == len(ids) + len(numbers)
        self._scales = Scales([self.numeric[at] for at in self._at])
        self._reader = Reader(self.transforms, [self._numbers[at] for at in self._at], live)
        self.timed = self._reader.timed

    def _wanted(self, name: str) -> bool:
        return self.reads is None or name in self.reads

    @classmethod
    def fit(
        cls,
        transforms: Sequence[Transform],
        columns: Columns,
        chosen: Sequence[str] | None = None,
    ) -> tuple[Derivation, Encoded]:
        """Fit on N training rows, and return the values that these rows themselves get.

        Peak memory beside the columns: 8 bytes a statistic and row, and what one transform needs.

        Args:
            transforms: unfitted, or fitted on other rows, which they then forget.
            columns: training rows, of the encoder's own columns.
            chosen: names of the statistics that are kept, in order; None: all.

        Raises:
            ConfigError: a transform that gives other columns than ids and statistics, or a chosen
                statistic that none gives.
        """
        fitted = [type(one)(**asdict(one)) for one in transforms]
        codes, raw = [], {}
        for transform in fitted:
            form_of(transform)
            transform.fit(columns)
            values = transform.train_values(columns)
            codes += [values.codes]
            for field, column in zip(transform.layout.dense, values.dense.T, strict=True):
                if chosen is None or field.name in chosen:
                    raw[field.name] = column.copy()
        numeric, bins, dense = [], [], []
        for one in numbers_of(fitted, chosen):
            column = raw.pop(one.field.name)
            numeric.append(learned(one.field, column))
            bins.append(numeric[-1].bins(column.astype(np.float64)))
            dense.append(numeric[-1].dense(column.astype(np.float64)))
        newest = UNKNOWN if columns.time is None else int(columns.time.max())
        made = cls(fitted, numeric, chosen=chosen, newest=newest)
        return made, _stacked(len(columns), codes, bins, dense)

    @property
    def moving(self) -> tuple[Transform, ...]:
        """The transforms of wanted statistics that events of a served ranker move, in order."""
        return self.moved(timed=True)

    def moved(self, *, timed: bool) -> tuple[Transform, ...]:
        """Return the transforms of wanted statistics that move, with those of time or without."""
        at = dict.fromkeys(self._numbers[at].transform for at in self._at)
        found = [self.transforms[each] for each in at if self.transforms[each].moves]
        return tuple(each for each in found if timed or not each.needs_time)

    @property
    def statistics(self) -> tuple[str, ...]:
        """The names of the wanted statistics that `moving` gives."""
        wanted = [self._numbers[at] for at in self._at]
        there = {id(each) for each in self.moving}
        held = [one for one in wanted if id(self.transforms[one.transform]) in there]
        return tuple(one.field.name for one in held)

    def reading(self, names: Collection[str]) -> Derivation:
        """Return the same layout with zeros in all columns but some; this one stays as it is.

        A live state is kept where it counts these statistics and no others.

        Args:
            names: of ids and statistics; a bin goes with its statistic.
        """
        made = self._changed(None, names)
        return self._changed(self.live, names) if made.statistics == self.statistics else made

    def _changed(self, live: LiveState | None, reads: Collection[str] | None) -> Derivation:
        return Derivation(
            self.transforms, self.numeric, live, reads, chosen=self.chosen, newest=self.newest
        )

    def counting_on(self, live: LiveState | Limits | None = None) -> Derivation:
        """Return the same columns with statistics from a live state; this one stays as it is.

        Right after, every value has the same bits (of the keys that `Limits` keeps exact). What
        the state does not count is read from the transforms, as training left it.

        Args:
            live: the state, of all that moves or of all but statistics of time, or how much a new
                one of `moving` holds, which begins behind the training rows.

        Raises:
            RankerError: a state of other statistics.
        """
        if not isinstance(live, LiveState):
            live = LiveState.of(self.moving, limits=live)
        own, whole = (
            [field.name for each in self.moved(timed=timed) for field in each.layout.dense]
            for timed in (False, True)
        )
        other = [field.name for field in live.layout.dense]
        if other not in (own, whole):
            raise RankerError(
                f"a live state must count what the model reads, {own}, but it counts {other}; "
                "save the ranker again"
            )
        return self._changed(live, self.reads)

    def warm(self) -> None:
        """Make requests of few rows fast now, not in the third one (see `Together`)."""
        self._reader.together.make()

    def apply(self, columns: Columns) -> Encoded:
        """Return the derived columns (n rows) of rows that were not in `fit`."""
        return self._behind(columns, Encoded(*_nothing(len(columns))))

    def behind(self, layout: Layout) -> Layout:
        """Return `layout` with the derived columns behind its own.

        Raises:
            ConfigError: two columns of one name.
        """
        return joined_layout([layout, self.layout])

    def append(
        self, layout: Layout, encoded: Encoded, time: npt.NDArray[np.int64] | None = None
    ) -> Encoded:
        """Return n rows of `layout`, none of them from `fit`, with the derived columns behind.

        Args:
            layout: of the rows.
            encoded: the rows.
            time: (n,) of each; None where they have none.
        """
        return self._behind(Columns.of(layout, encoded, time=time), encoded)

    def _behind(self, columns: Columns, own: Encoded) -> Encoded:
        """Return the derived columns of n rows behind `own` columns."""
        n, at, dense_at = len(columns), own.codes.shape[1], own.dense.shape[1]
        codes = np.empty((n, at + len(self.layout.sparse)), np.int32)
        dense = np.empty((n, dense_at + len(self.layout.dense)), np.float32)
        codes[:, :at], dense[:, :dense_at] = own.codes, own.dense
        if not self._all:
            codes[:, at:], dense[:, dense_at:] = 0, 0.0
        if self.timed and columns.time is None:
            newest = self.newest if self.live is None else max(self.newest, self.live.newest)
            columns = replace(columns, time=after(newest, n))
        for part in parts(n, _PIECE):
            rows = columns if n <= _PIECE else columns.take(part)
            for place in self._ids:
                codes[part, at + place] = self._of_ids[place].apply(rows).codes[:, 0]
            if len(self._at):
                bins = codes[part, at + self._first_bin :]
                read = self._reader.read(rows)
                self._scales.write(read, bins, dense[part, dense_at:], self._at)
        return Encoded(codes, dict(own.lists), dense)

    def save(self, folder: Path | str) -> None:
        """Write `derivation.json` and a folder per transform; the folder appears whole.

        A live state is not written: it has a folder of its own.
        """
        with whole(Path(folder), _JSON) as partial:
            for number, transform in enumerate(self.transforms):
                transform.save(partial / f"{number:03d}")
            scales = [{**vars(one), "edges": list(one.edges)} for one in self.numeric]
            facts = {"chosen": self.chosen, "newest": self.newest}
            _FOLDER.write(partial, {"transforms": len(self.transforms), "numeric": scales, **facts})

    @classmethod
    def load(cls, folder: Path | str) -> Derivation:
        """Read what `save` wrote; every value comes out the same.

        Raises:
            RankerError: no derivation, a newer version, or a file that is missing or altered.
        """
        body = _FOLDER.read(Path(folder))
        places = [Path(folder) / f"{number:03d}" for number in range(body["transforms"])]
        numeric = [Numeric(**{**one, "edges": tuple(one["edges"])}) for one in body["numeric"]]
        chosen, newest = body.get("chosen"), body.get("newest", UNKNOWN)
        transforms = [Transform.load(place) for place in places]
        return cls(transforms, numeric, chosen=chosen, newest=newest)


def most_statistics(rows: int) -> int:
    """Return how many statistics of so many rows fit into the memory that is set aside, 2 GB."""
    return _BYTES // (8 * max(1, rows))


def _nothing(rows: int) -> tuple[npt.NDArray[np.int32], dict[str, Any], npt.NDArray[np.float32]]:
    return np.empty((rows, 0), np.int32), {}, np.empty((rows, 0), np.float32)


def _stacked(
    rows: int, codes: list[np.ndarray], bins: list[np.ndarray], dense: list[np.ndarray]
) -> Encoded:
    sparse = np.concatenate([np.empty((rows, 0), np.int32), *codes, *(b[:, None] for b in bins)], 1)
    numbers = np.stack(dense, 1) if dense else np.empty((rows, 0), np.float32)
    return Encoded(sparse.astype(np.int32, copy=False), {}, numbers)
