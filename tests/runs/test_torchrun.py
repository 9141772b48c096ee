"""One run over several processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers.integrations import integration_utils

import run_glue
from layerdrop.cli.command import run_command
from layerdrop.finetune.layer_drop import LayerDropLoss
from layerdrop.finetune.theseus import TheseusLoss
from tests.processes import run_in_processes
from tests.running import QUICK, ROOT, read_record, same, weights


@pytest.mark.slow
def test_torchrun(bert, glue, tmp_path):
    """Two processes on the CPU: one record, the metrics of the whole validation set."""
    flags = [
        "--model_name_or_path",
        bert,
        "--data_dir",
        glue,
        "--task_name",
        "mrpc",
        "--drop_strategy",
        "contribution",
        "--drop_k",
        "2",
        *[word for word in QUICK if word != "--use_cpu"],  # where there is no GPU, that needs no saying
        "--max_eval_samples",
        "11",
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "run_glue.py"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *flags, "--output_dir", str(tmp_path / "two")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = read_record(tmp_path / "two")
    assert "1 of" not in done.stderr.split("epoch 1 of 3")[2:]  # each epoch is told once
    assert 0.3 < record["epochs"][0]["train_loss"] < 1.2  # a mean over the batch, however many processes
    assert record["status"] == "success" and record["spec"]["processes"] == 2 and done.stdout.count("status") == 1
    predictions = (tmp_path / "two" / "predictions_dev.tsv").read_text().splitlines()[1:]
    assert len(predictions) == 11
    right = sum(label == predicted for _, label, predicted in (line.split("\t") for line in predictions))
    assert record["metrics"]["accuracy"] == pytest.approx(right / 11)
    code = run_command(
        "run",
        [
            "--model_name_or_path",
            str(tmp_path / "two"),
            "--data_dir",
            glue,
            "--task_name",
            "mrpc",
            "--do_eval",
            *QUICK,
            "--max_eval_samples",
            "11",
            "--output_dir",
            str(tmp_path / "one"),
        ],
    )
    alone = read_record(tmp_path / "one")
    assert code == 0 and alone["metrics"]["accuracy"] == record["metrics"]["accuracy"]
    assert alone["metrics"]["f1"] == record["metrics"]["f1"]


def flags_of(model, glue, *more):
    """Flags of a run over several processes, which need no --use_cpu where there is no GPU."""
    flags = ["--model_name_or_path", model, "--data_dir", glue, "--task_name", "rte", *QUICK, *more]
    return [word for word in flags if word != "--use_cpu"]


@pytest.mark.parametrize("way", ["", "--drop_strategy top --drop_k 2 --drop_when elastic"])
def test_a_process_that_fails_takes_all_along(bert, glue, tmp_path, monkeypatch, way):
    """Nobody waits for it, and the record says what it failed of. The second way fails in a prerequisite run."""

    def fail(*args, **kwargs):
        raise ValueError("this process broke")

    def prepare(rank):
        if rank == 1:
            run_glue.fine_tune = fail

    monkeypatch.chdir(tmp_path)
    ended = run_in_processes(2, flags_of(bert, glue, "--output_dir", "out", *way.split()), prepare)
    (path,) = Path("out").rglob("record.json")
    record = read_record(path.parent)
    assert all(process.code for process in ended) and record["status"] == "failed", ended
    assert record["error"] == "ValueError: this process broke" and ("prior" in str(path)) == bool(way)


def watch_draws(rank):
    """Write the layers that a process draws to draws{rank}.txt, a line for each step."""

    def watch(kind):
        draw = kind.draw

        def told(self, step):
            drawn = draw(self, step)
            with open(f"draws{rank}.txt", "a") as file:
                print(step, json.dumps(drawn), file=file)
            return drawn

        kind.draw = told

    watch(LayerDropLoss)
    watch(TheseusLoss)


@pytest.mark.parametrize(
    "way",
    [
        "--layerdrop_rate 0.5",
        "--theseus --drop_strategy top --drop_k 3",
        "--drop_strategy top --drop_k 2 --drop_when gradual --drop_every_epochs 1",
        "--drop_strategy top --drop_k 2 --drop_when elastic --elastic_k 2 3 --finetune_again",
        "--drop_strategy top --drop_k 3 --teacher {teacher} --distill layers --distill_attention",
    ],
)
def test_every_way_over_two_processes(bert, glue, tmp_path, way, monkeypatch):
    """Each process draws the same layers; parameters without a gradient stop nobody.

    All runs of a command share one group: `torchrun` cannot form a second one.
    """

    def watch(rank):
        def joined(*args, **kwargs):
            with open(f"groups{rank}.txt", "a") as file:
                print("joined", file=file)
            return join(*args, **kwargs)

        join, torch.distributed.init_process_group = torch.distributed.init_process_group, joined
        watch_draws(rank)

    monkeypatch.chdir(tmp_path)
    flags = flags_of(bert, glue, "--output_dir", "out", "--num_train_epochs", "1", *way.format(teacher=bert).split())
    ended = run_in_processes(2, flags, watch)
    assert [process.code for process in ended] == [0, 0], ended
    assert [Path(f"groups{rank}.txt").read_text() for rank in (0, 1)] == ["joined\n"] * 2
    for path in Path("out").rglob("record.json"):
        assert read_record(path.parent)["spec"]["processes"] == 2 and read_record(path.parent)["status"] == "success"
    assert len(list(Path("out").rglob("record.json"))) == (5 if "elastic" in way else 1)
    record = read_record("out")
    assert record["status"] == "success" and record["spec"]["processes"] == 2
    draws = [path.read_text() for path in sorted(Path().glob("draws*.txt"))]
    assert len(draws) == (2 if "layerdrop_rate" in way or "theseus" in way else 0) and len(set(draws)) <= 1


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
def test_two_processes_resume_within_an_epoch(bert, glue, tmp_path, strategy, monkeypatch):
    """To the same bits: the rest of the second epoch is in that epoch's order."""
    monkeypatch.chdir(tmp_path)
    flags = flags_of(bert, glue, "--num_train_epochs", "2", "--train_sampling_strategy", strategy)
    flags += ["--per_device_train_batch_size", "2", "--save_strategy", "steps", "--save_steps", "1"]
    flags += ["--save_total_limit", "99", "--resume_from_checkpoint", "auto"]

    def run_to(output):
        ended = run_in_processes(2, [*flags, "--output_dir", output])
        assert [process.code for process in ended] == [0, 0], ended
        return read_record(output)

    whole = run_to("whole")
    stop = whole["steps"] // 2 + 2
    Path("out").mkdir()
    shutil.copy("whole/spec.json", "out")
    shutil.copytree(f"whole/checkpoint-{stop}", f"out/checkpoint-{stop}")
    resumed = run_to("out")
    assert resumed["resumed_at_step"] == stop and resumed["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-5)
    for ours, theirs in zip(resumed["epochs"], whole["epochs"], strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
    assert same(weights("whole"), weights("out"))


def test_one_process_is_the_run_without_torchrun(bert, glue, tmp_path, monkeypatch):
    """To the same bits; also where a launcher has left its variables behind."""
    monkeypatch.chdir(tmp_path)
    flags = flags_of(bert, glue, "--num_train_epochs", "1")
    assert run_command("run", [*flags, "--output_dir", "alone"]) == 0
    (ended,) = run_in_processes(1, [*flags, "--output_dir", "one"])
    assert ended.code == 0, ended.err
    one, alone = read_record("one"), read_record("alone")
    assert one["metrics"] == alone["metrics"] and one["id"] == alone["id"]
    assert same(weights("one"), weights("alone"))


@pytest.mark.parametrize(("way", "reported"), [("", "out"), ("--drop_when elastic --elastic_k 2", "prior")])
def test_only_the_first_process_reports(bert, glue, tmp_path, monkeypatch, way, reported):
    """To the library's own callback, with a stand-in for its writer. One training of a command is reported."""

    def prepare(rank):
        class Writer:
            def __init__(self, log_dir, filename_suffix, purge_step):
                self.add_scalar("folder", log_dir, 0)

            def add_text(self, name, text):
                """See SummaryWriter."""

            def add_scalar(self, name, value, step):
                """See SummaryWriter."""
                with open(f"reported{rank}.txt", "a") as file:
                    print(name, value, step, file=file)

            flush = close = lambda self: None

        sys.modules["tensorboardX"] = SimpleNamespace(SummaryWriter=Writer)
        integration_utils.is_tensorboard_available = lambda: True

    monkeypatch.chdir(tmp_path)
    flags = flags_of(bert, glue, "--output_dir", "out", "--max_steps", "2", *way.split())
    flags += ["--logging_strategy", "steps", "--logging_steps", "1"]
    ended = run_in_processes(2, [*flags, "--report_to", "tensorboard"], prepare)
    assert [process.code for process in ended] == [0, 0], ended
    assert [path.name for path in Path().glob("reported*.txt")] == ["reported0.txt"]
    lines = Path("reported0.txt").read_text().splitlines()
    assert [line.split()[2] for line in lines if line.startswith("train/loss ")] == ["1", "2"]
    (folder,) = [line for line in lines if line.startswith("folder ")]
    assert reported in folder.split()[1].split("/") and "runs" not in folder
