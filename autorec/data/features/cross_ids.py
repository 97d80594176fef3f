"""Two or three fields as one id: a memorised cross, with a table of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.features._checks import at_least, some_fields
from autorec.data.features._files import Arrays
from autorec.data.features._keys import pieces, title
from autorec.data.features._table import Table
from autorec.data.features.base import Transform, encoded
from autorec.data.hashing import mix
from autorec.data.vocabulary import FIRST, UNKNOWN, Codes
from autorec.schema import Layout, SparseField

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class CrossIds(Transform):
    """One id column `<a*b>` for a cross of 2 or 3 fields.

    Code 1 is a combination seen less than `min_count` times in training, or with an
    out-of-vocabulary value; from 2 on the kept ones, the most frequent first. Beyond `limit` of
    them, the rest of the kept ones share `buckets` codes by hash. Memory: 28 bytes a kept key.

    Args:
        fields: two or three names of plain fields.
        min_count: training rows that a combination needs.
        limit: most combinations with a code of their own.
        buckets: codes that the others share.
    """

    vocabulary: ClassVar[bool] = True

    fields: tuple[str, ...]
    min_count: int = 2
    limit: int = 1_000_000
    buckets: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fields = some_fields(self.fields, 2, 3)
        for name, least in (("min_count", 1), ("limit", 1), ("buckets", 1)):
            at_least(name, getattr(self, name), least)
        self._table: Table
        self._codes: Codes  # (U + 1,), the last for what is not found

    @property
    def inputs(self) -> tuple[str, ...]:
        """The crossed fields."""
        return self.fields

    @classmethod
    def cases(cls, layout: Layout, timed: bool) -> list[Self]:
        """Return a cross of two fields, one of three, and one that overflows its limit."""
        names = tuple(field.name for field in layout.sparse)
        if len(names) < 2:
            return []
        found = [cls(names[:2]), cls(names[:2], min_count=1, limit=3, buckets=4)]
        return found + ([cls(names[:3])] if len(names) > 2 else [])

    def _learn(self, columns: Columns) -> None:
        table = Table.learn(columns, self.cross(self.fields))
        kept = table.count >= self.min_count
        keys, count = table.keys[kept], table.count[kept]
        rank = np.empty(len(keys), np.int64)
        rank[np.lexsort((keys, -count))] = np.arange(len(keys))
        shared = self.limit + (mix(keys.view(np.uint64)) % np.uint64(self.buckets)).astype(np.int64)
        code = FIRST + np.where(rank < self.limit, rank, shared)
        self._table = Table(keys, count, np.zeros(len(keys)))
        self._codes = np.append(code, UNKNOWN).astype(np.int32)

    def _values(self, columns: Columns) -> Encoded:
        cross = self.cross(self.fields)
        out = np.empty(len(columns), np.int32)
        for part, rows in pieces(columns):
            out[part] = self._codes[self._table.find(*cross.keys(rows))]
        return encoded(len(columns), codes=[out])

    def _layout(self) -> Layout:
        kept = len(self._table)
        rows = FIRST + min(kept, self.limit) + (self.buckets if kept > self.limit else 0)
        name = title(self.fields)
        return Layout(sparse=(SparseField(name, rows, name),))

    def _state(self) -> tuple[dict[str, Any], dict[str, Arrays]]:
        return {}, {"keys": {**self._table.arrays(), "code": self._codes[:-1]}}

    def _restore(self, facts: Mapping[str, Any], tables: Mapping[str, Arrays]) -> None:
        self._table = Table.of(tables["keys"])
        self._codes = np.append(tables["keys"]["code"], np.int32(UNKNOWN))
