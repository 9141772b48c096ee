"""Predictions of a trained classifier, by torch or onnxruntime."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from layerdrop.checkpoints import Checkpoint, is_local, work_offline_unless_reachable
from layerdrop.data.batches import Collator
from layerdrop.data.kinds import kind_of
from layerdrop.data.tasks import DEMO_TASKS, TASKS
from layerdrop.data.to_predict import COUNTS, ToPredict
from layerdrop.data.tokens import notes_on_unknown_tokens, tokenize
from layerdrop.deploy.export import EXPORT_FILE
from layerdrop.deploy.onnx import FILE, OnnxClassifier, check_packages
from layerdrop.errors import UserError
from layerdrop.finetune.evaluate import logits_of
from layerdrop.loading import load_classifier
from layerdrop.runs.record import read_record
from layerdrop.system.files import read_json
from layerdrop.system.limits import RANGES
from layerdrop.system.typecheck import check_type

Text = str | tuple[str, str]
"""One text, or a pair of texts."""


class Export(TypedDict, total=False):
    """The fields of EXPORT_FILE that a prediction needs."""

    task: str | None
    text_columns: list[str] | None
    max_seq_length: int | None


class Prediction(NamedTuple):
    """The prediction for one text or pair."""

    label: str | float | tuple[str, ...]
    """Name of the most probable class; the predicted labels, if several are possible; the value of a regression."""
    score: float | tuple[float, ...] | None = None
    """Probability of the class, or of each predicted label. None for a value."""


def load(folder: str | os.PathLike[str], max_seq_length: int | None = None) -> "Predictor":
    """Load the trained classifier of a run, of an export (`model.onnx` runs in onnxruntime), or of any other folder.

    >>> classify = layerdrop.load("runs/x")
    >>> classify("a text")
    Prediction(label='positive', score=0.98)
    >>> classify([("a text", "another one"), ("a third", "a fourth")])  # a list of texts or pairs gives a list

    max_seq_length: maximum number of tokens; None: as in training. Raises UserError without a trained classifier, and
    for a length out of range.
    """
    return Predictor(folder, max_seq_length)


class Predictor:
    """A trained classifier, with the text columns and the maximum length of its training."""

    def __init__(self, folder: str | os.PathLike[str], max_seq_length: int | None = None):
        """See `load`."""
        folder = str(folder)
        if max_seq_length is not None:
            RANGES["max_seq_length"].check("max_seq_length", max_seq_length)
        if not is_local(folder):
            work_offline_unless_reachable()
        self.checkpoint = Checkpoint.open(folder, flag="MODEL")
        self.columns, trained_with = _training(folder)
        """Text columns in training, as one tuple for each naming (own, GLUE, hub). Empty if unknown."""
        limit = self.checkpoint.max_length()
        self.length = min(max_seq_length or trained_with or limit, limit)
        """Maximum number of tokens."""
        self.kind = kind_of(self.checkpoint.config)
        self.notes: list[str] = []
        """Notes on the texts of the last prediction."""
        self._logits = self._classifier(folder)

    def __call__(self, texts: Text | Sequence[Text], batch_size: int = 32) -> Prediction | list[Prediction]:
        """Predict one text or pair, or a list of them. A tuple is a pair. Raises UserError, also for an empty text."""
        RANGES["batch_size"].check("batch_size", batch_size)
        if isinstance(texts, (str, tuple)):
            _check_texts(texts, "texts")
            return self([texts])[0]
        if not isinstance(texts, Sequence):
            raise UserError("texts: must be a text, a pair of texts as a tuple, or a list of them.")
        for i, text in enumerate(texts):
            _check_texts(text, f"texts[{i}]")
        rows = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
        if len({len(row) for row in rows}) > 1:
            raise UserError("texts: the list mixes single texts and pairs. Give only single texts, or only pairs.")
        return self.predict(ToPredict("texts", list(map(str, range(len(rows)))), rows), batch_size) if rows else []

    def predict(self, texts: ToPredict, batch_size: int = 32) -> list[Prediction]:
        """Predict the rows with a text. Raises UserError if the model takes pairs and the rows are single texts, or
        vice versa."""
        predictions, scores = self._decide(texts, batch_size)
        labels = self.kind.predicted(predictions)
        return [Prediction(*row) for row in zip(labels, scores or [None] * len(labels), strict=True)]

    def table(self, texts: ToPredict, batch_size: int = 32) -> list[tuple[str, ...]]:
        """A header, then a row for each row of `texts`: index, prediction and, for classes, probability. With several
        labels in a row, the probability of each label. The cells of a row without a text are empty."""
        predictions, scores = self._decide(texts, batch_size)
        header, columns = ["prediction"], [self.kind.shown(predictions)]
        if scores is not None:
            header, columns = [*header, "probability"], [*columns, list(map(_shown, scores))]
        cells = list(zip(*columns, strict=True))
        of_row, empty = dict(zip(texts.rows, cells, strict=True)), ("",) * len(header)
        return [("index", *header), *((name, *of_row.get(i, empty)) for i, name in enumerate(texts.index))]

    def _decide(self, texts: ToPredict, batch_size: int) -> tuple[np.ndarray, list | None]:
        """(predictions, their probabilities, or None for values) of the rows with a text."""
        checkpoint = self.checkpoint
        examples = texts.examples(self.columns)
        columns = tuple([self.kind.text(text) for text in column] for column in examples.texts)
        examples = replace(examples, texts=columns)
        data = tokenize(examples, checkpoint.tokenizer, self.length, sizes=checkpoint.embeddings)
        self.notes = notes_on_unknown_tokens(data, checkpoint.tokenizer, texts.source)
        logits = self._logits(data, Collator.of(checkpoint.tokenizer, self.length), batch_size)
        return self.kind.by_row(self.kind.decide(logits), data), self.kind.confidence(logits, data)

    def _classifier(self, folder: str) -> Callable[..., np.ndarray]:
        """(data, collate, batch size) -> (units, outputs) logits, in the order of the source."""
        if (Path(folder) / FILE).is_file():
            check_packages(f"MODEL {folder}/{FILE}", ("onnxruntime",))
            return OnnxClassifier(Path(folder) / FILE).logits
        model, new = load_classifier(self.checkpoint, replace_head=False)
        if new:
            raise UserError(f"MODEL {folder}: has no trained classifier ({new[0]} is missing). Fine-tune it.")
        return partial(logits_of, model, precision="fp32")


def _check_texts(text: Text, name: str) -> None:
    """Raise UserError for an empty text, and for a value that is not a text or a pair. name: for the message."""
    parts = (text,) if isinstance(text, str) else text
    if not (isinstance(parts, tuple) and len(parts) in COUNTS and all(isinstance(part, str) for part in parts)):
        raise UserError(f"{name}: must be a text, or a pair of texts as a tuple.")
    if empty := [i for i, part in enumerate(parts) if not part.strip()]:
        at = name if isinstance(text, str) else f"{name}[{empty[0]}]"
        raise UserError(f"{at}: an empty text has no prediction. Give a text, or leave it out.")


def _shown(score: float | tuple[float, ...]) -> str:
    return " ".join(f"{value:.4f}" for value in (score if isinstance(score, tuple) else (score,)))


def _training(folder: str) -> tuple[list[tuple[str, ...]], int | None]:
    """Read (text columns in training, one tuple for each naming; max_seq_length) from the record of a run or an export.
    Raises UserError."""
    try:
        record = read_record(folder)
        path = Path(folder) / EXPORT_FILE
        export = read_json(path) if path.is_file() else {}
        check_type(export, Export)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"MODEL {folder}: {error}. Repair or delete the file.") from None
    if record is None:
        task, columns, length = export.get("task"), export.get("text_columns"), export.get("max_seq_length")
    else:
        data = record.spec.data
        task, columns, length = data.task, record.text_columns, data.max_seq_length
    row = (TASKS | DEMO_TASKS).get(task)
    names = [tuple(columns or ()), *((row.texts, row.hub_texts) if row else ())]
    return list(dict.fromkeys(name for name in names if name)), length
