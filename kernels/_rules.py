"""Optimiser rules of table rows, in torch and on the device; shared by update and catch-up.

One step of a row with weights w, gradient G, learning rate lr and c steps taken with this one:
G' = G + l2 w; w' = w (1 - lr weight_decay); then

    sgd               w' - lr G'
    adagrad           v += G'^2;                        w' - lr G' / (sqrt(v) + eps)
    rowwise_adagrad   v += mean_d G'^2, one number;     the same
    adam              m, v decayed means of G', G'^2;   w' - lr m^ / (sqrt(v^) + eps)
    rowwise_adam      v of mean_d G'^2, one number;     the same

with m^ = m / (1 - beta1^c) and v^ likewise (Duchi et al., JMLR 2011; Kingma and Ba, ICLR 2015;
Loshchilov and Hutter, ICLR 2019 for weight_decay).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from autorec.errors import ConfigError
from autorec.kernels._adam import fused_adam_, one_age
from autorec.kernels._jit import Arg, constexpr, device, tl

ALGOS = ("sgd", "adagrad", "rowwise_adagrad", "adam", "rowwise_adam")
_SECOND = {"sgd": "none", "rowwise_adagrad": "row", "rowwise_adam": "row"}


@dataclass(frozen=True)
class Rule:
    """How a row is updated.

    Attributes:
        algo: one of `ALGOS`.
        eps: added to the root.
        beta1: decay of the first moment.
        beta2: decay of the second.
        l2: added to the gradient as l2 * w, after clipping and scaling.
        weight_decay: decoupled, times the learning rate.
    """

    algo: str
    eps: float = 1e-8
    beta1: float = 0.9
    beta2: float = 0.999
    l2: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.algo not in ALGOS:
            raise ConfigError(
                f"a rule of table rows must be one of {', '.join(ALGOS)}, got {self.algo!r}; "
                "choose one of them"
            )
        for name in ("beta1", "beta2"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ConfigError(
                    f"{name} must lie between 0 and 1, got {getattr(self, name)}; use 0.9 or 0.999"
                )

    @property
    def adaptive(self) -> bool:
        """Whether the rule keeps a first moment."""
        return self.algo.endswith("adam")

    def replayed(self, dtype: torch.dtype) -> int:
        """Return how many missed steps change an untouched row by more than rounding.

        Decay of any kind goes on for ever (-1). Without it a row of Adam drifts by the ratio of
        its moments, which shrinks by beta1 / sqrt(beta2) a step: 174 steps in float32.
        """
        shrinks = self.beta1 / math.sqrt(self.beta2)
        if self.l2 or self.weight_decay or (self.adaptive and shrinks >= 1):
            return -1
        if not self.adaptive:
            return 0
        exact = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32)
        return math.ceil(math.log(exact.eps / 10) / math.log(shrinks))


class State(NamedTuple):
    """What an optimiser keeps of a table (N, D).

    Attributes:
        first: first moment (N, D), or (0, D) for a rule without one.
        second: second moment (N, D), one number a row (N, 1), or (0, 1).
        steps: (N,) int32 steps taken by each row: its bias correction.
        last: (N,) int32 step of the run up to which each row is done.
    """

    first: Tensor
    second: Tensor
    steps: Tensor
    last: Tensor


def new_state(table: Tensor, algo: str, *, step: int = 0) -> State:
    """Return the state of fresh rows (N, D): nothing seen, `step` steps of the run gone by.

    Rows that a table gains at a later step get their own state with that `step`, appended by
    `torch.cat`: their counters start at 0 and their bias correction is that of a new weight.
    Moments are float32, or float64 for a float64 table.

    Raises:
        ConfigError: no such rule.
    """
    Rule(algo)
    n, d = table.shape
    exact = torch.float64 if table.dtype == torch.float64 else torch.float32
    kind = _SECOND.get(algo, "full")
    shape = {"none": (0, 1), "row": (n, 1), "full": (n, d)}[kind]
    return State(
        table.new_zeros((n if algo.endswith("adam") else 0, d), dtype=exact),
        table.new_zeros(shape, dtype=exact),
        torch.zeros(n, dtype=torch.int32, device=table.device),
        torch.full((n,), step, dtype=torch.int32, device=table.device),
    )


class Rows(NamedTuple):
    """Rows taken out of a table and its state: w (R, D), first, second, steps (R, 1)."""

    w: Tensor
    first: Tensor
    second: Tensor
    steps: Tensor

    def head(self, n: int) -> Rows:
        """Return views of the first `n` rows."""
        return Rows(*(part[:n] for part in self))


def advance(rows: Rows, g: Tensor | None, lr: Tensor, rule: Rule) -> None:
    """Take one step in place.

    Args:
        rows: to change; of the dtype of sums.
        g: gradient (R, D); none: zero.
        lr: learning rate (R, 1) or (1,).
        rule: see the top of this file.
    """
    if rule.algo == "adam" and not rule.weight_decay and lr.numel() == 1:
        age = one_age(rows.w, rows.steps)
        if age is not None:
            rows.steps.add_(1)
            betas, moments = (rule.beta1, rule.beta2), (rows.first, rows.second)
            named = {"lr": float(lr), "betas": betas, "eps": rule.eps, "l2": rule.l2}
            fused_adam_(rows.w, g, moments, step=age + 1, **named)  # type: ignore[arg-type]
            return
    _advance(rows, g, lr, rule)


def _advance(rows: Rows, g: Tensor | None, lr: Tensor, rule: Rule) -> None:
    w, first, second, count = rows
    if rule.l2:
        g = w * rule.l2 if g is None else g.add(w, alpha=rule.l2)
    if rule.weight_decay:
        w.mul_(1 - lr * rule.weight_decay)
    count.add_(1)
    if rule.adaptive:
        first.mul_(rule.beta1)
        second.mul_(rule.beta2)
    if g is not None and rule.algo != "sgd":
        if second.shape[1] != w.shape[1]:
            square = g.square().mean(1, keepdim=True)
            second.add_(square, alpha=1 - rule.beta2 if rule.adaptive else 1.0)
        else:
            second.addcmul_(g, g, value=1 - rule.beta2 if rule.adaptive else 1.0)
        if rule.adaptive:
            first.add_(g, alpha=1 - rule.beta1)
    if rule.adaptive:
        c = count.to(torch.float64)
        small = -torch.expm1(c * math.log(rule.beta1))
        root = (-torch.expm1(c * math.log(rule.beta2))).sqrt()
        bottom = second.sqrt().div_(root.to(w.dtype)).add_(rule.eps)
        w.sub_(((lr / small).to(w.dtype) * first).div_(bottom))
    elif g is not None and rule.algo == "sgd":
        w.sub_(lr * g)
    elif g is not None:
        w.sub_((lr * g).div_(second.sqrt().add_(rule.eps)))


def plain_step(rows: Rows, g: Tensor, lr: float, rule: Rule) -> Rows:
    """Do what `advance` does for one row (1, D), out of place and formula by formula."""
    w, m, v, count = rows
    c = count + 1
    g = g + rule.l2 * w
    kept = w * (1 - lr * rule.weight_decay)
    square = (g**2).mean(1, keepdim=True) if rule.algo.startswith("rowwise") else g**2
    if rule.algo == "sgd":
        return Rows(kept - lr * g, m, v, c)
    if rule.algo.endswith("adagrad"):
        v = v + square
        return Rows(kept - lr * g / (v.sqrt() + rule.eps), m, v, c)
    m = rule.beta1 * m + (1 - rule.beta1) * g
    v = rule.beta2 * v + (1 - rule.beta2) * square
    steps = int(c)
    m_hat, v_hat = m / (1 - rule.beta1**steps), v / (1 - rule.beta2**steps)
    return Rows(kept - lr * m_hat / (v_hat.sqrt() + rule.eps), m, v, c)


def take(table: Tensor, state: State, rows: Tensor) -> Rows:
    """Return copies of the rows (R,) in the dtype of sums."""
    exact = torch.float64 if table.dtype == torch.float64 else torch.float32
    first, second = (
        part.index_select(0, rows) if len(part) else part.new_zeros((len(rows), part.shape[1]))
        for part in state[:2]
    )
    count = state.steps.index_select(0, rows).unsqueeze(1)
    return Rows(table.index_select(0, rows).to(exact), first, second, count)


def put(table: Tensor, state: State, rows: Tensor, found: Rows) -> None:
    """Write what `take` took back."""
    table.index_copy_(0, rows, found.w.to(table.dtype))
    for whole, part in zip(state[:2], found[1:3], strict=True):
        if len(whole):
            whole.index_copy_(0, rows, part)
    state.steps.index_copy_(0, rows, found.steps.squeeze(1))


def history(lr: float | Tensor, table: Tensor) -> Tensor:
    """Return learning rates (1,) or (steps + 1,) on the device of the table."""
    if isinstance(lr, Tensor):
        return lr
    exact = torch.float64 if table.dtype == torch.float64 else torch.float32
    return torch.full((1,), lr, dtype=exact, device=table.device)


def at_step(step: int | Tensor, table: Tensor) -> Tensor:
    """Return the step as a tensor (1,) int32 on the device of the table."""
    if isinstance(step, Tensor):
        return step
    return torch.full((1,), step, dtype=torch.int32, device=table.device)


def device_sizes(table: Tensor, rule: Rule) -> dict[str, Any]:
    """Return the constants that the device code of a rule is compiled for."""
    return {
        "D": table.shape[1],
        "ALGO": ALGOS.index(rule.algo),
        "EPS": rule.eps,
        "B1": rule.beta1,
        "B2": rule.beta2,
        "DOUBLE": table.dtype == torch.float64,
    }


@device
def device_bias(c: Arg, BETA: constexpr) -> Arg:
    """1 - BETA^c in float64: in float32 the difference loses four digits at the first step."""
    decay = tl.log(tl.full(c.shape, BETA, tl.float64))
    return 1 - tl.exp(c.to(tl.float64) * decay)


@device
def device_step(
    w: Arg,
    m: Arg,
    v: Arg,
    g: Arg,
    c: Arg,
    lr: Arg,
    l2: Arg,
    decay: Arg,
    D: constexpr,
    ALGO: constexpr,
    EPS: constexpr,
    B1: constexpr,
    B2: constexpr,
) -> Arg:
    """One step of tiles w, m, g (R, D), v (R, D) or (R, 1), c and lr (R, 1)."""
    g = g + l2 * w
    w = w * (1 - lr * decay)
    square = g * g
    if ALGO == 2 or ALGO == 4:
        square = (tl.sum(square, axis=1) / D)[:, None]
    if ALGO == 0:
        w = w - lr * g
    elif ALGO <= 2:
        v = v + square
        w = w - lr * g / (tl.sqrt(v) + EPS)
    else:
        m = B1 * m + (1 - B1) * g
        v = B2 * v + (1 - B2) * square
        small = device_bias(c, B1).to(w.dtype)
        large = device_bias(c, B2).to(w.dtype)
        w = w - lr * (m / small) / (tl.sqrt(v / large) + EPS)
    return w, m, v
