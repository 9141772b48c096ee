"""One of several classes for each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from layerdrop.data import metrics
from layerdrop.data.examples import BadRow
from layerdrop.data.kinds.kind import Kind, class_id
from layerdrop.data.tables import Row, Table, holds_list, text_cell
from layerdrop.system.text import one_line

if TYPE_CHECKING:
    import torch

    from layerdrop.data.tasks import Task
    from layerdrop.data.tokens import TokenizedDataset


@dataclass(frozen=True)
class Classes(Kind):
    """One of several classes for each row: (n,) ids."""

    names: tuple[str, ...]
    words: tuple[str, ...] = ()
    positive: int = 1
    """Id of the class that `f1` measures."""
    label_type = "class"
    problem_type = "single_label_classification"
    output_code = """\
odds = np.exp(logits[0] - logits[0].max())
print(names[int(odds.argmax())], float(odds.max() / odds.sum()))"""
    smoothed = True

    @classmethod
    @override
    def predicted_by(cls, config: Any, architecture: str) -> bool:
        return True

    @classmethod
    @override
    def of(cls, names: tuple[str, ...], task: Task | None = None) -> Classes:
        return cls(names, task.words, task.positive) if task else cls(names)

    def __str__(self) -> str:
        return f"{len(self.names)} classes"

    def loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        label_smoothing: float = 0.0,
        class_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Cross-entropy. With weights: the weighted mean."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits.float(), labels.long(), class_weights, label_smoothing=label_smoothing)

    def balanced_weights(self, labels: np.ndarray) -> np.ndarray:
        """Rows / (classes x rows of the class), over the classes that occur, as scikit-learn."""
        counts = np.bincount(labels.ravel(), minlength=len(self.names))
        weights = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return np.where(counts, weights, 1).astype(np.float32)

    def distillation_loss(
        self, student: torch.Tensor, teacher: torch.Tensor, temperature: float, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """T^2 times the divergence of the softened distributions (Hinton et al. 2015).

        Sun et al.'s code also averages over classes: with two classes, their loss is half of this loss.
        """
        return self.divergences(student.float(), teacher.float(), temperature).mean() * temperature**2

    @override
    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, labels, reduction="none")

    def divergences(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """Kullback-Leibler divergence of the student's distribution from the teacher's."""
        from torch.nn.functional import kl_div, log_softmax

        student_logs, teacher_logs = (log_softmax(logits / temperature, dim=-1) for logits in (student, teacher))
        return kl_div(student_logs, teacher_logs, reduction="none", log_target=True).sum(-1)

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """The class with the largest logit."""
        return logits.argmax(axis=-1)

    def confidence(self, logits: np.ndarray, data: TokenizedDataset | None = None) -> list[float]:
        """The largest probability."""
        odds = np.exp(logits - logits.max(1, keepdims=True))
        return (odds / odds.sum(1, keepdims=True)).max(1).tolist()

    @classmethod
    @override
    def found_in(cls, table: Table, label: str) -> bool:
        return True

    @classmethod
    def label_cell(cls, row: Row, column: str, separator: str | None = None) -> str:
        """The name. A list is malformed, also as a text."""
        if holds_list(row.get(column)):
            shown = one_line(str(row[column]), 40)
            raise BadRow(
                f"label {shown} of column '{column}' is a list. For several labels in a row: --label_type multi"
            )
        return text_cell(row, column)

    @classmethod
    @override
    def names_in(cls, cell: str) -> Sequence[str]:
        return (cell,)

    @classmethod
    @override
    def own_metrics(cls, names: Sequence[str]) -> tuple[tuple[str, ...], str]:
        return ("accuracy", *(["f1"] if len(names) == 2 else []), "f1_macro"), "accuracy"

    @override
    def notes(self, column: str) -> list[str]:
        return []

    @override
    def encoded(self, cell: str, class_ids: Mapping[str, int], column: str = "label") -> int:
        return class_id(cell, class_ids, self.words)

    @override
    def stacked(self, labels: Sequence[int]) -> np.ndarray:
        return np.array(labels, np.int64)

    @override
    def renumbered(self, labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return ids[labels]

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

    @override
    def measure(self, names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return metrics.compute(names, predictions, labels, self.positive)

    @override
    def constant_scores(self, metric: str, labels: np.ndarray) -> dict[str, float]:
        every = {name: np.full_like(labels, i) for i, name in enumerate(self.names)}
        return {name: self.measure((metric,), same, labels)[metric] for name, same in every.items()}

    @override
    def f1_by_class(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return dict(zip(self.names, metrics.f1_by_class(predictions, labels, len(self.names)), strict=True))

    @override
    def differs(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a != b

    def strata(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of each class that occurs, in id order."""
        return {f"class '{self.names[label]}'": np.flatnonzero(labels == label) for label in np.unique(labels)}

    @override
    def stratified_by(self, labels: np.ndarray) -> np.ndarray | None:
        return None if np.bincount(labels).min() < 2 else labels

    def linear_model(self, strength: float, max_iter: int):
        """Logistic regression."""
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=strength, max_iter=max_iter)
