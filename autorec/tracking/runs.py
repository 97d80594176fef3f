"""Writes a fit to MLflow: one parent run, one child per trial, and never in the way of training.

Records are queued and written by one thread of the parent process, so a slow disk or a server that
hangs costs the fit nothing. A record that cannot be written is reported once, through the logger
`autorec.tracking`, and the fit goes on without it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from autorec.tracking import entries
from autorec.tracking.store import Store, first_line, quiet

log = logging.getLogger("autorec.tracking")

TRIAL_TAG = "autorec.trial"
STATUS_TAG, SKIPPED_TAG = "autorec.status", "autorec.skipped_metrics"
PARENT_TAG = "mlflow.parentRunId"
_PARAMS, _METRICS = 100, 800  # MLflow takes 100 parameters and 1000 entries of all sorts a call
_GIVE_UP = 5  # failures in a row after which nothing more is tried


@dataclass(frozen=True)
class _Trial:
    """One child run as it waits to be written."""

    number: int
    name: str
    params: dict[str, Any]
    metrics: dict[str, Any]
    curve: list[dict[str, Any]]
    tags: dict[str, Any]
    status: str
    started: float
    ended: float
    artifacts: dict[str, Any]


class RunLogger:
    """Logs one fit to a store that `initialise` opened.

    Args:
        store: where to; None makes every method a no-op.
        patience: seconds that `start_parent`, `attach`, `flush` and `finish` wait at most.
    """

    def __init__(self, store: Store | None, *, patience: float = 30.0) -> None:
        self.run_id: str | None = None
        self.missing = 0  # records that MLflow did not take
        self._off = threading.Event()
        self._experiment = "" if store is None else store.experiment_id
        self._client: Any = None if store is None else store.client()
        self._patience, self._in_a_row = patience, 0
        self._children: dict[int, str] = {}
        self._jobs: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if store is None:
            self._off.set()

    @property
    def children(self) -> dict[int, str]:
        """Run ids of the trials written so far, by trial number."""
        return dict(self._children)

    def start_parent(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Open the run of the whole fit and return its id; None when MLflow does not take it."""
        create = partial(self._create, name, entries.tag_texts(tags or {}), time.time())
        self.run_id = self._ask("the run of the fit", create)
        self._later("parameters of the fit", self._write_values, dict(params or {}), [])
        return self.run_id

    def attach(self, run_id: str) -> bool:
        """Go on with the parent run of an earlier, interrupted fit; False when it is not there.

        Its finished children are not written again; unfinished ones are deleted, for their trials
        come back.
        """
        found = self._ask(f"the run {run_id} to go on with", partial(self._reopen, run_id))
        if found is None:
            return False
        self.run_id, (self._experiment, self._children) = run_id, found
        return True

    def log_trial(
        self,
        number: int,
        *,
        name: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, Any],
        started: float,
        ended: float,
        status: str = "complete",
        curve: Sequence[Mapping[str, Any]] = (),
        tags: Mapping[str, Any] | None = None,
        artifacts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one ended trial as a child run, unless its number is written already.

        Args:
            number, name: of the trial; the number is unique in the fit.
            params, tags: any values; if a parameter has to be cut, `params.json` has all of them.
            metrics: final numbers. Those that are not finite are left out and named in a tag.
            started, ended: unix seconds.
            status: of a `Score` (`complete`, `stopped`, `deadline`), `killed`, or a run status of
                MLflow; anything else counts as failed.
            curve: points with `step`, optionally `timestamp` (unix seconds), and numbers, which
                appear as `curve/<name>` so that they do not hide the final value.
            artifacts: texts by file name; what is no text is written as JSON.
        """
        copies = dict(params), dict(metrics), list(map(dict, curve)), dict(tags or {})
        trial = _Trial(number, name, *copies, status, started, ended, dict(artifacts or {}))
        self._later(f"trial {number}", self._write_trial, trial)

    def log_metrics(self, metrics: Mapping[str, Any], step: int = 0) -> None:
        """Write numbers of the whole fit on the parent run; those not finite are left out."""
        point = {"step": step, "timestamp": time.time(), **metrics}
        self._later("metrics of the fit", self._write_point, point)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Write tags on the parent run."""
        for key, value in entries.tag_texts(tags).items():
            self._later(f"tag {key}", self._call, "set_tag", key, value)

    def log_artifact_text(self, name: str, content: str) -> None:
        """Write a text under a file name on the parent run."""
        self._later(f"file {name}", self._call, "log_text", content, name)

    def log_artifact_json(self, name: str, value: Any) -> None:
        """Write a value as JSON under a file name on the parent run."""
        self.log_artifact_text(name, entries.text(value, indent=1))

    def log_artifact_file(self, path: Path | str, folder: str | None = None) -> None:
        """Copy a file to the parent run; it must stay in place until `flush` or `finish`."""
        self._later(f"file {path}", self._call, "log_artifact", str(path), folder)

    def flush(self, seconds: float | None = None) -> bool:
        """Wait until everything so far is written; False when the time ran out."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._jobs.put(done.set)
        return done.wait(self._patience if seconds is None else seconds)

    def finish(self, status: str = "FINISHED") -> None:
        """Close the parent run (`FINISHED`, `FAILED` or `KILLED`) and wait until all is written."""
        self._later("the end of the fit", self._finish, status, time.time())
        if not self._off.is_set() and not self.flush():
            self._turn_off(f"MLflow did not take the last records within {self._patience:.0f} s")
        if self.missing > 1:
            log.warning("MLflow did not take %d records of this fit", self.missing)
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(1.0)
            self._thread = None

    # Between the threads

    def _later(self, what: str, write: Callable[..., Any], *args: Any) -> None:
        """Have `write(parent run id, *args)` called on the thread."""
        if not self._off.is_set() and self.run_id is not None:
            self._put(partial(self._guard, what, partial(write, self.run_id, *args)))

    def _put(self, job: Callable[[], Any]) -> None:
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="autorec-mlflow", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _ask(self, what: str, call: Callable[[], Any]) -> Any:
        """Make a call on the thread and wait for the result; None if it fails or takes too long."""
        results: list[Any] = []
        if not self._off.is_set():
            self._put(lambda: results.append(self._guard(what, call)))
            if not self.flush():
                self._turn_off(f"MLflow did not take {what} within {self._patience:.0f} s")
        return results[0] if results else None

    def _guard(self, what: str, call: Callable[[], Any]) -> Any:
        """Make one call to MLflow; what goes wrong is reported once and never raised."""
        if self._off.is_set():
            return None
        try:
            with quiet(logging.CRITICAL):
                result = call()
        except Exception as error:
            if self._off.is_set():  # a call that was given up on comes back
                return None
            self.missing += 1
            self._in_a_row += 1
            if self.missing == 1:
                why = first_line(error)
                log.warning("MLflow did not take %s: %s; the fit goes on without it", what, why)
            if self._in_a_row >= _GIVE_UP:
                self._turn_off(f"MLflow failed {_GIVE_UP} times in a row")
            return None
        self._in_a_row = 0
        return result

    def _turn_off(self, why: str) -> None:
        self._off.set()
        log.warning("%s; nothing more of this fit is logged there", why)

    # On the thread

    def _call(self, run: str, method: str, *args: Any) -> None:
        getattr(self._client, method)(run, *args)

    def _create(self, name: str, tags: dict[str, str], started: float) -> str:
        run = self._client.create_run(self._experiment, entries.millis(started), tags, name)
        return str(run.info.run_id)

    def _finish(self, run: str, status: str, ended: float) -> None:
        from mlflow.entities import RunStatus

        # Not `set_terminated`, which prints two lines for every run that a server keeps.
        state, runs = (
            RunStatus.from_string(entries.run_status(status)),
            self._client._tracking_client.store,
        )
        runs.update_run_info(run, state, entries.millis(ended), None)

    def _reopen(self, run_id: str) -> tuple[str, dict[int, str]]:
        """Return the experiment and the finished children of a run, and set it running."""
        client = self._client
        run = client.get_run(run_id)
        if run.info.lifecycle_stage != "active":
            raise LookupError(f"the run {run_id} was deleted")
        children: dict[int, str] = {}
        experiment, wanted = run.info.experiment_id, f"tags.`{PARENT_TAG}` = '{run_id}'"
        page: str | None = ""
        while page is not None:
            found = client.search_runs([experiment], wanted, page_token=page or None)
            for child in found:
                number = child.data.tags.get(TRIAL_TAG, "")
                if number.isdigit() and child.info.end_time is not None:
                    children[int(number)] = child.info.run_id
                elif number:
                    client.delete_run(child.info.run_id)
            page = found.token or None
        client.update_run(run_id, status="RUNNING")
        return experiment, children

    def _write_trial(self, parent: str, trial: _Trial) -> None:
        if trial.number in self._children:
            return
        finals, skipped = entries.metric_entries([trial.metrics], trial.ended)
        points, holes = entries.metric_entries(trial.curve, trial.ended, "curve/")
        tags = {PARENT_TAG: parent, TRIAL_TAG: trial.number, STATUS_TAG: trial.status}
        if skipped | holes:
            tags[SKIPPED_TAG] = ", ".join(sorted(skipped | holes))
        run = self._create(trial.name, entries.tag_texts({**trial.tags, **tags}), trial.started)
        self._children[trial.number] = run
        self._write_values(run, trial.params, finals + points)
        for name, value in trial.artifacts.items():
            write = partial(self._client.log_text, run, entries.text(value, indent=1), name)
            self._guard(f"file {name} of trial {trial.number}", write)
        self._finish(run, trial.status, trial.ended)

    def _write_point(self, run: str, point: dict[str, Any]) -> None:
        self._write_values(run, {}, entries.metric_entries([point], point["timestamp"])[0])

    def _write_values(self, run: str, params: dict[str, Any], metrics: list[Any]) -> None:
        """Write parameters and metrics in as few calls as MLflow's limits allow."""
        from mlflow.entities import Param

        texts, changed = entries.param_texts(params)
        pairs = [Param(key, value) for key, value in texts.items()]
        for i in range(max(-(-len(pairs) // _PARAMS), -(-len(metrics) // _METRICS))):
            some = metrics[i * _METRICS : (i + 1) * _METRICS]
            few = pairs[i * _PARAMS : (i + 1) * _PARAMS]
            self._guard("some values", partial(self._client.log_batch, run, some, few))
        if changed:
            whole = entries.text(params, indent=1)
            self._guard("params.json", partial(self._client.log_text, run, whole, "params.json"))


class NullLogger(RunLogger):
    """Stands in for a `RunLogger` with `mlflow=False`: takes everything, writes nothing."""

    def __init__(self) -> None:
        super().__init__(None)
