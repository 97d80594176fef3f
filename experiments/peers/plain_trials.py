"""What a user writes without AutoRec: Optuna's TPE over a PyTorch loop, one epoch a trial.

plain_trials.py FOLDER SEED SECONDS ROWS PREFIX: reads the encoded rows of a run folder, shares a
journal there with other workers, and notes when each trial ended. ROWS of a trial; 0: one epoch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import torch
from _contender import ROOT, seeded
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(ROOT))

from autorec.run import Run


class Net(nn.Module):
    """Embeddings, a perceptron and, where layers are asked, full crosses beside it."""

    def __init__(self, sizes: list[int], trial: optuna.Trial) -> None:
        super().__init__()
        width = trial.suggest_int("embedding", 4, 64, log=True)
        units = trial.suggest_int("units", 32, 1024, log=True)
        dropout = trial.suggest_float("dropout", 0.0, 0.5, step=0.1)
        norm = trial.suggest_categorical("norm", ["none", "batch", "layer"])
        self.tables = nn.ModuleList(nn.Embedding(n, width) for n in sizes)
        for table in self.tables:
            nn.init.normal_(table.weight, std=1e-4)
        size = width * len(sizes)
        steps: list[nn.Module] = []
        inner = size
        for _ in range(trial.suggest_int("layers", 1, 4)):
            steps.append(nn.Linear(inner, units))
            if norm != "none":
                steps.append(nn.BatchNorm1d(units) if norm == "batch" else nn.LayerNorm(units))
            steps += [nn.ReLU(), nn.Dropout(dropout)]
            inner = units
        self.deep = nn.Sequential(*steps)
        layers = trial.suggest_int("cross", 0, 4)
        self.cross = nn.ModuleList(nn.Linear(size, size) for _ in range(layers))
        self.out = nn.Linear(units + (size if layers else 0), 1)

    def forward(self, codes: Tensor) -> Tensor:
        read = torch.cat([table(codes[:, i]) for i, table in enumerate(self.tables)], dim=1)
        deep = self.deep(read)
        if len(self.cross):
            crossed = read
            for layer in self.cross:
                crossed = read * layer(crossed) + crossed
            deep = torch.cat([crossed, deep], dim=1)
        return self.out(deep).squeeze(1)


def rows(run: Run, part: str) -> TensorDataset:
    """Return codes and labels of a part."""
    columns = run.columns(part)
    codes = torch.from_numpy(np.array(columns.codes)).long()
    return TensorDataset(codes, torch.from_numpy(np.array(columns.label)))


def one(trial: optuna.Trial, sizes: list[int], train: TensorDataset, valid: TensorDataset) -> float:
    """Train one epoch and return the validation AUC."""
    net = Net(sizes, trial)
    batch = trial.suggest_categorical("batch", [256, 1024, 4096, 16384])
    l2 = trial.suggest_float("l2", 1e-9, 0.3, log=True)
    lr = trial.suggest_float("lr", 2e-4, 1e-2, log=True)
    tables = list(net.tables.parameters())
    rest = [p for name, p in net.named_parameters() if not name.startswith("tables")]
    adam = torch.optim.Adam([{"params": tables, "weight_decay": l2}, {"params": rest}], lr=lr)
    net.train()
    for codes, label in DataLoader(train, batch_size=batch, shuffle=True):
        adam.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(net(codes), label)
        loss.backward()
        adam.step()
    net.eval()
    with torch.no_grad():
        outputs = torch.cat([net(codes) for codes, _ in DataLoader(valid, batch_size=8192)])
    return float(roc_auc_score(valid.tensors[1].numpy(), outputs.numpy()))


def main() -> None:
    """Search until the time is over."""
    folder, seed, seconds, most, prefix = Path(sys.argv[1]), *sys.argv[2:6]
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run = Run.open(folder)
    train, valid = rows(run, "train"), rows(run, "valid")
    if int(most):
        train = TensorDataset(*train[torch.randperm(len(train))[: int(most)]])
    sizes = [field.rows for field in run.columns("train").layout.sparse]
    notes = folder / f"{prefix}{os.getpid()}.jsonl"

    def noted(trial: optuna.Trial) -> float:
        auc = one(trial, sizes, train, valid)
        note = {"at": time.time(), "cpu": time.process_time(), "auc": auc}
        with notes.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")
        return auc

    study = optuna.create_study(
        study_name=f"plain-{seed}",
        storage=JournalStorage(JournalFileBackend(str(folder / "plain.journal"))),
        sampler=optuna.samplers.TPESampler(seed=int(seed) + os.getpid()),
        direction="maximize",
        load_if_exists=True,
    )
    with seeded()(int(seed), "plain", os.getpid()):
        study.optimize(noted, timeout=float(seconds))


if __name__ == "__main__":
    main()
