"""From a candidate's architecture to a network: the one place where blocks are wired.

Every stream (a tensor that no block reads) has a linear map to one number; the output is their sum.
Read as the mean of S streams, each is S times its number plus what all share, which is the same
function: so `streams` serves self-distillation without another head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from autorec._raw_inputs import BLOCKS, FIRST, RawInputs
from autorec._raw_inputs import Inputs as Inputs
from autorec.alignment import Lift, Resize, aligned
from autorec.architecture import DENSE, TABLE, Architecture, Source
from autorec.blocks._tables import TableBlock
from autorec.blocks.base import Flat, Shape, linear
from autorec.candidate import Candidate
from autorec.errors import SpaceError
from autorec.seeding import torch_seeded

if TYPE_CHECKING:
    from autorec.schema import Layout

# 1.6 GB with gradients and Adam. Twelve blocks that feed each other may come to 4,000 million.
MOST_WEIGHTS = 100_000_000


class Network(RawInputs):
    """Codes and numbers of a batch to outputs (B,), through the blocks of one architecture."""

    def __init__(
        self, candidate: Candidate, layout: Layout, bias: float, hash_cap: int | None = None
    ) -> None:
        super().__init__()
        plan = candidate.architecture
        if plan is None:
            raise SpaceError(f"only candidates with an architecture are built, but got {candidate}")
        self.plan = plan
        self.read_columns(candidate, layout, hash_cap)
        shapes: dict[Source, Shape] = {}
        if self.dense_size:
            shapes[DENSE] = Flat(self.dense_size)
        self.tables_read = nn.ModuleDict(self.made_tables())
        shapes |= {raw: _shape_of(table) for raw, table in self.tables_read.items()}
        self.blocks = nn.ModuleList()
        self.aligners = nn.ModuleList()
        for position, node in enumerate(plan.nodes):
            aligners, block = self._wire(node.kind, dict(node.args), node.inputs, shapes, plan)
            self.aligners.append(aligners)
            self.blocks.append(block)
            shapes[position] = _shape_of(block)
        self._make_head(plan, shapes, bias)

    def _wire(
        self,
        kind: str,
        args: dict[str, Any],
        inputs: Sequence[Source],
        shapes: dict[Source, Shape],
        plan: Architecture,
    ) -> tuple[nn.ModuleList, nn.Module]:
        missing = [source for source in inputs if source not in shapes]
        if missing or not inputs:
            raise SpaceError(
                f"a {kind} block must read inputs that exist, but reads {list(inputs)} of "
                f"{list(shapes)}; build the canonical candidate"
            )
        cls = BLOCKS.get(kind)
        read = [shapes[source] for source in inputs]
        made = [isinstance(source, int) for source in inputs]
        aligners, given = aligned(read, cls.reads, plan.embedding_width, made)
        return aligners, cls(given, **args)

    def _make_head(self, plan: Architecture, shapes: dict[Source, Shape], bias: float) -> None:
        self.stream_sizes = [shapes[i].size for i in plan.sinks]
        self.head = linear(sum(self.stream_sizes), 1) if self.stream_sizes else None
        self.base = nn.Parameter(torch.tensor(float(bias)))
        if not plan.linear:
            return
        if self.table_rows:
            self.first_order = self.side_by_side(TABLE, {}, 1)
        if self.dense_size:
            self.first_order_dense = nn.Linear(self.dense_size, 1, bias=False)
            nn.init.zeros_(self.first_order_dense.weight)

    def tables(self) -> list[nn.Parameter]:
        """Return the id tables: the parameters that whole-table L2 applies to."""
        blocks = [module for module in self.modules() if isinstance(module, TableBlock)]
        return [table for block in blocks for table in block.tables()]

    def flops(self) -> int:
        """Return multiply-adds times two for one row in one forward pass, in closed form."""
        made = [*self.tables_read.values(), *self.blocks]
        made += [m for m in self.aligners.modules() if isinstance(m, (Lift, Resize))]
        total = sum(int(module.flops()) for module in made)
        dense = self.dense_size if self.plan.linear else 0
        return total + 2 * (sum(self.stream_sizes) + dense)

    def weights(self) -> int:
        """Return the number of learned parameters, in closed form."""
        made = [*self.tables_read.values(), *self.blocks]
        made += [self.first_order] if self.plan.linear and self.table_rows else []
        total = sum(int(module.weights()) for module in made)
        aligners = [m for m in self.aligners.modules() if isinstance(m, (Lift, Resize))]
        total += sum(m.linear.in_features * m.linear.out_features for m in aligners)
        total += sum(self.stream_sizes) + 1 if self.head is not None else 0
        return total + 1 + (self.dense_size if self.plan.linear else 0)

    def forward(self, batch: Inputs) -> Tensor:
        """Return outputs (B,) in the task's own scale (logits, standardised ratings)."""
        values = self._through(batch)
        # Whatever runs before in half precision: outputs of eight bits would tie.
        with torch.autocast(batch.codes.device.type, enabled=False):
            out = self._shared(batch, values)
            if self.head is not None:
                out = out + self.head(self._sinks(values)).squeeze(1)
        return out

    def streams(self, batch: Inputs) -> Tensor:
        """Return one output per stream (B, S), whose mean over streams is `forward`.

        Raises:
            SpaceError: the network has no stream (a linear model).
        """
        if self.head is None:
            raise SpaceError(f"streams are tensors that go to the head, but got {self.plan}")
        values = self._through(batch)
        with torch.autocast(batch.codes.device.type, enabled=False):
            weighted = self._sinks(values) * self.head.weight
            shared = self._shared(batch, values) + self.head.bias
        parts = [part.sum(dim=1) for part in torch.split(weighted, self.stream_sizes, dim=1)]
        return shared.unsqueeze(1) + len(parts) * torch.stack(parts, dim=1)

    def _through(self, batch: Inputs) -> dict[Source, Tensor]:
        """Return the tensor of every raw input and every node."""
        values = self.raw_values(batch)
        for position, node in enumerate(self.plan.nodes):
            aligners: Any = self.aligners[position]
            inputs = [
                align(values[source]) for align, source in zip(aligners, node.inputs, strict=True)
            ]
            values[position] = self.blocks[position](inputs)
        return values

    def _sinks(self, values: dict[Source, Tensor]) -> Tensor:
        sinks = torch.cat([values[i].flatten(1) for i in self.plan.sinks], dim=1)
        return sinks.to(self.base.dtype)

    def _shared(self, batch: Inputs, values: dict[Source, Tensor]) -> Tensor:
        """Return what belongs to no stream (B,): the base and the linear term."""
        out = self.base.expand(len(batch.codes))
        if self.plan.linear and self.table_rows:
            out = out + values[FIRST]
        if self.plan.linear and self.dense_size:
            out = out + self.first_order_dense(values[DENSE]).squeeze(1)
        return out


