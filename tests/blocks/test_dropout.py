"""Dropout: rates, scale, gradients, seeds, and what must not happen outside training."""

from __future__ import annotations

import pytest
import torch

from autorec.blocks._dropout import Dropout, keep_mask


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_rate_and_mean_are_as_asked(rate):
    torch.manual_seed(0)
    mask = keep_mask(torch.empty(2000, 500), rate)
    zeros = float((mask == 0).float().mean())
    assert zeros == pytest.approx(rate, abs=4 * (rate * (1 - rate) / 1e6) ** 0.5 + 1e-5)
    assert float(mask.mean()) == pytest.approx(1.0, abs=5e-3 / (1 - rate))
    assert len(mask.unique()) == 2


def test_entries_are_independent_of_their_neighbours_and_of_the_last_draw():
    torch.manual_seed(1)
    one, two = keep_mask(torch.empty(4096, 400), 0.5), keep_mask(torch.empty(4096, 400), 0.5)
    one, two = one - 1, two - 1
    for other in (two, one.roll(1, 0), *(one.roll(k, 1) for k in (1, 2, 3, 4, 8))):
        assert abs(float((one * other).mean())) < 5 / (4096 * 400) ** 0.5


@pytest.mark.parametrize("shape", [(1,), (3, 5), (7, 3, 2), (0, 4)])
def test_any_shape_and_gradients_follow_the_mask(shape):
    layer = Dropout(0.5).train()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert out.shape == x.shape
    torch.testing.assert_close(out, x * x.grad)


def test_a_seed_repeats_the_mask_and_evaluation_has_none():
    layer, x = Dropout(0.3), torch.ones(50, 50)
    torch.manual_seed(5)
    first = layer(x)
    torch.manual_seed(5)
    assert torch.equal(first, layer(x))
    assert layer.eval()(x) is x and Dropout(0.0).train()(x) is x
