"""How far apart two candidates are: optimal assignments that add up to an L1 distance.

The published distance of Auto-Keras (Jin et al., KDD 2019) matches layers and skips pair by pair,
and kernels on it are not positive definite without repair. Here every ground cost is a path in a
tree: from nothing to a block, to its relatives, to its kind, to its neighbourhood (Weisfeiler and
Lehman's labels). On a tree the cost of the best assignment, the unmatched paying
their way to the root, is in closed form the sum over the tree's edges of (length) x (difference of
how many items lie behind it): an L1 distance of counts (Kriege et al., NIPS 2016). So it is a
metric as it stands, exp(-d) is positive definite for all candidates ever asked, and hundreds of
distances are one pass of array arithmetic.

Every term is a multiple of 2^-13 and sums are exact: they do not depend on the order of addition,
and a resumed search is the same to the last bit.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autorec.architecture import Architecture, Node, Value
from autorec.candidate import Candidate, Features
from autorec.space import Space

FAMILY, KINDS, WIRING, EDGES = "family", "kinds", "wiring", "edges"
SIZES, RATES, CHOICES = "sizes", "rates", "choices"
TABLES, INPUTS, OTHER = "tables", "inputs", "other"
SHARED = (FAMILY, KINDS, WIRING, EDGES, SIZES, RATES, CHOICES, TABLES, INPUTS, OTHER)
# What any two different candidates are apart, however alike: it makes the distance a metric.
DIFFERENT = 2.0**-6
# Lengths of the edges from nothing to a block, its relatives, its kind, and two neighbourhoods.
BLOCK, RELATIVES, KIND, NEAR, FAR = 0.5, 0.25, 0.25, 0.25, 0.25
_EDGE, _EDGE_TO, _EDGE_FROM = 0.125, 0.125, 0.25
_GRID = 1024  # places of a number between its bounds
_BINS = 8
_MOST_KNOWN = 10_000
_OWN = re.compile(r"recipe\.|tree\.|feature\.")
_Term = tuple[str, Hashable, float]


@dataclass(frozen=True, eq=False)
class Traits:
    """What a candidate adds up to: counts (k,) of what it has, times lengths, never negative.

    `groups` (k,) holds, for each of `keys`, the place in `Describer.groups` that it counts for.
    """

    keys: tuple[Hashable, ...]
    values: np.ndarray
    groups: np.ndarray


class Describer:
    """Turns canonical candidates of one space into traits.

    Attributes:
        groups: names of the parts of the distance: blocks, their wiring and arguments, tables,
            inputs, and every setting of features and recipes.
    """

    def __init__(self, space: Space) -> None:
        self._kinds: Mapping[str, Any] = getattr(space, "classes", {})
        self._genes = space.genes
        self._choices: dict[str, Mapping[str, BaseDistribution]] = {}
        # A child differs from its parent in one thing: most terms are known.
        self._known: dict[Hashable, tuple[_Term, ...]] = {}
        own = [name for name in space.genes if not self._kinds or _OWN.match(name)]
        self.groups = (*SHARED, *own)
        self._place = {name: place for place, name in enumerate(self.groups)}

    def __call__(self, twin: Candidate) -> Traits:
        """Return the traits of a candidate that is canonical."""
        found: dict[tuple[str, Hashable], float] = {}
        for group, key, value in self._terms(twin):
            found[group, key] = found.get((group, key), 0.0) + value
        kept = {place: value for place, value in found.items() if value > 0.0}
        places = [self._place[group] for group, _ in kept]
        return Traits(tuple(kept), np.asarray(list(kept.values())), np.asarray(places, np.intp))

    def _terms(self, twin: Candidate) -> Iterator[_Term]:
        yield WIRING, twin, DIFFERENT / 2
        yield FAMILY, twin.family, 0.5
        yield from self._once(("recipe", twin.family, twin.recipe), self._settings, twin)
        yield from self._once(twin.features, self._features, twin.features)
        plan = twin.architecture
        if plan is None:
            return
        yield INPUTS, ("linear", plan.linear), 0.5
        yield TABLES, plan.embedding, 0.5
        if plan.embedding_width:
            width = _position(self._genes.get("embedding.width"), plan.embedding_width)
            yield TABLES, "width", width
        for name, value in plan.embedding_args:
            known = self._genes.get(f"embedding.{plan.embedding}.{name}")
            yield from _coded(TABLES, (plan.embedding, name), known, value)
        yield INPUTS, ("crosses", plan.crosses), 0.5
        yield INPUTS, ("numbers", plan.numbers), 0.5
        for name, value in plan.numbers_args:
            known = self._genes.get(f"numbers.{plan.numbers}.{name}")
            yield from _coded(INPUTS, (plan.numbers, name), known, value)
        for node in plan.nodes:
            yield from self._once((node.kind, node.args), self._arguments, node)
        shape = tuple((node.kind, node.inputs) for node in plan.nodes)
        yield from self._once(shape, _wired, plan)

    def _once(
        self, key: Hashable, terms: Callable[[Any], Iterator[_Term]], of: Any
    ) -> tuple[_Term, ...]:
        if key not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = tuple(terms(of))
        return self._known[key]

    def _settings(self, twin: Candidate) -> Iterator[_Term]:
        for name, value in twin.recipe.items():
            names = (name, f"recipe.{name}", f"{twin.family}.{name}")
            gene = next((own for own in names if own in self._genes), "")
            group = gene if gene in self._place else OTHER
            yield from _coded(group, (twin.family, name), self._genes.get(gene), value)

    def _features(self, features: Features) -> Iterator[_Term]:
        for name, value in asdict(features).items():
            gene = f"feature.{name}"
            group = gene if gene in self._place else INPUTS
            yield from _coded(group, gene, self._genes.get(gene), value)

    def _arguments(self, node: Node) -> Iterator[_Term]:
        genes = self._arguments_of(node.kind)
        stem = relatives(node.kind)
        for name, value in node.args:
            gene = genes.get(name)
            if not ordered(gene):
                yield CHOICES, (stem, name, value), 0.5
                continue
            group = SIZES if isinstance(gene, IntDistribution) else RATES
            # A stack of _BINS columns, filled from below: of single numbers the L1 distance of two
            # is their difference, and of several the cost of assigning them in order.
            filled = _BINS * _position(gene, value)
            for level in range(_BINS):
                if filled > level:
                    yield group, (stem, name, level), min(1.0, filled - level) / _BINS

    def _arguments_of(self, kind: str) -> Mapping[str, BaseDistribution]:
        if kind not in self._choices:
            self._choices[kind] = self._kinds[kind].choices() if kind in self._kinds else {}
        return self._choices[kind]


def apart(a: Traits, b: Traits, groups: int) -> np.ndarray:
    """Return the distance of two candidates, group by group (groups,)."""
    found = np.zeros(groups)
    other = dict(zip(b.keys, b.values, strict=True))
    for key, value, group in zip(a.keys, a.values, a.groups, strict=True):
        found[group] += abs(value - other.pop(key, 0.0))
    left = {key: group for key, group in zip(b.keys, b.groups, strict=True) if key in other}
    for key, group in left.items():
        found[group] += other[key]
    return found


def relatives(kind: str) -> str:
    """Return what a kind of block shares with its versions: `mlp` for a gated one."""
    words = kind.split("_")
    return "mlp" if "mlp" in words else words[0] if words[0] == "cross" else kind


def ordered(gene: BaseDistribution | None) -> bool:
    """Tell whether values of `gene` lie on a line; choices do where all are numbers."""
    if isinstance(gene, CategoricalDistribution):
        return all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in gene.choices)
    return isinstance(gene, (IntDistribution, FloatDistribution))


def labels(nodes: Sequence[Node], rounds: int) -> list[list[Hashable]]:
    """Return Weisfeiler and Lehman's labels of `nodes`, by round; round 0 is the kind."""
    found: list[list[Hashable]] = [[node.kind for node in nodes]]
    readers: list[list[int]] = [[] for _ in nodes]
    for place, node in enumerate(nodes):
        for source in node.nodes_read:
            readers[source].append(place)
    for _ in range(rounds):
        last = found[-1]
        found.append(
            [
                (
                    last[place],
                    tuple(sorted(str(s) for s in node.inputs if isinstance(s, str))),
                    tuple(sorted((last[s] for s in node.nodes_read), key=str)),
                    tuple(sorted((last[r] for r in readers[place]), key=str)),
                )
                for place, node in enumerate(nodes)
            ]
        )
    return found


