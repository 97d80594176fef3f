"""The law of blocks: runs on every file of the folder, without a list."""

from __future__ import annotations

import pytest
import torch
from making import BLOCKS, CASES, SHAPES, WIRED, inputs_of, made, size_of, stirred
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from autorec.blocks.base import Fields


@pytest.mark.parametrize(("name", "shapes", "seed"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_is_kept_and_every_parameter_learns(name, shapes, seed, dtype):
    block = stirred(made(name, shapes, seed), seed).to(dtype)
    inputs = [part.requires_grad_() for part in inputs_of(shapes, 64, seed, dtype)]
    out = block(inputs)
    assert out.shape == (64, *size_of(block.shape))
    assert out.dtype == dtype
    assert torch.isfinite(out).all()
    generator = torch.Generator().manual_seed(seed)
    (out * torch.randn(out.shape, generator=generator, dtype=dtype)).sum().backward()
    for label, parameter in block.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), label
        assert parameter.grad.abs().sum() > 0 or hears_nothing(block), label


def hears_nothing(block):
    """With one field there is no pair: blocks of pairs may leave their weights without gradient."""
    fields = [shape for shape in block.shapes if isinstance(shape, Fields)]
    return bool(fields) and sum(shape.fields for shape in fields) == 1


@pytest.mark.parametrize(("name", "shapes", "seed"), CASES)
def test_rows_do_not_mix_in_evaluation(name, shapes, seed):
    block = stirred(made(name, shapes, seed), seed).eval()
    inputs = inputs_of(shapes, 9, seed)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        whole, permuted = block(inputs), block([part[order] for part in inputs])
        alone = torch.cat([block([part[i : i + 1] for part in inputs]) for i in range(9)])
    slack = 1e-5 * max(1.0, float(whole.abs().max()))
    torch.testing.assert_close(permuted, whole[order], rtol=1e-4, atol=slack)
    torch.testing.assert_close(alone, whole, rtol=1e-4, atol=slack)


@pytest.mark.parametrize(("name", "shapes", "seed"), CASES)
def test_bf16_autocast_is_near_float32(name, shapes, seed):
    block = stirred(made(name, shapes, seed), seed).eval()
    inputs = inputs_of(shapes, 32, seed)
    with torch.no_grad():
        expected = block(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        out = block([part.requires_grad_() for part in inputs])
    out.float().square().sum().backward()
    assert all(torch.isfinite(part.grad).all() for part in inputs)
    # bf16 keeps 8 bits; a few products in a row lose some of them.
    error = (out.float() - expected).square().mean().sqrt()
    assert error <= 0.05 * expected.square().mean().sqrt() + 1e-2


@pytest.mark.parametrize(("name", "shapes", "seed"), CASES)
def test_flops_equal_the_counter_of_torch(name, shapes, seed):
    from torch.utils.flop_counter import FlopCounterMode

    block = made(name, shapes, seed).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block(inputs_of(shapes, 8, seed))
    # The counter sees matrix products only; elementwise work is a few passes over what they give.
    products, ours = counter.get_total_flops() / 8, block.flops()
    assert products <= ours
    assert ours <= 2 * products + 100 * (sum(s.size for s in shapes) + block.shape.size)


@pytest.mark.parametrize(("name", "shapes", "seed"), CASES)
def test_weights_are_counted_in_closed_form(name, shapes, seed):
    block = made(name, shapes, seed)
    assert block.weights() == sum(parameter.numel() for parameter in block.parameters())


@pytest.mark.parametrize("name", WIRED)
def test_the_same_generator_gives_the_same_weights(name):
    shapes = SHAPES[BLOCKS.get(name).reads][0]
    first, second = made(name, shapes, 5), made(name, shapes, 5)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", WIRED)
def test_block_can_be_exported_with_a_free_batch(name):
    shapes = SHAPES[BLOCKS.get(name).reads][2]
    block = stirred(made(name, shapes, 1), 1).eval()
    batch = torch.export.Dim("batch", min=2)
    free = ([dict.fromkeys([0], batch) for _ in shapes],)
    program = torch.export.export(block, (inputs_of(shapes, 8, 0),), dynamic_shapes=free)
    inputs = inputs_of(shapes, 5, 1)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(inputs), block(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WIRED)
def test_state_returns_after_saving(name):
    shapes = SHAPES[BLOCKS.get(name).reads][0]
    block, other = stirred(made(name, shapes, 2), 2).eval(), made(name, shapes, 2).eval()
    other.load_state_dict(block.state_dict())
    inputs = inputs_of(shapes, 6, 0)
    with torch.no_grad():
        assert torch.equal(block(inputs), other(inputs))


@pytest.mark.parametrize("name", WIRED)
def test_choices_are_distributions_named_like_arguments(name):
    cls = BLOCKS.get(name)
    kinds = (CategoricalDistribution, FloatDistribution, IntDistribution)
    assert all(isinstance(gene, kinds) for gene in cls.choices().values())
    arguments = cls.__init__.__annotations__
    assert set(cls.choices()) <= set(arguments)
    assert set(cls.grows) <= set(cls.choices())
    block = made(name, SHAPES[cls.reads][0], 0)
    assert set(cls.choices()) <= set(block.arguments)
    assert block.shapes == tuple(SHAPES[cls.reads][0])


def test_new_block_file_is_found_without_an_edit(tmp_path, monkeypatch):
    import autorec.blocks

    source = (
        "from autorec.blocks.base import Block, Flat, join, joined\n"
        "class Pass(Block):\n"
        "    reads = 'flat'\n    gives = 'flat'\n"
        "    def __init__(self, shapes):\n"
        "        super().__init__(shapes)\n        self.shape = Flat(joined(shapes).size)\n"
        "    @classmethod\n    def choices(cls):\n        return {}\n"
        "    def flops(self):\n        return 0\n"
        "    def forward(self, inputs):\n        return join(inputs)\n"
    )
    (tmp_path / "passthrough.py").write_text(source)
    monkeypatch.setattr(autorec.blocks, "__path__", [*autorec.blocks.__path__, str(tmp_path)])
    assert "passthrough" in BLOCKS.names()
    assert BLOCKS.get("passthrough").__name__ == "Pass"
