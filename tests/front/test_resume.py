"""Interruptions: SIGKILL loses no finished trial, resume repeats none, Ctrl-C returns the best."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from autorec import AutoRec
from autorec.run import Run
from autorec.search.records import records
from autorec.search.study import load_study

SCRIPT = """
import sys
from autorec import AutoRec
ar = AutoRec(label="click", path=sys.argv[2], verbosity=1)
ar.fit(sys.argv[1], time_limit=float(sys.argv[3]), mlflow=len(sys.argv) > 4, refit=False)
print("fitted", ar.best_model_, flush=True)
"""


def started(log_path: Path, folder: Path, seconds: float, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(log_path), str(folder), str(seconds), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def finished(folder: Path) -> dict[int, tuple[str, float | None]]:
    """Finished trials by number, read as a second process would."""
    if not (folder / "run.json").is_file() or not Run.open(folder).config.study:
        return {}
    study = load_study(folder, Run.open(folder).config.study)
    done = [t for t in records(study) if t.state in ("COMPLETE", "PRUNED")]
    return {t.number: (str(t.key), t.value) for t in done}


def wait_for(condition, seconds: float, what: str) -> None:
    limit = time.time() + seconds
    while not condition():
        if time.time() > limit:
            pytest.fail(f"waited {seconds} s in vain for {what}")
        time.sleep(0.2)


def workers_of(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "autorec.worker" in " ".join(words) and str(folder) in " ".join(words):
            found.append(int(entry.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_sigkill_then_resume_loses_and_repeats_nothing(log, tmp_path):
    log.to_parquet(tmp_path / "log.parquet")
    folder = tmp_path / "run"
    process = started(tmp_path / "log.parquet", folder, 120, "mlflow")
    try:
        wait_for(lambda: len(finished(folder)) >= 4, 90, "four finished trials")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    wait_for(lambda: not workers_of(folder), 20, "the workers to follow their parent")
    before = finished(folder)
    ar = AutoRec(label="click", path=folder, verbosity=0)
    ar.fit(
        str(tmp_path / "log.parquet"),
        time_limit=60,
        n_trials=len(before) + 3,
        resume=True,
        refit=False,
    )
    after = finished(folder)
    assert {number: after[number] for number in before} == before
    assert len(after) >= len(before) + 1
    trials = records(ar.study_)
    trained = Counter(t.key for t in trials if t.state == "COMPLETE" and t.copied_from is None)
    assert max(trained.values()) == 1, "a finished candidate was trained again"
    dead = [t for t in trials if t.lost]
    assert 1 <= len(dead) <= 2 and all(t.failure["message"] for t in dead)
    assert not [t for t in trials if t.state == "RUNNING"]
    assert {"popularity", "linear", "lightgbm"} <= {t.name for t in trials if t.state == "COMPLETE"}
    from autorec.tracking.store import initialise

    store = initialise(folder)
    runs = store.client().search_runs([store.experiment_id])
    tags = [run.data.tags for run in runs]
    assert sum("mlflow.parentRunId" not in tag for tag in tags) == 1
    numbers = Counter(tag["autorec.trial"] for tag in tags if "autorec.trial" in tag)
    assert max(numbers.values()) == 1, "a trial was logged twice"


def test_ctrl_c_returns_the_best_so_far(log, tmp_path):
    log.to_parquet(tmp_path / "log.parquet")
    folder = tmp_path / "run"
    process = started(tmp_path / "log.parquet", folder, 300)
    try:
        wait_for(lambda: len(finished(folder)) >= 2, 90, "two finished trials")
        begun = time.time()
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "interrupted: the best model so far is kept" in out and "fitted" in out
    assert time.time() - begun < 40
    assert AutoRec.load(folder).predict_proba(log).shape == (len(log),)


def running(folder: Path) -> list[int]:
    """Process numbers of workers that are in the middle of a trial."""
    if not finished(folder):
        return []
    trials = records(load_study(folder, Run.open(folder).config.study))
    return [t.worker.pid for t in trials if t.state == "RUNNING" and t.worker]


def test_a_worker_that_dies_costs_only_its_trial(log, tmp_path):
    log.to_parquet(tmp_path / "log.parquet")
    folder = tmp_path / "run"
    process = started(tmp_path / "log.parquet", folder, 40)
    try:
        wait_for(lambda: bool(running(folder)), 60, "a running trial")
        victim = running(folder)[0]
        os.kill(victim, signal.SIGKILL)
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0 and "fitted" in out
    trials = records(load_study(folder, Run.open(folder).config.study))
    dead = [t for t in trials if t.state == "FAIL" and t.worker and t.worker.pid == victim]
    assert all("SIGKILL" in str(t.failure["message"]) for t in dead)
    after = [t for t in trials if t.state == "COMPLETE" and t.worker and t.worker.pid != victim]
    assert after, "nobody went on"
    assert not [t for t in trials if t.state == "RUNNING"]
