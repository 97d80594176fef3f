"""Soft bins against a loop, and the laws of blocks, which do not wire what reads numbers only."""

from __future__ import annotations

import math

import pytest
import test_block_law
import test_growth_law
import torch
from making import BLOCKS, SHAPES, WIRED, inputs_of, stirred

from autorec.blocks.base import Fields, Flat
from autorec.blocks.growth import FRESH, Feed
from autorec.blocks.soft_bins import SoftBins
from autorec.errors import ConfigError

NAME = "soft_bins"


def reference(block, row):
    fields = []
    for q, x in enumerate(row):
        known = not bool(x.isnan())
        bins = range(block.weight.shape[1])
        hidden = []
        for k in bins:
            z = block.weight[q, k] * (x if known else 0.0) + block.bias[q, k]
            hidden.append(z if z > 0 else 0.01 * z)
        power = []
        for k in bins:
            z = sum(hidden[j] * block.mix[q, j, k] for j in bins) + block.skip * hidden[k]
            power.append((z / block.temperature).exp() if known else torch.ones_like(z))
        total = sum(power)
        fields.append(sum(power[k] / total * block.table[q, k] for k in bins))
    return torch.stack(fields)


@pytest.mark.parametrize("shapes", [[Flat(4)], [Flat(1)], [Flat(2), Flat(3)]])
@pytest.mark.parametrize("settings", [{}, {"bins": 5, "temperature": 0.2, "skip": 0.3}])
def test_soft_bins_are_the_formula(shapes, settings):
    block = stirred(SoftBins(shapes, width=3, **settings), 7).double()
    inputs = inputs_of(shapes, 4, 5, torch.float64)
    inputs[0][1, 0] = math.nan
    results = []
    for forward in (block, lambda x: torch.stack([reference(block, r) for r in torch.cat(x, 1)])):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = forward(leaves)
        weight = torch.linspace(-1.0, 2.0, out.numel(), dtype=out.dtype).view_as(out)
        wanted = [*leaves, *block.parameters()]
        results.append((out.detach(), *torch.autograd.grad((out * weight).sum(), wanted)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert block.shape == Fields(sum(shape.width for shape in shapes), 3)


def test_a_missing_number_is_the_mean_of_its_bins_and_moves_no_other():
    block = stirred(SoftBins([Flat(3)], width=4), 1)
    numbers = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    missing = numbers.clone()
    missing[2, 1] = math.nan
    with torch.no_grad():
        before, after = block([numbers]), block([missing])
    torch.testing.assert_close(after[2, 1], block.table[1].mean(0).detach())
    before[2, 1] = after[2, 1]
    assert torch.equal(before, after)


def test_bins_start_in_the_order_of_the_numbers():
    torch.manual_seed(0)
    block = SoftBins([Flat(1)], width=8, bins=8, temperature=0.1)
    with torch.no_grad():
        block.table[0] = torch.eye(8)
        likeliest = block([torch.linspace(-2.5, 2.5, 51)[:, None]])[:, 0].argmax(1)
    assert (likeliest.diff() >= 0).all()
    assert len(likeliest.unique()) >= 6


def test_a_step_is_learned_that_no_line_can_draw():
    torch.manual_seed(0)
    x = torch.linspace(-2.0, 2.0, 200)[:, None]
    target = ((x.abs() - 1.0).abs() < 0.5).float().squeeze(1)
    block = SoftBins([Flat(1)], width=4, bins=16)
    head = torch.randn(4, requires_grad=True)
    optimizer = torch.optim.Adam([*block.parameters(), head], lr=0.02)
    for _ in range(300):
        loss = (block([x])[:, 0] @ head - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.25 * float(target.var())


def test_a_number_that_is_added_leaves_the_fields_of_the_others():
    block = stirred(SoftBins([Flat(2)], width=3), 2)
    grown, plan = block.grow(Feed((Flat(3),), (0, FRESH, 1)), width=5)
    numbers = torch.randn(6, 3)
    with torch.no_grad():
        torch.testing.assert_close(grown([numbers])[:, [0, 2], :3], block([numbers[:, [0, 2]]]))
    assert (plan.outputs, plan.width) == ((0, FRESH, 1), (0, 1, 2, FRESH, FRESH))


def test_settings_out_of_range():
    for wrong in ({"bins": 1}, {"temperature": 0.0}):
        with pytest.raises(ConfigError, match="at least 2 at a temperature above 0, but got"):
            SoftBins([Flat(1)], **wrong)


def test_spaces_do_not_wire_it_by_themselves():
    assert NAME in BLOCKS.names()
    assert NAME not in WIRED


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shapes", SHAPES["flat"])
def test_laws_of_every_shape(shapes, seed):
    for dtype in (torch.float32, torch.float64):
        test_block_law.test_shape_is_kept_and_every_parameter_learns(NAME, shapes, seed, dtype)
    test_block_law.test_rows_do_not_mix_in_evaluation(NAME, shapes, seed)
    test_block_law.test_bf16_autocast_is_near_float32(NAME, shapes, seed)
    test_block_law.test_flops_equal_the_counter_of_torch(NAME, shapes, seed)
    test_block_law.test_weights_are_counted_in_closed_form(NAME, shapes, seed)


LAWS = (
    test_block_law.test_the_same_generator_gives_the_same_weights,
    test_block_law.test_block_can_be_exported_with_a_free_batch,
    test_block_law.test_state_returns_after_saving,
    test_block_law.test_choices_are_distributions_named_like_arguments,
    test_growth_law.test_fresh_inputs_change_nothing_or_are_refused,
    test_growth_law.test_growing_nothing_is_a_copy,
    test_growth_law.test_what_cannot_grow_says_so,
)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_laws(law):
    law(NAME)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_law_of_growth(dtype):
    test_growth_law.test_growing_an_argument_keeps_the_function(NAME, "width", dtype)
