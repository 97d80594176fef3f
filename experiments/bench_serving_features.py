"""What do statistics add to a request of 500 candidates, with a live state and without one?

python experiments/bench_serving_features.py --rows 200000 --candidates 500 --repeats 600

One core of numpy. Requests of different users, each with 500 items that have a category and a shop,
in one hour and on one device. `derive` is what the statistics add: raw codes to codes and numbers
behind them. It is measured in turns, 64 requests of each kind after the other, so that a busy
machine is busy for all of them; `one by one` is one `apply` of each transform with scale and bins
column by column, the plain way that all others are checked against, bit by bit. `rank` is a whole
request of a ranker with a small network, with the statistics and without them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from _results import write

from autorec.data.columns import Columns
from autorec.data.derivation import Derivation
from autorec.data.encoder import Encoded, Encoder
from autorec.data.features.base import Transform
from autorec.data.features.counts import Counts
from autorec.data.features.rates import Rates
from autorec.data.labels import label_stats
from autorec.data.sources import open_source
from autorec.schema import Field, Kind, Role, Schema

if TYPE_CHECKING:
    from autorec.deploy.ranker import Ranker

IDS = {"user": 20_000, "item": 5_000, "cat": 200, "shop": 1_000, "device": 8, "hour": 24}
CROSSES = [
    tuple(names.split())
    for names in (
        "user item",
        "user cat",
        "item hour",
        "user shop",
        "item device",
        "user cat device",
        "user shop hour",
        "item device hour",
        "user cat hour",
        "user item device",
    )
]
ASKED = 64  # different requests


def log(rows: int) -> pa.Table:
    """Return a skewed click log; an item has one category and one shop."""
    rng = np.random.default_rng(0)
    drawn = {name: (size * rng.random(rows) ** 2.0).astype(int) for name, size in IDS.items()}
    drawn["cat"] = drawn["item"] * 7919 % IDS["cat"]
    drawn["shop"] = drawn["item"] * 104_729 % IDS["shop"]
    click = rng.random(rows) < 0.1 + 0.3 * (drawn["user"] * drawn["cat"] % 5 == 0)
    return pa.table({**drawn, "click": click.astype(np.int64)})


def schema() -> Schema:
    """Return the columns of the log."""
    roles = {"user": Role.USER, "item": Role.ITEM}
    ids = [Field(name, Kind.ID, roles.get(name, Role.FEATURE), "int64") for name in IDS]
    return Schema((*ids, Field("click", Kind.CATEGORICAL, Role.LABEL, "int64")))


def chosen(each: int) -> list[Transform]:
    """Return so many counts and as many rates of crosses."""
    some = CROSSES[:each]
    return [*(Counts(fields) for fields in some), *(Rates(fields) for fields in some)]


def requests(encoder: Encoder, candidates: int) -> list[Encoded]:
    """Return plain rows of users, each with items of their own in one hour and on one device."""
    rng = np.random.default_rng(1)
    found = []
    for user in (IDS["user"] * rng.random(ASKED) ** 2.0).astype(int):
        item = rng.choice(IDS["item"], candidates, replace=False)
        same = {"user": user, "device": rng.integers(8), "hour": rng.integers(24)}
        columns = {name: np.full(candidates, value) for name, value in same.items()}
        columns |= {"item": item, "cat": item * 7919 % 200, "shop": item * 104_729 % 1_000}
        found.append(encoder.plain(pa.table(columns)))
    return found


def one_by_one(derivation: Derivation, encoder: Encoder, asked: Encoded) -> Encoded:
    """Return the derived columns of a request, made one after the other."""
    columns = Columns.of(encoder.base, asked)
    codes, dense = [asked.codes], []
    for each, scale in zip(derivation.transforms, derivation.numeric, strict=True):
        raw = each.apply(columns).dense[:, 0].astype(np.float64)
        codes.append(scale.bins(raw)[:, None])
        dense.append(scale.dense(raw))
    return Encoded(np.concatenate(codes, axis=1), {}, np.stack(dense, axis=1))


def in_turns(
    works: Mapping[str, Callable[[int], object]], repeats: int
) -> dict[str, dict[str, float]]:
    """Return milliseconds of one call of each: median, 99th percentile, lowest, and CPU mean."""
    wall: dict[str, list[float]] = {name: [] for name in works}
    cpu = dict.fromkeys(works, 0.0)
    for _ in range(-(-repeats // ASKED)):
        for name, work in works.items():
            for at in range(ASKED):
                began, began_cpu = time.perf_counter(), time.thread_time()
                work(at)
                cpu[name] += time.thread_time() - began_cpu
                wall[name].append(time.perf_counter() - began)
    return {
        name: {
            "median_ms": round(1e3 * float(np.median(taken)), 4),
            "p99_ms": round(1e3 * float(np.percentile(taken, 99)), 4),
            "lowest_ms": round(1e3 * min(taken), 4),
            "cpu_mean_ms": round(1e3 * cpu[name] / len(taken), 4),
        }
        for name, taken in wall.items()
    }


def rankers(table: pa.Table, encoder: Encoder, each: int) -> dict[str, Ranker]:
    """Return rankers with a small network: without statistics, with those of training, and live."""
    from autorec.architecture import Architecture, Node
    from autorec.build import build
    from autorec.candidate import Candidate, Features, Recipe
    from autorec.deploy.ranker import Ranker
    from autorec.tasks.ctr import Ctr
    from autorec.train.neural import NeuralModel

    source = open_source(table)
    task = Ctr.from_stats(label_stats(source, "click"))
    args = (("width", 64), ("layers", 2), ("dropout", 0.0), ("norm", "none"))
    made = {}
    for name, some in (("none", 0), ("fitted", each), ("live", each)):
        inputs = ("dense", "sparse") if some else ("sparse",)
        plan = Architecture((Node("mlp", inputs, args),), 8, True)
        one = Candidate("neural", Recipe({}), Features(counts=some, rates=some), plan)
        model = NeuralModel(build(one, encoder.layout), task)
        made[name] = Ranker.make(source, schema(), task, one, encoder, model)
    made["fitted"].warm()
    made["live"].go_live()
    return made


def measured(table: pa.Table, plain: Encoder, each: int, given: Any) -> list[dict[str, Any]]:
    """Return the costs of `each` counts and as many rates."""
    columns = Columns.of(plain.base, plain.plain(table), label=table["click"].to_numpy())
    slow, seconds = Derivation.fit(chosen(each), columns)[0], {}
    asked = requests(plain, given.candidates)
    encoder = fitted = plain.extended(slow)
    live = encoder.extended(slow.counting_on())
    began = time.process_time()
    slow.warm()
    seconds["fitted"] = time.process_time() - began
    for one in asked[:8]:
        want = one_by_one(slow, plain, one)
        for got in (fitted.derive(one), live.derive(one)):
            np.testing.assert_array_equal(got.codes, want.codes)
            np.testing.assert_array_equal(got.dense, want.dense)
    derive = in_turns(
        {
            "one by one": lambda at: one_by_one(slow, plain, asked[at]),
            "fitted": lambda at: fitted.derive(asked[at]),
            "live": lambda at: live.derive(asked[at]),
        },
        given.repeats,
    )
    users, items = table["user"].to_numpy(), np.unique(table["item"].to_numpy())
    few = [int(users[at * 1000]) for at in range(ASKED)]
    ask = {"candidates": items[: given.candidates].tolist(), "filter_seen": False}
    rank = in_turns(
        {
            name: lambda at, one=one: one.rank([few[at]], **ask)
            for name, one in rankers(table, encoder, each).items()
        },
        given.repeats // 4,
    )
    base = derive["one by one"]["lowest_ms"]
    return [
        {"what": what, "statistics": 2 * each, "kind": name, **costs}
        | ({"times_faster": round(base / costs["lowest_ms"], 2)} if what == "derive" else {})
        | ({"make_cpu_s": round(seconds[name], 2)} if what == "derive" and name in seconds else {})
        for what, found in (("derive", derive), ("rank", rank))
        for name, costs in found.items()
    ]


def main() -> None:
    """Measure and write `experiments/results/bench_serving_features.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=600)
    given = parser.parse_args()
    table = log(given.rows)
    source = open_source(table)
    encoder = Encoder.fit(lambda: source.batches(list(IDS)), schema())
    rows = [row for each in (3, 10) for row in measured(table, encoder, each, given)]
    for row in rows:
        print(row)
    facts: dict[str, Any] = {"log_rows": given.rows, "candidates": given.candidates}
    facts |= {"threads": 1, "load_average": round(os.getloadavg()[0], 2)}
    print(write("bench_serving_features", rows, **facts))


if __name__ == "__main__":
    main()
