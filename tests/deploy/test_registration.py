"""A saved ranker goes into the registry with a signature, and comes back as it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autorec.candidate import Candidate, Recipe
from autorec.deploy.ranker import Ranker
from autorec.deploy.registration import deploy
from autorec.errors import RankerError
from autorec.tracking.pyfunc import load_ranker
from autorec.tracking.registry import load_model
from autorec.tracking.store import initialise
from autorec.train.popularity import PopularityModel


@pytest.fixture(scope="module")
def saved(parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = next(f.rows for f in parts.encoder.layout.sparse if f.name == "item")
    place = [f.name for f in parts.encoder.layout.sparse].index("item")
    model = PopularityModel(place, np.linspace(0.0, 1.0, rows))
    ranker = parts.ranker(model, Candidate("popularity", Recipe({"prior_strength": 1.0})))
    return ranker.save(tmp_path_factory.mktemp("deploy") / "ranker")


def test_deploy_and_load(saved: Path, parts: Any, tmp_path: Path) -> None:
    store = initialise(tmp_path)
    first = deploy(saved, "feed", store=store, metadata={"team": "home"})
    assert (first.name, first.version, first.uri) == ("feed", 1, "models:/feed@champion")
    assert deploy(saved, "feed", store=store, alias=None).version == 2
    folder = load_model(first.uri, store)
    ranker = load_ranker(folder)
    assert isinstance(ranker, Ranker)
    assert ranker.score(parts.log).tobytes() == Ranker.load(saved).score(parts.log).tobytes()
    from mlflow.models import Model

    model = Model.load(str(next(p for p in folder.parents if (p / "MLmodel").is_file())))
    assert model.signature.inputs.input_names() == [f.name for f in parts.schema.features]
    assert model.metadata["team"] == "home"
    assert (model.metadata["task"], model.metadata["family"]) == ("ctr", "popularity")


def test_what_is_altered_is_not_deployed(saved: Path, tmp_path: Path, parts: Any) -> None:
    store = initialise(tmp_path)
    copy = Path(shutil.copytree(saved, tmp_path / "copy"))
    (copy / "items.arrow").write_bytes(b"")
    with pytest.raises(RankerError, match=r"items\.arrow was altered"):
        deploy(copy, "feed", store=store)
    assert store.client().search_registered_models() == []
