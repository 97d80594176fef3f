"""Every error a user can meet. A message states the rule, then the value that broke it, then what
to do.
"""

from __future__ import annotations


class AutoRecError(Exception):
    """Base of all errors raised on purpose by AutoRec."""


class ConfigError(AutoRecError, ValueError):
    """An argument has a value that the call cannot work with."""


class SchemaError(AutoRecError, ValueError):
    """The columns of a table do not fit the roles or kinds asked of them."""


class DataError(AutoRecError, ValueError):
    """The rows of a table cannot be used: unreadable, empty, or outside what is allowed."""


class GrowthError(AutoRecError):
    """A block cannot grow as asked without changing its function."""


class SpaceError(AutoRecError, ValueError):
    """A candidate or its parameters lie outside the search space."""


class TrainingError(AutoRecError, RuntimeError):
    """A candidate could not be trained (diverged, out of memory, no usable step)."""


class BudgetError(AutoRecError, RuntimeError):
    """The time or memory limit leaves no room for the work asked."""


class NotFittedError(AutoRecError, RuntimeError):
    """A method that needs a fitted model was called before `fit` or `load`."""


class RankerError(AutoRecError, RuntimeError):
    """A saved ranker is incomplete, altered, or of a version that this code cannot read."""


class MissingExtraError(AutoRecError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""
