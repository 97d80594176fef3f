"""Schema inference: what each column is, with the reason in words.

One bounded look at the table decides; every decision can be overridden by an argument or by
`feature_types`, and its reason says so where it was a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from autorec.data.casting import is_text
from autorec.data.evidence import Look, look
from autorec.data.kinds import judge, time_unit
from autorec.data.roles import (
    ARGUMENTS,
    IGNORE,
    NAMES,
    check_kind,
    check_role,
    guessed,
    named,
)
from autorec.errors import SchemaError
from autorec.schema import Field, Kind, Role, Schema

if TYPE_CHECKING:
    from autorec.data.sources import Source

_SHOWN = 6


def infer(
    source: Source,
    *,
    label: str | None = None,
    user_id: str | None = None,
    item_id: str | None = None,
    timestamp: str | None = None,
    group: str | None = None,
    sample_weight: str | None = None,
    feature_types: Mapping[str, str] | None = None,
) -> Schema:
    """Return what each column of a table is.

    The first rows are looked at (see `autorec.data.evidence.look`). Roles that are not named are
    guessed from well-known names, except the group.

    Args:
        source: the table.
        label: column to predict.
        user_id, item_id: who and what.
        timestamp: column that orders rows in time.
        group: column whose groups grouped metrics average over; the user by default.
        sample_weight: column of weights.
        feature_types: column to kind (`id`, `categorical`, `numeric`, `list`, `text`, `timestamp`)
            or role (`label`, `user`, `item`, `group`, `weight`, `ignore`). Such columns are not
            guessed about. A `timestamp` other than the one named is no feature.

    Raises:
        SchemaError: a named column or type does not exist, a column cannot be what it is to be,
            or there is no label.
        DataError: there are no rows, or they cannot be read.
    """
    types = dict(feature_types or {})
    given = dict(
        zip(ARGUMENTS, (label, user_id, item_id, timestamp, group, sample_weight), strict=True)
    )
    roles = named(given, types, source.schema.names)
    looks = look(source, dict(getattr(source, "notes", {})))
    guesses = guessed(roles, types, looks)
    if Role.LABEL not in roles.values():
        raise _no_label(source.schema.names)
    return Schema(
        tuple(
            _field(one, roles.get(name), types.get(name), name in guesses)
            for name, one in looks.items()
        )
    )


def _no_label(names: list[str]) -> SchemaError:
    usual = ", ".join(NAMES[Role.LABEL][:_SHOWN])
    shown = list(names[:50])
    more = f" and {len(names) - 50} more" if len(names) > 50 else ""
    return SchemaError(
        f"a fit needs a label, but none of the columns {shown}{more} has a usual name ({usual}, "
        "...) and values that fit; name one: label=..."
    )


def _field(one: Look, role: Role | None, asked: str | None, guess: bool) -> Field:
    note = f"; {one.note}" if one.note else ""
    kind, reason, role = _decided(one, role, asked, guess)
    return Field(one.name, kind, role, str(one.dtype), reason + note)


def _decided(
    one: Look, role: Role | None, asked: str | None, guess: bool
) -> tuple[Kind, str, Role]:
    """Return kind, reason and role of a column."""
    if asked == IGNORE:
        return judge(one).kind, f"{one.told()}: ignored, as given", Role.IGNORE
    forced = Kind(asked) if asked in {kind.value for kind in Kind} else None
    if forced is not None:
        check_kind(one, forced, role or Role.FEATURE)
    if role is not None:
        check_role(role, one)
        kind = forced or _kind_in(role, one)
        return kind, _why(one, role, guess), role
    if forced is not None:
        unseen = " (not shown to a model)" if forced is Kind.TIMESTAMP else ""
        return forced, f"{one.told()}: {forced.value}, as given{unseen}", Role.FEATURE
    verdict = judge(one)
    return verdict.kind, verdict.reason, Role.IGNORE if verdict.useless else Role.FEATURE


def _kind_in(role: Role, one: Look) -> Kind:
    if role is Role.TIMESTAMP:
        return Kind.TIMESTAMP
    if role is Role.WEIGHT:
        return Kind.NUMERIC
    if role is Role.LABEL:
        plain = is_text(one.dtype) or one.distinct <= 2
        return Kind.CATEGORICAL if plain else Kind.NUMERIC
    return Kind.ID


def _why(one: Look, role: Role, guess: bool) -> str:
    unit = time_unit(one) if role is Role.TIMESTAMP else None
    seen = one.told() if unit in (None, str(one.dtype)) else f"{one.told()} ({unit})"
    if not guess:
        return f"{seen}: the {role.value}, as given"
    return (
        f"{seen}: the {role.value}, guessed from its name; override with {ARGUMENTS[role]}=... or "
        f"feature_types={{{one.name!r}: ...}}"
    )
