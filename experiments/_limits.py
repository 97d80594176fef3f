"""What a machine can do at most: matrix products, copies and gathers of rows, at given shapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from autorec.seeding import torch_generator

_SECONDS = 0.15
_REPEATS = 5
_COPIED = 64 << 20  # float32 numbers: 256 MiB, far beyond every cache


def limits(
    batch: int, products: Sequence[tuple[int, int]], table: tuple[int, int], fields: int
) -> dict[str, Any]:
    """Measure GFLOP/s of products, GB/s of a copy and of gathering random rows.

    Rates are per second of CPU time of all threads; per second on a CUDA device, where there is
    one. A copy counts what is read and written, a gather what is read.

    Args:
        batch: B, rows of a product.
        products: inputs and outputs of (B, inputs) x (inputs, outputs).
        table: rows and width of the table.
        fields: rows gathered for each of the B rows.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch_generator(0, "limits", batch)
    found: dict[str, Any] = {"device": device, "gflops": {}}
    for inputs, outputs in products:
        left = torch.randn(batch, inputs, generator=generator).to(device)
        right = torch.randn(inputs, outputs, generator=generator).to(device)
        work = 2e-9 * batch * inputs * outputs
        rates = {"float32": work / _taken(lambda a=left, b=right: a @ b)}
        with _low_products():
            rates["float32 tensors, low products"] = work / _taken(lambda a=left, b=right: a @ b)
        half, other = left.bfloat16(), right.bfloat16()
        rates["bfloat16"] = work / _taken(lambda a=half, b=other: a @ b)
        name = f"{batch}x{inputs}x{outputs}"
        found["gflops"][name] = {kind: round(rate, 1) for kind, rate in rates.items()}
    source = torch.zeros(_COPIED, device=device)
    target = torch.empty_like(source)
    copied = 2e-9 * source.nbytes / _taken(lambda: target.copy_(source))
    found["copy_gb_s"] = round(copied, 2)
    rows = torch.randn(*table, generator=generator).to(device)
    index = torch.randint(table[0], (batch * fields,), generator=generator).to(device)
    taken = _taken(lambda: rows.index_select(0, index))
    found["gather_gb_s"] = round(4e-9 * index.numel() * table[1] / taken, 2)
    found["gather_m_rows_s"] = round(1e-6 * index.numel() / taken, 1)
    return found


@contextmanager
def _low_products() -> Iterator[None]:
    """Let float32 tensors be multiplied in what the machine has for it: TF32 or bfloat16."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _taken(work: Callable[[], object]) -> float:
    """Return the seconds of one call: the median of repeats of at least `_SECONDS` each."""
    cuda = torch.cuda.is_available()

    def clock() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() if cuda else time.process_time()

    def repeated(times: int) -> float:
        begun = clock()
        for _ in range(times):
            work()
        return clock() - begun

    repeated(2)
    times = 1
    while repeated(times) < _SECONDS:
        times *= 2
    return median(repeated(times) for _ in range(_REPEATS)) / times
