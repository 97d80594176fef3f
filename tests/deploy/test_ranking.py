"""Ranking equals a double loop over scoring, whatever is known of users and items."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autorec.deploy.ranking import top
from autorec.errors import ConfigError, DataError, RankerError


def facts(log: pa.Table, key: str, columns: list[str]) -> dict[Any, dict[str, Any]]:
    """Return the columns of each user (or item), from its last row."""
    return {row[key]: {name: row[name] for name in columns} for row in log.to_pylist()}


def naive(ranker: Any, log: pa.Table, users: Any, *, k: int, seen: bool, **more: Any) -> list[Any]:
    """Rank with a loop over users and items, each pair a dict that `score` reads."""
    of_user = facts(log, "user", ["age", "country"])
    of_item = facts(log, "item", ["price", "genres"])
    counts = pd.Series(log["item"].to_pandas()).value_counts()
    first = {item: i for i, item in reversed(list(enumerate(log["item"].to_pylist())))}
    order = sorted(of_item, key=lambda item: (-counts[item], first[item]))
    clicks = {(r["user"], r["item"]) for r in log.to_pylist() if r["click"] == 1}
    usual = {**ranker.context, **more}
    out = []
    for user in users:
        items = [i for i in order if not (seen and (user, i) in clicks)]
        rows = [{**usual, **of_user[user], **of_item[i], "user": user, "item": i} for i in items]
        scores = ranker.score(rows)
        best = sorted(range(len(items)), key=lambda i: (-scores[i], i))[:k]
        out += [(user, items[i], scores[i], place + 1) for place, i in enumerate(best)]
    return out


def rows_of(frame: pd.DataFrame) -> list[Any]:
    assert list(frame.columns) == ["user_id", "item_id", "score", "rank"]
    return list(frame.itertuples(index=False, name=None))


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("k", [1, 7, 1000])
def test_rank_equals_a_double_loop(parts: Any, mixed: Any, k: int, seen: bool) -> None:
    users = ["u3", "u11", "u0"]
    got = mixed.rank(users, k=k, filter_seen=seen)
    assert rows_of(got) == naive(mixed, parts.log, users, k=k, seen=seen)


def test_all_users_in_chunks_of_any_size(parts: Any, mixed: Any) -> None:
    whole = mixed.rank(k=3)
    assert sorted(set(whole.user_id)) == sorted(set(parts.log["user"].to_pylist()))
    small = parts.ranker(mixed.model)
    small._ranking.pairs = 17
    small.model.rows.clear()
    pd.testing.assert_frame_equal(small.rank(k=3), whole)
    assert max(small.model.rows) <= 64


def test_contextis_given_for_all_or_per_user(parts: Any, mixed: Any) -> None:
    later = mixed.rank("u2", k=4, context={"hour": 3, "wait": 9.0})
    assert rows_of(later) == naive(mixed, parts.log, ["u2"], k=4, seen=True, hour=3, wait=9.0)
    frame = pd.DataFrame({"user": ["u2", "u2"], "hour": [3, 5], "wait": [9.0, 0.1]})
    both = rows_of(mixed.rank(frame, k=4))
    assert both[:4] == rows_of(later)
    assert both[4:] == naive(mixed, parts.log, ["u2"], k=4, seen=True, hour=5, wait=0.1)
    assert both[4:] == rows_of(mixed.rank(frame[1:], k=4, context={"hour": 3}))


def test_contextis_the_usual_value(parts: Any, mixed: Any) -> None:
    hours = parts.log["hour"].to_pandas()
    waits = np.sort(parts.log["wait"].to_numpy())
    assert mixed.context == {
        "hour": hours.value_counts().index[0],
        "wait": waits[(len(waits) - 1) // 2],
    }


def test_nulls_and_dicts_among_users(mixed: Any) -> None:
    nulls = mixed.rank([None, float("nan")], k=3)
    assert nulls.user_id.isna().all()
    assert nulls.score[:3].tolist() == nulls.score[3:].tolist()
    with pytest.raises(ConfigError, match=r"users are ids or a table.*dict of \['user', 'hour'\]"):
        mixed.rank({"user": "u1", "hour": 3})
    one = mixed.rank([{"user": "u1", "hour": 3}], k=3)
    assert rows_of(one) == rows_of(mixed.rank("u1", k=3, context={"hour": 3}))


def test_an_unknown_user_is_ranked_by_columns(parts: Any, mixed: Any) -> None:
    got = mixed.rank(["nobody", None], k=5)
    assert len(got) == 10
    assert got.item_id[:5].tolist() != got.item_id[5:].tolist()  # null and unknown differ
    asked = pl.DataFrame({"user": ["nobody"], "age": [61.0], "country": ["it"]})
    told = rows_of(mixed.rank(asked, k=40))
    assert rows_of(mixed.rank(asked.lazy(), k=40)) == told
    of_item = facts(parts.log, "item", ["price", "genres"])
    for user, item, score, _ in told:
        row = {"user": user, "item": item, "age": 61.0, "country": "it"}
        assert mixed.score([{**mixed.context, **row, **of_item[item]}])[0] == score
    assert len(told) == 40


def test_candidates_are_ids(parts: Any, mixed: Any) -> None:
    full = mixed.rank("u5", k=40, filter_seen=False)
    few = mixed.rank("u5", candidates=np.array([7, 3, 7, 9]), k=10, filter_seen=False)
    kept = full[full.item_id.isin([3, 7, 9])]
    assert few.item_id.tolist() == kept.item_id.tolist()
    assert few.score.tolist() == kept.score.tolist()
    assert few["rank"].tolist() == [1, 2, 3]
    clicked = {r["item"] for r in parts.log.to_pylist() if (r["user"], r["click"]) == ("u5", 1)}
    left = mixed.rank("u5", candidates=[*range(40)], k=40)
    assert set(left.item_id) == set(range(40)) - clicked
    assert clicked
    assert mixed.rank("u5", candidates=[]).empty


def test_candidates_are_a_mapping(mixed: Any) -> None:
    lists = {"u1": [4, 2, 4], "u9": [2, 30], "u7": []}
    got = mixed.rank(candidates=lists, filter_seen=False)
    for user, items in lists.items():
        alone = mixed.rank(user, candidates=items, filter_seen=False)
        assert rows_of(got[got.user_id == user]) == rows_of(alone)
    assert len(got) == 4
    with pytest.raises(DataError, match=r"must name every ranked user.*\['u3'\]"):
        mixed.rank(["u1", "u3"], candidates=lists)


def test_new_items_come_with_their_columns(parts: Any, mixed: Any) -> None:
    frame = pd.DataFrame(
        {"item": [900, 5, 901], "price": [1.0, 2.0, 3.0], "hour": [1, 2, 3], "age": [0.0, 0.0, 0.0]}
    )
    frame["genres"] = [["a"], [], ["d", "b"]]
    got = mixed.rank("u5", candidates=frame, filter_seen=False)
    of_user = facts(parts.log, "user", ["age", "country"])["u5"]
    want = {}
    for row in frame.to_dict("records"):  # hour is the item's here, age stays the user's
        pair = {**mixed.context, **row, **of_user, "user": "u5"}
        want[row["item"]] = mixed.score([pair])[0]
    assert dict(zip(got.item_id, got.score, strict=True)) == want


def test_unknown_bare_items_are_warned_about(mixed: Any) -> None:
    with pytest.warns(UserWarning, match="2 of 3 candidates are not in the training log"):
        got = mixed.rank("u5", candidates=[900, 901, 5], filter_seen=False)
    same = got[got.item_id >= 900]
    assert same.score.nunique() == 1
    assert same.item_id.tolist() == [900, 901]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixed.rank("u5", candidates=pa.table({"item": [900, 901]}))


def test_ties_go_to_the_more_frequent_item(flat: Any) -> None:
    counts = flat.entities.items["#count"].to_numpy()
    assert (np.diff(counts) <= 0).all()
    got = flat.rank("u5", k=6, filter_seen=False)
    assert got.item_id.tolist() == flat.entities.items["item"].to_pylist()[:6]
    assert flat.rank("u5", candidates=[9, 1, 5], filter_seen=False).item_id.tolist() == [9, 1, 5]


def test_ids_of_another_type_are_read(mixed: Any) -> None:
    want = mixed.rank("u5", candidates=[7, 3], filter_seen=False)
    for asked in (["7", "3"], [7.0, 3.0], pd.Series([7, 3]), np.array([7, 3], np.uint8)):
        got = mixed.rank("u5", candidates=asked, filter_seen=False)
        pd.testing.assert_frame_equal(got, want)
    with pytest.raises(DataError, match="column 'item'"):
        mixed.rank("u5", candidates=["seven"])


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
def test_k_is_a_whole_number_from_one(mixed: Any, k: Any) -> None:
    with pytest.raises(ConfigError, match=f"a whole number from 1, but got {k!r}"):
        mixed.rank("u5", k=k)


def test_contextnames_columns_of_the_request(mixed: Any) -> None:
    with pytest.raises(ConfigError, match=r"but got \['hours', 'price'\]"):
        mixed.rank("u5", context={"price": 1.0, "hours": 3, "hour": 2, "age": 9.0})
    with pytest.raises(DataError, match="must have the user column 'user'"):
        mixed.rank(pd.DataFrame({"age": [1.0]}))
    with pytest.raises(DataError, match="'hour'"):
        mixed.rank("u5", context={"hour": "noon"})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), max_size=12), st.integers(1, 14))
def test_top_is_the_head_of_a_stable_sort(values: list[int], k: int) -> None:
    scores = np.array(values, np.float64)
    want = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert top(scores, k).tolist() == want


def test_a_hundred_users_and_5000_items_take_seconds(make: Any) -> None:
    ranker = make(users=100, items=5000, rows=20_000)
    ranker.rank("u0")
    started = time.perf_counter()
    got = ranker.rank(k=10)
    assert len(got) == 1000
    assert time.perf_counter() - started < 10.0


def test_a_log_without_items_is_not_ranked(make: Any) -> None:
    ranker = make(drop=("item",))
    with pytest.raises(RankerError, match="needs an item column"):
        ranker.rank("u5")
    assert ranker.entities.items is None


def test_a_log_without_users_ranks_for_a_context(make: Any) -> None:
    ranker = make(drop=("user",))
    got = ranker.rank(k=3)
    assert got["rank"].tolist() == [1, 2, 3]
    assert got.user_id.isna().all()
    hours = ranker.rank(pd.DataFrame({"hour": [1, 2]}), k=2)
    assert hours["rank"].tolist() == [1, 2, 1, 2]
    with pytest.raises(ConfigError, match="user ids mean nothing"):
        ranker.rank([1])
