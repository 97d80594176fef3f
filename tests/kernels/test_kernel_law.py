"""The law of the room on every file of it: forward and backward agree with the reference."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from autorec.kernels import _law
from autorec.kernels._law import Case

DTYPES = (torch.float64, torch.float32, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("name", _law.kernels())
def test_torch_path_keeps_the_law(name: str, dtype: torch.dtype) -> None:
    cases = [case for case in _law.module(name).cases() if not case.shape_class]
    held = [case for case in cases if dtype in case.tolerance]
    if not held:
        pytest.skip(f"{name} has no case in {dtype}")
    faults = [
        f"{case.name}: {fault}"
        for case in held
        for fault in _law.check(name, case, dtype, backend="torch")
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", _law.kernels())
def test_device_keeps_the_law(name: str) -> None:
    for case in _law.module(name).cases():
        if not case.shape_class:
            for dtype in case.tolerance:
                faults = [*_law.check(name, case, dtype, place=lambda part: part.cuda())]
                assert not faults, f"{case.name} {dtype}: {faults}"


@pytest.mark.parametrize("name", _law.kernels())
def test_a_file_of_the_room_is_complete(name: str) -> None:
    cases = _law.module(name).cases()
    names = [case.name for case in cases]
    assert len(names) == len(set(names))
    assert callable(_law.public(name)) and "Args:" in (_law.public(name).__doc__ or "")
    assert any(torch.float32 in case.tolerance for case in cases)


def _faults(monkeypatch: pytest.MonkeyPatch, wrong: object) -> list[str]:
    """Return what the law says of a kernel that computes x^2 in a wrong way."""
    file = SimpleNamespace(reference=lambda x: x * x)
    monkeypatch.setattr(_law, "module", lambda name: file)
    monkeypatch.setattr(_law, "public", lambda name: wrong)

    def make(generator: torch.Generator, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {"x": torch.rand(20, generator=generator, dtype=dtype)}

    def faults() -> Iterator[str]:
        return _law.check("x", Case("c", make, {torch.float32: 1e-2}, ("x",)), torch.float32)

    return list(faults())


def test_the_law_catches_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(change: str) -> object:
        def run(x: torch.Tensor, backend: str | None = None) -> torch.Tensor:
            if change == "gradient":
                return x.detach() * x
            return x * x * {"digit": 1 + 1e-5, "nan": float("nan")}.get(change, 1.0)

        return run

    assert _faults(monkeypatch, kernel("none")) == []
    assert [fault.split(":")[0] for fault in _faults(monkeypatch, kernel("gradient"))] == [
        "gradient of x"
    ]
    assert len(_faults(monkeypatch, kernel("digit"))) == 2
    assert "result 0: error nan" in _faults(monkeypatch, kernel("nan"))[0]
