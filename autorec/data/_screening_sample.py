"""The rows that screening looks at, and what is still unexplained of their labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from autorec.data.columns import Columns
from autorec.data.features._table import Floats
from autorec.data.vocabulary import UNKNOWN
from autorec.seeding import numpy_rng

Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PRIOR = 10.0  # rows of prior of a rate, the default of `Rates`
_PRIOR_BASE, _PASSES = 4.0, 5
_FARTHEST = 12.0  # logits


@dataclass(frozen=True)
class Sample:
    """n rows of the F usable fields: those with two known values or more, few of them unique.

    Attributes:
        names: F names.
        codes: F arrays (n,) that count the values from 0; `sizes` of each.
        known: F masks (n,) of the values in the vocabulary; None where all are.
        label: (n,) 0 or 1, or standardised ratings.
        time: (n,) or None; rows are in its order.
        binary: which loss.
        rows: (n,) their places among the training rows.
    """

    names: tuple[str, ...]
    codes: tuple[Codes, ...]
    sizes: tuple[int, ...]
    known: tuple[Mask | None, ...]
    label: Floats
    time: Codes | None
    binary: bool
    rows: Codes | None = None

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def often(self) -> tuple[npt.NDArray[np.int8], ...]:
        """The octave (n,) of how many rows share a row's value, for each field where it differs."""
        found = []
        for codes in self.codes:
            octave = np.log2(np.bincount(codes)).astype(np.int8)[codes]
            if octave.min() < octave.max():
                found.append(octave)
        return tuple(found)


@dataclass(frozen=True)
class Residual:
    """First and second derivative of the gain at the present margin, row by row.

    Attributes:
        margin: (n,) logits, or standardised ratings.
        slope: (n,) label minus prediction.
        bend: (n,) p (1 - p), or 1.
        prior: `PRIOR` rows of mean bend.
    """

    margin: Floats
    slope: Floats
    bend: Floats
    prior: float

    @cached_property
    def square(self) -> Floats:
        """The squares (n,) of the slopes."""
        return self.slope * self.slope

    @classmethod
    def at(cls, sample: Sample, margin: Floats) -> Residual:
        """Return the derivatives (n,) at a margin (n,)."""
        if sample.binary:
            margin = np.clip(margin, -_FARTHEST, _FARTHEST)
            chance = 1.0 / (1.0 + np.exp(-margin))
            bend = chance * (1.0 - chance)
        else:
            chance, bend = margin, np.ones(len(margin))
        return cls(margin, sample.label - chance, bend, PRIOR * float(bend.mean()))


def draw(columns: Columns, *, binary: bool, rows: int, seed: int) -> Sample | None:
    """Return at most `rows` rows with a finite label, or None where labels do not vary.

    Untimed rows are a random sample in random order, so that their first rows are one, too. Timed
    rows are the latest ones, whole in time: earlier rows of a key are then missing only before
    the first of them, as they are for every log that begins somewhere.
    """
    if columns.label is None:
        return None
    finite = np.flatnonzero(np.isfinite(columns.label))
    if columns.time is None:
        picked = numpy_rng(seed, "screening", "rows").permutation(finite)[:rows]
    else:
        picked = finite[np.argsort(columns.time[finite], kind="stable")][-rows:]
    label = columns.label[picked].astype(np.float64)
    if not len(label) or label.min() == label.max():
        return None
    if not binary:
        label = (label - label.mean()) / label.std()
    found = []
    for at, field in enumerate(columns.layout.sparse):
        codes, known = columns.codes[picked, at], None
        values, compact = np.unique(codes, return_inverse=True)
        if UNKNOWN in values:
            known = codes != UNKNOWN
        distinct = len(values) - (known is not None)
        if 2 <= distinct <= len(label) // 2:
            found.append((field.name, compact.astype(np.int64), len(values), known))
    names, all_codes, sizes, masks = zip(*found, strict=True) if found else ((), (), (), ())
    time = None if columns.time is None else columns.time[picked]
    return Sample(names, all_codes, sizes, masks, label, time, binary, picked)


def base(sample: Sample) -> Residual:
    """Return what an additive model over the values of all single fields leaves.

    Its values are fitted on the rows themselves, nearly unshrunk: a main effect that were left in
    the residuals would look like an interaction with every field of few values. What that
    overfits is taken from the crosses, and so makes them too small and never too large.
    """
    mean = float(sample.label.mean())
    start = np.log(mean / (1.0 - mean)) if sample.binary else 0.0
    found = Residual.at(sample, np.full(len(sample), start))
    for _ in range(_PASSES):
        found = main_effects(sample, found)
    return found


def main_effects(sample: Sample, found: Residual) -> Residual:
    """Return the residuals after one Newton step for the values of each field in turn."""
    for codes in sample.codes:
        slope = np.bincount(codes, found.slope)
        bend = np.bincount(codes, found.bend) + found.prior * (_PRIOR_BASE / PRIOR)
        found = Residual.at(sample, found.margin + (slope / bend)[codes])
    for often in sample.often:
        step = np.bincount(often, found.slope) / (np.bincount(often, found.bend) + 1e-9)
        found = Residual.at(sample, found.margin + step[often])
    return found