def _shape_of(block: nn.Module) -> Shape:
    shape: Shape = block.shape  # type: ignore[assignment]
    return shape


def build(
    candidate: Candidate,
    layout: Layout,
    *,
    bias: float = 0.0,
    seed: int = 0,
    hash_cap: int | None = None,
) -> Network:
    """Return the network of a canonical neural or linear candidate, weights drawn from `seed`.

    Args:
        candidate: canonical on `layout` (`Space.canonical`).
        layout: the columns that a batch holds.
        bias: output of the untrained head (`Task.bias`).
        seed: of the initial weights; the global generator is left as it was.
        hash_cap: most rows of one id table; higher codes share rows.

    Raises:
        SpaceError: the candidate has no architecture, is not canonical on this layout, or has more
            than `MOST_WEIGHTS` beside its id tables.
    """
    with torch.device("meta"):
        planned = Network(candidate, layout, bias, hash_cap)
    weights = planned.weights() - sum(table.numel() for table in planned.tables())
    if weights > MOST_WEIGHTS:
        raise SpaceError(
            f"a network has at most {MOST_WEIGHTS:,} weights beside its id tables, but this one "
            f"has {weights:,}; make its blocks narrower or fewer"
        )
    with torch_seeded(seed, "init"):
        return Network(candidate, layout, bias, hash_cap)


def cost(candidate: Candidate, layout: Layout) -> tuple[int, int]:
    """Return parameters and FLOPs per row of a canonical candidate, without making its weights."""
    with torch.device("meta"):
        network = Network(candidate, layout, 0.0)
    return network.weights(), network.flops()
