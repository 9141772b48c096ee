"""Several labels at once: any number of the classes for each row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from layerdrop.data import metrics
from layerdrop.data.examples import BadRow
from layerdrop.data.kinds.kind import Kind, class_id
from layerdrop.data.tables import Row, Table, holds_list, listed, text_cell
from layerdrop.errors import UserError
from layerdrop.system.text import one_line

if TYPE_CHECKING:
    import torch

    from layerdrop.data.tasks import Task
    from layerdrop.data.tokens import TokenizedDataset


@dataclass(frozen=True)
class LabelSets(Kind):
    """Any number of labels for each row: (n, classes) int8, 1 for a label of the row."""

    names: tuple[str, ...]
    label_type = "multi"
    problem_type = "multi_label_classification"
    correct_row = "A row is correct if all of its labels are."
    smoothed = False
    threshold = 0.5
    output_code = """\
probabilities = 1 / (1 + np.exp(-logits[0]))
print([(names[i], float(p)) for i, p in enumerate(probabilities) if p > 0.5])"""
    pipeline_options = "top_k=None"  # otherwise the pipeline gives one label

    @property
    @override
    def words(self) -> tuple[str, ...]:
        return self.names

    @classmethod
    @override
    def predicted_by(cls, config: Any, architecture: str) -> bool:
        return config.problem_type == cls.problem_type

    @classmethod
    @override
    def of(cls, names: tuple[str, ...], task: Task | None = None) -> LabelSets:
        return cls(names)

    def __str__(self) -> str:
        return f"any number of {len(self.names)} classes"

    def loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        label_smoothing: float = 0.0,
        class_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Binary cross-entropy, a mean over rows and labels. class_weights: of rows that have the label.

        label_smoothing has no effect.
        """
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(logits.float(), labels.float(), pos_weight=class_weights)

    def balanced_weights(self, labels: np.ndarray) -> np.ndarray:
        """Rows without the label / rows with the label."""
        counts = labels.sum(axis=0, dtype=np.int64)
        return np.where(counts, (len(labels) - counts) / np.maximum(counts, 1), 1).astype(np.float32)

    def distillation_loss(
        self, student: torch.Tensor, teacher: torch.Tensor, temperature: float, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """T^2 times the divergence of the softened probabilities, as for classes."""
        return self.divergences(student.float(), teacher.float(), temperature).mean() * temperature**2

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy, a mean over labels."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(-1)

    def divergences(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """Kullback-Leibler divergence of each label's probability from the teacher's, a mean over labels."""
        from torch.nn.functional import logsigmoid

        student, teacher = student / temperature, teacher / temperature
        yes = teacher.sigmoid() * (logsigmoid(teacher) - logsigmoid(student))
        no = (-teacher).sigmoid() * (logsigmoid(-teacher) - logsigmoid(-student))
        return (yes + no).mean(-1)

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """Every label with a probability above 0.5, which is a logit above 0."""
        return (logits > 0).astype(np.int8)

    def confidence(self, logits: np.ndarray, data: TokenizedDataset | None = None) -> list[tuple[float, ...]]:
        """The probability of each predicted label."""
        odds = np.exp(-np.abs(logits.astype(np.float64)))  # of a predicted label: exp(-logit), at most 1
        return [tuple((1 / (1 + row_odds[row > 0])).tolist()) for row, row_odds in zip(logits, odds, strict=True)]

    @classmethod
    def found_in(cls, table: Table, label: str) -> bool:
        """Whether most labels are lists, or texts that contain a list."""
        cells = table.values(label).values()
        return 2 * sum(map(holds_list, cells)) > len(cells)

    @classmethod
    def label_cell(cls, row: Row, column: str, separator: str | None = None) -> list[str]:
        """The names in a list, in a text that contains a list, or in a text with separators. An empty list is valid.

        With a separator, an empty text is also valid.
        """
        cell = row.get(column)
        if (names := listed(cell, column)) is not None:
            return names
        if separator is None:
            text = text_cell(row, column)
            raise BadRow(
                f"label '{one_line(text, 40)}' of column '{column}' is not a list. Write it as [\"a\", \"b\"], or give "
                "--label_separator"
            )
        text = "" if cell == "" else text_cell(row, column)
        return [name for part in text.split(separator) if (name := part.strip())]

    @classmethod
    def check_cells(cls, cells: Sequence[list[str]], where: str) -> None:
        """Refuse lists of one length with only 0 and 1, which say for each label whether a row has it."""
        lengths, names = {len(cell) for cell in cells}, {name.lower() for cell in cells for name in cell}
        named = all(cell == sorted(set(cell)) for cell in cells)  # they may be lists of the classes 0 and 1
        if not named and len(lengths) == 1 and (names <= {"0", "1"} or names <= {"false", "true"}):
            raise UserError(
                f"{where} has lists of {max(lengths)} marks (0 or 1, true or false). Write the names of each row's "
                'labels instead, as ["a", "b"].'
            )

    @classmethod
    @override
    def names_in(cls, cell: list[str]) -> Sequence[str]:
        return cell

    @classmethod
    @override
    def own_metrics(cls, names: Sequence[str]) -> tuple[tuple[str, ...], str]:
        return ("f1_micro", "f1_macro", "exact_match"), "f1_micro"

    @override
    def encoded(self, cell: list[str], class_ids: Mapping[str, int], column: str = "label") -> np.ndarray:
        row = np.zeros(len(self.names), np.int8)
        row[[class_id(name, class_ids, self.names) for name in cell]] = 1
        return row

    @override
    def stacked(self, labels: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(labels)

    @override
    def renumbered(self, labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
        columns = np.empty_like(labels)
        columns[:, ids] = labels
        return columns

    @override
    def predicted(self, predictions: Iterable[np.ndarray]) -> list[tuple[str, ...]]:
        return [tuple(self.names[i] for i in np.flatnonzero(row)) for row in predictions]

    def shown(self, predictions: Iterable[np.ndarray]) -> list[str]:
        """JSON lists of names, in id order."""
        return [json.dumps(names, ensure_ascii=False) for names in self.predicted(predictions)]

    @override
    def read(self, shown: Iterable[str]) -> np.ndarray:
        ids, rows = {name: i for i, name in enumerate(self.names)}, []
        for text in shown:
            names = listed(text)
            if names is None or not set(names) <= set(ids):
                raise ValueError(f"{text!r} is not a list of labels of the task ({', '.join(self.names)})")
            rows.append(self.encoded(names, ids))
        return self.stacked(rows)

    @override
    def measure(self, names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return metrics.compute(names, predictions, labels)

    @override
    def f1_by_class(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return dict(zip(self.names, metrics.f1_by_class(predictions, labels, len(self.names)), strict=True))

    def differs(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether any label differs."""
        return (a != b).any(axis=1)

    def linear_model(self, strength: float, max_iter: int):
        """A logistic regression for each label."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier

        return OneVsRestClassifier(LogisticRegression(C=strength, max_iter=max_iter))
