"""Statistics that count on while a ranker serves: what an update moves, and what it must not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from autorec.architecture import Architecture, Node
from autorec.candidate import Candidate, Features, Recipe
from autorec.data.columns import Columns
from autorec.data.derivation import Derivation
from autorec.data.events import ROWS
from autorec.data.features.counts import Counts
from autorec.data.features.cross_ids import CrossIds
from autorec.data.features.rates import Rates
from autorec.data.state import Limits, LiveState
from autorec.deploy.manifest import MANIFEST, seal
from autorec.deploy.ranker import Ranker
from autorec.errors import ConfigError, DataError, RankerError
from autorec.job import Fidelity, Job
from autorec.train.fit import TrainingData, fit

COUNTS = (Counts(("user", "item"), "leave-one-out"), Counts(("item",), "leave-one-out"))
ALL = (*COUNTS, CrossIds(("user", "hour")), Rates(("user", "item"), "out-of-fold"))
READS = Features("both", counts=2, rates=1, ids=1)
FAKE = Candidate("popularity", Recipe({"prior_strength": 5.0}), READS)
MLP = Candidate(
    "neural",
    Recipe({"lr": 1e-2, "batch_size": 512, "embedding_l2": 1e-4}),
    READS,
    architecture=Architecture(
        (
            Node(
                "mlp",
                ("dense", "sparse"),
                (("width", 16), ("layers", 1), ("dropout", 0.0), ("norm", "none")),
            ),
        ),
        4,
        True,
    ),
)


class Sum:
    """A model that adds the numbers of some columns, so that a score shows a statistic."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def predict(self, columns: Columns) -> np.ndarray:
        names = [field.name for field in columns.layout.dense]
        return sum(columns.dense[:, names.index(name)].astype(np.float64) for name in self.names)

    def save(self, folder: Path) -> None:
        (folder / "sum.json").write_text(json.dumps(self.names))


def columns_of(parts: Any, log: pa.Table) -> Columns:
    """Return the plain columns of a log with labels."""
    label = parts.task.label_map.apply(log["click"].combine_chunks())
    return Columns.of(parts.encoder.base, parts.encoder.plain(log), label=label)


@pytest.fixture(scope="module")
def build(parts: Any) -> Callable[..., Ranker]:
    """Return a function from a model and transforms to a ranker that reads them."""

    def made(model: Any, transforms: Any = ALL, candidate: Any = FAKE, rows: int = 3000) -> Ranker:
        train = columns_of(parts, parts.log.slice(0, rows))
        derivation, values = Derivation.fit(transforms, train)
        extended = replace(parts, encoder=parts.encoder.extended(derivation))
        if not callable(model):
            return extended.ranker(model, candidate)
        wide = derivation.append(train.layout, train_values(train))
        wide = replace(wide, codes=np.concatenate([train.codes, values.codes], 1))
        wide = replace(wide, dense=np.concatenate([train.dense, values.dense], 1))
        full = Columns.of(extended.encoder.layout, wide, label=train.label)
        return extended.ranker(model(full, parts.task), candidate)

    return made


def train_values(columns: Columns) -> Any:
    from autorec.data.encoder import Encoded

    return Encoded(columns.codes, columns.lists, columns.dense)


def trained(full: Columns, task: Any) -> Any:
    """Return a small network, trained for a moment."""
    data = TrainingData(full, full.take(slice(2000, None)), full.layout, task, "item")
    job = Job(0, MLP, 3, time.time() + 60, Fidelity(rows=3000))
    return fit(job, data, lambda rows, value: True).model


@pytest.fixture(scope="module")
def neural(build: Any, tmp_path_factory: Any) -> Path:
    """A saved ranker with a network that reads all kinds of derived columns."""
    return build(trained, candidate=MLP).save(tmp_path_factory.mktemp("live") / "ranker")


def test_before_the_first_update_nothing_is_made_and_no_bit_changes(
    build: Any, parts: Any, neural: Path
) -> None:
    plain, live = Ranker.load(neural), Ranker.load(neural, live=True)
    assert plain.live is None and live.live is not None
    assert plain.statistics == ("user*item.count", "item.count", "user*item.rate")
    assert live.score(parts.log).tobytes() == plain.score(parts.log).tobytes()
    pd.testing.assert_frame_equal(live.rank(k=5), plain.rank(k=5))
    assert plain.live is None
    assert plain.update(parts.log.slice(0, 0)) == 0
    assert plain.score(parts.log).tobytes() == live.score(parts.log).tobytes()


