"""What the rows of a value say of a row that was held out, and how often they are right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autorec.data.hashing import mix

LEAST_MIXED = 100  # rows of each label among users, or items, that have both
_FOLDS = 5

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


def out_of_fold(codes: Codes, y: Floats, prior: Floats | None = None) -> Floats:
    """Return for each row (n,) the mean label of its code in the other folds.

    With a prior (n,), one more row has that label; without, unknown codes have the mean of all.
    """
    fold = (mix(np.arange(len(y), dtype=np.uint64)) % np.uint64(_FOLDS)).astype(np.int64)
    cell, size = codes * _FOLDS + fold, (int(codes.max()) + 1) * _FOLDS
    rows = np.bincount(cell, minlength=size).reshape(-1, _FOLDS)
    sums = np.bincount(cell, y, minlength=size).reshape(-1, _FOLDS)
    others = (rows.sum(1, keepdims=True) - rows)[codes, fold]
    total = (sums.sum(1, keepdims=True) - sums)[codes, fold]
    if prior is not None:
        return np.asarray(np.where(others > 0, (total + prior) / (others + 1), prior))
    return np.asarray(np.where(others > 0, total / np.maximum(others, 1), y.mean()))


def right(y: Floats, score: Floats, limit: Floats) -> float:
    """Return the share of rows (n,) that a limit puts right, the mean of both labels; ties half."""
    above = (score > limit) + 0.5 * (score == limit)
    return float((above[y > 0].mean() + (1.0 - above[y == 0]).mean()) / 2)


def auc(y: Floats, score: Floats) -> float:
    """Return the AUC of scores (n,) for labels of 0 and 1, both of which occur.

    Not scikit-learn's: it looks into modules that another thread may be loading.
    """
    found = within(y, score, np.zeros(len(y), np.int64), least=1)
    return 0.5 if found is None else found


def within(y: Floats, score: Floats, ids: Codes, *, least: int = LEAST_MIXED) -> float | None:
    """Return the AUC over pairs of rows of one id, None where few ids have both labels."""
    order = np.lexsort((score, ids))
    y, score, ids = y[order], score[order], ids[order]
    rows, high = np.bincount(ids), np.bincount(ids, y)
    mixed = (high > 0) & (high < rows)
    if min(high[mixed].sum(), (rows - high)[mixed].sum()) < least:
        return None
    fresh = np.append(True, (ids[1:] != ids[:-1]) | (score[1:] != score[:-1]))
    tie = np.cumsum(fresh) - 1
    size = np.bincount(tie)
    first = np.flatnonzero(fresh)
    start = np.append(0, np.cumsum(rows))[ids]
    rank = (first + (size - 1) / 2)[tie] - start  # from 0, ties share the mean
    ups = np.bincount(ids, rank * y) - high * (high - 1) / 2
    return float(ups[mixed].sum() / (high * (rows - high))[mixed].sum())


def shuffled(codes: Codes, ids: Codes) -> Codes:
    """Return codes (n,) in another order within each id."""
    order = np.argsort(ids, kind="stable")
    mixed = np.lexsort((mix(np.arange(len(ids), dtype=np.uint64)), ids))
    out = np.empty_like(codes)
    out[order] = codes[mixed]
    return out


def joint(left: Codes, right: Codes) -> Codes:
    """Return one code (n,) per pair."""
    both = left * (int(right.max()) + 1) + right
    return np.asarray(np.unique(both, return_inverse=True)[1])
