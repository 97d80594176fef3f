"""The law of morphism: a child starts as the function of its parent, and nothing in it is dead."""

from __future__ import annotations

import functools
from collections import Counter

import pytest
import torch

from autorec import build as building
from autorec.architecture import Architecture, Node
from autorec.build import build
from autorec.candidate import Candidate, Features
from autorec.edits import KINDS, STACKED, SWAPS, Edit, apply, random_edit
from autorec.errors import GrowthError
from autorec.morph import drift, morph, probe_of
from autorec.schema import DenseField, Layout, ListField, SparseField
from autorec.search_spaces.ctr import CtrSpace
from autorec.seeding import numpy_rng, torch_generator

IDS = (SparseField("user", 9, "user"), SparseField("item", 7, "item"))
BINS = (SparseField("x#bin", 5, "x", binned=True),)
LAYOUTS = {
    "sparse": Layout(sparse=IDS),
    "dense": Layout(sparse=BINS, dense=(DenseField("x", nullable=True),)),
    "lists": Layout(lists=(ListField("words", 6, 3),)),
    "mixed": Layout(sparse=IDS + BINS, lists=(ListField("words", 6, 3),), dense=(DenseField("x"),)),
}
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
DRY = (("dropout", 0.0), ("layers", 1), ("norm", "none"), ("width", 32))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Look every kind of block up once: a law builds hundreds of networks."""
    monkeypatch.setattr(building.BLOCKS, "get", functools.cache(building.BLOCKS.get))


@functools.cache
def space_of(shape, blocks=4):
    return CtrSpace(LAYOUTS[shape], rows=1000, blocks=blocks, families=("neural",))


def trained(candidate, layout, dtype=torch.float64, seed=0):
    """Return a network off its start, in every weight and running mean."""
    network = build(candidate, layout, bias=0.3, seed=seed).to(dtype)
    g = torch_generator(seed, "off")
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if name.endswith("running_var"):
                tensor *= 1.0 + torch.rand(tensor.shape, generator=g).to(dtype)
            elif tensor.is_floating_point():
                size = 0.3 if "table" in name else 0.02
                tensor += size * torch.randn(tensor.shape, generator=g).to(dtype)
    return network.eval()


def network_of(*nodes, **settings):
    plan = Architecture(nodes, **{"embedding_width": 4, **settings})
    return Candidate("neural", space_of("sparse").start_recipe(), Features(), plan)


def start(shape, rng):
    """Return a random candidate of one or two nodes, none of them wide."""
    narrow = space_of(shape, 2)
    while True:
        candidate = narrow.canonical(narrow.sample(rng))
        nodes = candidate.architecture.nodes
        sizes = [value for node in nodes for _, value in node.args if type(value) is int]
        if nodes and max(sizes, default=0) <= 64:
            return candidate


def chain(shape, dtype, seed, length=10):
    """Morph a random candidate; return first and last network, and done and refused edits."""
    space, rng, layout = space_of(shape), numpy_rng(seed, "chain", shape), LAYOUTS[shape]
    candidate = start(shape, rng)
    root = network = trained(candidate, layout, dtype, seed)
    done, refused = [], {}
    for _ in range(4 * length):
        edit = random_edit(candidate, space, rng)
        if edit in refused:
            continue
        edited = apply(candidate, edit, space)
        try:
            network, _ = morph(network, edited.candidate, edited.nodes, layout, seed=seed)
        except GrowthError as error:
            nodes = candidate.architecture.nodes
            refused[edit] = str(error), nodes[edit.node].kind if edit.node >= 0 else ""
            continue
        candidate = edited.candidate
        done.append(edit.kind)
        if len(done) == length:
            break
    assert space.contains(candidate)
    assert network.weights() == sum(p.numel() for p in network.parameters())
    return root, network, done, refused


def test_chains_of_ten_random_edits_keep_the_function():
    done, refused, seed = Counter(), Counter(), 0
    for shape in LAYOUTS:
        for dtype in TOLERANCE:
            for _ in range(5):
                seed += 1
                root, last, kinds, no = chain(shape, dtype, seed)
                unseen = probe_of(LAYOUTS[shape], root.base, seed + 1)
                assert drift(root, last, unseen) <= TOLERANCE[dtype], (shape, dtype, seed)
                done.update(kinds)
                refused.update(edit.kind for edit in no)
                for why in no.values():
                    assert "outputs of the probe differ" not in why, why
    assert set(done) == set(KINDS)
    share = {kind: refused[kind] / (refused[kind] + done[kind]) for kind in KINDS}
    assert max(share[kind] for kind in ("linear", "add_block", "swap")) == 0, share
    assert max(share[kind] for kind in ("deepen", "widen", "stack")) < 0.5, share


def grow(parent, candidate, edit, space, seed=0):
    edited = apply(candidate, edit, space)
    made, plan = morph(parent, edited.candidate, edited.nodes, space.layout, seed=seed)
    return made, plan, edited


def test_a_wider_mlp_by_hand():
    space, layout = space_of("sparse"), LAYOUTS["sparse"]
    mlp = Node("mlp", ("sparse",), DRY)
    candidate = network_of(mlp, Node("mlp", (0,), (*DRY[:3], ("width", 40))))
    parent = trained(candidate, layout)
    made, plan, _ = grow(parent, candidate, Edit("widen", 0, "width", 64), space)
    old, new = dict(parent.named_parameters()), dict(made.named_parameters())
    weight = new["blocks.0.steps.0.weight"]
    assert torch.equal(weight[:32], old["blocks.0.steps.0.weight"])
    assert weight[32:].abs().min() > 0
    reader = new["blocks.1.steps.0.weight"]
    assert torch.equal(reader[:, :32], old["blocks.1.steps.0.weight"])
    assert not reader[:, 32:].any()
    units = (*range(32), *[-1] * 32)
    assert plan.origins["blocks.1.steps.0.weight"].maps == (tuple(range(40)), units)
    for name in ("tables_read.sparse.table", "head.weight", "head.bias", "base"):
        assert torch.equal(new[name], old[name])
        assert not plan.fresh(name, new[name]).any()
    fresh = plan.fresh("blocks.1.steps.0.weight", reader)
    assert not fresh[:, :32].any() and fresh[:, 32:].all()


def test_a_wider_embedding_reaches_flattened_lifted_and_stacked_readers():
    space, layout = space_of("mixed", 5), LAYOUTS["mixed"]
    candidate = network_of(
        Node("mlp", ("dense", "sparse"), DRY),
        Node("field_gate", ("dense", "sparse"), (("residual", "sum"),)),
        Node("cross", (1,), (("layers", 1),)),
    )
    parent = trained(candidate, layout)
    made, plan, _ = grow(parent, candidate, Edit("embedding", value=8), space)
    old, new = parent.state_dict(), made.state_dict()
    assert torch.equal(new["tables_read.sparse.table"][:, :4], old["tables_read.sparse.table"])
    # One number, then four fields of four: the old parts lie at the begin of each field.
    columns = [0, *[1 + 8 * field + part for field in range(4) for part in range(4)]]
    kept = new["blocks.0.steps.0.weight"][:, columns]
    assert torch.equal(kept, old["blocks.0.steps.0.weight"])
    assert int(new["blocks.0.steps.0.weight"].any(dim=0).sum()) == len(columns)
    lift = "aligners.1.0.linear.weight"
    assert torch.equal(new[lift][:4], old[lift])
    assert plan.origins[lift].maps == ((0, 1, 2, 3, -1, -1, -1, -1), (0,))
    assert drift(parent, made, probe_of(layout, parent.base, 9)) <= 1e-9


def news_of(plan, network):
    """Return every parameter with fresh entries, and which they are."""
    found = {name: plan.fresh(name, p) for name, p in network.named_parameters()}
    return {name: mask for name, mask in found.items() if mask.any()}


@pytest.mark.parametrize(
    "edit",
    [
        Edit("widen", 0, "width", 64),
        Edit("deepen", 0, "layers", 2),
        Edit("embedding", value=8),
        Edit("linear"),
        Edit("add_edge", 0, inputs=("sparse2",)),
        Edit("add_block", -1, "mlp", inputs=("sparse",), args=DRY),
        Edit("swap", 0, "gated_mlp", args=(*DRY, ("gate_rank", 0))),
        *[Edit("stack", 1, kind, args=()) for kind in STACKED],
    ],
    ids=lambda edit: f"{edit.kind} {edit.argument}",
)
def test_three_steps_move_all_that_is_new(edit):
    space, layout = space_of("sparse"), LAYOUTS["sparse"]
    nodes = (Node("mlp", ("sparse",), DRY), Node("cross", ("sparse",), (("layers", 1),)))
    candidate = network_of(*nodes)
    if edit.kind == "stack":
        known = space.node(edit.argument)
        edit = Edit("stack", 1, edit.argument, args=known.args)
    parent = trained(candidate, layout)
    made, plan, _ = grow(parent, candidate, edit, space)
    assert drift(parent, made, probe_of(layout, parent.base, 5)) <= 1e-9
    news = news_of(plan, made)
    assert news
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    rows = probe_of(layout, parent.base, 3)
    target = torch.randn(len(rows.codes), generator=torch_generator(1), dtype=torch.float64)
    optimizer = torch.optim.Adam(made.train().parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (made(rows) - target).square().mean().backward()
        optimizer.step()
    for name, parameter in made.named_parameters():
        if name in news:
            moved = (parameter.detach() != before[name])[news[name]].double().mean()
            assert moved >= 0.4, (name, float(moved))


def swap_args(kind, args, space):
    if kind == "cross_residual":
        return space.node(kind, layers=2, rank=8, heads=2, parallel=True).args
    return space.node(kind, **dict(args)).args


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("kind", list(SWAPS))
def test_swapped_blocks_compute_what_they_replace(kind, norm):
    space, layout = space_of("sparse"), LAYOUTS["sparse"]
    arguments = {
        "mlp": (("dropout", 0.1), ("layers", 2), ("norm", norm), ("width", 32)),
        "cross": (("layers", 2),),
        "cross_lowrank": (("layers", 2), ("rank", 16)),
    }[kind]
    candidate = network_of(Node(kind, ("sparse",), arguments))
    parent = trained(candidate, layout)
    new = SWAPS[kind]
    edit = Edit("swap", 0, new, args=swap_args(new, arguments, space))
    made, plan, _ = grow(parent, candidate, edit, space)
    assert made.plan.nodes[0].kind == new
    assert drift(parent, made, probe_of(layout, parent.base, 5)) <= 1e-9
    before = [name for name, _ in parent.blocks.named_parameters()]
    origins = {origin.name for origin in plan.origins.values()}
    assert {f"blocks.{name}" for name in before} <= origins


def test_the_moments_of_an_optimiser_follow_the_weights():
    space, layout = space_of("sparse"), LAYOUTS["sparse"]
    candidate = network_of(Node("mlp", ("sparse",), DRY))
    parent = trained(candidate, layout)
    made, plan, _ = grow(parent, candidate, Edit("widen", 0, "width", 64), space)
    old = {name: torch.full_like(p, 2.0) for name, p in parent.named_parameters()}
    new = {name: torch.zeros_like(p) for name, p in made.named_parameters()}
    plan.carry(old, new)
    for name, moments in new.items():
        assert torch.equal(moments == 2.0, ~plan.fresh(name, moments)), name
    assert new["head.weight"].sum() == 64.0


def test_a_child_is_rebuilt_from_its_candidate_and_morphing_is_a_function_of_the_seed():
    space, layout = space_of("mixed"), LAYOUTS["mixed"]
    candidate = network_of(Node("mlp", ("dense", "sparse"), DRY), linear=True)
    parent = trained(candidate, layout)
    state = {name: tensor.clone() for name, tensor in parent.state_dict().items()}
    edit = Edit("stack", 0, "cross", args=(("layers", 1),))
    made, _, edited = grow(parent, candidate, edit, space)
    again, _, _ = grow(parent, candidate, edit, space)
    other, _, _ = grow(parent, candidate, Edit("widen", 0, "width", 64), space, seed=1)
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    stored = Candidate.from_json(edited.candidate.to_json())
    loaded = build(stored, layout).double().eval()
    loaded.load_state_dict(made.state_dict())
    rows = probe_of(layout, parent.base, 4)
    assert torch.equal(loaded(rows), made(rows))
    assert not made.training and other.head.in_features == 64
    assert all(torch.equal(state[name], t) for name, t in parent.state_dict().items())


def test_what_would_move_the_bound_of_a_row_is_refused():
    """A stream above 10 is scaled down by the block that would be put behind it."""
    space, layout = space_of("sparse"), LAYOUTS["sparse"]
    candidate = network_of(Node("mlp", ("sparse",), DRY))
    parent = trained(candidate, layout)
    edit = Edit("stack", 0, "cross", args=(("layers", 1),))
    grow(parent, candidate, edit, space)
    with torch.no_grad():
        parent.blocks[0].steps[0].bias.fill_(11.0)
    with pytest.raises(GrowthError, match=r"half of their bound of 10.0 free .* would read 1"):
        grow(parent, candidate, edit, space)


def test_what_cannot_keep_the_function_is_refused():
    space, layout = space_of("sparse"), LAYOUTS["sparse"]
    fm, mlp = Node("fm", ("sparse",)), Node("mlp", ("sparse",), DRY)
    candidate = network_of(fm, mlp)
    parent = trained(candidate, layout)
    with pytest.raises(GrowthError, match="FM hears every input at full weight"):
        grow(parent, candidate, Edit("embedding", value=8), space)

    def child(*nodes, maps=(0, 1), **settings):
        morph(parent, network_of(*nodes, **settings), maps, layout)

    with pytest.raises(GrowthError, match="goes on reading what it reads"):
        child(fm, Node("mlp", ("sparse2",), DRY))
    with pytest.raises(GrowthError, match="every stream of the parent reaches the head"):
        child(fm, mlp, Node("mlp", (0,), DRY), maps=(0, 1, -1))
    with pytest.raises(GrowthError, match="the swaps that keep the function"):
        child(fm, Node("cross", ("sparse",), (("layers", 1),)))
    with pytest.raises(GrowthError, match="names one of 2 nodes of the parent"):
        child(fm, mlp, maps=(0, 7))
    linear = trained(network_of(fm, linear=True), layout)
    with pytest.raises(GrowthError, match="a linear term stays"):
        morph(linear, network_of(fm), (0,), layout)
    with pytest.raises(GrowthError, match="reads the columns of its parent"):
        morph(parent, candidate, (0, 1), LAYOUTS["mixed"])


def test_inputs_in_another_order_are_refused():
    layout = LAYOUTS["sparse"]
    one, two = Node("mlp", ("sparse",), DRY), Node("cross", ("sparse",), (("layers", 1),))
    reader = Node("mlp", (0, 1), DRY)
    parent = trained(network_of(one, two, reader), layout)
    with pytest.raises(GrowthError, match="without renumbering"):
        morph(parent, network_of(two, one, reader), (1, 0, 2), layout)


def test_a_first_block_and_a_linear_term_start_unheard():
    space, layout = space_of("dense"), LAYOUTS["dense"]
    bare = network_of(embedding_width=0, linear=True)
    parent = trained(bare, layout)
    edit = Edit("add_block", -1, "mlp", inputs=("sparse",), args=DRY)
    made, plan, edited = grow(parent, bare, edit, space)
    assert edited.nodes == (-1,) and "head.weight" not in plan.origins
    assert drift(parent, made, probe_of(layout, parent.base, 2)) <= 1e-12
    candidate = network_of(Node("mlp", ("dense",), DRY))
    plain = trained(candidate, layout)
    made, _, _ = grow(plain, candidate, Edit("linear"), space)
    assert not made.first_order.table.any() and not made.first_order_dense.weight.any()
