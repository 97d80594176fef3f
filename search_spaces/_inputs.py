"""The genes of what embeds ids and numbers: id tables, tables of crosses, bins of numbers.

They are asked only where they can have an effect: a kind of table where the columns are large
enough for it, crosses where derived ids are read, bins where numbers are read as fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from autorec.architecture import (
    BINS,
    CROSSES,
    DENSE,
    PAIRS,
    SHARED,
    SPARSE,
    SPARSE2,
    TABLE,
    Architecture,
    Value,
)
from autorec.candidate import Features
from autorec.errors import SpaceError
from autorec.schema import Layout, ListField, SparseField
from autorec.search_spaces._features import available
from autorec.search_spaces._genes import BLOCKS, table_kinds
from autorec.space import Ask, cardinality, tidy

KIND, CROSS, NUMBER = "embedding.kind", "embedding.crosses", "numbers.kind"
# What candidates have that were written down before these genes existed.
EARLIER: dict[str, Value] = {KIND: TABLE, CROSS: SHARED, NUMBER: BINS}
Args = tuple[tuple[str, Value], ...]
_MOST_KNOWN = 10_000


class InputGenes:
    """Genes of tables and bins on the columns of `layout`.

    Attributes:
        tables: kinds of id table, the plain one first.
        table_choices, number_choices: the own genes of each kind, the width left out.
        width: the gene of D.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        rows = [f.rows for f in layout.sparse] + [f.rows for f in layout.lists]
        self.tables = tuple(table_kinds(rows))
        # Canonical forms ask a hundred times a proposal, and a catalogue reads its folder.
        self._known: dict[Features, tuple[list[SparseField], list[ListField]]] = {}
        self._classes = {kind: BLOCKS.get(kind) for kind in self.tables}
        tables = {kind: cls.choices() for kind, cls in self._classes.items()}
        self.width = tables[TABLE]["width"]
        self.table_choices = {kind: _own(genes) for kind, genes in tables.items()}
        kinds = [n for n in BLOCKS.names() if BLOCKS.get(n).role == "numbers"] * bool(layout.dense)
        self.number_choices = {kind: _own(BLOCKS.get(kind).choices()) for kind in kinds}
        self.crosses = (SHARED, *CROSSES) if available(layout)["ids"] else ()

    def genes(self) -> dict[str, BaseDistribution]:
        """Return all of them by name, but for the width."""
        found: dict[str, BaseDistribution] = {}
        if len(self.tables) > 1:
            found[KIND] = CategoricalDistribution(self.tables)
        if self.crosses:
            found[CROSS] = CategoricalDistribution(self.crosses)
        if self.number_choices:
            found[NUMBER] = CategoricalDistribution((BINS, *self.number_choices))
        for part, choices in (("embedding", self.table_choices), ("numbers", self.number_choices)):
            for kind, own in choices.items():
                found |= {f"{part}.{kind}.{arg}": gene for arg, gene in own.items()}
        return found

    def walk(self, ask: Ask, features: Features) -> dict[str, Any]:
        """Ask for them, and return arguments of `Architecture`."""
        kind = str(ask(KIND)) if len(self.tables) > 1 else TABLE
        found: dict[str, Any] = {"embedding": kind}
        found["embedding_args"] = _asked(ask, f"embedding.{kind}", self.table_choices[kind])
        if self.crosses and features.ids:
            found["crosses"] = str(ask(CROSS))
        if self.number_choices and features.bins:
            found["numbers"] = kind = str(ask(NUMBER))
            own = self.number_choices.get(kind, {})
            found["numbers_args"] = _asked(ask, f"numbers.{kind}", own)
        return found

    def params(self, plan: Architecture, features: Features) -> dict[str, Value]:
        """Return their values.

        Raises:
            SpaceError: the architecture has a kind that is not one of these genes.
        """
        if plan.embedding not in self.tables:
            raise SpaceError(
                f"an id table here is one of {self.tables}, but got {plan.embedding!r}"
            )
        found: dict[str, Value] = {KIND: plan.embedding} if len(self.tables) > 1 else {}
        found |= {f"embedding.{plan.embedding}.{arg}": v for arg, v in plan.embedding_args}
        if self.crosses and features.ids:
            found[CROSS] = plan.crosses
        elif plan.crosses != SHARED:
            raise SpaceError(f"no crosses are read here, but they are in {plan.crosses!r} tables")
        if self.number_choices and features.bins:
            found[NUMBER] = plan.numbers
            found |= {f"numbers.{plan.numbers}.{arg}": v for arg, v in plan.numbers_args}
        elif plan.numbers != BINS:
            raise SpaceError(f"no number is a field here, but numbers go through {plan.numbers!r}")
        return found

    def _read(self, features: Features) -> tuple[list[SparseField], list[ListField]]:
        """Return the columns of codes and lists that are read."""
        if features not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            sparse = [self.layout.sparse[i] for i in features.sparse_of(self.layout)]
            lists = [self.layout.lists[i] for i in features.lists_of(self.layout)]
            self._known[features] = sparse, lists
        return self._known[features]

    def raws(self, features: Features, plan: Architecture) -> frozenset[str]:
        """Return the raw inputs that a network has on the columns of `features`."""
        sparse, lists = self._read(features)
        fields = len(sparse) + len(lists)
        numbers = plan.numbers != BINS and features.bins and features.numbers_of(self.layout)
        found = [DENSE] * bool(features.dense_of(self.layout))
        found += [SPARSE, SPARSE2] * bool(fields or numbers) + [PAIRS] * (fields > 1)
        return frozenset(found)

    def canonical(
        self, plan: Architecture, features: Features, recipe: Mapping[str, Value]
    ) -> Architecture:
        """Return `plan` without what has no effect on the columns of `features`.

        Args:
            plan: canonical but for tables, crosses and numbers.
            features: effective (`_features.effective`).
            recipe: where the L2 of crosses is.
        """
        embedded = plan.reads(SPARSE) or plan.reads(SPARSE2)
        numbers = embedded and features.bins and bool(features.numbers_of(self.layout))
        if not numbers or plan.numbers == BINS:
            plan = replace(plan, numbers=BINS, numbers_args=())
        else:
            genes = self.number_choices.get(plan.numbers, {})
            args = [(a, tidy(genes[a], v) if a in genes else v) for a, v in plan.numbers_args]
            plan = replace(plan, numbers_args=tuple(args))
        if not features.ids:
            plan = replace(plan, crosses=SHARED)
        elif plan.crosses != SHARED and not embedded:
            plan = replace(plan, crosses="full")  # first order: one weight, whatever D is
        if plan.embedding != TABLE:
            plan = self._plain_table(plan, self.looked_up(plan, features))
        same = recipe.get("cross_l2", recipe.get("embedding_l2")) == recipe.get("embedding_l2")
        if plan.crosses == "full" and plan.embedding == TABLE and same:
            plan = replace(plan, crosses=SHARED)
        return plan

    def _plain_table(self, plan: Architecture, rows: Sequence[int]) -> Architecture:
        """Return `plan` with one spelling of tables that compute the same."""
        plain = replace(plan, embedding=TABLE, embedding_args=())
        if not rows:
            return plain
        if plan.embedding not in self._classes:
            return plan
        kind, own = self._classes[plan.embedding], dict(plan.embedding_args)
        args = kind.distinct(rows, plan.embedding_width, **own)
        return plain if args is None else replace(plan, embedding_args=tuple(args.items()))

    def looked_up(self, plan: Architecture, features: Features) -> list[int]:
        """Return the rows of the columns that the id tables of `plan` hold, crosses of their own
        left out.
        """
        fields, lists = self._read(features)
        hard = plan.numbers == BINS
        kept = [f for f in fields if hard or not f.binned]
        if plan.crosses != SHARED:
            kept = [f for f in kept if f.form != "id"]
        return [f.rows for f in kept] + [f.rows for f in lists]

    def reads_tables(self, plan: Architecture, features: Features) -> bool:
        """Tell whether a network has an id table of any kind."""
        fields, lists = self._read(features)
        held = bool(fields or lists)
        if plan.linear or plan.reads(PAIRS) or not held:
            return held
        if not (plan.reads(SPARSE) or plan.reads(SPARSE2)):
            return False
        bins = plan.numbers == BINS
        return bool(lists) or any(bins or not f.binned for f in fields)

    def size(self) -> float:
        """Return how many choices of tables there are for one width: kinds and their own genes."""
        return sum(_product(own) for own in self.table_choices.values())

    def asked_within(self) -> float:
        """Return by how much choices of columns multiply, for genes that some choices wake."""
        found, ids = 1.0, available(self.layout)["ids"]
        if self.number_choices:
            kinds = 1 + sum(_product(own) for own in self.number_choices.values())
            found *= (1 + 2 * kinds) / 3
        return found * (1 + ids * len(self.crosses)) / (1 + ids) if ids else found


def _own(genes: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    return {arg: gene for arg, gene in genes.items() if arg != "width"}


def _asked(ask: Ask, prefix: str, genes: Mapping[str, BaseDistribution]) -> Args:
    return tuple((arg, ask(f"{prefix}.{arg}")) for arg in genes)


def _product(genes: Mapping[str, BaseDistribution]) -> float:
    return prod(cardinality(gene) for gene in genes.values())
