"""A click log whose truth is known: demos, tests and searches are measured against its Bayes AUC.

Fields are drawn independently, and a planted interaction of order k is a product of k signs, one
per value of each field. Values come in twins of equal probability, equal main effect and opposite
sign. So whoever lacks one of the k fields, or knows it only up to its twin, faces a product that is
+1 or -1 with equal chance: no model without the full cross can see it, whatever its link function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autorec.errors import ConfigError
from autorec.seeding import numpy_rng

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

CONTEXTS: Mapping[str, int] = {"device": 4, "page": 12, "channel": 6, "region": 8}
POSITIONS = 10
START, DAYS = 1_704_067_200, 28  # 2024-01-01 UTC, four weeks
MAX_GENRES = 3


@dataclass(frozen=True)
class Simulated:
    """A simulated log and its truth.

    Attributes:
        table: columns user, item (int64), one string column per context, number_0.. (float64),
            genres (list of strings, fixed per item), position (int64), ts (timestamp,
            ascending) and click (int8).
        probability: (N,) true P(click | row).
        bayes_auc: AUC that scoring by `probability` has in expectation; no model can do better.
        planted: the fields of each planted interaction.
    """

    table: pa.Table
    probability: Array
    bayes_auc: float
    planted: tuple[tuple[str, ...], ...]


def expected_auc(probability: npt.ArrayLike) -> float:
    """Return the AUC of scoring by the true probabilities (N,), over the labels they may draw.

    That is sum p_i (1 - p_j) [p_i > p_j] / sum p_i (1 - p_j) over pairs i != j, ties counting half:
    expected pairs won over expected pairs, in O(N log N). NaN where no such pair can occur.
    """
    p = np.sort(np.asarray(probability, dtype=np.float64))
    _, starts = np.unique(p, return_index=True)
    if len(p) == 0:
        return float("nan")
    positive, negative = np.add.reduceat(p, starts), np.add.reduceat(1.0 - p, starts)
    itself = float((p * (1.0 - p)).sum())  # a row is no pair with itself
    won = float(positive @ (np.cumsum(negative) - 0.5 * negative)) - 0.5 * itself
    pairs = float(p.sum() * (1.0 - p).sum()) - itself
    return won / pairs if pairs > 0 else float("nan")


def twins(values: int) -> Codes:
    """Return the number of the pair of each value; an odd last value joins the last pair."""
    return np.minimum(np.arange(values) // 2, values // 2 - 1)


def popularity(values: int, skew: float) -> Array:
    """Return the probability of each value, most popular first: Zipf over pairs.

    Pair i shares the weight (i+1)**-skew in two halves. Where three values share a pair, the first
    keeps one half, so that `signs` still split the probability evenly.
    """
    weight = (1.0 + twins(values)) ** -skew
    if values % 2:
        weight[-2:] /= 2.0
    share: Array = weight / weight.sum()
    return share


def signs(values: int, rng: np.random.Generator) -> Array:
    """Return +1 or -1 per value, random per pair, so that either side has probability one half."""
    side: Array = np.where(np.arange(values) % 2 == 0, 1.0, -1.0)
    if values % 2:
        side[-1] = -1.0
    flip: Array = rng.choice([-1.0, 1.0], size=values // 2)[twins(values)]
    return side * flip


def effects(values: int, scale: float, rng: np.random.Generator) -> Array:
    """Return a normal effect per value, the same for twins, with standard deviation `scale`."""
    effect: Array = rng.normal(scale=scale, size=values // 2)[twins(values)]
    return effect


def _check(rows: int, cardinality: Mapping[str, int], rate: float, order: object) -> None:
    if rows < 1:
        raise ConfigError(f"rows must be at least 1, but got {rows}")
    if not 0.0 < rate < 1.0:
        raise ConfigError(f"rate must lie between 0 and 1, but got {rate}")
    for name, values in cardinality.items():
        if values < 2:
            raise ConfigError(f"a field needs at least 2 values, but {name} has {values}")
    if isinstance(order, str):
        raise ConfigError(f"order must be numbers or tuples of field names, but got {order!r}")


def _plan(
    order: int | Sequence[int | Sequence[str]], fields: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """Return the fields of each planted interaction; a number takes the least used fields."""
    asked = [order] if isinstance(order, int) else list(order)
    used = dict.fromkeys(fields, 0)
    planted: list[tuple[str, ...]] = []
    for one in asked:
        if isinstance(one, int):
            names = tuple(sorted(fields, key=lambda name: (used[name], fields.index(name)))[:one])
            wanted = one
        else:
            names, wanted = tuple(one), len(one)
        unknown = [name for name in names if name not in used]
        if unknown or wanted < 2 or len(set(names)) != wanted:
            raise ConfigError(
                f"a planted interaction must join at least 2 different fields of {list(fields)}, "
                f"but got {one!r}"
            )
        for name in names:
            used[name] += 1
        planted.append(names)
    return tuple(planted)


class _Log:
    """The columns drawn so far and the logit they add up to."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self.logit = np.zeros(rows)
        self.codes: dict[str, Codes] = {}
        self.columns: dict[str, Any] = {}

    def rng(self, *purpose: str | int) -> np.random.Generator:
        return numpy_rng(self.seed, "simulate", *purpose)

    def field(self, name: str, values: int, skew: float, main: float) -> None:
        """Draw codes (most popular first) and add a main effect per value."""
        edges = np.cumsum(popularity(values, skew))[:-1]
        uniform = self.rng("draw", name).random(self.rows)
        codes = np.searchsorted(edges, uniform, side="right").astype(np.int64)
        self.codes[name] = codes
        self.logit += effects(values, main, self.rng("main", name))[codes]

    def ids(self, name: str, values: int) -> None:
        """Write codes as integers that say nothing about popularity."""
        self.columns[name] = pa.array(self.rng("ids", name).permutation(values)[self.codes[name]])

    def words(self, name: str, values: int) -> None:
        names = self.rng("ids", name).permutation([f"{name}-{i}" for i in range(values)])
        self.columns[name] = pa.array(names.tolist()).take(pa.array(self.codes[name]))

    def interaction(self, index: int, names: tuple[str, ...], size: Mapping[str, int]) -> Array:
        product = np.ones(self.rows)
        for name in names:
            product *= signs(size[name], self.rng("planted", index, name))[self.codes[name]]
        return product

    def number(self, index: int, main: float) -> None:
        """Even columns act in proportion; odd ones as a wave, which only bins or networks see."""
        value = self.rng("number", index).normal(size=self.rows)
        self.columns[f"number_{index}"] = pa.array(value)
        self.logit += main * (np.cos(2.0 * value) if index % 2 else value)

    def genres(self, items: int, count: int, main: float) -> None:
        """Give each pair of items one to three genres, which act as the mean of their effects."""
        rng, pair = self.rng("genres"), twins(items)[self.codes["item"]]
        order = rng.random((items // 2, count)).argsort(axis=1)[:, :MAX_GENRES]
        length = rng.integers(1, order.shape[1] + 1, size=items // 2)
        kept = np.arange(order.shape[1]) < length[:, None]
        names = pa.array([f"genre-{i}" for i in range(count)])
        offsets = pa.array(np.concatenate([[0], np.cumsum(length)]).astype(np.int32))
        lists = pa.ListArray.from_arrays(offsets, names.take(pa.array(order[kept])))
        self.columns["genres"] = lists.take(pa.array(pair))
        effect = rng.normal(scale=main, size=count)[order]
        self.logit += ((effect * kept).sum(axis=1) / length)[pair]

    def position(self, bias: float) -> None:
        position = self.rng("position").integers(0, POSITIONS, size=self.rows)
        self.columns["position"] = pa.array(position)
        self.logit -= bias * np.log1p(position)

    def time(self, items: int, drift: float) -> None:
        """Spread rows over the weeks; an item's logit moves by `drift` standard normals in all."""
        second = np.sort(self.rng("time").integers(0, DAYS * 86_400, size=self.rows))
        self.columns["ts"] = pa.array(START + second, pa.timestamp("s"))
        direction = effects(items, drift, self.rng("drift"))[self.codes["item"]]
        self.logit += direction * (second / (DAYS * 86_400) - 0.5)


def _intercept(logit: Array, rate: float) -> float:
    """Return what to add to logits so that the mean probability is `rate`, to 1e-9 by bisection."""
    logit = logit[:: max(1, len(logit) // 100_000)]
    low, high = -60.0, 60.0
    while high - low > 1e-9:
        middle = 0.5 * (low + high)
        mean = np.exp(-np.logaddexp(0.0, -(logit + middle))).mean()
        low, high = (middle, high) if mean < rate else (low, middle)
    return low


def simulate(
    rows: int,
    *,
    users: int = 1000,
    items: int = 500,
    contexts: Mapping[str, int] | None = None,
    order: int | Sequence[int | Sequence[str]] = 2,
    strength: float = 1.0,
    main: float = 0.3,
    skew: float = 1.0,
    position_bias: float = 0.3,
    drift: float = 0.0,
    numeric: int = 2,
    genres: int = 8,
    rate: float = 0.2,
    seed: int = 0,
) -> Simulated:
    """Draw a click log with main effects and planted interactions of exactly known order.

    Args:
        rows: N.
        users, items: how many there are; Zipf popularity with exponent `skew` (0 is uniform).
        contexts: name and number of values of each further field, uniform; four by default.
        order: order of the planted interaction (2, 3, 4, ...), or a list of orders or tuples of
            field names, one per interaction; an empty list plants none. A number takes the fields
            used least so far, contexts first, then item and user. Interactions that share a field
            leak into each other, but only by the chance correlation of their signs.
        strength: logit that an interaction adds or takes away.
        main: standard deviation of every main effect (user, item, context, number, genres).
        position_bias: logit lost per unit of log(1 + position); positions run from 0 to 9.
        drift: by how many standard normals the logit of an item moves from first row to last.
        numeric: number of float columns; number_0, number_2, ... act linearly, others as a wave.
        genres: number of genres; 0 leaves the list column out.
        rate: mean click probability.
        seed: the same arguments and seed give the same log; each column has its own stream.

    Raises:
        ConfigError: a size, rate or interaction that cannot be drawn.
    """
    context = dict(CONTEXTS if contexts is None else contexts)
    size = {**context, "item": items, "user": users}
    _check(rows, size, rate, order)
    planted = _plan(order, list(size))
    log = _Log(rows, seed)
    for name, values in size.items():
        log.field(name, values, skew if name in ("item", "user") else 0.0, main)
    log.ids("user", users)
    log.ids("item", items)
    for name, values in context.items():
        log.words(name, values)
    for index in range(numeric):
        log.number(index, main)
    if genres:
        log.genres(items, genres, main)
    log.position(position_bias)
    log.time(items, drift)
    for index, names in enumerate(planted):
        log.logit += strength * log.interaction(index, names, size)
    probability = np.exp(-np.logaddexp(0.0, -(log.logit + _intercept(log.logit, rate))))
    click = log.rng("click").random(rows) < probability
    table = pa.table({**log.columns, "click": pa.array(click.astype(np.int8))})
    return Simulated(table, probability, expected_auc(probability), planted)
