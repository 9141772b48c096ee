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
from layerdrop.deploy.trim import _KEEP, trim
from layerdrop.errors import UserError
from tests import tiny
from tests.small.test_surgery import MODEL_TYPES

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
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "eurobert")
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


def unigram(folder: Path) -> Path:
    """Pieces for which the score of an unknown character, 10 below the least score, decides how `xy` is split."""
    raw = Tokenizer(models.Unigram([("<unk>", 0.0), ("x", 20.0), ("xy", -12.0), ("zz", -30.0), ("ww", -5.0)], unk_id=0))
    raw.save(str(folder / "tokenizer.json"))
    assert raw.encode("xy").tokens == ["xy"]  # -12 is better than 20 - 40
    return folder / "tokenizer.json"


def test_the_least_probable_token_of_unigram_is_kept(tmp_path):
    trimmed = trim(unigram(tmp_path), [("xy",)])
    assert trimmed.kept == [0, 1, 2, 3]
    assert Tokenizer.from_str(json.dumps(trimmed.content)).encode("xy").tokens == ["xy"]


def test_a_tokenizer_that_splits_the_texts_in_another_way_is_refused(tmp_path, monkeypatch):
    def forget_the_least(model, used):
        model["vocab"] = model["vocab"][:3]
        return {0, 1, 2}

    monkeypatch.setitem(_KEEP, "Unigram", forget_the_least)
    with pytest.raises(UserError, match="the smaller tokenizer would split these texts into other tokens"):
        trim(unigram(tmp_path), [("xy",)])


def test_files_of_the_whole_vocabulary_are_deleted(tmp_path):
    """A slow tokenizer would read them."""
    folder, _ = checkpoint(tmp_path / "model", "WordPiece")
    others = ["vocab.txt", "vocab.json", "merges.txt", "spiece.model", "added_tokens.json"]
    for name in others:
        (folder / name).write_text("{}")
    full = Checkpoint.open(str(folder))
    for trim_to, kept in ((), others), (TEXTS, []):
        write_cut(Source(str(folder)), full, Selection([5], "top"), "top", str(tmp_path / "out"), trim_to=trim_to)
        assert [name for name in others if (tmp_path / "out" / name).exists()] == kept


