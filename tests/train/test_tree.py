"""What trees see of lists and texts: which values, chosen how, and what that is worth."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autorec.candidate import Candidate, Features, Recipe
from autorec.data.columns import Columns
from autorec.data.encoder import Encoder
from autorec.errors import RankerError
from autorec.job import Job
from autorec.schema import Field, Kind, Layout, ListField, Role, Schema
from autorec.search_spaces._genes import TREE_DEFAULTS
from autorec.train import _shown
from autorec.train.fit import TrainingData, fit, load_model
from autorec.train.tree import matrix

TREE = Candidate("tree", Recipe(TREE_DEFAULTS))
WORDS = 300


def texts(rows: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Titles of six words of 300, and clicks that follow one rare word."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, WORDS, (rows, 6))
    wanted = rng.random(rows) < 0.15
    words[wanted, rng.integers(0, 6, rows)[wanted]] = 217
    hit = (words == 217).any(axis=1)
    label = rng.random(rows) < np.where(hit, 0.8, 0.2)
    return [" ".join(f"word{w}" for w in row) for row in words], label.astype(np.float32)


def encoded(rows: int, seed: int, encoder: Encoder | None = None) -> tuple[Encoder, Columns]:
    import pyarrow as pa

    title, label = texts(rows, seed)
    rng = np.random.default_rng(seed + 1)
    table = pa.table({"user": rng.integers(0, 20, rows), "title": title})
    schema = Schema(
        (
            Field("user", Kind.ID, Role.USER, "int64"),
            Field("title", Kind.TEXT, Role.FEATURE, "string"),
        )
    )
    found = encoder or Encoder.fit(lambda: iter(table.to_batches()), schema)
    return found, Columns.of(found.layout, found.encode(table), label=label)


def fitted(data: TrainingData):
    return fit(Job(0, TREE, seed=1, deadline=time.time() + 300), data, lambda rows, score: True)


def data_of(train: Columns, valid: Columns, like: TrainingData) -> TrainingData:
    return TrainingData(train, valid, train.layout, like.task)


def test_a_planted_word_is_seen_and_beats_a_tree_without_the_text(click_data, tmp_path: Path):
    encoder, train = encoded(4000, 0)
    _, valid = encoded(2000, 5, encoder)
    with_text = fitted(data_of(train, valid, click_data))
    layout = replace(train.layout, lists=())
    plain = [replace(one, layout=layout, lists={}) for one in (train, valid)]
    without = fitted(data_of(*plain, click_data))
    assert with_text.metrics["auc"] > without.metrics["auc"] + 0.1
    assert without.metrics["auc"] < 0.55
    word = int(encoder.encode(_one("word217")).lists["title"][0, 0])
    assert with_text.model.shown["title"][0] == word
    with_text.model.save(tmp_path)
    again = load_model(tmp_path, TREE, train.layout, click_data.task)
    assert again.predict(valid).tobytes() == with_text.model.predict(valid).tobytes()


def _one(title: str):
    import pyarrow as pa

    return pa.table({"user": [1], "title": [title]})


def lists(rows: int, values: int, seed: int) -> Columns:
    """Lists with repeats and gaps, of values whose frequency falls."""
    rng = np.random.default_rng(seed)
    codes = np.minimum(rng.zipf(1.3, (rows, 5)), values - 1).astype(np.int32)
    codes[:, 3:][rng.random((rows, 2)) < 0.5] = 0
    layout = Layout(lists=(ListField("tags", values, 5),))
    nothing = np.empty((rows, 0))
    label = (rng.random(rows) < 0.3).astype(np.float32)
    return Columns(
        layout, rows, nothing.astype(np.int32), {"tags": codes}, nothing.astype(np.float32), label
    )


@pytest.mark.parametrize("rows", [0, 1, 70_000])
def test_flags_are_those_of_a_loop(rows: int):
    made = lists(rows, 90, 0)
    shown = {"tags": (7, 3, 88)}
    seen = matrix(made, Features(), shown)
    values = made.lists["tags"]
    want = [*((values == code).any(axis=1) for code in shown["tags"]), (values > 0).sum(axis=1)]
    np.testing.assert_array_equal(seen, np.stack(want, 1))
    assert seen.dtype == np.float32


def test_values_that_tell_come_first_and_frequent_ones_behind_them():
    made = lists(20_000, 90, 1)
    values, label = made.lists["tags"], made.label.copy()
    for code in (40, 61):
        label[(values == code).any(axis=1)] = 1.0
    found = _shown.choose(replace(made, label=label))["tags"]
    assert set(found[:2]) == {40, 61} and len(found) == len(set(found)) == _shown.MOST
    rows = {c: int((values == c).any(axis=1).sum()) for c in range(1, 90)}
    rest = [c for c in sorted(rows, key=lambda c: (-rows[c], c)) if c not in (40, 61)]
    assert list(found[2:]) == rest[: _shown.MOST - 2]


def test_without_signal_the_most_frequent_are_shown():
    made = lists(20_000, 90, 2)
    values = made.lists["tags"]
    rows = {c: int((values == c).any(axis=1).sum()) for c in range(1, 90)}
    want = sorted(rows, key=lambda c: (-rows[c], c))[: _shown.MOST]
    assert list(_shown.choose(made)["tags"]) == want
    assert list(_shown.choose(replace(made, label=None))["tags"]) == want
    assert _shown.choose(lists(50, 9, 0))["tags"] == tuple(range(1, 9))
    mixed = np.random.default_rng(3).permutation(len(made))
    assert _shown.choose(made.take(mixed)) == _shown.choose(made)


def test_a_folder_without_the_file_is_of_the_first_codes(tmp_path: Path):
    layout = lists(1, 90, 0).layout
    assert _shown.load(tmp_path, layout) == {"tags": tuple(range(1, 33))}
    _shown.save(tmp_path, {"tags": (5, 2)})
    assert _shown.load(tmp_path, layout) == {"tags": (5, 2)}
    (tmp_path / "lists.json").write_text('{"other": [1]}')
    with pytest.raises(RankerError, match="must hold the codes of the lists"):
        _shown.load(tmp_path, layout)
