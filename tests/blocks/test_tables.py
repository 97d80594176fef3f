"""Id tables: every kind against loops, collisions where they belong, and a width that grows."""

from __future__ import annotations

import math

import pytest
import torch
from making import BLOCKS

from autorec.blocks.embedding import Embedding
from autorec.blocks.field_aware import FieldAware
from autorec.blocks.growth import FRESH
from autorec.blocks.hashed_embedding import HashedEmbedding
from autorec.blocks.qr_embedding import QREmbedding

TABLES = [name for name in BLOCKS.names() if BLOCKS.get(name).role in ("table", "pairs")]
ROWS, LISTS = (40, 9), (17,)


def codes_of(rows=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    codes = torch.stack([torch.randint(0, r, (rows,), generator=g) for r in ROWS], dim=1).int()
    words = torch.randint(1, LISTS[0], (rows, 4), generator=g).int()
    words[0], words[1, 2:] = 0, 0
    return [codes, words]


def made(name, **changes):
    torch.manual_seed(0)
    block = BLOCKS.get(name)(ROWS, LISTS, **{"width": 5, **changes}).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    return block


def mean_of_list(values, vector):
    present = [vector(v) for v in values.tolist() if v != 0]
    return sum(present) / len(present) if present else vector(0)


def check(block, vector):
    """Compare `block` with `vector(field, code)`, forward and backward."""
    inputs = codes_of()
    expected = []
    for row, words in zip(*inputs, strict=True):
        fields = [vector(f, int(code)) for f, code in enumerate(row)]
        fields.append(mean_of_list(words, lambda v: vector(2, v)))
        expected.append(torch.stack(fields))
    expected, out = torch.stack(expected), block(inputs)
    torch.testing.assert_close(out, expected)
    weight = torch.randn(out.shape, dtype=torch.float64)
    ours = torch.autograd.grad((out * weight).sum(), list(block.parameters()))
    theirs = torch.autograd.grad((expected * weight).sum(), list(block.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("ratio", [2, 4, 64])
def test_qr_is_remainder_plus_quotient(ratio):
    block = made("qr_embedding", ratio=ratio)
    counts = [*ROWS, *LISTS]
    modulus = [math.ceil(r / ratio) for r in counts]
    quotients = [math.ceil(r / m) for r, m in zip(counts, modulus, strict=True)]

    def vector(field, code):
        r = sum(modulus[:field]) + code % modulus[field]
        q = sum(quotients[:field]) + code // modulus[field]
        return block.remainder[r] + block.quotient[q]

    check(block, vector)


def test_no_two_codes_share_quotient_and_remainder():
    block = QREmbedding((1000,), width=4, ratio=16)
    out = block([torch.arange(1000, dtype=torch.int32).unsqueeze(1)]).squeeze(1)
    assert len(torch.unique(out, dim=0)) == 1000
    assert block.weights() == 4 * (63 + 16)


def test_hashing_keeps_null_and_unknown_apart_and_spreads_the_rest():
    block = HashedEmbedding((100_002,), width=2, ratio=16).double()
    torch.nn.init.normal_(block.table)
    out = block([torch.arange(100_002, dtype=torch.int32).unsqueeze(1)]).squeeze(1)
    _, place, sizes = torch.unique(out, dim=0, return_inverse=True, return_counts=True)
    assert sizes[place[0]] == 1 and sizes[place[1]] == 1
    # 100,000 codes on 6,250 rows: 16 each; a random function would leave a standard deviation of 4.
    rest = sizes[sizes > 1].double()
    assert len(sizes) > 6_200 and rest.std() < 8 and rest.max() < 48


def test_hashed_rows_lie_in_their_own_field():
    block = made("hashed_embedding", ratio=4)
    out = block(codes_of(rows=200))
    kept = [2 + math.ceil((r - 2) / 4) for r in ROWS]
    first = [0, kept[0], kept[0] + kept[1]]
    for f in range(2):
        own = block.table[first[f] : first[f + 1]]
        assert all((own == row).all(dim=1).any() for row in out[:, f])


def test_field_aware_is_the_product_of_what_each_keeps_for_the_other():
    block = made("field_aware")
    inputs, starts = codes_of(), [0, 40, 49]
    table = block.table.view(-1, 3, 5)

    def kept_for(row, field, other):
        if field < 2:
            return table[starts[field] + int(inputs[0][row, field]), other]
        return mean_of_list(inputs[1][row], lambda v: table[starts[2] + v, other])

    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = torch.stack(
        [
            torch.stack([kept_for(r, i, j) * kept_for(r, j, i) for i, j in pairs])
            for r in range(len(inputs[0]))
        ]
    )
    out = block(inputs)
    torch.testing.assert_close(out, expected)
    (ours,) = torch.autograd.grad(out.square().sum(), block.table)
    (theirs,) = torch.autograd.grad(expected.square().sum(), block.table)
    torch.testing.assert_close(ours, theirs)


def test_one_field_has_no_pair():
    block = FieldAware((7,), width=3)
    out = block([torch.tensor([[1], [2]], dtype=torch.int32)])
    assert out.shape == (2, 1, 3) and not out.any() and out.requires_grad


@pytest.mark.parametrize("name", TABLES)
def test_every_table_counts_its_weights_and_has_the_shape_it_says(name):
    block = made(name)
    out = block(codes_of())
    assert out.shape == (6, block.shape.fields, block.shape.width)
    assert block.weights() == sum(p.numel() for p in block.parameters())
    assert block.flops() >= 0


@pytest.mark.parametrize("name", TABLES)
def test_a_wider_table_keeps_its_old_columns(name):
    block = made(name)
    grown, plan = block.grow(width=8)
    assert plan.width == (0, 1, 2, 3, 4, FRESH, FRESH, FRESH)
    with torch.no_grad():
        torch.testing.assert_close(grown(codes_of())[..., :5], block(codes_of()))
    assert grown.shape.width == 8


@pytest.mark.parametrize("name", TABLES)
def test_lists_alone_and_ids_alone_work(name):
    only_ids = BLOCKS.get(name)(ROWS, width=3)
    assert only_ids([codes_of()[0]]).shape[1:] == (only_ids.shape.fields, 3)
    only_lists = BLOCKS.get(name)((), (17, 5), width=3)
    words = codes_of()[1]
    lists = [words, words.clamp(max=4)]
    out = only_lists([torch.zeros(6, 0, dtype=torch.int32), *lists])
    assert out.shape[1:] == (only_lists.shape.fields, 3)


def test_plain_table_starts_small():
    assert float(Embedding((5000,), width=8).table.detach().std()) == pytest.approx(1e-4, rel=0.05)
