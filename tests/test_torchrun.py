"""One run over several processes."""

import os
import subprocess
import sys

import pytest

import run_glue
from tests.running import QUICK, ROOT, read_record


@pytest.mark.slow
def test_torchrun(bert, glue, tmp_path):
    """Two processes on the CPU: one record, the metrics of the whole development set."""
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
    code = run_glue.main(
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
        ]
    )
    alone = read_record(tmp_path / "one")
    assert code == 0 and alone["metrics"]["accuracy"] == record["metrics"]["accuracy"]
    assert alone["metrics"]["f1"] == record["metrics"]["f1"]


FAILING = """
import os, sys, run_glue
from layerdrop import steps

def fail(*args, **kwargs):
    raise ValueError("this process broke")

if os.environ["RANK"] == "1":
    steps.train = fail
sys.exit(run_glue.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_process_that_fails_takes_all_along(bert, glue, tmp_path):
    """Nobody waits for it, and the record says what it failed of."""
    (tmp_path / "failing.py").write_text(FAILING)
    flags = ["--model_name_or_path", bert, "--data_dir", glue, "--task_name", "rte", *QUICK, "--output_dir", "out"]
    flags = [word for word in flags if word != "--use_cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "failing.py", *flags],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    record = read_record(tmp_path / "out")
    assert done.returncode != 0 and record["status"] == "failed", done.stderr[-3000:]
    assert record["error"] == "ValueError: this process broke"
