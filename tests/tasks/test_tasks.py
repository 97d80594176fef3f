"""Tasks: what labels they accept, their loss, their predictions and the sign of their score."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from autorec import tasks
from autorec.data.labels import LabelStats, label_stats
from autorec.data.sources import open_source
from autorec.errors import ConfigError, DataError, TrainingError
from autorec.tasks.ctr import Ctr
from autorec.tasks.rating import Rating


def stats_of(values, dtype="int64", **changed):
    """LabelStats of a list of labels, counted in plain Python."""
    counts = sorted(((v, values.count(v)) for v in set(values)), key=lambda c: (-c[1], repr(c[0])))
    real = [float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    numbers = bool(real) and len(real) == len(values)
    facts = {
        "name": "y",
        "dtype": dtype,
        "rows": len(values),
        "nulls": 0,
        "nonfinite": 0,
        "values": tuple(counts),
        "distinct": len(counts),
        "minimum": min(real) if numbers else None,
        "maximum": max(real) if numbers else None,
        "mean": float(np.mean(real)) if numbers else None,
        "std": float(np.std(real)) if numbers else None,
    }
    return LabelStats(**{**facts, **changed})


STARS = [1.0, 2.0, 4.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("values", "negative", "positive", "why"),
    [
        ([0, 1, 0, 0], 0, 1, "1 is positive"),
        ([True, False, False], False, True, "True is positive"),
        ([-1, 1, 1], -1, 1, "1 is positive"),
        ([2.5, -7.0], -7.0, 2.5, "2.5 is positive"),
        (["yes", "no"], "no", "yes", "'yes' is positive, 'no' means no"),
        (["Click", "view"], "view", "Click", "'Click' is positive, a known word"),
        (["bought", "no"], "no", "bought", "'bought' is positive, 'no' means no"),
        (["1", "0"], "0", "1", "'1' is positive"),
        (["ham", "spam"], "ham", "spam", "later in the alphabet than 'ham'"),
        (["click", "like"], "click", "like", "later in the alphabet than 'click'"),
    ],
)
def test_ctr_finds_the_positive_value_and_says_why(values, negative, positive, why):
    for order in (values, values[::-1]):
        task = Ctr.from_stats(stats_of(order))
        assert (task.label_map.negative, task.label_map.positive) == (negative, positive)
        assert task.label_map.kind == "binary"
        assert why in task.reason
        assert task.base_rate == values.count(positive) / len(values)


@pytest.mark.parametrize(
    ("stats", "message"),
    [
        (stats_of([1, 1, 1]), "at least two values, but all 3 rows of the label column 'y' are 1;"),
        (stats_of([0, 1], nulls=4, rows=6), "4 of 6 rows of the label column 'y' are null"),
        (stats_of([0.0, 1.0], nonfinite=2, rows=4), "2 of 4 rows .* are NaN or infinite"),
        (stats_of([], distinct=0), "must have rows, but the table is empty"),
        (
            stats_of(["a", "b", "c"], "string"),
            "two values, but the label column 'y' has 3: 'a', 'b', 'c'; "
            'use task="rating" for numbers or make it binary',
        ),
        (stats_of(list(range(9)), distinct=1000), "has 1000 or more: 0, 1, 2, 3, 4, ...;"),
        (stats_of([(1,), (2,)], "list"), r"type list has \(1,\) and \(2,\); convert it"),
    ],
)
def test_ctr_refuses_unusable_labels(stats, message):
    with pytest.raises(DataError, match=message):
        Ctr.from_stats(stats)


@pytest.mark.parametrize(
    ("stats", "message"),
    [
        (stats_of([3.0, 3.0]), "all 2 rows of the label column 'y' are 3.0;"),
        (stats_of([1.0, 2.0], nulls=1, rows=3), "1 of 3 rows .* are null"),
        (stats_of(["a", "b", "c"], "string"), "type string has 'a', 'b', 'c'; use task=\"ctr\""),
        (stats_of([True, False], "bool"), "must be a number, .* type bool has False, True"),
        (stats_of([1.0, 2.0], std=0.0), "standard deviation 0.0 between 1.0 and 2.0"),
    ],
)
def test_rating_refuses_unusable_labels(stats, message):
    with pytest.raises(DataError, match=message):
        Rating.from_stats(stats)


def test_ctr_bias_is_the_logit_of_the_base_rate():
    task = Ctr.from_stats(stats_of([0] * 97 + [1] * 3))
    assert task.bias() == pytest.approx(math.log(0.03 / 0.97))
    assert task.predict(np.array([task.bias()]))[0] == pytest.approx(0.03)


def test_ctr_loss_is_the_weighted_mean_cross_entropy():
    task = Ctr.from_stats(stats_of([0, 1]))
    output, label = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 0.0, 0.0])
    p = 1 / (1 + np.exp(-output.numpy().astype(float)))
    rows = np.array([-math.log(p[0]), -math.log(1 - p[1]), -math.log(1 - p[2])])
    assert task.loss(output, label).item() == pytest.approx(rows.mean())
    weighted = task.loss(output, label, torch.tensor([1.0, 0.0, 3.0]))
    assert weighted.item() == pytest.approx((rows[0] + 3 * rows[2]) / 4)


def test_rating_loss_and_prediction_are_in_standard_deviations():
    task = Rating.from_stats(stats_of(STARS))
    label = torch.tensor(STARS)
    assert task.bias() == 0.0
    assert task.loss(torch.zeros(6), label).item() == pytest.approx(1.0)
    exact = (label - task.mean) / task.std
    assert task.loss(exact, label).item() == pytest.approx(0.0, abs=1e-12)
    assert task.predict(exact.numpy()) == pytest.approx(STARS)
    off = task.loss(exact + torch.tensor([1.0, 0, 0, 0, 0, 2.0]), label, torch.arange(6.0))
    assert off.item() == pytest.approx(5 * 4 / 15)


def test_rating_predictions_stay_inside_the_labels_seen():
    task = Rating.from_stats(stats_of(STARS))
    assert task.predict(np.array([-100.0, 0.0, 100.0])) == pytest.approx([1.0, 3.5, 5.0])
    assert task.predict(torch.tensor([-100.0, 100.0])).tolist() == [1.0, 5.0]


@pytest.mark.parametrize(
    "task", [Ctr.from_stats(stats_of([0, 1])), Rating.from_stats(stats_of(STARS))]
)
def test_arrays_and_tensors_give_the_same_predictions(task):
    output = np.linspace(-30, 30, 13).astype(np.float32)
    array, tensor = task.predict(output), task.predict(torch.from_numpy(output))
    assert array.dtype == np.float64
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-5, atol=1e-12)
    half = task.predict(torch.from_numpy(output).bfloat16())
    assert half.dtype == torch.float32


@pytest.mark.parametrize(
    "task", [Ctr.from_stats(stats_of([0, 1])), Rating.from_stats(stats_of(STARS))]
)
def test_a_loss_never_broadcasts_and_survives_zero_weights(task):
    message = r"one shape \(B,\), but got \(3, 1\) and \(3,\)"
    with pytest.raises(TrainingError, match=message):
        task.loss(torch.zeros(3, 1), torch.zeros(3))
    output = torch.zeros(3, requires_grad=True)
    loss = task.loss(output, torch.ones(3), torch.zeros(3))
    loss.backward()
    assert loss.item() == 0.0
    assert output.grad is not None
    assert output.grad.tolist() == [0.0, 0.0, 0.0]


def test_metrics_of_ctr_hold_the_grouped_ones_only_with_a_group():
    task = Ctr.from_stats(stats_of([0, 1]))
    y, p = [0.0, 1.0, 0.0, 1.0], [0.1, 0.9, 0.4, 0.3]
    plain = task.metrics(y, p)
    assert sorted(plain) == ["auc", "ece", "logloss", "normalized_entropy"]
    grouped = task.metrics(y, p, None, [1, 1, 2, 2])
    assert grouped == {**plain, "gauc": 0.5}
    assert plain["auc"] == 0.75


@pytest.mark.parametrize("name", ["logloss", "normalized_entropy", "ece"])
def test_a_lower_is_better_metric_is_negated_once(name):
    task = Ctr.from_stats(stats_of([0, 1]), eval_metric=name)
    assert task.score({name: 0.25}) == -0.25
    assert Ctr.from_stats(stats_of([0, 1])).score({"auc": 0.75}) == 0.75


def test_rating_scores_are_higher_for_better_predictions():
    for name in (None, "mae"):
        task = Rating.from_stats(stats_of(STARS), eval_metric=name)
        good = task.score(task.metrics(STARS, STARS))
        assert good == 0.0
        assert task.score(task.metrics(STARS, [s + 1 for s in STARS])) == pytest.approx(-1.0)


def test_an_undefined_score_is_refused():
    task = Ctr.from_stats(stats_of([0, 1]))
    with pytest.raises(TrainingError, match="auc must be a finite number, but it is nan"):
        task.score(task.metrics([1.0, 1.0], [0.2, 0.3]))
    grouped = Ctr.from_stats(stats_of([0, 1]), eval_metric="gauc", grouped=True)
    with pytest.raises(TrainingError, match=r"must hold 'gauc', but got \['auc', 'ece'"):
        grouped.score(grouped.metrics([1.0, 0.0], [0.2, 0.3]))


def test_eval_metric_must_belong_to_the_task():
    with pytest.raises(ConfigError, match=r"one of \['rmse', 'mae'\], but got 'auc'"):
        Rating.from_stats(stats_of(STARS), eval_metric="auc")
    with pytest.raises(
        ConfigError, match="'gauc' is a mean over groups, but no column is the user"
    ):
        Ctr.from_stats(stats_of([0, 1]), eval_metric="gauc")


@pytest.mark.parametrize(
    "task",
    [
        Ctr.from_stats(stats_of(["no", "yes", "no"]), eval_metric="gauc", grouped=True),
        Ctr.from_stats(stats_of([True, False])),
        Rating.from_stats(stats_of(STARS), eval_metric="mae"),
    ],
)
def test_json_round_trip(task):
    text = json.dumps(task.to_json())
    assert tasks.from_json(json.loads(text)) == task
    other = Rating if isinstance(task, Ctr) else Ctr
    with pytest.raises(DataError, match=f"expected the task '{other.name}'.* '{task.name}'"):
        other.from_json(json.loads(text))


def test_the_catalogue_knows_its_tasks():
    assert {"ctr", "rating"} <= set(tasks.names())
    assert tasks.task("ctr") is Ctr
    with pytest.raises(ConfigError, match="no part named 'ratings'; did you mean 'rating'"):
        tasks.task("ratings")
    for name in tasks.names():
        assert tasks.task(name).name == name


@pytest.mark.parametrize("values", [[0, 1, 1], [True, False], [-1.0, 1.0], ["no", "yes"], STARS])
def test_from_the_column_to_the_labels(values):
    column = pa.table({"y": values})
    stats = label_stats(open_source(column), "y")
    name, _ = tasks.infer_task(stats)
    task = tasks.from_json(json.loads(json.dumps(tasks.task(name).from_stats(stats).to_json())))
    expected = values if values is STARS else [float(v in (1, "yes")) for v in values]
    assert task.label_map.apply(column["y"]).tolist() == expected


@pytest.mark.parametrize(
    ("values", "name", "why"),
    [
        ([0, 1], "ctr", "holds only 0 and 1"),
        ([True, False], "ctr", "holds only False and True"),
        (["a", "b"], "ctr", "'a' and 'b'"),
        (STARS, "rating", "4 distinct numbers"),
        (["a", "b", "c"], "ctr", "3 distinct values that are not numbers"),
    ],
)
def test_auto_task(values, name, why):
    found, reason = tasks.infer_task(stats_of(values))
    assert found == name
    assert why in reason
