"""Builds `Entities` from a log of any length: two passes, memory bounded by users and items.

The first pass keeps a sample and decides which columns belong to the user and which to the item;
the second keeps the last row, the counts and the seen items of every user and item.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autorec.data.casting import flat
from autorec.data.encoder import Encoded, Encoder
from autorec.data.entities import CONTEXT, COUNT, ITEM, MEAN, SEEN, USER, Entities, flattened
from autorec.data.hashing import hash_values, mix
from autorec.data.labels import LabelMap
from autorec.data.running import Ints, Keys, Latest, Met, Sample
from autorec.data.sources import Source
from autorec.data.text import lengths_of
from autorec.data.timeline import stored
from autorec.schema import Kind, Layout, Schema

AGREEMENT = 0.999
_CELLS = 20_000_000


def remember(
    source: Source,
    schema: Schema,
    encoder: Encoder,
    label_map: LabelMap,
    *,
    sample_rows: int = 100_000,
    seen: int = 1000,
    pairs: int = 20_000_000,
) -> Entities:
    """Return the users, items and usual values of a log.

    A column belongs to the user if at least 99.9 % of the sampled rows of users who met two or more
    items carry their user's most frequent value; likewise for items. A column that passes both
    tests belongs to the user, a constant one to the context. A user has seen an item in a row with
    a positive label where labels are binary, in any row where they are numbers.

    Args:
        source: the training log.
        schema: of the log.
        encoder: decides which values are equal for the model.
        label_map: turns the label into numbers.
        sample_rows: rows looked at to tell the columns apart.
        seen: items remembered per user, the last ones.
        pairs: items remembered over all users; `seen` is halved until they fit.
    """
    sides, defaults = _tell_apart(source, schema, encoder, sample_rows)
    ids = {USER: schema.user, ITEM: schema.item}
    names = {
        side: [name, *(c for c, found in sides.items() if found == side and c != name)]
        for side, name in ids.items()
        if name is not None
    }
    clock = None if schema.timestamp is None else schema[schema.timestamp]
    latest, met = {side: Latest() for side in names}, Met(seen, pairs)
    wanted = {schema.label, schema.timestamp, *(name for own in names.values() for name in own)}
    for batch, rows in _numbered(source, [n for n in source.schema.names if n in wanted]):
        label = np.asarray(label_map.apply(batch[schema.label]), np.float64)
        time = rows if clock is None else stored(batch[clock.name], clock.name, clock.dtype)
        keys = {side: hash_values(batch[own[0]]) for side, own in names.items()}
        known = {side: _present(batch[own[0]]) for side, own in names.items()}
        for side, own in names.items():
            at = np.flatnonzero(known[side])
            table = flattened(batch.select(own).take(pa.array(at)))
            latest[side].add(table, keys[side][at], time[at], rows[at], label[at])
        if len(names) == 2:
            shown = known[USER] & known[ITEM]
            at = np.flatnonzero(shown & (label > 0.5) if label_map.kind == "binary" else shown)
            met.add(keys[USER][at], keys[ITEM][at], time[at], rows[at])
    for side, own in names.items():
        latest[side].finish(defaults.select(own).schema)
    return Entities(schema, sides, defaults, *_tables(latest, met))


def _numbered(source: Source, columns: list[str]) -> Iterator[tuple[pa.RecordBatch, Ints]]:
    start = 0
    for batch in source.batches(columns):
        yield batch, np.arange(start, start + batch.num_rows)
        start += batch.num_rows


def _present(ids: pa.Array) -> npt.NDArray[np.bool_]:
    """Tell which ids are neither null nor NaN."""
    missing = flat(ids).is_null(nan_is_null=True)
    return ~np.asarray(missing.to_numpy(zero_copy_only=False))


def _tables(latest: dict[str, Latest], met: Met) -> tuple[pa.Table | None, pa.Table | None]:
    users = items = None
    if ITEM in latest:
        one = latest[ITEM]
        rank = np.lexsort((one.first, -one.count))
        items, item_keys = one.table.take(pa.array(rank)), one.key[rank]
        items = items.append_column(COUNT, pa.array(one.count[rank]))
        items = items.append_column(MEAN, pa.array(one.total[rank] / one.count[rank]))
    if USER in latest:
        one = latest[USER]
        rank = np.argsort(one.first, kind="stable")
        users = one.table.take(pa.array(rank)).append_column(COUNT, pa.array(one.count[rank]))
        if items is not None:
            users = users.append_column(SEEN, met.lists(one.key[rank], item_keys))
    return users, items


def _tell_apart(
    source: Source, schema: Schema, encoder: Encoder, cap: int
) -> tuple[dict[str, str], pa.Table]:
    """Return the side of every feature column, and one row of usual values."""
    features = [field.name for field in schema.features]
    cap = max(1000, min(cap, _CELLS // max(1, len(features))))
    ids = {USER: schema.user, ITEM: schema.item}
    samples = {side: Sample(cap) for side in (*ids, CONTEXT) if ids.get(side) or side == CONTEXT}
    for batch, rows in _numbered(source, features):
        for side, sample in samples.items():
            name = ids.get(side)
            keys = hash_values(batch[name]) if name else rows.astype(np.uint64)
            sample.add(batch, keys, rows)
    sides = dict.fromkeys(features, CONTEXT)
    for side in (ITEM, USER):  # the user comes last and wins
        if side in samples:
            other = ids[USER if side == ITEM else ITEM]
            own = str(ids[side])
            sides.update(dict.fromkeys(_constant(encoder, samples[side].table(), own, other), side))
    sides.update({name: side for side, name in ids.items() if name})
    table = flattened(samples[CONTEXT].table())
    codes = _codes(encoder, table)
    usual = {
        field.name: table[field.name].slice(usual_row(codes[field.name], field.kind), 1)
        for field in schema.features
    }
    return sides, pa.table(usual)


def _constant(encoder: Encoder, table: pa.Table, own: str, other: str | None) -> list[str]:
    """Return the columns that are constant per id of the column `own`."""
    keys = hash_values(table[own])
    others = hash_values(table[other]) if other else np.arange(len(keys)).astype(np.uint64)
    codes = _codes(encoder, table)
    return [
        name
        for name, values in codes.items()
        if name not in (own, other) and agreement(keys, values, others) >= AGREEMENT
    ]


def agreement(keys: Keys, values: Ints, others: Keys) -> float:
    """Return the share of rows that carry the most frequent value of their key.

    Only keys that occur with two or more of `others` count: a user who met one item ten times does
    not tell to which of the two a column belongs. 0 where fewer than two keys are left, or where
    all values are equal.

    Args:
        keys, values, others: (N,) each.
    """
    if len(values) == 0 or (values == values[0]).all():
        return 0.0
    order = np.lexsort((others, keys))
    key, other = keys[order], others[order]
    fresh = np.append(True, (key[1:] != key[:-1]) | (other[1:] != other[:-1]))
    names, met = np.unique(key[fresh], return_counts=True)
    if (met > 1).sum() < 2:
        return 0.0
    several = np.isin(keys, names[met > 1])
    _, own = np.unique(keys[several], return_inverse=True)
    _, value = np.unique(values[several], return_inverse=True)
    width = int(value.max()) + 1
    cells, counts = np.unique(own * width + value, return_counts=True)
    most = np.zeros(int(own.max()) + 1, np.int64)
    np.maximum.at(most, cells // width, counts)
    return float(most.sum() / several.sum())


def _codes(encoder: Encoder, table: pa.Table) -> dict[str, Ints]:
    """Return `codes_of` a table, with the length of a text in the integers of the text."""
    codes = codes_of(encoder.plain(table), encoder.base)
    for length, name in lengths_of(encoder.schema.features).items():
        both = codes[name].view(np.uint64) ^ mix(codes.pop(length).astype(np.uint64))
        codes[name] = both.view(np.int64)
    return codes


def codes_of(encoded: Encoded, layout: Layout) -> dict[str, Ints]:
    """Return per column (N,) integers that are equal where the model sees equal values.

    The order of the integers of a number is the order of the numbers, missing ones first.
    """
    codes: dict[str, Ints] = {}
    for i, field in enumerate(layout.sparse):
        if not field.binned:
            codes[field.source] = encoded.codes[:, i].astype(np.int64)
    for part in layout.lists:
        values = encoded.lists[part.name].astype(np.uint64)
        place = np.arange(values.shape[1]).astype(np.uint64) << np.uint64(32)
        codes[part.name] = mix(values + place).sum(axis=1, dtype=np.uint64).view(np.int64)
    for i, number in enumerate(layout.dense):
        column = encoded.dense[:, i]
        _, order = np.unique(column, return_inverse=True)
        codes[number.name] = np.where(np.isnan(column), -1, order)
    return codes


def usual_row(codes: Ints, kind: Kind) -> int:
    """Return a row with the median number (of those present) or the most frequent of (N,) codes."""
    present = np.flatnonzero(codes >= 0)
    if kind is Kind.NUMERIC and len(present):
        ranked = present[np.argsort(codes[present], kind="stable")]
        return int(ranked[(len(ranked) - 1) // 2])
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    return int(first[counts.argmax()])
