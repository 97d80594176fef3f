"""One HTML file that tells what a fit found; it needs no network, no script and no server.

Every section stands alone: one whose facts are missing, as with a ranker that brings no trials, is
left out or says why it is empty, and the others are still there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from autorec import __version__
from autorec.candidate import TREE
from autorec.drawing import Bar, boxes, diagram, intervals, steps
from autorec.report_parts import number, overtaken, seconds, section, table

if TYPE_CHECKING:
    from autorec.automl import AutoRec
    from autorec.search.records import TrialRecord

_ROWS, _BARS = 40, 12
_REFUSED = 8  # crosses that were not worth it


@dataclass
class _Facts:
    """What the sections are made from; all of it may be missing."""

    ar: AutoRec
    metric: str
    sign: float
    trials: list[TrialRecord] = field(default_factory=list)
    board: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""

    def raw(self, value: float | None) -> float | None:
        """Return a score as the metric is written: RMSE above 0, AUC as it is."""
        return None if value is None or not math.isfinite(value) else self.sign * value


def render(ar: AutoRec) -> str:
    """Return the report of a fitted AutoRec as one HTML document.

    Raises:
        NotFittedError: neither `fit` nor `load` was called.
    """
    _, ranker = ar._need()
    task = ranker.task
    facts = _Facts(ar, task.eval_metric, 1.0 if task.metric.greater_is_better else -1.0)
    try:
        _read_trials(facts)
    except Exception as error:  # a report of the rest is worth more than none
        facts.note = f"The trials could not be read: {error}"
    sections = (_header, _winner, _comparison, _progress, _board, _crosses, _failures, _schema)
    parts = [_guarded(part, facts) for part in (*sections, _timings)]
    page = Template((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
    title = f"AutoRec: {task.name} on {ranker.schema.label or 'a log'}"
    return page.substitute(title=escape(title), body="\n".join(part for part in parts if part))


def _read_trials(facts: _Facts) -> None:
    from autorec.leaderboard import rows

    run, _ = facts.ar._need()
    if not run.config.space:  # a ranker alone
        return
    facts.trials = list(facts.ar._records())
    facts.board = rows(facts.trials, run, all_trials=True)


def _guarded(part: Callable[[_Facts], str], facts: _Facts) -> str:
    """Return a section, or a line that says why it is missing."""
    try:
        return part(facts)
    except Exception as error:
        name = part.__name__.strip("_").capitalize()
        return section(name, f"Not available: {type(error).__name__}: {error}", "")


def _header(facts: _Facts) -> str:
    run, ranker = facts.ar._need()
    config = run.config
    best = facts.raw(facts.ar.best_score_)
    ended = [t for t in facts.trials if t.finished is not None]
    tiles = [(number(best), f"validation {facts.metric} of the best", "main")]
    tiles.append((facts.ar.best_model_, "best model", ""))
    if config.n_train:
        tiles.append((f"{config.n_train:,}", "training rows", ""))
        tiles.append((f"{config.n_valid:,}", "validation rows", ""))
    if ended:
        tiles.append((str(len(ended)), "trials", ""))
    if config.timings:
        tiles.append((seconds(sum(config.timings.values())), "in all", ""))
    shown = "".join(
        f'<div class="fact {kind}"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for value, name, kind in tiles
    )
    what = f"{ranker.task.name} on column {ranker.schema.label!r}; {ranker.task.reason}"
    split = config.split.get("reason", "")
    lines = "".join(f"<p>{escape(line)}</p>" for line in (what, f"Split: {split}") if line)
    return f'<header><h1>AutoRec report</h1>{lines}<div class="facts">{shown}</div></header>'


def _winner(facts: _Facts) -> str:
    run, ranker = facts.ar._need()
    candidate = ranker.candidate
    layout, tree = ranker.layout, candidate.family == TREE
    features = candidate.features.plain() if tree else candidate.features
    read = [layout.sparse[i] for i in features.sparse_of(layout)]
    ids, bins = [f for f in read if not f.binned], [f for f in read if f.binned]
    sparse = [
        (len(ids), "id column"),
        (len(features.lists_of(layout)), "list"),
        (len(bins), "binned number"),
    ]
    words = ", ".join(f"{n} {name}{'s' if n > 1 else ''}" for n, name in sparse if n)
    numbers = len(features.dense_of(layout))
    dense = f"{numbers} number{'s' if numbers > 1 else ''}" if numbers else ""
    recipe = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in candidate.recipe.items()
    )
    note = f"Family {candidate.family}."
    if run.config.refitted:
        note += " Trained once more on all rows, validation rows included."
    names = {trial.number: trial.name for trial in facts.trials}
    note += overtaken(run.rehearsal(), names, facts.sign)
    picture = diagram(boxes(candidate, words, dense))
    below = f"<p><small>Recipe</small><br><code>{escape(recipe)}</code></p>"
    return section(f"The winner: {facts.ar.best_model_}", note, picture + below)


def _comparison(facts: _Facts) -> str:
    ranked = [row for row in facts.board if row["rank"] is not None]
    if not ranked:
        return ""
    base = {t.number for t in facts.trials if t.baseline}
    shown = ranked[:_BARS] + [row for row in ranked[_BARS:] if row["trial"] in base]
    bars = []
    for row in shown:
        ends = [facts.raw(row["score_val_lo"]), facts.raw(row["score_val_hi"])]
        low, high = sorted(v for v in ends if v is not None) if None not in ends else (None, None)
        tone = "best" if row["rank"] == 1 else "base" if row["trial"] in base else "plain"
        value = facts.raw(row["score_val"])
        if value is not None:
            bars.append(Bar(str(row["model"]), value, low, high, tone))
    note = (
        f"Validation {facts.metric}, {_direction(facts)} is better, with 95 % bootstrap intervals. "
        "Grey: baselines, always on the board."
    )
    return section("Best against baselines", note, intervals(bars))


def _direction(facts: _Facts) -> str:
    return "higher" if facts.sign > 0 else "lower"


def _progress(facts: _Facts) -> str:
    ended = [t for t in facts.trials if t.finished and t.started and t.state == "COMPLETE"]
    points = [(t, facts.raw(t.value)) for t in ended]
    if not points:
        return ""
    begin = min(float(t.started or 0.0) for t in facts.trials if t.started)
    places = [(float(t.finished or begin) - begin, v) for t, v in points if v is not None]
    base = [(float(t.value), str(t.name)) for t in ended if t.baseline and t.value is not None]
    bar, name = max(base) if base else (None, "")
    note = f"A dot is a finished trial; the line is the best validation {facts.metric} so far."
    return section("The search", note, steps(places, facts.raw(bar), name, up=facts.sign > 0))


def _board(facts: _Facts) -> str:
    if not facts.board:
        return section("Trials", facts.note or "This ranker came without its trials.", "")
    second = "logloss" if facts.board[0].get("logloss") is not None else "mae"
    head = [("#", True), ("model", False), ("family", False), (facts.metric, True), ("Δ", True)]
    head += [(second, True), ("ms a row", True), ("rows/s", True), ("params", True)]
    head += [("seconds", True), ("status", False)]
    if second == facts.metric:
        head = [column for column in head if column[0] != second or column[0] == facts.metric]
    body = [_board_row(row, facts, second) for row in facts.board[:_ROWS]]
    note = (
        "Δ is the gain over the best baseline, higher is better. Trials that were stopped early "
        "or failed have no rank."
    )
    if len(facts.board) > _ROWS:
        note += f" The best {_ROWS} of {len(facts.board)}."
    return section("Leaderboard", note, table(head, body, best=0, kind="board"))


def _board_row(row: Mapping[str, Any], facts: _Facts, second: str) -> list[str]:
    low, high = facts.raw(row["score_val_lo"]), facts.raw(row["score_val_hi"])
    score = number(facts.raw(row["score_val"]))
    if low is not None and high is not None:
        score += f" <small>{number(min(low, high))} to {number(max(low, high))}</small>"
    tone = {"failed": "fail", "complete": ""}.get(str(row["status"]), "")
    cells = [
        "" if row["rank"] is None else str(row["rank"]),
        escape(str(row["model"] or f"trial {row['trial']}")),
        escape(str(row["family"] or "")),
        score,
        number(row["delta_vs_baseline"], "+.4f"),
    ]
    if second != facts.metric:
        cells.append(number(row[second]))
    return [
        *cells,
        number(row["latency_p50_ms"], ".2f"),
        number(row["rows_per_s"], ",.0f"),
        number(row["params"], ",.0f"),
        number(row["fit_time_s"], ".1f"),
        f'<span class="tag {tone}">{escape(str(row["status"]))}</span>',
    ]


def _crosses(facts: _Facts) -> str:
    run, ranker = facts.ar._need()
    found = run.screening() if run.config.space else None
    if found is None or not found.evidence:
        return ""
    used = ranker.candidate.features
    left = {"count": used.counts, "rate": used.rates, "id": used.ids}
    body = []
    kept = sum(one.kept for one in found.evidence)
    for one in found.evidence[: kept + _REFUSED]:
        reads = one.kept and left[one.form] > 0
        left[one.form] -= one.kept
        state = "in the winner" if reads else "offered" if one.kept else "not worth it"
        cells = [f"<code>{escape(one.name)}</code>", one.form]
        body.append([*cells, f"{one.gain:.5f}", f"{one.z:.1f}", state])
    head = [("statistic", False), ("form", False), ("gain a row", True), ("z", True), ("", False)]
    note = (
        f"{found.tried} statistics of crosses and time were tried on {found.rows:,} training "
        f"rows in {found.seconds:.1f} s. Gain is the loss that one saves on rows that it was not "
        "fitted on, beyond the single fields and those above it; z is the gain over its standard "
        "error."
    )
    return section("Statistics of crosses and time", note, table(head, body))


def _failures(facts: _Facts) -> str:
    failed = [t for t in facts.trials if t.failure]
    if not failed:
        return ""
    body = [
        [
            escape(t.name or f"trial {t.number}"),
            escape(str((t.failure or {}).get("type", ""))),
            escape(str((t.failure or {}).get("message", ""))[:400]),
        ]
        for t in failed
    ]
    head = [("trial", False), ("error", False), ("message", False)]
    return section("Failures", "Trials that ended without a score.", table(head, body))


def _schema(facts: _Facts) -> str:
    head = [("column", False), ("role", False), ("kind", False), ("type", False), ("why", False)]
    body = [
        [
            f"<code>{escape(f.name)}</code>",
            f.role.value,
            f.kind.value,
            escape(f.dtype),
            escape(f.reason),
        ]
        for f in facts.ar.schema_.fields
    ]
    return section("Columns", "What each column was taken for, and why.", table(head, body))


def _timings(facts: _Facts) -> str:
    run, ranker = facts.ar._need()
    timings = facts.ar.timings_
    where = [f"Run folder {run.folder}", f"AutoRec {__version__}", f"model of {ranker.created}"]
    if run.config.mlflow_run_id:
        where.append(f"MLflow run {run.config.mlflow_run_id}")
    footer = f"<footer>{escape(' · '.join(where))}</footer>"
    if not timings:
        return footer
    body = [[escape(name), seconds(value)] for name, value in timings.items()]
    times = table([("stage", False), ("time", True)], body, kind="slim")
    return section("Where the time went", "", times) + footer
