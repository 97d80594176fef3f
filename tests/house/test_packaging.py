"""What installs is what is here: each folder ships, no name leaks, each dependency has a reason."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

import autorec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("blocks", "graph", "kernels", "search_spaces")
SHIPPED = ("autorec", *PARTS, "pyproject.toml", "README.md", "LICENSE")
WHEEL_BYTES = 1_000_000  # no data, no weights, no built front end: code and short texts only
# distribution -> the name its users import, where the two differ
IMPORTED = {"scikit-learn": "sklearn", "torch-geometric": "torch_geometric"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The parsed pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _folders() -> set[str]:
    """Return the dotted names of the folders with sources, links not followed."""
    found = {f"autorec.{part}" for part in PARTS}
    for folder, below, files in os.walk(ROOT / "autorec"):
        below[:] = [name for name in below if name != "__pycache__"]
        if any(name.endswith(".py") for name in files):
            found.add(".".join(Path(folder).relative_to(ROOT).parts))
    return found


def test_every_folder_ships(project: dict[str, Any]) -> None:
    packages = project["tool"]["setuptools"]["packages"]
    assert sorted(packages) == sorted(_folders())


def test_the_parts_are_mapped(project: dict[str, Any]) -> None:
    mapping = {"autorec": "autorec", **{f"autorec.{part}": part for part in PARTS}}
    assert project["tool"]["setuptools"]["package-dir"] == mapping


@pytest.mark.parametrize("part", PARTS)
def test_a_parts_folder_is_flat_linked_and_has_no_init(part: str) -> None:
    folder, link = ROOT / part, ROOT / "autorec" / part
    assert not (folder / "__init__.py").exists()
    assert [path for path in folder.rglob("*.py") if path.parent != folder] == []
    assert link.is_symlink()
    assert link.readlink() == Path("..", part)
    assert link.resolve() == folder


@pytest.mark.parametrize("part", PARTS)
def test_git_stores_the_link_as_a_link(part: str) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--stage", f"autorec/{part}"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    if not listed:
        pytest.skip(f"git does not know autorec/{part} yet")
    assert listed.split()[0] == "120000"


def test_one_version(project: dict[str, Any]) -> None:
    assert project["project"]["version"] == autorec.__version__
    assert importlib.metadata.version(project["project"]["name"]) == autorec.__version__


def _dependency_lines() -> list[tuple[str, str]]:
    """Return (distribution, comment) of each dependency line; test and dev tools need no reason."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    base = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)[0]
    found = re.findall(r'^\s*"([\w.-]+)[^"]*",?[ \t]*(#.*)?$', base, re.MULTILINE)
    extras = re.findall(r"^\[project.optional-dependencies\]\n(.*?)^\[", text, re.M | re.S)[0]
    for line in extras.splitlines():
        name, _, rest = line.partition(" = ")
        if rest and name not in ("test", "dev"):
            wanted, _, comment = rest.partition("#")
            found += [(item, comment) for item in re.findall(r'"([\w.-]+)', wanted)]
    return found


