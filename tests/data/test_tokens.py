import gc
import random
import weakref

import numpy as np
import pytest

from layerdrop.data import tokens
from layerdrop.data.examples import Examples
from layerdrop.data.tokens import TokenCache, TokenizedDataset, notes_on_unknown_tokens, tokenize
from tests import tiny


def examples(n: int = 40, seed: int = 0) -> Examples:
    generator = random.Random(seed)
    texts = tuple([tiny.sentence(generator, 12) for _ in range(n)] for _ in range(2))
    return Examples(texts, np.arange(n) % 2, [str(i) for i in range(n)])


@pytest.fixture
def calls(monkeypatch):
    """One entry for each call of a tokenizer, with an empty cache."""
    calls = []
    kind = type(tiny.tokenizer())
    monkeypatch.setattr(kind, "__call__", lambda *args, call=kind.__call__, **kw: calls.append(1) or call(*args, **kw))
    monkeypatch.setattr(tokens, "_cache", TokenCache(tokens.CACHE_BYTES))
    return calls


def test_tokenized_once_for_the_same_texts_tokenizer_and_length(calls):
    first = tokenize(examples(), tiny.tokenizer(), 14)
    again = tokenize(examples(), tiny.tokenizer(), 14, labels=np.ones(40))
    assert len(calls) == 1 and (again[3]["input_ids"] == first[3]["input_ids"]).all()
    assert again[0]["labels"] == 1 and first[0]["labels"] == 0
    without_types = tiny.tokenizer()
    without_types.model_input_names = ["input_ids", "attention_mask"]
    other_end = tiny.tokenizer()
    other_end.truncation_side = "left"
    for other in (
        (examples(seed=8), tiny.tokenizer(), 14),
        (examples(), tiny.tokenizer(left=True), 14),
        (examples(), tiny.tokenizer(), 15),
        (examples(), without_types, 14),
        (examples(), other_end, 14),
    ):
        before = len(calls)
        tokenize(*other)
        assert len(calls) == before + 1
    assert "token_type_ids" not in tokenize(examples(), without_types, 14)[0]


def test_a_used_tokenizer_counts_as_the_same(calls):
    """Each call leaves its truncation and padding in the tokenizer."""
    tokenizer = tiny.tokenizer()
    tokenize(examples(), tokenizer, 14)
    tokenizer(["w1", "w2 w3"], truncation=True, max_length=7)
    tokenize(examples(), tokenizer, 14)
    tokenizer(["w1", "w2 w3"], padding=True)
    tokenize(examples(), tokenizer, 14)
    tokenize(examples(), tiny.tokenizer(), 14)
    assert len(calls) == 3


def test_a_tokenizer_keeps_its_settings(calls):
    """They are saved with it, whether its texts were in the cache or not."""
    tokenizer = tiny.tokenizer()
    backend = tokenizer.backend_tokenizer
    for settings in (None, {"max_length": 7, "stride": 0, "strategy": "longest_first", "direction": "right"}):
        backend.enable_truncation(**settings) if settings else backend.no_truncation()
        backend.enable_padding(length=9) if settings else backend.no_padding()
        before = backend.to_str()
        for seed in (1, 1, 2):
            tokenize(examples(seed=seed), tokenizer, 14)
            assert backend.to_str() == before
    assert len(calls) == 2


def test_more_rows_than_the_tokenizer_gets_at_once(monkeypatch):
    monkeypatch.setattr(tokens, "_cache", TokenCache(tokens.CACHE_BYTES))
    whole = tokenize(examples(), tiny.tokenizer(), 14)
    monkeypatch.setattr(tokens, "_cache", TokenCache(tokens.CACHE_BYTES))
    monkeypatch.setattr(tokens, "CHUNK", 7)
    pieces = tokenize(examples(), tiny.tokenizer(), 14)
    assert (pieces.offsets == whole.offsets).all()
    assert all((pieces.columns[name] == whole.columns[name]).all() for name in whole.columns)


def test_the_cache_holds_no_texts_and_no_tokenizer(calls):
    rows, tokenizer = examples(), tiny.tokenizer()
    gone = [weakref.ref(rows), weakref.ref(tokenizer)]
    kept = tokenize(rows, tokenizer, 14)
    del rows, tokenizer
    gc.collect()
    assert all(ref() is None for ref in gone) and len(kept) == 40


def arrays(n: int):
    return {"input_ids": np.zeros(n, np.int32)}, np.zeros(1, np.int64)


def test_the_cache_is_bounded_by_bytes():
    cache = TokenCache(limit=1000)
    for key in "abc":
        cache.get(key, lambda: arrays(80))  # 328 bytes each
    assert list(cache.entries) == ["a", "b", "c"] and cache.size == 3 * 328
    cache.get("a", lambda: pytest.fail("made again"))
    cache.get("d", lambda: arrays(80))
    assert list(cache.entries) == ["c", "a", "d"]
    large = cache.get("e", lambda: arrays(1000))
    assert len(large[0]["input_ids"]) == 1000 and cache.size <= 1000 and "e" not in cache.entries
    assert tokens.CACHE_BYTES == tokens._cache.limit == 2**30


def test_longest_first_knows_the_way_back():
    dataset = tokenize(examples(), tiny.tokenizer(), 64)
    longest = dataset.longest_first()
    assert (np.diff(longest.lengths) <= 0).all() and sorted(longest.rows) == list(range(40))
    assert all((longest[i]["input_ids"] == dataset[longest.rows[i]]["input_ids"]).all() for i in range(40))


def test_tokenized_items():
    dataset = TokenizedDataset({"input_ids": np.array([7, 8, 9], np.int32)}, np.array([0, 1, 3]), None)
    assert len(dataset) == 2 and dataset[1]["input_ids"].tolist() == [8, 9] and "labels" not in dataset[0]


@pytest.mark.parametrize(
    ("texts", "share"), [(["w1 w2", "new w3"], None), (["w1 new", "new w3"], None), (["new w1 new", "new w2"], "60%")]
)
def test_mostly_unknown_tokens_are_noted(texts, share):
    """Special tokens do not count."""
    data = tokenize(Examples((texts,), None, ["0", "1"]), tiny.tokenizer(), 14)
    notes = notes_on_unknown_tokens(data, tiny.tokenizer(), "x.csv")
    assert [note.partition(",")[0] for note in notes] == (
        [f"{share} of the tokens of x.csv are unknown to the tokenizer ([UNK])"] if share else []
    )
    without = tiny.tokenizer()
    without.unk_token = None
    assert not notes_on_unknown_tokens(data, without, "x.csv")
