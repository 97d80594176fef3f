"""Opens the MLflow store once, in the parent process, before any other process may touch it.

MLflow migrates a fresh database on first use without a lock: four processes that open one SQLite
file at once leave most of themselves dead and sometimes the file broken for good (mlflow 3.17.2).
Every client here names its store, so neither the process nor the user's own MLflow code changes.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autorec.errors import ConfigError

# MLflow reports usage to its makers from the moment it is imported; a user of AutoRec has not asked
# for that. Set the variable to "false" to allow it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

EXPERIMENT = "autorec"
_REACH_SECONDS = 10.0
_ROOMS = ("mlflow", "alembic")  # whose chatter is held back
_opened: dict[str, int] = {}  # SQLite URI -> inode of the file that MLflow's cached engine holds


@dataclass(frozen=True)
class Store:
    """Where runs and models are kept: plain strings, cheap to pass on and to write down."""

    tracking_uri: str
    registry_uri: str
    experiment_id: str

    def client(self) -> Any:
        """Return an `MlflowClient` of this store; the process's own URIs stay as they are."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.registry_uri)


def initialise(
    folder: Path | None,
    tracking_uri: str | None = None,
    *,
    registry_uri: str | None = None,
    experiment: str = EXPERIMENT,
) -> Store:
    """Open the store in the parent, creating it where it is new; calling again changes nothing.

    Args:
        folder: run folder. Without `tracking_uri` it receives `mlflow.db` and `mlartifacts/`.
        tracking_uri: an MLflow database or server instead.
        registry_uri: where models are registered; the tracking store by default.
        experiment: name of the MLflow experiment, created when absent.

    Raises:
        ConfigError: no place is given, the store is not usable, or its experiment was deleted.
    """
    if folder is None and tracking_uri is None:
        raise ConfigError("MLflow needs a place, but got neither a run folder nor a tracking URI")
    home = None if folder is None else Path(folder).resolve()
    uri, database = _place(tracking_uri or f"sqlite:///{home}/mlflow.db")
    models_uri, models = _place(registry_uri or uri)
    home = home if database is None else database.parent
    files = {place: file for place, file in ((uri, database), (models_uri, models)) if file}
    try:
        with _locked(files.values()), quiet(), own_warnings_ignored():
            own = database if tracking_uri is None else None
            _drop_unfinished(own)
            for place, file in files.items():
                _drop_stale(place, file)
            client = Store(uri, models_uri, "").client()
            artifacts = None if home is None or is_server(uri) else (home / "mlartifacts").as_uri()
            experiment_id = _experiment(client, experiment, artifacts)
            client.search_registered_models(max_results=1)
            if own is not None:
                _ready(own).touch()
            _opened.update((place, file.stat().st_ino) for place, file in files.items())
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"MLflow must be able to open its store, but {uri!r} failed: {first_line(error)}; name "
            "a database such as sqlite:////path/mlflow.db or a server such as http://host:5000"
        ) from error
    return Store(uri, models_uri, experiment_id)


def ui_command(store: Store, port: int, host: str = "127.0.0.1") -> list[str]:
    """Return the command that shows the store in MLflow's web page, `http://host:port`.

    One worker and no job runner: left alone, MLflow 3.17 starts four workers and eight processes
    for jobs that AutoRec never submits.

    Raises:
        ConfigError: the store is itself a server and has its page already.
    """
    if is_server(store.tracking_uri):
        raise ConfigError(
            "the page of an MLflow server is served by that server, and the store is one; open "
            f"{store.tracking_uri}"
        )
    return [
        "env",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false",
        *(sys.executable, "-m", "mlflow", "ui"),
        *("--backend-store-uri", store.tracking_uri),
        *("--registry-store-uri", store.registry_uri),
        *("--host", host, "--port", str(port), "--workers", "1"),
    ]


