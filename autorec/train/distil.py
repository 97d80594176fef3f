"""What a training step minimises: the task's loss, alone or with a network's own prediction as a
second teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autorec.build import Network
from autorec.errors import ConfigError
from autorec.tasks.base import Task

# A batch to its mean loss, a float32 scalar.
Objective = Callable[[Any], Tensor]


def objective(network: Network, task: Task, kind: str = "none") -> Objective:
    """Return what a step minimises on a batch.

    Args:
        network: batch -> outputs (B,), and `streams` (B, S).
        task: gives the loss l(output, label) and turns outputs into predictions.
        kind: `"none"`: l(mean, y). With outputs o_s per row and p the prediction of their mean, not
            differentiated: `"streams"` adds sum_s l(o_s, p), the streams' outputs being taught by
            their mean (FinalNet, SIGIR 2023); `"dropout"` does so with the outputs of two passes
            under different dropout (QNN, 2024); `"gap"` adds sum_s w_s l(o_s, y) with
            w_s = max(0, l(o_s, y) - l(mean, y)), so that a stream is taught by its lag (DCNv3,
            2024).

    Raises:
        ConfigError: `kind` is none of these.
    """
    made: dict[str, Objective] = {
        "none": lambda batch: task.loss(network(batch), batch.label, batch.weight),
        "streams": lambda batch: _taught(task, network.streams(batch), batch),
        "dropout": lambda batch: _taught(task, _two_passes(network, batch), batch),
        "gap": lambda batch: _by_lag(task, network.streams(batch), batch),
    }
    if kind not in made:
        raise ConfigError(f"distil must be one of {sorted(made)}, but got {kind!r}")
    return made[kind]


def _two_passes(network: Network, batch: Any) -> Tensor:
    return torch.stack([network(batch), network(batch)], dim=1)


def _taught(task: Task, outputs: Tensor, batch: Any) -> Tensor:
    mean = outputs.mean(dim=1)
    loss = task.loss(mean, batch.label, batch.weight)
    teacher = task.predict(mean.detach())
    for one in outputs.unbind(1):
        loss = loss + task.loss(one, teacher, batch.weight)
    return loss


def _by_lag(task: Task, outputs: Tensor, batch: Any) -> Tensor:
    loss = task.loss(outputs.mean(dim=1), batch.label, batch.weight)
    total = loss
    for one in outputs.unbind(1):
        own = task.loss(one, batch.label, batch.weight)
        total = total + (own - loss).detach().clamp(min=0) * own
    return total
