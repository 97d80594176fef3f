"""A small log with known user, item and context columns, and rankers made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from autorec.candidate import Candidate, Recipe
from autorec.data.encoder import Encoder
from autorec.data.labels import label_stats
from autorec.data.sources import open_source
from autorec.deploy.ranker import Ranker
from autorec.schema import Field, Kind, Role, Schema
from autorec.tasks.ctr import Ctr

SCHEMA = Schema(
    (
        Field("click", Kind.CATEGORICAL, Role.LABEL, "int64"),
        Field("user", Kind.ID, Role.USER, "string"),
        Field("item", Kind.ID, Role.ITEM, "int64"),
        Field("ts", Kind.TIMESTAMP, Role.TIMESTAMP, "int64"),
        Field("age", Kind.NUMERIC, Role.FEATURE, "double"),
        Field("country", Kind.CATEGORICAL, Role.FEATURE, "string"),
        Field("price", Kind.NUMERIC, Role.FEATURE, "double"),
        Field("genres", Kind.LIST, Role.FEATURE, "list<item: string>"),
        Field("hour", Kind.CATEGORICAL, Role.FEATURE, "int64"),
        Field("wait", Kind.NUMERIC, Role.FEATURE, "double"),
    )
)


def make_log(users: int = 25, items: int = 40, rows: int = 3000, seed: int = 0) -> pa.Table:
    """Return a log: age and country belong to the user, price and genres to the item."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(users, size=rows), rng.integers(items, size=rows)
    age = rng.normal(40, 10, users).round(1)
    country = rng.choice(["de", "fr", "it", "es"], users)
    price = rng.gamma(2.0, 10.0, items).round(2)
    genres = [
        list(rng.choice(["a", "b", "c", "d"], rng.integers(0, 4), False)) for _ in range(items)
    ]
    hour, wait = rng.choice(24, rows, p=np.arange(1, 25) / 300), rng.exponential(1.0, rows).round(3)
    logit = 0.05 * (age[user] - 40) + np.sin(item) - 0.02 * price[item] + 0.1 * (hour % 5) - 1
    return pa.table(
        {
            "click": (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64),
            "user": [f"u{u}" for u in user],
            "item": item,
            "ts": np.sort(rng.integers(0, 10**6, rows)),
            "age": age[user],
            "country": country[user],
            "price": price[item],
            "genres": pa.array([genres[i] for i in item], pa.list_(pa.string())),
            "hour": hour,
            "wait": wait,
        }
    )


class Mixed:
    """A fake model: a smooth function of everything it is shown, with pairwise terms."""

    def __init__(self, constant: bool = False) -> None:
        self.constant = constant
        self.rows: list[int] = []

    def predict(self, columns: Any) -> np.ndarray:
        self.rows.append(columns.n_rows)
        codes = columns.codes.astype(np.float64)
        total = np.zeros(columns.n_rows)
        if self.constant:
            return total
        for i in range(codes.shape[1]):
            total += np.sin((i + 1) * codes[:, i] + codes[:, (i + 1) % codes.shape[1]] * 0.7)
        total += np.nan_to_num(columns.dense.astype(np.float64)).sum(axis=1)
        for values in columns.lists.values():
            total += np.cos(values.astype(np.float64)).sum(axis=1)
        return total

    def save(self, folder: Path) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Parts:
    """What a ranker is made of, but for the model."""

    log: pa.Table
    schema: Schema
    task: Ctr
    encoder: Encoder

    def ranker(self, model: Any, candidate: Candidate | None = None) -> Ranker:
        """Return a ranker that remembers the log."""
        chosen = candidate or Candidate("popularity", Recipe({"prior_strength": 5.0}))
        source = open_source(self.log)
        return Ranker.make(source, self.schema, self.task, chosen, self.encoder, model)


def make_parts(log: pa.Table, *, drop: tuple[str, ...] = ()) -> Parts:
    """Return the parts of a ranker fitted on a log, without some columns."""
    schema = Schema(tuple(field for field in SCHEMA.fields if field.name not in drop))
    log = log.drop_columns(list(drop))
    source = open_source(log)
    encoder = Encoder.fit(lambda: source.batches(), schema, bins=8)
    return Parts(log, schema, Ctr.from_stats(label_stats(source, "click")), encoder)


@pytest.fixture(scope="session")
def parts() -> Parts:
    return make_parts(make_log())


@pytest.fixture(scope="session")
def mixed(parts: Parts) -> Ranker:
    return parts.ranker(Mixed())


@pytest.fixture(scope="session")
def flat(parts: Parts) -> Ranker:
    """A ranker that gives every row the same score."""
    return parts.ranker(Mixed(constant=True))


@pytest.fixture(scope="session")
def make() -> Callable[..., Ranker]:
    """Return a function from the size of a log to a ranker with a fake model."""

    def build(*, drop: tuple[str, ...] = (), **size: int) -> Ranker:
        return make_parts(make_log(**size), drop=drop).ranker(Mixed())

    return build
