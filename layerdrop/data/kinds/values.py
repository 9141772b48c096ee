"""A number for each row: regression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from layerdrop.data import metrics
from layerdrop.data.columns import label_is_number
from layerdrop.data.examples import BadRow, as_number
from layerdrop.data.kinds.kind import Kind
from layerdrop.data.tables import Table

if TYPE_CHECKING:
    import torch

    from layerdrop.data.tasks import Task


@dataclass(frozen=True)
class Values(Kind):
    """A number for each row: (n,) float32."""

    low: float = -np.inf
    high: float = np.inf
    """Lowest and highest value in GLUE's submissions."""
    names = words = ()
    label_type = "number"
    problem_type = "regression"
    output_code = "print(float(np.squeeze(logits)))"
    named = smoothed = False
    n_outputs = 1

    @classmethod
    @override
    def predicted_by(cls, config: Any, architecture: str) -> bool:
        return config.problem_type == "regression" or config.num_labels == 1

    @classmethod
    @override
    def of(cls, names: tuple[str, ...], task: Task | None = None) -> Values:
        return cls(*task.value_range) if task and task.value_range else cls()

    def __str__(self) -> str:
        return "numbers"

    def loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        label_smoothing: float = 0.0,
        class_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean squared error; label_smoothing and class_weights have no effect."""
        return self.losses(logits.float(), labels).mean()

    def distillation_loss(
        self, student: torch.Tensor, teacher: torch.Tensor, temperature: float, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean squared error; temperature has no effect."""
        return self.divergences(student.float(), teacher.float()).mean()

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Squared error."""
        from torch.nn.functional import mse_loss

        return mse_loss(logits.squeeze(-1), labels.float(), reduction="none")

    def divergences(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """Squared difference; temperature has no effect."""
        return ((student - teacher) ** 2).squeeze(-1)

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """The logit itself."""
        return logits.reshape(-1)

    @classmethod
    @override
    def found_in(cls, table: Table, label: str) -> bool:
        return not table.classes.get(label) and label_is_number(table, label)

    @classmethod
    @override
    def names_in(cls, cell: str) -> Sequence[str]:
        return ()

    @classmethod
    @override
    def own_metrics(cls, names: Sequence[str]) -> tuple[tuple[str, ...], str]:
        return ("pearson", "spearmanr"), "spearmanr"

    @override
    def encoded(self, cell: str, class_ids: Mapping[str, int], column: str = "label") -> float:
        if (value := as_number(cell)) is None:
            raise BadRow(f"label '{cell}' of column '{column}' is not a number")
        return value

    @override
    def stacked(self, labels: Sequence[float]) -> np.ndarray:
        return np.array(labels, np.float32)

    @override
    def renumbered(self, labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return labels

    def shown(self, predictions: Iterable) -> list[str]:
        """Six significant digits."""
        return [f"{value:.6g}" for value in predictions]

    @override
    def read(self, shown: Iterable[str]) -> np.ndarray:
        return np.array([float(text) for text in shown])

    def submitted(self, predictions: np.ndarray) -> list[str]:
        """Three decimals, within the task's range."""
        return [f"{value:.3f}" for value in np.clip(predictions, self.low, self.high)]

    @override
    def predicted(self, predictions: np.ndarray) -> list[float]:
        return [float(value) for value in predictions]

    @override
    def measure(self, names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return metrics.compute(names, predictions, labels)

    @override
    def range_in_deviations(self, predictions: np.ndarray, labels: np.ndarray | None) -> float | None:
        deviation = 0 if labels is None else np.std(labels)
        return float(np.ptp(predictions) / deviation) if deviation else None

    def differs(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether values differ by more than 0.001."""
        return np.abs(a - b) > 1e-3

    @override
    def correct(self, predictions: np.ndarray, labels: np.ndarray) -> None:
        return None

    def linear_model(self, strength: float, max_iter: int):
        """Ridge regression in float64: in float32 the normal equations are singular."""
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer

        return make_pipeline(FunctionTransformer(np.float64), Ridge(alpha=1 / strength))
