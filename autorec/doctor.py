"""Looks at the machine and says what is there, what is missing, and how to mend it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from autorec import __version__
from autorec.errors import DataError

OK, MISSING, FAULT = "ok", "missing", "fault"
_NEEDED = (
    *("torch", "numpy", "pandas", "pyarrow", "optuna", "mlflow"),
    *("scikit-learn", "lightgbm", "safetensors", "pydantic"),
)
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
_LEAST_GB = 4.0


@dataclass(frozen=True)
class Check:
    """One thing looked at: `state` is `ok`, `missing` (fine without) or `fault` (will not work)."""

    name: str
    state: str
    value: str
    fix: str = ""


def examine() -> list[Check]:
    """Return all checks in the order they are shown; one that breaks is a fault, not an error."""
    found: list[Check] = []
    rules: tuple[Callable[[], Iterator[Check]], ...] = (
        _python,
        _packages,
        _processor,
        _memory,
        _torch,
        _gpu,
        _dashboard,
        _cache,
        _data,
    )
    for rule in rules:
        try:
            found += rule()
        except Exception as error:
            name = rule.__name__.strip("_")
            found.append(Check(name, FAULT, f"{type(error).__name__}: {error}", "see the message"))
    return found


def _python() -> Iterator[Check]:
    fits = (3, 10) <= sys.version_info[:2] < (3, 14)
    version = platform.python_version()
    fix = "" if fits else "use Python 3.10 to 3.13"
    yield Check("autorec", OK, f"{__version__} in {Path(__file__).parent}")
    yield Check("python", OK if fits else FAULT, f"{version} on {platform.platform()}", fix)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Check]:
    found = {name: _version(name) for name in _NEEDED}
    there = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    missing = [name for name, version in found.items() if version is None]
    if missing:
        yield Check("packages", FAULT, f"lacking {', '.join(missing)}", "pip install -e .")
    yield Check("packages", OK, there)


def _processor() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cores", OK, f"{cores} usable, {os.cpu_count()} in the machine")
    if not Path("/proc/cpuinfo").is_file():
        yield Check("cpu flags", MISSING, f"unknown on {sys.platform}", "read on Linux only")
        return
    lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    named = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    has = [flag for flag in _FLAGS if flag in flags]
    lacks = [flag for flag in _FLAGS if flag not in flags]
    yield Check("cpu", OK, named or platform.machine())
    value = (" ".join(has) or "none of interest") + (f" (no {' '.join(lacks)})" if lacks else "")
    fast = "avx512_bf16" in flags or "amx_bf16" in flags
    fix = "" if fast else "bfloat16 has no fast path on this CPU; training runs in float32 anyway"
    yield Check("cpu flags", OK if fast else MISSING, value, fix)


def _memory() -> Iterator[Check]:
    path = Path("/proc/meminfo")
    if not path.is_file():
        yield Check("memory", MISSING, f"unknown on {sys.platform}", "read on Linux only")
        return
    facts = {line.split(":")[0]: line.split()[1] for line in path.read_text().splitlines()}
    total, free = (int(facts[key]) / 2**20 for key in ("MemTotal", "MemAvailable"))
    enough = free >= _LEAST_GB
    fix = "" if enough else f"under {_LEAST_GB:.0f} GiB free: use --workers 1"
    value = f"{free:.1f} GiB free of {total:.1f}"
    yield Check("memory", OK if enough else MISSING, value, fix)


def _torch() -> Iterator[Check]:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    yield Check("torch", OK, f"{torch.__version__}, {build}, {torch.get_num_threads()} threads")


def _gpu() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Check("cuda", OK, ", ".join(names))
    else:
        fix = "install a CUDA build of torch" if torch.version.cuda is None else "check the driver"
        yield Check("cuda", MISSING, "no GPU in use; models train on the CPU", fix + " for GPUs")
    triton = _version("triton")
    fix = "" if triton else "comes with CUDA builds of torch; needed for GPU kernels only"
    yield Check("triton", OK if triton else MISSING, triton or "not installed", fix)


def _dashboard() -> Iterator[Check]:
    there = importlib.util.find_spec("optuna_dashboard") is not None
    fix = "" if there else "pip install optuna-dashboard, for `autorec dashboard`"
    yield Check(
        "dashboard",
        OK if there else MISSING,
        f"optuna-dashboard {_version('optuna-dashboard')}" if there else "no optuna-dashboard",
        fix,
    )


def _cache() -> Iterator[Check]:
    from autorec.data.datasets import cache

    for name, folder in (("cache", cache()), ("this folder", Path.cwd())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                yield Check(name, OK, f"{folder} is writable")
        except OSError as error:
            fix = "set AUTOREC_CACHE" if name == "cache" else "pass --path to a folder of your own"
            yield Check(name, FAULT, f"{folder}: {error.strerror}", fix)


def _data() -> Iterator[Check]:
    from autorec.data import datasets

    named = os.environ.get("AUTOREC_DATA")
    fix = "optional: set it to the folder that holds your copies; see `autorec datasets`"
    if not named:
        yield Check("AUTOREC_DATA", MISSING, "not set", fix)
        return
    if not Path(named).is_dir():
        yield Check("AUTOREC_DATA", FAULT, f"{named} is no folder", "correct or unset it")
        return
    have = [name for name in datasets.names() if local(name) is not None]
    value = f"{named} holds {', '.join(have) or 'no known data set'}"
    yield Check("AUTOREC_DATA", OK if have else MISSING, value, "" if have else fix)


def local(name: str) -> Path | None:
    """Return the folder under which a whole copy of a data set lies, None where there is none."""
    from autorec.data import datasets

    module = importlib.import_module(f"autorec.data.datasets.{name.replace('-', '_')}")
    named = os.environ.get("AUTOREC_DATA")
    for folder in ([Path(named)] if named else []) + [datasets.cache()]:
        if datasets.complete(folder, module.LAYOUTS) is not None:
            return folder
    return None


@dataclass(frozen=True)
class Known:
    """A public data set as a list shows it; task and rows are known where a copy is at hand."""

    name: str
    task: str
    rows: str
    state: str
    about: str
    where: str = ""


def known_datasets() -> list[Known]:
    """Return all data sets that have a name, those at hand with their rows."""
    from autorec.data import datasets

    found = []
    for name in datasets.names():
        module = importlib.import_module(f"autorec.data.datasets.{name.replace('-', '_')}")
        about, folder = (module.__doc__ or "").splitlines()[0], local(name)
        if folder is None:
            state = "downloads" if module.ARCHIVE else "by hand"
            found.append(Known(name, "", "", state, about, module.WHERE))
            continue
        try:
            data = datasets.load(name, folder)
        except DataError as error:
            found.append(Known(name, "", "", "broken", about, str(error)))
            continue
        sizes = [part.num_rows for part in (data.train, data.valid, data.test) if part is not None]
        rows = "\n".join(f"{size:,}" for size in sizes)
        found.append(Known(name, data.task, rows, "here", about, data.note))
    return found
