"""Faults of a table that would spoil a model or its score, found before any training.

The worst is a column that knows the label: scores look perfect and production does not. The rest
are in `rules` and `rules_time`; `RULES` is the whole list, and a new rule is one function in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from autorec.data import rules, rules_time
from autorec.data.casting import numbers
from autorec.data.findings import SEVERITIES, Facts, Finding, Table, is_number
from autorec.data.hashing import hash_values
from autorec.data.held_out import Floats, auc, out_of_fold
from autorec.data.rules_leaks import (
    LEAST_ROWS,
    ROWS,
    Target,
    binned,
    coded,
    suspicion,
    target_of,
)
from autorec.data.split import SplitPlan
from autorec.errors import DataError
from autorec.schema import Field, Kind, Schema

__all__ = ["Finding", "check"]

_LEAK = 0.999


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
    """No feature tells the label, alone or with the user or the item."""
    label = facts.schema.label
    if label is None or label not in facts.sample.schema.names:
        return
    target = target_of(facts, label)
    hashed = hash_values(facts.column(label), label)
    varies = len(np.unique(hashed)) > 1
    for field in facts.features:
        name = field.name
        if field.kind is Kind.LIST:
            continue
        if varies and np.array_equal(hash_values(facts.column(name), name), hashed):
            yield Finding(
                "error",
                name,
                "equals_label",
                f"a feature must be known before the label, but {name!r} has the values of the "
                f"label {label!r} in all {len(hashed)} sampled rows; leave it out",
                {"rows": len(hashed)},
            )
        elif target is not None:
            yield from _judged(facts, field, target)


def _judged(facts: Facts, field: Field, target: Target) -> Iterator[Finding]:
    """Yield the gravest of what is to be said of one feature."""
    y, name, measure = target.y, field.name, "auc" if target.binary else "correlation"
    array = facts.column(name, ROWS).filter(pa.array(target.known))
    counted = field.kind is Kind.NUMERIC or (not target.binary and is_number(array.type))
    values = numbers(array, name) if counted else None
    codes = binned(values) if values is not None else coded(array, name)
    score = max(_order(values, target), _agreement(y, out_of_fold(codes, y), target.binary))
    if score >= _LEAK:
        yield Finding(
            "error",
            name,
            "leak",
            f"no feature alone should decide the label, but {name!r} leaks the label "
            f"{target.label!r} ({measure} {score:.4f} on {len(y)} rows); leave it out",
            {measure: score, "rows": len(y)},
        )
        return
    if name in target.ids:
        return
    told = suspicion(codes, values is not None, target)
    if told is not None:
        what, evidence = told
        yield Finding(
            "warning",
            name,
            "likely_leak",
            f"a feature must be known before the label, but {name!r} {what}; leave it out unless "
            "it is known when a score is asked for",
            {**evidence, "rows": len(y)},
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


def _order(values: Floats | None, target: Target) -> float:
    """Return how well the order of numbers (n,) is that of the labels; 0 without numbers."""
    if values is None:
        return 0.0
    y, binary, there = target.y, target.binary, np.isfinite(values)
    if there.sum() < LEAST_ROWS:
        return 0.0
    straight = _agreement(y[there], values[there], binary)
    # What few rows have decides few labels, however well.
    return max(straight, 1.0 - straight if binary else -straight, 0.0) * float(there.mean())


def _agreement(y: Floats, score: Floats, binary: bool) -> float:
    if not binary:
        return rules_time.correlation(y, score)
    if not 0 < y.sum() < len(y):
        return 0.5
    return auc(y, score)
