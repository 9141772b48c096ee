"""A small artificial English: its words, its sentences, and the text that the miniature encoder is pre-trained on.

Function words are English; nouns, verbs and adjectives are invented. A noun belongs to a class (animal, tool, ...), a
verb to a group that takes subjects of one class and objects of another, an adjective to a polarity (good, bad, plain).
Within these, words of the same meaning form a synonym set. `shown` says whether a synonym set may occur in labelled
training data: the labelled development data is made of the others, so that only what pre-training learnt about them
makes it solvable.

The lexicon is always the same; sentences depend on the random generator that is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from random import Random

CLASSES = ("animal", "tool", "plant", "vehicle", "garment", "building")
POLARITIES = ("good", "bad", "plain")
VERB_GROUPS = tuple((CLASSES[i], CLASSES[(i + step) % 6]) for i in range(6) for step in (1, 2))
"""(class of the subject, class of the object)."""
SYNSETS = {"noun": 10, "verb": 3, "adjective": 14}
"""Synonym sets in each class, group and polarity."""
MEMBERS = 3
"""Words in each synonym set."""
SHOWN = 0.4
"""Share of the synonym sets that labelled training data may show."""
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
    """The words of a class, group or polarity; only those that training data may (or may not) show."""
    return tuple(w for w in lexicon() if w.kind == kind and w.group == group and shown in (None, w.shown))


def vocabulary() -> list[str]:
    """Every token of the language, sorted."""
    classes = [form for name in CLASSES for form in (name, name + "s")]
    invented = [form for word in lexicon() for form in word.forms]
    return sorted({*FUNCTION_WORDS, *classes, *invented})


# ---- sentences ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Phrase:
    """Determiner, perhaps an adjective, and a noun (or, with `general`, the name of its class)."""

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


@dataclass(frozen=True)
class Clause:
    """AnalysisInput, verb, object; in the past or the present, and in the past perhaps passive."""

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


def make_phrase(random: Random, cls: str, shown: bool | None = None, adjectives: float = 0.3) -> Phrase:
    """A random phrase with a noun of that class."""
    plural = random.random() < 0.5
    adjective = None
    if random.random() < adjectives:
        adjective = random.choice(words_of("adjective", random.choice(POLARITIES), shown))
    noun = random.choice(words_of("noun", cls, shown))
    return Phrase(noun, plural, random.choice(PLURAL if plural else SINGULAR), adjective)


def make_clause(random: Random, shown: bool | None = None, adjectives: float = 0.3) -> Clause:
    """A random clause whose verb takes its subject and object."""
    group = random.choice(VERB_GROUPS)
    subject, object_ = (make_phrase(random, cls, shown, adjectives) for cls in group)
    past = random.random() < 0.5
    verb = random.choice(words_of("verb", group, shown))
    return Clause(subject, verb, object_, past, past and random.random() < 0.4)


def reword_phrase(random: Random, phrase: Phrase) -> Phrase:
    """The phrase with every word exchanged for a synonym, or kept."""
    adjective = phrase.adjective and reword(random, phrase.adjective)
    return replace(phrase, noun=reword(random, phrase.noun), adjective=adjective)


def reword(random: Random, word: Word) -> Word:
    """A synonym, or (in a quarter of the cases) the word itself."""
    return word if random.random() < 0.25 else random.choice(word.synonyms())


def paraphrase(random: Random, clause: Clause) -> Clause:
    """The same said with synonyms, in the past perhaps in the other voice."""
    subject, object_ = reword_phrase(random, clause.subject), reword_phrase(random, clause.object)
    passive = clause.past and random.random() < 0.4
    return replace(clause, subject=subject, object=object_, verb=reword(random, clause.verb), passive=passive)


def generalise(random: Random, clause: Clause) -> Clause:
    """What follows from the clause: one or both nouns become the name of their class, and adjectives are left out."""
    which = random.choice(((True, False), (False, True), (True, True)))
    phrases = []
    for phrase, general in zip((clause.subject, clause.object), which, strict=True):
        phrase = replace(phrase, general=general, noun=phrase.noun if general else reword(random, phrase.noun))
        phrases.append(replace(phrase, adjective=None) if random.random() < 0.7 else phrase)
    return replace(clause, subject=phrases[0], object=phrases[1], verb=reword(random, clause.verb))


def opinion(random: Random, good: bool, shown: bool | None = None) -> list[str]:
    """A judgement on something, without the full stop: its polarity is `good`.

    `not` turns an adjective round, `and` joins equal polarities, after `but` comes the opposite one, which counts.
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


# ---- the text for pre-training --------------------------------------------------------------------------------------
def text(random: Random) -> tuple[str, str | None]:
    """A text of one or two parts: a clause, a definition, an opinion with what came of it, or two clauses that mean the
    same, of which the second follows from the first, or that have nothing to do with each other."""
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
        second = generalise(random, first)
    else:
        second = make_clause(random)
    return sentence(first.words()), sentence(second.words())


def definition(random: Random) -> list[str]:
    """What class a noun belongs to, what comes of being so, or what else a word is called."""
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


def sentence(words: list[str]) -> str:
    """Tokens as a text, with the full stop."""
    return " ".join([*words, "."])
