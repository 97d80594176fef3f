"""Tables that are filled in pieces: runs in processes, each written as soon as it ends."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

from _results import HERE, write

Row = dict[str, Any]


def kept(name: str) -> list[Row]:
    """Return the rows that `results/<name>.json` holds; none where it does not exist."""
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def fill(
    name: str,
    rows: list[Row],
    wanted: Sequence[tuple[Any, ...]],
    work: Callable[..., Row],
    facts: Callable[[list[Row]], dict[str, Any]],
    *,
    workers: int,
    minutes: float,
    begin: Callable[..., None] | None = None,
    given: tuple[Any, ...] = (),
    save: Callable[[str, list[Row], dict[str, Any]], object] | None = None,
) -> None:
    """Append `work(*job)` of every wanted job to `rows` and write them with their `facts`.

    Args:
        name: of the result.
        rows: what is known already.
        wanted: arguments of `work`, one thread and one process each.
        work: a function of a module, so that it reaches a new process by name.
        facts: of all rows, written beside them.
        workers: processes at a time.
        minutes: no job is begun after so many.
        begin: called in every new process with `given`.
        save: writes name, rows and facts after every run; None: `_results.write`.
    """
    end, queue = time.time() + 60 * minutes, list(wanted)
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    spawn = get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=begin, initargs=given) as pool:
        running: set[Future[Row]] = set()
        while True:
            while queue and len(running) < workers and time.time() < end:
                running.add(pool.submit(work, *queue.pop(0)))
            if not running:
                return
            ended = next(as_completed(running))
            running.remove(ended)
            rows.append(ended.result())
            print(rows[-1], flush=True)
            found = facts(rows)
            write(name, rows, **found) if save is None else save(name, rows, found)
