"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real data sets named by AUTOREC_DATA; tests that need it skip without it."""
    folder = os.environ.get("AUTOREC_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("AUTOREC_DATA names no folder: real data sets are absent")
    return Path(folder)
