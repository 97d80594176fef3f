"""Inline SVG of the report: an architecture as boxes, scores as intervals, and the search as steps.

Colours come from the CSS variables of the page, so that a picture follows its light or dark theme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from autorec.architecture import BINS, DENSE, PAIRS, SHARED, SPARSE, SPARSE2, TABLE
from autorec.candidate import Candidate

_BOX, _GAP_X, _GAP_Y, _LINE, _CHAR = 34.0, 44.0, 16.0, 15.0, 6.7
_WIDTH = 720.0
Place = tuple[float, float, float, float]  # left, top, width, height


@dataclass(frozen=True)
class Box:
    """One box of a diagram: `inputs` are the keys of the boxes whose arrows end in it."""

    key: str
    title: str
    lines: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    tone: str = "block"


@dataclass(frozen=True)
class Bar:
    """One line of an interval chart; `tone` is `best`, `base` or `plain`."""

    name: str
    value: float
    low: float | None
    high: float | None
    tone: str = "plain"


def boxes(candidate: Candidate, sparse: str, dense: str) -> list[Box]:
    """Return the boxes of a candidate.

    Args:
        sparse, dense: what the two raw inputs hold, such as `9 id columns`; empty: there is none.
    """
    recipe = tuple(f"{name} {_short(value)}" for name, value in candidate.recipe.items())
    plan = candidate.architecture
    if plan is None:
        inputs = [Box("table", "columns", tuple(t for t in (sparse, dense) if t), tone="input")]
        name = {"tree": "LightGBM", "popularity": "click rates"}.get(
            candidate.family, candidate.family
        )
        model = Box("model", name, recipe, ("table",))
        return [*inputs, model, Box("head", "score", (), ("model",), "head")]
    width = (f"embeddings of {plan.embedding_width}",) if plan.embedding_width else ()
    kind = [] if plan.embedding == TABLE else [plan.embedding.replace("_", " ")]
    kind += [] if plan.crosses == SHARED else [f"crosses apart, {plan.crosses} width"]
    kind += [] if plan.numbers == BINS else [f"numbers by {plan.numbers.replace('_', ' ')}"]
    raws = {
        SPARSE: ("ids", (sparse, *width, *kind), plan.reads(SPARSE) or plan.linear),
        SPARSE2: ("ids, second table", (sparse, *width, *kind), plan.reads(SPARSE2)),
        PAIRS: ("field-aware pairs", (sparse, *width), plan.reads(PAIRS)),
        DENSE: ("numbers", (dense,), plan.reads(DENSE) or plan.linear),
    }
    found = [
        Box(raw, title, lines, (), "input")
        for raw, (title, lines, read) in raws.items()
        if read and lines[0]
    ]
    ends = []
    if plan.linear:
        given = tuple(box.key for box in found if box.key in (SPARSE, DENSE))
        found.append(Box("linear", "linear", ("one weight per value",), given))
        ends.append("linear")
    for number, node in enumerate(plan.nodes):
        lines = tuple(f"{name} {_short(value)}" for name, value in node.args)
        found.append(Box(str(number), node.kind, lines, tuple(str(i) for i in node.inputs)))
    ends += [str(number) for number in plan.sinks]
    return [*found, Box("head", "score", (), tuple(ends), "head")]


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def diagram(found: Sequence[Box]) -> str:
    """Return boxes and arrows as SVG, inputs on the left and the head on the right.

    An arrow that passes a column gets a lane in it, so that it crosses no box.
    """
    columns, arrows = _columns(found)
    height = max(sum(_tall(box) + _GAP_Y for box in column) - _GAP_Y for column in columns)
    place: dict[str, Place] = {}
    x = 2.0
    for column in columns:
        # In the order of what they read, which keeps most arrows from crossing.
        column.sort(key=lambda box: _mean_height([place[key] for key in box.inputs]))
        wide = max(_wide(box) for box in column)
        y = 2.0 + (height - sum(_tall(box) + _GAP_Y for box in column) + _GAP_Y) / 2
        for box in column:
            place[box.key] = (x, y, wide, _tall(box))
            y += _tall(box) + _GAP_Y
        x += wide + _GAP_X
    total = x - _GAP_X + 2.0
    shapes = [_arrow([place[key] for key in path]) for path in arrows]
    shapes += [_box(box, place[box.key]) for box in found]
    label = "Architecture: " + ", ".join(box.title for box in found)
    return _svg(total, height + 4.0, shapes, label, most=total)


def _columns(found: Sequence[Box]) -> tuple[list[list[Box]], list[list[str]]]:
    """Return the boxes and lanes of each column, and the keys that each arrow passes."""
    depth: dict[str, int] = {}
    for box in found:
        depth[box.key] = 1 + max((depth[key] for key in box.inputs), default=-1)
    columns: list[list[Box]] = [[] for _ in range(max(depth.values()) + 1)]
    arrows = []
    for box in found:
        columns[depth[box.key]].append(box)
        for key in box.inputs:
            path = [key]
            for passed in range(depth[key] + 1, depth[box.key]):
                lane = Box(f"{key}>{box.key}@{passed}", "", (), (path[-1],), "lane")
                columns[passed].append(lane)
                path.append(lane.key)
            arrows.append([*path, box.key])
    return columns, arrows


def _mean_height(places: Sequence[Place]) -> float:
    return sum(y + tall / 2 for _, y, _, tall in places) / max(1, len(places))


def _tall(box: Box) -> float:
    return 6.0 if box.tone == "lane" else _BOX + _LINE * len(box.lines)


def _wide(box: Box) -> float:
    return 26.0 + max(len(box.title) * 7.8, *(len(line) * _CHAR for line in (*box.lines, "")))


def _box(box: Box, place: Place) -> str:
    x, y, wide, tall = place
    middle = x + wide / 2
    text = f'<text class="t" x="{middle:.1f}" y="{y + 22:.1f}">{escape(box.title)}</text>'
    for number, line in enumerate(box.lines):
        text += (
            f'<text class="s" x="{middle:.1f}" y="{y + 39 + _LINE * number:.1f}">'
            f"{escape(line)}</text>"
        )
    shape = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}" rx="7"'
    return f'<g class="box {box.tone}"><rect {shape}/>{text}</g>'


def _arrow(path: Sequence[Place]) -> str:
    """Return a curve from the first place through the lanes to the last, with a tip."""
    (x, y, wide, tall), parts = path[0], []
    x, y = x + wide, y + tall / 2
    parts.append(f"M{x:.1f} {y:.1f}")
    for left, top, width, height in path[1:]:
        end, bend = top + height / 2, max(18.0, (left - x) / 2)
        parts.append(f"C{x + bend:.1f} {y:.1f} {left - bend:.1f} {end:.1f} {left:.1f} {end:.1f}")
        x, y = left, end
        if height < _BOX:  # a lane: straight through its column
            x = left + width
            parts.append(f"H{x:.1f}")
    tip = f"M{x - 6:.1f} {y - 4:.1f}L{x:.1f} {y:.1f}L{x - 6:.1f} {y + 4:.1f}"
    return f'<path class="edge" d="{"".join(parts)}{tip}"/>'


def intervals(bars: Sequence[Bar]) -> str:
    """Return one line per model, a dot at its value and a whisker for its interval."""
    ends = [v for bar in bars for v in (bar.value, bar.low, bar.high) if v is not None]
    ticks = axis(min(ends), max(ends))
    left, right, row = 190.0, _WIDTH - 86.0, 27.0
    low, high = ticks[0], ticks[-1]
    bottom = row * len(bars) + 8.0

    def at(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    shapes = [
        f'<path class="grid" d="M{at(t):.1f} 2V{bottom:.1f}"/>'
        f'<text class="tick" x="{at(t):.1f}" y="{bottom + 15:.1f}">{_tick(t, ticks)}</text>'
        for t in ticks
    ]
    for number, bar in enumerate(bars):
        y = row * number + row / 2 + 4.0
        whisker = ""
        if bar.low is not None and bar.high is not None:
            whisker = f'<path class="whisker" d="M{at(bar.low):.1f} {y}H{at(bar.high):.1f}"/>'
        shapes.append(
            f'<g class="bar {bar.tone}"><text class="name" x="{left - 14}" y="{y + 4}">'
            f"{escape(bar.name[:26])}</text>{whisker}"
            f'<circle cx="{at(bar.value):.1f}" cy="{y}" r="5"/>'
            f'<text class="value" x="{_WIDTH - 4}" y="{y + 4}">{bar.value:.4f}</text></g>'
        )
    return _svg(_WIDTH, bottom + 22.0, shapes, "Scores with 95 % intervals")


def steps(
    points: Sequence[tuple[float, float]], bar: float | None, bar_name: str, *, up: bool
) -> str:
    """Return the trials as dots and the best score so far as a step line.

    Args:
        points: seconds and raw score of each finished trial.
        bar: score of the best baseline, drawn as a dashed line.
        bar_name: its name.
        up: whether higher scores are better.
    """
    found = sorted(points)
    values = [v for _, v in found] + ([] if bar is None else [bar])
    # One failed start must not flatten the rest: the axis covers the better three quarters.
    ranked = sorted(values, reverse=up)
    worst = ranked[max(0, math.ceil(0.75 * len(ranked)) - 1)]
    ticks = axis(min(worst, ranked[0]), max(worst, ranked[0]))
    low, high, left, right, top, bottom = ticks[0], ticks[-1], 62.0, _WIDTH - 12.0, 14.0, 226.0
    span = max(found[-1][0], 1.0)

    def at(second: float, value: float) -> tuple[float, float]:
        inside = min(max(value, low), high)
        return (
            left + (right - left) * second / span,
            bottom - (bottom - top) * (inside - low) / (high - low),
        )

    shapes = []
    for t in ticks:
        y = at(0.0, t)[1]
        shapes.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        shapes.append(
            f'<text class="ytick" x="{left - 8}" y="{y + 4:.1f}">{_tick(t, ticks)}</text>'
        )
    for t in axis(0.0, span):
        if t <= span:
            x = at(t, low)[0]
            shapes.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 18}">{t:g} s</text>')
    if bar is not None:
        y = at(0.0, bar)[1]
        shapes.append(
            f'<path class="baseline" d="M{left} {y:.1f}H{right}"/>'
            f'<text class="mark" x="{right - 2}" y="{y + 14:.1f}">{escape(bar_name)}</text>'
        )
    shapes += [_dot(*at(second, value), not low <= value <= high) for second, value in found]
    shapes.append(f'<path class="best" d="{_step_line([at(s, v) for s, v in _best(found, up)])}"/>')
    return _svg(_WIDTH, bottom + 26.0, shapes, "Best validation score over time")


def _best(points: Sequence[tuple[float, float]], up: bool) -> list[tuple[float, float]]:
    """Return where the best score so far changes, and the end."""
    found: list[tuple[float, float]] = []
    for second, value in points:
        if not found or (value > found[-1][1] if up else value < found[-1][1]):
            found.append((second, value))
    return [*found, (points[-1][0], found[-1][1])]


def _step_line(places: Sequence[tuple[float, float]]) -> str:
    start = f"M{places[0][0]:.1f} {places[0][1]:.1f}"
    return start + "".join(f"H{x:.1f}V{y:.1f}" for x, y in places[1:])


def _dot(x: float, y: float, outside: bool) -> str:
    return f'<circle class="{"dot out" if outside else "dot"}" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'


def axis(low: float, high: float) -> list[float]:
    """Return four to nine round numbers, evenly apart, that cover the range."""
    span = (high - low) or max(abs(high), 1e-3) * 0.01
    rough = span / 4.0
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(m for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * unit >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _tick(value: float, ticks: Sequence[float]) -> str:
    digits = max(0, -math.floor(math.log10((ticks[1] - ticks[0]) * 0.51)))
    return f"{value:.{min(digits, 6)}f}"


def _svg(wide: float, tall: float, shapes: Sequence[str], label: str, most: float = _WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {wide:.0f} {tall:.0f}" role="img" aria-label="{escape(label)}" '
        f'style="max-width:{most:.0f}px">{"".join(shapes)}</svg>'
    )
