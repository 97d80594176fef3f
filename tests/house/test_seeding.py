"""Seeds are a function of (seed, purpose): stable everywhere, apart for different purposes."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autorec.seeding import derive, numpy_rng, torch_generator

words: st.SearchStrategy[str | int] = st.one_of(st.integers(), st.text(max_size=8))
purposes: st.SearchStrategy[tuple[str | int, ...]] = st.lists(words, max_size=3).map(tuple)


@pytest.mark.parametrize(
    ("seed", "purpose", "value"),
    [
        (0, (), 4761921975702974394),
        (0, ("trial", 3), 8614316985378427708),
        (7, ("init",), 7238960151615869406),
    ],
)
def test_values_never_change(seed: int, purpose: tuple[str | int, ...], value: int) -> None:
    # A change here makes every study of the past irreproducible.
    assert derive(seed, *purpose) == value


@settings(max_examples=50, deadline=None)
@given(st.integers(), purposes)
def test_seeds_fit_every_generator(seed: int, purpose: tuple[str | int, ...]) -> None:
    value = derive(seed, *purpose)
    assert 0 <= value < 2**63
    assert value == derive(seed, *purpose)


@settings(max_examples=50, deadline=None)
@given(st.integers(), purposes, st.integers(), purposes)
def test_different_purposes_give_different_seeds(
    seed: int, purpose: tuple[str | int, ...], other: int, elsewhere: tuple[str | int, ...]
) -> None:
    same = (seed, purpose) == (other, elsewhere)
    assert (derive(seed, *purpose) == derive(other, *elsewhere)) is same


def test_words_keep_their_type_order_and_borders() -> None:
    purposes: list[tuple[str | int, ...]] = [("1",), (1,), ("a", "b"), ("b", "a"), ("ab",), ("a",)]
    seeds = {derive(0, *purpose) for purpose in [*purposes, ()]}
    assert len(seeds) == 7


def test_the_hash_seed_of_the_process_does_not_matter() -> None:
    code = "from autorec.seeding import derive; print(derive(5, 'sampler', 2))"
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert int(done.stdout) == derive(5, "sampler", 2)


def test_numpy_draws_repeat_and_purposes_differ() -> None:
    first, again = numpy_rng(3, "split").random(8), numpy_rng(3, "split").random(8)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, numpy_rng(3, "bootstrap").random(8))
    assert not np.array_equal(first, numpy_rng(4, "split").random(8))


def test_torch_draws_repeat_and_purposes_differ() -> None:
    def draw(seed: int, purpose: str) -> torch.Tensor:
        return torch.rand(8, generator=torch_generator(seed, purpose))

    assert torch.equal(draw(3, "init"), draw(3, "init"))
    assert not torch.equal(draw(3, "init"), draw(3, "dropout"))
    assert not torch.equal(draw(3, "init"), draw(4, "init"))
    assert torch_generator(3, "init").device == torch.device("cpu")


def test_global_generators_are_left_alone() -> None:
    before, numpy_before = torch.get_rng_state(), _numpy_state()
    numpy_rng(0, "a").random(4)
    torch.rand(4, generator=torch_generator(0, "a"))
    assert torch.equal(before, torch.get_rng_state())
    assert _numpy_state() == numpy_before


def _numpy_state() -> tuple[bytes, int]:
    state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return state["key"].tobytes(), int(state["pos"])
