"""Mends Triton's interpreter for the tests: bfloat16 arithmetic, NumPy 2.4, and nothing else.

The interpreter computes on the raw 16 bits of bfloat16 and gives wrong numbers in silence, and
its `range()` over a run-time bound fails where NumPy refuses to turn a one-element array into an
index. To be applied before any kernel is made, under TRITON_INTERPRET=1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _wide(language: Any, handle: Any) -> Any:
    bits = handle.data.astype(np.uint32) << 16
    return type(handle)(bits.view(np.float32), language.float32)


def _narrow(language: Any, handle: Any) -> Any:
    bits = np.ascontiguousarray(handle.data, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    rounded = np.where(np.isnan(handle.data), 0x7FC0, rounded)
    return type(handle)(rounded.astype(np.uint16), language.bfloat16)


def _widened(language: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: Any, *args: Any) -> Any:
        low = [getattr(arg, "dtype", None) == language.bfloat16 for arg in args]
        if not any(low):
            return method(self, *args)
        wide = [_wide(language, arg) if is_low else arg for arg, is_low in zip(args, low)]
        out = method(self, *wide)
        return _narrow(language, out) if out.dtype == language.float32 else out

    return run


def apply() -> None:
    """Patch the interpreter; fails loudly where its private names have moved."""
    import triton.language as language
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    for name in ("binary_op", "unary_op"):
        setattr(builder, name, _widened(language, getattr(builder, name)))
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(np.squeeze(self.handle.data)))

    interpreter._patch_lang_tensor = patched
