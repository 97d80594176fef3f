"""Worker processes: replaced when they die, ended at the limit, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from autorec.errors import ConfigError, TrainingError
from autorec.search.pool import GIVE_UP, WorkerPool, ending
from autorec.search.process import Process, peak_memory_mb, reset_peak_memory
from autorec.search.study import open_study, records


def python(code: str) -> Callable[[int], list[str]]:
    """Return a command that runs `code` with the slot as its argument."""
    return lambda slot: [sys.executable, "-I", "-S", "-c", textwrap.dedent(code), str(slot)]


def alive(pid: int) -> bool:
    """Tell whether a process of this host still runs."""
    return not Process(Process.current().host, pid, "").dead


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something, and fail where it does not come."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.02)


def test_workers_run_with_their_slot_and_environment(tmp_path: Path) -> None:
    code = "import os, sys; print('slot', sys.argv[1], os.environ['WORD'])"
    ticks: list[int] = []
    with WorkerPool(python(code), 2, {"WORD": "hello"}, folder=tmp_path) as pool:
        pool.wait(lambda: ticks.append(1), every=0.01)
        assert pool.problems == []
    assert ticks
    for slot in (0, 1):
        assert (tmp_path / f"worker-{slot}.log").read_text() == f"slot {slot} hello\n"


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    code = """
        import os, pathlib, sys
        mark = pathlib.Path(sys.argv[1] + '.mark')
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
        print('second life')
    """
    with WorkerPool(_in(tmp_path, code), 1, folder=tmp_path) as pool:
        pool.wait(every=0.01)
        assert pool.problems == []
    assert (tmp_path / "worker-0.log").read_text() == "second life\n"


def _in(folder: Path, code: str) -> Callable[[int], list[str]]:
    lines = f"import os; os.chdir({str(folder)!r})\n" + textwrap.dedent(code)
    return lambda slot: [sys.executable, "-I", "-S", "-c", lines, str(slot)]


def test_a_worker_that_always_dies_is_given_up(tmp_path: Path) -> None:
    code = "import sys; print('life'); sys.exit('no GPU left')"
    pool = WorkerPool(python(code), 1, folder=tmp_path, restarts=3)
    with (
        pytest.raises(
            TrainingError,
            match=r"(?s)but worker 0 ended with exit code 1 after 3 restarts; .*no GPU left",
        ),
        pool,
    ):
        pool.wait(every=0.01)
    assert (tmp_path / "worker-0.log").read_text().count("life") == 4
    assert pool.pids == []


def test_a_worker_that_gives_up_is_not_replaced(tmp_path: Path) -> None:
    with (
        pytest.raises(TrainingError, match=rf"worker 0 ended with exit code {GIVE_UP}; "),
        WorkerPool(python(f"raise SystemExit({GIVE_UP})"), 1, folder=tmp_path) as pool,
    ):
        pool.wait(every=0.01)


def test_one_good_worker_is_enough(tmp_path: Path) -> None:
    code = "import sys; sys.exit(int(sys.argv[1]))"
    with WorkerPool(python(code), 2, folder=tmp_path, restarts=0) as pool:
        pool.wait(every=0.01)
        assert pool.problems == ["worker 1 ended with exit code 1"]


def test_at_the_limit_workers_are_ended_with_their_children(tmp_path: Path) -> None:
    code = """
        import pathlib, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(60)'])
        pathlib.Path('child').write_text(str(child.pid))
        time.sleep(60)
    """
    deadline = time.time() + 1.0
    began = time.monotonic()
    pool = WorkerPool(_in(tmp_path, code), 1, folder=tmp_path, deadline=deadline, grace=0.2)
    with pool:
        (pid,) = pool.pids
        pool.wait(every=0.02)
        assert pool.pids == []
    assert 0.9 < time.monotonic() - began < 10.0
    assert not alive(pid)
    child = int((tmp_path / "child").read_text())
    until(lambda: not alive(child))


def test_an_error_in_the_parent_ends_the_workers(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        WorkerPool(python("import time; time.sleep(60)"), 2, folder=tmp_path) as pool,
    ):
        pids = pool.pids
        raise KeyboardInterrupt
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


def test_workers_have_sessions_of_their_own(tmp_path: Path) -> None:
    with WorkerPool(python("import time; time.sleep(60)"), 1, folder=tmp_path) as pool:
        assert os.getsid(pool.pids[0]) == pool.pids[0] != os.getsid(0)


def test_a_pool_has_a_worker(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1 worker, but got 0"):
        WorkerPool(python(""), 0, folder=tmp_path)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "ended with exit code 1"),
        (-signal.SIGKILL, "was killed by SIGKILL (often out of memory)"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-250, "was killed by signal 250"),
    ],
)
def test_how_a_process_ended(code: int, words: str) -> None:
    assert ending(code) == words


def test_two_workers_search_and_a_killed_one_loses_only_its_trial(
    toys: ModuleType, tmp_path: Path
) -> None:
    study = open_study(tmp_path, name=toys.NAME, space=toys.Toy())
    deadline = time.time() + 60

    def command(slot: int) -> list[str]:
        arguments = [str(tmp_path), str(os.getpid()), "0.05", str(deadline), "60"]
        return [sys.executable, str(Path(toys.__file__ or "")), *arguments]

    killed: list[int] = []

    def training() -> list[int]:
        found = records(study)
        return [r.worker.pid for r in found if r.status == "running" and r.worker and r.key]

    def tick() -> None:
        if killed or sum(r.status == "complete" for r in records(study)) < 5:
            return
        for pid in training()[:1]:
            os.kill(pid, signal.SIGSTOP)
            if pid in training():
                killed.append(pid)
            os.kill(pid, signal.SIGKILL if killed else signal.SIGCONT)

    with WorkerPool(command, 2, folder=tmp_path, study=study, deadline=deadline) as pool:
        pool.wait(tick, every=0.02)
        assert pool.problems == []
    found = records(study)
    assert killed
    assert sum(record.status == "complete" for record in found) == 60
    died = [r for r in found if r.lost and r.worker is not None and r.worker.pid == killed[0]]
    (failure,) = [record.failure or {} for record in died]
    assert failure["message"] == "the worker was killed by SIGKILL (often out of memory)"
    assert not [r for r in found if r.status == "running"]
    assert len({r.worker.pid for r in found if r.worker is not None}) == 3
    for record in found:
        if record.status == "complete":
            assert record.candidate is not None
            assert record.value == toys.worth_of(record.candidate)


PARENT = """
import subprocess, sys, time
worker = [sys.executable, "-c", '''
import os, sys, time
from autorec.search.process import die_with_parent
die_with_parent(int(sys.argv[1]))
print("up", flush=True)
time.sleep(60)
''']
import os
worker.append(str(os.getpid()))
child = subprocess.Popen(worker, stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_worker_dies_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not alive(child))


def test_a_worker_whose_parent_is_gone_already_ends_at_once() -> None:
    code = "from autorec.search.process import *; print(orphaned(1)); die_with_parent(1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 143
    assert done.stdout == b"True\n"
    code = "import os; from autorec.search.process import *; die_with_parent(os.getppid())"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_peak_memory_is_measured_anew() -> None:
    reset_peak_memory()
    before = peak_memory_mb()
    block = bytearray(os.urandom(1) * 256 * 2**20)
    high = peak_memory_mb()
    del block
    reset_peak_memory()
    after = peak_memory_mb()
    assert high > before + 150
    if os.access("/proc/self/clear_refs", os.W_OK):
        assert after < high - 150
