"""FuxiCTR as a contender: its model zoo, its npz loader, its `fit`, at the shapes of the bench.

Run by `bench_training.py` under the Python of `make.py`, which puts the model zoo of FuxiCTR's
repository beside it (the wheel leaves it out).
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _contender import Asked, Meter, arrays, asked, facts, measured, peak_mb, say
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.torch_utils import seed_everything

ZOO = Path(sys.prefix) / "zoo" / "model_zoo"
SOURCES = {
    "MLP": "DNN/DNN_torch/src/DNN.py",
    "DeepFM": "DeepFM/DeepFM_torch/src/DeepFM.py",
    "DCNv2": "DCNv2/src/DCNv2.py",
    "FinalMLP": "FinalMLP/src/FinalMLP.py",
    "AutoInt": "AutoInt/src/AutoInt.py",
}


def model_class(name: str) -> Any:
    """Return the zoo's class of a model."""
    path = ZOO / SOURCES[name]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"FuxiCTR's model zoo must hold {path}; run experiments/peers/make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, path.stem)


def write_npz(given: Asked, into: Path, part: str) -> str:
    """Write the rows of a part as FuxiCTR reads them: one array a column."""
    codes, dense, label = arrays(given.folder, part)
    found = facts(given.folder)
    columns = {f["name"]: np.asarray(codes[:, i]) for i, f in enumerate(found["sparse"])}
    columns |= {name: np.asarray(dense[:, i]) for i, name in enumerate(found["dense"])}
    path = into / f"{part}.npz"
    np.savez(path, **columns, label=np.asarray(label))
    return str(path)


def feature_map(given: Asked, into: Path, params: dict[str, Any]) -> FeatureMap:
    """Return the columns in FuxiCTR's terms: ids with their table rows, numbers embedded."""
    found = facts(given.folder)
    specs: list[dict[str, Any]] = [
        {name: {"source": "", "type": "numeric"}} for name in found["dense"]
    ]
    for field in found["sparse"]:
        spec = {"source": "", "type": "categorical", "padding_idx": 0}
        specs.append({field["name"]: {**spec, "vocab_size": field["rows"]}})
    total = sum(field["rows"] for field in found["sparse"]) + len(found["dense"])
    whole = {"dataset_id": "bench", "num_fields": len(specs), "total_features": total}
    whole |= {"input_length": len(specs), "labels": ["label"], "features": specs}
    path = into / "feature_map.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    made = FeatureMap("bench", str(into))
    made.load(str(path), params)
    return made


def parameters(given: Asked, into: Path) -> dict[str, Any]:
    """Return FuxiCTR's configuration of the asked shape."""
    s = given.shape
    deep = [s.get("units", 0)] * s.get("layers", 0)
    found = {"embedding_dim": s["embedding"], "embedding_regularizer": s["l2"] or None}
    found |= {"learning_rate": s["lr"], "net_dropout": s["dropout"], "batch_norm": s["norm"]}
    found |= {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["AUC", "logloss"]}
    found |= {"task": "binary_classification", "gpu": -1, "monitor": "AUC", "monitor_mode": "max"}
    found |= {"model_root": str(into), "model_id": "bench", "verbose": 0, "seed": given.seed}
    found |= {"early_stop_patience": 2, "net_regularizer": None}
    # An evaluation is no training step.
    found["eval_steps"] = None if given.quality else 10**9
    found |= {"hidden_units": deep, "dnn_hidden_units": deep, "parallel_dnn_hidden_units": deep}
    found |= {"model_structure": "parallel", "num_cross_layers": s.get("cross", 0)}
    found |= {"use_low_rank_mixture": False, "use_wide": False, "use_residual": True}
    found["attention_layers"], found["num_heads"] = s.get("attention", 0), s.get("heads", 1)
    found["attention_dim"] = s.get("heads", 1) * s.get("width", 0)
    names = [field["name"] for field in facts(given.folder)["sparse"]]
    for side, key, context in (("1", "first", names[0]), ("2", "second", names[1])):
        found[f"mlp{side}_hidden_units"] = [s.get(key, 0)]
        found[f"mlp{side}_dropout"], found[f"mlp{side}_batch_norm"] = s["dropout"], s["norm"]
        found[f"fs{side}_context"] = [context] if s.get("fs") == "fields" else []
    return {**found, "use_fs": True, "fs_hidden_units": [s.get("gate", 0)]}


def quality(given: Asked, model: Any, train: Any, into: Path) -> None:
    """Train to FuxiCTR's own end and say the test metrics of its best weights."""
    paths = {part: write_npz(given, into, part) for part in ("valid", "test")}
    load = {"batch_size": given.batch, "num_workers": 0, "data_format": "npz"}
    valid, test = (
        RankDataLoader(model.feature_map, stage="test", test_data=path, **load)
        for path in paths.values()
    )
    cpu, wall = time.process_time(), time.perf_counter()
    model.fit(train, validation_data=valid, epochs=100)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    logs = model.evaluate(test)
    say(
        auc=round(float(logs["AUC"]), 5),
        logloss=round(float(logs["logloss"]), 5),
        epochs=model._epoch_index + 1,
        cpu_s=round(cpu, 1),
        wall_s=round(wall, 1),
        peak_rss_mb=peak_mb(),
    )


def main() -> None:
    """Train the asked model."""
    given = asked()
    seed_everything(given.seed)
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        into = Path(scratch)
        (into / "bench").mkdir()
        params = parameters(given, into)
        columns = feature_map(given, into, params)
        model = model_class(given.model)(columns, **params)
        load = {"batch_size": given.batch, "num_workers": 0, "data_format": "npz"}
        path = write_npz(given, into, "train")
        train, _ = RankDataLoader(columns, "train", path, shuffle=True, **load)
        if given.quality:
            quality(given, model, train, into)
            return
        meter = Meter(train.num_samples, given.batch)
        model.optimizer.register_step_post_hook(meter.stop)
        measured(lambda: model.fit(train, epochs=10**6))


if __name__ == "__main__":
    main()
