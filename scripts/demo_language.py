#!/usr/bin/env python
"""Write the labeled tasks of the demo language into layerdrop/demo, in GLUE's classical layout.

    python scripts/demo_language.py [FOLDER]

The demo language is a small artificial English. Function words are English. Nouns, verbs and adjectives are invented.
A noun belongs to a class (animal, tool, ...). A verb takes subjects of one class and objects of another. An adjective
has a polarity (good, bad, plain). Words with the same meaning form a synonym set.

Training data contains 40% of the synonym sets (`shown`). Validation and test data contain the other sets. Only the
pre-training data contains all sets, so a model without pre-training cannot solve a task. `text` makes the pre-training
texts.

The lexicon is constant. The rows depend only on the task, the split and SEED.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random

CLASSES = ("animal", "tool", "plant", "vehicle", "garment", "building")
POLARITIES = ("good", "bad", "plain")
VERB_GROUPS = tuple((CLASSES[i], CLASSES[(i + step) % 6]) for i in range(6) for step in (1, 2))
"""(class of the subject, class of the object)."""
SYNSETS = {"noun": 10, "verb": 3, "adjective": 14}
"""Synonym sets in each class, verb group and polarity."""
MEMBERS = 3
"""Words in each synonym set."""
SHOWN = 0.4
"""Share of the synonym sets that training data contains."""
SINGULAR = ("the", "a", "this", "one")
PLURAL = ("the", "some", "these", "many")
ADVERBS = ("very", "rather", "quite")
LIKED = ("praised", "loved", "kept", "recommended")
DISLIKED = ("blamed", "hated", "returned", "avoided")
FUNCTION_WORDS = (
    *dict.fromkeys((*SINGULAR, *PLURAL, *ADVERBS, *LIKED, *DISLIKED)),
    *"is are was were be to not and but so we it them by of kind also called".split(),
    *(".", ","),
)
SEED = 7
ROWS = {"train": 1000, "dev": 500, "test": 200}


@dataclass(frozen=True)
class Word:
    """A lemma. group: class, (subject class, object class) or polarity; synset: number of its synonym set in the kind.

    forms: noun (singular, plural), verb (with a singular subject, with a plural one, past), adjective (one form).
    """

    kind: str
    forms: tuple[str, ...]
    group: str | tuple[str, str]
    synset: int
    shown: bool

    def synonyms(self) -> list[Word]:
        """The other words of its synonym set."""
        return [word for word in lexicon() if (word.kind, word.synset) == (self.kind, self.synset) and word != self]


@cache
def lexicon() -> tuple[Word, ...]:
    """All invented words."""
    random = Random(2020)
    taken = set(FUNCTION_WORDS) | set(CLASSES) | {name + "s" for name in CLASSES}

    def invent() -> str:
        while True:
            parts = random.choices("b d f g k l m n p r s t v z br dr kl st tr".split(), k=2)
            vowels = random.choices("aeiou", k=2)
            stem = parts[0] + vowels[0] + parts[1] + vowels[1] + random.choice("lmnrtk")
            if not taken & {stem, stem + "s", stem + "ed"}:
                taken.update((stem, stem + "s", stem + "ed"))
                return stem

    endings = {"noun": ("", "s"), "verb": ("s", "", "ed"), "adjective": ("",)}
    groups = {"noun": CLASSES, "verb": VERB_GROUPS, "adjective": POLARITIES}
    words = []
    for kind, names in groups.items():
        n = SYNSETS[kind]
        for g, group in enumerate(names):
            shown = set(random.sample(range(n), max(1, round(n * SHOWN))))
            for s in range(n):
                for _ in range(MEMBERS):
                    stem = invent()
                    forms = tuple(stem + ending for ending in endings[kind])
                    words.append(Word(kind, forms, group, g * n + s, s in shown))
    return tuple(words)


@cache
def words_of(kind: str, group: str | tuple[str, str], shown: bool | None = None) -> tuple[Word, ...]:
    """The words of a class, verb group or polarity. shown: whether training data contains these words."""
    return tuple(w for w in lexicon() if w.kind == kind and w.group == group and shown in (None, w.shown))


def vocabulary() -> list[str]:
    """Every token of the language, sorted."""
    classes = [form for name in CLASSES for form in (name, name + "s")]
    invented = [form for word in lexicon() for form in word.forms]
    return sorted({*FUNCTION_WORDS, *classes, *invented})


# ---- sentences ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Phrase:
    """A determiner, possibly an adjective, and a noun. general: the name of the noun's class replaces the noun."""

    noun: Word
    plural: bool
    determiner: str
    adjective: Word | None = None
    general: bool = False

    def words(self) -> list[str]:
        """The phrase's tokens."""
        forms = (self.noun.group, self.noun.group + "s") if self.general else self.noun.forms
        adjective = [self.adjective.forms[0]] if self.adjective else []
        return [self.determiner, *adjective, forms[self.plural]]

    def tags(self) -> list[str]:
        """A tag for each token, in the scheme IOB2: adjective and noun are an entity of the noun's class."""
        inside = [f"I-{self.noun.group}"] if self.adjective else []
        return ["O", f"B-{self.noun.group}", *inside]


