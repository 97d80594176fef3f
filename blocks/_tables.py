"""What id tables share: one parameter for all fields, pooling of lists, growth of their width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autorec.blocks.base import Block, Fields, Shape, TensorKind
from autorec.blocks.growth import Feed, Plan, longer, same

if TYPE_CHECKING:
    from typing_extensions import Self

# Codes of one field (B, ...) -> rows (B, ..., D).
Lookup = Callable[[Tensor], Tensor]
# Table (N, D) and rows (B, n) to read -> (B, n, D).
Reader = Callable[[nn.Parameter, Tensor], Tensor]


class TableBlock(Block):
    """Codes (B, F) and lists (B, L) to fields (B, F + lists, D).

    A list is the mean of its codes other than 0; an empty list is its row 0. Rows start at
    N(0, 1e-4), as the public leaderboard recipes do: larger starts memorise rare ids.
    """

    role: ClassVar[str] = "table"
    gives: ClassVar[TensorKind] = "field"
    grows: ClassVar[tuple[str, ...]] = ("width",)
    # Codes in all columns together, below which a space does not offer this kind: compressed tables
    # are worth their collisions only where a table is large.
    least_codes: ClassVar[int] = 100_000
    # Set by a trainer that updates the rows a batch touches, in place of a gradient of the table.
    reader: Reader | None = None
    # The setting of a recipe that is the L2 of these rows.
    l2 = "embedding_l2"

    def __init__(
        self, rows: Sequence[int], list_rows: Sequence[int], width: int, **arguments: Any
    ) -> None:
        super().__init__(rows=tuple(rows), list_rows=tuple(list_rows), width=width, **arguments)
        self.counts = (*rows, *list_rows)
        self.ids = len(rows)
        self.shape = Fields(len(self.counts), width)

    @classmethod
    def distinct(cls, rows: Sequence[int], width: int, **arguments: Any) -> dict[str, Any] | None:
        """Return the arguments that stand for all that give the function of these, None where that
        is the function of one plain table.

        Args:
            rows: codes of every column.
            width: D.
            arguments: the kind's own.
        """
        return arguments

    def tables(self) -> list[nn.Parameter]:
        """Return the parameters whose rows are looked up."""
        return list(self.parameters())

    def flops(self) -> int:
        return 0

    def again(self, shapes: Sequence[Shape], **changes: Any) -> Self:
        return type(self)(**{**self.arguments, **changes})

    def rows_of(self, codes: Tensor, field: slice) -> Tensor:
        """Return what codes (B, n) of the columns in `field` read: (B, n, width of a row).

        `field` holds as many columns as `codes`, or one for all of them (a list).
        """
        raise NotImplementedError

    @property
    def tapped(self) -> bool:
        """Whether a trainer wants to see every row that is read."""
        return self.reader is not None and torch.is_grad_enabled()

    def read(self, table: nn.Parameter, rows: Tensor) -> Tensor:
        """Return the rows (B, n, D) of a table (N, D) at `rows`, int (B, n)."""
        if self.reader is not None and torch.is_grad_enabled():
            return self.reader(table, rows)
        return F.embedding(rows, table)

    def looked_up(self, inputs: list[Tensor]) -> Tensor:
        """Return (B, F + lists, width of a row) for codes (B, F) and one (B, L_i) per list."""
        codes, *lists = inputs
        parts = [self.rows_of(codes, slice(0, self.ids))] if self.ids else []
        for place, values in enumerate(lists, start=self.ids):
            lookup = partial(self.rows_of, field=slice(place, place + 1))
            parts.append(pooled(values, lookup).unsqueeze(1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def grow_into(self, grown: Self, feed: Feed) -> Plan:
        width = longer(self.arguments["width"], grown.arguments["width"])
        tensors = {name: (same(len(p)), width) for name, p in self.named_parameters()}
        return Plan(tensors, same(len(self.counts)), width)


def starts(rows: Sequence[int]) -> list[int]:
    """Return the first row of each field in one table, and the number of all rows at the end."""
    return [0, *accumulate(rows)]


def table(rows: int, width: int) -> nn.Parameter:
    """Return a parameter (rows, width) from N(0, 1e-4)."""
    made = nn.Parameter(torch.empty(rows, width))
    nn.init.normal_(made, std=1e-4)
    return made


def pooled(values: Tensor, lookup: Lookup) -> Tensor:
    """Return (B, ..., D): the mean over the codes other than 0 of lists (B, L); an empty list is
    the row of code 0. `lookup` maps codes (B, L) to rows (B, L, ..., D).
    """
    rows = lookup(values)
    present = (values != 0).view(*values.shape, *[1] * (rows.dim() - 2))
    count = present.sum(dim=1)
    # A list is padded at its end, so that an empty one begins with code 0.
    return torch.where(count == 0, rows[:, 0], (rows * present).sum(dim=1) / count.clamp(min=1))
