"""Training the winner once more on all rows, validation included, by replaying its schedule.

There is nothing left to stop early on, so the refit repeats what the search found: as many epochs
(or boosting rounds), with the learning rate cut at the same places. The encoder is fitted anew, so
that ids which only occur in the newest rows get rows of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autorec.deriving import derive_again
from autorec.errors import BudgetError, TrainingError
from autorec.job import COMPLETE, Job
from autorec.prepare import Prepared
from autorec.run import Run
from autorec.searching import worker_environment

if TYPE_CHECKING:
    from autorec.data.encoder import Encoder
    from autorec.data.sources import Source
    from autorec.train.fit import Model

# Seconds that the worker gets beyond its deadline to notice it and write what it has.
_GRACE = 3.0


@dataclass(frozen=True)
class Refitted:
    """A model of all rows and the encoder it belongs to."""

    model: Model
    encoder: Encoder
    rows: int
    seconds: float


class _Both:
    """Two tables read one after the other, with the columns of the first."""

    def __init__(self, first: Source, second: Source) -> None:
        self.first, self.second = first, second
        self.schema = first.schema
        rows = [first.num_rows, second.num_rows]
        self.num_rows = None if None in rows else sum(r for r in rows if r is not None)
        self.description = f"{first.description} and {second.description}"

    def batches(
        self, columns: Sequence[str] | None = None, batch_rows: int = 65536
    ) -> Iterator[Any]:
        """Yield record batches of both."""
        names = list(self.schema.names if columns is None else columns)
        yield from self.first.batches(names, batch_rows)
        yield from self.second.batches(names, batch_rows)


def whole(prepared: Prepared) -> Any:
    """Return all labelled rows as one source."""
    if prepared.tuning is None:
        return prepared.source
    return _Both(prepared.source, prepared.tuning)


def refit(prepared: Prepared, job: Job, replay: Mapping[str, Any]) -> Refitted:
    """Train the candidate of `job` on all rows, in a process of its own.

    A worker is started for it as for a trial: its threads wait asleep (which has to be set before
    OpenMP is loaded, long ago in this process), and its memory returns to the system.

    Raises:
        BudgetError: the deadline came first; half a schedule is worse than the weights at hand.
        TrainingError: training failed; the message is the worker's.
    """
    from autorec.data.encoder import Encoder
    from autorec.data.store import write_columns

    run, rows = prepared.run, whole(prepared)
    schema, task = run.schema(), run.task()
    wanted = [field.name for field in schema.features]
    encoder = Encoder.fit(lambda: rows.batches(wanted), schema)
    columns = run.folder / "columns"
    write_columns(rows, schema, encoder, task.label_map, None, columns, part="all")
    encoder = derive_again(encoder, run.encoder().derivation, columns / "all")
    model, done = train_again(run, job, replay, "all")
    return Refitted(model, encoder, done["rows"], done["seconds"])


def train_again(
    run: Run, job: Job, replay: Mapping[str, Any], part: str
) -> tuple[Model, dict[str, Any]]:
    """Train the candidate of `job` on the encoded rows of `part` by its `replay`, in a process.

    Returns:
        The model, and the status, rows presented and seconds of its training.

    Raises:
        BudgetError: the deadline came first; half a schedule is worse than the weights at hand.
        TrainingError: training failed; the message is the worker's.
    """
    from autorec.train.fit import load_model

    folder = run.folder / "refit"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    asked = {"job": job.to_json(), "replay": dict(replay), "part": part}
    (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    _work(run.folder, job)
    done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    if done["status"] != COMPLETE:
        raise BudgetError("the time limit came before the refit's end; the search's weights stay")
    layout = run.columns(part).layout
    return load_model(folder / "model", job.candidate, layout, run.task()), done


def _work(folder: Path, job: Job) -> None:
    command = [sys.executable, "-m", "autorec.worker", str(folder), "refit", str(os.getpid())]
    log = folder / "logs" / "refit.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=worker_environment(job.threads),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=max(1.0, job.deadline - time.time()) + _GRACE)
        except subprocess.TimeoutExpired:
            raise BudgetError("the refit did not end in time; the search's weights stay") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise TrainingError(f"a refit ends with code 0, but got {code}: {' '.join(last)}")


def refit_here(run: Run) -> None:
    """Do, in the worker, what `train_again` has asked for in the run folder."""
    import torch

    from autorec.train.fit import fit

    folder = run.folder / "refit"
    asked = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    job = Job.from_json(asked["job"])
    torch.set_num_threads(job.threads)
    columns = run.columns(asked["part"])
    data = replace(run.data(), train=columns, valid=None, layout=columns.layout)
    trained = fit(job, data, lambda rows, score: True, replay=asked["replay"])
    (folder / "model").mkdir()
    trained.model.save(folder / "model")
    done = {"status": trained.status, "rows": trained.rows, "seconds": trained.seconds}
    (folder / "done.json").write_text(json.dumps(done), encoding="utf-8")
