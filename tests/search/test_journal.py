"""The journal survives writers killed at any moment, and excludes writers of other programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._storage import JournalOperation

from autorec.search import journal
from autorec.search.journal import JOURNAL, JournalFile, JournalLock, open_journal
from autorec.search.process import Process

GRAB = """
import os, signal, sys
from autorec.search.journal import JournalLock
JournalLock(sys.argv[1]).acquire()
os.kill(os.getpid(), signal.SIGKILL)
"""


def _study(folder: Path) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=open_journal(folder), load_if_exists=True)


def test_a_killed_writers_lock_is_removed_at_once(tmp_path: Path) -> None:
    _study(tmp_path).tell(_study(tmp_path).ask(), 1.0)
    path = tmp_path / JOURNAL
    killed = subprocess.run([sys.executable, "-c", GRAB, str(path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / f"{JOURNAL}.lock").exists()
    began = time.monotonic()
    study = _study(tmp_path)
    assert time.monotonic() - began < 2.0
    assert not (tmp_path / f"{JOURNAL}.lock").exists()
    study.tell(study.ask(), 2.0)
    assert [trial.value for trial in study.trials] == [1.0, 2.0]


def test_a_live_holder_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / JOURNAL)
    holder, waiter = JournalLock(path), JournalLock(path)
    holder.acquire()
    taken = threading.Event()

    def take() -> None:
        waiter.acquire()
        taken.set()
        waiter.release()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(0.2)
    holder.release()
    assert taken.wait(5.0)
    thread.join()


def test_a_live_holder_keeps_its_file_even_without_a_kernel_lock(tmp_path: Path) -> None:
    lock = JournalLock(str(tmp_path / JOURNAL))
    Path(lock.path).write_text(json.dumps(Process.current().to_json()))
    assert not lock._left_behind(1.0)
    dead = Process(Process.current().host, 2**22 + 1, "x:1")
    Path(lock.path).write_text(json.dumps(dead.to_json()))
    assert lock._left_behind(0.0)
    elsewhere = Process("another-host", 1, "x:1")
    Path(lock.path).write_text(json.dumps(elsewhere.to_json()))
    assert not lock._left_behind(1.0)
    assert lock._left_behind(journal._ABANDONED_SECONDS + 1)


def test_optunas_own_locks_exclude_ours_and_ours_them(tmp_path: Path) -> None:
    path = str(tmp_path / JOURNAL)
    theirs, ours = JournalFileOpenLock(path), JournalLock(path)
    order: list[str] = []

    def follow(lock: JournalLock | JournalFileOpenLock, name: str) -> None:
        lock.acquire()
        order.append(name)
        lock.release()

    for first, second, names in [(theirs, ours, "to"), (ours, theirs, "ot")]:
        first.acquire()  # type: ignore[attr-defined]
        thread = threading.Thread(target=follow, args=(second, names[1]))
        thread.start()
        time.sleep(0.1)
        order.append(names[0])
        first.release()  # type: ignore[attr-defined]
        thread.join()
    assert order == ["t", "o", "o", "t"]


def test_a_lock_of_an_unknown_holder_is_abandoned_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_ABANDONED_SECONDS", 0.2)
    path = str(tmp_path / JOURNAL)
    lock = JournalLock(path)
    JournalFileOpenLock(path).acquire()
    assert not lock._left_behind(0.1)
    began = time.monotonic()
    lock.acquire()
    lock.release()
    assert 0.15 < time.monotonic() - began < 5.0


def test_a_writer_killed_before_it_wrote_its_name_is_not_waited_for_long(tmp_path: Path) -> None:
    lock = JournalLock(str(tmp_path / JOURNAL))
    os.close(os.open(lock.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    began = time.monotonic()
    lock.acquire()
    lock.release()
    assert 0.4 < time.monotonic() - began < 3.0


def test_an_old_lock_of_optuna_is_removed_at_once(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    path.touch()
    os.symlink(path, f"{path}.lock")
    os.utime(f"{path}.lock", (1, 1), follow_symlinks=False)
    began = time.monotonic()
    open_journal(tmp_path)
    assert time.monotonic() - began < 2.0
    assert not os.path.lexists(f"{path}.lock")


def test_half_a_line_is_cut_before_the_next_is_written(tmp_path: Path) -> None:
    study = _study(tmp_path)
    study.tell(study.ask(), 1.0)
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"worker_id":"' + b"x" * 70_000)
    with pytest.raises(ValueError):  # what Optuna's own file would become
        other = tmp_path / "other"
        other.write_bytes(path.read_bytes())
        backend = JournalFileBackend(str(other))
        backend.append_logs([{"op_code": 4}])
        backend.append_logs([{"op_code": 4}])
        list(backend.read_logs(0))
    study.tell(study.ask(), 2.0)  # a process that was open all along
    assert [trial.value for trial in _study(tmp_path).trials] == [1.0, 2.0]
    path.write_bytes(path.read_bytes() + b"{")
    assert [trial.value for trial in _study(tmp_path).trials] == [1.0, 2.0]
    assert path.read_bytes().startswith(whole)


def test_a_journal_of_nothing_but_half_a_line_is_emptied(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(b'{"op_code"')
    open_journal(tmp_path)
    assert (tmp_path / JOURNAL).read_bytes() == b""


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = JournalFile(tmp_path / JOURNAL)
    backend.append_logs([{"op_code": 4}])
    before = (tmp_path / JOURNAL).read_bytes()
    real = os.write

    def full(file: int, data: bytes) -> int:
        if b"op_code" not in data:
            if b"host" in data:
                return real(file, data)
            raise OSError(28, "No space left on device")
        return real(file, data[:5])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            backend.append_logs([{"op_code": 4, "x": "y" * 20}])
    assert (tmp_path / JOURNAL).read_bytes() == before
    assert not (tmp_path / f"{JOURNAL}.lock").exists()


def test_the_disk_is_waited_for_when_a_trial_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert journal._TELL == JournalOperation.SET_TRIAL_STATE_VALUES
    study = _study(tmp_path)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr("a", 1)
    assert synced == []
    study.tell(trial, 1.0)
    assert len(synced) == 1


def test_threads_with_storages_of_their_own_lose_no_line(tmp_path: Path) -> None:
    _study(tmp_path)

    def work() -> None:
        study = _study(tmp_path)
        for _ in range(10):
            trial = study.ask()
            study.tell(trial, trial.suggest_float("x", 0, 1))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = _study(tmp_path).trials
    assert [trial.number for trial in trials] == list(range(30))
    assert all(trial.value == trial.params["x"] for trial in trials)


def test_optuna_itself_reads_the_file(tmp_path: Path) -> None:
    study = _study(tmp_path)
    study.tell(study.ask(), 1.0)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    assert optuna.load_study(study_name="s", storage=storage).best_value == 1.0
