"""The same encoded rows for AutoRec and for its peers: one folder a data set, written once.

    facts.json               columns with their table rows, rows of each part, best attainable AUC
    columns/<part>/          AutoRec's column store
    peers/<part>/*.npy       codes int32 (N, F), dense float32 (N, Q), label float32 (N,)
    <part>.parquet           the raw log (Criteo-shaped only)

Codes are AutoRec's (0 null, 1 unknown, from 2 the vocabulary), so that all train tables of one
size. Peers see ids and numbers; the quantile bins of numbers are AutoRec's alone.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _bench import Bench, encoded
from _criteo_shaped import BINS, NUMBERS, VOCABULARIES, Chunk, CriteoShaped

from autorec.data.columns import Columns
from autorec.data.encoder import Encoded
from autorec.data.labels import label_stats
from autorec.data.sources import open_source
from autorec.data.store import ColumnWriter
from autorec.errors import ConfigError
from autorec.schema import DenseField, Layout, SparseField
from autorec.search_spaces._points import PointsSpace
from autorec.space import SPACES
from autorec.tasks import from_json, task
from autorec.train.fit import TrainingData

FACTS = "facts.json"
PARTS = ("train", "valid", "test")


def same_rows(name: str, folder: Path, *, rows: int = 400_000, seed: int = 0) -> Path:
    """Return the folder of `frappe` or `criteo` below `folder`; what lies there already stays.

    Args:
        name: of the data set.
        folder: where all data sets go.
        rows: training rows of the Criteo-shaped log; a tenth as many validate and test each.
        seed: of the Criteo-shaped log.

    Raises:
        ConfigError: no such data set.
    """
    if name not in ("frappe", "criteo"):
        raise ConfigError(f"a data set of the bench is frappe or criteo, but got {name!r}")
    made = folder / (name if name == "frappe" else f"criteo-{rows}-{seed}")
    if not (made / FACTS).is_file():
        made.mkdir(parents=True, exist_ok=True)
        facts = _frappe(made) if name == "frappe" else _criteo(made, rows, seed)
        (made / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return made


def own(folder: Path) -> tuple[TrainingData, PointsSpace, Columns]:
    """Return AutoRec's training data (float32 products), its space and the test rows."""
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    train, valid, test = (Columns.open(folder / "columns" / part) for part in PARTS)
    space = SPACES.get("ctr")(train.layout, rows=train.n_rows)
    data = TrainingData(train, valid, train.layout, from_json(facts["task"]))
    return data, space, test


def _frappe(folder: Path) -> dict[str, Any]:
    bench = Bench(encoded("frappe", folder))
    facts: dict[str, Any] = {"data": "frappe", "task": bench.data.task.to_json(), "dense": []}
    layout = bench.data.layout
    facts["sparse"] = [{"name": f.name, "rows": f.rows} for f in layout.sparse]
    facts["rows"] = {}
    for part in PARTS:
        columns = bench.run.columns(part)
        facts["rows"][part] = columns.n_rows
        at = _Arrays(folder / "peers" / part, columns.n_rows, len(layout.sparse), 0)
        at.append(columns.codes, np.zeros((columns.n_rows, 0), np.float32), columns.label)
        at.close()
    return facts


def _criteo(folder: Path, rows: int, seed: int) -> dict[str, Any]:
    log = CriteoShaped(seed)
    ids = [f"C{i + 1}" for i in range(len(VOCABULARIES))]
    numbers = [f"I{i + 1}" for i in range(NUMBERS)]
    sparse = [SparseField(n, v + 2, n) for n, v in zip(ids, VOCABULARIES, strict=True)]
    sparse += [SparseField(f"{n}#bin", BINS + 2, n, binned=True) for n in numbers]
    layout = Layout(tuple(sparse), dense=tuple(DenseField(n) for n in numbers))
    counts = {"train": rows, "valid": max(rows // 10, 1000), "test": max(rows // 10, 1000)}
    facts: dict[str, Any] = {"data": "criteo", "seed": seed, "rows": counts, "dense": numbers}
    facts["sparse"] = [{"name": f.name, "rows": f.rows} for f in sparse if not f.binned]
    facts["pairs"] = log.pairs
    for part, count in counts.items():
        logits = _write_part(log, folder, part, count, layout)
        label = Columns.open(folder / "columns" / part).label
        facts[f"best_{part}_auc"] = _auc(label, logits)
    stats = label_stats(open_source(folder / "train.parquet"), "label")
    facts["task"] = task("ctr").from_stats(stats).to_json()
    return facts


def _write_part(
    log: CriteoShaped, folder: Path, part: str, rows: int, layout: Layout
) -> np.ndarray:
    """Write the rows of one part in every form, chunk by chunk; return their true logits (N,)."""
    ids = len(VOCABULARIES)
    arrays = _Arrays(folder / "peers" / part, rows, ids, NUMBERS)
    logits, table = [], None
    with ColumnWriter(folder / "columns" / part, layout) as writer:
        for chunk in log.chunks(part, rows):
            codes = np.concatenate([chunk.ids, log.bins(chunk.numbers)], axis=1) + 2
            writer.append(Encoded(codes, {}, chunk.numbers), label=chunk.label)
            arrays.append(codes[:, :ids], chunk.numbers, chunk.label)
            batch = _arrow(chunk)
            table = table or pq.ParquetWriter(folder / f"{part}.parquet", batch.schema)
            table.write_batch(batch)
            logits.append(chunk.logit)
        writer.close()
    if table is not None:
        table.close()
    arrays.close()
    return np.concatenate(logits)


def _arrow(chunk: Chunk) -> pa.RecordBatch:
    columns = {"label": pa.array(chunk.label.astype(np.int8))}
    columns |= {f"I{i + 1}": pa.array(chunk.numbers[:, i]) for i in range(NUMBERS)}
    columns |= {f"C{i + 1}": pa.array(chunk.ids[:, i]) for i in range(len(VOCABULARIES))}
    return pa.RecordBatch.from_pydict(columns)


class _Arrays:
    """The .npy files of one part, filled in pieces."""

    def __init__(self, folder: Path, rows: int, ids: int, numbers: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shapes = {"codes": ("<i4", (rows, ids)), "dense": ("<f4", (rows, numbers))}
        shapes["label"] = ("<f4", (rows,))
        self.at, self.files = 0, {}
        for name, (dtype, shape) in shapes.items():
            if 0 in shape:  # NumPy maps no empty file
                np.save(folder / f"{name}.npy", np.zeros(shape, dtype))
            else:
                made = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
                self.files[name] = made

    def append(self, codes: Any, dense: Any, label: Any) -> None:
        given = {"codes": codes, "dense": dense, "label": label}
        for name, file in self.files.items():
            file[self.at : self.at + len(codes)] = given[name]
        self.at += len(codes)

    def close(self) -> None:
        for file in self.files.values():
            file.flush()


def _auc(label: Any, score: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return round(float(roc_auc_score(label, score)), 5)


def with_precision(data: TrainingData, precision: str) -> TrainingData:
    """Return `data` with matrix products in `precision`; `auto`: what suits this machine."""
    from autorec.train.precision import probe

    return replace(data, precision=probe() if precision == "auto" else precision)
