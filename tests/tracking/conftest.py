"""One MLflow store and one ranker folder for all tests of the room."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

# MLflow decides on import whether to report its use over the network.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from autorec.tracking.store import Store, initialise

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return initialise(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def ranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "ranker"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"entry": "fake_ranker:FakeRanker"}))
    (folder / "weight.json").write_text("0.5")
    return folder


@pytest.fixture(scope="session", autouse=True)
def fake() -> Iterator[ModuleType]:
    """The module that the manifest names, importable by that name."""
    sys.path.insert(0, str(HERE))
    yield importlib.import_module("fake_ranker")
    sys.path.remove(str(HERE))
