"""A study file that survives writers killed at any moment.

Three faults of Optuna's journal are mended here, behind its own interface. A lock file left by a
killed writer stops every other writer for 30 s: this lock names its holder, and a dead holder's
lock is removed at once. A line cut off by a kill or a full disk makes the whole study unreadable:
the torn tail is cut before the next line is written. Each of about 50 lines of a trial waits for
the disk: only a told trial does, which is what must outlive a power cut.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from autorec.search.process import Process

JOURNAL = "study.journal"
# Optuna's JournalOperation.SET_TRIAL_STATE_VALUES: after it, a result must survive a power cut.
_TELL = 6
# A lock is held for milliseconds. One whose holder is unknown (written by another program, or from
# another host) and that has not changed for this long was left behind.
_ABANDONED_SECONDS = 10.0
# Between making the file and writing into it; a writer killed there leaves it empty.
_EMPTY_SECONDS = 0.5


class JournalLock:
    """Excludes all writers of one journal: ours, and those that use one of Optuna's own locks.

    Ours wait for one another on a kernel lock of the journal itself, which ends with its process.
    The holder then also makes the file `<journal>.lock` that Optuna's locks look for, with its
    own name in it. One object serves one thread at a time, as Optuna's storage grants.
    """

    def __init__(self, journal: str) -> None:
        self.journal = journal
        self.path = journal + ".lock"
        self._file = -1

    def acquire(self) -> bool:
        """Wait for the lock and take it; a lock whose holder is dead is removed."""
        self._file = os.open(self.journal, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with suppress(OSError):  # some network file systems have none; the lock file remains
                fcntl.flock(self._file, fcntl.LOCK_EX)
            self._make()
        except BaseException:
            os.close(self._file)
            raise
        return True

    def release(self) -> None:
        """Give the lock back."""
        with suppress(FileNotFoundError):  # another program took it for abandoned
            os.unlink(self.path)
        os.close(self._file)

    def _make(self) -> None:
        seen: tuple[int, int] | None = None
        since = 0.0
        while True:
            try:
                file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                found = _identity(self.path)
                if found != seen:
                    seen, since = found, time.monotonic()
                waited = time.monotonic() - since
                if found is not None and self._left_behind(waited):
                    with suppress(FileNotFoundError):
                        os.unlink(self.path)
                    continue
                time.sleep(0.002)
                continue
            try:
                os.write(file, json.dumps(Process.current().to_json()).encode())
            finally:
                os.close(file)
            return

    def _left_behind(self, waited: float) -> bool:
        if waited > _ABANDONED_SECONDS:
            return True
        try:
            status = os.lstat(self.path)
            if stat.S_ISLNK(status.st_mode):  # Optuna's own lock, which does not name its holder
                return time.time() - status.st_mtime > 6 * _ABANDONED_SECONDS
            holder = Path(self.path).read_text("utf-8")
            if not holder:  # Optuna's other lock stays empty, but is executable
                return waited > _EMPTY_SECONDS and not status.st_mode & stat.S_IXUSR
            process = Process.from_json(json.loads(holder))
        except (OSError, ValueError, KeyError):
            return False
        return process.here and process.dead


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


class JournalFile(JournalFileBackend):
    """Optuna's journal file with the three faults mended; readers need nothing of this."""

    def __init__(self, path: Path) -> None:
        self._lock_file = JournalLock(str(path))
        super().__init__(str(path), lock_obj=self._lock_file)  # type: ignore[arg-type]
        self._path = str(path)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append one line per log, whole or not at all."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        told = any(log["op_code"] == _TELL for log in logs)
        self._lock_file.acquire()
        try:
            file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                _append(file, lines.encode())
                if told:
                    os.fsync(file)
            finally:
                os.close(file)
        finally:
            self._lock_file.release()


def _append(file: int, data: bytes) -> None:
    size = _cut_torn_tail(file)
    written = 0
    try:
        while written < len(data):
            written += os.write(file, data[written:])
    except OSError:
        os.ftruncate(file, size)
        raise


def _cut_torn_tail(file: int) -> int:
    """Cut what follows the last line end and return the size; the lock must be held."""
    size = end = os.fstat(file).st_size
    if size == 0 or os.pread(file, 1, size - 1) == b"\n":
        return size
    while end > 0:
        start = max(0, end - 65536)
        cut = os.pread(file, end - start, start).rfind(b"\n")
        if cut >= 0:
            end = start + cut + 1
            break
        end = start
    os.ftruncate(file, end)
    return end


def open_journal(folder: Path) -> JournalStorage:
    """Return the storage of the run in `folder`, in `study.journal`; both are made if need be.

    What a killed writer left (its lock, half a line) is cleared, by taking the lock once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backend = JournalFile(folder / JOURNAL)
    backend.append_logs([])
    return JournalStorage(backend)