def test_an_update_moves_the_pair_and_no_pair_without_its_keys(build: Any, parts: Any) -> None:
    ranker = build(Sum("user*item.count", "item.count"), COUNTS)
    rows = parts.log.slice(0, 400).to_pylist()
    before, event = ranker.score(rows), rows[0]
    assert ranker.update([event] * 3) == 3
    after = ranker.score(rows)
    same = np.array([(r["user"], r["item"]) == (event["user"], event["item"]) for r in rows])
    item = np.array([r["item"] == event["item"] for r in rows])
    user = np.array([r["user"] == event["user"] for r in rows])
    assert same.any() and (item & ~same).any() and (user & ~same).any()
    assert (after[same] > before[same]).all()
    assert (after[item] > before[item]).all()
    assert (after[~item] == before[~item]).all()
    pairs = ranker.rank(event["user"], k=40, filter_seen=False).set_index("item_id").score
    assert pairs[event["item"]] == pytest.approx(after[same][0])


def test_labels_move_rates_up_and_down_and_are_smoothed_as_in_training(
    build: Any, parts: Any
) -> None:
    ranker = build(Sum("user*item.rate"), ALL[3:])
    log = columns_of(parts, parts.log)
    row = parts.log.slice(5, 1)
    for label, sign in ((1, 1), (0, -1)):
        before = ranker.score(row)[0]
        event = {**row.to_pylist()[0], "click": label}
        assert ranker.update([event] * 5) == 5
        assert (ranker.score(row)[0] - before) * sign > 0
    user, item = parts.encoder.plain(row).codes[0, :2]
    users, items = log.codes[:, 0] == user, log.codes[:, 1] == item

    def shrunk(mask: np.ndarray, parent: float) -> float:
        return (float(log.label[mask].sum()) + 5 + 10.0 * parent) / (mask.sum() + 10 + 10.0)

    whole = (float(log.label.sum()) + 5) / (len(log) + 10)
    want = shrunk(users & items, (shrunk(users, whole) + shrunk(items, whole)) / 2)
    numeric = ranker.encoder.derivation.numeric[0]
    got = ranker.score(row)[0] * numeric.std + numeric.mean
    assert got == pytest.approx(want, rel=1e-6)


def test_later_rows_give_what_a_fit_on_both_days_gives(build: Any, parts: Any) -> None:
    ranker = build(Sum("user*item.count"), rows=1000)
    old = ranker.encoder.derivation
    for start, stop in ((1000, 1700), (1700, 2950), (2950, 3000)):
        assert ranker.update(parts.log.slice(start, stop - start)) == stop - start
    both, _ = Derivation.fit(ALL, columns_of(parts, parts.log))
    still = [new if new.moves else one for one, new in zip(old.transforms, both.transforms)]
    want = Derivation(still, old.numeric).append(parts.encoder.base, parts.encoder.plain(parts.log))
    got = ranker.encoder.encode(parts.log)
    np.testing.assert_array_equal(got.dense, want.dense)
    binned = [i for i, f in enumerate(ranker.layout.sparse) if f.form in ("count", "rate")]
    assert len(binned) == 3
    np.testing.assert_array_equal(got.codes[:, binned], want.codes[:, binned])
    ids = [i for i, f in enumerate(ranker.layout.sparse) if f.form == "id"]
    fitted = old.append(parts.encoder.base, parts.encoder.plain(parts.log))
    np.testing.assert_array_equal(got.codes[:, ids], fitted.codes[:, ids])
    assert (got.dense != fitted.dense).any()


def test_a_label_may_come_later(neural: Path, parts: Any) -> None:
    log, events = parts.log, parts.log.slice(100, 300)
    one, two, three = (Ranker.load(neural) for _ in range(3))
    assert one.update(events) == 300
    assert two.update(events, labels=False) == 300
    assert (two.score(log) != one.score(log)).any()
    assert two.update(events, seen=False) == 300
    assert two.score(log).tobytes() == one.score(log).tobytes()
    frame = events.to_pandas()
    three.update(frame.drop(columns=["click"]))
    known = frame.assign(click=frame.click.where(np.arange(300) % 2 == 0))
    three.update(known, seen=False)
    three.update(frame[1::2], seen=False)
    assert three.score(log).tobytes() == one.score(log).tobytes()


