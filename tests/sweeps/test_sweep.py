"""layerdrop sweep: with real runs on small models where it matters, else with runs that only pretend."""

import csv
import io
import os
import signal
import subprocess
import time
from pathlib import Path

import datasets
import pytest
import torch

import run_glue
from layerdrop.cli.command import run_command
from layerdrop.runs.record import RunRecord, read_record
from tests.made_up import MadeUp
from tests.processes import Forked, start_command
from tests.sweeping import pretend_slowly

ROOT = Path(__file__).parent.parent.parent
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
    assert run_command("sweep", [*study, "--plan"]) == 0
    out = capsys.readouterr().out
    assert "8 runs: 0 done, 0 failed, 8 missing, 2 impossible" in out and "K = 2 or 4" in out
    assert not Path("runs").exists()

    (bad := Path("bad")).mkdir()
    words = ["--data_dir", str(bad), "--tasks", "rte", "--k", "0"]
    code, out, err = start_command("sweep", [*study, *words]).wait()
    # data that is not there is said once, before the run starts
    assert code == 2 and not out and err.count("\n") == 1 and "cannot read bad/train.tsv" in err
    assert not Path("runs").exists()

    code, out, err = start_command("sweep", study).wait()
    assert code == 0 and "8 runs: 8 done (0 of them before), 0 failed" in out and err.count("done  ") == 8
    records = [read_record(path.parent) for path in Path("runs/small").glob("*/record.json")]
    done = [record for record in records if record.status == "success"]
    assert {(r.spec.data.task, r.spec.drop.strategy, r.spec.drop.k) for r in done} == {
        (task, *how) for task in ("rte", "stsb") for how in ((None, None), ("top", 2), ("top", 3), ("symmetric", 2))
    }
    assert run_command("sweep", study) == 0 and "8 done (8 of them before)" in capsys.readouterr().out

    # a worker that has done others before gives what a fresh process gives
    last = next(r for r in done if (r.spec.data.task, r.spec.drop.strategy) == ("stsb", "symmetric"))
    words = "--task_name stsb --drop_strategy symmetric --drop_k 2 --seed 1 --num_train_epochs 1 --output_dir alone"
    quick = "--use_cpu --precision fp32 --per_device_train_batch_size 8 --save_model no"
    threads = torch.get_num_threads()
    torch.set_num_threads(last.environment["threads"])  # another number of them adds up in another order
    try:
        assert (
            run_command("run", ["--model_name_or_path", bert, "--data_dir", glue, *quick.split(), *words.split()]) == 0
        )
    finally:
        torch.set_num_threads(threads)
    alone = read_record("alone")
    assert alone.id == last.id and alone.metrics == last.metrics and alone.epochs == last.epochs


