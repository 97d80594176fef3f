"""Named architectures: points of the space, each with the wiring its paper draws."""

from __future__ import annotations

import pytest
import torch

from autorec.build import build
from autorec.errors import ConfigError, SpaceError
from autorec.schema import DenseField, Layout, ListField, SparseField
from autorec.search_spaces.ctr import CtrSpace
from autorec.search_spaces.rating import RatingSpace
from autorec.starting import with_starts

IDS = tuple(SparseField(name, 20, name) for name in ("user", "item", "hour"))
LAYOUTS = {
    "ids": Layout(sparse=IDS),
    "mixed": Layout(
        sparse=(*IDS, SparseField("age#bin", 6, "age", binned=True)),
        lists=(ListField("tags", 9, 3),),
        dense=(DenseField("age"),),
    ),
}
# name -> (kinds of the streams that go to the head, whether there is a linear term)
STREAMS = {
    "LR": ([], True),
    "FM": (["fm"], True),
    "DNN": (["mlp"], False),
    "Wide&Deep": (["mlp"], True),
    "DeepFM": (["fm", "mlp"], True),
    "DCN": (["cross_v1", "mlp"], False),
    "DCNv2": (["cross", "mlp"], False),
    "xDeepFM": (["cin", "mlp"], True),
    "AutoInt+": (["autoint", "mlp"], False),
    "FiBiNET": (["mlp"], True),
    "PNN": (["mlp"], False),
    "MaskNet": (["mlp"], False),
    "FinalMLP": (["two_stream"], False),
    "FinalNet": (["factorized", "factorized"], False),
    "EDCN": (["edcn"], False),
    "DESTINE": (["destine", "mlp"], False),
    "QNN": (["qnn"], False),
    "DCNv3": (["cross_exponential", "cross_linear"], False),
    "LiRank": (["cross_residual", "gated_mlp"], False),
}

NAMES = list(STREAMS)


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("name", NAMES)
def test_a_named_architecture_is_a_point_that_trains(name, layout):
    space = CtrSpace(LAYOUTS[layout], rows=200_000)
    candidate = space.named()[name]
    assert space.contains(candidate)
    plain = space.canonical(candidate)
    plan = plain.architecture
    kinds, linear = STREAMS[name]
    assert sorted(plan.nodes[i].kind for i in plan.sinks) == kinds
    assert plan.linear == linear
    network = build(plain, LAYOUTS[layout], seed=0)
    codes = torch.stack([torch.arange(8) % f.rows for f in LAYOUTS[layout].sparse], 1).int()
    batch = type("Batch", (), {})()
    batch.codes, batch.lists = codes, [torch.ones(8, 3).int() for _ in LAYOUTS[layout].lists]
    batch.dense = torch.randn(8, len(LAYOUTS[layout].dense))
    network(batch).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_all_names_are_there_and_differ():
    space = CtrSpace(LAYOUTS["ids"])
    assert list(space.named()) == NAMES
    assert len({space.key(candidate) for candidate in space.named().values()}) == len(NAMES)


def test_self_distillation_belongs_to_those_who_published_it():
    named = CtrSpace(LAYOUTS["ids"]).named()
    kinds = {name: candidate.recipe.get("distil", "none") for name, candidate in named.items()}
    taught = {name: kind for name, kind in kinds.items() if kind != "none"}
    assert taught == {"FinalNet": "streams", "QNN": "dropout", "DCNv3": "gap"}


def test_a_space_without_a_block_has_no_architecture_of_it():
    named = CtrSpace(LAYOUTS["ids"], kinds=("mlp", "fm"), blocks=2).named()
    assert list(named) == ["LR", "FM", "DNN", "Wide&Deep", "DeepFM"]
    assert "FiBiNET" not in CtrSpace(LAYOUTS["ids"], blocks=3).named()


@pytest.mark.parametrize("kind", [CtrSpace, RatingSpace])
def test_starts_are_those_that_were_asked_for(kind):
    space = kind(LAYOUTS["ids"], starts=["FinalNet", "DeepFM"])
    assert [name for name, _ in space.starts()] == ["FinalNet", "DeepFM"]
    again = kind(LAYOUTS["ids"], **space.to_json()["arguments"])
    assert again.starts() == space.starts()
    with pytest.raises(SpaceError, match=r"'finalnet'.*did you mean 'FinalNet'"):
        kind(LAYOUTS["ids"], starts=["finalnet"])


def test_starts_become_part_of_the_space():
    assert with_starts("auto", None) == "auto"
    assert with_starts("auto", ["DNN"]) == {"starts": ["DNN"]}
    assert with_starts({"name": "ctr", "blocks": 6}, ("DNN",)) == {
        "name": "ctr",
        "blocks": 6,
        "starts": ["DNN"],
    }
    with pytest.raises(ConfigError, match="list of names"):
        with_starts("auto", "DNN")


def test_at_most_twelve_blocks():
    assert CtrSpace(LAYOUTS["ids"], blocks=12).blocks == 12
    with pytest.raises(SpaceError, match="1 to 12 blocks, but got blocks=13"):
        CtrSpace(LAYOUTS["ids"], blocks=13)
