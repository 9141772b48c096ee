"""Faults of the environment: full disks, missing permissions, pipes, folders in the place of files, Ctrl-C."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layerdrop.cli.command import run_command
from layerdrop.system import files
from layerdrop.system.faults import fault
from layerdrop.system.files import LocalPath, read_json, regular, write_atomically
from tests.running import ROOT, read_record


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x/y"), "x/y: No space left on device. Free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied. Correct the permissions"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 300), "File name too long. Choose another path"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error. Correct this"),
        (Exception("Error while serializing: I/O error: x (os error 28)"), "No space left on device. Free some space"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), "cannot be written"),
        (ValueError("defect"), None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (OSError("no number"), None),
    ],
)
def test_faults_are_told_from_defects(error, line):
    text = fault(error)
    assert (text is None) if line is None else (line in text and "\n" not in text)


def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe or a device"):
        regular(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe or a device"):
        read_json("/dev/zero")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deep"):
        read_json(tmp_path / "deep.json")
    assert regular(tmp_path / "missing") == tmp_path / "missing"


def test_a_failed_write_names_the_file_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left") as error:
        write_atomically(tmp_path / "x.json", "text")
    assert error.value.filename == str(tmp_path / "x.json") and not list(tmp_path.iterdir())


def full_disk(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("text", ["a\0b", "a\udcff"])
def test_texts_that_are_no_paths(text, capsys):
    with pytest.raises(ValueError, match="not a path"):
        LocalPath(text)
    assert run_command("run", ["--output_dir", text]) == 2 and "not a path" in capsys.readouterr().err


# ---- a run
@pytest.mark.parametrize("n", range(1, 40, 3))
def test_a_full_disk_at_every_write_of_a_run(run, monkeypatch, n):
    """The n-th and all further writes fail. One line, no traceback; the same command then works."""
    count, real = [], os.fsync

    def fsync(number):
        count.append(number)
        if len(count) >= n:
            full_disk()
        real(number)

    words = "--task_name rte --drop_strategy top --drop_k 2 --max_steps 1"
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fsync)
        code, record, _, err = run(words)
    if len(count) < n:
        assert code == 0
        return
    (error,) = [line for line in err.splitlines() if line.startswith("error")]
    assert code in (1, 2) and "No space left on device" in error and "Traceback" not in err
    assert record is None or record["status"] in ("failed", "success")
    assert not [path for path in Path("out").rglob("*") if files.TEMPORARY in path.name]
    code, record, _, err = run(words)
    assert code == 0 and record["status"] == "success", err


@pytest.mark.parametrize("name", ["record.json", "spec.json", "README.md", "vocab.txt", "model.safetensors", ".lock"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_folder_or_a_pipe_in_the_place_of_a_file(run, name, make):
    os.mkdir("out")
    make(f"out/{name}")
    code, _, _, err = run("--task_name rte --drop_strategy top --drop_k 2 --max_steps 1 --output_dir out", output=None)
    assert code == 2 and name in err and err.count("error:") == 1 and "Traceback" not in err


@pytest.mark.parametrize("words", ["--output_dir", "--model_name_or_path", "--data_dir", "--score_store"])
def test_names_of_300_characters(run, words):
    more = "--drop_strategy contribution --drop_k 2" if words == "--score_store" else ""
    code, _, _, err = run(f"--task_name rte --max_steps 1 {more} {words} {'n' * 300}")
    assert code == (1 if more else 2) and "File name too long" in err and "Traceback" not in err


def test_a_pipe_as_record_of_a_report(tmp_path, capsys):
    os.mkdir(tmp_path / "run")
    os.mkfifo(tmp_path / "run" / "record.json")
    assert run_command("report", [str(tmp_path)]) == 2 and "pipe" in capsys.readouterr().err


def test_a_report_on_a_full_disk(run, monkeypatch, capsys):
    assert run("--task_name rte --drop_strategy top --drop_k 2 --max_steps 1")[0] == 0
    monkeypatch.setattr(files.os, "fsync", full_disk)
    assert run_command("report", ["out", "--html", "page.html"]) == 1
    err = capsys.readouterr().err
    assert "page.html: No space left on device" in err and "Traceback" not in err and not Path("page.html").exists()


def test_a_damaged_cache_of_scores_is_computed_again(run):
    words = "--task_name rte --drop_strategy contribution --drop_k 2 --dry_run --score_store scores"
    assert run(words)[0] == 0
    (path,) = Path("scores").glob("*.json")
    good = path.read_text()
    for content in ("", "[]", "{", '{"contribution": 7}', '{"contribution": {}}', '{"contribution": {"rows": ["x"]}}'):
        path.write_text(content)
        assert run(words)[0] == 0
        assert '"rows"' in path.read_text() and len(path.read_text()) > len(good) / 2
    assert read_record("out") is None


# ---- Ctrl-C
@pytest.mark.parametrize(
    ("code", "importing"),
    [
        ("import slow", True),
        ("try:\n    import slow\nexcept BaseException:\n    pass", True),
        ("import time; print('ready', flush=True); time.sleep(60)", False),
    ],
)
def test_ctrl_c_during_an_import_ends_the_process(tmp_path, code, importing):
    """Also if the import ignores the interrupt."""
    (tmp_path / "slow.py").write_text(
        "import time\nprint('ready', flush=True)\ntry:\n    time.sleep(60)\nexcept BaseException:\n    pass\n"
    )
    program = f"from layerdrop.system.process import handle_interrupts\nhandle_interrupts()\n{code}\nprint('end')\n"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    if importing:
        assert (process.returncode, out, err) == (130, "", "stopped. Repeat the command to continue.\n")
    else:
        assert "KeyboardInterrupt" in err and "end" not in out


@pytest.mark.parametrize("command", ["report", "export", "layers", "cost", "sweep", "run"])
def test_ctrl_c_in_the_beginning_of_a_command(command):
    """While it imports: one line and exit code 130."""
    words = {
        "layers": ["scores", "--models", "demo"],
        "cost": ["demo"],
        "sweep": [f"{ROOT}/configs/studies/demo.yaml", "--plan"],
        "run": [f"{ROOT}/configs/demo.yaml", "--dry_run"],
    }.get(command, ["nosuch"])
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "layerdrop", command, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    lines = iter(process.stderr.readline, "")
    next(line for line in lines if "numpy" in line or "pandas" in line or "torch" in line)
    process.send_signal(signal.SIGINT)
    said = [line for line in lines if not line.startswith("import time:")]
    assert process.wait(timeout=60) == 130 and said == ["stopped. Repeat the command to continue.\n"]
