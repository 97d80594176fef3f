"""Bayesian optimisation with network morphism after Auto-Keras (Jin et al., KDD 2019)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from autorec.architecture import Value
from autorec.candidate import Candidate
from autorec.errors import ConfigError
from autorec.search._bayesian_kernel import Posterior, Weights, learn
from autorec.search._bayesian_moves import Leaf, explore
from autorec.search._bayesian_pairs import Pairs, Stored
from autorec.search._bayesian_past import Foreign, Memory, Past, Row, chosen, scores
from autorec.search._evolution_guide import refit_size
from autorec.search.engine import Engine, finished, need_shares
from autorec.search.lineage import tell
from autorec.space import Space, contains_value

_RANDOM_TRIES = 100
# Trials that one fit of the kernel's weights looks at: a step of it costs their cube.
_LEARNT = 128


class Bayesian(Engine):
    """Proposes what a Gaussian process over architectures and recipes hopes most of.

    The first `startup` candidates are random, enqueued ones counted in. From then on the process
    is conditioned on the finished trials, failed ones as bad as the worst and running ones as good
    as predicted, and the tree of edits below the trained candidates is searched (A* with simulated
    annealing) for the candidate with the highest mean + `beta` deviations that no trial has tried.

    Beside the published edits, which only grow a network, a step may redraw a gene: recipes are
    searched too, and in half of the trees a block may shrink, change its kind, or go. Trees lead
    away from what was tried by small steps; every fourth trial compares random candidates instead.

    All of this is a function of the finished trials, of what is being tried, and of (seed, trial
    number). The weights of the kernel are learnt from the first so many trials, a tenth more each
    time, and are the same for every worker. The two bounds in seconds are of processor time of the
    thread and are met on no ordinary machine; where one is, proposals depend on the speed of the
    machine.

    Each proposal below a trained candidate is written to the trial as the user attribute `bred`:
    `parent` (number), `edits` (JSON, in their order) and `redrawn` (genes). Where all of `redrawn`
    are genes of the recipe, the edits lead from the form that the parent was built of to the
    proposal, and its weights are inherited (`autorec.search.lineage`, `autorec.train.inherit`).

    With several objectives scores are places by non-dominated front. On a foreign study the
    parameters that all finished trials share are searched in the same way, the rest at random.

    Args:
        space: what candidates are proposed from; None serves foreign studies.
        seed: seeds every draw, together with the number of the trial and its purpose.
        startup: number of random candidates before the process is asked.
        beta: deviations of hope (Auto-Keras: 2.576).
        expansions: leaves of the tree that are expanded, into at most 8 children each.
        immigrants: share of trials that have no parent: the best of some random candidates is
            proposed. 0 is the published search.
        strangers: how many random candidates those are.
        morphs: share of the others that keep to edits and recipes, so that the child can start
            from the weights of its parent; the rest may also redraw genes of the architecture.
        most: trials that the process is conditioned on: the best quarter, others by lot.
        seconds: bound on the search of the tree for one trial.
        refit_seconds: bound on learning the weights of the kernel.

    Raises:
        ConfigError: a number is too small to search with.
    """

    inherits = True

    def __init__(
        self,
        space: Space | None,
        *,
        seed: int,
        startup: int = 10,
        beta: float = 2.576,
        expansions: int = 5,
        strangers: int = 32,
        immigrants: float = 0.25,
        morphs: float = 0.5,
        most: int = 200,
        seconds: float = 1.5,
        refit_seconds: float = 2.0,
    ) -> None:
        super().__init__(space, seed=seed)
        if startup < 2 or beta < 0 or expansions < 1 or strangers < 0 or most < 4:
            raise ConfigError(
                "bayesian needs startup of at least 2, beta and strangers of at least 0, at least "
                f"1 expansion and most of at least 4, but got startup={startup}, beta={beta}, "
                f"strangers={strangers}, expansions={expansions}, most={most}; raise them"
            )
        need_shares(morphs=morphs, immigrants=immigrants)
        self.startup, self.beta, self.most = startup, beta, most
        self.expansions, self.strangers = expansions, strangers
        self.immigrants, self.morphs = immigrants, morphs
        self.seconds, self.refit_seconds = seconds, refit_seconds
        self._memories: WeakKeyDictionary[Study, Memory] = WeakKeyDictionary()
        self._foreign: WeakKeyDictionary[Study, Memory] = WeakKeyDictionary()

    def propose(self, study: Study, trial: FrozenTrial) -> Candidate | None:
        """Return the most promising leaf; a random candidate before `startup` trials."""
        if self.space is None:
            return None
        with self._turn:
            memory = self._memories.get(study) or Memory(self.space)
            self._memories[study] = memory
            found = self._proposed(memory, study, trial)
        tell(study, trial, found.parent, found.edits, found.redrawn)
        return found.candidate

    def _proposed(self, memory: Memory, study: Study, trial: FrozenTrial) -> Leaf:
        past = memory.past(study, trial.number)
        found = None
        if len(past.rows) >= self.startup:
            found = self._explored(memory, past, trial)
        if found is None:
            rng = self.rng(trial, "sample")
            for _ in range(_RANDOM_TRIES):
                raw = memory.space.sample(rng)
                twin = memory.space.canonical(raw)
                found = Leaf(raw, twin)
                if twin not in past.tried:
                    break
        return found  # type: ignore[return-value]

    def _explored(self, memory: Memory, past: Past, trial: FrozenTrial) -> Leaf | None:
        """Return the best leaf of the tree below the trials that the process knows."""
        weights = self._weights(memory, past.rows)
        known = chosen([*past.rows, *past.failed], self.most, self.seed)
        pairs = memory.pairs
        apart = pairs.among(memory.traits([*known, *past.pending]))
        posterior = Posterior(apart, scores(known), weights.noise)

        def hope(leaves: Sequence[Leaf]) -> np.ndarray:
            rows = [pairs.to(memory.describe(leaf.twin)) for leaf in leaves]
            mean, deviation = posterior(np.stack(rows))
            return mean + self.beta * deviation

        mean, _ = posterior(apart[: len(known)])
        roots = [
            (worth, Leaf(row.built or row.twin, row.twin, row.number))
            for worth, row in zip(mean.tolist(), known, strict=True)
            if row.worth is not None
        ]
        alone = self.rng(trial, "immigrant").random() < self.immigrants
        return explore(
            [] if alone else roots,
            memory.moves,
            hope,
            past.tried,
            self.rng(trial, "explore"),
            expansions=1 if alone else self.expansions,
            strangers=self.strangers if alone else 0,
            inherit=self.rng(trial, "inherit").random() < self.morphs,
            until=time.thread_time() + self.seconds,
        )

    def _weights(self, memory: Memory, rows: Sequence[Row]) -> Weights:
        learnt = rows[: refit_size(len(rows), self.startup)]
        numbers = tuple(row.number for row in learnt)
        if memory.weights is None or memory.learnt != numbers:
            some = chosen(learnt, _LEARNT, self.seed)
            stored = Stored(len(memory.describe.groups))
            traits = list(memory.traits(some).values())
            places = np.asarray([stored.add(one) for one in traits], np.intp)
            apart = np.stack([stored.apart(one, places) for one in traits])
            memory.weights = learn(apart, scores(some), seconds=self.refit_seconds)
            memory.learnt, memory.pairs = numbers, Pairs(memory.weights.groups)
        return memory.weights

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the value of the joint proposal for a foreign study, or draw one."""
        if self.space is None or param_name not in self.space.genes:
            joint = self.once(study, trial, self._joint)
            if param_name in joint and contains_value(param_distribution, joint[param_name]):
                return joint[param_name]
        return super().sample_independent(study, trial, param_name, param_distribution)

    def _joint(self, study: Study, trial: FrozenTrial) -> dict[str, Value]:
        """Return the proposal for the parameters that all finished trials share."""
        past = [other for other in finished(study) if other.params]
        space = Foreign.of(past)
        if len(past) < self.startup or not space.genes:
            return {}
        memory = self._foreign.get(study)
        if memory is None or memory.space.genes != space.genes:
            memory = Memory(space)
            self._foreign[study] = memory
        return dict(self._proposed(memory, study, trial).candidate.recipe)
