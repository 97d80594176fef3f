"""Does network morphism keep the function? Chains of ten random edits of random candidates.

python experiments/morphism_law.py --chains 1000 --workers 2

Each chain draws a candidate of the CTR space on one of four small layouts, moves every weight off
its start, and carries the weights through ten random edits. Reported are the largest difference of
outputs between the first network and the last, on rows that the morphism has not seen, in float32
and float64, and for each kind of edit the share that is refused and the reasons.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from _results import write

NAME = "morphism_law"
LENGTH = 10
SHAPES = ("sparse", "dense", "lists", "mixed")
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
# Wider blocks are slower and no harder.
WIDEST = 128


def layout_of(shape: str) -> Any:
    """Return a small layout: ids, numbers with bins, lists, or all of them."""
    from autorec.schema import DenseField, Layout, ListField, SparseField

    ids = (SparseField("user", 9, "user"), SparseField("item", 7, "item"))
    bins = (SparseField("x#bin", 5, "x", binned=True),)
    words = (ListField("words", 6, 3),)
    return {
        "sparse": Layout(sparse=ids),
        "dense": Layout(sparse=bins, dense=(DenseField("x", nullable=True),)),
        "lists": Layout(lists=words),
        "mixed": Layout(sparse=ids + bins, lists=words, dense=(DenseField("x"),)),
    }[shape]


def candidate_of(space: Any, rng: Any) -> Any:
    """Return a random canonical candidate of one to three nodes, none of them wide."""
    while True:
        candidate = space.canonical(space.sample(rng))
        nodes = candidate.architecture.nodes
        sizes = [v for node in nodes for _, v in node.args if type(v) is int]
        if 1 <= len(nodes) <= 3 and max(sizes, default=0) <= WIDEST:
            return candidate


def network_of(candidate: Any, layout: Any, dtype: str, seed: int) -> Any:
    """Return its network, every weight and running mean off its start."""
    import torch

    from autorec.build import build
    from autorec.seeding import torch_generator

    network = build(candidate, layout, bias=0.3, seed=seed).to(getattr(torch, dtype))
    g = torch_generator(seed, "off its start")
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if name.endswith("running_var"):
                tensor *= 1.0 + torch.rand(tensor.shape, generator=g).to(tensor)
            elif tensor.is_floating_point():
                size = 0.3 if "table" in name else 0.02
                tensor += size * torch.randn(tensor.shape, generator=g).to(tensor)
    return network.eval()


def chain(seed: int) -> dict[str, Any]:
    """Morph a random candidate up to ten times; return the difference and what was refused."""
    import torch

    from autorec.edits import apply, random_edit
    from autorec.errors import GrowthError
    from autorec.morph import drift, morph, probe_of
    from autorec.search_spaces.ctr import CtrSpace
    from autorec.seeding import numpy_rng

    torch.set_num_threads(1)
    shape, dtype = SHAPES[seed % 4], ("float32", "float64")[seed // 4 % 2]
    layout = layout_of(shape)
    space = CtrSpace(layout, rows=1000, blocks=5, families=("neural",))
    rng = numpy_rng(seed, NAME)
    candidate = candidate_of(CtrSpace(layout, rows=1000, blocks=3, families=("neural",)), rng)
    root = network = network_of(candidate, layout, dtype, seed)
    done: Counter[str] = Counter()
    refused: Counter[tuple[str, str]] = Counter()
    no: set[Any] = set()
    for _ in range(10 * LENGTH):
        edit = random_edit(candidate, space, rng)
        if edit in no:
            continue
        edited = apply(candidate, edit, space)
        try:
            network, _ = morph(network, edited.candidate, edited.nodes, layout, seed=seed)
        except GrowthError as error:
            refused[edit.kind, reason(str(error))] += 1
            no.add(edit)
            continue
        candidate = edited.candidate
        done[edit.kind] += 1
        if done.total() == LENGTH:
            break
    apart = drift(root, network, probe_of(layout, root.base, seed + 1))
    return {"seed": seed, "dtype": dtype, "drift": apart, "done": done, "refused": refused}


def reason(message: str) -> str:
    """Return the first words of a refusal, numbers left out, so that equal reasons are equal."""
    return re.sub(r"[\d.e+-]*\d[\d.e+-]*", "#", message)[:80]


def table(chains: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per kind of edit, and the commonest reasons."""
    rows = []
    for kind in sorted({kind for one in chains for kind in one["done"]}):
        done = sum(one["done"][kind] for one in chains)
        why: Counter[str] = Counter()
        for one in chains:
            for (of, text), count in one["refused"].items():
                why[text] += count * (of == kind)
        refused = why.total()
        share = round(refused / (done + refused), 3)
        most = {text: count for text, count in why.most_common(6) if count}
        rows.append({"edit": kind, "done": done, "refused": refused, "share": share, "why": most})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="seed of the first chain")
    options = parser.parse_args()
    started = time.perf_counter()
    seeds = range(options.first, options.first + options.chains)
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        chains = list(pool.map(chain, seeds, chunksize=4))
    rows = table(chains)
    facts: dict[str, Any] = {"chains": len(chains), "length": LENGTH, "seeds": str(seeds)}
    for dtype, most in TOLERANCE.items():
        found = [one for one in chains if one["dtype"] == dtype]
        facts[f"largest_{dtype}"] = max((one["drift"] for one in found), default=0.0)
        facts[f"broken_{dtype}"] = [one["seed"] for one in found if not one["drift"] <= most]
    facts["shorter"] = sum(one["done"].total() < LENGTH for one in chains)
    facts["seconds"] = round(time.perf_counter() - started)
    path = write(NAME, rows, **facts)
    print(path, facts)
    for row in rows:
        print(
            f"{row['edit']:10} done {row['done']:5} refused {row['refused']:5} {row['share']:.1%}"
        )


if __name__ == "__main__":
    main()
