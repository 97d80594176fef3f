"""Who runs a trial: processes that can be told from later ones with the same number, the end of a
worker whose parent is gone, and how much memory this process took."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Process:
    """One process of one host. `started` tells it from a later process that got the same pid."""

    host: str
    pid: int
    started: str

    @staticmethod
    def current() -> Process:
        """Return the process that runs this line."""
        return _current(os.getpid())

    @property
    def here(self) -> bool:
        """Whether the process ran on this host, so that `dead` can be asked."""
        return self.host == socket.gethostname()

    @property
    def dead(self) -> bool:
        """Whether the process, which must have run on this host, is over."""
        started = _started(self.pid)
        return started is None or ("" not in (started, self.started) and started != self.started)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Process:
        """Read what `to_json` wrote; other keys are left out."""
        return cls(str(data["host"]), int(data["pid"]), str(data["started"]))


@lru_cache(maxsize=1)
def _current(pid: int) -> Process:
    return Process(socket.gethostname(), pid, _started(pid) or "")


def _started(pid: int) -> str | None:
    """Return boot and start time of a live process, "" where the system does not tell, or None."""
    try:
        # The name of the program is in brackets and may hold spaces; fields count from behind it.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8")[:8]
        return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"
    except OSError:
        return "" if _exists(pid) else None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def orphaned(parent_pid: int) -> bool:
    """Tell whether the parent of this process is no longer `parent_pid`, because that one ended."""
    return os.getppid() != parent_pid


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent ends; Linux, elsewhere nothing.

    Call it first in a worker. The parent's thread that started the worker counts as the parent.

    Raises:
        SystemExit: the parent is gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if orphaned(parent_pid):
        raise SystemExit(128 + signal.SIGTERM)


def reset_peak_memory() -> None:
    """Start a new measurement of `peak_memory_mb` where the system can; else it stays a lifetime's.

    Linux resets the high-water mark of a process without touching its pages.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5", "utf-8")
    except OSError:
        return


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process since `reset_peak_memory`, in MiB."""
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
