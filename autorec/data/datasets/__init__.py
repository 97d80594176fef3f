"""Public data sets by name. One file adds one: it says which files it needs and how to read them.

A data set file defines `LAYOUTS` (alternative sets of files, the best first), `ARCHIVE` (where the
publisher offers them, or None), `WHERE` (what to tell a user who has none of them) and
`load(root, **options) -> Dataset`. Every file is checked against a pinned checksum when read.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from autorec.catalogue import Catalogue
from autorec.errors import ConfigError, DataError
from autorec.seeding import numpy_rng

if TYPE_CHECKING:
    import pyarrow as pa

_CATALOGUE = Catalogue("autorec.data.datasets", "load")
_ALGORITHMS = {32: "md5", 64: "sha256"}  # by the length of the digest; some publishers state md5
_CHUNK = 1 << 20
_TIMEOUT = 60.0


@dataclass(frozen=True)
class Dataset:
    """Tables and what their columns are; the keyword arguments of a fit, ready to be passed on.

    Attributes:
        train, valid, test: tables of one schema; valid and test are None where none is official.
        task: "ctr" or "rating".
        feature_types: kinds of columns whose type does not tell (ids stored as integers).
        note: what a reader of a result must know about these rows.
    """

    name: str
    train: pa.Table
    valid: pa.Table | None
    test: pa.Table | None
    label: str
    user_id: str | None
    item_id: str | None
    timestamp: str | None
    task: str
    feature_types: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def roles(self) -> dict[str, Any]:
        """What the columns are, as keyword arguments of `AutoRec`."""
        names = ("label", "user_id", "item_id", "timestamp", "feature_types")
        return {name: getattr(self, name) for name in names}

    def split(self, share: float = 0.2, *, method: str | None = None, seed: int = 0) -> Dataset:
        """Return the data set with `test` cut from the rows of `train`.

        Args:
            share: about this share of the rows goes to test.
            method: "time" (the latest rows; rows of one moment stay together) or "random"; None
                takes time where there is a timestamp.
            seed: of the random method.

        Raises:
            ConfigError: a share outside (0, 1), an unknown method, or time without a timestamp.
            DataError: the data set has an official test set, or one side would be empty.
        """
        method = method or ("time" if self.timestamp else "random")
        if not 0.0 < share < 1.0:
            raise ConfigError(f"share must lie between 0 and 1, but got {share}")
        if method not in ("time", "random") or (method == "time" and not self.timestamp):
            raise ConfigError(
                "method must be 'random', or 'time' where there is a timestamp, but got "
                f"{method!r} and timestamp={self.timestamp!r}"
            )
        if self.test is not None:
            raise DataError(f"{self.name} has an official test set; use it, or drop it first")
        rows = self.train.num_rows
        if method == "time":
            held = _latest(self.train[self.timestamp].cast("int64").to_numpy(), share)
        else:
            held = numpy_rng(seed, "datasets", self.name).permutation(rows) < round(share * rows)
        if not 0 < held.sum() < rows:
            raise DataError(f"a share of {share} of {rows} rows by {method} leaves one side empty")
        return replace(self, train=self.train.filter(~held), test=self.train.filter(held))


def _latest(time: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.bool_]:
    """Return which rows come last, cut between the two moments that hold nearest to `share`."""
    moments, counts = np.unique(time, return_counts=True)
    after = counts[::-1].cumsum()[::-1][1:]  # rows from each moment on, but for the first
    if len(after) == 0:
        return np.zeros(len(time), dtype=bool)
    cut: np.int64 = moments[1 + np.abs(after - share * len(time)).argmin()]
    return time >= cut


@dataclass(frozen=True)
class File:
    """A file under the data root, with the md5 or sha256 of its bytes."""

    path: str
    digest: str
    size: int | None = None


@dataclass(frozen=True)
class Archive:
    """A zip at its publisher whose members are named as the files lie under the data root."""

    url: str
    sha256: str


def names() -> list[str]:
    """Return the names that `load` knows."""
    return [stem.replace("_", "-") for stem in _CATALOGUE.names()]


def load(name: str, root: str | Path | None = None, **options: Any) -> Dataset:
    """Return a data set, downloading it where its publisher allows that.

    Args:
        name: one of `names()`.
        root: folder that holds the data set's own folder. Without it, the folder that AUTOREC_DATA
            names is tried, then the cache (AUTOREC_CACHE, or ~/.cache/autorec), which is filled
            from the publisher if need be.
        options: of the data set, such as `fold="u1"` and `as_ctr=True` of movielens-100k.

    Raises:
        ConfigError: no data set has that name (near names are suggested), or a bad option.
        DataError: the files are missing, cannot be downloaded, or are not the ones expected.
    """
    module = _CATALOGUE.module(str(name).replace("-", "_"))
    folder = _locate(name, module.LAYOUTS, module.ARCHIVE, module.WHERE, root)
    return cast(Dataset, module.load(folder, **options))


def complete(root: Path, layouts: Iterable[Sequence[File]]) -> Sequence[File] | None:
    """Return the first layout whose files are all under `root`, or None."""
    for layout in layouts:
        if all((root / file.path).is_file() for file in layout):
            return layout
    return None


def checked(root: Path, file: File) -> Path:
    """Return the path of a file after comparing its size and checksum.

    Raises:
        DataError: the file is missing or is not the one expected.
    """
    path = root / file.path
    if not path.is_file():
        raise DataError(f"the data file {file.path} must be under {root}, but it is not there")
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise DataError(f"{file.path} must have {file.size} bytes, but has {size}; get it again")
    algorithm = _ALGORITHMS[len(file.digest)]
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != file.digest:
        raise DataError(
            f"{file.path} must have the {algorithm} {file.digest}, but has {digest.hexdigest()}; "
            "it was altered or is another version, get it again"
        )
    return path


def cache() -> Path:
    """Return the folder that downloads are kept in; it need not exist."""
    return Path(os.environ.get("AUTOREC_CACHE") or Path.home() / ".cache" / "autorec")


def _locate(
    name: str,
    layouts: Sequence[Sequence[File]],
    archive: Archive | None,
    where: str,
    root: str | Path | None,
) -> Path:
    """Return the folder under which a whole layout lies, filling the cache if that is allowed."""
    tried = [Path(root)] if root is not None else [cache()]
    if root is None and os.environ.get("AUTOREC_DATA"):
        tried.insert(0, Path(os.environ["AUTOREC_DATA"]))
    for folder in tried:
        if complete(folder, layouts) is not None:
            return folder
    if root is None and archive is not None:
        fetch(archive, layouts, tried[-1])
        return tried[-1]
    missing = [file.path for file in layouts[0] if not (tried[0] / file.path).is_file()]
    raise DataError(
        f"the data set {name!r} needs {', '.join(missing)} under {tried[0]}; {where}; then set "
        "AUTOREC_DATA (or root=) to the folder that these paths start from"
    )


def fetch(archive: Archive, layouts: Sequence[Sequence[File]], folder: Path) -> None:
    """Download an archive, check it, and lay out under `folder` those of its files we can name.

    Nothing is left half written: the download is a temporary file, and each file is renamed into
    place whole.

    Raises:
        DataError: the publisher does not answer, the checksum differs, or a file is missing in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        target = Path(temporary) / "archive.zip"
        try:
            request = urllib.request.urlopen(archive.url, timeout=_TIMEOUT)
            with request as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise DataError(
                f"{archive.url} could not be downloaded: {error}; download and unpack it by hand, "
                "then set AUTOREC_DATA to the folder you unpacked it in"
            ) from error
        checked(target.parent, File(target.name, archive.sha256))
        with zipfile.ZipFile(target) as members:
            inside = set(members.namelist())
            wanted = [file for layout in layouts for file in layout if file.path in inside]
            for file in wanted:
                members.extract(file.path, temporary)
                final = folder / file.path
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(checked(Path(temporary), file), final)
    if complete(folder, layouts) is None:
        raise DataError(f"{archive.url} holds no complete layout, only {sorted(inside)[:8]}")
