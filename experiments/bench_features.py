"""What do counts, rates, recency and last items cost, in training and in serving?

python experiments/bench_features.py --rows 1000000 --candidates 500 --repeats 300

One core of numpy. Training: CPU seconds of fit and `train_values` of 20 statistics of pairs and
triples, out-of-fold and ordered, each kind in a process of its own for its peak memory. Serving:
one user and many candidate rows, the live state beside one `apply` per transform. Ranking: what 6
and 20 statistics add to a whole request of a ranker with a small network, with a live state and
without one.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from _results import write

from autorec.data.columns import Columns
from autorec.data.derivation import Derivation
from autorec.data.encoder import Encoder
from autorec.data.features.base import Transform
from autorec.data.features.counts import Counts
from autorec.data.features.last_items import LastItems
from autorec.data.features.rates import Rates
from autorec.data.features.recency import Recency
from autorec.data.labels import label_stats
from autorec.data.sources import open_source
from autorec.data.state import Limits, LiveState
from autorec.schema import Field, Kind, Layout, Role, Schema, SparseField

if TYPE_CHECKING:
    from autorec.candidate import Candidate
    from autorec.deploy.ranker import Ranker
    from autorec.tasks.ctr import Ctr
    from autorec.train.neural import NeuralModel

SIZES = {"user": 100_000, "item": 20_000, "cat": 200, "shop": 2_000, "device": 8, "hour": 26}
PAIRS = ("user item", "user cat", "user shop", "item device", "item hour")
TRIPLES = (
    "user cat device",
    "user shop hour",
    "item device hour",
    "user cat hour",
    "user item device",
)
CROSSES = [tuple(names.split()) for names in (*PAIRS, *TRIPLES)]


def log(rows: int, *, timed: bool) -> Columns:
    """Return a skewed click log of six fields."""
    rng = np.random.default_rng(0)
    drawn = [2 + (size - 2) * rng.random(rows) ** 2.5 for size in SIZES.values()]
    layout = Layout(tuple(SparseField(name, size, name) for name, size in SIZES.items()))
    return Columns(
        layout,
        rows,
        np.stack(drawn, 1).astype(np.int32),
        {},
        np.empty((rows, 0), np.float32),
        label=(rng.random(rows) < 0.2).astype(np.float32),
        time=np.sort(rng.integers(0, 2_592_000, rows)) + 1_700_000_000 if timed else None,
    )


def statistics() -> list[Transform]:
    """Return counts and rates of five pairs and five triples."""
    return [*(Counts(fields) for fields in CROSSES), *(Rates(fields) for fields in CROSSES)]


def histories() -> list[Transform]:
    """Return three statistics of moments."""
    return [Recency(("user",)), Recency(("item",)), LastItems("user", "item", 20)]


def peak() -> float:
    """Return the largest memory of this process so far in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def training(form: str, rows: int, answer: Any) -> None:
    """Fit 20 statistics one after the other and put costs into `answer`."""
    columns = log(rows, timed=form == "ordered")
    before = peak()
    spent = {"fit": 0.0, "train_values": 0.0}
    started = time.perf_counter()
    for made in statistics():
        for name, work in (("fit", made.fit), ("train_values", made.train_values)):
            cpu = time.process_time()
            work(columns)
            spent[name] += time.process_time() - cpu
    answer.put(
        {
            "what": f"train {form}",
            "rows": rows,
            "statistics": len(statistics()),
            "fit_cpu_s": round(spent["fit"], 2),
            "train_values_cpu_s": round(spent["train_values"], 2),
            "wall_s": round(time.perf_counter() - started, 2),
            "columns_mb": round(columns.nbytes / 2**20, 1),
            "peak_mb_before": round(before, 1),
            "peak_mb": round(peak(), 1),
        }
    )


def apart(form: str, rows: int) -> dict[str, Any]:
    """Return the costs of `training` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer: Any = context.Queue()
    process = context.Process(target=training, args=(form, rows, answer))
    process.start()
    found: dict[str, Any] = answer.get()
    process.join()
    return found


def timed(what: str, work: Callable[[], object], repeats: int, **facts: Any) -> dict[str, Any]:
    """Return microseconds of one call: the median, and the lowest, which a busy machine spares."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    low, middle = (round(float(value) * 1e6, 1) for value in (min(times), np.median(times)))
    return {"what": what, "lowest_us": low, "median_us": middle, **facts}


def request(columns: Columns, candidates: int) -> Columns:
    """Return the rows of one user and context with many items, later than all events."""
    rows = columns.take(np.arange(candidates))
    codes = rows.codes.copy()
    codes[:, 0], codes[:, 4:] = 777, 5
    time_ = np.full(candidates, 1_702_600_000)
    return replace(rows, codes=codes, label=None, time=time_)


