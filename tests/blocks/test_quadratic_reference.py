"""Self-masked crosses, quadratic network, linear map and gated MLP against loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from making import stirred

from autorec.blocks.base import Flat
from autorec.blocks.cross_exponential import ExponentialCross
from autorec.blocks.cross_linear import LinearCross
from autorec.blocks.gated_mlp import GatedMLP
from autorec.blocks.growth import FRESH, Feed
from autorec.blocks.linear import Linear
from autorec.blocks.mlp import MLP
from autorec.blocks.qnn import QuadraticNetwork
from autorec.errors import GrowthError

CROSSES = [ExponentialCross, LinearCross]


def rows_of(width, seed, rows=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64)


def made(cls, inner, seed, **arguments):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return stirred(cls([Flat(inner)], **arguments).double(), seed)


def assert_same(block, reference, x):
    """Compare values, and gradients with respect to the input and every parameter."""
    x = x.clone().requires_grad_()
    out, expected = block([x]), reference(block, x)
    torch.testing.assert_close(out, expected)
    weight = rows_of(out.shape[1], 99, len(x))
    leaves = [x, *block.parameters()]
    ours = torch.autograd.grad((out * weight).sum(), leaves)
    theirs = torch.autograd.grad((expected * weight).sum(), leaves, materialize_grads=True)
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other)


def affine(weight, bias, row):
    """Return W row + b, unit by unit."""
    start = [0.0] * len(weight) if bias is None else bias
    return [sum((w * v for w, v in zip(unit, row)), start[i]) for i, unit in enumerate(weight)]


def layer_normed(norm, row):
    mean = sum(row) / len(row)
    deviation = (sum((v - mean) ** 2 for v in row) / len(row) + norm.eps) ** 0.5
    return [norm.weight[i] * (v - mean) / deviation + norm.bias[i] for i, v in enumerate(row)]


def batch_normed(norm, rows):
    columns = []
    for i, column in enumerate(zip(*rows)):
        mean = sum(column) / len(column)
        deviation = (sum((v - mean) ** 2 for v in column) / len(column) + norm.eps) ** 0.5
        columns.append([norm.weight[i] * (v - mean) / deviation + norm.bias[i] for v in column])
    return [list(row) for row in zip(*columns)]


def normed(norm, rows):
    if isinstance(norm, torch.nn.BatchNorm1d):
        return batch_normed(norm, rows)
    if isinstance(norm, torch.nn.LayerNorm):
        return [layer_normed(norm, row) for row in rows]
    return rows


def relu(value):
    return value if value > 0 else value * 0.0


def normed_as_one(norm, rows):
    """Bring all units of all rows together to mean 0 and variance 1."""
    values = [value for row in rows for value in row]
    mean = sum(values) / len(values)
    deviation = (sum((v - mean) ** 2 for v in values) / len(values) + norm.eps) ** 0.5
    return [[norm.weight[0] * (v - mean) / deviation + norm.bias[0] for v in row] for row in rows]


def batch_cross_reference(block, x):
    rows = [list(row) for row in x]
    for layer in block.layers:
        crossed = [affine(layer.cross.weight, None, row) for row in rows]
        for at, c in enumerate(normed_as_one(layer.scale, crossed)):
            levels = c if len(c) == 1 else layer_normed(layer.norm, c)
            masked = [v * relu(level) for v, level in zip(c, levels)]
            factor = [v + b for v, b in zip([*c, *masked], layer.bias)]
            base = rows[at] if isinstance(block, ExponentialCross) else list(x[at])
            rows[at] = [b * f + o for b, f, o in zip(base, factor, rows[at])]
    return torch.stack([torch.stack(row) for row in rows])


def cross_reference(block, x):
    rows = []
    for first in x:
        out = list(first)
        for layer in block.layers:
            crossed = affine(layer.cross.weight, None, out)
            single = len(crossed) == 1
            levels = crossed if single else layer_normed(layer.norm, crossed)
            masked = [c * relu(level) for c, level in zip(crossed, levels)]
            factor = [c + b for c, b in zip([*crossed, *masked], layer.bias)]
            base = out if isinstance(block, ExponentialCross) else first
            out = [b * f + o for b, f, o in zip(base, factor, out)]
        rows.append(torch.stack(out))
    return torch.stack(rows)


@pytest.mark.parametrize("cls", CROSSES)
@pytest.mark.parametrize(("width", "layers"), [(1, 2), (2, 2), (3, 1), (6, 3), (7, 2)])
def test_crosses_are_the_formula_of_dcnv3(cls, width, layers):
    assert_same(made(cls, width, layers, layers=layers), cross_reference, rows_of(width, width))


@pytest.mark.parametrize("cls", CROSSES)
@pytest.mark.parametrize(("width", "layers"), [(1, 1), (6, 3), (7, 2)])
def test_crosses_with_a_batch_norm_are_the_public_code_of_dcnv3(cls, width, layers):
    block = made(cls, width, layers, layers=layers, norm="batch").train()
    assert block.weights() == sum(p.numel() for p in block.parameters())
    assert_same(block, batch_cross_reference, rows_of(width, width))
    with pytest.raises(GrowthError, match="batch norm"):
        block.grow(layers=layers + 1)


@pytest.mark.parametrize("cls", CROSSES)
@pytest.mark.parametrize(("width", "per_layer"), [(1, 2), (2, 4), (3, 13), (6, 30), (7, 43)])
def test_crosses_count_their_weights(cls, width, per_layer):
    block = made(cls, width, 0, layers=2)
    assert block.weights() == sum(p.numel() for p in block.parameters()) == 2 * per_layer


def test_one_layer_of_either_cross_is_the_same():
    one, other = (made(cls, 6, 4, layers=1) for cls in CROSSES)
    torch.testing.assert_close(one([rows_of(6, 0)]), other([rows_of(6, 0)]), rtol=0, atol=0)


@torch.no_grad()
def test_one_cross_compounds_and_the_other_adds():
    x = rows_of(5, 0)
    for cls, factor in [(ExponentialCross, 1.5**4), (LinearCross, 1 + 4 * 0.5)]:
        block = made(cls, 5, 0, layers=4)
        for layer in block.layers:
            layer.cross.weight.zero_()
            layer.bias.fill_(0.5)
        torch.testing.assert_close(block([x]), factor * x)


@torch.no_grad()
@pytest.mark.parametrize(("cls", "order"), [(ExponentialCross, 8), (LinearCross, 4)])
def test_order_of_the_unmasked_half(cls, order):
    """Units that read the unmasked half only are polynomials: differences beyond it vanish."""
    block = made(cls, 4, 1, layers=3)
    for layer in block.layers:
        layer.cross.weight[:, 2:] = 0.0
    line = torch.arange(12, dtype=torch.float64).unsqueeze(1) / 4 * torch.ones(1, 4)
    out = block([line])[:, :2]
    of_order, beyond = (float(out.diff(n=n, dim=0).abs().max()) for n in (order, order + 1))
    assert of_order > 1e-6 * float(out.abs().max())
    assert beyond < 1e-10 * float(out.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("cls", CROSSES)
def test_a_closed_mask_leaves_only_the_bias_in_the_second_half(cls):
    block = made(cls, 6, 2, layers=1)
    layer, x = block.layers[0], rows_of(6, 3)
    layer.norm.weight.zero_()
    layer.norm.bias.fill_(-1.0)
    torch.testing.assert_close(block([x])[:, 3:], (x * (1 + layer.bias))[:, 3:])


@pytest.mark.parametrize("cls", CROSSES)
def test_crosses_start_with_bias_in_the_unit_interval_and_refuse_fresh_inputs(cls):
    block = cls([Flat(400)], layers=1)
    bias = block.layers[0].bias
    assert 0 <= bias.min() < 0.05 and 0.95 < bias.max() < 1 and bias.shape == (400,)
    with pytest.raises(GrowthError, match=r"crossed units together.* but its input grows to"):
        block.grow(Feed((Flat(401),), (*range(400), FRESH)))


@pytest.mark.parametrize("cls", CROSSES)
@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_fresh_cross_layer_is_an_exact_identity_that_learns(cls, width):
    block, x = made(cls, width, 0, layers=1).eval(), rows_of(width, 1)
    grown, _ = block.grow(layers=2)
    assert torch.equal(grown([x]), block([x]))
    grown([x]).square().sum().backward()
    assert (grown.layers[1].cross.weight.grad != 0).all()


def qnn_reference(block, x):
    rows = [list(row) for row in x]
    for layer in block.layers:
        hidden = normed(layer.norm, [affine(layer.map.weight, layer.map.bias, row) for row in rows])
        for row, gates in zip(rows, hidden):
            for i, value in enumerate(list(row)):
                heads = [relu(gates[r * len(row) + i]) for r in range(block.heads)]
                row[i] = sum((value * gate for gate in heads), value)
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize(("width", "layers", "heads"), [(1, 2, 3), (5, 1, 1), (4, 3, 2)])
def test_qnn_is_its_formula(norm, width, layers, heads):
    block = made(QuadraticNetwork, width, 3, layers=layers, heads=heads, norm=norm).train()
    assert_same(block, qnn_reference, rows_of(width, heads))


@pytest.mark.parametrize(("norm", "expected"), [("none", 2 * 3 * 30), ("batch", 2 * 3 * 40)])
def test_qnn_counts_its_weights(norm, expected):
    block = made(QuadraticNetwork, 5, 0, layers=2, heads=3, norm=norm)
    assert block.weights() == sum(p.numel() for p in block.parameters()) == expected


@torch.no_grad()
def test_qnn_sums_its_heads_and_keeps_x_where_all_are_shut():
    block, x = made(QuadraticNetwork, 3, 0, layers=2, heads=2), rows_of(3, 0)
    for layer in block.layers:
        layer.map.weight.zero_()
        layer.map.bias.copy_(torch.tensor([1.0, 2.0, -1.0, 0.5, -9.0, -1.0]))
    torch.testing.assert_close(block([x]), x * torch.tensor([2.5, 3.0, 1.0]).double() ** 2)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_qnn_shares_a_map_among_copies_that_differ(norm):
    block = made(QuadraticNetwork, 4, 5, layers=2, heads=2, norm=norm).eval()
    grown, plan = block.grow(heads=5)
    x = rows_of(4, 0)
    with torch.no_grad():
        torch.testing.assert_close(grown([x]), block([x]), rtol=0, atol=1e-12)
    scaled = "norm.weight" if norm == "batch" else "map.bias"
    shares = (
        (grown.state_dict()[f"layers.1.{scaled}"]).view(5, 4)
        / block.state_dict()[f"layers.1.{scaled}"].view(2, 4)[[0, 1, 0, 1, 0]]
    )
    assert (shares > 0.1).all() and (shares < 0.9).all()
    torch.testing.assert_close(shares[[0, 2, 4]].sum(dim=0), torch.ones(4).double())
    torch.testing.assert_close(shares[[1, 3]].sum(dim=0), torch.ones(4).double())
    assert shares.unique().numel() == 20
    assert set(plan.tensors[f"layers.1.{scaled}"][0]) == {FRESH}


def test_qnn_keeps_maps_that_are_not_shared():
    block = made(QuadraticNetwork, 4, 5, layers=1, heads=2)
    grown, plan = block.grow(heads=3)
    assert torch.equal(grown.layers[0].map.weight[4:8], block.layers[0].map.weight[4:8])
    assert plan.tensors["layers.0.map.bias"][0] == (*[FRESH] * 4, *range(4, 8), *[FRESH] * 4)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_fresh_layer_of_a_qnn_is_silent_but_its_maps_differ_once_it_learns(norm):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = QuadraticNetwork([Flat(8)], layers=1, heads=2, norm=norm)
    x = rows_of(8, 0, 64).float()
    grown, _ = block.eval().grow(layers=2)
    torch.testing.assert_close(grown([x]), block([x]), rtol=1e-6, atol=1e-6)
    optimizer = torch.optim.Adam(grown.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        grown.train()([x]).square().mean().backward()
        optimizer.step()
    first, second = grown.layers[1].map.weight.detach().view(2, 8, 8)
    assert float((first - second).abs().max()) > 1e-3


@torch.no_grad()
def test_dropout_acts_in_training_only():
    for cls in [*CROSSES, QuadraticNetwork, GatedMLP]:
        block, x = made(cls, 8, 0, dropout=0.5), rows_of(8, 0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            assert not torch.equal(block.train()([x]), block([x]))
        assert torch.equal(block.eval()([x]), block([x]))


@pytest.mark.parametrize(("inner", "width"), [(1, 8), (5, 9)])
def test_linear_is_a_matrix_and_a_bias(inner, width):
    block = made(Linear, inner, 0, width=width)
    assert block.weights() == inner * width + width

    def reference(block, x):
        return torch.stack([torch.stack(affine(block.map.weight, block.map.bias, r)) for r in x])

    assert_same(block, reference, rows_of(inner, 1))


def gated_reference(block, x):
    rows = [list(row) for row in x]
    for layer in block.layers:
        rows = normed(layer.norm, [affine(layer.map.weight, layer.map.bias, row) for row in rows])
        for row in rows:
            row[:] = [relu(value) for value in row]
            read = affine(layer.down.weight, None, row) if block.rank else row
            heights = affine(layer.gate.weight, layer.gate.bias, read)
            row[:] = [value / (1 + torch.exp(-height)) for value, height in zip(row, heights)]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize(
    ("norm", "rank"), list(itertools.product(["none", "batch", "layer"], [0, 2]))
)
def test_gated_mlp_is_its_formula(norm, rank):
    block = made(GatedMLP, 3, 1, width=5, layers=2, norm=norm, gate_rank=rank).train()
    assert_same(block, gated_reference, rows_of(3, 2))
    gate = 5 * (2 * rank or 5) + 5
    per_norm = 10 if norm != "none" else 0
    expected = (3 * 5 + 5) + (5 * 5 + 5) + 2 * (gate + per_norm)
    assert block.weights() == sum(p.numel() for p in block.parameters()) == expected


@torch.no_grad()
def test_gated_mlp_with_open_gates_is_an_mlp():
    gated, plain = GatedMLP([Flat(4)], width=6).double(), MLP([Flat(4)], width=6, layers=2).double()
    linears = [step for step in plain.steps if isinstance(step, torch.nn.Linear)]
    for layer, step in zip(gated.layers, linears):
        layer.map.load_state_dict(step.state_dict())
        layer.gate.weight.zero_()
        layer.gate.bias.fill_(50.0)
    x = rows_of(4, 0)
    torch.testing.assert_close(gated([x]), plain([x]), rtol=1e-12, atol=0)


@torch.no_grad()
def test_a_gate_of_low_rank_is_a_full_gate_of_that_rank():
    low, full = (made(GatedMLP, 3, 0, width=6, layers=1, gate_rank=r) for r in (2, 0))
    full.layers[0].map.load_state_dict(low.layers[0].map.state_dict())
    full.layers[0].gate.bias.copy_(low.layers[0].gate.bias)
    full.layers[0].gate.weight.copy_(low.layers[0].gate.weight @ low.layers[0].down.weight)
    torch.testing.assert_close(low([rows_of(3, 1)]), full([rows_of(3, 1)]))


def test_gates_start_nearly_open():
    for layer in GatedMLP([Flat(4)], width=32, gate_rank=16).layers:
        assert torch.equal(layer.gate.bias.detach(), torch.full((32,), 2.0))
    assert 1 / (1 + math.exp(-2.0)) > 0.88


@torch.no_grad()
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_gated_mlp_grows_in_all_at_once(norm):
    block = made(GatedMLP, 3, 0, width=40, layers=1, norm=norm, gate_rank=16).eval()
    feed = Feed((Flat(5),), (0, FRESH, 1, 2, FRESH))
    grown, plan = block.grow(feed, width=50, layers=3, gate_rank=32)
    x = rows_of(5, 1)
    old = [i for i, source in enumerate(plan.outputs) if source != FRESH]
    torch.testing.assert_close(grown([x])[:, old], block([x[:, [0, 2, 3]]]), rtol=0, atol=1e-12)


def test_gated_mlp_refuses_what_would_change_it():
    with pytest.raises(GrowthError, match=r"layer normalisation mixes .*, but got width=50"):
        made(GatedMLP, 3, 0, width=40, norm="layer").grow(width=50)
    with pytest.raises(GrowthError, match="but got gate_rank=16"):
        made(GatedMLP, 3, 0, width=40).grow(gate_rank=16)
