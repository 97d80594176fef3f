"""How long a list is and how many different values it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.features._files import Arrays
from autorec.data.features._keys import slices
from autorec.data.features._order import logged
from autorec.data.features.base import Transform, encoded
from autorec.data.vocabulary import NULL
from autorec.schema import DenseField, Layout

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class ListStatistics(Transform):
    """log1p of the values kept of a list, `<list>.length`, and of different ones, `.distinct`.

    All out-of-vocabulary values count as one different value. Nothing is fitted.

    Args:
        field: name of a list field.
    """

    vocabulary: ClassVar[bool] = True

    field: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The list."""
        return (self.field,)

    @classmethod
    def cases(cls, layout: Layout, timed: bool) -> list[Self]:
        """Return the statistics of each list."""
        return [cls(field.name) for field in layout.lists]

    def _learn(self, columns: Columns) -> None:
        pass

    def _values(self, columns: Columns) -> Encoded:
        length = np.empty(len(columns), np.int64)
        distinct = np.empty(len(columns), np.int64)
        for part in slices(len(columns)):
            values = np.sort(columns.lists[self.field][part], axis=1)
            filled = values != NULL
            length[part] = filled.sum(1)
            filled[:, 1:] &= values[:, 1:] != values[:, :-1]
            distinct[part] = filled.sum(1)
        return encoded(len(columns), dense=[logged(length), logged(distinct)])

    def _layout(self) -> Layout:
        return Layout(
            dense=(DenseField(f"{self.field}.length"), DenseField(f"{self.field}.distinct"))
        )

    def _state(self) -> tuple[dict[str, Any], dict[str, Arrays]]:
        return {}, {}

    def _restore(self, facts: Mapping[str, Any], tables: Mapping[str, Arrays]) -> None:
        pass
