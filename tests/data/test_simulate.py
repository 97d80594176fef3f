"""The simulator against its claims: exact ceiling, interactions of exactly the order planted."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from autorec.data.simulate import effects, expected_auc, popularity, signs, simulate
from autorec.errors import ConfigError
from autorec.tasks.metrics import auc

SMALL = {"device": 4, "page": 6, "channel": 6, "region": 4}
BARE = {"main": 0.0, "position_bias": 0.0, "numeric": 0, "genres": 0, "contexts": SMALL}


def crossed(table, names):
    """One integer per distinct combination of the columns."""
    code = np.zeros(table.num_rows, dtype=np.int64)
    for name in names:
        values = np.unique(table[name].to_numpy(), return_inverse=True)[1]
        code = code * (values.max() + 1) + values
    return np.unique(code, return_inverse=True)[1]


def rates(code, click):
    """Smoothed click rate per code."""
    return (np.bincount(code, click) + click.mean()) / (np.bincount(code) + 1.0)


def auc_of_rates(table, names):
    """AUC on the second half of per-cross click rates counted on the first half."""
    code, click = crossed(table, names), table["click"].to_numpy().astype(float)
    half = len(code) // 2
    rate = (np.bincount(code[:half], click[:half], minlength=code.max() + 1) + click.mean()) / (
        np.bincount(code[:half], minlength=code.max() + 1) + 1.0
    )
    return auc(click[half:], rate[code[half:]])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=12))
def test_expected_auc_is_the_sum_over_pairs(p):
    won = pairs = 0.0
    for i, j in itertools.permutations(range(len(p)), 2):
        mass = p[i] * (1 - p[j])
        pairs += mass
        won += mass * (1.0 if p[i] > p[j] else 0.5 if p[i] == p[j] else 0.0)
    expected = won / pairs if pairs > 1e-12 else math.nan
    assert expected_auc(p) == pytest.approx(expected, nan_ok=True)


def test_expected_auc_is_the_mean_over_labels():
    """The ratio of expectations is the mean of AUC over drawn labels, up to O(1/N)."""
    rng = np.random.default_rng(0)
    p = rng.beta(1, 3, size=2000)
    drawn = [auc((rng.random(2000) < p).astype(float), p) for _ in range(100)]
    assert np.mean(drawn) == pytest.approx(expected_auc(p), abs=4 * np.std(drawn) / 10)
    assert expected_auc(np.full(10, 0.3)) == pytest.approx(0.5)
    assert math.isnan(expected_auc([]))


@pytest.mark.parametrize("order", [2, 3, 4, [2, ("user", "item"), 3]])
def test_the_oracle_reaches_the_ceiling(order):
    log = simulate(100_000, order=order, drift=0.5, seed=1)
    click = log.table["click"].to_numpy()
    found = auc(click, log.probability)
    # Standard error of an AUC of 0.75 at 20 000 positives and 80 000 negatives: 0.002.
    assert found == pytest.approx(log.bayes_auc, abs=0.006)
    assert 0.6 < log.bayes_auc < 0.95
    assert log.probability.mean() == pytest.approx(0.2, abs=0.002)
    assert click.mean() == pytest.approx(0.2, abs=0.005)


@pytest.mark.parametrize("values", [2, 3, 4, 5, 12, 501])
def test_signs_halve_the_probability_and_ignore_main_effects(values):
    share = popularity(values, 1.2)
    sign = signs(values, np.random.default_rng(values))
    effect = effects(values, 1.0, np.random.default_rng(1))
    assert share.sum() == pytest.approx(1.0)
    assert (np.diff(share) <= 1e-15).all()
    assert set(sign) == {-1.0, 1.0}
    assert share @ sign == pytest.approx(0.0, abs=1e-12)
    for power in (1, 2, 3):  # the effect is distributed alike on both sides
        assert share @ (sign * effect**power) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_marginals_of_a_planted_interaction_are_flat(order):
    """The true rate given any proper subset of the crossed fields is one constant."""
    log = simulate(60_000, order=order, strength=1.5, seed=2, **BARE)
    (planted,) = log.planted
    assert len(planted) == order
    spread = log.probability.std()
    for size in range(1, order):
        for names in itertools.combinations(planted, size):
            code = crossed(log.table, names)
            mean = np.bincount(code, log.probability) / np.bincount(code)
            noise = spread / np.sqrt(np.bincount(code))
            assert (np.abs(mean - log.probability.mean()) < 5 * noise).all(), names
    full = crossed(log.table, planted)
    within = (
        np.bincount(full, log.probability**2) / np.bincount(full)
        - (np.bincount(full, log.probability) / np.bincount(full)) ** 2
    )
    assert within.max() < 1e-9  # the full cross explains everything
    assert len(np.unique(np.round(log.probability, 9))) == 2


def test_main_effects_do_not_betray_the_interaction():
    """With strong main effects, the rate given all but one crossed field ignores their sign."""
    log = simulate(
        200_000,
        order=[("page", "channel")],
        strength=2.0,
        **{**BARE, "main": 1.0, "users": 2, "items": 2, "contexts": {"page": 8, "channel": 2}},
    )
    page, p = crossed(log.table, ["page"]), log.probability
    mean = np.bincount(page, p) / np.bincount(page)
    ranked = np.sort(mean)  # four pairs of twins, each with one rate
    assert np.abs(ranked[1::2] - ranked[::2]).max() < 0.01
    assert ranked[-1] - ranked[0] > 0.05


@pytest.mark.parametrize("order", [2, 3])
def test_additive_models_miss_what_the_cross_finds(order):
    log = simulate(40_000, order=order, strength=1.5, rate=0.4, seed=3, **BARE)
    (planted,) = log.planted
    assert log.bayes_auc > 0.75
    assert auc_of_rates(log.table, planted) > log.bayes_auc - 0.01
    for size in range(1, order):
        for names in itertools.combinations(planted, size):
            assert auc_of_rates(log.table, names) < 0.52, names
    code = [crossed(log.table, [name]) for name in SMALL]
    onehot = np.concatenate([np.eye(c.max() + 1)[c] for c in code], axis=1)
    click = log.table["click"].to_numpy()
    model = LogisticRegression().fit(onehot[:20_000], click[:20_000])
    assert auc(click[20_000:], model.decision_function(onehot[20_000:])) < 0.52


def test_the_seed_decides_and_columns_have_their_own_streams():
    one, again, other = (simulate(500, seed=seed) for seed in (7, 7, 8))
    assert one.table.equals(again.table)
    assert one.bayes_auc == again.bayes_auc
    assert not one.table.equals(other.table)
    fewer = simulate(500, seed=7, numeric=0, genres=0)
    for name in ("user", "item", "device", "position", "ts"):
        assert fewer.table[name].equals(one.table[name])


def test_columns_and_their_types():
    table = simulate(300, users=7, items=5, contexts={"slot": 3}, order=2).table
    assert {field.name: str(field.type) for field in table.schema} == {
        "user": "int64",
        "item": "int64",
        "slot": "string",
        "number_0": "double",
        "number_1": "double",
        "genres": "list<item: string>",
        "position": "int64",
        "ts": "timestamp[s]",
        "click": "int8",
    }
    assert sorted(set(table["user"].to_pylist())) == list(range(7))
    assert sorted(set(table["slot"].to_pylist())) == ["slot-0", "slot-1", "slot-2"]
    assert table["ts"].to_pylist() == sorted(table["ts"].to_pylist())
    assert set(table["click"].to_pylist()) == {0, 1}
    genres = dict(zip(table["item"].to_pylist(), table["genres"].to_pylist(), strict=True))
    assert all(1 <= len(set(g)) == len(g) <= 3 for g in genres.values())
    for item, listed in zip(table["item"].to_pylist(), table["genres"].to_pylist(), strict=True):
        assert genres[item] == listed
    plain = simulate(10, numeric=0, genres=0, order=[]).table
    assert {"number_0", "genres"}.isdisjoint(plain.column_names)


def test_popularity_is_skewed_as_asked():
    skewed = np.bincount(simulate(50_000, skew=1.0).table["item"].to_numpy(), minlength=500)
    even = np.bincount(simulate(50_000, skew=0.0).table["item"].to_numpy(), minlength=500)
    top = np.sort(skewed)[::-1]
    assert top[0] / top[20] == pytest.approx(11, rel=0.25)  # pair 0 over pair 10
    assert even.max() < 2 * even.min() + 60
    assert np.argsort(skewed)[-1] != 0  # the identifier does not give the rank away


def test_position_bias_lowers_clicks_and_drift_moves_items():
    log = simulate(100_000, position_bias=0.8, order=[], main=0.0, numeric=0, genres=0)
    position = log.table["position"].to_numpy()
    by_position = np.bincount(position, log.probability) / np.bincount(position)
    assert (np.diff(by_position) < 0).all()

    def moved(drift):
        log = simulate(100_000, items=20, drift=drift, order=[], position_bias=0.0, numeric=0)
        item, half = crossed(log.table, ["item"]), 50_000
        early, late = (
            rates(item[:half], log.probability[:half]),
            rates(item[half:], log.probability[half:]),
        )
        return np.abs(early - late).max()

    assert moved(0.0) < 0.02
    assert moved(2.0) > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 0}, "rows must be at least 1, but got 0"),
        ({"rate": 1.0}, r"rate must lie between 0 and 1, but got 1\.0"),
        ({"items": 1}, "at least 2 values, but item has 1"),
        ({"order": 1}, "at least 2 different fields of .*, but got 1"),
        ({"order": 7}, "at least 2 different fields of .*, but got 7"),
        ({"order": [("user", "hour")]}, r"'item', 'user'\], but got \('user', 'hour'\)"),
        ({"order": [("user", "user")]}, r"but got \('user', 'user'\)"),
        ({"order": "user"}, "numbers or tuples of field names, but got 'user'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        simulate(**{"rows": 10, **arguments})
