"""Command lines drawn at random: one line and exit code 2, or a success.

LAYERDROP_TEST_LINES=1200: the number of command lines. Default: as many as a few seconds allow.
"""

import os
import re
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from layerdrop.cli.arguments import Flags
from layerdrop.cli.command import run_command
from layerdrop.cli.flags import GROUPS
from layerdrop.cli.parsing import Arguments, parse, run_parser
from layerdrop.criteria.table import STRATEGIES
from layerdrop.errors import UserError
from layerdrop.runs.spec import Options, RunSpec

LINES = int(os.environ.get("LAYERDROP_TEST_LINES", 0))
DRAWN = {"derandomize": True, "deadline": None, "database": None}
DRAWN["suppress_health_check"] = [HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
TEXTS = st.sampled_from(
    [
        *("", " ", ",", "'", "-", "--", "-1", "0", "1", "2", "5,4", "0 1", "1_000", "１", "0x10", "1e400", "9" * 20),
        *("nan", "inf", "true", "no", "null", "none", "auto", "all", "{}", "[]", "{", '{"a": 1}', "a=b", "a,b", "%s"),
        *("a\nb", "\t", "*", "~", "/", ".", "nosuch", "/dev/null", "x" * 300, "bert", "train.csv", "order.txt"),
        *("é", "x.json", "label", "text", "out", "\0", "\ud800"),
    ]
)
NUMBERS = {
    int: st.sampled_from(["0", "1", "2", "3", "6", "7", "-1", "2147483648", "9223372036854775808"]),
    float: st.sampled_from(["0", "0.1", "0.5", "1", "2", "1e-5", "-1", "nan", "inf", "1e308"]),
}
IDS = st.sampled_from(["0,1", "5,4,3", "5", "0 1", "7", "-1", "", ",", "1,1", "[2,3]", "99999999999999999999"])
VALUES = {
    **dict.fromkeys(("drop_layers", "keep_layers", "freeze_layers", "drop_order"), IDS),
    "drop_strategy": st.sampled_from(list(STRATEGIES)),
    "teacher": st.sampled_from(["auto", "bert"]),
    "elastic_k": st.sampled_from(["0", "1", "2", "all", "9", "x"]),
    "drop_order_file": st.sampled_from(["order.txt", "x.json", "nosuch", "train.csv", "."]),
}
"""Flag -> plausible values, if its type does not tell them."""
ACTIONS = {action.dest: action for action in run_parser()._actions if action.option_strings}
OWN = [field.name for group in GROUPS for field in fields(group)]
PRINTED = ("dry_run", "json")
"""Flags that decide what a command prints."""
FLAGS = st.sampled_from(OWN) | st.sampled_from(list(ACTIONS))
TOP, RECIPE = "--drop_strategy top --drop_k 2", ["num_train_epochs", "learning_rate"]
START = ["start_num_train_epochs", "start_learning_rate", *RECIPE]
CONTEXTS = {
    "": OWN,
    f"{TOP} --drop_when gradual": ["drop_step", "drop_every_epochs", "layerdrop_rate", "drop_layers"],
    f"{TOP} --drop_when elastic": ["elastic_k", "finetune_again", *START],
    f"{TOP} --drop_when finetuned": ["freeze_dropped", "freeze_layers", *START],
    f"{TOP} --theseus": [name for name in OWN if name.startswith("replacing")],
    f"{TOP} --teacher auto": [name for name in OWN if name.startswith(("distill", "teacher_"))],
    f"{TOP} --teacher auto --distill layers": [name for name in OWN if name.startswith("distill_")],
    "--drop_strategy contribution --drop_k 2": ["score_split", "max_score_samples", "score_on", "weight_scope"],
    "--drop_strategy variance --drop_k 2": ["score_split", "max_score_samples", "score_on", "weight_scope"],
    "--drop_layers 4,5": ["drop_k", "drop_strategy", "freeze_layers", "keep_layers", "drop_when"],
    "--do_eval": ["eval_strategy", "freeze_embeddings", "class_weights", "max_train_samples", *RECIPE],
}
"""Flags that give other flags an effect -> these other flags."""


@st.composite
def words_of(draw, action) -> list[str]:
    """A flag with a plausible value, any text, or no value."""
    flag = f"--{action.dest}"
    plausible = VALUES.get(action.dest, NUMBERS.get(action.type, TEXTS))
    if action.choices:
        plausible = st.sampled_from([str(getattr(choice, "value", choice)) for choice in action.choices])
    values = st.one_of(*[plausible] * 6, TEXTS)
    if draw(st.integers(0, 19)) == 0 or (action.nargs in (0, "?") and draw(st.booleans())):
        return [flag]
    if draw(st.booleans()):
        return [f"{flag}={draw(values)}"]
    return [flag, *draw(st.lists(values, min_size=1, max_size=2 if action.nargs in ("+", "*") else 1))]


@st.composite
def command_lines(draw) -> list[list[str]]:
    """The words of one of CONTEXTS, and of one to six different flags of a run."""
    context = draw(st.sampled_from(list(CONTEXTS)))
    flags = FLAGS | st.sampled_from(CONTEXTS[context])
    names = draw(st.lists(flags, min_size=1, max_size=draw(st.sampled_from([1, 1, 2, 3, 6])), unique=True))
    return [context.split(), *(draw(words_of(ACTIONS[name])) for name in names)]


@pytest.fixture
def files(bert, tmp_path, monkeypatch) -> list[str]:
    """Flags of a run on files in the current folder."""
    monkeypatch.chdir(tmp_path)
    os.symlink(bert, "bert")
    rows = [f"w{i} w{i % 7},{'ab'[i % 2]}\n" for i in range(8)]
    for name in ("train.csv", "dev.csv"):
        Path(name).write_text("text,label\n" + "".join(rows))
    Path("order.txt").write_text("5\n4\n3\n2\n")
    Path("x.json").write_text('{"a": 1}')
    data = ["--train_file", "train.csv", "--validation_file", "dev.csv", "--output_dir", "out"]
    return ["--model_name_or_path", "bert", *data, "--use_cpu", "--report_to", "none", "--precision", "fp32"]


def check_answer(code: int, err: str) -> None:
    """One line for each problem and exit code 2, or a success."""
    lines = [line for line in err.split("\n") if line]
    assert code in (0, 2) and "Traceback" not in err and "Error:" not in err
    assert any(line.startswith("error: ") for line in lines) is (code == 2)


@settings(max_examples=LINES or 40, **DRAWN)
@given(command_lines())
def test_a_run_answers_any_flags_in_one_line(files, capfd, line):
    words = [word for flag in line for word in flag]
    capfd.readouterr()
    code = run_command("run", [*files, *words, "--dry_run"])
    check_answer(code, capfd.readouterr().err)
    assert {path.name for path in Path().iterdir()} <= {"bert", "train.csv", "dev.csv", "order.txt", "x.json", "out"}


def parsed(words: list[str]) -> tuple[Arguments, RunSpec, Options]:
    arguments = parse(words)
    spec, options = arguments.to_spec()
    arguments.notes = [*options.notes]
    return arguments, spec, replace(options, notes=())


def written(name: str, flag: list[str], files: list[str], arguments: Arguments) -> Any:
    """The value of a flag on the command line, without the influence of other flags if it can be alone."""
    with suppress(UserError):
        arguments = parse([*files, *flag])
    return value_of(name, arguments)


def value_of(name: str, arguments: Arguments) -> Any:
    """The value of a flag after parsing."""
    return getattr(arguments, name) if hasattr(Flags, name) else arguments.values().get(name)


def in_effect(name: str, arguments: Arguments, spec: RunSpec) -> Any:
    """The value of a flag in a run: as in the record, else after parsing."""
    recorded = spec.flat() | {"k": len(spec.drop.layers) or spec.drop.k}
    for key in (name, re.sub("^(drop|start|teacher)_", "", name)):
        if recorded.get(key) is not None:
            return recorded[key]
    return value_of(name, arguments)


def same_value(first: Any, second: Any) -> bool:
    """Whether two values are equal. False, 0 and an empty text or list are no value."""
    first, second = (value.strip() if isinstance(value, str) else value for value in (first, second))
    return (first or None) == (second or None)


@settings(max_examples=LINES or 40, **DRAWN)
@given(command_lines())
def test_every_accepted_flag_has_an_effect_or_a_note(files, line):
    """Without the flag, a command line is another run, has other options, lacks a note about the flag, or is an error.

    Exceptions: a flag with the value that the run has without it, and a file that no step of the run reads. Recipes
    write both out.
    """
    words = [word for flag in line for word in flag]
    try:
        arguments, *result = parsed([*files, *words])
    except (UserError, OSError):
        assume(False)
    for flag in line[1:]:
        others = [word for other in line if other is not flag for word in other]
        name = flag[0][2:].partition("=")[0]
        split = re.sub("_(file|split)$", "", name)
        not_read = split in arguments.data.own and split not in arguments.run_splits
        if name in PRINTED or not_read or f"--{name}" in " ".join(arguments.notes):
            continue
        try:
            without, *result_without = parsed([*files, *others])
        except UserError:
            continue  # another flag needs this one
        default = in_effect(name, without, result_without[0])
        same = same_value(written(name, flag, files, arguments), default)
        assert same or result != result_without, f"--{name} is accepted without an effect"
