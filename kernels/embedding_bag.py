"""Pooled bags: sums or means of the table rows of each bag.

`out[s] = sum_j w_j table[ids_j]` over the lookups j of bag s; `mean` divides by the number of ids
that are not below 0; an empty bag gives zeros. Backward makes one gradient row per lookup,
`w_j g[s] / n_s`, and for weights `g[s] . table[ids_j]`. Sums accumulate in float32 (float64 for
float64 tables) in the order of the bag, without atomics.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autorec.errors import ConfigError
from autorec.kernels._dispatch import choice, on_triton, op
from autorec.kernels._jit import Arg, blocks, constexpr, device, power_of_two, tl
from autorec.kernels._law import SUMS, Case, Inputs
from autorec.kernels._sums import accumulator, dense_gradient, need_table

_KERNEL = "embedding_bag"


def embedding_bag(
    table: Tensor,
    ids: Tensor,
    bounds: Tensor,
    weights: Tensor | None = None,
    *,
    mean: bool = False,
    tap: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Return the pooled rows (S, D) of S bags.

    Gradients of the table are as in `embedding_gather`: dense when it requires one, one row a
    lookup in the gradient (E, D) of a `row_tap`.

    Args:
        table: (N, D), contiguous.
        ids: (E,) int32 or int64 rows of all lookups; below 0 means no value.
        bounds: (S + 1,) where each bag begins in `ids`; from 0 to E.
        weights: (E,) a factor for each lookup; not with `mean`.
        mean: divide by the number of values.
        tap: a `row_tap(table, ids)`.
        backend: "torch", "triton" or "auto".

    Raises:
        ConfigError: shapes do not fit, the table is not contiguous, or weights meet `mean`.
    """
    need_table(table)
    if ids.dim() != 1 or bounds.dim() != 1 or not len(bounds):
        raise ConfigError(
            f"ids must be (E,) and bounds (S + 1,), got {tuple(ids.shape)} and "
            f"{tuple(bounds.shape)}; flatten the bags and give their boundaries"
        )
    if weights is not None and (mean or weights.shape != ids.shape):
        raise ConfigError(
            f"weights must be (E,) = {tuple(ids.shape)} and only for sums, got "
            f"{tuple(weights.shape)} with mean={mean}; divide the weights for a weighted mean"
        )
    given = (table, ids.contiguous(), bounds.contiguous(), weights, tap)
    out: Tensor = _forward(*given, mean=mean, backend=choice(backend))
    return out


def reference(
    table: Tensor,
    ids: Tensor,
    bounds: Tensor,
    weights: Tensor | None = None,
    *,
    mean: bool = False,
) -> Tensor:
    """Do the same in plain torch, bag by bag and lookup by lookup."""
    out = []
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        total, count = table[:0].sum(0), 0
        for j in range(begin, end):
            if ids[j] >= 0:
                row = table[int(ids[j])]
                total, count = total + (row if weights is None else weights[j] * row), count + 1
        out.append(total / max(count, 1) if mean else total)
    return torch.stack(out) if out else table[:0]


def cases() -> list[Case]:
    """Return the shapes that the law is held to."""
    found = []
    for kind in ("sum", "mean", "weighted"):
        names = ("table", "weights") if kind == "weighted" else ("table",)
        for bags, longest, d in [(9, 4, 8), (1, 1, 1), (6, 30, 10), (40, 3, 64), (5, 0, 4)]:
            make = _maker(bags, longest, d, kind)
            found.append(Case(f"{kind}_s{bags}l{longest}d{d}", make, SUMS, names))
        make = _maker(512, 50, 64 if kind == "weighted" else 16, kind)
        found.append(Case(f"{kind}_real", make, {torch.float32: 5e-6}, names, shape_class=True))
    return found


def _maker(bags: int, longest: int, d: int, kind: str) -> Any:
    def make(generator: torch.Generator, dtype: torch.dtype) -> Inputs:
        lengths = torch.randint(0, longest + 1, (bags,), generator=generator)
        bounds = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(torch.int32)
        size = int(bounds[-1])
        ids = torch.randint(-1, 17, (size,), generator=generator, dtype=torch.int32)
        table = torch.randn(17, d, generator=generator, dtype=torch.float64).to(dtype)
        found = {"table": table, "ids": ids, "bounds": bounds, "mean": kind == "mean"}
        if kind == "weighted":
            drawn = torch.randn(size, generator=generator, dtype=torch.float64)
            found["weights"] = drawn.to(dtype)
        return found

    return make


