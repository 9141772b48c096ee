"""User errors: the flag and the text apart."""

import pickle

from layerdrop.errors import UserError, unknown


def test_the_message_joins_flag_value_and_text():
    parts = {
        "--k 0: must be 1.": UserError("must be 1.", "--k", 0),
        "--k: must be 1.": UserError("must be 1.", "--k"),
        "no run: must be 1.": UserError("no run: must be 1."),
        "--a: unknown value 'x'. Allowed: b.": unknown("--a", "x", ["b"]),
    }
    for message, error in parts.items():
        assert str(error) == message and isinstance(error, ValueError) and not error.problems
    error = UserError("must be 1.", "--k", 0)
    for same in (error, pickle.loads(pickle.dumps(error))):
        assert (same.flag, same.value, same.text, str(same)) == ("--k", 0, "must be 1.", "--k 0: must be 1.")


def test_a_text_that_begins_with_the_flag():
    for text, parts in {
        "--k 0: must be 1. Write: --k 1": ("--k", "0", "must be 1. Write: --k 1"),
        "--k: must be 1.\nOr 2.": ("--k", None, "must be 1.\nOr 2."),
        "--file C:\\x: no such file.": ("--file", "C:\\x", "no such file."),
        "--a and --b contradict each other.": ("", None, "--a and --b contradict each other."),
        "a.csv: --k is missing": ("", None, "a.csv: --k is missing"),
        "--file x is a pointer. Fetch it: git lfs pull": ("", None, "--file x is a pointer. Fetch it: git lfs pull"),
    }.items():
        error = UserError(text)
        assert (error.flag, error.value, error.text) == parts and str(error) == text


def test_joined():
    first, second = UserError("a.", "--k", 1), UserError("b.", "--l")
    both = UserError.joined([first, second, UserError("a.", "--k", 1)])
    assert str(both) == "--k 1: a.\n--l: b." and list(map(str, both.problems)) == ["--k 1: a.", "--l: b."]
    assert UserError.joined([first]) is first and (both.flag, both.value, both.text) == ("", None, str(both))
    assert list(map(str, UserError.joined([both, UserError("c.")]).problems)) == ["--k 1: a.", "--l: b.", "c."]
    assert list(map(str, pickle.loads(pickle.dumps(both)).problems)) == ["--k 1: a.", "--l: b."]
