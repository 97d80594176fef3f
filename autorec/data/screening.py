"""Which statistics of crosses and of time are worth adding, found in seconds.

On a sample of rows, an additive model over all single fields leaves residuals; what counts and
rates of a cross would gain on them is a closed form (`_screening_gain`), so that no cross needs a
model. All pairs are scanned, then triples: those that extend a promising pair and those that do
not, first on few rows and the best ones on all (`_screening_scan`). Of the finalists one after
another is chosen; its contribution enters the residuals, and the others are measured anew
(`_screening_choose`). Kept is what passes the normal score that chance would pass in one screening
of a hundred, by Bonferroni's bound over both forms of every cross that was tried.

Where there is time, statistics of user, item, their pair and the date stand in the same choice, and
are held against the same bound (`_screening_moments`). Those of crosses then come from strictly
earlier rows, unless validation lies among the training rows: its statistics know of later rows too,
so that a model must have learned from such ones. On MovieLens-100K, split at random, LightGBM has
an RMSE of .9306 without crosses, .9388 with ordered ones and .9268 with those of the other rows.

A chosen rate becomes an "id" where its cross has at most 1,000 combinations and 95 % of the rows
lie in combinations of 50 rows or more: each of them then has the support for parameters of its
own, which say more to a network than one number. Weights of rows are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from autorec.data._screening_choose import FORMS, TIME, Chooser
from autorec.data._screening_gain import Gain, cells
from autorec.data._screening_moments import Asked, Moment, moments, transform_of
from autorec.data._screening_sample import Sample, base, draw
from autorec.data._screening_scan import Clock, Fields, Key, Seen, pairs, pool, triples
from autorec.data.columns import Columns
from autorec.data.features._keys import title
from autorec.data.features.base import at_least
from autorec.errors import ConfigError

if TYPE_CHECKING:
    from autorec.data.features.base import Transform

__all__ = ["Asked", "Evidence", "Screening", "screen"]

_SHOWN = 50
_LEAST_ROWS = 500
_ID_CELLS, _ID_ROWS, _ID_SHARE = 1_000, 50, 0.95
_MOMENTS = 0.3  # share of the time after which no other entity is asked about time
_NUISANCE = 0.8  # share of the time after which pairs are no longer settled ahead of triples


@dataclass(frozen=True)
class Evidence:
    """One statistic that was tried.

    Attributes:
        fields: one to three names of plain fields; none for parts of the date.
        form: "count", "rate" or "id"; statistics of time are counts.
        gain: loss that it saves a row, on rows that it was not fitted on, beyond the single fields
            and all that was chosen before it; nats for clicks, label variances for ratings.
        z: its normal score, without signal a standard normal.
        kept: whether it was chosen.
        column: name of the column of a statistic of time, "" for a cross.
    """

    fields: tuple[str, ...]
    form: str
    gain: float
    z: float
    kept: bool
    column: str = ""

    @property
    def name(self) -> str:
        """The cross, or the statistic of time."""
        return self.column or title(self.fields)


@dataclass(frozen=True)
class Screening:
    """What was tried and what is worth adding.

    Attributes:
        evidence: kept ones in order of choice, then the others, best first; at most 50 in all.
        rows: of the sample.
        tried: statistics that were looked at.
        seconds: that it took.
        windows: seconds of the windows that statistics of time look back.
        ordered: whether training rows with times are told of strictly earlier rows; else of all
            others, as rows of validation are that lie among them.
    """

    evidence: tuple[Evidence, ...]
    rows: int
    tried: int
    seconds: float
    windows: tuple[float, ...] = ()
    ordered: bool = True

    def transforms(self) -> list[Transform]:
        """Return what gives the kept statistics, in order of choice, not yet fitted.

        One of time may give more than is kept: `chosen` tells which.
        """
        from autorec.data.features.counts import Counts
        from autorec.data.features.cross_ids import CrossIds
        from autorec.data.features.rates import Rates

        made: dict[str, Any] = {"count": Counts, "rate": Rates, "id": CrossIds}
        others = {"count": {"form": "leave-one-out"}, "rate": {"form": "out-of-fold"}}
        forms = {} if self.ordered else others
        kept = [one for one in self.evidence if one.kept]
        found: dict[tuple[Any, ...], Transform] = {}
        for one in kept:
            if not one.column:
                found[one.fields, one.form] = made[one.form](one.fields, **forms.get(one.form, {}))
            elif (one.fields, TIME) not in found:
                columns = {each.column for each in kept if each.fields == one.fields}
                found[one.fields, TIME] = transform_of(one.fields, columns, self.windows)
        return [*found.values()]

    def chosen(self) -> list[str]:
        """Return the names of the kept counts and rates, in order of choice."""
        kept = [one for one in self.evidence if one.kept and one.form != "id"]
        return [one.column or f"{title(one.fields)}.{one.form}" for one in kept]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; `from_json` reads it back."""
        return asdict(self) | {"evidence": [asdict(one) for one in self.evidence]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Screening:
        """Read what `to_json` gave.

        Raises:
            ConfigError: something is missing.
        """
        try:
            found = tuple(
                Evidence(**{**one, "fields": tuple(one["fields"])}) for one in data["evidence"]
            )
            wide, ordered = tuple(data.get("windows", ())), data.get("ordered", True)
            return cls(found, data["rows"], data["tried"], data["seconds"], wide, ordered)
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"a screening has evidence, rows, tried and seconds, but reading it failed at "
                f"{error}; screen again"
            ) from error

    def explain(self) -> str:
        """Return an aligned table for people."""
        kept = sum(one.kept for one in self.evidence)
        head = f"{kept} kept of {self.tried} tried on {self.rows} rows in {self.seconds:.1f} s"
        lines = [("", "statistic", "form", "gain a row", "z")] + [
            ("+" if one.kept else "", one.name, one.form, f"{one.gain:.6f}",
             f"{one.z:.1f}")
            for one in self.evidence
        ]  # fmt: skip
        wide = [max(len(line[at]) for line in lines) for at in range(5)]
        rows = [
            f"{mark:1} {cross:{wide[1]}}  {form:{wide[2]}}  {gain:>{wide[3]}}  {z:>{wide[4]}}"
            for mark, cross, form, gain, z in lines
        ]
        return "\n".join([head, *(row.rstrip() for row in (rows if self.evidence else []))])


