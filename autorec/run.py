"""The run folder: everything one `fit` knows, on disk, so that workers and a later process can go
on.

    run.json            what was decided before the search (RunConfig)
    encoder/            fitted on the training rows, with derived columns behind it
    screening.json      which statistics of crosses were tried, and what each would gain
    columns/train|valid encoded rows, memory-mapped by every worker
    study.journal       the Optuna study
    trials/00007/       weights, validation predictions and curve of one trial
    parents/00007/      weights of the best networks, which children start from
    importance.json     by how much the score falls without each column
    rehearsal.json      whether a runner-up that can be refitted overtook the leader
    refit/              the winner trained on all rows
    mlflow.db           the MLflow store, where none is named
    ranker/             the deployable winner
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autorec.errors import RankerError
from autorec.schema import Schema
from autorec.space import Space, load_space

if TYPE_CHECKING:
    import numpy as np

    from autorec.data.encoder import Encoder
    from autorec.data.screening import Screening
    from autorec.data.store import Columns
    from autorec.tasks.base import Task
    from autorec.train.fit import TrainingData

SCREENING, REHEARSAL = "screening.json", "rehearsal.json"
_FORMAT = 1


@dataclass(frozen=True)
class RunConfig:
    """What was decided before the search began; JSON-able.

    `rungs` are presented rows at which halving compares trials; `eval_rows` is how often a network
    is evaluated; `columns_name` is the folder of encoded rows below `columns/`.
    """

    name: str
    schema: dict[str, Any]
    task: dict[str, Any]
    split: dict[str, Any]
    space: dict[str, Any]
    search: str
    seed: int
    n_train: int
    n_valid: int
    rungs: tuple[int, ...]
    eval_rows: int
    threads: int
    storage: str | None = None
    timings: dict[str, float] = field(default_factory=dict)
    mlflow_run_id: str | None = None
    tracking_uri: str | None = None
    fingerprint: str = ""
    study: str = ""
    winner: int | None = None
    refitted: bool = False


class Run:
    """Paths and contents of one run folder.

    Raises:
        RankerError: the folder holds no run, or one of a newer version (`Run.open`).
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder = folder
        self.config = config

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """Read the run in `folder`."""
        path = Path(folder) / "run.json"
        if not path.is_file():
            raise RankerError(f"a run folder holds run.json, but {path} does not exist; fit first")
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") > _FORMAT:
            raise RankerError(f"{path} was written by a newer AutoRec; upgrade to read it")
        data["rungs"] = tuple(data["rungs"])
        return cls(Path(folder), RunConfig(**data))

    def write(self, **changes: Any) -> None:
        """Change some settings and write `run.json` whole, renamed into place."""
        self.config = replace(self.config, **changes)
        text = json.dumps({"format": _FORMAT, **asdict(self.config)}, indent=1)
        partial = self.folder / ".run.json"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self.folder / "run.json")

    @property
    def stop_file(self) -> Path:
        """While this file exists, workers bring their trial to an end and start no other."""
        return self.folder / "stop"

    def trial_folder(self, number: int) -> Path:
        """Return where trial `number` keeps its weights."""
        return self.folder / "trials" / f"{number:05d}"

    def schema(self) -> Schema:
        """Return the schema of the log."""
        return Schema.from_json(self.config.schema)

    def task(self) -> Task:
        """Return the fitted task."""
        from autorec.tasks import from_json

        return from_json(self.config.task)

    def encoder(self) -> Encoder:
        """Return the encoder of the search."""
        from autorec.data.encoder import Encoder

        return Encoder.load(self.folder / "encoder")

    def columns(self, part: str) -> Columns:
        """Return the encoded rows of `train` or `valid`, memory-mapped."""
        from autorec.data.store import Columns

        return Columns.open(self.folder / "columns" / part)

    def space(self) -> Space:
        """Return the search space on the columns of this run."""
        return load_space(self.config.space, self.encoder().layout)

    def data(self) -> TrainingData:
        """Return what candidates are trained and selected on."""
        from autorec.train.fit import TrainingData
        from autorec.train.precision import agreed

        train = self.columns("train")
        schema = self.schema()
        return TrainingData(
            train,
            self.columns("valid"),
            train.layout,
            self.task(),
            schema.item,
            self.config.eval_rows,
            agreed(self.folder),
        )

    def prediction(self, number: int) -> np.ndarray | None:
        """Return the validation predictions (N,) of a trial, None where they were not kept."""
        import numpy as np

        path = self.trial_folder(number) / "valid.npy"
        return np.load(path) if path.is_file() else None

    def curve(self, number: int) -> list[dict[str, float]]:
        """Return the learning curve of a trial, one point an evaluation."""
        path = self.trial_folder(number) / "curve.json"
        points: list[dict[str, float]] = json.loads(path.read_text()) if path.is_file() else []
        return points

    def keep_findings(self, findings: list[dict[str, Any]]) -> None:
        """Write what `AutoRec.check` found in the table."""
        text = json.dumps(findings, indent=1, default=str)
        (self.folder / "findings.json").write_text(text, encoding="utf-8")

    def findings(self) -> list[dict[str, Any]]:
        """Return what `AutoRec.check` found in the table; empty where it did not end in time."""
        path = self.folder / "findings.json"
        found: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
        return found

    def screening(self) -> Screening | None:
        """Return which statistics of crosses were tried; None where none were."""
        from autorec.data.screening import Screening

        path = self.folder / SCREENING
        return Screening.from_json(json.loads(path.read_text())) if path.is_file() else None

    def rehearsal(self) -> dict[str, Any] | None:
        """Return the `autorec.rehearsal.Rehearsal` of the two best trials; None without one."""
        path = self.folder / REHEARSAL
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
        return found

    def has_weights(self, number: int) -> bool:
        """Tell whether the weights of a trial are still kept."""
        return (self.trial_folder(number) / "model").is_dir()

    def drop_weights(self, number: int) -> None:
        """Delete the weights of a trial; its curve and predictions stay."""
        shutil.rmtree(self.trial_folder(number) / "model", ignore_errors=True)
