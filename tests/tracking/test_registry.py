"""A ranker folder goes into the registry and comes out as it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from autorec.errors import ConfigError, RankerError
from autorec.schema import Field, Kind, Role, Schema
from autorec.tracking import registry
from autorec.tracking.pyfunc import RankerModel, load_ranker
from autorec.tracking.registry import load_model, pinned, register, signature
from autorec.tracking.runs import RunLogger
from autorec.tracking.store import Store, initialise

FULL: dict[str, Any] = {
    **{"user": 2**53 + 1, "item": "a", "price": 1.5, "age": 30, "mobile": True},
    **{"tags": ["x", "y"], "seen": [1, 2]},
}


@pytest.fixture(scope="module")
def run_id(store: Store) -> str:
    found = RunLogger(store).start_parent("fit")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def model(store: Store, ranker_folder: Path, fake: ModuleType, run_id: str) -> Any:
    """The registered ranker as MLflow loads it."""
    example = pd.DataFrame([FULL, {"user": 1}])
    info = register(
        ranker_folder,
        "served",
        store=store,
        signature=signature(fake.SCHEMA, "ctr"),
        input_example=example,
        metadata={"task": "ctr"},
        source_run_id=run_id,
        requirements=["numpy"],
    )
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(load_model(info.uri, store).parents[1]))


def test_a_type_is_declared_only_where_it_does_no_harm(fake: ModuleType) -> None:
    made = signature(fake.SCHEMA, "ctr")
    assert {name: str(t) for name, t in made.inputs.input_types_dict().items()} == {
        **{"user": "Any", "item": "DataType.string", "price": "DataType.double", "age": "Any"},
        **{"mobile": "Any", "tags": "Any", "seen": "Any"},
    }
    assert made.inputs.required_input_names() == []
    assert made.outputs.input_names() == ["score"]
    assert {p.name: p.default for p in made.params} == {"mode": "score", "k": 10}
    ranked = signature(fake.SCHEMA, "rating", "rank").outputs
    assert ranked.input_names() == ["user_id", "item_id", "score", "rank"]


def test_signatures_that_cannot_be(fake: ModuleType) -> None:
    with pytest.raises(ConfigError, match=r"known for the tasks .* but got 'ctrl'"):
        signature(fake.SCHEMA, "ctrl")
    with pytest.raises(ConfigError, match="'predict' or 'rank', but got 'score'"):
        signature(fake.SCHEMA, "ctr", "score")
    with pytest.raises(ConfigError, match="but the schema has none"):
        signature(Schema((Field("y", Kind.NUMERIC, Role.LABEL, "double"),)), "ctr")


def changed(**values: Any) -> dict[str, Any]:
    return FULL | values


def test_the_model_scores_what_the_ranker_scores(
    model: Any, ranker_folder: Path, fake: ModuleType
) -> None:
    ranker = fake.FakeRanker.load(ranker_folder)
    rows: list[list[dict[str, Any]]] = [
        [FULL],
        [changed(**{name: None}) for name in FULL] + [FULL],
        [changed(user=1.0, age=30.0), changed(user=None, age=31.0)],  # integers became floats
        [changed(price=2.5), changed(price=None)],
        [changed(mobile=None), changed(mobile=False)],
        [changed(tags=["a", None], seen=[1, None, 3])],
        [changed(tags=[], seen=[]), changed(tags=None, seen=None)],
        [{"user": 1}],
        [{"tags": ["x"]}, {"item": "a"}],
    ]
    for few in rows:
        frame = pd.DataFrame(few)
        scores = model.predict(frame)
        assert list(scores.columns) == ["score"]
        np.testing.assert_array_equal(scores["score"], ranker.score(frame), err_msg=str(few))
    frame = pd.DataFrame([FULL, FULL], index=[7, 3])
    assert list(RankerModel(ranker).predict(frame.assign(click=1)).index) == [7, 3]


def test_the_model_ranks(model: Any) -> None:
    ranked = model.predict(pd.DataFrame({"user": [5, 4]}), {"mode": "rank", "k": 2})
    assert ranked.to_dict("list") == {
        **{"user_id": [5, 5, 4, 4], "item_id": ["i0", "i1", "i0", "i1"]},
        **{"score": [1.0, 0.5, 1.0, 0.5], "rank": [1, 2, 1, 2]},
    }


def test_a_refused_request_says_why(model: Any) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="mode must be 'score' or 'rank', but got 'best'"):
        model.predict(pd.DataFrame([FULL]), {"mode": "best"})
    with pytest.raises(MlflowException, match="the item 'forbidden' is not scored") as caught:
        model.predict(pd.DataFrame([changed(item="forbidden")]))
    assert caught.value.get_http_status_code() == 400


def test_what_is_registered_is_plain_files(
    store: Store, model: Any, ranker_folder: Path, run_id: str
) -> None:
    folder = load_model("models:/served@champion", store)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert kept == {path.name: path.read_bytes() for path in ranker_folder.iterdir()}
    root = folder.parents[1]
    suffixes = {path.suffix for path in root.rglob("*") if path.is_file()}
    assert suffixes <= {"", ".json", ".yaml", ".txt"}, "a pickle got in"
    assert (root / "requirements.txt").read_text().split()[1:] == ["numpy"]  # after MLflow
    assert model.metadata.metadata == {"task": "ctr"}
    assert model.metadata.flavors["python_function"]["loader_module"] == "autorec.tracking.pyfunc"

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    example = json.loads((root / "serving_input_example.json").read_text(), parse_constant=refuse)[
        "dataframe_split"
    ]
    assert example["data"][0] == [FULL[name] for name in example["columns"]]
    assert example["data"][1][1:] == [None] * 6
    outputs = store.client().get_run(run_id).outputs.model_outputs
    assert model.metadata.model_id in [output.model_id for output in outputs]


def test_versions_count_up_and_the_alias_moves(
    store: Store, ranker_folder: Path, fake: ModuleType, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "uv.lock").write_text("version = 1")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'private'")
    how: dict[str, Any] = {"store": store, "signature": signature(fake.SCHEMA, "ctr")}
    first = register(ranker_folder, "feed", **how)
    second = register(ranker_folder, "feed", alias="challenger", **how)
    third = register(ranker_folder, "feed", alias=None, **how)
    assert [(i.version, i.alias, i.uri) for i in (first, second, third)] == [
        (1, "champion", "models:/feed@champion"),
        (2, "challenger", "models:/feed@challenger"),
        (3, None, "models:/feed/3"),
    ]
    assert load_model("models:/feed@champion", store) == load_model("models:/feed/1", store)
    assert load_model(third.uri, store) == load_model(f"models:/{third.model_id}", store)
    fourth = register(ranker_folder, "feed", **how)
    assert load_model("models:/feed@champion", store) == load_model("models:/feed/4", store)
    assert len({i.model_id for i in (first, second, third, fourth)}) == 4

    model = load_model(third.uri, store).parents[1]
    assert not {"uv.lock", "pyproject.toml"} & set(os.listdir(model)), "the user's project got in"
    assert sorted(os.listdir(tmp_path)) == ["pyproject.toml", "uv.lock"], "MLflow wrote elsewhere"
    assert sorted(os.listdir(ranker_folder.parent)) == ["ranker"], "left-overs"
    assert set((model / "requirements.txt").read_text().split()) == set(pinned())


def test_a_run_gives_its_latest_model(store: Store, ranker_folder: Path, fake: ModuleType) -> None:
    run_id = RunLogger(store).start_parent("fit")
    with pytest.raises(RankerError, match=f"the run {run_id} logged no model"):
        load_model(f"runs:/{run_id}", store)
    for _ in range(3):
        last = register(
            *(ranker_folder, "by run"),
            store=store,
            signature=signature(fake.SCHEMA, "ctr"),
            source_run_id=run_id,
        )
    assert load_model(f"runs:/{run_id}", store) == load_model(last.uri, store)


def test_the_registry_may_lie_elsewhere(
    store: Store, ranker_folder: Path, fake: ModuleType, tmp_path: Path
) -> None:
    both = initialise(None, store.tracking_uri, registry_uri=f"sqlite:///{tmp_path}/models.db")
    run_id = RunLogger(both).start_parent("fit")
    info = register(
        *(ranker_folder, "away"),
        store=both,
        signature=signature(fake.SCHEMA, "ctr"),
        source_run_id=run_id,
    )
    assert load_model(info.uri, both) == load_model(f"runs:/{run_id}", store)
    with pytest.raises(RankerError, match="could not find 'models:/away@champion'"):
        load_model(info.uri, store)


def test_what_is_not_registered(
    store: Store, ranker_folder: Path, fake: ModuleType, tmp_path: Path
) -> None:
    made = signature(fake.SCHEMA, "ctr")
    with pytest.raises(ConfigError, match="with a signature, but got None"):
        register(ranker_folder, "m", store=store, signature=None)
    for name in ("", "a/b", "a:b", "a@b", " a"):
        with pytest.raises(ConfigError, match="the name of a model must not be empty"):
            register(ranker_folder, name, store=store, signature=made)
    for alias in ("latest", "V2", "a b", ""):
        with pytest.raises(ConfigError, match="neither 'latest' nor a version such as 'v2', but"):
            register(ranker_folder, "m", store=store, signature=made, alias=alias)
    with pytest.raises(RankerError, match=r"holds a JSON object in manifest.json, but .* cannot"):
        register(tmp_path, "m", store=store, signature=made)
    (tmp_path / "manifest.json").write_text('{"entry": "nowhere"}')
    with pytest.raises(RankerError, match=r"must name the class .* has 'nowhere'"):
        register(tmp_path, "m", store=store, signature=made)
    assert store.client().search_registered_models("name = 'm'") == []


def test_a_failure_half_way_moves_no_alias(
    store: Store, ranker_folder: Path, fake: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"store": store, "signature": signature(fake.SCHEMA, "ctr")}
    register(ranker_folder, "steady", **how)

    def fail(*args: Any) -> None:
        raise OSError("the disk is full\nand more")

    monkeypatch.setattr(registry, "_build", fail)
    with pytest.raises(RankerError, match=r"register 'steady': OSError: the disk is full$"):
        register(ranker_folder, "steady", **how)
    assert store.client().get_model_version_by_alias("steady", "champion").version == 1
    newest = store.client().search_logged_models(
        [store.experiment_id], order_by=[{"field_name": "creation_time", "ascending": False}]
    )
    assert newest[0].status.value == "FAILED"


def test_uris_that_lead_nowhere(store: Store, model: Any) -> None:
    for uri in ("s3://bucket/model", "models:/", "served", "models:/a/b/c"):
        with pytest.raises(ConfigError, match="a model is named as models:/name@alias"):
            load_model(uri, store)
    with pytest.raises(RankerError, match="could not find 'models:/nobody@champion': Mlflow"):
        load_model("models:/nobody@champion", store)
    with pytest.raises(RankerError, match="could not find 'models:/served@nobody': Mlflow"):
        load_model("models:/served@nobody", store)


def test_a_model_of_others_is_no_ranker(store: Store, tmp_path: Path) -> None:
    client = store.client()
    other = client.create_logged_model(store.experiment_id, "other")
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.sklearn}}")
    client.log_model_artifacts(other.model_id, str(tmp_path))
    with pytest.raises(RankerError, match=r"only a model that AutoRec .*mlflow\.sklearn"):
        load_model(f"models:/{other.model_id}", store)


def test_an_entry_that_is_not_installed(tmp_path: Path) -> None:
    for entry in ("not_installed_anywhere:Ranker", "json:Ranker", ":Ranker"):
        (tmp_path / "manifest.json").write_text(json.dumps({"entry": entry}))
        with pytest.raises(RankerError, match=f"as 'module:Class', but '{entry}' in"):
            load_ranker(tmp_path)


def test_requirements_name_versions_that_an_index_has() -> None:
    pins = pinned()
    assert any(pin.startswith("mlflow==") for pin in pins)
    assert not [pin for pin in pins if "+" in pin]
