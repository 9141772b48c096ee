"""Input of an analysis: a checkpoint and the texts of a task. Results are cached in files."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from layerdrop.checkpoints import Checkpoint
from layerdrop.data.batches import Collator, batches
from layerdrop.data.examples import Examples
from layerdrop.data.read import Data, read_splits
from layerdrop.data.tasks import Task
from layerdrop.data.tokens import TokenizedDataset, tokenize
from layerdrop.loading import load_encoder
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.system.files import read_json, write_atomically

VERSION = 1
"""Version of the analyses, in the key of every cached result."""


@dataclass
class AnalysisInput:
    """A checkpoint and the texts of a task."""

    spec: RunSpec
    options: Options
    splits: Sequence[str] = ("train",)
    """The splits to read. For MNLI, only the matched validation set."""
    batch_size: int = 32

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint, opened once."""
        return Checkpoint.open(self.spec.model, self.options.hub, "--models")

    @cached_property
    def data(self) -> Data:
        """The splits, read once."""
        return read_splits(
            self.spec.data,
            self.splits,
            checkpoint=self.checkpoint,
            test=self.options.test,
            cache_dir=self.options.cache_dir,
            token=self.options.token,
        )

    @property
    def task(self) -> Task:
        """The task of the texts."""
        return self.data.task

    @property
    def device(self) -> torch.device:
        """The GPU if there is one, unless --use_cpu is given."""
        return torch.device("cuda" if torch.cuda.is_available() and not self.options.use_cpu else "cpu")

    @property
    def length(self) -> int:
        """Maximum number of tokens."""
        return min(self.spec.data.max_seq_length, self.checkpoint.max_length())

    @cached_property
    def collate(self) -> Collator:
        """A collator with the tokenizer's padding."""
        return Collator.of(self.checkpoint.tokenizer, self.length)

    def examples(self, split: str) -> Examples:
        """The rows of a split."""
        return self.data.examples[self.data.splits(split)[0]]

    def tokens(self, split: str) -> TokenizedDataset:
        """A tokenized split with its labels, in the task's order of classes."""
        checkpoint = self.checkpoint
        return tokenize(self.examples(split), checkpoint.tokenizer, self.length, sizes=checkpoint.embeddings)

    def batches(self, split: str) -> Iterator[dict[str, torch.Tensor]]:
        """Batches of all rows of a split, grouped by length."""
        return map(self.collate, batches(self.tokens(split), self.batch_size))

    def encoder(self) -> PreTrainedModel:
        """Load the encoder in fp32 and evaluation mode, on the device."""
        return load_encoder(self.checkpoint).to(self.device)

    def contents(self) -> dict[str, Any]:
        """Fingerprints of the checkpoint and the texts, and the maximum length: the key of a cached result."""
        texts = {split: self.examples(split).fingerprint() for split in self.splits}
        return {"checkpoint": self.checkpoint.fingerprints, "texts": texts, "max_seq_length": self.length}


def cached(folder: str, name: str, inputs: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the result of `compute`, cached in FOLDER/NAME_KEY.json; NaN becomes None.

    inputs: everything that the result depends on, hashed as the key.
    """
    key = hashlib.sha256(json.dumps([VERSION, inputs], sort_keys=True).encode()).hexdigest()[:8]
    path = Path(folder) / f"{name}_{key}.json"
    with suppress(OSError, ValueError):  # missing or damaged
        if isinstance(stored := read_json(path), dict):
            return stored
    result = _plain(compute())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(result, indent=1) + "\n")
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return None if math.isnan(value) else float(value)
    return value
