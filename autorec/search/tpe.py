"""Tree-structured Parzen estimators (Bergstra et al. 2011), Optuna's own, on conditional spaces."""

from __future__ import annotations

import threading
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from autorec.architecture import Value
from autorec.candidate import Candidate
from autorec.search.engine import Engine, finished
from autorec.seeding import derive
from autorec.space import contains_value

STARTUP = 10
_WARNINGS = threading.Lock()


class TPE(Engine):
    """Optuna's multivariate TPE on groups of genes, made deterministic for each trial.

    Genes that always occur together are modelled together, as with Optuna's `group=True`, which is
    what a conditional space needs; but a group is only modelled when the walk through the space
    asks for one of its genes (half the time at 500 trials: a tree needs no model of blocks).
    Running trials count as bad ones (`constant_liar`), which keeps parallel workers apart. The
    first ten candidates are random, enqueued ones counted in. On a foreign space each parameter is
    modelled alone.
    """

    def propose(self, study: Study, trial: FrozenTrial) -> Candidate | None:
        """Return the candidate with the best expected improvement, gene group by gene group."""
        space = self.space
        if space is None:
            return None
        past = [other for other in finished(study) if other.params]
        if len(past) < STARTUP:
            return space.sample(self.rng(trial, "sample"))
        inner = _sampler(derive(self.seed, "engine", trial.number, "tpe"))
        groups = _groups(past)
        known: dict[str, Value] = {}

        def ask(name: str) -> Value:
            gene = space.genes[name]
            if name not in known and name in groups:
                group = {
                    other: space.genes[other] for other in groups[name] if other in space.genes
                }
                known.update(inner.sample_relative(study, trial, group))
            if name in known and contains_value(gene, known[name]):
                return known[name]
            return inner.sample_independent(study, trial, name, gene)  # type: ignore[no-any-return]

        return space.walk(ask)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the value of one gene with the best expected improvement."""
        inner = _sampler(derive(self.seed, "engine", trial.number, f"gene {param_name}"))
        return inner.sample_independent(study, trial, param_name, param_distribution)


def _groups(trials: Sequence[FrozenTrial]) -> dict[str, list[str]]:
    """Map each gene to the sorted genes that occur in exactly the trials in which it occurs."""
    occurs: dict[str, int] = defaultdict(int)
    for place, trial in enumerate(trials):
        for name in trial.params:
            occurs[name] |= 1 << place
    together: dict[int, list[str]] = defaultdict(list)
    for name in sorted(occurs):
        together[occurs[name]].append(name)
    return {name: together[occurs[name]] for name in occurs}


def _sampler(seed: int) -> TPESampler:
    # Optuna 4 calls these two arguments experimental. Filters of warnings belong to the process,
    # so one thread at a time may change them.
    with _WARNINGS, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Argument ``(multivariate|constant_liar)``", ExperimentalWarning
        )
        return TPESampler(
            n_startup_trials=STARTUP,
            n_ei_candidates=24,
            seed=seed % 2**32,
            multivariate=True,
            group=False,
            constant_liar=True,
        )
