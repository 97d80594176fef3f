"""Screening: closed forms against loops, planted crosses found, nothing where nothing is."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autorec.data import _screening_gain as gain
from autorec.data import _screening_sample as sample
from autorec.data import _screening_scan as scan
from autorec.data.columns import Columns
from autorec.data.features.counts import Counts
from autorec.data.screening import Evidence, Screening, screen
from autorec.data.simulate import signs
from autorec.errors import ConfigError
from autorec.schema import Layout, SparseField

Codes = Any


def columns(codes: Codes, label: Any, **more: Any) -> Columns:
    """Return fields f0, f1, ... with codes that already lie in the vocabulary."""
    codes = np.asarray(codes) + 2
    rows_of = [int(column.max(initial=0)) + 1 for column in codes.T]
    fields = [SparseField(f"f{at}", rows, f"f{at}") for at, rows in enumerate(rows_of)]
    rows, dense = len(codes), np.empty((len(codes), 0), np.float32)
    return Columns(
        Layout(tuple(fields)), rows, codes.astype(np.int32), {}, dense,
        label=np.asarray(label, np.float32), **more,
    )  # fmt: skip


def planted(
    crosses: tuple[tuple[int, ...], ...],
    *,
    rows: int = 20_000,
    fields: int = 8,
    values: int = 6,
    seed: int = 0,
    rating: bool = False,
    timed: bool = False,
) -> Columns:
    """Return a log with main effects and products of signs."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, values, (rows, fields))
    margin = sum(rng.normal(0, 0.4, values)[codes[:, at]] for at in range(fields)) - 0.5
    for cross in crosses:
        margin += 0.7 * np.prod([signs(values, rng)[codes[:, at]] for at in cross], axis=0)
    noise = rng.normal(size=rows) if rating else rng.logistic(size=rows)
    label = margin + noise if rating else margin + noise > 0
    return columns(codes, label, time=np.arange(rows) // 3 if timed else None)


def kept(found: Screening) -> set[tuple[str, ...]]:
    return {each.fields for each in found.evidence if each.kept}


def state(n: int = 300, seed: int = 0, unknown: bool = False) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 7, (n, 3))
    made = columns(codes, rng.random(n) < 0.3)
    if unknown:
        made.codes[rng.random(made.codes.shape) < 0.1] = 1
    drawn = sample.draw(made, binary=True, rows=n, seed=0)
    assert drawn is not None
    return drawn, sample.Residual.at(drawn, rng.normal(size=n))


@pytest.mark.parametrize("unknown", [False, True])
def test_values_are_those_of_the_other_rows_of_a_cell(unknown: bool) -> None:
    drawn, found = state(unknown=unknown)
    cell = gain.cells(drawn, (0, 2))
    got = gain.values(drawn, cell, found)
    raw = [tuple(int(drawn.codes[at][i]) for at in (0, 2)) for i in range(len(drawn))]
    masks = [drawn.known[at] for at in (0, 2)]
    for i, key in enumerate(raw):
        others = [j for j in range(len(raw)) if j != i and raw[j] == key]
        known = all(mask is None or mask[i] for mask in masks)
        want = sum(found.slope[others]) / (sum(found.bend[others]) + found.prior) if known else 0.0
        assert got[i] == pytest.approx(want)


def test_the_gain_of_cells_is_that_of_their_values() -> None:
    drawn, found = state(n=20_000)
    cell = gain.cells(drawn, (0, 1))
    value = gain.values(drawn, cell, found)
    closed, loop = gain.of_cells(cell, found), gain.of_values(value, found)
    assert closed.gain == pytest.approx(loop.gain, rel=0.02)
    assert closed.scale == pytest.approx(loop.scale, rel=0.02)
    # No row moves its own value: the label of one row changes the values of others only.
    other = replace(drawn, label=np.where(np.arange(len(drawn)) == 5, 1 - drawn.label, drawn.label))
    moved = gain.values(other, cell, sample.Residual.at(other, found.margin)) != value
    assert not moved[5] and moved[cell.at == cell.at[5]].sum() == (cell.at == cell.at[5]).sum() - 1


def test_a_glance_agrees_with_the_exact_look() -> None:
    drawn, found = state(n=5_000)
    cell = gain.cells(drawn, (0, 1, 2))
    number, rate = gain.glance(cell, found, gain.bins(len(drawn)))
    assert rate.z == pytest.approx(gain.of_cells(cell, found).z, abs=0.3)
    exact = gain.of_cells(gain.counts(drawn, cell, ordered=False), found)
    assert number.z == pytest.approx(exact.z, abs=0.3)


@pytest.mark.parametrize("timed", [False, True])
def test_counts_are_those_of_the_transform(timed: bool) -> None:
    made = planted((), rows=600, fields=3, timed=timed)
    drawn = sample.draw(made, binary=True, rows=600, seed=0)
    assert drawn is not None
    transform = Counts(("f0", "f1"))
    transform.fit(made)
    want = np.rint(np.expm1(transform.train_values(made).dense[:, 0])).astype(int)
    got = gain.counts(drawn, gain.cells(drawn, (0, 1)), ordered=True).at
    assert sorted(gain.binned(want).at) == sorted(got)


