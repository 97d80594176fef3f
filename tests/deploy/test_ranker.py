"""A saved ranker is the same ranker in another process, and an altered one is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from autorec.architecture import Architecture, Node
from autorec.candidate import Candidate, Recipe
from autorec.data.columns import Columns
from autorec.deploy import ranker as module
from autorec.deploy.manifest import MANIFEST
from autorec.deploy.ranker import Ranker, regular
from autorec.errors import ConfigError, DataError, RankerError
from autorec.job import Fidelity, Job
from autorec.train.fit import TrainingData, fit

_MLP = Node(
    "mlp", ("dense", "sparse"), (("width", 32), ("layers", 2), ("dropout", 0.0), ("norm", "none"))
)
CANDIDATES = {
    "neural": Candidate(
        "neural",
        Recipe({"lr": 1e-2, "batch_size": 512, "embedding_l2": 1e-4}),
        architecture=Architecture((_MLP,), 8, True),
    ),
    "tree": Candidate("tree", Recipe({"learning_rate": 0.2, "num_leaves": 7, "max_rounds": 15})),
    "popularity": Candidate("popularity", Recipe({"prior_strength": 5.0})),
}


@pytest.fixture(scope="module", params=list(CANDIDATES))
def trained(request: Any, parts: Any) -> Ranker:
    """A ranker of each family, trained for a moment."""
    candidate = CANDIDATES[request.param]
    label = parts.task.label_map.apply(parts.log["click"].combine_chunks())
    columns = Columns.of(parts.encoder.layout, parts.encoder.encode(parts.log), label=label)
    data = TrainingData(
        columns, columns.take(slice(2000, None)), columns.layout, parts.task, "item"
    )
    job = Job(0, candidate, 3, time.time() + 60, Fidelity(rows=3000))
    found = fit(job, data, lambda rows, value: True)
    return parts.ranker(found.model, candidate)


_CHILD = """
import sys
import pyarrow.parquet as pq
from autorec.deploy.ranker import Ranker
ranker = Ranker.load(sys.argv[1])
sys.stdout.buffer.write(ranker.score(pq.read_table(sys.argv[2])).tobytes())
sys.stdout.buffer.write(ranker.rank(["u1", "u2"], k=5).score.to_numpy().tobytes())
"""


def test_a_new_process_gives_the_same_bytes(trained: Ranker, parts: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    pq.write_table(parts.log.slice(0, 777), rows)
    want = (
        trained.score(rows).tobytes() + trained.rank(["u1", "u2"], k=5).score.to_numpy().tobytes()
    )
    folder = trained.save(tmp_path / "ranker")
    command = [sys.executable, "-c", _CHILD, str(folder), str(rows)]
    child = subprocess.run(command, capture_output=True)
    assert child.returncode == 0, child.stderr.decode()
    assert child.stdout == want
    again = Ranker.load(folder)
    assert again.score(rows).tobytes() == trained.score(rows).tobytes()
    pd.testing.assert_frame_equal(again.rank(k=4), trained.rank(k=4))
    assert (again.created, again.candidate, again.schema) == (
        *(trained.created, trained.candidate, trained.schema),
    )
    assert again.task == trained.task


def test_a_row_scores_the_same_in_any_company(
    trained: Ranker, parts: Any, monkeypatch: Any
) -> None:
    whole = trained.score(parts.log)
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 63, 64, 65, 1000):
        rows = np.sort(rng.choice(parts.log.num_rows, size, replace=False))
        np.testing.assert_allclose(trained.score(parts.log.take(rows)), whole[rows], atol=1e-6)
    monkeypatch.setattr(module, "ROWS", 128)
    np.testing.assert_allclose(trained.score(parts.log), whole, atol=1e-6)


def test_rank_agrees_with_score(trained: Ranker, parts: Any) -> None:
    got = trained.rank("u1", k=40, filter_seen=False)
    last = {r["item"]: r for r in parts.log.to_pylist()}
    user = next(r for r in parts.log.to_pylist() if r["user"] == "u1")
    rows = [
        {**last[item], **trained.context, **{n: user[n] for n in ("user", "age", "country")}}
        for item in got.item_id
    ]
    np.testing.assert_allclose(trained.score(rows), got.score, atol=1e-6)
    assert (np.diff(got.score) <= 0).all()


def test_containers_and_order(mixed: Ranker, parts: Any, tmp_path: Path) -> None:
    want = mixed.score(parts.log)
    frame = parts.log.to_pandas()
    assert want.dtype == np.float64
    pq.write_table(parts.log, tmp_path / "log.parquet", row_group_size=333)
    for data in (frame, pl.from_arrow(parts.log), parts.log.to_pylist(), tmp_path / "log.parquet"):
        assert mixed.score(data).tobytes() == want.tobytes()
    shuffled = frame.sample(frac=1.0, random_state=0)[list(frame.columns[::-1])]
    assert mixed.score(shuffled).tobytes() == want[shuffled.index].tobytes()
    assert mixed.score(frame[:0]).shape == (0,)


def test_other_columns_and_unseen_values_are_no_errors(mixed: Ranker, parts: Any) -> None:
    frame = parts.log.to_pandas().drop(columns=["click", "ts"])
    want = mixed.score(frame)
    assert mixed.score(frame.assign(extra="x", click="not a label")).tobytes() == want.tobytes()
    new = mixed.score(frame.assign(user="nobody", item=10**9, country="xx"))
    assert np.isfinite(new).all()
    assert (new != want).any()


def test_columns_that_are_missing_are_all_named(mixed: Ranker, parts: Any) -> None:
    frame = parts.log.to_pandas()
    with pytest.raises(DataError, match=r"\['age', 'hour'\] are missing"):
        mixed.score(frame.drop(columns=["hour", "age", "click"]))
    with pytest.raises(DataError, match="column 'age' is numeric"):
        mixed.score(frame.assign(age="old"))
    with pytest.raises(DataError, match="column 'item'"):
        mixed.score(frame.assign(item="none"))


def test_the_folder_holds_plain_files(trained: Ranker, tmp_path: Path) -> None:
    folder = trained.save(tmp_path / "deep" / "ranker")
    facts = json.loads((folder / MANIFEST).read_text())
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert names == {*facts["files"], MANIFEST}
    assert {Path(name).suffix for name in names} <= {".json", ".arrow", ".safetensors", ".txt"}
    assert {"users.arrow", "items.arrow", "defaults.arrow"} <= names
    assert facts["entry"] == "autorec.deploy.ranker:Ranker"
    assert facts["columns"]["genres"] == "item"
    assert [p.name for p in folder.parent.iterdir()] == ["ranker"]
    trained.save(folder)
    assert Ranker.load(folder).created == trained.created
    assert [p.name for p in folder.parent.iterdir()] == ["ranker"]


def test_only_a_ranker_is_written_over(trained: Ranker, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"manifest\.json is written over"):
        trained.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_every_altered_or_missing_file_is_named(trained: Ranker, tmp_path: Path) -> None:
    folder = trained.save(tmp_path / "ranker")
    for name in json.loads((folder / MANIFEST).read_text())["files"]:
        file = folder / name
        good = file.read_bytes()
        file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(RankerError, match=f"{file.name} was altered"):
            Ranker.load(folder)
        file.unlink()
        with pytest.raises(RankerError, match=f"{file.name} is missing"):
            Ranker.load(folder)
        file.write_bytes(good)
    Ranker.load(folder)


def test_manifests_that_cannot_be_read(trained: Ranker, tmp_path: Path) -> None:
    with pytest.raises(RankerError, match=r"holds manifest\.json"):
        Ranker.load(tmp_path)
    folder = trained.save(tmp_path / "ranker")
    path = folder / MANIFEST
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "created": "yesterday"}))
    with pytest.raises(RankerError, match="it was altered"):
        Ranker.load(folder)
    path.write_text(json.dumps({**facts, "format": 2, "autorec": "9.0"}))
    with pytest.raises(RankerError, match=r"has format 2, written by AutoRec 9\.0"):
        Ranker.load(folder)
    path.write_text("{")
    with pytest.raises(RankerError, match="must be a manifest"):
        Ranker.load(folder)


def test_metrics_without_a_value_are_null(trained: Ranker, parts: Any, tmp_path: Path) -> None:
    trained.metrics = {"auc": 0.7, "gauc": float("nan")}
    folder = trained.save(tmp_path / "ranker")
    assert Ranker.load(folder).metrics == {"auc": 0.7, "gauc": None}


def test_a_device_must_exist(parts: Any, tmp_path: Path) -> None:
    from autorec.build import build
    from autorec.train.neural import NeuralModel

    network = build(CANDIDATES["neural"], parts.encoder.layout)
    folder = parts.ranker(NeuralModel(network, parts.task), CANDIDATES["neural"]).save(
        tmp_path / "r"
    )
    Ranker.load(folder, device="meta")
    with pytest.raises(ConfigError, match="'nowhere' failed"):
        Ranker.load(folder, device="nowhere")


@pytest.mark.parametrize("cut", [1, 5, 7, 100])
def test_pieces_are_cut_from_the_first_row(parts: Any, cut: int) -> None:
    encoded = parts.encoder.encode(parts.log.slice(0, 23))
    pieces = (module._take(encoded, slice(i, i + cut)) for i in range(0, 23, cut))
    got = list(regular(pieces, 7))
    assert [len(part) for part in got] == [7, 7, 7, 2]
    joined = module._join(got)
    assert (joined.codes == encoded.codes).all()
    assert (joined.dense == encoded.dense).all()
    assert all((joined.lists[name] == encoded.lists[name]).all() for name in encoded.lists)


def test_the_example_is_a_row_to_score(trained: Ranker) -> None:
    assert trained.score(trained.example()).shape == (1,)
