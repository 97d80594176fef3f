"""Planted leaks are found, strong and honest columns are not; the rates against loops."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autorec.data import datasets
from autorec.data.check import Finding, check
from autorec.data.hashing import mix
from autorec.data.held_out import auc, joint, out_of_fold, right, shuffled, within
from autorec.data.infer import infer
from autorec.data.simulate import simulate
from autorec.data.sources import open_source
from autorec.schema import Field, Kind, Role, Schema

N = 6000
ROLES = {"click": Role.LABEL, "user": Role.USER, "item": Role.ITEM}
Rng = np.random.Generator


def log(rate: float = 0.3, n: int = N, seed: int = 0) -> dict[str, Any]:
    """Users and items that differ: their rates alone tell something of each row."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 300, n), rng.integers(0, 60, n)
    taste = rng.normal(size=300)[user] + rng.normal(size=60)[item]
    click = rng.random(n) < 1 / (1 + np.exp(-taste - np.log(rate / (1 - rate))))
    return {"click": click.astype(np.int8), "user": user, "item": item}


def suspects(columns: dict[str, Any], numeric: tuple[str, ...] = ()) -> list[Finding]:
    table = pa.table(columns)
    fields = [
        Field(
            c.name,
            Kind.NUMERIC if c.name in numeric else Kind.CATEGORICAL,
            ROLES.get(c.name, Role.FEATURE),
            str(c.type),
        )
        for c in table.schema
    ]
    found = check(open_source(table), Schema(tuple(fields)), now=2e9)
    return [one for one in found if one.rule in ("leak", "likely_leak", "equals_label")]


def flipped(y: Any, share: float, rng: Rng) -> Any:
    return np.where(rng.random(len(y)) < share, 1 - y, y)


# ---- planted

LEAKS: dict[str, tuple[Callable[[Any, Rng], Any], bool]] = {
    "5 % noise": (lambda y, rng: flipped(y, 0.05, rng), False),
    "5 % noise, words": (lambda y, rng: [f"{'ab'[k]}" for k in flipped(y, 0.05, rng)], False),
    "5 % noise in many codes": (
        lambda y, rng: flipped(y, 0.05, rng) * 50 + rng.integers(0, 50, len(y)),
        False,
    ),
    "5 % noise, a number": (
        lambda y, rng: flipped(y, 0.05, rng) * 3.0 + rng.normal(size=len(y)) * 0.2,
        True,
    ),
    "seconds watched": (
        lambda y, rng: np.where(
            (y == 1) & (rng.random(len(y)) < 0.9), rng.exponential(30, len(y)), 0
        ),
        True,
    ),
    "whether watched": (
        lambda y, rng: ((y == 1) & (rng.random(len(y)) < 0.9)).astype(int),
        False,
    ),
    "what few clicks led to": (
        lambda y, rng: np.where((y == 1) & (rng.random(len(y)) < 0.4), "bought", "no"),
        False,
    ),
    "seconds of few clicks": (
        lambda y, rng: np.where(
            (y == 1) & (rng.random(len(y)) < 0.4), rng.exponential(30, len(y)), 0
        ),
        True,
    ),
}


@pytest.mark.parametrize("rate", [0.5, 0.1])
@pytest.mark.parametrize("case", LEAKS)
def test_a_planted_leak_is_found(case: str, rate: float) -> None:
    make, number = LEAKS[case]
    columns = log(rate)
    columns["outcome"] = make(columns["click"], np.random.default_rng(1))
    found = suspects(columns, ("outcome",) if number else ())
    assert [(f.severity, f.rule, f.column) for f in found] == [
        ("warning", "likely_leak", "outcome")
    ], found
    assert "a feature must be known before the label, but 'outcome'" in found[0].message
    without = {name: values for name, values in columns.items() if name not in ("user", "item")}
    assert [f.column for f in suspects(without, ("outcome",) if number else ())] == ["outcome"]


