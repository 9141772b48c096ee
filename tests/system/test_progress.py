import io

import numpy as np
import pytest
from transformers.utils import logging

from layerdrop.analysis.probing import probe
from layerdrop.data.batches import Collator
from layerdrop.data.examples import Examples
from layerdrop.data.tasks import TASKS
from layerdrop.data.tokens import tokenize
from layerdrop.system import progress as module
from layerdrop.system.progress import progress
from tests import tiny


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def bars(monkeypatch):
    """Enable bars, and show them from the first part on."""
    monkeypatch.setattr(logging, "_tqdm_active", True)
    monkeypatch.setattr(module, "DELAY", 0)


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, True), (io.StringIO, False)], ids=["terminal", "file"])
def test_bar_only_on_a_terminal(bars, monkeypatch, stream, shown):
    monkeypatch.setattr("sys.stderr", stderr := stream())
    assert list(progress(range(3), "scores")) == [0, 1, 2]
    assert ("scores" in stderr.getvalue()) == shown
    if shown:
        *_, cleared, rest = stderr.getvalue().split("\r")
        assert not cleared.strip() and not rest  # the line is empty again


def test_bar_only_of_a_long_loop_in_its_unit(bars, monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    list(progress(range(3), "tokenize", "k rows"))
    assert "k rows/s" in terminal.getvalue()
    monkeypatch.setattr(module, "DELAY", 60)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    list(progress(range(3), "tokenize"))
    assert "tokenize" not in terminal.getvalue()


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, True), (io.StringIO, False)], ids=["terminal", "file"])
def test_bars_of_probes_only_on_a_terminal(bars, monkeypatch, stream, shown):
    model, words = tiny.model("bert").base_model, tiny.tokenizer()
    texts = [f"w{i % 2} w{i % 5}" for i in range(20)]
    monkeypatch.setattr("sys.stderr", stderr := stream())
    data = tokenize(Examples((texts,), np.arange(20) % 2, [""] * 20), words, 64)
    probe(model, data, data, TASKS["rte"], Collator.of(words))
    assert [name in stderr.getvalue() for name in ("tokenize", "states", "probes")] == [shown] * 3
    assert shown or not stderr.getvalue()


def test_no_bar_where_the_library_shows_none(bars, monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setattr(logging, "_tqdm_active", False)
    assert list(progress(range(3), "scores")) == [0, 1, 2] and not terminal.getvalue()