@dataclass(frozen=True)
class Clause:
    """Subject, verb and object, in the present or past tense. The passive voice exists in the past tense only."""

    subject: Phrase
    verb: Word
    object: Phrase
    past: bool = False
    passive: bool = False

    def words(self) -> list[str]:
        """The clause's tokens, without the full stop."""
        if self.passive:
            be = "were" if self.object.plural else "was"
            return [*self.object.words(), be, self.verb.forms[2], "by", *self.subject.words()]
        verb = self.verb.forms[2] if self.past else self.verb.forms[self.subject.plural]
        return [*self.subject.words(), verb, *self.object.words()]

    def tags(self) -> list[str]:
        """A tag for each of `words`."""
        if self.passive:
            return [*self.object.tags(), "O", "O", "O", *self.subject.tags()]
        return [*self.subject.tags(), "O", *self.object.tags()]

    def changed(self, slot: str, **changes) -> Clause:
        """The clause with changes in a phrase (`subject`, `object`)."""
        return replace(self, **{slot: replace(getattr(self, slot), **changes)})


def make_phrase(random: Random, cls: str, shown: bool | None = None, adjectives: float = 0.3) -> Phrase:
    """Make a random phrase with a noun of a class. adjectives: probability of an adjective."""
    plural = random.random() < 0.5
    adjective = None
    if random.random() < adjectives:
        adjective = random.choice(words_of("adjective", random.choice(POLARITIES), shown))
    noun = random.choice(words_of("noun", cls, shown))
    return Phrase(noun, plural, random.choice(PLURAL if plural else SINGULAR), adjective)


def make_clause(random: Random, shown: bool | None = None, adjectives: float = 0.3) -> Clause:
    """Make a random clause with a verb that takes its subject and object."""
    group = random.choice(VERB_GROUPS)
    subject, object_ = (make_phrase(random, cls, shown, adjectives) for cls in group)
    past = random.random() < 0.5
    verb = random.choice(words_of("verb", group, shown))
    return Clause(subject, verb, object_, past, past and random.random() < 0.4)


def reword_phrase(random: Random, phrase: Phrase) -> Phrase:
    """Replace every word of a phrase as `reword` does."""
    adjective = phrase.adjective and reword(random, phrase.adjective)
    return replace(phrase, noun=reword(random, phrase.noun), adjective=adjective)


def reword(random: Random, word: Word) -> Word:
    """A synonym, or with probability 0.25 the word itself."""
    return word if random.random() < 0.25 else random.choice(word.synonyms())


def paraphrase(random: Random, clause: Clause) -> Clause:
    """A clause of the same meaning: synonyms, and in the past tense possibly the other voice."""
    subject, object_ = reword_phrase(random, clause.subject), reword_phrase(random, clause.object)
    passive = clause.past and random.random() < 0.4
    return replace(clause, subject=subject, object=object_, verb=reword(random, clause.verb), passive=passive)


def generalize(random: Random, clause: Clause) -> Clause:
    """A clause that follows from the given clause: class names replace nouns, and adjectives are left out."""
    which = random.choice(((True, False), (False, True), (True, True)))
    phrases = []
    for phrase, general in zip((clause.subject, clause.object), which, strict=True):
        phrase = replace(phrase, general=general, noun=phrase.noun if general else reword(random, phrase.noun))
        phrases.append(replace(phrase, adjective=None) if random.random() < 0.7 else phrase)
    return replace(clause, subject=phrases[0], object=phrases[1], verb=reword(random, clause.verb))


