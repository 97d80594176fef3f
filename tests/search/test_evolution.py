"""Evolution: its parts against naive loops, the faults of the public code, and planted optima."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from statistics import mean
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from autorec.architecture import Value
from autorec.blocks.autoint import AutoInt
from autorec.blocks.base import Fields
from autorec.blocks.inner_product import InnerProduct
from autorec.candidate import TREE, Candidate, Recipe
from autorec.errors import ConfigError
from autorec.job import Job, Report, Score
from autorec.schema import Layout
from autorec.search._evolution_guide import Pooling, fit_ranker, refit_size
from autorec.search._evolution_mutation import breed, mutated, redraw, units
from autorec.search._evolution_population import (
    Encoder,
    History,
    Member,
    fitness_places,
    fronts,
    latest,
    parent_probabilities,
    survivors,
)
from autorec.search.engine import make_engine
from autorec.search.evolution import Evolution
from autorec.search.runner import run_worker
from autorec.search_spaces.ctr import CtrSpace
from autorec.seeding import torch_seeded
from autorec.space import Ask, Space

KINDS = ("none", "mlp", "cross", "fm", "gate")


class Blocks(Space):
    """Up to four blocks that are empty without a kind or an input, and a recipe of three genes."""

    name = "blocks"

    def __init__(self) -> None:
        self.layout = Layout()
        self.genes: Mapping[str, BaseDistribution] = {
            "recipe.lr": FloatDistribution(1e-4, 1e-1, log=True),
            "recipe.batch": CategoricalDistribution((256, 1024, 4096)),
            "recipe.layers": IntDistribution(1, 8, log=True),
        }
        for i in range(1, 5):
            self.genes[f"block{i}.kind"] = CategoricalDistribution(KINDS)
            self.genes[f"block{i}.sparse"] = CategoricalDistribution((False, True))
            self.genes[f"block{i}.dense"] = CategoricalDistribution((False, True))
            self.genes[f"block{i}.mlp.width"] = IntDistribution(16, 128, step=16)

    def walk(self, ask: Ask) -> Candidate:
        names = ["recipe.lr", "recipe.batch", "recipe.layers"]
        found = {name: ask(name) for name in names}
        for i in range(1, 5):
            found[f"block{i}.kind"] = kind = ask(f"block{i}.kind")
            for gene in ("sparse", "dense", *(["mlp.width"] if kind == "mlp" else [])):
                found[f"block{i}.{gene}"] = ask(f"block{i}.{gene}")
        return Candidate(TREE, Recipe(found))

    def params(self, candidate: Candidate) -> dict[str, Value]:
        return dict(candidate.recipe)

    def canonical(self, candidate: Candidate) -> Candidate:
        recipe = candidate.recipe
        kept = {name: recipe[name] for name in recipe if name.startswith("recipe.")}
        live = []
        for i in range(1, 5):
            own = {n[6:]: v for n, v in recipe.items() if n.startswith(f"block{i}")}
            if own[".kind"] != "none" and (own[".sparse"] or own[".dense"]):
                live.append(own)
        live.sort(key=lambda own: str(sorted(own.items())))
        live += [{".kind": "none", ".sparse": False, ".dense": False}] * (4 - len(live))
        for i, own in enumerate(live, 1):
            kept |= {f"block{i}{name}": value for name, value in own.items()}
        return Candidate(TREE, Recipe(kept))

    def starts(self) -> list[tuple[str, Candidate]]:
        return []

    def baselines(self) -> list[tuple[str, Candidate]]:
        return []

    def size(self) -> float:
        return 1.0

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "arguments": {}}


def planted(candidate: Candidate) -> float:
    """Score with one best place: two live crosses, a learning rate of 1e-3, a batch of 1024."""
    recipe = Blocks().canonical(candidate).recipe
    crosses = sum(recipe[f"block{i}.kind"] == "cross" for i in range(1, 5))
    rate = abs(math.log10(float(recipe["recipe.lr"])) + 3)
    return -abs(crosses - 2) - rate - float(recipe["recipe.batch"] != 1024)


@pytest.fixture(scope="module")
def space() -> Blocks:
    return Blocks()


def search(
    sampler: optuna.samplers.BaseSampler, space: Space, n: int, direction: str = "maximize"
) -> list[float]:
    """Run `n` trials and return the planted worth of each."""
    study = optuna.create_study(direction=direction, sampler=sampler)
    sign = 1.0 if direction == "maximize" else -1.0
    found = []
    for _ in range(n):
        trial = study.ask()
        found.append(planted(space.suggest(trial)))
        study.tell(trial, sign * found[-1])
    return found


def member(space: Space, number: int, worth: float | None, flops: float | None = None) -> Member:
    raw = space.sample(np.random.default_rng(number))
    twin = space.canonical(raw)
    told = None if worth is None else (worth,)
    return Member(number, raw, twin, space.encode(raw), told, flops)


# --- selection ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "c"), [(1, 10), (2, 0), (7, 3), (20, 10), (20, 0)])
def test_parent_chances_are_those_of_a_loop(n: int, c: int) -> None:
    loop = []
    for r in range(1, n + 1):
        chance = 1.0
        for i in range(c):  # C(n - r + c, c) / C(n + c, c + 1), factor by factor
            chance *= (n - r + c - i) / (c - i)
        whole = 1.0
        for i in range(c + 1):
            whole *= (n + c - i) / (c + 1 - i)
        loop.append(chance / whole)
    found = parent_probabilities(n, c)
    assert found == pytest.approx(loop, rel=1e-12)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)
    assert (np.diff(found) < 0).all() if c and n > 1 else np.allclose(found, 1 / n)


def test_the_best_of_twenty_parents_have_the_chances_of_the_paper() -> None:
    assert parent_probabilities(20, 10)[:5].round(3).tolist() == [0.367, 0.24, 0.154, 0.097, 0.06]


def loop_survivors(
    members: list[Member], size: int, weights: tuple[float, float, float]
) -> list[int]:
    pool = list(enumerate(members))
    if weights[1]:
        pool = pool[-2 * size :]
    scored = []
    for place, (born, one) in enumerate(pool):
        own = -math.inf if one.worth is None else one.worth[0]
        others = [-math.inf if o.worth is None else o.worth[0] for _, o in pool]
        better, equal = sum(o > own for o in others), sum(o == own for o in others)
        fitness = (better + (equal + 1) / 2) / len(pool)
        age = 1.0 if born < size else (len(pool) - place) / len(pool)
        known = [o.flops for _, o in pool if o.flops is not None]
        flops = 0.5
        if one.flops is not None:
            less, same = sum(f < one.flops for f in known), sum(f == one.flops for f in known)
            flops = (less + (same + 1) / 2) / len(known)
        total = weights[0] * fitness + weights[1] * age + weights[2] * flops
        scored.append((round(total, 12), -place, fitness, one.number))
    kept = sorted(scored)[:size]
    return [number for _, _, _, number in sorted(kept, key=lambda k: (k[2], k[3]))]


@pytest.mark.parametrize("weights", [(0.1, 1.0, 0.1), (1.0, 0.37, 0.23), (1.0, 0.0, 0.1)])
@pytest.mark.parametrize("n", [3, 8, 13, 40])
def test_survivors_are_those_of_a_loop(
    space: Blocks, n: int, weights: tuple[float, float, float]
) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        members = [
            member(
                space,
                int(number),
                None if rng.random() < 0.1 else float(rng.integers(6)),
                None if rng.random() < 0.3 else float(rng.integers(9)),
            )
            for number in rng.permutation(n)
        ]
        alive = [one.number for one in survivors(members, 6, weights)]
        assert alive == loop_survivors(members, 6, weights)
        assert len(alive) == min(n, 6)
        if weights[1]:
            assert set(alive) <= {one.number for one in members[-12:]}


def test_without_age_the_best_survive_however_old(space: Blocks) -> None:
    members = [member(space, number, float(-number)) for number in range(50)]
    alive = survivors(members, 5, (0.1, 0.0, 0.0))
    assert [one.number for one in alive] == [0, 1, 2, 3, 4]
    assert all(one.number >= 40 for one in survivors(members, 5, (0.1, 1.0, 0.0)))


def test_places_are_shared_by_equals_and_valueless_trials_come_last() -> None:
    found = fitness_places([(1.0,), (3.0,), None, (1.0,), (-math.inf,)])
    assert found.tolist() == [2.5, 1.0, 5.0, 2.5, 4.0]


def test_fronts_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        table = rng.integers(0, 6, (30, 2 + int(rng.integers(2)))).astype(float)
        left, level, loop = set(range(30)), 0, np.zeros(30)
        while left:
            best = [
                i
                for i in left
                if not any(
                    all(table[j] >= table[i]) and any(table[j] > table[i]) for j in left if j != i
                )
            ]
            loop[best] = level
            left, level = left - set(best), level + 1
        assert fronts(table).tolist() == loop.tolist()
        places = fitness_places([tuple(row) for row in table])
        assert max(places[loop == 0]) < min(places[loop > 0], default=99)


# --- mutation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["blocks", "ctr"])
def test_a_mutation_changes_one_active_gene(which: str, space: Blocks, ctr_space: CtrSpace) -> None:
    own: Space = space if which == "blocks" else ctr_space
    rng = np.random.default_rng(0)
    woken = single = 0
    starts = [candidate for _, candidate in own.starts()[:3]]
    drawn = [own.sample(rng) for _ in range(8)]
    for raw in [*starts, *drawn, *map(own.canonical, drawn[:4])]:
        twin, params = own.canonical(raw), own.params(raw)
        for mutant in breed(own, (raw, twin, units(own, raw, twin, rng)), 15, (), rng, math.inf):
            after = own.params(mutant.raw)
            changed = [n for n in params if n in after and after[n] != params[n]]
            assert own.key(mutant.raw) != own.key(raw)
            assert own.canonical(mutant.raw) == mutant.twin
            assert own.decode(after) == mutant.raw
            if len(mutant.unit) == 1:
                single += 1
                assert changed == list(mutant.unit)
            else:
                woken += 1
                part = mutant.unit[0].split(".")[0]
                assert {n.split(".")[0] for n in changed} == {part}
                assert not any(_has_effect(own, params, n) for n in params if n.startswith(part))
    assert woken > 1 and single > 60


def _has_effect(space: Space, params: Mapping[str, Value], name: str) -> bool:
    gene, rng = space.genes[name], np.random.default_rng(1)
    key = space.key(space.decode(dict(params)))
    for _ in range(12):
        value = redraw(gene, params[name], rng, near=False)
        if space.key(mutated(space, {**params, name: value}, (), rng)) != key:
            return True
    return False


def test_a_start_without_free_genes_can_get_another_block(space: Blocks) -> None:
    recipe: dict[str, Value] = {"recipe.lr": 1e-3, "recipe.batch": 256, "recipe.layers": 1}
    for i in range(1, 5):
        recipe |= {f"block{i}.kind": "none", f"block{i}.sparse": False, f"block{i}.dense": False}
    recipe |= {"block1.kind": "fm", "block1.sparse": True}
    start = space.canonical(Candidate(TREE, Recipe(recipe)))
    rng = np.random.default_rng(0)
    brood = breed(space, (start, start, units(space, start, start, rng)), 40, (), rng, math.inf)
    sizes = [sum(m.twin.recipe[f"block{i}.kind"] != "none" for i in range(1, 5)) for m in brood]
    assert max(sizes) == 2


@pytest.mark.parametrize(
    "gene",
    [
        FloatDistribution(0.0, 1.0),
        FloatDistribution(1e-5, 1e-1, log=True),
        FloatDistribution(0.0, 0.5, step=0.1),
        IntDistribution(1, 9),
        IntDistribution(2, 10, step=2),
        IntDistribution(1, 512, log=True),
        CategoricalDistribution(("a", None, True)),
    ],
    ids=str,
)
def test_a_redrawn_gene_is_another_value_of_it(gene: BaseDistribution) -> None:
    rng = np.random.default_rng(0)
    value: Any = gene.to_external_repr(
        1.0 if isinstance(gene, CategoricalDistribution) else gene.low
    )  # type: ignore[attr-defined]
    seen = set()
    for _ in range(200):
        other = redraw(gene, value, rng, near=True)
        assert other != value and gene._contains(gene.to_internal_repr(other))
        seen.add(other)
        value = other
    assert len(seen) >= 3


def test_a_gene_of_one_value_stays(space: Blocks) -> None:
    assert redraw(CategoricalDistribution((3,)), 3, np.random.default_rng(0), near=True) == 3


def test_breeding_ends_with_its_clock_and_with_the_neighbourhood(space: Blocks) -> None:
    rng = np.random.default_rng(0)
    raw = space.sample(rng)
    parent = (raw, space.canonical(raw), units(space, raw, space.canonical(raw), rng))
    assert len(breed(space, parent, 100, (), rng, 0.0)) == 1
    whole = {m.twin for m in breed(space, (*parent[:2], [("recipe.batch",)]), 100, (), rng, 1e9)}
    assert len(whole) == 2
    assert not breed(space, (*parent[:2], [("recipe.batch",)]), 100, whole, rng, 1e9)


# --- guidance ----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["blocks", "ctr"])
def test_vectors_are_those_of_the_space(which: str, space: Blocks, ctr_space: CtrSpace) -> None:
    own: Space = space if which == "blocks" else ctr_space
    encode, rng = Encoder(own), np.random.default_rng(0)
    for _ in range(40):
        twin = own.canonical(own.sample(rng))
        assert encode(twin).tobytes() == own.encode(twin).tobytes()


def test_pooled_vectors_count_blocks_wherever_they_are(space: Blocks) -> None:
    rng = np.random.default_rng(0)
    pool, encode = Pooling(space), Encoder(space)
    for _ in range(20):
        twin = space.canonical(space.sample(rng))
        vector = encode(twin)
        pooled = pool(vector[None])[0]
        assert np.array_equal(pooled[: len(vector)], vector)
        sums = pooled[len(vector) :]
        kinds = [twin.recipe[f"block{i}.kind"] for i in range(1, 5)]
        assert sums[: len(KINDS)].tolist() == [kinds.count(kind) for kind in KINDS]
        assert len(sums) == len(KINDS) + 2 + 2 + 2


def tau(found: np.ndarray, truth: np.ndarray) -> float:
    """Return Kendall's tau-a of two vectors (n,)."""
    a, b = np.sign(found[:, None] - found), np.sign(truth[:, None] - truth)
    return float((a * b).sum() / (len(found) * (len(found) - 1)))


