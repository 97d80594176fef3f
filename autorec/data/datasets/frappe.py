"""Frappe: which mobile app is used in which context; ten categorical fields, official split."""

from __future__ import annotations

from pathlib import Path

from pyarrow import csv

from autorec.data.datasets import Dataset, File, checked, complete
from autorec.errors import DataError

_VALID = "72b6a89fee413def6936bf0ab0be30b8c5aa200bd1d1fc533aca6eb0d3dd98e2"
_TEST = "f09423427a86efc87f9da3b7a2eb9bdd77f117e13458b00400e9d9fc8ac4f6d7"

ORIGINAL = (
    File("frappe/train.csv", "ba7306e6c4fc19dd2cd84f2f0596d158"),
    File("frappe/valid.csv", _VALID, 2_970_023),
    File("frappe/test.csv", _TEST, 1_484_943),
)
RECONSTRUCTED = (
    File(
        "frappe/frappe_x1_train.RECONSTRUCTED.csv",
        "7cda25e02eff66dc7b92a95f5a01c94fe8c773342fbb9f9f5324e22dbc44ae77",
        10_393_525,
    ),
    File("frappe/frappe_x1_valid.csv", _VALID, 2_970_023),
    File("frappe/frappe_x1_test.csv", _TEST, 1_484_943),
)
LAYOUTS = (ORIGINAL, RECONSTRUCTED)
ARCHIVE = None  # its licence forbids redistribution without permission
WHERE = (
    "the files are the Frappe_x1 split of the BARS benchmark (github.com/reczoo/Datasets); put its "
    "train.csv, valid.csv and test.csv into a folder 'frappe'"
)
CONTEXT = ["daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"]


def load(root: Path) -> Dataset:
    """Read Frappe_x1 from `root`/frappe: label and ten columns of integer codes, no timestamp.

    Raises:
        DataError: a file is missing or altered.
    """
    layout = complete(root, LAYOUTS)
    if layout is None:
        raise DataError(f"no complete layout of frappe lies under {root}; {WHERE}")
    train, valid, test = (csv.read_csv(checked(root, file)) for file in layout)
    note = "official split Frappe_x1"
    if layout is RECONSTRUCTED:
        note += (
            ", but the items of the training negatives are drawn anew (positives, contexts, valid "
            "and test are exact): results are close to published ones, not comparable to the digit"
        )
    return Dataset(
        name="frappe",
        train=train,
        valid=valid,
        test=test,
        label="label",
        user_id="user",
        item_id="item",
        timestamp=None,
        task="ctr",
        feature_types=dict.fromkeys(CONTEXT, "categorical"),
        note=note,
    )
