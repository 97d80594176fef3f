"""Every family learns a planted answer, keeps its best weights, and survives the disk."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from autorec.architecture import Architecture, Node
from autorec.candidate import Candidate, Features, Recipe
from autorec.errors import RankerError, TrainingError
from autorec.job import COMPLETE, DEADLINE, STOPPED, Fidelity, Job
from autorec.search_spaces._genes import TREE_DEFAULTS
from autorec.tasks.metrics import auc
from autorec.train.fit import fit, load_model

RECIPE = Recipe(
    {"lr": 0.01, "embedding_l2": 1e-4, "batch_size": 256, "schedule": "plateau", "ema": 0.0}
)
MLP = Node(
    "mlp", ("dense", "sparse"), (("width", 32), ("layers", 2), ("dropout", 0.0), ("norm", "none"))
)
NETWORK = Candidate("neural", RECIPE, Features("both"), Architecture((MLP,), 8, linear=True))
LINEAR = Candidate("linear", RECIPE, Features("both"), Architecture((), 0, linear=True))
TREE = Candidate("tree", Recipe(TREE_DEFAULTS))
POPULARITY = Candidate("popularity", Recipe({"prior_strength": 5.0}))
ALL = {"neural": NETWORK, "linear": LINEAR, "tree": TREE, "popularity": POPULARITY}


def job(candidate, **changes):
    return replace(Job(0, candidate, seed=1, deadline=time.time() + 900), **changes)


def go_on(rows, score):
    return True


@pytest.mark.parametrize(("family", "floor"), [("neural", 0.80), ("tree", 0.80), ("linear", 0.6)])
def test_clicks_are_learnt(click_data, family, floor):
    trained = fit(job(ALL[family]), click_data, go_on)
    assert trained.metrics["auc"] > floor
    assert trained.status == COMPLETE
    assert trained.score(click_data.task).value == trained.metrics["auc"]


def test_the_cross_needs_more_than_a_linear_model(click_data):
    linear = fit(job(LINEAR), click_data, go_on).metrics["auc"]
    network = fit(job(NETWORK), click_data, go_on).metrics["auc"]
    assert network > linear + 0.1


def test_ratings_are_learnt(rating_data):
    spread = float(np.std(rating_data.valid.label))
    for family in ("neural", "tree"):
        trained = fit(job(ALL[family]), rating_data, go_on)
        assert trained.metrics["rmse"] < 0.5 * spread
        assert trained.score(rating_data.task).value == -trained.metrics["rmse"]
    assert fit(job(POPULARITY), rating_data, go_on).metrics["rmse"] < 1.02 * spread


def test_popularity_is_the_smoothed_mean(click_data):
    trained = fit(job(POPULARITY), click_data, go_on)
    train, valid = click_data.train, click_data.valid
    overall = train.label.mean()
    for row in range(20):
        same = train.codes[:, 1] == valid.codes[row, 1]
        expected = (train.label[same].sum() + 5.0 * overall) / (same.sum() + 5.0)
        assert trained.valid_prediction[row] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("family", list(ALL))
def test_models_come_back_from_disk_bit_for_bit(click_data, tmp_path, family):
    candidate = ALL[family]
    trained = fit(job(candidate, fidelity=Fidelity(rows=2000)), click_data, go_on)
    trained.model.save(tmp_path)
    loaded = load_model(tmp_path, candidate, click_data.layout, click_data.task)
    assert np.array_equal(loaded.predict(click_data.valid), trained.model.predict(click_data.valid))
    # Boosting sums its trees in another order than prediction does.
    assert np.allclose(loaded.predict(click_data.valid), trained.valid_prediction, atol=1e-12)
    assert not list(tmp_path.glob("*.pkl"))
    with pytest.raises(RankerError, match="reading it failed"):
        load_model(tmp_path / "elsewhere", candidate, click_data.layout, click_data.task)


def test_same_seed_same_weights_other_seed_others(click_data):
    short = Fidelity(rows=3000)
    a, b = (fit(job(NETWORK, fidelity=short), click_data, go_on) for _ in range(2))
    c = fit(job(NETWORK, fidelity=short, seed=2), click_data, go_on)
    assert np.array_equal(a.valid_prediction, b.valid_prediction)
    assert not np.array_equal(a.valid_prediction, c.valid_prediction)


def test_global_generator_is_left_alone(click_data):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fit(job(NETWORK, fidelity=Fidelity(rows=1000)), click_data, go_on)
    assert torch.equal(torch.rand(3), expected)


def test_the_score_belongs_to_the_weights_that_are_kept(click_data):
    trained = fit(job(NETWORK), click_data, go_on)
    best = max(point["score"] for point in trained.history)
    assert trained.metrics["auc"] == pytest.approx(best, abs=1e-12)
    again = auc(click_data.valid.label, trained.model.predict(click_data.valid))
    assert again == trained.metrics["auc"]


def test_report_stops_and_deadline_stops(click_data):
    stopped = fit(job(NETWORK), click_data, lambda rows, score: False)
    assert (stopped.status, stopped.rows) == (STOPPED, 6000)
    late = fit(job(NETWORK, deadline=time.time() - 1), click_data, go_on)
    assert late.status == DEADLINE and np.isfinite(late.metrics["auc"])
    tree = fit(job(TREE, deadline=time.time() - 1), click_data, go_on)
    assert tree.status == DEADLINE and np.isfinite(tree.metrics["auc"])
    asked = fit(job(NETWORK), replace(click_data, late=lambda: True), go_on)
    assert asked.status == DEADLINE


def test_plateau_cuts_the_rate_and_then_stops(click_data):
    trained = fit(job(NETWORK), click_data, go_on)
    rates = [point["lr"] for point in trained.history]
    assert rates[0] == pytest.approx(0.01) and min(rates) <= 0.001 + 1e-12
    assert len(trained.history) < 100


def test_refit_replays_the_schedule_on_all_rows(click_data):
    first = fit(job(NETWORK), click_data, go_on)
    everything = replace(click_data, valid=None)
    again = fit(job(NETWORK), everything, go_on, replay=first.replay)
    wanted = first.replay["epochs"] * everything.train.n_rows
    assert wanted <= again.rows < wanted + 256
    label, prediction = click_data.valid.label, again.model.predict(click_data.valid)
    assert auc(label, prediction) > first.metrics["auc"] - 0.02
    tree = fit(job(TREE), click_data, go_on)
    repeated = fit(job(TREE), everything, go_on, replay=tree.replay)
    assert repeated.info["rounds"] == tree.replay["rounds"]


def test_divergence_is_a_training_error(click_data):
    wild = replace(NETWORK, recipe=RECIPE.changed(lr=1e30))
    with pytest.raises(TrainingError, match="loss must stay finite"):
        fit(job(wild), click_data, go_on)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("ema", [0.0, 0.99])
def test_other_schedules_and_averaged_weights_learn(click_data, schedule, ema):
    recipe = RECIPE.changed(schedule=schedule, ema=ema, epochs=12)
    trained = fit(job(replace(NETWORK, recipe=recipe)), click_data, go_on)
    assert trained.metrics["auc"] > 0.78
    if schedule == "cosine":
        assert trained.rows == 12 * 6000


def test_hash_cap_bounds_the_tables(click_data, tmp_path):
    capped = fit(job(NETWORK, fidelity=Fidelity(rows=2000, hash_cap=6)), click_data, go_on)
    full = fit(job(NETWORK, fidelity=Fidelity(rows=2000)), click_data, go_on)
    assert capped.info["params"] < full.info["params"]
    capped.model.save(tmp_path)
    loaded = load_model(tmp_path, NETWORK, click_data.layout, click_data.task)
    assert np.array_equal(loaded.predict(click_data.valid), capped.valid_prediction)


def test_weights_count_as_repeated_rows(click_data):
    """A row of weight 0 has no influence on a model."""
    train = click_data.train
    flipped = np.where(np.arange(train.n_rows) < 3000, 1 - train.label, train.label)
    weight = (np.arange(train.n_rows) >= 3000).astype(np.float32)
    noisy = replace(click_data, train=replace(train, label=flipped, weight=weight))
    for candidate in (NETWORK, TREE):
        assert fit(job(candidate), noisy, go_on).metrics["auc"] > 0.75
    a = fit(job(POPULARITY), noisy, go_on).valid_prediction
    half = replace(click_data, train=train.take(slice(3000, None)))
    assert np.allclose(a, fit(job(POPULARITY), half, go_on).valid_prediction)
