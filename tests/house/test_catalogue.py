"""The folder is the registry: found by stem, listed without import, suggested on a typo."""

from __future__ import annotations

import ast
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autorec.catalogue import Catalogue
from autorec.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
_numbers = itertools.count()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package folder without an __init__, importable by its own name."""
    path = tmp_path / f"parts_{next(_numbers)}"
    path.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    for name in [name for name in sys.modules if name.partition(".")[0] == path.name]:
        del sys.modules[name]


def _write(folder: Path, **files: str) -> Catalogue:
    for stem, text in files.items():
        (folder / f"{stem}.py").write_text(text, "utf-8")
    return Catalogue(folder.name, "Block")


BASE = "class Block: ..."
LEAF = "from {base} import Block\nclass {name}(Block): ..."


def _leaf(folder: Path, name: str) -> str:
    return LEAF.format(base=f"{folder.name}.base", name=name)


def test_parts_are_named_by_their_stem(folder: Path) -> None:
    parts = _write(folder, base=BASE, mlp=_leaf(folder, "MLP"), cross=_leaf(folder, "CrossNet"))
    assert parts.names() == ["cross", "mlp"]
    assert parts.get("cross").__name__ == "CrossNet"
    assert parts.get("mlp").__module__ == f"{folder.name}.mlp"
    assert parts.module("mlp").MLP is parts.get("mlp")


def test_listing_imports_nothing(folder: Path) -> None:
    parts = _write(folder, broken="1 / 0\nclass Broken(Block): ...")
    assert parts.names() == ["broken"]
    assert f"{folder.name}.broken" not in sys.modules
    with pytest.raises(ZeroDivisionError):
        parts.get("broken")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("class A(Block): ...", True),
        ("class A(base.Block): ...", True),
        ("class A(nn.Module, Block): ...", True),
        ("class A(Block[int]): ...", True),
        ("class A(FieldBlock): ...", True),
        ("class _A(Block): ...", False),
        ("class A(Blocks): ...", False),
        ("class Block: ...", False),
        ("def f():\n    class A(Block): ...", False),
        ("Block = 3", False),
    ],
)
def test_what_makes_a_file_a_part(folder: Path, text: str, found: bool) -> None:
    assert _write(folder, a=text).names() == (["a"] if found else [])


def test_files_with_an_underscore_are_no_parts(folder: Path) -> None:
    assert _write(folder, _a=BASE + "\nclass A(Block): ...").names() == []
    assert _write(folder, __init__=BASE + "\nclass B(Block): ...").names() == []


def test_a_function_can_be_the_leaf(folder: Path) -> None:
    _write(folder, movies="def load(root): return root", other="def read(root): ...")
    sets = Catalogue(folder.name, "load")
    assert sets.names() == ["movies"]
    assert sets.get("movies")("here") == "here"


def test_a_new_file_is_seen_at_once(folder: Path) -> None:
    parts = _write(folder, base=BASE)
    assert parts.names() == []
    _write(folder, gate=_leaf(folder, "Gate"))
    assert parts.names() == ["gate"]


def test_a_changed_file_is_read_again(folder: Path) -> None:
    parts = _write(folder, a="class A(Block): ...")
    assert parts.names() == ["a"]
    _write(folder, a="class A(Other): ...")
    stat = (folder / "a.py").stat()
    os.utime(folder / "a.py", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert parts.names() == []


def test_a_typo_gets_near_names(folder: Path) -> None:
    parts = _write(folder, cross="class A(Block): ...", gate="class B(Block): ...")
    with pytest.raises(ConfigError, match=r"has no part named 'cros'; did you mean 'cross'\?"):
        parts.get("cros")


def test_a_far_name_gets_the_list(folder: Path) -> None:
    parts = _write(folder, cross="class A(Block): ...", gate="class B(Block): ...")
    with pytest.raises(ConfigError, match=r"no part named 'zzz'; known: cross, gate$"):
        parts.module("zzz")


@pytest.mark.parametrize(
    ("package", "leaf"),
    [
        ("blocks", "Block"),
        ("search_spaces", "Space"),
        ("autorec/search", "Engine"),
        ("autorec/tasks", "Task"),
        ("autorec/data/datasets", "load"),
    ],
)
def test_a_file_of_the_house_holds_one_part(package: str, leaf: str) -> None:
    folder = ROOT / package
    dotted = ".".join(["autorec", *Path(package).parts]).replace("autorec.autorec", "autorec")
    names = Catalogue(dotted, leaf).names()
    assert names, f"{package} has no part: no public class below {leaf}"
    for name in names:
        leaves = [
            node.name
            for node in ast.parse((folder / f"{name}.py").read_text("utf-8")).body
            if isinstance(node, ast.ClassDef)
            and not node.name.startswith("_")
            and any(ast.unparse(base).split("[")[0].endswith(leaf) for base in node.bases)
        ]
        assert len(leaves) == (0 if leaf.islower() else 1), f"{package}/{name}.py: {leaves}"
