"""Bayesian optimisation: its parts against naive ones, faults of the public code, and optima."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from autorec.architecture import Node
from autorec.candidate import NEURAL, TREE, Candidate, Recipe
from autorec.edits import Edit, apply_all, edits
from autorec.errors import ConfigError
from autorec.job import Job, Report, Score
from autorec.search._bayesian_distance import (
    BLOCK,
    DIFFERENT,
    FAR,
    KIND,
    KINDS,
    NEAR,
    RELATIVES,
    SIZES,
    WIRING,
    Describer,
    Traits,
    apart,
    labels,
    relatives,
)
from autorec.search._bayesian_kernel import (
    Posterior,
    Weights,
    kernel,
    learn,
    likelihood,
    standardised,
)
from autorec.search._bayesian_moves import Leaf, Moves, explore
from autorec.search._bayesian_pairs import Pairs, Stored
from autorec.search._bayesian_past import Foreign, Row, chosen, scores
from autorec.search.bayesian import Bayesian
from autorec.search.engine import make_engine
from autorec.search.journal import open_journal
from autorec.search.runner import run_worker
from autorec.search_spaces.ctr import CtrSpace


@pytest.fixture(scope="module")
def twins(ctr_space: CtrSpace) -> list[Candidate]:
    """Return random candidates, trees among them, and neighbours of each, all different."""
    rng = np.random.default_rng(0)
    drawn = [ctr_space.canonical(ctr_space.sample(rng)) for _ in range(30)]
    near = [ctr_space.canonical(ctr_space.mutate(one, rng)) for one in drawn]
    return list(dict.fromkeys(drawn + near))


def distances(space: CtrSpace, twins: Sequence[Candidate]) -> np.ndarray:
    """Return distances, group by group (n, n, groups), pair by pair."""
    describe = Describer(space)
    traits = [describe(twin) for twin in twins]
    return np.stack([[apart(a, b, len(describe.groups)) for b in traits] for a in traits])


@pytest.fixture(scope="module")
def parts(ctr_space: CtrSpace, twins: list[Candidate]) -> np.ndarray:
    """Return the distances of `twins`, group by group."""
    return distances(ctr_space, twins)


def fed(space: CtrSpace, *nodes: Node) -> Candidate:
    return space.canonical(space.network(nodes, space.start_recipe()))


# --- distance ----------------------------------------------------------------------------------


def test_the_distance_is_a_metric(
    ctr_space: CtrSpace, twins: list[Candidate], parts: np.ndarray
) -> None:
    whole = parts.sum(axis=2)
    keys = [ctr_space.key(twin) for twin in twins]
    same = np.asarray([[a == b for b in keys] for a in keys])
    assert np.array_equal(whole, whole.T)
    assert np.array_equal(whole == 0, same)
    assert whole[~same].min() >= DIFFERENT
    # Sums are exact: no tolerance.
    detours = whole[:, None, :] + whole.T[None]
    assert (whole[:, :, None] <= detours).all()
    assert np.array_equal(parts * 2.0**13, np.round(parts * 2.0**13))


def test_equal_keys_are_no_distance_apart(ctr_space: CtrSpace) -> None:
    rng = np.random.default_rng(3)
    describe = Describer(ctr_space)
    groups, shuffled = len(describe.groups), 0
    for _ in range(120):
        raw = ctr_space.sample(rng)
        plan = raw.architecture
        if plan is None or any(node.nodes_read for node in plan.nodes):
            continue
        order = tuple(plan.nodes[int(i)] for i in rng.permutation(len(plan.nodes)))
        other = replace(raw, architecture=replace(plan, nodes=order))
        shuffled += order != plan.nodes
        a, b = (describe(ctr_space.canonical(one)) for one in (raw, other))
        assert ctr_space.key(raw) == ctr_space.key(other)
        assert apart(a, b, groups).sum() == 0.0
    assert shuffled > 2


def assigned(a: Sequence[Sequence[Any]], b: Sequence[Sequence[Any]]) -> float:
    """Return the cost of the best assignment of blocks, tried one by one; each is a path of labels.

    An unmatched block pays its way to the root, a pair its way to the last label that it shares.
    """
    lengths = (BLOCK, RELATIVES, KIND, NEAR, FAR)

    def cost(one: Sequence[Any], two: Sequence[Any]) -> float:
        shared = 0
        while shared < len(lengths) and one[shared] == two[shared]:
            shared += 1
        return 2 * sum(lengths[shared:])

    few, many = sorted((a, b), key=len)
    best = math.inf
    for size in range(len(few) + 1):
        for left in itertools.combinations(range(len(few)), size):
            for right in itertools.permutations(range(len(many)), size):
                pairs = sum(cost(few[i], many[j]) for i, j in zip(left, right, strict=True))
                free = len(few) + len(many) - 2 * size
                best = min(best, pairs + free * sum(lengths))
    return best


def test_blocks_are_assigned_as_well_as_by_brute_force(
    ctr_space: CtrSpace, twins: list[Candidate], parts: np.ndarray
) -> None:
    def paths(twin: Candidate) -> list[list[Any]]:
        nodes = twin.architecture.nodes if twin.architecture else ()
        kinds, near, far = labels(nodes, 2)
        found = zip(kinds, near, far, strict=True)
        return [["block", relatives(str(k)), k, n, f] for k, n, f in found]

    groups = Describer(ctr_space).groups
    both = parts[:, :, groups.index(KINDS)] + parts[:, :, groups.index(WIRING)]
    counts = set()
    for i, j in itertools.combinations(range(0, len(twins), 2), 2):
        a, b = paths(twins[i]), paths(twins[j])
        counts.add((len(a), len(b)))
        assert both[i, j] - DIFFERENT == pytest.approx(assigned(a, b), abs=1e-12)
    assert {(0, 3), (3, 3)} <= counts


def test_widths_are_compared_by_their_ratios(ctr_space: CtrSpace) -> None:
    describe = Describer(ctr_space)
    place = describe.groups.index(SIZES)

    def sizes(*widths: int) -> Candidate:
        return fed(ctr_space, *(ctr_space.node("mlp", width=w, layers=1) for w in widths))

    def between(a: Candidate, b: Candidate) -> float:
        return float(apart(describe(a), describe(b), len(describe.groups))[place])

    for one, two in ((64, 128), (400, 800), (32, 1024), (100, 101)):
        expected = math.log(two / one) / math.log(1024 / 32)
        assert between(sizes(one), sizes(two)) == pytest.approx(expected, abs=1.1 / 1024)
    # Several are assigned in order: 64 to 128 and 512 to 1024, not across.
    assert between(sizes(64, 1024), sizes(512, 128)) == pytest.approx(2 / 5, abs=0.01)
    assert between(sizes(64), sizes(64, 1024)) == pytest.approx(1.0, abs=0.01)


def test_relatives_are_nearer_than_strangers_and_recipes_count_in_logs(
    ctr_space: CtrSpace,
) -> None:
    describe = Describer(ctr_space)

    def between(a: Candidate, b: Candidate) -> float:
        return float(apart(describe(a), describe(b), len(describe.groups)).sum())

    cross, gated, fm = (fed(ctr_space, ctr_space.node(k)) for k in ("cross", "cross_gated", "fm"))
    assert between(cross, gated) < between(cross, fm)
    slow, quick, quickest = (
        ctr_space.network([ctr_space.node("fm")], ctr_space.start_recipe(lr=lr))
        for lr in (4e-4, 8e-4, 1.6e-3)
    )
    assert between(slow, quick) - DIFFERENT == pytest.approx(math.log(2) / math.log(50), abs=2e-3)
    assert between(slow, quickest) == pytest.approx(2 * between(slow, quick), abs=0.02)


def test_stored_distances_are_those_of_pairs(
    ctr_space: CtrSpace, twins: list[Candidate], parts: np.ndarray
) -> None:
    describe = Describer(ctr_space)
    stored = Stored(len(describe.groups))
    places = np.asarray([stored.add(describe(twin)) for twin in twins[:40]])
    for i, twin in enumerate(twins):
        assert np.array_equal(stored.apart(describe(twin), places[::2]), parts[i, :40:2])


def test_weighted_distances_do_not_depend_on_what_was_asked_before(
    ctr_space: CtrSpace, twins: list[Candidate], parts: np.ndarray
) -> None:
    describe, rng = Describer(ctr_space), np.random.default_rng(0)
    weights = np.round(rng.exponential(size=len(describe.groups)) * 2.0**20) / 2.0**20
    traits = {i: describe(twin) for i, twin in enumerate(twins)}
    pairs = Pairs(weights)
    for count in (5, 12, 12, 30, 7, 7, 2, 2, 2, 40):
        asked = sorted(int(i) for i in rng.choice(len(twins), count, replace=False))
        wanted = {i: traits[i] for i in asked}
        found = pairs.among(wanted)
        assert np.array_equal(found, Pairs(weights).among(wanted))
        assert np.array_equal(found, (parts @ weights)[np.ix_(asked, asked)])
        assert np.array_equal(pairs.to(traits[3]), (parts @ weights)[3, asked])


# --- Gaussian process --------------------------------------------------------------------------


@pytest.mark.parametrize("n", [10, 50, 200])
def test_the_kernel_of_training_and_queries_together_is_positive(
    n: int, ctr_space: CtrSpace
) -> None:
    rng = np.random.default_rng(n)
    describe = Describer(ctr_space)
    drawn = [ctr_space.canonical(ctr_space.sample(rng)) for _ in range(n)]
    drawn += [ctr_space.canonical(ctr_space.mutate(one, rng)) for one in drawn[: n // 4]]
    traits = [describe(twin) for twin in drawn]
    stored = Stored(len(describe.groups))
    places = np.asarray([stored.add(one) for one in traits])
    found = np.stack([stored.apart(one, places) for one in traits])
    for scale in (0.01, 0.1, 1.0):
        gram = kernel(found @ (scale * rng.exponential(size=found.shape[2])))
        assert np.linalg.eigvalsh(gram)[0] >= -1e-8


def test_the_square_of_the_same_distance_would_not_do(parts: np.ndarray) -> None:
    whole = parts.sum(axis=2)
    gram = np.exp(-np.square(whole / np.median(whole)))
    assert np.linalg.eigvalsh(gram)[0] < -1e-4


@pytest.fixture(scope="module")
def some(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, Weights]:
    """Return distances of 30 candidates, group by group, their scores, and weights."""
    rng = np.random.default_rng(1)
    weights = Weights(0.1 * rng.exponential(size=parts.shape[2]), 0.1)
    return parts[:30, :30], rng.standard_normal(30), weights


def test_the_posterior_is_that_of_the_dense_formulas(
    parts: np.ndarray, some: tuple[np.ndarray, np.ndarray, Weights]
) -> None:
    _, y, weights = some
    whole = parts @ weights.groups
    k = np.exp(-whole)
    n, queries = 30, slice(30, 60)
    noisy = k[:n, :n] + weights.noise * np.eye(n)
    variance = (y @ np.linalg.solve(noisy, y) + 2.0) / (n + 2.0)
    mean_, deviation = Posterior(whole[:n, :n], y, weights.noise)(whole[queries, :n])
    across = k[queries, :n]
    assert mean_ == pytest.approx(across @ np.linalg.solve(noisy, y), abs=1e-10)
    left = 1.0 - np.diag(across @ np.linalg.solve(noisy, across.T))
    assert deviation == pytest.approx(np.sqrt(variance * left), abs=1e-10)


def test_pending_candidates_are_believed_to_score_their_mean(
    parts: np.ndarray, some: tuple[np.ndarray, np.ndarray, Weights]
) -> None:
    _, y, weights = some
    whole = parts @ weights.groups
    first = Posterior(whole[:30, :30], y, weights.noise)
    believed, doubt = first(whole[30:34, :30])
    with_pending = Posterior(whole[:34, :34], y, weights.noise)
    told = Posterior(whole[:34, :34], np.append(y, believed), weights.noise)
    mean_, deviation = with_pending(whole[30:60, :34])
    assert mean_ == pytest.approx(first(whole[30:60, :30])[0], abs=1e-10)
    assert mean_ == pytest.approx(told(whole[30:60, :34])[0], abs=1e-10)
    ratio = math.sqrt(with_pending.variance / told.variance)
    assert deviation == pytest.approx(ratio * told(whole[30:60, :34])[1], abs=1e-10)
    assert (deviation[:4] < 0.85 * doubt).all()


def test_the_likelihood_is_that_of_a_normal_and_its_slopes_are_its_own(
    some: tuple[np.ndarray, np.ndarray, Weights],
) -> None:
    found, y, weights = some
    value, slopes, noise_slope = likelihood(found, y, weights)
    noisy = np.exp(-(found @ weights.groups)) + weights.noise * np.eye(30)
    power = y @ np.linalg.solve(noisy, y)
    expected = -16.0 * math.log((power + 2.0) / 32.0) - 0.5 * np.linalg.slogdet(noisy)[1]
    assert value == pytest.approx(expected, abs=1e-9)
    step = 1e-5
    for group in range(len(slopes)):
        moved = []
        for sign in (1, -1):
            groups = weights.groups.copy()
            groups[group] *= math.exp(sign * step)
            moved.append(likelihood(found, y, Weights(groups, weights.noise))[0])
        assert slopes[group] == pytest.approx((moved[0] - moved[1]) / (2 * step), abs=1e-5)
    ends = [
        likelihood(found, y, Weights(weights.groups, weights.noise * math.exp(s * step)))[0]
        for s in (1, -1)
    ]
    assert noise_slope == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-5)


def test_learning_finds_what_matters_and_how_noisy_it_is() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((90, 4))
    found = np.abs(x[:, None] - x[None])
    clean = np.sin(5 * x[:, 2])
    quiet = learn(found, standardised(clean), seconds=9.0)
    loud = learn(found, standardised(clean + rng.standard_normal(90)), seconds=9.0)
    assert quiet.groups[2] > 4 * max(quiet.groups[[0, 1, 3]])
    assert loud.noise > 10 * quiet.noise
    value = [likelihood(found, standardised(clean), w)[0] for w in (quiet, loud)]
    assert value[0] > value[1]
    stopped = learn(found, standardised(clean), seconds=0.0)
    assert stopped.groups == pytest.approx(np.full(4, 0.5 / found.mean(axis=(0, 1)) * 89 / 90))


def test_it_predicts_candidates_that_it_has_not_seen(ctr_space: CtrSpace) -> None:
    rng = np.random.default_rng(0)
    describe = Describer(ctr_space)
    drawn = [ctr_space.canonical(ctr_space.sample(rng)) for _ in range(300)]
    worth = np.asarray([planted(twin) for twin in drawn])
    stored = Stored(len(describe.groups))
    places = np.asarray([stored.add(describe(twin)) for twin in drawn])
    found = np.stack([stored.apart(describe(twin), places[:100]) for twin in drawn])
    y = standardised(worth[:100])
    weights = learn(found[:100], y, seconds=9.0)
    posterior = Posterior(found[:100] @ weights.groups, y, weights.noise)
    networks = [i for i in range(100, 300) if drawn[i].family == NEURAL]
    mean_, _ = posterior(found[networks] @ weights.groups)
    assert np.corrcoef(mean_, worth[networks])[0, 1] > 0.4


def test_scores_are_standardised_behind_a_fence() -> None:
    plain = standardised(np.asarray([1.0, 2.0, 3.0, 4.0]))
    assert (plain.mean(), plain.std()) == (pytest.approx(0.0), pytest.approx(1.0))
    tables = [[0.75, 0.76, 0.74, bad] for bad in (-50.0, -3.5e6, -math.inf)]
    one, two, three = (standardised(np.asarray(t)) for t in tables)
    assert np.array_equal(one, two) and np.array_equal(one, three)
    assert one.argmin() == 3 and one[1] > one[0] > one[2]
    assert standardised(np.asarray([2.0, 2.0])).tolist() == [0.0, 0.0]
    assert standardised(np.asarray([-math.inf, -math.inf])).tolist() == [0.0, 0.0]
    assert standardised(np.asarray([math.inf, 1.0, 2.0])).argmin() == 1


# --- the tree of edits -------------------------------------------------------------------------


def planted(candidate: Candidate) -> float:
    """Score with one best place: networks of two crosses, a learning rate of 1e-3, width 16."""
    plan = candidate.architecture
    if candidate.family != NEURAL or plan is None:
        return -5.0 - abs(math.log10(float(candidate.recipe["learning_rate"])) + 1)
    crosses = sum(node.kind == "cross" for node in plan.nodes)
    width = abs(math.log2(plan.embedding_width) - 4) if plan.embedding_width else 4
    return -abs(crosses - 2) - width - 3 * abs(math.log10(float(candidate.recipe["lr"])) + 3)


def inherits(space: CtrSpace, parent: Candidate, leaf: Leaf) -> bool:
    """Replay the edits of `leaf` on its parent; tell whether they were enough."""
    if not all(name.startswith("recipe.") for name in leaf.redrawn):
        return False
    replayed = apply_all(parent, [Edit.from_json(e.to_json()) for e in leaf.edits], space)
    child = replayed.candidate
    assert child.architecture == leaf.candidate.architecture
    same = Candidate(child.family, leaf.candidate.recipe, child.features, child.architecture)
    assert space.key(same) == space.key(leaf.candidate)
    return True


@pytest.mark.parametrize("inherit", [True, False])
def test_children_are_one_step_away_and_their_edits_lead_to_them(
    inherit: bool, ctr_space: CtrSpace
) -> None:
    rng = np.random.default_rng(0)
    moves = Moves(ctr_space)
    inherited = redrawn = networks = 0
    for number in range(15):
        root = ctr_space.canonical(ctr_space.sample(rng))
        leaf = Leaf(root, root, number)
        for _ in range(3):
            brood = moves.children(leaf, {root}, rng, inherit=inherit)
            assert 1 <= len({child.twin for child in brood}) == len(brood) <= 8
            for child in brood:
                assert child.twin == ctr_space.canonical(child.candidate) != root
                assert ctr_space.contains(child.candidate)
                steps = len(child.edits) + len(child.redrawn)
                assert steps == len(leaf.edits) + len(leaf.redrawn) + 1
                assert child.parent == number
                if root.family == NEURAL:
                    networks += 1
                    inherited += inherits(ctr_space, root, child)
                redrawn += bool(child.redrawn)
            leaf = brood[0]
    assert inherited == networks > 100 if inherit else 20 < inherited < networks
    assert redrawn > 50


def test_a_step_can_add_a_block_and_take_one_away(ctr_space: CtrSpace) -> None:
    rng = np.random.default_rng(0)
    root = fed(ctr_space, ctr_space.node("fm"), ctr_space.node("mlp"))
    leaf, moves = Leaf(root, root, 0), Moves(ctr_space)
    brood = [child for _ in range(30) for child in moves.children(leaf, (), rng)]
    for edited, sizes in ((True, {2, 3}), (False, {1, 2, 3})):
        some = [child for child in brood if bool(child.edits) == edited]
        assert {len(c.twin.architecture.nodes) for c in some if c.twin.architecture} == sizes
        assert len(some) > 60
    grown = {child.edits[0].kind for child in brood if child.edits}
    assert grown == {edit.kind for edit in edits(root, ctr_space)}


def test_exploring_returns_the_best_new_leaf_it_met(ctr_space: CtrSpace) -> None:
    moves = Moves(ctr_space)
    met: list[tuple[float, Candidate]] = []

    def hope(leaves: Sequence[Leaf]) -> np.ndarray:
        found = np.asarray([planted(leaf.twin) for leaf in leaves])
        met.extend(zip(found.tolist(), (leaf.twin for leaf in leaves), strict=True))
        return found

    rng = np.random.default_rng(0)
    twins = [ctr_space.canonical(ctr_space.sample(rng)) for _ in range(10)]
    roots = [(planted(twin), Leaf(twin, twin, i)) for i, twin in enumerate(twins)]

    def run(seed: int, expansions: int, until: float = math.inf) -> Leaf:
        met.clear()
        leaf = explore(
            roots,
            moves,
            hope,
            set(twins),
            np.random.default_rng(seed),
            expansions=expansions,
            strangers=3,
            inherit=False,
            until=until,
        )
        assert leaf is not None
        return leaf

    gained = []
    for seed in range(3):
        leaf = run(seed, 20)
        seen = [twin for _, twin in met]
        assert len(set(seen)) == len(seen) <= 3 + 8 * 20
        assert not set(seen) & set(twins)
        assert planted(leaf.twin) == max(value for value, _ in met)
        gained.append(planted(leaf.twin) - max(worth for worth, _ in roots))
        assert run(seed, 20) == leaf
    assert min(gained) > 0.2
    run(0, 500, until=0.0)
    assert len(met) <= 3 + 8


def test_a_used_up_neighbourhood_gives_nothing(toys: Any) -> None:
    space = toys.Toy(points=3)
    twins = [space.decode({"kind": "flat", "x": x, "tag.a": 0}) for x in range(3)]
    leaf = explore(
        [(0.0, Leaf(twins[0], twins[0], 0))],
        Moves(space),
        lambda leaves: np.zeros(len(leaves)),
        set(twins),
        np.random.default_rng(0),
        expansions=10,
        strangers=4,
        inherit=True,
        until=math.inf,
    )
    assert leaf is None


# --- the engine --------------------------------------------------------------------------------


def small(space: CtrSpace | None, seed: int, **changed: Any) -> Bayesian:
    """Return an engine whose trials cost little."""
    return Bayesian(
        space, seed=seed, **({"startup": 8, "expansions": 4, "strangers": 16} | changed)
    )


def search(
    sampler: optuna.samplers.BaseSampler,
    space: CtrSpace,
    n: int,
    value: Callable[[Candidate], float] = planted,
) -> list[float]:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    found = []
    for _ in range(n):
        trial = study.ask()
        found.append(value(space.suggest(trial)))
        study.tell(trial, found[-1])
    return found


def test_beats_random_search_on_hidden_candidates_under_noise(ctr_space: CtrSpace) -> None:
    describe = Describer(ctr_space)
    wins = 0
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        hidden = describe(ctr_space.canonical(ctr_space.sample(rng)))

        def near(candidate: Candidate, hidden: Traits = hidden) -> float:
            own = describe(ctr_space.canonical(candidate))
            return -float(apart(own, hidden, len(describe.groups)).sum())

        value = planted if seed % 2 else near
        best = []
        for engine in (small(ctr_space, seed), make_engine("random", ctr_space, seed)):
            noise = np.random.default_rng(seed)
            study = optuna.create_study(direction="maximize", sampler=engine)
            true = []
            for _ in range(30):
                trial = study.ask()
                true.append(value(ctr_space.suggest(trial)))
                study.tell(trial, true[-1] + 0.3 * noise.standard_normal())
            # The best single one is mostly luck after so few trials.
            best.append(mean(sorted(true)[-5:]))
        wins += best[0] > best[1]
    # Of 20 fair coins 15 or more heads have a chance of 0.021.
    assert wins >= 15


def test_proposals_name_their_parent_and_their_edits(ctr_space: CtrSpace) -> None:
    study = optuna.create_study(direction="maximize", sampler=small(ctr_space, 0))
    for _ in range(30):
        trial = study.ask()
        study.tell(trial, planted(ctr_space.suggest(trial)))
    trials = study.get_trials(deepcopy=False)
    assert not any("bred" in trial.user_attrs for trial in trials[:8])
    born = [trial for trial in trials if "bred" in trial.user_attrs]
    inherited = 0
    for trial in born:
        bred = trial.user_attrs["bred"]
        parent = ctr_space.canonical(ctr_space.decode(trials[bred["parent"]].params))
        child = ctr_space.decode(trial.params)
        assert bred["parent"] < trial.number and bred["edits"] + bred["redrawn"]
        if parent.family == NEURAL and all(n.startswith("recipe.") for n in bred["redrawn"]):
            chain = [Edit.from_json(edit) for edit in bred["edits"]]
            edited = apply_all(parent, chain, ctr_space).candidate
            same = Candidate(NEURAL, child.recipe, edited.features, edited.architecture)
            assert ctr_space.key(same) == ctr_space.key(child)
            inherited += bool(chain)
    assert len(born) > 10 and inherited > 2


def test_interleaved_workers_never_try_a_candidate_twice(ctr_space: CtrSpace) -> None:
    study = optuna.create_study(direction="maximize")
    workers = [small(ctr_space, seed) for seed in (0, 0)]
    keys = []
    for number in range(14):
        running = []
        for worker in workers:
            study.sampler = worker
            trial = study.ask()
            candidate = ctr_space.suggest(trial)
            keys.append(ctr_space.key(candidate))
            running.append((trial, planted(candidate)))
        for trial, value in reversed(running):
            failed = number % 7 == 3
            study.tell(trial, None if failed else value, TrialState.FAIL if failed else None)
    assert len(set(keys)) == len(keys) == 28


def test_two_workers_on_one_journal_agree_on_keys(ctr_space: CtrSpace, tmp_path: Path) -> None:
    def evaluate(job: Job, report: Report) -> Score:
        if job.trial % 7 == 5:
            raise ConfigError(f"trial {job.trial} is made to fail")
        value = planted(job.candidate)
        report(10, value)
        return Score(value, {}, 10, 0.1, status="stopped" if job.trial % 5 == 1 else "complete")

    faults: list[BaseException] = []

    def work() -> None:
        try:
            study = optuna.create_study(
                study_name="s",
                direction="maximize",
                storage=open_journal(tmp_path),
                load_if_exists=True,
                sampler=small(ctr_space, 0),
            )
            run_worker(study, ctr_space, evaluate, seed=0, deadline=math.inf, n_trials=26)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    study = optuna.load_study(study_name="s", storage=open_journal(tmp_path))
    trials = [t for t in study.trials if "interrupted" not in str(t.user_attrs.get("failure"))]
    assert len(trials) == 26
    for trial in trials:
        assert trial.user_attrs["key"] == ctr_space.key(ctr_space.decode(trial.params))
    assert len({trial.user_attrs["key"] for trial in trials}) >= 25
    assert {t.state for t in trials} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}


def test_what_fails_counts_as_the_worst_and_what_runs_is_left_alone(ctr_space: CtrSpace) -> None:
    rows = [Row(i, ctr_space.starts()[i % 3][1], (float(i),)) for i in range(5)]
    failed = Row(5, rows[0].twin, None)
    found = scores([*rows, failed])
    assert found[-1] < found[:-1].min()
    several = [Row(0, rows[0].twin, (1.0, 2.0)), Row(1, rows[0].twin, (0.0, 1.0)), failed]
    assert np.argsort(-scores(several)).tolist() == [0, 1, 2]


def test_of_many_trials_the_best_and_some_others_are_kept(ctr_space: CtrSpace) -> None:
    twin = ctr_space.starts()[0][1]
    rng = np.random.default_rng(0)
    rows = [Row(i, twin, (float(rng.random()),)) for i in range(300)]
    kept = chosen(rows, 100, 0)
    numbers = [row.number for row in kept]
    assert numbers == sorted(set(numbers)) and len(numbers) == 100
    best = sorted(rows, key=lambda row: -row.worth[0])[:25]  # type: ignore[index]
    assert {row.number for row in best} <= set(numbers)
    more = chosen([*rows, Row(300, twin, (0.5,))], 100, 0)
    assert len({row.number for row in more} - set(numbers)) <= 1
    assert chosen(rows[:50], 100, 0) == rows[:50]


def test_a_study_beyond_what_the_process_holds_goes_on(ctr_space: CtrSpace) -> None:
    engine = small(ctr_space, 0, most=12)
    assert len(search(engine, ctr_space, 25)) == 25


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_diverged_loss_is_no_more_than_bad(ctr_space: CtrSpace, direction: str) -> None:
    bad = -1.0 if direction == "maximize" else 1.0
    proposals = []
    for loss in (60.0, 3.5e6, math.inf):
        study = optuna.create_study(direction=direction, sampler=small(ctr_space, 0))
        for number in range(11):
            trial = study.ask()
            value = planted(ctr_space.suggest(trial))
            study.tell(trial, bad * loss if number == 4 else -bad * value)
        proposals.append(ctr_space.suggest(study.ask()))
    assert proposals[0] == proposals[1] == proposals[2]


def test_global_generators_are_left_alone(ctr_space: CtrSpace) -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    search(small(ctr_space, 0), ctr_space, 11)
    after = np.random.get_state()[1]  # type: ignore[index]  # noqa: NPY002
    assert np.array_equal(before, after)


def test_the_clock_ends_the_search_of_the_tree_with_what_was_found(ctr_space: CtrSpace) -> None:
    hasty = small(ctr_space, 0, seconds=0.0, refit_seconds=0.0, expansions=10**6)
    assert len(search(hasty, ctr_space, 12)) == 12


def test_a_space_that_is_used_up_repeats_itself(toys: Any) -> None:
    space = toys.Toy(points=10)
    study = optuna.create_study(direction="maximize", sampler=small(space, 0, startup=4))
    keys = []
    for _ in range(13):
        trial = study.ask()
        keys.append(space.key(space.suggest(trial)))
        study.tell(trial, 0.0)
    assert len(set(keys[:9])) == 9


def test_a_foreign_study_is_searched_jointly() -> None:
    def away(trial: optuna.Trial) -> float:
        x, y = trial.suggest_float("x", -5, 5), trial.suggest_int("n", 0, 20)
        own = trial.suggest_float("z", 0, 1) if x > 0 else 1.0
        return (
            abs(x - 1) + abs(y - 7) / 2 + (trial.suggest_categorical("c", [None, "b"]) == "b") + own
        )

    def best(name: str, seed: int) -> float:
        study = optuna.create_study(
            sampler=small(None, seed) if name == "bayesian" else make_engine(name, None, seed)
        )
        study.optimize(away, n_trials=40)
        return study.best_value

    assert mean(best("bayesian", s) for s in range(4)) < mean(best("random", s) for s in range(4))


def test_what_all_trials_of_a_foreign_study_share_is_its_space() -> None:
    study = optuna.create_study()
    for number in range(3):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.suggest_int("moves", 0, number + 1)
        if number:
            trial.suggest_categorical("c", [True, False])
        study.tell(trial, 0.0)
    space = Foreign.of(study.trials)
    assert list(space.genes) == ["x"]
    assert space.params(Candidate(TREE, Recipe({"x": 0.5}))) == {"x": 0.5}
    assert Foreign.of([]).genes == {}


@pytest.mark.parametrize("wrong", [{"startup": 1}, {"expansions": 0}, {"beta": -1.0}], ids=str)
def test_numbers_too_small_to_search_with_are_refused(
    ctr_space: CtrSpace, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"at least 1 expansion.*but got startup="):
        Bayesian(ctr_space, seed=0, **wrong)
    with pytest.raises(ConfigError, match=r"0 to 1, but got morphs=1\.5"):
        Bayesian(ctr_space, seed=0, morphs=1.5)