def test_the_numbers_of_a_finding() -> None:
    columns = log(0.5)
    columns["code"] = flipped(columns["click"], 0.05, np.random.default_rng(1))
    (found,) = suspects(columns)
    assert found.evidence["right"] == pytest.approx(0.95, abs=0.01)
    assert found.evidence["rows"] == N
    assert {k: round(v, 1) for k, v in found.evidence["within"].items()} == {
        "user": pytest.approx(0.95, abs=0.06),
        "item": pytest.approx(0.95, abs=0.06),
    }
    json.dumps(found.to_json())
    columns["code"] = np.where(columns["click"] & (np.arange(N) % 2), "bought", "no")
    (found,) = suspects(columns)
    assert found.evidence["pure"] == 1.0
    assert found.evidence["covered"] == pytest.approx(0.5, abs=0.05)
    assert "100.0% of held-out rows have the same 'click', " in found.message


@pytest.mark.parametrize("side", ["item", "user"])
def test_a_code_that_means_something_else_for_each_id(side: str) -> None:
    rng = np.random.default_rng(2)
    columns = log(0.5)
    columns["user"] = columns["user"] % 60
    sign = rng.integers(0, 2, 60)[columns[side]]
    columns["state"] = flipped(columns["click"] ^ sign, 0.03, rng)
    (found,) = suspects(columns)
    assert (found.rule, found.column, found.evidence["with"]) == ("likely_leak", "state", side)
    assert found.evidence["right"] > 0.9 and found.evidence["control"] < 0.65


def test_a_leak_of_ratings() -> None:
    rng = np.random.default_rng(3)
    columns = {**log(), "click": rng.integers(1, 6, N)}
    columns["mood"] = np.where(flipped(columns["click"] > 3, 0.05, rng), "good", "bad")
    assert [f.column for f in suspects(columns)] == ["mood"]


# ---- honest


def test_strong_and_honest_columns() -> None:
    rng = np.random.default_rng(4)
    columns = log(0.4, 20_000)
    y, user, item = columns["click"], columns["user"], columns["item"]
    columns["strong"] = y + rng.normal(size=len(y)) * 0.5  # AUC .92
    columns["code"] = flipped(y, 0.2, rng)
    columns["brand"] = item // 2
    columns["title"] = [f"title {k}" for k in item]  # the item again
    columns["device"] = user * 3 + rng.integers(0, 3, len(y))
    columns["session"] = np.arange(len(y)) // 4
    assert suspects(columns, ("strong",)) == []


def test_what_belongs_to_items_that_are_always_or_never_clicked() -> None:
    rng = np.random.default_rng(5)
    columns = log(0.4, 20_000)
    item = columns["item"]
    columns["click"] = (rng.random(len(item)) < np.where(item < 24, 0.99, 0.01)).astype(int)
    columns["shelf"] = [f"s{k}" for k in item // 3]
    columns["price"] = item * 1.5
    assert suspects(columns, ("price",)) == []
    columns["click"] = (item < 24).astype(int)
    found = suspects(columns, ("price",))
    assert [f for f in found if f.rule != "leak"] == [], "of items that are never mixed"


def test_items_of_one_label_that_nobody_named() -> None:
    rng = np.random.default_rng(8)
    app = np.floor(rng.pareto(1.0, 20_000) * 30).clip(max=2000).astype(int)
    always = rng.random(2001) < 0.3
    click = always[app] | (rng.random(20_000) < 0.2)
    assert suspects({"click": click.astype(int), "app": [f"a{k}" for k in app]}) == []


def test_what_a_user_likes_they_like_again() -> None:
    rng = np.random.default_rng(6)
    n, pairs = 20_000, 4000
    pair = rng.integers(0, pairs, n)
    user, item = rng.integers(0, 200, pairs)[pair], rng.integers(0, 100, pairs)[pair]
    click = rng.integers(0, 2, 20_000)[(user * 100 + item)]
    columns = {"click": click, "user": user, "item": item}
    columns["phone"] = user * 2 + rng.integers(0, 2, n)  # names the user, and so knows the pair
    columns["title"] = [f"t{k}" for k in item]
    assert suspects(columns) == []


def test_noise_in_many_values_is_no_leak() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        columns = log(0.5, 3000, seed)
        for values in (2, 50, 1000, 2900):
            columns[f"c{values}"] = rng.integers(0, values, 3000)
        columns["x"] = rng.normal(size=3000)
        assert suspects(columns, ("x",)) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("frappe", {}),
        ("movielens-100k", {}),
        ("movielens-100k", {"as_ctr": True}),
        ("criteo-kaggle", {}),
        ("avazu", {}),
    ],
)
def test_real_data_have_no_leaks(name: str, options: dict[str, Any], data_root: Path) -> None:
    data = datasets.load(name, data_root, **options)
    source = open_source(data.train.slice(0, 20_000))
    schema = infer(source, label=data.label, user_id=data.user_id, item_id=data.item_id)
    found = check(source, schema)
    assert [f for f in found if "leak" in f.rule] == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": [3, 2], "strength": 3.0},
        {"main": 1.5, "strength": 2.0},
        {"users": 100, "items": 50, "strength": 3.0, "rate": 0.03},
    ],
)
def test_simulated_logs_have_no_leaks(options: dict[str, Any]) -> None:
    source = open_source(simulate(10_000, seed=3, **options).table)
    assert [f for f in check(source, infer(source)) if "leak" in f.rule] == []


