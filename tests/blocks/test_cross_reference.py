"""Cross networks and EDCN against loops: values, gradients, special cases, counts."""

from __future__ import annotations

import math

import pytest
import torch
from making import stirred

from autorec.blocks.base import Fields, Flat
from autorec.blocks.cross import Cross
from autorec.blocks.cross_gated import GatedCross
from autorec.blocks.cross_lowrank import LowRankCross
from autorec.blocks.cross_residual import ResidualCross
from autorec.blocks.cross_v1 import CrossV1
from autorec.blocks.edcn import EDCN
from autorec.blocks.growth import FRESH, Feed
from autorec.errors import GrowthError

BRIDGES = ["hadamard", "add", "concat", "attention"]


def normal(*sizes, seed=0, dtype=torch.float64):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def made(cls, shape, seed=0, **arguments):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return stirred(cls([shape], **arguments).double(), seed)


def assert_same(block, reference, x):
    """Compare values, and gradients with respect to the input and every parameter."""
    x = x.clone().requires_grad_()
    out, expected = block([x]), torch.stack([torch.stack(reference(block, row)) for row in x])
    torch.testing.assert_close(out, expected)
    weight = normal(*out.shape, seed=99)
    leaves = [x, *block.parameters()]
    ours = torch.autograd.grad((out * weight).sum(), leaves)
    theirs = torch.autograd.grad((expected * weight).sum(), leaves, materialize_grads=True)
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other)


def dot(left, right):
    return sum(a * b for a, b in zip(left, right))


def affine(module, row):
    out = [dot(weights, row) for weights in module.weight]
    return out if module.bias is None else [o + b for o, b in zip(out, module.bias)]


def softmax(row):
    powers = [value.exp() for value in row]
    return [power / sum(powers) for power in powers]


def relu(row):
    return [value if value > 0 else value * 0.0 for value in row]


def v1_reference(block, row):
    first = out = list(row)
    for weight, bias in zip(block.weight, block.bias):
        heard = dot(weight, out)
        out = [f * heard + b + o for f, b, o in zip(first, bias, out)]
    return out


def lowrank_reference(block, row):
    first = out = list(row)
    for down, up in zip(block.downs, block.ups):
        out = [f * c + o for f, c, o in zip(first, affine(up, affine(down, out)), out)]
    return out


def gated_reference(block, row):
    first = out = list(row)
    for cross, gate in zip(block.crosses, block.gates):
        gates = [1.0 / (1.0 + (-value).exp()) for value in affine(gate, out)]
        out = [f * c * g + o for f, c, g, o in zip(first, affine(cross, out), gates, out)]
    return out


def head_of(weight, start, rank, x):
    return [dot(weight[start + i], x) for i in range(rank)]


def bounded(values):
    return [v / (1.0 + dot(values, values) / len(values)) ** 0.5 for v in values]


def residual_reference(block, row):
    rank, tau = block.rank, block.arguments["temperature"] * math.sqrt(block.rank)
    first = out = list(row)
    for layer in block.layers:
        mixed = []
        for head in range(block.heads):
            start = 3 * rank * head
            value = head_of(layer.down.weight, start, rank, out)
            query = bounded(head_of(layer.down.weight, start + rank, rank, out))
            key = bounded(head_of(layer.down.weight, start + 2 * rank, rank, out))
            for i in range(rank):
                attended = dot(softmax([query[i] * k / tau for k in key]), value)
                mixed.append(attended + value[i] if block.arguments["skip"] else attended)
        out = [f * c + o for f, c, o in zip(first, affine(layer.up, mixed), out)]
    return out + (lowrank_reference(block.plain, row) if block.plain is not None else [])


def bridge_reference(name, bridge, cross, deep):
    if name == "hadamard":
        return [c * h for c, h in zip(cross, deep)]
    if name == "add":
        return [c + h for c, h in zip(cross, deep)]
    if name == "concat":
        return relu(affine(bridge.map, cross + deep))
    weights = [
        softmax(affine(outer, relu(affine(inner, tower))))
        for inner, outer, tower in zip(bridge.inner, bridge.outer, (cross, deep))
    ]
    return [a * c + b * h for a, c, b, h in zip(weights[0], cross, weights[1], deep)]


