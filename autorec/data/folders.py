"""Folders that appear whole or not at all: written under another name and renamed into place."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autorec.errors import DataError


def begin(folder: Path) -> Path:
    """Create and return an empty hidden folder beside `folder`, on the same file system."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:12]}.partial"
    partial.mkdir()
    return partial


def publish(partial: Path, folder: Path, marker: str) -> None:
    """Rename `partial` to `folder`; an earlier folder that holds the file `marker` is replaced.

    Raises:
        DataError: `folder` exists and holds something else, which is left alone.
    """
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / marker).is_file():
            raise DataError(
                f"only a folder that holds {marker} is written over, but {folder} holds other "
                "files; name an empty or new folder"
            )
        old = partial.with_suffix(".old")
        folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old)
        return
    if folder.exists() and not folder.is_dir():
        raise DataError(f"a folder is written, but {folder} is a file; name another place")
    partial.rename(folder)


@contextmanager
def whole(folder: Path, marker: str) -> Iterator[Path]:
    """Give a folder to write in that becomes `folder` on success and vanishes on an error."""
    partial = begin(folder)
    try:
        yield partial
        publish(partial, folder, marker)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
