"""The report: whole, alone, and never in the way."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autorec import AutoRec, report
from autorec.architecture import Architecture, Node
from autorec.candidate import LINEAR, NEURAL, POPULARITY, TREE, Candidate, Features, Recipe
from autorec.drawing import Bar, axis, boxes, diagram, intervals, steps
from autorec.errors import NotFittedError

_VOID = {"meta", "br", "img", "link", "hr"}


class _Reader(HTMLParser):
    """Collects text and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "action")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> _Reader:
    """Parse a page that must be well formed."""
    reader = _Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_a_report_is_whole_and_needs_nothing_else(run: Path) -> None:
    ar = AutoRec.load(run)
    ar.leaderboard()
    started = time.perf_counter()
    page = report.render(ar)
    assert time.perf_counter() - started < 5.0
    reader = read(page)
    assert reader.links == [] and "<script" not in page and "url(" not in page
    assert "@import" not in page and "Not available" not in page
    told = " ".join(reader.text)
    trials = ar._records()
    ended = [trial for trial in trials if trial.finished is not None]
    assert len(ended) >= 3
    for trial in ended:
        assert str(trial.name) in told
        assert trial.value is None or f"{trial.value:.4f}" in told
    for field in ar.schema_.fields:
        assert field.name in told and field.reason in told
    for title in ("The winner", "Best against baselines", "The search", "Leaderboard", "Columns"):
        assert title in told
    assert page.count("<svg") == 3


def test_the_run_folder_has_its_report(run: Path) -> None:
    assert "Leaderboard" in (run / "report.html").read_text("utf-8")


def test_a_ranker_alone_has_a_report(run: Path) -> None:
    told = " ".join(read(report.render(AutoRec.load(run / "ranker"))).text)
    assert "This ranker came without its trials." in told and "Columns" in told


def test_a_section_that_breaks_says_so_and_the_rest_is_there(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(facts: Any) -> str:
        raise KeyError("curve <3")

    monkeypatch.setattr(report, "_progress", broken)
    monkeypatch.setattr(report, "_read_trials", broken)
    told = " ".join(read(report.render(AutoRec.load(run))).text)
    assert "Not available: KeyError: 'curve <3'" in told
    assert "The trials could not be read: 'curve <3'" in told and "Columns" in told


def test_a_report_needs_a_fit() -> None:
    with pytest.raises(NotFittedError, match="neither fit nor load was called"):
        report.render(AutoRec())


def test_failures_are_told_and_escaped() -> None:
    failure = {"type": "TrainingError", "message": "loss <b>nan</b>"}
    trials = [SimpleNamespace(number=7, name=None, failure=failure)]
    told = report._failures(SimpleNamespace(trials=trials))  # type: ignore[arg-type]
    assert "trial 7" in told and "loss &lt;b&gt;nan&lt;/b&gt;" in told
    assert report._failures(SimpleNamespace(trials=[])) == ""  # type: ignore[arg-type]


DEEP = Architecture(
    (
        Node("mlp", ("dense", "sparse"), (("width", 400), ("layers", 3))),
        Node("cross", ("sparse",)),
        Node("fm", ("sparse", 0)),
        Node("mlp", (0, 2, "dense")),
    ),
    16,
    linear=True,
)
FLAT = Architecture((), 0, linear=True)
NONE = Recipe({})


@pytest.mark.parametrize(
    ("candidate", "titles", "arrows"),
    [
        (
            Candidate(NEURAL, NONE, Features(), DEEP),
            "ids numbers linear mlp cross fm mlp score",
            13,
        ),
        (
            Candidate(LINEAR, NONE, Features(), Architecture((), 0, True)),
            "ids numbers linear score",
            3,
        ),
        (Candidate(TREE, Recipe({"num_leaves": 31})), "columns LightGBM score", 2),
        (Candidate(POPULARITY, NONE), "columns click rates score", 2),
    ],
)
def test_a_diagram_has_each_block_and_each_connection(
    candidate: Candidate, titles: str, arrows: int
) -> None:
    found = boxes(candidate, "6 id columns", "3 numbers")
    assert " ".join(box.title for box in found) == titles
    assert sum(len(box.inputs) for box in found) == arrows
    picture = diagram(found)
    assert picture.count('class="edge"') == arrows
    assert picture.count("<rect") == len(found)


def test_boxes_do_not_overlap_and_arrows_cross_none() -> None:
    picture = diagram(boxes(Candidate(NEURAL, NONE, Features(), DEEP), "ids", "numbers"))
    pattern = r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"'
    areas = [tuple(map(float, found)) for found in re.findall(pattern, picture)]
    for i, (x, y, w, h) in enumerate(areas):
        for x2, y2, w2, h2 in areas[i + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    for edge in re.findall(r'class="edge" d="([^"]+)"', picture):
        for start, height, end in re.findall(r" ([\d.]+) ([\d.]+)H([\d.]+)", edge):
            middle, level = (float(start) + float(end)) / 2, float(height)
            assert not any(x < middle < x + w and y < level < y + h for x, y, w, h in areas)


@pytest.mark.parametrize(
    ("low", "high"), [(0.5, 0.9), (0.78251, 0.78252), (0.0, 75.0), (0.7, 0.7), (-3.0, 12.0), (0, 0)]
)
def test_an_axis_covers_its_range_with_few_round_numbers(low: float, high: float) -> None:
    ticks = axis(low, high)
    assert ticks[0] <= low and high <= ticks[-1] + 1e-9
    assert 2 <= len(ticks) <= 9
    steps_between = {round(b - a, 9) for a, b in pairwise(ticks)}
    assert len(steps_between) == 1


def test_the_best_line_follows_the_direction() -> None:
    points = [(1.0, 0.9), (2.0, 0.95), (3.0, 0.85)]

    def heights(up: bool) -> list[float]:
        line = re.findall(r'class="best" d="([^"]+)"', steps(points, None, "", up=up))[0]
        return [float(line.split()[1].split("H")[0]), *map(float, re.findall(r"V([\d.]+)", line))]

    rising, falling = heights(True), heights(False)
    assert rising == sorted(rising, reverse=True) and rising[0] > rising[-1]  # y grows downwards
    assert falling == sorted(falling) and falling[0] < falling[-1]


def test_one_point_is_enough_for_every_picture() -> None:
    assert "<svg" in steps([(0.0, 0.5)], 0.5, "popularity", up=True)
    assert "0.5000" in intervals([Bar("a<b", 0.5, None, None)])
    assert "a&lt;b" in intervals([Bar("a<b", 0.5, 0.5, 0.5)])