def drawn(space: Space, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    twins = [space.canonical(space.sample(rng)) for _ in range(n)]
    features = Pooling(space)(np.stack([Encoder(space)(twin) for twin in twins]))
    return features, np.asarray([planted(twin) for twin in twins])


def test_guidance_ranks_held_out_candidates(space: Blocks) -> None:
    others, truth = drawn(space, 200, 100)
    learnt, shuffled = [], []
    for seed in range(3):
        features, worth = drawn(space, 60, seed)
        places = fitness_places([(value,) for value in worth])
        learnt.append(tau(fit_ranker(features, places, seed=seed, seconds=9.0)(others), truth))
        mixed = np.random.default_rng(seed).permutation(places)
        shuffled.append(tau(fit_ranker(features, mixed, seed=seed, seconds=9.0)(others), truth))
    assert min(learnt) > 0.35
    assert abs(mean(shuffled)) < 0.2


def test_the_fit_of_the_ranker_ends_with_its_clock(space: Blocks) -> None:
    features, worth = drawn(space, 40, 0)
    places = fitness_places([(value,) for value in worth])
    stump = fit_ranker(features, places, seed=0, seconds=0.0)(features)
    whole = fit_ranker(features, places, seed=0, seconds=9.0)(features)
    assert len(set(stump)) <= 8 < len(set(whole))


def test_the_ranker_is_refitted_after_enough_trials() -> None:
    sizes = [refit_size(n, 20) for n in range(501)]
    assert sizes[19] == 0 and sizes[20] == 20 and sizes[24] == 20 and sizes[25] == 25
    assert all(size <= n for n, size in enumerate(sizes))
    assert all(n - size < max(5, n / 10) + 1 for n, size in enumerate(sizes) if n >= 20)
    assert len(set(sizes)) < 50


# --- the engine --------------------------------------------------------------------------------


def small(space: Space, seed: int, **changed: Any) -> Evolution:
    """Return an engine whose trials cost little: ten parents, twenty mutants."""
    return Evolution(space, seed=seed, **({"population": 10, "mutants": 20} | changed))


def test_beats_random_search_on_a_planted_optimum(space: Blocks) -> None:
    bred, chance = [], []
    for seed in range(4):
        bred.append(max(search(small(space, seed), space, 50)))
        chance.append(max(search(make_engine("random", space, seed), space, 50)))
    assert mean(bred) > mean(chance) + 0.1


def test_guided_children_are_better_than_unguided_ones(space: Blocks) -> None:
    guided = [mean(search(small(space, seed), space, 40)[15:]) for seed in range(3)]
    blind = [mean(search(small(space, seed, guidance=False), space, 40)[15:]) for seed in range(3)]
    assert mean(guided) > mean(blind) + 0.3


def test_minimising_finds_it_too(space: Blocks) -> None:
    up = search(small(space, 1), space, 35)
    assert search(small(space, 1), space, 35, "minimize") == up


@pytest.mark.parametrize(
    "ablation",
    [{"guidance": False}, {"age": False}, {"random_parents": True}, {"immigrants": 0.0}],
    ids=str,
)
def test_an_ablation_is_another_search_from_the_same_first_trials(
    space: Blocks, ablation: dict[str, Any]
) -> None:
    # The best are young as a rule, and their chances hide what becomes of the old.
    base = {"random_parents": "age" in ablation}
    plain = search(small(space, 0, **base), space, 32)
    other = search(small(space, 0, **(base | ablation)), space, 32)
    assert plain[:10] == other[:10]
    assert plain[10:] != other[10:]


def test_a_proposal_names_its_parent_and_what_was_redrawn(space: Blocks) -> None:
    study = optuna.create_study(direction="maximize", sampler=small(space, 0, immigrants=0.0))
    for _ in range(16):
        trial = study.ask()
        study.tell(trial, planted(space.suggest(trial)))
    trials = study.get_trials(deepcopy=False)
    assert all("bred" not in trial.user_attrs for trial in trials[:10])
    for trial in trials[10:]:
        bred = trial.user_attrs["bred"]
        parent = space.params(space.decode(trials[bred["parent"]].params))
        changed = {n for n in parent if n in trial.params and trial.params[n] != parent[n]}
        assert all(name.startswith(bred["redrawn"]) for name in changed)


def test_interleaved_workers_never_try_a_candidate_twice(space: Blocks) -> None:
    study = optuna.create_study(direction="maximize")
    workers = [small(space, seed) for seed in (0, 0)]
    keys = []
    for number in range(60):
        open_trials = []
        for worker in workers:
            study.sampler = worker
            trial = study.ask()
            candidate = space.suggest(trial)
            keys.append(space.key(candidate))
            open_trials.append((trial, planted(candidate)))
        for trial, value in reversed(open_trials):
            failed = number % 7 == 3
            study.tell(trial, None if failed else value, TrialState.FAIL if failed else None)
    assert len(set(keys)) == len(keys) == 120


def test_a_space_that_is_used_up_repeats_itself(toys: Any) -> None:
    space = toys.Toy(points=12)
    study = optuna.create_study(direction="maximize", sampler=small(space, 0))
    keys = []
    for _ in range(16):
        trial = study.ask()
        keys.append(space.key(space.suggest(trial)))
        study.tell(trial, 0.0)
    assert len(set(keys[:12])) == 12


def test_the_same_history_gives_the_same_proposal(space: Blocks) -> None:
    study = optuna.create_study(direction="maximize", sampler=small(space, 0))
    for number in range(26):
        trial = study.ask()
        study.tell(trial, planted(space.suggest(trial)))
        if number > 8:
            asked = study._storage.get_trial(study.ask()._trial_id)
            fresh, kept = small(space, 0), study.sampler
            assert fresh.propose(study, asked) == kept.propose(study, asked)  # type: ignore[attr-defined]
            study.tell(asked.number, state=TrialState.FAIL)


def test_a_foreign_study_is_searched_by_mutation() -> None:
    def away(trial: optuna.Trial) -> float:
        x, y = trial.suggest_float("x", -5, 5), trial.suggest_int("n", 0, 20)
        return abs(x - 1) + abs(y - 7) + (trial.suggest_categorical("c", ["a", "b"]) == "a")

    def best(name: str, seed: int) -> float:
        study = optuna.create_study(sampler=make_engine(name, None, seed))
        study.optimize(away, n_trials=60)
        return study.best_value

    assert mean(best("evolution", s) for s in range(4)) < mean(best("random", s) for s in range(4))


@pytest.mark.parametrize("wrong", [{"population": 1}, {"mutants": 0}, {"selection": -1}], ids=str)
def test_numbers_too_small_to_breed_are_refused(space: Blocks, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"at least 1 mutant.*but got population="):
        Evolution(space, seed=0, **wrong)
    with pytest.raises(ConfigError, match=r"0 to 1, but got immigrants=1\.5"):
        Evolution(space, seed=0, immigrants=1.5)


def test_lightgbm_is_loaded_by_the_first_fit_only() -> None:
    code = "import sys, autorec.search.evolution as e; sys.exit('lightgbm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the eight faults of the public code --------------------------------------------------------


def test_fault_1_a_product_block_gives_each_pair_once() -> None:
    fields = torch.randn(3, 27, 4, generator=torch.Generator().manual_seed(0))
    found = InnerProduct([Fields(27, 4)])([fields])
    loop = [(fields[:, i] * fields[:, j]).sum(-1) for i in range(27) for j in range(i + 1, 27)]
    assert found.shape == (3, 351)
    torch.testing.assert_close(found.sort(dim=1)[0], torch.stack(loop, 1).sort(dim=1)[0])


def test_fault_2_dead_genes_are_neither_mutated_nor_learnt_nor_repeated(space: Blocks) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        raw = space.sample(rng)
        params, twin = space.params(raw), space.canonical(raw)
        for unit in units(space, raw, twin, rng):
            assert len(unit) > 1 or _has_effect(space, params, unit[0])
        dead = [n for n in params if not _has_effect(space, params, n)]
        for name in dead:
            other = {**params, name: redraw(space.genes[name], params[name], rng, near=False)}
            twice = mutated(space, other, (), rng)
            assert np.array_equal(space.encode(twice), space.encode(raw))
            assert space.canonical(twice) == twin


def test_fault_3_the_score_that_was_told_counts_not_a_report_of_the_last_epoch(
    space: Blocks,
) -> None:
    study = optuna.create_study(direction="maximize", sampler=small(space, 0))
    for reports in ([0.9, 0.1], [0.2], []):
        trial = study.ask()
        space.suggest(trial)
        for step, value in enumerate(reports):
            trial.report(value, step)
        study.tell(trial, 0.5)
    rows, _ = History(space).read(study, own=99)
    assert [row.worth for row in rows] == [(0.5,)] * 3


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_fault_4_a_diverged_loss_is_no_more_than_the_last_place(
    space: Blocks, direction: str
) -> None:
    bad = -1.0 if direction == "maximize" else 1.0
    proposals = []
    for loss in (50.0, 3.5e6, math.inf):
        study = optuna.create_study(direction=direction, sampler=small(space, 0, immigrants=0.0))
        for number in range(14):
            trial = study.ask()
            value = planted(space.suggest(trial))
            study.tell(trial, bad * loss if number == 4 else -bad * value)
        proposals.append(space.suggest(study.ask()))
    assert proposals[0] == proposals[1] == proposals[2]


def test_fault_5_a_second_trial_of_a_candidate_replaces_the_first(space: Blocks) -> None:
    one, two = member(space, 1, 0.9), member(space, 2, 0.1)
    again = Member(3, one.raw, one.twin, one.vector, (0.4,), None)
    assert [m.number for m in latest([one, two, again])] == [2, 3]


def test_fault_6_evaluation_is_deterministic() -> None:
    with torch_seeded(0, "test"):
        block = AutoInt([Fields(5, 8)], dropout=0.4).eval()
        fields = torch.randn(4, 5, 8)
    assert torch.equal(block([fields]), block([fields]))


def test_fault_7_flops_are_read_from_scores_and_missing_ones_are_neutral(space: Blocks) -> None:
    def evaluate(job: Job, report: Report) -> Score:
        report(10, 0.5)
        info = {"flops": 1000 + job.trial} if job.trial % 2 else {"flops": None}
        return Score(0.5, {}, 10, 0.1, info=info)

    study = optuna.create_study(direction="maximize", sampler=small(space, 0))
    run_worker(study, space, evaluate, seed=0, deadline=math.inf, n_trials=6)
    rows, _ = History(space).read(study, own=99)
    assert [row.flops for row in rows] == [None, 1001, None, 1003, None, 1005]
    alive = survivors(rows, 4, (0.0, 0.0, 1.0))
    assert {row.number for row in alive} == {0, 1, 2, 4}


def test_fault_8_the_loop_runs_through_the_worker_and_survives_failures(space: Blocks) -> None:
    def evaluate(job: Job, report: Report) -> Score:
        if job.trial % 5 == 2:
            raise ConfigError(f"trial {job.trial} is made to fail")
        value = planted(job.candidate)
        status = "complete" if report(10, value) else "stopped"
        return Score(value, {}, 10, 0.1, status="stopped" if job.trial % 4 == 1 else status)

    study = optuna.create_study(direction="maximize", sampler=small(space, 0))
    outcome = run_worker(study, space, evaluate, seed=0, deadline=math.inf, n_trials=30)
    trials = study.get_trials(deepcopy=False)
    assert (outcome.reason, len(trials)) == ("n_trials", 30)
    assert {t.state for t in trials} == {
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
    }
    assert len({t.user_attrs["key"] for t in trials}) == 30
