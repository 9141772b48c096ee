"""The installed command: its overview, help without the library, exit codes, process settings, completion."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.utils import logging

from layerdrop.cli import command
from layerdrop.cli.command import COMMANDS, command_module, command_parser, run_command
from layerdrop.cli.cut import SHARED
from layerdrop.cli.flags import SECTIONS
from layerdrop.errors import UserError
from layerdrop.runs.record import read_record
from layerdrop.system.process import OF_TORCHRUN
from layerdrop.system.text import cut_middle

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | {"PYTHONPATH": str(ROOT)}


def python(*words: str, **settings):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=ENVIRONMENT, **settings)


def test_help_and_reports_import_no_library():
    """Reports import pandas, and nothing that trains or tests."""
    code = f"""
import contextlib, io, sys
from layerdrop.cli.command import overview, run_command
with contextlib.redirect_stdout(io.StringIO()) as out:
    overview([])
    for name in {list(COMMANDS)}:
        try:
            run_command(name, ["--help"])
        except SystemExit as end:
            assert not end.code
print(len(out.getvalue()), *{{"torch", "transformers", "numpy", "pandas"}} & set(sys.modules))
import layerdrop.report.contents, layerdrop.report.html
print("report", *{{"torch", "transformers", "scipy"}} & set(sys.modules))
"""
    done = python("-c", code, check=True)
    of_help, of_report = done.stdout.splitlines()
    assert int(of_help) > 5000 and of_report == "report" and not done.stderr


def test_help_of_a_run(capsys):
    assert run_command("run", ["--help"]) == 0
    text = capsys.readouterr().out
    sections = [line[:-1] for line in text.splitlines() if line and line[0] != " " and line.endswith(":")]
    assert sections == ["options", *SECTIONS]
    assert "--no_speedups" in text and "--resume_from_checkpoint PATH" in text and "--adam_beta1" not in text
    assert "%(" not in text and max(map(len, text.splitlines())) <= 120
    assert run_command("run", ["--help_all"]) == 0 and "--adam_beta1" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cut", "predict", "report", "compare", "cost", "export"])
def test_advice_names_the_command_of_a_flag(name, capsys, monkeypatch):
    """One line for each problem, in every command without the flags of a run."""
    lines = ["a: add --label_type class, or --label_type number and --theseus", "b: add --lost, or see layerdrop run"]
    module = type("", (), {"add_flags": lambda parser: None, "main": lambda parser, words: fail()})

    def fail():
        raise UserError.joined(map(UserError, lines))

    monkeypatch.setattr(command, "command_module", lambda name: module)
    assert run_command(name, []) == 2
    added = f" --label_type and --theseus are flags of layerdrop run, not of layerdrop {name}."
    assert capsys.readouterr().err == f"error: {lines[0]}{added}\nerror: {lines[1]}\n"
    assert run_command("sweep", []) == 2
    assert capsys.readouterr().err == "".join(f"error: {line}\n" for line in lines)


@pytest.mark.parametrize(
    "text, added",
    [
        ("models--seed: no such folder", ""),
        ("x: add --label-type class", " --label_type is a flag of layerdrop run, not of layerdrop cost."),
        ("--drop_k: no such flag. Did you mean --k?", ""),
        ("--drop_k: no such flag.", " --drop_k is a flag of layerdrop run, not of layerdrop cost."),
        ("--k models --seed: unusable", ""),
    ],
)
def test_only_advised_flags_are_named(text, added, capsys, monkeypatch):
    """Not what the user wrote, and not a flag for which the message names another one."""
    parser = command.command_parser("cost")
    monkeypatch.setattr(command, "command_parser", lambda name: parser)

    def fail(parser, words):
        raise UserError(text)

    monkeypatch.setattr(command, "command_module", lambda name: type("", (), {"main": fail}))
    assert run_command("cost", []) == 2 and capsys.readouterr().err == f"error: {text}{added}\n"


@pytest.mark.parametrize("words", ["--drop_k two", "--drop_k", "--drop_strategy", "--seed x", "--dtype int8"])
def test_errors_of_cut_name_its_own_help(words, capsys):
    assert run_command("cut", ["model", "--output_dir", "out", *words.split()]) == 2
    err = capsys.readouterr().err
    assert err.endswith("See layerdrop cut --help.\n") and "layerdrop run" not in err, err


def test_every_command_is_described_and_has_a_module(capsys):
    modules = {path.stem.replace("_", "-") for path in (ROOT / "layerdrop" / "cli").glob("*.py")}
    assert set(COMMANDS) <= modules and command.overview([]) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in out and command_parser(name).format_help().startswith(f"usage: layerdrop {name}")
    assert command.overview(["swep"]) == 2 and "command 'swep'. Did you mean 'sweep'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("cut demo --out c", "--out: no such flag. Did you mean --output_dir?"),
        (
            "cost demo --k 0,6",
            "--k: not a whole number: '0,6'. Separate numbers with blanks. See",
        ),
        ("cost demo --texts 1,2", "--texts: not a whole number: '1,2'. See layerdrop cost --help."),
    ],
)
def test_wrong_words_of_other_commands(words, said, capsys):
    name, *rest = words.split()
    assert run_command(name, rest) == 2 and capsys.readouterr().err.startswith(f"error: {said}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tabel", "x"], "--tabel: no such flag. Did you mean --table? All flags: layerdrop report --help."),
        (["--holm", "store", "--xyz=3"], "--xyz: no such flag. All flags: layerdrop report --help."),
        (["--format", "x", "store"], "--format: invalid choice: 'x' (choose from"),
        ([], "the following arguments are required: store. See layerdrop report --help."),
    ],
)
def test_wrong_words(words, said, capsys):
    assert run_command("report", words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "run"])
def test_a_misspelt_flag_is_named_before_a_missing_argument(name, capsys):
    assert run_command(name, ["--hlep"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --hlep: no such flag. Did you mean --help?")


def test_words_after_two_dashes_are_no_flags():
    parser = command_parser("predict")
    assert parser.parse_args(["--", "--model"]).model == "--model"
    assert parser.parse_args(["m", "--text=--x"]).text == ["--x"]
    assert parser.parse_args(["m", "--text=--"]).text == ["--"]


def test_help_of_cut_names_the_flags_that_select_layers(capsys):
    assert run_command("cut", ["model", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  --{name} " in text for name in SHARED if name != "remove_layers") and "--learning_rate" not in text


def test_help_of_cut_mentions_only_its_own_flags():
    parser = command_parser("cut")
    others = {"--store", "--flag"}  # of `layerdrop layers scores`, of the usage
    named = set(re.findall(r"--\w+", parser.format_help())) - others
    assert named <= set(parser._option_string_actions)


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UserError("a: b\nc: d"), 2, "error: a: b\nerror: c: d\n"),
        (UserError(f"a: {'x' * 10**6}. Do this."), 2, f"error: {cut_middle('a: ' + 'x' * 10**6 + '. Do this.')}\n"),
        (KeyboardInterrupt(), 130, "stopped. Repeat the command to continue.\n"),
        (KeyboardInterrupt("Do this."), 130, "stopped. Do this.\n"),
    ],
)
@pytest.mark.parametrize("name", COMMANDS)
def test_exit_codes(name, raised, code, said, monkeypatch, capsys):
    def main(parser, words):
        raise raised

    monkeypatch.setattr(command_module(name), "main", main)
    assert run_command(name, []) == code and capsys.readouterr().err == said
    for variable, value in zip(OF_TORCHRUN, ("1", "1", "2", "127.0.0.1", "29500"), strict=True):
        monkeypatch.setenv(variable, value)
    assert run_command(name, []) == code and not capsys.readouterr().err


@pytest.mark.parametrize("entry", ["run_glue.py", "-m"])
def test_the_process_is_prepared_before_torch_is_imported(entry):
    """The process ends there."""
    start = f"runpy.run_path({str(ROOT / entry)!r}, run_name='__main__')"
    if entry == "-m":
        start = "sys.argv.insert(1, 'run'); runpy.run_module('layerdrop', run_name='__main__')"
    code = f"""
