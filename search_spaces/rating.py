"""Rating prediction: the DAG space with regularisation fitted to few ratings per user."""

from __future__ import annotations

from typing import ClassVar

from autorec.architecture import Node
from autorec.candidate import Candidate
from autorec.search_spaces._dag import DagSpace


class RatingSpace(DagSpace):
    """MLP, FM and DCNv2 crosses, combined freely, for numbers such as stars.

    Starts: a biased factorisation machine, and networks with strong L2 on the whole table: a rating
    log has tens of ratings per user, and unregularised tables memorise them in two epochs.
    """

    name: ClassVar[str] = "rating"

    def own_starts(self) -> list[tuple[str, Candidate]]:
        mlp = Node("mlp", args=(("width", 256), ("layers", 2), ("dropout", 0.3), ("norm", "none")))
        cross = Node("cross", args=(("layers", 2),))
        fm = Node("fm")
        strong, middle, weak = (self.start_recipe(embedding_l2=l2) for l2 in (0.05, 0.02, 5e-3))
        # Validation RMSE of DeepFM on MovieLens-100K, u1, over three splits, by width and L2:
        # 32/.02 .916, 32/.005 .919, 16/.005 .918, 16/.02 .919, 16/.05 .924, 8/.05 .927.
        return [
            ("deepfm", self.network([fm, mlp], middle, width=32, linear=True)),
            ("dnn", self.network([mlp], middle, width=32)),
            ("deepfm-weak", self.network([fm, mlp], weak, linear=True)),
            ("dcnv2", self.network([cross, mlp], strong, linear=True)),
            ("fm", self.network([fm], weak, linear=True)),
        ]
