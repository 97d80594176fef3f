"""Exponential moving average of the weights, used for evaluation in their place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Decay:
    """How much of an average a step keeps: at most `rate`, less at first, when the average would
    still be the initial weights.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._logs = torch.zeros(1, dtype=torch.float64)

    def at(self, step: int) -> float:
        """Return the share kept at `step`, from 1."""
        return min(self.rate, (1 + step) / (10 + step))

    def since(self, last: Tensor, step: int) -> Tensor:
        """Return what is kept, float64 (R,), of averages made at steps `last` (R,) at `step`."""
        if step >= len(self._logs):
            steps = torch.arange(1, 2 * step + 2, dtype=torch.float64)
            kept = ((1 + steps) / (10 + steps)).clamp(max=self.rate)
            self._logs = torch.cat([torch.zeros(1, dtype=torch.float64), kept.log().cumsum(0)])
        logs = self._logs.to(last.device)
        return torch.exp(logs[step] - logs[last.long()])


class Average:
    """The average of some parameters; those of id tables are kept by the tables."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: Decay) -> None:
        self.decay = decay
        self.live = [p.detach() for p in parameters]
        self.shadow = [p.clone() for p in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after `step` in."""
        torch._foreach_lerp_(self.shadow, self.live, 1 - self.decay.at(step))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their average."""
        for live, shadow in zip(self.live, self.shadow, strict=True):
            held = live.clone()
            live.copy_(shadow)
            shadow.copy_(held)
