"""Batches: every row once an epoch, well mixed, with unknown ids now and then."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autorec.seeding import torch_generator
from autorec.train import batches as room
from autorec.train.batches import Batches, Rows, epoch_order


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("n", [1, 5, 40_000])
def test_an_epoch_is_a_permutation(n, sequential):
    pieces = list(epoch_order(n, torch_generator(0, "order"), sequential=sequential))
    assert torch.equal(torch.cat(pieces).sort().values, torch.arange(n))


def test_sequential_order_mixes_distant_rows(monkeypatch):
    monkeypatch.setattr(room, "_RUN", 100)
    monkeypatch.setattr(room, "_RUNS_TOGETHER", 8)
    order = torch.cat(list(epoch_order(10_000, torch_generator(0, "order"), sequential=True)))
    spread = [int(part.max() - part.min()) for part in order.split(256)]
    assert np.median(spread) > 5_000  # a batch reaches over half of the log
    neighbours = (order[1:] - order[:-1]).abs() == 1
    assert neighbours.float().mean() < 0.02


def test_batches_carry_matching_rows(click_data):
    made = Batches(click_data.train, 512, seed=0, oov_rate=0.0)
    seen = 0
    number, label = click_data.train.dense[:, 0], click_data.train.label
    pairs = {(float(x), float(y)) for x, y in zip(number, label) if not np.isnan(x)}
    for batch in made.epoch(0):
        seen += len(batch)
        for x, y in zip(batch.dense[:, 0].tolist(), batch.label.tolist()):
            assert np.isnan(x) or (x, y) in pairs
    assert seen == click_data.train.n_rows


def test_the_same_epoch_gives_the_same_batches_and_the_next_others(click_data):
    made = Batches(click_data.train, 512, seed=0)
    first, again, other = (next(iter(made.epoch(e))).codes for e in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_unknown_ids_are_shown_at_the_asked_rate_and_bins_never(click_data):
    made = Batches(click_data.train, 1000, seed=0, oov_rate=0.05)
    codes = torch.cat([batch.codes for epoch in range(10) for batch in made.epoch(epoch)])
    share = (codes[:, :2] == 1).float().mean()
    assert 0.04 < share < 0.06
    assert not (codes[:, 2] == 1).any()
    assert not (click_data.train.codes == 1).any()  # the stored rows stay as they are


def test_a_last_batch_of_one_row_is_left_out(click_data):
    rows = click_data.train.take(slice(0, 513))
    sizes = [len(batch) for batch in Batches(rows, 256, seed=0).epoch(0)]
    assert sizes == [256, 256]


def test_rows_in_order(click_data):
    rows = Rows(click_data.valid)
    parts = [batch.codes for batch in rows.in_order(700)]
    assert np.array_equal(torch.cat(parts).numpy(), click_data.valid.codes)
