"""The inputs that a run reads before it selects layers: checkpoint, tokenizer, rows, labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, TrainingArguments

from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria.selection import split_to_score
from layerdrop.data.batches import Collator
from layerdrop.data.labels import Labels
from layerdrop.data.read import Data, read_splits
from layerdrop.data.tasks import Task
from layerdrop.data.tokens import TokenizedDataset, tokenize
from layerdrop.errors import UserError
from layerdrop.runs.spec import Options, RunSpec

MULTIPLE = 8
"""On a GPU, batch lengths are multiples of this number, because each length needs its own CUDA graph capture."""


def needed_splits(spec: RunSpec, options: Options) -> list[str]:
    """Splits that a run or its start run reads: `train`, `validation`, `test`."""
    scored = split_to_score(spec.drop)
    needed = {"train": bool(spec.train or spec.start), "validation": options.evaluate, "test": options.predict}
    return [split for split, is_needed in needed.items() if is_needed or split == scored]


def splits_to_select(spec: RunSpec) -> list[str]:
    """Splits that the selection of a run's layers reads: `train`, `validation`, `test`."""
    own = spec.data.source in ("files", "dataset")
    first = spec.data.files[0][0] if spec.data.files else "test" if own else None  # the first file decides the classes
    needed = {first, split_to_score(spec.drop)}
    return [split for split in ("train", "validation", "test") if split in needed]


def quiet_options(options: Options) -> Options:
    """Options of a prerequisite run or a search candidate: no predictions, reports or uploads."""
    quiet = {"eval_strategy": "no", "disable_tqdm": True, "report_to": []}
    trainer = {name: value for name, value in options.trainer.items() if not name.startswith(("push_to", "hub_"))}
    changes: dict[str, Any] = {"predict": False, "evaluate": True, "test": None, "start": None, "notes": ()}
    return replace(options, trainer=trainer | quiet, overwrite=False, rolling_checkpoints=True, **changes)


def read_data(spec: RunSpec, options: Options, splits: Sequence[str], checkpoint: Checkpoint | None = None) -> Data:
    """Read splits of a run: see `read_splits`. Raises UserError."""
    return read_splits(
        spec.data,
        splits,
        checkpoint=checkpoint,
        test=options.test,
        max_predict_samples=options.max_predict_samples,
        cache_dir=options.cache_dir,
        token=options.token,
    )


@dataclass(frozen=True)
class RunInputs:
    """The inputs that a run reads before it selects layers."""

    checkpoint: Checkpoint
    data: Data
    labels: Labels
    collate: Collator
    max_length: int
    """Maximum number of tokens: the lower of the spec's and the model's limit."""
    device: torch.device
    batch_size: int
    """Batch size of evaluations and scores."""

    @classmethod
    def read(
        cls,
        spec: RunSpec,
        options: Options,
        args: TrainingArguments,
        checkpoint: Checkpoint,
        splits: Sequence[str] | None = None,
    ) -> "RunInputs":
        """Read the data. splits: `train`, `validation`, `test`; None: `needed_splits`. Raises UserError."""
        data = read_data(spec, options, needed_splits(spec, options) if splits is None else splits, checkpoint)
        max_length = min(spec.data.max_seq_length, checkpoint.max_length())
        multiple = 1 if args.device.type == "cpu" else MULTIPLE
        collate = Collator.of(checkpoint.tokenizer, max_length, spec.data.pad_to_max_length, multiple)
        labels, size = Labels(data.task, checkpoint), args.per_device_eval_batch_size
        _check_kind(spec, args, data.task)
        return cls(checkpoint, data, labels, collate, max_length, args.device, size)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The checkpoint's tokenizer."""
        return self.checkpoint.tokenizer

    def dataset(self, split: str) -> TokenizedDataset:
        """Tokenize a split. The labels are in the checkpoint's order. Raises UserError for a text without a token."""
        examples, sizes = self.data.examples[split], self.checkpoint.embeddings
        labels = None if examples.labels is None else self.labels.to_model(examples.labels)
        return tokenize(examples, self.tokenizer, self.max_length, labels, sizes)


def _check_kind(spec: RunSpec, args: TrainingArguments, task: Task) -> None:
    """Raise UserError for settings that do not fit the kind of labels, which own data decide."""
    if spec.distil and spec.distil.distill == "patient" and not task.kind.pooled:
        raise UserError(
            f"--distill patient: compares the states of the sentence token, but the labels of {task.name} are "
            f"{task.kind}. Use --distill layers or logits."
        )
    best, allowed = args.metric_for_best_model, ("loss", *task.metrics)
    if spec.data.source in ("files", "dataset") and best and best not in allowed:
        raise UserError(
            f"--metric_for_best_model {best}: not a metric of {task.name}, whose labels are {task.kind}. Allowed: "
            f"{', '.join(allowed)}."
        )
