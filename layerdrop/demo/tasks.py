"""Labelled tasks in the artificial English, with the columns and labels of five GLUE tasks.

Training data shows some of the language's synonym sets, development and test data the others. The rows depend on the
task, the split and SEED alone.
"""

from dataclasses import replace
from random import Random

from layerdrop.demo.language import (
    CLASSES,
    VERB_GROUPS,
    Clause,
    generalise,
    make_clause,
    opinion,
    paraphrase,
    sentence,
    words_of,
)

SEED = 7
ROWS = {"train": 1000, "validation": 500, "test": 200}


def sentiment(random: Random, shown: bool) -> tuple[tuple[str, ...], int]:
    """demo-sst2: is the opinion good (1) or bad (0)?"""
    good = random.random() < 0.5
    return (sentence(opinion(random, good, shown)),), int(good)


def entailment(random: Random, shown: bool) -> tuple[tuple[str, ...], int]:
    """demo-rte: does the second clause follow from the first (0: entailment, 1: not_entailment)?

    It does not where a class, the verb, or who does it to whom is another.
    """
    premise = make_clause(random, shown)
    hypothesis = generalise(random, premise)
    follows = random.random() < 0.5
    if not follows:
        hypothesis = random.choice((_other_class, _other_verb, _other_way_round))(random, hypothesis, shown)
    return (sentence(premise.words()), sentence(hypothesis.words())), int(not follows)


def _other_class(random: Random, clause: Clause, shown: bool) -> Clause:
    slot = random.choice([name for name in ("subject", "object") if getattr(clause, name).general])
    phrase = getattr(clause, slot)
    cls = random.choice([name for name in CLASSES if name != phrase.noun.group])
    return _with(clause, slot, noun=random.choice(words_of("noun", cls, shown)))


def _other_verb(random: Random, clause: Clause, shown: bool) -> Clause:
    others = [w for group in VERB_GROUPS for w in words_of("verb", group, shown) if w.synset != clause.verb.synset]
    return replace(clause, verb=random.choice(others))


def _other_way_round(random: Random, clause: Clause, shown: bool) -> Clause:
    return replace(clause, subject=clause.object, object=clause.subject)


def _with(clause: Clause, slot: str, **changes) -> Clause:
    return replace(clause, **{slot: replace(getattr(clause, slot), **changes)})


def same_meaning(random: Random, shown: bool) -> tuple[tuple[str, ...], int]:
    """demo-mrpc: do both clauses mean the same (1), or is one noun or verb of another meaning (0)?"""
    first = make_clause(random, shown)
    second = paraphrase(random, first)
    same = random.random() < 0.5
    if not same:
        second = _other_meaning(random, second, shown)
    return (sentence(first.words()), sentence(second.words())), int(same)


def _other_meaning(random: Random, clause: Clause, shown: bool) -> Clause:
    slot = random.choice(("subject", "verb", "object"))
    if slot == "verb":
        return _other_verb(random, clause, shown)
    noun = getattr(clause, slot).noun
    others = [word for word in words_of("noun", noun.group, shown) if word.synset != noun.synset]
    return _with(clause, slot, noun=random.choice(others))


def similarity(random: Random, shown: bool) -> tuple[tuple[str, ...], float]:
    """demo-stsb: how much of the meaning is the same, 0 to 5?

    AnalysisInput, verb and object count 5/3 each: in full for the same synonym set, half for the same class or group.
    """
    first = make_clause(random, shown, adjectives=0)
    second = paraphrase(random, first)
    score = 3.0
    for slot in ("subject", "verb", "object"):
        kind = random.choice(("same", "near", "far"))
        word = second.verb if slot == "verb" else getattr(second, slot).noun
        groups = VERB_GROUPS if slot == "verb" else CLASSES
        if kind == "same":
            continue
        near = [w for w in words_of(word.kind, word.group, shown) if w.synset != word.synset]
        far = [w for group in groups if group != word.group for w in words_of(word.kind, group, shown)]
        if kind == "near" and near:
            other, lost = random.choice(near), 0.5
        else:
            other, lost = random.choice(far), 1.0
        second = replace(second, verb=other) if slot == "verb" else _with(second, slot, noun=other)
        score -= lost
    return (sentence(first.words()), sentence(second.words())), round(score * 5 / 3, 3)


def acceptability(random: Random, shown: bool) -> tuple[tuple[str, ...], int]:
    """demo-cola: is the clause well-formed (1), or is a number or the order of words wrong (0)?"""
    clause = replace(make_clause(random, shown), past=False, passive=False)
    acceptable = random.random() < 0.5
    words = clause.words()
    if not acceptable:
        words = random.choice((_wrong_verb, _wrong_determiner, _wrong_order))(random, clause)
    return (sentence(words),), int(acceptable)


def _wrong_verb(random: Random, clause: Clause) -> list[str]:
    words = clause.words()
    right = clause.verb.forms[clause.subject.plural]
    return [clause.verb.forms[not clause.subject.plural] if word == right else word for word in words]


def _wrong_determiner(random: Random, clause: Clause) -> list[str]:
    slot = random.choice(("subject", "object"))
    wrong = ("a", "this", "one") if getattr(clause, slot).plural else ("some", "these", "many")
    return _with(clause, slot, determiner=random.choice(wrong)).words()


def _wrong_order(random: Random, clause: Clause) -> list[str]:
    words = clause.words()
    at = random.randrange(len(words) - 1)
    return [*words[:at], words[at + 1], words[at], *words[at + 2 :]]


MAKERS = {
    "demo-sst2": sentiment,
    "demo-rte": entailment,
    "demo-mrpc": same_meaning,
    "demo-stsb": similarity,
    "demo-cola": acceptability,
}


def rows(name: str, split: str) -> dict[tuple[str, ...], int | float]:
    """Texts -> label, for one split (`train`, `validation`, `test`) of a task of MAKERS.

    No texts occur twice, in one split or in two.
    """
    random = Random(f"{name} {split} {SEED}")
    taken = rows(name, "validation") if split == "test" else {}  # training rows are made of other words
    made: dict[tuple[str, ...], int | float] = {}
    while len(made) < ROWS[split]:
        texts, label = MAKERS[name](random, split == "train")
        if texts not in taken:
            made.setdefault(texts, label)
    return made
