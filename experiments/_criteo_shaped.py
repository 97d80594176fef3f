"""A click log of Criteo's shape with a planted truth: any number of rows, by seed, chunk by chunk.

26 id columns with the vocabulary sizes of Criteo's Kaggle log, the largest cut so that all hold
1.26 M ids together, Zipf popularity within a column; 13 skewed counts, given as standardised
logarithms; a quarter of the rows clicked. The logit is a sum of main effects, eight products of two
columns' latent vectors, and numbers alone and in pairs, so that the best attainable AUC is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autorec.seeding import numpy_rng

# Distinct values of C1 to C26 in the Kaggle log; a threshold on counts cuts the long ones in
# practice, here _MOST does.
_KAGGLE = (1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194)
_KAGGLE += (27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572)
_MOST = 162_814
VOCABULARIES = tuple(min(size, _MOST) for size in _KAGGLE)
NUMBERS = 13
BINS = 32
CHUNK = 1 << 16
_ZIPF = 1.05
_PAIRS = 8
_LATENT = 4
_CLICKED = 0.25
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chunk:
    """n rows: ids int32 (n, 26) from 0, numbers and logit float32 (n, 13) and (n,), label (n,)."""

    ids: npt.NDArray[np.int32]
    numbers: Floats
    logit: Floats
    label: Floats


class CriteoShaped:
    """The log of one seed. Rows of a part are the same whatever number of them is asked for.

    Attributes:
        edges: (13, 31) inner quantile edges of the numbers, for bins.
        pairs: the planted pairs of id columns.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        rng = numpy_rng(seed, "criteo-shaped", "truth")
        self._ranks = [np.cumsum(np.arange(1, n + 1) ** -_ZIPF) for n in VOCABULARIES]
        # Ids that are popular together must not be neighbours in memory too.
        self._ids = [rng.permutation(n).astype(np.int32) for n in VOCABULARIES]
        self._main = [rng.normal(0, 0.2, n).astype(np.float32) for n in VOCABULARIES]
        fields = len(VOCABULARIES)
        self.pairs = [tuple(rng.choice(fields, 2, replace=False).tolist()) for _ in range(_PAIRS)]
        read = sorted({field for pair in self.pairs for field in pair})
        self._latent = {f: self._vectors(rng, VOCABULARIES[f]) for f in read}
        self._scale = np.geomspace(1, 300, NUMBERS)
        self._slope = rng.normal(0, 0.15, NUMBERS).astype(np.float32)
        self._centre, self._spread, self._base = np.zeros(NUMBERS), np.ones(NUMBERS), 0.0
        self._settle()

    def chunks(self, part: str, rows: int) -> Iterator[Chunk]:
        """Yield `rows` rows of `part` (train, valid, test), at most CHUNK at a time."""
        for number, start in enumerate(range(0, rows, CHUNK)):
            yield self._chunk(part, number, min(CHUNK, rows - start))

    def bins(self, numbers: Floats) -> npt.NDArray[np.int32]:
        """Return the quantile bin of each number: (n, 13) to int32 (n, 13) from 0."""
        found = [np.searchsorted(self.edges[i], numbers[:, i]) for i in range(NUMBERS)]
        return np.stack(found, axis=1).astype(np.int32)

    @staticmethod
    def _vectors(rng: np.random.Generator, rows: int) -> Floats:
        return rng.normal(0, 0.45, (rows, _LATENT)).astype(np.float32)

    def _settle(self) -> None:
        """Fix scale of the numbers, their bins and the base rate on rows of no part."""
        found = self._chunk("settle", 0, CHUNK)
        self._centre, self._spread = found.numbers.mean(axis=0), found.numbers.std(axis=0)
        found = self._chunk("settle", 0, CHUNK)
        inner = np.linspace(0, 1, BINS + 1)[1:-1]
        self.edges = np.quantile(found.numbers, inner, axis=0).T
        low, high = -20.0, 20.0
        for _ in range(50):
            self._base = 0.5 * (low + high)
            above = float(_sigmoid(found.logit + self._base).mean()) > _CLICKED
            low, high = (low, self._base) if above else (self._base, high)

    def _chunk(self, part: str, number: int, rows: int) -> Chunk:
        rng = numpy_rng(self.seed, "criteo-shaped", part, number)
        # Whole chunks are drawn, so that a shorter log is the beginning of a longer one.
        drawn = rng.random((len(VOCABULARIES), CHUNK))
        counts = np.floor(np.exp(rng.normal(0, 1.2, (CHUNK, NUMBERS))) * self._scale)
        luck = rng.random(CHUNK)[:rows]
        ids = [
            codes[np.searchsorted(cdf, u[:rows] * cdf[-1]).clip(0, len(cdf) - 1)]
            for codes, cdf, u in zip(self._ids, self._ranks, drawn, strict=True)
        ]
        numbers = (np.log1p(counts[:rows]) - self._centre) / self._spread
        plain = numbers.astype(np.float32)
        logit = self._logit(ids, plain)
        label = (luck < _sigmoid(logit)).astype(np.float32)
        return Chunk(np.stack(ids, axis=1), plain, logit, label)

    def _logit(self, ids: list[npt.NDArray[np.int32]], numbers: Floats) -> Floats:
        out = np.full(len(numbers), self._base, np.float32)
        for effect, codes in zip(self._main, ids, strict=True):
            out += effect[codes]
        for left, right in self.pairs:
            out += (self._latent[left][ids[left]] * self._latent[right][ids[right]]).sum(axis=1)
        out += numbers @ self._slope + 0.2 * numbers[:, 0] * numbers[:, 1]
        return out


def _sigmoid(logit: Floats) -> npt.NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-logit.astype(np.float64)))
