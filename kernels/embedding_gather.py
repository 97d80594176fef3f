"""Rows of one stacked table for a batch of field ids, with the factorisation machine for free.

`out[b, f] = table[ids[b, f] + starts[f]]`, zero at an id below 0; with `fm`, also the second-order
term `pairs[b] = (|sum_f v|^2 - sum_f |v|^2) / 2` of Rendle (ICDM 2010) from the rows at hand.
Backward makes one gradient row per lookup, `g[b, f] + g_pairs[b] (sum_k v[b, k] - v[b, f])`; sums
accumulate in float32 (float64 for float64 tables), without atomics.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autorec.errors import ConfigError
from autorec.kernels._dispatch import choice, on_triton, op
from autorec.kernels._jit import Arg, blocks, constexpr, device, power_of_two, tl
from autorec.kernels._law import COPIES, SUMS, Case, Inputs
from autorec.kernels._sums import accumulator, dense_gradient, need_table

_KERNEL = "embedding_gather"


def embedding_gather(
    table: Tensor,
    ids: Tensor,
    starts: Tensor | None = None,
    *,
    fm: bool = False,
    dtype: torch.dtype | None = None,
    tap: Tensor | None = None,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the rows (B, F, D) of a batch and, with `fm`, their pair term (B, 1).

    A table that requires a gradient gets a dense one. To train large tables, pass
    `table.detach()` and a `row_tap`: after backward `tap.grad` (B, F, D) holds one gradient row a
    lookup, which `embedding_update_` takes. What a tap holds at an id below 0 means nothing.

    Args:
        table: (N, D), contiguous.
        ids: (B, F) int32 or int64; below 0 means no value, and gives zeros. An id outside the
            table raises IndexError on the CPU and is undefined on other devices.
        starts: (F,) first row of each field in the table; none: ids are rows.
        fm: also return the pair term.
        dtype: of the results; that of the table by default.
        tap: see above.
        backend: "torch", "triton" or "auto".

    Raises:
        ConfigError: shapes do not fit, or the table is not contiguous.
    """
    need_table(table)
    if ids.dim() != 2 or (starts is not None and starts.shape != ids.shape[1:]):
        raise ConfigError(
            f"ids must be (B, F) and starts (F,), got {tuple(ids.shape)} and "
            f"{None if starts is None else tuple(starts.shape)}; give one start a column of ids"
        )
    if starts is None:
        starts = ids.new_zeros(ids.shape[1])
    options = {"fm": fm, "dtype": dtype or table.dtype, "backend": choice(backend)}
    rows, pairs = _forward(table, ids.contiguous(), starts, tap, **options)
    return (rows, pairs) if fm else rows


