"""Predictions of a trained classifier: a run's folder, an export's, or any other; by onnxruntime or by torch."""

import json
from pathlib import Path

import numpy as np

from layerdrop.checkpoints import Checkpoint, is_local, work_offline_unless_reachable
from layerdrop.data.batches import Collator
from layerdrop.data.kinds import kind_of
from layerdrop.data.tasks import DEMO_TASKS, TASKS
from layerdrop.data.to_predict import ToPredict
from layerdrop.data.tokens import tokenise
from layerdrop.deploy.export import EXPORT_FILE
from layerdrop.deploy.onnx import FILE, OnnxClassifier, check_packages
from layerdrop.errors import UserError
from layerdrop.finetune.evaluate import logits_of
from layerdrop.loading import load_classifier
from layerdrop.runs.record import read_record


class Predictor:
    """A classifier, with the columns and the length that it was trained with."""

    def __init__(self, folder: str, max_seq_length: int | None = None):
        """max_seq_length: maximum number of tokens; None: as in training. The model's own limit applies too.

        Raises UserError without a trained classifier.
        """
        if not is_local(folder):
            work_offline_unless_reachable()
        self.folder = folder
        self.checkpoint = Checkpoint.open(folder, flag="MODEL")
        self.columns, trained_with = _training(folder)
        """Text columns of the training, under each name that they may have. Empty if unknown."""
        limit = self.checkpoint.max_length()
        self.length = min(max_seq_length or trained_with or limit, limit)

    def __call__(self, texts: ToPredict, batch_size: int = 32) -> list[tuple[str, ...]]:
        """A header, then a row for each row of `texts`: its index, and a class with its probability, or a value. Both
        are empty for a row without a text."""
        checkpoint = self.checkpoint
        data = tokenise(texts.examples(self.columns), checkpoint.tokenizer, self.length, sizes=checkpoint.embeddings)
        logits = self._logits(data, Collator.of(self.checkpoint.tokenizer, self.length), batch_size)
        kind = kind_of(checkpoint.config)
        shown, sure = kind.shown(kind.decide(logits)), kind.confidence(logits)
        header, cells = ("prediction",), [(text,) for text in shown]
        if sure is not None:
            header = ("prediction", "probability")
            cells = [(text, f"{p:.4f}") for text, p in zip(shown, sure, strict=True)]
        found = dict(zip(texts.rows, cells, strict=True))
        empty = ("",) * len(header)
        return [("index", *header), *((name, *found.get(i, empty)) for i, name in enumerate(texts.index))]

    def _logits(self, data, collate, batch_size: int) -> np.ndarray:
        """(n, classes), in the order of the source."""
        if (Path(self.folder) / FILE).is_file():
            check_packages()
            return OnnxClassifier(Path(self.folder) / FILE).logits(data, collate, batch_size)
        model, new = load_classifier(self.checkpoint, replace_head=False)
        if new:
            raise UserError(f"MODEL {self.folder}: has no trained classifier ({new[0]} is missing). Fine-tune it.")
        return logits_of(model, data, collate, batch_size, "fp32")


def _training(folder: str) -> tuple[list[tuple[str, ...]], int | None]:
    """(text columns of a model's training, under each name that they may have; its max_seq_length).

    Read from the record of a run or an export.
    """
    try:
        record = read_record(folder)
        path = Path(folder) / EXPORT_FILE
        export = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"MODEL {folder}: {error}. Mend or remove the file.") from None
    if record is None:
        task, columns, length = export.get("task"), export.get("text_columns"), export.get("max_seq_length")
    else:
        data = record.spec.data
        task, columns, length = data.task, record.text_columns, data.max_seq_length
    row = (TASKS | DEMO_TASKS).get(task)
    names = [tuple(columns or ()), *((row.texts, row.hub_texts) if row else ())]
    return list(dict.fromkeys(name for name in names if name)), length
