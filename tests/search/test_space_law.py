"""The law of spaces: genes and candidates agree, and equal keys mean equal models, both ways."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autorec.architecture import DENSE, NONE, SPARSE, Architecture, Node, Source, canonical
from autorec.candidate import NEURAL, TREE, Candidate, Features
from autorec.errors import SpaceError
from autorec.schema import DenseField, Layout, ListField, SparseField
from autorec.search_spaces.ctr import CtrSpace
from autorec.search_spaces.rating import RatingSpace
from autorec.seeding import numpy_rng
from autorec.space import Space, contains_value

IDS = (SparseField("user", 100, "user"), SparseField("item", 50, "item"))
BINS = (SparseField("age#bin", 10, "age", binned=True),)
NUMBERS = (DenseField("age"), DenseField("price", nullable=True))
LAYOUTS = {
    "dense-only": Layout(sparse=BINS, dense=NUMBERS),
    "sparse-only": Layout(sparse=IDS, lists=(ListField("tags", 30, 5),)),
    "mixed": Layout(sparse=IDS + BINS, dense=NUMBERS),
}
CASES = [(kind, layout) for kind in (CtrSpace, RatingSpace) for layout in LAYOUTS]
N = 1000


@pytest.fixture(scope="module", params=CASES, ids=[f"{k.name}-{name}" for k, name in CASES])
def space(request: pytest.FixtureRequest) -> Space:
    """Each published space on each kind of layout."""
    kind, layout = request.param
    made: Space = kind(LAYOUTS[layout])
    return made


@pytest.fixture(scope="module")
def candidates(space: Space) -> list[Candidate]:
    """A thousand random candidates of `space`."""
    return [space.sample(numpy_rng(0, "law", number)) for number in range(N)]


def test_all_families_and_kinds_are_drawn(space: Space, candidates: list[Candidate]) -> None:
    assert {candidate.family for candidate in candidates} == {NEURAL, TREE}
    plans = [candidate.architecture for candidate in candidates if candidate.architecture]
    assert {"mlp", "fm", "cross", NONE} <= {node.kind for plan in plans for node in plan.nodes}
    assert len({space.key(candidate) for candidate in candidates}) > 0.9 * N


def test_genes_and_candidates_agree(space: Space, candidates: list[Candidate]) -> None:
    for candidate in candidates:
        params = space.params(candidate)
        assert space.decode(params) == candidate
        assert space.suggest(optuna.trial.FixedTrial(dict(params))) == candidate
        genes = space.distributions(candidate)
        assert genes.keys() == params.keys()
        assert all(contains_value(gene, params[name]) for name, gene in genes.items())
        assert space.contains(candidate)


def test_optuna_asks_for_the_genes_that_params_names(
    space: Space, candidates: list[Candidate]
) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for candidate in candidates[:50]:
        study.enqueue_trial(dict(space.params(candidate)))
        trial = study.ask()
        assert space.suggest(trial) == candidate
        assert trial.params == space.params(candidate)
        assert trial.distributions == space.distributions(candidate)


def test_the_canonical_form_is_its_own_and_keeps_the_key(
    space: Space, candidates: list[Candidate]
) -> None:
    for candidate in candidates:
        plain = space.canonical(candidate)
        assert space.canonical(plain) == plain
        assert space.key(plain) == space.key(candidate)
        assert space.key(space.decode(space.params(plain))) == space.key(candidate)
        assert space.contains(plain)


def test_vectors_are_equal_where_keys_are(space: Space, candidates: list[Candidate]) -> None:
    found: dict[str, bytes] = {}
    length = len(space.encode(candidates[0]))
    for candidate in candidates[:300]:
        vector = space.encode(candidate)
        assert vector.shape == (length,) and vector.dtype == np.float32
        assert np.isfinite(vector).all() and vector.min() >= 0 and vector.max() <= 1
        assert np.array_equal(vector, space.encode(space.canonical(candidate)))
        found[space.key(candidate)] = vector.tobytes()
    assert len(set(found.values())) == len(found)


def test_a_candidate_survives_json(candidates: list[Candidate]) -> None:
    for candidate in candidates:
        text = json.dumps(candidate.to_json())
        read = Candidate.from_json(json.loads(text))
        assert read == candidate
        assert json.dumps(read.to_json()) == text


def test_a_mutant_is_another_candidate_of_the_space(
    space: Space, candidates: list[Candidate]
) -> None:
    kept = 0
    for number, candidate in enumerate(candidates[:200]):
        mutant = space.mutate(candidate, numpy_rng(1, "mutate", number))
        assert space.key(mutant) != space.key(candidate)
        assert space.decode(space.params(mutant)) == mutant
        assert mutant == space.mutate(candidate, numpy_rng(1, "mutate", number))
        kept += mutant.family == candidate.family
    assert kept > 150, "one gene is redrawn, and the family is one of many"


def test_starts_and_the_tree_baseline_lie_in_the_space(space: Space) -> None:
    for _, candidate in space.starts():
        assert space.contains(candidate)
    inside = {name for name, candidate in space.baselines() if space.contains(candidate)}
    assert inside == {"lightgbm"}
    names = [name for name, _ in space.starts() + space.baselines()]
    assert len(set(names)) == len(names)


# --- keys -----------------------------------------------------------------------------------------


def disguised(plan: Architecture, rng: np.random.Generator) -> Architecture:
    """Return the same network: nodes in another order, dead ones added and read by live ones."""
    nodes: list[Node | None] = [*plan.nodes, None, None]
    reads = [node.nodes_read if node else () for node in nodes]
    order: list[int] = []
    while len(order) < len(nodes):
        ready = [
            i for i in range(len(nodes)) if i not in order and all(j in order for j in reads[i])
        ]
        order.append(ready[int(rng.integers(len(ready)))])
    place = {old: new for new, old in enumerate(order)}
    dead: list[int] = []
    made: list[Node] = []
    for position, old in enumerate(order):
        node = nodes[old]
        if node is not None:
            inputs: list[Source] = [s if isinstance(s, str) else place[s] for s in node.inputs]
            made.append(replace(node, inputs=(*reversed(inputs), *dead)))
            continue
        earlier: list[Source] = [j for j in range(position) if rng.random() < 0.5]
        fake = [Node(NONE, (DENSE, *earlier)), Node("mlp", (*dead,), (("width", 64),))]
        made.append(fake[int(rng.integers(2))])
        dead.append(position)
    return replace(plan, nodes=tuple(made))


def test_a_disguise_keeps_the_key(space: Space, candidates: list[Candidate]) -> None:
    rng = numpy_rng(2, "disguise")
    networks = [candidate for candidate in candidates if candidate.architecture is not None]
    changed = 0
    for candidate in networks[:300]:
        assert candidate.architecture is not None
        twin = replace(candidate, architecture=disguised(candidate.architecture, rng))
        assert space.key(twin) == space.key(candidate)
        changed += twin.architecture.nodes[: len(candidate.architecture.nodes)] != (
            candidate.architecture.nodes
        )
    assert changed > 100


def live(plan: Architecture, raws: frozenset[str]) -> dict[int, tuple[Any, ...]]:
    """Return what each live node is: kind, arguments, live inputs; found by repeated removal."""
    alive = {i for i, node in enumerate(plan.nodes) if node.kind != NONE}
    while True:
        fed = {
            i for i in alive if any(s in raws or s in alive for s in plan.nodes[i].inputs if s != i)
        }
        if fed == alive:
            break
        alive = fed
    return {
        i: (
            plan.nodes[i].kind,
            plan.nodes[i].args,
            {s for s in plan.nodes[i].inputs if s in raws or s in alive},
        )
        for i in alive
    }


def certificate(plan: Architecture, raws: frozenset[str]) -> str:
    """Return the smallest description of the live network over all numberings of its nodes."""
    nodes = live(plan, raws)
    found = []
    for order in itertools.permutations(nodes):
        number = {old: new for new, old in enumerate(order)}
        found.append(
            [
                (kind, str(args), sorted(str(number.get(s, s)) for s in inputs))
                for kind, args, inputs in (nodes[old] for old in order)
            ]
        )
    return str(min(found))


def partition(plans: Iterator[Architecture], raws: frozenset[str]) -> tuple[int, int]:
    """Check that equal canonical nodes mean isomorphic, and return how many plans and classes."""
    key_of: dict[str, tuple[Node, ...]] = {}
    certificate_of: dict[tuple[Node, ...], str] = {}
    count = 0
    for count, plan in enumerate(plans, 1):  # noqa: B007
        nodes, cert = canonical(plan, raws).nodes, certificate(plan, raws)
        assert key_of.setdefault(cert, nodes) == nodes, "isomorphic, yet different keys"
        assert certificate_of.setdefault(nodes, cert) == cert, "equal keys, yet not isomorphic"
    return count, len(key_of)


def subsets(sources: list[Source]) -> list[tuple[Source, ...]]:
    """Return all subsets of `sources`."""
    sizes = range(len(sources) + 1)
    return [chosen for size in sizes for chosen in itertools.combinations(sources, size)]


def every_plan(kinds: list[str], nodes: int, raws: list[Source]) -> Iterator[Architecture]:
    """Yield every DAG of so many nodes of these kinds."""
    choices = [
        [Node(kind, inputs) for kind in kinds for inputs in subsets([*raws, *range(i)])]
        for i in range(nodes)
    ]
    for chosen in itertools.product(*choices):
        yield Architecture(chosen, 8)


def test_keys_of_all_small_networks_are_equal_iff_isomorphic() -> None:
    raws = frozenset((DENSE,))
    assert partition(every_plan(["a", "b", NONE], 3, [DENSE]), raws) == (1728, 130)


def test_keys_of_all_networks_of_four_equal_blocks() -> None:
    count, classes = partition(every_plan(["a"], 4, [DENSE]), frozenset((DENSE,)))
    assert count == 1024
    assert 20 < classes < count / 3


def test_a_missing_raw_input_is_dead() -> None:
    both = every_plan(["a"], 3, [DENSE, SPARSE])
    count, classes = partition(both, frozenset((SPARSE,)))
    assert count == 4 * 8 * 16
    assert classes < 40


def test_keys_of_larger_networks_are_equal_iff_isomorphic() -> None:
    rng = numpy_rng(3, "graphs")

    def plans() -> Iterator[Architecture]:
        for _ in range(120):
            size = int(rng.integers(4, 7))
            nodes = []
            for i in range(size):
                inputs: list[Source] = [j for j in range(i) if rng.random() < 0.4]
                inputs += [SPARSE] * (not inputs or rng.random() < 0.3)
                args = (("layers", int(rng.integers(2))),) * bool(rng.integers(2))
                nodes.append(Node("a", tuple(inputs), args))
            plan = Architecture(tuple(nodes), 8)
            yield plan
            yield _renumbered(plan, rng)
            yield _flipped(plan, rng)

    count, classes = partition(plans(), frozenset((SPARSE,)))
    assert count == 360
    assert classes < 240


def _renumbered(plan: Architecture, rng: np.random.Generator) -> Architecture:
    disguise = disguised(plan, rng)
    kept = [i for i, node in enumerate(disguise.nodes) if node.kind == "a"]
    place = {old: new for new, old in enumerate(kept)}
    nodes = []
    for i in kept:
        inputs = [s if isinstance(s, str) else place.get(s) for s in disguise.nodes[i].inputs]
        nodes.append(replace(disguise.nodes[i], inputs=tuple(s for s in inputs if s is not None)))
    return Architecture(tuple(nodes), plan.embedding_width)


def _flipped(plan: Architecture, rng: np.random.Generator) -> Architecture:
    i = int(rng.integers(1, len(plan.nodes)))
    flip = int(rng.integers(i))
    inputs = set(plan.nodes[i].inputs) ^ {flip}
    nodes = list(plan.nodes)
    nodes[i] = replace(nodes[i], inputs=tuple(inputs))
    return Architecture(tuple(nodes), plan.embedding_width)


def test_what_has_an_effect_changes_the_key() -> None:
    space = CtrSpace(LAYOUTS["mixed"])
    base = space.network([Node("mlp", args=(("width", 64), ("layers", 2)))], space.start_recipe())
    plan = base.architecture
    assert plan is not None
    others = [
        replace(base, architecture=replace(plan, embedding_width=17)),
        replace(base, architecture=replace(plan, linear=True)),
        replace(base, architecture=replace(plan, nodes=(replace(plan.nodes[0], kind="cross"),))),
        replace(base, architecture=replace(plan, nodes=(replace(plan.nodes[0], args=()),))),
        replace(base, features=Features("bins")),
        replace(base, recipe=base.recipe.changed(lr=0.002)),
        replace(base, recipe=base.recipe.changed(embedding_l2=0.01)),
        replace(base, recipe=base.recipe.changed(schedule="constant")),
    ]
    keys = [space.key(candidate) for candidate in (base, *others)]
    assert len(set(keys)) == len(keys)


def test_what_has_no_effect_does_not() -> None:
    space = CtrSpace(LAYOUTS["mixed"])
    mlp = Node("mlp", (DENSE,), (("width", 64), ("layers", 2)))
    base = Candidate(NEURAL, space.start_recipe(), Features("both"), Architecture((mlp,), 8))
    plan = base.architecture
    assert plan is not None
    same = [
        replace(base, architecture=replace(plan, embedding_width=16)),
        replace(base, features=Features("dense")),
        replace(base, recipe=base.recipe.changed(embedding_l2=0.01)),
        replace(base, recipe=base.recipe.changed(epochs=7)),
    ]
    assert {space.key(candidate) for candidate in same} == {space.key(base)}
    fm = Architecture((Node("fm", (DENSE,)),), 8)
    lifted = [replace(base, architecture=replace(fm, embedding_width=w)) for w in (8, 16)]
    assert space.key(lifted[0]) != space.key(lifted[1]), "numbers are lifted to that width"


def test_a_step_of_a_float_gene_has_one_value() -> None:
    space = CtrSpace(LAYOUTS["mixed"])
    recipe = space.start_recipe()

    def dropping(rate: float) -> Candidate:
        args = (("width", 64), ("layers", 2), ("dropout", rate), ("norm", "none"))
        return space.network([Node("mlp", args=args)], recipe)

    assert space.key(dropping(0.3)) == space.key(dropping(0.1 * 3))


# --- version, size, refusal -----------------------------------------------------------------------


def _changed(gene: BaseDistribution) -> BaseDistribution:
    if isinstance(gene, CategoricalDistribution):
        return CategoricalDistribution((*gene.choices, "another"))
    if isinstance(gene, IntDistribution):
        return IntDistribution(gene.low, gene.high + gene.step, log=gene.log, step=gene.step)
    assert isinstance(gene, FloatDistribution)
    return FloatDistribution(gene.low, gene.high * 2, log=gene.log, step=gene.step)


def test_the_version_changes_with_any_gene_and_only_then(space: Space) -> None:
    layout = space.layout  # type: ignore[attr-defined]
    version, genes = space.version, dict(space.genes)
    twin = type(space)(layout, rows=7)  # type: ignore[call-arg]
    assert twin.version == version, "training rows change the starts, not the genes"
    twin.genes = dict(reversed(genes.items()))
    assert twin.version == version
    seen = {version}
    for name, gene in genes.items():
        for other in (
            {**genes, name: _changed(gene)},
            {n: g for n, g in genes.items() if n != name},
        ):
            twin.genes = other
            seen.add(twin.version)
    assert len(seen) == 2 * len(genes) + 1
    twin.genes = {**genes, "new": IntDistribution(0, 1)}
    assert twin.version not in seen


def test_spaces_of_other_names_have_other_versions() -> None:
    versions = {
        kind(layout).version for kind in (CtrSpace, RatingSpace) for layout in LAYOUTS.values()
    }
    assert len(versions) == 2 * len(LAYOUTS), "a version is one of a space and its columns"


class Tiny(CtrSpace):
    """A space small enough to be listed."""

    def recipe_genes(self) -> dict[str, BaseDistribution]:
        return {
            "lr": FloatDistribution(1e-3, 1e-2, log=True),
            "embedding_l2": FloatDistribution(1e-9, 0.3, log=True),
            "batch_size": CategoricalDistribution((256, 1024)),
            "schedule": CategoricalDistribution(("plateau", "cosine")),
            "epochs": IntDistribution(1, 3),
            "ema": CategoricalDistribution((0.0, 0.99)),
        }


class _Unanswered(Exception):
    """A gene was asked for that has no answer yet."""


def _listed(space: Space) -> int:
    """Count all raw candidates by walking through every answer; a float gene has one."""
    found = set()
    queue: list[list[Any]] = [[]]
    while queue:
        answers = queue.pop()
        open_gene: list[BaseDistribution] = []
        given = iter(answers)

        def ask(name: str, given: Any = given, open_gene: Any = open_gene) -> Any:
            gene = space.genes[name]
            answer = next(given, None)
            if answer is None:
                open_gene.append(gene)
                raise _Unanswered
            return answer

        try:
            found.add(space.walk(ask))
        except _Unanswered:
            queue += [[*answers, value] for value in _values(open_gene[0])]
    return len(found)


def _values(gene: BaseDistribution) -> list[Any]:
    if isinstance(gene, CategoricalDistribution):
        return list(gene.choices)
    if isinstance(gene, IntDistribution):
        return list(range(gene.low, gene.high + 1, gene.step))
    return [gene.low]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("layout", "blocks", "kinds"),
    [("mixed", 1, ["fm"]), ("sparse-only", 2, ["fm"]), ("dense-only", 1, ["fm", "cross"])],
)
def test_the_size_is_the_number_of_raw_candidates(
    layout: str, blocks: int, kinds: list[str]
) -> None:
    space = Tiny(LAYOUTS[layout], blocks=blocks, kinds=kinds, families=[NEURAL])
    space.genes = {**space.genes, "embedding.width": IntDistribution(4, 5)}
    assert space.size() == _listed(space)


def test_the_size_of_trees() -> None:
    space = CtrSpace(LAYOUTS["mixed"], families=[TREE])
    leaves, child = space.genes["tree.num_leaves"], space.genes["tree.min_child_samples"]
    assert space.size() == len(_values(leaves)) * len(_values(child))
    assert math.isfinite(CtrSpace(LAYOUTS["mixed"], blocks=8).size())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe.lr": 1.0}, r"gene 'recipe.lr' must lie in .*, but got 1.0"),
        ({"head.linear": 1}, r"gene 'head.linear' must lie in .*, but got 1"),
        ({"recipe.lr": None}, r"needs the gene 'recipe.lr', but has"),
    ],
)
def test_genes_outside_the_space_are_refused(change: dict[str, Any], message: str) -> None:
    space = CtrSpace(LAYOUTS["mixed"])
    params = {**space.params(space.starts()[0][1]), **change}
    params = {name: value for name, value in params.items() if value is not None}
    with pytest.raises(SpaceError, match=message):
        space.decode(params)
