"""The README is a promise: its code runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIRST_BLOCK_LINES = 30
SECONDS = 600

_FENCE = re.compile(r"^```[ \t]*(\w*)[^\n]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_VERBS = """
import sys
from autorec.cli import main
for verb in sys.argv[1:]:
    sys.argv = ["autorec", verb, "--help"]
    try:
        code = main()
    except SystemExit as stop:
        code = stop.code
    if code:
        print("unknown verb:", verb)
"""


def blocks(text: str, *languages: str) -> list[str]:
    """Return the fenced blocks of a Markdown text in those languages, in order."""
    return [body for language, body in _FENCE.findall(text) if language in languages]


def commands(text: str, program: str) -> set[str]:
    """Return the first words after `program` in shell blocks and inline code."""
    shell = blocks(text, "bash", "sh", "shell", "console", "text", "")
    inline = re.findall(r"`([^`\n]+)`", _FENCE.sub("", text))
    pattern = re.compile(rf"(?:^|[\s$;&|(/]){program}[ \t]+([a-z][\w-]*)(?![\w.=/])", re.MULTILINE)
    code = [re.sub(r"#.*", "", line) for block in shell for line in block.splitlines()]
    return {word for line in [*code, *inline] for word in pattern.findall(line)}


def targets(makefile: str) -> set[str]:
    """Return the targets of a Makefile that a person can name."""
    return set(re.findall(r"^([a-z][\w-]*)[ \t]*:(?!=)", makefile, re.MULTILINE))


def links(text: str) -> set[str]:
    """Return the relative links of a Markdown text, without their anchors."""
    found = re.findall(r"\]\(([^)\s]+)", _FENCE.sub("", text))
    local = [link.partition("#")[0] for link in found if not re.match(r"[a-z]+:", link)]
    return {link for link in local if link}


@pytest.fixture(scope="module")
def readme() -> str:
    """The text of the README."""
    return (ROOT / "README.md").read_text("utf-8")


def _run(script: str, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    path = folder / "readme.py"
    path.write_text(script, "utf-8")
    env = {**os.environ, "PYTHONSAFEPATH": "1", "COLUMNS": "120"}
    command = [sys.executable, str(path), *args]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS
    )


def test_the_code_runs_in_order(readme: str, tmp_path: Path) -> None:
    code = blocks(readme, "python", "py")
    if not code:
        pytest.skip("README.md has no python block")
    # As a reader would paste it: one script, with no `if __name__ == "__main__"` around it.
    done = _run("\n".join(code), tmp_path)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_the_first_code_is_short(readme: str) -> None:
    for block in blocks(readme, "python", "py")[:1]:
        assert len(block.splitlines()) <= FIRST_BLOCK_LINES


def test_make_targets_exist(readme: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for text in (readme, (ROOT / "CONTRIBUTING.md").read_text("utf-8")):
        assert commands(text, "make") - targets(makefile) == set()
    assert {"demo", "test", "lint", "check"} <= targets(makefile)


def test_the_shell_verbs_exist(readme: str, tmp_path: Path) -> None:
    verbs = sorted(commands(readme, "autorec"))
    if not verbs:
        pytest.skip("README.md names no `autorec` command")
    done = _run(_VERBS, tmp_path, *verbs)
    assert done.returncode == 0, done.stderr[-4000:]
    assert re.findall(r"unknown verb: (\S+)", done.stdout) == []


def test_relative_links_lead_somewhere(readme: str) -> None:
    for name, text in (("README.md", readme), ("CONTRIBUTING.md", _text("CONTRIBUTING.md"))):
        assert [link for link in sorted(links(text)) if not (ROOT / link).exists()] == [], name


def _text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def test_contributing_is_short() -> None:
    assert len(_text("CONTRIBUTING.md").splitlines()) <= 60


SAMPLE = """
# Title, see [design](docs/a.md#part), [web](https://x.y/z), [here](#top)

```python
import autorec  # make nothing
x = 1
```

Run `make demo` or `autorec fit a.parquet`; the word autorec alone, `import autorec`, make sense.

```bash
make test PYTEST_ARGS=-q   # make believe
.venv/bin/autorec serve run && autorec --help
python -m autorec.worker
```

```python
y = 2
```
"""


def test_the_reader_of_markdown() -> None:
    assert blocks(SAMPLE, "python") == ["import autorec  # make nothing\nx = 1\n", "y = 2\n"]
    assert commands(SAMPLE, "make") == {"demo", "test"}
    assert commands(SAMPLE, "autorec") == {"fit", "serve"}
    assert links(SAMPLE) == {"docs/a.md"}
    assert targets("A := b\na ?= c\ndemo: x\n\trun: y\n.PHONY: z\ntest:\n") == {"demo", "test"}
