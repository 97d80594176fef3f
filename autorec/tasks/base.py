"""What a task is: the label it accepts, the head's bias and loss, the prediction and the metrics.

A task is made once per fit from the statistics of the label column (`from_stats`), written beside
the model, and read back wherever predictions are made. Order of calls: `label_map` turns the column
into float32 labels once; `bias` is asked when a network is built; `loss` at every training step;
`predict`, `metrics` and `score` at every evaluation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from autorec.data.labels import LabelMap, LabelStats
from autorec.errors import ConfigError, DataError, TrainingError
from autorec.tasks.metrics import METRICS, Metric

if TYPE_CHECKING:
    import torch

T = TypeVar("T", bound="Task")


@dataclass(frozen=True)
class Task(ABC):
    """One kind of prediction, fitted to one label column.

    Attributes:
        label_map: how the values of the column become float32 labels.
        reason: one sentence that says what was decided about the label, and why.
        eval_metric: name of the metric that the search maximises (through `score`).
        grouped: whether rows carry a group, so that grouped metrics exist.
    """

    name: ClassVar[str]
    metric_names: ClassVar[tuple[str, ...]]

    label_map: LabelMap
    reason: str
    eval_metric: str
    grouped: bool

    def __post_init__(self) -> None:
        if self.eval_metric not in self.metric_names:
            raise ConfigError(
                f"eval_metric of task {self.name!r} must be one of {list(self.metric_names)}, "
                f"but got {self.eval_metric!r}"
            )
        if METRICS[self.eval_metric].grouped and not self.grouped:
            raise ConfigError(
                f"eval_metric {self.eval_metric!r} is a mean over groups, but no column is the "
                "user or the group; name one, or choose another metric"
            )

    @classmethod
    @abstractmethod
    def from_stats(
        cls: type[T], stats: LabelStats, *, eval_metric: str | None = None, grouped: bool = False
    ) -> T:
        """Return the task for a label column.

        Raises:
            DataError: the column cannot be the label of this task; the message says why.
            ConfigError: `eval_metric` is not one of `metric_names`, or needs a group.
        """

    @abstractmethod
    def bias(self) -> float:
        """Return the output that a network without inputs should start from."""

    @abstractmethod
    def loss(
        self, output: torch.Tensor, label: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the mean loss, a float32 scalar.

        Args:
            output: (B,) of the network.
            label: (B,) float, as `label_map` made it.
            weight: (B,) at least 0; the mean is divided by its sum.
        """

    @overload
    def predict(self, output: torch.Tensor) -> torch.Tensor: ...
    @overload
    def predict(self, output: npt.NDArray[Any]) -> npt.NDArray[np.float64]: ...
    def predict(
        self, output: torch.Tensor | npt.NDArray[Any]
    ) -> torch.Tensor | npt.NDArray[np.float64]:
        """Return predictions (B,) from outputs (B,): a tensor from a tensor, else float64."""
        if isinstance(output, np.ndarray):
            return self._predict_array(output.astype(np.float64))
        return self._predict_tensor(output)

    def clip(self, prediction: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return predictions (B,), in the task's own units already, inside the range of labels."""
        return prediction

    @abstractmethod
    def _predict_array(self, output: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...

    @abstractmethod
    def _predict_tensor(self, output: torch.Tensor) -> torch.Tensor: ...

    @property
    def metric(self) -> Metric:
        """The metric that the search maximises."""
        return METRICS[self.eval_metric]

    def metrics(
        self,
        label: npt.ArrayLike,
        prediction: npt.ArrayLike,
        weight: npt.ArrayLike | None = None,
        group: npt.ArrayLike | None = None,
    ) -> dict[str, float]:
        """Return every metric of the task on (N,) columns, raw.

        Grouped metrics are left out where `group` is not given; what is undefined here is NaN.
        """
        asked = [METRICS[name] for name in self.metric_names]
        return {
            metric.name: metric(label, prediction, weight, group)
            for metric in asked
            if group is not None or not metric.grouped
        }

    def score(self, metrics: Mapping[str, float]) -> float:
        """Return `eval_metric` with the sign that makes higher better.

        Raises:
            TrainingError: the metric is missing or undefined: candidates cannot be compared.
        """
        value = metrics.get(self.eval_metric)
        if value is None:
            raise TrainingError(
                f"the metrics must hold {self.eval_metric!r}, but got {sorted(metrics)}; "
                "a grouped metric is computed only where group is given"
            )
        if not math.isfinite(value):
            raise TrainingError(
                f"{self.eval_metric} must be a finite number, but it is {value}: the validation "
                "rows hold only one class (in every group), or the predictions are not finite; "
                "enlarge the holdout, lower the learning rate, or choose another eval_metric"
            )
        return value if self.metric.greater_is_better else -value

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; `autorec.tasks.from_json` reads it back."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"task": self.name, **own, "label_map": self.label_map.to_json()}

    @classmethod
    def from_json(cls: type[T], data: Mapping[str, Any]) -> T:
        """Read what `to_json` wrote.

        Raises:
            DataError: the data is of another task.
        """
        if data.get("task") != cls.name:
            raise DataError(
                f"expected the task {cls.name!r}, but the data says {data.get('task')!r}"
            )
        own = {key: value for key, value in data.items() if key != "task"}
        return cls(**{**own, "label_map": LabelMap.from_json(cast(Any, data["label_map"]))})


def mean_loss(rows: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Return the weighted mean of per-row losses (B,); 0 where all weights are 0."""
    if weight is None:
        return rows.mean()
    weight = weight.to(rows.dtype)
    return (rows * weight).sum() / weight.sum().clamp_min(1e-30)


def same_shape(output: torch.Tensor, label: torch.Tensor) -> None:
    """Refuse outputs that would broadcast against the labels into a (B, B) loss.

    Raises:
        TrainingError: the shapes differ.
    """
    if output.shape != label.shape:
        raise TrainingError(
            "output and label must have one shape (B,), but got "
            f"{tuple(output.shape)} and {tuple(label.shape)}"
        )


def require_usable(stats: LabelStats) -> None:
    """Refuse label columns that no task can learn from.

    Raises:
        DataError: no rows, nulls, non-finite numbers, or one value only.
    """
    column = f"label column {stats.name!r}"
    if stats.rows == 0:
        raise DataError(f"the {column} must have rows, but the table is empty")
    if stats.nulls:
        raise DataError(
            f"every row must have a label, but {stats.nulls} of {stats.rows} rows of the {column} "
            "are null; drop or fill those rows"
        )
    if stats.nonfinite:
        raise DataError(
            f"labels must be finite, but {stats.nonfinite} of {stats.rows} rows of the {column} "
            "are NaN or infinite; drop or fill those rows"
        )
    if stats.distinct == 1:
        raise DataError(
            f"a label must have at least two values, but all {stats.rows} rows of the {column} are "
            f"{stats.values[0][0]!r}; there is nothing to learn, choose another column or more rows"
        )


def is_number(value: object) -> bool:
    """Tell whether a label value counts as a number (booleans do not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
