"""Every launch of the real shapes compiles for sm_90, spills nothing, and takes what was reviewed.

`resources.json` is written by `python tests/kernels/compiled.py > tests/kernels/resources.json`
on purpose, and its difference is reviewed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
REVIEWED = json.loads((HERE / "resources.json").read_text("utf-8"))
# Of one multiprocessor of an H200: registers, bytes of shared memory a program, resident warps.
REGISTERS, SHARED, WARPS = 65536, 227 * 1024, 64


@pytest.fixture(scope="module")
def compiled() -> Any:
    """Resources of each launch, compiled here and now."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TRITON_")}
    done = subprocess.run(
        [sys.executable, str(HERE / "compiled.py")],
        env=kept | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def occupancy(found: dict[str, int]) -> float:
    """Return the share of resident warps that registers and shared memory allow."""
    by_registers = REGISTERS // (max(found["registers"], 1) * 32)
    by_shared = (228 * 1024 // (found["shared"] + 1024)) * found["warps"]
    return min(by_registers, by_shared, WARPS) / WARPS


def test_nothing_spills(compiled: Any) -> None:
    for name, found in compiled["kernels"].items():
        assert found["target"] == "sm_90a", name
        assert found["stack"] == 0 and found["spills"] == 0, f"{name} spills: {found}"
        assert found["shared"] <= SHARED, f"{name} takes {found['shared']} bytes of shared memory"
        assert occupancy(found) >= 0.25, f"{name} fills {occupancy(found):.0%} of the warps"


def test_rows_move_in_wide_accesses(compiled: Any) -> None:
    narrow = [name for name, found in compiled["kernels"].items() if not found["wide"]]
    reviewed = [name for name, found in REVIEWED["kernels"].items() if not found["wide"]]
    assert sorted(narrow) == sorted(reviewed), "launches without an access of 128 bits"


def test_resources_are_the_reviewed_ones(compiled: Any) -> None:
    if compiled["triton"] != REVIEWED["triton"]:
        pytest.skip(f"reviewed with triton {REVIEWED['triton']}, here is {compiled['triton']}")
    assert set(compiled["kernels"]) == set(REVIEWED["kernels"])
    for name, found in compiled["kernels"].items():
        for what in ("registers", "shared"):
            was = REVIEWED["kernels"][name][what]
            assert abs(found[what] - was) <= 0.1 * was, f"{name}: {what} {was} -> {found[what]}"
