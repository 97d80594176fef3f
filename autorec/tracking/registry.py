"""Puts rankers into MLflow's model registry and gets them out again.

Written against `MlflowClient` and not `mlflow.pyfunc.log_model`, which works on the tracking URI
and the active run of the process. Model URIs are resolved here for the same reason: MLflow 3.17
looks them up in the process's registry even where it is given another.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autorec.errors import AutoRecError, ConfigError, RankerError
from autorec.tracking.pyfunc import read_entry, signature
from autorec.tracking.store import (
    Store,
    first_line,
    initialise,
    is_server,
    own_warnings_ignored,
    quiet,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ModelVersionInfo", "load_model", "pinned", "register", "signature"]

LOADER = "autorec.tracking.pyfunc"
_PACKAGES = "autorec-automl mlflow numpy pandas pyarrow torch safetensors lightgbm scikit-learn"


@dataclass(frozen=True)
class ModelVersionInfo:
    """One version of a registered model; `uri` names it by its alias, if it has one."""

    name: str
    version: int
    alias: str | None
    uri: str
    model_id: str


def register(
    ranker_folder: Path,
    name: str,
    *,
    store: Store,
    signature: Any,
    alias: str | None = "champion",
    input_example: pd.DataFrame | None = None,
    metadata: Mapping[str, Any] | None = None,
    source_run_id: str | None = None,
    requirements: Sequence[str] | None = None,
) -> ModelVersionInfo:
    """Log a ranker folder as a model of a run and register it as a new version.

    Args:
        ranker_folder: what the ranker saved; copied as it is.
        name: of the registered model, created when absent.
        store: where.
        signature: from `signature`.
        alias: moved to the new version; None leaves all aliases where they are.
        input_example: a few raw rows, shown and used as the example request.
        metadata: JSON-able facts, kept with the model.
        source_run_id: the parent run of the fit. A registry on a server other than the tracking
            store gets the files and, as metadata, the id.
        requirements: pip requirements of a server; by default the installed versions of AutoRec
            and what it runs on. Given, not inferred: MLflow's own scan loads the model in a
            second process.

    Raises:
        ConfigError: no signature, or a name or alias that MLflow does not take.
        RankerError: the folder holds no ranker, or MLflow did not take it; no alias moved then.
    """
    _check_name(name, alias)
    if signature is None:
        raise ConfigError("a model is registered with a signature, but got None; build one first")
    folder, facts = Path(ranker_folder), dict(metadata or {})
    read_entry(folder)
    if is_server(store.registry_uri) and store.registry_uri != store.tracking_uri:
        # A server registers only files that it keeps itself.
        store, facts["source_run"] = initialise(None, store.registry_uri), source_run_id
        source_run_id = None
    given = {
        "signature": signature,
        "input_example": _with_nulls(input_example),
        "pip_requirements": pinned() if requirements is None else list(requirements),
    }
    made = {"metadata": facts, "run_id": source_run_id}
    with _reported(f"register {name!r}"), quiet(), own_warnings_ignored():
        client = store.client()
        model = _log_model(client, store.experiment_id, folder, made, given)
        version = _register(client, name, model, source_run_id, is_server(store.registry_uri))
        if alias is not None:
            client.set_registered_model_alias(name, alias, str(version))
    uri = f"models:/{name}/{version}" if alias is None else f"models:/{name}@{alias}"
    return ModelVersionInfo(name, version, alias, uri, model.model_id)


def load_model(uri: str, store: Store, folder: Path | None = None) -> Path:
    """Return the local ranker folder of a model; nothing is copied if it lies on this machine.

    Args:
        uri: `models:/name@alias`, `models:/name/version`, `models:/<model id>` or `runs:/<run id>`.
        store: where the model was registered.
        folder: where a remote model is downloaded to; a temporary folder by default.

    Raises:
        ConfigError: a URI of another form.
        RankerError: there is no such model, it cannot be fetched, or AutoRec did not write it.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    with _reported(f"find {uri!r}"), quiet():
        location = _location(store.client(), uri)
        local = Path(
            download_artifacts(
                artifact_uri=location,
                dst_path=None if folder is None else str(folder),
                tracking_uri=store.tracking_uri,
            )
        )
        flavor = Model.load(str(local)).flavors.get("python_function", {})
    if flavor.get("loader_module") != LOADER:
        raise RankerError(
            "only a model that AutoRec registered can be loaded as a ranker, but the loader of "
            f"{uri!r} is {flavor.get('loader_module')!r}; load it with mlflow.pyfunc.load_model"
        )
    return local / str(flavor["data"])


