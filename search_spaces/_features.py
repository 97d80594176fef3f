"""The genes of a candidate's columns: how it reads numbers, how many derived columns it has, and
how many columns of the table it leaves out.

Derived columns come in the order in which screening chose them, each form by itself, so that one
number per form says which ones. Columns are left out from the end of an order of importance, which
is known once a model has been trained (`autorec.evaluate.permutation`); until then none is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from autorec.architecture import BINS, DENSE, PAIRS, SPARSE, SPARSE2, Architecture, Value
from autorec.candidate import TREE, Features, column_of
from autorec.errors import SpaceError
from autorec.schema import Layout
from autorec.space import Ask

NUMERIC, DROP = "feature.numeric", "feature.drop"
# With fewer columns there is nothing to choose.
_LEAST_COLUMNS = 4
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
    if len(columns(layout)) >= _LEAST_COLUMNS:
        genes[DROP] = IntDistribution(0, len(columns(layout)) // 2)
    return genes


def columns(layout: Layout) -> list[str]:
    """Return the columns of the table that a model reads, a number once: what may be left out."""
    names = [column_of(f) for f in layout.sparse if not f.form]
    names += [f.name for f in layout.lists] + [f.name for f in layout.dense if not f.form]
    return list(dict.fromkeys(names))


def in_order(order: Sequence[str], layout: Layout) -> tuple[str, ...]:
    """Return an order of importance of all `columns`, the most important first.

    Raises:
        SpaceError: a column is missing, unknown or named twice.
    """
    known = columns(layout)
    if sorted(order) != sorted(known):
        raise SpaceError(
            f"an order of importance names every column once, {sorted(known)}, but got "
            f"{list(order)}; rank them again"
        )
    return tuple(order)


def walked(ask: Ask, genes: Sequence[str], order: Sequence[str] = ()) -> Features:
    """Ask for `genes`, in their order, and return the choice; `order`: of importance."""
    asked = {name.partition(".")[2]: ask(name) for name in genes}
    counts, rates, ids = (int(asked.get(form, 0)) for form in _NETWORK)
    without = order[len(order) - int(asked.get("drop", 0)) :]
    return Features(str(asked.get("numeric", "both")), counts, rates, ids, tuple(without))


def params(features: Features, genes: Sequence[str], order: Sequence[str] = ()) -> dict[str, Value]:
    """Return the values of `genes`.

    Raises:
        SpaceError: a column is left out that the end of `order` does not have.
    """
    left_out = [len(order) - order.index(name) for name in features.without if name in order]
    if len(left_out) < len(features.without) or (left_out and DROP not in genes):
        raise SpaceError(
            f"columns are left out in the order of {list(order)}, but this candidate is without "
            f"{list(features.without)}"
        )
    drop = max(left_out, default=0)
    names = [name.partition(".")[2] for name in genes]
    return {f"feature.{n}": drop if n == "drop" else getattr(features, n) for n in names}


def canonical(features: Features, layout: Layout, family: str) -> Features:
    """Return the choice without what a family cannot read or the layout does not have."""
    found = available(layout)
    most = {form: min(getattr(features, form), found[form]) for form in _NETWORK}
    known = features.without
    if known:
        known = tuple(name for name in known if name in columns(layout))
    if family == TREE:
        return Features(counts=most["counts"], rates=most["rates"], without=known)
    return replace(
        features, counts=most["counts"], rates=most["rates"], ids=most["ids"], without=known
    )


def effective(features: Features, layout: Layout, plan: Architecture) -> Features:
    """Return the choice without what no part of a network reads.

    Args:
        features: canonical.
        layout: the columns.
        plan: the architecture, canonical but for tables, crosses and numbers.
    """
    read = _effective(features, layout, plan)
    # Without a column numbers may be read in fewer ways, and then another one is not missed.
    while read.without and (again := _effective(read, layout, plan)) != read:
        read = again
    return read


def _effective(features: Features, layout: Layout, plan: Architecture) -> Features:
    tables = plan.linear or any(plan.reads(raw) for raw in (SPARSE, SPARSE2, PAIRS))
    left_out = tuple(n for n in features.without if _would_read(n, features, layout, plan))
    read = replace(features, ids=features.ids if tables else 0, without=left_out)
    dense, bins = _heard(read, layout, plan)
    if not dense and not bins:
        read = replace(read, counts=0, rates=0)
    if not read.numbers_of(layout):
        return replace(read, numeric="both")
    if not dense and not bins and plan.linear:
        return replace(read, numeric="bins")  # as they are, the linear term would read them
    numeric = "both" if dense and bins else "bins" if bins else "dense"
    return replace(read, numeric=numeric)


def _would_read(name: str, features: Features, layout: Layout, plan: Architecture) -> bool:
    """Tell whether a network would read a column that it is without."""
    rest = tuple(other for other in features.without if other != name)
    codes = [column_of(f) for f in layout.sparse if not f.binned]
    if name in codes or any(name == f.name for f in layout.lists):
        return plan.linear or any(plan.reads(raw) for raw in (SPARSE, SPARSE2, PAIRS))
    own = Layout(
        tuple(f for f in layout.sparse if column_of(f) == name),
        (),
        tuple(f for f in layout.dense if column_of(f) == name),
    )
    return any(_heard(replace(features, without=rest), own, plan))


def _heard(features: Features, layout: Layout, plan: Architecture) -> tuple[bool, bool]:
    """Tell whether numbers are read as they are, and as bins or what takes their place."""
    dense = bool(features.dense_of(layout)) and (plan.linear or plan.reads(DENSE))
    embedded = plan.reads(SPARSE) or plan.reads(SPARSE2)
    soft = plan.numbers != BINS and features.bins and bool(features.numbers_of(layout))
    hard = plan.linear or plan.reads(PAIRS) or (embedded and not soft)
    binned = any(layout.sparse[i].binned for i in features.sparse_of(layout))
    return dense, (hard and binned) or (embedded and soft)
