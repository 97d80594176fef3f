"""Mask, factorised, two-stream and field-gate blocks against references written in loops."""

from __future__ import annotations

import pytest
import torch
from making import inputs_of, stirred

from autorec.blocks.base import Fields, Flat
from autorec.blocks.factorized import FactorizedNetwork
from autorec.blocks.field_gate import FieldGate
from autorec.blocks.growth import FRESH, Feed, same
from autorec.blocks.mask import MaskNet
from autorec.blocks.mlp import MLP
from autorec.blocks.two_stream import TwoStream
from autorec.errors import GrowthError

ROWS = 3


def assert_same(block, reference):
    """Compare output and gradients, of inputs and of parameters, in float64."""
    block = stirred(block, 7).double().eval()
    inputs = [x.requires_grad_() for x in inputs_of(block.shapes, ROWS, 5, torch.float64)]
    outs = [block(inputs), torch.stack([reference(block, row) for row in zip(*inputs)])]
    torch.testing.assert_close(*outs)
    weight = torch.linspace(-1.0, 2.0, outs[0].numel(), dtype=torch.float64).view_as(outs[0])
    wanted = [*inputs, *block.parameters()]
    ours, theirs = (
        torch.autograd.grad((out * weight).sum(), wanted, retain_graph=True, allow_unused=True)
        for out in outs
    )
    for one, other, of in zip(ours, theirs, wanted, strict=True):
        torch.testing.assert_close(filled(one, of), filled(other, of))


def filled(gradient, like):
    return torch.zeros_like(like) if gradient is None else gradient


def affine(weight, bias, x):
    """Return W x + b, unit by unit."""
    out = []
    for unit in range(len(weight)):
        total = bias[unit] if bias is not None else torch.zeros((), dtype=x.dtype)
        for part in range(len(x)):
            total = total + weight[unit, part] * x[part]
        out.append(total)
    return torch.stack(out)


def normed(x, scale, shift):
    mean = sum(x) / len(x)
    variance = sum((part - mean) ** 2 for part in x) / len(x)
    return torch.stack(
        [(x[i] - mean) / (variance + 1e-5) ** 0.5 * scale[i] + shift[i] for i in range(len(x))]
    )


def parameters_of(block):
    return sum(parameter.numel() for parameter in block.parameters())


# Masks


def mask_reference(block, row):
    fields = torch.cat(list(row))
    guide = torch.cat(list(fields))
    first = guide
    if block.arguments["normed"]:
        first = torch.cat(
            [normed(field, block.scale[f], block.shift[f]) for f, field in enumerate(fields)]
        )
    outs, x = [], first
    for one in block.blocks:
        hidden = affine(one.aggregate.weight, one.aggregate.bias, guide).clamp(min=0)
        mask = affine(one.project.weight, one.project.bias, hidden)
        masked = torch.stack([part * scale for part, scale in zip(x, mask, strict=True)])
        out = affine(one.hidden.weight, None, masked)
        out = normed(out, one.norm.weight, one.norm.bias).clamp(min=0)
        outs.append(out)
        x = first if block.parallel else out
    return torch.cat(outs) if block.parallel else x


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize(
    ("shapes", "reduction", "norm"),
    [
        ([Fields(3, 4)], 1.0, True),
        ([Fields(2, 3), Fields(1, 3)], 0.5, True),
        ([Fields(1, 3)], 2.0, True),
        ([Fields(2, 3), Fields(1, 3)], 0.5, False),
    ],
)
def test_mask_is_the_formula(shapes, reduction, norm, parallel):
    settings = {"reduction": reduction, "parallel": parallel, "normed": norm}
    made = MaskNet(shapes, blocks=2, width=5, **settings)
    assert_same(made, mask_reference)
    assert made.shape == Flat(10 if parallel else 5)


def test_mask_of_ones_is_a_layer_on_normalised_fields():
    block = MaskNet([Fields(3, 4)], blocks=1, width=6).double()
    one = block.blocks[0]
    torch.nn.init.zeros_(one.project.weight)
    torch.nn.init.ones_(one.project.bias)
    fields = inputs_of([Fields(3, 4)], ROWS, 0, torch.float64)[0]
    centred = fields - fields.mean(2, keepdim=True)
    x = centred / (centred.square().mean(2, keepdim=True) + 1e-5).sqrt()
    expected = torch.nn.functional.layer_norm(x.flatten(1) @ one.hidden.weight.T, (6,)).relu()
    torch.testing.assert_close(block([fields]), expected)


