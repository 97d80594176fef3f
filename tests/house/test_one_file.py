"""Adding a block is one file: in a copy of the project the laws and the space find it alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("autorec", "blocks", "graph", "kernels", "search_spaces", "tests", "pyproject.toml")
BLOCK = '''
"""Gated sum of two linear maps."""

from optuna.distributions import IntDistribution

from autorec.blocks.base import Block, Flat, join, joined, linear
from autorec.blocks.growth import Plan, longer, unheard


class Scratch(Block):
    """u * sigmoid(v) of two linear maps u, v: flat (B, d) to flat (B, width)."""

    reads = "flat"
    gives = "flat"
    grows = ("width",)

    def __init__(self, shapes, *, width: int = 16):
        super().__init__(shapes, width=width)
        self.size = joined(shapes).size
        self.u, self.v = linear(self.size, width), linear(self.size, width)
        self.shape = Flat(width)

    @classmethod
    def choices(cls):
        return {"width": IntDistribution(4, 32)}

    def flops(self):
        return 4 * self.size * self.shape.width

    def weights(self):
        return 2 * (self.size + 1) * self.shape.width

    def grow_into(self, grown, feed):
        units = longer(self.shape.width, grown.shape.width)
        tensors = {}
        for name in ("u", "v"):
            unheard(getattr(grown, name).weight, units, feed.units)
            tensors |= {f"{name}.weight": (units, feed.units), f"{name}.bias": (units,)}
        return Plan(tensors, units)

    def forward(self, inputs):
        x = join(inputs)
        return self.u(x) * self.v(x).sigmoid()
'''
ASK = """
from autorec.schema import Layout, SparseField
from autorec.search_spaces.ctr import CtrSpace
space = CtrSpace(Layout(sparse=(SparseField("a", 9, "a"),)))
print("scratch" in space.kinds, "block1.scratch.width" in space.genes)
"""


def test_a_new_block_touches_one_file_and_the_law_runs_on_it(tmp_path):
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, tmp_path / part, symlinks=True, ignore=ignore)
        else:
            shutil.copy(source, tmp_path / part)
    (tmp_path / "blocks" / "scratch.py").write_text(BLOCK)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(*words):
        return subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    laws = [f"tests/blocks/test_{law}_law.py" for law in ("block", "growth")]
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *laws, "-k", "scratch")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    passed = int(done.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed >= 60, done.stdout[-500:]
    assert run("-c", ASK).stdout.split() == ["True", "True"]
