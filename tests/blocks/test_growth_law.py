"""The law of growth, on every block: the function is kept, and nothing fresh is dead."""

from __future__ import annotations

import pytest
import torch
from making import BLOCKS, SHAPES, WIRED, inputs_of, made, stirred
from optuna.distributions import IntDistribution

from autorec.blocks.base import Fields, Flat
from autorec.blocks.growth import FRESH, Feed, longer, same
from autorec.errors import GrowthError

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
GROWABLE = [(name, arg) for name in WIRED for arg in BLOCKS.get(name).grows]


def larger(gene: IntDistribution, value: int) -> int:
    return min(gene.high, value + max(gene.step, gene.step * (value // (2 * gene.step))))


def fresh_feed(shapes, seed):
    """Return a feed whose first input has one fresh unit at its end, and inputs that fit it."""
    first, *rest = shapes
    old = inputs_of(shapes, 40, seed, torch.float64)
    count = first.fields if isinstance(first, Fields) else first.width
    others = [s.fields if isinstance(s, Fields) else s.width for s in rest]
    units = (*range(count), FRESH, *range(count, count + sum(others)))
    grown = Fields(count + 1, first.width) if isinstance(first, Fields) else Flat(count + 1)
    extra = torch.randn(40, 1, *old[0].shape[2:], dtype=torch.float64)
    width = same(first.width) if isinstance(first, Fields) else None
    inputs = [torch.cat([old[0], extra], dim=1), *old[1:]]
    return Feed((grown, *rest), units, width), old, inputs


def kept(out, plan):
    """Return the old outputs among those of a grown block, in their old order."""
    order = sorted((old, new) for new, old in enumerate(plan.outputs) if old != FRESH)
    out = out[:, [new for _, new in order]]
    if plan.width is not None:
        across = sorted((old, new) for new, old in enumerate(plan.width) if old != FRESH)
        out = out[:, :, [new for _, new in across]]
    return out


def fresh_entries(tensor, maps):
    """Return a mask of the entries of `tensor` that a plan leaves fresh."""
    mask = torch.zeros(tensor.shape, dtype=torch.bool)
    for axis, one in enumerate(maps):
        shape = [1] * tensor.dim()
        shape[axis] = -1
        mask |= torch.tensor([source == FRESH for source in one]).view(shape)
    return mask


def assert_nothing_fresh_is_dead(grown, plan, inputs):
    """Train a few steps behind a head that hears old outputs only; fresh weights must move."""
    grown = grown.train()
    generator = torch.Generator().manual_seed(3)
    size = grown(inputs).flatten(1).shape[1]
    old = torch.tensor([source != FRESH for source in plan.outputs], dtype=torch.float64)
    if plan.width is not None:
        across = torch.tensor([source != FRESH for source in plan.width], dtype=torch.float64)
        old = (old.unsqueeze(1) * across).flatten()
    head = (torch.randn(size, generator=generator, dtype=torch.float64) * old).requires_grad_()
    target = torch.randn(len(inputs[0]), generator=generator, dtype=torch.float64)
    started = {name: p.detach().clone() for name, p in grown.named_parameters()}
    optimizer = torch.optim.Adam([*grown.parameters(), head], lr=0.01)
    for _ in range(8):
        optimizer.zero_grad()
        (grown(inputs).flatten(1) @ head - target).square().mean().backward()
        optimizer.step()
    for name, parameter in grown.named_parameters():
        maps = plan.tensors.get(name)
        fresh = torch.ones_like(parameter) > 0 if maps is None else fresh_entries(parameter, maps)
        if fresh.any():
            moved = (parameter.detach() != started[name])[fresh].double().mean()
            # Of one input, half of all pairs of ReLU units are never awake together.
            assert moved >= 0.4, f"{name}: only {moved:.0%} of the fresh entries learn"


@pytest.mark.parametrize(("name", "arg"), GROWABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_growing_an_argument_keeps_the_function(name, arg, dtype):
    cls, done = BLOCKS.get(name), 0
    for shapes in SHAPES[cls.reads]:
        wanted = done + 4
        for seed in range(24):  # settings that refuse are common, and cost nothing
            if done == wanted:
                break
            gene = cls.choices()[arg]
            block = made(name, shapes, seed)
            if block.arguments[arg] == gene.high:
                block = made(name, shapes, seed, **{arg: gene.low})
            block = stirred(block.to(dtype), seed).eval()
            inputs = [0.5 * part for part in inputs_of(shapes, 40, seed, dtype)]
            torch.manual_seed(seed)
            try:
                grown, plan = block.grow(**{arg: larger(gene, block.arguments[arg])})
            except GrowthError:
                continue
            done += 1
            assert not grown.training
            assert grown.arguments[arg] > block.arguments[arg]
            with torch.no_grad():
                before, after = block(inputs), kept(grown(inputs), plan)
            scale = max(1.0, float(before.abs().max()))
            assert float((before - after).abs().max()) <= TOLERANCE[dtype] * scale
            if dtype == torch.float64:
                assert_nothing_fresh_is_dead(grown, plan, inputs)
    assert done >= 3, f"{name} says that it grows in {arg}, but refused nearly always"


@pytest.mark.parametrize("name", WIRED)
def test_fresh_inputs_change_nothing_or_are_refused(name):
    cls = BLOCKS.get(name)
    for shapes in SHAPES[cls.reads]:
        for seed in range(3):
            block = stirred(made(name, shapes, seed).double(), seed).eval()
            feed, old, inputs = fresh_feed(shapes, seed)
            torch.manual_seed(seed)
            try:
                grown, plan = block.grow(feed)
            except GrowthError as error:
                assert "but" in str(error)
                continue
            assert grown.shapes == feed.shapes
            with torch.no_grad():
                before, after = block(old), kept(grown(inputs), plan)
            scale = max(1.0, float(before.abs().max()))
            assert float((before - after).abs().max()) <= 1e-9 * scale
            assert_nothing_fresh_is_dead(grown, plan, inputs)


@pytest.mark.parametrize("name", WIRED)
def test_growing_nothing_is_a_copy(name):
    cls = BLOCKS.get(name)
    shapes = SHAPES[cls.reads][2]
    block = stirred(made(name, shapes, 1), 1).eval()
    copy, plan = block.grow()
    inputs = inputs_of(shapes, 6, 0)
    with torch.no_grad():
        assert torch.equal(copy(inputs), block(inputs))
    assert plan.outputs == same(block(inputs).shape[1])
    tensors = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    assert {name for name, _ in copy.named_parameters()} <= set(plan.tensors)
    for label, maps in plan.tensors.items():
        assert tuple(map(len, maps)) == tuple(tensors[label].shape)


@pytest.mark.parametrize("name", WIRED)
def test_what_cannot_grow_says_so(name):
    block = made(name, SHAPES[BLOCKS.get(name).reads][0], 0)
    with pytest.raises(GrowthError, match="grows in"):
        block.grow(colour=3)
    for arg in block.grows:
        with pytest.raises(GrowthError, match="within"):
            block.grow(**{arg: block.arguments[arg] - 1})


def test_maps_of_a_flattened_field_input():
    feed = Feed((Fields(2, 3),), (0, FRESH), (0, 1, FRESH))
    assert feed.flat == (0, 1, FRESH, FRESH, FRESH, FRESH)
    assert longer(2, 4) == (0, 1, FRESH, FRESH)
