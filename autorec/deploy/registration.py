"""Puts a saved ranker into the model registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autorec.data.entities import Entities
from autorec.deploy.manifest import verified
from autorec.schema import Schema
from autorec.tracking.registry import ModelVersionInfo, register, signature
from autorec.tracking.store import Store


def deploy(
    ranker_folder: Path | str,
    name: str,
    *,
    store: Store,
    alias: str | None = "champion",
    metadata: Mapping[str, Any] | None = None,
    source_run_id: str | None = None,
    requirements: Sequence[str] | None = None,
) -> ModelVersionInfo:
    """Register a saved ranker as a new version of the model `name`.

    The signature comes from the ranker's schema and the example request from the usual values of
    its log, so both are there for every ranker.

    Args:
        ranker_folder: what `Ranker.save` wrote; checked, and copied as it is.
        name: of the registered model, created when absent.
        store: where.
        alias: moved to the new version; None leaves all aliases where they are.
        metadata: JSON-able facts kept beside those of the manifest.
        source_run_id: the MLflow run of the fit.
        requirements: pip requirements of a server, by default the installed versions.

    Raises:
        RankerError: the folder is incomplete or altered, or MLflow did not take it.
        ConfigError: a name or alias that MLflow does not take.
    """
    folder = Path(ranker_folder)
    facts = verified(folder)
    schema = Schema.from_json(facts["schema"])
    entities = Entities.load(folder, schema, facts["columns"])
    kept = ("autorec", "format", "created", "metrics")
    told = {
        **{name: facts[name] for name in kept},
        "task": facts["task"]["task"],
        "family": facts["candidate"]["family"],
        "schema": schema.digest(),
    }
    return register(
        folder,
        name,
        store=store,
        signature=signature(schema, facts["task"]["task"]),
        alias=alias,
        input_example=entities.defaults.to_pandas(),
        metadata={**told, **(metadata or {})},
        source_run_id=source_run_id,
        requirements=requirements,
    )
