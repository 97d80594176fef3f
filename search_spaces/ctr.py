"""Click prediction: the DAG space with the recipes that public CTR leaderboards are won with."""

from __future__ import annotations

from typing import ClassVar

from autorec.architecture import Node
from autorec.candidate import Candidate
from autorec.search_spaces._dag import DagSpace


class CtrSpace(DagSpace):
    """MLP, FM and DCNv2 crosses, combined freely, for binary labels.

    Starts: the published Frappe and Criteo recipes (Adam 1e-3, cut by 10 on a plateau, L2 on the
    whole table) at the strong, middle and weak end of that L2, its most sensitive setting.
    """

    name: ClassVar[str] = "ctr"

    def own_starts(self) -> list[tuple[str, Candidate]]:
        deep = Node(
            "mlp", args=(("width", 400), ("layers", 3), ("dropout", 0.2), ("norm", "batch"))
        )
        wet = Node("mlp", args=(("width", 400), ("layers", 3), ("dropout", 0.4), ("norm", "batch")))
        cross, fm = Node("cross", args=(("layers", 4),)), Node("fm")
        strong, middle, weak = (self.start_recipe(embedding_l2=l2) for l2 in (0.05, 1e-3, 1e-6))
        return [
            ("dnn", self.network([deep], strong)),
            ("dcnv2-middle", self.network([cross, wet], middle)),
            ("deepfm-weak", self.network([fm, deep], weak, linear=True)),
            ("dcnv2", self.network([cross, wet], strong)),
            ("dnn-wide", self.network([wet], strong, width=40)),
            ("deepfm", self.network([fm, deep], strong, linear=True)),
        ]
