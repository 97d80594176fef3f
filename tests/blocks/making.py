"""Blocks made from their own choices, and inputs for them: shared by the laws."""

from __future__ import annotations

import itertools

import torch

from autorec.blocks.base import Fields, Flat
from autorec.catalogue import Catalogue
from autorec.seeding import numpy_rng
from autorec.space import sample_value

BLOCKS = Catalogue("autorec.blocks", leaf="Block")
WIRED = [name for name in BLOCKS.names() if BLOCKS.get(name).role == "interaction"]
SHAPES = {
    "flat": [[Flat(7)], [Flat(1)], [Flat(3), Flat(4)]],
    "field": [[Fields(4, 3)], [Fields(1, 3)], [Fields(2, 3), Fields(3, 3)]],
}
CASES = [
    (name, shapes, seed)
    for name in WIRED
    for shapes, seed in itertools.product(SHAPES[BLOCKS.get(name).reads], range(3))
]


def settings(cls, rng):
    """Arguments drawn from the block's own choices, dropout off so that outputs can be compared."""
    drawn = {name: sample_value(gene, rng) for name, gene in cls.choices().items()}
    return {name: 0.0 if "dropout" in name else value for name, value in drawn.items()}


def made(name, shapes, seed, **changes):
    """Return block `name` on `shapes`, its arguments drawn by `seed` but for `changes`."""
    cls = BLOCKS.get(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return cls(shapes, **{**settings(cls, numpy_rng(seed, name)), **changes})


def inputs_of(shapes, rows, seed, dtype=torch.float32):
    """Return standard-normal inputs of `shapes`."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(s.fields, s.width) if isinstance(s, Fields) else (s.width,) for s in shapes]
    return [torch.randn(rows, *size, generator=generator, dtype=dtype) for size in sizes]


def size_of(shape):
    """Return the size of one row of `shape`."""
    return (shape.fields, shape.width) if isinstance(shape, Fields) else (shape.width,)


def stirred(block, seed):
    """Move every parameter and running mean off its start, so that no zero hides a fault."""
    generator = torch.Generator().manual_seed(seed + 1000)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in block.named_buffers():
            if name.endswith("running_mean"):
                buffer += 0.1 * torch.randn(buffer.shape, generator=generator)
            if name.endswith("running_var"):
                buffer *= 1.0 + torch.rand(buffer.shape, generator=generator)
    return block
