import io

import pytest
from transformers.utils import logging

from layerdrop.system import progress as module
from layerdrop.system.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def bars(monkeypatch):
    """Enable bars, and show them from the first part on."""
    monkeypatch.setattr(logging, "_tqdm_active", True)
    monkeypatch.setattr(module, "DELAY", 0)


@pytest.mark.parametrize(("stream", "shown"), [(Terminal(), True), (io.StringIO(), False)], ids=["terminal", "file"])
def test_bar_only_on_a_terminal(bars, monkeypatch, stream, shown):
    monkeypatch.setattr("sys.stderr", stream)
    assert list(progress(range(3), "scores")) == [0, 1, 2]
    assert ("scores" in stream.getvalue()) == shown


def test_no_bar_where_the_library_shows_none(bars, monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setattr(logging, "_tqdm_active", False)
    assert list(progress(range(3), "scores")) == [0, 1, 2] and not terminal.getvalue()
