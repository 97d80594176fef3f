"""Dropout whose mask costs a tenth of PyTorch's on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 1 << 16


class Dropout(nn.Module):
    """Zero each entry with probability `rate` in training and scale the others by 1 / (1 - rate).

    On CPU a 64-bit draw serves four entries, at a rate rounded to 1 / 65,536: (4096, 400) takes 3
    ms instead of 37 (one core of an AMD EPYC, torch 2.13, 2026-11-22), where the matrix product
    before it takes 46. Elsewhere PyTorch's own is used. The mask comes from the global generator,
    as that of `torch.nn.Dropout` does.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        return x * keep_mask(x, self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


@torch.no_grad()
def keep_mask(like: Tensor, rate: float) -> Tensor:
    """Return a tensor shaped like `like` of zeros, with probability `rate`, and 1 / (1 - rate)."""
    dropped = min(_LEVELS - 1, round(rate * _LEVELS))
    count = like.numel()
    drawn = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    levels = drawn.view(torch.int16)[:count].view(like.shape)
    mask = torch.empty(like.shape, dtype=like.dtype)
    torch.ge(levels, dropped - _LEVELS // 2, out=mask)
    return mask.mul_(_LEVELS / (_LEVELS - dropped))
