"""Sections, tables and numbers of the report, as HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def section(title: str, note: str, body: str) -> str:
    below = f"<p>{escape(note)}</p>" if note else ""
    return f"<section><h2>{escape(title)}</h2>{below}{body}</section>"


def table(
    head: Sequence[tuple[str, bool]],
    body: Sequence[Sequence[str]],
    best: int | None = None,
    kind: str = "",
) -> str:
    """Return a table of ready HTML cells; `head` tells of each column whether it has numbers."""
    marks = ['class="n"' if number else "" for _, number in head]
    top = "".join(f"<th {m}>{escape(t)}</th>" for (t, _), m in zip(head, marks, strict=True))
    lines = []
    for place, cells in enumerate(body):
        mark = ' class="best"' if place == best else ""
        inside = "".join(f"<td {m}>{c}</td>" for c, m in zip(cells, marks, strict=True))
        lines.append(f"<tr{mark}>{inside}</tr>")
    return f'<div class="wide {kind}"><table><tr>{top}</tr>{"".join(lines)}</table></div>'


def number(value: Any, pattern: str = ".4f") -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return format(value, pattern)


def seconds(value: float) -> str:
    if value < 100:
        return f"{value:.1f} s"
    return f"{value // 60:.0f} min {value % 60:.0f} s"


def overtaken(
    rehearsal: Mapping[str, Any] | None, names: Mapping[int, str | None], sign: float
) -> str:
    """Return a sentence on the leader that had no time to learn from all rows."""
    if rehearsal is None:
        return ""
    best, rival = (names.get(rehearsal[who], "?") for who in ("best", "rival"))
    scores = [number(sign * rehearsal[f"{who}_score"]) for who in ("rival", "best")]
    won = "overtook" if rehearsal["rival_score"] >= rehearsal["best_score"] else "did not overtake"
    return (
        f" There was no time to train {best} again, so {rival} learned from half of the validation "
        f"rows too: on the other half it {won} {best}, {scores[0]} to {scores[1]}."
    )
