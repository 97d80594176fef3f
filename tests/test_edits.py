"""Edits of architectures: every child lies in the space, and edits are plain values."""

from __future__ import annotations

import json

import pytest

from autorec.architecture import Architecture, Node
from autorec.candidate import Candidate, Features, Recipe
from autorec.edits import KINDS, Edit, apply, apply_all, edits, next_value, random_edit
from autorec.errors import SpaceError
from autorec.schema import DenseField, Layout, ListField, SparseField
from autorec.search_spaces.ctr import CtrSpace
from autorec.seeding import numpy_rng

IDS = (SparseField("user", 9, "user"), SparseField("item", 7, "item"))
BINS = (SparseField("x#bin", 5, "x", binned=True),)
LAYOUTS = {
    "sparse": Layout(sparse=IDS),
    "dense": Layout(sparse=BINS, dense=(DenseField("x", nullable=True),)),
    "lists": Layout(lists=(ListField("words", 6, 3),)),
    "mixed": Layout(sparse=IDS + BINS, lists=(ListField("words", 6, 3),), dense=(DenseField("x"),)),
}
MLP = (("dropout", 0.0), ("layers", 1), ("norm", "none"), ("width", 32))


def space_of(shape, blocks=4):
    return CtrSpace(LAYOUTS[shape], rows=1000, blocks=blocks, families=("neural",))


def candidate_of(space, *nodes, **settings):
    plan = Architecture(nodes, **{"embedding_width": 8, **settings})
    return space.canonical(Candidate("neural", space.start_recipe(), Features(), plan))


@pytest.mark.parametrize("shape", list(LAYOUTS))
def test_every_child_is_another_point_of_the_space_in_the_order_of_its_parent(shape):
    space, rng = space_of(shape), numpy_rng(0, "edits", shape)
    seen = set()
    known = candidate_of(space, Node("mlp", ("sparse",), MLP))
    for parent in [known, *(space.canonical(space.sample(rng)) for _ in range(5))]:
        found = edits(parent, space)
        ends = {(edit.kind, edit.argument): edit for edit in found}
        for edit in list(ends.values())[::3] + [e for e in found if e.kind != "add_block"][:20]:
            edited = apply(parent, edit, space)
            child = edited.candidate
            assert space.contains(child), edit
            assert space.key(child) != space.key(parent), edit
            old, new = parent.architecture.nodes, child.architecture.nodes
            kept = len(old)
            assert edited.nodes == tuple(range(kept)) + (-1,) * (len(new) - kept)
            for before, after in zip(old, new):
                assert set(before.inputs) <= set(after.inputs)
            seen.add(edit.kind)
    assert seen == set(KINDS)


def test_edits_survive_json():
    space, rng = space_of("mixed"), numpy_rng(1, "json")
    found = {}
    for _ in range(6):
        parent = space.canonical(space.sample(rng))
        for edit in edits(parent, space):
            assert Edit.from_json(json.loads(json.dumps(edit.to_json()))) == edit
            found[edit.kind] = edit
    assert set(found) == set(KINDS)
    hash(tuple(found.values()))


def test_edits_of_one_network_by_hand():
    space = CtrSpace(
        LAYOUTS["sparse"], rows=1000, blocks=2, families=("neural",), kinds=("mlp", "cross")
    )
    mlp = Node("mlp", ("sparse",), MLP)
    parent = candidate_of(space, mlp)
    small = (("layers", 1),)
    dry = (("dropout", 0.0), ("layers", 1), ("norm", "none"), ("width", 32))
    news = [
        Edit("add_block", -1, kind, inputs=(source,), args=args)
        for kind, args in (("mlp", dry), ("cross", small))
        for source in ("sparse", "sparse2", "pairs")
    ]
    assert set(edits(parent, space)) == {
        Edit("widen", 0, "width", 64),
        Edit("deepen", 0, "layers", 2),
        Edit("embedding", value=16),
        Edit("linear"),
        Edit("add_edge", 0, inputs=("sparse2",)),
        Edit("add_edge", 0, inputs=("pairs",)),
        Edit("stack", 0, "cross", args=small),
        *news,
    }
    child = apply(parent, Edit("stack", 0, "cross", args=small), space)
    assert child.candidate.architecture.nodes == (mlp, Node("cross", (0,), small))
    assert child.nodes == (0, -1)
    full = {edit.kind for edit in edits(child.candidate, space)}
    assert full == {"widen", "deepen", "embedding", "linear", "add_edge"}


