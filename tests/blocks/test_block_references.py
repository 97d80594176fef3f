"""Each block against a reference written in loops, forward and backward."""

from __future__ import annotations

import pytest
import torch

from autorec.blocks.base import Fields, Flat
from autorec.blocks.cross import Cross
from autorec.blocks.embedding import Embedding
from autorec.blocks.fm import FM
from autorec.blocks.mlp import MLP


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fm_reference(fields: torch.Tensor) -> torch.Tensor:
    rows = []
    for row in fields:
        pairs = [row[i] @ row[j] for i in range(len(row)) for j in range(i + 1, len(row))]
        rows.append(sum(pairs, torch.zeros((), dtype=row.dtype)))
    return torch.stack(rows).unsqueeze(1)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fm_is_the_sum_over_pairs(count):
    fields = torch.randn(6, count, 4, generator=generator(count), dtype=torch.float64)
    ours, reference = fields.clone().requires_grad_(), fields.clone().requires_grad_()
    out, expected = FM([Fields(count, 4)])([ours]), fm_reference(reference)
    torch.testing.assert_close(out, expected)
    if count > 1:
        out.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(ours.grad, reference.grad)


def cross_reference(block: Cross, x: torch.Tensor) -> torch.Tensor:
    rows = []
    for first in x:
        out = first
        for linear in block.layers:
            new = []
            for i in range(len(first)):
                inner = sum(linear.weight[i, j] * out[j] for j in range(len(first)))
                new.append(first[i] * (inner + linear.bias[i]) + out[i])
            out = torch.stack(new)
        rows.append(out)
    return torch.stack(rows)


@pytest.mark.parametrize("layers", [1, 3])
def test_cross_is_the_formula_of_dcnv2(layers):
    block = Cross([Flat(2), Flat(3)], layers=layers).double()
    x = torch.randn(4, 5, generator=generator(layers), dtype=torch.float64)
    ours, reference = x.clone().requires_grad_(), x.clone().requires_grad_()
    out = block([ours[:, :2], ours[:, 2:]])
    expected = cross_reference(block, reference)
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, reference.grad)
    assert sum(p.numel() for p in block.parameters()) == layers * (5 * 5 + 5)


def test_mlp_is_linear_relu_in_turn():
    block = MLP([Flat(3)], width=4, layers=2).double()
    x = torch.randn(5, 3, generator=generator(0), dtype=torch.float64)
    out = x
    for linear in [m for m in block.steps if isinstance(m, torch.nn.Linear)]:
        out = (out @ linear.weight.T + linear.bias).clamp(min=0)
    torch.testing.assert_close(block([x]), out)
    assert sum(p.numel() for p in block.parameters()) == (3 * 4 + 4) + (4 * 4 + 4)


def test_mlp_drops_units_in_training_only():
    block = MLP([Flat(8)], width=64, layers=1, dropout=0.5)
    x = torch.ones(32, 8)
    torch.manual_seed(0)
    assert not torch.equal(block.train()([x]), block.train()([x]))
    assert torch.equal(block.eval()([x]), block.eval()([x]))


def test_batch_norm_centres_units():
    block = MLP([Flat(6)], width=32, layers=1, norm="batch").train()
    block([torch.randn(512, 6, generator=generator(1)) * 5 + 3])
    norm = next(m for m in block.steps if isinstance(m, torch.nn.BatchNorm1d))
    assert norm.running_mean.abs().sum() > 0


def embedding_reference(block, starts, codes, lists, rows):
    out = []
    for r in range(rows):
        fields = [block.table[starts[f] + codes[r, f]] for f in range(codes.shape[1])]
        for k, values in enumerate(lists):
            start = starts[codes.shape[1] + k]
            present = [block.table[start + v] for v in values[r].tolist() if v != 0]
            fields.append(sum(present) / len(present) if present else block.table[start])
        out.append(torch.stack(fields))
    return torch.stack(out)


@pytest.mark.parametrize("with_codes", [True, False])
def test_embedding_gathers_rows_and_averages_lists(with_codes):
    rows, list_rows = ([4, 3] if with_codes else []), [6]
    block = Embedding(rows, list_rows, width=5).double()
    torch.nn.init.normal_(block.table)
    starts = [0, 4, 7] if with_codes else [0]
    codes = torch.tensor([[0, 2], [3, 1], [1, 0]], dtype=torch.int32)[:, : len(rows)]
    lists = [torch.tensor([[1, 5, 0], [0, 0, 0], [2, 2, 3]], dtype=torch.int32)]
    expected = embedding_reference(block, starts, codes, lists, 3)
    out = block([codes, *lists])
    torch.testing.assert_close(out, expected)
    weight = torch.randn(out.shape, generator=generator(3), dtype=torch.float64)
    (out * weight).sum().backward()
    ours = block.table.grad.clone()
    block.table.grad = None
    (embedding_reference(block, starts, codes, lists, 3) * weight).sum().backward()
    torch.testing.assert_close(ours, block.table.grad)


def test_fields_of_one_code_do_not_share_rows():
    block = Embedding([3, 3], width=2)
    out = block([torch.tensor([[1, 1]], dtype=torch.int32)])
    assert not torch.equal(out[0, 0], out[0, 1])
