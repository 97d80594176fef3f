"""Genes of tables, crosses, bins and left-out columns: what wakes them, and equal functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from autorec.architecture import CROSSES, Architecture
from autorec.build import build
from autorec.candidate import NEURAL, TREE, Candidate, Features
from autorec.errors import SpaceError
from autorec.schema import DenseField, Layout, ListField, SparseField
from autorec.search_spaces._features import columns
from autorec.search_spaces.ctr import CtrSpace
from autorec.seeding import numpy_rng
from autorec.space import Space, load_space

IDS = (SparseField("user", 20_000, "user"), SparseField("item", 70, "item"))
CROSSED = (
    SparseField("user*item", 40, "user*item", form="id"),
    SparseField("item*day", 50, "item*day", form="id"),
    SparseField("a.count#bin", 9, "a.count", binned=True, form="count"),
)
LAYOUT = Layout(
    (*IDS, SparseField("age#bin", 10, "age", binned=True), *CROSSED),
    (ListField("tags", 30, 4),),
    (
        DenseField("age", nullable=True),
        DenseField("length"),
        DenseField("a.count", form="count"),
    ),
)
SMALL = replace(LAYOUT, sparse=(replace(IDS[0], rows=300), *LAYOUT.sparse[1:]))
ORDER = ("item", "age", "user", "tags", "length")
KINDS = ["mlp", "fm", "cross"]
PLAIN = Features()


def space(layout: Layout = LAYOUT, **arguments: Any) -> CtrSpace:
    return CtrSpace(layout, kinds=KINDS, blocks=2, **arguments)


def network(
    of: CtrSpace, *inputs: str, features: Features = PLAIN, linear: bool = False, **plan: Any
) -> Candidate:
    """Return one MLP on raw inputs, with changes of its architecture and recipe."""
    nodes = [of.node("mlp", *inputs, width=32, layers=1)] if inputs else []
    recipe = of.start_recipe(**plan.pop("recipe", {}))
    made = of.network(nodes, recipe, width=8, linear=linear)
    assert made.architecture is not None
    return replace(made, architecture=replace(made.architecture, **plan), features=features)


SOFT = {"numbers": "soft_bins", "numbers_args": (("bins", 8), ("temperature", 0.5))}


@pytest.mark.parametrize("order", [None, ORDER], ids=["no order", "order"])
@pytest.mark.parametrize("layout", [SMALL, LAYOUT, Layout((), (), LAYOUT.dense[:2])])
def test_genes_candidates_and_keys_agree(layout: Layout, order: Any) -> None:
    if order and len(columns(layout)) < 4:
        order = None
    made, seen = space(layout, field_order=order), set()
    for number in range(250):
        drawn = made.sample(numpy_rng(2, "inputs", number))
        assert made.decode(made.params(drawn)) == drawn
        plain = made.canonical(drawn)
        assert made.canonical(plain) == plain
        assert made.key(made.decode(made.params(plain))) == made.key(drawn)
        assert Candidate.from_json(plain.to_json()) == plain
        assert (made.encode(plain) == made.encode(drawn)).all()
        if plain.architecture is not None:
            seen |= {plain.architecture.crosses, plain.architecture.numbers}
            seen |= {plain.architecture.embedding, f"without {len(plain.features.without)}"}
    expected = {"bins", "soft_bins", "embedding", "shared", "without 0"}
    expected |= {*CROSSES} if layout.sparse else set()
    expected |= {"mixed_embedding"} if layout is LAYOUT else set()
    expected |= {"without 1", "without 2"} if order else set()
    assert seen == expected


@pytest.mark.parametrize("layout", [SMALL, Layout((), (), LAYOUT.dense[:2])])
def test_every_gene_is_inactive_where_it_has_no_effect(layout: Layout) -> None:
    genes = set(space(layout).genes)
    assert "embedding.kind" not in genes, "widths by field are for larger tables"
    assert ("embedding.crosses" in genes) == ("recipe.cross_l2" in genes) == bool(layout.sparse)
    assert "numbers.kind" in genes
    assert "numbers.kind" not in space(Layout(IDS)).genes
    assert not {"embedding.crosses", "recipe.cross_l2", "feature.drop"} & set(
        space(Layout(IDS)).genes
    )
    assert space().genes["embedding.kind"].choices == ("embedding", "mixed_embedding")


def test_genes_are_asked_where_a_choice_wakes_them() -> None:
    made = space()
    for number in range(200):
        drawn = made.sample(numpy_rng(4, "asked", number))
        genes, plan = made.params(drawn), drawn.architecture
        if plan is None:
            assert not any(name.startswith(("embedding.", "numbers.")) for name in genes)
            continue
        assert ("embedding.crosses" in genes) == (drawn.features.ids > 0)
        assert ("recipe.cross_l2" in genes) == (plan.crosses != "shared")
        assert ("numbers.kind" in genes) == (drawn.features.numeric != "dense")
        assert ("numbers.soft_bins.bins" in genes) == (plan.numbers == "soft_bins")
        assert "feature.drop" not in genes


def test_candidates_of_before_are_read_as_they_were() -> None:
    made = space(field_order=ORDER)
    plain = network(made, "dense", "sparse", features=Features(ids=1, counts=1))
    params = made.params(plain)
    late = ("embedding.kind", "embedding.crosses", "numbers.kind", "feature.drop")
    assert set(late) <= set(params)
    older = {name: value for name, value in params.items() if name not in late}
    assert made.decode(older) == made.decode(params)
    assert set(plain.to_json()["architecture"]) == {
        "nodes",
        "embedding_width",
        "linear",
        "embedding",
    }
    with pytest.raises(SpaceError, match=r"needs the gene 'head.linear'"):
        made.decode({name: value for name, value in params.items() if name != "head.linear"})


def same_key(of: Space, one: Candidate, *others: Candidate) -> bool:
    return {of.key(other) for other in others} == {of.key(one)}


def test_crosses_of_equal_strength_and_width_lie_anywhere() -> None:
    made, read = space(), Features(ids=2)
    base = network(made, "sparse", features=read)
    apart = network(made, "sparse", features=read, crosses="full")
    equal = network(made, "sparse", features=read, crosses="full", recipe={"cross_l2": 0.05})
    assert same_key(made, base, apart, equal)
    others = [
        network(made, "sparse", features=read, crosses="full", recipe={"cross_l2": 0.01}),
        network(made, "sparse", features=read, crosses="half"),
        network(made, "sparse", features=read, crosses="quarter"),
        network(made, "sparse", features=read, crosses="half", recipe={"cross_l2": 0.01}),
        network(made, "sparse", features=Features(ids=1), crosses="half"),
    ]
    assert len({made.key(other) for other in [base, *others]}) == 6
    unread = network(made, "sparse", crosses="half", recipe={"cross_l2": 0.01})
    assert same_key(made, network(made, "sparse"), unread)
    numbers = network(made, "dense", features=Features("dense", ids=1), crosses="half")
    assert same_key(made, network(made, "dense", features=Features("dense")), numbers)
    first = [
        network(made, features=read, linear=True, crosses=c, recipe={"cross_l2": 0.01})
        for c in CROSSES
    ]
    assert same_key(made, *first), "one weight a code has no width"
    assert not same_key(made, first[0], network(made, features=read, linear=True))
    pairs = network(made, "pairs", features=read, crosses="half")
    assert same_key(made, network(made, "pairs", features=read), pairs)


def test_mixed_tables_of_equal_widths_are_plain_tables() -> None:
    made = space()

    def mixed(power: float, of: CtrSpace = made, **changes: Any) -> Candidate:
        plan = {"embedding": "mixed_embedding", "embedding_args": (("power", power),)}
        return network(of, "sparse", **plan, **changes)

    powers = (-0.5, -0.25, 0.25, 0.5)
    keys = {made.key(mixed(power, embedding_width=64)) for power in powers}
    assert len(keys) == 4 and made.key(network(made, "sparse", embedding_width=64)) not in keys
    assert len({made.key(mixed(power, embedding_width=4)) for power in powers}) < 4
    alike = Layout((replace(IDS[0], rows=20_000), replace(IDS[1], rows=19_000)))
    of = space(alike)
    assert same_key(of, network(of, "sparse"), mixed(0.5, of), mixed(-0.5, of))
    one = space(Layout((IDS[0], replace(IDS[1], form="id"))))
    assert same_key(one, network(one, "sparse"), mixed(0.5, one))
    unread = network(made, linear=True, embedding="mixed_embedding")
    assert same_key(made, network(made, linear=True), unread)


def test_soft_bins_matter_where_numbers_are_fields() -> None:
    made = space()
    hard = network(made, "sparse")
    soft = network(made, "sparse", **SOFT)
    assert not same_key(made, hard, soft)
    assert not same_key(made, soft, network(made, "dense", "sparse", **SOFT))
    other = {**SOFT, "numbers_args": (("bins", 16), ("temperature", 0.5))}
    assert not same_key(made, soft, network(made, "sparse", **other))
    only = Features("dense")
    assert same_key(
        made, network(made, "sparse", features=only), network(made, "sparse", features=only, **SOFT)
    )
    assert same_key(made, network(made, "dense"), network(made, "dense", **SOFT))
    assert same_key(made, network(made, linear=True), network(made, linear=True, **SOFT))
    without = space(Layout(IDS))
    assert same_key(without, network(without, "sparse"), network(without, "sparse", **SOFT))


def test_soft_bins_alone_are_a_raw_input() -> None:
    made = space(Layout((), (), LAYOUT.dense[:2]))
    plain = made.canonical(network(made, "sparse", **SOFT))
    assert plain.architecture is not None and plain.architecture.reads("sparse")
    assert "embedding_l2" not in plain.recipe, "there is no table"
    hard = made.canonical(network(made, "sparse"))
    assert hard.architecture == Architecture((), 0, linear=True)


def test_what_is_left_out_comes_from_the_end_of_the_order() -> None:
    made = space(field_order=ORDER)
    assert made.genes["feature.drop"].high == 2
    base = network(made, "dense", "sparse")
    params = made.params(base)
    assert params["feature.drop"] == 0
    assert made.decode({**params, "feature.drop": 2}).features.without == ("length", "tags")
    foreign = replace(base, features=Features(without=("age",)))
    assert not made.contains(foreign) and not space().contains(foreign)
    with pytest.raises(SpaceError, match=r"left out in the order of .* but this candidate"):
        space().params(foreign)
    tree = Candidate(TREE, made.baselines()[2][1].recipe, Features(without=("length", "tags")))
    assert made.contains(tree) and made.params(tree)["feature.drop"] == 2
    assert not made.contains(replace(tree, features=Features(without=("tags",))))


def test_a_column_that_nothing_reads_is_not_left_out() -> None:
    made = space(field_order=ORDER)

    def less(*inputs: str, numeric: str = "both", **plan: Any) -> Candidate:
        features = Features(numeric, without=("length", "tags"))
        return made.canonical(network(made, *inputs, features=features, **plan))

    assert less("dense").features.without == ("length",)
    assert less("sparse").features.without == ("tags",), "a length has no bins"
    assert less("sparse", **SOFT).features.without == ("length", "tags")
    assert less("dense", "sparse").features.without == ("length", "tags")
    assert less("sparse", linear=True, numeric="bins").features.without == ("tags",)
    for inputs in (("dense",), ("sparse",), ("dense", "sparse")):
        assert made.contains(less(*inputs))


def test_the_order_may_come_while_a_search_runs() -> None:
    made = space()
    version, before = made.version, made.params(network(made, "sparse"))
    made.learn_order(ORDER)
    assert made.version == version and made.decode(before).features.without == ()
    again = load_space(made.to_json(), LAYOUT)
    assert isinstance(again, CtrSpace) and again.field_order == ORDER
    assert "field_order" not in space().to_json()["arguments"]
    drops = {made.sample(numpy_rng(5, "drop", n)).features.without for n in range(60)}
    assert drops == {(), ("length",), ("length", "tags")}
    for wrong in (ORDER[1:], (*ORDER, "user"), ("other", *ORDER[1:])):
        with pytest.raises(SpaceError, match="names every column once"):
            made.learn_order(wrong)


def test_a_network_does_not_hear_what_it_is_without() -> None:
    made = space(SMALL, field_order=("user", "item", "age", "tags", "length"))
    for without in (("tags", "length"), ("age", "tags"), ("user", "length")):
        candidate = network(made, "dense", "sparse", linear=True, **SOFT)
        candidate = made.canonical(replace(candidate, features=Features(without=without)))
        assert candidate.features.without == tuple(sorted(without))
        net = build(candidate, SMALL).eval()
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter)
        batch = batch_of(SMALL)
        before = net(batch)
        for name in columns(SMALL):
            after = net(moved(batch, name))
            assert torch.equal(before, after) == (name in without), name


def batch_of(layout: Layout, rows: int = 8) -> Any:
    from types import SimpleNamespace

    g = torch.Generator().manual_seed(0)
    codes = [torch.randint(0, f.rows, (rows, 1), generator=g) for f in layout.sparse]
    lists = [torch.randint(1, f.rows, (rows, f.length), generator=g) for f in layout.lists]
    dense = torch.randn(rows, len(layout.dense), generator=g)
    return SimpleNamespace(
        codes=torch.cat(codes, 1).int(), lists=[w.int() for w in lists], dense=dense
    )


def moved(batch: Any, name: str) -> Any:
    """Return the batch with other values in one column, and in the bins of a number."""
    from types import SimpleNamespace

    codes, dense = batch.codes.clone(), batch.dense.clone()
    for at, field in enumerate(SMALL.sparse):
        if field.source == name:
            codes[:, at] = (codes[:, at] + 1) % field.rows
    for at, number in enumerate(SMALL.dense):
        if number.name == name:
            dense[:, at] += 1.0
    lists = [
        words.flip(0) if f.name == name else words
        for f, words in zip(SMALL.lists, batch.lists, strict=True)
    ]
    return SimpleNamespace(codes=codes, lists=lists, dense=dense)


def test_families_alone_have_a_size() -> None:
    for families in ([NEURAL], [TREE]):
        assert space(SMALL, families=families, field_order=ORDER).size() > 0