def test_many_columns_take_seconds() -> None:
    rng = np.random.default_rng(7)
    n = 60_000
    columns = log(0.3, n) | {f"c{k}": rng.integers(0, 5 ** (1 + k % 6), n) for k in range(40)}
    start = time.perf_counter()
    assert suspects(columns) == []
    assert time.perf_counter() - start < 20


# ---- rates


def naive_within(y: Any, score: Any, ids: Any) -> float | None:
    wins, pairs, used = 0.0, 0, np.zeros(2)
    for one in set(ids.tolist()):
        up, down = score[(ids == one) & (y == 1)], score[(ids == one) & (y == 0)]
        if len(up) and len(down):
            used += (len(up), len(down))
        wins += sum((a > b) + 0.5 * (a == b) for a in up for b in down)
        pairs += len(up) * len(down)
    return wins / pairs if used.min() >= 1 else None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(1, 6))
def test_within_equals_all_pairs(seed: int, n: int, ids: int) -> None:
    rng = np.random.default_rng(seed)
    y, of = rng.integers(0, 2, n).astype(float), rng.integers(0, ids, n)
    score = rng.integers(0, 4, n) / 4
    expected = naive_within(y, score, of)
    found = within(y, score, of, least=1)
    assert found == (None if expected is None else pytest.approx(expected))
    assert within(y, score, of) is None
    whole = naive_within(y, score, np.zeros(n, np.int64))
    assert auc(y, score) == (0.5 if whole is None else pytest.approx(whole))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 5), st.booleans())
def test_rates_are_those_of_the_other_folds(seed: int, n: int, values: int, prior: bool) -> None:
    rng = np.random.default_rng(seed)
    y, codes = rng.random(n), rng.integers(0, values, n)
    before = rng.random(n) if prior else None
    fold = mix(np.arange(n, dtype=np.uint64)) % np.uint64(5)
    expected = []
    for row in range(n):
        others = [y[k] for k in range(n) if codes[k] == codes[row] and fold[k] != fold[row]]
        others += [] if before is None else [before[row]]
        expected.append(np.mean(others) if others else y.mean())
    np.testing.assert_allclose(out_of_fold(codes, y, before), expected, rtol=1e-12)


def test_right_and_shuffled_and_joint() -> None:
    y = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
    assert right(y, np.array([0.9, 0.5, 0.1, 0.5, 0.6]), np.full(5, 0.5)) == pytest.approx(
        (1.5 / 2 + 1.5 / 3) / 2
    )
    rng = np.random.default_rng(0)
    codes, ids = rng.integers(0, 9, 500), rng.integers(0, 20, 500)
    mixed = shuffled(codes, ids)
    assert (mixed != codes).any()
    for one in range(20):
        assert sorted(mixed[ids == one]) == sorted(codes[ids == one])
    both = joint(codes, ids)
    same = {(a, b): c for a, b, c in zip(codes, ids, both, strict=True)}
    assert len(same) == len(set(both.tolist())) and both.max() + 1 == len(same)
    assert all(same[a, b] == c for a, b, c in zip(codes, ids, both, strict=True))
