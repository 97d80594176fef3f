"""Shows a run in Optuna's dashboard and MLflow's page, both on loopback, until Ctrl-C."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from autorec.errors import ConfigError, MissingExtraError
from autorec.run import Run

HOST = "127.0.0.1"
_JOURNAL = "study.journal"
_START_SECONDS = 90.0
Page = tuple[str, str, list[str]]  # name, address, command


def commands(folder: Path, port: int) -> list[Page]:
    """Return (name, address, command) of both pages; the command is empty where a server runs.

    Args:
        folder: the run folder.
        port: of Optuna's dashboard; MLflow takes the next free one. 0 takes any free port.

    Raises:
        MissingExtraError: optuna-dashboard is not installed.
        RankerError: the folder holds no run.
        ConfigError: the port is taken.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise MissingExtraError(
            "the dashboard needs the package optuna-dashboard, but it is not installed; "
            "pip install 'autorec-automl[dashboard]'"
        )
    run = Run.open(folder)
    storage = run.config.storage or str((run.folder / _JOURNAL).resolve())
    first = free_port(port, exact=True)
    optuna = [str(Path(sys.executable).parent / "optuna-dashboard"), storage]
    optuna += ["--host", HOST, "--port", str(first), "--quiet"]
    found: list[Page] = [("Optuna dashboard", f"http://{HOST}:{first}/", optuna)]
    if run.config.mlflow_run_id is None:
        return found
    from autorec.tracking.store import initialise, is_server, ui_command

    store = initialise(run.folder, run.config.tracking_uri)
    if is_server(store.tracking_uri):
        return [*found, ("MLflow", store.tracking_uri, [])]
    second = free_port(0 if port == 0 else first + 1)
    page = f"experiments/{store.experiment_id}/runs?workflowType=machine_learning"
    link = f"http://{HOST}:{second}/#/{page}"
    return [*found, ("MLflow", link, ui_command(store, second, HOST))]


def free_port(port: int = 0, *, exact: bool = False) -> int:
    """Return a free loopback port, `port` or the next above it; 0 takes any.

    Raises:
        ConfigError: the port is taken, and `exact` is asked for; or 50 in a row are.
    """
    for number in range(port, port + (1 if exact or port == 0 else 50)):
        with socket.socket() as probe, suppress(OSError, OverflowError):
            # As servers bind: a port whose last connections are still dying counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, number))
            return int(probe.getsockname()[1])
    raise ConfigError(f"a page needs a free port, but {port} on {HOST} is taken; pass --port")


class Servers:
    """Server processes that end together, on leaving the `with` block or with this process.

    Each leads a process group of its own, so that what it started ends with it.
    """

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._running: list[tuple[str, Path, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        with _undisturbed():
            self._end()

    def _end(self) -> None:
        for number, wait in ((signal.SIGTERM, 8.0), (signal.SIGKILL, 5.0)):
            for _name, _log, process in self._running:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, number)
            end = time.monotonic() + wait
            for _name, _log, process in self._running:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, end - time.monotonic()))

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a server; its output goes to a log file named after it."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name.lower().replace(' ', '-')}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append((name, log, process))

    def check(self) -> None:
        """Raise where a server has ended by itself.

        Raises:
            ConfigError: with the end of its log.
        """
        for name, log, process in self._running:
            if process.poll() is not None:
                tail = log.read_text("utf-8", errors="replace").strip().splitlines()[-6:]
                raise ConfigError(
                    f"{name} must keep running, but it ended with code {process.returncode}; "
                    f"see {log}:\n" + "\n".join(tail)
                )

    def wait_until(self, url: str, seconds: float = _START_SECONDS) -> None:
        """Wait until a page answers.

        Raises:
            ConfigError: its server ended, or the page does not answer in time.
        """
        end = time.monotonic() + seconds
        while not _answers(url):
            self.check()
            if time.monotonic() > end:
                raise ConfigError(
                    f"{url} must answer within {seconds:.0f} s, but did not; see {self.logs}"
                )
            time.sleep(0.2)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let a second Ctrl-C not cut off the ending of servers, which takes seconds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url.partition("#")[0], timeout=5.0):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def serve(folder: Path, pages: Sequence[Page], show: Callable[[], None]) -> None:
    """Start the pages, call `show` once all of them answer, and wait for Ctrl-C.

    Args:
        folder: the run folder; receives the logs of the servers.
        pages: from `commands`.
        show: tells the user where the pages are.

    Raises:
        ConfigError: a page does not start, or ends by itself.
    """
    with suppress(KeyboardInterrupt), Servers(folder / "logs") as servers:
        for name, _, command in pages:
            if command:
                servers.start(name, command)
        for _, link, command in pages:
            if command:
                servers.wait_until(link)
        show()
        while True:
            servers.check()
            time.sleep(0.5)
