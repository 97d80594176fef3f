"""Turns names and values of a trial into what MLflow accepts, so that no record is refused whole.

One bad name fails a batch of a hundred good ones, and parameters of a search space do hold bad
ones (`feature.user*item.count`).
"""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

# Characters of a name, a parameter and a tag (mlflow.utils.validation, 3.5 to 3.17).
NAME, VALUE, TAG = 250, 6000, 8000

# A trial that was stopped early or by the deadline has a score all the same: it finished.
_ENDS = {"complete": "FINISHED", "stopped": "FINISHED", "deadline": "FINISHED", "killed": "KILLED"}
_ENDS |= {status: status for status in ("FINISHED", "FAILED", "KILLED")}


def metric_entries(
    points: Sequence[Mapping[str, Any]], at: float, prefix: str = ""
) -> tuple[list[Any], set[str]]:
    """Return MLflow metrics of all finite numbers in the points, and the names of other values.

    Args:
        points: numbers by name, with an optional `step` (default: position) and `timestamp` (unix
            seconds).
        at: unix seconds where a point has no timestamp.
        prefix: put before every name.
    """
    from mlflow.entities import Metric

    entries: list[Any] = []
    skipped: set[str] = set()
    for index, point in enumerate(points):
        when = millis(point.get("timestamp", at))
        step = int(point.get("step", index))
        for name, value in point.items():
            if name in ("step", "timestamp") or value is None:
                continue
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = math.nan
            if math.isfinite(number):
                entries.append(Metric(key(f"{prefix}{name}"), number, when, step))
            else:
                skipped.add(f"{prefix}{name}")
    return entries, skipped


def param_texts(params: Mapping[str, Any]) -> tuple[dict[str, str], bool]:
    """Return parameters under names and in lengths MLflow takes, and whether any had to change."""
    texts: dict[str, str] = {}
    for name, value in params.items():
        unique = base = key(str(name))
        count = 1
        while unique in texts:
            count += 1
            unique = f"{base[: NAME - 8]}_{count}"
        texts[unique] = text(value)[:VALUE]
    return texts, texts != {str(name): text(value) for name, value in params.items()}


def tag_texts(tags: Mapping[str, Any]) -> dict[str, str]:
    """Return tags under names and in lengths MLflow takes; None is no tag."""
    return {key(str(name)): text(value)[:TAG] for name, value in tags.items() if value is not None}


def key(name: str) -> str:
    """Return a name MLflow takes: word characters, `.-/` and spaces, and no path that resolves."""
    name = re.sub(r"[^\w.\-/ ]", "_", name)
    if posixpath.normpath(name) != name or name.startswith(("/", "..")) or name == ".":
        name = name.replace("/", "_").lstrip(".") or "_"
    if len(name) > NAME:
        name = f"{name[: NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


def text(value: Any, indent: int | None = None) -> str:
    """Return containers as JSON and all else as it prints; never raises for a value."""
    if not isinstance(value, (dict, list, tuple)):
        return str(value)
    try:
        return json.dumps(value, indent=indent, default=str)
    except (TypeError, ValueError):  # keys that are no strings, a list that holds itself
        return repr(value)


def run_status(status: str) -> str:
    """Return `FINISHED`, `FAILED` or `KILLED` for a status of a trial; unknown ones failed."""
    return _ENDS.get(status, "FAILED")


def millis(seconds: float) -> int:
    """Return whole milliseconds, MLflow's unit of time."""
    return int(seconds * 1000)
