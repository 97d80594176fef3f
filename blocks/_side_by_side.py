"""Fields of several parts in one tensor: id tables, tables of crosses, soft bins of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from optuna.distributions import BaseDistribution, IntDistribution
from torch import Tensor, nn

from autorec.blocks.base import Block, Fields, TensorKind
from autorec.blocks.growth import Feed, IndexMap, Plan, as_it_was, longer, same


@dataclass(frozen=True)
class Part:
    """A block that gives fields of width D, and what it reads of a batch.

    Attributes:
        block: a table, or a block of the role `"numbers"`.
        codes: columns of the codes that a table reads.
        lists: whether it reads the lists.
        numbers: whether it reads the numbers, and nothing else.
    """

    block: Block
    codes: tuple[int, ...] = ()
    lists: bool = False
    numbers: bool = False


class SideBySide(Block):
    """The fields of all parts, one part behind the other, at one width.

    Args:
        parts: what gives the fields; all of one width.
        width: D.
    """

    reads: ClassVar[TensorKind] = "field"
    gives: ClassVar[TensorKind] = "field"
    grows: ClassVar[tuple[str, ...]] = ("width",)

    def __init__(self, parts: Sequence[Part], *, width: int) -> None:
        super().__init__(width=width)
        self.of = tuple((part.codes, part.lists, part.numbers) for part in parts)
        self.parts = nn.ModuleList(part.block for part in parts)
        self.shape: Fields = Fields(sum(_fields(part.block) for part in parts), width)

    @classmethod
    def choices(cls) -> dict[str, BaseDistribution]:
        return {"width": IntDistribution(4, 64, log=True)}

    def flops(self) -> int:
        return sum(block.flops() for block in self._blocks())

    def weights(self) -> int:
        return sum(block.weights() for block in self._blocks())

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Codes (B, F), one (B, L_i) per list, then numbers (B, Q), to fields (B, all, D)."""
        codes, *lists, numbers = inputs
        found = []
        for block, (columns, with_lists, of_numbers) in zip(self.parts, self.of, strict=True):
            own = [numbers] if of_numbers else [codes[:, list(columns)]]
            found.append(block([*own, *lists] if with_lists else own))
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def again(self, shapes: Sequence[Any], **changes: Any) -> SideBySide:
        width = int(changes.get("width", self.arguments["width"]))
        blocks = [block.again(block.shapes, width=width) for block in self._blocks()]
        parts = [Part(block, *own) for block, own in zip(blocks, self.of, strict=True)]
        return SideBySide(parts, width=width)

    def grow_into(self, grown: SideBySide, feed: Feed) -> Plan:
        tensors: dict[str, tuple[IndexMap, ...]] = {}
        pairs = zip(self._blocks(), grown._blocks(), strict=True)
        for place, (old, new) in enumerate(pairs):
            plan = old.grow_into(new, as_it_was(old.shapes))
            tensors |= {f"parts.{place}.{name}": maps for name, maps in plan.tensors.items()}
        width = longer(self.shape.width, grown.shape.width)
        return Plan(tensors, same(self.shape.fields), width)

    def _blocks(self) -> list[Block]:
        return [block for block in self.parts if isinstance(block, Block)]


def _fields(block: Block) -> int:
    return block.shape.fields if isinstance(block.shape, Fields) else 1
