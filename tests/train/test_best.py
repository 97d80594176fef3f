"""The best weights come back bit for bit, from memory and from a file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autorec.train import best as room
from autorec.train.best import Best


def module(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(50, 7), nn.BatchNorm1d(7), nn.Linear(7, 3).bfloat16())


def filled(target: nn.Module, value: float) -> None:
    with torch.no_grad():
        for tensor in target.state_dict().values():
            tensor.fill_(value)


@pytest.mark.parametrize("limit", [0, 1000, 1 << 30])
def test_what_was_kept_last_comes_back(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(room, "IN_MEMORY", limit)
    monkeypatch.setattr(room, "_PIECE", 96)
    net, best = module(0), Best()
    assert not best
    best.keep(net)
    assert best and bool(best.files) == (limit < 1 << 30)
    held = {name: tensor.data_ptr() for name, tensor in best.kept.items()}
    net.load_state_dict(module(1).state_dict())
    wanted = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    best.keep(net)
    assert held == {name: tensor.data_ptr() for name, tensor in best.kept.items()}
    filled(net, 9.0)
    best.restore(net)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, wanted[name])
    assert not best
