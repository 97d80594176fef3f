"""What every kernel shares: the choice of a backend, operators that compilers trust, launches."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from autorec.errors import ConfigError
from autorec.kernels import _dispatch, embedding_bag, embedding_gather, embedding_plan
from autorec.kernels._dispatch import choice, on_triton, report, use
from autorec.kernels._jit import blocks, power_of_two, recording
from autorec.kernels._rules import Rule, new_state
from autorec.kernels.embedding_gather import row_tap
from autorec.kernels.embedding_update import embedding_update_, row_sums
from autorec.seeding import torch_generator

IDS = torch.tensor([[0, 3], [2, -1], [0, 3]])


def _table(n: int = 5, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=torch_generator(0, "table"), dtype=torch.float64)


def test_the_room_imports_no_triton() -> None:
    code = (
        "import sys; from autorec.kernels import _law; "
        "[_law.module(name) for name in _law.kernels()]; print('triton' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_argument_beats_context_beats_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choice(None) == "auto"
    monkeypatch.setenv("AUTOREC_KERNELS", "torch")
    assert choice(None) == "torch"
    with use("triton"):
        assert choice(None) == "triton"
        assert choice("auto") == "auto"
    assert choice(None) == "torch"


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be one of auto, torch, triton, got 'cuda'; leave"):
        choice("cuda")


def test_triton_on_cpu_tensors_needs_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(
        ConfigError, match=r"on CUDA tensors, got one on cpu; use backend=\"torch\""
    ):
        embedding_gather.embedding_gather(_table(), IDS, backend="triton")


def test_a_refused_shape_warns_once_and_raises_when_strict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_dispatch, "_warned", set())
    with pytest.warns(UserWarning, match="k runs in torch: too wide"):
        assert not on_triton("k", IDS, "triton", refused="too wide")
    assert not on_triton("k", IDS, "triton", refused="too wide")
    monkeypatch.setenv("AUTOREC_KERNELS_STRICT", "1")
    with pytest.raises(ConfigError, match="STRICT=1, but too wide"):
        on_triton("k", IDS, "triton", refused="too wide")


def test_the_report_counts_calls() -> None:
    before = report().get(("embedding_gather", "torch"), 0)
    embedding_gather.embedding_gather(_table(), IDS)
    assert report()["embedding_gather", "torch"] == before + 1


def _calls() -> dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    table, flat = _table().requires_grad_(), IDS.flatten()
    bounds, weights = torch.tensor([0, 2, 2, 6]), torch.rand(6, dtype=torch.float64)
    plan = list(embedding_plan.embedding_plan(IDS, n=5))
    return {
        "gather": (
            embedding_gather._forward,
            (table, IDS, torch.zeros(2, dtype=torch.int64), row_tap(table, IDS)),
            {"fm": True, "dtype": torch.float64, "backend": "auto"},
        ),
        "bag": (
            embedding_bag._forward,
            (table, flat, bounds, weights.requires_grad_(), None),
            {"mean": False, "backend": "auto"},
        ),
        "plan": (embedding_plan._plan, (IDS, None, 5), {}),
    } | {"sorted": (embedding_plan._plan, (plan[1], None, 6), {})}


@pytest.mark.parametrize("name", ["gather", "bag", "plan", "sorted"])
def test_operators_pass_the_checks_of_torch(name: str) -> None:
    op, args, named = _calls()[name]
    torch.library.opcheck(op, args, named)


def test_gradients_are_right_to_second_order_of_the_step() -> None:
    table = _table().requires_grad_()
    weights = torch.rand(6, dtype=torch.float64).requires_grad_()
    bounds = torch.tensor([0, 2, 2, 6])

    def gather(table: Tensor) -> Any:
        return embedding_gather.embedding_gather(table, IDS, fm=True)

    def bag(table: Tensor, weights: Tensor) -> Tensor:
        return embedding_bag.embedding_bag(table, IDS.flatten(), bounds, weights)

    assert torch.autograd.gradcheck(gather, (table,))
    assert torch.autograd.gradcheck(bag, (table, weights))


def test_pairs_are_the_sum_over_all_pairs() -> None:
    _, pairs = embedding_gather.embedding_gather(_table(), IDS, fm=True)
    rows = _table()[IDS.clamp(min=0)] * (IDS >= 0).unsqueeze(2)
    assert torch.allclose(pairs[:, 0], (rows[:, 0] * rows[:, 1]).sum(1))


@pytest.mark.parametrize("fm", [False, True])
def test_a_tap_holds_the_dense_gradient_row_by_row(fm: bool) -> None:
    dense = _table().requires_grad_()
    tap = row_tap(dense, IDS)
    for table, extra in ((dense, None), (dense.detach(), tap)):
        out = embedding_gather.embedding_gather(table, IDS, fm=fm, tap=extra)
        parts = out if isinstance(out, tuple) else (out,)
        sum((part.cos() * part).sum() for part in parts).backward()
    plan = embedding_plan.embedding_plan(IDS, n=5)
    assert tap.grad is not None and dense.grad is not None
    assert plan.rows[: int(plan.runs)].tolist() == [0, 2, 3]
    assert torch.allclose(row_sums(tap.grad, plan), dense.grad[[0, 2, 3]])
    assert not dense.grad[[1, 4]].any()


def test_duplicates_are_added_before_the_square() -> None:
    table, ids = torch.zeros(2, 1), torch.tensor([1, 1])
    state = new_state(table, "adagrad")
    plan = embedding_plan.embedding_plan(ids, n=2)
    grad = torch.tensor([[3.0], [-1.0]])
    embedding_update_(table, state, grad, plan, rule=Rule("adagrad"), lr=0.5, step=1)
    assert state.second.flatten().tolist() == [0.0, 4.0]
    assert table.flatten().tolist() == pytest.approx([0.0, -0.5])


def test_wrong_shapes_are_named() -> None:
    table, plan = _table(), embedding_plan.embedding_plan(IDS, n=5)
    with pytest.raises(ConfigError, match=r"contiguous \(N, D\) tensor, got shape \(3, 5\)"):
        embedding_gather.embedding_gather(table.T, IDS)
    with pytest.raises(ConfigError, match=r"starts \(F,\), got \(3, 2\) and \(3,\)"):
        embedding_gather.embedding_gather(table, IDS, torch.zeros(3))
    with pytest.raises(ConfigError, match="only for sums, got"):
        embedding_bag.embedding_bag(table, IDS[0], torch.tensor([0, 2]), torch.ones(2), mean=True)
    with pytest.raises(ConfigError, match="got 5 rows and 6 lookups"):
        state = new_state(table, "sgd")
        embedding_update_(table, state, table, plan, rule=Rule("sgd"), lr=0.1, step=1)
    with pytest.raises(ConfigError, match=r"must be one of sgd, adagrad.*got 'lamb'"):
        Rule("lamb")
    with pytest.raises(ConfigError, match=r"beta1 must lie .*, got 1\.0"):
        Rule("adam", beta1=1.0)


def test_what_is_replayed() -> None:
    assert Rule("adam").replayed(torch.float32) == 174
    assert Rule("adam").replayed(torch.float64) > 300
    assert Rule("sgd").replayed(torch.float32) == Rule("adagrad").replayed(torch.float32) == 0
    assert Rule("sgd", l2=0.1).replayed(torch.float32) == -1
    assert Rule("adam", beta1=0.9, beta2=0.5).replayed(torch.float32) == -1


def test_launches_are_recorded_instead_of_made() -> None:
    with recording() as found:
        embedding_gather.embedding_gather(_table().float(), IDS, fm=True, backend="triton")
    (launch,) = found
    assert launch.name == "embedding_gather._gather"
    assert launch.signature[:4] == ("*fp32", "*i64", "*i64", "*fp32")
    assert dict(launch.constants)["D"] == 3 and dict(launch.constants)["BD"] == 4


@pytest.mark.parametrize(("number", "power"), [(0, 1), (1, 1), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_powers_of_two(number: int, power: int) -> None:
    assert power_of_two(number) == power
    assert blocks(number, power) == (number > 0)
