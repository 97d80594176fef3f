"""The door between search and work: a `Job` goes in, rung values come out, a `Score` is returned.

Both are JSON, so that a worker in another process, or on another machine, needs nothing but the run
folder to do the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from autorec.candidate import Candidate

COMPLETE = "complete"
STOPPED = "stopped"
DEADLINE = "deadline"

# report(rows presented so far, score) -> go on? It is called at every evaluation; False means stop.
# A child whose weights are inherited reports once before its first step, with 0 rows.
Report = Callable[[int, float], bool]


@dataclass(frozen=True)
class Fidelity:
    """How much work a candidate gets: at most `rows` training rows (epochs counted in; None: no
    cap), id tables of at most `hash_cap` rows (None: as they are)."""

    rows: int | None = None
    hash_cap: int | None = None


@dataclass(frozen=True)
class Job:
    """One candidate, one seed, one fidelity and the moment (unix time, seconds) at which it must
    end.

    `parent` is the trial that it may inherit weights from, `edits` (JSON) lead from the form that
    the parent was built of to `candidate`, whose nodes keep their numbers.
    """

    trial: int
    candidate: Candidate
    seed: int
    deadline: float
    fidelity: Fidelity = Fidelity()
    threads: int = 1
    parent: int | None = None
    edits: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; `from_json` reads it back."""
        return {**asdict(self), "candidate": self.candidate.to_json(), "edits": list(self.edits)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """Read what `to_json` wrote."""
        return cls(
            trial=data["trial"],
            candidate=Candidate.from_json(data["candidate"]),
            seed=data["seed"],
            deadline=data["deadline"],
            fidelity=Fidelity(**data["fidelity"]),
            threads=data["threads"],
            parent=data["parent"],
            edits=tuple(data["edits"]),
        )


@dataclass(frozen=True)
class Score:
    """What a finished job is worth.

    `value` is higher-is-better; `metrics` holds raw values; `rows` counts training rows presented.
    `status`: `complete` (trained to its own end), `stopped` (halving said so) or `deadline`.
    `info` carries facts for the leaderboard: params, flops, epochs, best_rows (those that the
    forebears of a child learned from are counted in), n_train, memory_mb; of a child also
    `inherited` (number of the parent, None where it was trained from scratch), `not_inherited`
    (why), `edits` (kinds) and `root_rows`.
    """

    value: float
    metrics: dict[str, float]
    rows: int
    seconds: float
    status: str = COMPLETE
    info: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Score:
        """Read what `to_json` wrote."""
        return cls(**data)


# The one callable that search receives; a worker rebuilds it from the run folder.
Evaluate = Callable[[Job, Report], Score]