def serve_command(model_uri: str, store: Store, port: int, host: str = "127.0.0.1") -> list[str]:
    """Return the command that serves a model at `http://host:port/invocations`.

    The store goes in through the environment, for `mlflow models serve` has no option for it. The
    folder of this Python's programs is put on the path where a shell would not find them: the
    command starts `uvicorn` by its bare name, also in the virtual environment it runs in.
    """
    programs = Path(sys.executable).parent
    found = shutil.which("uvicorn")
    path = os.environ.get("PATH", os.defpath)
    ours = found is not None and Path(found).parent == programs
    return [
        "env",
        f"MLFLOW_TRACKING_URI={store.tracking_uri}",
        f"MLFLOW_REGISTRY_URI={store.registry_uri}",
        *([] if ours else [f"PATH={programs}{os.pathsep}{path}"]),
        *(sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", model_uri),
        *("--env-manager", "local", "--host", host, "--port", str(port)),
    ]


@contextmanager
def quiet(level: int = logging.WARNING) -> Iterator[None]:
    """Hold back what MLflow and Alembic log from this thread below `level`, and nothing else.

    MLflow announces every migration, and prints a page of traceback for an error that this room
    reports itself.
    """
    import mlflow.version  # MLflow's logger gets its handler on import

    del mlflow
    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        own = record.thread == thread and record.name.split(".")[0] in _ROOMS
        return not own or record.levelno >= level

    held = [h for name in (None, *_ROOMS) for h in logging.getLogger(name).handlers]
    for handler in held:
        handler.addFilter(keep)
    try:
        yield
    finally:
        for handler in held:
            handler.removeFilter(keep)


def first_line(error: BaseException) -> str:
    """Return the first line of an error, cut at 200 characters: MLflow's run over pages."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


@contextmanager
def own_warnings_ignored() -> Iterator[None]:
    """Ignore what MLflow's own code warns itself of; main thread only, as the filters are global.

    Matters where warnings are errors. Seen on 3.17.2: SQLAlchemy deprecates a loader that MLflow
    uses, importing `mlflow.pyfunc` warns of MLflow's own type hints, and saving a model without an
    example recommends one although the signature is given.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", category=DeprecationWarning, module=r"(mlflow|sqlalchemy|alembic)\b"
        )
        warnings.filterwarnings("ignore", module=r"mlflow\.types\.type_hints$")
        warnings.filterwarnings("ignore", r".*An input example was not provided", UserWarning)
        yield


@contextmanager
def _locked(files: Iterable[Path]) -> Iterator[None]:
    """Let one process at a time create or migrate SQLite files."""
    with ExitStack() as held:
        for file in sorted(set(files)):
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(open(f"{file}.lock", "w"))
            with suppress(ImportError, OSError):  # no flock on Windows and some network disks
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ready(database: Path) -> Path:
    return database.with_name(f".{database.name}.ready")  # there once the database is complete


def _drop_unfinished(database: Path | None) -> None:
    """Remove a database of ours whose making was killed: MLflow cannot go on with half of it."""
    if database is not None and database.is_file() and not _ready(database).is_file():
        database.unlink()


def _drop_stale(uri: str, file: Path) -> None:
    """Make MLflow forget its engine of a file that was deleted or replaced since.

    MLflow caches one store per URI for the life of the process. After the run folder was deleted
    and made anew, the cached one reads the deleted file and fails on every write ("attempt to
    write a readonly database", mlflow 3.17.2).
    """
    if uri not in _opened or (file.exists() and file.stat().st_ino == _opened[uri]):
        return
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Models
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Runs
    from mlflow.tracking._model_registry import utils as models
    from mlflow.tracking._tracking_service import utils as runs

    for store in (Runs, Models):
        engine = getattr(store, "_engine_map", {}).pop(uri, None)
        if engine is not None:
            engine.dispose()
    for registry in (runs._tracking_store_registry, models._get_store_registry()):
        registry._get_store_with_resolved_uri.cache_clear()
    del _opened[uri]


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    """Return the id of the experiment, created when absent."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            # Untagged, the web page opens in its view for language-model traces.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(name, artifact_location=artifacts, tags=tags))
        except MlflowException:  # another process made it in between
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise ConfigError(
            f"an MLflow experiment must not be deleted, but {name!r} is; restore it "
            f"(`mlflow experiments restore -x {found.experiment_id}`) or name another"
        )
    return str(found.experiment_id)


def is_server(uri: str) -> bool:
    """Tell whether an MLflow server keeps the store, not a database opened here."""
    return uri.startswith(("http://", "https://"))


def _place(uri: str) -> tuple[str, Path | None]:
    """Return a URI that means the same in every folder, and its file if it is SQLite's.

    Raises:
        ConfigError: a path that SQLAlchemy would read otherwise, or a server that is not there.
    """
    if not uri.startswith("sqlite:///"):
        _check_server(uri)
        return uri, None
    path = uri[len("sqlite:///") :]
    # SQLAlchemy unquotes the one and cuts at the other: the database would lie elsewhere.
    if "%" in path or "?" in path:
        raise ConfigError(
            f"the path of an SQLite store may hold no '%' and no '?', but got {path!r}; use "
            "another run folder"
        )
    file = Path(path).resolve()
    return f"sqlite:///{file}", file


def _check_server(uri: str) -> None:
    """Fail within seconds on a server that is not there; MLflow itself retries for minutes."""
    if not is_server(uri):
        return
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_REACH_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # it answers; whether it lets us in is seen at the first call
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"an MLflow server must answer within {_REACH_SECONDS:.0f} s, but {uri!r} did not: "
            f"{first_line(error)}; start it or correct the tracking URI"
        ) from error
