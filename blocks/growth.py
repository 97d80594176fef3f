"""Function-preserving growth of blocks: index maps, plans, and copying along them.

The idea is network morphism (Chen et al., Net2Net, ICLR 2016; Wei et al., ICML 2016) with fresh
units instead of copied ones: fresh units start at random and are heard through zero weights, so
that nothing has to be divided, no symmetry has to be broken by noise, and the function is kept
exactly. After one step of training the zero weights have moved, and the units behind them learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from optuna.distributions import BaseDistribution
from torch import Tensor, nn

from autorec.blocks.base import Fields, Shape, joined
from autorec.errors import GrowthError

if TYPE_CHECKING:
    from autorec.blocks.base import Block

FRESH = -1
# New position -> old position, FRESH where there was none.
IndexMap = tuple[int, ...]
Grown = TypeVar("Grown", bound="Block")


@dataclass(frozen=True)
class Plan:
    """How the tensors of a grown block follow from those of the old one.

    Attributes:
        tensors: name of a parameter or buffer of the grown block -> one index map per axis. It is
            copied from the old tensor of the same name, entry by entry where no axis is fresh.
            What is not named is fresh as a whole.
        outputs: index map of dimension 1 of the output.
        width: index map of dimension 2 of the output, None for flat outputs.
    """

    tensors: Mapping[str, tuple[IndexMap, ...]]
    outputs: IndexMap
    width: IndexMap | None = None


@dataclass(frozen=True)
class Feed:
    """What a grown block reads: shapes of its inputs, and where the joined input came from.

    Attributes:
        shapes: one per input, of the kind that the block reads.
        units: index map of dimension 1 of the joined input.
        width: index map of dimension 2 (D) for fields, None for flat inputs.
    """

    shapes: tuple[Shape, ...]
    units: IndexMap
    width: IndexMap | None = None

    @property
    def changed(self) -> bool:
        """Whether any entry is fresh."""
        return FRESH in self.units or FRESH in (self.width or ())

    @property
    def flat(self) -> IndexMap:
        """Index map of the input flattened to (B, F D); `units` itself for flat inputs."""
        if self.width is None:
            return self.units
        return crossed(self.units, self.width, sum(source != FRESH for source in self.width))


def same(size: int) -> IndexMap:
    """Return the map of an axis of `size` entries that stays as it is."""
    return tuple(range(size))


def longer(old: int, new: int) -> IndexMap:
    """Return the map of an axis that grows at its end."""
    return (*range(old), *[FRESH] * (new - old))


def crossed(outer: IndexMap, inner: IndexMap, old: int) -> IndexMap:
    """Return the map of two axes flattened into one, whose inner had `old` entries."""
    return tuple(
        high * old + low if FRESH not in (high, low) else FRESH for high in outer for low in inner
    )


def as_it_was(shapes: Sequence[Shape]) -> Feed:
    """Return the feed of inputs that have not changed."""
    if not shapes:  # a table: it reads codes
        return Feed((), ())
    whole = joined(shapes)
    if isinstance(whole, Fields):
        return Feed(tuple(shapes), same(whole.fields), same(whole.width))
    return Feed(tuple(shapes), same(whole.size))


def unchanged(block: nn.Module, names: Sequence[str]) -> dict[str, tuple[IndexMap, ...]]:
    """Return plan entries of tensors of `block` that keep their shape; `names` are prefixes."""
    tensors = [*block.named_parameters(), *block.named_buffers()]
    return {
        name: tuple(same(size) for size in tensor.shape)
        for name, tensor in tensors
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in names)
    }


def need_same_inputs(block: Block, feed: Feed) -> None:
    """Refuse fresh inputs.

    Raises:
        GrowthError: `feed` has fresh entries, which `block` cannot read with zero weight.
    """
    if feed.changed:
        raise GrowthError(
            f"{type(block).__name__} hears every input at full weight, so that fresh ones would "
            f"change its function, but its input grows to {list(feed.shapes)}; read them elsewhere"
        )


def need_same_width(block: Block, feed: Feed) -> None:
    """Refuse a wider D; fresh fields may pass.

    Raises:
        GrowthError: `feed` has fresh entries along dimension 2.
    """
    if FRESH in (feed.width or ()):
        raise GrowthError(
            f"{type(block).__name__} keeps its function only while the embedding width stays, but "
            f"its input grows to {list(feed.shapes)}; widen before the block is added"
        )


@torch.no_grad()
def unheard(weight: Tensor, units: IndexMap, inputs: IndexMap) -> None:
    """Zero a weight (units, inputs) wherever an old unit would hear a fresh input."""
    old = torch.tensor([source != FRESH for source in units], device=weight.device)
    fresh = torch.tensor([source == FRESH for source in inputs], device=weight.device)
    weight[old.unsqueeze(1) & fresh] = 0.0


def grow(block: Grown, feed: Feed | None, wider: Mapping[str, Any]) -> tuple[Grown, Plan]:
    """Do what `Block.grow` promises, through the block's own `grow_into`."""
    choices = type(block).choices()
    for name, value in wider.items():
        old = block.arguments.get(name)
        if name not in block.grows:
            raise GrowthError(f"{type(block).__name__} grows in {block.grows}, but got {name!r}")
        if old is None or value < old or not _contains(choices[name], value):
            raise GrowthError(
                f"{name} of {type(block).__name__} grows from {old} within {choices[name]}, "
                f"but got {value!r}"
            )
    fed = feed or as_it_was(block.shapes)
    made = block.again(fed.shapes, **wider)
    first = next(block.parameters(), None)
    if first is not None:
        made = made.to(device=first.device, dtype=first.dtype)
    plan = block.grow_into(made, fed)
    carry(block, made, plan.tensors)
    return made.train(block.training), plan


@torch.no_grad()
def carry(old: nn.Module, new: nn.Module, tensors: Mapping[str, Sequence[IndexMap]]) -> None:
    """Copy the entries of `old` into `new` along index maps; other entries stay as they are.

    Also right for what belongs to the tensors entry by entry, such as the moments of an optimiser.

    Raises:
        GrowthError: a map does not fit the tensor it is for.
    """
    sources, targets = _tensors(old), _tensors(new)
    for name, maps in tensors.items():
        source, target = sources[name], targets[name]
        if tuple(map(len, maps)) != tuple(target.shape):
            raise GrowthError(f"the plan of {name} must fit {tuple(target.shape)}, but got {maps}")
        if not maps:
            target.copy_(source)
            continue
        kept = [[i for i, s in enumerate(one) if s != FRESH] for one in maps]
        olds = [[s for s in one if s != FRESH] for one in maps]
        target[_grid(kept, target)] = source[_grid(olds, source)].to(target)


def _contains(gene: BaseDistribution, value: Any) -> bool:
    return gene._contains(gene.to_internal_repr(value))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])


def _grid(indices: Sequence[Sequence[int]], like: Tensor) -> tuple[Tensor, ...]:
    axes = [torch.tensor(one, dtype=torch.long, device=like.device) for one in indices]
    return torch.meshgrid(*axes, indexing="ij")
