"""Networks from candidates: every sample of a space builds, trains a step, counts itself right."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from autorec.architecture import Architecture, Node
from autorec.build import MOST_WEIGHTS, build, cost
from autorec.candidate import Candidate, Features, Recipe
from autorec.catalogue import Catalogue
from autorec.errors import SpaceError
from autorec.schema import DenseField, Layout, ListField, SparseField
from autorec.seeding import numpy_rng

SPACES = Catalogue("autorec.search_spaces", leaf="Space")
IDS = (SparseField("user", 9, "user"), SparseField("item", 7, "item"))
BINS = (SparseField("x#bin", 5, "x", binned=True),)
CROSSED = (
    SparseField("user*item", 12, "user*item", form="id"),
    SparseField("a.rate#bin", 4, "a.rate", binned=True, form="rate"),
)
LAYOUTS = {
    "sparse": Layout(sparse=IDS),
    "dense": Layout(sparse=BINS, dense=(DenseField("x", nullable=True),)),
    "lists": Layout(lists=(ListField("words", 6, 3),)),
    "mixed": Layout(sparse=IDS + BINS, lists=(ListField("words", 6, 3),), dense=(DenseField("x"),)),
    "crossed": Layout(
        sparse=(SparseField("user", 12_000, "user"), *IDS[1:], *BINS, *CROSSED),
        dense=(DenseField("x", nullable=True), DenseField("a.rate", form="rate")),
    ),
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
    rng = numpy_rng(0, name, shape)
    batch = batch_of(layout)
    spaces = [SPACES.get(name)(layout, blocks=b, families=("neural",)) for b in (2, 4, 12)]
    built, too_large = 0, []
    for i in range({"lists": 40, "crossed": 120}.get(shape, 340) if name == "ctr" else 40):
        space = spaces[i % 3]
        candidate = space.canonical(space.sample(rng))
        if (weights := cost(candidate, layout)[0]) > MOST_WEIGHTS:
            too_large.append((weights, candidate))
            continue
        built += 1
        network = build(candidate, layout, bias=0.3, seed=i)
        out = network(batch)
        assert out.shape == (16,) and torch.isfinite(out).all(), candidate
        (out * torch.linspace(-1, 1, 16)).sum().backward()
        untouched = [n for n, p in network.named_parameters() if p.grad is None]
        assert not untouched, (candidate, untouched)
        assert network.weights() == sum(p.numel() for p in network.parameters())
        assert {id(p) for p in network.tables()} <= {id(p) for p in network.parameters()}
        assert cost(candidate, layout) == (network.weights(), network.flops())
    assert built >= 0.9 * (i + 1)
    for _, candidate in sorted(too_large, key=lambda pair: -pair[0])[:1]:
        with pytest.raises(SpaceError, match="at most 100,000,000 weights beside its id tables"):
            build(candidate, layout)


@pytest.mark.parametrize("shape", list(LAYOUTS))
def test_flops_equal_the_counter_of_torch(shape):
    from torch.utils.flop_counter import FlopCounterMode

    layout = LAYOUTS[shape]
    space = SPACES.get("ctr")(layout, families=("neural",), kinds=("mlp", "cross", "fm"))
    rng = numpy_rng(1, "flops")
    for i in range(20):
        candidate = space.canonical(space.sample(rng))
        network = build(candidate, layout, seed=i).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(batch_of(layout))
        crosses = [b for b in network.blocks if hasattr(b, "layers")]
        elementwise = sum(3 * b.width * len(b.layers) for b in crosses)
        elementwise += sum(b.flops() for b in network.modules() if type(b).__name__ == "FM")
        elementwise += sum(b.flops() for b in network.modules() if type(b).__name__ == "FieldAware")
        soft = [b.weight.numel() for b in network.modules() if type(b).__name__ == "SoftBins"]
        elementwise += 10 * sum(soft)
        assert network.flops() == counter.get_total_flops() / 16 + elementwise


def test_soft_bins_take_the_place_of_bins_in_the_tables_and_nowhere_else():
    layout = LAYOUTS["crossed"]
    mlp = Node("mlp", ("sparse", "sparse2", "pairs"), (("width", 4), ("layers", 1)))
    soft = {"numbers": "soft_bins", "numbers_args": (("bins", 4),)}
    plan = Architecture((mlp,), 3, linear=True, crosses="half", **soft)
    features = Features("both", rates=1, ids=1)
    network = build(Candidate("neural", Recipe({}), features, plan), layout, seed=0)
    for raw in ("sparse", "sparse2"):
        plain, crosses, bins = network.tables_read[raw].parts
        assert (plain.counts, crosses.counts) == ((12_000, 7), (12,))
        assert bins.shape.fields == 2 and bins.arguments["bins"] == 4
    assert network.tables_read["pairs"].counts == (12_000, 7, 5, 12, 4)
    first, own = network.first_order.parts
    assert first.counts == (12_000, 7, 5, 4) and own.counts == (12,)
    one, two = (network.tables_read[raw].parts[2].table for raw in ("sparse", "sparse2"))
    assert not torch.equal(one, two), "the second table has soft bins of its own"
    batch = batch_of(layout)
    fields = network.tables_read["sparse"]([batch.codes, batch.dense])
    bins = network.tables_read["sparse"].parts[2]
    torch.testing.assert_close(fields[:, 3:], bins([batch.dense]))
    assert network(batch).isfinite().all()


def test_what_is_left_out_is_not_built():
    layout = LAYOUTS["mixed"]
    mlp = Node("mlp", ("dense", "sparse"), (("width", 4), ("layers", 1)))
    plan = Architecture((mlp,), 3, linear=True)
    whole, less = (
        build(Candidate("neural", Recipe({}), Features(without=names), plan), layout, seed=0)
        for names in ((), ("words", "item"))
    )
    assert whole.tables_read["sparse"].counts == (9, 7, 5, 6)
    assert less.tables_read["sparse"].counts == less.first_order.counts == (9, 5)
    plain = Features(without=("x",))
    rest = Architecture((Node("mlp", ("sparse",), mlp.args),), 3)
    less = build(Candidate("neural", Recipe({}), plain, rest), layout, seed=0)
    assert less.tables_read["sparse"].counts == (9, 7, 6) and less.dense_size == 0


def test_output_is_the_mean_of_the_streams():
    layout = LAYOUTS["mixed"]
    space = SPACES.get("ctr")(layout, families=("neural",))
    rng, batch = numpy_rng(2, "streams"), batch_of(layout)
    for i in range(30):
        candidate = space.canonical(space.sample(rng))
        network = build(candidate, layout, bias=0.2, seed=i).eval()
        if not candidate.architecture.nodes:
            with pytest.raises(SpaceError, match="streams"):
                network.streams(batch)
            continue
        torch.nn.init.normal_(network.head.bias)
        with torch.no_grad():
            streams = network.streams(batch)
            assert streams.shape == (16, len(candidate.architecture.sinks))
            torch.testing.assert_close(streams.mean(dim=1), network(batch), rtol=1e-4, atol=1e-5)


def test_two_tables_are_independent_and_pairs_are_products():
    layout = LAYOUTS["sparse"]
    nodes = (Node("fm", ("sparse",)), Node("fm", ("sparse2",)), Node("fm", ("sparse", "pairs")))
    plan = Architecture(nodes, 3)
    network = build(Candidate("neural", Recipe({}), Features(), plan), layout, seed=0)
    one, two = (network.tables_read[name].table for name in ("sparse", "sparse2"))
    assert one is not two and not torch.equal(one, two)
    assert len(network.tables()) == 3
    assert network.tables_read["pairs"].shape.fields == 1


@pytest.mark.parametrize("kind", ["hashed_embedding", "qr_embedding"])
def test_compressed_tables_are_built_and_smaller(kind):
    layout = Layout(sparse=(SparseField("user", 1000, "user"), SparseField("item", 700, "item")))
    mlp = Node("mlp", ("sparse",), (("width", 4), ("layers", 1)))
    plain, small = (
        build(Candidate("neural", Recipe({}), Features(), plan), layout)
        for plan in (
            Architecture((mlp,), 8),
            Architecture((mlp,), 8, embedding=kind, embedding_args=(("ratio", 16),)),
        )
    )
    assert small.weights() < plain.weights() / 4
    assert torch.isfinite(small(batch_of(layout))).all()


def test_known_architectures_compute_their_formula():
    """DeepFM by hand: head(mlp) + head(fm) + first order + bias."""
    layout = LAYOUTS["sparse"]
    mlp = Node("mlp", ("sparse",), (("width", 4), ("layers", 1)))
    plan = Architecture((Node("fm", ("sparse",)), mlp), 3, linear=True)
    network = build(Candidate("neural", Recipe({}), Features(), plan), layout, bias=0.7, seed=0)
    torch.nn.init.normal_(network.tables_read["sparse"].table)
    torch.nn.init.normal_(network.first_order.table)
    batch = batch_of(layout)
    offsets = torch.tensor([0, 9])
    rows = network.tables_read["sparse"].table[batch.codes + offsets]
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
