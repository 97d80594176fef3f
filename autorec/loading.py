"""Getting a fitted AutoRec back: from its run folder, a saved ranker, or the MLflow registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autorec.errors import RankerError
from autorec.run import Run, RunConfig

if TYPE_CHECKING:
    from autorec.automl import AutoRec


def load(cls: type[AutoRec], path: str | Path, verbosity: int) -> AutoRec:
    """Return what `AutoRec.load` promises.

    Raises:
        RankerError: the path holds neither a run nor a ranker.
    """
    text = str(path)
    if text.startswith(("models:/", "runs:/")):
        from autorec.tracking.registry import load_model
        from autorec.tracking.store import initialise

        store = initialise(None, _default_uri())
        return _of_ranker(cls, Path(load_model(text, store)), verbosity)
    folder = Path(path)
    if (folder / "run.json").is_file():
        return _of_run(cls, folder, verbosity)
    if (folder / "manifest.json").is_file():
        return _of_ranker(cls, folder, verbosity)
    raise RankerError(
        f"a run folder holds run.json and a ranker manifest.json, but {folder} has neither; pass "
        "what fit printed as 'run', or what save returned"
    )


def _default_uri() -> str:
    import os

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise RankerError(
            "models:/ and runs:/ need a store, but MLFLOW_TRACKING_URI is not set; set it to the "
            "tracking_uri of the fit (sqlite:///<run folder>/mlflow.db by default)"
        )
    return uri


def _of_run(cls: type[AutoRec], folder: Path, verbosity: int) -> AutoRec:
    from autorec.deploy.ranker import Ranker
    from autorec.search.records import records

    run = Run.open(folder)
    found = cls(run.config.task["task"], path=folder, seed=run.config.seed, verbosity=verbosity)
    found._run, found._ranker = run, Ranker.load(folder / "ranker")
    winner = run.config.winner
    if winner is not None:
        found._winner = next((t for t in records(found.study_) if t.number == winner), None)
    return found


def _of_ranker(cls: type[AutoRec], folder: Path, verbosity: int) -> AutoRec:
    """A ranker alone predicts, ranks and evaluates; it has no board, since it brings no trials."""
    from autorec.deploy.ranker import Ranker

    ranker = Ranker.load(folder)
    found = cls(ranker.task.name, path=folder, verbosity=verbosity)
    nothing: dict[str, Any] = {}
    config = RunConfig(
        name="autorec",
        schema=ranker.schema.to_json(),
        task=ranker.task.to_json(),
        split={**nothing, "reason": "not kept with a ranker alone"},
        space=nothing,
        search="",
        seed=0,
        n_train=0,
        n_valid=0,
        rungs=(),
        eval_rows=0,
        threads=1,
    )
    found._run, found._ranker = Run(folder, config), ranker
    return found
