"""Run the law on Triton's code through its interpreter; prints one JSON object.

A process of its own: Triton decides at import whether it interprets. Inputs lie between bands of
NaN (integers: of a number far outside every table) and results start as NaN, so that a read or
a write of the wrong place is seen.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from shim import apply
from torch import Tensor

BAND = 64


def guarded(value: Tensor) -> Tensor:
    """Return a copy of `value` that lies between two bands of poison."""
    poison = float("nan") if value.is_floating_point() else torch.iinfo(value.dtype).max // 2
    around = torch.full((value.numel() + 2 * BAND,), poison, dtype=value.dtype)
    inner = around[BAND : BAND + value.numel()].view(value.shape)
    return inner.copy_(value)


def main() -> None:
    """Print {kernel: {"faults": [...], "checks": n, "seconds": s}}."""
    apply()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    from autorec.kernels import _law
    from autorec.kernels._dispatch import report

    found: dict[str, Any] = {}
    for name in sys.argv[1:] or _law.kernels():
        started, faults, checks = time.perf_counter(), [], 0
        for case in _law.module(name).cases():
            for dtype in case.tolerance:
                if case.shape_class or dtype == torch.float64:
                    continue
                checks += 1
                broken = _law.check(name, case, dtype, backend="triton", place=guarded)
                faults += [f"{case.name} {dtype}: {fault}" for fault in broken]
        ran = report().get((name, "triton"), 0)
        seconds = round(time.perf_counter() - started, 2)
        found[name] = {"faults": faults, "checks": checks, "seconds": seconds, "launches": ran}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
