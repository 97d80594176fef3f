"""Architectures of the literature as points of the space, with the recipes they were tuned with.

Widths, depths, dropout and L2 are the best of the public grids for Frappe (BARS, `frappe_x1`, batch
4096, D = 10), chosen there by validation AUC; where a grid names no value that this space has (a
dropout of 0.6), the nearest is taken. QNN has the settings of its authors' log for Frappe (D = 16).
Architectures without a public run there (DCNv3, LiRank) get the settings of their papers with the
L2 that the others share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from autorec.architecture import Node
from autorec.candidate import Candidate

if TYPE_CHECKING:
    from autorec.search_spaces._points import PointsSpace

_WIDTH = 10
Make = Callable[["PointsSpace"], Candidate]


def named(space: PointsSpace) -> dict[str, Candidate]:
    """Return every named architecture whose blocks `space` holds."""
    found = {}
    for name, (kinds, make) in _MAKERS.items():
        fits = space.blocks >= _BLOCKS.get(name, 2)
        if fits and set(kinds) <= set(space.classes):
            found[name] = make(space)
    return found


def _deep(space: PointsSpace, dropout: float, *inputs: int | str, norm: str = "batch") -> Node:
    """Return the MLP of 3 x 400 that nearly every public grid ends with."""
    return space.node("mlp", *inputs, width=400, layers=3, dropout=dropout, norm=norm)


def _made(
    space: PointsSpace,
    l2: float,
    *nodes: Node,
    linear: bool = False,
    distil: str = "none",
    width: int = _WIDTH,
) -> Candidate:
    recipe = space.start_recipe(embedding_l2=l2, distil=distil)
    return space.network(nodes, recipe, width=width, linear=linear)


def _lr(s: PointsSpace) -> Candidate:
    return _made(s, 1e-5, linear=True)


def _fm(s: PointsSpace) -> Candidate:
    return _made(s, 5e-6, s.node("fm"), linear=True)


def _dnn(s: PointsSpace) -> Candidate:
    return _made(s, 0.05, _deep(s, 0.2))


def _wide_deep(s: PointsSpace) -> Candidate:
    return _made(s, 0.1, _deep(s, 0.5), linear=True)


def _deepfm(s: PointsSpace) -> Candidate:
    return _made(s, 0.05, s.node("fm"), _deep(s, 0.2), linear=True)


def _dcn(s: PointsSpace) -> Candidate:
    return _made(s, 0.05, s.node("cross_v1", layers=3), _deep(s, 0.2))


def _dcnv2(s: PointsSpace) -> Candidate:
    return _made(s, 0.05, s.node("cross", layers=4), _deep(s, 0.4))


def _xdeepfm(s: PointsSpace) -> Candidate:
    return _made(s, 0.1, s.node("cin", maps=64, layers=1), _deep(s, 0.2), linear=True)


def _autoint(s: PointsSpace) -> Candidate:
    attention = s.node(
        "autoint", layers=5, heads=4, width=32, dropout=0.1, scale=True, norm="layer"
    )
    return _made(s, 0.1, attention, _deep(s, 0.1))


def _fibinet(s: PointsSpace) -> Candidate:
    gate = s.node("senet", reduction=2)
    plain = s.node("bilinear", kind="all")
    weighted = s.node("bilinear", 0, kind="all")
    return _made(s, 0.05, gate, plain, weighted, _deep(s, 0.3, 1, 2), linear=True)


def _pnn(s: PointsSpace) -> Candidate:
    return _made(s, 0.05, s.node("inner_product"), _deep(s, 0.3, *s.inputs, 0, norm="none"))


def _masknet(s: PointsSpace) -> Candidate:
    masks = s.node("mask", blocks=3, width=50, reduction=2.0, dropout=0.1, normed=False)
    return _made(s, 0.1, masks, _deep(s, 0.1, 0, norm="none"))


def _finalmlp(s: PointsSpace) -> Candidate:
    streams = s.node(
        "two_stream",
        width1=400,
        layers1=1,
        dropout1=0.4,
        width2=100,
        layers2=1,
        dropout2=0.4,
        norm="batch",
        heads=5,
        gate="fields",
        gate_width=400,
    )
    return _made(s, 0.05, streams)


def _finalnet(s: PointsSpace) -> Candidate:
    def block(layers: int, *inputs: int | str) -> Node:
        return s.node("factorized", *inputs, layers=layers, width=400, dropout=0.1, norm="batch")

    gate = s.node("field_gate")
    return _made(s, 0.1, gate, block(1, 0), block(2), distil="streams")


def _edcn(s: PointsSpace) -> Candidate:
    both = s.node("edcn", layers=3, bridge="hadamard", temperature=5.0, dropout=0.3, norm="batch")
    return _made(s, 0.05, both)


def _destine(s: PointsSpace) -> Candidate:
    attention = s.node("destine", layers=4, heads=1, width=128, scale=True)
    return _made(s, 0.05, attention, _deep(s, 0.2))


def _qnn(s: PointsSpace) -> Candidate:
    block = s.node("qnn", layers=2, heads=13, dropout=0.1, norm="batch")
    return _made(s, 0.1, block, distil="dropout", width=16)


def _dcnv3(s: PointsSpace) -> Candidate:
    # Of the settings of its authors' MovieLens log, with the L2 that validation chose on Frappe.
    cross = s.node("cross_exponential", layers=3, dropout=0.2, norm="batch")
    shallow = s.node("cross_linear", layers=4, dropout=0.1, norm="batch")
    return _made(s, 0.05, cross, shallow, distil="gap", width=16)


def _lirank(s: PointsSpace) -> Candidate:
    cross = s.node("cross_residual", layers=2, rank=32)
    gated = s.node("gated_mlp", width=400, layers=3, dropout=0.2, norm="batch")
    return _made(s, 0.05, cross, gated)


_MAKERS: dict[str, tuple[tuple[str, ...], Make]] = {
    "LR": ((), _lr),
    "FM": (("fm",), _fm),
    "DNN": (("mlp",), _dnn),
    "Wide&Deep": (("mlp",), _wide_deep),
    "DeepFM": (("fm", "mlp"), _deepfm),
    "DCN": (("cross_v1", "mlp"), _dcn),
    "DCNv2": (("cross", "mlp"), _dcnv2),
    "xDeepFM": (("cin", "mlp"), _xdeepfm),
    "AutoInt+": (("autoint", "mlp"), _autoint),
    "FiBiNET": (("senet", "bilinear", "mlp"), _fibinet),
    "PNN": (("inner_product", "mlp"), _pnn),
    "MaskNet": (("mask", "mlp"), _masknet),
    "FinalMLP": (("two_stream",), _finalmlp),
    "FinalNet": (("field_gate", "factorized"), _finalnet),
    "EDCN": (("edcn",), _edcn),
    "DESTINE": (("destine", "mlp"), _destine),
    "QNN": (("qnn",), _qnn),
    "DCNv3": (("cross_exponential", "cross_linear"), _dcnv3),
    "LiRank": (("cross_residual", "gated_mlp"), _lirank),
}
# Blocks that an architecture needs, where it is not 1 or 2.
_BLOCKS = {"LR": 1, "FM": 1, "DNN": 1, "FiBiNET": 4, "FinalNet": 3}
