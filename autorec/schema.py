"""What each column of a table is (`Schema`) and what a model sees of it (`Layout`).

Both are plain, hashable, JSON-able values: the search, the trainer and the served ranker read the
same two nouns, and nothing downstream of the encoder sees a table again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from autorec.errors import SchemaError


class Kind(str, Enum):
    """How the values of a column are to be read."""

    ID = "id"
    CATEGORICAL = "categorical"
    NUMERIC = "numeric"
    LIST = "list"
    TEXT = "text"
    TIMESTAMP = "timestamp"


class Role(str, Enum):
    """What a column is for."""

    LABEL = "label"
    USER = "user"
    ITEM = "item"
    TIMESTAMP = "timestamp"
    GROUP = "group"
    WEIGHT = "weight"
    FEATURE = "feature"
    IGNORE = "ignore"


_UNIQUE = (Role.LABEL, Role.USER, Role.ITEM, Role.TIMESTAMP, Role.GROUP, Role.WEIGHT)
_SEEN = (Role.USER, Role.ITEM, Role.FEATURE)


@dataclass(frozen=True)
class Field:
    """One column: its name, kind, role, Arrow type and the reason for the decision."""

    name: str
    kind: Kind
    role: Role = Role.FEATURE
    dtype: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Schema:
    """The columns of a table in their order.

    Raises:
        SchemaError: two columns of one name, or two columns in a role that only one may have.
    """

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise SchemaError(
                f"column names must differ, but these occur twice: {double}; rename one"
            )
        for role in _UNIQUE:
            held = [field.name for field in self.fields if field.role is role]
            if len(held) > 1:
                raise SchemaError(f"only one column can be the {role.value}, but got {held}")

    def __getitem__(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise SchemaError(
            f"the schema has no column {name!r}; it has {[f.name for f in self.fields]}"
        )

    def _of(self, role: Role) -> str | None:
        return next((field.name for field in self.fields if field.role is role), None)

    @property
    def label(self) -> str | None:
        """Name of the column to predict."""
        return self._of(Role.LABEL)

    @property
    def user(self) -> str | None:
        """Name of the user column."""
        return self._of(Role.USER)

    @property
    def item(self) -> str | None:
        """Name of the item column."""
        return self._of(Role.ITEM)

    @property
    def timestamp(self) -> str | None:
        """Name of the column that orders rows in time."""
        return self._of(Role.TIMESTAMP)

    @property
    def group(self) -> str | None:
        """Name of the column that grouped metrics average over; the user where none is given."""
        return self._of(Role.GROUP) or self.user

    @property
    def weight(self) -> str | None:
        """Name of the sample-weight column."""
        return self._of(Role.WEIGHT)

    @property
    def features(self) -> tuple[Field, ...]:
        """The columns that a model sees, in table order."""
        return tuple(
            field
            for field in self.fields
            if field.role in _SEEN and field.kind is not Kind.TIMESTAMP
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; `from_json` reads it back."""
        return {"fields": [asdict(field) for field in self.fields]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Schema:
        """Read what `to_json` wrote."""
        return cls(
            tuple(
                Field(f["name"], Kind(f["kind"]), Role(f["role"]), f["dtype"], f["reason"])
                for f in data["fields"]
            )
        )

    def digest(self) -> str:
        """Return 16 hex digits that change with any name, kind or role (not with reasons)."""
        facts = [(f.name, f.kind.value, f.role.value) for f in self.fields]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def explain(self) -> str:
        """Return an aligned text table: column, role, kind and why."""
        rows = [("column", "role", "kind", "why")]
        rows += [(f.name, f.role.value, f.kind.value, f.reason) for f in self.fields]
        width = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = ["  ".join([*(row[i].ljust(width[i]) for i in range(3)), row[3]]) for row in rows]
        return "\n".join(line.rstrip() for line in lines)


@dataclass(frozen=True)
class SparseField:
    """One code per row. Code 0 is null, 1 is out of vocabulary, the vocabulary starts at 2.

    `binned` marks the quantile bins of a numeric column, whose own values are a `DenseField`.
    `form` is empty for what the table holds; "id", "count" or "rate" tell what was derived from it
    (`autorec.data.derivation`).
    """

    name: str
    rows: int
    source: str
    binned: bool = False
    form: str = ""


@dataclass(frozen=True)
class ListField:
    """Up to `length` codes per row, code 0 fills the rest; an empty or null list is all 0."""

    name: str
    rows: int
    length: int


@dataclass(frozen=True)
class DenseField:
    """One float32 per row, NaN where missing; `nullable` tells that training rows had nulls.

    `form` is empty for what the table holds, and "count" or "rate" for derived statistics.
    """

    name: str
    nullable: bool = False
    form: str = ""


@dataclass(frozen=True)
class Layout:
    """The columns that an encoder produces and a model consumes, in order."""

    sparse: tuple[SparseField, ...] = ()
    lists: tuple[ListField, ...] = ()
    dense: tuple[DenseField, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Layout:
        """Read what `to_json` wrote."""
        return cls(
            tuple(SparseField(**field) for field in data["sparse"]),
            tuple(ListField(**field) for field in data["lists"]),
            tuple(DenseField(**field) for field in data["dense"]),
        )
