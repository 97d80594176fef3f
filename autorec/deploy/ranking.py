"""Ranks items for users: every user and item is encoded once, pairs are combined as numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autorec.data.encoder import Encoded, Encoder
from autorec.data.entities import CONTEXT, ITEM, USER, Entities, Side, is_frame
from autorec.errors import ConfigError, DataError, RankerError
from autorec.schema import Layout

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

# Pairs that are encoded at a time: 200,000 of 40 fields are 32 MB of codes.
PAIRS = 200_000
_USERS = 8_192


class Pairs:
    """Encoded pairs out of encoded users and encoded items.

    Args:
        layout: of both.
        users, items: (U,) and (I,) rows; a column that the item decides is read from `items`.
        of_item: names of the raw columns that the item decides.
    """

    def __init__(self, layout: Layout, users: Encoded, items: Encoded, of_item: set[str]) -> None:
        sparse = [field.source in of_item for field in layout.sparse]
        self.codes = np.flatnonzero(sparse)
        self.dense = np.flatnonzero([field.name in of_item for field in layout.dense])
        self.lists = {field.name: field.name in of_item for field in layout.lists}
        self.users = users
        self.items = Encoded(
            np.ascontiguousarray(items.codes[:, self.codes]),
            {name: items.lists[name] for name, own in self.lists.items() if own},
            np.ascontiguousarray(items.dense[:, self.dense]),
        )

    def take(self, user: Rows, item: Rows) -> Encoded:
        """Return the pairs (user[i], item[i]) of (P,) positions each."""
        codes, dense = self.users.codes[user], self.users.dense[user]
        codes[:, self.codes] = self.items.codes[item]
        dense[:, self.dense] = self.items.dense[item]
        lists = {
            name: self.items.lists[name][item] if own else self.users.lists[name][user]
            for name, own in self.lists.items()
        }
        return Encoded(codes, lists, dense)


@dataclass(frozen=True)
class Choice:
    """The items to choose from: a pool, and for each user the positions in it (None: all)."""

    pool: Side
    each: list[Rows] | None = None

    def of(self, user: int) -> Rows:
        """Return the positions in the pool that the user at a position may get."""
        return np.arange(len(self.pool)) if self.each is None else self.each[user]


class Ranking:
    """Ranks the items of a catalogue for users.

    Args:
        entities: users, items and usual values.
        encoder: of the model.
        predict: (P,) scores of P encoded rows.
        pairs: rows scored at a time.
    """

    def __init__(
        self,
        entities: Entities,
        encoder: Encoder,
        predict: Callable[[Encoded], Scores],
        pairs: int = PAIRS,
    ) -> None:
        self.entities = entities
        self.encoder = encoder
        self.predict = predict
        self.pairs = pairs
        self._catalogue: tuple[Side, Encoded] | None = None

    def catalogue(self) -> tuple[Side, Encoded]:
        """Return all items and their encoded rows, made once."""
        if self._catalogue is None:
            pool = self.entities.all(ITEM)
            self._catalogue = (pool, self.encoder.plain(pool.table))
        return self._catalogue

    def __call__(
        self,
        users: Any = None,
        candidates: Any = None,
        *,
        k: int = 10,
        filter_seen: bool = True,
        context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the best `k` items of each user (see `Ranker.rank`)."""
        _check(self.entities, k, context)
        if users is None and isinstance(candidates, Mapping):
            users = list(candidates)
        entities = self.entities
        asked = (
            entities.all(USER, context) if users is None else entities.some(USER, users, context)
        )
        if candidates is None:
            pool, items = self.catalogue()
            choice = Choice(pool)
        else:
            choice = _choice(entities, asked, candidates)
            items = self.encoder.plain(choice.pool.table)
        allowed = _allowed(entities, asked, choice, filter_seen)
        best = [*self._best(asked, choice, items, allowed, k)]
        user, item, score, place = _joined(best)
        return entities.frame(
            {
                "user_id": asked.ids.take(user),
                "item_id": choice.pool.ids.take(item),
                "score": score,
                "rank": place,
            }
        )

    def _best(
        self, asked: Side, choice: Choice, items: Encoded, allowed: Callable[[int], Rows], k: int
    ) -> Iterator[tuple[Rows, Rows, Scores, Rows]]:
        """Yield per user: the user's position (repeated), pool positions, scores and ranks."""
        of_item = {*self.entities.columns(ITEM), *choice.pool.given}
        for start in range(0, len(asked), _USERS):
            block = self.encoder.plain(asked.table.slice(start, _USERS))
            both = Pairs(self.encoder.base, block, items, of_item)
            for group in _groups(range(start, start + len(block.codes)), allowed, self.pairs):
                sizes = [len(positions) for _, positions in group]
                user = np.repeat([u for u, _ in group], sizes)
                item = np.concatenate([positions for _, positions in group])
                scores = np.split(self._scores(both, user - start, item), np.cumsum(sizes)[:-1])
                for (u, positions), part in zip(group, scores, strict=True):
                    best = top(part, k)
                    ranks = np.arange(1, len(best) + 1)
                    yield np.full(len(best), u), positions[best], part[best], ranks

    def _scores(self, both: Pairs, user: Rows, item: Rows) -> Scores:
        parts = (
            both.take(user[at : at + self.pairs], item[at : at + self.pairs])
            for at in range(0, len(user), self.pairs)
        )
        scores = [self.predict(self.encoder.derive(part)) for part in parts]
        return np.concatenate(scores) if scores else np.zeros(0)


