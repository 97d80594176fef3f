"""The walk of a morphism through the graph: index maps from the inputs to the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from autorec._morph_blocks import IDLE, Maps, Origin, copy, hush, hush_rows, swap
from autorec.alignment import LARGEST, Lift, Resize
from autorec.architecture import DENSE, Source
from autorec.blocks.base import Block, Fields, Shape, joined
from autorec.blocks.growth import FRESH, Feed, IndexMap, longer, same, unheard
from autorec.build import Inputs, Network
from autorec.edits import NEW
from autorec.errors import GrowthError

# Rows that no probe has seen may be this much larger.
_MARGIN = 2.0


class Walk:
    """One pass over the child; `outs` holds the index maps of every tensor that flows in it."""

    def __init__(self, old: Network, new: Network, nodes: tuple[int, ...]) -> None:
        if len(nodes) != len(new.plan.nodes) or not set(nodes) <= {*range(len(old.blocks)), NEW}:
            raise GrowthError(
                f"`nodes` names one of {len(old.blocks)} nodes of the parent, or {NEW}, for each "
                f"of {len(new.plan.nodes)} of the child, but got {nodes}; take it from `apply`"
            )
        self.old, self.new, self.nodes = old, new, nodes
        self.outs: dict[Source, Feed] = {}
        # Node of the child -> the stream of the parent that it hands to the head.
        self.streams: dict[int, int] = {}
        self.origins: dict[str, Origin] = {}

    def run(self) -> dict[str, Origin]:
        """Set the weights of the child; return the origins of its tensors.

        Raises:
            GrowthError: they cannot be set so that the function is kept.
        """
        self._columns()
        for raw, table in self.new.tables_read.items():
            self.outs[raw] = _fresh(_block(table).shape)
            if raw in self.old.tables_read:
                self._grow(raw, f"tables_read.{raw}", f"tables_read.{raw}", None)
        for position, before in enumerate(self.nodes):
            if before == NEW:
                self._start(position)
                continue
            feed = self._feed(position, before)
            self._grow(position, f"blocks.{position}", f"blocks.{before}", feed)
            if before in self.old.plan.sinks:
                self.streams[position] = before
        self._head()
        self._linear_term()
        return self.origins

    def _columns(self) -> None:
        old, new = self.old, self.new
        used = len(old.tables_read) or (old.plan.linear and old.table_rows)
        rows = [(n.kept, n.id_rows, n.list_rows) for n in (old, new)]
        if (used and rows[0] != rows[1]) or old.dense_size not in (0, new.dense_size):
            raise GrowthError(
                f"a child reads the columns of its parent, but their tables have rows {rows[0]} "
                f"and {rows[1]}, and {old.dense_size} and {new.dense_size} numbers; train a root"
            )
        count = new.dense_size
        self.outs[DENSE] = Feed((), same(count) if old.dense_size else (FRESH,) * count)

    def _grow(self, source: Source, name: str, before: str, feed: Feed | None) -> None:
        """Put the grown block at `name` of the child; note its output map and its origins."""
        old = _block(self.old.get_submodule(before))
        made = _block(self.new.get_submodule(name))
        if type(old) is type(made):
            known = old.arguments
            wider = {n: v for n, v in made.arguments.items() if known.get(n, v) != v}
            grown, plan = old.grow(feed, **wider)
            entries = {n: Origin(n, maps) for n, maps in plan.tensors.items()}
            holder: Any = self.new.get_submodule(name.partition(".")[0])
            holder[source] = grown
            if any(source in node.nodes_read for node in self.new.plan.nodes):
                hush(grown, plan)
        else:
            inner, plan = old.grow(feed)
            plan, entries = swap(inner, made, plan)
        for tensor, origin in entries.items():
            whole = Origin(f"{before}.{origin.name}", origin.maps, origin.scale)
            self.origins[f"{name}.{tensor}"] = whole
        self.outs[source] = Feed((), plan.outputs, plan.width)

    def _start(self, position: int) -> None:
        """Start a new block; behind a stream, as what hands that stream on to the head."""
        block = _block(self.new.blocks[position])
        self.outs[position] = _fresh(block.shape)
        inputs = self.new.plan.nodes[position].inputs
        stream = self.streams.get(inputs[0]) if isinstance(inputs[0], int) else None
        idle = IDLE.get(type(block))
        if len(inputs) > 1 or stream is None or idle is None:
            return
        if stream in [self.streams[i] for i in self.streams if i != inputs[0]]:
            return
        for name, parameter in block.named_parameters():
            if idle in name.split(".") and name.endswith("weight"):
                parameter.zero_()
        flat = self.outs[inputs[0]].flat
        self.outs[position] = Feed((), (*flat, *[FRESH] * (block.shape.size - len(flat))))
        self.streams[position] = stream

    def _feed(self, position: int, before: int) -> Feed:
        """Set the aligners of a node; return its joined input as its block reads it."""
        node, was = self.new.plan.nodes[position], self.old.plan.nodes[before]
        given = _block(self.new.blocks[position]).shapes
        had = _block(self.old.blocks[before]).shapes
        sources = {s: self.nodes[s] if isinstance(s, int) else s for s in node.inputs}
        if not set(was.inputs) <= set(sources.values()):
            raise GrowthError(
                f"a node goes on reading what it reads, but node {before} read {was.inputs} and "
                f"its child reads {node.inputs}; train the child as a root"
            )
        starts = dict(zip(was.inputs, _starts(had), strict=True))
        places = {s: was.inputs.index(o) for s, o in sources.items() if o in starts}
        width = self._width(position, before, places)
        units: list[int] = []
        for place, source in enumerate(node.inputs):
            count = _units(given[place])
            if source not in places:
                units += [FRESH] * count
                continue
            start = starts[sources[source]]
            mapped = self._align((position, place), (before, places[source]), source, width)
            units += [unit if unit == FRESH else unit + start for unit in mapped]
        old = [unit for unit in units if unit != FRESH]
        if old != sorted(old):
            raise GrowthError(
                f"the inputs of a node keep their order, but node {position} reads {node.inputs} "
                f"where its parent read {was.inputs}; build the child without renumbering it"
            )
        return Feed(given, tuple(units), width)

    def _width(self, position: int, before: int, places: Mapping[Source, int]) -> IndexMap | None:
        """Return the map of D in what a node reads, None where it reads flat inputs."""
        new = joined(_block(self.new.blocks[position]).shapes)
        old = joined(_block(self.old.blocks[before]).shapes)
        if not isinstance(new, Fields) or not isinstance(old, Fields):
            return None
        inputs, found = self.new.plan.nodes[position].inputs, set()
        for place, source in enumerate(inputs):
            _, aligner = _aligner(self.new, position, place)
            if source in places and isinstance(aligner, nn.Identity):
                found.add(self.outs[source].width)
        if not found and new.width >= old.width:
            return longer(old.width, new.width)
        if len(found) != 1:
            raise GrowthError(
                f"the inputs of a node of fields grow to one width, but node {position} gets "
                f"{sorted(map(str, found))} from width {old.width}; train the child as a root"
            )
        return found.pop()

    def _align(
        self, new: tuple[int, int], old: tuple[int, int], source: Source, width: IndexMap | None
    ) -> IndexMap:
        """Carry one aligner, (node, input); return the map of dimension 1 of what it gives."""
        (name, made), (before, was) = _aligner(self.new, *new), _aligner(self.old, *old)
        feed = self.outs[source]
        if type(made) is not type(was):
            raise GrowthError(
                f"an input stays aligned as it was, but {type(was).__name__} becomes "
                f"{type(made).__name__} for node {new[0]}; widths of fields must grow together"
            )
        if not isinstance(made, (Lift, Resize)) or not isinstance(was, (Lift, Resize)):
            return feed.flat if width is None else feed.units
        maps = (width or (), feed.flat if isinstance(made, Lift) else feed.width or ())
        unheard(made.linear.weight, *maps)
        copy(made.linear.weight, was.linear.weight, maps)
        hush_rows(made.linear.weight, maps[0])
        self.origins[f"{name}.linear.weight"] = Origin(f"{before}.linear.weight", maps)
        return same(1) if isinstance(made, Lift) else feed.units

    def check_bounds(self, rows: Inputs) -> None:
        """Refuse a child in which fresh entries could move the bound of a row between blocks.

        Rows are scaled as a whole where their largest entry is above the bound. Fresh entries must
        stay at half of it, or of the old ones; so must a stream that a new block hands on.

        Raises:
            GrowthError: they do not, on `rows`.
        """
        values = self.new._through(rows)
        for position, node in enumerate(self.new.plan.nodes):
            stacked = self.nodes[position] == NEW and position in self.streams
            for source in node.nodes_read:
                fresh = torch.tensor([unit == FRESH for unit in self.outs[source].flat])
                entries = values[source].flatten(1).abs()
                fresh = fresh.to(entries.device) | stacked
                if (self.nodes[source] == NEW and not stacked) or not fresh.any():
                    continue
                loud = (entries * fresh).amax(dim=1)
                room = (entries * ~fresh).amax(dim=1).clamp(min=LARGEST)
                if not bool((_MARGIN * loud <= room).all()):
                    raise GrowthError(
                        f"rows between blocks keep half of their bound of {LARGEST} free for fresh "
                        f"entries, but node {position} would read {float(loud.max()):.3g} from "
                        f"node {source}; train the child as a root"
                    )

    def _head(self) -> None:
        """Let the head hear the streams of the parent where they are now, and nothing else."""
        old, new = self.old, self.new
        self.origins["base"] = Origin("base", ())
        new.base.copy_(old.base)
        if new.head is None:
            return
        begins, columns, left = {}, list[int](), set(old.plan.sinks)
        at = 0
        for sink, size in zip(old.plan.sinks, old.stream_sizes, strict=True):
            begins[sink] = at
            at += size
        for sink, size in zip(new.plan.sinks, new.stream_sizes, strict=True):
            stream = self.streams.get(sink)
            if stream not in left:
                columns += [FRESH] * size
                continue
            left.remove(stream)
            flat, start = self.outs[sink].flat, begins[stream]
            columns += [unit if unit == FRESH else unit + start for unit in flat]
        if left:
            raise GrowthError(
                f"every stream of the parent reaches the head of its child, but nodes {left} do "
                "not; let new blocks read nodes that are read already"
            )
        new.head.weight.zero_()
        new.head.bias.zero_()
        if old.head is not None:
            self._copy("head.weight", (same(1), tuple(columns)))
            self._copy("head.bias", (same(1),))

    def _linear_term(self) -> None:
        """Carry the first-order term; a new one starts at zero."""
        if self.old.plan.linear and not self.new.plan.linear:
            raise GrowthError("a linear term stays, but the child has none; train it as a root")
        known = dict(self.old.named_parameters())
        for name, parameter in self.new.named_parameters():
            if name.startswith("first_order"):
                parameter.zero_()
                if name in known:
                    self._copy(name, tuple(map(same, parameter.shape)))

    def _copy(self, name: str, maps: Maps) -> None:
        copy(self.new.get_parameter(name), self.old.get_parameter(name), maps)
        self.origins[name] = Origin(name, maps)


def _block(module: nn.Module) -> Block:
    made: Block = module  # type: ignore[assignment]
    return made


def _fresh(shape: Shape) -> Feed:
    if isinstance(shape, Fields):
        return Feed((), (FRESH,) * shape.fields, (FRESH,) * shape.width)
    return Feed((), (FRESH,) * shape.size)


def _units(shape: Shape) -> int:
    return shape.fields if isinstance(shape, Fields) else shape.size


def _starts(shapes: Sequence[Shape]) -> list[int]:
    """Return where each of `shapes` begins along dimension 1 of what they are joined to."""
    return [sum(map(_units, shapes[:place])) for place in range(len(shapes))]


def _aligner(network: Network, position: int, place: int) -> tuple[str, nn.Module]:
    """Return name and module of what aligns one input, without the bound before it."""
    name = f"aligners.{position}.{place}"
    found = network.get_submodule(name)
    return (f"{name}.1", found[1]) if isinstance(found, nn.Sequential) else (name, found)