@op("bag_forward")
def _forward(
    table: Tensor,
    ids: Tensor,
    bounds: Tensor,
    weights: Tensor | None,
    tap: Tensor | None,
    *,
    mean: bool,
    backend: str,
) -> Tensor:
    if not on_triton(_KERNEL, table, backend):
        return _forward_torch(table, ids, bounds, weights, mean)
    bags, width = len(bounds) - 1, table.shape[1]
    out = table.new_empty((bags, width))
    sizes = _sizes(table, weights, 1024) | {"MEAN": mean}
    arguments = (table, ids, bounds, table if weights is None else weights.contiguous(), out, bags)
    _bag.launch(blocks(bags, sizes["BB"]), *arguments, **sizes)
    return out


@_forward.register_fake  # type: ignore[untyped-decorator]
def _(table: Tensor, ids: Tensor, bounds: Tensor, *_: Any, **__: Any) -> Tensor:
    return table.new_empty((bounds.shape[0] - 1, table.shape[1]))


def _forward_torch(
    table: Tensor, ids: Tensor, bounds: Tensor, weights: Tensor | None, mean: bool
) -> Tensor:
    known = ids >= 0
    wide = table.to(accumulator(table.dtype))
    factors = known.to(wide.dtype) if weights is None else weights.to(wide.dtype) * known
    named = {"mode": "sum", "per_sample_weights": factors, "include_last_offset": True}
    pooled: Any = torch.nn.functional.embedding_bag
    out: Tensor = pooled(ids.clamp(min=0), wide, bounds.to(ids.dtype), **named)
    if mean:
        out = out / _counts(ids, bounds).unsqueeze(1)
    return out.to(table.dtype)


def _counts(ids: Tensor, bounds: Tensor) -> Tensor:
    """Return the number of values of each bag (S,), at least 1."""
    before = torch.nn.functional.pad((ids >= 0).cumsum(0), (1, 0))[bounds.long()]
    return before.diff().clamp(min=1)