def _wired(plan: Architecture) -> Iterator[_Term]:
    yield from _assigned(plan)
    yield from _edges(plan)


def _assigned(plan: Architecture) -> Iterator[_Term]:
    """Yield, node by node, the edges of the tree on the way from nothing to it."""
    kinds, near, far = labels(plan.nodes, 2)
    for one, two, three in zip(kinds, near, far, strict=True):
        yield KINDS, "block", BLOCK
        yield KINDS, ("relatives", relatives(str(one))), RELATIVES
        yield KINDS, ("kind", one), KIND
        yield WIRING, ("near", two), NEAR
        yield WIRING, ("far", three), FAR


def _edges(plan: Architecture) -> Iterator[_Term]:
    """Yield, edge by edge of the graph, the way from nothing to its target and to its source."""
    stems = [relatives(node.kind) for node in plan.nodes]
    wires: Counter[tuple[str, str]] = Counter()
    for place, node in enumerate(plan.nodes):
        for source in node.inputs:
            wires[source if isinstance(source, str) else stems[source], stems[place]] += 1
    wires.update((stems[sink], "head") for sink in plan.sinks)
    for (source, target), count in wires.items():
        yield EDGES, "edge", _EDGE * count
        yield EDGES, target, _EDGE_TO * count
        yield EDGES, (source, target), _EDGE_FROM * count


def _coded(
    group: str, name: Hashable, gene: BaseDistribution | None, value: Value
) -> Iterator[_Term]:
    if ordered(gene):
        yield group, name, _position(gene, value)
    else:
        yield group, (name, value), 0.5


def _position(gene: BaseDistribution | None, value: Any) -> float:
    """Return where a number lies between its bounds, 0 to 1, on a grid; sizes by their ratios."""
    if isinstance(gene, CategoricalDistribution):
        choices = sorted({float(choice) for choice in gene.choices})  # type: ignore[arg-type]
        low, high, at = 0.0, float(max(1, len(choices) - 1)), float(choices.index(float(value)))
    elif isinstance(gene, (IntDistribution, FloatDistribution)):
        low, high, at = float(gene.low), float(gene.high), float(value)
        if low > 0.0 and at > 0.0 and (gene.log or isinstance(gene, IntDistribution)):
            low, high, at = math.log(low), math.log(high), math.log(at)
    else:
        return 0.0
    share = (at - low) / (high - low) if high > low else 0.0
    return round(_GRID * min(1.0, max(0.0, share))) / _GRID
