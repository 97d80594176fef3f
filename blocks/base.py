"""The contract of a block, and the two kinds of tensor that flow between blocks.

A *flat* tensor is (B, d), a *field* tensor is (B, F, D). A block says which kind it reads and which
it gives. Whoever wires blocks (`autorec.build`) aligns inputs to the kind a block reads; the block
then joins them along dimension 1. A block is a final class: it is built from shapes and its own
typed arguments, and never looks another block up by name.

How a block grows (for network morphism) is in `autorec.blocks.growth`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from optuna.distributions import BaseDistribution
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self

    from autorec.blocks.growth import Feed, Plan


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
    blocks that a space may wire freely, `"table"` for those that turn codes into fields, one per
    id column, and `"pairs"` for those that turn codes into one field per pair of columns;
    `grows` names the arguments that `grow` can raise.
    Instance attributes: `shapes` (of the inputs), `arguments` (as given to the constructor) and
    `shape`, the shape of what `forward` returns.
    """

    role: ClassVar[str] = "interaction"
    reads: ClassVar[TensorKind]
    gives: ClassVar[TensorKind]
    grows: ClassVar[tuple[str, ...]] = ()
    shape: Shape
    arguments: Mapping[str, Any]

    def __init__(self, shapes: Sequence[Shape] = (), **arguments: Any) -> None:
        super().__init__()
        self.shapes = tuple(shapes)
        self.arguments = arguments

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        """Return the block's own searched arguments, by the name its constructor gives them."""
        raise NotImplementedError

    def flops(self) -> int:
        """Return multiply-adds times two for one row in one forward pass, closed form."""
        raise NotImplementedError

    def weights(self) -> int:
        """Return the number of learned parameters, closed form in shapes and arguments."""
        raise NotImplementedError

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Join `inputs`, all of kind `reads`, along dimension 1 and return a tensor of `shape`."""
        raise NotImplementedError

    def again(self, shapes: Sequence[Shape], **changes: Any) -> Self:
        """Return a new block of this kind on inputs of `shapes`, with some arguments changed."""
        return type(self)(shapes, **{**self.arguments, **changes})

    def grow(self, feed: Feed | None = None, **wider: Any) -> tuple[Self, Plan]:
        """Return a larger block that computes the same function in evaluation, and its plan.

        Old outputs reappear where the plan's `outputs` names them; fresh outputs may hold anything,
        and whoever reads them starts with zero weights on them.

        Args:
            feed: inputs that have grown, None where they are as they were.
            wider: arguments named in `grows`, each at least its old value and inside `choices()`.

        Raises:
            GrowthError: an argument cannot grow, shrinks, or leaves its choices; or the block
                cannot read fresh inputs without changing its function.
        """
        from autorec.blocks.growth import grow

        return grow(self, feed, wider)

    def grow_into(self, grown: Self, feed: Feed) -> Plan:
        """Set the fresh weights of `grown` so that its function is this block's; return the plan.

        Called by `grow` on a newly made `grown`, before the weights that the plan names are copied:
        it is enough to put zeros (or an identity) wherever fresh entries would be heard.

        Raises:
            GrowthError: the block cannot read this feed without changing its function.
        """
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


def joined_fields(shapes: Sequence[Shape]) -> Fields:
    """Return `joined(shapes)` for a block that reads fields."""
    found = joined(shapes)
    return found if isinstance(found, Fields) else Fields(1, found.size)


def linear(inner: int, outer: int, *, bias: bool = True) -> nn.Linear:
    """Return a linear map with Xavier-normal weights and zero bias, the start of CTR recipes."""
    made = nn.Linear(inner, outer, bias=bias)
    nn.init.xavier_normal_(made.weight)
    if bias:
        nn.init.zeros_(made.bias)
    return made
