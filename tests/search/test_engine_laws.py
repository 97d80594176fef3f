"""The law of engines. A new file in autorec/search that holds an engine is tested by it as it is.

Optuna's own sampler test cases, staying in the space, repeatability across processes and resumes,
survival of failed trials, respect of the direction, and a planted optimum that random search must
not find as well.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState

from autorec.candidate import NEURAL, Candidate
from autorec.errors import ConfigError
from autorec.search.engine import ENGINES, Engine, finished, make_engine, worth
from autorec.search.journal import open_journal
from autorec.space import Space

NAMES = ENGINES.names()
# (seeds, trials of each) on the planted optimum where 4 of 50 are not enough: a single edit without
# a model to choose it meets one of some thirty kinds of block.
TRIALS = {"morphism": (16, 150)}
CASES = [(name, own) for name in NAMES for own in (True, False)]
Value = Callable[[Candidate], float]


class TestOptunaCases(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """Optuna's published test cases, which ask for parameters that are foreign to our space."""

    @pytest.fixture(params=CASES, ids=[f"{n}-{'own' if o else 'no'}-space" for n, o in CASES])
    def sampler(
        self, request: pytest.FixtureRequest, ctr_space: Space
    ) -> Callable[[], BaseSampler]:
        name, own = request.param
        return lambda: make_engine(name, ctr_space if own else None, 0)


def planted(candidate: Candidate) -> float:
    """Score with one best place: networks of two crosses, a learning rate of 1e-3, width 16."""
    plan = candidate.architecture
    if candidate.family != NEURAL or plan is None:
        return -5.0 - abs(math.log10(float(candidate.recipe["learning_rate"])) + 1)
    crosses = sum(node.kind == "cross" for node in plan.nodes)
    width = abs(math.log2(plan.embedding_width) - 4)
    rate = abs(math.log10(float(candidate.recipe["lr"])) + 3)
    return -abs(crosses - 2) - width - 3 * rate


def search(
    sampler: BaseSampler,
    space: Space,
    n: int,
    *,
    value: Value = planted,
    direction: str = "maximize",
    study: optuna.Study | None = None,
) -> list[dict[str, object]]:
    """Run `n` trials and return the parameters of all."""
    study = study or optuna.create_study(direction=direction)
    study.sampler = sampler
    for _ in range(n):
        trial = study.ask()
        study.tell(trial, value(space.suggest(trial)))
    return [trial.params for trial in study.get_trials(deepcopy=False)]


def test_the_catalogue_names_the_engines() -> None:
    assert {"random", "tpe"} <= set(NAMES)
    assert "engine" not in NAMES


def test_an_optuna_sampler_is_an_engine_too(ctr_space: Space) -> None:
    given = optuna.samplers.RandomSampler(seed=1)
    assert make_engine(given, ctr_space, 0) is given
    search(given, ctr_space, 3)


