"""Crosses in tables of their own train under their own L2, every row at every step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autorec.architecture import Architecture, Node
from autorec.blocks._tables import TableBlock
from autorec.build import Network, build
from autorec.candidate import Candidate, Features, Recipe
from autorec.data.columns import Columns
from autorec.schema import Layout, SparseField
from autorec.train import optimizers
from autorec.train.batches import Batches
from autorec.train.optimizers import CLIP_NORM, Optimizers

LR, B, STEPS = 3e-3, 32, 40
LAYOUT = Layout(
    (
        SparseField("user", 40, "user"),
        SparseField("item", 9, "item"),
        SparseField("user*item", 60, "user*item", form="id"),
        SparseField("item*day", 25, "item*day", form="id"),
    )
)


def log(rows: int = 640) -> Columns:
    rng = np.random.default_rng(0)
    codes = [2 + (rng.random(rows) ** 3 * (f.rows - 4)).astype(np.int32) for f in LAYOUT.sparse]
    label = (rng.random(rows) < 0.2 + 0.6 * (codes[2] % 2)).astype(np.float32)
    return Columns(LAYOUT, rows, np.stack(codes, 1), {}, np.zeros((rows, 0), np.float32), label)


COLUMNS = log()


def candidate(crosses: str = "half", ids: int = 2, **recipe: Any) -> Candidate:
    args = (("width", 8), ("layers", 1), ("dropout", 0.0), ("norm", "none"))
    plan = Architecture((Node("mlp", ("sparse",), args),), 8, linear=True, crosses=crosses)
    given = {"lr": LR, "batch_size": B, "schedule": "constant", "ema": 0.0, "embedding_l2": 1e-3}
    return Candidate("neural", Recipe({**given, **recipe}), Features(ids=ids), plan)


def network(made: Candidate, scale: float = 0.3) -> Network:
    found = build(made, LAYOUT, seed=3).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for table in found.tables():
            table.normal_(std=scale, generator=generator)
    return found


def batches() -> list[Any]:
    made = Batches(COLUMNS, B, seed=1)
    return [batch for epoch in range(STEPS // 20) for batch in made.epoch(epoch)][:STEPS]


def loss_of(net: nn.Module, batch: Any) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(net(batch), batch.label.double())


def trained(made: Candidate, scale: float = 0.3) -> tuple[Network, Optimizers]:
    net = network(made, scale)
    found = Optimizers(net, made.recipe, tables=net.tables(), lookups=1)
    with found.reading():
        for batch in batches():
            loss_of(net, batch).backward()
            found.step(LR)
    found.flush()
    return net, found


def naive(made: Candidate, scale: float = 0.3) -> Network:
    """Adam on dense gradients; L2 of each table by its name, and none of any matrix."""
    net = network(made, scale)
    named = dict(net.named_parameters())
    l2 = dict.fromkeys(named, 0.0)
    for name in named:
        if ".held." in name or name.startswith("first_order.parts.1."):
            l2[name] = made.recipe.number("cross_l2", made.recipe.number("embedding_l2", 0.0))
        elif name.endswith(".table"):
            l2[name] = made.recipe.number("embedding_l2", 0.0)
    assert sum(value > 0 for value in l2.values()) == 4
    state = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in named.items()}
    for step, batch in enumerate(batches(), start=1):
        net.zero_grad()
        loss_of(net, batch).backward()
        with torch.no_grad():
            grads = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named.items()}
            grads = {n: g + l2[n] * named[n] for n, g in grads.items()}
            norm = math.sqrt(sum(float(g.square().sum()) for g in grads.values()))
            shrink = min(1.0, CLIP_NORM / (norm + 1e-6))
            for name, p in named.items():
                g, (m, v) = shrink * grads[name], state[name]
                m.mul_(0.9).add_(g, alpha=0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                bottom = (v / (1 - 0.999**step)).sqrt() + 1e-8
                p -= LR * m / (1 - 0.9**step) / bottom
    return net


def same(got: Network, wanted: Network, bound: float = 1e-6) -> None:
    for (name, one), other in zip(got.named_parameters(), wanted.parameters(), strict=True):
        gap = float((one - other).detach().norm() / other.detach().norm())
        assert gap < bound, (name, gap)


@pytest.mark.parametrize("rows", [0.0, math.inf], ids=["by rows", "dense"])
@pytest.mark.parametrize("crosses", ["full", "half", "quarter"])
def test_training_is_that_of_two_strengths(
    crosses: str, rows: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "_DENSE_ROWS", rows)
    made = candidate(crosses, cross_l2=0.05)
    net, found = trained(made)
    assert len(found.by_rows) == (4 if rows == 0.0 else 0)
    same(net, naive(made))


@pytest.mark.parametrize("rows", [0.0, math.inf], ids=["by rows", "dense"])
def test_strong_l2_is_clipped_as_one_gradient(rows: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "_DENSE_ROWS", rows)
    made = candidate("half", embedding_l2=0.1, cross_l2=2.0)
    same(trained(made, scale=3.0)[0], naive(made, scale=3.0))


@pytest.mark.parametrize("optimizer", ["lazy_adam", "lazy_rowwise_adagrad"])
def test_lazy_rules_take_it_too(optimizer: str) -> None:
    nets = [
        trained(candidate(table_optimizer=optimizer, cross_l2=l2))[0].state_dict()
        for l2 in (1e-3, 0.5)
    ]
    weak, strong = (state["tables_read.sparse.parts.1.held.1"] for state in nets)
    assert float(strong.norm()) < float(weak.norm())


def test_without_a_value_of_their_own_they_have_that_of_all_ids() -> None:
    given, left_out = candidate(cross_l2=1e-3), candidate()
    same(trained(given)[0], trained(left_out)[0], 1e-15)


def test_only_crosses_lie_apart() -> None:
    net = network(candidate("quarter"))
    plain, crosses = net.tables_read["sparse"].parts
    assert plain.counts == (40, 9) and crosses.counts == (60, 25)
    assert crosses.held["2"].shape == (85, 2)
    assert [b.l2 for b in net.modules() if isinstance(b, TableBlock)] == [
        "embedding_l2",
        "cross_l2",
    ] * 2
    assert not {id(p) for p in net.tables()} & {id(p) for p in crosses.maps.values()}
    shared = network(candidate("shared"))
    assert shared.tables_read["sparse"].counts == (40, 9, 60, 25)
    none = network(candidate("half", ids=0))
    assert none.tables_read["sparse"].counts == (40, 9)


def test_full_tables_of_their_own_compute_what_shared_ones_do() -> None:
    own, shared = network(candidate("full")), network(candidate("shared"))
    with torch.no_grad():
        for one, other in zip(own.tables_read.values(), shared.tables_read.values(), strict=True):
            other.table.copy_(torch.cat([one.parts[0].table, one.parts[1].held["0"]]))
        parts = own.first_order.parts
        shared.first_order.table.copy_(torch.cat([parts[0].table, parts[1].held["0"]]))
        shared.blocks.load_state_dict(own.blocks.state_dict())
        shared.head.load_state_dict(own.head.state_dict())
    for batch in batches()[:3]:
        torch.testing.assert_close(own(batch), shared(batch))
