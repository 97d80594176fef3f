"""DAGs of interaction blocks with their recipe, beside boosted trees: the shared body of spaces.

Gene names are stable and carry the kind: `family`, `block2.kind`, `block2.from1`,
`block2.mlp.width`, `recipe.lr`, `tree.num_leaves`. Structural genes of a network are always asked;
a block's own arguments only for its kind; the genes of a family only within it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autorec.architecture import DENSE, NONE, SPARSE, Architecture, Node, Source, Value, canonical
from autorec.candidate import LINEAR, NEURAL, POPULARITY, TREE, Candidate, Features, Recipe
from autorec.catalogue import Catalogue
from autorec.errors import SpaceError
from autorec.schema import Layout
from autorec.space import Ask, Space, cardinality, tidy

BLOCKS = Catalogue("autorec.blocks", leaf="Block")
_BIT = CategoricalDistribution((False, True))
_TREE_GENES: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(0.02, 0.3, log=True),
    "num_leaves": IntDistribution(15, 255, log=True),
    "min_child_samples": IntDistribution(5, 200, log=True),
    "feature_fraction": FloatDistribution(0.5, 1.0),
    "bagging_fraction": FloatDistribution(0.5, 1.0),
    "reg_lambda": FloatDistribution(1e-3, 30.0, log=True),
    "cat_smooth": FloatDistribution(1.0, 100.0, log=True),
    "cat_l2": FloatDistribution(0.1, 100.0, log=True),
}
# LightGBM's own defaults: on two of three public logs they beat 300 s of tuning.
TREE_DEFAULTS: dict[str, Value] = {
    "learning_rate": 0.1,
    "num_leaves": 31,
    "min_child_samples": 20,
    "feature_fraction": 1.0,
    "bagging_fraction": 1.0,
    "reg_lambda": 1e-3,
    "cat_smooth": 10.0,
    "cat_l2": 10.0,
}


class DagSpace(Space):
    """Networks of up to `blocks` blocks of `kinds`, and trees, on columns of `layout`.

    Args:
        layout: the columns; decides which raw inputs exist.
        rows: training rows, which decide the batch size that the known recipes start from.
        blocks: most blocks in one network (B).
        kinds: block kinds; None takes every interaction block of the catalogue.
        families: `"neural"`, `"tree"` or both.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        rows: int = 100_000,
        blocks: int = 4,
        kinds: Sequence[str] | None = None,
        families: Sequence[str] = (NEURAL, TREE),
    ) -> None:
        unknown = [family for family in families if family not in (NEURAL, TREE)]
        if unknown or not families:
            raise SpaceError(f"families must be 'neural' or 'tree', but got {list(families)}")
        if blocks < 1:
            raise SpaceError(f"a space needs at least 1 block, but got blocks={blocks}")
        self.layout, self.rows, self.blocks = layout, int(rows), blocks
        self.families = tuple(families)
        known = {name: BLOCKS.get(name) for name in (kinds or BLOCKS.names())}
        self._classes = {n: c for n, c in known.items() if c.role == "interaction"}
        self.kinds = tuple(self._classes)
        self._field_kinds = frozenset(n for n, c in self._classes.items() if c.reads == "field")
        self._has_tables = bool(layout.sparse or layout.lists)
        self.genes = self._all_genes()

    def recipe_genes(self) -> dict[str, BaseDistribution]:
        """Return the genes of a network's training recipe; a space may narrow or widen them."""
        return {
            "lr": FloatDistribution(2e-4, 1e-2, log=True),
            "embedding_l2": FloatDistribution(1e-9, 0.3, log=True),
            "batch_size": CategoricalDistribution((256, 1024, 4096, 16384)),
            "schedule": CategoricalDistribution(("plateau", "cosine", "constant")),
            "epochs": IntDistribution(1, 16, log=True),
            "ema": CategoricalDistribution((0.0, 0.99, 0.999)),
        }

    def to_json(self) -> dict[str, Any]:
        arguments = {
            "rows": self.rows,
            "blocks": self.blocks,
            "kinds": list(self.kinds),
            "families": list(self.families),
        }
        return {"name": self.name, "arguments": arguments}

    def _all_genes(self) -> Mapping[str, BaseDistribution]:
        genes: dict[str, BaseDistribution] = {"family": CategoricalDistribution(self.families)}
        if TREE in self.families:
            genes.update({f"tree.{name}": gene for name, gene in _TREE_GENES.items()})
        if NEURAL not in self.families:
            return genes
        if self.layout.dense:
            genes["feature.numeric"] = CategoricalDistribution(("dense", "bins", "both"))
        genes["embedding.width"] = BLOCKS.get("embedding").choices()["width"]
        genes["head.linear"] = _BIT
        for i in range(1, self.blocks + 1):
            genes[f"block{i}.kind"] = CategoricalDistribution((NONE, *self.kinds))
            genes.update({f"block{i}.{bit}": _BIT for bit in self._bits(i)})
            for kind, block in self._classes.items():
                for arg, gene in block.choices().items():
                    genes[f"block{i}.{kind}.{arg}"] = gene
        genes.update({f"recipe.{name}": gene for name, gene in self.recipe_genes().items()})
        return genes

    @staticmethod
    def _bits(block: int) -> list[str]:
        return [DENSE, SPARSE, *(f"from{j}" for j in range(1, block))]

    def walk(self, ask: Ask) -> Candidate:
        if ask("family") == TREE:
            return Candidate(TREE, Recipe({name: ask(f"tree.{name}") for name in _TREE_GENES}))
        numeric = str(ask("feature.numeric")) if self.layout.dense else "both"
        width, linear = int(ask("embedding.width")), bool(ask("head.linear"))
        nodes = tuple(self._walk_block(ask, i) for i in range(1, self.blocks + 1))
        recipe = {
            name: ask(f"recipe.{name}")
            for name in ("lr", "embedding_l2", "batch_size", "schedule", "ema")
        }
        if recipe["schedule"] == "cosine":
            recipe["epochs"] = ask("recipe.epochs")
        return Candidate(
            NEURAL, Recipe(recipe), Features(numeric), Architecture(nodes, width, linear)
        )

    def _walk_block(self, ask: Ask, i: int) -> Node:
        kind = str(ask(f"block{i}.kind"))
        inputs: list[Source] = []
        for bit in self._bits(i):
            if ask(f"block{i}.{bit}"):
                inputs.append(int(bit[4:]) - 1 if bit.startswith("from") else bit)
        args = [] if kind == NONE else sorted(self._classes[kind].choices())
        values = tuple((arg, ask(f"block{i}.{kind}.{arg}")) for arg in args)
        return Node(kind, tuple(inputs), values)

    def params(self, candidate: Candidate) -> dict[str, Value]:
        if candidate.family not in self.families:
            raise SpaceError(f"this space searches {self.families}, but got {candidate.family!r}")
        if candidate.family == TREE:
            tree = {f"tree.{name}": candidate.recipe[name] for name in _TREE_GENES}
            return {"family": TREE, **tree}
        found: dict[str, Value] = {"family": NEURAL}
        if self.layout.dense:
            found["feature.numeric"] = candidate.features.numeric
        architecture = candidate.architecture
        if architecture is None or len(architecture.nodes) > self.blocks:
            raise SpaceError(
                f"a network here has at most {self.blocks} blocks, but got {candidate}"
            )
        found["embedding.width"] = architecture.embedding_width or self.genes["embedding.width"].low  # type: ignore[attr-defined]
        found["head.linear"] = architecture.linear
        for i in range(1, self.blocks + 1):
            node = architecture.nodes[i - 1] if i <= len(architecture.nodes) else Node(NONE)
            found.update(self._block_params(i, node))
        recipe = self._recipe_defaults() | dict(candidate.recipe)
        if recipe["schedule"] != "cosine":
            recipe.pop("epochs")
        return found | {f"recipe.{name}": value for name, value in recipe.items()}

    def _block_params(self, i: int, node: Node) -> dict[str, Value]:
        if node.kind != NONE and node.kind not in self._classes:
            raise SpaceError(f"a block here is one of {self.kinds}, but got {node.kind!r}")
        found: dict[str, Value] = {f"block{i}.kind": node.kind}
        for bit in self._bits(i):
            source: Source = int(bit[4:]) - 1 if bit.startswith("from") else bit
            found[f"block{i}.{bit}"] = source in node.inputs
        return found | {f"block{i}.{node.kind}.{arg}": value for arg, value in node.args}

    @staticmethod
    def _recipe_defaults() -> dict[str, Value]:
        return {"embedding_l2": 1e-9, "epochs": 1}

    def canonical(self, candidate: Candidate) -> Candidate:
        if candidate.architecture is None:
            return replace(candidate, features=Features())
        features = candidate.features
        raws = set()
        if self.layout.dense and features.dense:
            raws.add(DENSE)
        if self._table_fields(features):
            raws.add(SPARSE)
        nodes = tuple(self._tidied(node) for node in candidate.architecture.nodes)
        raw = replace(candidate.architecture, nodes=nodes)
        plan = canonical(raw, frozenset(raws), self._field_kinds)
        tables = plan.linear or plan.reads(SPARSE)
        recipe = dict(candidate.recipe)
        if SPARSE not in raws or not tables:
            recipe.pop("embedding_l2", None)
        if recipe.get("schedule") != "cosine":
            recipe.pop("epochs", None)
        numeric = self._effective_numeric(features, plan, tables)
        return replace(
            candidate, features=Features(numeric), architecture=plan, recipe=Recipe(recipe)
        )

    def _tidied(self, node: Node) -> Node:
        """Return `node` with one spelling of each value: 0.3 and 0.1 * 3 are one dropout."""
        if node.kind not in self._classes:
            return node
        genes = self._classes[node.kind].choices()
        args = [(arg, tidy(genes[arg], v) if arg in genes else v) for arg, v in node.args]
        return replace(node, args=tuple(args))

    def _table_fields(self, features: Features) -> bool:
        ids = any(not field.binned for field in self.layout.sparse)
        return ids or bool(self.layout.lists) or (features.bins and bool(self.layout.dense))

    def _effective_numeric(self, features: Features, plan: Architecture, tables: bool) -> str:
        if not self.layout.dense:
            return "both"
        dense = features.dense and (plan.linear or plan.reads(DENSE))
        bins = features.bins and tables
        return "both" if dense and bins else "bins" if bins else "dense"

    def size(self) -> float:
        def card(prefix: str) -> float:
            names = [name for name in self.genes if name.startswith(prefix)]
            return prod(cardinality(self.genes[name]) for name in names)

        tree = card("tree.") if TREE in self.families else 0
        if NEURAL not in self.families:
            return tree
        per_block = [
            2 ** len(self._bits(i)) * (1 + sum(card(f"block{i}.{kind}.") for kind in self.kinds))
            for i in range(1, self.blocks + 1)
        ]
        shared = card("feature.") * card("embedding.") * card("head.") * self._recipes(card)
        return float(tree + shared * prod(per_block))

    def _recipes(self, card: Callable[[str], float]) -> float:
        """Return how many recipes there are: epochs are asked with a cosine schedule only."""
        epochs, schedules = card("recipe.epochs"), card("recipe.schedule")
        return card("recipe.") / (epochs * schedules) * (schedules - 1 + epochs)

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

    def network(
        self, nodes: Sequence[Node], recipe: Recipe, *, width: int = 16, linear: bool = False
    ) -> Candidate:
        """Return a network whose nodes read every raw input that the columns have."""
        raws = ([DENSE] if self.layout.dense else []) + ([SPARSE] if self._has_tables else [])
        fed = tuple(node if node.inputs else replace(node, inputs=tuple(raws)) for node in nodes)
        return Candidate(NEURAL, recipe, Features(), Architecture(fed, width, linear))

    def baselines(self) -> list[tuple[str, Candidate]]:
        plain = self.start_recipe(embedding_l2=1e-4, batch_size=1024)
        linear = Candidate(LINEAR, plain, Features(), Architecture((), 0, linear=True))
        return [
            ("popularity", Candidate(POPULARITY, Recipe({"prior_strength": 20.0}))),
            ("linear", linear),
            ("lightgbm", Candidate(TREE, Recipe(TREE_DEFAULTS))),
        ]
