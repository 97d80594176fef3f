"""From a path, a glob or a folder to the files meant, and from a file to its type."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from autorec.data.reading import readable
from autorec.errors import DataError

PARQUET, ARROW, TEXT = "Parquet", "Arrow", "CSV"
SUFFIXES = {
    PARQUET: (".parquet", ".pq", ".parq"),
    ARROW: (".arrow", ".arrows", ".feather", ".ipc"),
    TEXT: (".csv", ".tsv", ".psv", ".tab", ".txt", ".dat", ".data"),
}
READ = (
    "Parquet (.parquet), Arrow and Feather (.arrow, .feather, .ipc), and CSV or TSV with a header "
    "line (.csv, .tsv, .txt, also .gz)"
)
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
_PACKED_ENDS = (".gz", ".bz2", ".zst")
_NULL_KEY = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class File:
    """A file and what its folders say of all its rows (`day=2024-01-31/part-0.parquet`)."""

    path: Path
    keys: tuple[tuple[str, str | None], ...] = ()


def find(given: Sequence[str | Path]) -> list[File]:
    """Return the files of paths, globs and folders, sorted within each, every file once.

    Raises:
        DataError: nothing is there, or only folders without files.
    """
    return list(dict.fromkeys(file for one in given for file in _found(str(one))))


def kind_of(path: Path) -> str:
    """Return PARQUET, ARROW or TEXT, by the first bytes and then by the name.

    Raises:
        DataError: the file is empty, cannot be opened, or its first bytes are of another type.
    """
    with readable(path, "data"), path.open("rb") as stream:
        start = stream.read(8)
    if not start:
        raise DataError(f"a data file must have content, but {path} has 0 bytes; write it again")
    if start.startswith(b"PAR1"):
        return PARQUET
    if start.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return ARROW
    if start.startswith(b"FEA1"):
        raise DataError(
            f"Feather files must be of version 2, but {path} is of version 1; write it again"
        )
    name = path.name.lower()
    return next((k for k in (PARQUET, ARROW) if name.endswith(SUFFIXES[k])), TEXT)


def packing(path: Path) -> str | None:
    """Return how a file is compressed, by its first bytes: "gzip", "bz2", "zstd" or None."""
    with readable(path, "data"), path.open("rb") as stream:
        start = stream.read(4)
    return next((name for magic, name in PACKED.items() if start.startswith(magic)), None)


def named_as_text(path: Path) -> bool:
    """Tell whether a name promises text with separators: `.csv`, `.tsv.gz`, ..."""
    name = path.name.lower()
    packed = next((end for end in _PACKED_ENDS if name.endswith(end)), "")
    return name.removesuffix(packed).endswith(SUFFIXES[TEXT])


def unknown(path: Path, why: str) -> DataError:
    """Return the error for a file of a type that is not read."""
    return DataError(f"{path} must be of a known type, but {why}; files that are read: {READ}")


def told(kind: str, files: Sequence[File]) -> str:
    """Return what was found, for people."""
    if len(files) == 1:
        return f"{kind} file {files[0].path}"
    return f"{len(files)} {kind} files, {files[0].path} to {files[-1].path}"


def _found(given: str) -> list[File]:
    if "://" in given:
        raise DataError(
            f"a path must be on this machine, but got {given!r}; "
            "for remote files pass pyarrow.dataset.dataset(...)"
        )
    path = Path(given).expanduser()
    if path.is_file():
        return [File(path)]
    if path.is_dir():
        files = _in_folder(path, path)
        if not files:
            raise DataError(
                f"a folder must hold data files, but {given} has none; files that are read: {READ}"
            )
        return files
    if not glob.has_magic(given):
        raise DataError(
            f"a path must lead to a file or folder, but there is none at {given}; "
            f"seen from {Path.cwd()}"
        )
    files = _matched(path)
    if not files:
        raise DataError(
            f"a glob must match at least one file, but {given!r} matches none; "
            f"seen from {Path.cwd()}"
        )
    return files


def _matched(pattern: Path) -> list[File]:
    fixed = next((i for i, part in enumerate(pattern.parts) if glob.has_magic(part)), 0)
    root = Path(*pattern.parts[:fixed])
    files = []
    for match in sorted(Path(name) for name in glob.glob(str(pattern), recursive=True)):
        if match.is_dir():
            files += _in_folder(match, root)
        elif not _hidden(match.name):
            files.append(File(match, _keys(match.relative_to(root))))
    return files


def _in_folder(folder: Path, root: Path) -> list[File]:
    """Return the files below a folder, without hidden ones and those that Spark marks by `_`."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    seen = [p for p in found if not any(_hidden(part) for part in p.relative_to(folder).parts)]
    return [File(path, _keys(path.relative_to(root))) for path in seen]


def _hidden(name: str) -> bool:
    return name.startswith((".", "_")) or name.endswith(".crc")


def _keys(path: Path) -> tuple[tuple[str, str | None], ...]:
    pairs = [part.split("=", 1) for part in path.parts[:-1] if "=" in part]
    return tuple(
        (name, None if value == _NULL_KEY else unquote(value)) for name, value in pairs if name
    )
