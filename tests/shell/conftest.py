"""One tiny fit through the command line, shared by the tests of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autorec import cli
from autorec.data.simulate import simulate


def _call(*words: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done.output


@pytest.fixture(scope="session")
def call() -> Callable[..., str]:
    """Return a function that runs the command line here and returns what it printed."""
    return _call


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `clicks.csv`."""
    folder = tmp_path_factory.mktemp("shell")
    table = simulate(1500, users=40, items=20, genres=0, seed=3).table
    table.to_pandas().to_csv(folder / "clicks.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def fitted(home: Path) -> str:
    """What a fit of four trials into `run` printed."""
    words: list[str | Path] = ["fit", home / "clicks.csv", "--label", "click"]
    words += ["--user", "user", "--item", "item"]
    words += ["--timestamp", "ts", "--n-trials", "4", "--time-limit", "30", "--workers", "1"]
    return _call(*words, "--path", home / "run")


@pytest.fixture(scope="session")
def run(home: Path, fitted: str) -> Path:
    """The folder of that fit."""
    return home / "run"
