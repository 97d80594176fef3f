"""TPE models together what occurs together, exactly as Optuna's own decomposition does."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.search_space.group_decomposed import _GroupDecomposedSearchSpace
from optuna.trial import FrozenTrial

from autorec.search.engine import finished, make_engine
from autorec.search.tpe import STARTUP, _groups
from autorec.search_spaces.ctr import CtrSpace


def _searched(space: CtrSpace, n: int) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.sampler = make_engine("random", space, 5)
    for number in range(n):
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, float(number))
    return study


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_groups_are_those_of_optuna(ctr_space: CtrSpace, n: int) -> None:
    study = _searched(ctr_space, n)
    theirs = _GroupDecomposedSearchSpace(include_pruned=True).calculate(study).search_spaces
    ours = {tuple(group) for group in _groups(finished(study)).values()}
    assert ours == {tuple(sorted(group)) for group in theirs}


def test_only_groups_on_the_way_are_modelled_and_each_once(
    ctr_space: CtrSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _searched(ctr_space, 40)
    groups = _groups(finished(study))
    modelled: list[set[str]] = []
    alone: list[str] = []
    together = TPESampler.sample_relative
    independent = TPESampler.sample_independent

    def watch(
        sampler: TPESampler,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, object]:
        modelled.append(set(search_space))
        return together(sampler, study, trial, search_space)

    def watch_alone(
        sampler: TPESampler,
        study: optuna.Study,
        trial: FrozenTrial,
        name: str,
        gene: BaseDistribution,
    ) -> object:
        alone.append(name)
        return independent(sampler, study, trial, name, gene)

    monkeypatch.setattr(TPESampler, "sample_relative", watch)
    monkeypatch.setattr(TPESampler, "sample_independent", watch_alone)
    study.sampler = make_engine("tpe", ctr_space, 0)
    trial = study.ask()
    ctr_space.suggest(trial)
    expected = {tuple(groups[name]) for name in trial.params}
    assert sorted(tuple(sorted(group)) for group in modelled) == sorted(expected)
    assert 1 < len(modelled) < len({tuple(group) for group in groups.values()})
    assert alone == []


def test_the_first_candidates_are_random_and_enqueued_ones_count(ctr_space: CtrSpace) -> None:
    study = optuna.create_study(direction="maximize")
    study.sampler = make_engine("tpe", ctr_space, 0)
    drawn = make_engine("random", ctr_space, 0)
    other = optuna.create_study(direction="maximize", sampler=drawn)
    study.enqueue_trial(dict(ctr_space.params(ctr_space.starts()[0][1])))
    other.ask()
    same = []
    for number in range(STARTUP + 5):
        trial = study.ask()
        proposed = ctr_space.suggest(trial)
        study.tell(trial, float(number))
        if number > 0:
            same.append(proposed == ctr_space.suggest(other.ask()))
    assert same == [True] * (STARTUP - 1) + [False] * 5
