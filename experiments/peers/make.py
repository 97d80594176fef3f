"""Make an environment for each peer, outside the repository, with torch's CPU build.

python experiments/peers/make.py                       # all, below ~/.cache/autorec-peers
python experiments/peers/make.py --only fuxictr torchrec --home elsewhere
python experiments/peers/make.py --zoo a/clone/of/FuxiCTR --torch-index https://.../whl/cpu

Versions are those that were seen to work together (Python 3.11). FuxiCTR's wheel leaves out most of
its model zoo, which is taken from its repository: a URL, or a clone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

TORCH = "torch==2.13.0"
# FuxiCTR 2.3.10 was released without a tag: the commit that its wheel was built from, or near it.
ZOO = "https://github.com/reczoo/FuxiCTR"
ZOO_COMMIT = "0245987fdc1d43c36164ea496a02324885a8557a"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
# Requirements beside torch, and those that are installed without what they require.
PEERS: dict[str, tuple[list[str], list[str]]] = {
    "fuxictr": (["fuxictr==2.3.10", "polars==1.33.1", "numpy==2.4.6"], []),
    # fbgemm 1.9 does not load on torch 2.13, and torchrec asks for the CUDA build by name.
    "torchrec": (
        ["numpy==2.4.6", "torchmetrics==1.0.3", "tensordict", "pyre-extensions", "tqdm"],
        ["torchrec==1.8.0", "fbgemm-gpu-cpu==1.8.0"],
    ),
    "deepctr-torch": (
        ["numpy==2.4.6", "pandas==3.1.1", "scikit-learn", "tqdm", "requests"],
        ["deepctr-torch==0.3.0"],
    ),
    "recbole": (["numpy==2.4.6", "pandas==3.1.1", "recbole==1.2.1"], []),
}


def make(name: str, home: Path, torch_index: str | None) -> Path:
    """Make the environment of a peer and return its folder; one that exists is completed."""
    folder = home / name
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    wanted, alone = PEERS[name]
    index = ["--index-url", torch_index] if torch_index else []
    subprocess.run([*install, *index, TORCH], check=True)
    subprocess.run([*install, TORCH, *wanted], check=True)
    if alone:
        subprocess.run([*install, "--no-deps", *alone], check=True)
    return folder


def copy_zoo(source: str, into: Path) -> None:
    """Put the folder `model_zoo` of FuxiCTR's repository at `ZOO_COMMIT` into `into`."""
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", source, clone], check=True)
        checkout = ["git", "-C", str(clone), "checkout", "--quiet", ZOO_COMMIT, "--", "model_zoo"]
        subprocess.run(checkout, check=True)
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir(parents=True)
        shutil.move(str(clone / "model_zoo"), str(into / "model_zoo"))


def main() -> None:
    """Make the environments that are asked for, and say which could not be made."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, default=CACHE / "autorec-peers")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--zoo", default=ZOO)
    parser.add_argument("--torch-index", help="where torch's CPU build is, if not the default")
    given = parser.parse_args()
    failed = []
    for name in given.only:
        try:
            folder = make(name, given.home, given.torch_index)
            if name == "fuxictr":
                copy_zoo(given.zoo, folder / "zoo")
            print(f"{name}: {folder}", flush=True)
        except subprocess.CalledProcessError as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr, flush=True)
    if failed:
        raise SystemExit(f"not made: {', '.join(failed)}")


if __name__ == "__main__":
    main()
