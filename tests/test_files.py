"""Results that cannot be written are said before anything is computed."""

import os
from pathlib import Path

import pytest

from layerdrop.errors import UserError
from layerdrop.files import make_folder, make_folder_of, write_atomically
from scripts import choose_k, cost, layers, report, search, sweep


def test_a_file_keeps_its_old_content_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "replace", lambda *paths: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_folders_are_made(tmp_path):
    make_folder("--store", tmp_path / "a" / "b")
    make_folder_of("--html", tmp_path / "c" / "page.html")
    assert (tmp_path / "a" / "b").is_dir() and not list((tmp_path / "c").iterdir())
    with pytest.raises(UserError, match=r"--html .*a: is a folder\. Give a file"):
        make_folder_of("--html", tmp_path / "a")


@pytest.mark.parametrize(
    ("script", "words", "flag"),
    [
        (sweep, "s.yaml --workers 1", "--store"),
        (search, "--model_name_or_path demo --task_name demo-rte --max_k 1 --workers 1", "--store"),
        (choose_k, "--model_name_or_path demo --tasks demo-rte --k 1 --workers 1", "--store"),
        (choose_k, "--model_name_or_path demo --tasks demo-rte --k 1 --workers 1", "--figures"),
        (layers, "profile --models demo --tasks demo-rte", "--store"),
        (layers, "profile --models demo --tasks demo-rte", "--figures"),
        (cost, "demo --k 0", "--store"),
    ],
)
def test_scripts_say_it_at_once(tmp_path, monkeypatch, capsys, script, words, flag):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text("settings: {model_name_or_path: demo, task_name: demo-rte}\ngrid: {k: 0}\n")
    Path("file").write_text("mine")
    assert script.main([*words.split(), flag, "file/x"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1] == f"error: {flag} file/x: cannot write there (Not a directory). Choose another folder."
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize("flag", ["--figures", "--html", "--runs"])
def test_a_report_says_it_before_its_tables(tmp_path, monkeypatch, capsys, run, flag):
    assert run("--task_name rte --max_steps 1 --save_model no")[0] == 0
    Path("file").write_text("mine")
    assert report.main(["out", flag, "file/x"]) == 2
    out, err = capsys.readouterr()
    assert not out and f"{flag} file" in err and "cannot write there" in err.splitlines()[-1]
