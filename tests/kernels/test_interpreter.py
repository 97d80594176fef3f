"""Triton's code against the reference through its interpreter, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autorec.kernels import _law

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def script(name: str, *args: str, **variables: str) -> Any:
    """Run a script beside this file and return the JSON it prints."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TRITON_")}
    # With PYTHONSAFEPATH a script does not find the files beside it by itself.
    kept["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [kept.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(HERE / name), *args],
        env=kept | {"OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def interpreted() -> Any:
    """What the law found in Triton's code, by kernel."""
    return script("interpreted.py", TRITON_INTERPRET="1")


@pytest.mark.parametrize("name", _law.kernels())
def test_device_code_keeps_the_law(interpreted: Any, name: str) -> None:
    assert not interpreted[name]["faults"], "\n".join(interpreted[name]["faults"])
    assert interpreted[name]["checks"] > 0


def test_kernels_with_device_code_ran_it(interpreted: Any) -> None:
    # A plan is made of torch's own operators on every device.
    ran = {name for name, found in interpreted.items() if found["launches"]}
    assert ran == set(_law.kernels()) - {"embedding_plan"}
