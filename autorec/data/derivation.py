"""Derived columns: fitted transforms behind an encoder, in the form that every model reads.

A statistic gives a standardised number and its quantile bin, as a numeric column of the table does;
an id column stays what it is. Everything is fitted on training rows, which have values of their own
(see `autorec.data.features.base`). Other rows get their statistics from one place: from what was
fitted, or from a live state that has counted on since (see `autorec.data.state`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autorec.data._derivation_scales import Scales
from autorec.data.columns import OPTIONAL, Columns
from autorec.data.encoder import Encoded
from autorec.data.features.base import Transform, joined_layout
from autorec.data.folders import whole
from autorec.data.learning import BIN
from autorec.data.numeric import Numeric, NumericFit
from autorec.data.sealed import Sealed
from autorec.data.state import Limits, LiveState
from autorec.data.store import ColumnWriter
from autorec.errors import ConfigError, RankerError
from autorec.schema import DenseField, Layout, SparseField

FORMAT = 1
BINS = 32
_JSON = "derivation.json"
_FOLDER = Sealed("derivation", _JSON, FORMAT, "save the model again")
_ROWS = 1 << 18
_PIECE = 1 << 15  # rows whose values are made at a time
_BYTES = 2 << 30
_FORMS = {"counts": "count", "rates": "rate", "cross_ids": "id"}


class Derivation:
    """Fitted transforms with the scale and bins of their numbers. Made by `fit` or `load`.

    Attributes:
        transforms: fitted ones, in the order in which they were chosen.
        live: where the statistics come from; None: from the transforms.
        reads: names of the ids and statistics that are wanted; None: all. The others are zeros.
        layout: the derived columns: ids, bins of the statistics, statistics.
    """

    def __init__(
        self,
        transforms: Sequence[Transform],
        numeric: Sequence[Numeric],
        live: LiveState | None = None,
        reads: Collection[str] | None = None,
    ) -> None:
        self.transforms, self.numeric, self.live = tuple(transforms), tuple(numeric), live
        self.reads = None if reads is None else frozenset(reads)
        fields = [(form_of(t), t.layout) for t in self.transforms]
        ids = [replace(f, form=form) for form, one in fields for f in one.sparse]
        numbers = [replace(f, form=form) for form, one in fields for f in one.dense]
        bins = [
            SparseField(f"{f.name}{BIN}", one.rows, f.name, binned=True, form=f.form)
            for f, one in zip(numbers, self.numeric, strict=True)
        ]
        self.layout = Layout((*ids, *bins), (), tuple(numbers))
        self._ids = [at for at, field in enumerate(ids) if self._wanted(field.name)]
        self._at = np.flatnonzero([self._wanted(field.name) for field in numbers])
        self._first_bin = len(ids)
        self._all = len(self._ids) + len(self._at) == len(ids) + len(numbers)
        self._scales = Scales([self.numeric[at] for at in self._at])

    def _wanted(self, name: str) -> bool:
        return self.reads is None or name in self.reads

    @classmethod
    def fit(cls, transforms: Sequence[Transform], columns: Columns) -> tuple[Derivation, Encoded]:
        """Fit on N training rows, and return the values that these rows themselves get.

        Peak memory beside the columns: 8 bytes a statistic and row, and what one transform needs.

        Args:
            transforms: unfitted, or fitted on other rows, which they then forget.
            columns: training rows, of the encoder's own columns.

        Raises:
            ConfigError: a transform that gives other columns than ids and statistics.
        """
        fitted = [type(one)(**asdict(one)) for one in transforms]
        numeric: list[Numeric] = []
        codes, bins, dense = [], [], []
        for transform in fitted:
            form_of(transform)
            transform.fit(columns)
            values = transform.train_values(columns)
            codes += [values.codes]
            for field, column in zip(transform.layout.dense, values.dense.T, strict=True):
                numeric.append(_learned(field, column))
                bins.append(numeric[-1].bins(column.astype(np.float64)))
                dense.append(numeric[-1].dense(column.astype(np.float64)))
        made = cls(fitted, numeric)
        return made, _stacked(len(columns), codes, bins, dense)

    @property
    def moving(self) -> tuple[Transform, ...]:
        """The transforms that a live state moves: all statistics that are wanted, in order."""
        of_number = [each for each in self.transforms if each.moves]
        return tuple(of_number[at] for at in self._at)

    @property
    def statistics(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.layout.dense[at].name for at in self._at)

    def reading(self, names: Collection[str]) -> Derivation:
        """Return the same layout with zeros in all columns but some; this one stays as it is.

        A live state is kept where it counts these statistics and no others.

        Args:
            names: of ids and statistics; a bin goes with its statistic.
        """
        made = Derivation(self.transforms, self.numeric, None, names)
        if self.live is not None and made.statistics == self.statistics:
            made.live = self.live
        return made

    def counting_on(self, live: LiveState | Limits | None = None) -> Derivation:
        """Return the same columns with statistics from a live state; this one stays as it is.

        Right after, every value has the same bits (of the keys that `Limits` keeps exact).

        Args:
            live: the state, or how much a new one holds, which begins behind the training rows.

        Raises:
            RankerError: a state of other statistics.
        """
        if not isinstance(live, LiveState):
            live = LiveState.of(self.moving, limits=live)
        own, other = [*self.statistics], [field.name for field in live.layout.dense]
        if own != other:
            raise RankerError(
                f"a live state must count what the model reads, {own}, but it counts {other}; "
                "save the ranker again"
            )
        return Derivation(self.transforms, self.numeric, live, self.reads)

    def apply(self, columns: Columns) -> Encoded:
        """Return the derived columns (n rows) of rows that were not in `fit`."""
        return self._behind(columns, Encoded(*_nothing(len(columns))))

    def behind(self, layout: Layout) -> Layout:
        """Return `layout` with the derived columns behind its own.

        Raises:
            ConfigError: two columns of one name.
        """
        return joined_layout([layout, self.layout])

    def append(self, layout: Layout, encoded: Encoded) -> Encoded:
        """Return rows of `layout`, none of them from `fit`, with the derived columns behind."""
        return self._behind(Columns.of(layout, encoded), encoded)

    def _behind(self, columns: Columns, own: Encoded) -> Encoded:
        """Return the derived columns of n rows behind `own` columns."""
        n, at, dense_at = len(columns), own.codes.shape[1], own.dense.shape[1]
        codes = np.empty((n, at + len(self.layout.sparse)), np.int32)
        dense = np.empty((n, dense_at + len(self.layout.dense)), np.float32)
        codes[:, :at], dense[:, :dense_at] = own.codes, own.dense
        if not self._all:
            codes[:, at:], dense[:, dense_at:] = 0, 0.0
        ids = [each for each in self.transforms if not each.moves]
        for part in _parts(n, _PIECE):
            rows = columns if n <= _PIECE else columns.take(part)
            for place in self._ids:
                codes[part, at + place] = ids[place].apply(rows).codes[:, 0]
            if len(self._at):
                bins = codes[part, at + self._first_bin :]
                self._scales.write(self._numbers(rows), bins, dense[part, dense_at:], self._at)
        return Encoded(codes, dict(own.lists), dense)

    def _numbers(self, columns: Columns) -> npt.NDArray[np.float32]:
        """Return the statistics (Q, n) that are wanted, as they are before scale and bins."""
        if self.live is not None:
            return self.live.numbers(columns)
        out = np.empty((len(self._at), len(columns)), np.float32)
        for row, each in zip(out, self.moving, strict=True):
            row[:] = each.apply(columns).dense[:, 0]
        return out

    def save(self, folder: Path | str) -> None:
        """Write `derivation.json` and a folder per transform; the folder appears whole.

        A live state is not written: it has a folder of its own.
        """
        with whole(Path(folder), _JSON) as partial:
            for number, transform in enumerate(self.transforms):
                transform.save(partial / f"{number:03d}")
            scales = [{**vars(one), "edges": list(one.edges)} for one in self.numeric]
            _FOLDER.write(partial, {"transforms": len(self.transforms), "numeric": scales})

    @classmethod
    def load(cls, folder: Path | str) -> Derivation:
        """Read what `save` wrote; every value comes out the same.

        Raises:
            RankerError: no derivation, a newer version, or a file that is missing or altered.
        """
        body = _FOLDER.read(Path(folder))
        places = [Path(folder) / f"{number:03d}" for number in range(body["transforms"])]
        numeric = [Numeric(**{**one, "edges": tuple(one["edges"])}) for one in body["numeric"]]
        return cls([Transform.load(place) for place in places], numeric)


def most_statistics(rows: int) -> int:
    """Return how many statistics of so many rows fit into the memory that is set aside, 2 GB."""
    return _BYTES // (8 * max(1, rows))


def form_of(transform: Transform) -> str:
    """Return "id", "count" or "rate".

    Raises:
        ConfigError: another kind of transform.
    """
    name = type(transform).__module__.rpartition(".")[2]
    if name not in _FORMS:
        raise ConfigError(f"derived columns come from {sorted(_FORMS)}, but got {transform!r}")
    return _FORMS[name]


def widen(folder: Path, layout: Layout, more: Encoded | Derivation) -> Columns:
    """Write the rows in `folder` again with derived columns behind, and return them, mapped.

    Args:
        folder: of rows without derived columns.
        layout: of the rows with them.
        more: the values of these rows, or what gives them.
    """
    old = Columns.open(folder)
    with ColumnWriter(folder, layout) as writer:
        for part in _parts(len(old), _ROWS):
            rows = old.take(part)
            own = Encoded(rows.codes, rows.lists, rows.dense)
            if isinstance(more, Derivation):
                wide = more.append(old.layout, own)
            else:
                wide = _side_by_side(own, Encoded(more.codes[part], {}, more.dense[part]))
            optional = {name: getattr(rows, name) for name in OPTIONAL}
            writer.append(wide, **optional)
        return writer.close()


def _parts(rows: int, most: int) -> Iterator[slice]:
    for start in range(0, rows, most):
        yield slice(start, min(rows, start + most))


def _nothing(rows: int) -> tuple[npt.NDArray[np.int32], dict[str, Any], npt.NDArray[np.float32]]:
    return np.empty((rows, 0), np.int32), {}, np.empty((rows, 0), np.float32)


def _learned(field: DenseField, column: np.ndarray) -> Numeric:
    """Return scale and bins of a statistic (N,)."""
    fit = NumericFit(field.name, BINS)
    fit.add(pa.array(column))
    if fit.settle():
        fit.count(pa.array(column))
    return fit.result()


def _stacked(
    rows: int, codes: list[np.ndarray], bins: list[np.ndarray], dense: list[np.ndarray]
) -> Encoded:
    sparse = np.concatenate([np.empty((rows, 0), np.int32), *codes, *(b[:, None] for b in bins)], 1)
    numbers = np.stack(dense, 1) if dense else np.empty((rows, 0), np.float32)
    return Encoded(sparse.astype(np.int32, copy=False), {}, numbers)


def _side_by_side(one: Encoded, two: Encoded) -> Encoded:
    return Encoded(
        np.concatenate([one.codes, two.codes], axis=1),
        dict(one.lists),
        np.concatenate([one.dense, two.dense], axis=1),
    )
