"""Bootstrap intervals against naive resampling and known coverage; latency against a fake clock."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from autorec.errors import ConfigError, DataError
from autorec.evaluate.intervals import Interval, bootstrap, draws, paired_difference
from autorec.evaluate.latency import latency
from autorec.tasks.metrics import METRICS


def log_of(rows, seed=0, users=12):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, users, rows)
    p = np.round(rng.random(rows), 1).clip(0.05, 0.95)
    y = (rng.random(rows) < p).astype(float)
    return y, p, rng.gamma(1.0, size=rows), group


def naive(metric, y, p, w, group, *, units, seed, replicates=20):
    """Copy the drawn rows, or all rows of the drawn groups, and compute the metric on the copy."""
    samples = []
    for drawn in draws(units, replicates, seed):
        if group is None:
            rows = drawn
        else:
            rows = np.concatenate([np.flatnonzero(group == unit) for unit in drawn])
        samples.append(metric(y[rows], p[rows], w[rows], None if group is None else group[rows]))
    return np.quantile(samples, [0.05, 0.95])


BY_ROW = [(name, False) for name in sorted(METRICS) if not METRICS[name].grouped]
BY_GROUP = [(name, True) for name in sorted(METRICS)]


@pytest.mark.parametrize(("name", "grouped"), BY_ROW + BY_GROUP)
def test_equals_naive_resampling(name, grouped):
    y, p, w, group = log_of(150)
    units = 12 if grouped else 150
    group = group if grouped else None
    found = bootstrap(name, y, p, weight=w, group=group, replicates=20, level=0.9, seed=3)
    low, high = naive(METRICS[name], y, p, w, group, units=units, seed=3)
    assert found.value == pytest.approx(METRICS[name](y, p, w, group))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    assert found.low < found.high
    assert found.level == 0.9


def test_group_names_may_be_words():
    y, p, w, group = log_of(150)
    words = np.array([f"user {g:02d}" for g in group])
    assert bootstrap("gauc", y, p, weight=w, group=words) == bootstrap(
        "gauc", y, p, weight=w, group=group
    )


def test_a_function_may_be_the_metric():
    y, p, w, _ = log_of(80)

    def area(label, score, weight):
        return float(roc_auc_score(label, score, sample_weight=weight))

    ours = bootstrap("auc", y, p, weight=w, replicates=10)
    theirs = bootstrap(area, y, p, weight=w, replicates=10)
    assert (theirs.low, theirs.high) == pytest.approx((ours.low, ours.high))


def test_coverage_of_a_known_error():
    """The mean absolute value of a standard normal is sqrt(2/pi)."""
    truth, hits, runs = math.sqrt(2 / math.pi), 0, 200
    rng = np.random.default_rng(5)
    for seed in range(runs):
        noise = rng.normal(size=100)
        found = bootstrap("mae", noise, np.zeros(100), level=0.9, seed=seed, replicates=100)
        hits += found.low <= truth <= found.high
    # Binomial(200, 0.9) has a standard deviation of 2.1 %; a percentile interval of 100 rows is a
    # little short (about 88 %).
    assert 0.82 <= hits / runs <= 0.95


def test_resampling_users_covers_where_resampling_rows_does_not():
    """20 users with 30 rows each; the rows of a user share most of their error."""
    rows_hit = users_hit = 0
    rng = np.random.default_rng(6)
    group = np.repeat(np.arange(20), 30)
    truth = math.sqrt(2 / math.pi) * math.sqrt(1.01)
    for seed in range(60):
        error = np.repeat(rng.normal(size=20), 30) + 0.1 * rng.normal(size=600)
        by_row = bootstrap("mae", error, np.zeros(600), level=0.9, seed=seed, replicates=60)
        by_user = bootstrap(
            "mae", error, np.zeros(600), group=group, level=0.9, seed=seed, replicates=60
        )
        rows_hit += by_row.low <= truth <= by_row.high
        users_hit += by_user.low <= truth <= by_user.high
    assert users_hit >= 44  # 73 %
    assert rows_hit <= 30


def test_paired_difference_is_resampled_together():
    y, p, w, group = log_of(400, seed=9)
    worse = np.round(p + np.random.default_rng(0).normal(scale=0.1, size=400), 2)
    found = paired_difference("auc", y, p, worse, weight=w, replicates=40, seed=4)
    one, two = METRICS["auc"](y, p, w), METRICS["auc"](y, worse, w)
    assert found.value == pytest.approx(one - two)
    samples = [
        METRICS["auc"](y[r], p[r], w[r]) - METRICS["auc"](y[r], worse[r], w[r])
        for r in draws(400, 40, 4)
    ]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(samples, [0.025, 0.975])))
    single = bootstrap("auc", y, p, weight=w, replicates=40, seed=4)
    assert found.high - found.low < 0.7 * (single.high - single.low)
    same = paired_difference("gauc", y, p, p, group=group, replicates=10)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_the_seed_decides():
    y, p, _, _ = log_of(100)
    assert bootstrap("auc", y, p, seed=1) == bootstrap("auc", y, p, seed=1)
    assert bootstrap("auc", y, p, seed=1) != bootstrap("auc", y, p, seed=2)


def test_undefined_stays_undefined():
    one_class = bootstrap("auc", np.ones(5), np.arange(5.0))
    assert math.isnan(one_class.value)
    assert math.isnan(one_class.low)
    empty = bootstrap("mae", np.empty(0), np.empty(0))
    assert math.isnan(empty.value)
    assert math.isnan(empty.high)
    # A single positive is missing from 1/e of the resamples: still an interval.
    rare = bootstrap("auc", [1.0, 0.0, 0.0, 0.0], [0.5, 0.1, 0.6, 0.2])
    assert rare.value == pytest.approx(2 / 3)
    assert rare.low <= rare.value <= rare.high


def test_an_interval_reads_well():
    assert str(Interval(0.75321, 0.7, 0.8, 0.95)) == "0.7532 [0.7000, 0.8000]"


def test_bad_arguments_are_refused():
    y, p, _, _ = log_of(20)
    with pytest.raises(ConfigError, match=r"metric must be one of \['auc'.* but got 'acc'"):
        bootstrap("acc", y, p)
    with pytest.raises(ConfigError, match="replicates must be at least 2, but got 1"):
        bootstrap("auc", y, p, replicates=1)
    with pytest.raises(ConfigError, match="level must lie between 0 and 1, but got 95"):
        paired_difference("auc", y, p, p, level=95)
    with pytest.raises(ConfigError, match="'gauc' is a mean over groups, but no group is given"):
        bootstrap("gauc", y, p)
    with pytest.raises(DataError, match=r"one value per row \(20,\), but got \(3,\)"):
        bootstrap("auc", y, p, group=[1, 2, 3])


class Clock:
    """A clock that moves only when `predict` is called: 1 ms, and 9 ms at every tenth call."""

    def __init__(self):
        self.now = 0.0
        self.sizes = []

    def __call__(self):
        return self.now

    def predict(self, rows):
        self.sizes.append(rows)
        self.now += 0.009 if len(self.sizes) % 10 == 0 else 0.001


def test_latency_counts_calls_and_quantiles():
    clock = Clock()
    found = latency(clock.predict, [4], seconds=0.18, clock=clock)[4]
    assert found.calls == 100
    assert len(clock.sizes) == 101  # one warm-up
    assert found.p50_ms == pytest.approx(1.0)
    assert found.p99_ms == pytest.approx(9.0)
    assert found.rows_per_s == pytest.approx(4 * 100 / 0.18)


def test_latency_times_each_size_and_at_least_one_call():
    clock = Clock()
    found = latency(clock.predict, [1, 8], seconds=1e-9, clock=clock)
    assert {size: value.calls for size, value in found.items()} == {1: 1, 8: 1}
    assert clock.sizes == [1, 1, 8, 8]
    with pytest.raises(ConfigError, match="batch sizes must be at least 1, but got 0"):
        latency(clock.predict, [1, 0])
    with pytest.raises(ConfigError, match="seconds must be above 0, but got 0"):
        latency(clock.predict, [1], seconds=0)
