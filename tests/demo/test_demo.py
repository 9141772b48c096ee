"""The demo language and its tasks. A parser that knows the lexicon, not the generator, checks the labels."""

import hashlib
import json
from pathlib import Path
from random import Random

import pytest
from transformers import AutoConfig

import run_glue
from layerdrop.checkpoints import Checkpoint
from layerdrop.cli.command import run_command
from layerdrop.data.read import DEMO_FOLDER as FOLDER
from layerdrop.data.read import read_splits
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import DEMO_TASKS, get_task
from layerdrop.runs.record import read_record
from scripts import demo_language as language
from scripts.demo_language import CLASSES, DISLIKED, LIKED, PLURAL, SINGULAR, lexicon

CHECKPOINT = FOLDER / "checkpoint"

# ---- a reader of sentences: from tokens to meanings, by the lexicon
FORMS = {form: (word, number) for word in lexicon() for number, form in enumerate(word.forms)}
GENERAL = {form: (name, number) for name in CLASSES for number, form in enumerate((name, name + "s"))}


def read_phrase(tokens: list[str]) -> dict | None:
    """{"is": synonym set or class, "plural", "words"} of the phrase at the start of `tokens`, taken off; else None."""
    if not tokens or tokens[0] not in SINGULAR + PLURAL:
        return None
    determiner = tokens.pop(0)
    if tokens and tokens[0] in FORMS and FORMS[tokens[0]][0].kind == "adjective":
        tokens.pop(0)
    if not tokens:
        return None
    head = tokens.pop(0)
    if head in GENERAL:
        name, number = GENERAL[head]
        found = {"class": name, "synset": None, "plural": bool(number)}
    elif head in FORMS and FORMS[head][0].kind == "noun":
        word, number = FORMS[head]
        found = {"class": word.group, "synset": word.synset, "plural": bool(number)}
    else:
        return None
    return found if determiner in (PLURAL if found["plural"] else SINGULAR) else None


def read_clause(text: str) -> dict | None:
    """{"subject", "verb", "object"} of a well-formed clause; None for anything else."""
    tokens = text.split()
    if tokens.pop() != ".":
        return None
    first = read_phrase(tokens)
    if first is None or not tokens:
        return None
    passive = tokens[0] in ("was", "were")
    if passive and (tokens.pop(0) == "were") != first["plural"]:
        return None
    if not tokens or tokens[0] not in FORMS or FORMS[tokens[0]][0].kind != "verb":
        return None
    verb, form = FORMS[tokens.pop(0)]
    if passive and (form != 2 or not tokens or tokens.pop(0) != "by"):
        return None
    if form != 2 and bool(form) != first["plural"]:
        return None
    second = read_phrase(tokens)
    if second is None or tokens:
        return None
    subject, object_ = (second, first) if passive else (first, second)
    return {"subject": subject, "verb": verb, "object": object_}


def is_good(text: str) -> bool:
    """What an opinion comes to: the last quality counts, turned round by `not`."""
    tokens = text.rstrip(" .").split()
    last = max((i for i, token in enumerate(tokens) if token in ("and", "but", "was", "were")))
    quality = tokens[last + 1 :]
    good = FORMS[quality[-1]][0].group == "good"
    return good != ("not" in quality)


def follows(premise: str, hypothesis: str) -> bool:
    a, b = read_clause(premise), read_clause(hypothesis)
    same = all(
        a[slot]["class"] == b[slot]["class"] and b[slot]["synset"] in (None, a[slot]["synset"])
        for slot in ("subject", "object")
    )
    return same and a["verb"].synset == b["verb"].synset


def same_meaning(one: str, other: str) -> bool:
    a, b = read_clause(one), read_clause(other)
    return (
        all(a[slot]["synset"] == b[slot]["synset"] for slot in ("subject", "object"))
        and a["verb"].synset == b["verb"].synset
    )


def similarity(one: str, other: str) -> float:
    a, b = read_clause(one), read_clause(other)
    points = [(a[s]["synset"] == b[s]["synset"]) + (a[s]["class"] == b[s]["class"]) for s in ("subject", "object")]
    points.append((a["verb"].synset == b["verb"].synset) + (a["verb"].group == b["verb"].group))
    return sum(points) / 6 * 5


def words_in(text: str | list[str]) -> list[str]:
    return text.split() if isinstance(text, str) else text


def read_demo_split(name: str, split: str):
    return read_splits(DataSpec(name, "demo"), [split]).examples[split]


def tags(words: list[str]) -> list[str]:
    """The tag of each word by the lexicon: nouns, and adjectives before nouns."""
    kinds = [FORMS[word][0].kind if word in FORMS else "" for word in words]
    said = []
    for i in range(len(words)):
        first = kinds[i] == "adjective" or kinds[i - 1] != "adjective"
        noun = FORMS[words[i + (kinds[i] == "adjective")]][0] if kinds[i] in ("noun", "adjective") else None
        said.append(f"{'B' if first else 'I'}-{noun.group}" if noun else "O")
    return said


