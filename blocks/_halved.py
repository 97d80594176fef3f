"""Id tables whose fields have widths of their own: D, or D halved once or more often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autorec.blocks._tables import TableBlock, pooled, starts, table
from autorec.blocks.growth import Feed, IndexMap, Plan, longer, same

_LEAST = 2


@dataclass(frozen=True)
class _Group:
    """Fields of one width: its number of halvings, the columns of codes, and the lists."""

    halvings: int
    ids: list[int]
    lists: list[int]

    @property
    def name(self) -> str:
        return str(self.halvings)

    @property
    def fields(self) -> int:
        return len(self.ids) + len(self.lists)


class HalvedTableBlock(TableBlock):
    """Rows of width `narrowed(D, k)`, k by field, times a matrix of the field's own.

    Codes (B, F) and lists (B, L) to fields (B, F + lists, D). Fields of k = 0 have no matrix. All
    fields of one k share a parameter: a batch costs one gather for each k that occurs. Rows start
    at N(0, 1e-4) and matrices Xavier-normal. Parameters: the sum over fields of R d_f, and of d_f D
    where k > 0.

    Args:
        rows: codes of each id field.
        list_rows: codes of each list field.
        width: D.
        times: k of every field, lists last.
        arguments: what the constructor of the subclass was given beside rows and width.
    """

    def __init__(
        self,
        rows: Sequence[int],
        list_rows: Sequence[int],
        width: int,
        times: Sequence[int],
        **arguments: Any,
    ) -> None:
        super().__init__(rows, list_rows, width, **arguments)
        self.times = tuple(times)
        self.groups: list[_Group] = []
        self.held, self.maps = nn.ParameterDict(), nn.ParameterDict()
        for k in sorted(set(times)):
            at = [field for field, own in enumerate(times) if own == k]
            group = _Group(k, [f for f in at if f < self.ids], [f for f in at if f >= self.ids])
            self._add(group, [self.counts[field] for field in (*group.ids, *group.lists)])
        order = [field for group in self.groups for field in (*group.ids, *group.lists)]
        self.order: Tensor
        places = torch.tensor([order.index(field) for field in range(len(order))])
        self.register_buffer("order", places, persistent=False)

    def _add(self, group: _Group, counts: list[int]) -> None:
        self.groups.append(group)
        wide, begins = self.arguments["width"], starts(counts)
        own = narrowed(wide, group.halvings)
        self.held[group.name] = table(begins[-1], own)
        first = torch.tensor(begins[:-1], dtype=torch.int32)
        self.register_buffer(f"first_{group.name}", first, persistent=False)
        if group.halvings:
            std = (2.0 / (own + wide)) ** 0.5
            made = torch.empty(group.fields, own, wide)
            self.maps[group.name] = nn.Parameter(nn.init.normal_(made, std=std))

    def tables(self) -> list[nn.Parameter]:
        return list(self.held.values())

    def weights(self) -> int:
        wide = self.arguments["width"]
        pairs = list(zip(self.counts, self.times, strict=True))
        held = sum(count * narrowed(wide, k) for count, k in pairs)
        return int(held + sum(narrowed(wide, k) * wide for _, k in pairs if k))

    def flops(self) -> int:
        wide = self.arguments["width"]
        return int(sum(2 * narrowed(wide, k) * wide for k in self.times if k))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Codes (B, F), then one (B, L_i) per list, all int32, to fields (B, F + lists, D)."""
        parts = []
        for group in self.groups:
            rows = self._rows(group, inputs)
            if group.halvings:
                rows = torch.einsum("bnd,ndk->bnk", rows, self.maps[group.name])
            parts.append(rows)
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts, dim=1).index_select(1, self.order)

    def _rows(self, group: _Group, inputs: list[Tensor]) -> Tensor:
        """Return what the fields of a group read, before their matrices: (B, fields, d)."""
        codes, *lists = inputs
        held, first = self.held[group.name], getattr(self, f"first_{group.name}")
        found = []
        if group.ids:
            own = codes if len(group.ids) == codes.shape[1] else codes[:, group.ids]
            found.append(self.read(held, own + first[: len(group.ids)]))
        for place, field in enumerate(group.lists, start=len(group.ids)):

            def lookup(values: Tensor, start: Tensor = first[place]) -> Tensor:
                return self.read(held, values + start)

            found.append(pooled(lists[field - self.ids], lookup).unsqueeze(1))
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def grow_into(self, grown: HalvedTableBlock, feed: Feed) -> Plan:
        old, new = self.arguments["width"], grown.arguments["width"]
        tensors: dict[str, tuple[IndexMap, ...]] = {}
        for group in self.groups:
            name, before = group.name, narrowed(old, group.halvings)
            rows = longer(before, narrowed(new, group.halvings))
            tensors[f"held.{name}"] = (same(len(self.held[name])), rows)
            if group.halvings:
                tensors[f"maps.{name}"] = (same(group.fields), rows, longer(old, new))
                with torch.no_grad():
                    grown.maps[name][:, before:, :old] = 0.0
        return Plan(tensors, same(len(self.counts)), longer(old, new))


class NarrowTable(HalvedTableBlock):
    """Rows of one width, `narrowed(D, halvings)`, for all fields; each has a matrix of its own.

    Args:
        rows: codes of each id field.
        width: D.
        halvings: how often the width is halved.
    """

    def __init__(self, rows: Sequence[int], *, width: int, halvings: int = 0) -> None:
        super().__init__(rows, (), width, [halvings] * len(rows), halvings=halvings)

    def again(self, shapes: Sequence[Any], **changes: Any) -> NarrowTable:
        given = {**self.arguments, **changes}
        return NarrowTable(given["rows"], width=given["width"], halvings=given["halvings"])


def narrowed(width: int, halvings: int) -> int:
    """Return `width` halved so often, rounded down, but no less than 2 (or `width` itself)."""
    return min(width, max(_LEAST, width >> halvings))