def test_mask_counts():
    # LayerNorms of 12 inputs, then W1 12x12, W2 12x12 with biases, W 12x5 without, LayerNorm of 5.
    each = (12 * 12 + 12) + (12 * 12 + 12) + 12 * 5 + 2 * 5
    assert parameters_of(MaskNet([Fields(3, 4)], blocks=2, width=5)) == 2 * 12 + 2 * each
    # In a row the second block masks 5 units by a hidden layer of 0.5 * 5 = 2 units.
    first = (12 * 6 + 6) + (6 * 12 + 12) + 12 * 5 + 2 * 5
    second = (12 * 2 + 2) + (2 * 5 + 5) + 5 * 5 + 2 * 5
    serial = MaskNet([Fields(3, 4)], blocks=2, width=5, reduction=0.5, parallel=False)
    assert parameters_of(serial) == 2 * 12 + first + second
    plain = MaskNet([Fields(3, 4)], blocks=2, width=5, normed=False)
    assert parameters_of(plain) == plain.weights() == 2 * each


def test_mask_in_a_row_or_with_wider_fields_does_not_grow():
    with pytest.raises(GrowthError, match="in a row"):
        MaskNet([Fields(3, 4)], blocks=1, width=5, parallel=False).grow(blocks=2)
    with pytest.raises(GrowthError, match="embedding width"):
        MaskNet([Fields(2, 2)], width=5).grow(wider_fields(2, 2))


# Factorised layers


def factorized_reference(block, row):
    x = torch.cat(list(row))
    for layer in block.layers:
        h = affine(layer.map.weight, layer.map.bias, x)
        width = block.shape.width
        half = width if block.merge == "sum" else width - width // 2
        second, first = h[:half], h[half:]
        product = [first[i] * second[i] for i in range(len(first))]
        if block.merge == "sum":
            out = torch.stack([second[i] + product[i] for i in range(width)])
        else:
            out = torch.stack([*second, *product])
        if isinstance(layer.norm, torch.nn.BatchNorm1d):
            norm = layer.norm
            scale = norm.weight / (norm.running_var + norm.eps) ** 0.5
            out = (out - norm.running_mean) * scale + norm.bias
        x = out.clamp(min=0)
    return x


@pytest.mark.parametrize("merge", ["concat", "sum"])
@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize(
    ("shapes", "width", "layers"),
    [([Flat(7)], 6, 1), ([Flat(3), Flat(2)], 5, 3), ([Flat(1)], 1, 2)],
)
def test_factorized_is_the_formula(shapes, width, layers, norm, merge):
    made = FactorizedNetwork(shapes, width=width, layers=layers, norm=norm, merge=merge)
    assert_same(made, factorized_reference)


def test_factorized_layer_without_h1_is_an_mlp():
    block = FactorizedNetwork([Flat(7)], width=6, layers=1, merge="sum")
    mlp, layer = MLP([Flat(7)], width=6, layers=1), block.layers[0]
    with torch.no_grad():
        layer.map.weight[6:] = 0.0
        layer.map.weight[:6] = mlp.steps[0].weight
    x = inputs_of([Flat(7)], ROWS, 0)
    torch.testing.assert_close(block(x), mlp(x))


def test_factorized_layer_learns_a_square():
    block = FactorizedNetwork([Flat(1)], width=2, layers=1, merge="concat")
    torch.nn.init.ones_(block.layers[0].map.weight)
    x = torch.tensor([[3.0], [0.5]])
    torch.testing.assert_close(block([x]), torch.cat([x, x.square()], dim=1))


def test_factorized_counts_those_of_the_public_run():
    # The authors' MovielensLatest_x1 log: 916021 parameters, of which tables 90242 rows x 10 and
    # the last linear layer 401; one block of 400 units with batch normalisation on 30 inputs.
    block = FactorizedNetwork([Fields(3, 10)], width=400, layers=1, norm="batch", merge="concat")
    assert parameters_of(block) == 916_021 - 90_242 * 10 - 401
    assert parameters_of(FactorizedNetwork([Flat(30)], width=400, layers=1, merge="sum")) == 24_800