def test_a_study_of_a_cut_checkpoint(study, bert, capsys):
    """K counts the layers that a run drops further. Ids count in the original model."""
    assert run_command("cut", [bert, "--drop_layers", "1,3", "--output_dir", "cut"]) == 0
    words = ["--models", "cut", bert, "--tasks", "rte", "--strategies", "top", "--k", "0", "2", "--max_steps", "1"]
    code, _, err = start_command("sweep", [*study, *words]).wait()
    assert code == 0, err
    records = [read_record(path.parent) for path in Path("runs/small").glob("*/record.json")]
    kept = {(record.spec.model.name, record.spec.drop.k or 0): record.kept for record in records}
    assert kept == {("cut", 0): [0, 2, 4, 5], ("cut", 2): [0, 2], (bert, 0): [*range(6)], (bert, 2): [0, 1, 2, 3]}
    capsys.readouterr()
    assert run_command("report", ["runs/small", "--format", "csv", "--table", "tasks"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {(row["model"], row["k"]) for row in rows} == {(model, str(k)) for model, k in kept}


def test_datasets_and_label_types_reach_spawned_workers(bert, tmp_path, monkeypatch, capsys):
    """Each kind of labels, from files and from a dataset with class names, in a worker that imports everything anew."""
    monkeypatch.chdir(tmp_path)
    words, tags, sets = [["w1", "w2"], ["w3", "w4"]] * 4, [[0, 1], [0, 0]] * 4, [[0], [0, 1]] * 4
    names = datasets.List(datasets.ClassLabel(names=["O", "B-a"]))
    columns = {"tokens": datasets.List(datasets.Value("string")), "ner_tags": names}
    saved = datasets.Dataset.from_dict({"tokens": words, "ner_tags": tags}, datasets.Features(columns))
    datasets.DatasetDict(train=saved, validation=saved).save_to_disk("tagged")
    columns = {"text": datasets.Value("string"), "label": names}
    saved = datasets.Dataset.from_dict({"text": ["w1", "w2"] * 4, "label": sets}, datasets.Features(columns))
    datasets.DatasetDict(train=saved).save_to_disk("sets")
    Path("x.csv").write_text("text,label\n" + "w1 w2,a;b\nw3,\nw4 w5,b\n" * 3)
    Path("x.txt").write_text("w1 B-a\nw2 O\n\nw3 O\n\n" * 4)
    Path("values.csv").write_text("text,label\n" + "w1 w2,1.5\nw3,2.5\nw4 w5,0.5\n" * 3)
    Path("s.yaml").write_text("""
settings: {precision: fp32, max_steps: 1}
grid:
  - {dataset_name: tagged}
  - {dataset_name: sets, validation_share: 0.25}
  - {train_file: x.csv, validation_file: x.csv, label_separator: ;}
  - {train_file: x.txt, validation_file: x.txt, label_type: token}
  - {train_file: values.csv, validation_file: values.csv}
""")
    shared = ["--models", bert, "--strategies", "top", "--k", "2", "--seeds", "1", "--use_cpu", "--workers", "1"]
    assert run_command("sweep", ["s.yaml", *shared]) == 0, capsys.readouterr().err
    records = [read_record(path.parent) for path in Path("runs/s").glob("*/record.json")]
    kinds = {(record.spec.data.task, record.task.kind.label_type, record.task.labels) for record in records}
    assert kinds == {
        ("tagged", "token", ("O", "B-a")),
        ("sets", "multi", ("O", "B-a")),
        ("x", "multi", ("a", "b")),
        ("x", "token", ("B-a", "O")),
        ("values", "number", ()),
    }
    assert run_command("sweep", ["s.yaml", *shared, "--plan"]) == 0 and "5 done" in capsys.readouterr().out


def test_an_unreadable_record_is_said_and_stays(study, capsys, monkeypatch):
    def success(job):
        return RunRecord(job.spec, job.options.folder, "success", metrics={"accuracy": 0.5})

    monkeypatch.setattr("layerdrop.cli.engines.make_engine", lambda *args: MadeUp(success))
    words = [*study, "--tasks", "rte", "--k", "0", "--strategies", "top"]
    assert run_command("sweep", words) == 0
    (path,) = Path("runs").glob("small/*/record.json")
    path.write_bytes(b"\xff[")
    assert run_command("sweep", [*words, "--plan"]) == 0
    out, err = capsys.readouterr()
    assert "Move the file away" in out and "note:" not in err and "1 missing" in out
    assert run_command("sweep", words) == 2 and path.read_bytes() == b"\xff["
    assert "holds record.json. This run did not write it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.yaml"], "none.yaml: cannot read"),
        (["--workers", "0"], "--workers 0: must be 1 or more"),
        (["--strategys", "top"], "--strategys: no such flag. Did you mean --strategies?"),
        (["--strategy", "top"], "Did you mean --strategies?"),
        (["--learning_rat", "1"], "Did you mean --learning_rate"),
        (["--tasks", "rto"], "Did you mean 'rte'"),
        (["--engine", "ray"], "give --precision"),
        (["--dry_run"], "Use --plan to list the runs of the study"),
        (["--output_dir", "x"], "Use --store"),
        (["--json"], "error: --json"),
        (["--overwrite_output_dir"], "error: --overwrite_output_dir"),
        (["--resume_from_checkpoint", "last"], "error: --resume_from_checkpoint"),
    ],
)
def test_wrong_words(study, words, said, capsys):
    words = words + study[1:] if words[0].endswith(".yaml") else [*study, *words]
    if "--engine" in words:
        Path("small.yaml").write_text(STUDY.replace("precision: fp32, ", ""))
    assert run_command("sweep", words) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1


def test_ctrl_c_finishes_what_is_in_flight(study, monkeypatch):
    monkeypatch.setattr(run_glue, "run", pretend_slowly)
    process = Forked(lambda: run_command("sweep", study))
    end = time.monotonic() + 100
    while not list(Path("runs").glob("small/*/began")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    code, out, err = process.wait()
    assert code == 130 and "finishing the running runs" in err, err
    assert "8 runs: 1 done (0 of them before), 0 failed, 7 missing" in out
    assert "[1/8] done" in err  # nothing is left of a sweep that stops


@pytest.mark.parametrize(
    ("script", "words", "runs"),
    [("sweep_k.sh", ["rte", "0 2 3", "top"], 3), ("sweep_tasks.sh", ["rte stsb", "2", "top symmetric", "1 2"], 12)],
)
def test_short_forms(study, bert, tmp_path, monkeypatch, capsys, script, words, runs):
    """The words that a script gives to `layerdrop` plan so many runs."""
    (tmp_path / "layerdrop").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "layerdrop").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    words = ["bash", ROOT / "scripts" / script, bert, *words, *study[3:], "--plan"]
    done = subprocess.run(words, capture_output=True, text=True)
    name, *given = done.stdout.splitlines()
    assert done.returncode == 0 and run_command(name, given) == 0, done.stderr
    assert f"{runs} runs: 0 done, 0 failed, {runs} missing" in capsys.readouterr().out
    done = subprocess.run(words[:4], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage:")
