"""Compile every launch of the real shapes for sm_90 and print its resources as JSON.

No GPU is needed: the launches are recorded instead of made, and Triton's own assembler and
disassembler read the result. A process of its own, without TRITON_INTERPRET.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from autorec.kernels import _law
from autorec.kernels._jit import Launch, recording

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
LOCAL = re.compile(r"\b(?:LDL|STL)\b")
WIDE = re.compile(r"\b(?:LDG|STG|LDGSTS)\.\S*128")


def launches(name: str) -> Iterator[Launch]:
    """Yield the launches of the real shapes of a kernel, forward and backward."""
    for case in _law.module(name).cases():
        for dtype in case.tolerance if case.shape_class else ():
            inputs = case.make(torch.Generator().manual_seed(0), dtype)
            with recording() as found:
                _law.run(_law.public(name), inputs, case, backend="triton")
            yield from found


def resources(launch: Launch) -> dict[str, Any]:
    """Compile one launch and return what it takes of a multiprocessor."""
    jitted = launch.kernel.jitted
    source = ASTSource(
        fn=jitted,
        signature=dict(zip(jitted.arg_names, _ordered(launch, jitted.arg_names))),
        constexprs={(jitted.arg_names.index(name),): value for name, value in launch.constants},
        attrs={(place,): [["tt.divisibility", 16]] for place in launch.aligned},
    )
    target = GPUTarget("cuda", 90, 32)
    built = triton.compile(source, target=target, options={"num_warps": launch.warps})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        usage, text = (_dump(what, file.name) for what in ("-res-usage", "-sass"))
    return {
        "registers": int(re.findall(r"REG:(\d+)", usage)[0]),
        "stack": int(re.findall(r"STACK:(\d+)", usage)[0]),
        "shared": built.metadata.shared,
        "warps": launch.warps,
        "spills": len(LOCAL.findall(text)),
        "wide": len(WIDE.findall(text)),
        "target": re.findall(r"\.target (\w+)", built.asm["ptx"])[0],
    }


def _ordered(launch: Launch, names: list[str]) -> list[str]:
    constants = {name for name, _ in launch.constants}
    kinds = iter([kind for kind in launch.signature if kind != "constexpr"])
    return ["constexpr" if name in constants else next(kinds) for name in names]


def _dump(what: str, path: str) -> str:
    command = [str(TOOLS / "cuobjdump"), what, path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Print {"triton": version, "kernels": {launch: resources}}."""
    found = {}
    for name in sys.argv[1:] or _law.kernels():
        for launch in launches(name):
            if launch.key not in found:
                found[launch.key] = resources(launch)
    print(json.dumps({"triton": triton.__version__, "kernels": found}, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
