"""Tokenize examples into flat arrays, and cache the arrays."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np
import torch
from tqdm.auto import tqdm

from layerdrop.data.examples import Examples
from layerdrop.errors import UserError

CACHE_BYTES = 2**30
"""Maximum size of a process's cache of token arrays."""
KINDS = {"input_ids": "ids", "token_type_ids": "token types"}
"""Names of the columns in messages."""
CHARACTERS = 100
"""Characters for each token of the limit, above which a text is cut before it is tokenized."""
CHUNK = 1000
"""Rows for each call of the tokenizer."""

Tokens = tuple[dict[str, np.ndarray], np.ndarray]
"""`columns` and `offsets` of TokenizedDataset."""


class TokenizedDataset(torch.utils.data.Dataset):
    """Token ids of n examples in flat arrays, without padding.

    columns: name (`input_ids`, `token_type_ids`) -> (total tokens,) int32. offsets: (n + 1,) start of each example, and
    the end. labels: (n,) or None. rows: (n,) row of `Examples` at each position.
    """

    def __init__(self, columns: dict[str, np.ndarray], offsets: np.ndarray, labels: np.ndarray | None, rows=None):
        self.columns, self.offsets, self.labels = columns, offsets, labels
        self.rows = np.arange(len(offsets) - 1) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict:
        row = self.rows[position]
        part = slice(self.offsets[row], self.offsets[row + 1])
        item = {name: column[part] for name, column in self.columns.items()}
        if self.labels is not None:
            item["labels"] = self.labels[row]
        return item

    @property
    def lengths(self) -> np.ndarray:
        """(n,) number of tokens at each position."""
        return np.diff(self.offsets)[self.rows]

    def longest_first(self) -> "TokenizedDataset":
        """Sort by length, longest first: neighbors need little padding. `rows` keeps the old positions."""
        order = np.argsort(-self.lengths, kind="stable")
        return TokenizedDataset(self.columns, self.offsets, self.labels, self.rows[order])


class TokenCache:
    """Token arrays by key, up to `limit` bytes. Removes the least recently used arrays first. Stores no texts."""

    def __init__(self, limit: int):
        self.limit = limit
        self.entries: OrderedDict[Hashable, Tokens] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(array.nbytes for columns, ends in self.entries.values() for array in (ends, *columns.values()))

    def get(self, key: Hashable, make: Callable[[], Tokens]) -> Tokens:
        """The arrays of a key; if missing, the result of `make`. Arrays larger than the limit are not kept."""
        tokens = self.entries.pop(key, None) or make()
        self.entries[key] = tokens
        while self.size > self.limit:
            self.entries.popitem(last=False)
        return tokens


_cache = TokenCache(CACHE_BYTES)


def tokenize(
    examples: Examples,
    tokenizer,
    max_seq_length: int,
    labels: np.ndarray | None = None,
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> TokenizedDataset:
    """Tokenize every example to at most `max_seq_length` tokens. Pairs are cut from the longer text first.

    labels: replace `examples.labels` (the same classes in a checkpoint's own order). sizes: column -> number of the
    model's embeddings. A cache saves repeated work in a process with several runs. Raises UserError if
    `max_seq_length` leaves no token of the texts, a text has no token, or a token has no embedding.
    """
    with _settings_kept(tokenizer):
        key = examples.fingerprint(), _tokenizer_key(tokenizer), max_seq_length
        columns, offsets = _cache.get(key, lambda: _tokenize(examples, tokenizer, max_seq_length))
    if (empty := np.flatnonzero(np.diff(offsets) == 0)).size:
        row = examples.index[empty[0]]
        raise UserError(
            f"--tokenizer_name {tokenizer.name_or_path}: the tokenizer gives no token for row {row} ({len(empty)} of "
            f"{len(examples)} rows). Delete such rows, or give the model's own tokenizer."
        )
    for name, size in sizes.items():
        if name in columns and (highest := columns[name].max(initial=0)) >= size:
            raise UserError(
                f"--tokenizer_name {tokenizer.name_or_path}: the tokenizer gives {KINDS[name]} up to {highest}, the "
                f"model has {size} embedding{'s' * (size != 1)}. Give the model's own tokenizer, or resize the "
                "embeddings (resize_token_embeddings)."
            )
    return TokenizedDataset(columns, offsets, examples.labels if labels is None else labels)


@contextmanager
def _settings_kept(tokenizer) -> Iterator[None]:
    """Restore the truncation and padding of a fast tokenizer. Every call sets them, and they are saved with it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        yield
        return
    truncation, padding = backend.truncation, backend.padding
    try:
        yield
    finally:
        backend.enable_truncation(**truncation) if truncation else backend.no_truncation()
        backend.enable_padding(**padding) if padding else backend.no_padding()


def _tokenizer_key(tokenizer) -> Hashable:
    """A cache key. Tokenizers with equal keys give equal results."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # settings of the last call, not of the tokenizer
        backend.no_truncation()
        backend.no_padding()
    rules = backend.to_str() if backend is not None else tokenizer.name_or_path  # slow tokenizers
    digest = hashlib.sha256(rules.encode("utf-8", "surrogatepass")).hexdigest()
    return type(tokenizer), digest, tuple(tokenizer.model_input_names), tokenizer.truncation_side


def _tokenize(examples: Examples, tokenizer, max_seq_length: int) -> Tokens:
    special = tokenizer.num_special_tokens_to_add(pair=len(examples.texts) == 2)
    if max_seq_length <= special:
        raise UserError(
            f"--max_seq_length {max_seq_length}: {special} special tokens mark the start and end of texts. "
            "Choose a higher limit."
        )
    names = [name for name in tokenizer.model_input_names if name != "attention_mask"]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    lengths: list[int] = []
    for start in tqdm(range(0, len(examples), CHUNK), desc="tokenize", delay=2, leave=False, unit="k rows"):
        texts = [column[start : start + CHUNK] for column in examples.texts]
        encoded = _encode(texts, tokenizer, max_seq_length)
        lengths += [len(ids) for ids in encoded["input_ids"]]
        for name in names:
            parts[name].append(np.concatenate([np.asarray(ids, dtype=np.int32) for ids in encoded[name]]))
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return columns, np.concatenate([[0], np.cumsum(lengths)])


def _encode(texts: list[list[str]], tokenizer, max_seq_length: int) -> Mapping[str, list[list[int]]]:
    """Tokenize one or two lists of n texts. A single text is cut first, if its beginning fills `max_seq_length`.

    The tokens are those of the whole text. Tokenizing a text of 10 MB takes half a minute and 2 GB.
    """
    arguments = {"truncation": True, "max_length": max_seq_length, "return_attention_mask": False}
    if len(texts) == 1 and tokenizer.truncation_side == "right":
        (column,), length = texts, CHARACTERS * max_seq_length
        long = [i for i, text in enumerate(column) if len(text) > 2 * length]
        cut = {
            i: column[i][: column[i].find(" ", length)] for i in long if 0 < column[i].find(" ", length) < 2 * length
        }
        if cut and all(len(ids) == max_seq_length for ids in tokenizer(list(cut.values()), **arguments)["input_ids"]):
            texts = [[cut.get(i, text) for i, text in enumerate(column)]]
    return tokenizer(*texts, **arguments)
