"""From a table to a prepared run folder: schema, split, task, encoder, encoded columns, space."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autorec.deriving import Wanted, derive
from autorec.errors import ConfigError, SchemaError
from autorec.run import Run, RunConfig
from autorec.schema import Schema
from autorec.space import SPACES

if TYPE_CHECKING:
    from autorec.data.encoder import Encoder
    from autorec.data.sources import Source
    from autorec.data.split import SplitPlan
    from autorec.space import Space
    from autorec.tasks.base import Task

Say = Callable[[str], None]


@dataclass(frozen=True)
class Roles:
    """What the user said about the columns; everything left out is inferred."""

    label: str | None = None
    user_id: str | None = None
    item_id: str | None = None
    timestamp: str | None = None
    group: str | None = None
    sample_weight: str | None = None
    feature_types: Mapping[str, str] | None = None

    def infer(self, source: Source) -> Schema:
        """Return the schema of `source` under these roles."""
        from autorec.data.infer import infer

        return infer(source, **vars(self))


@dataclass(frozen=True)
class Options:
    """What the user said about the fit."""

    task: str = "auto"
    eval_metric: str | None = None
    split: str = "auto"
    holdout: float = 0.1
    search: str = "tpe"
    space: str | Mapping[str, Any] = "auto"
    seed: int = 0
    threads: int = 1
    storage: str | None = None
    features: Wanted = field(default_factory=Wanted)


@dataclass
class Prepared:
    """A run that is ready to be searched, with the sources it came from."""

    run: Run
    space: Space
    source: Source
    tuning: Source | None
    timings: dict[str, float] = field(default_factory=dict)


@contextmanager
def timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds of the block to `timings[name]`."""
    started = time.perf_counter()
    try:
        yield
    finally:
        timings[name] = round(timings.get(name, 0.0) + time.perf_counter() - started, 3)


def prepare(
    folder: Path, data: Any, tuning_data: Any, roles: Roles, options: Options, say: Say
) -> Prepared:
    """Read the table once or twice, write encoded columns, and decide on task and space.

    Nothing is written before schema and label are known to be usable.

    Raises:
        SchemaError: columns do not fit their roles, or the two tables differ.
        DataError: the rows cannot be used.
        ConfigError: an option has no such value.
    """
    timings: dict[str, float] = {}
    with timed(timings, "read"):
        source = _open(data, folder / "spool")
        tuning = None if tuning_data is None else _open(tuning_data, folder / "spool-tuning")
        schema = roles.infer(source)
        _require_columns(tuning, schema)
        say(f"{source.description}\n{schema.explain()}")
        task = choose_task(source, schema, options)
    with timed(timings, "split"):
        plan = choose_split(source, schema, tuning, options)
        refuse_future(source, schema, plan, tuning)
        say(f"task   {task.name}: {task.reason}\nmetric {task.eval_metric}\nsplit  {plan.reason}")
    with timed(timings, "encode"):
        encoder, rows = encode(folder, source, tuning, schema, task, plan)
    with timed(timings, "features"):
        encoder = derive(folder, encoder, task, options.features, options.seed, say)
    space = make_space(options.space, task.name, encoder, rows["train"])
    config = RunConfig(
        name="autorec",
        schema=schema.to_json(),
        task=task.to_json(),
        split=plan.to_json(),
        space=space.to_json(),
        search=options.search,
        seed=options.seed,
        n_train=rows["train"],
        n_valid=rows["valid"],
        rungs=_rungs(rows["train"]),
        eval_rows=min(rows["train"], 1_000_000),
        threads=options.threads,
        storage=options.storage,
        timings=timings,
        fingerprint=fingerprint(source, tuning, schema, options),
    )
    run = Run(folder, config)
    run.write()
    return Prepared(run, space, source, tuning, timings)


def _rungs(n_train: int) -> tuple[int, ...]:
    from autorec.search.halving import plan_rungs

    return plan_rungs(n_train)