def test_modules_of_a_sparse_encoder(tmp_path):
    """SPLADE's vectors have one entry for each token. Other modules are as they were."""
    folder, words = checkpoint(tmp_path / "model", "WordPiece")
    size = len(words) + 3
    modules = {
        "": None,
        "1_SpladePooling": {"pooling_strategy": "max"},
        "2_Pooling": {"pooling_mode_mean_tokens": True},
    }
    (folder / "modules.json").write_text(json.dumps([{"idx": i, "path": path} for i, path in enumerate(modules)]))
    for path in list(modules)[1:]:
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(modules[path] | {"word_embedding_dimension": size}))
    full = Checkpoint.open(str(folder))
    cut = write_cut(Source(str(folder)), full, Selection([5], "top"), "top", str(tmp_path / "out"), trim_to=TEXTS)
    settings = {path: json.loads((tmp_path / "out" / path / "config.json").read_text()) for path in list(modules)[1:]}
    assert settings["1_SpladePooling"] == {"pooling_strategy": "max", "word_embedding_dimension": cut.vocabulary[1]}
    assert settings["2_Pooling"]["word_embedding_dimension"] == size
    (folder / "2_Pooling" / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="has a module with its own tokenizer, 2_Pooling/tokenizer.json"):
        write_cut(Source(str(folder)), full, Selection([5], "top"), "top", str(tmp_path / "other"), trim_to=TEXTS)
    assert not (tmp_path / "other").exists()


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
        assert ("Kept layers" in card) == bool(drop) and "The vocabulary has" in card


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_family_is_trimmed(tmp_path, model_type):
    """Also where the vocabulary is the second dimension (MobileBERT)."""
    causal = "ForCausalLM" if model_type in DECODERS else "ForMaskedLM"
    set_seed(0)
    try:
        model = getattr(transformers, f"AutoModel{causal}").from_config(tiny.config(model_type)).eval()
    except ValueError:
        pytest.skip("the library has no such class")
    folder, text = tmp_path / "model", ("w1 w2 w7",)
    tiny.save(folder, model_type)
    model.save_pretrained(folder)
    full = Checkpoint.open(str(folder))
    cut = write_cut(Source(str(folder)), full, Selection([]), "", str(tmp_path / "out"), trim_to=[text])
    assert cut.vocabulary[0] > cut.vocabulary[1]
    loaded, info = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["mismatched_keys"] and not info["missing_keys"]
    old, new = (AutoTokenizer.from_pretrained(path)(*text, return_tensors="pt") for path in (folder, tmp_path / "out"))
    kept = trim(folder / "tokenizer.json", [text]).kept
    with torch.no_grad():
        expected, found = model(**old).logits[..., kept], loaded.eval()(**new).logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_ids_that_change_are_replaced_everywhere(tmp_path):
    """Special tokens at the end, BERT's post-processor, padding and truncation in the file, lists of ids."""
    vocabulary = {f"w{i}": i for i in range(20)} | {"<pad>": 20, "[CLS]": 21, "[SEP]": 22, "[UNK]": 23}
    raw = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.BertProcessing(("[SEP]", 22), ("[CLS]", 21))
    raw.enable_padding(pad_id=20, pad_token="<pad>")
    raw.enable_truncation(6)
    words = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )
    folder, out = tmp_path / "model", tmp_path / "out"
    config = tiny.config("bert", vocab_size=24, pad_token_id=20, eos_token_id=[21, 22])
    set_seed(0)
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": [21, 22], "max_length": 21}')
    text = (" ".join(f"w{i}" for i in (1, 3, 5, 7, 9, 11, 13)),)
    write_cut(Source(str(folder)), Checkpoint.open(str(folder)), Selection([]), "", str(out), trim_to=[text])
    loaded, settings = AutoTokenizer.from_pretrained(out), transformers.AutoConfig.from_pretrained(out)
    assert len(loaded) == 11 == settings.vocab_size  # all seven words: the texts are not truncated
    assert (settings.pad_token_id, settings.eos_token_id) == (7, [8, 9]) and loaded.pad_token_id == 7
    tokens = loaded("w3 w9", padding="max_length", max_length=6)["input_ids"]
    assert loaded.convert_ids_to_tokens(tokens) == ["[CLS]", "w3", "w9", "[SEP]", "<pad>", "<pad>"]
    made = json.loads((out / "generation_config.json").read_text())
    assert made["eos_token_id"] == [8, 9] and made["max_length"] == 21
    processor = json.loads((out / "tokenizer.json").read_text())["post_processor"]
    assert processor["cls"] == ["[CLS]", 8] and processor["sep"] == ["[SEP]", 9]


def test_a_table_as_large_as_the_vocabulary_is_not_trimmed(tmp_path):
    folder, n = tmp_path / "model", len(tiny.VOCABULARY)
    tiny.save(folder)
    set_seed(0)
    config = tiny.config("bert", max_position_embeddings=n, num_labels=n)
    model = transformers.AutoModelForTokenClassification.from_config(config)
    model.save_pretrained(folder)
    full = Checkpoint.open(str(folder))
    write_cut(Source(str(folder)), full, Selection([]), "", str(tmp_path / "out"), trim_to=[("w1",)])
    loaded, info = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["mismatched_keys"] and loaded.classifier.weight.shape[0] == n
    assert loaded.bert.embeddings.position_embeddings.weight.shape[0] == n


def test_roberta_counts_positions_from_its_padding(tmp_path):
    folder, _ = checkpoint(tmp_path / "model", "WordPiece")
    config, trimmed = transformers.AutoConfig.from_pretrained(folder), trim(folder / "tokenizer.json", TEXTS)
    config.pad_token_id = trimmed.kept[-1]
    with pytest.raises(UserError, match="counts positions from its padding id"):
        trimmed.adapt(config)
