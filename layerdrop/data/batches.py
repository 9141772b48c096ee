"""Batches of tokenized examples: order and padding."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from layerdrop.data.tokens import IGNORED, TOKEN_LABELS, TokenizedDataset


@dataclass(frozen=True)
class Collator:
    """Collate `TokenizedDataset` items into a batch of tensors, padded to the longest item.

    max_length: upper limit of the padded length. With a limit, lengths are rounded up to a multiple of a step, so that
    batches have fewer different lengths. On a CPU, preparing kernels for a new length takes about half a training step.
    The step is a sixteenth of the length, rounded down to a multiple of `multiple`, but at least `multiple`. fill: pad
    every batch to max_length.
    """

    padding_values: dict[str, int]
    left: bool
    max_length: int | None = None
    fill: bool = False
    multiple: int = 1

    @classmethod
    def of(cls, tokenizer, max_length: int | None = None, fill: bool = False, multiple: int = 1) -> "Collator":
        """The collator with a tokenizer's padding ids and padding side (XLNet: left)."""
        values = {
            "input_ids": tokenizer.pad_token_id or 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
        }
        return cls(values, tokenizer.padding_side == "left", max_length, fill, multiple)

    def length(self, longest: int) -> int:
        """Padded length of a batch. longest: number of tokens of its longest example."""
        if self.max_length is None or self.fill:
            return self.max_length or longest
        step = max(1, longest // 16 // self.multiple) * self.multiple
        return min(-(-longest // step) * step, self.max_length)

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` (and `token_type_ids`): (batch, tokens) int64.

        `labels`: (batch, ...), or for labels of tokens (batch, tokens) int64 with IGNORED for tokens without a label.
        """
        longest = self.length(max(len(item["input_ids"]) for item in items))
        names = [name for name in items[0] if name not in ("labels", TOKEN_LABELS)]
        batch = {name: np.full((len(items), longest), self.padding_values.get(name, 0), np.int64) for name in names}
        mask = np.zeros((len(items), longest), np.int64)
        for i, item in enumerate(items):
            length = len(item["input_ids"])
            part = slice(longest - length, longest) if self.left else slice(0, length)
            mask[i, part] = 1
            for name in names:
                batch[name][i, part] = item[name]
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        tensors["attention_mask"] = torch.from_numpy(mask)
        if "labels" in items[0]:
            tensors["labels"] = torch.from_numpy(np.array([item["labels"] for item in items]))
        if TOKEN_LABELS in items[0]:
            labels = np.full((len(items), longest), IGNORED, np.int64)
            labels[mask == 1] = np.concatenate([item[TOKEN_LABELS] for item in items])
            tensors["labels"] = torch.from_numpy(labels)
        return tensors


class LengthGroupedSampler(torch.utils.data.Sampler):
    """Sample the positions of an epoch in random order, with examples of similar length in each batch.

    Examples are shuffled, sorted by length within windows of `window` batches, and cut into batches. The batches are
    shuffled, with an incomplete batch at the end. The order depends on `seed` and the epoch alone, so a resumed run
    has the same order. `tokens` and `padded_tokens` count the sampled tokens, without and with padding. padded: length
    of a batch's longest example -> padded length.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        seed: int,
        window: int = 50,
        padded: Callable[[int], int] = int,
    ):
        self.lengths, self.batch_size, self.seed, self.window, self.padded = lengths, batch_size, seed, window, padded
        self.epoch = 0
        self.tokens = self.padded_tokens = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.lengths))
        span = self.batch_size * self.window
        windows = [order[i : i + span] for i in range(0, len(order), span)]
        order = np.concatenate([part[np.argsort(-self.lengths[part], kind="stable")] for part in windows])
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        last = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        batches = [batches[i] for i in generator.permutation(len(batches))] + last
        for batch in batches:
            lengths = self.lengths[batch]
            self.tokens += int(lengths.sum())
            self.padded_tokens += self.padded(int(lengths.max())) * len(batch)
            yield from batch.tolist()


def batches(dataset: TokenizedDataset, batch_size: int) -> list[list[dict]]:
    """Split all items into batches of similar length, longest first. A Collator converts a batch to tensors."""
    dataset = dataset.longest_first()
    starts = range(0, len(dataset), batch_size)
    return [[dataset[i] for i in range(start, min(start + batch_size, len(dataset)))] for start in starts]
