"""MovieLens-1M: 6040 users rate 3706 movies a million times."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from autorec.data.datasets import Archive, Dataset, File, checked, complete
from autorec.data.datasets.movielens_100k import TYPES, join, liked
from autorec.errors import DataError

USERS = File(
    "ml-1m/users.dat",
    "1dc3a95300cb19f7c10e027daf29b8cdf1d908dab65b5edfb45950aa389a10a3",
    134_368,
)
MOVIES = File(
    "ml-1m/movies.dat",
    "0140fc2356357c1a851d0f52e893a1e4d3696df632c4141cea8d5bc3d621f0b9",
    171_308,
)
RATINGS = File(
    "ml-1m/ratings.dat",
    "506d64ca44484487c11dc2d9a28de5c54948213e6b96285e298afe28d6ea4e0f",
    24_594_131,
)
ORDERED = File(
    "ml-1m/ratings_with_order.csv",
    "28537ad0029759bf4a3252d4f41f08fdef0d77ad84d340ab4df90caf126fdf87",
    27_097_386,
)
LAYOUTS = ((RATINGS, USERS, MOVIES), (ORDERED, USERS, MOVIES))
ARCHIVE: Archive | None = Archive(
    "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
    "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
)
WHERE = "unpack ml-1m.zip from https://grouplens.org/datasets/movielens/1m/"


def _read(root: Path, file: File, columns: list[str]) -> pa.Table:
    """Read a file whose columns are parted by two colons, which no CSV reader takes."""
    text = checked(root, file).read_bytes().replace(b"::", b"\t")
    return csv.read_csv(
        io.BytesIO(text),
        csv.ReadOptions(column_names=columns, encoding="latin1"),
        csv.ParseOptions(delimiter="\t", quote_char=False),
        csv.ConvertOptions(column_types={"zip": pa.string()}),
    )


def _ratings(root: Path, file: File) -> pa.Table:
    if file is RATINGS:
        table = _read(root, file, ["user", "item", "rating", "timestamp"])
    else:
        wanted = ["user", "movie", "rating", "ts_approx"]
        options = csv.ConvertOptions(include_columns=wanted)
        table = csv.read_csv(checked(root, file), convert_options=options)
        table = table.rename_columns(["user", "item", "rating", "timestamp"])
    return table.set_column(3, "timestamp", table["timestamp"].cast(pa.timestamp("s")))


def _users(root: Path) -> pa.Table:
    table = _read(root, USERS, ["user", "gender", "age", "occupation", "zip"])
    zip3 = pc.utf8_slice_codeunits(table["zip"], 0, 3)
    return table.drop_columns(["zip"]).append_column("zip3", zip3)


def _items(root: Path) -> pa.Table:
    table = _read(root, MOVIES, ["item", "title", "genres"])
    found = pc.extract_regex(table["title"], r"\((?P<year>\d{4})\)\s*$")
    year = pc.cast(pc.struct_field(found, "year"), pa.int64())
    genres = pc.split_pattern(table["genres"], "|")
    return pa.table({"item": table["item"], "year": year, "genres": genres})


def load(root: Path, *, as_ctr: bool = False) -> Dataset:
    """Read MovieLens-1M from `root`/ml-1m, with the columns of user and movie joined.

    Args:
        as_ctr: the label is `liked` (4 or 5 stars) in place of `rating`.

    Raises:
        DataError: a file is missing or altered.
    """
    layout = complete(root, LAYOUTS)
    if layout is None:
        raise DataError(f"no complete layout of movielens-1m lies under {root}; {WHERE}")
    table = join(_ratings(root, layout[0]), _users(root), _items(root))
    note = "all ratings, no official test; age is the lower end of a band"
    if layout[0] is ORDERED:
        note += (
            "; the order within a user is exact, but 9 of 10 timestamps are interpolated (median "
            "error 31 s, 90th percentile 3.9 h)"
        )
    return Dataset(
        name="movielens-1m",
        train=liked(table) if as_ctr else table,
        valid=None,
        test=None,
        label="liked" if as_ctr else "rating",
        user_id="user",
        item_id="item",
        timestamp="timestamp",
        task="ctr" if as_ctr else "rating",
        feature_types=dict(TYPES),
        note=note,
    )