def normed(norm, row):
    """Apply batch normalisation in evaluation."""
    scale = [w / (v + norm.eps) ** 0.5 for w, v in zip(norm.weight, norm.running_var)]
    return [(x - m) * s + b for x, m, s, b in zip(row, norm.running_mean, scale, norm.bias)]


def edcn_reference(block, fields):
    width, tau = fields.shape[1], block.arguments["temperature"]
    x, first = [value for field in fields for value in field], None
    for layer in block.layers:
        gates = [softmax([gate / tau for gate in tower]) for tower in layer.gates]
        cross, deep = ([v * g[i // width] for i, v in enumerate(x)] for g in gates)
        if len(layer.norms):
            cross, deep = normed(layer.norms[0], cross), normed(layer.norms[1], deep)
        first = cross if first is None else first
        heard = dot(layer.cross.weight[0], cross)
        cross = [f * heard + b + c for f, b, c in zip(first, layer.bias, cross)]
        deep = relu(affine(layer.deep.steps[0], deep))
        x = bridge_reference(block.arguments["bridge"], layer.bridge, cross, deep)
    return [*cross, *deep, *x]


@pytest.mark.parametrize(("width", "layers"), [(1, 2), (2, 1), (5, 3), (4, 4)])
def test_cross_v1_is_the_formula_of_dcn(width, layers):
    block = made(CrossV1, Flat(width), layers, layers=layers)
    assert_same(block, v1_reference, normal(4, width, seed=width))
    assert block.weights() == 2 * layers * width


@torch.no_grad()
def test_cross_v1_is_cross_v2_with_equal_rows_but_for_where_the_bias_stands():
    one, two = made(CrossV1, Flat(5), layers=3), made(Cross, Flat(5), layers=3)
    one.bias.zero_()
    for position, layer in enumerate(two.layers):
        layer.bias.zero_()
        layer.weight.copy_(one.weight[position].expand(5, 5))
    x = normal(6, 5)
    torch.testing.assert_close(one([x]), two([x]))
    one.bias.fill_(0.5)
    one.weight.zero_()
    torch.testing.assert_close(one([x]), x + 3 * 0.5)


@torch.no_grad()
def test_cross_v1_keeps_small_products_in_bf16():
    block = CrossV1([Flat(4)], layers=2)
    block.weight.fill_(1e-3)
    x = torch.ones(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        out = block([x])
    torch.testing.assert_close(out, torch.full_like(x, 1.004 * 1.004), rtol=2e-5, atol=0)


@pytest.mark.parametrize(("width", "layers", "rank"), [(1, 2, 4), (3, 1, 5), (5, 3, 2)])
def test_lowrank_cross_is_the_formula_of_dcnv2(width, layers, rank):
    block = made(LowRankCross, Flat(width), rank, layers=layers, rank=rank)
    assert_same(block, lowrank_reference, normal(4, width, seed=width))
    assert block.weights() == layers * (2 * rank * width + width)


@torch.no_grad()
def test_lowrank_cross_is_the_full_cross_of_the_product():
    low, full = made(LowRankCross, Flat(5), layers=2, rank=3), made(Cross, Flat(5), layers=2)
    for layer, down, up in zip(full.layers, low.downs, low.ups):
        layer.weight.copy_(up.weight @ down.weight)
        layer.bias.copy_(up.bias)
    torch.testing.assert_close(low([normal(6, 5)]), full([normal(6, 5)]))


@pytest.mark.parametrize(("width", "layers"), [(1, 2), (3, 1), (5, 3)])
def test_gated_cross_is_the_formula_of_gdcn(width, layers):
    block = made(GatedCross, Flat(width), layers, layers=layers)
    assert_same(block, gated_reference, normal(4, width, seed=width))
    assert block.weights() == layers * (2 * width**2 + width)


@torch.no_grad()
def test_gated_cross_with_gates_at_a_half_is_cross_of_half_the_weights():
    gated, plain = made(GatedCross, Flat(5), layers=3), made(Cross, Flat(5), layers=3)
    for layer, cross, gate in zip(plain.layers, gated.crosses, gated.gates):
        gate.weight.zero_()
        layer.weight.copy_(0.5 * cross.weight)
        layer.bias.copy_(0.5 * cross.bias)
    torch.testing.assert_close(gated([normal(6, 5)]), plain([normal(6, 5)]))


@pytest.mark.parametrize(
    ("width", "settings"),
    [
        (1, {"layers": 2, "rank": 4, "heads": 1}),
        (5, {"layers": 2, "rank": 3, "heads": 2, "temperature": 0.25}),
        (4, {"layers": 1, "rank": 5, "heads": 3, "skip": False}),
        (3, {"layers": 3, "rank": 2, "heads": 1, "temperature": 2.0, "parallel": False}),
        (2, {"layers": 1, "rank": 1, "heads": 2}),
    ],
)
def test_residual_cross_is_the_formula_of_lirank(width, settings):
    block = made(ResidualCross, Flat(width), 1, **settings)
    with torch.no_grad():
        for layer in block.layers:  # products large enough for the softmax to leave uniform
            layer.down.weight.mul_(3.0)
    assert_same(block, residual_reference, normal(3, width, seed=width))


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 4])
def test_residual_cross_with_identity_scores_is_the_lowrank_cross(heads):
    settings = {"layers": 2, "rank": 8, "heads": heads, "parallel": False, "skip": False}
    block = made(ResidualCross, Flat(12), **settings).float()
    plain = made(LowRankCross, Flat(12), layers=2, rank=8 * heads).float()
    for layer, down, up in zip(block.layers, plain.downs, plain.ups):
        down.weight.copy_(layer.down.weight.view(heads, 3, 8, 12)[:, 0].flatten(0, 1))
        up.load_state_dict(layer.up.state_dict())
    x = normal(16, 12, dtype=torch.float32)
    assert (block([x]) - plain([x])).abs().max() > 1e-2
    for layer in block.layers:
        layer.scores = lambda query, key: torch.eye(8).expand(len(query), heads, 8, 8)
    torch.testing.assert_close(block([x]), plain([x]), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_residual_cross_starts_near_uniform_scores():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = ResidualCross([Flat(40)], layers=1, rank=16, parallel=False).double()
    layer, x = block.layers[0], normal(8, 40)
    value, query, key = layer.down(x).unflatten(1, layer.sizes).unbind(dim=2)
    torch.testing.assert_close(
        layer.scores(query, key), torch.full((8, 1, 16, 16), 1 / 16).double(), rtol=0.1, atol=0
    )
    torch.testing.assert_close(query.std(), torch.tensor(0.02 * 40**0.5).double(), rtol=0.3, atol=0)
    torch.testing.assert_close(
        value.std(), torch.tensor((80 / 56) ** 0.5).double(), rtol=0.3, atol=0
    )


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_scores_of_residual_cross_cannot_saturate(temperature):
    block = made(ResidualCross, Flat(6), rank=16, temperature=temperature)
    query, key = 1e6 * normal(64, 1, 16), 1e6 * normal(64, 1, 16, seed=1)
    ordinary = block.layers[0].scores(query / 1e6, key / 1e6)
    large = block.layers[0].scores(query, key)
    assert torch.allclose(large.sum(dim=3), torch.ones(()).double())
    # Scores at most double against those of ordinary size; unbounded they would be one-hot.
    assert large.max() < 0.9 and large.amax(dim=3).mean() < 2.0 * ordinary.amax(dim=3).mean()


@torch.no_grad()
def test_parallel_network_of_residual_cross_stands_behind_it():
    block = made(ResidualCross, Flat(5), rank=4, heads=2)
    alone = made(ResidualCross, Flat(5), rank=4, heads=2, parallel=False)
    alone.layers.load_state_dict(block.layers.state_dict())
    x = normal(6, 5)
    assert block.plain.rank == 8
    torch.testing.assert_close(block([x]), torch.cat([alone([x]), block.plain([x])], dim=1))
    assert alone.weights() == 2 * (4 * 8 * 5 + 5)
    assert block.weights() == 2 * (6 * 8 * 5 + 2 * 5)


@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize(("fields", "width", "layers"), [(1, 3, 2), (3, 2, 1), (2, 2, 3)])
def test_edcn_is_the_formula(bridge, fields, width, layers):
    settings = {"layers": layers, "bridge": bridge, "temperature": 0.5}
    block = made(EDCN, Fields(fields, width), layers, **settings)
    assert_same(block, edcn_reference, normal(3, fields, width, seed=fields))


def test_edcn_normalises_what_the_gates_let_through():
    block = made(EDCN, Fields(3, 2), layers=2, norm="batch").eval()
    assert_same(block, edcn_reference, normal(3, 3, 2))


@pytest.mark.parametrize(("bridge", "extra"), list(zip(BRIDGES, [0, 0, 78, 156])))
@pytest.mark.parametrize(("norm", "per_norm"), [("none", 0), ("batch", 24)])
def test_edcn_counts_its_weights(bridge, extra, norm, per_norm):
    block = EDCN([Fields(3, 2)], layers=2, bridge=bridge, norm=norm)
    assert block.weights() == sum(p.numel() for p in block.parameters())
    assert block.weights() == 2 * (2 * 3 + 12 + 6 * 6 + 6 + extra + per_norm)


@torch.no_grad()
def test_gates_of_edcn_start_even_and_choose_when_cold():
    x = normal(4, 3, 2).flatten(1)
    for temperature, weights in [(1.0, [1 / 3, 1 / 3, 1 / 3]), (1e-3, [0.0, 1.0, 0.0])]:
        layer = EDCN([Fields(3, 2)], layers=1).double().layers[0]
        layer.gates[0, 1] += 1e-9 if temperature == 1.0 else 0.1
        cross, deep = layer.regulate(x, temperature)
        expected = x * torch.tensor(weights).double().repeat_interleave(2)
        torch.testing.assert_close(cross, expected, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(deep, x / 3)


def test_edcn_drops_units_of_the_deep_tower_in_training_only():
    block = EDCN([Fields(4, 8)], layers=1, dropout=0.5, bridge="add")
    x, size = torch.ones(8, 4, 8), 32
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one, other = block.train()([x]), block([x])
    assert torch.equal(one[:, :size], other[:, :size])
    assert not torch.equal(one[:, size : 2 * size], other[:, size : 2 * size])
    assert torch.equal(block.eval()([x]), block([x]))


def test_edcn_refuses_to_grow():
    block = EDCN([Fields(2, 3)])
    with pytest.raises(GrowthError, match=r"input grows to \[Fields\(fields=3"):
        block.grow(Feed((Fields(3, 3),), (0, 1, FRESH), (0, 1, 2)))
    with pytest.raises(GrowthError, match="grows in"):
        block.grow(layers=4)


@torch.no_grad()
@pytest.mark.parametrize(
    ("cls", "start", "wider"),
    [
        (CrossV1, {"layers": 1}, {"layers": 3}),
        (LowRankCross, {"layers": 1, "rank": 4}, {"layers": 2, "rank": 7}),
        (GatedCross, {"layers": 2}, {"layers": 4}),
        (ResidualCross, {"layers": 1, "rank": 8, "heads": 1}, {"layers": 3, "heads": 3}),
        (ResidualCross, {"rank": 8, "parallel": False}, {"heads": 2}),
    ],
)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_crosses_grow_all_at_once_beside_fresh_inputs(cls, start, wider, place):
    block, x = made(cls, Flat(4), 1, **start), normal(6, 4)
    units = (*range(place), FRESH, *range(place, 4))
    grown, plan = block.grow(Feed((Flat(5),), units), **wider)
    fresh = torch.cat([x[:, :place], normal(6, 1, seed=7), x[:, place:]], dim=1)
    before, after = block([x]), grown([fresh])
    assert len(plan.outputs) == after.shape[1]
    for new, old in enumerate(plan.outputs):
        if old != FRESH:
            torch.testing.assert_close(after[:, new], before[:, old], rtol=1e-12, atol=1e-12)
    assert sorted(set(plan.outputs) - {FRESH}) == list(range(before.shape[1]))


@pytest.mark.parametrize("rank", [1, 5])
@pytest.mark.parametrize("heads", [1, 3])
def test_every_rank_goes_with_every_number_of_heads(rank, heads):
    block = made(ResidualCross, Flat(2), rank=rank, heads=heads, layers=1)
    out = block([normal(3, 2).requires_grad_()])
    out.sum().backward()
    assert out.shape == (3, 4) and torch.isfinite(out).all()
