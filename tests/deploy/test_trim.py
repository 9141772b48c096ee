"""Trimmed vocabularies: the same tokens, the same logits."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, set_seed

from layerdrop.checkpoints import Checkpoint
from layerdrop.cli.command import run_command
from layerdrop.criteria.selection import Selection
from layerdrop.deploy.cut import Source, write_cut
from layerdrop.deploy.trim import trim
from layerdrop.errors import UserError
from tests import tiny

TEXTS = [
    ("the cat sat on the mat",),
    ("a cat, sitting; on mats & hats!",),
    ("unbelievable cats believe in naïve hats \u732b",),
]
MORE = [
    "dogs and other animals sleep in houses",
    "houses of animals are unbelievable",
    "many other words to learn here",
]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A trained tokenizer of each kind, with special tokens at the beginning, as of RoBERTa."""
    corpus = [text for row in TEXTS[:2] for text in row] + MORE
    if kind == "WordPiece":
        raw = Tokenizer(models.WordPiece(unk_token="<unk>"))
        raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=SPECIAL, show_progress=False)
    elif kind == "BPE":
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        )
    else:
        raw = Tokenizer(models.Unigram())
        raw.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        )
    raw.train_from_iterator(corpus, trainer)
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=raw, **names, model_max_length=60)


def checkpoint(folder: Path, kind: str, model_type: str = "roberta") -> tuple[Path, PreTrainedTokenizerFast]:
    """A masked LM with the tokenizer, and three embeddings more than tokens."""
    words = tokenizer(kind)
    set_seed(0)
    config = tiny.config(model_type, vocab_size=len(words) + 3, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder, words


def logits(folder: Path, text: tuple[str, ...]) -> tuple[torch.Tensor, list[str]]:
    words = AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    inputs = words(*text, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        return model(**inputs).logits[0], words.convert_ids_to_tokens(inputs["input_ids"][0])


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "Unigram"])
def test_the_texts_keep_their_tokens_and_logits(tmp_path, kind):
    folder, words = checkpoint(tmp_path / "model", kind)
    full = Checkpoint.open(str(folder))
    cut = write_cut(
        Source(str(folder)), full, Selection([5], "top"), "top", str(tmp_path / "out"), trim_to=[*TEXTS, TEXTS[0] * 2]
    )
    before, after = cut.vocabulary
    assert before == len(words) + 3 and after < len(words)
    kept = trim(folder / "tokenizer.json", [*TEXTS, TEXTS[0] * 2]).kept
    write_cut(Source(str(folder)), full, Selection([5], "top"), "top", str(tmp_path / "whole"))
    for text in [*TEXTS, TEXTS[0] * 2]:
        (expected, tokens), (found, same) = logits(tmp_path / "whole", text), logits(tmp_path / "out", text)
        assert same == tokens and torch.equal(found, expected[:, kept])
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert [loaded.convert_tokens_to_ids(token) for token in SPECIAL] == list(range(5))
    assert loaded.pad_token == "<pad>" and loaded.mask_token == "<mask>" and len(loaded) == after
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").pad_token_id == 1
    for text in MORE:  # other texts are split into smaller tokens, not into unknown ones
        tokens = loaded.tokenize(text)
        joined = "".join(token.removeprefix("##").strip("\u0120\u2581") for token in tokens)
        assert "<unk>" not in tokens and joined == text.replace(" ", "")


def test_a_word_level_tokenizer_keeps_the_words_of_the_texts(tmp_path):
    tiny.save(tmp_path)
    trimmed = trim(tmp_path / "tokenizer.json", [("w1 w7", "w3")])
    small = Tokenizer.from_str(json.dumps(trimmed.content))
    assert trimmed.kept == [0, 1, 2, 3, 4, 6, 8, 12]
    assert small.encode("w7 w8").tokens == ["[CLS]", "w7", "[UNK]", "[SEP]"]


def test_rules_of_bpe_that_build_kept_tokens_are_kept(tmp_path):
    """`abcd` is built from `ab` and `cd`, which occur in no text as tokens of their own; `ef` goes."""
    raw = Tokenizer(models.BPE({c: i for i, c in enumerate([*"abcdef", "ab", "cd", "ef", "abcd"])},
                               [("a", "b"), ("c", "d"), ("e", "f"), ("ab", "cd")]))  # fmt: skip
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.save(str(tmp_path / "tokenizer.json"))
    trimmed = trim(tmp_path / "tokenizer.json", [("abcd",)])
    assert trimmed.kept == [0, 1, 2, 3, 4, 5, 6, 7, 9] and len(trimmed.content["model"]["merges"]) == 3
    assert Tokenizer.from_str(json.dumps(trimmed.content)).encode("abcd ef").tokens == ["abcd", "e", "f"]


def test_what_cannot_be_trimmed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.save(Path("words"))
    path = Path("words/tokenizer.json")
    path.write_text(path.read_text().replace('"WordLevel"', '"Other"'))
    Path("texts.txt").write_text("w1 w2\n")
    words = ["--drop_strategy", "top", "--drop_k", "2", "--output_dir", "out", "--trim_vocabulary"]
    assert run_command("cut", ["words", *words, "texts.txt"]) == 2
    assert (
        "cannot trim a tokenizer of kind Other. Allowed: WordLevel, WordPiece, BPE, Unigram" in capsys.readouterr().err
    )
    assert run_command("cut", ["words", *words, "none.txt"]) == 2 and "cannot read the file" in capsys.readouterr().err
    folder, _ = checkpoint(Path("model"), "WordPiece")
    (folder / "tokenizer.json").rename("tokenizer.json")
    assert run_command("cut", ["model", *words, "texts.txt"]) == 2 and not Path("out").exists()
    with pytest.raises(UserError, match="has no tokenizer.json"):
        trim(folder / "tokenizer.json", TEXTS)


def test_command(tmp_path, capsys, monkeypatch):
    """With and without dropped layers."""
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("model"), "Unigram")
    Path("texts.csv").write_text("text\n" + "\n".join(f'"{text[0]}"' for text in TEXTS))
    for drop in (["--drop_strategy", "top", "--drop_k", "2"], []):
        assert run_command("cut", ["model", *drop, "--output_dir", "out", "--trim_vocabulary", "texts.csv"]) == 0
        out = capsys.readouterr().out
        assert "vocabulary: 51 -> 43" in out and " tokens\n" in out
        card = Path("out/README.md").read_text()
        assert ("are dropped" in card) == bool(drop) and "The vocabulary has" in card
