"""One process a contender: it trains without end, and is measured in slices when it is asked.

The measuring side writes lines to its standard input: `go SECONDS` measures a slice, `end` (or the
end of the input) ends the training. Between slices the process stands still inside a training step,
so that any number of contenders can be set up at once and measured in turns. Answers are lines of
JSON behind a mark, since some peers print what they like.

Imports nothing of AutoRec but its seeds: it runs under each peer's own Python.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MARK = "@@ "
ROOT = Path(__file__).resolve().parents[2]
WARM_STEPS = 5


class Enough(Exception):
    """Ends a peer's training loop from within a step."""


@dataclass(frozen=True)
class Asked:
    """What a contender is asked to train.

    Attributes:
        folder: rows and facts (see `_same_rows.py`).
        model: MLP, DeepFM, DCNv2, FinalMLP or AutoInt.
        shape: of the model on this data (see `_shapes.py`).
        batch, seed, threads: of the training.
        variant: of the contender, where it has several.
        quality: train to the end and give the test AUC instead of being measured in slices.
        split: also say at the end where the time of a step goes (AutoRec only).
    """

    folder: Path
    model: str
    shape: dict[str, Any]
    batch: int
    seed: int
    threads: int
    variant: str
    quality: bool
    split: bool


def asked() -> Asked:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=lambda given: Path(given).resolve(), required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--shape", type=json.loads, required=True, help="as JSON")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant", default="")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--split", action="store_true")
    return Asked(**vars(parser.parse_args()))


def facts(folder: Path) -> dict[str, Any]:
    """Return what the data set holds."""
    found: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return found


def arrays(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes int32 (N, F), dense float32 (N, Q) and label float32 (N,), memory-mapped."""
    at = folder / "peers" / part
    codes, dense, label = (
        np.load(at / f"{name}.npy", mmap_mode="r") for name in ("codes", "dense", "label")
    )
    return codes, dense, label


def seeded() -> Any:
    """Return `autorec.seeding.torch_seeded`, a context that seeds torch and restores it."""
    sys.path.append(str(ROOT))
    from autorec.seeding import torch_seeded

    return torch_seeded


def say(**found: Any) -> None:
    """Answer with one line of JSON."""
    sys.__stdout__.write(MARK + json.dumps(found) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def peak_mb() -> float:
    """Return the peak of resident memory so far, in MiB.

    Not `getrusage`, whose peak starts at that of the process that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)


def now_mb() -> float:
    """Return resident memory now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


class Meter:
    """Counts training steps of one process and measures slices of them on request.

    Args:
        rows: training rows; an epoch is one pass.
        batch: rows of a step; the last step of an epoch has what is left.
        last: whether a smaller last batch is trained on.
        settle: waits for what a device still computes.
    """

    def __init__(
        self, rows: int, batch: int, *, last: bool = True, settle: Callable[[], None] = lambda: None
    ) -> None:
        whole, left = divmod(rows, batch)
        self.epoch = [batch] * whole + ([left] if left and last else [])
        self.settle = settle
        self.steps, self.rows, self.ended = 0, 0, False
        self._until: float | None = None
        self._begun: tuple[float, float, int, int] = (0.0, 0.0, 0, 0)

    def step(self) -> bool:
        """Count a finished step, and measure as asked; True: end the training now."""
        self.rows += self.epoch[self.steps % len(self.epoch)]
        self.steps += 1
        if self.steps < WARM_STEPS:
            return False
        if self._until is None:
            say(ready=True, steps=self.steps)
            self._listen()
        elif time.perf_counter() >= self._until and self.steps >= self._begun[3] + 3:
            self._tell()
            self._listen()
        return self.ended

    def stop(self, *_: Any) -> None:
        """As `step`, but end by raising Enough: a hook to be called after an optimiser's step."""
        if self.step():
            raise Enough

    def _listen(self) -> None:
        line = sys.stdin.readline().split()
        if not line or line[0] == "end":
            self.ended = True
            return
        self.settle()
        self._begun = (time.process_time(), time.perf_counter(), self.rows, self.steps)
        self._until = time.perf_counter() + float(line[1])

    def _tell(self) -> None:
        self.settle()
        cpu, wall, rows, steps = self._begun
        say(
            rows=self.rows - rows,
            steps=self.steps - steps,
            cpu_s=round(time.process_time() - cpu, 4),
            wall_s=round(time.perf_counter() - wall, 4),
            peak_rss_mb=peak_mb(),
            rss_mb=now_mb(),
        )


def measured(train: Callable[[], object]) -> None:
    """Run a training loop that a `Meter.stop` ends."""
    try:
        train()
    except Enough:
        return
    raise SystemExit("the training ended by itself; give it more epochs")
