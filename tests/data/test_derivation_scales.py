"""Scale and bins of many statistics at once, against `Numeric` one by one."""

from __future__ import annotations

import numpy as np
import pytest

from autorec.data import _derivation_scales
from autorec.data._derivation_scales import Scales
from autorec.data.numeric import Numeric


def numeric(edges: list[float], *, log: bool = False, mean: float = 0.3, std: float = 0.7):
    return Numeric("x", log, mean, std, False, tuple(edges))


def assert_same(columns: list[Numeric], values: np.ndarray) -> None:
    n, q = values.shape[1], len(columns)
    bins, dense = np.full((n, q + 3), -7, np.int32), np.full((n, q + 1), -7, np.float32)
    Scales(columns).write(values, bins[:, 2 : q + 2], dense[:, 1:])
    for at, (one, own) in enumerate(zip(columns, values.astype(np.float64), strict=True)):
        np.testing.assert_array_equal(bins[:, 2 + at], one.bins(own))
        assert dense[:, 1 + at].tobytes() == one.dense(own).tobytes()
    assert (bins[:, [0, 1, q + 2]] == -7).all() and (dense[:, 0] == -7).all()


def test_it_is_numeric_column_by_column() -> None:
    rng = np.random.default_rng(0)
    for seed in range(30):
        n = int(rng.integers(1, 200))
        columns, values = [], []
        for _ in range(int(rng.integers(1, 8))):
            size = 10.0 ** rng.integers(-6, 7)
            drawn = (size * rng.standard_t(2, 400)).astype(np.float32)
            drawn = np.round(drawn, 1) if rng.random() < 0.3 else drawn
            edges = np.unique(rng.choice(drawn, int(rng.integers(0, 32)))).tolist()
            columns.append(numeric(edges, log=bool(rng.random() < 0.4), std=size))
            own = rng.choice(drawn, n)
            if edges:  # values at the edges and next to them
                near = np.float32(rng.choice(edges, n))
                beside = np.nextafter(near, np.float32(rng.choice([-np.inf, np.inf])))
                own = np.where(
                    rng.random(n) < 0.4, near, np.where(rng.random(n) < 0.4, beside, own)
                )
            values.append(own.astype(np.float32))
        made = np.stack(values)
        if seed % 3 == 0:
            made[rng.random(made.shape) < 0.1] = np.nan
        assert_same(columns, made)


@pytest.mark.parametrize("cells", [(16,), (256, 4096)])
def test_edges_that_share_a_cell_or_lie_far_apart(
    cells: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_derivation_scales, "_CELLS", cells)
    tight = (1.0 + np.arange(31) * 2.0**-23).astype(np.float32).tolist()
    columns = [
        numeric([0.0, *tight, 1e30]),
        numeric([0.0, 1e-45]),
        numeric([]),
        numeric([2.5]),
        numeric([-3e38, 3e38], std=1e-3),
        numeric([0.1, 0.2, 0.30000000000000004]),  # not exact in float32
    ]
    values = [0.0, -0.0, *tight, 1e30, 2e30, 1e-45, 2.5, 0.1, 0.2, 0.3, -1.0, np.inf, -np.inf]
    values += [np.nan, 3e38, -3e38, -3.1e38]
    made = np.array([values] * len(columns), np.float32)
    assert_same(columns, made)


def test_more_bins_than_a_byte_tells() -> None:
    rng = np.random.default_rng(1)
    columns = [numeric(np.unique(rng.normal(size=400).round(3)).tolist()), numeric([0.5])]
    assert columns[0].rows > 256
    assert_same(columns, rng.normal(size=(2, 300)).round(3).astype(np.float32))


def test_no_rows_and_no_columns() -> None:
    assert_same([numeric([1.0])], np.empty((1, 0), np.float32))
    assert_same([], np.empty((0, 5), np.float32))
