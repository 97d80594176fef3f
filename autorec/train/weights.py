"""Weights of a network on disk: one safetensors file, and how far its id tables were folded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from autorec.build import Network, build
from autorec.errors import RankerError

if TYPE_CHECKING:
    from autorec.candidate import Candidate
    from autorec.schema import Layout

FILE = "model.safetensors"


def write(network: Network, folder: Path, hash_cap: int | None) -> None:
    """Write `model.safetensors` into an existing folder."""
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    save_file(state, folder / FILE, metadata={"hash_cap": str(hash_cap or 0)})


def read(folder: Path, candidate: Candidate, layout: Layout) -> tuple[Network, int | None]:
    """Return the network that `write` wrote, in evaluation mode, and its hash cap.

    Args:
        candidate: the form that the network was built of; nodes in another order do not fit.

    Raises:
        RankerError: the file is missing, damaged, or holds another architecture.
    """
    path = folder / FILE
    try:
        with safe_open(path, framework="pt") as handle:
            cap = int((handle.metadata() or {}).get("hash_cap", "0")) or None
        state = load_file(path)
        network = build(candidate, layout, hash_cap=cap)
        network.load_state_dict(state)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise RankerError(
            f"{path} must hold the weights of its candidate, but reading it failed: {error}"
        ) from error
    network.eval()
    return network, cap
