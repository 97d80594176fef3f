"""The tabular benchmark: its space is closed, and a simulated search finds a planted optimum."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler

from autorec.candidate import Candidate
from autorec.edits import apply, edits
from autorec.errors import ConfigError, DataError, SpaceError
from autorec.search.engine import ENGINES, Engine
from autorec.space import Space

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
NAMES = [name for name in ENGINES.names() if name in ("random", "tpe", "evolution")]


@pytest.fixture(scope="module")
def lab() -> Iterator[SimpleNamespace]:
    """The modules of the benchmark; they lie in a folder of scripts and are no package."""
    sys.path.insert(0, str(FOLDER))
    try:
        from tabular_ctr import agreement, fill, simulate, space, study, table

        yield SimpleNamespace(
            agreement=agreement,
            fill=fill,
            simulate=simulate,
            study=study,
            table=table,
            space=space.TabularSpace(),
            every=space.every(),
            module=space,
        )
    finally:
        sys.path[:] = [entry for entry in sys.path if Path(entry) != FOLDER]


@pytest.fixture(autouse=True)
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's notes on every trial out of the output."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def planted(candidate: Candidate) -> float:
    """Score with one best candidate: a cross of 3 layers in front of a wide MLP of 3, D = 16."""
    plan = candidate.architecture
    assert plan is not None
    score = 0.9 + (0.02 if plan.embedding_width == 16 else 0.0)
    for node in plan.nodes:
        args = dict(node.args)
        if node.kind == "mlp":
            score += 0.01 + 0.005 * (args["width"] == 256) + 0.005 * (args["layers"] == 3)
        elif node.kind == "cross":
            score += 0.012 + 0.005 * (args["layers"] == 3)
    kinds = [node.kind for node in plan.nodes]
    row = bool(plan.nodes) and plan.nodes[-1].inputs == ("sparse", 0)
    return round(score + 0.01 * (kinds == ["cross", "mlp"] and row), 6)


def entry(lab: Any, key: str, value: float, **changes: Any) -> dict[str, Any]:
    """Return an entry of one low-fidelity training with this score."""
    rows = [lab.table.TRAIN_ROWS * epoch for epoch in (1, 2, 3)]
    own: dict[str, Any] = {"key": key, "fidelity": "low", "schedule": "cut", "seed": 0}
    own |= {"rows": rows, "auc": [value - 0.1, value - 0.05, value], "logloss": [0.3, 0.2, 0.1]}
    own |= {"test_auc": value, "test_logloss": 0.1, "cpu_s": 1.0, "params": 1, "flops": 10}
    return {**own, "status": "complete", "device": "cpu", **changes}


@pytest.fixture(scope="module")
def known(lab: SimpleNamespace) -> dict[str, dict[str, Any]]:
    """A whole table of planted scores."""
    scores = {lab.space.key(c): planted(c) for c in lab.every}
    return {key: entry(lab, key, value) for key, value in scores.items()}


def walk(lab: Any, sampler: BaseSampler, entries: Any, budget: float, points: Any = None) -> Any:
    return lab.simulate.simulate(
        sampler,
        lab.space,
        entries,
        points=points or {lab.space.key(c) for c in lab.every},
        budget=budget,
        most_asked=10 * budget,
    )


def test_every_point_has_one_of_the_listed_keys(lab: SimpleNamespace) -> None:
    keys = [lab.space.key(candidate) for candidate in lab.every]
    assert len(set(keys)) == len(keys) == lab.fill.CANDIDATES == 885
    assert all(lab.space.contains(candidate) for candidate in lab.every)
    assert all(lab.space.canonical(candidate) == candidate for candidate in lab.every)
    rng = np.random.default_rng(0)
    drawn = [lab.space.sample(rng) for _ in range(2000)]
    assert {lab.space.key(one) for one in drawn} <= set(keys)
    mutants = [lab.space.mutate(one, rng) for one in drawn[:200]]
    assert {lab.space.key(one) for one in mutants} <= set(keys)


def test_the_walks_are_all_combinations_of_genes(lab: SimpleNamespace) -> None:
    raws = list(lab.module.walks(lab.space))
    # Two widths; 14 blocks of which one is none; the second reads ids, the first, both or nothing.
    assert len(set(map(repr, raws))) == len(raws) == 2 * 14 * (14 * 4) == lab.space.size()


def test_a_key_is_that_of_a_readable_title(lab: SimpleNamespace) -> None:
    titles = [lab.module.title(candidate) for candidate in lab.every]
    assert len(set(titles)) == len(titles)
    assert "width 0: linear" in titles
    assert "width 16: cross(layers=3) of ids; mlp(layers=1, width=64) of ids + block 1" in titles


def test_a_space_of_real_numbers_is_not_listed(lab: SimpleNamespace) -> None:
    gene = optuna.distributions.FloatDistribution(0.0, 1.0)
    with pytest.raises(SpaceError, match=r"genes of few values, but got FloatDistribution"):
        lab.module.values(gene)


def test_children_by_edits_stay_inside_or_are_refused(lab: SimpleNamespace) -> None:
    keys = {lab.space.key(candidate) for candidate in lab.every}
    inside = 0
    for candidate in lab.every[:: len(lab.every) // 60]:
        for edit in edits(candidate, lab.space):
            try:
                child = apply(candidate, edit, lab.space).candidate
            except SpaceError:
                continue
            inside += 1
            assert lab.space.key(child) in keys, edit
    assert inside > 50


@pytest.mark.parametrize("name", NAMES)
def test_proposals_of_an_engine_are_all_known(
    name: str, lab: SimpleNamespace, known: dict[str, Any]
) -> None:
    found = walk(lab, lab.simulate.engine(name, lab.space, 0), known, 40)
    assert found.unknown == found.outside == 0
    assert found.trained == 40 and found.asked == 40 + found.copies
    values = [known[key]["auc"][-1] for _, key in found.improved]
    assert values == sorted(set(values)), "only rises are kept"


def test_guided_engines_beat_random_to_a_planted_optimum(
    lab: SimpleNamespace, known: dict[str, Any]
) -> None:
    best = max(row["auc"][-1] for row in known.values())
    assert sum(row["auc"][-1] == best for row in known.values()) == 1
    regret = {}
    for name in ("random", "evolution"):
        walks = [walk(lab, lab.simulate.engine(name, lab.space, s), known, 70) for s in range(3)]
        regret[name] = [best - known[one.improved[-1][1]]["auc"][-1] for one in walks]
    assert np.mean(regret["evolution"]) < 0.5 * np.mean(regret["random"])
    assert min(regret["evolution"]) == 0.0


class Listed(Engine):
    """Proposes given candidates, one after the other."""

    def __init__(self, space: Space, plan: list[Candidate]) -> None:
        super().__init__(space, seed=0)
        self.plan = plan

    def propose(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> Candidate:
        return self.plan[trial.number % len(self.plan)]


def test_what_is_not_known_costs_nothing_and_is_counted(
    lab: SimpleNamespace, known: dict[str, Any]
) -> None:
    a, b, c, d = (lab.space.key(one) for one in lab.every[:4])
    short = entry(lab, b, 0.99)
    half = {**short, "rows": short["rows"][:1], "auc": [0.99], "logloss": [0.1]}
    failed = {**entry(lab, d, 0.5), "rows": [], "auc": [], "logloss": [], "status": "failed: x"}
    entries = {a: known[a], b: half, d: failed}
    plan = [lab.every[i] for i in (0, 2, 0, 3, 1)]  # a, unknown, a again, failed, b
    found = walk(lab, Listed(lab.space, plan), entries, 2.1)
    assert (found.asked, found.copies, found.unknown, found.outside) == (5, 1, 1, 0)
    assert found.trained == pytest.approx(2 + 1 / 3)
    assert found.improved == [(1.0, a), (round(2 + 1 / 3, 4), b)]
    alone = walk(lab, Listed(lab.space, plan[1:2]), entries, 2)
    assert (alone.asked, alone.unknown, alone.trained, alone.improved) == (20, 20, 0.0, [])
    outside = walk(lab, Listed(lab.space, plan[:1]), entries, 2, points={c})
    assert outside.outside == outside.asked == 20


def test_a_curve_is_the_regret_of_the_best_by_validation(lab: SimpleNamespace) -> None:
    worth = {"a": 0.7, "b": 0.9, "c": 0.8}
    found = lab.simulate.curve([(2.0, "a"), (4.0, "c"), (5.0, "x")], worth, 6)
    assert np.isnan(found[[0, 4, 5]]).all(), "nothing found yet, and worth that is not known"
    assert found[1:4] == pytest.approx([0.2, 0.2, 0.1])


def test_a_study_of_planted_runs(lab: SimpleNamespace, known: dict[str, Any]) -> None:
    ranked = sorted(known, key=lambda key: -known[key]["auc"][-1])
    full = entry(lab, ranked[0], 0.95, fidelity="full", schedule="plain", test_auc=0.94)
    other = entry(lab, ranked[9], 0.93, fidelity="full", schedule="plain", test_auc=0.91)
    judge = lab.study.Judge(lab.table.Table([*known.values(), full, other]), 50)
    runs = [
        {"engine": name, "seed": seed, "improved": [[1.0, ranked[400]], [20.0 + seed, key]]}
        for name, key in (("good", ranked[0]), ("bad", ranked[9]))
        for seed in range(8)
    ]
    counts = dict.fromkeys(("trained", "asked", "copies", "unknown", "outside", "seconds"), 1)
    rows = [{**run, **counts} for run in runs]
    summary = judge.summary(rows)
    assert summary["good"]["50"] == {
        "regret": 0.0,
        "found": 8,
        "place": 1.0,
        "test_regret": 0.0,
        "judged": 8,
    }
    gap = known[ranked[0]]["auc"][-1] - known[ranked[9]]["auc"][-1]
    assert summary["bad"]["50"]["regret"] == pytest.approx(gap, abs=1e-6)
    assert summary["bad"]["50"]["test_regret"] == pytest.approx(0.03)
    assert summary["good"]["10"]["judged"] == 0 and summary["good"]["10"]["test_regret"] is None
    (line,) = judge.tests(rows)
    assert (line["after"], line["seeds"]) == (50, 8)
    assert line["gap"] == pytest.approx(-gap, abs=1e-6)
    assert line["p"] == line["holm"] < 0.05
    assert lab.study.Judge(lab.table.Table([*known.values()][1:]), 50).digest != judge.digest


def test_signed_ranks_and_holm(lab: SimpleNamespace) -> None:
    assert lab.simulate.signed_rank([0.1, 0.2], [0.1, 0.2]) == 1.0
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=30), rng.normal(size=30)
    assert lab.simulate.signed_rank(one, other) > 0.05 > lab.simulate.signed_rank(one, one + 1)
    found = lab.simulate.holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def slow_tau(one: list[float], other: list[float]) -> float:
    """Kendall's tau-b by looking at every pair."""
    agree, ties_one, ties_other, pairs = 0.0, 0, 0, 0
    for i, j in combinations(range(len(one)), 2):
        a, b = np.sign(one[i] - one[j]), np.sign(other[i] - other[j])
        agree, pairs = agree + a * b, pairs + 1
        ties_one, ties_other = ties_one + (a == 0), ties_other + (b == 0)
    return float(agree / np.sqrt((pairs - ties_one) * (pairs - ties_other)))


