"""The habits of the house that a reader of the sources can check: size, seeds, errors, paths."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("autorec", "blocks", "graph", "kernels", "search_spaces", "experiments")
FILE_LINES, FUNCTION_LINES, POSITIONAL = 300, 40, 6

# "path" or "path::function" -> why it may be over the budget of size
EXCEPTIONS: dict[str, str] = {
    "autorec/automl.py": "the public class: half of it is docstrings, and it is read as one page",
}

_PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
# KeyError and its like are left out: the protocols of mappings and sequences ask for them.
_BUILTIN_ERRORS = {"AssertionError", "BaseException", "Exception", "RuntimeError"}
_BUILTIN_ERRORS |= {"OSError", "TypeError", "ValueError"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> list[Path]:
    """Return all sources relative to the root; the links in autorec/ are not followed."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    links = [path for path in (ROOT / "autorec").iterdir() if path.is_symlink()]
    return sorted(
        path.relative_to(ROOT) for path in found if not any(link in path.parents for link in links)
    )


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    for node in ast.iter_child_nodes(tree):
        name = prefix
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{prefix}.{node.name}" if prefix else node.name
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield name, node
        yield from _functions(node, name)


def _length(node: Function) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is None:
        return lines
    text = node.body[0]
    return lines - ((text.end_lineno or text.lineno) - text.lineno + 1)


def sizes(tree: ast.Module, text: str) -> Iterator[str]:
    """Yield what is over budget as `where: why`; an empty `where` is the file itself."""
    if (count := len(text.splitlines())) > FILE_LINES:
        yield f": {count} lines, over {FILE_LINES}"
    for name, node in _functions(tree):
        # Triton has no keyword-only parameters: the signature of a device function is no measure.
        on_device = any(_dotted(mark) == "device" for mark in node.decorator_list)
        signature = node.body[0].lineno - node.lineno if on_device else 0
        if (count := _length(node) - signature) > FUNCTION_LINES:
            yield f"::{name}: {count} lines without its docstring, over {FUNCTION_LINES}"
        args = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
        count = len(args) - (args[:1] in (["self"], ["cls"]))
        if count > POSITIONAL and not on_device:
            yield f"::{name}: {count} positional arguments, over {POSITIONAL}"


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _forked(tree: ast.Module) -> set[ast.AST]:
    """Return what lies under `with ...fork_rng(...)`, which gives the global state back."""
    scopes = [node for node in ast.walk(tree) if isinstance(node, ast.With)]
    forks = [scope for scope in scopes if "fork_rng(" in ast.unparse(scope.items[0])]
    return {node for fork in forks for line in fork.body for node in ast.walk(line)}


def seeds(tree: ast.Module, _text: str) -> Iterator[str]:
    """Yield the lines that set a seed for good by hand instead of asking `autorec.seeding`."""
    forked = _forked(tree)
    for node in ast.walk(tree):
        name = _dotted(node.func) if isinstance(node, ast.Call) and node not in forked else ""
        if name.rpartition(".")[2] in ("manual_seed", "manual_seed_all", "seed_all") or (
            name.endswith("random.seed") or name == "torch.seed"
        ):
            yield f":{node.lineno}: {name}(...); use autorec.seeding"  # type: ignore[attr-defined]


def asserts(tree: ast.Module, _text: str) -> Iterator[str]:
    """Yield every assert: a user never meets one, and python -O removes them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield f":{node.lineno}: assert; raise a class of autorec.errors"


def pickles(tree: ast.Module, _text: str) -> Iterator[str]:
    """Yield imports and calls that read or write pickles, which run code when they are opened."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.partition(".")[0] in _PICKLES:
                yield f":{node.lineno}: imports {name}"  # type: ignore[attr-defined]
        if isinstance(node, ast.Call):
            given = {key.arg: ast.unparse(key.value) for key in node.keywords}
            if _dotted(node.func) == "torch.load" and given.get("weights_only") != "True":
                yield f":{node.lineno}: torch.load without weights_only=True"
            if given.get("allow_pickle") == "True" or _dotted(node.func).endswith("read_pickle"):
                yield f":{node.lineno}: {_dotted(node.func)} reads pickles"


def _swallows(node: ast.AST) -> bool:
    broad = {"", "Exception", "BaseException"}
    if isinstance(node, ast.ExceptHandler):
        kind = "" if node.type is None else _dotted(node.type) or "?"
        silent = all(
            isinstance(line, (ast.Pass, ast.Continue))
            or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
            for line in node.body
        )
        return kind in broad and silent
    return (
        isinstance(node, ast.Call)
        and _dotted(node.func).endswith("suppress")
        and any(_dotted(arg) in broad - {""} for arg in node.args)
    )


def swallowed(tree: ast.Module, _text: str) -> Iterator[str]:
    """Yield handlers that catch everything and say nothing."""
    for node in ast.walk(tree):
        if _swallows(node):
            yield f":{node.lineno}: catches everything and is silent"  # type: ignore[attr-defined]


