"""What can be predicted. One file adds one task: a class that derives from `Task`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from autorec.catalogue import Catalogue

if TYPE_CHECKING:
    from autorec.data.labels import LabelStats
    from autorec.tasks.base import Task

_CATALOGUE = Catalogue("autorec.tasks", "Task")


def names() -> list[str]:
    """Return the names of all tasks."""
    return _CATALOGUE.names()


def task(name: str) -> type[Task]:
    """Return the class of the task `name`.

    Raises:
        ConfigError: no task has that name; near names are suggested.
    """
    return cast("type[Task]", _CATALOGUE.get(name))


def from_json(data: Mapping[str, Any]) -> Task:
    """Read a task of any kind from what `Task.to_json` wrote."""
    return task(str(data.get("task"))).from_json(data)


def infer_task(stats: LabelStats) -> tuple[str, str]:
    """Return the task that a label column asks for, and why, for task="auto".

    Two values, booleans or words make a click label; three or more numbers a rating. Whether the
    column is usable at all is said by `Task.from_stats`.
    """
    from autorec.tasks.base import is_number

    values = [value for value, _ in stats.values]
    if stats.distinct <= 2:
        shown = " and ".join(map(repr, values))
        return "ctr", f"{stats.name} holds only {shown or 'nulls'}"
    if all(is_number(value) for value in values):
        count = f"{stats.distinct} or more" if stats.distinct >= 1000 else f"{stats.distinct}"
        return "rating", f"{stats.name} has {count} distinct numbers"
    return "ctr", f"{stats.name} has {stats.distinct} distinct values that are not numbers"
