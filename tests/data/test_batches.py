import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerdrop.data.batches import Collator, LengthGroupedSampler, batches
from layerdrop.data.tokens import TokenizedDataset, tokenize
from tests import tiny
from tests.data.test_tokens import examples

quick = settings(derandomize=True, deadline=None, max_examples=60)


# ---- collator
@pytest.mark.parametrize("left", [False, True])
def test_batches_are_what_the_tokenizer_pads(left):
    tokenizer, rows = tiny.tokenizer(left), examples()
    dataset = tokenize(rows, tokenizer, 14)
    collator = Collator.of(tokenizer)
    order = [3, 0, 17, 8]
    batch = collator([dataset[i] for i in order])
    texts = [[column[i] for i in order] for column in rows.texts]
    expected = tokenizer(*texts, truncation=True, max_length=14, padding=True, return_tensors="pt")
    assert set(batch) == {*expected, "labels"}
    assert all(torch.equal(batch[name], expected[name]) for name in expected)
    assert batch["labels"].tolist() == [1, 0, 1, 0]
    assert Collator.of(tokenizer, 20, fill=True)([dataset[0]])["input_ids"].shape == (1, 20)


@pytest.mark.parametrize("left", [False, True])
def test_padding_is_that_of_the_tokenizer(left):
    """RoBERTa's padding is 1, XLNet's token type of padding is 3."""
    tokenizer = tiny.tokenizer(left)
    tokenizer.pad_token, tokenizer._pad_token_type_id = "w7", 3
    dataset = tokenize(examples(), tokenizer, 14)
    rows = [dataset[i] for i in (3, 0, 17, 8)]
    batch = Collator.of(tokenizer)(rows)
    expected = tokenizer.pad([{k: v for k, v in row.items() if k != "labels"} for row in rows], return_tensors="pt")
    padding = batch["attention_mask"] == 0
    assert padding.any() and tokenizer.pad_token_id == tiny.VOCABULARY.index("w7")
    assert set(batch["input_ids"][padding].tolist()) == {tokenizer.pad_token_id}
    assert set(batch["token_type_ids"][padding].tolist()) == {3}
    assert torch.equal(batch["input_ids"], expected["input_ids"])


def test_no_padding_token():
    tokenizer = tiny.tokenizer()
    tokenizer.pad_token = None
    assert Collator.of(tokenizer).padding_values["input_ids"] == 0


def test_lengths_of_batches():
    collator = Collator.of(tiny.tokenizer(), 128)
    lengths = {1: 1, 31: 31, 32: 32, 33: 34, 50: 51, 68: 68, 120: 126, 127: 128, 128: 128}
    assert {n: collator.length(n) for n in lengths} == lengths
    assert all(n <= collator.length(n) <= n * 17 / 16 for n in range(1, 129))
    assert (
        Collator.of(tiny.tokenizer()).length(33) == 33
        and Collator.of(tiny.tokenizer(), 128, fill=True).length(33) == 128
    )
    few = Collator.of(tiny.tokenizer(), 100, multiple=8)
    assert {few.length(n) for n in range(1, 101)} == {*range(8, 97, 8), 100}
    assert few.length(16) == 16 and few.length(17) == 24
    long = Collator.of(tiny.tokenizer(), 512, multiple=8)
    assert {long.length(n) for n in range(1, 513)} == {
        *range(8, 257, 8),
        *range(272, 385, 16),
        *range(384, 505, 24),
        512,
    }


