"""Training the winner once more on all rows, validation included, by replaying its schedule.

There is nothing left to stop early on, so the refit repeats what the search found: as many epochs
(or boosting rounds), with the learning rate cut at the same places. The encoder is fitted anew, so
that ids which only occur in the newest rows get rows of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autorec.errors import BudgetError
from autorec.job import COMPLETE, Job
from autorec.prepare import Prepared

if TYPE_CHECKING:
    from autorec.data.encoder import Encoder
    from autorec.data.sources import Source
    from autorec.train.fit import Model


@dataclass(frozen=True)
class Refitted:
    """A model of all rows and the encoder it belongs to."""

    model: Model
    encoder: Encoder


class _Both:
    """Two tables read one after the other, with the columns of the first."""

    def __init__(self, first: Source, second: Source) -> None:
        self.first, self.second = first, second
        self.schema = first.schema
        rows = [first.num_rows, second.num_rows]
        self.num_rows = None if None in rows else sum(r for r in rows if r is not None)
        self.description = f"{first.description} and {second.description}"

    def batches(
        self, columns: Sequence[str] | None = None, batch_rows: int = 65536
    ) -> Iterator[Any]:
        """Yield record batches of both."""
        names = list(self.schema.names if columns is None else columns)
        yield from self.first.batches(names, batch_rows)
        yield from self.second.batches(names, batch_rows)


def whole(prepared: Prepared) -> Any:
    """Return all labelled rows as one source."""
    if prepared.tuning is None:
        return prepared.source
    return _Both(prepared.source, prepared.tuning)


def refit(prepared: Prepared, job: Job, replay: Mapping[str, Any]) -> Refitted:
    """Train the candidate of `job` on all rows.

    Raises:
        BudgetError: the deadline came first; half a schedule is worse than the search's own
        weights.
        TrainingError: training diverged.
    """
    import torch

    from autorec.data.encoder import Encoder
    from autorec.data.store import write_columns
    from autorec.train.fit import TrainingData, fit

    run, rows = prepared.run, whole(prepared)
    schema, task = run.schema(), run.task()
    wanted = [field.name for field in schema.features]
    encoder = Encoder.fit(lambda: rows.batches(wanted), schema)
    folder = run.folder / "columns"
    columns = write_columns(rows, schema, encoder, task.label_map, None, folder, part="all")["all"]
    data = TrainingData(columns, None, encoder.layout, task, schema.item)
    before = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        trained = fit(job, data, lambda rows, score: True, replay=replay)
    finally:
        torch.set_num_threads(before)
    if trained.status != COMPLETE:
        raise BudgetError("the time limit came before the refit's end; the search's weights stay")
    return Refitted(trained.model, encoder)