def raises(tree: ast.Module, _text: str) -> Iterator[str]:
    """Yield raises of built-in errors: a user can catch AutoRecError and has caught all."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if _dotted(made) in _BUILTIN_ERRORS:
                yield f":{node.lineno}: raises {_dotted(made)}; use autorec.errors"


def headers(tree: ast.Module, _text: str) -> Iterator[str]:
    """Yield a missing module docstring, and a missing future import where there is code."""
    if len(ast.get_docstring(tree) or "") < 15:
        yield ":1: no docstring that says why the module exists"
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    if len(tree.body) > 1 and not any(
        node.module == "__future__" and node.names[0].name == "annotations" for node in futures
    ):
        yield ":1: no `from __future__ import annotations`"


Rule = Callable[[ast.Module, str], Iterator[str]]


def _faults(rule: Rule, paths: list[Path]) -> list[str]:
    found = []
    for path in paths:
        text = (ROOT / path).read_text("utf-8")
        found += [f"{path}{fault}" for fault in rule(ast.parse(text), text)]
    return found


def test_sizes_are_within_budget() -> None:
    over = _faults(sizes, sources())
    named = {fault.split(": ")[0] for fault in over}
    faults = [fault for fault in over if fault.split(": ")[0] not in EXCEPTIONS]
    assert not faults, "\n".join(faults)
    assert set(EXCEPTIONS) <= named, "an exception that is no longer needed stays in the table"
    assert all(EXCEPTIONS.values()), "an exception has a reason"


@pytest.mark.parametrize("rule", [asserts, pickles, swallowed, raises, headers])
def test_habits(rule: Rule) -> None:
    faults = _faults(rule, sources())
    assert not faults, "\n".join(faults)


def test_seeds_are_set_in_one_file() -> None:
    home = Path("autorec/seeding.py")
    faults = _faults(seeds, [path for path in sources() if path != home])
    assert not faults, "\n".join(faults)
    assert _faults(seeds, [home]), "the rule no longer sees the one file that sets seeds"


@pytest.mark.parametrize(
    ("rule", "text", "faults"),
    [
        (sizes, "x = 1\n" * 301, 1),
        (sizes, "x = 1\n" * 300, 0),
        (sizes, "def f():\n" + "    x = 1\n" * 40, 1),
        (sizes, "def f():\n" + "    x = 1\n" * 39, 0),
        (sizes, "def f():\n    '''a\n" + "\n" * 60 + "    '''\n" + "    x = 1\n" * 39, 0),
        (sizes, "class A:\n    def f(self, a, b, c, d, e, f): ...", 0),
        (sizes, "def f(a, b, c, d, e, f, g): ...", 1),
        (sizes, "def f(a, b, c, d, e, f, *, g): ...", 0),
        (seeds, "import torch\ntorch.manual_seed(1)", 1),
        (seeds, "torch.Generator().manual_seed(1)", 1),
        (seeds, "with torch.random.fork_rng(devices=[]):\n    torch.random.manual_seed(1)", 0),
        (seeds, "with open(a):\n    torch.random.manual_seed(1)", 1),
        (seeds, "np.random.seed(0)\nrandom.seed(1)\nnp.random.default_rng(0)", 2),
        (asserts, "def f(x):\n    assert x", 1),
        (pickles, "import pickle\nfrom joblib import dump\nimport json", 2),
        (pickles, "torch.load(a)\ntorch.load(a, weights_only=True)", 1),
        (pickles, "np.load(a, allow_pickle=True)\npd.read_pickle(a)\nnp.load(a)", 2),
        (swallowed, "try:\n    f()\nexcept Exception:\n    pass", 1),
        (swallowed, "try:\n    f()\nexcept:\n    'why'", 1),
        (swallowed, "try:\n    f()\nexcept Exception as e:\n    log(e)", 0),
        (swallowed, "try:\n    f()\nexcept (OSError, KeyError):\n    pass", 0),
        (swallowed, "with contextlib.suppress(Exception):\n    f()", 1),
        (swallowed, "with contextlib.suppress(OSError):\n    f()", 0),
        (raises, "raise ValueError('x')\nraise TypeError\nraise KeyError", 2),
        (raises, "raise DataError('x')\nraise NotImplementedError\nraise", 0),
        (headers, "'''.'''", 1),
        (headers, "'''Why this module exists.'''\nimport json", 1),
        (headers, "'''Why this module exists.'''\nfrom __future__ import annotations\nx = 1", 0),
        (headers, "'''Why this folder exists.'''", 0),
    ],
)
def test_a_planted_fault_is_caught(rule: Rule, text: str, faults: int) -> None:
    assert len(list(rule(ast.parse(text), text))) == faults


def test_the_parts_of_a_name_are_found() -> None:
    tree = ast.parse("class A:\n    def f(self):\n        def g(): ...")
    assert [name for name, _ in _functions(tree)] == ["A.f", "A.f.g"]


# Written in pieces, so that this file does not match itself.
_MACHINE_PATH = re.compile(
    r"(?<![\w.:/~-])/(?:" + "|".join(["work", "tmp", "root"]) + r")(?![\w-])"
)


def tracked() -> list[Path]:
    """Return the files that git tracks or would track; without git, the sources and tests."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    if (ROOT / ".git").exists():
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        tops = [path for path in ROOT.iterdir() if path.suffix in (".md", ".txt", ".toml")]
        found = [*tops, *(ROOT / "tests").rglob("*"), *(ROOT / path for path in sources())]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _text(path: Path) -> str:
    raw = path.read_bytes()
    return "" if b"\0" in raw else raw.decode("utf-8", errors="replace")


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked()
        for number, line in enumerate(_text(path).splitlines(), 1)
        if _MACHINE_PATH.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ("x = '/" + "work/data'", True),
        ("cd /" + "tmp", True),
        ("`/" + "root/.cache`", True),
        ("autorec/work/tmp", False),
        ("https://host/work/x", False),
        ("/" + "workers/a", False),
        ("./tmp/a ../work ~/work", False),
    ],
)
def test_the_pattern_of_machine_paths(line: str, caught: bool) -> None:
    assert bool(_MACHINE_PATH.search(line)) is caught