def test_scores_without_signal_are_standard_normal_in_the_tail() -> None:
    rng, scores = np.random.default_rng(0), []
    for seed in range(400):
        drawn, found = state(n=400, seed=seed)
        label = (rng.random(400) < 0.3).astype(float)
        found = sample.Residual.at(replace(drawn, label=label), np.full(400, math.log(0.3 / 0.7)))
        scores.append(gain.of_cells(gain.cells(drawn, (0, 1)), found).z)
    assert abs(np.mean(scores)) < 0.2 and 0.8 < np.std(scores) < 1.2
    assert np.mean(np.array(scores) > 2.0) < 0.06


@pytest.mark.parametrize(("rating", "timed"), [(False, False), (True, False), (False, True)])
def test_planted_crosses_are_found_and_nothing_else(rating: bool, timed: bool) -> None:
    made = planted(((0, 3), (1, 4, 6)), rating=rating, timed=timed)
    found = screen(made, binary=not rating, seconds=60.0)
    assert kept(found) == {("f0", "f3"), ("f1", "f4", "f6")}
    assert all(each.gain > 0 and each.z > 4 for each in found.evidence if each.kept)
    assert found.evidence[0].kept and len(found.evidence) <= 50
    assert not kept(screen(made, binary=not rating, order=2, seconds=60.0)) - {("f0", "f3")}
    assert len(kept(screen(made, binary=not rating, limit=1, seconds=60.0))) == 1


def test_how_often_a_pair_occurs_is_found() -> None:
    rng = np.random.default_rng(0)
    liked = rng.integers(0, 100, (200, 3))
    user = rng.integers(0, 200, 20_000)
    label = rng.random(20_000) < 0.4
    item = np.where(label, liked[user, rng.integers(0, 3, 20_000)], rng.integers(0, 100, 20_000))
    found = screen(columns(np.stack([user, item], 1), label), binary=True, seconds=60.0)
    assert (found.evidence[0].fields, found.evidence[0].form) == (("f0", "f1"), "count")


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_kept_without_signal(seed: int) -> None:
    made = planted((), rows=4_000, seed=seed)
    assert not kept(screen(made, binary=True, seed=seed, seconds=60.0))


def test_nothing_is_kept_of_sparse_users_with_main_effects() -> None:
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, 4_000, 12_000), *rng.integers(0, 3, (4, 12_000))], 1)
    label = rng.normal(0, 1.5, 4_000)[codes[:, 0]] + rng.logistic(size=12_000) > 0
    assert not kept(screen(columns(codes, label), binary=True, seconds=60.0))


def test_permuted_labels_give_nothing() -> None:
    made = planted(((0, 3),))
    assert made.label is not None
    mixed = replace(made, label=np.random.default_rng(1).permutation(made.label))
    assert not kept(screen(mixed, binary=True, seconds=60.0))


def test_rows_outside_the_sample_do_not_count() -> None:
    made = planted(((0, 3),), timed=True)
    assert made.label is not None
    label = made.label.copy()
    label[:8_000] = 1 - label[:8_000]
    first, second = (
        screen(one, binary=True, rows=9_000, seconds=60.0).evidence
        for one in (made, replace(made, label=label))
    )
    assert first == second and first[0].kept


def test_the_same_seed_finds_the_same() -> None:
    made = planted(((0, 3),))
    first, second = (screen(made, binary=True, seed=3, seconds=60.0) for _ in range(2))
    assert first.evidence == second.evidence


def test_the_clock_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(scan, "_clock", lambda: 0.01 * next(ticks))
    found = screen(planted(((0, 3),), fields=30), binary=True, seconds=3.0)
    assert found.seconds <= 3.3 and 0 < found.tried < 2 * (435 + 4_060)
    assert not kept(screen(planted(((0, 3),)), binary=True, seconds=0.0))


def test_json_and_text_and_transforms() -> None:
    found = screen(planted(((0, 3), (1, 4, 6))), binary=True, seconds=60.0)
    assert Screening.from_json(json.loads(json.dumps(found.to_json()))) == found
    lines = found.explain().splitlines()
    assert lines[0].startswith("2 kept of ") and "f0*f3" in found.explain()
    assert len(lines) == 2 + len(found.evidence)
    names = [transform.inputs for transform in found.transforms()]
    assert names == [each.fields for each in found.evidence if each.kept]
    made = [Evidence(("a", "b"), form, 0.1, 9.0, True) for form in ("count", "rate", "id")]
    kinds = [type(t).__name__ for t in Screening(tuple(made), 9, 9, 1.0).transforms()]
    assert kinds == ["Counts", "Rates", "CrossIds"]
    with pytest.raises(ConfigError, match="screen again"):
        Screening.from_json({"rows": 3})


def test_what_cannot_be_screened_gives_nothing() -> None:
    made = planted(((0, 3),), rows=1_000)
    assert made.label is not None
    for odd in (
        replace(made, label=None),
        replace(made, label=np.ones(1_000, np.float32)),
        made.take(slice(0, 499)),
        columns(np.zeros((1_000, 3), int), made.label),
        columns(np.arange(3_000).reshape(1_000, 3), made.label),
        columns(made.codes[:, :1], made.label),
        made.take(slice(0, 0)),
    ):
        found = screen(odd, binary=True)
        assert found.evidence == () and found.transforms() == [] and found.explain()
    with pytest.raises(ConfigError, match="order must be 2 or 3, but got 4"):
        screen(made, binary=True, order=4)
