"""Is learning from validation rows too worth more than a lead? Tried on one half of them.

The best trial may take too long to be trained once more, and the runner-up not. Then the runner-up
is trained on the training rows and one half of the validation rows, and both predict the other
half. What wins there has been measured on rows that it never learned from.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autorec.data.columns import OPTIONAL, Columns
from autorec.data.derivation import widen
from autorec.data.encoder import Encoded
from autorec.data.store import ColumnWriter
from autorec.deriving import derive_again
from autorec.errors import TrainingError
from autorec.job import Job
from autorec.refit import train_again
from autorec.run import REHEARSAL, Run
from autorec.seeding import derive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from autorec.schema import Layout
    from autorec.search.records import TrialRecord

_HALF, _REST = "half", "rest"
_ROWS = 1 << 18


@dataclass(frozen=True)
class Rehearsal:
    """What two trials reach on the second half of the validation rows.

    Attributes:
        best: number of the trial that led on all validation rows, trained on training rows.
        rival: number of the one that was trained on the first half of them too.
        rows: of the second half.
        best_score: of `best` there, higher is better.
        rival_score: of `rival` there.
    """

    best: int
    rival: int
    rows: int
    best_score: float
    rival_score: float

    @property
    def won(self) -> bool:
        """Tell whether more rows made up for the lead."""
        return self.rival_score >= self.best_score


def rehearse(run: Run, best: TrialRecord, rival: TrialRecord, deadline: float) -> Rehearsal:
    """Train `rival` on half of the validation rows too, and compare it with `best` on the rest.

    The second half is the later one where validation rows are the last in time, and random
    otherwise. Statistics of crosses are fitted again on what is learned from.

    Args:
        run: whose trials they are; `best` has kept its validation predictions.
        best: the leader.
        rival: has a score, with what a refit needs.
        deadline: in unix seconds.

    Raises:
        BudgetError: the deadline came first.
        TrainingError: training failed, or the metric is undefined on the half.
    """
    learned, kept = _halves(run)
    prediction = run.prediction(best.number)
    if prediction is None or rival.candidate is None or rival.score is None:
        raise TrainingError(f"trials {best.number} and {rival.number} must have ended with a score")
    try:
        rest = _write(run, learned, kept)
        seed = derive(run.config.seed, "refit")
        job = Job(rival.number, rival.candidate, seed, deadline, threads=run.config.threads)
        model, _ = train_again(run, job, rival.score.info["replay"], _HALF)
        scores = [_score(run, rest, found) for found in (prediction[kept], model.predict(rest))]
    finally:
        for part in (_HALF, _REST):
            shutil.rmtree(run.folder / "columns" / part, ignore_errors=True)
    found = Rehearsal(best.number, rival.number, len(kept), *scores)
    (run.folder / REHEARSAL).write_text(json.dumps(asdict(found)), encoding="utf-8")
    return found


def _halves(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return the validation rows to learn from and those to compare on, both in order."""
    valid = run.columns("valid")
    order = np.random.default_rng(derive(run.config.seed, "rehearsal")).permutation(len(valid))
    if run.config.split["method"] == "time" and valid.time is not None:
        order = np.argsort(valid.time, kind="stable")
    middle = len(order) // 2
    return np.sort(order[:middle]), np.sort(order[middle:])


def _write(run: Run, learned: np.ndarray, kept: np.ndarray) -> Columns:
    """Write the rows to learn from and the rest, both with columns derived from the former."""
    encoder, valid = run.encoder(), run.columns("valid")
    half, rest = (run.folder / "columns" / part for part in (_HALF, _REST))
    _copy(half, encoder.base, [*_slices(run.columns("train")), valid.take(learned)])
    _copy(rest, encoder.base, [valid.take(kept)])
    again = derive_again(encoder, encoder.derivation, half)
    if again.derivation is not None:
        widen(rest, again.layout, again.derivation)
    return Columns.open(rest)


def _copy(folder: Path, base: Layout, parts: Iterable[Columns]) -> None:
    """Write the columns of the log itself, which come before those derived from them."""
    with ColumnWriter(folder, base) as writer:
        for rows in parts:
            lists = {field.name: rows.lists[field.name] for field in base.lists}
            codes, dense = rows.codes[:, : len(base.sparse)], rows.dense[:, : len(base.dense)]
            optional: dict[str, Any] = {name: getattr(rows, name) for name in OPTIONAL}
            writer.append(Encoded(codes, lists, dense), **optional)
        writer.close()


def _slices(columns: Columns) -> Iterator[Columns]:
    for start in range(0, len(columns), _ROWS):
        yield columns.take(slice(start, min(len(columns), start + _ROWS)))


def _score(run: Run, valid: Columns, prediction: np.ndarray) -> float:
    task = run.task()
    found = task.metrics(valid.label, prediction, valid.weight, valid.group)  # type: ignore[arg-type]
    return task.score(found)
