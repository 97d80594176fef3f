"""Known points of a space: baselines, named architectures and the starts of a search."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autorec.architecture import Architecture, Node, Source, Value
from autorec.candidate import LINEAR, NEURAL, POPULARITY, TREE, Candidate, Features, Recipe
from autorec.errors import SpaceError
from autorec.search_spaces._features import available, whole
from autorec.search_spaces._genes import TREE_DEFAULTS
from autorec.space import Space


class PointsSpace(Space):
    """The part of a space that names candidates.

    Attributes:
        rows: training rows, which decide the batch size of the known recipes.
        blocks: most blocks in one network.
        families: the families that are searched.
        chosen: names of the starts that the user asked for, None for the space's own.
        classes: block class of every kind.
        inputs: the raw inputs that the columns have.
    """

    rows: int
    blocks: int
    families: tuple[str, ...]
    chosen: tuple[str, ...] | None
    classes: Mapping[str, Any]
    inputs: tuple[str, ...]

    def start_recipe(self, **changes: Value) -> Recipe:
        """Return the recipe that public leaderboards are won with, its batch fitted to the rows."""
        batch = 4096 if self.rows >= 100_000 else 1024 if self.rows >= 20_000 else 256
        base: dict[str, Value] = {
            "lr": 1e-3,
            "embedding_l2": 0.05,
            "batch_size": batch,
            "schedule": "plateau",
            "ema": 0.0,
        }
        return Recipe({**base, **changes})

    def named(self) -> dict[str, Candidate]:
        """Return the architectures of the literature that are points of this space, by name."""
        from autorec.search_spaces._named import named

        return named(self)

    def starts(self) -> list[tuple[str, Candidate]]:
        if self.chosen is None:
            plain = self.own_starts() if NEURAL in self.families else []
            return self.with_derived(plain)
        known = self.named()
        unknown = [name for name in self.chosen if name not in known]
        if unknown:
            near = difflib.get_close_matches(unknown[0], known, n=3) or sorted(known)
            raise SpaceError(
                f"starts must be named architectures of this space, but got {unknown[0]!r}; "
                f"did you mean {' or '.join(map(repr, near))}?"
            )
        return [(name, known[name]) for name in self.chosen]

    def own_starts(self) -> list[tuple[str, Candidate]]:
        """Return the starts that are tried where the user names none."""
        return list(self.named().items())

    def with_derived(self, plain: list[tuple[str, Candidate]]) -> list[tuple[str, Candidate]]:
        """Return starts that read all derived columns before the plain ones, where there are any.

        Trees first: they take seconds, and gain the most.
        """
        if not any(available(self.layout).values()):
            return plain
        found = []
        if TREE in self.families:
            tree = Candidate(TREE, Recipe(TREE_DEFAULTS), whole(self.layout))
            slow = replace(tree, recipe=tree.recipe.changed(learning_rate=0.05))
            found += [("lightgbm+features", tree), ("lightgbm-slow+features", slow)]
        for name, candidate in plain[:2]:
            found.append((f"{name}+features", replace(candidate, features=whole(self.layout))))
        return found + plain

    def node(self, kind: str, /, *inputs: Source, **args: Value) -> Node:
        """Return a node with the block's own defaults for the arguments that are not given."""
        cls = self.classes[kind]
        defaults = inspect.signature(cls.__init__).parameters
        whole = {name: args.get(name, defaults[name].default) for name in cls.choices()}
        return Node(kind, inputs, tuple(whole.items()))

    def network(
        self, nodes: Sequence[Node], recipe: Recipe, *, width: int = 16, linear: bool = False
    ) -> Candidate:
        """Return a network whose nodes read every raw input that the columns have."""
        fed = tuple(node if node.inputs else replace(node, inputs=self.inputs) for node in nodes)
        return Candidate(NEURAL, recipe, Features(), Architecture(fed, width, linear))

    def baselines(self) -> list[tuple[str, Candidate]]:
        plain = self.start_recipe(embedding_l2=1e-4, batch_size=1024)
        linear = Candidate(LINEAR, plain, Features(), Architecture((), 0, linear=True))
        return [
            ("popularity", Candidate(POPULARITY, Recipe({"prior_strength": 20.0}))),
            ("linear", linear),
            ("lightgbm", Candidate(TREE, Recipe(TREE_DEFAULTS))),
        ]
