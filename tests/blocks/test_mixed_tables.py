"""Tables of a width by field: against loops, their widths, growth, and parts side by side."""

from __future__ import annotations

import math

import pytest
import torch
from making import BLOCKS
from test_tables import LISTS, ROWS, check, codes_of, made

from autorec.blocks._halved import NarrowTable, narrowed
from autorec.blocks._side_by_side import Part, SideBySide
from autorec.blocks.base import Flat
from autorec.blocks.embedding import Embedding
from autorec.blocks.growth import FRESH
from autorec.blocks.mixed_embedding import MixedEmbedding, halvings
from autorec.blocks.soft_bins import SoftBins

COUNTS = (*ROWS, *LISTS)
POWERS = MixedEmbedding.choices()["power"].choices


def halved(count, power):
    """How often D is halved, by trying: the nearest power of two to (R_f / R) ** power."""
    reference = max(COUNTS) if power > 0 else min(COUNTS)
    share = (count / reference) ** power
    return min(range(20), key=lambda k: abs(math.log2(share) + k))


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("width", [4, 5, 8])
def test_mixed_rows_go_through_the_matrix_of_their_field(power, width):
    block = made("mixed_embedding", power=power, width=width)
    times = [halved(count, power) for count in COUNTS]
    assert len(set(times)) > 1

    def vector(field, code):
        same = [f for f in range(3) if times[f] == times[field]]
        place = same.index(field)
        row = block.held[str(times[field])][sum(COUNTS[f] for f in same[:place]) + code]
        assert len(row) == min(width, max(2, width // 2 ** times[field]))
        return row @ block.maps[str(times[field])][place] if times[field] else row

    check(block, vector)
    assert block.weights() == sum(p.numel() for p in block.parameters())


def test_widths_follow_the_vocabulary_up_or_down():
    rows = (16, 256, 4096)
    assert halvings(rows, 0.25) == (2, 1, 0)
    assert halvings(rows, 0.5) == (4, 2, 0)
    assert halvings(rows, -0.25) == (0, 1, 2)
    assert [narrowed(16, k) for k in (0, 1, 2, 4)] == [16, 8, 4, 2]
    assert narrowed(10, 2) == 2 and narrowed(1, 3) == 1
    wide, narrow = MixedEmbedding(rows, width=16, power=0.25), MixedEmbedding(rows, width=16)
    assert wide.weights() == narrow.weights() == 16 * 4 + 4 * 16 + 256 * 8 + 8 * 16 + 4096 * 16
    assert MixedEmbedding(rows, width=16, power=-0.5).weights() < wide.weights() / 5


@pytest.mark.parametrize("power", POWERS)
def test_flops_of_matrices_equal_the_counter_of_torch(power):
    from torch.utils.flop_counter import FlopCounterMode

    block = made("mixed_embedding", power=power, width=16).float()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block(codes_of(8))
    assert block.flops() == counter.get_total_flops() / 8 > 0


def test_one_spelling_of_equal_functions():
    distinct = MixedEmbedding.distinct
    assert distinct((50, 50), 16, power=0.5) is None
    assert distinct((50, 40), 16, power=0.25) is None, "less than half a halving apart"
    assert distinct((16, 4096), 16, power=0.25) == {"power": 0.25}
    # At D = 4 there is one width below it, and both powers give it.
    assert distinct((16, 4096), 4, power=0.5) == distinct((16, 4096), 4, power=0.25)
    assert distinct((16, 4096), 4, power=-0.25) == {"power": -0.5}
    assert distinct((16, 4096), 16, power=-0.25) == {"power": -0.25}
    assert BLOCKS.get("hashed_embedding").distinct((16, 4096), 16, ratio=4) == {"ratio": 4}


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize(("old", "new"), [(4, 5), (5, 8), (8, 32), (4, 64)])
def test_a_wider_mixed_table_keeps_its_function_and_learns(power, old, new):
    block = made("mixed_embedding", power=power, width=old)
    torch.manual_seed(1)
    grown, plan = block.grow(width=new)
    assert plan.width == (*range(old), *[FRESH] * (new - old))
    out = grown(codes_of())
    torch.testing.assert_close(out[..., :old], block(codes_of()))
    weight = torch.randn(out.shape, dtype=torch.float64)
    (out * weight).sum().backward()
    for name, parameter in grown.maps.items():
        assert (parameter.grad != 0).any(dim=0).all(), name


def test_a_table_of_crosses_is_narrow_and_starts_small():
    block = NarrowTable((30, 20), width=16, halvings=2)
    assert block.held["2"].shape == (50, 4) and block.maps["2"].shape == (2, 4, 16)
    assert block.tables() == [block.held["2"]]
    assert block.weights() == 50 * 4 + 2 * 4 * 16
    plain = NarrowTable((3000,), width=8)
    assert not plain.maps and float(plain.held["0"].detach().std()) == pytest.approx(1e-4, rel=0.1)
    codes = torch.tensor([[29, 19], [0, 1]], dtype=torch.int32)
    rows = [
        [block.held["2"][int(c) + 30 * f] @ block.maps["2"][f] for f, c in enumerate(one)]
        for one in codes
    ]
    torch.testing.assert_close(block([codes]), torch.stack([torch.stack(one) for one in rows]))


def side_by_side(width=8):
    torch.manual_seed(0)
    parts = [
        Part(Embedding((9, 5), (17,), width=width), (0, 2), lists=True),
        Part(NarrowTable((30,), width=width, halvings=1), (1,)),
        Part(SoftBins([Flat(2)], width=width, bins=4), numbers=True),
    ]
    block = SideBySide(parts, width=width)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    return block.double()


def inputs(rows=6):
    g = torch.Generator().manual_seed(3)
    codes = [torch.randint(0, r, (rows, 1), generator=g) for r in (9, 30, 5)]
    words = torch.randint(0, 17, (rows, 3), generator=g).sort(descending=True).values
    numbers = torch.randn(rows, 2, generator=g, dtype=torch.float64)
    numbers[0, 0] = math.nan
    return [torch.cat(codes, 1).int(), words.int(), numbers]


def test_parts_lie_side_by_side():
    block, (codes, words, numbers) = side_by_side(), inputs()
    plain, crosses, soft = block.parts
    out = block([codes, words, numbers])
    expected = [plain([codes[:, [0, 2]], words]), crosses([codes[:, [1]]]), soft([numbers])]
    torch.testing.assert_close(out, torch.cat(expected, 1))
    assert out.shape == (6, block.shape.fields, 8) == (6, 6, 8)
    assert block.weights() == sum(p.numel() for p in block.parameters())
    assert block.flops() == crosses.flops() + soft.flops()


def test_parts_grow_together():
    block, rows = side_by_side(), inputs()
    grown, plan = block.grow(width=12)
    assert plan.width == (*range(8), *[FRESH] * 4) and plan.outputs == tuple(range(6))
    torch.testing.assert_close(grown(rows)[..., :8], block(rows))
    assert {name for name, _ in block.named_parameters()} == set(plan.tensors)
    assert [part.arguments["width"] for part in grown.parts] == [12, 12, 12]
