"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Threads that spin at barriers make a small fit thirty times slower where tests share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real data sets named by AUTOREC_DATA; tests that need it skip without it."""
    folder = os.environ.get("AUTOREC_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("AUTOREC_DATA names no folder: real data sets are absent")
    return Path(folder)
