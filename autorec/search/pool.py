"""Worker processes of one host: started, watched, replaced when they die, ended at the limit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from optuna.study import Study

from autorec.errors import ConfigError, TrainingError
from autorec.search.process import die_with_parent, orphaned
from autorec.search.study import fail_worker

__all__ = ["GIVE_UP", "WorkerPool", "die_with_parent", "ending", "orphaned"]

# A worker that ends with this code met a fault that a new one would meet again (EX_SOFTWARE).
GIVE_UP = 70


@dataclass
class _Slot:
    number: int
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    last: str = ""


class WorkerPool:
    """Runs `workers` processes as a context manager; leaving it ends them.

    Processes are started with `subprocess`, in sessions of their own: a script needs no
    `__main__` guard, and Ctrl-C reaches only the parent, which then ends the workers in order.
    A worker should call `die_with_parent` first, and pass `orphaned` as its `stop`.

    A worker that ends with code 0 has done its work. One that dies has its running trials failed
    with the reason, and is replaced while time is left, at most `restarts` times a slot.

    Args:
        command: the command line of the worker in a slot (0, 1, ...).
        workers: number of slots.
        env: environment of the workers; None: that of this process.
        folder: where `worker-<slot>.log` keeps what each worker prints.
        study: whose trials are failed when their worker dies.
        deadline: unix time at which all workers are ended, seconds.
        restarts: most replacements in one slot.
        grace: seconds between SIGTERM and SIGKILL.

    Raises:
        ConfigError: there is no worker to run.
    """

    def __init__(
        self,
        command: Callable[[int], list[str]],
        workers: int,
        env: Mapping[str, str] | None = None,
        *,
        folder: Path,
        study: Study | None = None,
        deadline: float = float("inf"),
        restarts: int = 3,
        grace: float = 5.0,
    ) -> None:
        if workers < 1:
            raise ConfigError(f"a pool needs at least 1 worker, but got {workers}")
        self.command, self.env, self.folder, self.study = command, env, folder, study
        self.deadline, self.restarts, self.grace = deadline, restarts, grace
        self._slots = [_Slot(number) for number in range(workers)]

    def __enter__(self) -> WorkerPool:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            for slot in self._slots:
                self._start(slot)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers that run."""
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    @property
    def problems(self) -> list[str]:
        """How the workers that died ended, one line each; empty while all is well."""
        return [self._describe(slot) for slot in self._slots if slot.last]

    def poll(self) -> int:
        """Look after the workers once and return how many run; call it a few times a second.

        Raises:
            TrainingError: all workers died and none may be replaced; holds the last lines of one.
        """
        if time.time() >= self.deadline:
            self.end()
            return 0
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is not None:
                self._ended(slot)
        if self.pids or not all(slot.last for slot in self._slots):
            return len(self.pids)
        worst = self._slots[0]
        raise TrainingError(
            f"at least one worker must end with code 0, but {'; '.join(self.problems)}; "
            f"the last lines of worker {worst.number} were:\n{self._tail(worst)}"
        )

    def wait(self, tick: Callable[[], None] = lambda: None, *, every: float = 0.1) -> None:
        """Poll until all workers are done or the deadline is reached, calling `tick` in between."""
        while self.poll():
            tick()
            time.sleep(max(0.0, min(every, self.deadline - time.time())))

    def end(self) -> None:
        """End all workers: SIGTERM, `grace` seconds, then SIGKILL to all that they started."""
        for pid in self.pids:
            _signal(pid, signal.SIGTERM)
        limit = time.monotonic() + self.grace
        for slot in self._slots:
            process = slot.process
            if process is None:
                continue
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, limit - time.monotonic()))
            code = process.poll()
            _signal(process.pid, signal.SIGKILL)  # its children too, even where it ended by itself
            process.wait()
            slot.process = None
            if code != 0:
                reason = "did not end within its grace" if code is None else ending(code)
                self._fail_trials(process.pid, f"{reason} when the search was ended")

    def _start(self, slot: _Slot) -> None:
        with self._log(slot).open("ab") as log:
            slot.process = subprocess.Popen(
                self.command(slot.number),
                env=None if self.env is None else dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _ended(self, slot: _Slot) -> None:
        process, slot.process = slot.process, None
        code = process.returncode if process else 0
        if process is None or code == 0:
            slot.last = ""
            return
        slot.last = ending(code)
        _signal(process.pid, signal.SIGKILL)
        self._fail_trials(process.pid, slot.last)
        if code != GIVE_UP and slot.restarts < self.restarts:
            slot.restarts += 1
            self._start(slot)

    def _fail_trials(self, pid: int, reason: str) -> None:
        if self.study is not None:
            fail_worker(self.study, pid, reason)

    def _describe(self, slot: _Slot) -> str:
        again = f" after {slot.restarts} restarts" if slot.restarts else ""
        return f"worker {slot.number} {slot.last}{again}"

    def _log(self, slot: _Slot) -> Path:
        return self.folder / f"worker-{slot.number}.log"

    def _tail(self, slot: _Slot, lines: int = 20) -> str:
        with self._log(slot).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 16384))
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-lines:])


def ending(code: int) -> str:
    """Return in words how a process with this return code ended (negative: minus the signal)."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (" (often out of memory)" if name == "SIGKILL" else "")


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
