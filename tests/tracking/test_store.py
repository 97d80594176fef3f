"""The store: created once, by one process, without a trace outside its folder."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sqlite3
import threading
from pathlib import Path

import mlflow
import pytest

from autorec.errors import ConfigError
from autorec.tracking.store import Store, initialise, quiet, serve_command, ui_command


def test_a_fresh_folder_gets_a_database_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "elsewhere"
    home.mkdir()
    monkeypatch.chdir(home)
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    store = initialise(tmp_path / "run a#ü")
    run = store.client().create_run(store.experiment_id)
    store.client().log_text(run.info.run_id, "x", "x.txt")

    assert store.tracking_uri == store.registry_uri == f"sqlite:///{tmp_path}/run a#ü/mlflow.db"
    assert (tmp_path / "run a#ü" / "mlflow.db").is_file()
    assert [p.name for p in (tmp_path / "run a#ü" / "mlartifacts").rglob("*.txt")] == ["x.txt"]
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == before
    assert mlflow.active_run() is None
    assert os.listdir(home) == []
    out, err = capfd.readouterr()
    assert "INFO" not in out + err, "MLflow's migration chatter got through"


def test_opening_again_changes_nothing(store: Store) -> None:
    folder = Path(store.tracking_uri.removeprefix("sqlite:///")).parent
    experiments = store.client().search_experiments()
    assert initialise(folder) == store
    assert initialise(None, store.tracking_uri) == store
    assert [e.experiment_id for e in store.client().search_experiments()] == [
        e.experiment_id for e in experiments
    ]


def test_a_relative_database_is_named_by_its_full_path(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(store.tracking_uri.removeprefix("sqlite:///")).parent)
    assert initialise(None, "sqlite:///mlflow.db") == store


def test_a_folder_deleted_in_between_is_made_anew(tmp_path: Path) -> None:
    first = initialise(tmp_path / "run")
    first.client().create_run(first.experiment_id)
    shutil.rmtree(tmp_path / "run")
    again = initialise(tmp_path / "run")
    again.client().create_run(again.experiment_id)
    assert (tmp_path / "run" / "mlflow.db").is_file()
    assert len(again.client().search_runs([again.experiment_id])) == 1


def test_two_processes_take_turns(store: Store) -> None:
    fcntl = pytest.importorskip("fcntl", reason="no flock on this system")
    done = threading.Event()

    def second() -> None:
        initialise(None, store.tracking_uri)
        done.set()

    with open(store.tracking_uri.removeprefix("sqlite:///") + ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as a first process that migrates would
        thread = threading.Thread(target=second)
        thread.start()
        assert not done.wait(0.3)
    assert done.wait(10)
    thread.join()


def test_an_experiment_that_was_deleted_is_not_revived(store: Store) -> None:
    doomed = initialise(None, store.tracking_uri, experiment="doomed")
    assert doomed.experiment_id != store.experiment_id
    doomed.client().delete_experiment(doomed.experiment_id)
    with pytest.raises(ConfigError, match="must not be deleted, but 'doomed' is; restore it"):
        initialise(None, store.tracking_uri, experiment="doomed")


def test_places_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a run folder nor a tracking URI"):
        initialise(None)
    with pytest.raises(ConfigError, match="must be able to open its store, but 'ftp://host'"):
        initialise(tmp_path, "ftp://host")
    with pytest.raises(ConfigError, match="may hold no '%' and no '\\?', but got"):
        initialise(tmp_path / "50%25")
    with socket.socket() as free:  # bound and not listening: a connection is refused
        free.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigError, match="must answer within 10 s, but 'http://127"):
            initialise(tmp_path, f"http://127.0.0.1:{free.getsockname()[1]}")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="must be able to open its store"):
        initialise(tmp_path / "file" / "run")
    assert not (tmp_path / "mlflow.db").exists()


def test_quiet_holds_back_only_this_thread_and_only_mlflow() -> None:
    seen: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    logger, other = logging.getLogger("mlflow.some.part"), logging.getLogger("somebody")
    handler = Collect()
    for parent in (logging.getLogger("mlflow"), other):
        parent.addHandler(handler)
    try:
        with quiet():
            logger.info("chatter")
            logger.warning("warning")
            other.warning("of another")
            thread = threading.Thread(target=logger.info, args=("other thread",))
            thread.start()
            thread.join()
        logger.info("after")
    finally:
        for parent in (logging.getLogger("mlflow"), other):
            parent.removeHandler(handler)
    assert seen == ["warning", "of another", "other thread", "after"]
    assert handler.filters == []


def test_commands_name_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ui_command(store, 5001)
    assert page[page.index("--backend-store-uri") + 1] == store.tracking_uri
    assert page[page.index("--port") + 1] == "5001"
    assert page[page.index("--host") + 1] == "127.0.0.1"
    with pytest.raises(ConfigError, match="the store is one; open http://host:1"):
        ui_command(Store("http://host:1", "http://host:1", "0"), 5001)

    monkeypatch.setenv("PATH", "/nowhere")
    served = serve_command("models:/m@champion", store, 5002, host="0.0.0.0")
    assert f"MLFLOW_REGISTRY_URI={store.registry_uri}" in served
    assert any(part.startswith("PATH=") and part.endswith(":/nowhere") for part in served)
    assert served[served.index("--model-uri") + 1] == "models:/m@champion"
    assert served[served.index("--host") + 1] == "0.0.0.0"


def test_a_database_whose_making_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    half = sqlite3.connect(tmp_path / "mlflow.db")
    half.execute("create table datasets (dataset_uuid text)")
    half.close()
    store = initialise(tmp_path)
    assert store.client().get_experiment(store.experiment_id).name
    again = initialise(tmp_path)
    assert again == store, "a finished database is kept"