@quick
@given(
    st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=20), min_size=1, max_size=6),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from([(None, False), (20, False), (24, True)]),
)
def test_padding_never_touches_a_token(rows, left, pad, type_pad, length):
    collator = Collator({"input_ids": pad, "token_type_ids": type_pad}, left, *length)
    items = [{"input_ids": np.array(r, np.int32), "token_type_ids": np.array(r, np.int32) % 2} for r in rows]
    batch = collator([item | {"labels": i} for i, item in enumerate(items)])
    width = batch["input_ids"].shape[1]
    assert width == collator.length(max(map(len, rows))) and batch["labels"].tolist() == list(range(len(rows)))
    assert batch["attention_mask"].sum(1).tolist() == list(map(len, rows))
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    for i, item in enumerate(items):
        n = len(rows[i])
        tokens, padding = (slice(width - n, width), slice(0, width - n)) if left else (slice(0, n), slice(n, width))
        for name, value in (("input_ids", pad), ("token_type_ids", type_pad)):
            assert batch[name][i, tokens].tolist() == item[name].tolist()
            assert (batch[name][i, padding] == value).all()
        assert batch["attention_mask"][i, tokens].all() and not batch["attention_mask"][i, padding].any()


def test_batches_of_neighbours():
    dataset = tokenize(examples(), tiny.tokenizer(), 64)
    parts = batches(dataset, 16)
    assert [len(part) for part in parts] == [16, 16, 8]
    lengths = [len(item["input_ids"]) for part in parts for item in part]
    assert lengths == sorted(dataset.lengths, reverse=True)
    assert isinstance(dataset, TokenizedDataset)


# ---- sampler
class TestSampler:
    lengths = np.random.default_rng(0).integers(5, 100, 1000)

    def epoch(self, number: int, seed: int = 1, **kwargs) -> list[int]:
        sampler = LengthGroupedSampler(self.lengths, 32, seed, **kwargs)
        sampler.set_epoch(number)
        return list(sampler)

    def test_order_depends_on_seed_and_epoch_alone(self):
        state = np.random.get_state()[1].copy()
        random.seed(1)
        first = self.epoch(0)
        random.seed(2)
        np.random.seed(5)
        torch.manual_seed(5)
        assert self.epoch(0) == first
        assert self.epoch(0) != self.epoch(1) and self.epoch(0) != self.epoch(0, seed=2)
        assert self.epoch(1, seed=2) != self.epoch(2, seed=1)
        np.random.set_state(("MT19937", state, 624, 0, 0.0))

    def test_a_later_epoch_needs_no_earlier_one(self):
        sampler = LengthGroupedSampler(self.lengths, 32, 1)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            order = list(sampler)
        assert order == self.epoch(2)

    def test_little_padding_and_batches_in_random_order(self):
        order = self.epoch(3)
        parts = [self.lengths[order[i : i + 32]] for i in range(0, 1000, 32)]
        padded = sum(part.max() * len(part) for part in parts)
        assert 1 - self.lengths.sum() / padded < 0.05
        means = [part.mean() for part in parts[:-1]]
        assert means != sorted(means) and means != sorted(means, reverse=True) and len(parts[-1]) == 8

    def test_it_counts_what_it_hands_out(self):
        sampler = LengthGroupedSampler(self.lengths, 32, 1, padded=lambda longest: 128)
        list(sampler)
        assert (sampler.tokens, sampler.padded_tokens) == (self.lengths.sum(), 128 * 1000)

    def test_it_counts_the_padding_to_the_longest(self):
        sampler = LengthGroupedSampler(np.array([3, 5, 9]), 3, 1)
        steps = iter(sampler)
        assert (sampler.tokens, sampler.padded_tokens) == (0, 0)
        next(steps)
        assert (sampler.tokens, sampler.padded_tokens) == (17, 27)


@quick
@given(
    st.lists(st.integers(1, 64), min_size=1, max_size=300),
    st.integers(1, 40),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(1, 6),
)
def test_every_row_once(lengths, batch_size, seed, epoch, window):
    sampler = LengthGroupedSampler(np.array(lengths), batch_size, seed, window)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(sampler) == len(order) and sorted(order) == list(range(len(lengths)))
    again = LengthGroupedSampler(np.array(lengths), batch_size, seed, window)
    again.set_epoch(epoch)
    assert list(again) == order
    parts = [[lengths[i] for i in order[at : at + batch_size]] for at in range(0, len(order), batch_size)]
    assert all(part == sorted(part, reverse=True) for part in parts)
    assert sampler.tokens == sum(lengths)
    assert sampler.padded_tokens == sum(max(part) * len(part) for part in parts)