def serving(rows: int, candidates: int, repeats: int) -> list[dict[str, Any]]:
    """Return the costs of a request and of an event."""
    columns = log(rows, timed=True)
    ask = request(columns, candidates)
    found = []
    for name, made in (("20 counts and rates", statistics()), ("3 histories", histories())):
        for each in made:
            each.fit(columns)
        started = time.process_time()
        state = LiveState.of(made, limits=Limits())
        facts = {"rows": rows, "candidates": candidates}
        facts["make_cpu_s"] = round(time.process_time() - started, 2)
        event = replace(ask.take([0]), label=np.ones(1, np.float32))
        for each in made:
            got, want = state.apply(ask), each.apply(ask)
            if isinstance(each, (Counts, Rates)):
                at = [field.name for field in state.layout.dense].index(each.layout.dense[0].name)
                np.testing.assert_array_equal(got.dense[:, at], want.dense[:, 0])
        found += [
            timed(f"state apply, {name}", lambda s=state: s.apply(ask), repeats, **facts),
            timed(
                f"one apply each, {name}",
                lambda m=made: [each.apply(ask) for each in m],
                max(20, repeats // 10),
                **facts,
            ),
            timed(f"state update, 1 event, {name}", lambda s=state, e=event: s.update(e), repeats),
        ]
    return found


def ranker(rows: int) -> Ranker:
    """Return a ranker of the log whose encoder has 20 statistics; its network reads none."""
    from autorec.deploy.ranker import Ranker  # torch would add 200 MB to each process above
    from autorec.tasks.ctr import Ctr

    columns = log(rows, timed=False)
    table = pa.table({name: columns.codes[:, at] for at, name in enumerate(SIZES)})
    table = table.append_column("click", pa.array(columns.label.astype(np.int64)))
    roles = {"user": Role.USER, "item": Role.ITEM}
    ids = [Field(name, Kind.ID, roles.get(name, Role.FEATURE), "int32") for name in SIZES]
    schema = Schema((*ids, Field("click", Kind.CATEGORICAL, Role.LABEL, "int64")))
    source = open_source(table)
    encoder = Encoder.fit(lambda: source.batches(list(SIZES)), schema)
    plain = Columns.of(encoder.base, encoder.plain(table), label=columns.label)
    encoder = encoder.extended(Derivation.fit(statistics(), plain)[0])
    task = Ctr.from_stats(label_stats(source, "click"))
    candidate, model = network(encoder, task, 0)
    return Ranker.make(source, schema, task, candidate, encoder, model)


def network(encoder: Encoder, task: Ctr, each: int) -> tuple[Candidate, NeuralModel]:
    """Return a small network that reads so many counts and as many rates."""
    from autorec.architecture import Architecture, Node
    from autorec.build import build
    from autorec.candidate import Candidate, Features, Recipe
    from autorec.train.neural import NeuralModel

    args = (("width", 64), ("layers", 2), ("dropout", 0.0), ("norm", "none"))
    plan = Architecture((Node("mlp", ("dense", "sparse") if each else ("sparse",), args),), 8, True)
    made = Candidate("neural", Recipe({}), Features(counts=each, rates=each), plan)
    return made, NeuralModel(build(made, encoder.layout), task)


def ranking(rows: int, candidates: int, repeats: int) -> list[dict[str, Any]]:
    """Return the costs of a request for one user, and of the statistics in it."""
    plain, found = ranker(rows), []
    items = plain.entities.all("item").ids.to_pylist()[:candidates]
    user = plain.entities.all("user").ids.to_pylist()[:1]
    facts = {"rows": rows, "candidates": candidates}

    def measured(one: Ranker, what: str) -> None:
        derive = one.encoder.derive
        base = one.encoder.plain(rows_of(one, user, items))
        ask = {"users": user, "candidates": items, "filter_seen": False}
        found.append(timed(f"rank, {what}", lambda: one.rank(**ask), repeats, **facts))
        if one.statistics:
            found.append(timed(f"derive, {what}", lambda: derive(base), repeats, **facts))

    measured(plain, "no statistics")
    for each in (3, 10):
        candidate, model = network(plain.encoder, plain.task, each)
        one = replace(plain, candidate=candidate, model=model)
        measured(one, f"{2 * each} statistics, no live state")
        started = time.process_time()
        one.go_live()
        facts["make_cpu_s"] = round(time.process_time() - started, 2)
        measured(one, f"{2 * each} statistics, live state")
        event = rows_of(one, user, items[:1]).append_column("click", pa.array([1]))
        update = partial(one.update, event)
        found.append(timed(f"update, 1 event, {2 * each} statistics", update, repeats))
        del facts["make_cpu_s"]
    return found


def rows_of(one: Ranker, user: list[Any], items: list[Any]) -> pa.Table:
    """Return the raw rows of one user with some items and the usual values of the others."""
    usual = one.example().to_dict("records")[0]
    held = {name: pa.array([usual[name]] * len(items), pa.int32()) for name in SIZES}
    return pa.table({**held, "user": pa.array(user * len(items)), "item": pa.array(items)})


def main() -> None:
    """Measure and write `experiments/results/bench_features.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=300)
    given = parser.parse_args()
    found = [apart(form, given.rows) for form in ("out-of-fold", "ordered")]
    found += serving(given.rows, given.candidates, given.repeats)
    found += ranking(given.rows, given.candidates, given.repeats)
    for row in found:
        print(row)
    load = os.getloadavg()[0]
    print(write("bench_features", found, threads=1, load_average=round(load, 2)))


if __name__ == "__main__":
    main()
