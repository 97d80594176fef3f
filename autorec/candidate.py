"""A candidate is everything that is searched about one model: features, architecture, recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from autorec.architecture import Architecture, Value
from autorec.errors import SpaceError

if TYPE_CHECKING:
    from autorec.schema import DenseField, Layout, ListField, SparseField

NEURAL = "neural"
TREE = "tree"
LINEAR = "linear"
POPULARITY = "popularity"
FAMILIES = (NEURAL, TREE, LINEAR, POPULARITY)


class Recipe(Mapping[str, Value]):
    """Training settings by name, immutable, hashable and independent of the order given."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._items = tuple(sorted(values.items()))

    def __getitem__(self, name: str) -> Value:
        for key, value in self._items:
            if key == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._items])

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self._items == other._items

    def __repr__(self) -> str:
        return f"Recipe({dict(self._items)})"

    def number(self, name: str, default: float) -> float:
        """Return the setting `name` as a float, or `default` where it is not set."""
        return float(self.get(name, default))

    def changed(self, **values: Value) -> Recipe:
        """Return a copy with some settings replaced."""
        return Recipe({**self, **values})


@dataclass(frozen=True)
class Features:
    """Which columns reach the model, and how.

    Attributes:
        numeric: numbers go in as a normalised vector (`dense`), as embedded quantile bins (`bins`),
            or as `both`.
        counts, rates, ids: how many of the derived columns of each form, the first ones of the
            layout, which are those that screening chose first.
        without: names of columns of the table that are left out, a number with its bins; sorted.
            What was derived from them stays.
    """

    numeric: str = "both"
    counts: int = 0
    rates: int = 0
    ids: int = 0
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "without", tuple(sorted(set(self.without))))

    @property
    def dense(self) -> bool:
        """Whether the normalised vector of numbers is an input."""
        return self.numeric in ("dense", "both")

    @property
    def bins(self) -> bool:
        """Whether quantile bins of numbers are embedded as fields."""
        return self.numeric in ("bins", "both")

    def sparse_of(self, layout: Layout) -> list[int]:
        """Return the positions of the columns of codes that are read."""
        chosen = self._chosen([field for field in layout.sparse if not field.binned])
        chosen |= self._chosen([field for field in layout.sparse if field.binned and self.bins])
        return [i for i, field in enumerate(layout.sparse) if field.name in chosen]

    def dense_of(self, layout: Layout) -> list[int]:
        """Return the positions of the numbers that are read as they are; none without `dense`."""
        return self.numbers_of(layout) if self.dense else []

    def numbers_of(self, layout: Layout) -> list[int]:
        """Return the positions of the numbers that are read in whatever way."""
        chosen = self._chosen(layout.dense)
        return [i for i, field in enumerate(layout.dense) if field.name in chosen]

    def lists_of(self, layout: Layout) -> list[int]:
        """Return the positions of the lists that are read."""
        return [i for i, field in enumerate(layout.lists) if field.name not in self.without]

    def plain(self) -> Features:
        """Return the same columns without bins: numbers as they are, as trees read them."""
        return replace(self, numeric="dense")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; what is derived or left out only where there is any."""
        found = {k: v for k, v in asdict(self).items() if k == "numeric" or v}
        return found | ({"without": list(self.without)} if self.without else {})

    def _chosen(self, fields: Sequence[SparseField] | Sequence[DenseField]) -> set[str]:
        most = {"count": self.counts, "rate": self.rates, "id": self.ids}
        left_out = set(self.without)
        own = [field for field in fields if not field.form]
        found = {field.name for field in own if column_of(field) not in left_out}
        for form, count in most.items():
            found |= {field.name for field in [f for f in fields if f.form == form][:count]}
        return found


def column_of(field: SparseField | DenseField | ListField) -> str:
    """Return the column that a field is made from: bins are made from their number."""
    return str(getattr(field, "source", field.name))


@dataclass(frozen=True)
class Candidate:
    """One point of a search space; plain, hashable, JSON-able.

    Raises:
        SpaceError: the family is unknown, or a neural or linear candidate has no architecture.
    """

    family: str
    recipe: Recipe
    features: Features = Features()
    architecture: Architecture | None = None

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise SpaceError(f"a family is one of {FAMILIES}, but got {self.family!r}")
        if (self.architecture is None) == (self.family in (NEURAL, LINEAR)):
            raise SpaceError(
                f"neural and linear candidates have an architecture and the others have none, but "
                f"got family {self.family!r} with architecture {self.architecture!r}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; `from_json` reads it back."""
        return {
            "family": self.family,
            "features": self.features.to_json(),
            "architecture": self.architecture.to_json() if self.architecture else None,
            "recipe": dict(self.recipe),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Candidate:
        """Read what `to_json` wrote."""
        plan = data["architecture"]
        return cls(
            data["family"],
            Recipe(data["recipe"]),
            Features(**data["features"]),
            Architecture.from_json(plan) if plan else None,
        )

    def describe(self) -> str:
        """Return the candidate in a few lines of text, for people."""
        recipe = ", ".join(
            f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in self.recipe.items()
        )
        body = self.architecture.describe() + "\n" if self.architecture else ""
        features = self.features
        derived = {form: getattr(features, form) for form in ("counts", "rates", "ids")}
        body += "".join(f"{count} {form}\n" for form, count in derived.items() if count)
        body += f"without {', '.join(features.without)}\n" if features.without else ""
        return f"{self.family}\n{body}{recipe}"
