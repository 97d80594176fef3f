"""Device code without importing triton: a kernel is compiled at its first launch.

A kernel file writes its Triton functions at its top level under `@device`, and takes `tl`, `Arg`
and `constexpr` from here. Triton is imported, and they are put in place, when a kernel is first
launched or compiled, so that a file can be read on machines without Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from autorec.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from typing import TypeAlias

    Arg: TypeAlias = Any
    constexpr: TypeAlias = Any
else:
    Arg = constexpr = Any

# Stands for triton.language until the first launch; triton asks for a real module in its place.
tl: Any = None

_DTYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int8: "i8",
}


@dataclass(frozen=True)
class Launch:
    """What one launch would compile: the input of a check that runs without a GPU.

    Attributes:
        kernel: the launched `Device`.
        signature: triton type of each argument in order; `constexpr` for constants.
        constants: value of each constant by name.
        aligned: positions of the arguments divisible by 16.
        warps: warps per program.
    """

    kernel: Device = field(compare=False)
    name: str
    signature: tuple[str, ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[int, ...]
    warps: int

    @property
    def key(self) -> str:
        """A name of this launch that stays the same while its types and constants do."""
        types = ",".join(kind for kind in self.signature if kind != "constexpr")
        constants = ",".join(f"{name}={value}" for name, value in self.constants)
        return f"{self.name}[{types};{constants};warps={self.warps}]"


_recorded: ContextVar[list[Launch] | None] = ContextVar("_recorded", default=None)


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Collect the launches made inside the block instead of making them."""
    found: list[Launch] = []
    token = _recorded.set(found)
    try:
        yield found
    finally:
        _recorded.reset(token)


def is_recording() -> bool:
    """Return whether launches are being collected."""
    return _recorded.get() is not None


class Device:
    """One Triton function. `kernel.launch(grid, *args, warps=4, NAME=constant)` runs it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._jitted: Any = None

    def __call__(self, *args: Any) -> Any:
        """Fail: device code calls device code, and Python launches it."""
        raise ConfigError(
            f"device code must be launched, but {self.function.__name__} was called; "
            "use .launch(programs, ...)"
        )

    @property
    def jitted(self) -> Any:
        """The `triton.jit` of the function.

        Raises:
            MissingExtraError: Triton is not installed.
        """
        if self._jitted is None:
            triton, language = _triton()
            scope = self.function.__globals__
            scope |= {"tl": language, "Arg": language.tensor, "constexpr": language.constexpr}
            for name in self.function.__code__.co_names:
                if isinstance(scope.get(name), Device):
                    scope[name] = scope[name].jitted
            self._jitted = triton.jit(self.function)
        return self._jitted

    def launch(self, programs: int, *args: Any, warps: int = 4, **constants: Any) -> None:
        """Run `programs` programs; none when there is nothing to do."""
        recorded = _recorded.get()
        if recorded is not None:
            recorded.append(_describe(self, args, constants, warps))
        elif programs > 0:
            self.jitted[(programs,)](*args, num_warps=warps, **constants)


def device(function: Callable[..., Any]) -> Device:
    """Mark a function as Triton code, compiled when it is first launched."""
    return Device(function)


def _triton() -> tuple[Any, Any]:
    try:
        import triton  # type: ignore[import-untyped,import-not-found,unused-ignore]
        import triton.language as language  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise MissingExtraError(
            "Triton kernels need the package triton, which is not installed; "
            'use backend="torch", or install triton (Linux only)'
        ) from error
    return triton, language


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"*{_DTYPES[value.dtype]}"
    if isinstance(value, int):
        return "i32" if abs(value) < 2**31 else "i64"
    return "fp32"


def _aligned(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.data_ptr() % 16 == 0
    return isinstance(value, int) and value % 16 == 0


def _describe(
    kernel: Device, args: tuple[Any, ...], constants: dict[str, Any], warps: int
) -> Launch:
    return Launch(
        kernel,
        f"{kernel.function.__module__.rpartition('.')[2]}.{kernel.function.__name__}",
        (*map(_kind, args), *("constexpr" for _ in constants)),
        tuple(constants.items()),
        tuple(number for number, value in enumerate(args) if _aligned(value)),
        warps,
    )


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is not below `number` (at least 1)."""
    return 1 << max(number - 1, 0).bit_length()


def blocks(number: int, size: int) -> int:
    """Return how many blocks of `size` cover `number`."""
    return -(-number // size)
