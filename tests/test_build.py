"""Networks from candidates: every sample of a space builds, trains a step, counts itself right."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from autorec.architecture import Architecture, Node
from autorec.build import build
from autorec.candidate import Candidate, Features, Recipe
from autorec.catalogue import Catalogue
from autorec.errors import SpaceError
from autorec.schema import DenseField, Layout, ListField, SparseField
from autorec.seeding import numpy_rng

SPACES = Catalogue("autorec.search_spaces", leaf="Space")
IDS = (SparseField("user", 9, "user"), SparseField("item", 7, "item"))
BINS = (SparseField("x#bin", 5, "x", binned=True),)
LAYOUTS = {
    "sparse": Layout(sparse=IDS),
    "dense": Layout(sparse=BINS, dense=(DenseField("x", nullable=True),)),
    "lists": Layout(lists=(ListField("words", 6, 3),)),
    "mixed": Layout(sparse=IDS + BINS, lists=(ListField("words", 6, 3),), dense=(DenseField("x"),)),
}


def batch_of(layout, rows=16, seed=0):
    g = torch.Generator().manual_seed(seed)
    codes = [torch.randint(0, f.rows, (rows, 1), generator=g) for f in layout.sparse]
    lists = [torch.randint(0, f.rows, (rows, f.length), generator=g) for f in layout.lists]
    dense = torch.randn(rows, len(layout.dense), generator=g)
    if dense.numel():
        dense[0, 0] = float("nan")
    return SimpleNamespace(
        codes=torch.cat(codes, 1).int() if codes else torch.zeros(rows, 0, dtype=torch.int32),
        lists=[part.int() for part in lists],
        dense=dense,
    )


@pytest.mark.parametrize("shape", list(LAYOUTS))
@pytest.mark.parametrize("name", SPACES.names())
def test_samples_build_and_train_a_step(name, shape):
    layout = LAYOUTS[shape]
    space = SPACES.get(name)(layout, rows=1000, families=("neural",))
    rng = numpy_rng(0, name, shape)
    batch = batch_of(layout)
    for i in range(60):
        candidate = space.canonical(space.sample(rng))
        network = build(candidate, layout, bias=0.3, seed=i)
        out = network(batch)
        assert out.shape == (16,) and torch.isfinite(out).all(), candidate
        (out * torch.linspace(-1, 1, 16)).sum().backward()
        untouched = [n for n, p in network.named_parameters() if p.grad is None]
        assert not untouched, (candidate, untouched)
        for table in network.tables():
            assert table.shape[0] == network.table_rows


def test_flops_equal_the_counter_of_torch():
    from torch.utils.flop_counter import FlopCounterMode

    layout = LAYOUTS["mixed"]
    space = SPACES.get("ctr")(layout, rows=1000, families=("neural",), kinds=("mlp", "cross"))
    rng = numpy_rng(1, "flops")
    for i in range(20):
        candidate = space.canonical(space.sample(rng))
        network = build(candidate, layout, seed=i).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(batch_of(layout))
        elementwise = sum(
            3 * b.width * len(b.layers) for b in network.blocks if hasattr(b, "layers")
        )
        linear = 2 * network.dense_size if candidate.architecture.linear else 0
        assert network.flops() == counter.get_total_flops() / 16 + elementwise - linear


def test_known_architectures_compute_their_formula():
    """DeepFM by hand: head(mlp) + head(fm) + first order + bias."""
    layout = LAYOUTS["sparse"]
    mlp = Node("mlp", ("sparse",), (("width", 4), ("layers", 1)))
    plan = Architecture((Node("fm", ("sparse",)), mlp), 3, linear=True)
    network = build(Candidate("neural", Recipe({}), Features(), plan), layout, bias=0.7, seed=0)
    torch.nn.init.normal_(network.embedding.table)
    torch.nn.init.normal_(network.first_order.table)
    batch = batch_of(layout)
    offsets = torch.tensor([0, 9])
    rows = network.embedding.table[batch.codes + offsets]
    first = network.first_order.table[batch.codes + offsets].sum(dim=(1, 2))
    fm = (rows[:, 0] * rows[:, 1]).sum(1, keepdim=True)
    linear = network.blocks[1].steps[0]
    deep = (rows.flatten(1) @ linear.weight.T + linear.bias).clamp(min=0)
    sinks = torch.cat([fm, deep], 1)
    expected = sinks @ network.head.weight[0] + network.head.bias[0] + first + 0.7
    torch.testing.assert_close(network(batch), expected)


def test_missing_numbers_are_told_apart_from_zeros():
    layout = LAYOUTS["dense"]
    plan = Architecture((Node("mlp", ("dense",), (("width", 8), ("layers", 1))),), 0)
    network = build(Candidate("neural", Recipe({}), Features("dense"), plan), layout, seed=0)
    zero, missing = batch_of(layout, rows=1), batch_of(layout, rows=1)
    zero.dense = torch.zeros(1, 1)
    missing.dense = torch.full((1, 1), float("nan"))
    assert network(zero) != network(missing)


def test_seed_decides_the_weights():
    space = SPACES.get("ctr")(LAYOUTS["mixed"], rows=1000)
    candidate = space.canonical(space.starts()[0][1])
    a, b, c = (build(candidate, LAYOUTS["mixed"], seed=s) for s in (1, 1, 2))
    pairs = zip(a.parameters(), b.parameters(), c.parameters(), strict=True)
    same, other = zip(*[(torch.equal(x, y), torch.equal(x, z)) for x, y, z in pairs])
    assert all(same) and not all(other)


def test_candidates_that_cannot_be_built_are_refused():
    layout = LAYOUTS["sparse"]
    with pytest.raises(SpaceError, match="only candidates with an architecture"):
        build(Candidate("tree", Recipe({})), layout)
    plan = Architecture((Node("mlp", ("dense",), (("width", 4), ("layers", 1))),), 4)
    with pytest.raises(SpaceError, match=r"reads \['dense'\].*canonical"):
        build(Candidate("neural", Recipe({}), Features(), plan), layout)
