"""Kinds of labels: classes, or values for regression. Only this module distinguishes the two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from typing_extensions import override

from layerdrop.data import metrics

if TYPE_CHECKING:
    import torch


class Kind(Protocol):
    """The kind of a task's labels. Arrays of labels and predictions are (n,)."""

    names: tuple[str, ...]
    """Class names in id order; empty for values."""
    problem_type: str
    """Name of the kind in the library's configurations."""
    dtype: type
    """NumPy type of labels."""
    smoothed: bool
    """Whether label smoothing changes the loss."""
    auto_class = "AutoModelForSequenceClassification"
    """Name of the library's class that loads a model."""

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the head."""

    def __str__(self) -> str:
        """A description: `3 classes`, `values`."""

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
        """The task loss, a mean over rows in fp32. logits: (n, n_outputs); labels: in the model's order."""

    def distillation_loss(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """The loss between logits (n, n_outputs) of student and teacher, a mean over rows in fp32."""

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """Logits (n, n_outputs) -> predictions in the model's order."""

    def measure(self, names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Metrics of predictions and labels in the task's order. names: keys of metrics.METRICS."""

    def f1_by_class(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Class name -> F1; empty for values."""
        return {}

    def shown(self, predictions: Iterable) -> list[str]:
        """Labels or predictions in the task's order -> their text in prediction files."""

    def read(self, shown: Iterable[str]) -> np.ndarray:
        """The inverse of `shown`. Raises ValueError."""

    def submitted(self, predictions: np.ndarray) -> list[str]:
        """Predictions in the task's order -> their text in GLUE's submissions."""

    def confidence(self, logits: np.ndarray) -> np.ndarray | None:
        """Probability of each prediction; None for values."""
        return None

    def range_in_deviations(self, predictions: np.ndarray, labels: np.ndarray | None) -> float | None:
        """Range of the predictions in standard deviations of the labels; None for classes or constant labels."""
        return None

    def differs(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether predictions differ, row by row."""

    def correct(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """Whether each prediction is correct; None for values."""
        return None

    def strata(self, labels: np.ndarray) -> list[np.ndarray]:
        """Groups of rows for stratified sampling: the rows of each class, or all rows."""

    def stratified_by(self, labels: np.ndarray) -> np.ndarray | None:
        """The labels to stratify a split by. None for values, or if a class occurs only once."""
        return None

    def linear_model(self, strength: float, max_iter: int):
        """scikit-learn's linear model with an L2 penalty of 1 / strength."""


@dataclass(frozen=True)
class Classes(Kind):
    """One of several classes for each row."""

    names: tuple[str, ...]
    words: tuple[str, ...] = ()
    """Names of the classes in GLUE's classical files and submissions."""
    positive: int = 1
    """Id of the class that `f1` measures."""
    problem_type = "single_label_classification"
    dtype = np.int64
    smoothed = True

    @property
    @override
    def n_outputs(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return f"{len(self.names)} classes"

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
        """Cross-entropy."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits.float(), labels.long(), label_smoothing=label_smoothing)

    def distillation_loss(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """T^2 times the divergence of the softened distributions (Hinton et al. 2015).

        Sun et al.'s code also averages over classes: with two classes, their loss is half of this loss.
        """
        from torch.nn.functional import kl_div, log_softmax

        student_logs, teacher_logs = (
            log_softmax(logits.float() / temperature, dim=-1) for logits in (student, teacher)
        )
        return kl_div(student_logs, teacher_logs, reduction="batchmean", log_target=True) * temperature**2

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """The class with the largest logit."""
        return logits.argmax(axis=-1)

    @override
    def measure(self, names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return metrics.compute(names, predictions, labels, self.positive)

    @override
    def f1_by_class(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return dict(zip(self.names, metrics.f1_by_class(predictions, labels, len(self.names)), strict=True))

    def shown(self, predictions: Iterable) -> list[str]:
        """Class names."""
        return [self.names[i] for i in predictions]

    @override
    def read(self, shown: Iterable[str]) -> np.ndarray:
        ids = {name: i for i, name in enumerate(self.names)}
        try:
            return np.array([ids[name] for name in shown])
        except KeyError as error:
            raise ValueError(f"{error} is not a class of the task ({', '.join(self.names)})") from None

    def submitted(self, predictions: np.ndarray) -> list[str]:
        """GLUE's words for the classes."""
        return [self.words[i] for i in predictions]

    def confidence(self, logits: np.ndarray) -> np.ndarray | None:
        """The largest probability."""
        odds = np.exp(logits - logits.max(1, keepdims=True))
        return (odds / odds.sum(1, keepdims=True)).max(1)

    @override
    def differs(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a != b

    @override
    def correct(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return predictions == labels

    def strata(self, labels: np.ndarray) -> list[np.ndarray]:
        """The rows of each class that occurs, in id order."""
        return [np.flatnonzero(labels == label) for label in np.unique(labels)]

    @override
    def stratified_by(self, labels: np.ndarray) -> np.ndarray | None:
        return None if np.bincount(labels).min() < 2 else labels

    def linear_model(self, strength: float, max_iter: int):
        """Logistic regression."""
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=strength, max_iter=max_iter)


@dataclass(frozen=True)
class Values(Kind):
    """A number for each row: regression."""

    low: float = -np.inf
    high: float = np.inf
    """Lowest and highest value in GLUE's submissions."""
    names = words = ()
    problem_type = "regression"
    dtype = np.float32
    smoothed = False
    n_outputs = 1

    def __str__(self) -> str:
        return "values"

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
        """Mean squared error; label_smoothing has no effect."""
        from torch.nn.functional import mse_loss

        return mse_loss(logits.float().squeeze(-1), labels.float())

    def distillation_loss(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Mean squared error; temperature has no effect."""
        from torch.nn.functional import mse_loss

        return mse_loss(student.float(), teacher.float())

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """The logit itself."""
        return logits.reshape(-1)

    @override
    def measure(self, names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return metrics.compute(names, predictions, labels)

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
    def range_in_deviations(self, predictions: np.ndarray, labels: np.ndarray | None) -> float | None:
        deviation = 0 if labels is None else np.std(labels)
        return float(np.ptp(predictions) / deviation) if deviation else None

    def differs(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether values differ by more than 0.001."""
        return np.abs(a - b) > 1e-3

    def strata(self, labels: np.ndarray) -> list[np.ndarray]:
        """All rows."""
        return [np.arange(len(labels))]

    def linear_model(self, strength: float, max_iter: int):
        """Ridge regression in float64: in float32 the normal equations are singular."""
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer

        return make_pipeline(FunctionTransformer(np.float64), Ridge(alpha=1 / strength))


def kind_of(config) -> Kind:
    """The kind of labels that a classifier predicts. config: its PreTrainedConfig."""
    if config.problem_type == "regression" or config.num_labels == 1:
        return Values()
    return Classes(tuple(str(config.id2label[i]) for i in sorted(config.id2label)))
