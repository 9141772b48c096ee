import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerdrop.text import one_line


@pytest.mark.parametrize(
    ("text", "width", "line"),
    [
        (None, 9, ""),
        ("  a\n\tb  c ", None, "a b c"),
        ("one two three", 13, "one two three"),
        ("one two three", 12, "one two…"),
        ("one two three", 8, "one two…"),
        ("one two three", 7, "one…"),
        ("a state-of-the-art run", 12, "a…"),  # hyphens are no ends of words
        ("/a/very/long/path is wrong", 8, "/a/very…"),
    ],
)
def test_one_line(text, width, line):
    assert one_line(text, width) == line


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.text("ab \n-", max_size=30), st.integers(2, 30))
def test_lines_fit_and_end_at_a_word(text, width):
    line, words = one_line(text, width), text.split()
    assert len(line) <= width and "\n" not in line
    if line.endswith("…") and " " in line:
        kept = line[:-1].split(" ")
        assert kept == words[: len(kept)]
