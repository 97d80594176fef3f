"""The genes that spaces of networks and trees share, and the values of known recipes."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autorec.architecture import TABLE, Architecture, Value
from autorec.catalogue import Catalogue

BLOCKS = Catalogue("autorec.blocks", leaf="Block")
BIT = CategoricalDistribution((False, True))
MOST_BLOCKS = 12
# From so many codes on, how tables are trained is a gene.
LARGE_TABLE = 100_000
# Field-aware vectors: F per id, and F(F-1)/2 products per row.
MOST_PAIRED_FIELDS, MOST_PAIRED_ROWS = 24, 4_000_000
# Ways to learn from one's own prediction (`autorec.train.distil`), by what they need.
DISTIL = ("none", "streams", "gap", "dropout")
TREE_GENES: dict[str, BaseDistribution] = {
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
RECIPE_GENES: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(2e-4, 1e-2, log=True),
    "embedding_l2": FloatDistribution(1e-9, 0.3, log=True),
    "batch_size": CategoricalDistribution((256, 1024, 4096, 16384)),
    "schedule": CategoricalDistribution(("plateau", "cosine", "constant")),
    "epochs": IntDistribution(1, 16, log=True),
    "ema": CategoricalDistribution((0.0, 0.99, 0.999)),
    "distil": CategoricalDistribution(DISTIL),
}
# How large id tables are trained (`autorec.train.tables`): exactly, or by their touched rows only.
TABLE_OPTIMIZERS = CategoricalDistribution(("adam", "lazy_adam", "lazy_rowwise_adagrad"))
# L2 of crosses that have tables of their own.
CROSS_L2 = RECIPE_GENES["embedding_l2"]
# What a canonical recipe leaves out because it has no effect there.
RECIPE_DEFAULTS: dict[str, Value] = {
    "embedding_l2": 1e-9,
    "epochs": 1,
    "distil": "none",
    "table_optimizer": "adam",
}


def table_kinds(rows: Sequence[int]) -> list[str]:
    """Return the kinds of id table that are worth a try on columns of so many codes.

    The plain one is always one of them, and the first.
    """
    found = [name for name in BLOCKS.names() if BLOCKS.get(name).role == "table"]
    return [TABLE, *(k for k in found if k != TABLE and sum(rows) >= BLOCKS.get(k).least_codes)]


def can_distil(kind: str, plan: Architecture) -> bool:
    """Tell whether a way of self-distillation has an effect on networks of `plan`."""
    if kind in ("streams", "gap"):
        return len(plan.sinks) > 1
    args = [arg for node in plan.nodes for arg in node.args]
    return kind == "dropout" and any("dropout" in name and float(v) > 0 for name, v in args)
