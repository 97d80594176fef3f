"""A number as a bin id: by training quantiles, or by the square of its logarithm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.features._checks import at_least, one_of
from autorec.data.features._files import Arrays
from autorec.data.features._keys import Ints, slices
from autorec.data.features.base import Transform, encoded
from autorec.data.numeric import quantile_edges
from autorec.data.vocabulary import FIRST, NULL
from autorec.errors import ConfigError
from autorec.schema import Layout, SparseField

if TYPE_CHECKING:
    from typing_extensions import Self

FORMS = ("quantile", "log-square")
_NUDGE = 1e-5  # float32 keeps 7 digits: a whole number that came back just below itself is lifted
_DIGITS = 1e-6  # in units of std


@dataclass
class NumericBins(Transform):
    """The bin of a dense column: one id column `<x>.quantile` or `<x>.log-square`.

    "quantile" parts the training rows evenly, into at most `bins`. "log-square" reads the raw value
    r = d * std + mean of the stored d, and exp(r) - 1 of it where `log`: negative, below 1, below
    2, then one bin for each whole floor(ln(r)**2); larger values than in training share the last
    bin (Juan et al., the winners of the Criteo display advertising challenge, 2014). Code 0 is
    null, 2 the first bin.

    Args:
        field: name of a dense field.
        form: "quantile" or "log-square".
        bins: most quantile bins.
        log, mean, std: how the column was made of raw values, as `Encoder.numeric` tells.
    """

    vocabulary: ClassVar[bool] = True

    field: str
    form: str = "quantile"
    bins: int = 64
    log: bool = False
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("form", self.form, FORMS)
        at_least("bins", self.bins, 2)
        if not 0.0 < self.std < np.inf:
            raise ConfigError(f"std must be above 0 and finite, but got {self.std!r}")
        self._edges: npt.NDArray[np.float64] = np.empty(0)
        self._last = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """The number."""
        return (self.field,)

    @classmethod
    def cases(cls, layout: Layout, timed: bool) -> list[Self]:
        """Return both forms of the first number."""
        names = [field.name for field in layout.dense[:1]]
        return [cls(name, form, bins=4) for name in names for form in FORMS]

    def _learn(self, columns: Columns) -> None:
        values = self._column(columns)
        values = values[~np.isnan(values)]
        if self.form == "quantile":
            distinct, counts = np.unique(values.astype(np.float64), return_counts=True)
            self._edges = quantile_edges(distinct, counts, self.bins) if len(distinct) else distinct
            self._last = len(self._edges)
        else:
            self._last = max(
                (int(self._steps(values[part]).max()) for part in slices(len(values))), default=0
            )

    def _values(self, columns: Columns) -> Encoded:
        values = self._column(columns)
        out = np.empty(len(columns), np.int64)
        for part in slices(len(columns)):
            piece = values[part]
            missing = np.isnan(piece)
            bins = self._bins(np.where(missing, np.float32(0), piece))
            out[part] = np.where(missing, NULL, FIRST + bins)
        return encoded(len(columns), codes=[out])

    def _bins(self, values: npt.NDArray[np.float32]) -> Ints:
        if self.form == "quantile":
            return np.searchsorted(self._edges, values.astype(np.float64), side="left")
        return np.minimum(self._steps(values), self._last)

    def _steps(self, values: npt.NDArray[np.float32]) -> Ints:
        """Return the log-square bin (n,), from 0, of stored values (n,)."""
        raw = values.astype(np.float64) * self.std + self.mean
        raw = np.copysign(np.expm1(np.abs(raw)), raw) if self.log else raw + _DIGITS * self.std
        raw += _NUDGE * np.maximum(np.abs(raw), 1.0)
        squares = np.floor(np.log(np.maximum(raw, 2.0)) ** 2).astype(np.int64)
        low = (raw >= 0).astype(np.int64) + (raw >= 1)
        return np.where(raw >= 2, 3 + squares, low)

    def _column(self, columns: Columns) -> npt.NDArray[np.float32]:
        names = [field.name for field in columns.layout.dense]
        return columns.dense[:, names.index(self.field)]

    def _layout(self) -> Layout:
        name = f"{self.field}.{self.form}"
        return Layout(sparse=(SparseField(name, FIRST + self._last + 1, self.field, binned=True),))

    def _state(self) -> tuple[dict[str, Any], dict[str, Arrays]]:
        return {"last": self._last}, {"edges": {"edge": self._edges}}

    def _restore(self, facts: Mapping[str, Any], tables: Mapping[str, Arrays]) -> None:
        self._last, self._edges = facts["last"], tables["edges"]["edge"]