def top(scores: Scores, k: int) -> Rows:
    """Return the positions of the `k` largest of (N,) scores, largest first, then in order."""
    best = np.arange(len(scores))
    if k < len(scores):
        least = scores[np.argpartition(-scores, k - 1)[k - 1]]
        best = np.flatnonzero(scores >= least)
    ranked: Rows = best[np.argsort(-scores[best], kind="stable")][:k]
    return ranked


def _check(entities: Entities, k: int, context: Mapping[str, Any] | None) -> None:
    if entities.schema.item is None:
        raise RankerError(
            "ranking needs an item column, but the training log had none; name it with item_id= "
            "when fitting, or score the rows of a table of your own with predict"
        )
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ConfigError(f"k, the items per user, must be a whole number from 1, but got {k!r}")
    ids = (entities.schema.user, entities.schema.item)
    wanted = [n for n in entities.columns(CONTEXT) + entities.columns(USER) if n not in ids]
    unknown = sorted(set(context or {}) - set(wanted))
    if unknown:
        raise ConfigError(
            f"context gives columns of the request or the user, {wanted}, but got {unknown}; "
            "columns of items come with a table of candidates"
        )


def _choice(entities: Entities, asked: Side, candidates: Any) -> Choice:
    if not isinstance(candidates, Mapping):
        pool, position = _distinct(entities, candidates)
        kept = np.unique(position)
        return Choice(pool, None if len(kept) == len(position) else [kept] * len(asked))
    named = entities.ids(USER, list(candidates))
    at = entities.match(named, asked.ids)
    if (at < 0).any():
        missing = asked.ids.take(np.flatnonzero(at < 0)[:5]).to_pylist()
        raise DataError(
            f"candidates as a mapping must name every ranked user, but have none for {missing}; "
            "add them, or rank fewer users"
        )
    lists = [list(items) for items in candidates.values()]
    pool, position = _distinct(entities, [item for items in lists for item in items])
    ends = np.cumsum([len(items) for items in lists])
    each = [_in_order(part) for part in np.split(position, ends[:-1])]
    return Choice(pool, [each[i] for i in at])


def _distinct(entities: Entities, candidates: Any) -> tuple[Side, Rows]:
    """Return the candidates as a side, and for each the position of its first occurrence."""
    pool = entities.some(ITEM, candidates)
    unknown = int((pool.rows < 0).sum())
    if unknown and not is_frame(candidates):
        warnings.warn(
            f"{unknown} of {len(pool)} candidates are not in the training log and are scored as "
            "unknown items with usual values; give a table with their columns for better scores",
            UserWarning,
            stacklevel=5,
        )
    position = entities.match(pool.ids, pool.ids)
    nameless = position < 0  # items without an id are items of their own
    return pool, np.where(nameless, np.arange(len(pool)), position)


def _in_order(position: Rows) -> Rows:
    """Return distinct positions in the order of their first occurrence."""
    _, first = np.unique(position, return_index=True)
    return position[np.sort(first)]


def _allowed(
    entities: Entities, asked: Side, choice: Choice, filter_seen: bool
) -> Callable[[int], Rows]:
    """Return a function from a user's position to the pool positions left for the user."""
    place = np.full(entities.size(ITEM), -1)
    known = choice.pool.rows >= 0
    place[choice.pool.rows[known]] = np.flatnonzero(known)

    def allowed(user: int) -> Rows:
        items = choice.of(user)
        if not filter_seen or asked.rows[user] < 0:
            return items
        seen = place[entities.seen(int(asked.rows[user]))]
        left = np.ones(len(choice.pool), bool)
        left[seen[seen >= 0]] = False
        return items[left[items]]

    return allowed


def _groups(
    users: range, allowed: Callable[[int], Rows], pairs: int
) -> Iterator[list[tuple[int, Rows]]]:
    """Yield users with their items, as many at a time as make up about `pairs` pairs."""
    group: list[tuple[int, Rows]] = []
    size = 0
    for user in users:
        items = allowed(user)
        if group and size + len(items) > pairs:
            yield group
            group, size = [], 0
        group.append((user, items))
        size += len(items)
    if group:
        yield group


def _joined(
    parts: list[tuple[Rows, Rows, Scores, Rows]],
) -> tuple[Rows, Rows, Scores, Rows]:
    none = np.zeros(0, np.int64)
    user, item, score, place = zip((none, none, np.zeros(0), none), *parts, strict=True)
    return (
        np.concatenate(user),
        np.concatenate(item),
        np.concatenate(score),
        np.concatenate(place),
    )
