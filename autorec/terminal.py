"""What the command line prints: tables that fit 100 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from autorec.data.findings import Finding
    from autorec.doctor import Check, Known

WIDTH = 100


def console(*, stderr: bool = False) -> Console:
    """Return a console for results: as wide as the terminal, or 100 columns into a file."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = WIDTH
    return made


def plain_table(**options: Any) -> Table:
    """Return an empty table in the one style of this command line."""
    from rich import box
    from rich.table import Table

    style = {
        "box": box.SIMPLE_HEAD,
        "pad_edge": False,
        "header_style": "bold",
        "padding": (0, 1, 0, 0),
    }
    return Table(**{**style, **options})


def board(rows: Sequence[Mapping[str, Any]], *, most: int | None = None) -> Table:
    """Return the leaderboard as a table of at most 100 columns.

    Args:
        rows: of `AutoRec.leaderboard`.
        most: show the best so many.
    """
    from autorec.tasks.metrics import METRICS

    metric = str(rows[0]["eval_metric"]) if rows else "score"
    lower_is_better = metric in METRICS and not METRICS[metric].greater_is_better
    sign = -1.0 if lower_is_better else 1.0  # an error is shown as such, above 0
    second = next((n for n in ("logloss", "mae") if rows and known(rows[0].get(n))), "logloss")
    table = plain_table()
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("model", no_wrap=True, max_width=18, overflow="ellipsis")
    table.add_column("family", no_wrap=True)
    arrow = "↓" if lower_is_better else "↑"
    table.add_column(f"{metric} {arrow}", justify="right", no_wrap=True)
    table.add_column("95 %", no_wrap=True, style="dim")
    tested = any(known(row.get("score_test")) for row in rows)
    for name in (["test"] if tested else []) + ["vs base", second, "ms/row", "fit s"]:
        table.add_column(name, justify="right", no_wrap=True)
    if not tested:
        table.add_column("status", no_wrap=True)
    for row in rows[:most]:
        cells = [_text(row["rank"], ".0f"), str(row["model"] or f"trial {row['trial']}")]
        cells += [str(row["family"] or ""), _text(row["score_val"], ".4f", sign)]
        cells.append(_interval(row, sign))
        cells += [_text(row["score_test"], ".4f", sign)] if tested else []
        cells += [_text(row["delta_vs_baseline"], "+.4f"), _text(row[second], ".4f")]
        cells += [_text(row["latency_p50_ms"], ".2f"), _text(row["fit_time_s"], ".1f")]
        cells += [] if tested else [str(row["status"])]
        table.add_row(*cells, style="bold green" if row["rank"] == 1 else None)
    return table


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame, each as a dict by column name."""
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False)]


def known(value: Any) -> bool:
    """Tell whether a cell holds a value: neither None nor NaN."""
    return value is not None and value == value


def _text(value: Any, pattern: str, sign: float = 1.0) -> str:
    return format(sign * float(value), pattern) if known(value) else ""


def _interval(row: Mapping[str, Any], sign: float) -> str:
    ends = (row.get("score_val_lo"), row.get("score_val_hi"))
    if not (known(ends[0]) and known(ends[1])):
        return ""
    low, high = sorted(sign * float(end) for end in ends if end is not None)
    return f"{low:.4f}-{high:.4f}"


def grid(rows: Sequence[Mapping[str, Any]], digits: int = 4) -> Table:
    """Return rows of one set of names as a table; floats with so many digits."""
    table = plain_table()
    numbers = {n: isinstance(v, (int, float)) for n, v in (rows[0] if rows else {}).items()}
    for name, number in numbers.items():
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        shown = (f"{v:.{digits}f}" if isinstance(v, float) else str(v) for v in row.values())
        table.add_row(*shown)
    return table


def health(checks: Sequence[Check]) -> Table:
    """Return what the doctor found, each fix below its finding."""
    from rich.text import Text

    table = plain_table(show_header=False)
    colours = {"ok": "green", "missing": "yellow", "fault": "bold red"}
    for overflow in ("ellipsis", "ellipsis", "fold"):
        table.add_column(no_wrap=overflow == "ellipsis", overflow=overflow)
    for one in checks:
        fix = [f"\n-> {one.fix}"] if one.fix else []
        table.add_row(one.name, Text(one.state, colours[one.state]), Text(one.value + "".join(fix)))
    return table


def shelf(found: Sequence[Known]) -> Table:
    """Return the known data sets; how to get one stands below what it is."""
    from rich.text import Text

    table = plain_table(show_lines=True)
    for name in ("name", "task", "rows", "state"):
        table.add_column(name, justify="right" if name == "rows" else "left", no_wrap=True)
    table.add_column("about", overflow="fold")
    for one in found:
        about = Text(one.about).append(f"\n{one.where}" if one.where else "", style="dim")
        table.add_row(one.name, one.task, one.rows, one.state, about)
    return table


def complaints(found: Sequence[Finding]) -> Table:
    """Return findings about a table, worst first, and how many there are."""
    from rich.text import Text

    table = plain_table(show_header=False, show_footer=True)
    kinds = {"error": "red", "warning": "yellow", "info": "dim"}
    counts = [sum(one.severity == kind for one in found) for kind in kinds]
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", footer="{} errors, {} warnings, {} remarks".format(*counts))
    for one in found:
        where = f"{one.column}: " if one.column else ""
        told = Text(f"{where}{one.message} ").append(f"({one.rule})", style="dim")
        table.add_row(Text(one.severity, style=kinds[one.severity]), told)
    return table
