"""What Bayesian optimisation learns from: finished, failed and running trials, and foreign ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autorec.architecture import Value
from autorec.candidate import TREE, Candidate, Recipe
from autorec.errors import SpaceError
from autorec.schema import Layout
from autorec.search._bayesian_distance import Describer, Traits
from autorec.search._bayesian_kernel import Weights, standardised
from autorec.search._bayesian_moves import Moves
from autorec.search._bayesian_pairs import Pairs
from autorec.search._evolution_population import History, Worth, fitness_places
from autorec.search.records import lost
from autorec.seeding import derive
from autorec.space import Ask, Space


@dataclass(frozen=True)
class Row:
    """One trial: its number, its canonical candidate, its worth (None where it failed), and the
    form that its network was built of (None where no worker has built one).
    """

    number: int
    twin: Candidate
    worth: Worth
    built: Candidate | None = None


@dataclass(frozen=True)
class Past:
    """The trials of a study at one moment.

    Attributes:
        rows: finished trials by completion time.
        failed: trials that failed for a reason of their own: as bad as the worst.
        pending: what other workers run, as far as its genes are told.
        tried: canonical forms of all three.
    """

    rows: list[Row]
    failed: list[Row]
    pending: list[Row]
    tried: set[Candidate]


class Memory(History):
    """What one engine keeps of one study; losing it costs time only."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self.describe = Describer(space)
        self.moves = Moves(space)
        self.learnt: tuple[int, ...] = ()
        self.weights: Weights | None = None
        self.pairs = Pairs(np.zeros(len(self.describe.groups)))
        self._traits: dict[int, tuple[Candidate, Traits]] = {}

    def past(self, study: Study, own: int) -> Past:
        """Return the trials of `study` but `own`."""
        members, tried = self.read(study, own)
        rows = [Row(one.number, one.twin, one.worth, one.built) for one in members]
        failed: list[Row] = []
        pending: list[Row] = []
        states = (TrialState.FAIL, TrialState.RUNNING)
        for trial in study.get_trials(deepcopy=False, states=states):
            twin = None if trial.number == own or lost(trial) else self._twin(trial)
            if twin is not None:
                kind = failed if trial.state == TrialState.FAIL else pending
                kind.append(Row(trial.number, twin, None))
        return Past(rows, failed, pending, tried)

    def traits(self, rows: Sequence[Row]) -> dict[int, Traits]:
        """Return the traits of trials by number; each is described once."""
        found = {}
        for row in rows:
            known = self._traits.get(row.number)
            if known is None or known[0] != row.twin:
                known = row.twin, self.describe(row.twin)
                self._traits[row.number] = known
            found[row.number] = known[1]
        return found


def chosen(rows: Sequence[Row], most: int, seed: int) -> list[Row]:
    """Return at most `most` of `rows` by number: the best quarter, and others by lot.

    Each trial draws its lot once and for all, so that another trial changes little.
    """
    if len(rows) > most:
        places = fitness_places([row.worth for row in rows])
        order = np.argsort(places, kind="stable").tolist()
        lots = {i: _lot(seed, rows[i].number) for i in order[most // 4 :]}
        others = sorted(lots, key=lots.__getitem__)
        rows = [rows[i] for i in (*order[: most // 4], *others[: most - most // 4])]
    return sorted(rows, key=lambda row: row.number)


@lru_cache(maxsize=100_000)
def _lot(seed: int, number: int) -> int:
    return derive(seed, "engine", number, "lot")


def scores(rows: Sequence[Row]) -> np.ndarray:
    """Return standardised scores (n,), higher is better; several objectives by their places."""
    worths = [row.worth for row in rows]
    if max((len(worth) for worth in worths if worth is not None), default=1) > 1:
        return standardised(-fitness_places(worths))
    return standardised(np.asarray([-np.inf if worth is None else worth[0] for worth in worths]))


@dataclass
class Foreign(Space):
    """The parameters that all finished trials of anyone's study share, as settings of a recipe."""

    genes: dict[str, BaseDistribution]
    layout: Layout = field(default_factory=Layout)

    name = "foreign"

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial]) -> Foreign:
        """Return the parameters that have the same distribution in each of `trials`."""
        shared = dict(trials[0].distributions) if trials else {}
        for trial in trials[1:]:
            own = trial.distributions
            shared = {n: gene for n, gene in shared.items() if n in own and own[n] == gene}
        plain = (bool, int, float, str, type(None))
        for name, gene in list(shared.items()):
            if isinstance(gene, CategoricalDistribution) and not all(
                isinstance(choice, plain) and choice == choice for choice in gene.choices
            ):
                del shared[name]
        return cls(dict(sorted(shared.items())))

    def walk(self, ask: Ask) -> Candidate:
        return Candidate(TREE, Recipe({name: ask(name) for name in self.genes}))

    def params(self, candidate: Candidate) -> dict[str, Value]:
        missing = [name for name in self.genes if name not in candidate.recipe]
        if missing:
            raise SpaceError(f"a candidate here has {list(self.genes)}, but lacks {missing}")
        return dict(candidate.recipe)

    def canonical(self, candidate: Candidate) -> Candidate:
        return candidate

    def starts(self) -> list[tuple[str, Candidate]]:
        return []

    def baselines(self) -> list[tuple[str, Candidate]]:
        return []

    def size(self) -> float:
        return 1.0

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "arguments": {}}
