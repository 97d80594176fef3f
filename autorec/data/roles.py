"""Which column is the label, the user, the item, the time, the group and the weight.

What the caller names is taken or refused; what is left is looked for by well-known names, and the
reason says that it was guessed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from autorec.data import timeline
from autorec.data.casting import is_list, is_text
from autorec.data.evidence import Look, number_text
from autorec.data.kinds import iso_text, time_unit
from autorec.data.reading import absent
from autorec.errors import DataError, SchemaError
from autorec.schema import Kind, Role

ARGUMENTS = {
    Role.LABEL: "label",
    Role.USER: "user_id",
    Role.ITEM: "item_id",
    Role.TIMESTAMP: "timestamp",
    Role.GROUP: "group",
    Role.WEIGHT: "sample_weight",
}
# Well-known names, the likeliest first, as `folded` writes them. The group is never guessed.
_NAMES = {
    Role.LABEL: "label click clicked isclick isclicked target rating ratings y stars labels "
    "conversion converted purchased liked islike",
    Role.USER: "user userid uid visitor visitorid customer customerid member memberid reviewerid "
    "profileid accountid",
    Role.ITEM: "item itemid iid movie movieid product productid app ad adid article articleid "
    "asin sku video videoid song songid track trackid news newsid book bookid isbn business "
    "businessid post postid doc docid content contentid job jobid",
    Role.TIMESTAMP: "timestamp ts time datetime eventtime eventtimestamp unixtime unixtimestamp "
    "timems unixreviewtime createdat requesttime servertime date",
    Role.WEIGHT: "weight sampleweight instanceweight",
}
NAMES = {role: line.split() for role, line in _NAMES.items()}
ROLES = {role.value: role for role in ARGUMENTS}
IGNORE = Role.IGNORE.value
TYPES = [*(kind.value for kind in Kind), *(r for r in ROLES if r != "timestamp"), IGNORE]
# Kinds that a column with a role may be given in feature_types, the usual one first.
_OWN = {
    Role.LABEL: (Kind.CATEGORICAL, Kind.NUMERIC),
    Role.USER: (Kind.ID, Kind.CATEGORICAL),
    Role.ITEM: (Kind.ID, Kind.CATEGORICAL),
    Role.GROUP: (Kind.ID, Kind.CATEGORICAL),
    Role.TIMESTAMP: (Kind.TIMESTAMP,),
    Role.WEIGHT: (Kind.NUMERIC,),
}


def named(
    given: Mapping[Role, str | None], types: Mapping[str, str], names: Sequence[str]
) -> dict[str, Role]:
    """Return column to role for what the caller named.

    Args:
        given: role to column, None where it was left out.
        types: column to type, of `TYPES`.
        names: all columns.

    Raises:
        SchemaError: an unknown column or type, a role given twice, or a column with two roles.
    """
    asked = [(role, name, f"{ARGUMENTS[role]}={name!r}") for role, name in given.items() if name]
    for name, kind in types.items():
        if name not in names:
            raise SchemaError(absent(name, names, "column of feature_types"))
        if kind not in TYPES:
            near = difflib.get_close_matches(str(kind), TYPES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "choose one of them"
            raise SchemaError(
                f"feature_types must map columns to {TYPES}, but {name!r} has {kind!r}; {hint}"
            )
        if kind in ROLES and kind != Role.TIMESTAMP.value:
            asked.append((ROLES[kind], name, f"feature_types={{{name!r}: {kind!r}}}"))
    roles: dict[str, Role] = {}
    said: dict[Role, str] = {}
    for role, name, how in asked:
        if name not in names:
            raise SchemaError(absent(name, names, f"column of {ARGUMENTS[role]}="))
        if role in said and roles.get(name) is not role:
            raise SchemaError(f"only one column can be the {role.value}: {said[role]} and {how}")
        said[role] = how
        if {roles.get(name), role} == {Role.USER, Role.GROUP}:
            roles[name] = Role.USER  # groups follow the user where no column is the group
        elif roles.setdefault(name, role) is not role:
            raise SchemaError(
                f"a column can have one role, but {name!r} is to be the {roles[name].value} and "
                f"the {role.value}; copy it under another name"
            )
        if types.get(name) == IGNORE:
            raise SchemaError(
                f"a column with a role cannot be ignored, but {name!r} has {how} and "
                f"feature_types={{{name!r}: 'ignore'}}; leave one out"
            )
    return roles


def guessed(
    roles: dict[str, Role], types: Mapping[str, str], looks: Mapping[str, Look]
) -> set[str]:
    """Give the roles that are left to columns with well-known names; return those columns.

    Columns in `types` have been decided about and keep out, but for times called "timestamp".
    """
    found = set()
    for role, usual in NAMES.items():
        if role in roles.values():
            continue
        fitting = [
            (usual.index(folded(name)), at, name)
            for at, (name, look) in enumerate(looks.items())
            if folded(name) in usual and name not in roles and _likely(role, look, types.get(name))
        ]
        if fitting:
            roles[min(fitting)[2]] = role
            found.add(min(fitting)[2])
    return found


def folded(name: str) -> str:
    """Return a name without case, separators and RecBole's type: 'user_id:token' is 'userid'."""
    return re.sub(r"[^a-z0-9]", "", name.partition(":")[0].lower())


