"""In which precision the matrix products of a training run: float32, or bfloat16 where it pays.

Weights, gradients, optimiser and every evaluation stay float32; bfloat16 holds what enters and
leaves a matrix product within a training step, with float32 accumulation, and the head of a network
is left out of it, so that outputs do not tie.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from autorec.seeding import torch_generator
from autorec.train.distil import Objective

FLOAT32, BFLOAT16 = "float32", "bfloat16"
# Below this, casting costs more than the products save. Forward and backward of two layers, one
# core of an AMD EPYC with avx512_bf16: 0.5x at 2 MFLOP a batch, 0.9x at 15, 1.2x at 20 to 35, 1.4x
# at 47, 2.5x at 1,600 (2026-11-22).
_WORTH_FLOPS = 3e7
_CPU_UNITS = ("avx512_bf16", "amx_bf16")
_FILE = "precision.txt"


def low(precision: str, flops: int, rows: int) -> bool:
    """Tell whether to use bfloat16 on a network of `flops` per row with batches of `rows`."""
    return precision == BFLOAT16 and flops * rows >= _WORTH_FLOPS


def under(objective: Objective, device: torch.device) -> Objective:
    """Return `objective` with its matrix products in bfloat16."""

    def cast(batch: object) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return objective(batch)

    return cast


def agreed(folder: Path) -> str:
    """Return the precision of this machine as the first process to ask in `folder` found it.

    All trials of a run share it: a probe is a timing, and would otherwise fall either way between
    two processes.
    """
    path = folder / _FILE
    if not path.is_file():
        partial = path.with_name(f".{_FILE}.{os.getpid()}")
        partial.write_text(probe(), encoding="utf-8")
        with suppress(FileExistsError):  # another process was first
            os.link(partial, path)
        partial.unlink()
    return path.read_text(encoding="utf-8")


def probe() -> str:
    """Return `bfloat16` where its matrix products are faster than float32's, else `float32`.

    A processor without units for it emulates bfloat16 and is not even timed.
    """
    if torch.cuda.is_available():
        return BFLOAT16 if torch.cuda.is_bf16_supported() else FLOAT32
    if not any(torch.cpu.get_capabilities().get(unit) for unit in _CPU_UNITS):
        return FLOAT32
    generator = torch_generator(0, "probe")
    x = torch.randn(1024, 256, generator=generator)
    weight = torch.randn(256, 256, generator=generator)
    half_x, half_weight = x.bfloat16(), weight.bfloat16()
    plain, half = _fastest(lambda: x @ weight), _fastest(lambda: half_x @ half_weight)
    return BFLOAT16 if half < 0.8 * plain else FLOAT32


def _fastest(work: Callable[[], object], times: int = 7) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)