def test_an_unknown_engine_is_refused(ctr_space: Space) -> None:
    with pytest.raises(ConfigError, match=r"no part named 'tpr'; did you mean 'tpe'\?"):
        make_engine("tpr", ctr_space, 0)
    with pytest.raises(ConfigError, match=r"an Optuna sampler, but got 3"):
        make_engine(3, ctr_space, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_proposals_stay_in_the_space(name: str, ctr_space: Space) -> None:
    study = optuna.create_study(direction="maximize")
    study.sampler = make_engine(name, ctr_space, 0)
    keys = set()
    for _ in range(200):
        trial = study.ask()
        candidate = ctr_space.suggest(trial)
        assert ctr_space.decode(trial.params) == candidate
        keys.add(ctr_space.key(candidate))
        study.tell(trial, planted(candidate))
    assert len(keys) > 100
    assert not study.sampler._held, "genes of finished trials are let go"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_proposals(name: str, ctr_space: Space) -> None:
    first = search(make_engine(name, ctr_space, 3), ctr_space, 20)
    again = search(make_engine(name, ctr_space, 3), ctr_space, 20)
    other = search(make_engine(name, ctr_space, 4), ctr_space, 20)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_minimising_the_negative_is_the_same_search(name: str, ctr_space: Space) -> None:
    up = search(make_engine(name, ctr_space, 0), ctr_space, 25)
    down = search(
        make_engine(name, ctr_space, 0),
        ctr_space,
        25,
        value=lambda c: -planted(c),
        direction="minimize",
    )
    assert up == down


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_study_goes_on_as_if_never_stopped(
    name: str, ctr_space: Space, tmp_path: Path
) -> None:
    whole = search(make_engine(name, ctr_space, 0), ctr_space, 20)
    for part in (11, 9):
        study = optuna.create_study(
            study_name="s",
            direction="maximize",
            storage=open_journal(tmp_path),
            load_if_exists=True,
        )
        resumed = search(make_engine(name, ctr_space, 0), ctr_space, part, study=study)
    assert resumed == whole


@pytest.mark.parametrize("name", NAMES)
def test_two_workers_propose_the_same_for_one_trial(name: str, ctr_space: Space) -> None:
    study = optuna.create_study(direction="maximize")
    search(make_engine(name, ctr_space, 0), ctr_space, 15, study=study)
    trial = study._storage.get_trial(study.ask()._trial_id)
    one, two = make_engine(name, ctr_space, 0), make_engine(name, ctr_space, 0)
    assert isinstance(one, Engine) and isinstance(two, Engine)
    assert one.propose(study, trial) == two.propose(study, trial)


@pytest.mark.parametrize("name", NAMES)
def test_failed_and_stopped_trials_are_survived(name: str, ctr_space: Space) -> None:
    study = optuna.create_study(direction="maximize")
    study.sampler = make_engine(name, ctr_space, 0)
    for number in range(30):
        trial = study.ask()
        value = planted(ctr_space.suggest(trial))
        if number % 3 == 0:
            study.tell(trial, state=TrialState.FAIL)
        elif number % 3 == 1:
            trial.report(value, 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value)
    study.ask()  # abandoned before its first gene
    ctr_space.suggest(study.ask())  # abandoned behind its last one
    ctr_space.suggest(study.ask())


@pytest.mark.parametrize("name", NAMES)
def test_enqueued_genes_are_kept_and_the_rest_is_filled_in(name: str, ctr_space: Space) -> None:
    study = optuna.create_study(direction="maximize")
    study.sampler = make_engine(name, ctr_space, 0)
    study.enqueue_trial({"family": "tree", "tree.num_leaves": 77})
    candidate = ctr_space.suggest(study.ask())
    assert candidate.family == "tree"
    assert candidate.recipe["num_leaves"] == 77


@pytest.mark.parametrize("name", NAMES)
def test_several_objectives(name: str, ctr_space: Space) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.sampler = make_engine(name, ctr_space, 0)
    for _ in range(14):
        trial = study.ask()
        candidate = ctr_space.suggest(trial)
        assert ctr_space.contains(candidate)
        study.tell(trial, [planted(candidate), float(len(trial.params))])


@pytest.mark.parametrize("name", NAMES)
def test_threads_share_an_engine(name: str, ctr_space: Space) -> None:
    study = optuna.create_study(direction="maximize")
    study.sampler = make_engine(name, ctr_space, 0)
    faults: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(6):
                trial = study.ask()
                study.tell(trial, planted(ctr_space.suggest(trial)))
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert sum(t.state == TrialState.COMPLETE for t in study.trials) == 18


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_a_planted_optimum_is_found_better_than_by_chance(name: str, ctr_space: Space) -> None:
    count, trials = TRIALS.get(name, (4, 50))

    def best(engine: str, seed: int) -> float:
        found = search(make_engine(engine, ctr_space, seed), ctr_space, trials)
        return max(planted(ctr_space.decode(params)) for params in found)  # type: ignore[arg-type]

    seeds = range(count)
    assert mean(best(name, s) for s in seeds) > mean(best("random", s) for s in seeds) + 0.2


def test_random_draws_are_a_function_of_seed_and_number(ctr_space: Space) -> None:
    plain = search(make_engine("random", ctr_space, 0), ctr_space, 6)
    study = optuna.create_study(direction="maximize")
    for _ in range(3):  # another history of the same length
        study.tell(study.ask(), 0.0)
    after = search(make_engine("random", ctr_space, 0), ctr_space, 3, study=study)
    assert after[3:] == plain[3:]


def test_independent_draws_depend_on_the_name_of_the_gene() -> None:
    study = optuna.create_study(sampler=make_engine("random", None, 0))
    trial = study.ask()
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
    other = optuna.create_study(sampler=make_engine("random", None, 0)).ask()
    assert (other.suggest_float("y", 0, 1), other.suggest_float("x", 0, 1)) == (y, x)
    assert x != y


def test_proposing_happens_once_a_trial(ctr_space: Space) -> None:
    asked: list[int] = []

    class Counting(Engine):
        def propose(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> Candidate:
            asked.append(trial.number)
            return ctr_space.sample(self.rng(trial, "x"))

    study = optuna.create_study(sampler=Counting(ctr_space, seed=0))
    for _ in range(3):
        ctr_space.suggest(study.ask())
    study.enqueue_trial(ctr_space.params(ctr_space.decode(study.trials[0].params)))
    ctr_space.suggest(study.ask())
    assert asked == [0, 1, 2], "a trial whose genes are all enqueued proposes nothing"


def test_finished_trials_are_ordered_by_completion() -> None:
    study = optuna.create_study(direction="minimize")
    trials = [study.ask() for _ in range(4)]
    study.tell(trials[2], 2.0)
    study.tell(trials[0], 1.0)
    study.tell(trials[3], state=TrialState.FAIL)
    done = finished(study)
    assert [trial.number for trial in done] == [2, 0]
    assert [worth(study, trial) for trial in done] == [-2.0, -1.0]
    assert worth(study, study._storage.get_trial(trials[1]._trial_id)) is None
