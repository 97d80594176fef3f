"""What the arguments of transforms must be."""

from __future__ import annotations

from collections.abc import Sequence

from autorec.errors import ConfigError


def some_fields(fields: Sequence[str], least: int, most: int) -> tuple[str, ...]:
    """Return field names as a tuple.

    Raises:
        ConfigError: a bare text, a name that occurs twice, or a number outside the bounds.
    """
    names = () if isinstance(fields, str) else tuple(fields)
    if not least <= len(names) <= most or len(set(names)) < len(names):
        raise ConfigError(
            f"fields must be {least} to {most} different names, but got {fields!r}; "
            "give a list of names"
        )
    return names


def at_least(name: str, value: float, least: float) -> None:
    """Raise ConfigError unless an argument is `least` or more."""
    if not value >= least:
        raise ConfigError(f"{name} must be at least {least}, but got {value!r}")


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ConfigError unless an argument is one of the allowed words."""
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {list(allowed)}, but got {value!r}")
