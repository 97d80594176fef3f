"""Mutants: one active gene redrawn, or one sleeping part of the genome woken."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autorec.architecture import Value
from autorec.candidate import Candidate
from autorec.space import Space, cardinality, contains_value, sample_value, tidy

# Genes that are redrawn together: one active gene, or all genes of a part that has no effect.
Unit = tuple[str, ...]
_PROBES = 3
_TRIES = 20
_NEAR = 0.1


@dataclass(frozen=True)
class Mutant:
    """A candidate as its genes say, its canonical form, and the genes that were redrawn."""

    raw: Candidate
    twin: Candidate
    unit: Unit


def units(space: Space, raw: Candidate, twin: Candidate, rng: np.random.Generator) -> list[Unit]:
    """Return what a mutation of `raw` may redraw, so that none is spent on dead genes.

    A gene is active when another value of it gives another canonical form than `twin`. The part of
    a gene is its name up to the first dot (`block3`). A part without an active gene sleeps: no
    single gene of an empty block has an effect, so its genes are redrawn together.
    """
    params = space.params(raw)
    parts: dict[str, list[str]] = {}
    active: list[str] = []
    for name in sorted(params):
        gene = space.genes[name]
        if not isinstance(gene, FloatDistribution) and cardinality(gene) < 2:
            continue
        part = name.split(".", 1)[0]
        parts.setdefault(part, []).append(name)
        if _is_active(space, params, twin, name, rng):
            active.append(name)
    awake = {name.split(".", 1)[0] for name in active}
    return [(name,) for name in active] + [
        tuple(names) for part, names in sorted(parts.items()) if part not in awake
    ]


def _is_active(
    space: Space,
    params: Mapping[str, Value],
    twin: Candidate,
    name: str,
    rng: np.random.Generator,
) -> bool:
    # One value may be without effect where another has one: each way of self-distillation needs
    # a network of its own.
    tried = [params[name]]
    for _ in range(min(_PROBES, int(_others(space.genes[name])))):
        value = redraw(space.genes[name], params[name], rng, near=False)
        if value in tried:
            continue
        tried.append(value)
        if space.canonical(_built(space, {**params, name: value}, rng)) != twin:
            return True
    return False


def _others(gene: BaseDistribution) -> float:
    return _PROBES if isinstance(gene, FloatDistribution) else cardinality(gene) - 1


def breed(
    space: Space,
    parent: tuple[Candidate, Candidate, Sequence[Unit]],
    count: int,
    tried: Collection[Candidate],
    rng: np.random.Generator,
    until: float,
) -> list[Mutant]:
    """Return up to `count` mutants that differ from their parent, one another, and all `tried`.

    Args:
        parent: as its genes say, canonical, and what may be redrawn of it.
        tried: canonical forms that are not to be proposed again.
        until: processor time of this thread, seconds, at which no further one is begun.
    """
    raw, twin, choices = parent
    params = space.params(raw)
    found: dict[Candidate, Mutant] = {}
    for _ in range(_TRIES + 4 * count):
        if len(found) == count or not choices or (found and time.thread_time() > until):
            break
        unit = choices[int(rng.integers(len(choices)))]
        child = mutated(space, params, unit, rng)
        form = space.canonical(child)
        if form != twin and form not in found and form not in tried:
            found[form] = Mutant(child, form, unit)
    return list(found.values())


def immigrate(
    space: Space,
    count: int,
    tried: Collection[Candidate],
    rng: np.random.Generator,
    until: float,
) -> list[Mutant]:
    """Return up to `count` random candidates that differ from one another and from all `tried`."""
    found: dict[Candidate, Mutant] = {}
    for _ in range(_TRIES + 4 * count):
        if len(found) == count or (found and time.thread_time() > until):
            break
        raw = space.sample(rng)
        form = space.canonical(raw)
        if form not in found and form not in tried:
            found[form] = Mutant(raw, form, ())
    return list(found.values())


def mutated(
    space: Space, params: Mapping[str, Value], unit: Unit, rng: np.random.Generator
) -> Candidate:
    """Return the candidate of `params` with the genes of `unit` redrawn.

    A single gene gets another value than it had; genes of a sleeping part may keep theirs. Genes
    that only become active are drawn at random.
    """
    if len(unit) == 1:
        (name,) = unit
        return _built(
            space, {**params, name: redraw(space.genes[name], params[name], rng, near=True)}, rng
        )
    return _built(space, {n: v for n, v in params.items() if n not in unit}, rng)


def _built(space: Space, params: Mapping[str, Value], rng: np.random.Generator) -> Candidate:
    return space.walk(
        lambda name: params[name] if name in params else sample_value(space.genes[name], rng)
    )


def redraw(gene: BaseDistribution, value: Value, rng: np.random.Generator, *, near: bool) -> Value:
    """Return another value of `gene`, or `value` where it has no other.

    With `near`, every second draw of a number is a normal step of a tenth of its range (in
    logarithms where the distribution is so) instead of a uniform draw.
    """
    if isinstance(gene, CategoricalDistribution):
        others = [choice for choice in gene.choices if choice != value]
        chosen: Value = others[int(rng.integers(len(others)))] if others else value  # type: ignore[assignment]
        return chosen
    step = near and bool(rng.integers(2))
    for number in range(2 * _TRIES):
        # A tenth of a short range is less than one step of it, now and then many times in a row.
        drawn = _stepped(gene, value, rng) if step and number < 5 else sample_value(gene, rng)
        if drawn != value and contains_value(gene, drawn):
            return drawn
    return value


def _stepped(gene: BaseDistribution, value: Value, rng: np.random.Generator) -> Value:
    if not isinstance(gene, (IntDistribution, FloatDistribution)):
        return value
    low, high, at = float(gene.low), float(gene.high), float(value)
    if gene.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    at += _NEAR * (high - low) * float(rng.standard_normal())
    at = math.exp(at) if gene.log else at
    if gene.step is not None:
        at = gene.low + gene.step * round((at - gene.low) / gene.step)
    return tidy(gene, min(gene.high, max(gene.low, round(at) if gene.step == 1 else at)))
