"""Tokenize examples into flat arrays, and cache the arrays."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
import torch

from layerdrop.data.examples import Examples
from layerdrop.errors import UserError
from layerdrop.system.progress import progress

CACHE_BYTES = 2**30
"""Maximum size of a process's cache of token arrays."""
KINDS = {"input_ids": "ids", "token_type_ids": "token types"}
"""Names of the columns in messages."""
CHARACTERS = 100
"""Characters for each token of the limit, above which a text is cut before it is tokenized."""
CHUNK = 1000
"""Rows for each call of the tokenizer."""
WORDS = "words"
"""Key of `Words.first` among the columns in the cache."""
TOKEN_LABELS = "token_labels"
"""Key of an item's labels if each token has a label."""
UNKNOWN = 0.5
"""Fraction of unknown tokens above which a note says so."""
IGNORED = -100
"""Label of a token that no loss or metric counts, as in the library."""

Tokens = tuple[dict[str, np.ndarray], np.ndarray]
"""`columns` and `offsets` of TokenizedDataset."""


@dataclass(frozen=True)
class Words:
    """The words of n examples with a label for each word."""

    first: np.ndarray
    """(total tokens,) 0-based word of its example at the word's first token, -1 at all other tokens."""
    counts: np.ndarray
    """(n,) number of words, including words without a token."""