@op("bag_backward")
def _backward(
    table: Tensor,
    ids: Tensor,
    bounds: Tensor,
    weights: Tensor | None,
    grad: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Return gradient rows (E, D) and gradients of the weights (E,), or (0,) without weights."""
    places = torch.arange(len(ids), device=ids.device, dtype=bounds.dtype)
    bag = torch.searchsorted(bounds[1:].contiguous(), places, right=True)
    if not on_triton(f"{_KERNEL} backward", table, backend):
        rows = grad.index_select(0, bag)
        if weights is None:
            return rows, rows.new_empty(0)
        exact = accumulator(table.dtype)
        looked = torch.embedding(table, ids.clamp(min=0))
        by_weight = (rows.to(exact) * looked).sum(1).masked_fill_(ids < 0, 0)
        return rows * weights.unsqueeze(1), by_weight.to(weights.dtype)
    width, size = table.shape[1], len(ids)
    rows = grad.new_empty((size, width))
    by_weight = grad.new_empty(0) if weights is None else torch.empty_like(weights)
    sizes = _sizes(table, weights, 2048)
    arguments = (table, ids, bag, table if weights is None else weights.contiguous())
    outputs = (grad.contiguous(), rows, rows if weights is None else by_weight, size)
    _bag_backward.launch(blocks(size, sizes["BB"]), *arguments, *outputs, **sizes)
    return rows, by_weight


@_backward.register_fake  # type: ignore[untyped-decorator]
def _(table: Tensor, ids: Tensor, bounds: Tensor, weights: Any, grad: Tensor, backend: str) -> Any:
    by_weight = grad.new_empty(0) if weights is None else torch.empty_like(weights)
    return grad.new_empty((ids.shape[0], table.shape[1])), by_weight


def _setup(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Tensor
) -> None:
    table, ids, bounds, weights, tap = inputs
    ctx.mean, ctx.backend = keyword_only_inputs["mean"], keyword_only_inputs["backend"]
    ctx.tapped = tap is not None
    ctx.save_for_backward(table, ids, bounds, weights)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    table, ids, bounds, weights = ctx.saved_tensors
    if ctx.mean:
        grad = grad / _counts(ids, bounds).unsqueeze(1).to(grad.dtype)
    rows, by_weight = _backward(table, ids, bounds, weights, grad, ctx.backend)
    dense = None
    if ctx.needs_input_grad[0]:
        dense = dense_gradient(rows, ids, len(table), table.dtype)
    tapped = rows if ctx.tapped else None
    return dense, None, None, None if weights is None else by_weight, tapped


_forward.register_autograd(_gradients, setup_context=_setup)


def _sizes(table: Tensor, weights: Tensor | None, numbers: int) -> dict[str, Any]:
    """Return the constants of a program with about `numbers` numbers in its tile."""
    wide = power_of_two(table.shape[1])
    block = max(min(numbers // wide, 64), 2)
    sizes: dict[str, Any] = {"D": table.shape[1], "BB": block, "BD": wide}
    return sizes | {"WEIGHTED": weights is not None, "DOUBLE": table.dtype == torch.float64}


@device
def _bag(
    table: Arg,
    ids: Arg,
    bounds: Arg,
    weights: Arg,
    out: Arg,
    bags: Arg,
    D: constexpr,
    BB: constexpr,
    BD: constexpr,
    WEIGHTED: constexpr,
    DOUBLE: constexpr,
    MEAN: constexpr,
) -> None:
    exact = tl.float64 if DOUBLE else tl.float32
    s = tl.program_id(0).to(tl.int64) * BB + tl.arange(0, BB)
    d = tl.arange(0, BD)
    inside = s < bags
    begin = tl.load(bounds + s, mask=inside, other=0).to(tl.int64)
    end = tl.load(bounds + s + 1, mask=inside, other=0).to(tl.int64)
    total = tl.zeros((BB, BD), exact)
    count = tl.zeros((BB,), exact)
    for k in range(0, tl.max(end - begin, axis=0)):
        live = begin + k < end
        row = tl.load(ids + begin + k, mask=live, other=-1).to(tl.int64)
        known = row >= 0
        mask = known[:, None] & (d < D)[None, :]
        v = tl.load(table + row[:, None] * D + d[None, :], mask=mask, other=0.0).to(exact)
        if WEIGHTED:
            v = v * tl.load(weights + begin + k, mask=live, other=0.0).to(exact)[:, None]
        total += v
        count += known.to(exact)
    if MEAN:
        total = total / tl.maximum(count, 1.0)[:, None]
    keep = inside[:, None] & (d < D)[None, :]
    tl.store(out + s[:, None] * D + d[None, :], total.to(out.dtype.element_ty), mask=keep)


@device
def _bag_backward(
    table: Arg,
    ids: Arg,
    bag: Arg,
    weights: Arg,
    grad: Arg,
    rows: Arg,
    by_weight: Arg,
    size: Arg,
    D: constexpr,
    BB: constexpr,
    BD: constexpr,
    WEIGHTED: constexpr,
    DOUBLE: constexpr,
) -> None:
    exact = tl.float64 if DOUBLE else tl.float32
    j = tl.program_id(0).to(tl.int64) * BB + tl.arange(0, BB)
    d = tl.arange(0, BD)
    inside = j < size
    keep = inside[:, None] & (d < D)[None, :]
    s = tl.load(bag + j, mask=inside, other=0)
    g = tl.load(grad + s[:, None] * D + d[None, :], mask=keep, other=0.0).to(exact)
    if WEIGHTED:
        row = tl.load(ids + j, mask=inside, other=-1).to(tl.int64)
        mask = keep & (row >= 0)[:, None]
        v = tl.load(table + row[:, None] * D + d[None, :], mask=mask, other=0.0).to(exact)
        dot = tl.sum(g * v, axis=1)
        tl.store(by_weight + j, dot.to(by_weight.dtype.element_ty), mask=inside)
        g = g * tl.load(weights + j, mask=inside, other=0.0).to(exact)[:, None]
    tl.store(rows + j[:, None] * D + d[None, :], g.to(rows.dtype.element_ty), mask=keep)
