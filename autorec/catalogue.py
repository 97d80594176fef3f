"""The folder is the registry: a part is found by its file stem and imported on first use.

A file is a part when its top level defines a public class one of whose bases ends in the leaf's
name (`class MLP(Block)`, `class Ctr(DagSpace)` for the leaf `Space`) or, for a lower-case leaf, a
function of that name (`def load(...)`). Files that start with an underscore are no parts. The
source is parsed, not imported, so listing a folder costs milliseconds and loads nothing heavy.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from autorec.errors import ConfigError


def _base_name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _base_name(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _leaf_in(path: Path, leaf: str) -> str | None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == leaf:
            return node.name
        if (
            isinstance(node, ast.ClassDef)
            and not node.name.startswith("_")
            and any(_base_name(base).endswith(leaf) for base in node.bases)
        ):
            return node.name
    return None


@lru_cache(maxsize=1024)
def _leaf_cached(path: Path, leaf: str, _mtime_ns: int) -> str | None:
    return _leaf_in(path, leaf)


class Catalogue:
    """The parts of one folder.

    Args:
        package: dotted name of the folder, such as `autorec.blocks`.
        leaf: base class (`Block`) or function name (`load`) that makes a file a part.
    """

    def __init__(self, package: str, leaf: str) -> None:
        self.package = package
        self.leaf = leaf

    def _files(self) -> list[Path]:
        folders = importlib.import_module(self.package).__path__
        found = [path for folder in folders for path in Path(folder).glob("*.py")]
        return sorted(path for path in found if not path.stem.startswith("_"))

    def _leaves(self) -> dict[str, str]:
        leaves = {}
        for path in self._files():
            name = _leaf_cached(path, self.leaf, path.stat().st_mtime_ns)
            if name is not None:
                leaves[path.stem] = name
        return leaves

    def names(self) -> list[str]:
        """Return the stems of all parts, sorted."""
        return sorted(self._leaves())

    def module(self, name: str) -> ModuleType:
        """Import and return the module of the part `name`.

        Raises:
            ConfigError: no part has that name; near names are suggested.
        """
        names = self.names()
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=3)
            hint = (
                f"did you mean {' or '.join(map(repr, near))}?"
                if near
                else f"known: {', '.join(names)}"
            )
            raise ConfigError(f"{self.package} has no part named {name!r}; {hint}")
        return importlib.import_module(f"{self.package}.{name}")

    def get(self, name: str) -> Any:
        """Return the class or function of the part `name` (see `module` for what is raised)."""
        module = self.module(name)
        return getattr(module, self._leaves()[name])
