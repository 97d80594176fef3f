"""The shapes that all contenders train: plain numbers, so that every process reads the same ones.

Frappe: the best of the public grids (BARS, `frappe_x1`), regularised. Criteo-shaped: what papers
mostly report, 400-400-400 and three full cross layers at D = 16, without dropout or normalisation.
"""

from __future__ import annotations

from typing import Any

MODELS = ("MLP", "DeepFM", "DCNv2", "FinalMLP", "AutoInt")

_DEEP: dict[str, Any] = {"units": 400, "layers": 3}

_FRAPPE: dict[str, dict[str, Any]] = {
    "MLP": {**_DEEP, "dropout": 0.2, "l2": 0.05},
    "DeepFM": {**_DEEP, "dropout": 0.2, "l2": 0.05},
    "DCNv2": {**_DEEP, "dropout": 0.4, "cross": 4, "l2": 0.05},
    "FinalMLP": {
        "first": 400,
        "second": 100,
        "dropout": 0.4,
        "heads": 5,
        "fs": "fields",
        "gate": 400,
    },
    "AutoInt": {**_DEEP, "dropout": 0.1, "attention": 5, "heads": 4, "width": 32, "l2": 0.1},
}
_CRITEO: dict[str, dict[str, Any]] = {
    "MLP": _DEEP,
    "DeepFM": _DEEP,
    "DCNv2": {**_DEEP, "cross": 3},
    "FinalMLP": {"first": 400, "second": 400, "heads": 10, "fs": "learned", "gate": 400},
    "AutoInt": {**_DEEP, "attention": 2, "heads": 2, "width": 32},
}


def shape(data: str, model: str) -> dict[str, Any]:
    """Return what a contender needs to know to train `model` on `data` (frappe or criteo).

    Sizes, dropout, batch norm, learning rate, and `l2`, the factor in the gradient: l2 times the
    table is added to it in every step.
    """
    if data == "frappe":
        return {"embedding": 10, "l2": 0.05, "norm": True, "lr": 1e-3, **_FRAPPE[model]}
    base = {"embedding": 16, "l2": 1e-5, "norm": False, "dropout": 0.0, "lr": 1e-3}
    return {**base, **_CRITEO[model]}


def products(data: str, model: str, fields: int) -> list[tuple[int, int]]:
    """Return (inputs, outputs) of the matrix products of a model that reads `fields` fields."""
    s = shape(data, model)
    size = fields * s["embedding"]
    if model == "FinalMLP":
        return [(size, s["first"]), (size, s["second"])]
    found = [(size, s["units"]), (s["units"], s["units"])]
    return [*found, (size, size)] if model == "DCNv2" else found