def screen(
    columns: Columns,
    *,
    binary: bool,
    limit: int = 24,
    seconds: float = 10.0,
    rows: int = 100_000,
    order: int = 3,
    seed: int = 0,
    asked: Asked | None = None,
) -> Screening:
    """Find the statistics of pairs and triples of plain fields that help to predict the label.

    Where rows have times, statistics of time are looked for, too.

    Args:
        columns: N training rows; nothing else may be judged by them afterwards.
        binary: labels are 0 or 1 (logloss), else numbers (squared error).
        limit: most statistics to keep.
        seconds: after which the search stops and keeps what it has.
        rows: of the sample; the latest ones where there is time.
        order: 2 leaves triples out.
        seed: decides the sample and the order of triples.
        asked: what is asked about time; None: nothing, and crosses are ordered by it.

    Returns:
        An empty screening where fewer than two fields vary and nothing is asked about time, labels
        are absent or constant, or there are fewer than 500 rows.

    Raises:
        ConfigError: a limit, time, number of rows or order that cannot be.
    """
    for name, value, least in (("limit", limit, 0), ("rows", rows, 1), ("seconds", seconds, 0)):
        at_least(name, value, least)
    if order not in (2, 3):
        raise ConfigError(f"order must be 2 or 3, but got {order!r}")
    clock = Clock(max(seconds, 1e-9))
    sample = draw(columns, binary=binary, rows=rows, seed=seed)
    ordered = columns.time is not None and (asked is None or asked.ahead > 0)
    timed = asked is not None and asked.time and columns.time is not None
    if sample is None or len(sample) < _LEAST_ROWS or not (timed or len(sample.names) > 1):
        return Screening((), 0 if sample is None else len(sample), 0, clock.spent)
    start = base(sample)
    found, wide, tried = moments(columns, sample, start, asked, lambda: clock.past(_MOMENTS))
    sample = sample if ordered else replace(sample, time=None)
    rest = Clock(max(clock.seconds - clock.spent, 1e-9), moments=tried)
    chooser, seen = _search(Chooser.of(sample, start, [*found.values()]), rest, limit, order, seed)
    evidence = _evidence(chooser, seen, [*found])
    return Screening(evidence, len(sample), rest.statistics, clock.spent, wide, ordered)


def _search(
    empty: Chooser, clock: Clock, limit: int, order: int, seed: int
) -> tuple[Chooser, Seen]:
    """Return the last choice and the first looks at all crosses."""
    sample, start = empty.sample, empty.found
    seen = pairs(sample, start, clock)
    best = pool(seen)
    chooser = _choose(empty, best, clock, limit, _NUISANCE if order > 2 else 1.0)
    if order == 2 or len(sample.names) < 3:
        return chooser, seen
    grown = triples(sample, chooser.found, seen, clock, seed)
    more = pool(grown)
    if more and not clock.past():
        again = chooser.again(start)
        chooser = _choose(again, best + more, clock, limit, 1.0)
    return chooser, {**seen, **grown}


def _choose(
    chooser: Chooser, crosses: list[Fields], clock: Clock, limit: int, end: float
) -> Chooser:
    crossed = [(fields, form) for fields in crosses for form in FORMS]
    for key in [*chooser.moments, *crossed]:
        if not clock.past(end):
            chooser.measure(key)
    while len(chooser.chosen) < limit and not clock.past(end):
        best = chooser.best(clock, clock.bar)
        if best is None:
            break
        chooser.take(best)
    return chooser


def _evidence(chooser: Chooser, seen: Seen, found: list[Moment]) -> tuple[Evidence, ...]:
    kept = [_told(chooser.sample, found, key, gain, True) for key, gain in chooser.chosen.items()]
    rest = {
        (fields, form): gain
        for fields, gains in seen.items()
        for form, gain in zip(FORMS, gains, strict=True)
    }
    rest = {k: g for k, g in {**rest, **chooser.gains}.items() if k not in chooser.chosen}
    best = sorted(rest, key=lambda key: (-rest[key].gain, key))[: max(0, _SHOWN - len(kept))]
    return (*kept, *(_told(chooser.sample, found, key, rest[key], False) for key in best))


def _told(sample: Sample, found: list[Moment], key: Key, gain: Gain, kept: bool) -> Evidence:
    fields, form = key
    column = ""
    if form == TIME:
        moment = found[-1 - fields[0]]
        names, form, column = moment.fields, "count", moment.column
    else:
        names = tuple(sample.names[at] for at in fields)
        if kept and form == "rate" and _supported(sample, fields):
            form = "id"
    return Evidence(names, form, float(gain.gain), float(gain.z), kept, column)


def _supported(sample: Sample, fields: Fields) -> bool:
    """Tell whether a cross has few combinations that nearly all have many rows."""
    rows = np.bincount(cells(sample, fields).at)
    held = rows[rows >= _ID_ROWS].sum() >= _ID_SHARE * len(sample)
    return bool(held and np.count_nonzero(rows) <= _ID_CELLS)
