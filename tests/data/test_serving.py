"""Statistics that are read together, against the transforms one by one."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from autorec.data import _serving, _state_cells
from autorec.data._serving import WAIT, Together
from autorec.data.columns import Columns
from autorec.data.derivation import Derivation
from autorec.data.features.base import Transform
from autorec.data.features.counts import Counts
from autorec.data.features.cross_ids import CrossIds
from autorec.data.features.rates import Rates
from autorec.errors import ConfigError
from autorec.schema import Layout, SparseField

SIZES = {"user": 60, "item": 40, "shop": 7, "hour": 5, "page": 9}
LAYOUT = Layout(sparse=tuple(SparseField(name, rows, name) for name, rows in SIZES.items()))


def rows(n: int, seed: int, *, label: bool = True) -> Columns:
    """Return rows with nulls (0), unknown values (1) and frequent ones."""
    rng = np.random.default_rng(seed)
    drawn = [rows * rng.random(n) ** 2 for rows in SIZES.values()]
    return Columns(
        LAYOUT,
        n,
        np.stack(drawn, 1).astype(np.int32),
        {},
        np.empty((n, 0), np.float32),
        label=rng.normal(size=n).astype(np.float32) if label else None,
    )


TRAIN = rows(800, 0)


def request(n: int, seed: int) -> Columns:
    """Return n rows with one user and one hour, as a ranker asks."""
    asked = rows(n, seed, label=False)
    asked.codes[:, 0], asked.codes[:, 3] = asked.codes[0, 0], asked.codes[0, 3]
    return asked


def drawn(seed: int, size: int = 12) -> list[Transform]:
    """Return fitted statistics of random fields, strengths and kinds."""
    rng = np.random.default_rng(seed)
    every = [names for k in (1, 2, 3) for names in combinations(SIZES, k)]
    made: list[Transform] = []
    for at in rng.choice(len(every), size, replace=False):
        fields = tuple(rng.permutation(every[at]).tolist())
        rate = Rates(fields, "leave-one-out", strength=float(rng.choice([1.0, 7.5])))
        made.append(Counts(fields) if rng.random() < 0.5 else rate)
    for each in made:
        each.fit(TRAIN)
    return made


def one_by_one(made: list[Transform], columns: Columns) -> np.ndarray[Any, Any]:
    return np.stack([each.apply(columns).dense[:, 0] for each in made])


@pytest.mark.parametrize("way", ["direct", "looked-up", "wide"])
@pytest.mark.parametrize("seed", range(6))
def test_it_gives_the_bits_of_the_transforms(
    way: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way != "direct":
        monkeypatch.setattr(_state_cells, "_DIRECT", 1)
    if way == "wide":
        monkeypatch.setattr(_state_cells, "_EXACT", 2)
    made = drawn(seed)
    together = Together(dict(enumerate(made)))
    together.make()
    for columns in (request(50, seed), rows(70, seed + 9), request(1, seed), TRAIN):
        out = np.full((len(made), len(columns)), np.nan, np.float32)
        assert together.read(columns, out) == set(range(len(made)))
        assert out.tobytes() == one_by_one(made, columns).tobytes()


def test_it_is_made_in_the_third_small_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_serving, "ROWS", 60)
    made = [CrossIds(("user", "item")), *drawn(3)]
    together = Together(dict(enumerate(made)))
    out = np.zeros((len(made), 80), np.float32)
    for _ in range(WAIT + 2):
        assert together.read(rows(80, 1), out) == frozenset()
        assert together.read(request(5, 1).take(slice(0, 0)), out[:, :0]) == frozenset()
    written = [together.read(request(60, 1), out[:, :60]) for _ in range(WAIT + 1)]
    assert written == [frozenset()] * (WAIT - 1) + [frozenset(range(1, len(made)))] * 2
    assert not out[0].any() and out[1:, :60].any()


def test_rates_of_other_rows_and_other_columns() -> None:
    made = [Counts(("user",)), Rates(("user",)), Rates(("item",))]
    for each, columns in zip(made, (TRAIN, TRAIN, TRAIN.take(slice(0, 9))), strict=True):
        each.fit(columns)
    together = Together(dict(enumerate(made)))
    assert together.rows == {0}
    together.make()
    wider = replace(LAYOUT, sparse=(SparseField("user", 61, "user"), *LAYOUT.sparse[1:]))
    out = np.zeros((3, 5), np.float32)
    with pytest.raises(ConfigError, match=r"sizes \{'user': \[60, 1\]\}, but got"):
        together.read(replace(request(5, 0), layout=wider), out)
    assert Together({}).read(request(5, 0), out) == frozenset()


def test_a_derivation_gives_the_same_bits_before_and_after() -> None:
    transforms = [Counts(("user", "item")), CrossIds(("user", "shop")), Rates(("item", "hour"))]
    made, _ = Derivation.fit(transforms, replace(TRAIN, label=(TRAIN.label > 0) * np.float32(1)))
    ask = request(40, 5)
    answers = [made.apply(ask) for _ in range(WAIT + 2)]
    some = made.reading(["item*hour.rate"])
    some.warm()
    for each in answers[1:]:
        assert each.dense.tobytes() == answers[0].dense.tobytes()
        assert each.codes.tobytes() == answers[0].codes.tobytes()
    np.testing.assert_array_equal(some.apply(ask).dense[:, 1], answers[0].dense[:, 1])
    live = made.counting_on().apply(ask)
    assert live.dense.tobytes() == answers[0].dense.tobytes()


def test_threads_read_while_one_makes_it() -> None:
    made, ask = drawn(1), request(30, 2)
    together, want = Together(dict(enumerate(made))), one_by_one(made, ask)
    faults: list[Any] = []

    def read() -> None:
        for _ in range(20):
            out = want.copy()
            if together.read(ask, out):
                faults.extend([] if (out == want).all() else [out])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and together.read(ask, want.copy())
