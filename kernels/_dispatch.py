"""Which code runs a kernel: the argument, then `use(...)`, then AUTOREC_KERNELS, then the device.

`auto` means Triton for tensors on a CUDA device of capability 8.0 or above where triton is
installed, and torch otherwise. On CPU tensors Triton runs only in its interpreter.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from autorec.errors import ConfigError
from autorec.kernels._jit import is_recording

BACKENDS = ("auto", "torch", "triton")
_chosen: ContextVar[str | None] = ContextVar("_chosen", default=None)
_calls: Counter[tuple[str, str]] = Counter()
_warned: set[tuple[str, str]] = set()


@contextmanager
def use(backend: str) -> Iterator[None]:
    """Run the kernels called inside the block with `backend`: "auto", "torch" or "triton".

    Raises:
        ConfigError: there is no such backend.
    """
    token = _chosen.set(_known(backend))
    try:
        yield
    finally:
        _chosen.reset(token)


def report() -> dict[tuple[str, str], int]:
    """Return the number of calls by (kernel, what ran it) since the process started."""
    return dict(_calls)


def choice(backend: str | None) -> str:
    """Return the backend asked for by the argument, the context or the environment."""
    asked = backend or _chosen.get() or os.environ.get("AUTOREC_KERNELS") or "auto"
    return _known(asked)


def on_triton(kernel: str, tensor: Tensor, backend: str, refused: str = "") -> bool:
    """Return whether `kernel` runs on Triton for `tensor`.

    Args:
        kernel: name in the report.
        tensor: any tensor of the call; its device decides.
        backend: what `choice` returned.
        refused: why Triton cannot take this shape; empty when it can.

    Raises:
        ConfigError: Triton was asked for where it cannot run, or AUTOREC_KERNELS_STRICT=1 and the
            shape is refused.
    """
    wanted = backend == "triton" or (backend == "auto" and _capable(tensor))
    if wanted and refused:
        _refuse(kernel, refused)
        wanted = False
    if wanted and tensor.device.type != "cuda" and not (interpreted() or is_recording()):
        raise ConfigError(
            f"{kernel} runs Triton on CUDA tensors, got one on {tensor.device}; "
            'use backend="torch", or set TRITON_INTERPRET=1 to interpret it'
        )
    _calls[kernel, "triton" if wanted else "torch"] += 1
    return wanted


def interpreted() -> bool:
    """Return whether Triton is in its interpreter, which takes CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def op(name: str, *, mutates: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Any]:
    """Register a function as the operator `autorec::<name>`, opaque to compilers.

    The result has `register_fake` and `register_autograd` (see `torch.library.custom_op`).
    """
    found: Any = torch.library.custom_op(f"autorec::{name}", mutates_args=tuple(mutates))
    return found  # type: ignore[no-any-return]


def _known(backend: str) -> str:
    if backend not in BACKENDS:
        raise ConfigError(
            f"a kernel backend must be one of {', '.join(BACKENDS)}, got {backend!r}; "
            "leave it out to let the device decide"
        )
    return backend


def _capable(tensor: Tensor) -> bool:
    if tensor.device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(tensor.device) >= (8, 0)


def _refuse(kernel: str, why: str) -> None:
    if os.environ.get("AUTOREC_KERNELS_STRICT") == "1":
        raise ConfigError(
            f"{kernel} must run on Triton under AUTOREC_KERNELS_STRICT=1, but {why}; "
            "change the shape or unset the variable"
        )
    if (kernel, why) not in _warned:
        _warned.add((kernel, why))
        warnings.warn(f"{kernel} runs in torch: {why}", stacklevel=3)
