"""Avazu click-through: the first 9 999 rows, 22 categorical fields."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from autorec.data.datasets import Dataset, File, checked

SAMPLE = File(
    "avazu/autorec_train-10k",
    "de130fb5241bbb125c7db719ad9d5ec68e71a28358bf14a519c0c90d04160964",
    1_559_115,
)
LAYOUTS = ((SAMPLE,),)
ARCHIVE = None  # competition rules ask each user to agree at the publisher
WHERE = (
    "the file is the first 10 000 lines of train.csv of the Avazu competition "
    "(https://www.kaggle.com/c/avazu-ctr-prediction)"
)


def load(root: Path) -> Dataset:
    """Read the sample from `root`/avazu: click, hour (timestamp) and 21 columns of codes.

    The row identifier `id` is dropped. All rows of the sample are of one hour, so that `hour`
    orders nothing and `timestamp` is None.

    Raises:
        DataError: the file is missing or altered.
    """
    words = [
        f"{place}_{part}" for place in ("site", "app") for part in ("id", "domain", "category")
    ]
    words += ["hour", "device_id", "device_ip", "device_model"]
    table = csv.read_csv(
        checked(root, SAMPLE),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(words, pa.string())),
    ).drop_columns(["id"])
    at = table.column_names.index("hour")
    hour = pc.strptime(table["hour"], "%y%m%d%H", "s")
    table = table.set_column(at, "hour", hour)
    fields = [name for name in table.column_names if name not in ("click", "hour")]
    return Dataset(
        name="avazu",
        train=table,
        valid=None,
        test=None,
        label="click",
        user_id=None,
        item_id=None,
        timestamp="hour" if pc.count_distinct(hour).as_py() > 1 else None,
        task="ctr",
        feature_types={**dict.fromkeys(fields, "categorical"), "hour": "timestamp"},
        note="the first 9 999 of 40 428 967 rows, all of one hour: a sample, not the benchmark",
    )
