"""Spaces that all tests of the search share: a small one of networks and trees, and a toy."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import optuna
import pytest

from autorec.schema import DenseField, Layout, SparseField
from autorec.search_spaces.ctr import CtrSpace

MIXED = Layout(
    sparse=(
        SparseField("user", 100, "user"),
        SparseField("item", 50, "item"),
        SparseField("age#bin", 10, "age", binned=True),
    ),
    dense=(DenseField("age"),),
)


@pytest.fixture(scope="session")
def ctr_space() -> CtrSpace:
    """Networks of up to three blocks, and trees, on two ids and a number."""
    return CtrSpace(MIXED, blocks=3)


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    """The module `toy.py` beside this file, which is also the script of a worker."""
    spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's notes on every trial out of the output."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)
