"""Folders that are read as they were written: a JSON with a version, and checksums of all files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autorec.errors import RankerError


@dataclass(frozen=True)
class Sealed:
    """One kind of folder.

    Attributes:
        what: the noun that errors use, such as `encoder`; its plural takes an s.
        file: name of the JSON.
        version: the newest format that this code reads, and the one that it writes.
        remedy: what a user does about a folder that cannot be read.
    """

    what: str
    file: str
    version: int
    remedy: str

    def write(self, folder: Path, body: Mapping[str, Any]) -> None:
        """Write the JSON of `body`, its version and its checksum."""
        body = {"format": self.version, **body}
        text = json.dumps({**body, "sha256": _digest(body)}, indent=1)
        (folder / self.file).write_text(text)

    def read(self, folder: Path) -> dict[str, Any]:
        """Return the body that `write` was given, and its format.

        Raises:
            RankerError: no such folder, a newer version, or an altered JSON.
        """
        try:
            body = json.loads((folder / self.file).read_text("utf-8"))
            version, told = body["format"], body.pop("sha256", None)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RankerError(
                f"a saved {self.what} is a folder with a readable {self.file}, but {folder} gives: "
                f"{error}; {self.remedy}"
            ) from error
        if not isinstance(version, int) or version > self.version:
            raise RankerError(
                f"this version of autorec reads {self.what}s up to format {self.version}, but "
                f"{folder} has format {version!r}; install the version that wrote it, or a newer "
                "one"
            )
        if told != _digest(body):
            raise self._altered(folder / self.file)
        return dict(body)

    def data(self, folder: Path, entry: Mapping[str, str]) -> bytes:
        """Return the bytes of the file that `entry` names with its checksum.

        Raises:
            RankerError: the file is missing or altered.
        """
        path = folder / entry["file"]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RankerError(
                f"a saved {self.what} needs all its files, but {path} cannot be read ({error}); "
                "copy the whole folder"
            ) from error
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise self._altered(path)
        return data

    def _altered(self, path: Path) -> RankerError:
        return RankerError(
            f"a saved {self.what} must be as it was written, but {path} was altered or cut short; "
            "copy the folder again"
        )


def entry(path: Path) -> dict[str, str]:
    """Return the name and checksum of a file that has just been written."""
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