def test_all_dependency_lines_are_read(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    wanted = list(project["project"]["dependencies"])
    wanted += [
        item for name, items in extras.items() if name not in ("test", "dev") for item in items
    ]
    names = [re.split(r"[^\w.-]", item)[0] for item in wanted]
    assert sorted(name for name, _ in _dependency_lines()) == sorted(names)


@pytest.mark.parametrize(("name", "comment"), _dependency_lines())
def test_a_dependency_names_who_needs_it(name: str, comment: str) -> None:
    places = re.findall(rf"\b(?:autorec|{'|'.join(PARTS)})/[\w/]*(?:\.py)?", comment)
    if not places:
        assert "everywhere" in comment, f"{name}: name the file or folder that imports it"
        places = ["autorec/"]
    word = re.compile(rf"\b({re.escape(name)}|{IMPORTED.get(name, name.replace('-', '_'))})\b")
    for place in places:
        path = ROOT / place
        assert path.exists(), f"{name}: {place} does not exist"
        files = [path] if path.is_file() else sorted(path.rglob("*.py"))
        assert any(word.search(file.read_text("utf-8")) for file in files), (
            f"{name}: not in {place}"
        )


def test_the_constraints_pin_what_pyproject_asks(project: dict[str, Any]) -> None:
    text = (ROOT / "constraints.txt").read_text("utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE))
    extras = project["project"]["optional-dependencies"].values()
    for item in [
        *project["project"]["dependencies"],
        *(item for extra in extras for item in extra),
    ]:
        assert re.split(r"[^\w.-]", item)[0] in pins, f"constraints.txt does not pin {item}"
    assert next(iter(pins)) == "torch", "torch comes first: the Makefile installs it alone"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive and the wheel that is built from it."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(ROOT / name, tree / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def site(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel unpacked, as an installer does with a pure wheel."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder


def test_the_wheel_holds_every_source_and_nothing_else(site: Path) -> None:
    here = {
        path.relative_to(ROOT / top)
        for top in ("autorec",)
        for path in _walk(ROOT / top)
        if path.suffix == ".py"
    }
    there = {path.relative_to(site / "autorec") for path in (site / "autorec").rglob("*.py")}
    assert there == here
    tops = {path.name for path in site.iterdir()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"autorec"}
    assert (site / "autorec" / "py.typed").is_file()
    assert [*site.glob("*.dist-info/licenses/LICENSE")]


def _walk(folder: Path) -> list[Path]:
    walked = os.walk(folder, followlinks=True)
    return [Path(at, name) for at, _, names in walked if "__pycache__" not in at for name in names]


def test_the_source_archive_keeps_the_top_folders(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    sources = {path.relative_to(ROOT).as_posix() for part in PARTS for path in _walk(ROOT / part)}
    assert {name for name in sources if name.endswith(".py")} <= set(names)
    assert {"LICENSE", "pyproject.toml"} <= set(names)


def test_the_wheel_is_small(built: Path) -> None:
    assert next(built.glob("*.whl")).stat().st_size < WHEEL_BYTES


def _isolated(code: str, cwd: Path, *paths: Path | str) -> list[str]:
    """Run `code` with only the standard library and `paths`: -S hides the editable install."""
    prologue = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", prologue + code],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


FIND = """
from importlib.util import find_spec
print(*[name for name in {names!r} if find_spec(name) is not None])
"""


def test_the_wheel_imports_elsewhere_and_leaks_no_bare_name(site: Path, tmp_path: Path) -> None:
    code = "import autorec; print(autorec.__file__, autorec.__version__)"
    file, version = _isolated(code, tmp_path, site)
    assert Path(file) == site / "autorec" / "__init__.py"
    assert version == autorec.__version__
    bare = FIND.format(names=(*PARTS, "experiments", "tests"))
    assert _isolated(bare, tmp_path, site) == []
    dotted = FIND.format(names=tuple(f"autorec.{part}" for part in PARTS))
    assert _isolated(dotted, tmp_path, site) == [f"autorec.{part}" for part in PARTS]


def test_a_part_of_the_wheel_imports_with_its_dependencies(site: Path, tmp_path: Path) -> None:
    code = "import autorec.blocks.base as base; print(base.__file__)"
    places = dict.fromkeys(sysconfig.get_path(key) for key in ("purelib", "platlib"))
    assert _isolated(code, tmp_path, site, *places) == [
        str(site / "autorec" / "blocks" / "base.py")
    ]


def test_the_editable_install_leaks_no_bare_name(tmp_path: Path) -> None:
    code = FIND.format(names=("autorec", *PARTS, "experiments", "tests"))
    code = code.replace("is not None", f"and {str(ROOT)!r} in str(find_spec(name))")
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.stdout.split() == ["autorec"], done.stderr
