"""The interface of a kind of labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from layerdrop.data.columns import text_columns
from layerdrop.data.examples import BadRow, UnknownLabel, is_missing
from layerdrop.data.tables import Row, Table, text_cell

if TYPE_CHECKING:
    import torch

    from layerdrop.data.tasks import Task
    from layerdrop.data.tokens import TokenizedDataset


class Kind(Protocol):
    """A kind of labels, with the class names of a task. Arrays of labels and predictions have one entry for each row.

    The class methods read files, before the class names are known.
    """

    label_type: str
    """Value of --label_type."""
    names: tuple[str, ...]
    """Class names in id order; empty for values."""
    words: tuple[str, ...]
    """Names of the classes in GLUE's classical files and submissions."""
    problem_type: str | None
    """Name of the kind in the library's configurations; None if they do not name it."""
    auto_class: str = "AutoModelForSequenceClassification"
    """Name of the library's class that loads a model."""
    pipeline: str = "text-classification"
    """The library's pipeline for the models, and the task on the hub."""
    named: bool = True
    """Whether the outputs have class names."""
    pipeline_options: str = ""
    """Arguments of the pipeline that this kind needs, as code."""
    tokenizer_options: tuple[str, ...] = ()
    """Arguments of the tokenizer that `output_code` needs, as code."""
    output_code: str
    """Code that prints the prediction for one text, from `logits` (1, ..., n_outputs), `names` (id -> name), `text` and
    `tokens`, the tokenizer's result."""
    label_columns: tuple[str, ...] = ()
    """Names of a label column other than --label_column."""
    pooled: bool = True
    """Whether the head reads one vector for each text."""
    correct_row: str = ""
    """When the prediction of a row is correct, as a sentence, if a row has several predictions."""
    smoothed: bool
    """Whether label smoothing changes the loss."""
    threshold: float | None = None
    """Probability above which a label is predicted; None if no threshold decides."""

    # ---- the model ---------------------------------------------------------------------------------------------------
    @classmethod
    def predicted_by(cls, config: Any, architecture: str) -> bool:
        """Whether a trained model predicts this kind. config: its PreTrainedConfig; architecture: its class."""

    @classmethod
    def of(cls, names: tuple[str, ...], task: Task | None = None) -> Kind:
        """The kind with class names, and with the settings of a task."""

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the head."""
        return len(self.names)

    def __str__(self) -> str:
        """A description: `3 classes`, `numbers`."""

    def head(self, names: Sequence[str]) -> dict[str, Any]:
        """Arguments of layerdrop.loading.load_classifier. names: class names in the model's order."""
        return {"labels": list(names), "problem_type": self.problem_type, "auto_class": self.auto_class}

    def loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        label_smoothing: float = 0.0,
        class_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The task loss, a mean over the units of a batch in fp32. labels: in the model's order.

        class_weights: (n_outputs,) result of `balanced_weights` on the logits' device; None: no weights.
        """

    def balanced_weights(self, labels: np.ndarray) -> np.ndarray | None:
        """(n_outputs,) float32 weights for `loss` by the frequency of the classes. None for values.

        A class without a label has the weight 1.
        """
        return None

    def distillation_loss(
        self, student: torch.Tensor, teacher: torch.Tensor, temperature: float, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss between logits of student and teacher, a mean over units in fp32. labels: of the batch."""

    def units(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits, labels) of a batch's units: (units, n_outputs) and (units, ...). A unit has one prediction."""
        return logits, labels

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(units,) the loss of each unit."""

    def divergences(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """(units,) divergence of the student's outputs from the teacher's, from logits (units, n_outputs)."""

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """Logits (units, n_outputs) -> a prediction for each unit, in the model's order."""

    def by_row(self, predictions: np.ndarray, data: TokenizedDataset) -> np.ndarray:
        """Predictions of units -> a prediction for each row of `data`."""
        return predictions

    def unit_labels(self, data: TokenizedDataset) -> np.ndarray:
        """The label of each unit."""
        return np.asarray(data.labels)

    def confidence(self, logits: np.ndarray, data: TokenizedDataset | None = None) -> list | None:
        """For each row, the probability of its prediction, or of each predicted label; None for values."""
        return None

    # ---- files -------------------------------------------------------------------------------------------------------
    @classmethod
    def found_in(cls, table: Table, label: str) -> bool:
        """Whether a column of a file holds labels of this kind. Raises UserError for unclear labels."""

    @classmethod
    def text_columns(cls, table: Table, label: str, chosen: Sequence[str], task: Task | None) -> tuple[str, ...]:
        """Choose the text columns of a file: see layerdrop.data.columns. Raises UserError."""
        return text_columns(table, label, chosen, task)

    @classmethod
    def label_column(cls, table: Table, given: str) -> str:
        """The label column of a file. given: value of --label_column."""
        return given

    @classmethod
    def text_cell(cls, row: Row, column: str) -> Any:
        """The text in a cell. Raises BadRow."""
        return text_cell(row, column)

    @classmethod
    def label_cell(cls, row: Row, column: str, separator: str | None = None) -> Any:
        """The names in the label cell of a row. separator: of several labels in a text. Raises BadRow."""
        return text_cell(row, column)

    @classmethod
    def check_cells(cls, cells: Sequence[Any], where: str) -> None:
        """Raise UserError if the label cells of a file are not names. cells: results of `label_cell`."""

    @classmethod
    def names_in(cls, cell: Any) -> Sequence[str]:
        """The class names in a cell. cell: result of `label_cell`."""

    @classmethod
    def own_metrics(cls, names: Sequence[str]) -> tuple[tuple[str, ...], str]:
        """(metrics, selection metric) of a task of own files."""

    def notes(self, column: str) -> list[str]:
        """Notes for the user if the contents of a file have decided the kind. column: of the labels."""
        return [f"labels of column '{column}': {self} (to change: --label_type)"]

    def pipeline_arguments(self, folder: str, *more: str) -> str:
        """Arguments of the library's `pipeline` for a model in a folder, as code."""
        return ", ".join(filter(None, (f'"{self.pipeline}"', f'"{folder}"', self.pipeline_options, *more)))

    def notes_on_names(self, column: str) -> list[str]:
        """Notes for the user on the class names of own data. column: of the labels."""
        return []

    def text(self, cell: Any) -> Any:
        """A text of a row -> the tokenizer's input. Raises BadRow."""
        return cell

    def encoded(self, cell: Any, class_ids: Mapping[str, int], column: str = "label") -> Any:
        """The label of a row. cell: result of `label_cell`; class_ids: name in the file -> id. Raises BadRow.

        column: the label column, for messages.
        """

    def check(self, texts: Sequence[Any], label: Any) -> None:
        """Raise BadRow if texts and label of a row do not belong together. label: result of `encoded`."""

    def stacked(self, labels: Sequence[Any]) -> np.ndarray:
        """(n, ...) array of labels. labels: results of `encoded`."""

    # ---- predictions -------------------------------------------------------------------------------------------------
    def renumbered(self, labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Labels in which class i has the id ids[i]."""

    def shown(self, predictions: Iterable) -> list[str]:
        """Labels or predictions in the task's order -> their text in prediction files."""

    def read(self, shown: Iterable[str]) -> np.ndarray:
        """The inverse of `shown`. Raises ValueError."""

    def submitted(self, predictions: np.ndarray) -> list[str]:
        """Predictions in the task's order -> their text in the file of a test set."""
        return self.shown(predictions)

    def predicted(self, predictions: np.ndarray) -> list:
        """Predictions -> a name, a number or a tuple of names for each row."""
        return self.shown(predictions)

    # ---- scores ------------------------------------------------------------------------------------------------------
    def measure(self, names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Metrics of predictions and labels in the task's order. names: names of metrics."""

    def f1_by_class(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Class name -> F1; empty for values."""
        return {}

    def constant_scores(self, metric: str, labels: np.ndarray) -> dict[str, float]:
        """Class name -> the metric of this prediction for every row; empty for other kinds than single classes."""
        return {}

    def n_distinct(self, predictions: np.ndarray) -> int:
        """Number of different predictions."""
        return len(np.unique(predictions, axis=0))

    def range_in_deviations(self, predictions: np.ndarray, labels: np.ndarray | None) -> float | None:
        """Range of the predictions in standard deviations of the labels; None for classes or constant labels."""
        return None

    def differs(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(n,) whether predictions differ."""

    def correct(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """(n,) whether the prediction of a row is completely correct; None for values."""
        return ~self.differs(predictions, labels)

    # ---- sampling and probes -----------------------------------------------------------------------------------------
    def strata(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> rows of each group for stratified sampling. By default one group of all rows."""
        return {"the training set": np.arange(len(labels))}

    def stratified_by(self, labels: np.ndarray) -> np.ndarray | None:
        """The labels to stratify a split by; None to draw from all rows."""
        return None

    def linear_model(self, strength: float, max_iter: int):
        """scikit-learn's linear model with an L2 penalty of 1 / strength."""


def class_id(name: str, class_ids: Mapping[str, int], classes: Sequence[str]) -> int:
    """The id of a class name. classes: for the message. Raises BadRow for another name."""
    if name in class_ids:
        return class_ids[name]
    if is_missing(name):
        raise BadRow(f"label '{name}' stands for a missing label")
    raise UnknownLabel(name, classes)
