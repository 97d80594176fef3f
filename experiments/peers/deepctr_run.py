"""DeepCTR-Torch as a contender: its models and its `fit`.

Its numbers enter as they are, not embedded, so that its networks are narrower where there are
numbers (429 inputs for 624). It regularises sums where others take means: its L2 is scaled to act
alike. MLP is its WDL without the wide side; it has no FinalMLP, and its AutoInt's heads have a
fixed width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _contender import Asked, Meter, arrays, asked, facts, measured
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models import DCN, WDL, DeepFM


def model(given: Asked) -> Any:
    """Return the compiled model at the asked shape."""
    found, s = facts(given.folder), given.shape
    columns = [
        SparseFeat(f["name"], vocabulary_size=f["rows"], embedding_dim=s["embedding"])
        for f in found["sparse"]
    ]
    columns += [DenseFeat(name, 1) for name in found["dense"]]
    l2 = 0.5 * s["l2"] * given.batch
    deep = {"dnn_hidden_units": (s["units"],) * s["layers"], "dnn_dropout": s["dropout"]}
    deep |= {"dnn_use_bn": s["norm"], "l2_reg_embedding": l2, "seed": given.seed}
    if given.model == "DCNv2":
        cross = {"cross_num": s["cross"], "cross_parameterization": "matrix", "l2_reg_cross": 0}
        made = DCN([], columns, **cross, **deep)
    elif given.model == "DeepFM":
        made = DeepFM(columns, columns, l2_reg_linear=l2, **deep)
    else:
        made = WDL([], columns, **deep)
    adam = torch.optim.Adam(made.parameters(), lr=s["lr"])
    made.compile(adam, "binary_crossentropy", metrics=[])
    return made


def main() -> None:
    """Train the asked model."""
    given = asked()
    if given.quality or given.model not in ("MLP", "DeepFM", "DCNv2"):
        raise SystemExit(f"DeepCTR-Torch is measured on MLP, DeepFM, DCNv2, but got {given.model}")
    torch.set_num_threads(given.threads)
    codes, dense, label = arrays(given.folder, "train")
    found = facts(given.folder)
    x = {f["name"]: np.array(codes[:, i]) for i, f in enumerate(found["sparse"])}
    x |= {name: np.array(dense[:, i]) for i, name in enumerate(found["dense"])}
    made = model(given)
    meter = Meter(len(label), given.batch)
    made.optim.register_step_post_hook(meter.stop)
    fit = {"batch_size": given.batch, "epochs": 10**6, "verbose": 0}
    measured(lambda: made.fit(x, np.array(label), **fit))


if __name__ == "__main__":
    main()
