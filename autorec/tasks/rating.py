"""Numbers as labels: stars, seconds, prices. The network's output is in standard deviations.

Standardised outputs make the loss of every data set start near 1, so that learning rates and
regularisers mean the same on 1-to-5 stars and on seconds watched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from autorec.data.labels import LabelMap, LabelStats
from autorec.errors import DataError
from autorec.tasks.base import Task, is_number, mean_loss, require_usable, same_shape


@dataclass(frozen=True)
class Rating(Task):
    """A number in the units of the label, between the lowest and the highest label seen.

    Attributes:
        mean, std: of the label column, in its units.
        low, high: its smallest and largest value; predictions are clipped to them.
    """

    name: ClassVar[str] = "rating"
    metric_names: ClassVar[tuple[str, ...]] = ("rmse", "mae")

    mean: float
    std: float
    low: float
    high: float

    @classmethod
    def from_stats(
        cls, stats: LabelStats, *, eval_metric: str | None = None, grouped: bool = False
    ) -> Rating:
        """Return the task for a column of numbers.

        Raises:
            DataError: words, nulls, non-finite numbers, or one value only.
            ConfigError: see `Task`.
        """
        require_usable(stats)
        strange = [value for value, _ in stats.values if not is_number(value)]
        numbers = (stats.mean, stats.std, stats.minimum, stats.maximum)
        if strange or any(number is None for number in numbers):
            shown = ", ".join(map(repr, strange[:5])) or stats.dtype
            raise DataError(
                f"a rating must be a number, but the label column {stats.name!r} of type "
                f'{stats.dtype} has {shown}; use task="ctr" for two values, or map words to numbers'
            )
        mean, std, low, high = (float(number) for number in numbers if number is not None)
        if not std > 0.0:
            raise DataError(
                f"ratings must vary, but the label column {stats.name!r} has the standard "
                f"deviation {std} between {low} and {high}; rescale it or choose another column"
            )
        return cls(
            label_map=LabelMap(kind="number"),
            reason=f"{stats.name} is a number from {low:g} to {high:g} with mean {mean:.4g}",
            eval_metric=eval_metric or "rmse",
            grouped=grouped,
            mean=mean,
            std=std,
            low=low,
            high=high,
        )

    def bias(self) -> float:
        """Return 0: the mean, in standardised units."""
        return 0.0

    def loss(
        self, output: torch.Tensor, label: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the weighted mean squared error of outputs (B,) and labels (B,), in variances."""
        same_shape(output, label)
        rows = (output.float() - (label.float() - self.mean) / self.std) ** 2
        return mean_loss(rows, weight)

    def clip(self, prediction: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return ratings (B,) between the lowest and the highest label seen."""
        return np.clip(prediction, self.low, self.high)

    def _predict_array(self, output: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.clip(self.mean + self.std * output, self.low, self.high)

    def _predict_tensor(self, output: torch.Tensor) -> torch.Tensor:
        return (self.mean + self.std * output.float()).clamp(self.low, self.high)
