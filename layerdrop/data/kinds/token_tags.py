"""A label for each token: named entities, parts of speech."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from layerdrop.data import metrics
from layerdrop.data.columns import is_whole_number
from layerdrop.data.examples import BadRow, shortened
from layerdrop.data.kinds.classes import Classes
from layerdrop.data.kinds.kind import class_id
from layerdrop.data.tables import Row, Table, listed, text_cell
from layerdrop.data.tokens import IGNORED, TokenizedDataset, ragged
from layerdrop.errors import UserError

if TYPE_CHECKING:
    import torch

    from layerdrop.data.tasks import Task

WORD_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("ner_tags", "tags")
OUTSIDE = "O"
"""The tag outside of entities."""
ENTITY_TAG = re.compile(r"[BIESLU]-.+")
"""A tag of an entity in the schemes IOB, IOBES and BILOU."""
NO_TAG = "_"
"""Prediction for a word without a token, if no tag is OUTSIDE. The word is cut off, or the tokenizer drops it."""


@dataclass(frozen=True)
class TokenTags(Classes):
    """A class for each token: (n,) object, an int64 array for each row.

    The first sub-token of each word has a prediction. All other sub-tokens count in no loss and no metric. The id -1
    stands for NO_TAG. A unit is a token with a label other than IGNORED.
    """

    label_type = "token"
    problem_type = None
    auto_class = "AutoModelForTokenClassification"
    pipeline = "token-classification"
    pooled = False
    correct_row = "A row is correct if all of its tags are."
    label_columns = TAG_COLUMNS
    tokenizer_options = ("return_offsets_mapping=True",)
    output_code = """\
tags = {}  # number of a word -> tag of its first sub-token
for (start, end), scores in zip(tokens["offset_mapping"][0], logits[0]):
    before = text[: start + text[start:end].startswith(" ")]
    if start < end:
        tags.setdefault(len((before + "x").split()) - 1, names[int(np.argmax(scores))])
