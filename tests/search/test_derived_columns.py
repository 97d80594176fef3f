"""Candidates on columns with derived statistics: genes, canonical forms, and what a model reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from autorec.build import build
from autorec.candidate import NEURAL, TREE, Candidate, Features, Recipe
from autorec.data.columns import Columns
from autorec.schema import DenseField, Layout, SparseField
from autorec.search_spaces._genes import TREE_DEFAULTS
from autorec.search_spaces.ctr import CtrSpace
from autorec.seeding import numpy_rng
from autorec.train.batches import Rows
from autorec.train.tree import matrix

IDS = (SparseField("user", 100, "user"), SparseField("item", 50, "item"))
DERIVED = (
    SparseField("user*item", 40, "user*item", form="id"),
    SparseField("a.count#bin", 9, "a.count", binned=True, form="count"),
    SparseField("b.count#bin", 9, "b.count", binned=True, form="count"),
    SparseField("a.rate#bin", 9, "a.rate", binned=True, form="rate"),
)
NUMBERS = (
    DenseField("a.count", form="count"),
    DenseField("b.count", form="count"),
    DenseField("a.rate", form="rate"),
)
LAYOUTS = {
    "derived": Layout(IDS + DERIVED, (), NUMBERS),
    "mixed": Layout(
        (*IDS, SparseField("age#bin", 10, "age", binned=True), *DERIVED),
        (),
        (DenseField("age", nullable=True), *NUMBERS),
    ),
}


@pytest.fixture(scope="module", params=LAYOUTS)
def space(request: pytest.FixtureRequest) -> CtrSpace:
    return CtrSpace(LAYOUTS[request.param], kinds=["mlp", "fm", "cross"])


def columns(layout: Layout, n: int = 64) -> Columns:
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, field.rows, n) for field in layout.sparse]
    dense = rng.normal(size=(n, len(layout.dense))).astype(np.float32)
    return Columns(layout, n, np.stack(codes, 1).astype(np.int32), {}, dense)


def names(layout: Layout, features: Features) -> tuple[list[str], list[str]]:
    sparse = [layout.sparse[i].name for i in features.sparse_of(layout)]
    return sparse, [layout.dense[i].name for i in features.dense_of(layout)]


def test_the_first_derived_columns_of_each_form_are_chosen() -> None:
    layout = LAYOUTS["mixed"]
    assert names(layout, Features()) == (["user", "item", "age#bin"], ["age"])
    assert names(layout, Features(counts=1, rates=1)) == (
        ["user", "item", "age#bin", "a.count#bin", "a.rate#bin"],
        ["age", "a.count", "a.rate"],
    )
    assert names(layout, Features("dense", counts=2, ids=1)) == (
        ["user", "item", "user*item"],
        ["age", "a.count", "b.count"],
    )
    assert names(layout, Features("bins", counts=2)) == (
        ["user", "item", "age#bin", "a.count#bin", "b.count#bin"],
        [],
    )
    assert names(layout, Features("bins", counts=1).plain())[1] == ["age", "a.count"]


def test_genes_candidates_and_keys_agree(space: CtrSpace) -> None:
    drawn = [space.sample(numpy_rng(1, "derived", number)) for number in range(300)]
    assert {c.features.counts for c in drawn if c.family == TREE} == {0, 1, 2}
    for candidate in drawn:
        assert space.decode(space.params(candidate)) == candidate
        plain = space.canonical(candidate)
        assert space.canonical(plain) == plain
        assert space.key(space.decode(space.params(plain))) == space.key(candidate)
        assert Candidate.from_json(plain.to_json()) == plain
    trees = [c for c in drawn if c.family == TREE]
    assert all("feature.ids" not in space.params(c) for c in trees)


def test_what_no_part_of_a_network_reads_leaves_no_trace(space: CtrSpace) -> None:
    recipe = space.start_recipe()
    deep = space.node("mlp", "sparse", width=64)
    plain = space.network([deep], recipe)
    assert space.canonical(plain).to_json()["features"].keys() == {"numeric"}
    unread = replace(plain, features=Features("dense", counts=2, rates=1))
    assert space.key(unread) == space.key(replace(plain, features=Features("dense")))
    read = replace(plain, features=Features("bins", counts=2))
    assert space.key(read) != space.key(plain)
    tree = Candidate(TREE, Recipe(TREE_DEFAULTS), Features(counts=1, ids=1))
    assert space.canonical(tree).features == Features(counts=1)


def test_a_network_reads_the_chosen_columns_only(space: CtrSpace) -> None:
    layout = space.layout
    data = columns(layout)
    for features in (Features(counts=1), Features("bins", rates=1, ids=1), Features("dense", 2)):
        candidate = space.network([space.node("mlp", width=64)], space.start_recipe(), linear=True)
        plan = space.canonical(replace(candidate, features=features))
        network = build(plan, layout).eval()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter)
        sparse, dense = names(layout, plan.features)
        before = network(Rows(data).between(0, 64))
        for at, field in enumerate(layout.sparse):
            codes = data.codes.copy()
            codes[:, at] = (codes[:, at] + 1) % field.rows
            after = network(Rows(replace(data, codes=codes)).between(0, 64))
            assert torch.equal(before, after) == (field.name not in sparse)
        for at, number in enumerate(layout.dense):
            values = data.dense.copy()
            values[:, at] += 1.0
            after = network(Rows(replace(data, dense=values)).between(0, 64))
            assert torch.equal(before, after) == (number.name not in dense)


def test_a_tree_reads_numbers_and_no_bins() -> None:
    layout = LAYOUTS["mixed"]
    data = columns(layout)
    found = matrix(data, Features(counts=2, rates=0))
    expected = [*data.codes[:, :2].T, *data.dense[:, :3].T]
    np.testing.assert_array_equal(found, np.stack(expected, 1).astype(np.float32))


def test_starts_with_all_derived_columns_come_first(space: CtrSpace) -> None:
    found = space.starts()
    assert [name for name, _ in found[:2]] == ["lightgbm+features", "lightgbm-slow+features"]
    assert {c.features for _, c in found[:2]} == {Features(counts=2, rates=1, ids=1)}
    assert {c.family for _, c in found[2:4]} == {NEURAL}
    assert all(space.contains(candidate) for _, candidate in found)
    assert all(c.features == Features() for _, c in found[4:])
    without = CtrSpace(Layout(IDS)).starts()
    assert not any("+features" in name for name, _ in without)
