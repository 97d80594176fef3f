"""DAGs of interaction blocks with their recipe, beside boosted trees: the shared body of spaces.

Gene names are stable and carry the kind: `family`, `block2.kind`, `block2.from1`,
`block2.mlp.width`, `recipe.lr`, `tree.num_leaves`. Structural genes of a network are always asked;
a block's own arguments only for its kind; the genes of a family only within it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, ClassVar

from optuna.distributions import BaseDistribution, CategoricalDistribution

from autorec.architecture import (
    DENSE,
    NONE,
    PAIRS,
    SHARED,
    SPARSE,
    SPARSE2,
    Architecture,
    Node,
    Source,
    Value,
    canonical,
)
from autorec.candidate import NEURAL, TREE, Candidate, Features, Recipe
from autorec.errors import SpaceError
from autorec.schema import Layout
from autorec.search_spaces._features import DROP, effective, feature_genes, in_order, walked
from autorec.search_spaces._features import canonical as canonical_features
from autorec.search_spaces._features import params as params_of
from autorec.search_spaces._genes import (
    BIT,
    BLOCKS,
    CROSS_L2,
    LARGE_TABLE,
    MOST_BLOCKS,
    MOST_PAIRED_FIELDS,
    MOST_PAIRED_ROWS,
    RECIPE_DEFAULTS,
    RECIPE_GENES,
    TABLE_OPTIMIZERS,
    TREE_GENES,
    can_distil,
)
from autorec.search_spaces._inputs import EARLIER, InputGenes
from autorec.search_spaces._points import PointsSpace
from autorec.space import Ask, cardinality, tidy


class DagSpace(PointsSpace):
    """Networks of up to `blocks` blocks of `kinds`, and trees, on columns of `layout`.

    Args:
        layout: the columns; decides which raw inputs exist.
        rows: training rows, which decide the batch size that the known recipes start from.
        blocks: most blocks in one network (B), at most 12.
        kinds: block kinds; None takes every interaction block of the catalogue.
        families: `"neural"`, `"tree"` or both.
        starts: names of known architectures (`named`) to try first; None leaves it to the space.
        field_order: columns of the table, the most important first (`learn_order`).
    """

    earlier: ClassVar[Mapping[str, Value]] = {**EARLIER, DROP: 0}

    def __init__(
        self,
        layout: Layout,
        *,
        rows: int = 100_000,
        blocks: int = 4,
        kinds: Sequence[str] | None = None,
        families: Sequence[str] = (NEURAL, TREE),
        starts: Sequence[str] | None = None,
        field_order: Sequence[str] | None = None,
    ) -> None:
        unknown = [family for family in families if family not in (NEURAL, TREE)]
        if unknown or not families:
            raise SpaceError(f"families must be 'neural' or 'tree', but got {list(families)}")
        if not 1 <= blocks <= MOST_BLOCKS:
            raise SpaceError(f"a network has 1 to {MOST_BLOCKS} blocks, but got blocks={blocks}")
        self.layout, self.rows, self.blocks = layout, int(rows), blocks
        self.families = tuple(families)
        known = {name: BLOCKS.get(name) for name in (kinds or BLOCKS.names())}
        self.classes = {n: c for n, c in known.items() if c.role == "interaction"}
        self.kinds = tuple(self.classes)
        self._field_kinds = frozenset(n for n, c in self.classes.items() if c.reads == "field")
        sizes = [f.rows for f in layout.sparse] + [f.rows for f in layout.lists]
        self.inputs = ((DENSE,) if layout.dense else ()) + ((SPARSE,) if sizes else ())
        self._large = sum(sizes) >= LARGE_TABLE
        self._inputs = InputGenes(layout)
        few = 2 <= len(sizes) <= MOST_PAIRED_FIELDS
        paired = few and sum(sizes) * len(sizes) <= MOST_PAIRED_ROWS
        self.raws = (DENSE, SPARSE, SPARSE2, *([PAIRS] if paired else []))
        # Walks and canonical forms ask for these a hundred times a proposal.
        self._choices = {kind: cls.choices() for kind, cls in self.classes.items()}
        self._width = self._inputs.width
        self.field_order: tuple[str, ...] | None = None
        if field_order is not None:
            self.learn_order(field_order)
        self.genes = self._all_genes()
        self.chosen = None if starts is None else tuple(starts)
        if starts is not None:
            self.starts()

    def recipe_genes(self) -> dict[str, BaseDistribution]:
        """Return the genes of a network's training recipe; a space may narrow or widen them."""
        return RECIPE_GENES | ({"table_optimizer": TABLE_OPTIMIZERS} if self._large else {})

    def learn_order(self, order: Sequence[str]) -> None:
        """Let candidates leave columns out, from the end of `order`.

        The genes stay as they are, and so does the version: a search may learn the order while it
        runs, once a model is there to tell it. Its earlier candidates leave nothing out.

        Args:
            order: columns of the table, the most important first.

        Raises:
            SpaceError: they are not those that the layout has.
        """
        self.field_order = in_order(order, self.layout)

    def _asked(self, family: str) -> tuple[str, ...]:
        """Return the genes of columns that are asked now."""
        names = self._feature_names[family]
        return names if self.field_order else tuple(name for name in names if name != DROP)

    def to_json(self) -> dict[str, Any]:
        arguments = {
            "rows": self.rows,
            "blocks": self.blocks,
            "kinds": list(self.kinds),
            "families": list(self.families),
            "starts": None if self.chosen is None else list(self.chosen),
        }
        if self.field_order is not None:
            arguments["field_order"] = list(self.field_order)
        return {"name": self.name, "arguments": arguments}

    def _all_genes(self) -> Mapping[str, BaseDistribution]:
        genes: dict[str, BaseDistribution] = {"family": CategoricalDistribution(self.families)}
        own = {f: feature_genes(self.layout, network=f == NEURAL) for f in self.families}
        self._feature_names = {family: tuple(found) for family, found in own.items()}
        for found in own.values():
            genes |= found
        if TREE in self.families:
            genes.update({f"tree.{name}": gene for name, gene in TREE_GENES.items()})
        if NEURAL not in self.families:
            return genes
        genes["embedding.width"] = self._width
        genes |= self._inputs.genes()
        genes["head.linear"] = BIT
        for i in range(1, self.blocks + 1):
            genes[f"block{i}.kind"] = CategoricalDistribution((NONE, *self.kinds))
            genes.update({f"block{i}.{bit}": BIT for bit in self._bits(i)})
            for kind, own in self._choices.items():
                for arg, gene in own.items():
                    genes[f"block{i}.{kind}.{arg}"] = gene
        genes.update({f"recipe.{name}": gene for name, gene in self.recipe_genes().items()})
        return genes | ({"recipe.cross_l2": CROSS_L2} if self._inputs.crosses else {})

    def _bits(self, block: int) -> list[str]:
        return [*self.raws, *(f"from{j}" for j in range(1, block))]

    def walk(self, ask: Ask) -> Candidate:
        family = str(ask("family"))
        features = walked(ask, self._asked(family), self.field_order or ())
        if family == TREE:
            recipe = Recipe({name: ask(f"tree.{name}") for name in TREE_GENES})
            return Candidate(TREE, recipe, features)
        width = int(ask("embedding.width"))
        inputs = self._inputs.walk(ask, features)
        linear = bool(ask("head.linear"))
        nodes = tuple(self._walk_block(ask, i) for i in range(1, self.blocks + 1))
        names = [name for name in self.recipe_genes() if name != "epochs"]
        values = {name: ask(f"recipe.{name}") for name in names}
        if values["schedule"] == "cosine":
            values["epochs"] = ask("recipe.epochs")
        plan = Architecture(nodes, width, linear, **inputs)
        if plan.crosses != SHARED:
            values["cross_l2"] = ask("recipe.cross_l2")
        return Candidate(NEURAL, Recipe(values), features, plan)

    def _walk_block(self, ask: Ask, i: int) -> Node:
        kind = str(ask(f"block{i}.kind"))
        inputs: list[Source] = []
        for bit in self._bits(i):
            if ask(f"block{i}.{bit}"):
                inputs.append(int(bit[4:]) - 1 if bit.startswith("from") else bit)
        args = [] if kind == NONE else sorted(self._choices[kind])
        values = tuple((arg, ask(f"block{i}.{kind}.{arg}")) for arg in args)
        return Node(kind, tuple(inputs), values)

    def params(self, candidate: Candidate) -> dict[str, Value]:
        if candidate.family not in self.families:
            raise SpaceError(f"this space searches {self.families}, but got {candidate.family!r}")
        found: dict[str, Value] = {"family": candidate.family}
        order = self.field_order or ()
        found |= params_of(candidate.features, self._asked(candidate.family), order)
        if candidate.family == TREE:
            return found | {f"tree.{name}": candidate.recipe[name] for name in TREE_GENES}
        architecture = candidate.architecture
        if architecture is None or len(architecture.nodes) > self.blocks:
            raise SpaceError(
                f"a network here has at most {self.blocks} blocks, but got {candidate}"
            )
        found["embedding.width"] = architecture.embedding_width or self.genes["embedding.width"].low  # type: ignore[attr-defined]
        found["head.linear"] = architecture.linear
        found |= self._inputs.params(architecture, candidate.features)
        for i in range(1, self.blocks + 1):
            node = architecture.nodes[i - 1] if i <= len(architecture.nodes) else Node(NONE)
            found.update(self._block_params(i, node))
        known = self.recipe_genes()
        defaults = {n: value for n, value in RECIPE_DEFAULTS.items() if n in known}
        recipe = defaults | dict(candidate.recipe)
        if recipe["schedule"] != "cosine":
            recipe.pop("epochs")
        recipe.pop("cross_l2", None)
        if architecture.crosses != SHARED:
            recipe["cross_l2"] = candidate.recipe.get("cross_l2", recipe["embedding_l2"])
        return found | {f"recipe.{name}": value for name, value in recipe.items()}

    def _block_params(self, i: int, node: Node) -> dict[str, Value]:
        if node.kind != NONE and node.kind not in self.classes:
            raise SpaceError(f"a block here is one of {self.kinds}, but got {node.kind!r}")
        found: dict[str, Value] = {f"block{i}.kind": node.kind}
        for bit in self._bits(i):
            source: Source = int(bit[4:]) - 1 if bit.startswith("from") else bit
            found[f"block{i}.{bit}"] = source in node.inputs
        return found | {f"block{i}.{node.kind}.{arg}": value for arg, value in node.args}

    def canonical(self, candidate: Candidate) -> Candidate:
        features = canonical_features(candidate.features, self.layout, candidate.family)
        if candidate.architecture is None:
            plain = features if candidate.family == TREE else Features()
            return replace(candidate, features=plain)
        nodes = tuple(self._tidied(node) for node in candidate.architecture.nodes)
        raw = replace(candidate.architecture, nodes=nodes)
        raws = self._inputs.raws(features, raw)
        raws = raws if PAIRS in self.raws else raws - {PAIRS}
        plan = canonical(raw, raws, self._field_kinds)
        read = effective(features, self.layout, plan)
        recipe = dict(candidate.recipe)
        plan = self._inputs.canonical(plan, read, recipe)
        tables = self._inputs.reads_tables(plan, read)
        if not tables:
            recipe.pop("embedding_l2", None)
        if not tables or recipe.get("table_optimizer") == "adam":
            recipe.pop("table_optimizer", None)
        if plan.crosses == SHARED or recipe.get("cross_l2") == recipe.get("embedding_l2"):
            recipe.pop("cross_l2", None)
        if recipe.get("schedule") != "cosine":
            recipe.pop("epochs", None)
        if not can_distil(str(recipe.get("distil", "none")), plan):
            recipe.pop("distil", None)
        return replace(candidate, features=read, architecture=plan, recipe=Recipe(recipe))

    def _tidied(self, node: Node) -> Node:
        """Return `node` with one spelling of each value: 0.3 and 0.1 * 3 are one dropout."""
        if node.kind not in self.classes:
            return node
        genes = self._choices[node.kind]
        args = [(arg, tidy(genes[arg], v) if arg in genes else v) for arg, v in node.args]
        return replace(node, args=tuple(args))

    def size(self) -> float:
        def card(prefix: str) -> float:
            names = [name for name in self.genes if name.startswith(prefix)]
            return prod(cardinality(self.genes[name]) for name in names)

        columns = {
            f: prod(cardinality(self.genes[n]) for n in self._asked(f)) for f in self.families
        }
        tree = columns[TREE] * card("tree.") if TREE in self.families else 0
        if NEURAL not in self.families:
            return tree
        per_block = [
            2 ** len(self._bits(i)) * (1 + sum(card(f"block{i}.{kind}.") for kind in self.kinds))
            for i in range(1, self.blocks + 1)
        ]
        tables = cardinality(self.genes["embedding.width"]) * self._inputs.size()
        shared = columns[NEURAL] * self._inputs.asked_within() * tables
        shared *= card("head.") * self._recipes(card)
        return float(tree + shared * prod(per_block))

    def _recipes(self, card: Callable[[str], float]) -> float:
        """Return how many recipes there are: epochs are asked with a cosine schedule only."""
        epochs, schedules = card("recipe.epochs"), card("recipe.schedule")
        return card("recipe.") / (epochs * schedules) * (schedules - 1 + epochs)
