"""Reads what people type: durations, ids, `name=value` pairs, and tables by path or by name."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autorec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from autorec.data.datasets import Dataset
    from autorec.schema import Schema

PREFIX = "dataset:"
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SHARE = 0.2  # of a data set without official test rows: what fit never sees and evaluate reads


@dataclass(frozen=True)
class Rows:
    """What a fit is given: tables, and `columns`, keyword arguments of AutoRec."""

    train: Any
    valid: Any
    columns: dict[str, Any]


def log_more(verbose: bool) -> None:
    """Print what libraries log, where it is asked for."""
    if verbose:
        logging.basicConfig(level=logging.INFO)


def duration(text: str) -> float:
    """Return the seconds that `600`, `90s`, `10m` or `1.5h` stand for.

    Raises:
        ConfigError: the text is no duration above 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|)\s*", text.lower())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0.0 < seconds < math.inf:
        raise ConfigError(
            f"a duration is a number above 0 with s, m or h behind it, but got {text!r}; write "
            "600, 90s, 10m or 1h"
        )
    return seconds


def workers(text: str) -> int | str:
    """Return a number of processes, or `auto`.

    Raises:
        ConfigError: the text is neither.
    """
    if text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"--workers is 'auto' or a number from 1 on, but got {text!r}")
    return int(text)


def pairs(words: Sequence[str] | None, option: str) -> dict[str, str]:
    """Return `name=value` words as a dict.

    Raises:
        ConfigError: a word has no `=`.
    """
    found = {}
    for word in words or ():
        name, mark, value = word.partition("=")
        if not (name and mark and value):
            raise ConfigError(f"{option} takes COLUMN=VALUE, but got {word!r}")
        found[name] = value
    return found


def dataset(text: str) -> Dataset | None:
    """Return the data set that `dataset:NAME` names, with test rows; None for anything else.

    Where there are no official test rows, the last (or a random) fifth is cut off, always the
    same.

    Raises:
        ConfigError, DataError: see `autorec.datasets.load`.
    """
    if not text.startswith(PREFIX):
        return None
    from autorec.data import datasets

    found = datasets.load(text[len(PREFIX) :])
    return found if found.test is not None else found.split(_SHARE)


def training(
    data: str,
    tuning: str | None,
    roles: Mapping[str, str | None],
    task: str = "auto",
    kinds: Mapping[str, str] | None = None,
) -> Rows:
    """Return the tables to learn from and the columns; what is typed wins over what is known.

    Args:
        data: a path, or `dataset:NAME`, whose columns are known and whose test rows stay away.
        tuning: path of validation rows.
        roles: keyword arguments of AutoRec, None where nothing was typed.
        task: of the command line.
        kinds: kind by column.
    """
    found = dataset(data)
    said = {name: value for name, value in roles.items() if value is not None}
    if found is None:
        columns: dict[str, Any] = {"task": task, **said}
        if kinds:
            columns["feature_types"] = dict(kinds)
        return Rows(_path(data), None if tuning is None else _path(tuning), columns)
    known = {name: getattr(found, name) for name in ("label", "user_id", "item_id", "timestamp")}
    types = {**found.feature_types, **(kinds or {})}
    columns = {"task": found.task if task == "auto" else task, **known, "feature_types": types}
    return Rows(found.train, found.valid if tuning is None else _path(tuning), columns | said)


def labelled(data: str) -> Any:
    """Return rows to score: a path as it is, or the test rows of `dataset:NAME`."""
    found = dataset(data)
    return _path(data) if found is None else found.test


def _path(text: str) -> str:
    """Return a path that exists, or a glob.

    Raises:
        DataError: there is no such file.
    """
    if not Path(text).exists() and not any(mark in text for mark in "*?["):
        raise DataError(
            f"data is a Parquet or CSV file, a folder, a glob or dataset:NAME, but {text!r} does "
            "not exist; correct the path"
        )
    return text


def as_id(schema: Schema, text: str) -> Any:
    """Return a typed user id in the type of the user column.

    Raises:
        ConfigError: the column holds numbers and the text is none.
    """
    name = schema.user
    dtype = schema[name].dtype if name else ""
    if not re.match(r"u?int|float|double", dtype):
        return text
    try:
        return int(text) if "int" in dtype else float(text)
    except ValueError:
        raise ConfigError(f"the ids in column {name!r} are {dtype}, but got {text!r}") from None


def write(frame: Any, target: Path | None) -> None:
    """Write a pandas frame as .csv or .parquet; None writes CSV to the standard output.

    Raises:
        ConfigError: another ending.
    """
    if target is None:
        print(frame.to_csv(index=False), end="")
    elif target.suffix == ".csv":
        frame.to_csv(target, index=False)
    elif target.suffix == ".parquet":
        frame.to_parquet(target, index=False)
    else:
        raise ConfigError(f"--output ends in .csv or .parquet, but got {str(target)!r}")


def numbered(folder: Path, name: str) -> Path:
    """Return `folder/name`, or the first of `name-2`, `name-3`, ... that does not exist yet."""
    place, number = folder / name, 2
    while place.exists():
        place, number = folder / f"{name}-{number}", number + 1
    return place
