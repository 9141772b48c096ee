import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerdrop.architectures import ModelSpec
from layerdrop.data.spec import DataSpec
from layerdrop.runs.spec import RunSpec
from layerdrop.system.text import cut_middle, names_in, one_line, short_name


def test_the_middle_of_a_long_line_is_cut():
    assert cut_middle("x" * 9, 9) == "x" * 9
    assert cut_middle("abcde" + "x" * 10**6 + "vwxyz", 11) == "abcde…vwxyz"


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


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("bert-base-uncased", "bert-base-uncased"),
        ("google/electra-base", "electra-base"),
        ("/x/mpnet/", "mpnet"),
        ("runs/mpnet_rte/model", "mpnet_rte_model"),
        ("runs/mpnet_rte/checkpoint/", "mpnet_rte_checkpoint"),
        ("runs/mpnet_rte/checkpoint-500", "mpnet_rte_checkpoint-500"),
        ("runs/mpnet_rte/export", "mpnet_rte_export"),
        ("/x/mpnet/./model", "mpnet_model"),
        ("model", "model"),
        ("/model", "model"),
        ("../model", "model"),
        ("my-model", "my-model"),
    ],
)
def test_the_name_of_a_model(path, name):
    assert short_name(path) == name
    assert RunSpec(ModelSpec(path), DataSpec("rte")).name == f"{name}_rte_full_k0_seed42"


@pytest.mark.parametrize("path", [".", "./", "..", "x/..", "/"])
def test_a_folder_without_a_name_has_that_of_the_place(path, tmp_path, monkeypatch):
    (tmp_path / "above" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "above" / "here")
    assert short_name(path) == {".": "here", "./": "here", "..": "above", "x/..": "here", "/": "model"}[path]


@pytest.mark.parametrize(
    ("text", "names"), [(None, ()), (" ", ()), ("a, b", ("a", "b")), ("a,", ("a", "")), (",", ("", ""))]
)
def test_names_in_a_text(text, names):
    """An empty name is kept, so that no column has it and the flag is refused."""
    assert names_in(text) == names
