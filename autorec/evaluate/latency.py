"""How long a prediction takes, per batch size: the numbers a serving budget is made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autorec.errors import ConfigError

MAX_CALLS = 10_000


@dataclass(frozen=True)
class Latency:
    """Wall-clock times of one batch size.

    Attributes:
        p50_ms, p99_ms: milliseconds per call; p99 is the slowest call where under 100 were made.
        rows_per_s: rows predicted per second over all timed calls.
        calls: timed calls.
    """

    p50_ms: float
    p99_ms: float
    rows_per_s: float
    calls: int


def latency(
    predict: Callable[[int], Any],
    batch_sizes: Sequence[int] = (1, 64, 1024),
    *,
    seconds: float = 0.5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[int, Latency]:
    """Time `predict(rows)` for each batch size, for about `seconds` each.

    One untimed call comes first (caches, lazy initialisation). At least one call is timed even
    where it takes longer than `seconds`, and at most 10 000. `predict` must wait for its result:
    work queued on a device that has not finished is not timed.

    Raises:
        ConfigError: a batch size below 1, or `seconds` not above 0.
    """
    if not seconds > 0:
        raise ConfigError(f"seconds must be above 0, but got {seconds}")
    bad = [size for size in batch_sizes if size < 1]
    if bad:
        raise ConfigError(f"batch sizes must be at least 1, but got {bad[0]}")
    return {size: _time(predict, size, seconds, clock) for size in batch_sizes}


def _time(
    predict: Callable[[int], Any], size: int, seconds: float, clock: Callable[[], float]
) -> Latency:
    predict(size)
    times: list[float] = []
    end = clock() + seconds
    while not times or (len(times) < MAX_CALLS and clock() < end):
        start = clock()
        predict(size)
        times.append(clock() - start)
    p50 = float(np.quantile(times, 0.5))
    p99 = float(np.quantile(times, 0.99, method="higher"))
    return Latency(p50 * 1e3, p99 * 1e3, size * len(times) / max(sum(times), 1e-9), len(times))
