"""The best weights of a training, kept once: in memory, or in a file where they are large."""

from __future__ import annotations

import tempfile
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from autorec.errors import TrainingError

# A tensor above this goes to a temporary file, so that the best copy of a large table never
# doubles the memory of a training; writing 3 GB takes seconds, an epoch on such tables hours.
IN_MEMORY = 256 << 20
_PIECE = 64 << 20


class Best:
    """A copy of a module's state. The memory is taken at the first `keep` and used again."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}
        self.files: dict[str, IO[bytes]] = {}

    def __bool__(self) -> bool:
        return bool(self.kept or self.files)

    @torch.no_grad()
    def keep(self, module: nn.Module) -> None:
        """Copy the state of `module` over what was kept before."""
        for name, tensor in module.state_dict().items():
            if tensor.nbytes > IN_MEMORY:
                if name not in self.files:
                    self.files[name] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
                _write(self.files[name], tensor)
            elif name in self.kept:
                self.kept[name].copy_(tensor)
            else:
                self.kept[name] = tensor.detach().clone()

    @torch.no_grad()
    def restore(self, module: nn.Module) -> None:
        """Put what was kept into `module`, and forget it."""
        state = module.state_dict()
        for name, tensor in self.kept.items():
            state[name].copy_(tensor)
        for name, file in self.files.items():
            _read(file, state[name])
            file.close()
        self.kept, self.files = {}, {}


def _pieces(tensor: Tensor) -> list[Tensor]:
    flat = tensor.detach().reshape(-1)
    return list(torch.split(flat, max(1, _PIECE // tensor.element_size())))


def _bytes(piece: Tensor) -> Any:
    return piece.view(torch.uint8).numpy()


def _write(file: IO[bytes], tensor: Tensor) -> None:
    file.seek(0)
    for piece in _pieces(tensor):
        left = memoryview(_bytes(piece.cpu()))
        while left:
            left = left[file.write(left) :]


def _read(file: IO[bytes], tensor: Tensor) -> None:
    file.seek(0)
    for piece in _pieces(tensor):
        data = np.frombuffer(_exactly(file, piece.nbytes), np.uint8)
        piece.copy_(torch.from_numpy(data).view(piece.dtype))


def _exactly(file: IO[bytes], size: int) -> bytearray:
    found = bytearray()
    while len(found) < size:
        part = file.read(size - len(found))
        if not part:
            raise TrainingError(
                f"the file of the best weights must hold {size} bytes, but ended after "
                f"{len(found)}; make room in the folder for temporary files"
            )
        found += part
    return found
