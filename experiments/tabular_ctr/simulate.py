"""An engine searches the table: it is asked and told as in a search, and nothing is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from tabular_ctr.table import LOW_ROWS, Row, best

from autorec.candidate import Candidate
from autorec.errors import SpaceError
from autorec.job import Score
from autorec.search.engine import ENGINES
from autorec.space import Space

# Ablations of evolution, by the arguments that make them.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "evolution, no ranker": ("evolution", {"guidance": False}),
    "evolution, no age": ("evolution", {"age": False}),
    "evolution, random parents": ("evolution", {"random_parents": True}),
    "evolution, no immigrants": ("evolution", {"immigrants": 0.0}),
}


def engines() -> list[str]:
    """Return the names of all engines of the catalogue, and of the ablations."""
    known = ENGINES.names()
    return [*known, *(name for name, (base, _) in VARIANTS.items() if base in known)]


def engine(name: str, space: Space, seed: int) -> BaseSampler:
    """Return a new engine by its name in `engines`."""
    base, options = VARIANTS.get(name, (name, {}))
    made: BaseSampler = ENGINES.get(base)(space, seed=seed, **options)
    return made


@dataclass
class Walk:
    """One run of an engine.

    Attributes:
        improved: (trainings paid so far, key) whenever the best validation score rose.
        trained: trainings paid, in units of one low-fidelity training.
        asked: proposals, all kinds together.
        copies: proposals of a key that was trained before: its score is told again, for nothing.
        unknown: proposals that the table has not been filled with yet: told as failed, for nothing.
        outside: proposals that are no point of the space at all: told as failed, for nothing.
    """

    improved: list[tuple[float, str]] = field(default_factory=list)
    trained: float = 0.0
    asked: int = 0
    copies: int = 0
    unknown: int = 0
    outside: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self)


def simulate(
    sampler: BaseSampler,
    space: Space,
    entries: Mapping[str, Row],
    *,
    points: Collection[str],
    budget: float,
    most_asked: int,
) -> Walk:
    """Let an engine search `entries` until it has paid for `budget` trainings.

    What the table does not know is never guessed: the trial fails, costs nothing, is counted, and
    the engine is asked again. On a table filled in part the walk is therefore one through the known
    candidates, and its counts say how much was refused.

    Args:
        entries: by key; what is told is the highest validation AUC, what is paid the rows.
        points: keys of the whole space.
        most_asked: proposals after which the walk ends, paid or not.
    """
    study = optuna.create_study(direction="maximize", sampler=sampler)
    first: dict[str, int] = {}
    walk, top = Walk(), -np.inf
    while walk.trained < budget and walk.asked < most_asked:
        trial = study.ask()
        walk.asked += 1
        try:
            candidate = space.canonical(space.suggest(trial))
        except SpaceError:
            walk.outside += 1
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        key = space.key(candidate)
        value = _told(study, trial, (key, candidate), entries.get(key), first.get(key))
        if key not in points:
            walk.outside += 1
        elif key not in entries:
            walk.unknown += 1
        elif key in first:
            walk.copies += 1
        else:
            first[key] = trial.number
            rows = entries[key]["rows"]
            walk.trained += (rows[-1] if rows else LOW_ROWS) / LOW_ROWS
            if value is not None and value > top:
                top = value
                walk.improved.append((round(walk.trained, 4), key))
    return walk


def _told(
    study: optuna.Study,
    trial: optuna.Trial,
    point: tuple[str, Candidate],
    row: Row | None,
    twin: int | None,
) -> float | None:
    """Tell the score of an entry, with what a worker of a search writes; fail without one."""
    trial.set_user_attr("key", point[0])
    trial.set_user_attr("candidate", point[1].to_json())
    value = None if row is None else best(row)
    if row is None or value is None:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return None
    info = {"flops": row["flops"], "params": row["params"]}
    score = Score(value, {"auc": value}, row["rows"][-1], row["cpu_s"], info=info)
    trial.set_user_attr("score", score.to_json())
    if twin is not None:
        trial.set_user_attr("copied_from", twin)
    study.tell(trial, value)
    return value


def curve(
    improved: Sequence[tuple[float, str]], worth: Mapping[str, float], budget: int
) -> np.ndarray:
    """Return the regret (budget,) after 1, 2, ... trainings: the best of `worth` less the found.

    What is found is the candidate with the best validation score so far, whatever its `worth`. NaN
    before the first, and where its worth is not known.
    """
    regret = np.full(budget, np.nan)
    highest = max(worth.values(), default=np.nan)
    for paid, key in improved:
        regret[max(0, int(np.ceil(paid)) - 1) :] = highest - worth.get(key, np.nan)
    return regret


def signed_rank(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test on paired values; 1 for equal ones."""
    from scipy.stats import wilcoxon

    gap = np.asarray(one, float) - np.asarray(other, float)
    gap = gap[np.isfinite(gap)]
    if not np.any(gap):
        return 1.0
    return float(wilcoxon(gap, zero_method="wilcox", method="approx").pvalue)


def holm(found: Mapping[Any, float]) -> dict[Any, float]:
    """Return p values by name, adjusted for their number after Holm."""
    adjusted, highest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(found.items(), key=lambda pair: pair[1])):
        highest = max(highest, min(1.0, (len(found) - rank) * p))
        adjusted[name] = highest
    return adjusted
