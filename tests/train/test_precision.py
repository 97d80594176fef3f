"""Half precision in training only, agreed on once per run, and outputs that stay float32."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from autorec.architecture import Architecture, Node
from autorec.build import build
from autorec.candidate import Candidate, Features, Recipe
from autorec.job import Fidelity, Job
from autorec.train import precision
from autorec.train.batches import Rows
from autorec.train.distil import objective
from autorec.train.fit import fit


@pytest.fixture
def candidate():
    args = (("width", 256), ("layers", 2), ("dropout", 0.0), ("norm", "batch"))
    plan = Architecture((Node("mlp", ("dense", "sparse"), args),), 8, linear=True)
    recipe = Recipe({"lr": 2e-3, "batch_size": 512, "schedule": "constant"})
    return Candidate("neural", recipe, Features(), plan)


def test_small_products_stay_in_float32():
    assert not precision.low("float32", 10**9, 4096)
    assert not precision.low("bfloat16", 1000, 256)
    assert precision.low("bfloat16", 720_000, 4096)


def test_a_run_agrees_on_one_precision(tmp_path, monkeypatch):
    answers = iter(["bfloat16", "float32"])
    monkeypatch.setattr(precision, "probe", lambda: next(answers))
    assert precision.agreed(tmp_path) == "bfloat16"
    assert precision.agreed(tmp_path) == "bfloat16"
    assert [path.name for path in tmp_path.iterdir()] == ["precision.txt"]


def test_the_first_of_two_processes_wins(tmp_path, monkeypatch):
    def slow():
        (tmp_path / "precision.txt").write_text("float32")
        return "bfloat16"

    monkeypatch.setattr(precision, "probe", slow)
    assert precision.agreed(tmp_path) == "float32"


def test_a_machine_without_units_is_not_timed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    monkeypatch.setattr(precision, "_fastest", None)
    assert precision.probe() == "float32"


def test_outputs_and_gradients_are_float32_and_near(click_data, candidate):
    network = build(candidate, click_data.layout, seed=1).train()
    batch = next(iter(Rows(click_data.train).in_order(512)))
    plain = objective(network, click_data.task)
    half = precision.under(plain, torch.device("cpu"))
    exact, rounded = plain(batch), half(batch)
    assert rounded.dtype == torch.float32
    assert float((exact - rounded).detach().abs()) < 1e-2
    assert not torch.equal(exact, rounded)
    rounded.backward()
    assert all(p.grad.dtype == torch.float32 for p in network.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        out, streams = network(batch), network.streams(batch)
    assert out.dtype == streams.dtype == torch.float32
    assert len(out.unique()) > len(batch.codes) / 2


def test_training_in_half_precision_learns_as_well(click_data, candidate):
    job = Job(0, candidate, 0, time.time() + 60, Fidelity(rows=30_000))
    found = {}
    for kind in ("float32", "bfloat16"):
        trained = fit(job, replace(click_data, precision=kind), lambda _rows, _score: True)
        assert trained.info["precision"] == kind
        found[kind] = trained.metrics["auc"]
        valid = click_data.valid
        again = click_data.task.metrics(
            valid.label, trained.model.predict(valid), group=valid.group
        )
        assert trained.metrics["auc"] == again["auc"]  # read in float32, whatever steered it
    assert found["bfloat16"] == pytest.approx(found["float32"], abs=0.01)
    assert found["bfloat16"] > 0.75
