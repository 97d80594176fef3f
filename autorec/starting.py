"""Before a fit: its limits, its folder, and that a refused table leaves nothing behind."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from autorec.deriving import Wanted
from autorec.errors import ConfigError
from autorec.fitting import Limits
from autorec.prepare import Options, Prepared, Roles, prepare, reopen
from autorec.progress import Progress


def limits(
    time_limit: float | None, n_trials: int | None, num_workers: int | str, refit: bool
) -> tuple[Limits, int]:
    """Return the limits of a fit that starts now, and the threads of each worker.

    Raises:
        ConfigError: no limit at all, or a value that is not above 0.
    """
    if time_limit is None and n_trials is None:
        raise ConfigError("a fit needs a limit; pass time_limit=seconds or n_trials=number")
    for name, value in (("time_limit", time_limit), ("n_trials", n_trials)):
        if value is not None and not value > 0:
            raise ConfigError(f"{name} must be above 0, but got {value!r}")
    workers, threads = share_cores(num_workers)
    started = time.time()
    end = math.inf if time_limit is None else started + time_limit
    return Limits(started, end, n_trials, workers, refit), threads


def with_starts(
    space: str | Mapping[str, Any], starts: Sequence[str] | None
) -> str | Mapping[str, Any]:
    """Return the description of a space with the names of its first candidates in it.

    Raises:
        ConfigError: `starts` is one word instead of a list.
    """
    if starts is None:
        return space
    if isinstance(starts, str):
        raise ConfigError(f"starts must be a list of names, but got {starts!r}; pass [{starts!r}]")
    given = {} if space == "auto" else {"name": space} if isinstance(space, str) else dict(space)
    return {**given, "starts": list(starts)}


def screening(most: int, time_limit: float | None) -> Wanted:
    """Return what to derive: at most so many, in a twentieth of the time and 10 s at most.

    Raises:
        ConfigError: not a whole number from 0.
    """
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise ConfigError(f"features must be a whole number from 0, but got {most!r}; 0 is off")
    seconds = 10.0 if time_limit is None else min(10.0, 0.05 * time_limit)
    return Wanted(most, seconds)


def share_cores(num_workers: int | str) -> tuple[int, int]:
    """Return (worker processes, threads of each).

    Raises:
        ConfigError: `num_workers` is neither "auto" nor a number above 0.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    if num_workers == "auto":
        workers = min(cores, 8)
    elif isinstance(num_workers, int) and num_workers >= 1:
        workers = num_workers
    else:
        raise ConfigError(f"num_workers must be 'auto' or at least 1, but got {num_workers!r}")
    return workers, max(1, cores // workers)


def run_folder(path: Path | None, resume: bool) -> Path:
    """Return the folder of the run.

    Raises:
        ConfigError: it holds files and the search is not resumed, or there is nothing to resume.
    """
    if path is None:
        if resume:
            raise ConfigError("resume=True needs the path of the search; AutoRec(path=...)")
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        return Path("autorec-runs") / f"{stamp}-{os.getpid()}"
    if path.exists() and not path.is_dir():
        raise ConfigError(f"path must be a folder, but {str(path)!r} is a file; name another")
    if path.exists() and any(path.iterdir()) and not resume:
        raise ConfigError(
            f"a new fit needs an empty path, but {str(path)!r} holds files; pass resume=True to go "
            "on with that search, or another path"
        )
    return path


def prepared_run(
    folder: Path,
    train_data: Any,
    tuning_data: Any,
    roles: Roles,
    options: Options,
    progress: Progress,
) -> Prepared:
    """Return the run in `folder`, to go on with or new; all of it is written, or nothing."""
    found = reopen(folder, train_data, tuning_data, roles, options)
    if found is not None:
        progress.say(f"resuming the search in {folder}")
        return found
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return prepare(folder, train_data, tuning_data, roles, options, progress.say)
    except BaseException:
        _remove_half_written(folder, existed)
        raise


def _remove_half_written(folder: Path, existed: bool) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if not existed:
        folder.rmdir()
        if folder.parent.name == "autorec-runs" and not any(folder.parent.iterdir()):
            folder.parent.rmdir()
