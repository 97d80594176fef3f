"""The contract of every engine: whole candidates, proposed through Optuna's sampler interface."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autorec.architecture import Value
from autorec.candidate import Candidate
from autorec.catalogue import Catalogue
from autorec.errors import ConfigError
from autorec.seeding import numpy_rng
from autorec.space import Space, sample_value

ENGINES = Catalogue("autorec.search", leaf="Engine")
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Engine(optuna.samplers.BaseSampler):
    """Proposes candidates of a space; a subclass writes `propose` and nothing else.

    Optuna calls a sampler in this order. `before_trial` comes once, when a trial is asked for.
    `infer_relative_search_space` comes at most once for each trial, at the first gene that is
    neither enqueued nor has only one value; a trial whose genes are all enqueued never gets there.
    Here `propose` is called, once, and the genes of its candidate are held for the trial.
    `sample_relative` follows at once and returns them; from then on Optuna answers every gene of
    the trial from that answer. `sample_independent` comes once for each gene that is not among
    them: with an engine's own space that is a gene which only becomes active because someone else
    fixed another one, and on a foreign space it is every gene. `after_trial` comes once, just
    before the state of the trial is stored, and lets go of what was held; it does not come for a
    trial that died with its process.

    Several workers share a study, each with an engine of its own, and any of them may be killed
    and resumed. So an engine keeps no memory of what it proposed: whatever it learns is rebuilt
    from the trials of the study (`finished`), and whatever it draws is a function of (seed, trial
    number, purpose), through `rng`. Two workers, or a resumed one, then propose the same for the
    same trial number and history. Studies may minimise: learn from `worth`, not from raw values.

    Args:
        space: what candidates are proposed from; None leaves all sampling independent.
        seed: seeds every draw, together with the number of the trial and its purpose.

    Attributes:
        inherits: whether weights are kept for the children that it proposes.
        weigh: weights of a canonical network, set by who can build one; None: unknown.
    """

    inherits: ClassVar[bool] = False
    weigh: Callable[[Candidate], int] | None = None

    def __init__(self, space: Space | None, *, seed: int) -> None:
        self.space = space
        self.seed = int(seed)
        self._held: dict[tuple[str, int], dict[str, Value]] = {}
        self._lock = threading.Lock()
        self._once: dict[tuple[str, int], dict[str, Any]] = {}
        self._turn = threading.RLock()

    @abstractmethod
    def propose(self, study: Study, trial: FrozenTrial) -> Candidate | None:
        """Return the candidate that `trial` is to try, or None to have its genes drawn one by one.

        Called once for each trial, possibly by several threads for different trials at once.
        """

    def rng(self, trial: FrozenTrial, purpose: str) -> np.random.Generator:
        """Return the generator of one purpose in one trial."""
        return numpy_rng(self.seed, "engine", trial.number, purpose)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Choose the whole child and return the distributions of its genes."""
        place = (study.study_name, trial._trial_id)
        with self._lock:
            genes = self._held.get(place)
        if genes is None:
            child = self.propose(study, trial)
            genes = {} if child is None or self.space is None else self.space.params(child)
            with self._lock:
                self._held[place] = genes
        return {} if self.space is None else {name: self.space.genes[name] for name in genes}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the held genes; one that is not held is drawn independently."""
        with self._lock:
            held = self._held.get((study.study_name, trial._trial_id), {})
        return {
            name: held[name] if name in held else self.sample_independent(study, trial, name, gene)
            for name, gene in search_space.items()
        }

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw one gene from (seed, trial number, its name)."""
        return sample_value(param_distribution, self.rng(trial, f"gene {param_name}"))

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Let go of what is held for `trial`."""
        place = (study.study_name, trial._trial_id)
        with self._lock:
            self._held.pop(place, None)
        with self._turn:
            self._once.pop(place, None)

    def once(
        self, study: Study, trial: FrozenTrial, make: Callable[[Study, FrozenTrial], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return what `make` gave at the first call for `trial`, one thread at a time."""
        place = (study.study_name, trial._trial_id)
        with self._turn:
            if place not in self._once:
                self._once[place] = make(study, trial)
            return self._once[place]

    def reseed_rng(self) -> None:
        """Do nothing: draws depend on trial numbers, so parallel copies never repeat one."""


def finished(study: Study) -> list[FrozenTrial]:
    """Return completed and stopped trials by completion time, then number; do not change them.

    What an engine learns from must not depend on which worker looks: every worker sees the same
    trials in the same order.
    """
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    # A finished trial always has a completion time; the type does not know.
    return sorted(trials, key=lambda t: (t.datetime_complete or t.datetime_start, t.number))


def worth(study: Study, trial: FrozenTrial) -> float | None:
    """Return the first value of `trial` so that higher is better, or None where it has none."""
    if not trial.values:
        return None
    value = float(trial.values[0])
    return value if study.directions[0] == StudyDirection.MAXIMIZE else -value


def need_shares(**shares: float) -> None:
    """Raise ConfigError unless all of them, named, lie in 0 to 1."""
    if not all(0.0 <= share <= 1.0 for share in shares.values()):
        got = " and ".join(f"{name}={share}" for name, share in shares.items())
        raise ConfigError(f"shares lie in 0 to 1, but got {got}; mend them")


def make_engine(
    name: str | optuna.samplers.BaseSampler, space: Space | None, seed: int
) -> optuna.samplers.BaseSampler:
    """Return the engine `name` of the catalogue, or an Optuna sampler as it was given.

    Raises:
        ConfigError: no engine has that name, or what was given is no sampler.
    """
    if isinstance(name, optuna.samplers.BaseSampler):
        return name
    if not isinstance(name, str):
        raise ConfigError(
            f"a search engine is one of {ENGINES.names()} or an Optuna sampler, but got {name!r}"
        )
    made: Engine = ENGINES.get(name)(space, seed=seed)
    return made
