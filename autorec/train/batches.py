"""Rows of a column store as batches of tensors: slices and one gather, no per-row Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from autorec.seeding import torch_generator

if TYPE_CHECKING:
    from autorec.data.store import Columns

# A shuffle over more bytes than this reads the file in runs of `_RUN` rows instead of row by row.
SHUFFLE_IN_MEMORY = 4 << 30
_RUN = 1 << 14
_RUNS_TOGETHER = 64
OOV = 1


@dataclass(frozen=True)
class Batch:
    """B rows. Codes int32 (B, F), lists int32 (B, L_i), dense float32 (B, Q), label and weight
    (B,).
    """

    codes: Tensor
    lists: tuple[Tensor, ...]
    dense: Tensor
    label: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`; the same object when it is there already."""
        if self.codes.device == device:
            return self

        def move(part: Tensor) -> Tensor:
            return part.to(device, non_blocking=True)

        return Batch(
            move(self.codes),
            tuple(map(move, self.lists)),
            move(self.dense),
            None if self.label is None else move(self.label),
            None if self.weight is None else move(self.weight),
        )


def _tensor(array: np.ndarray) -> Tensor:
    # A read-only memory map shares its pages between workers; opened copy-on-write it gives a
    # tensor without a copy and without torch's warning about arrays that cannot be written.
    if isinstance(array, np.memmap) and array.mode == "r":
        array = np.memmap(array.filename, array.dtype, "c", array.offset, array.shape)  # type: ignore[call-overload]
    return torch.from_numpy(np.ascontiguousarray(array))


class Rows:
    """All rows of a column store as tensors, without a copy where the store is memory-mapped."""

    def __init__(self, columns: Columns) -> None:
        self.n = columns.n_rows
        self.codes = _tensor(columns.codes)
        self.lists = tuple(_tensor(columns.lists[f.name]) for f in columns.layout.lists)
        self.dense = _tensor(columns.dense)
        self.label = None if columns.label is None else _tensor(columns.label)
        self.weight = None if columns.weight is None else _tensor(columns.weight)
        self.nbytes = sum(t.nbytes for t in (self.codes, *self.lists, self.dense))
        # Codes that may be out of vocabulary in new rows: ids and categories, not bins.
        self.open_fields = [i for i, f in enumerate(columns.layout.sparse) if not f.binned]

    def at(self, index: Tensor) -> Batch:
        """Return the rows at `index`, int64 (B,)."""
        return Batch(
            self.codes.index_select(0, index),
            tuple(part.index_select(0, index) for part in self.lists),
            self.dense.index_select(0, index),
            None if self.label is None else self.label.index_select(0, index),
            None if self.weight is None else self.weight.index_select(0, index),
        )

    def between(self, start: int, stop: int) -> Batch:
        """Return rows `start` to `stop` as views."""
        return Batch(
            self.codes[start:stop],
            tuple(part[start:stop] for part in self.lists),
            self.dense[start:stop],
            None if self.label is None else self.label[start:stop],
            None if self.weight is None else self.weight[start:stop],
        )

    def in_order(self, size: int) -> Iterator[Batch]:
        """Yield all rows once, in order, `size` at a time."""
        for start in range(0, self.n, size):
            yield self.between(start, min(self.n, start + size))


def epoch_order(
    n: int, generator: torch.Generator, *, sequential: bool = False
) -> Iterator[Tensor]:
    """Yield int64 pieces that together are a random permutation of range(n).

    With `sequential`, runs of 16,384 rows that lie together in the file are read together: 64
    random runs (about a million rows) are shuffled at a time, so that a log larger than memory is
    read in long pieces. A batch then mixes rows of 64 places of the log.
    """
    if not sequential:
        yield torch.randperm(n, generator=generator)
        return
    runs = torch.randperm(-(-n // _RUN), generator=generator)
    for chosen in torch.split(runs, _RUNS_TOGETHER):
        rows = torch.cat([torch.arange(int(r) * _RUN, min(n, (int(r) + 1) * _RUN)) for r in chosen])
        yield rows[torch.randperm(len(rows), generator=generator)]


class Batches:
    """Endless shuffled training batches of one column store.

    Args:
        columns: the training rows.
        batch_size: B; the last batch of an epoch is smaller, and left out if it holds one row.
        seed: of order and id dropout.
        oov_rate: share of ids replaced by the out-of-vocabulary code, which trains that row even
            where every training id is in the vocabulary. At 1e-3 and 200,000 rows a field's row is
            seen 200 times an epoch.
    """

    def __init__(
        self, columns: Columns, batch_size: int, *, seed: int, oov_rate: float = 1e-3
    ) -> None:
        self.rows = Rows(columns)
        self.batch_size = max(1, min(batch_size, self.rows.n))
        self.n = self.rows.n
        self.seed = seed
        self.oov_rate = oov_rate
        self.sequential = self.rows.nbytes > SHUFFLE_IN_MEMORY

    @property
    def lookups(self) -> int:
        """Rows that a batch reads of a table that all id fields and lists share, with repeats."""
        lists = sum(part.shape[1] for part in self.rows.lists)
        return int(self.batch_size * (self.rows.codes.shape[1] + lists))

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch `number`; the same number gives the same batches."""
        generator = torch_generator(self.seed, "epoch", number)
        for piece in epoch_order(self.n, generator, sequential=self.sequential):
            for index in torch.split(piece, self.batch_size):
                if len(index) > 1 or self.n == 1:
                    yield self._with_unknown_ids(self.rows.at(index), generator)

    def _with_unknown_ids(self, batch: Batch, generator: torch.Generator) -> Batch:
        fields = len(self.rows.open_fields)
        if not fields or self.oov_rate <= 0:
            return batch
        cells = len(batch) * fields
        count = int(torch.poisson(torch.tensor(cells * self.oov_rate), generator=generator))
        if count:
            cell = torch.randint(cells, (count,), generator=generator)
            columns = torch.tensor(self.rows.open_fields)[cell % fields]
            batch.codes[cell // fields, columns] = OOV
        return batch
