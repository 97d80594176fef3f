"""Statistics of crosses for a run: found by screening, fitted, and written behind encoded rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autorec.run import SCREENING

if TYPE_CHECKING:
    from autorec.data.derivation import Derivation
    from autorec.data.encoder import Encoder
    from autorec.tasks.base import Task

# Training rows that are screened. On Frappe twice the default finds one more cross, in two seconds.
_ROWS = 200_000


@dataclass(frozen=True)
class Wanted:
    """How many statistics at most, and the seconds to find them in."""

    most: int = 0
    seconds: float = 10.0


def derive(
    folder: Path,
    encoder: Encoder,
    task: Task,
    wanted: Wanted,
    seed: int,
    say: Callable[[str], None],
) -> Encoder:
    """Find statistics of crosses that are worth adding, and write them behind the encoded rows.

    Validation rows get what training rows tell, and no statistic sees them.

    Returns:
        The encoder with the derived columns behind it; the one given where nothing was found.
    """
    from autorec.data.derivation import Derivation, most_statistics, widen
    from autorec.data.screening import screen
    from autorec.data.store import Columns

    train = Columns.open(folder / "columns" / "train")
    limit = min(wanted.most, most_statistics(len(train)))
    if limit < 1 or len(encoder.base.sparse) < 2:
        return encoder
    screening = screen(
        train,
        binary=task.name == "ctr",
        limit=limit,
        rows=_ROWS,
        seconds=wanted.seconds,
        seed=seed,
    )
    (folder / SCREENING).write_text(json.dumps(screening.to_json()), encoding="utf-8")
    transforms = screening.transforms()
    say(f"crosses {len(transforms)} of {screening.tried} statistics are worth adding")
    if not transforms:
        return encoder
    derivation, values = Derivation.fit(transforms, train)
    extended = encoder.extended(derivation)
    widen(folder / "columns" / "train", extended.layout, values)
    widen(folder / "columns" / "valid", extended.layout, derivation)
    extended.save(folder / "encoder")
    return extended


def derive_again(encoder: Encoder, like: Derivation | None, folder: Path) -> Encoder:
    """Return the encoder with the same statistics behind it, fitted on all rows in `folder`."""
    from autorec.data.derivation import Derivation, widen
    from autorec.data.store import Columns

    if like is None:
        return encoder
    derivation, values = Derivation.fit(like.transforms, Columns.open(folder))
    extended = encoder.extended(derivation)
    widen(folder, extended.layout, values)
    return extended
