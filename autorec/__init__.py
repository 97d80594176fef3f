"""AutoRec: automated recommenders. Hand it a table of interactions and a time budget.

The public names load on first use, so that `import autorec` costs milliseconds and a worker, a
server or a shell completion pays only for what it touches.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autorec import errors

if TYPE_CHECKING:
    from autorec.automl import AutoRec as AutoRec
    from autorec.data import datasets as datasets

__version__ = "0.1.0.dev0"
__all__ = ["AutoRec", "__version__", "datasets", "errors"]

_LINKS = ("blocks", "graph", "kernels", "search_spaces")
_BROKEN_LINKS = """\
autorec/{name} must be a link to the folder {name}/, but this checkout holds a plain text file.
Git wrote the links as files because symbolic links were off when it checked out. Restore them with

    git config core.symlinks true
    git checkout -- autorec

or install without -e (pip install .), which needs no links."""


def _check_links(package: Path) -> None:
    for name in _LINKS:
        if (package / name).is_file():
            raise ImportError(_BROKEN_LINKS.format(name=name))


_check_links(Path(__file__).parent)


def __getattr__(name: str) -> Any:
    if name == "AutoRec":
        return importlib.import_module("autorec.automl").AutoRec
    if name == "datasets":
        return importlib.import_module("autorec.data.datasets")
    raise AttributeError(f"autorec has no public name {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
