"""One small function per thing that can be wrong with the values of a table.

A rule takes the `Facts` and yields `Finding`s. A rule that reads a column which cannot be read
raises DataError, which becomes a finding. Rules about time are in `autorec.data.rules_time`, those
about the label in `autorec.data.check`, which runs them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from autorec.data.casting import numbers
from autorec.data.findings import Facts, Finding
from autorec.data.hashing import UInts, hash_rows, hash_values
from autorec.data.streaming import stream
from autorec.schema import Kind

# Below one row in a thousand, equal rows are chance and move no score.
_FEW = 1e-3
_LEAST = 20  # with fewer rows, uniqueness is chance


def empty(facts: Facts) -> Iterator[Finding]:
    """A table has rows."""
    if not facts.sample.num_rows:
        yield Finding("error", None, "empty", "a table needs rows, but this one has 0; check it")


def label_values(facts: Facts) -> Iterator[Finding]:
    """Every label is known and finite, and there are two different ones."""
    name, scan = facts.schema.label, facts.scan
    if name is None or not scan.rows:
        return
    if scan.label_nulls:
        yield Finding(
            "error",
            name,
            "label_nulls",
            f"every training row needs a label, but {scan.label_nulls} of {scan.rows} are null in "
            f"{name!r}; drop those rows",
            {"nulls": scan.label_nulls, "rows": scan.rows},
        )
    if scan.label_infinite:
        yield Finding(
            "error",
            name,
            "label_infinite",
            f"labels must be finite, but {scan.label_infinite} in {name!r} are infinite; mend them",
            {"infinite": scan.label_infinite, "rows": scan.rows},
        )
    if len(scan.label_values) < 2 and scan.label_nulls < scan.rows:
        value = next(iter(scan.label_values))
        yield Finding(
            "error",
            name,
            "label_constant",
            f"a label needs two different values, but {name!r} is always {value!r}; "
            "add the other rows",
            {"value": str(value), "rows": scan.rows},
        )


def weights(facts: Facts) -> Iterator[Finding]:
    """Weights are finite, not negative, and not all zero."""
    name, scan = facts.schema.weight, facts.scan
    if name is None:
        return
    if scan.weight_bad:
        yield Finding(
            "error",
            name,
            "bad_weights",
            f"weights must be finite and not negative, but {scan.weight_bad} of {scan.rows} in "
            f"{name!r} are not, the first {scan.weight_first!r}; mend or drop these rows",
            {"bad": scan.weight_bad, "rows": scan.rows, "first": str(scan.weight_first)},
        )
    elif scan.rows and not scan.weight_positive:
        yield Finding(
            "error",
            name,
            "zero_weights",
            f"some weights must be positive, but all {scan.rows} in {name!r} are 0; mend them",
            {"rows": scan.rows},
        )


def finite_numbers(facts: Facts) -> Iterator[Finding]:
    """Numeric features have no infinities."""
    for field in facts.features:
        if field.kind is Kind.NUMERIC:
            values = numbers(facts.column(field.name), field.name)
            if count := int(np.isinf(values).sum()):
                yield Finding(
                    "error",
                    field.name,
                    "non_finite",
                    f"numbers must be finite or null, but {count} of {len(values)} in "
                    f"{field.name!r} are infinite; replace them by null or a bound",
                    {"infinite": count, "rows": len(values)},
                )


def duplicates(facts: Facts) -> Iterator[Finding]:
    """Few rows occur twice."""
    rows = facts.sample.num_rows
    double = rows - len(np.unique(facts.row_keys(facts.sample.schema.names)))
    if double:
        share = double / rows
        yield Finding(
            "warning" if share >= 0.05 else "info",
            None,
            "duplicates",
            f"rows should differ, but {double} of {rows} sampled ones ({share:.2%}) repeat; "
            "deduplicate if these are no real repeats",
            {"share": share, "rows": rows},
        )


def shared_rows(facts: Facts) -> Iterator[Finding]:
    """No event is both in training and in tuning data."""
    tuning, schema = facts.tuning_sample, facts.schema
    keys = [name for name in (schema.user, schema.item, schema.timestamp) if name is not None]
    if tuning is None or not tuning.num_rows:
        return
    if len(keys) < 3:
        keys = list(facts.sample.schema.names)
    if not set(keys) <= {*tuning.schema.names} & {*facts.sample.schema.names}:
        return
    known = np.unique(facts.row_keys(keys))
    share = float(np.isin(hash_rows({name: tuning[name] for name in keys}), known).mean())
    if share:
        yield Finding(
            "warning" if share >= _FEW else "info",
            None,
            "shared_rows",
            f"tuning rows must be new, but {share:.2%} of the sampled ones have the same "
            f"{', '.join(keys)} as a training row; remove them from one side",
            {"share": share, "rows": tuning.num_rows, "columns": keys},
        )


def unique_ids(facts: Facts) -> Iterator[Finding]:
    """A category occurs in more than one row."""
    rows = facts.sample.num_rows
    for field in facts.ids:
        known = rows - int(facts.missing(field.name).sum())
        if known >= _LEAST and facts.distinct(field.name) == known:
            yield Finding(
                "warning",
                field.name,
                "unique_ids",
                f"a category should occur more than once, but all {known} sampled values of "
                f"{field.name!r} differ, so nothing is learned from it; leave it out",
                {"distinct": known, "rows": rows},
            )


def varied(facts: Facts) -> Iterator[Finding]:
    """A feature has two values or more, and mostly has one."""
    rows = facts.sample.num_rows
    for field in facts.features if rows else []:
        nulls = int(facts.missing(field.name).sum())
        evidence: dict[str, Any] = {"nulls": nulls, "rows": rows}
        if nulls == rows:
            rule, told = "all_null", f"all {rows} sampled values are null"
        elif rows > 1 and not nulls and facts.distinct(field.name) == 1:
            rule, told = "constant", f"all {rows} sampled values are the same"
        elif nulls >= 0.5 * rows:
            rule, told = "null_share", f"{nulls / rows:.0%} of {rows} sampled values are null"
        else:
            continue
        message = f"a feature should vary, but in {field.name!r} {told}; it will help little"
        yield Finding("info", field.name, rule, message, evidence)


def cold_start(facts: Facts) -> Iterator[Finding]:
    """Most users and items of the tuning data occur in the training data."""
    tuning = facts.tuning_sample
    for name in (facts.schema.user, facts.schema.item):
        if name is None or tuning is None or not tuning.num_rows:
            continue
        if name not in tuning.schema.names or name not in facts.sample.schema.names:
            continue
        keys, back = np.unique(hash_values(tuning[name], name), return_inverse=True)
        share = float((~_seen(facts, name, keys))[back].mean())
        if share > 0.5:
            yield Finding(
                "info",
                name,
                "cold_start",
                f"{share:.0%} of the sampled tuning rows have a {name!r} that no training row has: "
                "scores will be those of new ids",
                {"share": share, "rows": tuning.num_rows},
            )


def tuning_columns(facts: Facts) -> Iterator[Finding]:
    """Tuning data have the columns of the training data."""
    if facts.tuning is None:
        return
    needed = {field.name for field in facts.schema.features} | {facts.schema.label or ""} - {""}
    if absent := sorted(needed - set(facts.tuning.schema.names)):
        yield Finding(
            "error",
            None,
            "tuning_columns",
            f"tuning data need the columns of the training data, but {absent} are missing; "
            "add them",
            {"missing": absent},
        )


def _seen(facts: Facts, name: str, keys: UInts) -> npt.NDArray[np.bool_]:
    """Tell which hashes (n,), ascending, occur anywhere in a training column."""
    seen = np.zeros(len(keys), bool)
    for batch in stream(facts.source, [name]):
        hashed = hash_values(batch.column(name), name)
        at = np.searchsorted(keys, hashed).clip(max=len(keys) - 1)
        seen[at[keys[at] == hashed]] = True
        if seen.all():
            break
    return seen
