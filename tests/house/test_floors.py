"""Imports go down only. The map of the house, and a reader of the sources that holds them to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("blocks", "graph", "kernels", "search_spaces")

# room -> (floor, its modules). A module belongs to the longest name here that begins its own.
ROOMS: dict[str, tuple[int, tuple[str, ...]]] = {
    "cellar": (0, ("autorec.errors", "autorec.catalogue", "autorec.seeding")),
    "kernels": (1, ("autorec.kernels",)),
    "schema": (1, ("autorec.schema",)),
    "data": (1, ("autorec.data",)),
    "blocks": (2, ("autorec.blocks",)),
    "graph": (2, ("autorec.graph",)),
    "language": (
        3,
        (
            "autorec.search_spaces",
            "autorec.space",
            "autorec.architecture",
            "autorec.edits",
            "autorec.candidate",
            "autorec.job",
        ),
    ),
    "search": (4, ("autorec.search",)),
    "build": (
        4,
        (
            "autorec.build",
            "autorec.alignment",
            "autorec.morph",
            "autorec._morph_blocks",
            "autorec._morph_walk",
            "autorec._raw_inputs",
        ),
    ),
    "tasks": (4, ("autorec.tasks",)),
    "train": (5, ("autorec.train",)),
    "evaluate": (5, ("autorec.evaluate",)),
    "tracking": (6, ("autorec.tracking",)),
    "deploy": (7, ("autorec.deploy",)),
    "serve": (7, ("autorec.serve",)),
    "front door": (
        8,
        (
            "autorec.__init__",
            "autorec.arguments",
            "autorec.attributes",
            "autorec.automl",
            "autorec.choosing",
            "autorec.cli",
            "autorec.dashboard",
            "autorec.demo",
            "autorec.deriving",
            "autorec.doctor",
            "autorec.drawing",
            "autorec.fitting",
            "autorec.leaderboard",
            "autorec.loading",
            "autorec.prepare",
            "autorec.progress",
            "autorec.refit",
            "autorec.rehearsal",
            "autorec.report",
            "autorec.report_parts",
            "autorec.run",
            "autorec.searching",
            "autorec.starting",
            "autorec.terminal",
            "autorec.track",
            "autorec.trials",
            "autorec.worker",
        ),
    ),
    "experiments": (9, ("experiments",)),
}
# (room, the room beside it that it may import) -> why
SIDEWAYS = {
    ("data", "schema"): "a table is read by what its columns are",
    ("serve", "deploy"): "the server loads the ranker that deploy defines",
}
# package -> the only room that may import it (experiments and tests may import anything)
HOMES = {
    "mlflow": "tracking",
    "optuna.samplers": "search",
    "pandas": "data",
    "polars": "data",
    "pyarrow": "data",
    "torch_geometric": "graph",
    "triton": "kernels",
}
# name of `autorec` that is no submodule -> where it comes from (None: a constant, no import)
PUBLIC = {"AutoRec": "autorec.automl", "datasets": "autorec.data.datasets", "__version__": None}
_LOADERS = {"import_module", "__import__", "Catalogue"}


@dataclass(frozen=True)
class Import:
    """One imported name: `from a import b` is `a.b`, `import a` is `a`."""

    name: str
    line: int
    top: bool  # runs when the module is imported
    typing_only: bool  # under `if TYPE_CHECKING`


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _names(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = _absolute(node, package)
        for alias in node.names:
            public = PUBLIC.get(alias.name, "") if module == "autorec" else ""
            if public is not None:
                yield public or f"{module}.{alias.name}"
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else None
        called = node.func.id if isinstance(node.func, ast.Name) else called
        if called in _LOADERS and isinstance(node.args[0].value, str):
            yield node.args[0].value
    elif isinstance(node, ast.Attribute) and ast.unparse(node) == "optuna.samplers":
        yield "optuna.samplers"


def _is_typing(node: ast.AST) -> bool:
    test = node.test if isinstance(node, ast.If) else None
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def imports(
    node: ast.AST, package: str, *, top: bool = True, typing: bool = False
) -> Iterator[Import]:
    """Yield every import below `node`, also those in functions and by string."""
    for name in _names(node, package):
        yield Import(name, getattr(node, "lineno", 0), top, typing)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        top = False
    typed = node.body if isinstance(node, ast.If) and _is_typing(node) else []
    for child in ast.iter_child_nodes(node):
        yield from imports(child, package, top=top, typing=typing or child in typed)


def module_name(path: Path) -> str:
    """Return the dotted name of a file relative to the root: `blocks/x.py` is autorec.blocks.x."""
    parts = list(path.with_suffix("").parts)
    if parts[0] in PARTS:
        parts = ["autorec", *parts]
    if parts[-1] == "__init__" and len(parts) > 2:
        parts = parts[:-1]
    return ".".join(parts)


def room_of(module: str) -> str | None:
    """Return the room of a dotted name, or None where the map has none."""
    module = "autorec.__init__" if module == "autorec" else module
    found = [
        (len(name), room)
        for room, (_, names) in ROOMS.items()
        for name in names
        if module == name or module.startswith(f"{name}.")
    ]
    return max(found)[1] if found else None


def sources(root: Path) -> list[Path]:
    """Return all sources relative to `root`; the links in autorec/ are not followed."""
    folders = [root / name for name in ("autorec", *PARTS, "experiments", "tests")]
    found = [path for folder in folders for path in folder.rglob("*.py")]
    return sorted(
        path.relative_to(root)
        for path in found
        if not any((root / "autorec" / part) in path.parents for part in PARTS)
    )


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _foreign(found: Import, room: str) -> Iterator[str]:
    if any(_within(found.name, part) for part in (*PARTS, "experiments", "tests")):
        yield f"imports {found.name}, a folder's bare name; import autorec.{found.name}"
    if found.typing_only or room in ("experiments", "tests"):
        return
    for package, home in HOMES.items():
        if _within(found.name, package) and room != home:
            yield f"imports {found.name} outside {home}"
    if room == "language" and _within(found.name, "torch"):
        yield f"imports {found.name}, but the language floor has no torch"


def _own(found: Import, room: str) -> Iterator[str]:
    if room == "tests" or not _within(found.name, "autorec"):
        return
    target = room_of(found.name)
    if target is None:
        yield f"imports {found.name}, which has no floor; give it one in ROOMS"
        return
    floor, other = ROOMS[room][0], ROOMS[target][0]
    if other > floor:
        yield f"imports {found.name} of floor {other} from floor {floor}"
    elif other == floor and target != room and (room, target) not in SIDEWAYS:
        yield f"imports {found.name}, the room beside it on floor {floor}"


def _front(found: Import) -> Iterator[str]:
    third_party = "numpy lightgbm mlflow optuna pandas pyarrow sklearn torch torch_geometric triton"
    if not found.top or found.typing_only:
        return
    own = _within(found.name, "autorec") and not _within(found.name, "autorec.errors")
    if own or any(_within(found.name, package) for package in third_party.split()):
        yield f"imports {found.name} at the top; load it on first use"


def violations(root: Path) -> list[str]:
    """Return one line for every import under `root` that breaks a rule of the house."""
    found = []
    for path in sources(root):
        module = module_name(path)
        room = "tests" if path.parts[0] == "tests" else room_of(module)
        if room is None:
            found.append(f"{path}: {module} has no floor; give it one in ROOMS")
            continue
        package = module if path.stem == "__init__" else module.rpartition(".")[0]
        for line in imports(ast.parse((root / path).read_text("utf-8")), package):
            faults = [*_foreign(line, room), *_own(line, room)]
            if path == Path("autorec/__init__.py"):
                faults += _front(line)
            found += [f"{path}:{line.line}: {fault}" for fault in dict.fromkeys(faults)]
    return found


def test_imports_point_down() -> None:
    found = violations(ROOT)
    assert not found, "\n".join(found)


def test_the_walk_reaches_every_folder_once() -> None:
    found = sources(ROOT)
    assert len(found) == len(set(found))
    assert {Path("autorec/errors.py"), Path("tests/house/test_floors.py")} <= set(found)
    assert not [path for path in found if path.parts[:2] == ("autorec", "blocks")]


def _plant(root: Path, path: str, text: str) -> Path:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, "utf-8")
    return root


@pytest.mark.parametrize(
    ("path", "text", "fault"),
    [
        ("autorec/schema.py", "import autorec.data.infer", "the room beside it on floor 1"),
        ("autorec/data/a.py", "from autorec.search import tpe", "floor 4 from floor 1"),
        ("autorec/data/a.py", "from autorec import build", "floor 4 from floor 1"),
        ("autorec/data/a.py", "from ..search import tpe", "autorec.search.tpe of floor 4"),
        ("autorec/data/a/__init__.py", "from ..b import c\nfrom ...job import J", "autorec.job.J"),
        ("autorec/errors.py", "def f():\n    import autorec.schema", "floor 1 from floor 0"),
        ("autorec/tasks/ctr.py", "from autorec.train.loop import train", "floor 5 from floor 4"),
        ("autorec/train/a.py", "from autorec import AutoRec", "autorec.automl of floor 8"),
        ("autorec/train/a.py", "import autorec", "autorec of floor 8"),
        ("autorec/train/a.py", "from autorec import evaluate", "room beside it on floor 5"),
        ("autorec/search/a.py", "from autorec.tasks import ctr", "room beside it on floor 4"),
        ("autorec/deploy/a.py", "from autorec.serve import http", "room beside it on floor 7"),
        ("autorec/catalogue.py", "C = Catalogue('autorec.blocks', 'Block')", "floor 2 from"),
        ("blocks/a.py", "from autorec.space import Space", "floor 3 from floor 2"),
        ("blocks/a.py", "import autorec.graph.sage", "room beside it on floor 2"),
        ("search_spaces/a.py", "import importlib\nimportlib.import_module('autorec.build')", "4"),
        ("autorec/space.py", "def f():\n    import torch.nn", "language floor has no torch"),
        ("autorec/job.py", "from torch import Tensor", "language floor has no torch"),
        ("autorec/cli.py", "import mlflow.pyfunc", "mlflow.pyfunc outside tracking"),
        ("autorec/automl.py", "def f():\n    import pandas as pd", "pandas outside data"),
        ("autorec/deploy/a.py", "from pyarrow import csv", "pyarrow.csv outside data"),
        ("blocks/a.py", "import triton.language as tl", "triton.language outside kernels"),
        ("autorec/train/a.py", "import torch_geometric", "torch_geometric outside graph"),
        ("autorec/space.py", "from optuna.samplers import TPESampler", "outside search"),
        ("autorec/automl.py", "from optuna import samplers", "optuna.samplers outside search"),
        ("autorec/automl.py", "import optuna\nS = optuna.samplers.TPESampler", "outside search"),
        ("experiments/a.py", "from blocks.mlp import MLP", "a folder's bare name"),
        ("tests/test_a.py", "import kernels", "a folder's bare name"),
        ("autorec/train/a.py", "import experiments.a", "a folder's bare name"),
        ("autorec/__init__.py", "from autorec.automl import AutoRec", "at the top"),
        ("autorec/__init__.py", "try:\n    import torch\nexcept OSError:\n    raise", "at the top"),
        ("autorec/attic.py", "import json", "autorec.attic has no floor"),
        ("autorec/cli.py", "import autorec.attic", "has no floor"),
    ],
)
def test_a_planted_violation_is_caught(tmp_path: Path, path: str, text: str, fault: str) -> None:
    found = violations(_plant(tmp_path, path, text))
    assert len(found) == 1, found
    assert found[0].startswith(path)
    assert fault in found[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("autorec/data/a.py", "import pandas, pyarrow.csv\nfrom autorec.schema import Schema"),
        ("autorec/data/a.py", "from . import b\nfrom .b import c\nfrom ..errors import DataError"),
        ("autorec/serve/a.py", "from autorec.deploy.ranker import Ranker"),
        ("autorec/deploy/a.py", "from autorec import __version__, errors, schema"),
        ("autorec/search/a.py", "from optuna.samplers import BaseSampler\nimport optuna.samplers"),
        ("autorec/tracking/a.py", "def f():\n    import mlflow"),
        ("autorec/cli.py", "if TYPE_CHECKING:\n    import pandas as pd\nimport optuna"),
        ("autorec/job.py", "import typing\nif typing.TYPE_CHECKING:\n    import torch"),
        ("autorec/space.py", "from optuna.distributions import BaseDistribution"),
        ("autorec/space.py", "P = Catalogue('autorec.search_spaces', 'Space')"),
        ("autorec/__init__.py", "def f():\n    import autorec.automl\nimport autorec.errors"),
        ("experiments/a.py", "import pandas, mlflow, autorec\nfrom autorec import datasets"),
        ("tests/test_a.py", "import autorec.search.tpe, pandas, optuna.samplers"),
    ],
)
def test_a_lawful_import_passes(tmp_path: Path, path: str, text: str) -> None:
    assert violations(_plant(tmp_path, path, text)) == []


def test_else_of_type_checking_is_not_exempt(tmp_path: Path) -> None:
    text = "if TYPE_CHECKING:\n    import pandas\nelse:\n    import pandas"
    assert len(violations(_plant(tmp_path, "autorec/cli.py", text))) == 1
