"""A Gaussian process over candidates: one kernel for what was trained and for what is asked.

The kernel is exp(-sum over g of w_g d_g), with d_g the parts of an L1 distance
(`_bayesian_distance`) and w_g at least 0: positive definite on any candidates, so that training
points and queries share it and nothing has to be embedded or clipped. (Auto-Keras learns with one
kernel and predicts with another; see the tests.)

The weights and the noise are those of the highest marginal likelihood under a prior, found by
gradients; the variance has a closed form. The noise also stands for what two runs of one candidate
differ by.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

LEAST_NOISE, MOST_NOISE = 1e-4, 4.0
STEPS = 60
_RATE = 0.15
# Of the logarithms: a group at its mean distance costs 1 / (groups that vary), give or take e^1.5.
_SPREAD_WEIGHTS, _NOISE, _SPREAD_NOISE = 1.5, 0.05, 1.5
_TOTAL = 2.0
# Weights are rounded to 2^-20 and bounded, so that sums of weighted distances are exact.
_MOST_WEIGHT = 2.0**8
# The variance is learnt as if two more trials had shown the spread of all scores.
_BEFORE = 2.0


@dataclass(frozen=True, eq=False)
class Weights:
    """What a Gaussian process has learnt of its distances: `groups` (G,), and noise over signal."""

    groups: np.ndarray
    noise: float


def kernel(apart: np.ndarray) -> np.ndarray:
    """Return the correlation of candidates whose weighted distances are `apart`."""
    found: np.ndarray = np.exp(-apart)
    return found


class Posterior:
    """What finished trials tell about any candidate.

    Pending candidates are believed to score what is predicted for them (kriging believer), which
    leaves the mean as it is and takes away the doubt about them.

    Args:
        apart: (n + p, n + p), weighted distances of n finished candidates and then p pending ones.
        scores: (n,), standardised, higher is better.
        noise: over signal.
    """

    def __init__(self, apart: np.ndarray, scores: np.ndarray, noise: float) -> None:
        n = self._n = len(scores)
        covariance = kernel(apart)
        covariance[np.diag_indices_from(covariance)] += noise
        # The factor of the first n is the corner of the factor of all.
        self._inverse = np.linalg.inv(np.linalg.cholesky(covariance))
        corner = self._inverse[:n, :n]
        self._alpha = corner.T @ (corner @ scores)
        self.variance = (float(scores @ self._alpha) + _BEFORE) / (n + _BEFORE)

    def __call__(self, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation (m,) of candidates by their distances (m, n + p).

        The deviation is that of the score without its noise.
        """
        between = kernel(apart)
        mean = between[:, : self._n] @ self._alpha
        explained = np.square(between @ self._inverse.T).sum(axis=1)
        return mean, np.sqrt(self.variance * np.maximum(1.0 - explained, 1e-12))


def likelihood(
    apart: np.ndarray, scores: np.ndarray, weights: Weights
) -> tuple[float, np.ndarray, float]:
    """Return the log marginal likelihood, and its slope in the logarithms of weights and noise.

    Args:
        apart: (n, n, G).
        scores: (n,), standardised.
    """
    n = len(scores)
    covariance = kernel(apart @ weights.groups)
    noisy = covariance + weights.noise * np.eye(n)
    factor = np.linalg.cholesky(noisy)
    inverse = np.linalg.inv(factor)
    precision = inverse.T @ inverse
    alpha = precision @ scores
    variance = (float(scores @ alpha) + _BEFORE) / (n + _BEFORE)
    value = -0.5 * (n + _BEFORE) * np.log(variance) - float(np.log(np.diag(factor)).sum())
    pull = np.outer(alpha, alpha) / variance - precision
    by_group = (pull * covariance).reshape(-1) @ apart.reshape(n * n, -1)
    slopes = -0.5 * weights.groups * by_group
    return float(value), slopes, 0.5 * weights.noise * float(np.trace(pull))


def learn(apart: np.ndarray, scores: np.ndarray, *, seconds: float) -> Weights:
    """Return the weights and the noise of the highest likelihood found, times their prior.

    Sixty steps of Adam in the logarithms, from the prior's mean.

    Args:
        apart: (n, n, G), of n finished candidates.
        scores: (n,), standardised.
        seconds: processor time of this thread after which no further step is begun.
    """
    until = time.thread_time() + seconds
    start = _start(apart)
    at, best, found = start.copy(), -np.inf, start
    first, second = np.zeros_like(at), np.zeros_like(at)
    spread = np.full(len(at), _SPREAD_WEIGHTS)
    spread[-1] = _SPREAD_NOISE
    for step in range(1, STEPS + 1):
        weights = Weights(np.exp(at[:-1]), float(np.exp(at[-1])))
        value, slopes, slope = likelihood(apart, scores, weights)
        off = (at - start) / spread
        value -= 0.5 * float(off @ off)
        if value > best:
            best, found = value, at.copy()
        if time.thread_time() > until:
            break
        rise = np.append(slopes, slope) - off / spread
        first = 0.9 * first + 0.1 * rise
        second = 0.99 * second + 0.01 * rise**2
        stride = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-9)
        at = at + _RATE * stride
        at[-1] = np.clip(at[-1], np.log(LEAST_NOISE), np.log(MOST_NOISE))
    groups = np.round(np.exp(found[:-1]) * 2.0**20) / 2.0**20
    return Weights(np.minimum(groups, _MOST_WEIGHT), float(np.exp(found[-1])))


def _start(apart: np.ndarray) -> np.ndarray:
    """Return the logarithms at which learning starts: every group that varies has a like say."""
    n = len(apart)
    mean = apart.sum(axis=(0, 1)) / max(1, n * (n - 1))
    varies = max(1, int((mean > 0).sum()))
    weights = _TOTAL / (varies * np.where(mean > 0, mean, 1.0))
    found: np.ndarray = np.log(np.append(weights, _NOISE))
    return found


def standardised(values: np.ndarray) -> np.ndarray:
    """Return scores (n,) with mean 0 and deviation 1, the worst drawn up to a fence.

    The fence lies three times as far below the median as the best above it: what diverged is no
    worse than bad, and the differences among good candidates keep their say. Where nothing is
    better than the median, only what lies below it is told from the rest.
    """
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return np.zeros(len(values))
    # A value that was told, so that it does not move with how bad the worst are.
    median = max(float(np.sort(values)[len(values) // 2]), float(finite.min()))
    reach = float(finite.max()) - median
    drawn = np.clip(values, median - 3.0 * reach, median + reach)
    if reach <= 0.0:
        drawn = (values >= median).astype(float)
    deviation = float(drawn.std())
    centred: np.ndarray = drawn - drawn.mean()
    return centred / deviation if deviation > 0 else np.zeros(len(values))
