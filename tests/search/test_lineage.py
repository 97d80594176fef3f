"""Children between engine and worker: what is checked, what is built, and how a key stays a key."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import optuna
import pytest

from autorec.candidate import NEURAL, Candidate
from autorec.edits import Edit, apply, apply_all, random_edit
from autorec.job import Job, Report, Score
from autorec.search.engine import make_engine
from autorec.search.halving import Halving
from autorec.search.lineage import BRED, bred, built_form, lineage
from autorec.search.runner import run_worker
from autorec.search.study import records
from autorec.search_spaces.ctr import CtrSpace
from autorec.seeding import numpy_rng


@pytest.fixture
def study() -> optuna.Study:
    """A maximising study in memory."""
    return optuna.create_study(direction="maximize")


def network(space: CtrSpace, seed: int = 0) -> Candidate:
    """Return a small canonical network that leaves room for edits."""
    rng = numpy_rng(seed, "network")
    while True:
        found = space.canonical(space.sample(rng))
        if found.architecture is not None and len(found.architecture.nodes) == 2:
            return found


def work(study: optuna.Study, space: Any, evaluate: Any, **more: Any) -> list[Job]:
    """Run queued trials; return their jobs."""
    jobs: list[Job] = []

    def watched(job: Job, report: Report) -> Score:
        jobs.append(job)
        return evaluate(job, report)

    study.sampler = make_engine("random", space, 0)
    given = {"seed": 0, "deadline": time.time() + 60.0, "n_trials": len(study.trials), **more}
    run_worker(study, space, watched, **given)
    return jobs


def scored(job: Job, report: Report) -> Score:
    """Return a score that depends on the trial."""
    report(100, 0.1)
    return Score(0.5 + job.trial / 100, {}, 100, 0.1, info={"params": 10})


def add(study: optuna.Study, space: CtrSpace, candidate: Candidate, **told: Any) -> None:
    study.enqueue_trial(space.params(candidate), user_attrs=told)


def test_a_child_is_built_in_the_order_of_its_parent_and_keeps_the_key(
    study: optuna.Study, ctr_space: CtrSpace
) -> None:
    moved = 0
    for seed in range(12):
        study = optuna.create_study(direction="maximize")
        parent, rng = network(ctr_space, seed), numpy_rng(seed, "edit")
        add(study, ctr_space, parent)
        candidate, chain = parent, []
        for number in range(2):  # a child, and the child of that one
            chain = [random_edit(candidate, ctr_space, rng)]
            candidate = apply(candidate, chain[0], ctr_space).candidate
            add(study, ctr_space, candidate, bred=bred(number, tuple(chain), ("recipe.lr",)))
        jobs = work(study, ctr_space, scored)
        assert [job.parent for job in jobs] == [None, 0, 1]
        assert [edit["kind"] for edit in jobs[2].edits] == [chain[0].kind]
        assert Job.from_json(jobs[2].to_json()) == jobs[2]
        assert jobs[0].candidate == parent
        for before, job, record in zip(jobs, jobs[1:], records(study)[1:], strict=False):
            assert job.candidate == record.candidate
            assert record.key == ctr_space.key(job.candidate)
            assert job.candidate.recipe == ctr_space.canonical(job.candidate).recipe
            edits = [Edit.from_json(dict(edit)) for edit in job.edits]
            naive = apply_all(before.candidate, edits, ctr_space).candidate
            assert job.candidate.architecture == naive.architecture
            moved += job.candidate != ctr_space.canonical(job.candidate)
    assert moved > 0, "some children must be renumbered by their canonical form"


@pytest.mark.parametrize("name", ["morphism", "bayesian"])
def test_what_an_engine_proposes_reaches_the_job(name: str, ctr_space: CtrSpace) -> None:
    study = optuna.create_study(direction="maximize")
    study.sampler = make_engine(name, ctr_space, 0)
    jobs: dict[int, Job] = {}

    def evaluate(job: Job, report: Report) -> Score:
        jobs[job.trial] = job
        return scored(job, report)

    run_worker(study, ctr_space, evaluate, seed=0, deadline=time.time() + 60.0, n_trials=40)
    told = {t.number: t.user_attrs.get(BRED, {}) for t in study.trials}
    edited = {number for number, one in told.items() if one.get("edits") and number in jobs}
    heirs = {number for number, job in jobs.items() if job.parent is not None}
    assert heirs <= edited and len(heirs) > 3
    for number in heirs:
        job, one = jobs[number], told[number]
        assert (job.parent, list(job.edits)) == (one["parent"], one["edits"])
        form = Candidate.from_json(study.trials[one["parent"]].user_attrs["candidate"])
        naive = apply_all(form, [Edit.from_json(e) for e in one["edits"]], ctr_space).candidate
        assert job.candidate.architecture == naive.architecture
    whole = {n for n in edited if all(g.startswith("recipe.") for g in told[n]["redrawn"])}
    assert heirs == whole, "all whose edits are enough"


def test_a_duplicate_of_a_child_is_seen(study: optuna.Study, ctr_space: CtrSpace) -> None:
    parent = network(ctr_space)
    edit = random_edit(parent, ctr_space, numpy_rng(1, "edit"))
    child = apply(parent, edit, ctr_space).candidate
    add(study, ctr_space, parent)
    add(study, ctr_space, child, bred=bred(0, (edit,)))
    add(study, ctr_space, ctr_space.canonical(child))
    jobs = work(study, ctr_space, scored)
    assert [job.trial for job in jobs] == [0, 1]
    assert study.trials[2].user_attrs["copied_from"] == 1


def test_what_the_genes_do_not_say_is_no_lineage(
    study: optuna.Study, ctr_space: CtrSpace, toys: Any
) -> None:
    parent, other = network(ctr_space), network(ctr_space, 5)
    edit = random_edit(parent, ctr_space, numpy_rng(1, "edit"))
    child = ctr_space.canonical(apply(parent, edit, ctr_space).candidate)
    add(study, ctr_space, parent)
    add(study, ctr_space, other)
    work(study, ctr_space, scored)

    def told(*given: Any, of: Candidate = child) -> Any:
        return lineage(study, {BRED: bred(*given)}, of, ctr_space)

    found = told(0, (edit,))
    assert found is not None and found.parent == 0
    assert ctr_space.canonical(found.candidate) == child
    assert told(0) is None, "a recipe alone is learned anew"
    assert told(1, (edit,)) is None, "the edits lead elsewhere"
    assert told(9, (edit,)) is None, "there is no such trial"
    assert told(0, (edit,), of=other) is None, "someone fixed other genes"
    assert lineage(study, {}, child, ctr_space) is None
    assert lineage(study, {BRED: {"parent": 0, "redrawn": "x"}}, child, ctr_space) is None
    assert lineage(study, {BRED: bred(0, (edit,))}, toys.toy(0.5), toys.Toy()) is None
    broken = {"parent": 0, "edits": [{"kind": "wider"}], "redrawn": []}
    assert lineage(study, {BRED: broken}, child, ctr_space) is None
    changed = replace(child, recipe=child.recipe.changed(lr=7e-3))
    line = told(0, (edit,), ("recipe.lr",), of=changed)
    assert line is not None and line.candidate.recipe["lr"] == 7e-3


def test_the_form_that_was_built_is_read_back(study: optuna.Study, ctr_space: CtrSpace) -> None:
    parent = network(ctr_space)
    add(study, ctr_space, parent)
    work(study, ctr_space, scored)
    trial = study.trials[0]
    assert built_form(ctr_space, trial, parent) == parent
    assert built_form(ctr_space, trial, network(ctr_space, 5)) is None
    assert built_form(ctr_space, optuna.trial.create_trial(value=1.0), parent) is None


def test_only_what_has_inherited_is_compared_with_children(
    study: optuna.Study, ctr_space: CtrSpace
) -> None:
    parent = network(ctr_space)
    add(study, ctr_space, parent)
    rng = numpy_rng(2, "edit")
    children: dict[str, Edit] = {}
    while len(children) < 4:  # an equal of an earlier one would take its score, untrained
        edit = random_edit(parent, ctr_space, rng)
        key = ctr_space.key(apply(parent, edit, ctr_space).candidate)
        if key not in children:
            children[key] = edit
            child = apply(parent, edit, ctr_space).candidate
            add(study, ctr_space, child, bred=bred(0, (edit,)))

    def evaluate(job: Job, report: Report) -> Score:
        heir = job.parent is not None and job.trial != 4
        if heir:
            assert report(0, 0.99), "the score of the parent"
        going = report(100, 0.1 if job.trial == 4 else 0.5 + job.trial / 100)
        status = "complete" if going else "stopped"
        facts = {"inherited": 0} if heir else {"inherited": None, "not_inherited": "no weights"}
        return Score(0.5, {}, 100, 0.1, status, facts if job.parent is not None else {})

    jobs = work(study, ctr_space, evaluate, halving=Halving((100,), factor=2))
    assert all(job.parent == 0 for job in jobs[1:])
    attrs = [trial.user_attrs for trial in study.trials]
    lanes = [one["lane"] for one in attrs if "copied_from" not in one]
    child, root = f"child/{NEURAL}", f"root/{NEURAL}"
    assert lanes[:2] == [root, child] and lanes[-1] == root
    assert attrs[1]["inherited"] == 0 and "inherited" not in attrs[0]
    assert attrs[4]["inherited"] is None and attrs[4]["not_inherited"] == "no weights"
    assert attrs[1]["rungs"] == {"100": 0.51}, "what was inherited is not its own"
