"""Self-distillation against formulas written out, and the gradients that it must not send."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from autorec.errors import ConfigError
from autorec.train.distil import objective


class Two(nn.Module):
    """Two streams of a linear map each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maps = nn.Linear(3, 2)
        self.dropout = nn.Dropout(0.5)

    def streams(self, batch):
        return self.maps(batch.x)

    def forward(self, batch):
        return self.maps(self.dropout(batch.x)).mean(dim=1)


def batch(weighted=False):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(8, 3, generator=g)
    label = (torch.rand(8, generator=g) < 0.5).float()
    weight = torch.rand(8, generator=g) if weighted else None
    return SimpleNamespace(x=x, label=label, weight=weight)


@pytest.fixture
def task(click_data):
    return click_data.task


def entropy(logit, target, weight=None):
    p = torch.sigmoid(logit)
    rows = -(target * p.log() + (1 - target) * (1 - p).log())
    return rows.mean() if weight is None else (rows * weight).sum() / weight.sum()


@pytest.mark.parametrize("weighted", [False, True])
def test_streams_are_taught_by_their_mean(task, weighted):
    network, rows = Two(), batch(weighted)
    loss = objective(network, task, "streams")(rows)
    one, two = network.streams(rows).unbind(1)
    mean = (one + two) / 2
    teacher = torch.sigmoid(mean).detach()
    expected = entropy(mean, rows.label, rows.weight)
    expected = expected + entropy(one, teacher, rows.weight) + entropy(two, teacher, rows.weight)
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(loss, list(network.parameters()))
    theirs = torch.autograd.grad(expected, list(network.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_a_stream_is_taught_by_its_lag(task):
    network, rows = Two(), batch()
    loss = objective(network, task, "gap")(rows)
    one, two = network.streams(rows).unbind(1)
    whole = entropy((one + two) / 2, rows.label)
    expected = whole
    for stream in (one, two):
        own = entropy(stream, rows.label)
        expected = expected + max(0.0, float(own.detach() - whole.detach())) * own
    torch.testing.assert_close(loss, expected)


def test_two_passes_differ_by_dropout_and_agree_without(task):
    network, rows = Two(), batch()
    torch.manual_seed(3)
    loss = objective(network, task, "dropout")(rows)
    torch.manual_seed(3)
    one, two = network(rows), network(rows)
    assert not torch.equal(one, two)
    mean = (one + two) / 2
    teacher = torch.sigmoid(mean).detach()
    expected = entropy(mean, rows.label) + entropy(one, teacher) + entropy(two, teacher)
    torch.testing.assert_close(loss, expected)
    network.eval()
    plain = torch.autograd.grad(objective(network, task)(rows), list(network.parameters()))
    taught = torch.autograd.grad(
        objective(network, task, "dropout")(rows), list(network.parameters())
    )
    for a, b in zip(plain, taught, strict=True):  # a prediction has nothing to learn from itself
        torch.testing.assert_close(a, b)


def test_an_unknown_kind_is_refused(task):
    with pytest.raises(ConfigError, match="distil must be one of"):
        objective(Two(), task, "teacher")
