"""The whole of AutoRec on simulated clicks, from a table to an answering server, in minutes.

The log holds a planted interaction, and its best possible AUC is known: the board ends with it.
"""

from __future__ import annotations

import json
import math
import shlex
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autorec.arguments import numbered
from autorec.dashboard import HOST, Servers, free_port
from autorec.errors import ConfigError, RankerError
from autorec.run import Run
from autorec.terminal import board, console, grid, records

if TYPE_CHECKING:
    from rich.console import Console

    from autorec.automl import AutoRec
    from autorec.data.simulate import Simulated

_USERS = 3
_MODEL = "demo-ranker"
_START_SECONDS = 120.0


def run(folder: Path, time_limit: float, *, rows: int = 100_000, serve: bool = True) -> None:
    """Simulate, fit, rank, deploy and serve, and print each step.

    Args:
        folder: receives the clicks and the run; an earlier run in it stays.
        time_limit: seconds of the fit.
        rows: simulated impressions.
        serve: whether a server is started and asked.

    Raises:
        ConfigError, RankerError: a server does not start or answer.
    """
    from autorec import AutoRec

    started, screen = time.monotonic(), console()
    folder.mkdir(parents=True, exist_ok=True)
    target = numbered(folder, "run")
    _title(screen, "1  a click log whose truth is known")
    clicks, log = folder / "clicks.parquet", _simulate(rows)
    log.table.to_pandas().to_parquet(clicks, index=False)
    screen.print(f"{clicks}: {rows:,} impressions; clicks depend on")
    screen.print("main effects, and on " + " and ".join(" x ".join(p) for p in log.planted))
    _title(screen, "2  the search")
    roles = ("label click", "user_id user", "item_id item", "timestamp ts")
    words: dict[str, Any] = dict(role.split() for role in roles)
    flags = " ".join(f"--{name.removesuffix('_id')} {value}" for name, value in words.items())
    command = f"autorec fit {clicks} {flags} --time-limit {time_limit:g}s --path {target}\n"
    screen.print(command, soft_wrap=True, style="dim")
    ar = AutoRec("ctr", **words, path=target)
    ar.fit(clicks, time_limit=time_limit)
    _show_board(screen, ar, log)
    _title(screen, "3  the best items of three users")
    users = log.table["user"].slice(0, 1000).unique().to_pylist()[:_USERS]
    screen.print(grid(records(ar.rank(users, k=3))))
    _title(screen, "4  into the registry")
    model = ar.deploy(_MODEL)
    screen.print(f"registered {model.name} version {model.version} as {model.uri}")
    if serve:
        _title(screen, "5  one request to a server")
        _ask(screen, ar, model.uri, log)
    report = target / "report.html"
    if not report.is_file():
        ar.report(report)
    _title(screen, f"done in {time.monotonic() - started:.0f} s")
    screen.print(f"report     {report}", soft_wrap=True)
    screen.print(f"dashboard  autorec dashboard {shlex.quote(str(target))}", soft_wrap=True)


def _simulate(rows: int) -> Simulated:
    from autorec.data.simulate import simulate

    return simulate(rows, users=2000, items=300, order=[("device", "page")], strength=0.8, seed=7)


def _title(screen: Console, text: str) -> None:
    screen.print(f"\n[bold]{text}[/bold]")


def _show_board(screen: Console, ar: AutoRec, log: Simulated) -> None:
    """Print the board; its last line is the AUC that no model can pass."""
    table = board(records(ar.leaderboard()), most=12)
    table.add_section()
    table.add_row("", "Bayes ceiling", "the truth", f"{log.bayes_auc:.4f}", style="bold")
    screen.print()
    screen.print(table)
    chance, best = 0.5, ar.best_score_
    if math.isfinite(best):
        share = (best - chance) / (log.bayes_auc - chance)
        screen.print(f"{ar.best_model_} reaches {share:.1%} of what can be known about a click")


def _ask(screen: Console, ar: AutoRec, uri: str, log: Simulated) -> None:
    """Start `mlflow models serve` on a free port, post one row, print the answer, end it."""
    from autorec.tracking.store import initialise, serve_command

    config = Run.open(ar.path_).config
    store = initialise(ar.path_, config.tracking_uri)
    port = free_port()
    command = serve_command(uri, store, port, HOST)
    screen.print(shlex.join(command), soft_wrap=True, style="dim")
    with Servers(ar.path_ / "logs") as servers:
        servers.start("server", command)
        servers.wait_until(f"http://{HOST}:{port}/ping", _START_SECONDS)
        row = _row(ar, log)
        answer = post(f"http://{HOST}:{port}/invocations", {"dataframe_records": [row]})
    screen.print(f"asked     {json.dumps(row)}", soft_wrap=True)
    screen.print(f"answered  {json.dumps(answer)}", soft_wrap=True)
    local = float(ar.predict_proba([row])[0])
    screen.print(f"the run folder's own model says {local:.6f}")


def _row(ar: AutoRec, log: Simulated) -> dict[str, Any]:
    names = [field.name for field in ar.schema_.features]
    row: dict[str, Any] = log.table.select(names).slice(0, 1).to_pylist()[0]
    return row


def post(url: str, body: dict[str, Any], seconds: float = 60.0) -> Any:
    """Return the JSON answer to a JSON body.

    Raises:
        RankerError: the server refuses.
        ConfigError: it does not answer.
    """
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        told = error.read().decode("utf-8", errors="replace")[:400]
        raise RankerError(f"the server must take one row, but said {error.code}: {told}") from error
    except OSError as error:
        raise ConfigError(f"{url} must answer within {seconds:.0f} s: {error}") from error
