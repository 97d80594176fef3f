"""What kernels of tables share: the check of a table, the dtype of sums, dense gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from autorec.errors import ConfigError


def need_table(table: Tensor) -> None:
    """Raise ConfigError unless `table` is a contiguous (N, D)."""
    if table.dim() != 2 or not table.is_contiguous():
        raise ConfigError(
            f"the table must be a contiguous (N, D) tensor, got shape {tuple(table.shape)} with "
            f"strides {table.stride()}; a table is never copied, make it contiguous once"
        )


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which sums of `dtype` are kept."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def dense_gradient(rows: Tensor, keys: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    """Return (n, D) in `dtype`: sums of gradient rows (*keys.shape, D) by key, -1 left out."""
    wide = rows.to(accumulator(dtype))
    found: Tensor = torch.ops.aten.embedding_dense_backward(wide, keys.long(), n, -1, False)
    return found.to(dtype)
