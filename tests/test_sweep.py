"""scripts/sweep.py with real runs on small models."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import run_glue
from layerdrop.runs import read_record
from scripts import sweep
from tests.test_run_glue import QUICK

ROOT = Path(__file__).parent.parent
STUDY = """
settings: {precision: fp32, per_device_train_batch_size: 8, num_train_epochs: 1}
grid: {tasks: [rte, stsb], strategies: [top, symmetric], k: [0, 2, 3], seeds: 1}
"""


@pytest.fixture
def study(tmp_path, monkeypatch, bert, glue):
    """The words of a sweep of 8 runs; the working folder is the test's own."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(STUDY)
    return ["small.yaml", "--models", bert, "--data_dir", glue, "--use_cpu", "--workers", "1"]


def test_plan_sweep_plan(study, bert, glue, capsys):
    assert sweep.main([*study, "--plan"]) == 0
    out = capsys.readouterr().out
    assert "8 runs: 0 done, 0 failed, 8 missing, 2 impossible" in out and "--drop_k 2 or 4" in out
    assert not Path("runs").exists()

    (bad := Path("bad")).mkdir()
    words = ["--data_dir", str(bad), "--tasks", "rte", "--k", "0"]
    assert sweep.main([*study, *words]) == 1
    out, err = capsys.readouterr()
    # data that is not there is said, and recorded
    assert "1 failed" in out and "cannot read bad/train.tsv" in out and "[1/1]" in err

    assert sweep.main(study) == 0
    out, err = capsys.readouterr()
    assert "8 runs: 8 done (0 of them before), 0 failed" in out and err.count("done  ") == 8
    records = [read_record(path.parent) for path in Path("runs/small").glob("*/record.json")]
    done = [record for record in records if record["status"] == "success"]
    assert {(r["spec"]["task"], r["spec"]["strategy"], r["spec"]["k"]) for r in done} == {
        (task, *how) for task in ("rte", "stsb") for how in ((None, None), ("top", 2), ("top", 3), ("symmetric", 2))
    }
    assert sweep.main(study) == 0 and "8 done (8 of them before)" in capsys.readouterr().out

    # a worker that has done others before gives what a fresh process gives
    last = next(
        record for record in done if record["spec"]["task"] == "stsb" and record["spec"]["strategy"] == "symmetric"
    )
    words = "--task_name stsb --drop_strategy symmetric --drop_k 2 --seed 1 --num_train_epochs 1 --output_dir alone"
    assert run_glue.main(["--model_name_or_path", bert, "--data_dir", glue, *QUICK, *words.split()]) == 0
    alone = read_record("alone")
    assert alone["id"] == last["id"] and alone["metrics"] == last["metrics"] and alone["epochs"] == last["epochs"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.yaml"], "none.yaml: cannot read"),
        (["--workers", "0"], "--workers 0: must be 1 or more"),
        (["--learning_rat", "1"], "Did you mean --learning_rate"),
        (["--tasks", "rto"], "Did you mean 'rte'"),
        (["--engine", "ray"], "give --precision"),
    ],
)
def test_wrong_words(study, words, said, capsys):
    words = words + study[1:] if words[0].endswith(".yaml") else [*study, *words]
    if "--engine" in words:
        Path("small.yaml").write_text(STUDY.replace("precision: fp32, ", ""))
    assert sweep.main(words) == 2 and said in capsys.readouterr().err


def test_ctrl_c_finishes_what_is_in_flight(study):
    words = [sys.executable, ROOT / "scripts" / "sweep.py", *study, "--num_train_epochs", "20"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 300
    while not list(Path("runs").glob("small/*/spec.json")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "are finished" in err
    assert "8 runs: 1 done (0 of them before), 0 failed, 7 missing" in out


@pytest.mark.parametrize(
    ("script", "words", "runs"),
    [("sweep_k.sh", ["rte", "0 2 3", "top"], 3), ("sweep_tasks.sh", ["rte stsb", "2", "top symmetric", "1 2"], 12)],
)
def test_short_forms(study, bert, script, words, runs):
    words = ["bash", ROOT / "scripts" / script, bert, *words, *study[3:], "--plan"]
    done = subprocess.run(words, capture_output=True, text=True, env=_with_python_first())
    assert done.returncode == 0 and f"{runs} runs: 0 done, 0 failed, {runs} missing" in done.stdout, done.stderr
    done = subprocess.run(words[:4], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage:")


def _with_python_first() -> dict[str, str]:
    import os

    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
