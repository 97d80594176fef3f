"""What the blocks of self-attention over fields share: heads, their units, and how they grow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from torch import Tensor, nn

from autorec.blocks._dropout import Dropout
from autorec.blocks.base import Block, TensorKind, linear
from autorec.blocks.growth import FRESH, Feed, IndexMap, Plan, unheard
from autorec.errors import GrowthError


class HeadLayer(nn.Module):
    """Queries, keys and values of `heads` heads of `width` units, and a residual map; no biases.

    A subclass says in `forward` how they meet: fields (B, F, inner) to (B, F, heads * width).
    """

    def __init__(
        self,
        inner: int,
        heads: int,
        width: int,
        dropout: float,
        *,
        residual: bool = True,
        scale: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.factor = width**-0.5 if scale else 1.0
        units = heads * width
        self.query = linear(inner, units, bias=False)
        self.key = linear(inner, units, bias=False)
        self.value = linear(inner, units, bias=False)
        self.residual = linear(inner, units, bias=False) if residual else None
        self.dropout = Dropout(dropout)

    def split(self, x: Tensor) -> Tensor:
        """(B, F, heads * width) to (B, heads, F, width)."""
        return torch.unflatten(x, 2, (self.heads, self.width)).transpose(1, 2)

    def scaled(self, queries: Tensor) -> Tensor:
        """Divide queries by sqrt(width), where scores are scaled."""
        return queries if self.factor == 1.0 else queries * self.factor

    def attend(self, weights: Tensor, x: Tensor, values: Tensor) -> Tensor:
        """Weigh `values` by `weights` (B, heads, F, F), add the residual map of the input x."""
        out: Tensor = (self.dropout(weights) @ values).transpose(1, 2).flatten(2)
        return out if self.residual is None else self.residual(x) + out

    @torch.no_grad()
    def plan(
        self, old: HeadLayer, units: IndexMap, inputs: IndexMap
    ) -> dict[str, tuple[IndexMap, ...]]:
        """Silence fresh entries for old units; return the index maps of all tensors by name."""
        tensors: dict[str, tuple[IndexMap, ...]] = {}
        for name in ("query", "key", "value", "residual"):
            part: nn.Linear | None = getattr(self, name)
            if part is not None:
                unheard(part.weight, units, inputs)
                tensors[f"{name}.weight"] = (units, inputs)
        # A fresh unit of an old head would add its query times its key to the scores.
        queries = self.query.weight.view(self.heads, self.width, -1)
        queries[: old.heads, old.width :] = 0.0
        return tensors

    @torch.no_grad()
    def pass_through(self, units: IndexMap) -> None:
        """Make a fresh layer hand on the old units; its values are zero, its scores random."""
        old = [position for position, source in enumerate(units) if source != FRESH]
        self.value.weight[old] = 0.0
        if self.residual is not None:
            self.residual.weight[old] = 0.0
            self.residual.weight[old, old] = 1.0


class HeadBlock(Block):
    """Fields (B, F, D) to fields (B, F, heads * width), through the `layers` of a subclass.

    Heads and units of a head grow exactly: what is fresh becomes fresh entries of the output, and
    fresh units of an old head start with queries of zero. Fresh layers start as the identity.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "field"
    grows: ClassVar[tuple[str, ...]] = ("layers", "heads", "width")
    layers: nn.ModuleList

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "layers": IntDistribution(1, 5),
            "heads": IntDistribution(1, 4),
            "width": IntDistribution(8, 128, log=True),
            "dropout": FloatDistribution(0.0, 0.5, step=0.1),
            "scale": CategoricalDistribution((False, True)),
        }

    def sizes(self) -> list[int]:
        """Return the width of what each layer reads."""
        parts: list[HeadLayer] = list(self.layers)  # type: ignore[arg-type]
        return [part.query.in_features for part in parts]

    def refusal(self, larger: Mapping[str, int]) -> str | None:
        """Say why the arguments in `larger` cannot grow here, None if they can."""
        return None

    def grow_into(self, grown: HeadBlock, feed: Feed) -> Plan:
        if FRESH in feed.units:
            raise GrowthError(
                f"{type(self).__name__} shares its attention among all fields, so that fresh ones "
                f"would take some, but its input grows to {list(feed.shapes)}; read them elsewhere"
            )
        news = {name: grown.arguments[name] for name in self.grows}
        larger = {name: new for name, new in news.items() if new > self.arguments[name]}
        why = self.refusal(larger)
        if "width" in larger and self.arguments["scale"]:
            why = "scores are divided by the root of the width (scale=True)"
        if larger and len(feed.units) == 1:
            why = "attention has nothing to choose in one field, so that fresh scores never learn"
        if larger and why:
            raise GrowthError(f"{why}, but got {larger}; leave them out")
        units = _head_units(self.layers[0], grown.layers[0])  # type: ignore[arg-type]
        tensors: dict[str, tuple[IndexMap, ...]] = {}
        inputs = feed.width or ()
        for position, module in enumerate(grown.layers):
            layer: HeadLayer = module  # type: ignore[assignment]
            if position >= len(self.layers):
                layer.pass_through(units)
                continue
            old: HeadLayer = self.layers[position]  # type: ignore[assignment]
            for name, maps in layer.plan(old, units, inputs).items():
                tensors[f"layers.{position}.{name}"] = maps
            inputs = units
        return Plan(tensors, feed.units, units)


def _head_units(old: HeadLayer, new: HeadLayer) -> IndexMap:
    """Return the map of all units, head by head, where both may have grown."""
    return tuple(
        head * old.width + unit if head < old.heads and unit < old.width else FRESH
        for head in range(new.heads)
        for unit in range(new.width)
    )
