"""RecBole as a contender: its models, its loader and its trainer's `fit`.

It reads text, so that it gets the first 100,000 training rows; its tables are made as large as
everybody's. MLP is its FNN; it has no FinalMLP, no batch norm in these models, and its L2 is over
all weights or none: none here.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from _contender import Asked, Meter, arrays, asked, facts, measured

ROWS = 100_000
MODELS = {"MLP": "FNN", "DeepFM": "DeepFM", "DCNv2": "DCNV2", "AutoInt": "AutoInt"}
# Names that RecBole 1.2.1 reads and NumPy 2 no longer has.
for _name, _kind in {"bool8": np.bool_, "float_": np.float64, "complex_": np.complex128}.items():
    setattr(np, _name, getattr(np, _name, _kind))
for _name, _kind in {"unicode_": np.str_, "object0": np.object_, "long": np.int64}.items():
    setattr(np, _name, getattr(np, _name, _kind))


def write_table(given: Asked, folder: Path) -> list[str]:
    """Write the rows in RecBole's own form; return the names of the columns."""
    codes, dense, label = (part[:ROWS] for part in arrays(given.folder, "train"))
    found = facts(given.folder)
    columns: dict[str, Any] = {
        f"{f['name']}:token": codes[:, i] for i, f in enumerate(found["sparse"])
    }
    columns |= {f"{name}:float": dense[:, i] for i, name in enumerate(found["dense"])}
    columns["label:float"] = label
    (folder / "bench").mkdir()
    table = pd.DataFrame(columns)
    table.to_csv(folder / "bench" / "bench.inter", sep="\t", index=False)
    return [name.split(":")[0] for name in table.columns]


def settings(given: Asked, folder: Path, names: list[str]) -> dict[str, Any]:
    """Return RecBole's configuration of the asked shape."""
    s, found = given.shape, facts(given.folder)
    made: dict[str, Any] = {"data_path": str(folder), "load_col": {"inter": names}}
    made |= {"USER_ID_FIELD": names[0], "ITEM_ID_FIELD": names[1], "LABEL_FIELD": "label"}
    made |= {"numerical_features": found["dense"], "normalize_all": False, "threshold": None}
    split = {"split": {"RS": [0.98, 0.01, 0.01]}, "order": "RO", "group_by": None}
    made |= {"eval_args": {**split, "mode": "labeled"}, "train_neg_sample_args": None}
    made |= {"metrics": ["AUC", "LogLoss"], "valid_metric": "AUC", "epochs": 10**6}
    made |= {"train_batch_size": given.batch, "eval_batch_size": given.batch}
    made |= {"embedding_size": s["embedding"], "mlp_hidden_size": [s["units"]] * s["layers"]}
    made |= {"cross_layer_num": s.get("cross", 0), "structure": "parallel", "mixed": False}
    made |= {"attention_size": s.get("width", 0) * s.get("heads", 0), "reg_weight": 0}
    made |= {"n_layers": s.get("attention", 0), "num_heads": s.get("heads", 1)}
    made |= {"dropout_prob": s["dropout"], "dropout_probs": [s["dropout"]] * 3}
    made |= {"learner": "adam", "learning_rate": s["lr"], "worker": 0, "seed": given.seed}
    made |= {"use_gpu": False, "gpu_id": "", "show_progress": False, "state": "ERROR"}
    return {**made, "checkpoint_dir": str(folder)}


def grow_tables(given: Asked, data: Any) -> None:
    """Let RecBole see the whole vocabulary of each column."""
    for field in facts(given.folder)["sparse"]:
        known = data.field2id_token[field["name"]]
        more = np.zeros(max(0, field["rows"] - len(known)), known.dtype)
        data.field2id_token[field["name"]] = np.concatenate([known, more])


def main() -> None:
    """Train the asked model."""
    given = asked()
    if given.quality or given.model not in MODELS:
        raise SystemExit(f"RecBole is measured on {sorted(MODELS)}, but got {given.model}")
    sys.argv = sys.argv[:1]  # RecBole reads the command line too
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    name = MODELS[given.model]
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # where RecBole leaves its logs
        wanted = settings(given, Path(scratch), write_table(given, Path(scratch)))
        config = Config(model=name, dataset="bench", config_dict=wanted)
        init_seed(given.seed, True)
        torch.set_num_threads(given.threads)
        data = create_dataset(config)
        grow_tables(given, data)
        train, _, _ = data_preparation(config, data)
        model = get_model(name)(config, train.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
        meter = Meter(len(train.dataset), given.batch)
        trainer.optimizer.register_step_post_hook(meter.stop)
        measured(lambda: trainer.fit(train, verbose=False, saved=False))


if __name__ == "__main__":
    main()
