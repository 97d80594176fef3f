"""FinalMLP: two gated perceptrons and bilinear fusion (Mao et al., AAAI 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from torch import Tensor, nn

from autorec.blocks.base import Block, Fields, Flat, Shape, TensorKind, join, joined_fields, linear
from autorec.blocks.growth import Feed, IndexMap, Plan, longer, same, unheard
from autorec.blocks.mlp import MLP
from autorec.errors import GrowthError

# Learned contexts start at 0, as published. Behind biases of 0 the ReLU of such a gate would be
# dead for good and its last bias alone would learn; this start keeps it open and gates near 1.
_OPEN = 0.1


class _Gate(nn.Module):
    """`2 sigmoid(W2 ReLU(W1 c + b1) + b2)`: to gates (B, d), or (1, d) where c is learned.

    c is what `forward` is given, (B, D), or a parameter (1, D).
    """

    def __init__(self, read: Fields, hidden: int, learned: bool) -> None:
        super().__init__()
        self.inner = linear(read.width, hidden)
        self.outer = linear(hidden, read.size)
        self.context = nn.Parameter(torch.zeros(1, read.width)) if learned else None
        if learned:
            nn.init.constant_(self.inner.bias, _OPEN)

    def forward(self, read: Tensor) -> Tensor:
        context = read if self.context is None else self.context
        # Not self.inner(context): torch's FLOP counter cannot hook a module that reads a parameter.
        hidden = F.linear(context, self.inner.weight, self.inner.bias).relu()
        gates: Tensor = 2.0 * self.outer(hidden).sigmoid()
        return gates

    def plan(self, flat: IndexMap, context: IndexMap) -> dict[str, IndexMaps]:
        """Silence fresh context; return the index maps of all tensors by name."""
        hidden = same(self.inner.out_features)
        maps: dict[str, IndexMaps] = {
            "inner.weight": (hidden, context),
            "inner.bias": (hidden,),
            "outer.weight": (flat, hidden),
            "outer.bias": (flat,),
        }
        if self.context is None:
            unheard(self.inner.weight, hidden, context)
            return maps
        nn.init.zeros_(self.context)
        return {**maps, "context": (same(1), context)}


class _Fusion(nn.Module):
    """`w1'h1 + w2'h2 + c + sum_k h1_k' W_k h2_k`: (B, K n1) and (B, K n2) to (B, 1)."""

    def __init__(self, heads: int, parts: tuple[int, int]) -> None:
        super().__init__()
        self.heads, self.parts = heads, parts
        self.sizes = (heads * parts[0], heads * parts[1])
        self.first = linear(self.sizes[0], 1)
        self.second = linear(self.sizes[1], 1, bias=False)
        deviation = math.sqrt(2.0 / (1 + self.sizes[0] * parts[1]))  # Xavier-normal of one column
        self.pairs = nn.Parameter(torch.randn(heads, *parts) * deviation)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        left, right = (
            first.view(-1, self.parts[0], self.heads),
            second.view(-1, self.parts[1], self.heads),
        )
        mixed = torch.einsum("bih,hij->bjh", left, self.pairs)
        pairs = (mixed * right).sum(dim=(1, 2)).unsqueeze(1)
        out: Tensor = self.first(first) + self.second(second) + pairs
        return out

    def weights(self) -> int:
        """Return the number of parameters."""
        return sum(self.sizes) + 1 + self.sizes[0] * self.parts[1]

    def flops(self) -> int:
        """Return multiply-adds times two for one row."""
        return 2 * self.sizes[0] * self.parts[1] + 2 * self.sizes[0] + 4 * self.sizes[1]

    def plan(self, old: _Fusion, first: IndexMap, second: IndexMap) -> dict[str, IndexMaps]:
        """Silence fresh units of both streams; return the index maps of all tensors by name."""
        unheard(self.first.weight, same(1), first)
        unheard(self.second.weight, same(1), second)
        nn.init.zeros_(self.pairs)
        parts = [longer(one, new) for one, new in zip(old.parts, self.parts, strict=True)]
        return {
            "first.weight": (same(1), first),
            "first.bias": (same(1),),
            "second.weight": (same(1), second),
            "pairs": (same(self.heads), *parts),
        }


IndexMaps = tuple[IndexMap, ...]


class TwoStream(Block):
    """`w1'h1 + w2'h2 + c + sum_k h1_k' W_k h2_k` with `h_s = MLP_s(x * 2 sigmoid(gate_s(c_s)))`.

    Fields (B, F, D) to flat (B, 1), x = (B, F D). h1 and h2 are split in K = `heads` parts of n1
    and n2 units, and head k fuses part k of both. Widths are rounded up to a multiple of K. Unit u
    is in part u mod K, so that a wider stream only adds units to each part. Parameters: those of
    the perceptrons, w1 + w2 + 1 + K n1 n2, and 2 ((D + 1) g + (g + 1) F D) with gates of g hidden
    units, 2 D more where contexts are learned.

    Args:
        shapes: shapes of the inputs, joined to (B, F, D).
        width1: units of every layer of the first stream.
        layers1: layers of the first stream.
        width2: units of every layer of the second stream.
        layers2: layers of the second stream.
        dropout1: probability of zeroing a unit of the first stream in training.
        dropout2: probability of zeroing a unit of the second stream in training.
        norm: of both streams, `"none"` or `"batch"`.
        heads: heads of the bilinear fusion.
        gate: what the gates read: `"none"` (no gates), `"learned"` (a learned vector per stream)
            or `"fields"` (field 0 and field 1, in logs mostly user and item).
        gate_width: hidden units of a gate.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "flat"
    grows: ClassVar[tuple[str, ...]] = ("width1", "layers1", "width2", "layers2")

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        width1: int = 400,
        layers1: int = 3,
        width2: int = 400,
        layers2: int = 3,
        dropout1: float = 0.0,
        dropout2: float = 0.0,
        norm: str = "none",
        heads: int = 1,
        gate: str = "none",
        gate_width: int = 64,
    ) -> None:
        super().__init__(
            shapes,
            width1=width1,
            layers1=layers1,
            width2=width2,
            layers2=layers2,
            dropout1=dropout1,
            dropout2=dropout2,
            norm=norm,
            heads=heads,
            gate=gate,
            gate_width=gate_width,
        )
        self.read, self.gate = joined_fields(shapes), gate
        self.places = (0, min(1, self.read.fields - 1))
        fusion = _Fusion(heads, (-(-width1 // heads), -(-width2 // heads)))
        flat, (one, two) = [Flat(self.read.size)], fusion.sizes
        self.first = MLP(flat, width=one, layers=layers1, dropout=dropout1, norm=norm)
        self.second = MLP(flat, width=two, layers=layers2, dropout=dropout2, norm=norm)
        self.fusion = fusion
        self.gates = nn.ModuleList(
            [_Gate(self.read, gate_width, gate == "learned") for _ in range(2 * (gate != "none"))]
        )
        self.shape = Flat(1)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {
            "width1": IntDistribution(64, 1024, log=True),
            "layers1": IntDistribution(1, 4),
            "width2": IntDistribution(64, 1024, log=True),
            "layers2": IntDistribution(1, 4),
            "dropout1": FloatDistribution(0.0, 0.5, step=0.1),
            "dropout2": FloatDistribution(0.0, 0.5, step=0.1),
            "norm": CategoricalDistribution(("none", "batch")),
            "heads": IntDistribution(1, 50, log=True),
            "gate": CategoricalDistribution(("none", "learned", "fields")),
            "gate_width": IntDistribution(32, 512, log=True),
        }

    def flops(self) -> int:
        hidden: int = self.arguments["gate_width"]
        gate = 2 * hidden * (self.read.width + self.read.size) + 2 * self.read.size
        streams = self.first.flops() + self.second.flops()
        return streams + self.fusion.flops() + len(self.gates) * gate

    def weights(self) -> int:
        hidden: int = self.arguments["gate_width"]
        gate = (self.read.width + 1) * hidden + (hidden + 1) * self.read.size
        gate += self.read.width if self.gate == "learned" else 0
        streams = self.first.weights() + self.second.weights()
        return streams + self.fusion.weights() + len(self.gates) * gate

    def grow_into(self, grown: TwoStream, feed: Feed) -> Plan:
        flat = Feed((Flat(grown.read.size),), feed.flat)
        tensors = self._grow_gates(grown, feed)
        first = self.first.grow_into(grown.first, flat)
        second = self.second.grow_into(grown.second, flat)
        fused = grown.fusion.plan(self.fusion, first.outputs, second.outputs)
        parts = {"first": first.tensors, "second": second.tensors, "fusion": fused}
        for name, maps in parts.items():
            tensors |= {f"{name}.{inner}": one for inner, one in maps.items()}
        return Plan(tensors, same(1))

    def _grow_gates(self, grown: TwoStream, feed: Feed) -> dict[str, IndexMaps]:
        """Silence fresh context for old gates; return the index maps of gates and contexts."""
        if self.gate == "fields" and self.places != tuple(feed.units[p] for p in grown.places):
            raise GrowthError(
                "the gates of TwoStream read its first two fields, which must stay those, but its "
                f"input grows to {list(feed.shapes)}; put fresh fields behind them"
            )
        tensors: dict[str, IndexMaps] = {}
        for position, gate in enumerate(grown.gates):
            made: _Gate = gate  # type: ignore[assignment]
            for name, maps in made.plan(feed.flat, feed.width or ()).items():
                tensors[f"gates.{position}.{name}"] = maps
        return tensors

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Fields (B, F_i, D) to flat (B, 1)."""
        fields = join(inputs)
        x = fields.flatten(1)
        one = two = x
        if self.gate != "none":
            one, two = (
                x * gate(fields[:, place])
                for gate, place in zip(self.gates, self.places, strict=True)
            )
        out: Tensor = self.fusion(self.first([one]), self.second([two]))
        return out
