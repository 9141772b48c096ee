"""Every flag that takes a path expands `~`, once, where it is parsed: a shell leaves `--flag=~/x` alone, YAML too."""

import re

import pytest

from layerdrop.cli.command import COMMANDS, command_parser
from layerdrop.cli.parsing import parse, parse_settings, run_parser
from layerdrop.errors import UserError
from layerdrop.sweeps.study import read_study
from layerdrop.system.files import LocalPath


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    return str(tmp_path)


def test_a_path_is_an_ordinary_text(home):
    assert LocalPath("~/x") == f"{home}/x" and type(LocalPath("~/x")) is str
    for text in ("x/~", "bert-base-uncased", "a$", "a$nothing_of_this_name.csv"):
        assert LocalPath(text) == text


def test_what_only_a_shell_would_replace(monkeypatch, tmp_path):
    """A folder of this name would be made. Files of such names are read."""
    monkeypatch.chdir(tmp_path)
    for text, why in (
        ("~nobody-of-this-name/x", "no such user"),
        ("$HOME/x", "variables are not replaced in this place"),
        ("runs/${HOME}", "variables are not replaced in this place"),
        ("$nothing_of_this_name/x", "variables are not replaced in this place"),
    ):
        with pytest.raises(UserError) as error:
            parse_settings({"output_dir": text}, ["--use_cpu"])
        assert str(error.value).startswith(f"--output_dir: {text}: {why}. Write the whole path.")
    for name in ("~x.csv", "$HOME.csv"):
        (tmp_path / name).touch()
        assert LocalPath(name) == name


PATHS = (
    "model_name_or_path tokenizer_name cache_dir data_dir train_file validation_file test_file dataset_name "
    "drop_order_file score_on score_store teacher output_dir resume_from_checkpoint"
).split()


SPEAKS_OF_A_PATH = re.compile(r"\b(folders?|file|checkpoints?|models?)\b", re.IGNORECASE)
NO_PATH = {"token", "method", "tasks", "save_strategy"}
"""Flags whose help speaks of one, and that take none."""


def test_the_flags_of_a_run_that_take_paths():
    actions = {action.dest: action for action in run_parser()._actions}
    assert sorted(name for name, action in actions.items() if action.type is LocalPath) == sorted(PATHS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_new_flag_that_takes_a_path_has_its_type(command):
    """A flag takes one where its help speaks of a folder, a file or a model."""
    for action in command_parser(command)._actions:
        if action.type in (None, str) and action.nargs != 0 and not action.choices:
            speaks = SPEAKS_OF_A_PATH.search(action.help or "") and action.dest not in NO_PATH
            assert not speaks, f"{action.dest}: {action.help}"


def test_paths_of_a_run(home, tmp_path):
    words = ["--use_cpu", "--report_to", "none"]
    given = ("model_name_or_path", "tokenizer_name", "cache_dir", "train_file", "validation_file", "output_dir")
    (tmp_path / "run.yaml").write_text("".join(f"{name}: ~/{name}\n" for name in given))
    for flags in ([f"--{name}=~/{name}" for name in given], ["~/run.yaml"]):
        spec, options = parse([*flags, *words]).to_spec()
        assert (spec.model.name, spec.model.tokenizer) == (f"{home}/model_name_or_path", f"{home}/tokenizer_name")
        assert dict(spec.data.files) == {s: f"{home}/{s}_file" for s in ("train", "validation")}
        assert (options.folder, options.cache_dir) == (f"{home}/output_dir", f"{home}/cache_dir")


def test_paths_of_a_study(home, tmp_path):
    (tmp_path / "recipe.yaml").write_text("learning_rate: 1e-3\n")
    (tmp_path / "study.yaml").write_text("recipe: ~/recipe.yaml\ngrid: {models: [~/a, ~/b], tasks: [rte]}\n")
    study = read_study(
        str(tmp_path / "study.yaml"), str(tmp_path / "store"), parse_settings, flags=["--use_cpu", "--data_dir=~/glue"]
    )
    assert [job.spec.model.name for job in study.jobs] == [f"{home}/a", f"{home}/b"]
    assert {(job.spec.train.learning_rate, job.spec.data.source) for job in study.jobs} == {(1e-3, f"{home}/glue")}


def test_an_empty_path_is_none(home):
    """The 2020 fork's default."""
    words = ["--use_cpu", "--report_to", "none"]
    empty = ("tokenizer_name", "cache_dir", "data_dir", "score_on", "output_dir", "teacher")
    for flags in ([word for name in empty for word in (f"--{name}", "")], [f"--{name}=" for name in empty]):
        spec, options = parse([*flags, *words]).to_spec()
        assert (spec, options.cache_dir) == (parse(words).to_spec()[0], None)
    with pytest.raises(UserError, match="--model_name_or_path: is empty. Give a folder or a name on the hub"):
        parse(["--model_name_or_path", "", *words])