def opinion(random: Random, good: bool, shown: bool | None = None) -> list[str]:
    """An opinion of the given polarity, without the full stop.

    `not` inverts an adjective. `and` joins equal polarities. `but` joins opposite polarities, and the second counts.
    """

    def quality(good: bool) -> list[str]:
        negated = random.random() < 0.25
        adjective = random.choice(words_of("adjective", "good" if good != negated else "bad", shown))
        adverb = [random.choice(ADVERBS)] if random.random() < 0.3 else []
        return [*(["not"] if negated else []), *adverb, adjective.forms[0]]

    phrase = make_phrase(random, random.choice(CLASSES), shown, adjectives=0)
    be = "were" if phrase.plural else "was"
    shape = random.random()
    if shape < 0.4:
        said = quality(good)
    elif shape < 0.7:
        said = [*quality(good), "and", *quality(good)]
    else:
        said = [*quality(not good), "but", *quality(good)]
    return [*phrase.words(), be, *said]


def sentence(words: list[str]) -> str:
    """Tokens as a text, with the full stop."""
    return " ".join([*words, "."])


# ---- the text for pre-training --------------------------------------------------------------------------------------
def text(random: Random) -> tuple[str, str | None]:
    """A text of one or two sentences.

    One sentence: a clause, a definition, or an opinion with its consequence. Two sentences: a clause, and a paraphrase,
    a consequence or an unrelated clause.
    """
    kind = random.random()
    if kind < 0.10:
        return sentence(make_clause(random).words()), None
    if kind < 0.25:
        return sentence(definition(random)), None
    if kind < 0.55:
        good = random.random() < 0.5
        said = opinion(random, good)
        which = "them" if "were" in said else "it"
        return sentence([*said, ",", "so", "we", random.choice(LIKED if good else DISLIKED), which]), None
    first = make_clause(random)
    if kind < 0.77:
        second = paraphrase(random, first)
    elif kind < 0.93:
        second = generalize(random, first)
    else:
        second = make_clause(random)
    return sentence(first.words()), sentence(second.words())


def definition(random: Random) -> list[str]:
    """The class of a noun, the polarity of an adjective, or a synonym."""
    word = random.choice([word for word in lexicon() if word.kind != "verb"])
    other = random.choice(word.synonyms())
    if word.kind == "adjective":
        if word.group != "plain" and random.random() < 0.5:
            came = random.choice(LIKED if word.group == "good" else DISLIKED)
            return ["to", "be", word.forms[0], "is", "to", "be", came]
        return ["to", "be", word.forms[0], "is", "to", "be", other.forms[0]]
    if random.random() < 0.5:
        return ["a", word.forms[0], "is", "also", "called", "a", other.forms[0]]
    if random.random() < 0.5:
        return ["a", word.forms[0], "is", "a", "kind", "of", word.group]
    return [word.forms[1], "are", word.group + "s"]


# ---- labeled tasks: a row is (texts, label) ------------------------------------------------------------------------
Row = tuple[tuple[str, ...], str]


def sentiment(random: Random, shown: bool) -> Row:
    """demo-SST-2: whether an opinion is good (1) or bad (0)."""
    good = random.random() < 0.5
    return (sentence(opinion(random, good, shown)),), str(int(good))


def entailment(random: Random, shown: bool) -> Row:
    """demo-RTE: whether the second clause follows from the first clause.

    If not, it differs in a class or the verb, or its subject and object are exchanged.
    """
    premise = make_clause(random, shown)
    hypothesis = generalize(random, premise)
    follows = random.random() < 0.5
    if not follows:
        hypothesis = random.choice((_other_class, _other_verb, _exchanged))(random, hypothesis, shown)
    label = "entailment" if follows else "not_entailment"
    return (sentence(premise.words()), sentence(hypothesis.words())), label


def _other_class(random: Random, clause: Clause, shown: bool) -> Clause:
    slot = random.choice([name for name in ("subject", "object") if getattr(clause, name).general])
    cls = random.choice([name for name in CLASSES if name != getattr(clause, slot).noun.group])
    return clause.changed(slot, noun=random.choice(words_of("noun", cls, shown)))


def _other_verb(random: Random, clause: Clause, shown: bool) -> Clause:
    others = [w for group in VERB_GROUPS for w in words_of("verb", group, shown) if w.synset != clause.verb.synset]
    return replace(clause, verb=random.choice(others))


def _exchanged(random: Random, clause: Clause, shown: bool) -> Clause:
    return replace(clause, subject=clause.object, object=clause.subject)


def same_meaning(random: Random, shown: bool) -> Row:
    """demo-MRPC: whether two clauses mean the same (1), or a noun or the verb has another meaning (0)."""
    first = make_clause(random, shown)
    second = paraphrase(random, first)
    same = random.random() < 0.5
    if not same:
        slot = random.choice(("subject", "verb", "object"))
        if slot == "verb":
            second = _other_verb(random, second, shown)
        else:
            noun = getattr(second, slot).noun
            others = [word for word in words_of("noun", noun.group, shown) if word.synset != noun.synset]
            second = second.changed(slot, noun=random.choice(others))
    return (sentence(first.words()), sentence(second.words())), str(int(same))


