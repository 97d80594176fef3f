"""The mean label of a value or a combination of values, shrunk where few rows support it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.features._checks import at_least, one_of, some_fields
from autorec.data.features._files import Arrays
from autorec.data.features._keys import Cross, Ints, contents, pieces, title
from autorec.data.features._order import earlier
from autorec.data.features._table import Floats, Table, exact
from autorec.data.features.base import Transform, encoded
from autorec.data.features.counts import resolve, untimed
from autorec.errors import ConfigError
from autorec.schema import DenseField, Layout
from autorec.seeding import derive

if TYPE_CHECKING:
    from typing_extensions import Self

FORMS = ("auto", "out-of-fold", "leave-one-out", "ordered")

# Rows and label sum of one level of the hierarchy, one of each per row.
Support = tuple[Floats, Floats]


@dataclass
class Rates(Transform):
    """Label rate of a field, or of a cross of 2 or 3 fields, with Bayesian smoothing.

    With n rows and label sum s of its key, the rate of a cross is (s + m * p) / (n + m), where p is
    the mean rate of its single fields; each of these is shrunk in the same way to the rate of all
    rows (Micci-Barreca, SIGKDD Explorations 3(1), 2001). An unseen key has the rate p; a row with
    an out-of-vocabulary value is unseen. Labels are read to 2**-20, weights are not read.
    Gives one dense column `<a*b>.rate`.

    What training rows see, on all levels:

    - "out-of-fold": the rows of the other folds. The fold is a hash of the row without its label,
      so that equal rows share it; a cross of ALL columns thus has no support in training.
    - "leave-one-out": all other rows. The label is gone from the row's own value, but stands in
      the DIFFERENCE to the values of other rows of its key; a tree that is given the key as well
      can read it there. Prefer the other forms.
    - "ordered": strictly earlier rows, nothing for the first.

    Memory: 24 bytes a distinct key of each level; out-of-fold values take 16 * folds more in
    `train_values`, ordered ones about 100 bytes a row.

    Args:
        fields: one to three names of plain fields.
        form: of training rows; "auto" is "ordered" where there is a timestamp, else "out-of-fold".
        strength: m, in rows.
        folds: K.
        seed: decides the folds.
    """

    needs_label: ClassVar[bool] = True
    moves: ClassVar[bool] = True

    fields: tuple[str, ...]
    form: str = "auto"
    strength: float = 10.0
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fields = some_fields(self.fields, 1, 3)
        one_of("form", self.form, FORMS)
        at_least("folds", self.folds, 2)
        if not 0.0 < self.strength < np.inf:
            raise ConfigError(f"strength must be above 0 and finite, but got {self.strength!r}")
        self._form = ""
        self._tables: list[Table] = []
        self._all = (0.0, 0.0)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The fields of the rate."""
        return self.fields

    @classmethod
    def cases(cls, layout: Layout, timed: bool) -> list[Self]:
        """Return rates of one, two and three fields in the forms that the rows allow."""
        names = tuple(field.name for field in layout.sparse)
        forms = ("ordered",) if timed else ("out-of-fold", "leave-one-out")
        sizes = range(1, min(3, len(names)) + 1)
        return [cls(names[:size], form) for form in forms for size in sizes]

    @property
    def _levels(self) -> list[Cross]:
        """The single fields, and the cross where there is one."""
        single = [self.cross([name]) for name in self.fields]
        return [*single, self.cross(self.fields)] if len(self.fields) > 1 else single

    @property
    def tables(self) -> dict[Cross, Table]:
        """Rows and label sums of the values of each level, after `fit`."""
        return dict(zip(self._levels, self._tables, strict=True))

    @property
    def whole(self) -> tuple[float, float]:
        """Number and label sum of all rows, after `fit`."""
        return self._all

    def emptied(self) -> Self:
        found = super().emptied()
        found._all = (0.0, 0.0)
        return found

    def _learn(self, columns: Columns) -> None:
        self._form = resolve(self.form, columns, "out-of-fold")
        self._tables = [Table.learn(columns, level, labels=True) for level in self._levels]
        self._all = (float(len(columns)), float(_labels(columns).sum()))

    def _training(self, columns: Columns) -> Encoded:
        if self._form == "ordered":
            return self._ordered(columns)
        out = np.empty(len(columns), np.float32)
        rest = self._other_folds(columns) if self._form == "out-of-fold" else []
        for part, rows in pieces(columns):
            if not rest:
                out[part] = self._without_self(rows)
                continue
            fold = self._fold(rows)
            support = [
                (count[places, fold], total[places, fold])
                for (count, total), (_, places) in zip(rest, self._found(rows), strict=False)
            ]
            out[part] = self._rate(support, (rest[-1][0][0, fold], rest[-1][1][0, fold]))
        return encoded(len(columns), dense=[out])

    def _other_folds(self, columns: Columns) -> list[Support]:
        """Return rows and label sums (U + 1, K) outside of each fold, by level; last of all rows.

        Row U is that of what is not known, and empty.
        """
        sizes = [*(len(table) + 1 for table in self._tables), 1]
        sums = [(np.zeros(size * self.folds), np.zeros(size * self.folds)) for size in sizes]
        for _, rows in pieces(columns):
            fold, label = self._fold(rows), _labels(rows)
            places = [*(places for _, places in self._found(rows)), np.zeros(len(rows), np.int64)]
            for (count, total), place in zip(sums, places, strict=True):
                slot = place * self.folds + fold
                _add(count, slot, None)
                _add(total, slot, label)
        for pair in sums[:-1]:
            for each in pair:
                each[-self.folds :] = 0.0
        return [(_others(count, self.folds), _others(total, self.folds)) for count, total in sums]

    def _without_self(self, rows: Columns) -> npt.NDArray[np.float32]:
        label, support = _labels(rows), []
        for table, places in self._found(rows):
            own = places < len(table)
            count = table.counts(places) - own
            support.append((count, table.totals(places) - np.where(own, label, 0.0)))
        whole = (np.full(len(rows), self._all[0] - 1.0), self._all[1] - label)
        return self._rate(support, whole)

    def _ordered(self, columns: Columns) -> Encoded:
        if columns.time is None:
            raise untimed()
        label, support = _labels(columns), []
        for table, places in self._found(columns):
            count, total = earlier(places, columns.time, label)
            seen = places < len(table)
            support.append((np.where(seen, count, 0.0), np.where(seen, total, 0.0)))
        whole = earlier(np.zeros(len(columns), np.int64), columns.time, label)
        return encoded(len(columns), dense=[self._rate(support, whole)])

    def _values(self, columns: Columns) -> Encoded:
        out = np.empty(len(columns), np.float32)
        whole = (np.full(1, self._all[0]), np.full(1, self._all[1]))
        for part, rows in pieces(columns):
            support = [(t.counts(place), t.totals(place)) for t, place in self._found(rows)]
            out[part] = self._rate(support, whole)
        return encoded(len(columns), dense=[out])

    def _found(self, rows: Columns) -> list[tuple[Table, Ints]]:
        return [
            (table, table.find(*level.keys(rows)))
            for table, level in zip(self._tables, self._levels, strict=True)
        ]

    def _rate(self, support: Sequence[Support], whole: Support) -> npt.NDArray[np.float32]:
        """Return the smoothed rate (n,) of single fields, then the cross, below all rows."""
        m = self.strength
        prior = whole[1] / np.maximum(whole[0], 1.0)
        single = [(s + m * prior) / (n + m) for n, s in support[: len(self.fields)]]
        if len(single) == 1:
            return single[0].astype(np.float32)
        parent = sum(single[1:], single[0]) / len(single)
        count, total = support[-1]
        return np.asarray((total + m * parent) / (count + m), np.float32)

    def _fold(self, rows: Columns) -> Ints:
        hashed = contents(rows, derive(self.seed, "features.rates"))
        return (hashed % np.uint64(self.folds)).astype(np.int64)

    def _layout(self) -> Layout:
        return Layout(dense=(DenseField(f"{title(self.fields)}.rate"),))

    def _state(self) -> tuple[dict[str, Any], dict[str, Arrays]]:
        names = [title(level.fields) for level in self._levels]
        tables = zip(names, self._tables, strict=True)
        facts = {"form": self._form, "rows": self._all[0], "total": self._all[1]}
        return facts, {name: table.arrays(labels=True) for name, table in tables}

    def _restore(self, facts: Mapping[str, Any], tables: Mapping[str, Arrays]) -> None:
        self._form, self._all = facts["form"], (facts["rows"], facts["total"])
        self._tables = [Table.of(tables[title(level.fields)]) for level in self._levels]


def _labels(columns: Columns) -> Floats:
    """Return the labels (n,) as float64 whose sums are exact."""
    if columns.label is None:
        raise ConfigError("rates need labels, but the columns have none; name the label")
    return exact(columns.label)


def _others(sums: Floats, folds: int) -> Floats:
    """Return the sums (U + 1, K) of the other folds of flat sums by key and fold."""
    inside = sums.reshape(-1, folds)
    return np.asarray(inside.sum(1, keepdims=True) - inside)


def _add(sums: Floats, slots: Ints, values: Floats | None) -> None:
    """Add values (n,), or ones, to their slots without a pass over all slots."""
    if len(sums) <= 4 * len(slots):
        sums += np.bincount(slots, values, minlength=len(sums))
    else:
        np.add.at(sums, slots, 1.0 if values is None else values)
