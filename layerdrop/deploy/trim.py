"""Trim a vocabulary: keep the tokens of some texts, and shrink tokenizer, embedding and tied heads together.

Tokens that occur in none of the texts are removed, except these:

- WordLevel takes whole words. The words of the texts are kept.
- WordPiece takes the longest token that matches. All tokens that were taken are kept.
- BPE applies the earliest merge of its list. All merges that can build a kept token are kept, with their parts.
- Unigram takes the most probable segmentation. Its tokens are kept, and so is the least probable token, because the
  score of an unknown character depends on it.

Special tokens, added tokens and tokens of one character or byte are always kept. Other texts are split into smaller
tokens.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedConfig

from layerdrop.architectures import family_of
from layerdrop.errors import UserError
from layerdrop.system.files import read_json

TOKENIZER_FILE, CONFIG_FILE, GENERATION_FILE = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
OTHER_VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "*.model", "added_tokens.json")
"""Files of a vocabulary in other formats. `tokenizer.json` replaces them."""
PREFIX = "##"
"""Beginning of WordPiece's tokens inside a word."""
WORD = "\u2581"
"""Unigram's mark of the beginning of a word."""


@dataclass(frozen=True)
class Trimmed:
    """A smaller vocabulary."""

    content: dict[str, Any]
    """The content of `tokenizer.json`."""
    kept: list[int]
    """Old id of each new id, ascending."""

    @property
    def new_ids(self) -> dict[int, int]:
        """Old id -> new id."""
        return {old: new for new, old in enumerate(self.kept)}

    def write(self, folder: Path) -> None:
        """Replace the tokenizer's files in a folder, and the token ids in `generation_config.json`."""
        new = self.new_ids
        for pattern in OTHER_VOCABULARIES:
            for path in folder.glob(pattern):
                path.unlink()
        _write(folder / TOKENIZER_FILE, self.content)
        settings = _read(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
        if decoder := settings.get("added_tokens_decoder"):
            kept = {new[int(i)]: token for i, token in decoder.items() if int(i) in new}
            settings["added_tokens_decoder"] = {str(i): token for i, token in kept.items()}
        _write(folder / CONFIG_FILE, settings)
        if (path := folder / GENERATION_FILE).is_file():
            _write(path, _with_new_ids(_read(path), new))

    def adapt(self, config: PreTrainedConfig) -> None:
        """Set the vocabulary's size and the ids of special tokens in a configuration, in place. Raises UserError."""
        new, pad = self.new_ids, config.pad_token_id
        if config.model_type in family_of(config).positions_after_padding and new.get(pad) != pad:
            raise UserError(
                "--trim_vocabulary: this model counts positions from its padding id, which would change. Leave "
                "--trim_vocabulary out."
            )
        config.vocab_size = len(self.kept)
        for name, value in _with_new_ids(config.to_dict(), new).items():
            if hasattr(config, name) and name not in ("model_type", "vocab_size"):
                setattr(config, name, value)

    def rows(self, weights: dict[str, torch.Tensor], dimensions: Mapping[str, int], n: int) -> dict[str, torch.Tensor]:
        """Remove the entries of removed tokens from the embedding, the tied head and its bias.

        dimensions: name -> dimension of the vocabulary; n: number of embeddings. Raises UserError if a weight has
        another size, or if the tokenizer has more tokens than n.
        """
        if self.kept[-1] >= n:
            raise UserError(
                f"--trim_vocabulary: the tokenizer has more tokens than the embedding, {n}. Leave --trim_vocabulary "
                "out."
            )
        kept, trimmed = torch.tensor(self.kept), dict(weights)
        for name, weight in weights.items():
            if name in dimensions:
                if (size := weight.shape[dimensions[name]]) != n:
                    raise UserError(
                        f"--trim_vocabulary: {name} has {size} tokens, not {n}. Leave --trim_vocabulary out."
                    )
                trimmed[name] = weight.index_select(dimensions[name], kept)
        return trimmed


def _with_new_ids(value: Any, new: Mapping[int, int], name: str = "") -> Any:
    """Replace the token ids in a configuration: entries named `..._token_id` or `..._token_ids`. A removed id: None."""
    if isinstance(value, dict):
        return {key: _with_new_ids(item, new, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_new_ids(item, new, name) for item in value]
    is_id = name.endswith(("_token_id", "_token_ids")) and isinstance(value, int) and not isinstance(value, bool)
    return new.get(value, value if value < 0 else None) if is_id else value


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON file. Raises UserError."""
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--trim_vocabulary: {path} cannot be read ({error}). Get the checkpoint again, or leave --trim_vocabulary "
            "out."
        ) from None


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def trim(path: Path, texts: Iterable[tuple[str, ...]]) -> Trimmed:
    """Trim the vocabulary of a `tokenizer.json` to the tokens of texts or pairs.

    Raises UserError for a file without a fast tokenizer, for another kind of tokenizer, and if the texts would be split
    into other tokens.
    """
    if not path.is_file():
        raise UserError(f"--trim_vocabulary: {path.parent} has no {TOKENIZER_FILE}. Save the fast tokenizer there.")
    content, texts = _read(path), list(texts)
    model = content.get("model") or {}
    kind = model.get("type") or ("BPE" if "merges" in model else None)
    if kind not in _KEEP:
        raise UserError(
            f"--trim_vocabulary: cannot trim a tokenizer of kind {kind}. Allowed: {', '.join(_KEEP)}. Leave "
            "--trim_vocabulary out."
        )
    full = Tokenizer.from_file(str(path))
    ids = _encode(full, texts)
    size = max(full.get_vocab(with_added_tokens=True).values()) + 1
    used = _named_ids(content) & set(range(size)) | set(np.concatenate([[], *ids]).astype(int).tolist())
    kept = sorted(_KEEP[kind](model, used))
    trimmed = Trimmed(content, kept)
    _renumber(content, trimmed.new_ids)
    small = Tokenizer.from_str(json.dumps(content))
    new = np.full(size, -1)
    new[kept] = np.arange(len(kept))
    if any(not np.array_equal(new[old], found) for old, found in zip(ids, _encode(small, texts), strict=True)):
        raise UserError(
            "--trim_vocabulary: the smaller tokenizer would split these texts into other tokens. Leave "
            "--trim_vocabulary out, or give other texts."
        )
    return trimmed


def _named_ids(content: dict) -> set[int]:
    """Ids that a `tokenizer.json` names outside its vocabulary: added tokens, padding, post-processors."""
    ids = {token["id"] for token in content["added_tokens"]}
    if content.get("padding"):
        ids.add(content["padding"]["pad_id"])
    for part in _processors(content):
        ids |= {part[name][1] for name in ("sep", "cls") if name in part}
        ids |= {i for token in part.get("special_tokens", {}).values() for i in token["ids"]}
    return ids


def _encode(tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]]) -> list[np.ndarray]:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encodings = tokenizer.encode_batch([text if len(text) > 1 else text[0] for text in texts])
    return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]


def _keep_word_level(model: dict, used: set[int]) -> set[int]:
    unknown = model.get("unk_token")
    kept = used | {i for token, i in model["vocab"].items() if token == unknown}
    model["vocab"] = {token: i for token, i in model["vocab"].items() if i in kept}
    return kept


def _keep_word_piece(model: dict, used: set[int]) -> set[int]:
    single = {i for token, i in model["vocab"].items() if len(token.removeprefix(PREFIX)) == 1}
    return _keep_word_level(model, used | single)


def _keep_bpe(model: dict, used: set[int]) -> set[int]:
    vocab, pairs = model["vocab"], [rule.split(" ", 1) if isinstance(rule, str) else rule for rule in model["merges"]]
    prefix = model.get("continuing_subword_prefix") or ""
    built: dict[str, list[tuple[str, str]]] = {}
    for first, second in pairs:
        built.setdefault(first + second.removeprefix(prefix), []).append((first, second))
    results = {vocab[token] for token in built if token in vocab}
    kept, waiting = set(), [token for token, i in vocab.items() if i in used or i not in results]
    while waiting:
        token = waiting.pop()
        if token not in kept:
            kept.add(token)
            waiting += [part for rule in built.get(token, ()) for part in rule]
    model["merges"] = [
        rule
        for rule, (first, second) in zip(model["merges"], pairs, strict=True)
        if first in kept and second in kept and first + second.removeprefix(prefix) in kept
    ]
    model["vocab"] = {token: i for token, i in vocab.items() if token in kept}
    return used | set(model["vocab"].values())


def _keep_unigram(model: dict, used: set[int]) -> set[int]:
    pieces = model["vocab"]
    single = {i for i, (piece, _) in enumerate(pieces) if len(piece.removeprefix(WORD)) <= 1 or piece.startswith("<0x")}
    least = min(range(len(pieces)), key=lambda i: pieces[i][1])
    kept = used | single | {least}
    if model.get("unk_id") is not None:
        kept.add(model["unk_id"])
    model["vocab"] = [piece for i, piece in enumerate(pieces) if i in kept]
    return kept


_KEEP = {"WordLevel": _keep_word_level, "WordPiece": _keep_word_piece, "BPE": _keep_bpe, "Unigram": _keep_unigram}
"""Kind of tokenizer -> a function that trims the model's part of `tokenizer.json`, and returns the kept ids."""


def _renumber(content: dict, new: dict[int, int]) -> None:
    """Give every token of a `tokenizer.json` its new id."""
    model = content["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {token: new[i] for token, i in model["vocab"].items()}
    elif model.get("unk_id") is not None:
        model["unk_id"] = new[model["unk_id"]]
    for token in content["added_tokens"]:
        token["id"] = new[token["id"]]
    if content.get("padding"):
        content["padding"]["pad_id"] = new[content["padding"]["pad_id"]]
    for part in _processors(content):
        for name in {"sep", "cls"} & part.keys():
            part[name] = [part[name][0], new[part[name][1]]]
        for token in part.get("special_tokens", {}).values():
            token["ids"] = [new[i] for i in token["ids"]]


def _processors(content: dict) -> Iterator[dict]:
    """Yield the post-processors of a `tokenizer.json`, also those in a sequence."""
    waiting = [content.get("post_processor") or {}]
    while waiting:
        part = waiting.pop()
        waiting += part.get("processors", ())
        yield part