def test_tau_is_that_of_all_pairs(lab: SimpleNamespace) -> None:
    rng = np.random.default_rng(1)
    one = rng.integers(0, 10, 30).astype(float).tolist()
    other = [value + noise for value, noise in zip(one, rng.normal(0, 4, 30).round())]
    assert lab.agreement.tau(one, other) == pytest.approx(slow_tau(one, other))
    assert np.isnan(lab.agreement.tau([1.0, 1.0], [1.0, 2.0]))
    assert lab.agreement.kept(list(range(30)), list(range(30))) == 1.0
    assert lab.agreement.kept(list(range(30)), list(range(30))[::-1]) == 0.0


def test_agreement_of_planted_fidelities(
    lab: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.agreement, "DRAWS", 30)
    rows = []
    for number in range(40):
        value = 0.8 + 0.001 * number
        rows.append(entry(lab, str(number), value))
        curve = {"auc": [0.7 - value / 9, 0.5, value], "test_auc": 1 - value}
        rows.append(entry(lab, str(number), 0.0, fidelity="full", schedule="plain", **curve))
    found = {row["pair"]: row for row in lab.agreement.agreement(lab.table.Table(rows))}
    assert found["cut, 3 epochs - full valid"]["tau"] == 1.0
    assert found["plain, 1 epochs - full valid"]["tau"] == -1.0
    assert found["cut, 3 epochs - full test"]["tau"] == -1.0
    assert found["full, seed 0 - seed 1"] == {"pair": "full, seed 0 - seed 1", "n": 0}


