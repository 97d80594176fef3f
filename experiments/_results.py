"""Where experiments write: one JSON a question, with seed, commit, device and versions."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_PACKAGES = ("torch", "optuna", "lightgbm", "numpy", "pandas", "pyarrow", "mlflow-skinny")


def write(name: str, rows: list[dict[str, Any]], **facts: Any) -> Path:
    """Write `experiments/results/<name>.json` and return its path."""
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    found = {
        "experiment": name,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "device": f"{_cpu()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        **facts,
        "rows": rows,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(found, indent=1, default=str) + "\n", encoding="utf-8")
    return path


def spread(values: list[float]) -> dict[str, float]:
    """Return mean, standard deviation, lowest and highest of a few seeds."""
    import numpy as np

    found = np.asarray(values, float)
    deviation = float(found.std(ddof=1)) if len(found) > 1 else 0.0
    return {
        "mean": round(float(found.mean()), 5),
        "std": round(deviation, 5),
        "min": round(float(found.min()), 5),
        "max": round(float(found.max()), 5),
    }


def _commit() -> str:
    command = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "uncommitted"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
