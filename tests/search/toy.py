"""A space of three genes and a worker that trains nothing; run as a script it is that worker."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autorec.architecture import Value
from autorec.candidate import TREE, Candidate, Recipe
from autorec.errors import SpaceError
from autorec.job import Job, Report, Score
from autorec.schema import Layout
from autorec.search.engine import make_engine
from autorec.search.pool import die_with_parent, orphaned
from autorec.search.runner import run_worker
from autorec.search.study import join_study
from autorec.space import Ask, Space

NAME = "toy"


class Toy(Space):
    """`x` in 0..1, and `layers` where `kind` is deep; `points` makes `x` one of so many integers.

    `tag` is a gene of one value, whose name changes the version of the space.
    """

    name = "toy"

    def __init__(self, points: int = 0, tag: str = "a") -> None:
        self.tag, self.layout = tag, Layout()
        x: BaseDistribution = IntDistribution(0, points - 1) if points else FloatDistribution(0, 1)
        self.genes: Mapping[str, BaseDistribution] = {
            "kind": CategoricalDistribution(("flat", "deep") if not points else ("flat",)),
            "x": x,
            "layers": IntDistribution(1, 4),
            f"tag.{tag}": CategoricalDistribution((0,)),
        }

    def walk(self, ask: Ask) -> Candidate:
        ask(f"tag.{self.tag}")
        recipe = {"kind": ask("kind"), "x": ask("x")}
        if recipe["kind"] == "deep":
            recipe["layers"] = ask("layers")
        return Candidate(TREE, Recipe(recipe))

    def params(self, candidate: Candidate) -> dict[str, Value]:
        if "x" not in candidate.recipe:
            raise SpaceError(f"a toy has an x, but got {candidate}")
        return {**candidate.recipe, f"tag.{self.tag}": 0}

    def canonical(self, candidate: Candidate) -> Candidate:
        return candidate

    def starts(self) -> list[tuple[str, Candidate]]:
        return []

    def baselines(self) -> list[tuple[str, Candidate]]:
        return []

    def size(self) -> float:
        return 1.0

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "arguments": {"tag": self.tag}}


def toy(x: float, kind: str = "flat", **more: Value) -> Candidate:
    """Return the candidate of a toy space with these genes."""
    return Candidate(TREE, Recipe({"kind": kind, "x": x, **more}))


def worth_of(candidate: Candidate) -> float:
    """Return what every test scores a toy candidate with: best 0 at x = 0.3."""
    return -abs(float(candidate.recipe.get("x", 9.0)) - 0.3)


def sleeper(seconds: float) -> Any:
    """Return an `evaluate` that sleeps, reports once, and scores a candidate by `worth_of`."""

    def evaluate(job: Job, report: Report) -> Score:
        time.sleep(seconds)
        value = worth_of(job.candidate)
        report(100, value)
        return Score(value, {"worth": value}, 100, seconds)

    return evaluate


def main(folder: str, parent: str, seconds: str, until: str, n_trials: str) -> None:
    """Work on the toy study in `folder` until the unix time `until`."""
    die_with_parent(int(parent))
    space = Toy()
    study = join_study(
        Path(folder), name=NAME, space=space, sampler=make_engine("random", space, 0)
    )
    run_worker(
        study,
        space,
        sleeper(float(seconds)),
        seed=0,
        deadline=float(until),
        n_trials=int(n_trials) or None,
        stop=lambda: orphaned(int(parent)),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