@dataclass(eq=False)
class TokenizedDataset(torch.utils.data.Dataset):
    """Token ids of n examples in flat arrays, without padding."""

    columns: dict[str, np.ndarray]
    """Name (`input_ids`, `token_type_ids`) -> (total tokens,) int32."""
    offsets: np.ndarray
    """(n + 1,) start of each example, and the end."""
    labels: np.ndarray | None = None
    """n labels, or None. With `words`: (n,) object, an int64 id for each word of the example."""
    rows: np.ndarray | None = None
    """(n,) row of `Examples` at each position. None: all rows in order."""
    words: Words | None = None
    """None if an example has one label, or one set of labels."""

    def __post_init__(self):
        if self.rows is None:
            self.rows = np.arange(len(self.offsets) - 1)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict:
        row = self.rows[position]
        part = slice(self.offsets[row], self.offsets[row + 1])
        item = {name: column[part] for name, column in self.columns.items()}
        if self.labels is None:
            return item
        labels = {"labels": self.labels[row]} if self.words is None else {TOKEN_LABELS: self.token_labels[part]}
        return item | labels

    @cached_property
    def token_labels(self) -> np.ndarray:
        """(total tokens,) int64 label at the first token of each word, IGNORED at all other tokens."""
        first, starts = self.words.first, np.cumsum(self.words.counts) - self.words.counts
        of_token = np.repeat(starts, np.diff(self.offsets))
        known = first >= 0
        labels = np.full(len(first), IGNORED, np.int64)
        labels[known] = np.concatenate(self.labels)[of_token[known] + first[known]]
        return labels

    def units(self, logits: torch.Tensor, mask: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """(units, outputs) logits of a batch. A unit is an example, or the first token of a word.

        logits: (batch, outputs), or (batch, tokens, outputs) with `words`. mask: (batch, tokens), 1 for real tokens.
        rows: the row of each example.
        """
        if self.words is None:
            return logits
        first = np.concatenate([self.words.first[self.offsets[row] : self.offsets[row + 1]] for row in rows])
        return logits[mask.bool().to(logits.device)][torch.from_numpy(first >= 0).to(logits.device)]

    def in_order(self, logits: np.ndarray) -> np.ndarray:
        """Sort the units (units, outputs) of all positions by row."""
        counts = np.ones(len(self), np.int64)
        if self.words is not None:
            counts = np.diff(np.concatenate([[0], np.cumsum(self.words.first >= 0)])[self.offsets])
        ends = np.cumsum(counts)
        in_order = np.empty_like(logits)
        in_order[np.concatenate([np.arange(ends[row] - counts[row], ends[row]) for row in self.rows])] = logits
        return in_order

    def by_row(self, values: np.ndarray, missing: float) -> np.ndarray:
        """Group the values (units,) of words: (n,) object, a value for each word. missing: for a word without a token.

        Values in the order of the rows.
        """
        first, counts = self.words.first, self.words.counts
        of_token = np.repeat(np.cumsum(counts) - counts, np.diff(self.offsets))
        grouped = np.full(counts.sum(), missing, np.asarray(values).dtype)
        grouped[(of_token + first)[first >= 0]] = values
        return ragged(np.split(grouped, np.cumsum(counts)[:-1]))

    @property
    def lengths(self) -> np.ndarray:
        """(n,) number of tokens at each position."""
        return np.diff(self.offsets)[self.rows]

    def longest_first(self) -> "TokenizedDataset":
        """Sort by length, longest first: neighbors need little padding. `rows` keeps the old positions."""
        order = np.argsort(-self.lengths, kind="stable")
        return replace(self, rows=self.rows[order])


def ragged(rows: Sequence[np.ndarray]) -> np.ndarray:
    """(n,) object array of arrays."""
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


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

    A text that is a list of words is joined with blanks, and the dataset has `words`.

    labels: replace `examples.labels` (the same classes in a checkpoint's own order). sizes: column -> number of the
    model's embeddings. A cache saves repeated work in a process with several runs. Raises UserError if
    `max_seq_length` leaves no token of the texts, a text has no token, or a token has no embedding.
    """
    with _settings_kept(tokenizer):
        key = examples.fingerprint(), _tokenizer_key(tokenizer), max_seq_length
        columns, offsets = _cache.get(key, lambda: _tokenize(examples, tokenizer, max_seq_length))
    of_words = isinstance(examples.texts[0][0], list)
    if (empty := np.flatnonzero(np.diff(offsets) == 0)).size:
        row = examples.index[empty[0]]
        raise UserError(
            f"tokenizer {tokenizer.name_or_path}: gives no token for row {row} ({len(empty)} of "
            f"{len(examples)} rows). Delete such rows, or give the model's own tokenizer."
        )
    for name, size in sizes.items():
        if name in columns and (highest := columns[name].max(initial=0)) >= size:
            raise UserError(
                f"tokenizer {tokenizer.name_or_path}: gives {KINDS[name]} up to {highest}, the "
                f"model has {size} embedding{'s' * (size != 1)}. Give the model's own tokenizer, or resize the "
                "embeddings (resize_token_embeddings)."
            )
    words = None
    if of_words:
        words = Words(columns[WORDS], np.array([len(words) for words in examples.texts[0]], np.int64))
        columns = {name: column for name, column in columns.items() if name != WORDS}
    return TokenizedDataset(columns, offsets, examples.labels if labels is None else labels, words=words)


def notes_on_unknown_tokens(data: TokenizedDataset, tokenizer, source: str) -> list[str]:
    """A note if more than half of the texts' tokens are the tokenizer's unknown token. source: for the message."""
    unknown, ids = tokenizer.unk_token_id, data.columns["input_ids"]
    special = [i for i in tokenizer.all_special_ids if i != unknown]
    n, total = np.count_nonzero(ids == unknown), np.count_nonzero(~np.isin(ids, special))
    if unknown is None or n <= UNKNOWN * total:
        return []
    words = f"{n / total:.0%} of the tokens of {source} are unknown to the tokenizer ({tokenizer.unk_token})"
    return [f"{words}, so predictions hardly depend on the texts. Choose a model that was trained on such texts"]


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
            f"Choose {special + 1} or more."
        )
    names = [name for name in tokenizer.model_input_names if name != "attention_mask"]
    if isinstance(examples.texts[0][0], list):
        return _tokenize_words(examples.texts[0], tokenizer, max_seq_length, names)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    lengths: list[int] = []
    for start in progress(range(0, len(examples), CHUNK), "tokenize", "k rows"):
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


def _tokenize_words(texts: Sequence[list[str]], tokenizer, max_seq_length: int, names: Sequence[str]) -> Tokens:
    """Tokenize lists of words. The columns also have WORDS."""
    if not tokenizer.is_fast:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path}: labels of tokens need a fast tokenizer (tokenizer.json), "
            "which gives the position of each token in the text. Give another tokenizer."
        )
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*names, WORDS)}
    lengths: list[int] = []
    for start in progress(range(0, len(texts), CHUNK), "tokenize", "k rows"):
        chunk = texts[start : start + CHUNK]
        joined = [" ".join(words) for words in chunk]
        arguments = {"truncation": True, "max_length": max_seq_length, "return_attention_mask": False}
        encoded = tokenizer(joined, return_offsets_mapping=True, **arguments)
        lengths += [len(ids) for ids in encoded["input_ids"]]
        for name in names:
            parts[name] += [np.asarray(ids, dtype=np.int32) for ids in encoded[name]]
        parts[WORDS] += map(_first_tokens, chunk, joined, encoded["offset_mapping"])
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return columns, np.concatenate([[0], np.cumsum(lengths)])


def _first_tokens(words: list[str], text: str, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """(tokens,) int32: the word whose first token it is, else -1. spans: the characters of each token in `text`."""
    starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
    begin, end = np.asarray(spans, np.int64).reshape(-1, 2).T
    blank = np.array([start < stop and text[start] == " " for start, stop in zip(begin, end, strict=True)], bool)
    of_word = np.searchsorted(starts, begin + blank, side="right") - 1
    of_word[begin == end] = -1  # special tokens
    found, position = np.unique(of_word, return_index=True)
    first = np.full(len(of_word), -1, np.int32)
    first[position[found >= 0]] = found[found >= 0]
    return first
