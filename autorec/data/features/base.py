"""The contract of a feature transform, and the way of its values into the columns of a model.

A transform is fitted on training rows. `train_values` gives those rows values from which their own
label is absent; `apply` gives any other row, in validation, test and serving, what all training
rows tell. Statistics of training rows come from strictly earlier rows where there is a timestamp
(Prokhorenkova et al., CatBoost, NeurIPS 2018, section 3.2: ordered statistics), and leave the row
or its fold out where there is none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from autorec.catalogue import Catalogue
from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.features import _files
from autorec.data.features._checks import at_least as at_least
from autorec.data.features._files import Arrays
from autorec.data.features._keys import Cross
from autorec.errors import ConfigError, DataError, NotFittedError
from autorec.schema import Layout

if TYPE_CHECKING:
    from typing_extensions import Self

TRANSFORMS = Catalogue("autorec.data.features", leaf="Transform")


@dataclass
class Transform(ABC):
    """New columns from encoded ones. A subclass is a dataclass whose fields are JSON-able.

    A subclass gives `inputs`, `cases`, and the hooks `_learn`, `_values`, `_layout`, `_state` and
    `_restore`; `_training` too where training rows need values of their own.

    Attributes:
        needs_label: fit reads labels.
        needs_time: fit and apply read times.
        vocabulary: only ids or edges are fitted, without labels, as the encoder fits its own: a
            later row can then rename a code of an earlier one.
        moves: a statistic of traffic, which a state keeps on counting (see `autorec.data.state`).
    """

    needs_label: ClassVar[bool] = False
    needs_time: ClassVar[bool] = False
    vocabulary: ClassVar[bool] = False
    moves: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._rows = 0
        self._sizes: dict[str, list[int]] = {}
        self._checked: Layout | None = None  # the same object in every request of a server

    @property
    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """Names of the columns of the layout that are read."""

    @classmethod
    @abstractmethod
    def cases(cls, layout: Layout, timed: bool) -> list[Self]:
        """Return instances that suit a layout, on which the leakage law is tried."""

    def fit(self, columns: Columns) -> None:
        """Learn from N training rows.

        Raises:
            ConfigError: a column, the labels or the times that are needed are absent.
            DataError: no rows.
        """
        if not len(columns):
            raise DataError("a transform is fitted on at least one row, but got 0; give more rows")
        self._sizes, self._checked = self._measure(columns), columns.layout
        self._rows = len(columns)
        self._learn(columns)

    def train_values(self, columns: Columns) -> Encoded:
        """Return the values of the N training rows themselves, in the order of `layout`.

        Raises:
            NotFittedError: before `fit`.
            ConfigError: other rows than those of fit, or an absent column.
        """
        self._ready(columns, training=True)
        if len(columns) != self._rows:
            raise ConfigError(
                f"train_values takes the {self._rows} rows of fit, but got {len(columns)}; "
                "use apply for other rows"
            )
        return self._training(columns)

    def apply(self, columns: Columns) -> Encoded:
        """Return the values of n rows that were not in fit; each depends on its own row only.

        Raises:
            NotFittedError: before `fit`.
            ConfigError: a column is absent or of another size than in fit.
        """
        self._ready(columns)
        return self._values(columns)

    def check(self, columns: Columns) -> None:
        """Raise what `apply` raises for rows that it cannot take."""
        self._ready(columns)

    @property
    def layout(self) -> Layout:
        """What the new columns are.

        Raises:
            NotFittedError: before `fit`.
        """
        self._ready(None)
        return self._layout()

    def emptied(self) -> Self:
        """Return one that `moves`, with the same columns and units, that knows of no row.

        Raises:
            NotFittedError: before `fit`.
        """
        self._ready(None)
        facts, tables = self._state()
        found = type(self)(**asdict(self))
        found._rows, found._sizes = self._rows, self._sizes
        nothing = {name: {key: a[:0] for key, a in table.items()} for name, table in tables.items()}
        found._restore(facts, nothing)
        return found

    def save(self, folder: Path | str) -> None:
        """Write `transform.json` and Arrow tables; the folder appears whole.

        Raises:
            NotFittedError: before `fit`.
            DataError: the folder holds something that is no transform.
        """
        self._ready(None)
        facts, tables = self._state()
        body = {
            "transform": type(self).__module__.rpartition(".")[2],
            "arguments": asdict(self),
            "rows": self._rows,
            "sizes": self._sizes,
            "facts": facts,
        }
        _files.write(Path(folder), body, tables)

    @classmethod
    def load(cls, folder: Path | str) -> Transform:
        """Read what `save` wrote; every value comes out the same. `Transform.load` finds the class.

        Raises:
            RankerError: no transform, a newer version, or a file that is missing or altered.
            ConfigError: no transform has the saved name.
        """
        body, tables = _files.read(Path(folder))
        kind = TRANSFORMS.get(body["transform"]) if cls is Transform else cls
        found: Transform = kind(**body["arguments"])
        found._rows, found._sizes = body["rows"], body["sizes"]
        found._restore(body["facts"], tables)
        return found

    @abstractmethod
    def _learn(self, columns: Columns) -> None:
        """Learn from training rows that were checked."""

    @abstractmethod
    def _values(self, columns: Columns) -> Encoded:
        """Return what `apply` does."""

    def _training(self, columns: Columns) -> Encoded:
        return self._values(columns)

    @abstractmethod
    def _layout(self) -> Layout:
        """Return what `layout` does."""

    @abstractmethod
    def _state(self) -> tuple[dict[str, Any], dict[str, Arrays]]:
        """Return JSON-able facts and named tables of 1-d arrays."""

    @abstractmethod
    def _restore(self, facts: Mapping[str, Any], tables: Mapping[str, Arrays]) -> None:
        """Take what `_state` gave."""

    def cross(self, fields: Sequence[str]) -> Cross:
        """Return the cross of some plain fields among `inputs`, after `fit`."""
        return Cross(tuple(fields), tuple(self._sizes[name][0] for name in fields))

    def _ready(self, columns: Columns | None, *, training: bool = False) -> None:
        if not self._rows:
            raise NotFittedError(f"{type(self).__name__} has learned nothing yet; call fit first")
        if columns is None:
            return
        timed = columns.time is not None or not self.needs_time
        if timed and not training and self._checked is columns.layout:
            return
        if (sizes := self._measure(columns, training=training)) != self._sizes:
            raise ConfigError(
                f"{type(self).__name__} reads columns of the sizes {self._sizes}, but got {sizes}; "
                "encode with the encoder of the training rows"
            )
        self._checked = columns.layout

    def _measure(self, columns: Columns, *, training: bool = True) -> dict[str, list[int]]:
        """Return [table rows, length] of each input; raise where something is absent."""
        sizes = _sizes(columns.layout)
        absent = [name for name in self.inputs if name not in sizes]
        if self.needs_time and columns.time is None:
            absent.append("a timestamp")
        if self.needs_label and training and columns.label is None:
            absent.append("labels")
        if absent:
            raise ConfigError(
                f"{type(self).__name__} needs {absent}, but the columns have {sorted(sizes)}; "
                "name other fields or add what is missing"
            )
        return {name: sizes[name] for name in self.inputs}


def _sizes(layout: Layout) -> dict[str, list[int]]:
    sparse = {field.name: [field.rows, 1] for field in layout.sparse}
    lists = {field.name: [field.rows, field.length] for field in layout.lists}
    return {**sparse, **lists, **{field.name: [0, 1] for field in layout.dense}}


def joined(columns: Columns, parts: Sequence[tuple[Layout, Encoded]]) -> Columns:
    """Return the N rows with the new columns behind the old ones of their kind.

    Args:
        columns: N rows.
        parts: layout and values of each transform.

    Raises:
        ConfigError: two columns of one name, or another number of rows.
    """
    layout = joined_layout([columns.layout, *(layout for layout, _ in parts)])
    rows = {len(encoded) for _, encoded in parts} | {len(columns)}
    if len(rows) > 1:
        raise ConfigError(f"columns of one table have equally many rows, but got {sorted(rows)}")
    lists = dict(columns.lists)
    for _, encoded in parts:
        lists.update(encoded.lists)
    return replace(
        columns,
        layout=layout,
        codes=np.concatenate([columns.codes, *(e.codes for _, e in parts)], axis=1),
        dense=np.concatenate([columns.dense, *(e.dense for _, e in parts)], axis=1),
        lists=lists,
    )


def joined_layout(layouts: Sequence[Layout]) -> Layout:
    """Return the columns of all layouts, those of each kind one behind the other.

    Raises:
        ConfigError: two columns of one name.
    """
    layout = Layout(
        tuple(field for each in layouts for field in each.sparse),
        tuple(field for each in layouts for field in each.lists),
        tuple(field for each in layouts for field in each.dense),
    )
    names = [*(field.name for field in layout.sparse), *(field.name for field in layout.lists)]
    dense = [field.name for field in layout.dense]
    twice = sorted({name for held in (names, dense) for name in held if held.count(name) > 1})
    if twice:
        raise ConfigError(f"column names must differ, but {twice} occur twice; leave one out")
    return layout


def encoded(
    rows: int,
    codes: Sequence[npt.NDArray[Any]] = (),
    dense: Sequence[npt.NDArray[Any]] = (),
    lists: Mapping[str, npt.NDArray[np.int32]] | None = None,
) -> Encoded:
    """Return columns (n,) of codes and floats as the values of n rows."""
    return Encoded(
        np.stack(codes, 1).astype(np.int32) if codes else np.empty((rows, 0), np.int32),
        dict(lists or {}),
        _side_by_side(dense) if dense else np.empty((rows, 0), np.float32),
    )


def _side_by_side(columns: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    one = columns[0][:, None] if len(columns) == 1 else np.stack(columns, 1)
    return one.astype(np.float32, copy=False)
