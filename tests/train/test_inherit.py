"""Children that start from the weights of their parent: what they keep, take, and fall back to."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from autorec.architecture import Architecture, Node
from autorec.candidate import Candidate, Features
from autorec.edits import Edit, apply
from autorec.job import Fidelity, Job, Report, Score
from autorec.search.morphism import Morphism
from autorec.search.runner import run_worker
from autorec.search_spaces.ctr import CtrSpace
from autorec.train.fit import Trained, fit
from autorec.train.inherit import SHARE, Parents, begin, lineage

DRY = (("dropout", 0.0), ("layers", 1), ("norm", "none"), ("width", 64))
EMBEDDED = Edit("embedding", value=16)
WIDER = Edit("widen", 1, "width", 128)


@pytest.fixture
def space(click_data) -> CtrSpace:
    return CtrSpace(click_data.layout, rows=6000, families=("neural",))


def root_of(space: CtrSpace, **recipe) -> Candidate:
    nodes = (Node("mlp", ("sparse",), DRY), Node("cross", ("dense",), (("layers", 1),)))
    made = space.start_recipe(embedding_l2=1e-6).changed(
        **{"lr": 1e-2, "batch_size": 256, **recipe}
    )
    return space.canonical(Candidate("neural", made, Features(), Architecture(nodes, 8)))


def job_of(candidate: Candidate, number: int, **changes) -> Job:
    return replace(Job(number, candidate, seed=1, deadline=time.time() + 900), **changes)


def trained(candidate, data, number=0, **changes) -> tuple[Trained, list[tuple[int, float]]]:
    """Return what a fit gave and all that it reported."""
    told: list[tuple[int, float]] = []

    def report(rows: int, score: float) -> bool:
        told.append((rows, score))
        return True

    return fit(job_of(candidate, number, **changes), data, report), told


def kept(parents: Parents, number: int, made: Trained, folder: Path, score=None) -> bool:
    model = folder / f"model-{number}"
    model.mkdir(exist_ok=True)
    made.model.save(model)
    worth = made.metrics["auc"] if score is None else score
    return parents.keep(number, made, worth, model)


def child_of(candidate: Candidate, edit: Edit, space: CtrSpace) -> Candidate:
    child = apply(candidate, edit, space).candidate
    return replace(child, recipe=space.canonical(child).recipe)


@pytest.fixture
def family(click_data, space, tmp_path):
    """A trained root whose weights are kept, and the data that its children are trained on."""
    data = replace(click_data, parents=Parents(tmp_path / "parents"), eval_rows=1500)
    candidate = root_of(space)
    root, told = trained(candidate, data)
    assert kept(data.parents, 0, root, tmp_path)
    return data, candidate, root, told


@pytest.mark.parametrize("edit", [EMBEDDED, WIDER, Edit("linear")])
def test_a_child_starts_with_the_score_of_its_parent_and_needs_few_rows(
    family, space, edit: Edit
) -> None:
    data, candidate, root, told = family
    child = child_of(candidate, edit, space)
    edits = (edit.to_json(),)
    made, scores = trained(child, data, 1, parent=0, edits=edits)
    best = max(score for _, score in told)
    assert scores[0] == (0, pytest.approx(best, abs=1e-5))
    assert made.info["inherited"] == 0 and made.info["edits"] == [edit.kind]
    assert made.rows <= SHARE * root.rows + 256, "to the end of a batch"
    within = [score for rows, score in scores if 0 < rows <= 0.2 * root.rows]
    assert max(within) > best - 2e-3, (best, scores)
    fresh, alone = trained(child, data, 1, fidelity=Fidelity(rows=made.rows))
    assert "inherited" not in fresh.info and alone[0][0] > 0
    assert made.metrics["auc"] > fresh.metrics["auc"]


def test_the_replay_of_a_child_is_that_of_its_lineage(family, space, tmp_path: Path) -> None:
    data, candidate, root, _ = family
    child = child_of(candidate, WIDER, space)
    made, _ = trained(child, data, 1, parent=0, edits=(WIDER.to_json(),))
    n = data.train.n_rows
    assert made.replay["epochs"] == pytest.approx(made.info["best_rows"] / n)
    own = made.info["best_rows"] - root.info["best_rows"]
    assert 0 < own <= made.rows
    assert made.replay["cuts"][: len(root.replay["cuts"])] == root.replay["cuts"]
    assert all(
        cut >= root.replay["epochs"] for cut in made.replay["cuts"][len(root.replay["cuts"]) :]
    )
    assert Score.from_json(made.score(data.task).to_json()).info["replay"] == made.replay
    # A grandchild takes a share of what the root took, not of what its parent did.
    assert kept(data.parents, 1, made, tmp_path)
    grown = child_of(child, EMBEDDED, space)
    last, _ = trained(grown, data, 2, parent=1, edits=(EMBEDDED.to_json(),))
    assert last.info["root_rows"] == made.info["root_rows"] == root.rows
    assert last.info["best_rows"] > made.info["best_rows"]
    whole = replace(data, valid=None)
    again = fit(job_of(grown, 2), whole, lambda r, s: True, replay=last.replay)
    assert again.rows == pytest.approx(last.info["best_rows"], abs=256)


@pytest.mark.parametrize("schedule", ["plateau", "cosine", "constant"])
def test_a_refit_trains_as_long_as_the_lineage(click_data, space, schedule: str) -> None:
    candidate = root_of(space, schedule=schedule, **({"epochs": 1} if schedule == "cosine" else {}))
    replay = {"epochs": 1.7, "cuts": [1.2]}
    job = job_of(candidate, 0)
    made = fit(job, replace(click_data, valid=None), lambda r, s: True, replay=replay)
    assert made.rows == pytest.approx(1.7 * click_data.train.n_rows, abs=256)


def test_the_lineage_of_a_root_is_its_own(family) -> None:
    data, _, root, _ = family
    assert lineage(None, root.replay) is root.replay
    parent = data.parents.load(0, data.layout)
    own = {"epochs": 0.25, "cuts": [0.1]}
    before = root.replay["epochs"]
    uncut, cut = (replace(parent, replay={"epochs": 2.0, "cuts": c}) for c in ([], [0.5, 1.5]))
    assert (uncut.cuts, uncut.rate) == ([2.0], pytest.approx(0.1)), "cut at least once"
    assert (cut.cuts, cut.rate) == ([0.5, 1.5], pytest.approx(0.01))
    assert lineage(parent, own)["epochs"] == before + 0.25
    assert lineage(parent, own)["cuts"][-1] == before + 0.1


def test_without_weights_a_child_is_trained_from_scratch(family, space, tmp_path: Path) -> None:
    data, candidate, *_ = family
    child = child_of(candidate, WIDER, space)
    line = {"parent": 7, "edits": (WIDER.to_json(),)}
    gone, scores = trained(child, data, 8, **line)
    assert gone.info["inherited"] is None
    assert "one of trials [0]" in gone.info["not_inherited"]
    assert scores[0][0] > 0, "only a child that has inherited reports before its first step"
    plain, _ = trained(child, data, 8)
    assert gone.rows == plain.rows
    assert gone.replay == plain.replay and gone.metrics == plain.metrics
    none = begin(job_of(child, 8, **line), replace(data, parents=None))
    assert none.parent is None and "this one does not" in none.refused
    (tmp_path / "parents" / "00000" / "model.safetensors").write_bytes(b"cut short")
    damaged = begin(job_of(child, 8, parent=0), data)
    assert damaged.parent is None and "reading it failed" in damaged.refused


def test_a_morph_that_is_refused_is_trained_from_scratch(family, space) -> None:
    data, candidate, _, _ = family
    plan = candidate.architecture
    nodes = tuple(reversed([replace(node, inputs=("sparse",)) for node in plan.nodes]))
    other = replace(candidate, architecture=replace(plan, nodes=nodes))
    start = begin(job_of(other, 1, parent=0), data)
    assert start.parent is None and start.refused
    assert start.facts(job_of(other, 1), 5) == {"inherited": None, "not_inherited": start.refused}
    folded = begin(job_of(candidate, 1, parent=0, fidelity=Fidelity(hash_cap=5)), data)
    assert folded.parent is None and "hash_cap" in folded.refused


def test_a_refit_never_inherits(family, space) -> None:
    data, candidate, _, _ = family
    child = child_of(candidate, WIDER, space)
    start = begin(job_of(child, 1, parent=0), replace(data, valid=None))
    assert start.parent is None and not start.refused


def test_the_best_are_kept_within_both_bounds(family, tmp_path: Path) -> None:
    _, candidate, root, _ = family
    folder = tmp_path / "bounded"
    few = Parents(folder, most=3)
    scores = [0.5, 0.7, 0.6, 0.9, 0.1, 0.7]
    told = [kept(few, i, root, tmp_path, score) for i, score in enumerate(scores)]
    assert told == [True, True, True, True, False, True]
    naive = sorted(range(6), key=lambda i: (-scores[i], i))[:3]
    assert few.numbers() == naive == [3, 1, 5]
    assert sorted(path.name for path in folder.iterdir()) == ["00001", "00003", "00005"]
    size = (folder / "00003" / "model.safetensors").stat().st_size
    light = Parents(folder, most=8, most_bytes=2 * size)
    assert kept(light, 6, root, tmp_path, 0.8)
    assert light.numbers() == [3, 6]
    assert len(list(folder.iterdir())) == 2
    assert not kept(Parents(folder, most_bytes=size - 1), 7, root, tmp_path, 0.99)
    assert not kept(few, 8, root, tmp_path, float("nan"))
    tree = replace(root, candidate=Candidate("popularity", candidate.recipe))
    assert not few.keep(9, tree, 1.0, tmp_path / "model-0")


def test_a_file_of_another_version_is_no_parent(family, tmp_path: Path) -> None:
    data, *_ = family
    facts = tmp_path / "parents" / "00000" / "parent.json"
    assert json.loads(facts.read_text())["score"] > 0.6
    facts.write_text("{")
    assert data.parents.numbers() == []


def test_a_search_grows_what_it_has_trained_and_survives_a_lack_of_memory(
    click_data, space, tmp_path: Path
) -> None:
    data = replace(click_data, parents=Parents(tmp_path / "parents", most=2), eval_rows=1500)
    study = optuna.create_study(direction="maximize")

    def evaluate(job: Job, report: Report) -> Score:
        if job.trial == 5:
            raise MemoryError("no room for this network")
        made = fit(job, data, report)
        score = made.score(data.task)
        kept(data.parents, job.trial, made, tmp_path, score.value)
        return score

    def work(trials: int) -> None:
        study.sampler = Morphism(space, seed=0, startup=3, immigrants=0.0, redraws=0.0)
        given = {"seed": 0, "deadline": time.time() + 600, "n_trials": trials}
        run_worker(study, space, evaluate, fidelity=Fidelity(rows=3000), **given)

    for edge in (8, 11):  # resumed once
        for lr in (1e-2, 3e-3, 1e-3) if edge == 8 else ():
            study.enqueue_trial(space.params(root_of(space, lr=lr)))
        work(edge)
    trials = study.get_trials(deepcopy=False)
    assert len(trials) == 11 and trials[5].user_attrs["failure"]["type"] == "MemoryError"
    heirs = [trial for trial in trials if trial.user_attrs.get("inherited") is not None]
    scratch = [trial for trial in trials if "not_inherited" in trial.user_attrs]
    done = [t for t in trials[3:] if t.state.name == "COMPLETE" and "score" in t.user_attrs]
    assert heirs and {t.number for t in heirs + scratch} >= {
        t.number for t in done if "copied_from" not in t.user_attrs
    }
    for trial in heirs:
        attrs = trial.user_attrs
        parent = trials[attrs["inherited"]]
        assert attrs["bred"]["parent"] == parent.number and attrs["lane"].startswith("child/")
        assert attrs["score"]["rows"] < 0.5 * attrs["score"]["info"]["root_rows"]
    for trial in scratch:
        if trial.user_attrs["inherited"] is None:
            assert trial.user_attrs["not_inherited"] and trial.user_attrs["lane"] == "root/neural"
    assert len(data.parents.numbers()) == 2
