"""The genes of a candidate's columns: how it reads numbers, and how many derived columns it has.

Derived columns come in the order in which screening chose them, each form by itself, so that one
number per form says which ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from autorec.architecture import DENSE, Architecture, Value
from autorec.candidate import TREE, Features
from autorec.schema import Layout
from autorec.space import Ask

NUMERIC = "feature.numeric"
_STATISTICS, _NETWORK = ("counts", "rates"), ("counts", "rates", "ids")


def available(layout: Layout) -> dict[str, int]:
    """Return how many derived columns there are of each form, by the names of `Features`."""
    forms = [field.form for field in layout.dense]
    ids = sum(field.form == "id" for field in layout.sparse)
    return {"counts": forms.count("count"), "rates": forms.count("rate"), "ids": ids}


def whole(layout: Layout) -> Features:
    """Return the choice of all derived columns."""
    found = available(layout)
    return Features(counts=found["counts"], rates=found["rates"], ids=found["ids"])


def feature_genes(layout: Layout, *, network: bool) -> dict[str, BaseDistribution]:
    """Return the genes that have an effect on `layout`, by name."""
    genes: dict[str, BaseDistribution] = {}
    if network and layout.dense:
        genes[NUMERIC] = CategoricalDistribution(("dense", "bins", "both"))
    found = available(layout)
    for form in _NETWORK if network else _STATISTICS:
        if found[form]:
            genes[f"feature.{form}"] = IntDistribution(0, found[form])
    return genes


def walked(ask: Ask, genes: Sequence[str]) -> Features:
    """Ask for `genes`, in their order, and return the choice."""
    asked = {name.partition(".")[2]: ask(name) for name in genes}
    counts, rates, ids = (int(asked.get(form, 0)) for form in _NETWORK)
    return Features(str(asked.get("numeric", "both")), counts, rates, ids)


def params(features: Features, genes: Sequence[str]) -> dict[str, Value]:
    """Return the values of `genes`."""
    return {name: getattr(features, name.partition(".")[2]) for name in genes}


def canonical(features: Features, layout: Layout, family: str) -> Features:
    """Return the choice without what a family cannot read or the layout does not have."""
    found = available(layout)
    most = {form: min(getattr(features, form), found[form]) for form in _NETWORK}
    if family == TREE:
        return Features(counts=most["counts"], rates=most["rates"])
    return replace(features, counts=most["counts"], rates=most["rates"], ids=most["ids"])


def effective(features: Features, layout: Layout, plan: Architecture, tables: bool) -> Features:
    """Return the choice without what no part of a network reads.

    Args:
        features: canonical.
        layout: the columns.
        plan: the canonical architecture.
        tables: whether it reads an id table.
    """
    read = replace(features, ids=features.ids if tables else 0)
    dense, bins = _heard(read, layout, plan, tables)
    if not dense and not bins:
        read = replace(read, counts=0, rates=0)
    if not replace(read, numeric="both").dense_of(layout):
        return replace(read, numeric="both")
    numeric = "both" if dense and bins else "bins" if bins else "dense"
    return replace(read, numeric=numeric)


def _heard(
    features: Features, layout: Layout, plan: Architecture, tables: bool
) -> tuple[bool, bool]:
    """Tell whether numbers are read as they are, and as bins."""
    dense = bool(features.dense_of(layout)) and (plan.linear or plan.reads(DENSE))
    bins = tables and any(layout.sparse[i].binned for i in features.sparse_of(layout))
    return dense, bins
