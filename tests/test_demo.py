"""The artificial language and its tasks. Labels are checked by a reader that knows the lexicon, not the generators."""

import hashlib
from random import Random

import pytest

from layerdrop.data import read_splits
from layerdrop.demo import language
from layerdrop.demo.language import CLASSES, DISLIKED, LIKED, PLURAL, SINGULAR, lexicon
from layerdrop.demo.tasks import MAKERS, ROWS
from layerdrop.tasks import DEMO_TASKS, get_task

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


def read_demo_split(name: str, split: str):
    return read_splits(DEMO_TASKS[name], [split])[1][split]


READERS = {
    "demo-sst2": lambda text: int(is_good(text)),
    "demo-rte": lambda premise, hypothesis: int(not follows(premise, hypothesis)),
    "demo-mrpc": lambda one, other: int(same_meaning(one, other)),
    "demo-stsb": similarity,
    "demo-cola": lambda text: int(read_clause(text) is not None),
}


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", list(MAKERS))
def test_labels_are_what_a_reader_says(name, split):
    examples = read_demo_split(name, split)
    assert len(examples) == ROWS[split]
    for texts, label in zip(zip(*examples.texts, strict=True), examples.labels, strict=True):
        assert READERS[name](*texts) == pytest.approx(label, abs=1e-3), texts
    if name != "demo-stsb":
        assert 0.4 < examples.labels.mean() < 0.6


def test_the_reader_can_tell():
    """It does not say yes to everything: a clause read backwards, or with another verb form, is not well-formed."""
    clauses = [language.make_clause(Random(i)) for i in range(200)]
    assert all(read_clause(language.sentence(clause.words())) for clause in clauses)
    assert not any(read_clause(language.sentence(clause.words()[::-1])) for clause in clauses)


@pytest.mark.parametrize("name", list(MAKERS))
def test_train_and_development_share_no_row_and_no_word_of_meaning(name):
    train, dev, test = (read_demo_split(name, split) for split in ("train", "validation", "test"))
    rows = [set(zip(*examples.texts, strict=True)) for examples in (train, dev, test)]
    assert not rows[0] & (rows[1] | rows[2]) and not rows[1] & rows[2] and test.labels is None
    shown, hidden = (
        {t for column in e.texts for text in column for t in text.split() if t in FORMS} for e in (train, dev)
    )
    assert not shown & hidden
    assert {FORMS[token][0].shown for token in shown} == {True} and {FORMS[token][0].shown for token in hidden} == {
        False
    }


def test_tasks_are_the_same_everywhere():
    digest = hashlib.sha256(
        "".join(read_demo_split(n, s).fingerprint() for n in MAKERS for s in ("train", "validation")).encode()
    )
    assert digest.hexdigest()[:16] == "36b7850780cd2d59"


def test_text_for_pretraining():
    texts = [language.text(Random(i)) for i in range(3000)]
    assert texts == [language.text(Random(i)) for i in range(3000)] and len(set(texts)) > 2900
    known = set(language.vocabulary())
    parts = [part for text in texts for part in text if part]
    assert all(token in known for part in parts for token in part.split())
    for part in parts:  # what came of an opinion agrees with it
        verdict = set(part.split()) & {*LIKED, *DISLIKED}
        if verdict:
            assert is_good(part.split(" ,")[0] + " .") == (verdict <= set(LIKED))


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
    assert list(DEMO_TASKS) == ["demo-sst2", "demo-rte", "demo-mrpc", "demo-stsb", "demo-cola"] and set(MAKERS) == set(
        DEMO_TASKS
    )
    assert get_task("demo-SST-2").name == "demo-sst2" and get_task("demo_rte").labels == get_task("rte").labels
