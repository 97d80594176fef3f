"""Statistics of crosses and time for a run: found by screening, fitted, written behind the rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autorec.run import SCREENING

if TYPE_CHECKING:
    from autorec.data.columns import Columns
    from autorec.data.derivation import Derivation
    from autorec.data.encoder import Encoder
    from autorec.data.screening import Asked
    from autorec.tasks.base import Task

# Training rows that are screened. On Frappe twice the default finds one more cross, in two seconds.
_ROWS = 200_000


@dataclass(frozen=True)
class Wanted:
    """How many statistics at most, the seconds to find them in, and whether time is asked, too."""

    most: int = 0
    seconds: float = 10.0
    time: bool = True


def derive(
    folder: Path,
    encoder: Encoder,
    task: Task,
    wanted: Wanted,
    seed: int,
    say: Callable[[str], None],
) -> Encoder:
    """Find statistics of crosses and of time worth adding, and write them behind the encoded rows.

    Validation rows get what training rows tell, and no statistic sees them.

    Returns:
        The encoder with the derived columns behind it; the one given where nothing was found.
    """
    from autorec.data.derivation import Derivation, most_statistics, widen
    from autorec.data.screening import screen
    from autorec.data.store import Columns

    train = Columns.open(folder / "columns" / "train")
    timed = wanted.time and train.time is not None
    asked = _asked(encoder, train, Columns.open(folder / "columns" / "valid"))
    limit = min(wanted.most, most_statistics(len(train)))
    if limit < 1 or (len(encoder.base.sparse) < 2 and not timed):
        return encoder
    screening = screen(
        train,
        binary=task.name == "ctr",
        limit=limit,
        rows=_ROWS,
        seconds=wanted.seconds,
        seed=seed,
        asked=replace(asked, time=wanted.time),
    )
    (folder / SCREENING).write_text(json.dumps(screening.to_json()), encoding="utf-8")
    transforms = screening.transforms()
    kept = sum(one.kept for one in screening.evidence)
    say(f"derived {kept} of {screening.tried} statistics of crosses and time are worth adding")
    if not transforms:
        return encoder
    derivation, values = Derivation.fit(transforms, train, screening.chosen())
    extended = encoder.extended(derivation)
    widen(folder / "columns" / "train", extended.layout, values)
    widen(folder / "columns" / "valid", extended.layout, derivation)
    extended.save(folder / "encoder")
    return extended


def _asked(encoder: Encoder, train: Columns, valid: Columns) -> Asked:
    """Return what is asked about time: of plain columns, and how far validation lies ahead."""
    import numpy as np

    from autorec.data.screening import Asked
    from autorec.data.timeline import UNKNOWN

    plain = {field.name for field in encoder.base.sparse if not field.binned}
    named = (encoder.schema.user, encoder.schema.item)
    user, item = (name if name in plain else None for name in named)
    if train.time is None or valid.time is None or not len(train) or not len(valid):
        return Asked(user, item)
    last, times = int(train.time.max()), valid.time[valid.time != UNKNOWN]
    behind = len(times) > 0 and int(np.median(times)) > last
    return Asked(user, item, int(times.max()) - last if behind else 0)


def derive_again(encoder: Encoder, like: Derivation | None, folder: Path) -> Encoder:
    """Return the encoder with the same statistics behind it, fitted on all rows in `folder`."""
    from autorec.data.derivation import Derivation, widen
    from autorec.data.store import Columns

    if like is None:
        return encoder
    derivation, values = Derivation.fit(like.transforms, Columns.open(folder), like.chosen)
    extended = encoder.extended(derivation)
    widen(folder, extended.layout, values)
    return extended
