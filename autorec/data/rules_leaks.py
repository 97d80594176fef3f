"""Columns that seem to know the label, by what other rows of a value say of held-out rows.

Suspect is a column that puts nearly every row right, also among the rows of one user and of one
item; one with values that only the rarer label has; and one that does so together with the user or
the item. What the users and items of a log tell by themselves is no sign: rows are compared with
others of the same user or item. The rule that asks is `autorec.data.check.leaks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from autorec.data.casting import numbers
from autorec.data.findings import Facts, is_number
from autorec.data.hashing import hash_values, mix
from autorec.data.held_out import (
    LEAST_MIXED,
    Codes,
    Floats,
    joint,
    out_of_fold,
    right,
    shuffled,
    within,
)
from autorec.data.numeric import quantile_edges

ROWS = 50_000
LEAST_ROWS, _LEAST_CLASS = 50, 5  # on fewer rows a perfect feature may be luck
_BINS, _PAIR_BINS = 256, 8

# A number of two normals that are two deviations apart (AUC .92) is right in .84 of the rows.
_RIGHT, _WITHIN, _CHANCE = 0.9, 0.85, 0.7
_PURE, _COVERED, _LEAST_PURE, _FEW = 0.98, 0.3, 50, 5
_OUTCOMES = 50
_USUAL = 0.6  # a label of more rows is the usual one, and many values have no other

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Target:
    """The labelled rows.

    Attributes:
        label: name of the column.
        known: mask of the sampled rows that have a label.
        y: (n,) their labels as numbers.
        binary: whether there are two labels.
        ids: user and item columns as codes (n,).
    """

    label: str
    known: Mask
    y: Floats
    binary: bool
    ids: dict[str, Codes]

    @cached_property
    def high(self) -> Floats:
        """1 for one of two labels, or for numbers above the median (n,)."""
        if self.binary:
            return self.y
        middle = np.median(self.y)
        above = self.y > middle if (self.y > middle).any() else self.y >= middle
        return above.astype(np.float64)

    @cached_property
    def single(self) -> Mask:
        """Rows (n,) whose user meets their item nowhere else: what is liked may be liked again."""
        if len(self.ids) < 2:
            return np.ones(len(self.y), bool)
        _, back, counts = np.unique(
            joint(*self.ids.values()), return_inverse=True, return_counts=True
        )
        return np.asarray(counts[back] == 1)


Told = tuple[str, dict[str, Any]] | None


def suspicion(codes: Codes, counted: bool, target: Target) -> Told:
    """Return what makes a feature suspect and its numbers, or None.

    Args:
        codes: (n,) values as codes; `binned` where they are numbers.
        counted: whether they are numbers.
        target: of the same rows.
    """
    told = _alone(codes, target)
    if counted or codes.max() < _OUTCOMES:  # of thousands of items many have one label
        told = told or _one_sided(codes, target)
    few = -(-codes * _PAIR_BINS // max(1, int(codes.max()))) if counted else codes
    return told or _paired(few, target)


def _alone(codes: Codes, target: Target) -> Told:
    """Tell whether the rates of values put nearly every row right, within users and items too."""
    y = target.high
    rate = out_of_fold(codes, y)
    share = right(y, rate, np.full(len(y), y.mean()))
    inside = _inside(rate, target, np.ones(len(y), bool)) if share >= _RIGHT else None
    if inside is None:
        return None
    what = f"alone puts {share:.1%} of held-out rows on the right side of {target.label!r}"
    return what, {"right": share, "within": inside}


def _inside(score: Floats, target: Target, rows: Mask) -> dict[str, float] | None:
    """Return the AUC within users and within items; None where one of these explains the score.

    Where too few ids have both labels to tell, their own rates must not do well.
    """
    y, told = target.high, {}
    for name, ids in target.ids.items():
        inside = within(y[rows], score[rows], ids[rows])
        if inside is None:
            if right(y, out_of_fold(ids, y), np.full(len(y), y.mean())) >= _CHANCE:
                return None
        elif inside < _WITHIN:
            return None
        else:
            told[name] = inside
    return told


def _one_sided(codes: Codes, target: Target) -> Told:
    """Tell whether values have one label only, not the usual one, more than users and items do."""
    half = (mix(np.arange(len(codes), dtype=np.uint64)) >> np.uint64(40)) % np.uint64(2) == 0
    rows = np.bincount(codes[half], minlength=codes.max() + 1)
    for y in (target.high, 1.0 - target.high):
        one = np.bincount(codes[half], y[half], minlength=codes.max() + 1)
        held = ~half & ((rows >= _FEW) & (one >= _PURE * rows))[codes]
        count, found, of = int(held.sum()), float(y[held].sum()), float(y[~half].sum())
        usual = y.mean() > _USUAL or count < _LEAST_PURE
        if usual or found < _PURE * count or found < _COVERED * of:
            continue
        rates = [float(out_of_fold(ids, y)[held].mean()) for ids in target.ids.values()]
        if max(rates, default=0.0) > (1.0 + y.mean()) / 2:
            continue
        what = (
            f"has values of which {found / count:.1%} of held-out rows have the same "
            f"{target.label!r}, {found / of:.0%} of all that have it"
        )
        return what, {"pure": found / count, "covered": found / of}
    return None


def _paired(codes: Codes, target: Target) -> Told:
    """Tell whether the rates of values and an id put nearly every row of that id right.

    The control has the values of each id shuffled among its rows: as many rows a pair, no more
    information than the id.
    """
    for name, ids in target.ids.items():
        share = _pair_right(codes, ids, target)
        if share < _RIGHT:
            continue
        control = _pair_right(shuffled(codes, ids), ids, target)
        if control < _CHANCE:
            what = (
                f"with {name!r} puts {share:.1%} of held-out rows on the right side of "
                f"{target.label!r} ({control:.1%} if shuffled)"
            )
            return what, {"right": share, "control": control, "with": name}
    return None


def _pair_right(codes: Codes, ids: Codes, target: Target) -> float:
    """Return `right` of the rates of pairs in rows of ids that have both labels.

    0 where there are few such rows, or where the pairs tell nothing within other ids.
    """
    y = target.high
    mean = (np.bincount(ids, y) / np.maximum(np.bincount(ids), 1))[ids]
    mixed = target.single & (mean > 0) & (mean < 1)
    if min(y[mixed].sum(), (1 - y[mixed]).sum()) < LEAST_MIXED:
        return 0.0
    score = out_of_fold(joint(codes, ids), y, mean)
    share = right(y[mixed], score[mixed], mean[mixed])
    if share >= _RIGHT and _inside(score - mean, target, mixed) is None:
        return 0.0
    return share


def target_of(facts: Facts, label: str) -> Target | None:
    """Return the labelled rows, or None where there are too few of them."""
    known = ~facts.missing(label)[:ROWS]
    array = facts.column(label, ROWS).filter(pa.array(known))
    values = array.unique()
    if len(array) < LEAST_ROWS or len(values) < 2:
        return None
    names = [n for n in (facts.schema.user, facts.schema.item) if n is not None]
    held = [n for n in names if n in facts.sample.schema.names]
    ids = {n: coded(facts.column(n, ROWS).filter(pa.array(known)), n) for n in held}
    if len(values) == 2:
        y = pc.equal(array, values[0]).to_numpy(zero_copy_only=False).astype(np.float64)
        enough = min(y.sum(), len(y) - y.sum()) >= _LEAST_CLASS
        return Target(label, known, y, True, ids) if enough else None
    if not is_number(array.type):
        return None
    y = numbers(array, label)
    return Target(label, known, y, False, ids) if np.isfinite(y).all() else None


def coded(array: pa.Array, name: str) -> Codes:
    """Return values (n,) as codes, in no order."""
    return np.asarray(np.unique(hash_values(array, name), return_inverse=True)[1])


def binned(values: Floats) -> Codes:
    """Return numbers (n,) as quantile bins from 1, 0 where missing or infinite."""
    there = np.isfinite(values)
    edges = quantile_edges(*np.unique(values[there], return_counts=True), _BINS)
    return np.where(there, 1 + np.searchsorted(edges, np.where(there, values, np.nan)), 0)
