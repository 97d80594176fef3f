"""The law of blocks: runs on every file of the folder, without a list."""

from __future__ import annotations

import itertools

import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from autorec.blocks.base import Fields, Flat
from autorec.catalogue import Catalogue
from autorec.seeding import numpy_rng
from autorec.space import sample_value

BLOCKS = Catalogue("autorec.blocks", leaf="Block")
WIRED = [name for name in BLOCKS.names() if BLOCKS.get(name).role == "interaction"]
SHAPES = {
    "flat": [[Flat(7)], [Flat(1)], [Flat(3), Flat(4)]],
    "field": [[Fields(4, 3)], [Fields(1, 3)], [Fields(2, 3), Fields(3, 3)]],
}


def settings(cls, rng):
    """Arguments drawn from the block's own choices, dropout off so that outputs can be compared."""
    drawn = {name: sample_value(gene, rng) for name, gene in cls.choices().items()}
    return {**drawn, **({"dropout": 0.0} if "dropout" in drawn else {})}


def made(name, shapes, seed):
    cls = BLOCKS.get(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return cls(shapes, **settings(cls, numpy_rng(seed, name)))


def inputs_of(shapes, rows, generator, dtype=torch.float32):
    sizes = [(s.fields, s.width) if isinstance(s, Fields) else (s.width,) for s in shapes]
    return [torch.randn(rows, *size, generator=generator, dtype=dtype) for size in sizes]


CASES = [
    (name, shapes, seed)
    for name in WIRED
    for shapes, seed in itertools.product(SHAPES[BLOCKS.get(name).reads], range(3))
]


@pytest.mark.parametrize(("name", "shapes", "seed"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_is_kept_and_every_parameter_learns(name, shapes, seed, dtype):
    block = made(name, shapes, seed).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    inputs = [part.requires_grad_() for part in inputs_of(shapes, 64, generator, dtype)]
    out = block(inputs)
    expected = block.shape
    size = (expected.fields, expected.width) if isinstance(expected, Fields) else (expected.width,)
    assert out.shape == (64, *size)
    assert out.dtype == dtype
    assert torch.isfinite(out).all()
    (out * torch.randn(out.shape, generator=generator, dtype=dtype)).sum().backward()
    for label, parameter in block.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, label


@pytest.mark.parametrize(("name", "shapes", "seed"), CASES)
def test_rows_do_not_mix_in_evaluation(name, shapes, seed):
    block = made(name, shapes, seed).eval()
    inputs = inputs_of(shapes, 9, torch.Generator().manual_seed(seed))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        whole, permuted = block(inputs), block([part[order] for part in inputs])
        alone = torch.cat([block([part[i : i + 1] for part in inputs]) for i in range(9)])
    torch.testing.assert_close(permuted, whole[order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "shapes", "seed"), CASES)
def test_flops_equal_the_counter_of_torch(name, shapes, seed):
    from torch.utils.flop_counter import FlopCounterMode

    block = made(name, shapes, seed).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block(inputs_of(shapes, 8, torch.Generator().manual_seed(seed)))
    # The counter sees matrix products only; elementwise work is at most a few passes over inputs.
    products, ours = counter.get_total_flops() / 8, block.flops()
    sizes = sum(s.size for s in shapes)
    assert products <= ours <= products + 4 * sizes * 8


@pytest.mark.parametrize("name", WIRED)
def test_choices_are_distributions_named_like_arguments(name):
    cls = BLOCKS.get(name)
    kinds = (CategoricalDistribution, FloatDistribution, IntDistribution)
    assert all(isinstance(gene, kinds) for gene in cls.choices().values())
    arguments = cls.__init__.__annotations__
    assert set(cls.choices()) <= set(arguments)


def test_new_block_file_is_found_without_an_edit(tmp_path, monkeypatch):
    import autorec.blocks

    source = (
        "from autorec.blocks.base import Block, Flat, join, joined\n"
        "class Pass(Block):\n"
        "    reads = 'flat'\n    gives = 'flat'\n"
        "    def __init__(self, shapes):\n"
        "        super().__init__()\n        self.shape = Flat(joined(shapes).size)\n"
        "    @classmethod\n    def choices(cls):\n        return {}\n"
        "    def flops(self):\n        return 0\n"
        "    def forward(self, inputs):\n        return join(inputs)\n"
    )
    (tmp_path / "passthrough.py").write_text(source)
    monkeypatch.setattr(autorec.blocks, "__path__", [*autorec.blocks.__path__, str(tmp_path)])
    assert "passthrough" in BLOCKS.names()
    assert BLOCKS.get("passthrough").__name__ == "Pass"