def test_factorized_concat_grows_in_width_only():
    block = FactorizedNetwork([Flat(7)], width=32, layers=2, merge="concat")
    with pytest.raises(GrowthError, match="products"):
        block.grow(layers=3)
    _, plan = FactorizedNetwork([Flat(7)], width=35, layers=2, merge="concat").grow(width=38)
    assert plan.outputs == (*range(18), FRESH, *range(18, 35), FRESH, FRESH)


# Two streams


def perceptron(mlp, x):
    for step in mlp.steps:
        if isinstance(step, torch.nn.Linear):
            x = affine(step.weight, step.bias, x)
        elif isinstance(step, torch.nn.BatchNorm1d):
            scale = step.weight / (step.running_var + step.eps) ** 0.5
            x = (x - step.running_mean) * scale + step.bias
        else:
            x = x.clamp(min=0)
    return x


def gated(block, fields, stream):
    x = torch.cat(list(fields))
    if block.gate == "none":
        return x
    gate = block.gates[stream]
    context = fields[min(stream, len(fields) - 1)] if block.gate == "fields" else gate.context[0]
    hidden = affine(gate.inner.weight, gate.inner.bias, context).clamp(min=0)
    logits = affine(gate.outer.weight, gate.outer.bias, hidden)
    return torch.stack([2 * part / (1 + (-logit).exp()) for part, logit in zip(x, logits)])


def two_stream_reference(block, row):
    fields = torch.cat(list(row))
    one = perceptron(block.first, gated(block, fields, 0))
    two = perceptron(block.second, gated(block, fields, 1))
    fusion, heads = block.fusion, block.fusion.heads
    out = affine(fusion.first.weight, fusion.first.bias, one)
    out = out + affine(fusion.second.weight, None, two)
    for head in range(heads):
        for i, left in enumerate(one[head::heads]):
            for j, right in enumerate(two[head::heads]):
                out = out + left * fusion.pairs[head, i, j] * right
    return out


@pytest.mark.parametrize("gate", ["none", "learned", "fields"])
@pytest.mark.parametrize(
    ("shapes", "heads", "norm"),
    [
        ([Fields(3, 2)], 1, "none"),
        ([Fields(1, 2), Fields(1, 2)], 3, "batch"),
        ([Fields(1, 3)], 2, "none"),
    ],
)
def test_two_stream_is_the_formula(shapes, heads, norm, gate):
    made = TwoStream(
        shapes,
        width1=6,
        layers1=2,
        width2=4,
        layers2=1,
        norm=norm,
        heads=heads,
        gate=gate,
        gate_width=3,
    )
    assert_same(made, two_stream_reference)


def test_heads_of_the_fusion_are_blocks_of_one_matrix():
    sizes = {"width1": 6, "width2": 9, "layers1": 1, "layers2": 1}
    many = TwoStream([Fields(2, 3)], heads=3, **sizes).double()
    one = TwoStream([Fields(2, 3)], heads=1, **sizes).double()
    with torch.no_grad():
        for ours, theirs in zip(one.parameters(), many.parameters()):
            if ours.shape == theirs.shape:
                ours.copy_(theirs)
        one.fusion.pairs.zero_()
        for head in range(3):
            one.fusion.pairs[0, head::3, head::3] = many.fusion.pairs[head]
    x = inputs_of([Fields(2, 3)], ROWS, 0, torch.float64)
    torch.testing.assert_close(one(x), many(x))


def test_learned_gates_start_near_one_and_learn():
    torch.manual_seed(0)
    gates = TwoStream([Fields(20, 10)], width1=8, width2=8, gate="learned").gates
    out = gates[0](torch.zeros(4, 10))
    assert out.shape == (1, 200)
    assert (out - 1).abs().max() < 0.5
    out.square().sum().backward()
    for parameter in gates[0].parameters():
        assert (parameter.grad != 0).double().mean() > 0.9 or parameter is gates[0].inner.weight
    # A context at 0 stops the first matrix until it has moved itself.
    assert gates[0].context.grad.abs().min() > 0


