"""Statistics of time while a ranker serves: rows are asked at their time, events move them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autorec.candidate import Candidate, Features, Recipe
from autorec.data.columns import Columns
from autorec.data.derivation import Derivation
from autorec.data.features.counts import Counts
from autorec.data.features.recency import Recency
from autorec.data.state import LiveState
from autorec.data.timeline import of_rows
from autorec.deploy.live import Counting
from autorec.errors import DataError

SINCE = "user.since"
READS = Candidate("popularity", Recipe({"prior_strength": 5.0}), Features("both", counts=2))


class One:
    """A model whose score is one derived number."""

    def predict(self, columns: Columns) -> np.ndarray:
        names = [field.name for field in columns.layout.dense]
        return columns.dense[:, names.index(SINCE)].astype(np.float64)

    def save(self, folder: Path) -> None:
        (folder / "one.json").write_text(json.dumps({}))


@pytest.fixture
def ranker(parts: Any) -> Counting:
    log = parts.log
    label = parts.task.label_map.apply(log["click"].combine_chunks())
    rows = parts.encoder.plain(log)
    train = Columns.of(parts.encoder.base, rows, label=label, time=of_rows(log, parts.schema))
    wanted = (Recency(("user",), (), unit="s"), Counts(("item",)))
    derivation, _ = Derivation.fit(wanted, train, [SINCE, "item.count"])
    return replace(parts, encoder=parts.encoder.extended(derivation)).ranker(One(), READS)


def hours(ranker: Any, score: np.ndarray) -> np.ndarray:
    scale = ranker.encoder.derivation.numeric[0]
    assert not scale.log
    return np.expm1(score * scale.std + scale.mean)


def test_rows_are_asked_at_their_time_and_behind_the_log_without_one(ranker: Any, parts: Any):
    last = {row["user"]: row["ts"] for row in parts.log.to_pylist()}
    end = parts.log["ts"].to_pylist()[-1]
    rows = parts.log.slice(2900, 20).to_pylist()
    bare = [{k: v for k, v in row.items() if k != "ts"} for row in rows]
    passed = [end + 1 - last[row["user"]] for row in rows]
    np.testing.assert_allclose(hours(ranker, ranker.score(bare)), passed, rtol=1e-3)
    late = [{**row, "ts": end + 5000} for row in rows]
    np.testing.assert_allclose(hours(ranker, ranker.score(late)), np.add(passed, 4999), rtol=1e-3)


def test_events_move_the_time_since(ranker: Any, parts: Any, tmp_path: Path):
    assert ranker.statistics == (SINCE, "item.count")
    row = {**parts.log.slice(0, 1).to_pylist()[0]}
    other = {**parts.log.slice(1, 1).to_pylist()[0]}
    assert row["user"] != other["user"]
    end = parts.log["ts"].to_pylist()[-1]
    before = hours(ranker, ranker.score([{**other, "ts": end + 400}]))
    assert ranker.update([{**row, "ts": end + 100}]) == 1
    now = ranker.score([{**row, "ts": end + 400}, {**other, "ts": end + 400}])
    np.testing.assert_allclose(hours(ranker, now), [300, before[0]], rtol=1e-3)
    bare = [{k: v for k, v in row.items() if k != "ts"}]
    np.testing.assert_allclose(hours(ranker, ranker.score(bare)), [1], rtol=1e-3)
    first = ranker.rank(users=[row["user"]], k=1, filter_seen=False)["score"][0]
    assert first == ranker.score(bare)[0]
    with pytest.raises(DataError, match="'ts'"):
        ranker.update(bare)
    ranker.live.save(tmp_path / "live")
    assert LiveState.load(tmp_path / "live").newest == end + 100
