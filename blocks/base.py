"""The contract of a block, and the two kinds of tensor that flow between blocks.

A *flat* tensor is (B, d), a *field* tensor is (B, F, D). A block says which kind it reads and which
it gives. Whoever wires blocks (`autorec.build`) aligns inputs to the kind a block reads; the block
then joins them along dimension 1. A block is a final class: it is built from shapes and its own
typed arguments, and never looks another block up by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from optuna.distributions import BaseDistribution
from torch import Tensor, nn


@dataclass(frozen=True)
class Flat:
    """Shape of a flat tensor: (B, width)."""

    width: int

    @property
    def size(self) -> int:
        """Numbers per row."""
        return self.width


@dataclass(frozen=True)
class Fields:
    """Shape of a field tensor: (B, fields, width)."""

    fields: int
    width: int

    @property
    def size(self) -> int:
        """Numbers per row."""
        return self.fields * self.width


Shape = Flat | Fields
TensorKind = Literal["flat", "field"]


class Block(nn.Module):
    """Turns tensors of one kind into one tensor.

    Class attributes: `reads` and `gives` name the tensor kinds; `role` is `"interaction"` for
    blocks that a space may wire freely and `"input"` for those that turn codes into tensors.
    Instance attribute: `shape`, the shape of what `forward` returns.
    """

    role: ClassVar[str] = "interaction"
    reads: ClassVar[TensorKind]
    gives: ClassVar[TensorKind]
    shape: Shape

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        """Return the block's own searched arguments, by the name its constructor gives them."""
        raise NotImplementedError

    def flops(self) -> int:
        """Return multiply-adds times two for one row in one forward pass, closed form."""
        raise NotImplementedError

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Join `inputs`, all of kind `reads`, along dimension 1 and return a tensor of `shape`."""
        raise NotImplementedError


def join(inputs: list[Tensor]) -> Tensor:
    """Concatenate along dimension 1: flat (B, d_i) to (B, sum d_i), fields (B, F_i, D) likewise."""
    return inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=1)


def joined(shapes: Sequence[Shape]) -> Shape:
    """Return the shape that `join` gives on tensors of `shapes` (all of one kind)."""
    first = shapes[0]
    if isinstance(first, Fields):
        return Fields(sum(s.fields for s in shapes if isinstance(s, Fields)), first.width)
    return Flat(sum(s.size for s in shapes))
