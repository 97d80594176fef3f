"""MovieLens-100K: 943 users rate 1682 movies, with five official folds."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from autorec.data.datasets import Archive, Dataset, File, checked
from autorec.errors import ConfigError

FILES = (
    File(
        "ml-100k/u.data",
        "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
        1_979_173,
    ),
    File(
        "ml-100k/u.item",
        "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
        236_344,
    ),
    File(
        "ml-100k/u.user",
        "f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c",
        22_628,
    ),
    File(
        "ml-100k/u1.base",
        "ce253ec86c448b44fb3ba9a30d12dcfc2e9210cbde71efada3730c22e9ac212a",
        1_586_544,
    ),
    File(
        "ml-100k/u1.test",
        "18c6014a4b2c7324f250a63f8904a7b16b2b19f911129e346141507b0cbac950",
        392_629,
    ),
    File(
        "ml-100k/u2.base",
        "6c06f0b5df4b256da1a994f3ac66edc8da4d3f09bc9282df6b14d893366d703e",
        1_583_948,
    ),
    File(
        "ml-100k/u2.test",
        "4de658d1e04ed9104629509a2e2528fce833ac8e048280183f1df167632038c3",
        395_225,
    ),
    File(
        "ml-100k/u3.base",
        "afdc155c291c6edc41c0407e39d7462eb98d341e064f0b0a12175b80b3c4af5d",
        1_582_546,
    ),
    File(
        "ml-100k/u3.test",
        "0f548b51c78327de4c156461d3e430b7e5579fe2b5681586a59416e48fd35f6d",
        396_627,
    ),
    File(
        "ml-100k/u4.base",
        "219f0f4d40dfe9c5141d425f53fa91ee23ed275f14e280bbf1b50117afb064ca",
        1_581_878,
    ),
    File(
        "ml-100k/u4.test",
        "7c02ad0a1e7ab1083c8b9d4b627203a051dd7b5eab46d99fa44de33470de8db9",
        397_295,
    ),
    File(
        "ml-100k/u5.base",
        "a9574e59ce961eec2121627760b6e9b0974ce1637b3fe69ac32cb14a4bfab485",
        1_581_776,
    ),
    File(
        "ml-100k/u5.test",
        "351cc52e0d15b6c721466276fc24671d40936899e3d01fadeaf312915b8c5634",
        397_397,
    ),
)
LAYOUTS = (FILES,)
ARCHIVE: Archive | None = Archive(
    "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
    "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
)
WHERE = "unpack ml-100k.zip from https://grouplens.org/datasets/movielens/100k/"
FOLDS = ("u1", "u2", "u3", "u4", "u5")
GENRES = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
TYPES = {
    "age": "numeric",
    "gender": "categorical",
    "occupation": "categorical",
    "zip3": "categorical",
    "year": "numeric",
    "genres": "list",
}
LIKED = 4  # stars from which as_ctr counts a rating as positive


def _read(root: Path, name: str, delimiter: str, columns: list[str]) -> pa.Table:
    (file,) = (file for file in FILES if file.path == f"ml-100k/{name}")
    return csv.read_csv(
        checked(root, file),
        csv.ReadOptions(column_names=columns, encoding="latin1"),
        csv.ParseOptions(delimiter=delimiter, quote_char=False),
        csv.ConvertOptions(strings_can_be_null=True, column_types={"zip": pa.string()}),
    )


def _users(root: Path) -> pa.Table:
    table = _read(root, "u.user", "|", ["user", "age", "gender", "occupation", "zip"])
    zip3 = pc.utf8_slice_codeunits(table["zip"], 0, 3)
    return table.drop_columns(["zip"]).append_column("zip3", zip3)


def _items(root: Path) -> pa.Table:
    columns = ["item", "title", "release", "video", "url", *GENRES]
    table = _read(root, "u.item", "|", columns)
    year = pc.cast(pc.utf8_slice_codeunits(table["release"], 7, 11), pa.int64())
    flags = zip(*(table[genre].to_pylist() for genre in GENRES), strict=True)
    genres = [[g for g, on in zip(GENRES, row, strict=True) if on] for row in flags]
    return pa.table({"item": table["item"], "year": year, "genres": pa.array(genres)})


def join(ratings: pa.Table, users: pa.Table, items: pa.Table) -> pa.Table:
    """Return the ratings, in their order, with the columns of their user and item beside them."""
    for key, side in (("user", users), ("item", items)):
        rows = side.take(pc.index_in(ratings[key], value_set=side[key].combine_chunks()))
        for name in side.column_names[1:]:
            ratings = ratings.append_column(name, rows[name])
    return ratings


def liked(table: pa.Table) -> pa.Table:
    """Return the table with `rating` replaced by `liked`: 1 from four stars on, else 0."""
    at = table.column_names.index("rating")
    return table.set_column(at, "liked", pc.cast(pc.greater_equal(table["rating"], LIKED), "int8"))


def load(root: Path, *, fold: str | None = None, as_ctr: bool = False) -> Dataset:
    """Read MovieLens-100K from `root`/ml-100k, with the age, gender, ... of user and movie joined.

    Args:
        fold: "u1" .. "u5" gives the official 80/20 split as train and test; None gives all 100 000
            ratings as train.
        as_ctr: the label is `liked` (4 or 5 stars) in place of `rating`.

    Raises:
        ConfigError: an unknown fold.
        DataError: a file is missing or altered.
    """
    if fold is not None and fold not in FOLDS:
        raise ConfigError(f"fold must be None or one of {list(FOLDS)}, but got {fold!r}")
    users, items = _users(root), _items(root)
    tables = []
    for name in (f"{fold}.base", f"{fold}.test") if fold else ("u.data",):
        ratings = _read(root, name, "\t", ["user", "item", "rating", "timestamp"])
        time = ratings["timestamp"].cast(pa.timestamp("s"))
        table = join(ratings.set_column(3, "timestamp", time), users, items)
        tables.append(liked(table) if as_ctr else table)
    return Dataset(
        name="movielens-100k",
        train=tables[0],
        valid=None,
        test=tables[1] if fold else None,
        label="liked" if as_ctr else "rating",
        user_id="user",
        item_id="item",
        timestamp="timestamp",
        task="ctr" if as_ctr else "rating",
        feature_types=dict(TYPES),
        note=f"official fold {fold}, random in time" if fold else "all ratings, no official test",
    )