def pinned() -> list[str]:
    """Return pip requirements of the installed versions of AutoRec and what a ranker runs on."""
    pins = []
    for package in _PACKAGES.split():
        try:
            version = installed.version(package)
        except installed.PackageNotFoundError:
            continue
        pins.append(f"{package}=={version.split('+')[0]}")  # +cpu and the like are not on PyPI
    return pins


def _log_model(
    client: Any, experiment: str, folder: Path, facts: dict[str, Any], given: dict[str, Any]
) -> Any:
    """Return the logged model made of a ranker folder; one that fails half-way is marked so."""
    model = client.create_logged_model(experiment, "ranker", facts["run_id"], model_type="ranker")
    try:
        with tempfile.TemporaryDirectory(prefix=".register-", dir=folder.parent) as work:
            built = Path(work) / "model"
            _build(built, folder, model, facts, given)
            client.log_model_artifacts(model.model_id, str(built))
    except BaseException:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    return client.finalize_logged_model(model.model_id, "READY")


def _build(
    path: Path, data: Path, logged: Any, facts: dict[str, Any], given: dict[str, Any]
) -> None:
    """Write a model folder: `MLmodel`, requirements, the example and the ranker's own folder."""
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    place, name = logged.artifact_location, logged.model_id
    model = Model(artifact_path=place, model_uuid=name, model_id=name, **facts)
    if "uv_project_path" in inspect.signature(save_model).parameters:
        # MLflow 3.17 copies uv.lock and pyproject.toml of the working folder into the model, which
        # is the user's own project, unless it is told of another one.
        empty = path.parent / "project"
        empty.mkdir()
        given = {**given, "uv_project_path": str(empty)}
    save_model(
        path=str(path), loader_module=LOADER, data_path=str(data), mlflow_model=model, **given
    )


def _with_nulls(example: pd.DataFrame | None) -> pd.DataFrame | None:
    """Return an example with every null as None: pandas writes NaN, which is no JSON."""
    return None if example is None else example.astype(object).where(example.notna(), None)


def _register(client: Any, name: str, model: Any, run_id: str | None, remote: bool) -> int:
    """Create a version of the registered model `name` from a logged model."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    if run_id is not None:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # The place and not `models:/<id>`, and the id only beside a run: without a server MLflow would
    # look either up in the store of the process.
    found = client.create_model_version(
        name,
        source=model.artifact_location,
        run_id=run_id,
        model_id=model.model_id if remote or run_id is not None else None,
    )
    return int(found.version)


def _location(client: Any, uri: str) -> str:
    """Return where the files of a model lie."""
    form = re.fullmatch(r"(models|runs):/+([^/@]+)(?:(@|/)([^/@]+))?", uri)
    if form is None:
        raise ConfigError(
            "a model is named as models:/name@alias, models:/name/version or runs:/run, "
            f"but got {uri!r}"
        )
    scheme, name, mark, which = form.groups()
    if scheme == "runs":
        outputs = client.get_run(name).outputs
        models = outputs.model_outputs if outputs else []
        logged = [client.get_logged_model(model.model_id) for model in models]
        if not logged:
            raise RankerError(f"the run {name} logged no model; deploy its ranker first")
        return str(max(logged, key=lambda model: model.creation_timestamp).artifact_location)
    if which is None:
        return str(client.get_logged_model(name).artifact_location)
    if mark == "@":
        which = client.get_model_version_by_alias(name, which).version
    return str(client.get_model_version_download_uri(name, str(which)))


def _check_name(name: str, alias: str | None) -> None:
    if not name or name != name.strip() or re.search(r"[/:@]", name):
        raise ConfigError(
            f"the name of a model must not be empty and hold no '/', ':' or '@', but got {name!r}"
        )
    taken = alias is not None and re.fullmatch(r"(?i)v\d+|latest", alias)
    if alias is not None and (taken or not re.fullmatch(r"[\w-]+", alias)):
        raise ConfigError(
            "an alias consists of letters, digits, '_' and '-' and is neither 'latest' nor a "
            f"version such as 'v2', but got {alias!r}"
        )


@contextmanager
def _reported(what: str) -> Iterator[None]:
    """Raise what goes wrong in MLflow as a `RankerError` that fits on a line."""
    try:
        yield
    except AutoRecError:
        raise
    except Exception as error:
        raise RankerError(f"MLflow could not {what}: {first_line(error)}") from error