def test_the_order_of_work(lab: SimpleNamespace, known: dict[str, Any]) -> None:
    keys, fill, table = [lab.space.key(c) for c in lab.every], lab.fill, lab.table
    subset = fill.wanted("subset", keys, table.Table([]))
    assert len({job[0] for job in subset}) == 100
    held = [known[job[0]] for job in subset]
    rest = fill.wanted("low", keys, table.Table(held))
    assert {job[0] for job in [*subset, *rest]} == set(keys) and len(rest) == 785
    assert fill.wanted("subset", keys, table.Table(held)) == []
    full = fill.wanted("full", keys, table.Table(known.values()))
    scores = [known[job[0]]["auc"][-1] for job in full]
    assert len(full) == 100 and scores == sorted(scores, reverse=True)
    trained = [entry(lab, job[0], 0.9, fidelity="full", schedule="plain") for job in full]
    whole = table.Table([*known.values(), *trained])
    assert fill.wanted("full", keys, whole) == []
    top = fill.wanted("top", keys, whole)
    assert len({job[0] for job in top}) == 20 and {job[3] for job in top} == {0, 1, 2}
    with pytest.raises(ConfigError, match=r"but got 'all'"):
        fill.wanted("all", keys, whole)


def test_a_table_is_read_as_it_was_written(
    lab: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import _results

    (tmp_path / "results").mkdir()
    monkeypatch.setattr(_results, "HERE", tmp_path)
    monkeypatch.setattr(lab.table, "HERE", tmp_path)
    assert lab.table.load("t").entries == {}
    rows = [entry(lab, key, 0.9) for key in ("a", "b")]
    lab.table.save("t", rows, {"protocol": lab.table.PROTOCOL})
    assert list(lab.table.load("t").entries.values()) == rows
    (path,) = (tmp_path / "results").iterdir()
    assert json.loads(path.read_text())["experiment"] == "t"
    lab.table.save("t", rows, {"protocol": {**lab.table.PROTOCOL, "low_rows": 1}})
    with pytest.raises(DataError, match=r"share their protocol .*'low_rows': 1"):
        lab.table.load("t")
