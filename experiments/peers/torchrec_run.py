"""TorchRec as a contender: its tables, crosses and perceptrons on one CPU.

Variants: `dense` (EmbeddingBagCollection under torch's Adam, the L2 as its weight decay) and
`fused` (fbgemm's tables with row-wise Adagrad inside the backward pass, another algorithm, without
L2; widths are multiples of four). TorchRec brings modules, not a trainer, so the loop is the short
one of its documentation. It has neither FinalMLP nor AutoInt.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from _contender import Asked, Meter, arrays, asked, facts, measured, seeded
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.modules.crossnet import CrossNet
from torchrec.modules.deepfm import FactorizationMachine
from torchrec.modules.mlp import MLP


class DenseTables(nn.Module):
    """One table a field, gradients over all rows."""

    def __init__(self, rows: list[int], width: int) -> None:
        super().__init__()
        self.keys = [f"C{i}" for i in range(len(rows))]
        tables = [
            EmbeddingBagConfig(
                name=f"t{i}", embedding_dim=width, num_embeddings=n, feature_names=[self.keys[i]]
            )
            for i, n in enumerate(rows)
        ]
        self.bags = EmbeddingBagCollection(tables=tables)

    def forward(self, codes: Tensor) -> Tensor:
        lengths = torch.ones(codes.numel(), dtype=torch.int32)
        looked = KeyedJaggedTensor(self.keys, codes.t().reshape(-1), lengths=lengths)
        found: Tensor = self.bags(looked).values()
        return found


class FusedTables(nn.Module):
    """All tables in one operator that updates the rows of a batch in its backward pass."""

    def __init__(self, rows: list[int], width: int) -> None:
        super().__init__()
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            EmbeddingLocation,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        here = (EmbeddingLocation.HOST, ComputeDevice.CPU)
        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            [(n, width, *here) for n in rows],
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=0.05,
            eps=1e-8,
            pooling_mode=PoolingMode.SUM,
            device=torch.device("cpu"),
        )
        for weights in self.tables.split_embedding_weights():
            weights.data.normal_(std=0.01)

    def forward(self, codes: Tensor) -> Tensor:
        found: Tensor = self.tables(codes.t().reshape(-1), torch.arange(codes.numel() + 1))
        return found


class Ranker(nn.Module):
    """Tables, numbers embedded as value times a vector, a perceptron, and what the model adds."""

    def __init__(self, given: Asked) -> None:
        super().__init__()
        found, s = facts(given.folder), given.shape
        rows, width = [field["rows"] for field in found["sparse"]], s["embedding"]
        tables = FusedTables if given.variant == "fused" else DenseTables
        self.tables = tables(rows, width)
        # fbgemm's rows are multiples of four wide: there one weight an id is the sum of four.
        weights = 4 if given.variant == "fused" else 1
        self.first = tables(rows, weights) if given.model == "DeepFM" else None
        self.width = width
        self.numbers = nn.Parameter(torch.randn(len(found["dense"]), width) * 0.05)
        size = (len(rows) + len(found["dense"])) * width
        self.deep = perceptron(size, [s["units"]] * s["layers"], s["norm"], s["dropout"])
        self.cross = CrossNet(size, s["cross"]) if given.model == "DCNv2" else None
        self.fm = FactorizationMachine() if given.model == "DeepFM" else None
        self.out = nn.Linear(s["units"] + (size if self.cross else 0), 1)

    def forward(self, codes: Tensor, dense: Tensor) -> Tensor:
        numbers = (dense.unsqueeze(2) * self.numbers).flatten(1)
        read = torch.cat([numbers, self.tables(codes)], dim=1)
        deep = self.deep(read)
        if self.cross is not None:
            deep = torch.cat([self.cross(read), deep], dim=1)
        out = self.out(deep).squeeze(1)
        if self.fm is not None and self.first is not None:
            fields = read.view(len(read), -1, self.width)
            pairs = fields.sum(1).square() - fields.square().sum(1)
            out = out + 0.5 * pairs.sum(1) + self.first(codes).sum(1)
        return out


def perceptron(size: int, units: list[int], norm: bool, dropout: float) -> nn.Module:
    """Return TorchRec's perceptron; torch's own layers where batch norm or dropout is asked."""
    if not norm and not dropout:
        return MLP(size, units)
    steps: list[nn.Module] = []
    for inner, outer in pairwise([size, *units]):
        steps += [nn.Linear(inner, outer), nn.BatchNorm1d(outer), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*steps)


def optimisers(given: Asked, model: Ranker) -> list[torch.optim.Optimizer]:
    """Return Adam over the network and, where no kernel updates them, the tables."""
    tables = [model.tables, *([model.first] if model.first is not None else [])]
    own = [p for part in tables for p in part.parameters()]
    taken = {id(p) for p in own}
    rest = [p for p in model.parameters() if id(p) not in taken]
    groups: list[dict[str, Any]] = [{"params": rest}]
    if given.variant != "fused":
        groups.append({"params": own, "weight_decay": given.shape["l2"]})
    return [torch.optim.Adam(groups, lr=given.shape["lr"])]


def train(given: Asked, model: Ranker, meter: Meter) -> None:
    """Train until the meter says enough."""
    codes, dense, label = (torch.from_numpy(np.array(a)) for a in arrays(given.folder, "train"))
    codes = codes.long()
    (optimiser,) = optimisers(given, model)
    while True:
        for index in torch.randperm(len(codes)).split(given.batch):
            optimiser.zero_grad()
            out = model(codes[index], dense[index])
            loss = nn.functional.binary_cross_entropy_with_logits(out, label[index])
            loss.backward()
            optimiser.step()
            meter.stop()


def main() -> None:
    """Train the asked model."""
    given = asked()
    if given.quality or given.model not in ("MLP", "DeepFM", "DCNv2"):
        raise SystemExit(f"TorchRec is measured on MLP, DeepFM and DCNv2, but got {given.model}")
    if given.variant == "fused" and given.shape["embedding"] % 4:
        raise SystemExit(f"fbgemm wants widths of 4 n, but got {given.shape['embedding']}")
    torch.set_num_threads(given.threads)
    meter = Meter(facts(given.folder)["rows"]["train"], given.batch)
    with seeded()(given.seed, "torchrec"):
        model = Ranker(given)
        measured(lambda: train(given, model, meter))


if __name__ == "__main__":
    main()
