"""A small log of clicks and one fit on it, shared by the tests of the front door."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from autorec import AutoRec


@pytest.fixture(scope="session")
def log() -> pd.DataFrame:
    """3000 clicks of 60 users on 40 items, with a price and tags per item, a second apart."""
    rng = np.random.default_rng(1)
    rows, users, items = 3000, 60, 40
    user, item = rng.integers(users, size=rows), rng.integers(items, size=rows)
    price = rng.gamma(2.0, 10.0, items).round(2)
    tags = [
        sorted(rng.choice(["a", "b", "c", "d"], rng.integers(1, 4), False)) for _ in range(items)
    ]
    likes = rng.normal(size=users)[user] + rng.normal(size=items)[item] - 0.03 * price[item]
    return pd.DataFrame(
        {
            "user": user,
            "item": [f"i{i}" for i in item],
            "price": price[item] + rng.normal(0, 0.1, rows).round(2),
            "tags": [tags[i] for i in item],
            "ts": 1_700_000_000 + np.arange(rows),
            "click": (rng.random(rows) < 1 / (1 + np.exp(-likes))).astype(np.int64),
        }
    )


@pytest.fixture(scope="session")
def fitted(log: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> AutoRec:
    """Six trials on the log, with an MLflow store in the run folder."""
    ar = AutoRec(label="click", path=tmp_path_factory.mktemp("front") / "run", verbosity=0)
    return ar.fit(log, time_limit=90, n_trials=6)