def test_containers_and_columns_that_no_statistic_reads(neural: Path, parts: Any) -> None:
    events = parts.log.slice(0, 50)
    frame = events.to_pandas()
    few = events.select(["item", "click", "user"])
    want = None
    for data in (frame, pl.from_arrow(events), events, events.to_pylist(), few, iter([few])):
        ranker = Ranker.load(neural)
        assert ranker.update(data) == 50
        got = ranker.score(parts.log).tobytes()
        want = want or got
        assert got == want


def test_saved_and_read_it_counts_on(neural: Path, parts: Any, tmp_path: Path) -> None:
    ranker = Ranker.load(neural, live=Limits(keys=500))
    ranker.update(parts.log.slice(0, 700))
    folder = ranker.save(tmp_path / "r")
    files = json.loads((folder / MANIFEST).read_text())["files"]
    assert "live/state.json" in files
    assert not [name for name in files if name.endswith(".pkl")]
    again = Ranker.load(folder)
    assert again.live.limits == Limits(keys=500)
    assert again.score(parts.log).tobytes() == ranker.score(parts.log).tobytes()
    pd.testing.assert_frame_equal(again.rank(k=3), ranker.rank(k=3))
    for one in (again, ranker):
        one.update(parts.log.slice(700, 300))
    assert again.score(parts.log).tobytes() == ranker.score(parts.log).tobytes()
    assert (Ranker.load(neural).score(parts.log) != again.score(parts.log)).any()
    with pytest.raises(ConfigError, match=r"keeps its limits, .*keys=500.*but got .*keys=7"):
        Ranker.load(folder, live=Limits(keys=7))
    (folder / "live" / "state.json").write_text("{}")
    with pytest.raises(RankerError, match=r"state.json was altered"):
        Ranker.load(folder)


def test_a_folder_from_before_live_states_is_read(neural: Path, parts: Any, tmp_path: Path) -> None:
    ranker = Ranker.load(neural)
    folder = ranker.save(tmp_path / "r")
    assert not (folder / "live").exists()
    facts = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).unlink()
    seal(folder, {n: facts[n] for n in facts if n not in ("live", "files", "digest", "format")})
    old = Ranker.load(folder)
    assert old.live is None
    assert old.score(parts.log).tobytes() == ranker.score(parts.log).tobytes()


def test_a_state_of_other_statistics_is_refused(build: Any) -> None:
    derivation = build(Sum()).encoder.derivation
    with pytest.raises(RankerError, match=r"must count what the model reads, \['user\*item.count'"):
        derivation.counting_on(LiveState.of(derivation.moving[:2]))


def test_a_model_without_statistics_takes_no_events(parts: Any, build: Any, mixed: Ranker) -> None:
    assert mixed.statistics == () and mixed.update(parts.log) == 0
    assert not mixed.go_live() and mixed.live is None
    ids = build(Sum("age"), (CrossIds(("user", "hour")),))
    assert ids.statistics == () and ids.update(parts.log) == 0 and ids.live is None