def test_two_stream_counts():
    def count(**arguments):
        sizes = {"width1": 400, "layers1": 1, "width2": 800, "layers2": 2}
        return parameters_of(TwoStream([Fields(3, 10)], **sizes, **arguments))

    streams = (30 * 400 + 400) + (30 * 800 + 800) + (800 * 800 + 800)
    assert count() == streams + 400 + 800 + 1 + 400 * 800
    plain = streams + 400 + 800 + 1 + 400 * 800 // 10
    assert count(heads=10) == plain
    gates = 2 * ((10 * 64 + 64) + (64 * 30 + 30))
    assert count(heads=10, gate="fields") == plain + gates
    assert count(heads=10, gate="learned") == plain + gates + 2 * 10
    assert TwoStream([Fields(3, 10)], width1=401, width2=9, heads=10).fusion.sizes == (410, 10)


def wider_fields(fields, width):
    """Return a feed whose embeddings have one fresh position at their end."""
    return Feed((Fields(fields, width + 1),), same(fields), (*range(width), FRESH))


@pytest.mark.parametrize("gate", ["none", "learned", "fields"])
def test_two_stream_absorbs_wider_embeddings(gate):
    block = TwoStream([Fields(3, 2)], width1=8, width2=8, layers1=1, gate=gate, heads=2).double()
    block = stirred(block, 1)
    grown, _ = block.grow(wider_fields(3, 2))
    x = inputs_of([Fields(3, 3)], ROWS, 0, torch.float64)[0]
    torch.testing.assert_close(grown([x]), block([x[:, :, :2]]))


def test_gates_keep_to_their_fields():
    block = TwoStream([Fields(3, 2)], width1=8, width2=8, gate="fields")
    before = Feed((Fields(4, 2),), (FRESH, 0, 1, 2), same(2))
    with pytest.raises(GrowthError, match="first two fields"):
        block.grow(before)
    single = TwoStream([Fields(1, 2)], width1=8, width2=8, gate="fields")
    with pytest.raises(GrowthError, match="first two fields"):
        single.grow(Feed((Fields(2, 2),), (0, FRESH), same(2)))


# Field gates


def gate_reference(block, row):
    fields = torch.cat(list(row))
    count, width = fields.shape
    out = []
    for f in range(count):
        part = []
        for d in range(width):
            gate = block.gate.bias[f]
            for g in range(count):
                gate = gate + block.gate.weight[f, g] * fields[g, d]
            part.append(fields[f, d] * gate)
        out.append(torch.stack(part))
    gated = torch.stack(out)
    if block.residual == "concat":
        return torch.cat([fields, gated])
    return fields + gated if block.residual == "sum" else gated


@pytest.mark.parametrize("residual", ["concat", "sum", "none"])
@pytest.mark.parametrize("shapes", [[Fields(4, 3)], [Fields(1, 3)], [Fields(2, 3), Fields(3, 3)]])
def test_field_gate_is_the_formula(shapes, residual):
    made = FieldGate(shapes, residual=residual)
    assert_same(made, gate_reference)
    count = sum(shape.fields for shape in shapes)
    assert parameters_of(made) == count * count + count


def test_field_gates_start_open():
    x = inputs_of([Fields(4, 3)], ROWS, 0)
    gated = {
        kind: FieldGate([Fields(4, 3)], residual=kind)(x) for kind in ("concat", "sum", "none")
    }
    torch.testing.assert_close(gated["none"], x[0])
    torch.testing.assert_close(gated["sum"], 2 * x[0])
    torch.testing.assert_close(gated["concat"], torch.cat([x[0], x[0]], dim=1))


def test_field_gate_of_the_identity_squares():
    block = FieldGate([Fields(4, 3)], residual="none")
    torch.nn.init.eye_(block.gate.weight)
    torch.nn.init.zeros_(block.gate.bias)
    x = inputs_of([Fields(4, 3)], ROWS, 0)
    torch.testing.assert_close(block(x), x[0].square())


@pytest.mark.parametrize("residual", ["concat", "sum", "none"])
def test_field_gate_absorbs_wider_embeddings(residual):
    block = stirred(FieldGate([Fields(3, 2)], residual=residual), 1)
    grown, plan = block.grow(wider_fields(3, 2))
    x = inputs_of([Fields(3, 3)], ROWS, 0)[0]
    assert plan.width == (0, 1, FRESH)
    torch.testing.assert_close(grown([x])[:, :, :2], block([x[:, :, :2]]))