import os, runpy, sys
class Watch:
    def find_spec(self, name, *rest):
        if name == "torch":
            print("GOMP_SPINCOUNT" in os.environ, flush=True)
            os._exit(3)
sys.meta_path.insert(0, Watch())
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["x", "--drop_strategy", "top"]
{start}
"""
    done = python("-c", code)
    assert (done.returncode, done.stdout) == (3, "True\n"), done


def test_output_that_a_full_disk_loses_is_one_line():
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "layerdrop", "run", "--help"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert done.returncode == 1 and re.fullmatch("error: stdout: No space left on device[^\n]*\n", done.stderr)


def test_the_entry_point_exists():
    project = (ROOT / "pyproject.toml").read_text()
    assert '[project.scripts]\nlayerdrop = "layerdrop.cli.command:main"\n' in project and callable(command.main)
    assert '\npy-modules = ["run_glue"]\n' in project


def test_completion(tmp_path):
    pytest.importorskip("argcomplete")
    lines = {"layerdrop swe": "sweep", "layerdrop predict m --data": "--dataset_name"}
    lines |= {f"layerdrop {name} --drop_str": "--drop_strategy" for name in ("run", "cut")}
    for line, expected in lines.items():
        names = {
            "_ARGCOMPLETE": "1",
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
            "_ARGCOMPLETE_STDOUT_FILENAME": "o",
        }
        words = [sys.executable, "-m", "layerdrop"]
        subprocess.run(words, env=ENVIRONMENT | names, cwd=tmp_path, check=True)
        assert expected in (tmp_path / "o").read_text()


# ---- data that cannot be used, found before the first run ------------------------------------------------------------
DATA = "--train_file train.csv --validation_share 0.25"
FAULTS = [
    (f"{DATA} --label_column clas", "^error: --label_column: train.csv has no column clas. Name one of its columns"),
    (DATA, "^error: train.csv:4: .*--skip_bad_rows"),
    ("--train_file no.csv --validation_share 0.25", "^error: --train_file no.csv: cannot read the file"),
]


@pytest.fixture
def with_own_data(bert, tmp_path, monkeypatch, capsys, in_process):
    """call(command, "--flags") -> (exit code, stdout, stderr), with 16 rows of which the third has no label."""
    monkeypatch.chdir(tmp_path)
    rows = [f"w{i} w,{'' if i == 2 else 'yes' if i % 2 else 'no'}" for i in range(16)]
    Path("train.csv").write_text("\n".join(["text,label", *rows, ""]))
    Path("s.yaml").write_text("grid: {k: [0, 1], strategies: top}")
    own = {"choose-k": ["--k", "1"], "search": ["--max_k", "1"], "sweep": ["s.yaml"]}
    quick = "--use_cpu --workers 1 --precision fp32 --max_steps 1 --per_device_train_batch_size 8 --report_to none"

    def call(command, words):
        model = ["--models" if command == "sweep" else "--model_name_or_path", bert]
        return run_command(command, [*own[command], *words.split(), *model, *quick.split()]), *capsys.readouterr()

    return call


@pytest.mark.parametrize(("words", "said"), FAULTS)
@pytest.mark.parametrize("name", ["choose-k", "search", "sweep"])
def test_unusable_data_are_one_line_and_no_folder(with_own_data, name, words, said):
    words = words.replace("--validation_share 0.25", "") if name == "search" else words
    code, out, err = with_own_data(name, words)
    assert code == 2 and re.search(said, err) and len(err.splitlines()) == 1 and not out, err
    assert not Path("runs").exists()


@pytest.mark.parametrize("words", ["--train_file train.csv", "--dataset_name data", "--engine ray --dataset_name data"])
def test_held_out_rows_of_data_that_all_runs_share(with_own_data, words):
    """The check before the first run reads the same rows as the runs: 12 of 15 usable rows, and 3 held-out rows."""
    Path("data").mkdir()
    Path("data/train.csv").write_text(Path("train.csv").read_text())
    words += " --hold_out 0.2 --save_model no"
    code, _, err = with_own_data("sweep", words)
    assert ("error: " in err) == (code == 2) == ("ray" not in words) and "Fix the row, or add --skip_bad_rows" in err
    code, _, err = with_own_data("sweep", f"{words} --skip_bad_rows")
    assert code == 0, err
    for note in ("note: 1 malformed row of train left out: ", "note: 3 of 15 training rows are held out (20% of each "):
        assert err.count(note) == 3, err  # of the command, and of two runs in this process
    records = [record for path in Path("runs").rglob("record.json") if (record := read_record(path.parent)).metrics]
    assert [[record.data[split]["rows"] for split in ("train", "validation")] for record in records] == [[12, 3]] * 2


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize(
    "words",
    [
        "run --drop_strategy top --drop_k 1 --dry_run --output_dir run --model_name_or_path",
        "layers profile --tasks rte --max_train_samples 8 --models",
    ],
)
def test_no_progress_bars_of_any_library(bert, glue, tmp_path, monkeypatch, words, shown):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "_tqdm_active", True)
    name, *flags = words.split()
    assert run_command(name, [*flags, bert, "--data_dir", glue, "--use_cpu", "--disable_tqdm", str(not shown)]) == 0
    assert logging.is_progress_bar_enabled() == shown


def test_notes_on_the_data_are_printed_once(with_own_data):
    """Not again if every run is done. A study with two data sets executes what it can."""
    note = "note: 1 malformed row of train left out: line 4"
    for name in ("choose-k", "sweep"):
        code, _, err = with_own_data(name, words := f"{DATA} --skip_bad_rows --save_model no")
        assert code == 0 and err.count(note) == 3, err  # of the command, and of two runs in this process
        Path("train.csv").rename("away.csv")
        code, _, err = with_own_data(name, words)
        assert code == 0 and note not in err, err
        Path("away.csv").rename("train.csv")
    Path("s.yaml").write_text("grid: {k: 0, label_column: [clas, label]}")
    code, out, err = with_own_data("sweep", words)
    assert code == 1 and "1 done (1 of them before), 1 failed" in out and "[2/2] failed" in err, err


def test_the_data_of_a_cluster_may_be_on_its_nodes(with_own_data):
    """The workers of Ray find the fault, if there is one."""
    code, _, err = with_own_data("sweep", f"{DATA} --label_column clas --engine ray")
    note = "note: the data cannot be read on this machine. --label_column: train.csv has no column clas. "
    assert code == 1 and err.startswith(note), err
