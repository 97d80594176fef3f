"""Halving against a naive reference, and the rungs it is given."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autorec.errors import ConfigError
from autorec.search.halving import Halving, plan_rungs

scores = st.floats(-10, 10)


def naive(own: float, others: Sequence[float], factor: int) -> bool:
    """Count who is strictly better; the best third, or half, or quarter, has room for so many."""
    everyone = len(others) + 1
    if everyone < factor:
        return True
    better = sum(other > own for other in others)
    room = sum(1 for place in range(1, everyone + 1) if place * factor <= everyone)
    return better < room


@settings(max_examples=200, deadline=None)
@given(scores, st.lists(scores, max_size=20), st.integers(2, 5))
def test_it_agrees_with_counting(own: float, others: list[float], factor: int) -> None:
    assert Halving((1,), factor).decide(own, others) is naive(own, others, factor)


@settings(max_examples=50, deadline=None)
@given(scores, st.lists(scores, max_size=12), st.randoms())
def test_the_order_of_arrival_does_not_matter(own: float, others: list[float], r: object) -> None:
    shuffled = list(others)
    r.shuffle(shuffled)  # type: ignore[attr-defined]
    assert Halving((1,)).decide(own, others) is Halving((1,)).decide(own, shuffled)


def test_everyone_goes_on_while_there_are_few() -> None:
    assert Halving((1,), 3).decide(0.0, [9.0])
    assert not Halving((1,), 3).decide(0.0, [9.0, 8.0])
    assert Halving((1,), 4).decide(0.0, [9.0, 8.0])


def test_the_best_always_goes_on_and_equals_go_together() -> None:
    assert Halving((1,)).decide(1.0, [0.5] * 30)
    assert Halving((1,)).decide(0.5, [0.5] * 30)


def test_about_one_in_three_goes_on() -> None:
    seen: list[float] = []
    passed = 0
    for number in range(300):
        own = (number * 7919 % 300) / 300
        passed += Halving((1,)).decide(own, seen)
        seen.append(own)
    assert 90 <= passed <= 120


def test_the_highest_rung_climbed() -> None:
    halving = Halving((100, 300, 900))
    assert [halving.rung(rows) for rows in (99, 100, 299, 450, 10_000)] == [
        None,
        100,
        100,
        300,
        900,
    ]
    assert Halving(()).rung(10**9) is None


@pytest.mark.parametrize("rungs", [(0,), (-1, 5), (100, 100), (300, 100)])
def test_rungs_ascend(rungs: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"rungs are ascending numbers of rows, but got"):
        Halving(rungs)


def test_a_factor_of_one_keeps_all() -> None:
    with pytest.raises(ConfigError, match=r"a factor of at least 2, but got 1"):
        Halving((1,), 1)


def test_planned_rungs_are_cuts_of_the_horizon() -> None:
    assert plan_rungs(100_000) == (33_334, 100_000, 300_000)
    assert plan_rungs(40_000_000, 40_000_000) == (1_481_482, 4_444_445, 13_333_334)
    assert plan_rungs(100_000, count=1, factor=2) == (450_000,)


def test_small_tables_are_not_judged_early() -> None:
    assert plan_rungs(1_000) == ()
    assert plan_rungs(5_000) == (15_000,)
    assert plan_rungs(5_000, least=1) == (1_667, 5_000, 15_000)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**8), st.none() | st.integers(1, 10**8), st.integers(2, 5))
def test_planned_rungs_are_valid(n_train: int, max_rows: int | None, factor: int) -> None:
    rungs = plan_rungs(n_train, max_rows, factor=factor)
    assert Halving(rungs, factor).rungs == rungs
    assert all(10_000 <= rung < (max_rows or 9 * n_train) for rung in rungs)


def test_rows_are_positive() -> None:
    with pytest.raises(ConfigError, match=r"at least 1 training row, but got n_train=0"):
        plan_rungs(0)