READERS = {
    "demo-ner": lambda words: [DEMO_TASKS["demo-ner"].labels.index(tag) for tag in tags(words)],
    "demo-sst2": lambda text: int(is_good(text)),
    "demo-rte": lambda premise, hypothesis: int(not follows(premise, hypothesis)),
    "demo-mrpc": lambda one, other: int(same_meaning(one, other)),
    "demo-stsb": similarity,
    "demo-cola": lambda text: int(read_clause(text) is not None),
}


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", list(DEMO_TASKS))
def test_labels_are_what_a_reader_says(name, split):
    examples = read_demo_split(name, split)
    assert len(examples) == {"train": 1000, "validation": 500}[split]
    for texts, label in zip(zip(*examples.texts, strict=True), examples.labels, strict=True):
        assert READERS[name](*texts) == pytest.approx(label, abs=1e-3), texts
    if name not in ("demo-stsb", "demo-ner"):
        assert 0.4 < examples.labels.mean() < 0.6


def test_the_reader_can_tell():
    """It does not say yes to everything: a clause read backwards, or with another verb form, is not well-formed."""
    clauses = [language.make_clause(Random(i)) for i in range(200)]
    assert all(read_clause(language.sentence(clause.words())) for clause in clauses)
    assert not any(read_clause(language.sentence(clause.words()[::-1])) for clause in clauses)


@pytest.mark.parametrize("name", list(DEMO_TASKS))
def test_train_and_validation_share_no_row_and_no_word_of_meaning(name):
    train, dev, test = (read_demo_split(name, split) for split in ("train", "validation", "test"))
    rows = [{tuple(map(str, texts)) for texts in zip(*examples.texts, strict=True)} for examples in (train, dev, test)]
    assert not rows[0] & (rows[1] | rows[2]) and not rows[1] & rows[2] and test.labels is None
    shown, hidden = (
        {t for column in e.texts for text in column for t in words_in(text) if t in FORMS} for e in (train, dev)
    )
    assert not shown & hidden
    assert {FORMS[token][0].shown for token in shown} == {True} and {FORMS[token][0].shown for token in hidden} == {
        False
    }


def test_tasks_are_the_same_everywhere():
    digest = hashlib.sha256(
        "".join(read_demo_split(n, s).fingerprint() for n in DEMO_TASKS for s in ("train", "validation")).encode()
    )
    assert digest.hexdigest()[:16] == "afc1ed83a0d1e55b"


def test_text_for_pretraining():
    texts = [language.text(Random(i)) for i in range(3000)]
    assert texts == [language.text(Random(i)) for i in range(3000)] and len(set(texts)) > 2900
    known = set(language.vocabulary())
    parts = [part for text in texts for part in text if part]
    assert all(token in known for part in parts for token in part.split())
    for part in parts:  # what came of an opinion agrees with it
        verdict = set(part.split()) & {*LIKED, *DISLIKED}
        if verdict:
            said = f"it was {part.split()[2]}" if part.startswith("to be") else part.split(" ,")[0]
            assert is_good(said + " .") == (verdict <= set(LIKED))


def test_lexicon():
    words = lexicon()
    forms = [form for word in words for form in word.forms]
    assert len(forms) == len(set(forms)) and not set(forms) & set(language.FUNCTION_WORDS)
    for kind, groups in (("noun", 6), ("verb", 12), ("adjective", 3)):
        members = [word for word in words if word.kind == kind]
        assert len(members) == groups * language.SYNSETS[kind] * language.MEMBERS
        assert len({word.group for word in members if word.shown}) == groups
        assert all(len(word.synonyms()) == 2 and {s.shown for s in word.synonyms()} == {word.shown} for word in members)


def test_names():
    assert list(DEMO_TASKS) == ["demo-sst2", "demo-rte", "demo-mrpc", "demo-stsb", "demo-cola", "demo-ner"]
    assert get_task("demo-SST-2").name == "demo-sst2" and get_task("demo_rte").labels == get_task("rte").labels


def test_the_generator_writes_the_files_of_the_package(tmp_path):
    language.main(tmp_path)
    written, shipped = (
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("*/*.tsv")}
        for folder in (tmp_path, FOLDER)
    )
    assert len(written) == 18 and written == shipped


# ---- the shipped encoder
def test_shipped_checkpoint_is_the_recorded_one():
    record = json.loads((CHECKPOINT / "pretraining.json").read_text())
    weights = CHECKPOINT / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == record["sha256"]
    assert weights.stat().st_size < 6_000_000
    config = AutoConfig.from_pretrained(CHECKPOINT)
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("bert", 12, 128)
    losses = list(record["loss"].values())
    assert len(losses) == 40 and losses[-1] < losses[0] / 2


def test_its_tokenizer_knows_the_whole_language():
    tokenizer = Checkpoint.open("demo").tokenizer
    assert tokenizer.unk_token_id not in tokenizer(" ".join(language.vocabulary()))["input_ids"]
    encoded = tokenizer("the animals .", "some tools .")
    assert encoded["token_type_ids"] == [0, 0, 0, 0, 0, 1, 1, 1, 1] and tokenizer.model_max_length == 64


def test_demo_yaml(tmp_path, monkeypatch):
    """What pre-training learnt makes words solvable that no labelled example shows."""
    monkeypatch.chdir(tmp_path)
    quick = ["--num_train_epochs", "3", "--eval_strategy", "no"]
    demo_yaml = Path(run_glue.__file__).parent / "configs" / "demo.yaml"
    assert run_command("run", [str(demo_yaml), "--drop_strategy", "top", "--drop_k", "6", "--use_cpu", *quick]) == 0
    record = read_record("runs/demo_demo-rte_top_k6_seed42")
    assert record.kept == [0, 1, 2, 3, 4, 5] and record.metrics["accuracy"] > 0.75
