"""Children of networks whose fields come from several places: narrow tables, crosses, soft bins."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from autorec.build import build
from autorec.candidate import Features
from autorec.edits import EMBEDDING, Edit, apply
from autorec.morph import TOLERANCE, drift, morph, probe_of
from autorec.schema import DenseField, Layout, ListField, SparseField
from autorec.search_spaces.ctr import CtrSpace

LAYOUT = Layout(
    (
        SparseField("user", 12_000, "user"),
        SparseField("item", 60, "item"),
        SparseField("age#bin", 6, "age", binned=True),
        SparseField("user*item", 30, "user*item", form="id"),
    ),
    (ListField("tags", 20, 3),),
    (DenseField("age", nullable=True),),
)
MIXED = {"embedding": "mixed_embedding", "embedding_args": (("power", -0.25),)}
SOFT = {"numbers": "soft_bins", "numbers_args": (("bins", 4), ("temperature", 0.5))}
PLANS = {
    "mixed": MIXED,
    "crosses": {"crosses": "half"},
    "soft": SOFT,
    "all": {**MIXED, **SOFT, "crosses": "quarter"},
}


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("name", PLANS)
def test_a_wider_child_computes_what_its_parent_does(name: str, linear: bool) -> None:
    space = CtrSpace(LAYOUT, kinds=["mlp", "cross", "fm"], blocks=3)
    nodes = [space.node("mlp", width=32, layers=1), space.node("cross", layers=2)]
    made = space.network(nodes, space.start_recipe(), width=8, linear=linear)
    assert made.architecture is not None
    plan = replace(made.architecture, **PLANS[name])
    parent = space.canonical(replace(made, features=Features(ids=1), architecture=plan))
    assert parent.architecture is not None and parent.architecture.numbers == plan.numbers
    trained = build(parent, LAYOUT, seed=1).double()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 0.1 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(len(parameter.shape))
            )
    edited = apply(parent, Edit(EMBEDDING, value=13), space)
    child, inheritance = morph(trained, edited.candidate, edited.nodes, LAYOUT, seed=2)
    assert child.plan.embedding_width == 13
    assert replace(child.plan, embedding_width=8) == trained.plan
    rows = probe_of(LAYOUT, trained.base, seed=9)
    assert drift(trained, child, rows) <= TOLERANCE[torch.float64]
    named = dict(child.named_parameters())
    assert {n for n in inheritance.origins if n in named} == set(named)
    child.train()(rows).square().sum().backward()
    for table in child.tables():
        assert table.grad is not None and table.grad.abs().sum() > 0