def reopen(
    folder: Path, data: Any, tuning_data: Any, roles: Roles, options: Options
) -> Prepared | None:
    """Return the run that an earlier, interrupted call prepared in `folder`; None where there is
    none.

    Raises:
        ConfigError: the folder holds a run on other data, columns or settings.
    """
    if not (folder / "run.json").is_file():
        return None
    run = Run.open(folder)
    source = _open(data, folder / "spool")
    tuning = None if tuning_data is None else _open(tuning_data, folder / "spool-tuning")
    found = fingerprint(source, tuning, roles.infer(source), options)
    if found != run.config.fingerprint:
        raise ConfigError(
            f"a search is resumed on the data and settings it began with, but those of {folder} "
            f"have the fingerprint {run.config.fingerprint} and these {found}; use another path"
        )
    run.stop_file.unlink(missing_ok=True)
    return Prepared(run, run.space(), source, tuning, dict(run.config.timings))


def _open(data: Any, spool: Path) -> Source:
    from autorec.data.sources import open_source

    return open_source(data, spool=spool)


def _require_columns(tuning: Source | None, schema: Schema) -> None:
    if tuning is None:
        return
    names = set(tuning.schema.names)
    missing = [f.name for f in schema.fields if f.role.value != "ignore" and f.name not in names]
    if missing:
        raise SchemaError(
            f"tuning_data needs the columns of the training data, but lacks {missing}; "
            "give both tables the same columns"
        )


def choose_task(source: Source, schema: Schema, options: Options) -> Task:
    """Return the task that `options` names, or that the label asks for, fitted to the label."""
    from autorec.data.labels import label_stats
    from autorec.tasks import infer_task
    from autorec.tasks import task as task_class

    if schema.label is None:
        raise SchemaError("training needs a label column, but the schema has none; pass label=...")
    stats = label_stats(source, schema.label)
    name = infer_task(stats)[0] if options.task == "auto" else options.task
    grouped = schema.group is not None
    return task_class(name).from_stats(stats, eval_metric=options.eval_metric, grouped=grouped)


def choose_split(
    source: Source, schema: Schema, tuning: Source | None, options: Options
) -> SplitPlan:
    """Return how rows are divided; `given` where the user brings validation rows."""
    from autorec.data.split import plan_split

    method = "given" if tuning is not None else options.split
    return plan_split(source, schema, method=method, holdout=options.holdout, seed=options.seed)


def refuse_future(source: Source, schema: Schema, plan: SplitPlan, tuning: Source | None) -> None:
    """Refuse a split by time where times lie ahead: the newest rows, which validate, are wrong.

    Raises:
        DataError: a row is dated more than a day ahead; often milliseconds read as seconds.
    """
    from autorec.data.findings import Facts
    from autorec.data.rules_time import future_times
    from autorec.errors import DataError

    if plan.method != "time":
        return
    for finding in future_times(Facts(source, schema, plan, tuning, time.time())):
        raise DataError(f"{finding.message}; or choose another split, such as split='random'")


def encode(
    folder: Path, source: Source, tuning: Source | None, schema: Schema, task: Task, plan: SplitPlan
) -> tuple[Encoder, dict[str, int]]:
    """Fit the encoder on training rows and write the encoded rows of both sides."""
    from autorec.data.encoder import Encoder
    from autorec.data.split import training_batches
    from autorec.data.store import write_columns

    wanted = [field.name for field in schema.features]
    encoder = Encoder.fit(training_batches(source, plan, wanted), schema)
    columns = folder / "columns"
    parts = write_columns(source, schema, encoder, task.label_map, plan, columns)
    if tuning is not None:
        parts |= write_columns(tuning, schema, encoder, task.label_map, None, columns, part="valid")
    encoder.save(folder / "encoder")
    return encoder, {name: part.n_rows for name, part in parts.items()}


def make_space(space: str | Mapping[str, Any], task: str, encoder: Encoder, n_train: int) -> Space:
    """Return the search space: the task's own for `"auto"`, or one by name (and arguments)."""
    arguments: dict[str, Any] = {}
    name = task if space == "auto" else space
    if not isinstance(name, str):
        arguments = {k: v for k, v in dict(name).items() if k != "name"}
        name = str(dict(name).get("name", task))
    made: Space = SPACES.get(name)(encoder.layout, **{"rows": n_train, **arguments})
    return made


def fingerprint(source: Source, tuning: Source | None, schema: Schema, options: Options) -> str:
    """Return 16 hex digits over what a resumed search must share with the one it continues."""
    facts: Sequence[Any] = [
        schema.digest(),
        source.num_rows,
        None if tuning is None else tuning.num_rows,
        options.task,
        options.eval_metric,
        options.split,
        options.holdout,
        options.seed,
        options.features.most,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
