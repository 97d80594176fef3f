"""A ranker as small as it can be, found by its manifest the way a real one is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from autorec.errors import DataError
from autorec.schema import Field, Kind, Role, Schema

SCHEMA = Schema(
    (
        Field("user", Kind.ID, Role.USER, "int64"),
        Field("item", Kind.ID, Role.ITEM, "string"),
        Field("price", Kind.NUMERIC, Role.FEATURE, "double"),
        Field("age", Kind.NUMERIC, Role.FEATURE, "int64"),
        Field("mobile", Kind.CATEGORICAL, Role.FEATURE, "bool"),
        Field("tags", Kind.LIST, Role.FEATURE, "list<item: string>"),
        Field("seen", Kind.LIST, Role.FEATURE, "list<item: int64>"),
        Field("click", Kind.NUMERIC, Role.LABEL, "int64"),
    )
)


class FakeRanker:
    """Scores a row by the sum of what its values are worth, so that any changed value shows."""

    schema = SCHEMA

    def __init__(self, weight: float) -> None:
        self.weight = weight

    @classmethod
    def load(cls, folder: Path) -> FakeRanker:
        """Read the weight."""
        return cls(float(json.loads((folder / "weight.json").read_text())))

    def score(self, frame: pd.DataFrame) -> np.ndarray:
        """Return one number a row."""
        if "forbidden" in list(frame.get("item", [])):
            raise DataError("the item 'forbidden' is not scored")
        rows = frame.to_dict("records")
        return np.array(
            [self.weight * sum(worth(n, row.get(n)) for n in SCORED) for row in rows], dtype=float
        )

    def rank(self, users: pd.DataFrame, *, k: int = 10) -> pd.DataFrame:
        """Return items 'i0', 'i1', ... for the user of every row."""
        asked = users["user"].tolist()
        rows = [(user, f"i{j}", 1.0 / (j + 1), j + 1) for user in asked for j in range(k)]
        return pd.DataFrame(rows, columns=["user_id", "item_id", "score", "rank"])


SCORED = [field.name for field in SCHEMA.features]


def worth(name: str, value: Any) -> float:
    """Return a number for a value; absent, None and NaN are one and the same."""
    if isinstance(value, (list, np.ndarray)):
        return 10.0 + sum(worth(name, item) for item in value)
    if value is None or value != value:
        return 1000.0 + len(name)
    if isinstance(value, str):
        return float(sum(value.encode()))
    return float(value)