def test_bad_events_are_refused_whole(neural: Path, parts: Any) -> None:
    ranker = Ranker.load(neural)
    frame = parts.log.slice(0, 20).to_pandas()
    before = ranker.score(parts.log).tobytes()
    odd = frame.assign(click=[*frame.click[:19], 7])
    for data, message in (
        (frame.drop(columns=["item", "user"]), r"\['user', 'item'\] are missing"),
        (odd, "a label must be 0 or 1, but 7 is in 1 of 20 rows"),
        (frame.assign(item="none"), "column 'item'"),
        (pd.concat([odd] * (1 + ROWS // 20))[::-1], "a label must be 0 or 1"),
        (7, "data must be"),
    ):
        with pytest.raises(DataError, match=message):
            ranker.update(data)
    with pytest.raises(DataError, match=r"and the label, but \['click'\] are missing"):
        ranker.update(frame.drop(columns=["click"]), seen=False)
    with pytest.raises(ConfigError, match="both are False"):
        ranker.update(frame, seen=False, labels=False)
    assert ranker.live is None
    assert ranker.score(parts.log).tobytes() == before
    ranker.update(frame)
    after = ranker.score(parts.log).tobytes()
    with pytest.raises(DataError, match="7 is in 1"):
        ranker.update(odd)
    assert ranker.score(parts.log).tobytes() == after != before


def test_values_that_training_did_not_see_count_for_nobody(build: Any, parts: Any) -> None:
    ranker = build(Sum("user*item.count", "item.count"), COUNTS)
    before = ranker.score(parts.log)
    strange = parts.log.slice(0, 30).to_pandas().assign(user="nobody", item=10**9)
    assert ranker.update(strange) == 30
    assert ranker.score(parts.log).tobytes() == before.tobytes()


def test_rankers_that_share_an_encoder_count_for_themselves(build: Any, parts: Any) -> None:
    one = build(Sum("item.count"), COUNTS)
    two = replace(one, model=Sum("item.count"))
    before = two.score(parts.log)
    one.update(parts.log)
    assert two.live is None
    assert two.score(parts.log).tobytes() == before.tobytes()
    assert (one.score(parts.log) != before).any()


def test_threads_score_while_one_updates(build: Any, parts: Any) -> None:
    ranker = build(Sum("user*item.count", "item.count"), COUNTS)
    row = parts.log.slice(3, 1).to_pylist()
    other = [r for r in parts.log.slice(0, 500).to_pylist() if r["item"] != row[0]["item"]]
    user, steps = row[0]["user"], 40
    mirror = build(Sum("user*item.count", "item.count"), COUNTS)
    allowed = {float(mirror.score(row)[0])}
    for _ in range(steps):
        mirror.update(row * 4)
        allowed.add(float(mirror.score(row)[0]))
    faults: list[Any] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                score = float(ranker.score(row)[0])
                ranked = ranker.rank(user, k=40, filter_seen=False).set_index("item_id").score
                told = {score, float(ranked[row[0]["item"]])}
            except Exception as error:
                told = {error}
            if not told <= allowed:
                faults.append(told - allowed)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(steps):
        ranker.update(row * 4)
        ranker.update(other[:50])
    done.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert ranker.score(row)[0] == mirror.score(row)[0]


def test_writers_wait_for_one_another_and_make_one_state(build: Any, parts: Any) -> None:
    ranker = build(Sum("item.count"), COUNTS)
    pieces = [parts.log.slice(start, 500) for start in range(0, 3000, 500)]
    threads = [threading.Thread(target=ranker.update, args=(piece,)) for piece in pieces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = build(Sum("item.count"), COUNTS)
    whole.update(parts.log)
    assert ranker.score(parts.log).tobytes() == whole.score(parts.log).tobytes()


def test_columns_that_the_model_does_not_read_are_not_made(build: Any, parts: Any) -> None:
    whole = build(Sum("item.count"))
    some = replace(FAKE, features=Features("bins", counts=1))
    one = replace(whole, candidate=some, model=Sum("user*item.count"))
    assert one.statistics == ("user*item.count",)
    full, part = whole.encoder.encode(parts.log), one.encoder.encode(parts.log)
    assert one.layout == whole.layout
    for codes, fields in ((True, one.layout.sparse), (False, one.layout.dense)):
        for at, field in enumerate(fields):
            got, want = ((e.codes if codes else e.dense)[:, at] for e in (part, full))
            read = not field.form or field.name.startswith("user*item.count")
            np.testing.assert_array_equal(got, want if read else np.zeros_like(want))
    assert one.update(parts.log.slice(0, 100)) == 100 and whole.live is None
    assert one.live.layout.dense[0].name == "user*item.count" and len(one.live.layout.dense) == 1
    again = replace(one, metrics={})
    assert again.live is one.live  # the same statistics
    back = replace(one, candidate=FAKE, model=Sum("item.count"))
    assert back.live is None and back.statistics == whole.statistics
    assert back.score(parts.log).tobytes() == whole.score(parts.log).tobytes()


def test_memory_stays_within_the_limits(build: Any, parts: Any) -> None:
    ranker = build(Sum("user*item.count"), COUNTS)
    assert ranker.go_live(Limits(keys=10)) and ranker.go_live()
    with pytest.raises(ConfigError, match="keeps its limits"):
        ranker.go_live(Limits(keys=11))
    for _ in range(3):
        ranker.update(parts.log)
    assert (ranker.live._statistics.cells._kept <= 10).all()
    assert np.isfinite(ranker.score(parts.log)).all()
