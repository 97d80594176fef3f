"""Which candidate to try next: A* with simulated annealing over the tree of edits (Auto-Keras).

The roots are the trained candidates; children differ by one step, an edit that keeps the function
of a trained network (`autorec.edits`) or a redrawn gene. The most promising leaf is expanded first,
unless annealing says no, and the best candidate seen anywhere is the answer.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from optuna.distributions import FloatDistribution

from autorec.architecture import Value
from autorec.candidate import NEURAL, Candidate
from autorec.edits import Edit, apply, edits
from autorec.errors import SpaceError
from autorec.search._evolution_mutation import Unit, mutated
from autorec.search_spaces._dag import DagSpace
from autorec.space import Space, cardinality, contains_value

NEIGHBOURS, ATTEMPTS = 8, 16
COLDEST = 1e-4
_EDITS = 0.5
RECIPE = "recipe."
REMOVED = "removed"
Hope = Callable[[Sequence["Leaf"]], np.ndarray]


@dataclass(frozen=True)
class Leaf:
    """A candidate of the tree, and how it came from a trained one.

    As long as only genes of the recipe are redrawn, applying `edits` to the form that the parent
    was built of and then taking over the recipe gives `candidate`: its weights can be inherited.

    Attributes:
        candidate: an edited form, in which the nodes of the parent keep their numbers.
        twin: its canonical form.
        parent: number of the trained trial, None for a candidate drawn at random.
    """

    candidate: Candidate
    twin: Candidate
    parent: int | None = None
    edits: tuple[Edit, ...] = ()
    redrawn: tuple[str, ...] = ()


class Moves:
    """Draws the children of a candidate.

    Args:
        space: where they lie.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._free = {
            name
            for name, gene in space.genes.items()
            if isinstance(gene, FloatDistribution) or cardinality(gene) > 1
        }

    def children(
        self,
        leaf: Leaf,
        known: Collection[Candidate],
        rng: np.random.Generator,
        *,
        inherit: bool = False,
    ) -> list[Leaf]:
        """Return up to 8 children in 16 attempts, none of them in `known`, all different.

        Every second step is an edit where there are any; the others redraw a gene, or with
        `inherit` a gene of the recipe, so that all children can have the weights of the parent.
        """
        found: dict[Candidate, Leaf] = {}
        space = self.space
        grown: dict[str, list[Edit]] = {}
        if isinstance(space, DagSpace):
            for edit in edits(leaf.candidate, space):
                grown.setdefault(edit.kind, []).append(edit)
        params = space.params(leaf.candidate)
        choices = self._units(params)
        if inherit and leaf.candidate.family == NEURAL:
            choices = [unit for unit in choices if unit[0].startswith(RECIPE)]
        for _ in range(ATTEMPTS if grown or choices else 0):
            if len(found) == NEIGHBOURS:
                break
            if grown and (not choices or rng.random() < _EDITS):
                child = self._edited(leaf, grown, rng)
            else:
                child = self._redrawn(leaf, params, choices, rng)
            if child is not None and child.twin not in known and child.twin not in found:
                found[child.twin] = child
        return list(found.values())

    def stranger(self, rng: np.random.Generator) -> Leaf:
        """Return a candidate drawn at random."""
        twin = self.space.canonical(self.space.sample(rng))
        return Leaf(twin, twin)

    def _edited(
        self, leaf: Leaf, grown: dict[str, list[Edit]], rng: np.random.Generator
    ) -> Leaf | None:
        # By kind first, as `random_edit` does: there are many more new blocks than growths.
        of_kind = list(grown.values())[int(rng.integers(len(grown)))]
        edit = of_kind[int(rng.integers(len(of_kind)))]
        try:
            child = apply(leaf.candidate, edit, self.space).candidate  # type: ignore[arg-type]
        except SpaceError:
            return None
        twin = self.space.canonical(child)
        return replace(leaf, candidate=child, twin=twin, edits=(*leaf.edits, edit))

    def _redrawn(
        self,
        leaf: Leaf,
        params: dict[str, Value],
        choices: list[Unit],
        rng: np.random.Generator,
    ) -> Leaf:
        unit = choices[int(rng.integers(len(choices)))]
        if unit[0] == REMOVED:
            drawn = mutated(self.space, {**params, unit[1]: "none"}, (), rng)
        else:
            drawn = mutated(self.space, params, unit, rng)
        twin = self.space.canonical(drawn)
        redrawn = (*leaf.redrawn, _said(unit))
        if not isinstance(self.space, DagSpace):
            return replace(leaf, candidate=drawn, twin=twin, redrawn=redrawn)
        of_recipe = unit[0].startswith(RECIPE) and drawn.family == NEURAL
        child = replace(leaf.candidate, recipe=drawn.recipe) if of_recipe else twin
        return replace(leaf, candidate=child, twin=twin, redrawn=redrawn)

    def _units(self, params: dict[str, Value]) -> list[Unit]:
        """Return single genes, parts without a kind (whose genes say nothing one by one), and the
        removal of each part that has one.
        """
        empty = {
            name.split(".", 1)[0]
            for name, value in params.items()
            if name.endswith(".kind") and value == "none"
        }
        parts: dict[str, list[str]] = {}
        for name in sorted(params):
            part = name.split(".", 1)[0]
            if name in self._free:
                parts.setdefault(part if part in empty else name, []).append(name)
        live = [
            name
            for name, value in params.items()
            if name.endswith(".kind") and contains_value(self.space.genes[name], "none")
            if value != "none"
        ]
        return [*(tuple(names) for names in parts.values()), *((REMOVED, name) for name in live)]


