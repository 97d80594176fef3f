"""Blocks from fields to fields against loops over rows, fields and pairs, forward and backward."""

from __future__ import annotations

import math

import pytest
import torch
from making import inputs_of, stirred
from torch import Tensor

from autorec.blocks.autoint import AutoInt
from autorec.blocks.base import Fields
from autorec.blocks.destine import Destine
from autorec.blocks.feature_norm import FeatureNorm
from autorec.blocks.fm import FM
from autorec.blocks.growth import FRESH, Feed, same
from autorec.blocks.senet import SENet
from autorec.blocks.token_mixer import TokenMixer
from autorec.blocks.wukong import Wukong
from autorec.errors import ConfigError, GrowthError

SHAPES = [[Fields(4, 3)], [Fields(1, 3)], [Fields(2, 3), Fields(3, 3)], [Fields(3, 1)]]
ROWS = 3


def fields_of(count: int, width: int, rows: int = ROWS) -> Tensor:
    return inputs_of([Fields(count, width)], rows, count, torch.float64)[0]


def assert_same(block, reference):
    """Compare outputs, and gradients of a random weighting of them, with a loop over rows."""
    block = stirred(block.double(), 3)
    gradients = []
    for forward in (block, lambda x: torch.stack([reference(block, row) for row in zip(*x)])):
        inputs = [x.requires_grad_() for x in inputs_of(block.shapes, ROWS, 5, torch.float64)]
        out = forward(inputs)
        weight = torch.linspace(-1.0, 2.0, out.numel(), dtype=out.dtype).view_as(out)
        leaves = [*inputs, *block.parameters()]
        gradients.append((out.detach(), *torch.autograd.grad((out * weight).sum(), leaves)))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def count_of(block) -> int:
    return sum(parameter.numel() for parameter in block.parameters())


def softmax(scores: list[Tensor]) -> list[Tensor]:
    powers = [score.exp() for score in scores]
    return [power / sum(powers) for power in powers]


