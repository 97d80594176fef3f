"""What MLflow would refuse is changed, and nothing else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_param, _validate_tag

from autorec.tracking.entries import key, metric_entries, param_texts, run_status, tag_texts, text

NAMES = st.text(st.sampled_from("aZ9_.-/ :*#ü\n\\"), max_size=12) | st.text(max_size=400)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, st.text(max_size=20), max_size=6))
def test_mlflow_takes_every_name_and_none_is_lost(params: dict[str, str]) -> None:
    texts, changed = param_texts(params)
    assert len(texts) == len(params)
    assert list(texts.values()) == list(params.values())
    assert changed == (list(texts) != list(params))
    for name, value in texts.items():
        _validate_param(name, value)
        _validate_metric_name(name)
    for name, value in tag_texts(params).items():
        _validate_tag(name, value)


@pytest.mark.parametrize("name", ["recipe.lr", "block3.kind", "a/b c-d_e.f", "mlflow.parentRunId"])
def test_good_names_stay(name: str) -> None:
    assert key(name) == name


def test_long_values_are_cut() -> None:
    texts, changed = param_texts({"short": 1, "long": "x" * 7000})
    assert changed
    assert texts == {"short": "1", "long": "x" * 6000}
    assert len(tag_texts({"note": "x" * 9000})["note"]) == 8000
    assert tag_texts({"copied_from": None, "baseline": False}) == {"baseline": "False"}


def test_values_read_well() -> None:
    assert [text(v) for v in (None, True, 0.1, np.float32(0.5), np.int64(3), "a")] == [
        *("None", "True", "0.1", "0.5", "3", "a")
    ]
    assert text({"a": [1, (2,)]}) == '{"a": [1, [2]]}'
    assert text({(1, 2): 3}) == "{(1, 2): 3}"  # no JSON has such keys
    loop: list[Any] = []
    loop.append(loop)
    assert text(loop) == "[[...]]"


def test_metrics_are_finite_numbers_with_step_and_time() -> None:
    points: list[dict[str, Any]] = [
        {"step": 100, "auc": 0.5, "loss": math.nan},
        {"auc": np.float32(0.75), "loss": math.inf, "timestamp": 7.0, "note": "text", "gap": None},
    ]
    entries, skipped = metric_entries(points, at=3.0, prefix="curve/")
    assert [(m.key, m.value, m.step, m.timestamp) for m in entries] == [
        ("curve/auc", 0.5, 100, 3000),
        ("curve/auc", 0.75, 1, 7000),
    ]
    assert skipped == {"curve/loss", "curve/note"}  # a gap is nothing, not a bad number


def test_statuses() -> None:
    expected = {"complete": "FINISHED", "stopped": "FINISHED", "deadline": "FINISHED"}
    expected |= {"killed": "KILLED", "KILLED": "KILLED", "FAILED": "FAILED", "oom": "FAILED"}
    assert {status: run_status(status) for status in expected} == expected