def _likely(role: Role, look: Look, asked: str | None) -> bool:
    t, kind = pa.types, look.dtype
    if asked is not None:
        return role is Role.TIMESTAMP and asked == Kind.TIMESTAMP.value
    if look.empty or is_list(kind):
        return False
    if role is Role.TIMESTAMP:
        return time_unit(look) is not None
    if role is Role.LABEL:
        return look.distinct <= 2 if is_text(kind) else not t.is_temporal(kind)
    if role is Role.WEIGHT:
        number = t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind)
        return bool(number) and pc.min(look.present).as_py() >= 0
    return bool(is_text(kind)) or look.ints is not None


def check_role(role: Role, look: Look) -> None:
    """Check that the values of a column can have a role.

    Raises:
        SchemaError: they cannot.
    """
    t, kind, name = pa.types, look.dtype, look.name
    if role is not Role.IGNORE and is_list(kind):
        raise SchemaError(
            f"the {role.value} must be one value a row, but {name!r} holds {kind}; choose another "
            "column"
        )
    if role is Role.LABEL and t.is_temporal(kind) and not t.is_duration(kind):
        raise SchemaError(
            f"the label must be a number, a boolean or a word, but {name!r} holds {kind}; choose "
            "another column"
        )
    numeric = t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind) or t.is_boolean(kind)
    if role is Role.WEIGHT and not numeric:
        raise SchemaError(
            f"the weight must be a number, but {name!r} holds {kind}; convert it or choose another "
            "column"
        )
    if role is Role.TIMESTAMP:
        check_time(look)


def check_time(look: Look) -> None:
    """Check that the values of a column can order rows in time.

    Raises:
        SchemaError: they cannot.
    """
    try:
        timeline.moments(look.unique, look.name)
    except DataError as error:
        raise SchemaError(
            "a timestamp must be a time, a date, ISO text or a number, but column "
            f"{look.name!r} ({look.dtype}) is none: {error}"
        ) from error


def check_kind(look: Look, kind: Kind, role: Role) -> None:
    """Check that a column can be read as the kind that feature_types gives it.

    Raises:
        SchemaError: it cannot, or a column with its role cannot.
    """
    own = _OWN.get(role)
    if own is not None and kind not in own:
        raise SchemaError(
            f"the {role.value} is {' or '.join(k.value for k in own)}, but feature_types calls "
            f"{look.name!r} {kind.value}; leave it out of feature_types"
        )
    if look.empty:
        return
    text, several = is_text(look.dtype), is_list(look.dtype)
    if kind is Kind.TIMESTAMP:
        if text and not iso_text(look):
            check_time(look)
        check_role(Role.TIMESTAMP, look)
    wrong = {
        Kind.LIST: not (text or several),
        Kind.TEXT: not text,
        Kind.NUMERIC: several or (text and not number_text(look.unique)),
    }.get(kind, several)
    if wrong:
        example = look.present[0].as_py()
        raise SchemaError(
            f"feature_types calls {look.name!r} {kind.value}, but it holds {look.dtype} such as "
            f"{example!r}; convert it or leave it out of feature_types"
        )
