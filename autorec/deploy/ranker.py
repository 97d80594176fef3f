"""The ranker: everything that turns raw rows into scores, as one folder of plain files.

The folder holds `manifest.json` (with the SHA-256 of every file), the encoder, the model, the
users, items and usual values of the log, and `live`, the state of its statistics, once they have
moved. Nothing in it is a pickle, so opening one runs no code.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autorec import __version__, tasks
from autorec.candidate import Candidate
from autorec.data.columns import Columns
from autorec.data.encoder import Encoded, Encoder
from autorec.data.entities import Entities
from autorec.data.folders import whole
from autorec.data.remember import remember
from autorec.data.sources import open_source
from autorec.data.state import Limits, LiveState
from autorec.deploy.live import Counting
from autorec.deploy.manifest import MANIFEST, seal, verified
from autorec.deploy.ranking import Ranking
from autorec.errors import ConfigError, DataError
from autorec.schema import Layout, Schema
from autorec.tasks.base import Task
from autorec.train.fit import Model, load_model

if TYPE_CHECKING:
    from autorec.data.sources import Source

ENTRY = "autorec.deploy.ranker:Ranker"
LIVE = "live"
Scores = npt.NDArray[np.float64]

# Rows that are encoded and scored at a time, counted from the first row of the data.
ROWS = 65_536
# Rows are scored in multiples of this, so that a row has the same bits alone and in a crowd. Matrix
# products of torch 2.13 on an x86 CPU gave a row the same bits in every batch whose size is a
# multiple of 16 (layers of 16 to 640 inputs, batches of 16 to 65,536) and others, by up to 1e-6, in
# smaller or odd ones. One row of a 3 x 400 network costs 2.3 ms instead of 2.0 (2026-11).
ALIGN = 16


@dataclass
class Ranker(Counting):
    """Scores rows and ranks items; saved as a folder, loaded in any process.

    Where the model reads counts and rates (`statistics`), `update` moves them with traffic. One
    thread may update while others score. Before the first update they are those of training, in the
    same bits; `warm`, or the third request of few rows, puts them into one table beside what is
    loaded (28 bytes for each possible value of small columns and crosses, 50 to 71 for each other
    one). After it a live state counts on instead (50 to 85 bytes for each other value met; `Limits`
    bounds their number), and is saved with the ranker. Values that training did not see have no
    code, and do not count.

    Attributes:
        schema: columns of the training log.
        task: what a score means: a probability (ctr) or a rating.
        candidate: what was found by the search.
        encoder: raw columns to codes.
        model: codes to scores.
        entities: users, items and usual values, from which `rank` makes rows.
        metrics: validation metrics, for people.
        created: time of training, ISO 8601, UTC.
    """

    schema: Schema
    task: Task
    candidate: Candidate
    encoder: Encoder
    model: Model
    entities: Entities
    metrics: Mapping[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=lambda: _now())

    def __post_init__(self) -> None:
        self._read_only()
        self._ranking = Ranking(self.entities, self.encoder, self._predict)

    @classmethod
    def make(
        cls,
        source: Source,
        schema: Schema,
        task: Task,
        candidate: Candidate,
        encoder: Encoder,
        model: Model,
        *,
        metrics: Mapping[str, Any] | None = None,
    ) -> Ranker:
        """Return the ranker of a trained model; reads the training log twice."""
        entities = remember(source, schema, encoder, task.label_map)
        return cls(schema, task, candidate, encoder, model, entities, dict(metrics or {}))

    @property
    def layout(self) -> Layout:
        """What the encoder gives and the model takes."""
        return self.encoder.layout

    def score(self, data: Any) -> Scores:
        """Return one score (N,) a row, in the order of the rows: a probability or a rating.

        Ids and values that training did not see are scored as unknown ones. A row's score does not
        depend on the rows beside it.

        Args:
            data: pandas, polars or Arrow table, a path, or a list of dicts. Columns that are no
                features are ignored; a path is read in pieces and never held. The timestamp is read
                where statistics of time are; rows without it come right behind all known events.

        Raises:
            DataError: feature columns are missing, or values do not fit their column.
        """
        source = open_source(data, allow_empty=True)
        wanted = [field.name for field in self.schema.features]
        missing = [name for name in wanted if name not in source.schema.names]
        if missing:
            raise DataError(
                f"rows to score must have the columns of training, but {missing} are missing "
                f"(there are {source.schema.names}); add them, null where unknown"
            )
        derivation, time = self.encoder.derivation, self.schema.timestamp
        if derivation is not None and derivation.timed and time in source.schema.names:
            wanted.append(str(time))
        encoded = (self.encoder.encode(batch) for batch in source.batches(wanted))
        parts = [self._predict(piece) for piece in regular(encoded, ROWS)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def rank(
        self,
        users: Any = None,
        *,
        candidates: Any = None,
        k: int = 10,
        filter_seen: bool = True,
        context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the best items of each user as a pandas table.

        Args:
            users: an id, ids, or a table with the user column and any user and context columns;
                all users of the log by default. Users that the log lacks are ranked for by the
                columns given, and by usual values.
            candidates: item ids, or a table with the item column and any item and context columns
                (new items need one), or a mapping from each user to item ids; all items of the log
                by default. An item named twice counts once.
            k: items per user; a user with fewer candidates gets all of them.
            filter_seen: leave out what the user had a positive label for (ctr) or rated.
            context: values of context or user columns for all users; what is not given has its
                usual value (the attribute `context` tells which).

        Returns:
            Columns user_id, item_id, score, rank (from 1): users in the order asked for, equal
            scores in the order of the candidates, by default the most frequent item first.

        Raises:
            RankerError: the log had no item column.
            ConfigError: `k` is below 1, or `context` names a column that is not of the request.
            DataError: ids or values do not fit their column.
        """
        return self._ranking(users, candidates, k=k, filter_seen=filter_seen, context=context)

    @property
    def context(self) -> dict[str, Any]:
        """Columns that are neither the user's nor the item's, and the value used for each."""
        return self.entities.usual("context")

    def example(self) -> Any:
        """Return one raw row (pandas) that `score` takes: the usual value of every feature."""
        return self.entities.defaults.to_pandas()

    def save(self, folder: Path | str) -> Path:
        """Write the ranker; the folder appears whole, or not at all.

        Raises:
            DataError: the folder holds something that is not a ranker.
        """
        folder = Path(folder)
        with whole(folder, MANIFEST) as fresh:
            (fresh / "model").mkdir()
            self.encoder.save(fresh / "encoder")
            self.model.save(fresh / "model")
            self.entities.save(fresh)
            live = self.live
            if live is not None:
                live.save(fresh / LIVE)
            seal(fresh, {**self._facts(), "live": live is not None})
        return folder

    @classmethod
    def load(
        cls, folder: Path | str, device: str = "cpu", *, live: bool | Limits = False
    ) -> Ranker:
        """Read what `save` wrote, after checking that every file is as it was.

        Args:
            folder: the ranker; a live state in it is read, too.
            device: where a network runs: "cpu", "cuda", ...
            live: whether, or within which limits, to `go_live` where the folder has no such state.

        Raises:
            RankerError: a file is missing or altered, or the folder is of another format.
            ConfigError: there is no such device, or the saved state has other limits.
        """
        folder = Path(folder)
        facts = verified(folder)
        schema, layout = Schema.from_json(facts["schema"]), Layout.from_json(facts["layout"])
        task, candidate = tasks.from_json(facts["task"]), Candidate.from_json(facts["candidate"])
        model = load_model(folder / "model", candidate, layout, task)
        _move(model, device)
        encoder = Encoder.load(folder / "encoder")
        entities = Entities.load(folder, schema, facts["columns"])
        told = facts["metrics"], facts["created"]
        found = cls(schema, task, candidate, encoder, model, entities, *told)
        if encoder.derivation is not None and facts.get("live"):
            found._read_from(encoder.derivation.counting_on(LiveState.load(folder / LIVE)))
        if live:
            found.go_live(live if isinstance(live, Limits) else None)
        return found

    def _facts(self) -> dict[str, Any]:
        return {
            "autorec": __version__,
            "entry": ENTRY,
            "created": self.created,
            "task": self.task.to_json(),
            "schema": self.schema.to_json(),
            "columns": self.entities.sides,
            "layout": self.layout.to_json(),
            "candidate": self.candidate.to_json(),
            "metrics": dict(self.metrics),
        }

    def _predict(self, encoded: Encoded) -> Scores:
        n = len(encoded.codes)
        if n == 0:
            return np.zeros(0)
        rows = np.minimum(np.arange(-(-n // ALIGN) * ALIGN), n - 1)
        full = encoded if len(rows) == n else _take(encoded, rows)
        columns = Columns.of(self.layout, full)
        return np.asarray(self.model.predict(columns), np.float64)[:n]


def regular(parts: Iterator[Encoded], rows: int) -> Iterator[Encoded]:
    """Yield the same rows `rows` at a time, however the parts were cut; the last has the rest."""
    held: list[Encoded] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        while size >= rows:
            joined = _join(held)
            yield _take(joined, slice(rows))
            held, size = [_take(joined, slice(rows, None))], size - rows
    if size:
        yield _join(held)


def _join(parts: list[Encoded]) -> Encoded:
    if len(parts) == 1:
        return parts[0]
    return Encoded(
        np.concatenate([part.codes for part in parts]),
        {name: np.concatenate([part.lists[name] for part in parts]) for name in parts[0].lists},
        np.concatenate([part.dense for part in parts]),
    )


def _take(encoded: Encoded, rows: slice | npt.NDArray[np.int64]) -> Encoded:
    lists = {name: values[rows] for name, values in encoded.lists.items()}
    return Encoded(encoded.codes[rows], lists, encoded.dense[rows])


def _move(model: Model, device: str) -> None:
    """Put a network on a device; other families have none."""
    network = getattr(model, "network", None)
    if network is None:
        return
    try:
        network.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ConfigError(
            f"device must be one that torch can use here, but {device!r} failed: {error}; use 'cpu'"
        ) from error


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
