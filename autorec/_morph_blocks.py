"""What a morphism does to single blocks: copying along maps, quiet fresh units, swapped kinds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autorec.blocks.base import Block
from autorec.blocks.cross import Cross
from autorec.blocks.cross_gated import GatedCross
from autorec.blocks.cross_lowrank import LowRankCross
from autorec.blocks.cross_residual import ResidualCross
from autorec.blocks.gated_mlp import GatedMLP
from autorec.blocks.growth import FRESH, IndexMap, Plan, same
from autorec.blocks.mlp import MLP
from autorec.errors import GrowthError

# Fresh units that share a bounded row with old ones start at this share of their size.
_QUIET = 0.1
# The weights that are zero where a block hands on its input (`edits.STACKED`).
IDLE: dict[type[Block], str] = {
    Cross: "layers",
    GatedCross: "crosses",
    LowRankCross: "ups",
    ResidualCross: "up",
}
Maps = tuple[IndexMap, ...]
# Name of a tensor in the new block -> name of that in the old one, and what it is multiplied by.
_Renamed = dict[str, tuple[str, float]]


@dataclass(frozen=True)
class Origin:
    """Where a tensor of a child comes from.

    Attributes:
        name: of the parameter or buffer of the parent.
        maps: one index map per axis, new position -> old position or `FRESH`.
        scale: what the old entries were multiplied by (a swapped block makes up for its gates).
    """

    name: str
    maps: Maps
    scale: float = 1.0


@torch.no_grad()
def copy(target: Tensor, source: Tensor, maps: Sequence[IndexMap]) -> None:
    """Copy the old entries of `source` into `target` along `maps`; fresh entries stay.

    Raises:
        GrowthError: the maps do not fit `target`.
    """
    if tuple(map(len, maps)) != tuple(target.shape):
        raise GrowthError(
            f"index maps fit their tensor, but got {[*map(len, maps)]} for {[*target.shape]}"
        )
    changed = [axis for axis, one in enumerate(maps) if one != same(source.shape[axis])]
    if not changed:
        target.copy_(source)
        return
    olds = [[s for s in one if s != FRESH] for one in maps]
    kept = [[i for i, s in enumerate(one) if s != FRESH] for one in maps]
    # Only along the axes that changed: a table of a million rows is one slice of its columns.
    target[_grid(kept, changed, target)] = source[_grid(olds, changed, source)].to(target)


def _grid(
    places: Sequence[Sequence[int]], axes: Sequence[int], like: Tensor
) -> tuple[slice | Tensor, ...]:
    made: list[slice | Tensor] = [slice(None)] * like.dim()
    for order, axis in enumerate(axes):
        index = torch.tensor(places[axis], dtype=torch.long, device=like.device)
        made[axis] = index.view(-1, *[1] * (len(axes) - 1 - order))
    return tuple(made)


@torch.no_grad()
def hush(grown: Block, plan: Plan) -> None:
    """Make fresh outputs of `grown` small, through the rows of its weights that give only those."""
    given = [one for one in (plan.outputs, plan.width) if one and FRESH in one]
    for name, parameter in grown.named_parameters():
        maps = plan.tensors.get(name, ())
        if len(maps) > 1 and maps[0] in given:
            hush_rows(parameter, maps[0])


@torch.no_grad()
def hush_rows(weight: Tensor, rows: IndexMap) -> None:
    """Make the fresh rows of a weight small."""
    weight[[place for place, source in enumerate(rows) if source == FRESH]] *= _QUIET


@torch.no_grad()
def swap(old: Block, new: Block, plan: Plan) -> tuple[Plan, dict[str, Origin]]:
    """Set the weights of `new`, a gated or residual version of `old`, to the function of `old`.

    Args:
        old: a block as its inputs grew.
        new: the block that takes its place.
        plan: how `old` came from the block of the parent.

    Returns:
        The plan with the outputs of `new`, and the origin of each of its old tensors.

    Raises:
        GrowthError: no version of `old` of the kind of `new` is known, or their sizes differ.
    """
    found = _SWAPS.get((type(old), type(new)))
    if found is None:
        known = [f"{a.__name__} to {b.__name__}" for a, b in _SWAPS]
        raise GrowthError(
            f"the swaps that keep the function are {known}, but got {type(old).__name__} to "
            f"{type(new).__name__}; add a block instead"
        )
    renamed = found(old, new)
    sources = dict([*old.named_parameters(), *old.named_buffers()])
    origins = {}
    for name, tensor in [*new.named_parameters(), *new.named_buffers()]:
        if name not in renamed:
            continue
        source, scale = renamed[name]
        if source not in sources or sources[source].shape != tensor.shape:
            raise GrowthError(
                f"a swap keeps width and layers, but {source} of {type(old).__name__} does not fit "
                f"{name} of {type(new).__name__} {[*tensor.shape]}; grow before or after it"
            )
        tensor.copy_(sources[source] * scale if scale != 1.0 else sources[source])
        if source in plan.tensors:
            origins[name] = Origin(source, plan.tensors[source], scale)
    return _outputs(new, plan), origins


def _outputs(new: Block, plan: Plan) -> Plan:
    if isinstance(new, ResidualCross):
        # The residual half is fresh; the parallel half is the old block.
        return Plan({}, (*[FRESH] * len(plan.outputs), *plan.outputs))
    return Plan({}, plan.outputs)


def _gated_mlp(old: Block, new: Block) -> _Renamed:
    """Gates that hear nothing stand at sigmoid(bias), which weights or norms make up for."""
    renamed: _Renamed = {}
    made: list[nn.Module] = list(new.layers)  # type: ignore[arg-type]
    steps: nn.Sequential = old.steps  # type: ignore[assignment]
    place = -1
    for position, step in enumerate(steps):
        if isinstance(step, nn.Linear):
            place += 1
            if place >= len(made):
                break
            gate: nn.Linear = made[place].gate  # type: ignore[assignment]
            gate.weight.zero_()
            share = 1.0 + math.exp(-float(gate.bias[0]))
            bare = isinstance(made[place].norm, nn.Identity)
            part, scale = "map", share if bare else 1.0
        elif isinstance(step, (nn.BatchNorm1d, nn.LayerNorm)):
            part, scale = "norm", share
        else:
            continue
        for name, _ in step.named_parameters():
            renamed[f"layers.{place}.{part}.{name}"] = (f"steps.{position}.{name}", scale)
        for name, _ in step.named_buffers():
            renamed[f"layers.{place}.{part}.{name}"] = (f"steps.{position}.{name}", 1.0)
    return renamed


def _gated_cross(old: Block, new: Block) -> _Renamed:
    """Gates that hear nothing stand at one half."""
    for name, parameter in new.named_parameters():
        if name.startswith("gates."):
            parameter.zero_()
    return {
        name.replace("layers.", "crosses.", 1): (name, 2.0) for name, _ in old.named_parameters()
    }


def _residual_cross(old: Block, new: Block) -> _Renamed:
    """The residual half starts as its input, below the bound of rows, and is not heard."""
    for name, parameter in new.named_parameters():
        if name.endswith(".up.weight"):
            parameter.zero_()
    return {f"plain.{name}": (name, 1.0) for name, _ in old.named_parameters()}


_SWAPS: dict[tuple[type[Block], type[Block]], Callable[[Block, Block], _Renamed]] = {
    (MLP, GatedMLP): _gated_mlp,
    (Cross, GatedCross): _gated_cross,
    (LowRankCross, ResidualCross): _residual_cross,
}