def _said(unit: Unit) -> str:
    if unit[0] == REMOVED:
        return unit[1]
    return unit[0] if len(unit) == 1 else unit[0].split(".", 1)[0]


def explore(
    roots: Sequence[tuple[float, Leaf]],
    moves: Moves,
    hope: Hope,
    known: Collection[Candidate],
    rng: np.random.Generator,
    *,
    expansions: int,
    strangers: int,
    inherit: bool,
    until: float,
) -> Leaf | None:
    """Return the best leaf that was met, none of `known`; None where there is nothing new.

    The temperature falls from 1 to 1e-4 within `expansions`; the published one does so in 88 of
    them. A leaf worse than the best so far is expanded with the chance exp(difference / T).

    Args:
        roots: trained candidates with what they are worth, in the units of `hope`.
        moves: draws children.
        hope: acquisition of many leaves at once, higher is better.
        known: canonical forms that are not to be proposed again.
        rng: every draw.
        strangers: candidates drawn at random that compete with the children.
        inherit: keep to children that can have the weights of their parent.
        until: processor time of this thread, seconds, after which the best so far is returned.
    """
    turn = itertools.count()
    queue = [(-worth, next(turn), leaf) for worth, leaf in roots]
    heapq.heapify(queue)
    fresh = [moves.stranger(rng) for _ in range(strangers)]
    brood = list({leaf.twin: leaf for leaf in fresh if leaf.twin not in known}.values())
    seen, best, found = set(known), -math.inf, None
    for step in range(expansions + 1):
        seen.update(leaf.twin for leaf in brood)
        for worth, leaf in zip(hope(brood).tolist() if brood else [], brood, strict=True):
            heapq.heappush(queue, (-worth, next(turn), leaf))
            if worth > best:
                best, found = worth, leaf
        if not queue or (found is not None and time.thread_time() > until):
            break
        cost, _, leaf = heapq.heappop(queue)
        temperature = COLDEST ** (step / expansions)
        taken = math.exp(min(0.0, (-cost - best) / temperature)) > rng.random()
        grown = taken and step < expansions
        brood = moves.children(leaf, seen, rng, inherit=inherit) if grown else []
    return found
