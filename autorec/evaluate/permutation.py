"""Which columns a trained model needs: permutation importance (Breiman, Machine Learning 2001).

The values of one column are shuffled over validation rows, and the score falls by what the model
got from that column. The order that comes out is what a search leaves columns out by
(`DagSpace.learn_order`). What it does not tell: of two columns that say the same, a model may read
one, and the other looks useless; and what was derived from a column before is not shuffled with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autorec.candidate import column_of
from autorec.errors import DataError
from autorec.evaluate.intervals import Interval, paired_difference
from autorec.search_spaces._features import columns as columns_of
from autorec.seeding import derive, numpy_rng
from autorec.tasks.base import Task

if TYPE_CHECKING:
    from autorec.data.columns import Columns

FILE = "importance.json"
Predict = Callable[["Columns"], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Importance:
    """By how much the score falls without a column.

    Attributes:
        column: name of the column of the table.
        fall: of the task's metric, higher is better, with the mean of the paired bootstrap
            intervals of all repeats.
        repeats: shuffles that were averaged.
    """

    column: str
    fall: Interval
    repeats: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Importance:
        """Read what `to_json` wrote."""
        return cls(**{**data, "fall": Interval(**data["fall"])})


def importances(
    predict: Predict,
    columns: Columns,
    task: Task,
    *,
    rows: int = 10_000,
    repeats: int = 3,
    replicates: int = 100,
    seed: int = 0,
    late: Callable[[], bool] = lambda: False,
) -> list[Importance]:
    """Return the importance of every column of the table, the most important first.

    A number is shuffled together with its bins. Predictions: 1 + columns x repeats, of `rows` rows.

    Args:
        predict: of the trained model (`Model.predict`).
        columns: validation rows with labels; at most `rows` of them, drawn at random, are used.
        task: whose metric is compared.
        rows: most rows.
        repeats: shuffles of each column.
        replicates: resamples of each interval.
        seed: of the rows, the shuffles and the resamples.
        late: asked before every repeat but the first whether to leave it out.

    Raises:
        DataError: the rows have no label.
    """
    if columns.label is None or not len(columns):
        raise DataError(
            f"importance is measured on rows with labels, but got {len(columns)} rows "
            f"{'without' if columns.label is None else 'with'} labels; pass validation rows"
        )
    if len(columns) > rows:
        drawn = numpy_rng(seed, "importance rows").choice(len(columns), rows, replace=False)
        columns = columns.take(np.sort(drawn))
    names = columns_of(columns.layout)
    whole = predict(columns)
    falls: dict[str, list[Interval]] = {name: [] for name in names}
    for repeat in range(repeats):
        if repeat and late():
            break
        for name in names:
            order = numpy_rng(seed, "importance", name, repeat).permutation(len(columns))
            torn = predict(shuffled(columns, name, order))
            falls[name].append(_fall(task, columns, whole, torn, replicates, seed))
    found = [Importance(name, _mean(own), len(own)) for name, own in falls.items()]
    return sorted(found, key=lambda one: -np.nan_to_num(one.fall.value))


def shuffled(columns: Columns, name: str, order: npt.NDArray[np.intp]) -> Columns:
    """Return rows (N,) whose column `name`, a number with its bins, comes from rows `order` (N,).

    All other arrays are those of `columns`.
    """
    layout = columns.layout
    codes, dense, lists = columns.codes, columns.dense, dict(columns.lists)
    of_codes = [at for at, f in enumerate(layout.sparse) if column_of(f) == name and not f.form]
    of_dense = [at for at, f in enumerate(layout.dense) if f.name == name and not f.form]
    if of_codes:
        codes = np.array(codes)
        codes[:, of_codes] = columns.codes[order][:, of_codes]
    if of_dense:
        dense = np.array(dense)
        dense[:, of_dense] = columns.dense[order][:, of_dense]
    if name in lists:
        lists[name] = lists[name][order]
    return replace(columns, codes=codes, dense=dense, lists=lists)


def ordered(found: Sequence[Importance]) -> tuple[str, ...]:
    """Return the names of the columns, the most important first."""
    return tuple(one.column for one in sorted(found, key=lambda o: -np.nan_to_num(o.fall.value)))


def keep(found: Sequence[Importance], folder: Path) -> None:
    """Write `importance.json` into a run folder; it appears whole."""
    partial = folder / f".{FILE}.{os.getpid()}"  # two workers may have measured at once
    partial.write_text(json.dumps([one.to_json() for one in found], indent=1), encoding="utf-8")
    os.replace(partial, folder / FILE)


def kept(folder: Path) -> list[Importance] | None:
    """Read what `keep` wrote; None where nothing is known yet."""
    path = folder / FILE
    if not path.is_file():
        return None
    return [Importance.from_json(one) for one in json.loads(path.read_text(encoding="utf-8"))]


def _fall(
    task: Task,
    columns: Columns,
    whole: npt.NDArray[np.float64],
    torn: npt.NDArray[np.float64],
    replicates: int,
    seed: int,
) -> Interval:
    """Return the score of `whole` minus that of `torn`, both (N,), on the same resamples."""
    better = task.metric.greater_is_better
    one, other = (whole, torn) if better else (torn, whole)
    return paired_difference(
        task.metric,
        np.asarray(columns.label),
        one,
        other,
        weight=columns.weight,
        group=columns.group,
        replicates=replicates,
        seed=derive(seed, "importance interval"),
    )


def _mean(found: Sequence[Interval]) -> Interval:
    value, low, high = (
        float(np.mean([getattr(one, part) for one in found])) for part in ("value", "low", "high")
    )
    return Interval(value, low, high, found[0].level)
