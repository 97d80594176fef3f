"""What MLflow imports to serve a ranker: a folder of plain files becomes an object with `predict`.

A registered model names this module as its loader and holds the ranker's folder as it is, so
nothing is pickled. The ranker class lies on a floor above this one and is therefore not imported
but named: `entry` in the folder's `manifest.json`, such as `autorec.deploy.ranker:Ranker`. It can
only name code that is installed already. The signature of that `predict` is built here too.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autorec.errors import AutoRecError, ConfigError, RankerError
from autorec.schema import Field, Schema

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "manifest.json"
ENTRY = "entry"
_TASKS = ("ctr", "rating")


class RankerModel:
    """A ranker as MLflow calls it.

    Args:
        ranker: has `schema`, `score(frame) -> (N,) array` and `rank(users, *, k) -> frame`.
    """

    def __init__(self, ranker: Any) -> None:
        self.ranker = ranker

    def predict(
        self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score rows, or rank items for the user in each.

        Args:
            model_input: raw rows (N). A request may leave columns out: to `score` they are null,
                and `rank` takes usual values for all but the user column.
            params: `mode` is `score` (the default) or `rank`; `k` is the items per user, 10 by
                default.

        Returns:
            For `score` one column `score` (N) on the index of the input; for `rank` the columns
            `user_id, item_id, score, rank`, the best `k` items of each row in turn.

        Raises:
            MlflowException: an unknown mode, or what the ranker refuses, such as `k` below 1. A
                server answers with status 400 and the message; any other error would show its
                traceback to the client.
        """
        try:
            return self._predict(model_input, params or {})
        except AutoRecError as error:
            from mlflow.exceptions import MlflowException

            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _predict(self, rows: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
        mode = params.get("mode", "score")
        if mode == "score":
            wanted = [field.name for field in self.ranker.schema.features]
            absent = {name: None for name in wanted if name not in rows.columns}
            return rows.iloc[:, :0].assign(score=self.ranker.score(rows.assign(**absent)))
        if mode == "rank":
            ranked: pd.DataFrame = self.ranker.rank(rows, k=int(params.get("k", 10)))
            if ranked["user_id"].isna().any():  # as None, for NaN is no JSON
                ids = ranked["user_id"].astype(object)
                ranked = ranked.assign(user_id=ids.where(ids.notna(), None))
            return ranked
        raise ConfigError(f"mode must be 'score' or 'rank', but got {mode!r}")


def signature(schema: Schema, task_name: str, kind: str = "predict") -> Any:
    """Return the `ModelSignature` of a ranker, built from the schema and not from a sample.

    Every column is optional, since a ranker scores rows with nulls and columns missing. A type is
    declared only where MLflow's enforcement of it loses nothing. Measured on 3.17.2: `long`
    refuses nulls, and so every frame in which pandas made floats of integers with nulls; `double`
    refuses int64; `boolean` turns null into False; an array of strings turns a null in it into
    'n', and an array of longs 1.5 into 1. Those columns are therefore declared as `Any`.

    Args:
        schema: of the training table.
        task_name: `ctr` (`score` is a probability) or `rating` (`score` is in label units).
        kind: `predict` for outputs of mode `score`, `rank` for those of mode `rank`.

    Raises:
        ConfigError: a task or kind that is not known, or a schema without features.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, ParamSchema, ParamSpec
    from mlflow.types.schema import Schema as Columns

    if task_name not in _TASKS:
        raise ConfigError(f"a signature is known for the tasks {_TASKS}, but got {task_name!r}")
    if not schema.features:
        raise ConfigError("a signature needs columns that the model sees, but the schema has none")
    seen = schema.features
    columns = [ColSpec(_declared(f) or AnyType(), f.name, required=False) for f in seen]
    if kind == "predict":
        outputs = [ColSpec("double", "score")]
    elif kind == "rank":
        ids = (("user_id", schema.user), ("item_id", schema.item))
        outputs = [
            ColSpec((_declared(schema[of]) if of else None) or AnyType(), name) for name, of in ids
        ]
        outputs += [ColSpec("double", "score"), ColSpec("long", "rank")]
    else:
        raise ConfigError(f"kind must be 'predict' or 'rank', but got {kind!r}")
    params = ParamSchema([ParamSpec("mode", "string", "score"), ParamSpec("k", "long", 10)])
    return ModelSignature(Columns(columns), Columns(outputs), params)


def _declared(field: Field) -> str | None:
    """Return the MLflow type of a column, None where enforcing one would harm."""
    if field.dtype in ("string", "large_string", "string_view"):
        return "string"
    if field.dtype in ("float", "double", "halffloat", "float16", "float32", "float64"):
        return "double"
    return None


def load_ranker(folder: Path) -> Any:
    """Return the ranker of a folder through the class that its manifest names.

    Raises:
        RankerError: no manifest, no entry in it, or an entry that is not installed here.
    """
    entry = read_entry(folder)
    module, _, name = entry.partition(":")
    try:
        loader = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RankerError(
            f"the manifest must name an installed class as 'module:Class', but {entry!r} in "
            f"{folder} failed: {error}; install the version of AutoRec that saved this ranker"
        ) from error
    return loader.load(Path(folder))


def read_entry(folder: Path) -> str:
    """Return `module:Class` from the manifest of a ranker folder.

    Raises:
        RankerError: no readable manifest, or none with an entry.
    """
    path = Path(folder) / MANIFEST
    try:
        entry = json.loads(path.read_text(encoding="utf-8")).get(ENTRY)
    except (OSError, ValueError, AttributeError) as error:
        raise RankerError(
            f"a ranker folder holds a JSON object in {MANIFEST}, but {path} cannot be read as one: "
            f"{error}; save the ranker again"
        ) from error
    if not isinstance(entry, str) or ":" not in entry:
        raise RankerError(
            f"the manifest must name the class that loads the ranker as {ENTRY!r}, but {path} has "
            f"{entry!r}; save the ranker again"
        )
    return entry


def _load_pyfunc(data_path: str) -> RankerModel:
    """Load a model for MLflow, which finds this function by its name."""
    ranker = load_ranker(Path(data_path))
    # A server answers many small requests: what the third one would make is made here.
    getattr(ranker, "warm", lambda: None)()
    return RankerModel(ranker)