def normed(entries: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    mean = sum(entries) / len(entries)
    variance = sum((entry - mean) ** 2 for entry in entries) / len(entries)
    out = [(entry - mean) / (variance + 1e-5).sqrt() for entry in entries]
    return torch.stack(out) * gain + bias


def wider(count: int, width: int) -> Feed:
    """Return a feed of `count` fields that have got one entry more."""
    return Feed((Fields(count, width + 1),), same(count), (*range(width), FRESH))


def more(count: int, width: int) -> Feed:
    """Return a feed of `count` fields and one fresh one behind them."""
    return Feed((Fields(count + 1, width),), (*range(count), FRESH), same(width))


# Attention


def heads_of(linear, field: Tensor, layer) -> list[Tensor]:
    units = [sum(row[i] * field[i] for i in range(len(field))) for row in linear.weight]
    width = layer.width
    return [torch.stack(units[h * width : (h + 1) * width]) for h in range(layer.heads)]


def attended(layer, fields: list[Tensor], weights, values) -> list[Tensor]:
    """Sum values by weights[h][m][k], concatenate the heads, add the residual map."""
    out = []
    for m, field in enumerate(fields):
        parts = [
            sum(weights[h][m][k] * values[k][h] for k in range(len(fields)))
            for h in range(layer.heads)
        ]
        whole = torch.cat(parts)
        if layer.residual is not None:
            whole = whole + torch.cat(heads_of(layer.residual, field, layer))
        out.append(whole)
    return out


def divided(layer, block, score):
    """Divide by the root of the width of a head, where the block scales."""
    return score / layer.width**0.5 if block.arguments["scale"] else score


def layer_normed(norm, out):
    mean = sum(out) / len(out)
    deviation = (sum((v - mean) ** 2 for v in out) / len(out) + norm.eps) ** 0.5
    normed = [norm.weight[i] * (v - mean) / deviation + norm.bias[i] for i, v in enumerate(out)]
    return torch.stack(normed)


def autoint_reference(block, row):
    fields = list(torch.cat(row))
    for layer in block.layers:
        queries = [heads_of(layer.query, field, layer) for field in fields]
        keys = [heads_of(layer.key, field, layer) for field in fields]
        values = [heads_of(layer.value, field, layer) for field in fields]
        weights = [
            [
                softmax([divided(layer, block, query[h] @ key[h]) for key in keys])
                for query in queries
            ]
            for h in range(layer.heads)
        ]
        outs = attended(layer, fields, weights, values)
        if block.arguments["norm"] == "layer":
            outs = [layer_normed(layer.norm, out) for out in outs]
        fields = [out.clamp(min=0) for out in outs]
    return torch.stack(fields)


def destine_reference(block, row):
    fields = list(torch.cat(row))
    for layer in block.layers:
        maps = []
        for linear in (layer.query, layer.key, layer.value):
            maps.append([heads_of(linear, field, layer) for field in fields])
            if layer.relu:
                maps[-1] = [[head.clamp(min=0) for head in field] for field in maps[-1]]
        queries, keys, values = maps
        weights = []
        for h in range(layer.heads):
            mean_query = sum(query[h] for query in queries) / len(fields)
            mean_key = sum(key[h] for key in keys) / len(fields)
            single = softmax([layer.unary.weight[h] @ field for field in fields])
            rows = []
            for query in queries:
                scores = [(query[h] - mean_query) @ (key[h] - mean_key) for key in keys]
                pairs = softmax([divided(layer, block, score) for score in scores])
                rows.append([pair + one for pair, one in zip(pairs, single)])
            weights.append(rows)
        fields = attended(layer, fields, weights, values)
    return torch.stack(fields)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(
    ("layers", "heads", "residual"), [(1, 2, True), (2, 1, True), (2, 2, False)]
)
def test_autoint_is_the_formula(shapes, layers, heads, residual):
    block = AutoInt(shapes, layers=layers, heads=heads, width=2, residual=residual)
    assert_same(block, autoint_reference)
    inner = shapes[0].width + (layers - 1) * heads * 2
    assert count_of(block) == (4 if residual else 3) * inner * heads * 2


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_autoint_of_the_public_runs_divides_and_normalises(shapes, norm):
    block = AutoInt(shapes, layers=2, heads=2, width=3, scale=True, norm=norm)
    assert_same(block, autoint_reference)
    inner = shapes[0].width + 6
    assert count_of(block) == 4 * inner * 6 + (24 if norm == "layer" else 0)


def test_attention_of_the_public_runs_refuses_what_it_cannot_grow():
    normed = AutoInt([Fields(4, 3)], layers=2, heads=2, width=8, norm="layer")
    with pytest.raises(GrowthError, match="mixes all"):
        normed.grow(heads=3)
    for cls in (AutoInt, Destine):
        scaled = cls([Fields(4, 3)], layers=2, heads=2, width=8, scale=True)
        with pytest.raises(GrowthError, match="root of the width"):
            scaled.grow(width=9)


@pytest.mark.parametrize("shapes", SHAPES)
def test_destine_of_the_public_runs_divides(shapes):
    assert_same(Destine(shapes, layers=2, heads=2, width=3, scale=True), destine_reference)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(("layers", "heads", "relu"), [(1, 2, False), (2, 1, False), (2, 2, True)])
def test_destine_is_the_formula(shapes, layers, heads, relu):
    block = Destine(shapes, layers=layers, heads=heads, width=2, relu=relu)
    assert_same(block, destine_reference)
    inner = shapes[0].width + (layers - 1) * heads * 2
    assert count_of(block) == inner * heads * (4 * 2 + 1)


def test_queries_of_zero_attend_to_all_fields_alike():
    x = fields_of(4, 3)
    for cls, times in ((AutoInt, 1), (Destine, 2)):
        block = cls([Fields(4, 3)], layers=1, heads=1, width=5).double()
        layer = block.layers[0]
        torch.nn.init.zeros_(layer.query.weight)
        if cls is Destine:
            torch.nn.init.zeros_(layer.unary.weight)
        out = times * x.mean(dim=1, keepdim=True) @ layer.value.weight.T + layer.residual(x)
        torch.testing.assert_close(block([x]), out.relu() if cls is AutoInt else out)


def test_the_pairs_of_destine_do_not_hear_what_all_fields_share():
    block = Destine([Fields(4, 3)], layers=1, heads=2, width=3).double()
    layer = block.layers[0]
    for map_ in (layer.residual, layer.value, layer.unary):
        torch.nn.init.zeros_(map_.weight)
    # Values look at the first entry only, queries and keys at the others.
    with torch.no_grad():
        layer.value.weight[:, 0] = 1.0
        layer.query.weight[:, 0] = layer.key.weight[:, 0] = 0.0
    x = fields_of(4, 3)
    moved = x + torch.tensor([0.0, 5.0, -3.0], dtype=torch.float64)
    torch.testing.assert_close(block([x]), block([moved]))
    assert not torch.allclose(block([x]), block([x * torch.tensor([1.0, 5.0, -3.0]).double()]))


@pytest.mark.parametrize("cls", [AutoInt, Destine])
def test_attention_absorbs_wider_embeddings_and_refuses_fields(cls):
    block = stirred(cls([Fields(3, 2)], layers=2, heads=2, width=4).double(), 1)
    grown, plan = block.grow(wider(3, 2), width=8, heads=3, layers=3)
    x = fields_of(3, 3)
    old = [i for i, source in enumerate(plan.width) if source != FRESH]
    assert old == [0, 1, 2, 3, 8, 9, 10, 11] and len(plan.width) == 24
    torch.testing.assert_close(grown([x])[:, :, old], block([x[:, :, :2]]))
    with pytest.raises(GrowthError, match="shares its attention"):
        block.grow(more(3, 2))
    with pytest.raises(GrowthError, match="nothing to choose"):
        cls([Fields(1, 2)], layers=1).grow(heads=3)


def test_attention_refuses_what_would_not_learn():
    with pytest.raises(GrowthError, match="residual=True"):
        AutoInt([Fields(3, 2)], layers=1, residual=False).grow(layers=2)
    block = Destine([Fields(3, 2)], layers=1, relu=True)
    for larger in ({"layers": 2}, {"width": 40}):
        with pytest.raises(GrowthError, match="relu=True"):
            block.grow(**larger)
    x = fields_of(3, 2).float()
    grown, _ = block.grow(heads=3)
    torch.testing.assert_close(grown([x])[:, :, :64], block([x]))


@pytest.mark.parametrize("cls", [AutoInt, Destine])
def test_attention_weights_are_dropped_in_training_only(cls):
    block = cls([Fields(4, 3)], dropout=0.5)
    x = [fields_of(4, 3).float()]
    torch.manual_seed(0)
    assert not torch.equal(block.train()(x), block.train()(x))
    assert torch.equal(block.eval()(x), block.eval()(x))


# Gates and norms of fields


def senet_reference(block, row):
    fields = torch.cat(row)
    means = [sum(field) / len(field) for field in fields]
    hidden = []
    for j in range(block.hidden):
        total = sum(block.squeeze.weight[j, f] * mean for f, mean in enumerate(means))
        hidden.append((total + block.squeeze.bias[j]).clamp(min=0))
    out = []
    for f, field in enumerate(fields):
        gate = sum(block.excite.weight[f, j] * hidden[j] for j in range(block.hidden))
        gate = gate + block.excite.bias[f]
        relu = block.activation == "relu"
        out.append(field * (gate.clamp(min=0) if relu else 1 / (1 + (-gate).exp())))
    return torch.stack(out)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(("reduction", "activation"), [(1, "relu"), (2, "sigmoid"), (9, "relu")])
def test_senet_is_the_formula(shapes, reduction, activation):
    block = SENet(shapes, reduction=reduction, activation=activation)
    assert_same(block, senet_reference)
    count = sum(shape.fields for shape in shapes)
    hidden = max(1, count // reduction)
    assert count_of(block) == 2 * count * hidden + hidden + count


@pytest.mark.parametrize(("activation", "gate"), [("relu", 1.0), ("sigmoid", 0.8807970779778823)])
def test_gates_start_alive(activation, gate):
    block = SENet([Fields(12, 4)], activation=activation).double()
    small = fields_of(12, 4) * 1e-4
    torch.testing.assert_close(block([small]), small * gate, rtol=1e-3, atol=0)
    x = fields_of(12, 4, rows=256)
    assert ((block([x]) / x).mean(dim=(0, 2)) > 0.1).all()


def test_senet_knows_its_activations():
    with pytest.raises(ConfigError, match="activation is one of"):
        SENet([Fields(2, 2)], activation="tanh")


def test_senet_with_a_fresh_field_and_a_fresh_hidden_unit():
    block = stirred(SENet([Fields(3, 2)], reduction=2).double(), 1)
    grown, plan = block.grow(more(3, 2))
    assert (block.hidden, grown.hidden) == (1, 2)
    x = fields_of(4, 2)
    assert plan.outputs == (0, 1, 2, FRESH)
    torch.testing.assert_close(grown([x])[:, :3], block([x[:, :3]]))
    with pytest.raises(GrowthError, match="embedding width"):
        block.grow(wider(3, 2))


def norm_reference(block, row):
    fields = torch.cat(row)
    if fields.shape[1] == 1:
        return fields * block.scale + block.shift
    rows = zip(fields, block.scale, block.shift)
    return torch.stack([normed(field, gain, bias) for field, gain, bias in rows])


@pytest.mark.parametrize("shapes", SHAPES)
def test_feature_norm_is_the_formula(shapes):
    block = FeatureNorm(shapes)
    assert_same(block, norm_reference)
    assert count_of(block) == 2 * sum(shape.size for shape in shapes)


def test_feature_norm_gives_every_field_mean_0_and_variance_1():
    x = fields_of(3, 8, rows=5) * 100 + 7
    out = FeatureNorm([Fields(3, 8)]).double()([x])
    torch.testing.assert_close(out.mean(dim=2), torch.zeros(5, 3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(out.var(dim=2, correction=0), torch.ones(5, 3).double())
    with pytest.raises(GrowthError, match="embedding width"):
        FeatureNorm([Fields(3, 8)]).grow(wider(3, 8))


def test_feature_norm_hands_on_single_entries():
    x = fields_of(3, 1)
    torch.testing.assert_close(FeatureNorm([Fields(3, 1)]).double()([x]), x)


# Token mixer


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def per_token(map_, token: int, x: Tensor) -> Tensor:
    weight, bias = map_.weight[token], map_.bias[token]
    outs = range(weight.shape[1])
    return torch.stack([bias[o] + sum(x[i] * weight[i, o] for i in range(len(x))) for o in outs])


def mixer_reference(block, row):
    tokens = [per_token(block.project, t, field) for t, field in enumerate(torch.cat(row))]
    count, part = len(tokens), block.width // len(tokens)
    for layer in block.layers:
        norm = layer.mixing_norm
        heads = [normed(token, norm.weight, norm.bias) for token in tokens]
        for t in range(count):
            mixed = torch.cat([head[t * part : (t + 1) * part] for head in heads])
            tokens[t] = tokens[t] + mixed
        for t in range(count):
            hidden = normed(tokens[t], layer.norm.weight, layer.norm.bias)
            hidden = gelu(per_token(layer.expand, t, hidden))
            tokens[t] = tokens[t] + per_token(layer.contract, t, hidden)
    return torch.stack([normed(token, block.norm.weight, block.norm.bias) for token in tokens])


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(("layers", "ratio", "width"), [(1, 2, 3), (2, 1, 4)])
def test_token_mixer_is_the_formula(shapes, layers, ratio, width):
    block = TokenMixer(shapes, layers=layers, ratio=ratio, width=width)
    assert_same(block, mixer_reference)
    count = sum(shape.fields for shape in shapes)
    inner = next(size for size in range(width, 99) if size % count == 0)
    assert block.shape == Fields(count, inner)
    layer = 2 * count * ratio * inner**2 + count * (ratio + 1) * inner + 4 * inner
    assert count_of(block) == count * (shapes[0].width + 1) * inner + 2 * inner + layers * layer


def test_a_token_has_two_entries_at_least():
    assert TokenMixer([Fields(1, 3)], width=1).shape == Fields(1, 2)
    assert TokenMixer([Fields(5, 3)], width=6).shape == Fields(5, 10)


def test_mixing_alone_is_the_transpose_of_heads():
    block = TokenMixer([Fields(3, 6)], layers=1, width=6).double()
    layer = block.layers[0]
    for map_ in (layer.contract, block.project):
        torch.nn.init.zeros_(map_.weight)
    with torch.no_grad():
        block.project.weight[:] = torch.eye(6)
    x = fields_of(3, 6)
    x = (x - x.mean(dim=2, keepdim=True)) / x.var(dim=2, keepdim=True, correction=0).sqrt()
    mixed = x.view(ROWS, 3, 3, 2).transpose(1, 2).reshape(ROWS, 3, 6)
    expected = torch.nn.functional.layer_norm(x + mixed, (6,))
    torch.testing.assert_close(block([x]), expected, rtol=1e-4, atol=1e-4)


def test_token_mixer_absorbs_wider_embeddings_and_refuses_fields():
    block = stirred(TokenMixer([Fields(3, 2)], layers=1, width=6, ratio=1).double(), 1)
    grown, plan = block.grow(wider(3, 2), layers=3, ratio=3)
    x = fields_of(3, 3)
    assert (plan.outputs, plan.width) == (same(3), same(6))
    torch.testing.assert_close(grown([x]), block([x[:, :, :2]]))
    with pytest.raises(GrowthError, match="deals the entries"):
        block.grow(more(3, 2))


# Wukong


def wukong_reference(block, row):
    fields = torch.cat(row)
    for layer in block.layers:
        count, rank = layer.products.weight.shape[::-1]
        products = []
        for i in range(count):
            for r in range(rank):
                dots = [fields[i] @ fields[j] * layer.products.weight[r, j] for j in range(count)]
                products.append(sum(dots))
        products = torch.stack(products)
        if len(products) > 1:
            products = normed(products, layer.products_norm.weight, layer.products_norm.bias)
        hidden = (layer.expand.weight @ products + layer.expand.bias).clamp(min=0)
        machine = layer.contract.weight @ hidden + layer.contract.bias
        out = list(machine.view(-1, fields.shape[1]))
        for weights in layer.compress.weight:
            out.append(sum(weight * field for weight, field in zip(weights, fields)))
        if layer.residual is None:
            kept = fields
        else:
            rows = layer.residual.weight
            kept = [sum(w * field for w, field in zip(weights, fields)) for weights in rows]
        whole = torch.cat([one + two for one, two in zip(out, kept, strict=True)])
        norm = layer.norm
        fields = normed(whole, norm.weight.flatten(), norm.bias.flatten()).view(len(out), -1)
    return fields


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(("layers", "fields", "rank"), [(1, 4, 2), (2, 3, 1), (2, 5, 2)])
def test_wukong_is_the_formula(shapes, layers, fields, rank):
    block = Wukong(shapes, layers=layers, fields=fields, rank=rank, width=3)
    assert_same(block, wukong_reference)
    count, width = sum(shape.fields for shape in shapes), shapes[0].width
    total = 0
    for reads in [count] + [fields] * (layers - 1):
        machine, products = (fields + 1) // 2, reads * rank
        total += products + (2 * products if products > 1 else 0) + 2 * fields * width
        total += (products + 1) * 3 + 4 * machine * width + reads * (fields - machine)
        total += reads * fields if reads != fields else 0
    assert count_of(block) == total
    assert block.shape == Fields(fields, width)


def test_the_machine_of_wukong_is_that_of_fm():
    block = Wukong([Fields(5, 3)], layers=1, fields=4, rank=1).double()
    layer, seen = block.layers[0], []
    torch.nn.init.ones_(layer.products.weight)
    layer.products_norm.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0]))
    x = fields_of(5, 3)
    block([x])
    # Summed over all fields: every pair twice, and every field with itself.
    pairs = (seen[0].sum(dim=1) - x.square().sum(dim=(1, 2))) / 2
    torch.testing.assert_close(pairs.unsqueeze(1), FM([Fields(5, 3)])([x]))


def test_wukong_without_interaction_is_the_norm_of_its_input():
    block = Wukong([Fields(4, 3)], layers=1, fields=4).double()
    layer = block.layers[0]
    for map_ in (layer.contract, layer.compress):
        torch.nn.init.zeros_(map_.weight)
    x = fields_of(4, 3)
    torch.testing.assert_close(block([x]), torch.nn.functional.layer_norm(x, (4, 3)))


def test_wukong_refuses_single_fields_and_fresh_inputs():
    with pytest.raises(ConfigError, match="at least 2"):
        Wukong([Fields(4, 3)], fields=1)
    block = Wukong([Fields(4, 3)])
    for feed in (more(4, 3), wider(4, 3)):
        with pytest.raises(GrowthError, match="full weight"):
            block.grow(feed)
    for arg in ("layers", "rank", "fields"):
        with pytest.raises(GrowthError, match="grows in"):
            block.grow(**{arg: 12})


@pytest.mark.parametrize("cls", [TokenMixer, Wukong])
def test_hidden_units_are_dropped_in_training_only(cls):
    block = stirred(cls([Fields(4, 3)], dropout=0.5), 1)
    x = [fields_of(4, 3).float()]
    torch.manual_seed(0)
    assert not torch.equal(block.train()(x), block.train()(x))
    assert torch.equal(block.eval()(x), block.eval()(x))
