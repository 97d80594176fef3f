"""Weights that go from a trained parent to the child of an edit, and the few that are kept for it.

A child starts as the function of its parent (`autorec.morph`) and is trained on a share of the rows
that the root of its lineage took. Where the weights of the parent are gone, or no weights of the
child keep the function, it is trained from scratch as a root, and says why.

The optimiser starts anew. Carrying its moments over has not been shown to help: in a toy the loss
after five steps was .147 with them and .139 without.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autorec.build import Network, build
from autorec.candidate import NEURAL, Candidate
from autorec.edits import NEW
from autorec.errors import GrowthError, RankerError
from autorec.morph import morph
from autorec.train.loop import LR_CUT
from autorec.train.weights import FILE, read

if TYPE_CHECKING:
    from autorec.job import Job
    from autorec.schema import Layout
    from autorec.train.fit import Trained, TrainingData

MOST_KEPT = 8
MOST_BYTES = 2 << 30
# Rows of a child over those of the root of its lineage, and evaluations within them.
SHARE, EVALUATIONS = 0.3, 4
_FACTS = "parent.json"


@dataclass(frozen=True)
class Parent:
    """A trained network with what its training took.

    Attributes:
        number: of its trial.
        hash_cap: most rows of one id table, None where there is no bound.
        root_rows: rows presented to the root of its lineage, from start to end.
        best_rows: rows that its weights have learned from, those of its forebears included.
        replay: epochs and learning-rate cuts of its whole lineage.
    """

    number: int
    network: Network
    hash_cap: int | None
    root_rows: int
    best_rows: int
    replay: Mapping[str, Any]

    @property
    def cuts(self) -> list[float]:
        """Epochs of the lineage at which the rate is cut before the child's first step.

        A child goes on at the rate that its parent's best weights were learned with, cut at least
        once. On a simulated log (6,000 rows, four roots, three random edits of each) children of
        roots that were best before any cut lost .0007 to .0013 AUC at the rate of the root and won
        up to .0006 at a tenth of it; after a cut they won up to .00015 at the same rate, and less
        at a tenth. From scratch, on the same rows, all were .003 to .19 below their root.
        """
        return [*map(float, self.replay.get("cuts", ()))] or [float(self.replay["epochs"])]

    @property
    def rate(self) -> float:
        """What the learning rate of a child is multiplied by."""
        return float(LR_CUT ** len(self.cuts))

    @property
    def rows(self) -> int:
        """Most rows of a child."""
        return max(1, math.ceil(SHARE * self.root_rows))


class Parents:
    """The weights of the best networks of a search, in one folder that all workers share.

    Args:
        folder: made when the first network is kept.
        most: networks to keep; of equals, the older.
        most_bytes: of all files together.
    """

    def __init__(
        self, folder: Path, *, most: int = MOST_KEPT, most_bytes: int = MOST_BYTES
    ) -> None:
        self.folder, self.most, self.most_bytes = folder, most, most_bytes

    def keep(self, number: int, trained: Trained, score: float, model: Path) -> bool:
        """Keep the network of a trial where it is one of the best; tell whether it was.

        Args:
            score: higher is better.
            model: the folder that the model was saved to, on the same disk: its file is linked.
        """
        if trained.candidate.family != NEURAL or not math.isfinite(score):
            return False
        size = (model / FILE).stat().st_size
        facts = {
            "score": score,
            "bytes": size,
            "candidate": trained.candidate.to_json(),
            "root_rows": trained.info.get("root_rows", trained.rows),
            "best_rows": trained.info["best_rows"],
            "replay": trained.replay,
        }
        if number not in self._best({**self._facts(), number: facts}):
            return False
        final = self._of(number)
        partial = final.with_name(f".{final.name}.{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _link(model / FILE, partial / FILE)
        (partial / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        found = self._facts()
        kept = self._best(found)
        for other in found:
            if other not in kept:  # another worker may be as fast
                shutil.rmtree(self._of(other), ignore_errors=True)
        return True

    def numbers(self) -> list[int]:
        """Return the trials whose networks are kept, the best first."""
        return self._best(self._facts())

    def load(self, number: int, layout: Layout) -> Parent:
        """Return the network of a trial.

        Raises:
            RankerError: it is not kept, or its file is damaged.
        """
        folder = self._of(number)
        try:
            facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RankerError(
                f"weights are inherited from one of trials {self.numbers()}, whose weights are "
                f"kept, but the parent is {number}; train the child as a root"
            ) from error
        network, cap = read(folder, Candidate.from_json(facts["candidate"]), layout)
        rows = int(facts["root_rows"]), int(facts["best_rows"])
        return Parent(number, network, cap, *rows, facts["replay"])

    def _of(self, number: int) -> Path:
        return self.folder / f"{number:05d}"

    def _facts(self) -> dict[int, dict[str, Any]]:
        found = {}
        for path in self.folder.glob(f"[0-9]*/{_FACTS}"):
            try:
                found[int(path.parent.name)] = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):  # another worker has just removed it
                continue
        return found

    def _best(self, found: Mapping[int, Mapping[str, Any]]) -> list[int]:
        """Return the best within both bounds; one that is too large leaves room to the next."""
        kept: list[int] = []
        left = self.most_bytes
        for number in sorted(found, key=lambda n: (-found[n]["score"], n)):
            if len(kept) < self.most and found[number]["bytes"] <= left:
                kept.append(number)
                left -= found[number]["bytes"]
        return kept


@dataclass(frozen=True)
class Start:
    """The network that a training begins with; its parent, or why a child has none."""

    network: Network
    parent: Parent | None = None
    refused: str = ""

    def facts(self, job: Job, best_rows: int) -> dict[str, Any]:
        """Return what the score of a trial tells about its lineage; nothing for a root.

        Args:
            best_rows: rows that this training presented to the weights that are kept.
        """
        if self.parent is None:
            return {"inherited": None, "not_inherited": self.refused} if self.refused else {}
        return {
            "inherited": self.parent.number,
            "edits": [str(edit.get("kind")) for edit in job.edits],
            "root_rows": self.parent.root_rows,
            "best_rows": self.parent.best_rows + best_rows,
        }


def begin(job: Job, data: TrainingData) -> Start:
    """Return the network that `job` starts with: its parent grown, or a fresh one.

    Raises:
        SpaceError: the candidate is no network of this layout.
    """
    candidate, cap = job.candidate, job.fidelity.hash_cap
    refused = ""
    if job.parent is not None and data.valid is not None:
        try:
            parent = _loaded(job, data)
            old, new = parent.network.plan.nodes, candidate.architecture
            fresh = (len(new.nodes) if new else 0) - len(old)
            nodes = (*range(len(old)), *[NEW] * fresh)
            network, _ = morph(parent.network, candidate, nodes, data.layout, seed=job.seed)
            return Start(network, parent)
        except (GrowthError, RankerError) as error:
            refused = str(error)
    network = build(candidate, data.layout, bias=data.task.bias(), seed=job.seed, hash_cap=cap)
    return Start(network, None, refused)


def lineage(parent: Parent | None, replay: dict[str, Any]) -> dict[str, Any]:
    """Return what repeats a training on other rows, from scratch: that of its forebears first."""
    if parent is None:
        return replay
    before = float(parent.replay["epochs"])
    cuts = [*parent.cuts, *(before + cut for cut in replay["cuts"])]
    return {"epochs": before + replay["epochs"], "cuts": cuts}


def _loaded(job: Job, data: TrainingData) -> Parent:
    if data.parents is None or job.parent is None:
        raise RankerError("weights are inherited where a search keeps them, and this one does not")
    parent = data.parents.load(job.parent, data.layout)
    if parent.hash_cap != job.fidelity.hash_cap:
        raise GrowthError(
            f"a child folds its id tables as its parent does, but the parent has hash_cap="
            f"{parent.hash_cap} and the child {job.fidelity.hash_cap}; train it as a root"
        )
    return parent


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
