"""Each metric against an independent implementation, with ties and weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, mean_absolute_error, mean_squared_error, roc_auc_score

from autorec.errors import ConfigError, DataError
from autorec.tasks.metrics import (
    METRICS,
    auc,
    ece,
    gauc,
    group_aucs,
    logloss,
    mae,
    normalized_entropy,
    rmse,
)

# Few distinct scores and integer weights (0 included), so that most rows tie.
ROWS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=40,
)


def columns(rows):
    y, p, w, g = (np.array(column) for column in zip(*rows, strict=True))
    return y.astype(float), p, w.astype(float), g


def pair_auc(y, s, w):
    won = pairs = 0.0
    for i in range(len(y)):
        for j in range(len(y)):
            if y[i] == 1 and y[j] == 0:
                pairs += w[i] * w[j]
                won += w[i] * w[j] * (1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0)
    return won / pairs if pairs else math.nan


def loop_gauc(y, s, g, w):
    total = mass = 0.0
    for group in sorted(set(g.tolist())):
        rows = g == group
        value = pair_auc(y[rows], s[rows], w[rows])
        if not math.isnan(value):
            total += value * w[rows].sum()
            mass += w[rows].sum()
    return total / mass if mass else math.nan


def loop_ece(y, p, w, bins=15):
    gaps, before, total = [0.0] * bins, 0.0, w.sum()
    for value in sorted(set(p.tolist())):
        rows = p == value
        mass = w[rows].sum()
        middle = (before + mass / 2) / total
        gaps[min(int(middle * bins), bins - 1)] += (w[rows] * (y[rows] - p[rows])).sum()
        before += mass
    return sum(abs(gap) for gap in gaps) / total


def same(found, expected):
    return found == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_auc_is_the_share_of_pairs_won(rows):
    y, s, w, _ = columns(rows)
    assert same(auc(y, s, w), pair_auc(y, s, w))
    assert same(auc(y, s), pair_auc(y, s, np.ones(len(y))))


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_gauc_is_the_weighted_mean_over_groups(rows):
    y, s, w, g = columns(rows)
    assert same(gauc(y, s, g, w), loop_gauc(y, s, g, w))
    assert same(gauc(y, s, g), loop_gauc(y, s, g, np.ones(len(y))))
    words = np.array(["ant", "bee", "cat", "dog"])[g]
    assert same(gauc(y, s, words, w), loop_gauc(y, s, g, w))


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_a_weight_of_two_is_two_rows(rows):
    y, p, w, g = columns(rows)
    twice = np.repeat(np.arange(len(y)), w.astype(int))
    for metric in METRICS.values():
        if len(twice):
            expected = metric(y[twice], p[twice], None, g[twice])
            assert same(metric(y, p, w, g), expected), metric.name
        else:
            assert math.isnan(metric(y, p, w, g)), metric.name


@settings(max_examples=60, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, random):
    shuffled = random.sample(rows, len(rows))
    y, p, w, g = columns(rows)
    y2, p2, w2, g2 = columns(shuffled)
    for metric in METRICS.values():
        assert same(metric(y, p, w, g), metric(y2, p2, w2, g2)), metric.name


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_ece_is_the_loop_over_bins(rows):
    y, p, w, _ = columns(rows)
    if w.sum():
        assert same(ece(y, p, w), loop_ece(y, p, w))


@pytest.mark.parametrize("weighted", [False, True])
def test_against_scikit_learn(weighted):
    rng = np.random.default_rng(1)
    p = np.round(rng.random(3000), 2).clip(0.01, 0.99)
    y = (rng.random(3000) < p**2).astype(float)
    w = rng.gamma(1.0, size=3000) if weighted else None
    value = rng.normal(size=3000)
    assert same(auc(y, p, w), roc_auc_score(y, p, sample_weight=w))
    assert same(logloss(y, p, w), log_loss(y, p, sample_weight=w))
    assert same(mae(value, p, w), mean_absolute_error(value, p, sample_weight=w))
    assert same(rmse(value, p, w), math.sqrt(mean_squared_error(value, p, sample_weight=w)))
    base = np.full(3000, np.average(y, weights=w))
    expected = log_loss(y, p, sample_weight=w) / log_loss(y, base, sample_weight=w)
    assert same(normalized_entropy(y, p, w), expected)


def test_ece_with_distinct_probabilities_is_the_mean_over_equal_slices():
    rng = np.random.default_rng(2)
    p = np.sort(rng.random(1500))
    y = (rng.random(1500) < 0.5).astype(float)
    gaps = np.abs((y - p).reshape(15, 100).mean(axis=1))
    assert same(ece(y, p), gaps.mean())
    assert ece(np.repeat([0.0, 1.0], 50), np.full(100, 0.5)) == 0.0


def test_the_base_rate_has_a_normalized_entropy_of_one():
    y = np.array([1.0, 0, 0, 0])
    assert same(normalized_entropy(y, np.full(4, 0.25)), 1.0)


def test_logloss_is_clipped_at_the_stated_probability():
    assert same(logloss([1.0], [0.0]), -math.log(1e-7))
    assert same(logloss([0.0], [1.0]), -math.log(1e-7))


@pytest.mark.parametrize("name", sorted(METRICS))
def test_undefined_is_nan_and_never_a_stand_in(name):
    metric = METRICS[name]
    nothing = np.empty(0)
    assert math.isnan(metric(nothing, nothing, None, nothing))
    assert math.isnan(metric([0.0, 1.0], [0.2, np.nan], None, [1, 1]))
    assert math.isnan(metric([0.0, 1.0], [0.2, 0.3], [0.0, 0.0], [1, 1]))
    assert not math.isnan(metric([0.0, 1.0], [0.2, 0.3], None, [1, 1]))


@pytest.mark.parametrize("name", ["auc", "gauc", "normalized_entropy"])
def test_one_class_is_undefined(name):
    assert math.isnan(METRICS[name]([1.0, 1.0], [0.2, 0.3], None, [1, 1]))
    assert math.isnan(METRICS[name]([1.0, 0.0], [0.2, 0.3], [1.0, 0.0], [1, 1]))


def test_group_aucs_are_one_number_per_group():
    y = [1.0, 0.0, 1.0, 0.0, 1.0]
    value, weight = group_aucs(y, [0.9, 0.1, 0.2, 0.2, 0.5], [7, 7, 3, 3, 9])
    assert value.tolist()[:2] == [0.5, 1.0]
    assert math.isnan(value[2])
    assert weight.tolist() == [2.0, 2.0, 1.0]


def test_columns_of_different_length_and_bad_weights_are_refused():
    with pytest.raises(DataError, match=r"one length, but got shapes \(2,\), \(3,\) and \(2,\)"):
        auc([0, 1], [0.1, 0.2, 0.3])
    with pytest.raises(DataError, match=r"at least 0, but got -1\.0"):
        logloss([0, 1], [0.1, 0.2], [1.0, -1.0])
    with pytest.raises(DataError, match=r"at least 0, but got nan"):
        logloss([0, 1], [0.1, 0.2], [1.0, np.nan])
    with pytest.raises(DataError, match=r"one value per row \(2,\), but got shape \(3,\)"):
        gauc([0, 1], [0.1, 0.2], [1, 2, 3])
    with pytest.raises(ConfigError, match="'gauc' is a mean over groups, but no group is given"):
        METRICS["gauc"]([0, 1], [0.1, 0.2])
