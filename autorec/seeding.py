"""Randomness as a function of (seed, purpose): no global state, the same in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed of `seed` and every word of `purpose`, the same on all platforms."""
    words = [f"str:{word}" if isinstance(word, str) else f"int:{int(word)}" for word in purpose]
    text = "\x1f".join([str(int(seed)), *words])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_rng(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return a NumPy generator for one purpose."""
    import numpy as np

    return np.random.default_rng(derive(seed, *purpose))


def torch_generator(seed: int, *purpose: str | int, device: str = "cpu") -> torch.Generator:
    """Return a torch generator for one purpose on `device`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *purpose))


@contextmanager
def torch_seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed torch's global generators for one purpose inside the block, and restore them after it.

    For what draws from them and takes no generator: weight initialisers and dropout.
    """
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, *purpose))
        yield
