"""A fit on a log whose clicks follow the time since the user's last event."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from autorec import AutoRec
from autorec.deploy.ranker import Ranker


def log(n: int = 5_000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    time = 1_700_000_000 + np.sort(rng.choice(60 * 86_400, n, replace=False))
    user = rng.integers(0, 120, n)
    since = np.log1p((time - pd.Series(time).groupby(user).shift().to_numpy()) / 3600)
    margin = 1.2 * np.nan_to_num((since - np.nanmean(since)) / np.nanstd(since)) - 0.5
    return pd.DataFrame(
        {
            "user": user,
            "item": rng.integers(0, 30, n),
            "ts": pd.to_datetime(time, unit="s"),
            "click": (margin + rng.logistic(size=n) > 0).astype(int),
        }
    )


def test_a_fit_finds_the_time_since_and_its_models_use_it(tmp_path: Path) -> None:
    frame = log()
    ar = AutoRec(
        label="click",
        user_id="user",
        item_id="item",
        timestamp="ts",
        path=tmp_path / "run",
        verbosity=0,
    )
    ar.fit(frame, time_limit=90, n_trials=4, split="random")
    kept = [one.name for one in ar.screening_.evidence if one.kept]
    assert kept == ["user.since"]
    board = ar.leaderboard().set_index("model")["auc"]
    assert board["lightgbm+features"] > board["lightgbm"] + 0.08
    assert board["lightgbm+features"] == board.max()
    ranker = Ranker.load(tmp_path / "run" / "ranker")
    derivation = ranker.encoder.derivation
    assert derivation is not None
    assert [field.name for field in derivation.layout.dense] == ["user.since"]
    assert derivation.timed and derivation.newest == frame["ts"].max().value // 1000
    score = np.asarray(ar.predict_proba(frame.head(50)))
    assert np.isfinite(score).all()
    best = ar.rank(users=[3], k=5)
    assert len(best) == 5 and best["score"].is_monotonic_decreasing
    assert np.array_equal(ranker.score(frame.head(50)), score)
