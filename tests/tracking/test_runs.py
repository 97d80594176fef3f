"""Logging a fit: everything arrives, and nothing that goes wrong comes back."""

from __future__ import annotations

import inspect
import json
import logging
import math
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from autorec.tracking.runs import NullLogger, RunLogger
from autorec.tracking.store import Store


def logged(store: Store, **more: Any) -> RunLogger:
    logger = RunLogger(store)
    assert logger.start_parent("fit", {"seed": 0}, {"autorec.version": "1"}) is not None
    logger.log_trial(0, **({"name": "t0", **TRIAL} | more))
    assert logger.flush()
    return logger


TRIAL: dict[str, Any] = {
    "params": {"recipe.lr": 0.1, "feature.user*item.count": True},
    "metrics": {"auc": 0.75, "logloss": 0.5},
    "started": 100.0,
    "ended": 160.5,
}


def artifact(store: Store, run_id: str, name: str) -> str:
    root = store.client().get_run(run_id).info.artifact_uri.removeprefix("file://")
    return Path(root, name).read_text()


def test_a_trial_is_a_child_with_all_that_belongs_to_it(store: Store) -> None:
    curve = [{"step": 100 * i, "auc": 0.5 + i / 10, "timestamp": 101.0 + i} for i in range(4)]
    logger = logged(
        store, curve=curve, tags={"family": "neural"}, artifacts={"a.txt": "hi", "b.json": {"k": 1}}
    )
    child = store.client().get_run(logger.children[0])
    assert child.info.run_name == "t0"
    assert (child.info.start_time, child.info.end_time) == (100_000, 160_500)
    assert child.info.status == "FINISHED"
    assert child.data.tags["mlflow.parentRunId"] == logger.run_id
    assert child.data.tags["autorec.trial"] == "0"
    assert child.data.tags["family"] == "neural"
    assert child.data.metrics["auc"] == 0.75  # the final value, not the last of the curve
    history = store.client().get_metric_history(child.info.run_id, "curve/auc")
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (p["step"], p["auc"], int(p["timestamp"] * 1000)) for p in curve
    ]
    assert child.data.params == {"recipe.lr": "0.1", "feature.user_item.count": "True"}
    assert json.loads(artifact(store, child.info.run_id, "params.json")) == TRIAL["params"]
    assert artifact(store, child.info.run_id, "a.txt") == "hi"
    assert json.loads(artifact(store, child.info.run_id, "b.json")) == {"k": 1}
    logger.finish()


def test_the_parent_has_what_belongs_to_the_fit(store: Store, tmp_path: Path) -> None:
    logger = logged(store)
    (tmp_path / "report.html").write_text("<p>")
    logger.log_metrics({"test_auc": 0.8, "bad": math.nan}, step=3)
    logger.set_tags({"best": 0})
    logger.log_artifact_text("notes/plan.txt", "first")
    logger.log_artifact_json("schema.json", {"fields": []})
    logger.log_artifact_file(tmp_path / "report.html", "report")
    logger.finish("KILLED")
    assert logger.run_id is not None
    run = store.client().get_run(logger.run_id)
    assert (run.info.status, run.data.params) == ("KILLED", {"seed": "0"})
    assert run.data.tags["autorec.version"] == "1"
    assert run.data.tags["best"] == "0"
    assert run.data.metrics == {"test_auc": 0.8}
    assert artifact(store, logger.run_id, "notes/plan.txt") == "first"
    assert artifact(store, logger.run_id, "schema.json") == '{\n "fields": []\n}'
    assert artifact(store, logger.run_id, "report/report.html") == "<p>"
    logger.log_artifact_text("late.txt", "after the end")  # deploying comes after the fit
    assert logger.flush()
    assert artifact(store, logger.run_id, "late.txt") == "after the end"


def test_more_than_mlflow_takes_at_once_arrives_whole(store: Store) -> None:
    params = {f"p{i}": i for i in range(250)} | {"long": "x" * 7000}
    curve = [{"step": i, "loss": float(i)} for i in range(1700)]
    logger = logged(store, params=params, curve=curve)
    child = store.client().get_run(logger.children[0])
    assert len(child.data.params) == 251
    history = store.client().get_metric_history(child.info.run_id, "curve/loss")
    assert sorted(m.step for m in history) == list(range(1700))
    assert logger.missing == 0
    logger.finish()


def test_what_is_not_finite_is_left_out_and_named(store: Store) -> None:
    logger = logged(store, metrics={"auc": 0.5, "ne": math.inf}, curve=[{"loss": math.nan}])
    child = store.client().get_run(logger.children[0])
    assert child.data.metrics == {"auc": 0.5}
    assert child.data.tags["autorec.skipped_metrics"] == "curve/loss, ne"
    logger.finish()


def test_the_record_is_taken_at_the_call(store: Store) -> None:
    metrics = {"auc": 0.5}
    logger = RunLogger(store)
    logger.start_parent("fit")
    logger.log_trial(0, **(TRIAL | {"name": "t", "metrics": metrics}))
    metrics["auc"] = 0.9
    logger.finish()
    assert store.client().get_run(logger.children[0]).data.metrics == {"auc": 0.5}


