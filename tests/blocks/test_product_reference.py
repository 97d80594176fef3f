"""Blocks of products of fields against loops over rows, pairs and entries, forward and backward."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from making import inputs_of, made, stirred
from torch import Tensor

from autorec.blocks._pairs import pair_map
from autorec.blocks.base import Fields
from autorec.blocks.bilinear import Bilinear
from autorec.blocks.cin import CIN
from autorec.blocks.fm import FM
from autorec.blocks.fmfm import FmFM
from autorec.blocks.fwfm import FwFM
from autorec.blocks.growth import FRESH, Feed, same
from autorec.blocks.inner_product import InnerProduct
from autorec.blocks.outer_product import OuterProduct
from autorec.errors import ConfigError, GrowthError

SIZES = [(2, 3), (3, 1), (5, 2)]
KINDS = [
    (kind, product) for kind in ("all", "each", "interaction") for product in ("hadamard", "inner")
]
SUMMED = ["fwfm", "fmfm"]
PAIRWISE = ["inner_product", "outer_product", "bilinear"]


def rows_of(count: int, width: int, rows: int = 3) -> Tensor:
    """Return standard-normal fields (rows, count, width)."""
    return inputs_of([Fields(count, width)], rows, count, torch.float64)[0]


def built(cls, count, width, **arguments):
    """Return a block with every parameter drawn from N(0, 1)."""
    block = cls([Fields(count, width)], **arguments).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return block


def assert_same(block, reference, fields):
    """Compare outputs, and gradients of a random weighting of them, with a loop over rows."""
    gradients = []
    for forward in (lambda x: block([x]), lambda x: torch.stack([reference(row) for row in x])):
        x = fields.clone().requires_grad_()
        out = forward(x)
        weight = torch.linspace(-1.0, 2.0, out.numel(), dtype=out.dtype).view_as(out)
        leaves = [x, *block.parameters()]
        gradients.append((out.detach(), *torch.autograd.grad((out * weight).sum(), leaves)))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def bilinear_form(left: Tensor, matrix: Tensor, right: Tensor) -> Tensor:
    width = range(len(left))
    return sum(left[d] * matrix[d, e] * right[e] for d in width for e in width)


@pytest.mark.parametrize(("count", "width"), SIZES)
def test_inner_products_come_pair_by_pair(count, width):
    block = built(InnerProduct, count, width)

    def reference(row):
        pairs = combinations(range(count), 2)
        return torch.stack([sum(row[i, d] * row[j, d] for d in range(width)) for i, j in pairs])

    assert_same(block, reference, rows_of(count, width))
    assert not list(block.parameters())
    total = block([rows_of(count, width)]).sum(dim=1, keepdim=True)
    torch.testing.assert_close(total, FM(block.shapes)([rows_of(count, width)]))


@pytest.mark.parametrize(("count", "width"), SIZES)
def test_outer_products_meet_a_kernel_of_their_own(count, width):
    block = built(OuterProduct, count, width)

    def reference(row):
        pairs = enumerate(combinations(range(count), 2))
        return torch.stack([bilinear_form(row[i], block.weight[k], row[j]) for k, (i, j) in pairs])

    assert_same(block, reference, rows_of(count, width))
    assert block.weight.numel() == count * (count - 1) // 2 * width**2


@pytest.mark.parametrize(("count", "width"), SIZES)
def test_fwfm_weighs_every_pair(count, width):
    block = built(FwFM, count, width)

    def reference(row):
        pairs = enumerate(combinations(range(count), 2))
        return sum(block.weight[k] * (row[i] * row[j]).sum() for k, (i, j) in pairs).view(1)

    assert_same(block, reference, rows_of(count, width))
    assert block.weight.numel() == count * (count - 1) // 2


@pytest.mark.parametrize(("count", "width"), SIZES)
def test_fmfm_has_a_matrix_for_every_pair(count, width):
    block = built(FmFM, count, width)

    def reference(row):
        pairs = enumerate(combinations(range(count), 2))
        return sum(bilinear_form(row[i], block.weight[k], row[j]) for k, (i, j) in pairs).view(1)

    assert_same(block, reference, rows_of(count, width))
    assert block.weight.numel() == count * (count - 1) // 2 * width**2


@pytest.mark.parametrize(("count", "width"), SIZES)
@pytest.mark.parametrize(("kind", "product"), KINDS)
def test_bilinear_maps_the_left_field(count, width, kind, product):
    block = built(Bilinear, count, width, kind=kind, product=product)

    def reference(row):
        out = []
        for k, (i, j) in enumerate(combinations(range(count), 2)):
            matrix = block.weight[{"all": 0, "each": i, "interaction": k}[kind]]
            mapped = [sum(row[i, d] * matrix[d, e] for d in range(width)) for e in range(width)]
            products = [mapped[e] * row[j, e] for e in range(width)]
            out += products if product == "hadamard" else [sum(products)]
        return torch.stack(out)

    assert_same(block, reference, rows_of(count, width))
    matrices = {"all": 1, "each": count - 1, "interaction": count * (count - 1) // 2}[kind]
    assert block.weight.numel() == matrices * width**2


@pytest.mark.parametrize(("count", "width"), [(1, 2), (2, 2), (3, 2)])
@pytest.mark.parametrize(("maps", "layers"), [(1, 1), (2, 2), (3, 3)])
def test_cin_compresses_products_with_the_first_fields(count, width, maps, layers):
    block = built(CIN, count, width, maps=maps, layers=layers)

    def reference(row):
        before, out = row, []
        for layer in block.layers:
            weight = layer.weight.view(maps, len(before), count)
            before = torch.stack(
                [
                    sum(
                        weight[h, i, j] * before[i] * row[j]
                        for i in range(len(before))
                        for j in range(count)
                    )
                    for h in range(maps)
                ]
            )
            out += [before[h].sum() for h in range(maps)]
        return torch.stack(out)

    assert_same(block, reference, rows_of(count, width, rows=2))
    expected = maps * count**2 + (layers - 1) * maps**2 * count
    assert sum(parameter.numel() for parameter in block.parameters()) == expected


def test_pairs_come_in_lexicographic_order():
    fields = torch.tensor([[[2.0], [3.0], [5.0], [7.0]]])
    expected = torch.tensor([[6.0, 10.0, 14.0, 15.0, 21.0, 35.0]])
    torch.testing.assert_close(InnerProduct([Fields(4, 1)])([fields]), expected)


def test_unit_weights_leave_the_factorisation_machine():
    shapes, fields = [Fields(5, 3)], rows_of(5, 3)
    pairs, expected = InnerProduct(shapes)([fields]), FM(shapes)([fields])
    eye = torch.eye(3, dtype=torch.float64)
    fwfm, fmfm, outer = FwFM(shapes).double(), FmFM(shapes).double(), OuterProduct(shapes).double()
    with torch.no_grad():
        fwfm.weight.fill_(1.0)
        fmfm.weight.copy_(eye.expand(10, 3, 3))
        outer.weight.copy_(eye.expand(10, 3, 3))
    torch.testing.assert_close(fwfm([fields]), expected)
    torch.testing.assert_close(fmfm([fields]), expected)
    torch.testing.assert_close(outer([fields]), pairs)


def test_fmfm_holds_fwfm_and_sums_outer_products():
    fwfm, fmfm = built(FwFM, 4, 3), built(FmFM, 4, 3)
    outer, fields = built(OuterProduct, 4, 3), rows_of(4, 3)
    torch.testing.assert_close(fmfm([fields]), outer([fields]).sum(dim=1, keepdim=True))
    with torch.no_grad():
        fmfm.weight.copy_(fwfm.weight.view(-1, 1, 1) * torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(fmfm([fields]), fwfm([fields]))


def test_kinds_of_bilinear_are_one_another_with_shared_weights():
    fields, owners = rows_of(4, 3), [0, 0, 0, 1, 1, 2]
    for product in ("hadamard", "inner"):
        everyone, each, own = (
            built(Bilinear, 4, 3, kind=kind, product=product)
            for kind in ("all", "each", "interaction")
        )
        with torch.no_grad():
            own.weight.copy_(each.weight[owners])
        torch.testing.assert_close(own([fields]), each([fields]))
        with torch.no_grad():
            each.weight.copy_(everyone.weight.expand(3, 3, 3))
        torch.testing.assert_close(each([fields]), everyone([fields]))


@pytest.mark.parametrize("kind", ["all", "each", "interaction"])
def test_inner_bilinear_sums_the_hadamard_one(kind):
    fields = rows_of(4, 3)
    hadamard = built(Bilinear, 4, 3, kind=kind)
    inner = built(Bilinear, 4, 3, kind=kind, product="inner")
    torch.testing.assert_close(inner([fields]), hadamard([fields]).view(3, 6, 3).sum(dim=2))
    if kind == "interaction":
        torch.testing.assert_close(inner([fields]), built(OuterProduct, 4, 3)([fields]))


def test_cin_of_ones_is_powers_of_the_sum_and_of_a_triangle_is_fm():
    fields = rows_of(4, 3)
    block = CIN([Fields(4, 3)], maps=1, layers=3).double()
    with torch.no_grad():
        for layer in block.layers:
            layer.weight.fill_(1.0)
    total = fields.sum(dim=1)
    expected = torch.stack([(total**power).sum(dim=1) for power in (2, 3, 4)], dim=1)
    torch.testing.assert_close(block([fields]), expected)
    with torch.no_grad():
        block.layers[0].weight.copy_(torch.ones(4, 4).triu(1).view(1, 16))
    torch.testing.assert_close(block([fields])[:, :1], FM([Fields(4, 3)])([fields]))


@pytest.mark.parametrize("name", [*SUMMED, *PAIRWISE])
@pytest.mark.parametrize("seed", range(3))
def test_one_field_has_no_pair_but_a_gradient(name, seed):
    block = made(name, [Fields(1, 3)], seed)
    fields = torch.randn(4, 1, 3, requires_grad=True)
    out = block([fields])
    assert out.shape == (4, 1) and not out.any()
    out.sum().backward()
    assert fields.grad.shape == fields.shape and not fields.grad.any()
    assert block.weights() == 0
    copy, plan = block.grow()
    assert torch.equal(copy([fields]), out) and plan.outputs == (0,)


def test_bilinear_says_which_kinds_there_are():
    with pytest.raises(ConfigError, match=r"kind is one of .*but got 'every'"):
        Bilinear([Fields(2, 3)], kind="every")
    with pytest.raises(ConfigError, match=r"product is one of .*but got 'outer'"):
        Bilinear([Fields(2, 3)], product="outer")


def test_pairs_follow_their_fields():
    assert pair_map((0, FRESH, 1, 2)) == (FRESH, 0, 1, FRESH, FRESH, 2)
    assert pair_map((0, FRESH)) == (FRESH,)
    assert pair_map((0,)) == ()
    with pytest.raises(GrowthError, match="old order, but got"):
        pair_map((1, 0))


def grown_feed(units, width, unit_map, width_map):
    """Return a feed, old inputs, and the inputs that fit the feed and hold the old ones."""
    shape = Fields(len(unit_map), len(width_map))
    old, new = rows_of(units, width, 20), rows_of(shape.fields, shape.width, 20)
    for place, unit in enumerate(unit_map):
        for part, source in enumerate(width_map):
            if FRESH not in (unit, source):
                new[:, place, part] = old[:, unit, source]
    return Feed((shape,), unit_map, width_map), old, new


def outputs_of(block, plan, old, new):
    """Return the outputs of the old block and those that the plan says are the same."""
    order = sorted((was, now) for now, was in enumerate(plan.outputs) if was != FRESH)
    before = block([old])
    assert [was for was, _ in order] == list(range(before.shape[1]))
    return before, new[:, [now for _, now in order]]


FIELD_MAPS = [(0, 1, 2), (0, 1, 2, FRESH), (FRESH, 0, FRESH, 1, 2)]
WIDENING = [("fmfm", {}), ("outer_product", {})]
WIDENING += [("bilinear", {"kind": kind, "product": product}) for kind, product in KINDS]


@pytest.mark.parametrize("units", FIELD_MAPS)
@pytest.mark.parametrize("width", [(0, 1), (0, 1, FRESH), (FRESH, 0, 1, FRESH)])
@pytest.mark.parametrize(("name", "arguments"), WIDENING)
def test_wider_and_more_fields_keep_old_outputs(units, width, name, arguments):
    feed, old, new = grown_feed(3, 2, units, width)
    block = stirred(made(name, [Fields(3, 2)], 0, **arguments).double(), 0)
    grown, plan = block.grow(feed)
    before, after = outputs_of(block, plan, old, grown([new]))
    torch.testing.assert_close(after, before, rtol=0.0, atol=1e-12)
    if FRESH in plan.outputs:
        outputs = grown([new])
        fresh = [place for place, source in enumerate(plan.outputs) if source == FRESH]
        assert outputs[:, fresh].any(dim=0).all(), "a fresh output that starts at 0 cannot learn"
    # Whatever is fresh in the weight hears something, so that it moves from the first step on.
    grown.zero_grad()
    grown([new]).square().sum().backward()
    if plan.outputs == same(len(plan.outputs)):
        assert grown.weight.grad.ne(0).all()


@pytest.mark.parametrize("name", ["inner_product", "fwfm", "cin"])
def test_what_sums_over_the_width_refuses_a_wider_one(name):
    feed, _, _ = grown_feed(3, 2, (0, 1, 2), (0, 1, FRESH))
    with pytest.raises(GrowthError, match="keeps its function only while the embedding width"):
        made(name, [Fields(3, 2)], 0).grow(feed)


@pytest.mark.parametrize("name", PAIRWISE)
def test_the_zero_of_one_field_is_not_a_pair_later(name):
    feed, _, _ = grown_feed(1, 2, (0, FRESH), (0, 1))
    with pytest.raises(GrowthError, match="grows from at least two fields, but"):
        made(name, [Fields(1, 2)], 0).grow(feed)


@pytest.mark.parametrize("name", SUMMED)
def test_sums_over_pairs_grow_from_one_field(name):
    feed, old, new = grown_feed(1, 2, (0, FRESH), (0, 1))
    block = made(name, [Fields(1, 2)], 0).double()
    grown, plan = block.grow(feed)
    assert torch.equal(grown([new]), block([old])) and plan.outputs == (0,)
    assert grown.weights() > 0


def test_cin_grows_in_all_directions_at_once():
    feed, old, new = grown_feed(3, 2, (FRESH, 0, 1, FRESH, 2), (0, 1))
    block = stirred(CIN([Fields(3, 2)], maps=4, layers=2).double(), 0)
    grown, plan = block.grow(feed, maps=6, layers=3)
    before, after = outputs_of(block, plan, old, grown([new]))
    torch.testing.assert_close(after, before, rtol=0.0, atol=1e-12)
    assert plan.outputs[:8] == (0, 1, 2, 3, FRESH, FRESH, 4, 5)
