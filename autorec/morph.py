"""Network morphism: a child network that starts as the function of its trained parent.

The child of an edit (`autorec.edits`) is built, the graph is walked from its inputs to its head,
and every block grows by its own law (`autorec.blocks.growth`): each output carries an index map,
new position -> old position, from which the next block learns which of its inputs it knows. What is
fresh starts at random and is heard through zero weights, at the latest by the head (Chen et al.,
Net2Net, ICLR 2016; Wei et al., Network Morphism, ICML 2016; Jin et al., Auto-Keras, KDD 2019).

Between blocks, rows with an entry above 10 are scaled down as a whole (`alignment.Bound`). Fresh
entries beside old ones in such a row must stay below that, or the old ones would be scaled with
them: fresh units of a block that others read start at a tenth of their size, and on a probe of rows
they must leave half of the bound free. The probe also compares the outputs of parent and child
before the child is handed out. What fails either is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from autorec._morph_blocks import Origin, copy
from autorec._morph_walk import Walk
from autorec.build import Inputs, Network, build
from autorec.candidate import Candidate
from autorec.errors import GrowthError
from autorec.seeding import torch_generator, torch_seeded

if TYPE_CHECKING:
    from autorec.schema import Layout

# Largest difference between parent and child on the probe, relative to outputs above 1.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
# With 128 rows one of 40 chains met a row beyond the bound that the probe had not shown.
_PROBE_ROWS = 512


@dataclass(frozen=True)
class Inheritance:
    """Where every tensor of a child comes from; what `origins` does not name is fresh as a whole.

    A fresh entry must not go on under an old step counter: a fresh Adam weight under the counter of
    its parent moves three times its learning rate at once. `fresh` tells the two apart.
    """

    origins: Mapping[str, Origin]

    @torch.no_grad()
    def carry(self, old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
        """Copy entries of `old` (parent, by name) into `new` (child, by name), in place.

        For what belongs to the weights entry by entry, such as the moments of an optimiser; for the
        weights themselves where no `Origin.scale` is set. Names that either side lacks are passed
        over, fresh entries stay as they are.
        """
        for name, origin in self.origins.items():
            if name in new and origin.name in old:
                copy(new[name], old[origin.name], origin.maps)

    def fresh(self, name: str, like: Tensor) -> Tensor:
        """Return a mask, shaped as `like`, of the fresh entries of the child's tensor `name`."""
        mask = torch.ones_like(like, dtype=torch.bool)
        if name in self.origins:
            copy(mask, torch.zeros_like(mask), self.origins[name].maps)
        return mask


def morph(
    parent: Network,
    child: Candidate,
    nodes: Sequence[int],
    layout: Layout,
    *,
    seed: int = 0,
    probe: Inputs | None = None,
) -> tuple[Network, Inheritance]:
    """Return the network of `child` that computes what `parent` computes in evaluation.

    The child is built as it stands, without renumbering: `build` of the same candidate, layout and
    hash cap gives the same tensors by name, and can load its state.

    Args:
        parent: a network; it is left as it is.
        child: its edited candidate (`Edited.candidate`).
        nodes: node of the parent for each node of the child, -1 where new (`Edited.nodes`).
        layout: the columns that a batch holds.
        seed: of the fresh weights.
        probe: rows to compare both networks on; None draws 512 rows from the layout.

    Raises:
        GrowthError: no weights of the child keep the function: a block refuses to grow, an input
            would need another aligner, a stream no longer reaches the head, or the probe differs.
    """
    made = build(child, layout, seed=seed, hash_cap=parent.hash_cap)
    made = made.to(device=parent.base.device, dtype=parent.base.dtype).eval()
    walk = Walk(parent, made, tuple(nodes))
    rows = probe if probe is not None else probe_of(layout, parent.base, seed)
    with torch_seeded(seed, "morph"), torch.no_grad():
        origins = walk.run()
        walk.check_bounds(rows)
    made.train(parent.training)
    apart, most = drift(parent, made, rows), TOLERANCE.get(parent.base.dtype, 1e-2)
    if not apart <= most:
        raise GrowthError(
            f"a child computes what its parent does up to {most}, but outputs of the probe differ "
            f"by {apart:.2g}; train the child as a root"
        )
    return made, Inheritance(origins)


@torch.no_grad()
def drift(parent: Network, child: Network, rows: Inputs) -> float:
    """Return the largest difference of outputs in evaluation, relative to those above 1."""
    outs = []
    for network in (parent, child):
        modes = {module: module.training for module in network.modules()}
        network.eval()
        outs.append(network(rows).double())
        for module, mode in modes.items():
            module.training = mode
    return float(((outs[0] - outs[1]).abs() / outs[0].abs().clamp(min=1.0)).max())


def probe_of(layout: Layout, like: Tensor, seed: int = 0, rows: int = _PROBE_ROWS) -> Inputs:
    """Return random rows for `layout`: uniform codes; normal numbers, twice as large in every other
    row, for there are tails in every log.

    Codes int32 (rows, F), lists int32 (rows, L_i), dense (rows, Q) of the type and device of
    `like`.
    """
    g = torch_generator(seed, "probe")
    codes = [torch.randint(f.rows, (rows, 1), generator=g) for f in layout.sparse]
    lists = [torch.randint(f.rows, (rows, f.length), generator=g) for f in layout.lists]
    dense = torch.randn(rows, len(layout.dense), generator=g)
    dense[::2] *= 2.0
    return SimpleNamespace(
        codes=torch.cat([*codes, torch.empty(rows, 0)], dim=1).to(like.device, torch.int32),
        lists=[part.to(like.device, torch.int32) for part in lists],
        dense=dense.to(like),
    )
