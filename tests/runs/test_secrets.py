"""No secret that is given on a command line is found in any file that a run, a sweep or a search writes."""

from pathlib import Path

import pytest

from layerdrop.cli.command import run_command
from layerdrop.cli.parsing import parse_settings
from layerdrop.sweeps.engines.worker import work
from layerdrop.sweeps.study import read_study
from run_glue import run as run_spec
from tests.running import QUICK

SECRETS = ("hf_to_read_with", "hf_to_push_with")
TOKENS = [["--token", SECRETS[0], "--hub_token", SECRETS[1]], [f"--token={SECRETS[0]}"]]
STEP = ["--max_steps", "2", "--max_train_samples", "16", "--max_eval_samples", "8"]


def holders(folder: Path) -> list[str]:
    """The files below a folder that hold a secret, compressed or not."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if any(secret.encode() in path.read_bytes() for secret in SECRETS)]


@pytest.mark.parametrize("tokens", TOKENS)
def test_a_run_with_checkpoints_and_first_runs(run, tokens, tmp_path):
    words = "--task_name rte --drop_strategy top --drop_k 2 --teacher auto --do_train --do_eval --do_predict"
    words = f"{words} --save_strategy steps --save_steps 1 {' '.join([*tokens, *STEP])}"
    done = run(words)
    assert done[0] == 0
    assert list(tmp_path.rglob("checkpoint-*/training_args.bin")) and (tmp_path / "out" / "README.md").is_file()
    assert not holders(tmp_path)
    refused = run(f"{words} --seed 2")  # the folder holds another run
    assert refused[0] == 2 and not any(secret in text for secret in SECRETS for text in (*done[2:], *refused[2:]))


def test_a_sweep(bert, glue, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("grid: {tasks: [rte, mrpc], strategies: top, k: 1}\n")
    words = ["--model_name_or_path", bert, "--data_dir", glue, *QUICK, *STEP, *TOKENS[0], "--save_model", "yes"]
    study = read_study(str(path), str(tmp_path / "store"), parse_settings, flags=words)
    broken = study.jobs[1]
    broken.options.trainer["optim"] = "nonsense"  # fails, and is recorded
    assert [work(run_spec, job).status for job in study.jobs] == ["success", "failed"]
    assert not holders(tmp_path / "store")


def test_a_search(bert, glue, tmp_path, monkeypatch, capsys):
    from tests.made_up import InProcessEngine

    monkeypatch.setattr("layerdrop.cli.engines.make_engine", lambda *rest: InProcessEngine(run_spec))
    monkeypatch.setattr("layerdrop.cli.search.find_slots", lambda args: [])
    words = ["--model_name_or_path", bert, "--task_name", "rte", "--data_dir", glue, *QUICK, *STEP, *TOKENS[0]]
    assert run_command("search", ["--max_k", "1", "--store", str(tmp_path / "store"), *words]) == 0
    out, err = capsys.readouterr()
    assert not holders(tmp_path / "store") and not any(secret in out + err for secret in SECRETS)