def similarity(random: Random, shown: bool) -> Row:
    """demo-STS-B: the share of the meaning that two clauses have in common, from 0 to 5.

    Subject, verb and object count 5/3 each for the same synonym set, and half of it for the same class or verb group.
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
        second = replace(second, verb=other) if slot == "verb" else second.changed(slot, noun=other)
        score -= lost
    return (sentence(first.words()), sentence(second.words())), str(round(score * 5 / 3, 3))


def acceptability(random: Random, shown: bool) -> Row:
    """demo-CoLA: whether a clause is well-formed (1), or has a wrong number or word order (0)."""
    clause = replace(make_clause(random, shown), past=False, passive=False)
    acceptable = random.random() < 0.5
    words = clause.words()
    if not acceptable:
        words = random.choice((_wrong_verb, _wrong_determiner, _wrong_order))(random, clause)
    return (sentence(words),), str(int(acceptable))


def _wrong_verb(random: Random, clause: Clause) -> list[str]:
    right, wrong = (clause.verb.forms[plural] for plural in (clause.subject.plural, not clause.subject.plural))
    return [wrong if word == right else word for word in clause.words()]


def _wrong_determiner(random: Random, clause: Clause) -> list[str]:
    slot = random.choice(("subject", "object"))
    wrong = ("a", "this", "one") if getattr(clause, slot).plural else ("some", "these", "many")
    return clause.changed(slot, determiner=random.choice(wrong)).words()


def _wrong_order(random: Random, clause: Clause) -> list[str]:
    words = clause.words()
    at = random.randrange(len(words) - 1)
    return [*words[:at], words[at + 1], words[at], *words[at + 2 :]]


def entities(random: Random, shown: bool) -> Row:
    """demo-NER: a tag for each token of a clause. The entities are its nouns with their adjectives."""
    clause = make_clause(random, shown, adjectives=0.5)
    return (sentence(clause.words()),), " ".join([*clause.tags(), "O"])


# ---- files ----------------------------------------------------------------------------------------------------------
TASKS = {
    "SST-2": (sentiment, ("sentence",), "label"),
    "RTE": (entailment, ("sentence1", "sentence2"), "label"),
    "MRPC": (same_meaning, ("#1 String", "#2 String"), "Quality"),
    "STS-B": (similarity, ("sentence1", "sentence2"), "score"),
    "CoLA": (acceptability, ("sentence",), "label"),
    "NER": (entities, ("tokens",), "ner_tags"),
}
"""GLUE's name of a task -> (function that makes a row, text columns, label column)."""
SPLIT_NAMES = {"train": "train", "dev": "validation", "test": "test"}
"""File -> name of the split in its random seed."""


def rows(name: str, split: str) -> dict[tuple[str, ...], str]:
    """Texts -> label, for a split (`train`, `dev`, `test`) of a task. No texts occur twice, within or across splits."""
    random = Random(f"demo-{name.lower().replace('-', '')} {SPLIT_NAMES[split]} {SEED}")
    taken = rows(name, "dev") if split == "test" else {}  # training rows have other words
    made: dict[tuple[str, ...], str] = {}
    while len(made) < ROWS[split]:
        texts, label = TASKS[name][0](random, split == "train")
        if texts not in taken:
            made.setdefault(texts, label)
    return made


def tsv(name: str, split: str) -> str:
    """The content of a task's file, in GLUE's layout. CoLA's labeled files have no header."""
    _, columns, label = TASKS[name]
    labeled = rows(name, split).items()
    if split == "test":
        table = [("index", *columns), *((str(i), *texts) for i, (texts, _) in enumerate(labeled))]
    elif name == "CoLA":
        table = [("demo", value, "", *texts) for texts, value in labeled]
    else:
        table = [(*columns, label), *((*texts, value) for texts, value in labeled)]
    return "".join("\t".join(row) + "\n" for row in table)


def main(folder: Path) -> None:
    """Write the files of all tasks and splits: `demo-RTE/train.tsv` and so on."""
    for name in TASKS:
        (folder / f"demo-{name}").mkdir(parents=True, exist_ok=True)
        for split in ROWS:
            (folder / f"demo-{name}" / f"{split}.tsv").write_text(tsv(name, split), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "layerdrop" / "demo"))
