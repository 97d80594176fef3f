"""Which pairs and triples deserve an exact look: all of them on few rows, the best ones on all."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import prod
from statistics import NormalDist

import numpy as np

from autorec.data._screening_gain import Gain, bins, cells, glance
from autorec.data._screening_sample import Residual, Sample
from autorec.seeding import numpy_rng

Fields = tuple[int, ...]
Key = tuple[Fields, str]  # a cross and "count" or "rate"; (-1 - k,) and "time" for moment k
Seen = dict[Fields, tuple[Gain, Gain]]  # of counts and of rates

_clock: Callable[[], float] = time.perf_counter

ALPHA = 0.01
# Rows of a first look, times the root of the combinations: the score of an effect of a given size
# grows with the rows over that root. Products of signs of half a logit reach a score of 4.
_FEW = 800
_MANY = 300  # crosses that go without a first look
_PROMISING = 3.0
_WIDE = 120  # fields whose 280,840 triples are listed
_POOL = 64  # crosses of each order that are looked at exactly
_PAIRS, _TRIPLES = 0.35, 0.65  # shares of the time after which each scan has ended


@dataclass
class Clock:
    """Seconds since the start, and the crosses and statistics of time tried in them."""

    seconds: float
    tried: set[Fields] = field(default_factory=set)
    moments: int = 0
    start: float = field(default_factory=lambda: _clock())

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return _clock() - self.start

    def past(self, share: float = 1.0) -> bool:
        """Tell whether that share of the time is over."""
        return self.spent >= share * self.seconds

    @property
    def bar(self) -> float:
        """The normal score that chance passes in `ALPHA` of all screenings (Bonferroni)."""
        return NormalDist().inv_cdf(1.0 - ALPHA / max(2, self.statistics))

    @property
    def statistics(self) -> int:
        """How many were tried: both forms of each cross, and those of time."""
        return 2 * len(self.tried) + self.moments


def look(
    sample: Sample,
    found: Residual,
    sets: Iterable[Fields],
    clock: Clock,
    end: float,
    *,
    few: bool = False,
) -> Seen:
    """Return the gains of both forms for crosses in their order, until a share of the time.

    Cells of wide crosses share the slots of a hash, and counts are those of all other rows. A look
    at `few` rows takes the last ones.
    """
    n = len(sample)
    seen: Seen = {}
    slots, table = 1 << (4 * n - 1).bit_length(), bins(n)
    for fields in sets:
        if clock.past(end):
            break
        span = prod(sample.sizes[at] for at in fields)
        last = min(n, int(_FEW * span**0.5)) if few else n
        seen[fields] = glance(cells(sample, fields, slots, last), found, table)
        clock.tried.add(fields)
    return seen


def pairs(sample: Sample, found: Residual, clock: Clock) -> Seen:
    """Return the gains of pairs; where there are many, on all rows of the best ones only."""
    every = list(itertools.combinations(range(len(sample.names)), 2))
    numpy_rng(len(every), "screening", "pairs").shuffle(every)
    return _halved(sample, found, [(a, b) for a, b in every], clock, _PAIRS)


def triples(sample: Sample, found: Residual, seen: Seen, clock: Clock, seed: int) -> Seen:
    """Return the gains of triples.

    Those that extend a promising pair and those that do not take turns, so that an interaction
    which no pair shows is found wherever time allows.

    Args:
        sample: n rows.
        found: residuals that hold the pairs, so that a triple shows what is its own.
        seen: gains of pairs.
        clock: stops.
        seed: decides the order of the others.
    """
    return _halved(sample, found, _order(sample, seen, seed), clock, _TRIPLES)


def _order(sample: Sample, seen: Seen, seed: int) -> Iterator[Fields]:
    width = len(sample.names)
    best = sorted((-strength(gains), fields) for fields, gains in seen.items())
    grown = (
        tuple(sorted((*fields, other)))
        for z, fields in best
        if -z >= _PROMISING
        for other in range(width)
        if other not in fields
    )
    rest = _rest(sample, seed)
    done: set[Fields] = set()
    for both in itertools.zip_longest(grown, rest):
        for fields in both:
            if fields is not None and fields not in done:
                done.add(fields)
                yield fields


def _rest(sample: Sample, seed: int) -> Iterator[Fields]:
    """Yield all triples, those of few combinations first: they need the fewest rows.

    Of very many fields, yield random triples without end.
    """
    width, rng = len(sample.names), numpy_rng(seed, "screening", "triples")
    if width <= _WIDE:
        every = np.array(list(itertools.combinations(range(width), 3)))
        spans = np.asarray(sample.sizes, np.float64)[every].prod(axis=1)
        yield from (tuple(three) for three in every[np.argsort(spans, kind="stable")].tolist())
        return
    while True:
        for three in rng.integers(0, width, (1024, 3)).tolist():
            if len(set(three)) == 3:
                yield tuple(sorted(three))


def _halved(
    sample: Sample, found: Residual, sets: Iterable[Fields], clock: Clock, end: float
) -> Seen:
    """Look at all crosses, where they are many on few rows first and on all at the best ones."""
    sets = iter(sets)
    first = list(itertools.islice(sets, _MANY + 1))
    start = clock.spent / clock.seconds
    every = itertools.chain(first, sets)
    if len(first) <= _MANY:
        return look(sample, found, every, clock, end)
    seen = look(sample, found, every, clock, start + 0.8 * (end - start), few=True)
    best = sorted(seen, key=lambda fields: -strength(seen[fields]))
    return look(sample, found, best[: max(_MANY, len(best) // 20)], clock, end)


def strength(gains: tuple[Gain, Gain]) -> float:
    """Return the better score of both forms."""
    return max(gain.z for gain in gains)


def pool(seen: Seen) -> list[Fields]:
    """Return the crosses worth an exact look: by score and, in turn, by gain."""
    worth = {fields: gains for fields, gains in seen.items() if strength(gains) >= _PROMISING}
    by_gain = sorted(worth, key=lambda fields: -max(gain.gain for gain in worth[fields]))
    by_score = sorted(worth, key=lambda fields: -strength(worth[fields]))
    mixed = itertools.chain.from_iterable(zip(by_gain, by_score, strict=True))
    return list(dict.fromkeys(mixed))[:_POOL]
