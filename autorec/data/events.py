"""New events of a served ranker, read whole and checked before any of them counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autorec.data.casting import flat
from autorec.data.columns import Columns
from autorec.data.encoder import Encoder
from autorec.data.features.base import Transform
from autorec.data.labels import LabelMap
from autorec.data.sources import open_source
from autorec.data.timeline import of_rows
from autorec.errors import ConfigError, DataError

# Events that are added at a time; readers see all of a part or none of it.
ROWS = 65_536


def columns_read(encoder: Encoder, transforms: Sequence[Transform]) -> list[str]:
    """Return the raw columns behind the inputs of transforms, in the order of the encoder.

    Last comes the timestamp, where a transform reads it.
    """
    inputs = {name for each in transforms for name in each.inputs}
    found = list(dict.fromkeys(f.source for f in encoder.base.sparse if f.name in inputs))
    named, timed = encoder.schema.timestamp, any(each.needs_time for each in transforms)
    return [*found, named] if timed and named is not None else found


def read_events(
    data: Any,
    encoder: Encoder,
    transforms: Sequence[Transform],
    labels: tuple[str, LabelMap] | None,
    *,
    seen: bool = True,
) -> list[Columns]:
    """Return n events as encoded rows of `encoder.base`, at most `ROWS` in each part.

    Args:
        data: what `open_source` takes, with the columns that the transforms read; other features
            are not looked at.
        encoder: of the ranker.
        transforms: the statistics that will count the events.
        labels: label column and what its values mean; None: labels are not read.
        seen: whether the rows count; without, a label column has to be there.

    Raises:
        DataError: columns are missing, or a value or label does not fit its column.
    """
    source = open_source(data, allow_empty=True)
    there, wanted = source.schema.names, columns_read(encoder, transforms)
    missing = [name for name in wanted if name not in there]
    told = labels is not None and labels[0] in there
    if labels is not None and not seen and not told:
        missing.append(labels[0])
    if missing:
        raise DataError(
            f"events must have the columns that the statistics of this ranker read, {wanted}"
            f"{'' if seen else ' and the label'}, but {missing} are missing (there are {there}); "
            "add them, null where unknown"
        )
    names = [*wanted, labels[0]] if labels is not None and told else [*wanted]
    parts = []
    for batch in source.batches(names, ROWS):
        label = _labels(batch.column(labels[0]), labels[1]) if labels and told else None
        rows = encoder.plain(_filled(batch, [f.name for f in encoder.schema.features], wanted))
        time = of_rows(batch, encoder.schema)
        parts.append(Columns.of(encoder.base, rows, label=label, time=time))
    return parts


def _filled(batch: Any, features: Sequence[str], wanted: Sequence[str]) -> Any:
    """Return the wanted columns beside nulls for all other features."""
    nothing = pa.nulls(batch.num_rows)
    return pa.table({n: batch.column(n) if n in wanted else nothing for n in features})


def _labels(array: Any, label_map: LabelMap) -> npt.NDArray[np.float32]:
    """Return the labels (n,), NaN where one is not known yet."""
    array = flat(array)
    known = ~np.asarray(array.is_null(nan_is_null=True).to_numpy(zero_copy_only=False))
    out = np.full(len(array), np.nan, np.float32)
    if known.any():
        out[known] = label_map.apply(array.filter(pa.array(known)))
    return out


def check_flags(seen: bool, labels: bool) -> None:
    """Raise `ConfigError` for an update that would take nothing from its events."""
    if not (seen or labels):
        raise ConfigError(
            "an update counts rows (seen=True), takes labels (labels=True) or does both, but both "
            "are False; set one of them"
        )
