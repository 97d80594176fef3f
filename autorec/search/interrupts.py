"""Ctrl-C and SIGTERM as exceptions that come only where a worker can take them.

An exception between two bytecodes of a storage call could leave its lock taken or a trial half
told. So signals are remembered and raised at the next safe place; while a trial is evaluated, which
is nearly all the time, they are raised at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """Context manager that takes over SIGINT and SIGTERM where they still do what Python set.

    Outside the main thread, and where the program has handlers of its own, it does nothing.
    """

    def __init__(self) -> None:
        self._open = False
        self._pending: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
            for number, handler in usual.items():
                if signal.getsignal(number) == handler:
                    self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def check(self) -> None:
        """Raise what has arrived: KeyboardInterrupt for SIGINT, SystemExit(143) for SIGTERM."""
        pending, self._pending = self._pending, None
        if pending == signal.SIGINT:
            raise KeyboardInterrupt
        if pending is not None:
            raise SystemExit(128 + pending)

    @contextmanager
    def let_in(self) -> Iterator[None]:
        """Raise at once what arrives in this block, and first what arrived before it."""
        self._open = True
        try:
            self.check()
            yield
        finally:
            self._open = False

    @contextmanager
    def keep_out(self) -> Iterator[None]:
        """Inside `let_in`: remember what arrives in this block and raise it at its end."""
        before, self._open = self._open, False
        try:
            yield
        finally:
            self._open = before
        if before:
            self.check()

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        again = self._pending is not None  # whoever asks twice cannot wait
        self._pending = number
        if self._open or again:
            self.check()
