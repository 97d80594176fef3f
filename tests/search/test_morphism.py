"""Random edits of the best networks: who has children, how they differ, and what memory forbids."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from autorec.build import cost
from autorec.candidate import NEURAL, TREE, Candidate
from autorec.edits import Edit, apply, apply_all, random_edit
from autorec.errors import ConfigError
from autorec.search.lineage import BRED, lineage
from autorec.search.morphism import Morphism, ran_out
from autorec.search.process import Process
from autorec.search.study import fail_lost
from autorec.search_spaces.ctr import CtrSpace
from autorec.seeding import numpy_rng


def size(candidate: Candidate) -> float:
    """Score networks by their nodes, then their width; trees worst."""
    plan = candidate.architecture
    return -1.0 if plan is None else len(plan.nodes) + plan.embedding_width / 1000


def search(sampler: Morphism, n: int, study: optuna.Study | None = None) -> optuna.Study:
    """Run `n` trials as a worker would, so that the form that was built is known."""
    study = study or optuna.create_study(direction="maximize")
    study.sampler, space = sampler, sampler.space
    assert space is not None
    for _ in range(n):
        trial = study.ask()
        twin = space.canonical(space.suggest(trial))
        attrs = study._storage.get_trial(trial._trial_id).user_attrs
        line = lineage(study, attrs, twin, space)
        form = twin if line is None else line.candidate
        trial.set_user_attr("candidate", form.to_json())
        study.tell(trial, size(twin))
    return study


def test_children_follow_from_the_best_networks(ctr_space: CtrSpace) -> None:
    study = search(Morphism(ctr_space, seed=0, parents=4), 50)
    trials = study.get_trials(deepcopy=False)
    assert not any(BRED in trial.user_attrs for trial in trials[:10])
    edited = redrawn = alone = 0
    for trial in trials[10:]:
        told = trial.user_attrs.get(BRED)
        alone += told is None
        if told is None:
            continue
        parent = trials[told["parent"]]
        form = Candidate.from_json(parent.user_attrs["candidate"])
        assert form.family == NEURAL
        before = [t.value or 0.0 for t in trials[: trial.number] if t.params["family"] == NEURAL]
        assert parent.value in sorted(before)[-4:] or before.count(parent.value) > 1
        child = ctr_space.decode(trial.params)
        if told["edits"]:
            assert len(told["edits"]) == 1 and not told["redrawn"]
            chain = [Edit.from_json(edit) for edit in told["edits"]]
            naive = apply_all(form, chain, ctr_space).candidate
            assert ctr_space.key(naive) == ctr_space.key(child)
            assert lineage(study, trial.user_attrs, ctr_space.canonical(child), ctr_space)
            edited += 1
        else:
            assert len(told["redrawn"]) == 1
            changed = {
                name
                for name, value in ctr_space.params(ctr_space.canonical(child)).items()
                if ctr_space.params(ctr_space.canonical(form)).get(name) != value
            }
            assert changed
            redrawn += 1
    assert edited > 9 and redrawn > 9 and 0 < alone < 12


def test_a_form_that_was_built_in_another_order_has_children(ctr_space: CtrSpace) -> None:
    rng = numpy_rng(0, "form")
    while True:
        root = ctr_space.canonical(ctr_space.sample(rng))
        if root.architecture is None or len(root.architecture.nodes) != 1:
            continue
        form = apply(root, random_edit(root, ctr_space, rng), ctr_space).candidate
        if ctr_space.canonical(form).architecture != form.architecture:
            break
    study = optuna.create_study(direction="maximize")
    params = ctr_space.params(form)
    study.add_trial(
        optuna.trial.create_trial(
            params=params,
            distributions={name: ctr_space.genes[name] for name in params},
            value=1.0,
            user_attrs={"candidate": form.to_json()},
        )
    )
    study.sampler = Morphism(ctr_space, seed=0, startup=1, immigrants=0.0, redraws=0.0)
    trial = study.ask()
    child = ctr_space.decode(ctr_space.params(ctr_space.suggest(trial)))
    told = study.trials[-1].user_attrs[BRED]
    naive = apply_all(form, [Edit.from_json(edit) for edit in told["edits"]], ctr_space).candidate
    assert naive.architecture is not None and child.architecture is not None
    nodes = naive.architecture.nodes
    assert nodes == child.architecture.nodes[: len(nodes)], "they keep their numbers"
    assert lineage(study, {BRED: told}, ctr_space.canonical(child), ctr_space)


def test_nothing_is_tried_twice(ctr_space: CtrSpace) -> None:
    study = search(Morphism(ctr_space, seed=1), 50)
    keys = [ctr_space.key(ctr_space.decode(trial.params)) for trial in study.trials]
    assert len(set(keys)) == len(keys)


def test_proposals_are_a_function_of_the_past(ctr_space: CtrSpace) -> None:
    study = search(Morphism(ctr_space, seed=2), 25)
    trial = study._storage.get_trial(study.ask()._trial_id)
    told = []
    for _ in range(2):  # an engine that knows nothing, and one that does
        told.append(Morphism(ctr_space, seed=2).propose(study, trial))
    assert told[0] == told[1] == study.sampler.propose(study, trial)  # type: ignore[attr-defined]


def test_shares_decide_what_a_child_is(ctr_space: CtrSpace) -> None:
    def kinds(**given: Any) -> list[str]:
        study = search(Morphism(ctr_space, seed=0, startup=5, **given), 15)
        told = [trial.user_attrs.get(BRED) for trial in study.trials[5:]]
        return ["alone" if t is None else "edits" if t["edits"] else "redrawn" for t in told]

    assert set(kinds(immigrants=1.0)) == {"alone"}
    assert set(kinds(immigrants=0.0, redraws=0.0)) == {"edits"}
    assert set(kinds(immigrants=0.0, redraws=1.0)) == {"redrawn"}


def test_without_networks_genes_are_redrawn(ctr_space: CtrSpace, toys: Any) -> None:
    trees = CtrSpace(ctr_space.layout, families=(TREE,))
    for space in (trees, toys.Toy()):
        study = optuna.create_study(direction="maximize")
        study.sampler = Morphism(space, seed=0, startup=3, immigrants=0.0)
        for number in range(12):
            trial = study.ask()
            space.suggest(trial)
            study.tell(trial, float(number))
        told = [trial.user_attrs[BRED] for trial in study.trials[3:]]
        assert all(one["redrawn"] and not one["edits"] for one in told)


def failed(study: optuna.Study, space: CtrSpace, candidate: Candidate, kind: str, why: str) -> None:
    study.enqueue_trial(space.params(candidate))
    trial = study.ask()
    space.suggest(trial)
    if kind == "died":
        trial.set_user_attr("worker", Process.current().to_json())
        fail_lost(study, study._storage.get_trial(trial._trial_id), why)
        return
    trial.set_user_attr("failure", {"type": kind, "message": why})
    study.tell(trial, state=TrialState.FAIL)


def weights(space: CtrSpace, trials: list[Any]) -> list[int]:
    """Return the weights of what was proposed, trees left out."""
    twins = [space.canonical(space.decode(trial.params)) for trial in trials]
    return [cost(twin, space.layout)[0] for twin in twins if twin.architecture]


@pytest.mark.parametrize(
    ("kind", "why", "told"),
    [
        ("MemoryError", "no room", True),
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 9 GiB", True),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory: you tried to", True),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied", False),
        ("died", "the worker was killed by SIGKILL (often out of memory)", True),
        ("died", "killed by SIGKILL (often out of memory) when the search was ended", False),
    ],
)
def test_what_running_out_of_memory_looks_like(kind: str, why: str, told: bool) -> None:
    attrs = {"failure": {"type": kind, "message": why}}
    trial = optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attrs)
    assert ran_out(trial) == told


def test_after_memory_ran_out_only_smaller_networks_are_proposed(ctr_space: CtrSpace) -> None:
    engine = Morphism(ctr_space, seed=0, startup=4)
    engine.weigh = lambda candidate: cost(candidate, ctr_space.layout)[0]
    study = search(engine, 12)
    sizes = weights(ctr_space, study.trials)
    networks = [t for t in study.trials if t.params["family"] == NEURAL]
    middle = sorted(networks, key=lambda t: weights(ctr_space, [t])[0])[len(networks) // 2]
    failed(study, ctr_space, ctr_space.decode(middle.params), "MemoryError", "no")
    assert ran_out(study.trials[-1])
    limit = weights(ctr_space, [middle])[0]
    assert max(sizes) > limit, "larger ones had been proposed"
    search(engine, 10, study)
    after = weights(ctr_space, study.trials[13:])
    assert len(after) > 4 and max(after) < limit
    again = Morphism(ctr_space, seed=0, startup=4)
    again.weigh = engine.weigh
    trial = study._storage.get_trial(study.ask()._trial_id)
    assert again.propose(study, trial) == engine.propose(study, trial), "a resumed worker knows it"


def test_a_kill_counts_only_for_the_largest_network(ctr_space: CtrSpace) -> None:
    engine = Morphism(ctr_space, seed=0, startup=4)
    engine.weigh = lambda candidate: cost(candidate, ctr_space.layout)[0]
    study = search(engine, 10)
    for trial in study.trials:
        plan = ctr_space.canonical(ctr_space.decode(trial.params)).architecture
        params = weights(ctr_space, [trial])[0] if plan else 0
        attrs = {"value": 1.0, "metrics": {}, "rows": 1, "seconds": 1.0}
        score = {**attrs, "status": "complete", "info": {"params": params}}
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.params,
                distributions=trial.distributions,
                value=trial.value,
                user_attrs={**trial.user_attrs, "score": score},
            )
        )
    networks = [t for t in study.trials[:10] if t.params["family"] == NEURAL]
    by_size = sorted(networks, key=lambda t: weights(ctr_space, [t])[0])
    killed = "the worker was killed by SIGKILL (often out of memory)"

    def most() -> float:
        return engine._most(engine._memories[study], study)

    failed(study, ctr_space, ctr_space.decode(by_size[0].params), "died", killed)
    assert most() == float("inf"), "larger networks were trained"
    ended = f"{killed} when the search was ended"
    failed(study, ctr_space, ctr_space.decode(by_size[-1].params), "died", ended)
    assert most() == float("inf")
    failed(study, ctr_space, ctr_space.decode(by_size[-1].params), "ValueError", "bad")
    assert most() == float("inf")


def test_numbers_too_small_to_breed_with_are_refused(ctr_space: CtrSpace) -> None:
    for changed in ({"startup": 0}, {"parents": 0}, {"selection": -1}):
        with pytest.raises(ConfigError, match="morphism needs startup and parents of at least 1"):
            Morphism(ctr_space, seed=0, **changed)  # type: ignore[arg-type]
    for changed in ({"immigrants": 1.1}, {"redraws": -0.1}):
        with pytest.raises(ConfigError, match="shares lie in 0 to 1, but got immigrants="):
            Morphism(ctr_space, seed=0, **changed)  # type: ignore[arg-type]