@pytest.mark.parametrize(
    ("status", "expected"),
    [("stopped", "FINISHED"), ("deadline", "FINISHED"), ("failed", "FAILED"), ("killed", "KILLED")],
)
def test_a_child_ends_as_its_trial_did(store: Store, status: str, expected: str) -> None:
    logger = logged(store, status=status)
    child = store.client().get_run(logger.children[0])
    assert (child.info.status, child.data.tags["autorec.status"]) == (expected, status)
    logger.finish()


def test_resuming_writes_no_trial_twice(store: Store) -> None:
    first, stranger = logged(store), logged(store)
    assert first.run_id is not None
    client = store.client()
    cut = client.create_run(  # what a process leaves behind that died while it wrote trial 1
        store.experiment_id, tags={"mlflow.parentRunId": first.run_id, "autorec.trial": "1"}
    )
    first.finish("FAILED")

    second = RunLogger(store)
    assert second.attach(first.run_id)
    assert client.get_run(first.run_id).info.status == "RUNNING"
    assert second.children == first.children
    for number in (0, 1, 1):
        second.log_trial(number, name="again", **TRIAL)
    second.finish()

    found = client.search_runs(
        [store.experiment_id], f"tags.`mlflow.parentRunId` = '{first.run_id}'"
    )
    assert sorted(int(run.data.tags["autorec.trial"]) for run in found) == [0, 1]
    assert second.children[0] == first.children[0]
    assert client.get_run(cut.info.run_id).info.lifecycle_stage == "deleted"
    assert client.get_run(first.run_id).info.status == "FINISHED"
    assert set(second.children.values()).isdisjoint(stranger.children.values())
    stranger.finish()


def test_a_parent_that_is_not_there(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    logger = RunLogger(store)
    assert not logger.attach("0" * 32)
    assert "MLflow did not take the run 000" in caplog.text
    assert logger.start_parent("a new one") is not None
    logger.finish()


class Broken:
    """A client of which chosen methods fail or hang, and the others work."""

    def __init__(self, client: Any, fails: str, event: threading.Event | None = None) -> None:
        self.client, self.fails, self.event, self.calls = client, fails, event, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name) if name != self.fails else self._fail

    def _fail(self, *args: Any, **named: Any) -> None:
        self.calls += 1
        if self.event is None:
            raise OSError("the disk is full\nand more")
        self.event.wait(20)
        raise OSError("too late")


def test_a_failure_is_said_once_and_the_rest_is_written(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logged(store)
    logger._client = Broken(logger._client, "log_text")
    logger.log_trial(1, name="t1", **(TRIAL | {"artifacts": {"a": "x", "b": "y"}}))
    logger.log_trial(2, name="t2", **TRIAL)
    logger.finish()
    child = store.client().get_run(logger.children[1])
    assert child.info.status == "FINISHED"
    assert child.data.metrics["auc"] == 0.75
    messages = [r.message for r in caplog.records if r.name == "autorec.tracking"]
    assert messages == [
        "MLflow did not take params.json: OSError: the disk is full; the fit goes on without it",
        "MLflow did not take 4 records of this fit",
    ]
    assert store.client().get_run(logger.run_id).info.status == "FINISHED"


def test_after_failures_in_a_row_nothing_more_is_tried(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logged(store)
    broken = logger._client = Broken(logger._client, "create_run")
    for number in range(1, 20):
        logger.log_trial(number, name="t", **TRIAL)
    logger.finish()
    assert broken.calls == 5
    assert list(logger.children) == [0]
    assert caplog.text.count("MLflow failed 5 times in a row; nothing more of this fit") == 1
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_a_store_that_hangs_costs_the_fit_nothing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logged(store)
    logger._patience = 0.2
    release = threading.Event()
    logger._client = Broken(logger._client, "create_run", release)
    begin = time.monotonic()
    for number in range(1, 50):
        logger.log_trial(number, name="t", **TRIAL)
    assert time.monotonic() - begin < 2.0  # one call hangs for 20 s
    logger.finish()
    assert time.monotonic() - begin < 10.0
    assert "MLflow did not take the last records within 0 s" in caplog.text
    release.set()


def test_a_run_that_cannot_be_opened_is_not_logged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    logger = RunLogger(store)
    logger._client = Broken(logger._client, "create_run")
    assert logger.start_parent("fit", {"a": 1}) is None
    logger.log_trial(0, name="t", **TRIAL)
    logger.log_metrics({"a": 1.0})
    logger.finish()
    assert len(caplog.records) == 1
    assert logger.children == {}


def test_the_null_logger_takes_every_call_and_never_loads_mlflow() -> None:
    def public(of: type) -> dict[str, inspect.Signature]:
        names = [n for n in dir(of) if not n.startswith("_") and callable(getattr(of, n))]
        return {name: inspect.signature(getattr(of, name)) for name in names}

    assert public(NullLogger) == public(RunLogger)
    code = """
import sys
from autorec.tracking.runs import NullLogger
n = NullLogger()
assert n.start_parent("fit", {"a": 1}) is None and not n.attach("0")
n.log_trial(0, name="t", params={}, metrics={"a": 1.0}, curve=[{"a": 1}], started=0, ended=1)
n.log_metrics({"a": 1.0}); n.set_tags({"a": 1}); n.log_artifact_text("a", "b")
n.log_artifact_json("a", {}); n.log_artifact_file("absent"); n.finish()
assert n.flush() and n.children == {} and n.run_id is None
assert "mlflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
