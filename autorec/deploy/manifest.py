"""The manifest of a ranker folder: what it holds, and proof that nothing is missing or altered."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autorec.errors import RankerError

MANIFEST = "manifest.json"
FORMAT = 1


def seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `manifest.json`: the facts, the format and the SHA-256 of every file in the folder."""
    files = {
        path.relative_to(folder).as_posix(): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = json.loads(json.dumps(_finite({"format": FORMAT, **facts, "files": files})))
    manifest["digest"] = _own_digest(manifest)
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def verified(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder whose files are all there and as they were saved.

    Raises:
        RankerError: names the file that is missing or altered, or the format that is too new.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        written, files = manifest["format"], dict(manifest["files"])
    except FileNotFoundError as error:
        raise RankerError(
            f"a ranker folder holds {MANIFEST}, but {folder} has none; name the folder that "
            "Ranker.save wrote"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RankerError(f"{path} must be a manifest, but reading it failed: {error!r}") from error
    if written != FORMAT:
        raise RankerError(
            f"this version of AutoRec reads rankers of format {FORMAT}, but {folder} has format "
            f"{written}, written by AutoRec {manifest.get('autorec')}; install that version"
        )
    if _own_digest(manifest) != manifest.get("digest"):
        raise RankerError(f"{path} must be as it was saved, but it was altered; save again")
    for name, digest in files.items():
        file = folder / name
        if not file.is_file():
            raise RankerError(
                f"a ranker must be complete, but {file} is missing; save or copy again"
            )
        if _digest(file) != digest:
            raise RankerError(
                f"the files of a ranker must be as they were saved, but {file} was altered (its "
                "SHA-256 is another); save or copy again"
            )
    return dict(manifest)


def _own_digest(manifest: Mapping[str, Any]) -> str:
    facts = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _finite(value: Any) -> Any:
    """Return a JSON value with null for what JSON has no number for (an undefined metric)."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value