print([(word, tags.get(i)) for i, word in enumerate(text.split())])"""
    pipeline_options = 'aggregation_strategy="first"'

    @property
    def outside(self) -> int:
        """The prediction for a word without a token."""
        return self.names.index(OUTSIDE) if OUTSIDE in self.names else -1

    # ---- the model ---------------------------------------------------------------------------------------------------
    @classmethod
    @override
    def predicted_by(cls, config: Any, architecture: str) -> bool:
        return architecture.endswith(("ForTokenClassification", "ForMaskedLM"))

    @classmethod
    @override
    def of(cls, names: tuple[str, ...], task: Task | None = None) -> TokenTags:
        return cls(names, names)

    def __str__(self) -> str:
        return f"{len(self.names)} classes of tokens"

    def loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        label_smoothing: float = 0.0,
        class_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Cross-entropy, a mean over the labeled tokens of the batch. With weights: the weighted mean."""
        from torch.nn.functional import cross_entropy

        labels, labeled = labels.flatten().long(), labels.flatten() != IGNORED
        logits = logits.float().flatten(0, -2)
        total = cross_entropy(
            logits, labels, class_weights, ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="sum"
        )
        counts = labeled if class_weights is None else class_weights[labels.clamp(min=0)] * labeled
        return total / counts.sum().clamp(min=1e-12)  # 0 for a batch without labels

    @override
    def balanced_weights(self, labels: np.ndarray) -> np.ndarray:
        return super().balanced_weights(np.concatenate(labels))

    def distillation_loss(
        self, student: torch.Tensor, teacher: torch.Tensor, temperature: float, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As for classes, a mean over the labeled tokens."""
        divergences, labeled = self.divergences(student.float(), teacher.float(), temperature), labels != IGNORED
        return (divergences * labeled).sum() / labeled.sum().clamp(min=1) * temperature**2

    @override
    def units(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        labeled = labels != IGNORED
        return logits[labeled], labels[labeled]

    @override
    def by_row(self, predictions: np.ndarray, data: TokenizedDataset) -> np.ndarray:
        return data.by_row(predictions, self.outside)

    @override
    def unit_labels(self, data: TokenizedDataset) -> np.ndarray:
        return data.token_labels[data.words.first >= 0]

    def confidence(self, logits: np.ndarray, data: TokenizedDataset | None = None) -> list[tuple[float, ...]]:
        """The probability of each tag; 0 for a word without a token."""
        return [tuple(row.tolist()) for row in data.by_row(np.array(super().confidence(logits)), 0.0)]

    # ---- files -------------------------------------------------------------------------------------------------------
    @classmethod
    def found_in(cls, table: Table, label: str) -> bool:
        """Whether a column with a usual name holds lists of words."""
        return any(isinstance(cell, list) for name in WORD_COLUMNS for cell in table.values(name).values())

    @classmethod
    def text_columns(cls, table: Table, label: str, chosen: Sequence[str], task: Task | None) -> tuple[str, ...]:
        """The column of words: the user's, the task's, `tokens` or `words`."""
        names = chosen or [name for name in (*(task.texts if task else ()), *WORD_COLUMNS) if name in table.columns][:1]
        if len(names) != 1:
            known = ", ".join(table.columns)
            raise UserError(
                f"{table.path}: labels of tokens need one column of words. Name one with --text_columns: {known}."
            )
        table.require("--text_columns", names)
        return tuple(names)

    @classmethod
    def label_column(cls, table: Table, given: str) -> str:
        """The user's column. Without it and without a column `label`: `ner_tags` or `tags`."""
        usual = [name for name in TAG_COLUMNS if name in table.columns]
        return usual[0] if usual and given == "label" and given not in table.columns else given

    @classmethod
    def text_cell(cls, row: Row, column: str) -> list[str]:
        """A list of words, or a text with blanks between words."""
        return split_cell(row, column)

    @classmethod
    def label_cell(cls, row: Row, column: str, separator: str | None = None) -> list[str]:
        """A list of tags, or a text with blanks between tags."""
        tags = split_cell(row, column)
        if broken := next((tag for tag in tags if tag.split() != [tag]), None):
            raise BadRow(f"column '{column}' contains the tag {broken!r}, which has a blank. Rename it")
        return tags

    @classmethod
    @override
    def names_in(cls, cell: list[str]) -> Sequence[str]:
        return cell

    @classmethod
    def own_metrics(cls, names: Sequence[str]) -> tuple[tuple[str, ...], str]:
        """Metrics of entities if the names are a scheme of entity tags, else of tokens."""
        if any(map(ENTITY_TAG.fullmatch, names)) and all(
            name == OUTSIDE or ENTITY_TAG.fullmatch(name) for name in names
        ):
            return ("entity_f1", "entity_precision", "entity_recall", "accuracy"), "entity_f1"
        return ("accuracy", "f1_macro"), "accuracy"

    @override
    def notes(self, column: str) -> list[str]:
        return [f"labels of column '{column}': {self} (to change: --label_type)"]

    def notes_on_names(self, column: str) -> list[str]:
        """Numbers instead of tags; tags of entities beside other tags."""
        if all(map(is_whole_number, self.names)):
            return [f"the tags in '{column}' are numbers: write their names (O, B-person ...) to measure entities"]
        others = [name for name in self.names if name != OUTSIDE and not ENTITY_TAG.fullmatch(name)]
        if not any(map(ENTITY_TAG.fullmatch, self.names)) or not others:
            return []
        return [
            f"metrics count words, not entities, because '{column}' has other tags than O, B-person, I-person ...: "
            f"{shortened(others)}"
        ]

    @override
    def text(self, cell: str | list[str]) -> list[str]:
        return cell.split() if isinstance(cell, str) else cell

    @override
    def encoded(self, cell: str | list[str], class_ids: Mapping[str, int], column: str = "label") -> np.ndarray:
        return np.array([class_id(name, class_ids, self.names) for name in self.text(cell)], np.int64)

    @override
    def check(self, texts: Sequence[list[str]], label: np.ndarray) -> None:
        if len(texts[0]) != len(label):
            raise BadRow(f"{len(texts[0])} words, but {len(label)} tags")

    @override
    def stacked(self, labels: Sequence[np.ndarray]) -> np.ndarray:
        return ragged(labels)

    # ---- predictions -------------------------------------------------------------------------------------------------
    @override
    def renumbered(self, labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
        if labels.dtype == object:
            return ragged([self.renumbered(row, ids) for row in labels])
        return np.where(labels < 0, labels, ids[labels])

    @override
    def predicted(self, predictions: Iterable[np.ndarray]) -> list[tuple[str, ...]]:
        return [tuple(NO_TAG if i < 0 else self.names[i] for i in row) for row in predictions]

    def shown(self, predictions: Iterable[np.ndarray]) -> list[str]:
        """The tags with blanks between them."""
        return [" ".join(tags) for tags in self.predicted(predictions)]

    @override
    def read(self, shown: Iterable[str]) -> np.ndarray:
        ids = {NO_TAG: -1} | {name: i for i, name in enumerate(self.names)}
        try:
            return ragged([np.array([ids[name] for name in text.split(" ")], np.int64) for text in shown])
        except KeyError as error:
            raise ValueError(f"{error} is not a class of the task ({', '.join(self.names)})") from None

    @override
    def submitted(self, predictions: np.ndarray) -> list[str]:
        return self.shown(predictions)

    # ---- scores ------------------------------------------------------------------------------------------------------
    @override
    def measure(self, names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        of_entities = [name for name in names if name.startswith("entity_")]
        values = metrics.compute(
            [name for name in names if name not in of_entities], np.concatenate(predictions), np.concatenate(labels)
        )
        if of_entities:
            values |= metrics.entities(*map(self._tags, (predictions, labels)))
        return {name: values[name] for name in names}

    @override
    def constant_scores(self, metric: str, labels: np.ndarray) -> dict[str, float]:
        return {}

    def f1_by_class(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Type of the entity, or class -> F1."""
        if self.own_metrics(self.names)[1] != "entity_f1":
            return super().f1_by_class(np.concatenate(predictions), np.concatenate(labels))
        return metrics.f1_by_entity(*map(self._tags, (predictions, labels)))

    def _tags(self, predictions: np.ndarray) -> list[list[str]]:
        """Tags for seqeval, which reads BILOU as IOBES."""
        scheme = [{"L": "E", "U": "S"}.get(name[0], name[0]) + name[1:] for name in self.names]
        return [[OUTSIDE if i < 0 else scheme[i] for i in row] for row in predictions]

    def n_distinct(self, predictions: np.ndarray) -> int:
        """Number of different tags."""
        return len(np.unique(np.concatenate(predictions)))

    def differs(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether any tag of a row differs."""
        return np.array([not np.array_equal(*rows) for rows in zip(a, b, strict=True)])

    # ---- sampling and probes -----------------------------------------------------------------------------------------
    def strata(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """All rows."""
        return {"the training set": np.arange(len(labels))}

    @override
    def stratified_by(self, labels: np.ndarray) -> None:
        return None


def split_cell(row: Row, column: str) -> list[str]:
    """The items of a list, or the words of a text. Raises BadRow."""
    items = listed(row.get(column), column)
    if items is None:
        items = text_cell(row, column).split()
    if not items:
        raise BadRow(f"no word in column '{column}'")
    text_cell({column: " ".join(items)}, column)  # refuses blank words alone
    return items