def test_a_chain_is_its_edits_one_by_one():
    space = space_of("sparse")
    parent = candidate_of(space, Node("mlp", ("sparse",), MLP))
    steps = [Edit("linear"), Edit("stack", 0, "cross", args=(("layers", 1),))]
    whole = apply_all(parent, steps, space)
    one = apply(apply(parent, steps[0], space).candidate, steps[1], space).candidate
    assert whole.candidate == one
    assert whole.nodes == (0, -1)
    assert apply_all(parent, [], space).candidate == parent


def test_numbers_and_ids_come_in_where_the_features_left_them_out():
    space = space_of("dense")
    bins = candidate_of(space, Node("mlp", ("sparse",), MLP))
    assert bins.features.numeric == "bins"
    edge = next(e for e in edits(bins, space) if e.kind == "add_edge" and e.inputs == ("dense",))
    assert apply(bins, edge, space).candidate.features.numeric == "both"
    dense = candidate_of(space, Node("mlp", ("dense",), MLP))
    assert dense.features.numeric == "dense" and dense.architecture.embedding_width == 0
    edge = next(e for e in edits(dense, space) if e.kind == "add_edge" and e.inputs == ("sparse",))
    child = apply(dense, edge, space).candidate
    assert child.features.numeric == "both" and child.architecture.embedding_width == 16
    assert space.contains(child)


def test_a_random_edit_is_one_of_all_and_follows_its_generator():
    space = space_of("mixed")
    parent = candidate_of(space, Node("mlp", ("sparse",), MLP))
    drawn = [random_edit(parent, space, numpy_rng(s, "draw")) for s in range(60)]
    assert drawn == [random_edit(parent, space, numpy_rng(s, "draw")) for s in range(60)]
    assert set(drawn) <= set(edits(parent, space))
    assert len({edit.kind for edit in drawn}) == len({e.kind for e in edits(parent, space)})


def test_arguments_grow_to_their_next_value():
    genes = space_of("sparse").genes
    assert next_value(genes["block1.mlp.width"], 48) == 96
    assert next_value(genes["block1.mlp.width"], 600) == 1024
    assert next_value(genes["block1.mlp.width"], 1024) is None
    assert next_value(genes["block1.mlp.layers"], 3) == 4
    assert next_value(genes["block1.gated_mlp.gate_rank"], 16) == 32
    assert next_value(genes["block1.mlp.dropout"], 0.1) is None


def test_edits_that_do_not_fit_are_refused():
    space = space_of("sparse", blocks=1)
    parent = candidate_of(space, Node("mlp", ("sparse",), MLP))
    tree = Candidate("tree", Recipe({}))
    assert edits(tree, space) == []
    with pytest.raises(SpaceError, match="only networks are edited, but got the family 'tree'"):
        apply(tree, Edit("linear"), space)
    with pytest.raises(SpaceError, match="only networks below the limits"):
        random_edit(tree, space, numpy_rng(0))
    with pytest.raises(SpaceError, match=r"an edit is one of .* but got 'shrink'"):
        Edit("shrink")
    with pytest.raises(SpaceError, match="deepen is of one of 1 nodes, but got 3"):
        apply(parent, Edit("deepen", 3, "layers", 2), space)
    with pytest.raises(SpaceError, match="grows from 32, but got"):
        apply(parent, Edit("widen", 0, "width", 16), space)
    with pytest.raises(SpaceError, match="must lie in"):
        apply(parent, Edit("deepen", 0, "layers", 9), space)
    with pytest.raises(SpaceError, match="at most 1 blocks"):
        apply(parent, Edit("stack", 0, "cross", args=(("layers", 1),)), space)
    with pytest.raises(SpaceError, match="in the space of its parent"):
        apply(parent, Edit("add_edge", 0, inputs=("pairs",)), space_without_pairs())


def space_without_pairs():
    return CtrSpace(Layout(sparse=(SparseField("a", 5, "a"),)), blocks=2, families=("neural",))
