"""Criteo display advertising: the first 10 000 rows, 13 counts and 26 hashed categories."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from autorec.data.datasets import Dataset, File, checked

SAMPLE = File(
    "criteo/autorec_train-10k.txt",
    "f665bb8823fd742ea1b8602d70918f235ccc08eba3224f1621c11022721c21a3",
    2_422_799,
)
LAYOUTS = ((SAMPLE,),)
ARCHIVE = None  # its terms ask each user to agree at the publisher
WHERE = (
    "the file is the first 10 000 lines of train.txt of the Criteo display advertising challenge "
    "(https://ailab.criteo.com/ressources/)"
)
NUMBERS = [f"I{i}" for i in range(1, 14)]
CATEGORIES = [f"C{i}" for i in range(1, 27)]


def load(root: Path) -> Dataset:
    """Read the sample from `root`/criteo: label, I1..I13 (int64), C1..C26 (string), with nulls.

    Raises:
        DataError: the file is missing or altered.
    """
    columns = ["label", *NUMBERS, *CATEGORIES]
    numbers = dict.fromkeys(["label", *NUMBERS], pa.int64())
    table = csv.read_csv(
        checked(root, SAMPLE),
        csv.ReadOptions(column_names=columns),
        csv.ParseOptions(delimiter="\t", quote_char=False),
        csv.ConvertOptions(
            null_values=[""],
            strings_can_be_null=True,
            column_types={**dict.fromkeys(CATEGORIES, pa.string()), **numbers},
        ),
    )
    return Dataset(
        name="criteo-kaggle",
        train=table,
        valid=None,
        test=None,
        label="label",
        user_id=None,
        item_id=None,
        timestamp=None,
        task="ctr",
        feature_types={
            **dict.fromkeys(NUMBERS, "numeric"),
            **dict.fromkeys(CATEGORIES, "categorical"),
        },
        note="the first 10 000 of 45 840 617 rows, in order of time: a sample, not the benchmark",
    )
