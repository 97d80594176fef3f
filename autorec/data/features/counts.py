"""How often a value or a combination of values occurs: the memory that embeddings blur."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.features._checks import one_of, some_fields
from autorec.data.features._files import Arrays
from autorec.data.features._keys import Cross, pieces, title
from autorec.data.features._order import earlier, logged
from autorec.data.features._table import Table
from autorec.data.features.base import Transform, encoded
from autorec.errors import ConfigError
from autorec.schema import DenseField, Layout

if TYPE_CHECKING:
    from typing_extensions import Self

FORMS = ("auto", "leave-one-out", "ordered")


@dataclass
class Counts(Transform):
    """log1p of the training rows with the same value of a field, or of a cross of 2 or 3.

    A training row counts the OTHER rows ("leave-one-out"), or the strictly earlier ones
    ("ordered"); any other row counts all training rows. Null is a value; a row with an
    out-of-vocabulary value counts 0. Gives one dense column `<a*b>.count`.

    Memory: 16 bytes a distinct key; "ordered" takes about 70 bytes a row in `train_values`.

    Args:
        fields: one to three names of plain fields.
        form: of training rows; "auto" is "ordered" where there is a timestamp.
    """

    moves: ClassVar[bool] = True

    fields: tuple[str, ...]
    form: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fields = some_fields(self.fields, 1, 3)
        one_of("form", self.form, FORMS)
        self._form = ""
        self._table: Table

    @property
    def inputs(self) -> tuple[str, ...]:
        """The counted fields."""
        return self.fields

    @classmethod
    def cases(cls, layout: Layout, timed: bool) -> list[Self]:
        """Return counts of one, two and three fields."""
        names = tuple(field.name for field in layout.sparse)
        found = [cls(names[:size]) for size in range(1, min(3, len(names)) + 1)]
        return found + ([cls(names[:2], "leave-one-out")] if not timed else [])

    @property
    def tables(self) -> dict[Cross, Table]:
        """The rows of each value, after `fit`."""
        return {self.cross(self.fields): self._table}

    def _learn(self, columns: Columns) -> None:
        self._form = resolve(self.form, columns, "leave-one-out")
        self._table = Table.learn(columns, self.cross(self.fields))

    def _training(self, columns: Columns) -> Encoded:
        if self._form == "leave-one-out":
            return self._looked_up(columns, own=1.0)
        keys, known = self.cross(self.fields).keys(columns)
        if columns.time is None:
            raise untimed()
        count, _ = earlier(self._table.find(keys, known), columns.time)
        return encoded(len(columns), dense=[logged(np.where(known, count, 0.0))])

    def _values(self, columns: Columns) -> Encoded:
        return self._looked_up(columns, own=0.0)

    def _looked_up(self, columns: Columns, own: float) -> Encoded:
        """Return counts without `own` rows each, chunk by chunk."""
        cross = self.cross(self.fields)
        out = np.empty(len(columns), np.float32)
        for part, rows in pieces(columns):
            place = self._table.find(*cross.keys(rows))
            if own:
                out[part] = logged(np.maximum(self._table.counts(place) - own, 0.0))
            else:
                out[part] = self._table.logs[place]
        return encoded(len(columns), dense=[out])

    def _layout(self) -> Layout:
        return Layout(dense=(DenseField(f"{title(self.fields)}.count"),))

    def _state(self) -> tuple[dict[str, Any], dict[str, Arrays]]:
        return {"form": self._form}, {"keys": self._table.arrays()}

    def _restore(self, facts: Mapping[str, Any], tables: Mapping[str, Arrays]) -> None:
        self._form, self._table = facts["form"], Table.of(tables["keys"])


def resolve(form: str, columns: Columns, otherwise: str) -> str:
    """Return the form of training values: "auto" is "ordered" where there is a timestamp.

    Raises:
        ConfigError: "ordered" without a timestamp.
    """
    if form == "auto":
        return otherwise if columns.time is None else "ordered"
    if form == "ordered" and columns.time is None:
        raise untimed()
    return form


def untimed() -> ConfigError:
    """Return the error of an ordered statistic without an order."""
    return ConfigError(
        "ordered statistics need a timestamp, but the columns have none; "
        "name the timestamp or take another form"
    )
