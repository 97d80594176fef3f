"""Evolution after AutoCTR (Song et al. 2020): the fit breed, the young stay, a ranker chooses."""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from autorec.architecture import Value
from autorec.candidate import Candidate
from autorec.errors import ConfigError
from autorec.search._evolution_guide import Pooling, Ranker, fit_ranker, refit_size
from autorec.search._evolution_mutation import Mutant, Unit, breed, immigrate, redraw, units
from autorec.search._evolution_population import (
    History,
    Member,
    fitness_places,
    latest,
    parent_probabilities,
    survivors,
    worths,
)
from autorec.search.engine import Engine, finished
from autorec.search.lineage import BRED
from autorec.seeding import derive, numpy_rng
from autorec.space import Space, contains_value

_RANDOM_TRIES = 100


class Evolution(Engine):
    """Breeds candidates from the fit, drops the old, and trains the most promising mutant.

    The first `population` candidates are random, enqueued ones counted in. From then on each trial
    draws a parent from the population by its rank, makes `mutants` candidates that differ from it
    in one active gene (or in one empty block that is filled) and that no trial has tried, and
    proposes the one that a ranker, learnt from the finished trials, puts first. The population
    is what survives a weighted rank of fitness, age and FLOPs among the `2 population` youngest.

    A ranker prefers mutants as good as their parent to those it knows nothing about, and where
    few genes matter it is fed with copies. So every second trial (`immigrants`) it chooses among as
    many random candidates instead, which tell about all genes at once. Best of 50 trials on the
    planted optimum of the engine laws, mean of 4 seeds, 40 candidates: -3.04 without immigrants,
    -1.92 with half, -1.63 with immigrants alone.

    All of this is a function of the finished trials, of what is being tried, and of (seed, trial
    number), so it goes on in another process, and beside other workers, without a word between
    them. The two bounds in seconds are of processor time of the thread and are met on no ordinary
    machine; where one is, proposals depend on the speed of the machine.

    Each proposal is written to the trial as the user attribute `bred`: the number of its parent
    and what was redrawn. Stopped trials take part with the score they were stopped at. With
    several objectives the fit are those of the first non-dominated fronts. On a foreign space
    there are no mutants to choose from: each parameter is the parent's, or redrawn at random about
    once a trial.

    Args:
        space: what candidates are proposed from; None serves foreign studies.
        seed: seeds every draw, together with the number of the trial and its purpose.
        population: size P of the population, and number of random candidates before it breeds.
        mutants: mutants to choose among.
        selection: c in the chance of the parent of rank r, C(P - r + c, c) / C(P + c, c + 1):
            10 gives the best of 20 a chance of 0.37, 0 gives all the same.
        weights: of fitness, age and FLOPs in the rank of survivors.
        immigrants: share of trials that have no parent: their candidates are drawn at random.
            0 is the published loop.
        guidance: False proposes the first mutant: the ablation without a ranker.
        age: False lets all trials compete for survival by fitness and FLOPs alone.
        random_parents: True draws the parent uniformly from the population.
        seconds: bound on breeding for one trial.
        refit_seconds: bound on one fit of the ranker.

    Raises:
        ConfigError: a number is too small to breed with.
    """

    def __init__(
        self,
        space: Space | None,
        *,
        seed: int,
        population: int = 20,
        mutants: int = 100,
        selection: int = 10,
        weights: tuple[float, float, float] = (0.1, 1.0, 0.1),
        immigrants: float = 0.5,
        guidance: bool = True,
        age: bool = True,
        random_parents: bool = False,
        seconds: float = 0.5,
        refit_seconds: float = 2.0,
    ) -> None:
        super().__init__(space, seed=seed)
        if population < 2 or mutants < 1 or selection < 0 or min(weights) < 0:
            raise ConfigError(
                "evolution needs a population of at least 2, at least 1 mutant, and selection and "
                f"weights of at least 0, but got population={population}, mutants={mutants}, "
                f"selection={selection}, weights={weights}; raise them"
            )
        if not 0.0 <= immigrants <= 1.0:
            raise ConfigError(f"a share lies in 0 to 1, but got immigrants={immigrants}; mend it")
        self.population, self.mutants = population, mutants
        self.weights = (weights[0], weights[1] if age else 0.0, weights[2])
        self.guidance, self.immigrants = guidance, immigrants
        self.seconds, self.refit_seconds = seconds, refit_seconds
        self.selection = 0 if random_parents else selection
        self._memories: WeakKeyDictionary[Study, _Memory] = WeakKeyDictionary()

    def propose(self, study: Study, trial: FrozenTrial) -> Candidate | None:
        """Return the mutant that the ranker puts first; a random candidate before P trials."""
        if self.space is None:
            return None
        with self._turn:
            memory = self._memories.get(study) or _Memory(self.space)
            self._memories[study] = memory
            rows, tried = memory.history.read(study, trial.number)
            members = latest(rows)
            if len(members) < self.population:
                return self._fresh(trial, tried)
            parent, brood = self._candidates(memory, members, tried, trial)
            if not brood:
                return self._fresh(trial, tried)
            chosen = brood[0]
            ranker = self._ranker(memory, rows) if len(brood) > 1 else None
            if ranker is not None:
                vectors = np.stack([memory.history.encode(mutant.twin) for mutant in brood])
                chosen = brood[int(np.argmax(ranker(memory.pool(vectors))))]
        if parent is not None:
            bred = {"parent": parent.number, "redrawn": _said(chosen.unit)}
            study._storage.set_trial_user_attr(trial._trial_id, BRED, bred)
        return chosen.raw

    def _candidates(
        self, memory: _Memory, members: list[Member], tried: set[Candidate], trial: FrozenTrial
    ) -> tuple[Member | None, list[Mutant]]:
        """Return what to choose among, and its parent; immigrants have none."""
        count = self.mutants if self.guidance else 1
        until = time.thread_time() + self.seconds
        if self.rng(trial, "immigrant").random() < self.immigrants:
            rng = self.rng(trial, "immigrants")
            return None, immigrate(self._own_space(), count, tried, rng, until)
        parent = self._parent(members, trial)
        rng = self.rng(trial, "mutants")
        kin = (parent.raw, parent.twin, self._units(memory, parent))
        return parent, breed(self._own_space(), kin, count, tried, rng, until)

    def _fresh(self, trial: FrozenTrial, tried: set[Candidate]) -> Candidate:
        """Return a random candidate that is new, or any where a hundred draws were not."""
        space, rng = self._own_space(), self.rng(trial, "sample")
        for _ in range(_RANDOM_TRIES):
            drawn = space.sample(rng)
            if not tried or space.canonical(drawn) not in tried:
                break
        return drawn

    def _parent(self, members: list[Member], trial: FrozenTrial) -> Member:
        alive = survivors(members, self.population, self.weights)
        chances = parent_probabilities(len(alive), self.selection)
        return alive[int(self.rng(trial, "parent").choice(len(alive), p=chances))]

    def _units(self, memory: _Memory, parent: Member) -> list[Unit]:
        if parent.number not in memory.units:
            # Drawn for the parent, not for the trial: kept or not, they are the same.
            rng = numpy_rng(self.seed, "engine", parent.number, "units")
            memory.units[parent.number] = units(self._own_space(), parent.raw, parent.twin, rng)
        return memory.units[parent.number]

    def _ranker(self, memory: _Memory, rows: list[Member]) -> Ranker | None:
        size = refit_size(len(rows), self.population)
        if not self.guidance or not size:
            return None
        learnt = rows[:size]
        numbers = tuple(member.number for member in learnt)
        if memory.ranker is None or memory.learnt != numbers:
            places = fitness_places([member.worth for member in learnt])
            memory.ranker = fit_ranker(
                memory.pool(np.stack([member.vector for member in learnt])),
                places,
                seed=derive(self.seed, "engine", size, "ranker"),
                seconds=self.refit_seconds,
            )
            memory.learnt = numbers
        return memory.ranker

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the value of the trial's parent, or draw one: without a parent, and now and then.

        Each of the m parameters of the parent is redrawn with the chance 1 / m.
        """
        donor = self.once(study, trial, self._drawn_donor)
        if param_name in donor and contains_value(param_distribution, donor[param_name]):
            rng = self.rng(trial, f"mutate {param_name}")
            kept: Value = donor[param_name]
            if rng.random() * len(donor) < 1.0:
                return redraw(param_distribution, kept, rng, near=True)
            return kept
        return super().sample_independent(study, trial, param_name, param_distribution)

    def _drawn_donor(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        past = [other for other in finished(study) if other.params]
        if len(past) < self.population:
            return {}
        if self.weights[1]:
            past = past[-2 * self.population :]
        places = fitness_places([worths(study, other) for other in past])
        best = np.argsort(places, kind="stable")[: self.population]
        chances = parent_probabilities(len(best), self.selection)
        return past[int(best[self.rng(trial, "parent").choice(len(best), p=chances)])].params

    def _own_space(self) -> Space:
        if self.space is None:
            raise ConfigError("breeding needs a space, but got None; make the engine with one")
        return self.space


class _Memory:
    """What one engine keeps of one study; losing it costs time only."""

    def __init__(self, space: Space) -> None:
        self.history = History(space)
        self.pool = Pooling(space)
        self.units: dict[int, list[Unit]] = {}
        self.learnt: tuple[int, ...] = ()
        self.ranker: Ranker | None = None


def _said(unit: Unit) -> str:
    return unit[0] if len(unit) == 1 else unit[0].split(".", 1)[0]
