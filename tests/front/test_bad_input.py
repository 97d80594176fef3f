"""Bad input: each kind has an error that names it, and a refused table leaves nothing behind."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from autorec import AutoRec
from autorec.errors import AutoRecError, DataError, SchemaError


def fit(frame, tmp_path, **made):
    AutoRec(**{"label": "click", **made}, path=tmp_path / "run", verbosity=0).fit(
        frame, time_limit=20, mlflow=False
    )


def with_column(log, **columns):
    return log.assign(**columns)


FUTURE = int(time.time()) + 10**8
CASES = {
    "no label column": (
        lambda log: log.drop(columns="click"),
        SchemaError,
        "must be in the table, but it is not",
    ),
    "constant label": (lambda log: with_column(log, click=1), DataError, r"all 3000 rows .* are 1"),
    "three words": (
        lambda log: with_column(log, click=np.resize(["yes", "no", "maybe"], len(log))),
        DataError,
        "maybe",
    ),
    "null label": (
        lambda log: with_column(log, click=log["click"].where(log.index > 5).astype("Int64")),
        DataError,
        "null",
    ),
    "empty table": (lambda log: log.iloc[:0], DataError, "rows"),
    "one row": (lambda log: log.iloc[:1], AutoRecError, "all 1 rows"),
    "negative weight": (
        lambda log: with_column(log, weight=np.where(log.index == 7, -1.0, 1.0)),
        DataError,
        "negative",
    ),
    "word as weight": (lambda log: with_column(log, weight="heavy"), SchemaError, "weight"),
    "infinite number": (
        lambda log: with_column(log, price=np.where(log.index == 3, np.inf, log["price"])),
        DataError,
        "price.*inf|inf.*price",
    ),
    "infinite label": (
        lambda log: with_column(log, click=np.where(log.index == 3, np.inf, 1.0)),
        DataError,
        "finite",
    ),
    "time in the future": (
        lambda log: with_column(log, ts=np.where(log.index == 9, FUTURE, log["ts"])),
        DataError,
        "future|ahead",
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_fit_refuses_with_a_reason_and_writes_nothing(case, log, tmp_path):
    change, error, message = CASES[case]
    frame = change(log)
    made = {"sample_weight": "weight"} if "weight" in frame else {}
    with pytest.raises(error, match=message):
        fit(frame, tmp_path, **made)
    assert not (tmp_path / "run").exists()


def test_three_words_as_rating_are_refused(log, tmp_path):
    frame = with_column(log, click=np.resize(["good", "bad", "fair"], len(log)))
    with pytest.raises(DataError, match="good"):
        fit(frame, tmp_path, task="rating")


def test_duplicate_columns(log, tmp_path):
    frame = pd.concat([log, log[["price"]]], axis=1)
    with pytest.raises(SchemaError, match="price"):
        fit(frame, tmp_path)
    assert not (tmp_path / "run").exists()


def test_files_that_cannot_be_read(log, tmp_path):
    (tmp_path / "log.xyz").write_bytes(b"\x00\x01\x02" * 100)
    (tmp_path / "log.parquet").write_bytes(b"PAR1 this is not a table PAR1")
    for name, word in (
        ("log.xyz", "log.xyz"),
        ("log.parquet", "log.parquet"),
        ("none.csv", "none"),
    ):
        with pytest.raises(DataError, match=word):
            fit(str(tmp_path / name), tmp_path)
    with pytest.raises(DataError, match="int"):
        fit(7, tmp_path)
    assert not (tmp_path / "run").exists()


def test_null_and_constant_columns_are_left_out_with_a_reason(fitted, log, tmp_path):
    frame = with_column(log, nothing=None, same="x")
    ar = AutoRec(label="click", path=tmp_path / "run", verbosity=0)
    ar.fit(frame, time_limit=30, n_trials=1, mlflow=False)
    fields = {field.name: field for field in ar.schema_.fields}
    assert fields["nothing"].role.value == "ignore" and "null" in fields["nothing"].reason
    assert fields["same"].role.value == "ignore" and "all rows have x" in fields["same"].reason


def test_unknown_ids_and_extra_columns_at_predict_are_fine(fitted, log):
    rows = log.head(5).drop(columns=["click", "ts"]).assign(user=-1, item="never", extra=1)
    scores = fitted.predict_proba(rows)
    assert np.isfinite(scores).all()
    assert np.array_equal(scores, fitted.predict_proba(rows.drop(columns="extra")))


def test_missing_columns_at_predict_are_all_named(fitted, log):
    with pytest.raises(DataError, match=r"(?s)price.*tags|tags.*price"):
        fitted.predict_proba(log.drop(columns=["price", "tags"]))


def test_wrong_types_at_predict_are_named(fitted, log):
    with pytest.raises(DataError, match=r"price.*dear|dear.*price"):
        fitted.predict_proba(log.head(3).assign(price="dear"))
    with pytest.raises(DataError, match="user"):
        fitted.predict_proba(log.head(3).assign(user="someone"))
    same = fitted.predict_proba(log.head(3).assign(user=log["user"].head(3).astype(str)))
    assert np.array_equal(same, fitted.predict_proba(log.head(3)))


def test_infinite_numbers_at_predict_are_named_and_nulls_are_fine(fitted, log):
    with pytest.raises(DataError, match="price"):
        fitted.predict_proba(log.head(3).assign(price=np.inf))
    assert np.isfinite(fitted.predict_proba(log.head(3).assign(price=np.nan))).all()
