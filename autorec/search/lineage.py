"""From what an engine says of a child to what a worker may do: whose weights it can start from.

An engine stores parent and edits as a proposal (the user attribute `bred`). Genes may have been
fixed by someone else, or the parent built in another form, so that the proposal is checked: the
edits have to lead from the parent, as it was built, to what the genes of the child say.

A child is built in its edited form, in which the nodes of its parent keep their numbers; its key
stays that of its canonical form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from autorec.candidate import Candidate
from autorec.edits import Edit, apply_all
from autorec.errors import SpaceError
from autorec.search_spaces._dag import DagSpace
from autorec.space import Space

BRED = "bred"


@dataclass(frozen=True)
class Lineage:
    """A child of edits.

    Attributes:
        parent: number of the trial that the edits begin at.
        edits: JSON, in their order.
        candidate: what is built, in the order of the parent's nodes.
    """

    parent: int
    edits: tuple[Mapping[str, Any], ...]
    candidate: Candidate


def bred(
    parent: int, edits: tuple[Edit, ...] = (), redrawn: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the user attribute of a child: its parent, its edits and its redrawn genes."""
    return {
        "parent": parent,
        "edits": [edit.to_json() for edit in edits],
        "redrawn": list(redrawn),
    }


def tell(
    study: Study,
    trial: FrozenTrial,
    parent: int | None,
    edits: tuple[Edit, ...] = (),
    redrawn: tuple[str, ...] = (),
) -> None:
    """Write to a trial whose child its candidate is; nothing for one without a parent."""
    if parent is not None:
        told = bred(parent, edits, redrawn)
        study._storage.set_trial_user_attr(trial._trial_id, BRED, told)


def built_form(space: Space, trial: FrozenTrial, twin: Candidate) -> Candidate | None:
    """Return the form that the candidate of `trial` was built of, or None.

    Args:
        twin: the canonical form; a stored one that is no longer equal to it is none.
    """
    stored = trial.user_attrs.get("candidate")
    if stored is None:
        return None
    try:
        found = Candidate.from_json(stored)
        return found if space.canonical(found) == twin else None
    except SpaceError:
        return None


def lineage(
    study: Study, attrs: Mapping[str, Any], candidate: Candidate, space: Space
) -> Lineage | None:
    """Return the checked lineage of a child, or None for what has to start from nothing.

    A child whose recipe alone differs has none: weights that another recipe learned would say
    little about its own.

    Args:
        attrs: user attributes of the trial.
        candidate: canonical.
    """
    told = attrs.get(BRED, {})
    if not told.get("edits") or candidate.architecture is None or not isinstance(space, DagSpace):
        return None
    trials = study.get_trials(deepcopy=False)
    number = int(told["parent"])
    stored = trials[number].user_attrs.get("candidate") if number < len(trials) else None
    if stored is None:
        return None
    try:
        chain = [Edit.from_json(edit) for edit in told["edits"]]
        grown = apply_all(Candidate.from_json(stored), chain, space).candidate
        child = replace(grown, recipe=candidate.recipe)
        same = space.canonical(child) == candidate
    except (SpaceError, KeyError, TypeError):
        return None
    return Lineage(number, tuple(told["edits"]), child) if same else None
