"""Faults of a table that would spoil a model or its score, found before any training.

The worst is a column that knows the label: scores look perfect and production does not. The rest
are in `rules` and `rules_time`; `RULES` is the whole list, and a new rule is one function in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from autorec.data import rules, rules_time
from autorec.data.casting import numbers
from autorec.data.findings import SEVERITIES, Facts, Finding, Table, is_number
from autorec.data.hashing import hash_values, mix
from autorec.data.numeric import quantile_edges
from autorec.data.split import SplitPlan
from autorec.errors import DataError
from autorec.schema import Field, Kind, Schema

__all__ = ["Finding", "check"]

_LEAK = 0.999
_LEAK_ROWS = 50_000
_LEAST_ROWS, _LEAST_CLASS = 50, 5  # on fewer rows a perfect feature may be luck
_BINS = 256
_FOLDS = 5

Floats = npt.NDArray[np.float64]


def check(
    source: Table,
    schema: Schema,
    plan: SplitPlan | None = None,
    tuning: Table | None = None,
    *,
    now: float | None = None,
) -> list[Finding]:
    """Return what is wrong with a table, worst first.

    Features are judged on the first 200,000 rows; label, weight, time and, with tuning data, the
    user and item ids are read in full.

    Args:
        source: training data.
        schema: its columns.
        plan: the split that will be used.
        tuning: validation data, where given apart.
        now: the present in seconds since 1970; None asks the clock.
    """
    facts = Facts(source, schema, plan, tuning, time.time() if now is None else now)
    found: list[Finding] = []
    for rule in RULES:
        try:
            found += rule(facts)
        except DataError as error:
            found.append(Finding("error", None, "unreadable", str(error)))
    unique = {(f.rule, f.column, f.message): f for f in found}
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    return sorted(unique.values(), key=lambda f: (order[f.severity], f.rule, f.column or ""))


def leaks(facts: Facts) -> Iterator[Finding]:
    """No feature alone tells the label."""
    label = facts.schema.label
    if label is None or label not in facts.sample.schema.names:
        return
    target = _target(facts, label)
    names = [field.name for field in facts.features if field.kind is not Kind.LIST]
    hashed = hash_values(facts.column(label), label)
    varies = len(np.unique(hashed)) > 1
    for name in names:
        if varies and np.array_equal(hash_values(facts.column(name), name), hashed):
            yield Finding(
                "error",
                name,
                "equals_label",
                f"a feature must be known before the label, but {name!r} has the values of the "
                f"label {label!r} in all {len(hashed)} sampled rows; leave it out",
                {"rows": len(hashed)},
            )
            continue
        if target is None:
            continue
        known, y, binary = target
        measure = "auc" if binary else "correlation"
        score = _strength(facts, facts.schema[name], known, y, binary)
        if score >= _LEAK:
            yield Finding(
                "error",
                name,
                "leak",
                f"no feature alone should decide the label, but {name!r} leaks the label {label!r} "
                f"({measure} {score:.4f} on {len(y)} rows); leave it out",
                {measure: score, "rows": len(y)},
            )


RULES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    rules.empty,
    rules.label_values,
    rules.weights,
    rules.finite_numbers,
    leaks,
    rules.tuning_columns,
    rules.shared_rows,
    rules_time.time_overlap,
    rules_time.split_ignores_time,
    rules_time.future_times,
    rules_time.time_nulls,
    rules_time.ordered_ids,
    rules.unique_ids,
    rules.duplicates,
    rules.varied,
    rules.cold_start,
)


def _target(facts: Facts, label: str) -> tuple[npt.NDArray[np.bool_], Floats, bool] | None:
    """Return a mask of the labelled rows, their labels as numbers, and whether there are two."""
    known = ~facts.missing(label)[:_LEAK_ROWS]
    array = facts.column(label, _LEAK_ROWS).filter(pa.array(known))
    values = array.unique()
    if len(array) < _LEAST_ROWS or len(values) < 2:
        return None
    if len(values) == 2:
        y = pc.equal(array, values[0]).to_numpy(zero_copy_only=False).astype(np.float64)
        return (known, y, True) if min(y.sum(), len(y) - y.sum()) >= _LEAST_CLASS else None
    if not is_number(array.type):
        return None
    y = numbers(array, label)
    return (known, y, False) if np.isfinite(y).all() else None


def _strength(
    facts: Facts, field: Field, known: npt.NDArray[np.bool_], y: Floats, binary: bool
) -> float:
    """Return how well one feature orders the label: AUC, or |correlation| for numbers."""
    array = facts.column(field.name, _LEAK_ROWS).filter(pa.array(known))
    best = 0.0
    if field.kind is Kind.NUMERIC or (not binary and is_number(array.type)):
        values = numbers(array, field.name)
        there = np.isfinite(values)
        if there.sum() >= _LEAST_ROWS:
            straight = _agreement(y[there], values[there], binary)
            # What few rows have decides few labels, however well.
            best = max(straight, 1.0 - straight if binary else -straight) * float(there.mean())
        values = np.where(there, values, np.nan)
        distinct, counts = np.unique(values[there], return_counts=True)
        edges = quantile_edges(distinct, counts, _BINS)
        codes = np.where(there, 1 + np.searchsorted(edges, values), 0)
    else:
        codes = np.unique(hash_values(array, field.name), return_inverse=True)[1]
    return max(best, _agreement(y, _out_of_fold(codes, y), binary))


def _out_of_fold(codes: npt.NDArray[np.intp], y: Floats) -> Floats:
    """Return for each row (n,) the mean label of its code in the other folds."""
    fold = (mix(np.arange(len(y), dtype=np.uint64)) % np.uint64(_FOLDS)).astype(np.int64)
    cell, size = codes * _FOLDS + fold, (int(codes.max()) + 1) * _FOLDS
    rows = np.bincount(cell, minlength=size).reshape(-1, _FOLDS)
    sums = np.bincount(cell, y, minlength=size).reshape(-1, _FOLDS)
    others = rows.sum(1, keepdims=True) - rows
    means = (sums.sum(1, keepdims=True) - sums) / np.maximum(others, 1)
    return np.asarray(np.where(others > 0, means, y.mean())[codes, fold])


def _agreement(y: Floats, score: Floats, binary: bool) -> float:
    if not binary:
        return rules_time.correlation(y, score)
    if not 0 < y.sum() < len(y):
        return 0.5
    from sklearn.metrics import roc_auc_score  # loads scipy: not for those who only encode

    return float(roc_auc_score(y, score))
