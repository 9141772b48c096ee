"""Names in tables, cards and messages that would be markup, formulas or commands of a terminal."""

import csv
import io

import pytest

from layerdrop.architectures import ModelSpec
from layerdrop.cli.command import run_command
from layerdrop.data.spec import DataSpec
from layerdrop.report.frame import frame
from layerdrop.report.runs_csv import read_runs_csv, runs_csv
from layerdrop.report.table import Table, render
from layerdrop.runs.card import card
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import RunSpec
from layerdrop.system.text import csv_cell, markdown, printable

HOSTILE = "a|b\n\\immediate\\write18{touch x}\n% c `d` <script>"


@pytest.mark.parametrize("text", ["=1+1", "+1 c", "-x", "@x", "\tx", "\rx", "-1 c", "--x", "="])
def test_a_formula_becomes_text(text):
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "a", "1", "-1", "-1.5", "-1,200.5", "a=1", "'=1", 3, -2.5, None])
def test_other_cells_stay(text):
    assert csv_cell(text) == text


def test_tables_hold_hostile_texts_in_their_cells():
    table = Table("tasks", HOSTILE, ["model", "K", HOSTILE], [[HOSTILE, "1", "-2.5"]], [HOSTILE])
    table.values = [{"model": "=cmd", "k": 1, "score": -2.5}]
    markdown_lines = render([table], "md").split("\n")
    assert len(markdown_lines) == 7 and markdown_lines[4].count("|") - markdown_lines[4].count("\\|") == 4
    latex = render([table], "latex").split("\n")
    assert all(line.startswith("%") for line in latex if "write18{" in line)
    assert not any("\\immediate" in line for line in latex if not line.startswith("%"))
    assert list(csv.reader(io.StringIO(render([table], "csv"))))[1] == ["tasks", "'=cmd", "1", "-2.5"]


def record(model: str, folder: str = "x") -> RunRecord:
    made = RunRecord(RunSpec(ModelSpec(model), DataSpec("rte", "glue")), folder, "success", n_layers=6)
    made.metrics, made.data = {"accuracy": 0.5}, {"validation": {"rows": 3}}
    made.parameters_before = made.parameters_after = 10
    return made


def test_the_csv_of_runs_has_no_formula(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(runs_csv(frame([record("=cmd()"), record("b")])))
    models = [row["model"] for row in csv.DictReader(path.open())]
    assert models == ["'=cmd()", "b"] and list(read_runs_csv(str(path))["model"]) == models


def test_the_body_of_a_card_has_no_markup_of_a_name():
    text = str(card(record("/models/x`\n# Title\n```\n<script>")))
    body = text.partition("\n---\n")[2]
    assert "\n# Title" not in body and "\n<script>" not in body and body.count("\n```") == 4


def test_messages_send_no_command_to_a_terminal(tmp_path, capsys):
    assert printable("a\x1b[2Jb\u202ec\x0cd\te\n") == "a\\x1b[2Jb\\u202ec\\x0cd\te\n"
    (tmp_path / "x.csv").write_text("text,label\nw w,\x0ca\x1b[2J\n")
    words = [
        "--model_name_or_path",
        "demo",
        "--train_file",
        str(tmp_path / "x.csv"),
        "--do_train",
        "--label_type",
        "class",
    ]
    assert run_command("run", words) == 2
    err = capsys.readouterr().err
    assert err.count("error:") == 1 and "\x1b" not in err and "\\x1b[2J" in err


def test_markdown():
    assert markdown("a_b [c](d) | e\nf") == "a_b \\[c\\](d) \\| e f" and markdown("a`b", code=True) == "a'b"