def row_tap(table: Tensor, ids: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a leaf (*ids.shape, D) of no memory; `.grad` becomes the gradient of each lookup."""
    zero = torch.zeros((), dtype=dtype or table.dtype, device=table.device)
    return zero.expand(*ids.shape, table.shape[1]).requires_grad_()


def reference(
    table: Tensor,
    ids: Tensor,
    starts: Tensor | None = None,
    *,
    fm: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Do the same in plain torch, field by field."""
    fields = []
    for number in range(ids.shape[1]):
        id_, start = ids[:, number], 0 if starts is None else int(starts[number])
        known = (id_ >= 0).unsqueeze(1)
        fields.append(torch.where(known, table[id_.clamp(min=0).long() + start], 0))
    rows = torch.stack(fields, dim=1).to(dtype or table.dtype)
    if not fm:
        return rows
    pairs = rows.sum(1).square() - rows.square().sum(1)
    return rows, 0.5 * pairs.sum(1, keepdim=True)


def cases() -> list[Case]:
    """Return the shapes that the law is held to."""
    shapes = [(7, 3, 16), (130, 5, 8), (1, 1, 1), (33, 4, 10), (64, 2, 64), (0, 3, 8), (5, 6, 100)]
    found = []
    for fm in (False, True):
        for b, f, d in shapes:
            make = _maker(b, f, d, fm=fm)
            bound = SUMS if fm else COPIES
            found.append(Case(f"b{b}f{f}d{d}{'fm' * fm}", make, bound, gradients=("table",)))
        both = {torch.float32: 5e-6, torch.bfloat16: 1e-2}
        for d, bound in ((16, both), (64, {torch.float32: 5e-6})):
            make = _maker(1024, 39, d, fm=fm)
            name = f"real_d{d}{'fm' * fm}"
            found.append(Case(name, make, bound, ("table",), shape_class=True))
    return found


def _maker(b: int, f: int, d: int, *, fm: bool) -> Any:
    def make(generator: torch.Generator, dtype: torch.dtype) -> Inputs:
        size = 11
        ids = torch.randint(-1, size, (b, f), generator=generator, dtype=torch.int32)
        table = torch.randn(size * f, d, generator=generator, dtype=torch.float64)
        starts = torch.arange(f, dtype=torch.int32) * size
        return {"table": table.to(dtype), "ids": ids, "starts": starts, "fm": fm}

    return make


@op("gather_forward")
def _forward(
    table: Tensor,
    ids: Tensor,
    starts: Tensor,
    tap: Tensor | None,
    *,
    fm: bool,
    dtype: torch.dtype,
    backend: str,
) -> tuple[Tensor, Tensor]:
    (batch, fields), width = ids.shape, table.shape[1]
    if not on_triton(_KERNEL, table, backend):
        return _forward_torch(table, ids, starts, fm, dtype)
    rows = table.new_empty((batch, fields, width), dtype=dtype)
    pairs = table.new_empty((batch, int(fm)), dtype=dtype)
    block, wide = _tile(width)
    sizes = {"D": width, "BB": block, "BD": wide, "FM": fm, "DOUBLE": table.dtype == torch.float64}
    arguments = (table, ids, starts, rows, pairs if fm else rows, batch, fields)
    _gather.launch(blocks(batch, block), *arguments, **sizes)
    return rows, pairs


@_forward.register_fake  # type: ignore[untyped-decorator]
def _(table: Tensor, ids: Tensor, *_: Any, fm: bool, dtype: torch.dtype, **__: Any) -> Any:
    rows = table.new_empty((*ids.shape, table.shape[1]), dtype=dtype)
    return rows, table.new_empty((ids.shape[0], int(fm)), dtype=dtype)


def _forward_torch(
    table: Tensor, ids: Tensor, starts: Tensor, fm: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    keys = ids + starts
    if ids.device.type == "cpu" and ids.numel() and int(ids.amin()) >= 0:
        rows = torch.embedding(table, keys)
    else:
        missing = ids < 0
        rows = torch.embedding(table, keys.masked_fill(missing, 0))
        rows = rows.masked_fill_(missing.unsqueeze(2), 0)
    rows = rows.to(dtype)
    if not fm:
        return rows, rows.new_empty((ids.shape[0], 0))
    exact = accumulator(dtype)
    squares = rows.to(exact).square().sum(1)
    pairs = rows.sum(1, dtype=exact).square_().sub_(squares).sum(1).mul_(0.5)
    return rows, pairs.unsqueeze(1).to(dtype)


@op("gather_backward")
def _backward(rows: Tensor, grad: Tensor, grad_pairs: Tensor, backend: str) -> Tensor:
    batch, fields, width = rows.shape
    if not on_triton(f"{_KERNEL} backward", rows, backend):
        exact = accumulator(rows.dtype)
        others = rows.sum(1, keepdim=True, dtype=exact) - rows
        return others.mul_(grad_pairs.unsqueeze(2)).add_(grad).to(rows.dtype)
    found = torch.empty_like(rows)
    block, wide = _tile(width)
    sizes = {"D": width, "BB": block, "BD": wide, "DOUBLE": rows.dtype == torch.float64}
    arguments = (rows, grad.contiguous(), grad_pairs.contiguous(), found, batch, fields)
    _gather_backward.launch(blocks(batch, block), *arguments, **sizes)
    return found


@_backward.register_fake  # type: ignore[untyped-decorator]
def _(rows: Tensor, grad: Tensor, grad_pairs: Tensor, backend: str) -> Tensor:
    return torch.empty_like(rows)


def _setup(
    ctx: Any,
    inputs: tuple[Any, ...],
    keyword_only_inputs: dict[str, Any],
    output: tuple[Tensor, Tensor],
) -> None:
    table, ids, starts, tap = inputs
    ctx.fm, ctx.backend = keyword_only_inputs["fm"], keyword_only_inputs["backend"]
    ctx.n, ctx.dtype, ctx.tapped = table.shape[0], table.dtype, tap is not None
    ctx.save_for_backward(ids, starts, *([output[0]] if ctx.fm else []))


def _gradients(ctx: Any, grad: Tensor, grad_pairs: Tensor) -> tuple[Any, ...]:
    ids, starts, *rows = ctx.saved_tensors
    if rows:
        grad = _backward(rows[0], grad, grad_pairs, ctx.backend)
    dense = None
    if ctx.needs_input_grad[0]:
        keys = torch.where(ids < 0, -1, ids + starts)
        dense = dense_gradient(grad, keys, ctx.n, ctx.dtype)
    tapped = grad if ctx.tapped else None
    return dense, None, None, tapped


_forward.register_autograd(_gradients, setup_context=_setup)


def _tile(width: int) -> tuple[int, int]:
    """Return (samples, padded width) of a program: about 2,048 numbers a field."""
    wide = power_of_two(width)
    return max(min(2048 // wide, 128), 4), wide


@device
def _gather(
    table: Arg,
    ids: Arg,
    starts: Arg,
    out: Arg,
    pairs: Arg,
    batch: Arg,
    fields: Arg,
    D: constexpr,
    BB: constexpr,
    BD: constexpr,
    FM: constexpr,
    DOUBLE: constexpr,
) -> None:
    exact = tl.float64 if DOUBLE else tl.float32
    b = tl.program_id(0).to(tl.int64) * BB + tl.arange(0, BB)
    d = tl.arange(0, BD)
    inside = b < batch
    keep = inside[:, None] & (d < D)[None, :]
    total = tl.zeros((BB, BD), exact)
    squares = tl.zeros((BB, BD), exact)
    for f in tl.range(0, fields, num_stages=4):
        found = tl.load(ids + b * fields + f, mask=inside, other=-1).to(tl.int64)
        row = found + tl.load(starts + f).to(tl.int64)
        known = keep & (found >= 0)[:, None]
        v = tl.load(table + row[:, None] * D + d[None, :], mask=known, other=0.0)
        v = v.to(exact).to(out.dtype.element_ty)
        tl.store(out + (b * fields + f)[:, None] * D + d[None, :], v, mask=keep)
        if FM:
            total += v.to(exact)
            squares += v.to(exact) * v.to(exact)
    if FM:
        value = tl.sum(total * total - squares, axis=1) * 0.5
        tl.store(pairs + b, value.to(pairs.dtype.element_ty), mask=inside)


@device
def _gather_backward(
    rows: Arg,
    grad: Arg,
    grad_pairs: Arg,
    found: Arg,
    batch: Arg,
    fields: Arg,
    D: constexpr,
    BB: constexpr,
    BD: constexpr,
    DOUBLE: constexpr,
) -> None:
    exact = tl.float64 if DOUBLE else tl.float32
    b = tl.program_id(0).to(tl.int64) * BB + tl.arange(0, BB)
    d = tl.arange(0, BD)
    inside = b < batch
    keep = inside[:, None] & (d < D)[None, :]
    at = b[:, None] * fields * D + d[None, :]
    total = tl.zeros((BB, BD), exact)
    for f in tl.range(0, fields, num_stages=4):
        total += tl.load(rows + at + f * D, mask=keep, other=0.0).to(exact)
    scale = tl.load(grad_pairs + b, mask=inside, other=0.0).to(exact)[:, None]
    for f in tl.range(0, fields, num_stages=4):
        v = tl.load(rows + at + f * D, mask=keep, other=0.0).to(exact)
        g = tl.load(grad + at + f * D, mask=keep, other=0.0).to(exact)
        g = g + scale * (total - v)
        tl.store(found + at + f * D, g.to(found.dtype.element_ty), mask=keep)
