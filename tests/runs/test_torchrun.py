"""One run over several processes."""

import os
import shutil
import subprocess
import sys

import pytest

from layerdrop.cli.command import run_command
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


FAILING = """
import os, sys, run_glue
from layerdrop.cli.command import run_command
import run_glue as steps

def fail(*args, **kwargs):
    raise ValueError("this process broke")

if os.environ["RANK"] == "1":
    steps.fine_tune = fail
sys.exit(run_command("run", sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["", "--drop_strategy top --drop_k 2 --drop_when elastic"])
def test_a_process_that_fails_takes_all_along(bert, glue, tmp_path, way):
    """Nobody waits for it, and the record says what it failed of. The second way fails in a prerequisite run."""
    (tmp_path / "failing.py").write_text(FAILING)
    flags = ["--model_name_or_path", bert, "--data_dir", glue, "--task_name", "rte", *QUICK, "--output_dir", "out"]
    flags = [word for word in flags if word != "--use_cpu"] + way.split()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "failing.py", *flags],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    (path,) = (tmp_path / "out").rglob("record.json")
    record = read_record(path.parent)
    assert done.returncode != 0 and record["status"] == "failed", done.stderr[-3000:]
    assert record["error"] == "ValueError: this process broke" and ("prior" in str(path)) == bool(way)


WATCHED = """
import json, os, sys
from layerdrop.cli.command import run_command
from layerdrop.finetune import layer_drop, theseus

def watch(kind):
    draw = kind.draw
    def told(self, step):
        drawn = draw(self, step)
        with open(f"draws{os.environ['RANK']}.txt", "a") as file:
            print(step, json.dumps(drawn), file=file)
        return drawn
    kind.draw = told

watch(layer_drop.LayerDropLoss), watch(theseus.TheseusLoss)
sys.exit(run_command("run", sys.argv[1:]))
"""


@pytest.mark.slow
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
def test_every_way_over_two_processes(bert, glue, tmp_path, way):
    """Each process draws the same layers; parameters without a gradient stop nobody."""
    (tmp_path / "watched.py").write_text(WATCHED)
    flags = ["--model_name_or_path", bert, "--data_dir", glue, "--task_name", "rte", *QUICK, "--output_dir", "out"]
    flags = [word for word in flags if word != "--use_cpu"] + ["--num_train_epochs", "1"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "watched.py"]
    done = subprocess.run(
        [*command, *flags, *way.format(teacher=bert).split()],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = read_record(tmp_path / "out")
    assert record["status"] == "success" and record["spec"]["processes"] == 2
    draws = [path.read_text() for path in sorted(tmp_path.glob("draws*.txt"))]
    assert len(draws) == (2 if "layerdrop_rate" in way or "theseus" in way else 0) and len(set(draws)) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
def test_two_processes_resume_within_an_epoch(bert, glue, tmp_path, strategy):
    """To the same bits: the rest of the second epoch is in that epoch's order."""
    flags = ["--model_name_or_path", bert, "--data_dir", glue, "--task_name", "rte", *QUICK, "--num_train_epochs", "2"]
    flags = [word for word in flags if word != "--use_cpu"] + ["--train_sampling_strategy", strategy]
    flags += ["--per_device_train_batch_size", "2", "--save_strategy", "steps", "--save_steps", "1"]
    flags += ["--save_total_limit", "99", "--resume_from_checkpoint", "auto"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

    def run_to(output):
        done = subprocess.run(
            [*command, str(ROOT / "run_glue.py"), *flags, "--output_dir", output],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return read_record(tmp_path / output)

    whole = run_to("whole")
    stop = whole["steps"] // 2 + 2
    (tmp_path / "out").mkdir()
    shutil.copy(tmp_path / "whole" / "spec.json", tmp_path / "out")
    shutil.copytree(tmp_path / "whole" / f"checkpoint-{stop}", tmp_path / "out" / f"checkpoint-{stop}")
    resumed = run_to("out")
    assert resumed["resumed_at_step"] == stop and resumed["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-5)
    for ours, theirs in zip(resumed["epochs"], whole["epochs"], strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "out"))


@pytest.mark.slow
def test_one_process_is_the_run_without_torchrun(bert, glue, tmp_path, monkeypatch):
    """To the same bits; also where a launcher has left its variables behind."""
    flags = ["--model_name_or_path", bert, "--data_dir", glue, "--task_name", "rte", *QUICK, "--num_train_epochs", "1"]
    flags = [word for word in flags if word != "--use_cpu"]
    assert run_command("run", [*flags, "--output_dir", str(tmp_path / "alone")]) == 0
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "run_glue.py", *flags, "--output_dir", str(tmp_path / "one")],
        cwd=ROOT,
        env=os.environ | variables | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, alone = read_record(tmp_path / "one"), read_record(tmp_path / "alone")
    assert one["metrics"] == alone["metrics"] and one["id"] == alone["id"]
    assert same(weights(tmp_path / "one"), weights(tmp_path / "alone"))
