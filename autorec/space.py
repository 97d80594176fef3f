"""The contract of a search space, and everything that follows from walking its genes.

A space is one function, `walk(ask)`, that asks for genes by name in a fixed order and builds a
candidate from the answers. Sampling, Optuna's define-by-run `suggest`, decoding of stored
parameters and listing of distributions are that same walk with another `ask`. Only the way back,
from a candidate to its genes, is written separately (`params`), and a law checks that the two
agree.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from autorec.architecture import Value
from autorec.candidate import Candidate
from autorec.catalogue import Catalogue
from autorec.errors import SpaceError

if TYPE_CHECKING:
    import numpy as np
    import optuna

    from autorec.schema import Layout

Ask = Callable[[str], Value]
SPACES = Catalogue("autorec.search_spaces", leaf="Space")


class Space(ABC):
    """A set of candidates on the columns of `layout`.

    A subclass gives `genes` (every gene by its stable name, `block3.kind`, `recipe.lr`), `walk`,
    `params`, `canonical`, `starts` and `baselines`; the rest is derived here.
    """

    name: ClassVar[str]
    # Genes that were added later, and what candidates had before.
    earlier: ClassVar[Mapping[str, Value]] = {}
    layout: Layout
    genes: Mapping[str, BaseDistribution]

    @abstractmethod
    def walk(self, ask: Ask) -> Candidate:
        """Ask for the genes that matter, in a fixed order, and return the raw candidate."""

    @abstractmethod
    def params(self, candidate: Candidate) -> dict[str, Value]:
        """Return the genes of `candidate`: what `decode` turns into a candidate of the same key.

        Raises:
            SpaceError: the candidate is not in this space.
        """

    @abstractmethod
    def canonical(self, candidate: Candidate) -> Candidate:
        """Return `candidate` without genes that change nothing; idempotent."""

    @abstractmethod
    def starts(self) -> list[tuple[str, Candidate]]:
        """Return named candidates that are known to be good, best first: the first trials."""

    @abstractmethod
    def baselines(self) -> list[tuple[str, Candidate]]:
        """Return the named candidates that every leaderboard holds; some lie outside the space."""

    @abstractmethod
    def size(self) -> float:
        """Return how many raw candidates there are, each float gene counted as one value."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the constructor's arguments, JSON-able; `load_space` reads them back."""

    def suggest(self, trial: optuna.trial.BaseTrial) -> Candidate:
        """Return the candidate that `trial` proposes, gene by gene (define-by-run)."""
        return self.walk(lambda n: tidy(self.genes[n], _suggest(trial, n, self.genes[n])))

    def sample(self, rng: np.random.Generator) -> Candidate:
        """Return a candidate drawn uniformly gene by gene."""
        return self.walk(lambda name: sample_value(self.genes[name], rng))

    def decode(self, params: Mapping[str, Value]) -> Candidate:
        """Return the candidate that `suggest` gives on a trial with these parameters.

        A gene of `earlier` may be missing.

        Raises:
            SpaceError: a gene is missing or outside its distribution.
        """
        return self.walk(lambda name: self._looked_up(params, name))

    def distributions(self, candidate: Candidate) -> dict[str, BaseDistribution]:
        """Return the distributions of the genes that `params(candidate)` holds."""
        return {name: self.genes[name] for name in self.params(candidate)}

    def key(self, candidate: Candidate) -> str:
        """Return 16 hex digits, equal for candidates that differ only in genes without effect."""
        text = json.dumps(self.canonical(candidate).to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def encode(self, candidate: Candidate) -> np.ndarray:
        """Return `candidate` as a vector (float32), equal for candidates of equal key.

        Every gene has places of its own, in the order of `genes`: one per choice of a categorical
        gene; for a number, its position between the bounds (in logarithms where the distribution is
        so) and a 1 that tells it is active. Genes that the candidate does not have are zeros.
        """
        import numpy as np

        params = self.params(self.canonical(candidate))
        parts = [_encoded(gene, params.get(name)) for name, gene in self.genes.items()]
        return np.asarray([value for part in parts for value in part], np.float32)

    def contains(self, candidate: Candidate) -> bool:
        """Tell whether `candidate` can be proposed by this space."""
        try:
            return self.key(self.decode(self.params(candidate))) == self.key(candidate)
        except SpaceError:
            return False

    @property
    def version(self) -> str:
        """12 hex digits over distributions and columns: a study of another version is not resumed.

        Sizes of vocabularies are left out: they move with the rows, and genes do not.
        """
        table = {name: distribution_to_json(gene) for name, gene in sorted(self.genes.items())}
        ids = [(field.name, field.binned) for field in self.layout.sparse]
        lists, dense = self.layout.lists, self.layout.dense
        others = [[field.name for field in lists], [field.name for field in dense]]
        text = json.dumps([self.name, table, ids, others])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return `candidate` with one gene redrawn, so that its key differs.

        Genes that become active by the change are drawn at random.

        Raises:
            SpaceError: no different candidate was found in 200 draws (a space of one point).
        """
        params = self.params(candidate)
        names = sorted(params)
        for _ in range(200):
            name = names[int(rng.integers(len(names)))]
            changed = {**params, name: sample_value(self.genes[name], rng)}
            mutant = self.walk(
                lambda n, g=changed: g[n] if n in g else sample_value(self.genes[n], rng)  # type: ignore[misc]
            )
            if self.key(mutant) != self.key(candidate):
                return mutant
        raise SpaceError(f"no neighbour of {candidate} differs from it; widen the space")

    def _looked_up(self, params: Mapping[str, Value], name: str) -> Value:
        if name not in params and name in self.earlier:
            return self.earlier[name]
        if name not in params:
            raise SpaceError(
                f"a stored candidate needs the gene {name!r}, but has {sorted(params)}"
            )
        gene, value = self.genes[name], params[name]
        if not contains_value(gene, value):
            raise SpaceError(f"gene {name!r} must lie in {gene}, but got {value!r}")
        return tidy(gene, value)


def load_space(data: Mapping[str, Any], layout: Layout) -> Space:
    """Rebuild a space from `to_json` for columns of `layout`."""
    made: Space = SPACES.get(data["name"])(layout, **data["arguments"])
    return made


def contains_value(gene: BaseDistribution, value: Value) -> bool:
    """Tell whether `value` lies in `gene`, type included (`True` is not 1)."""
    if isinstance(gene, CategoricalDistribution):
        return any(value == c and type(value) is type(c) for c in gene.choices)
    if isinstance(value, (bool, str)):
        return False
    return gene._contains(gene.to_internal_repr(value))


def tidy(gene: BaseDistribution, value: Value) -> Value:
    """Return the one spelling of a value: 0.3 for 0.1 * 3, and an int for an int gene."""
    if isinstance(gene, IntDistribution):
        return int(value)
    if isinstance(gene, FloatDistribution):
        return round(float(value), 10) if gene.step is not None else float(value)
    return value


def sample_value(gene: BaseDistribution, rng: np.random.Generator) -> Value:
    """Draw one value of `gene`: uniform, or log-uniform where the distribution is `log`."""
    if isinstance(gene, CategoricalDistribution):
        choice: Any = gene.choices[int(rng.integers(len(gene.choices)))]
        return choice  # type: ignore[no-any-return]
    if isinstance(gene, IntDistribution):
        if gene.log:
            drawn = math.exp(rng.uniform(math.log(gene.low - 0.5), math.log(gene.high + 0.5)))
            return min(gene.high, max(gene.low, round(drawn)))
        steps = (gene.high - gene.low) // gene.step
        return gene.low + gene.step * int(rng.integers(steps + 1))
    if isinstance(gene, FloatDistribution):
        if gene.log:
            drawn = math.exp(rng.uniform(math.log(gene.low), math.log(gene.high)))
            return min(gene.high, max(gene.low, drawn))
        if gene.step is not None:
            steps = round((gene.high - gene.low) / gene.step)
            stepped = min(gene.high, gene.low + gene.step * int(rng.integers(steps + 1)))
            return tidy(gene, stepped)
        return float(rng.uniform(gene.low, gene.high))
    raise SpaceError(f"a gene is an Optuna distribution, but got {gene!r}")


def _encoded(gene: BaseDistribution, value: Value | None) -> list[float]:
    if isinstance(gene, CategoricalDistribution):
        return [float(value is not None and value == choice) for choice in gene.choices]
    if value is None or not isinstance(gene, (IntDistribution, FloatDistribution)):
        return [0.0, 0.0]
    low, high, at = float(gene.low), float(gene.high), float(value)
    if gene.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return [(at - low) / (high - low) if high > low else 0.0, 1.0]


def cardinality(gene: BaseDistribution) -> float:
    """Return how many values `gene` has; a float gene counts as one."""
    if isinstance(gene, CategoricalDistribution):
        return len(gene.choices)
    if isinstance(gene, IntDistribution):
        return (gene.high - gene.low) // gene.step + 1
    return 1


def _suggest(trial: optuna.trial.BaseTrial, name: str, gene: BaseDistribution) -> Value:
    if isinstance(gene, CategoricalDistribution):
        chosen: Any = trial.suggest_categorical(name, gene.choices)
        return chosen  # type: ignore[no-any-return]
    if isinstance(gene, IntDistribution):
        return trial.suggest_int(name, gene.low, gene.high, step=gene.step, log=gene.log)
    if isinstance(gene, FloatDistribution):
        return trial.suggest_float(name, gene.low, gene.high, step=gene.step, log=gene.log)
    raise SpaceError(f"a gene is an Optuna distribution, but got {gene!r}")
