"""Processes that `bench_training.py` sets up together and measures in turns."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers._contender import MARK, facts
from peers._shapes import shape

from autorec.errors import TrainingError

HERE = Path(__file__).parent
Answer = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A contender: its script in `peers/`, its environment (None: this one) and its variant."""

    script: str
    environment: str | None = None
    variant: str = ""

    def python(self, peers: Path) -> Path:
        """Return the Python it runs under."""
        own = Path(sys.executable)
        return own if self.environment is None else peers / self.environment / "bin" / "python"


CONTENDERS = {
    "autorec": Kind("autorec_run.py", variant="auto"),
    "fuxictr": Kind("fuxictr_run.py", "fuxictr"),
    "autorec-float32": Kind("autorec_run.py", variant="float32"),
    "torchrec": Kind("torchrec_run.py", "torchrec", "dense"),
    "torchrec-fused": Kind("torchrec_run.py", "torchrec", "fused"),
    "deepctr-torch": Kind("deepctr_run.py", "deepctr-torch"),
    "recbole": Kind("recbole_run.py", "recbole"),
}


def command(
    name: str, given: argparse.Namespace, folder: Path, model: str, seed: int | None = None
) -> list[str]:
    """Return the command line of a contender; with a seed, to train to the end for quality."""
    kind = CONTENDERS[name]
    wanted = shape(facts(folder)["data"], model)
    found = [str(kind.python(given.peers)), str(HERE / "peers" / kind.script)]
    found += ["--folder", str(folder), "--model", model, "--shape", json.dumps(wanted)]
    found += ["--batch", str(given.batch), "--threads", str(given.threads)]
    found += ["--variant", kind.variant] if kind.variant else []
    found += ["--split"] if name.startswith("autorec") and seed is None else []
    return found + (["--quality", "--seed", str(seed)] if seed is not None else [])


def environment(line: list[str]) -> dict[str, str]:
    """Return the process environment: as many OpenMP threads as asked, which sleep when idle."""
    threads = line[line.index("--threads") + 1]
    found = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    found |= {"OMP_WAIT_POLICY": "passive", "PYTHONWARNINGS": "ignore"}
    return found


def once(line: list[str]) -> Answer:
    """Run a contender to its end and return its last answer.

    Raises:
        TrainingError: it gave none.
    """
    done = subprocess.run(line, env=environment(line), capture_output=True, text=True, check=False)
    answers = [text for text in done.stdout.splitlines() if text.startswith(MARK)]
    if done.returncode or not answers:
        raise TrainingError(f"a contender must answer, but {line[1]} said: {done.stderr[-800:]}")
    found: Answer = json.loads(answers[-1][len(MARK) :])
    return found


class Contender:
    """One process between two slices. Whatever breaks in it is kept in `fault`, not raised."""

    def __init__(self, name: str, line: list[str]) -> None:
        self.name, self.fault = name, ""
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `kill`)
        self._process = subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(line),
        )

    def ready(self) -> None:
        """Wait until it is warm."""
        self._answer()

    def slice(self, seconds: float) -> Answer:
        """Let it train for so many seconds and return what it did; {} after a fault."""
        return self._told(f"go {seconds}")

    def end(self) -> Answer:
        """End the training and return what it still has to say: AutoRec's own facts, or {}."""
        found = self._told("end") if self.name.startswith("autorec") else {}
        self.kill()
        return found

    def kill(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._errors.close()

    def _told(self, line: str) -> Answer:
        if self.fault or self._process.stdin is None:
            return {}
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it died of is read below
        return self._answer()

    def _answer(self) -> Answer:
        for text in self._process.stdout or ():
            if text.startswith(MARK):
                found: Answer = json.loads(text[len(MARK) :])
                return found
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        self.fault = said[-1] if said else "ended without a word"
        return {}
