"""The law of the room: a kernel agrees with its `reference`, forward and backward.

Compared is the relative L2 error against the reference in float64 on the same (rounded) inputs.
An error must stay within the tolerance of the case, and within twice that of the reference
computed in the dtype of the inputs, so that a loose tolerance hides nothing. Integers are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from autorec.catalogue import Catalogue
from autorec.seeding import torch_generator

Inputs = dict[str, Any]
Maker = Callable[[torch.Generator, torch.dtype], Inputs]
Place = Callable[[Tensor], Tensor]

# Bounds of a sum or a product: float32 rounds at 6e-8, bfloat16 at 4e-3.
SUMS = {torch.float64: 1e-13, torch.float32: 5e-6, torch.bfloat16: 1e-2}
# Of what only copies or multiplies once.
COPIES = {torch.float64: 1e-15, torch.float32: 1e-6, torch.bfloat16: 5e-3}
# Under this a double comparison with the reference's own error says nothing.
_FLOOR = {torch.float64: 1e-13, torch.float32: 2e-7, torch.bfloat16: 2e-3}


@dataclass(frozen=True)
class Case:
    """One call to hold against the reference.

    Attributes:
        name: short, unique in its file.
        make: (generator, dtype) to keyword arguments; floating tensors are drawn in `dtype`.
        tolerance: dtype to relative L2 error; its keys are the dtypes of the case.
        gradients: names of the arguments to differentiate.
        mutates: names of the arguments that the call changes; they are compared like results.
        shape_class: a shape of real use, only compiled and measured, never interpreted.
    """

    name: str
    make: Maker = field(repr=False)
    tolerance: Mapping[torch.dtype, float] = field(repr=False)
    gradients: tuple[str, ...] = ()
    mutates: tuple[str, ...] = ()
    shape_class: bool = False


def kernels() -> list[str]:
    """Return the names of all kernels: the files of this room with a `reference`."""
    return Catalogue("autorec.kernels", "reference").names()


def module(name: str) -> ModuleType:
    """Import the file of a kernel."""
    return Catalogue("autorec.kernels", "reference").module(name)


def public(name: str) -> Callable[..., Any]:
    """Return the public function of a kernel; one that writes in place ends in `_`."""
    found = module(name)
    function: Callable[..., Any] = getattr(found, name, None) or getattr(found, f"{name}_")
    return function


def check(
    name: str,
    case: Case,
    dtype: torch.dtype,
    *,
    backend: str | None = None,
    place: Place = torch.clone,
) -> Iterator[str]:
    """Yield what breaks the law in one case, as `what: error over bound`.

    Args:
        name: kernel.
        case: one of its `cases()`.
        dtype: a key of the tolerance of the case.
        backend: see `autorec.kernels._dispatch`.
        place: puts each input tensor where the kernel reads it: on a device, inside guard bands.
    """
    drawn = case.make(torch_generator(0, name, case.name), dtype)
    ours = run(public(name), placed(drawn, place), case, backend=backend)
    truth = run(module(name).reference, _cast(drawn, torch.float64), case)
    plain = run(module(name).reference, _cast(drawn, dtype), case)
    if set(ours) != set(truth):
        yield f"results {sorted(ours)} differ from those of the reference {sorted(truth)}"
        return
    for what, wanted in truth.items():
        yield from _compare(what, ours[what], wanted, plain[what], case.tolerance[dtype])


def _compare(
    what: str, ours: Tensor, wanted: Tensor, plain: Tensor, tolerance: float
) -> Iterator[str]:
    if ours.shape != wanted.shape:
        yield f"{what}: shape {tuple(ours.shape)}, the reference gives {tuple(wanted.shape)}"
    elif not wanted.is_floating_point():
        if not torch.equal(ours.long(), wanted.long()):
            yield f"{what}: integers differ from the reference"
    else:
        error, usual = _error(ours, wanted), _error(plain, wanted)
        bound = min(tolerance, max(2 * usual, _FLOOR.get(ours.dtype, 0.0)))
        if not error <= bound:
            yield f"{what}: error {error:.3g} over {bound:.3g} (the reference's own {usual:.3g})"


def _error(got: Tensor, wanted: Tensor) -> float:
    if not wanted.numel():
        return 0.0
    scale = float(wanted.norm())
    error = float((got.double() - wanted).norm())
    return error / scale if scale else (0.0 if error == 0 else math.inf)


def run(
    function: Callable[..., Any], inputs: Inputs, case: Case, **options: Any
) -> dict[str, Tensor]:
    """Call a kernel; return its results, gradients and changed arguments by name, on the CPU."""
    given = {
        key: value.detach().requires_grad_() if key in case.gradients else value
        for key, value in inputs.items()
    }
    out = function(**given, **options)
    found = {f"result {number}": part for number, part in enumerate(_flat(out))}
    if case.gradients:
        _backward([part for part in found.values() if part.grad_fn is not None])
        for key in case.gradients:
            grad = given[key].grad
            found[f"gradient of {key}"] = torch.zeros_like(given[key]) if grad is None else grad
    for key in case.mutates:
        parts = _flat(given[key])
        found |= {f"changed {key} {number}": part for number, part in enumerate(parts)}
    return {key: part.detach().cpu() for key, part in found.items()}


def _backward(results: list[Tensor]) -> None:
    """Differentiate the inner product of the results with fixed waves, so no sign cancels."""
    waves = [
        torch.linspace(1.0, 1.0 + part.numel(), max(part.numel(), 1), dtype=torch.float64)[
            : part.numel()
        ]
        .sin()
        .reshape(part.shape)
        .to(torch.bfloat16)
        .to(part)
        for part in results
    ]
    if results:
        torch.autograd.backward(results, waves)


def _flat(out: Any) -> list[Tensor]:
    if out is None:
        return []
    if isinstance(out, Tensor):
        return [out]
    return [part for item in out for part in _flat(item)]


def placed(inputs: Inputs, place: Place) -> Inputs:
    """Return inputs whose tensors, nested ones too, are where `place` puts them."""
    return {key: _move(value, place) for key, value in inputs.items()}


def _move(value: Any, place: Place) -> Any:
    if isinstance(value, Tensor):
        return place(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_move(part, place) for part in value))
    return value


def _cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    def put(part: Tensor) -> Tensor:
        return part.to(dtype, copy=True) if part.is_floating_point() else part.clone()

    return {key: _move(value, put) for key, value in inputs.items()}
