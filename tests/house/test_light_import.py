"""`import autorec` costs nothing until a name is used; a broken checkout says how to mend it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import autorec

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "lightgbm",
    "mlflow",
    "numpy",
    "optuna",
    "pandas",
    "polars",
    "pyarrow",
    "sklearn",
    "torch",
    "torch_geometric",
    "triton",
)
LANGUAGE = ("architecture", "candidate", "job", "space")


def _run(code: str, cwd: Path) -> str:
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_takes_less_than_a_second(tmp_path: Path) -> None:
    code = "import time; t = time.perf_counter(); import autorec; print(time.perf_counter() - t)"
    assert min(float(_run(code, tmp_path)) for _ in range(3)) < 1.0


def _loaded(statement: str, cwd: Path) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    return set(_run(code, cwd).split())


def test_import_loads_no_heavy_package(tmp_path: Path) -> None:
    assert _loaded("import autorec, autorec.errors; dir(autorec)", tmp_path) == set()


def test_the_reader_of_loaded_packages_sees_one(tmp_path: Path) -> None:
    assert "numpy" in _loaded("import numpy", tmp_path)


@pytest.mark.parametrize("name", LANGUAGE)
def test_the_language_floor_loads_no_torch(name: str, tmp_path: Path) -> None:
    assert "torch" not in _loaded(f"import autorec.{name}", tmp_path)


def test_public_names_resolve() -> None:
    assert set(autorec.__all__) == {"AutoRec", "datasets", "errors", "__version__"}
    assert set(autorec.__all__) <= set(dir(autorec))
    assert autorec.AutoRec.__module__ == "autorec.automl"
    assert autorec.datasets.__name__ == "autorec.data.datasets"
    assert issubclass(autorec.errors.ConfigError, autorec.errors.AutoRecError)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no public name 'AutoRek'; it has AutoRec, "):
        _ = autorec.AutoRek


@pytest.mark.parametrize("name", ["blocks", "graph", "kernels", "search_spaces"])
def test_a_link_checked_out_as_a_file_is_named(name: str, tmp_path: Path) -> None:
    package = tmp_path / "autorec"
    package.mkdir()
    for file in ("__init__.py", "errors.py"):
        shutil.copy(ROOT / "autorec" / file, package / file)
    code = "import sys; sys.path.insert(0, '.'); import autorec; print('imported')"
    done = _isolated(code, tmp_path)
    assert done.stdout.split() == ["imported"], done.stderr
    (package / name).write_text(f"../{name}")
    done = _isolated(code, tmp_path)
    assert done.returncode != 0
    assert f"ImportError: autorec/{name} must be a link to the folder {name}/" in done.stderr
    assert "git config core.symlinks true" in done.stderr
    assert "git checkout -- autorec" in done.stderr


def _isolated(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", "-c", code]  # -S: the editable install is out of sight
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def test_the_tests_see_this_checkout() -> None:
    spec = importlib.util.find_spec("autorec")
    assert spec is not None and spec.origin is not None
    assert Path(spec.origin).resolve() == ROOT / "autorec" / "__init__.py"
