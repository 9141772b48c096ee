"""Runs, predictions, searches and studies on a dataset."""

import json
import os
import signal
from pathlib import Path

import datasets
import pytest
from huggingface_hub import ModelCard

from layerdrop.cli.command import run_command
from layerdrop.finetune import interrupt
from tests.running import predictions, read_record, same, weights

SHARE = "--dataset_name reviews --validation_share 0.2 --num_train_epochs 1"
FEATURES = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])})


def write(*splits: str, label: int = 0) -> None:
    """A saved dataset in the folder `reviews`. label: class of the last row."""
    datasets.disable_progress_bars()
    rows = {"text": [f"w{i} w{i + 1}" for i in range(30)], "label": [i % 2 for i in range(29)] + [label]}
    parts = {split: datasets.Dataset.from_dict(rows, features=FEATURES) for split in splits}
    datasets.DatasetDict(parts).save_to_disk("reviews")


@pytest.fixture
def call(run, monkeypatch, tmp_path):
    """A run without --data_dir, in a folder with the dataset `reviews`."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write("train", "test")
    return lambda words, output="out": run(words, data=None, output=output)


def test_train_evaluate_predict_and_once_more(call, capsys):
    words = f"{SHARE} --do_train --do_eval --do_predict --drop_strategy top --drop_k 2"
    code, record, out, err = call(words)
    assert code == 0, err
    data = record["spec"]["data"]
    assert (data["source"], data["dataset_name"], data["validation_share"]) == ("dataset", "reviews", 0.2)
    assert data["files"] == [["train", "train"]] and record["labels"] == ["pos", "neg"]
    assert {split: rows["rows"] for split, rows in record["data"].items()} == {"train": 24, "validation": 6, "test": 30}
    note = "6 of 30 training rows are the validation set (20% of each class at random, the same for every seed)"
    assert note in err and note in record["notes"] and "task       reviews (reviews: train)" in out
    assert "labels     2 classes: pos, neg\n" in out
    assert call(words)[1] == record and "already done" in call(words)[3]

    loaded = ModelCard.load("out/README.md")
    (result,) = [r for r in loaded.data.eval_results if r.metric_type == "accuracy"]
    assert (result.dataset_name, result.dataset_split) == ("reviews", "train") and loaded.data.datasets is None
    assert result.dataset_args == {"validation_share": 0.2} and "20% of the training set, which" in loaded.content

    assert run_command("predict", ["out", "--dataset_name", "reviews"]) == 0
    shown = [line.split("\t")[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert shown == predictions("out/predictions_test.tsv") and len(shown) == 30
    assert run_command("predict", ["out", "--dataset_name", "reviews", "--test_split", "train[:3]"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert run_command("export", ["out"]) == 0 and "of 6 predictions differ" in capsys.readouterr().err


def test_other_rows_are_another_run(call):
    assert call(SHARE)[0] == 0
    write("train", "test", label=1)
    code, _, _, err = call(SHARE)
    assert code == 2 and "train" in err and "--overwrite_output_dir" in err


def test_the_command_on_the_card_repeats_the_run(call):
    words = "--dataset_name reviews --train_split train[5:] --validation_split test --max_steps 1 --label_type class"
    code, record, _, err = call(words)
    assert code == 0, err
    line = next(line for line in Path("out/README.md").read_text().splitlines() if line.startswith("layerdrop run"))
    code, again, _, err = call(line.removeprefix("layerdrop run ").replace("'", ""), output="again")
    assert code == 0 and again["id"] == record["id"], err


def test_resumed_is_bit_identical(call, monkeypatch):
    assert call(SHARE, output="whole")[0] == 0
    usual = interrupt.Interrupt.on_step_end

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        usual(self, args, state, control, **kwargs)

    monkeypatch.setattr(interrupt.Interrupt, "on_step_end", stop)
    assert call(SHARE)[0] == 130
    monkeypatch.setattr(interrupt.Interrupt, "on_step_end", usual)
    code, record, _, err = call(f"{SHARE} --resume_from_checkpoint")
    assert code == 0 and record["resumed_at_step"] == 2, err
    assert same(weights("whole"), weights("out")) and record["metrics"] == read_record("whole")["metrics"]


def test_a_search_holds_rows_out_of_the_rest(call, bert, capsys, in_process):
    words = ["--model_name_or_path", bert, *SHARE.split(), "--use_cpu", "--precision", "fp32", "--max_steps", "1"]
    assert run_command("search", [*words, "--max_k", "1", "--hold_out", "0.25", "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert "6 of 30 training rows are the validation set" in err and "6 of 24 training rows are held out" in err
    (last,) = [line for line in out.splitlines() if line.startswith("layerdrop run")]
    assert "--validation_share 0.2" in last and "--hold_out" not in last and "--validation_file" not in out
    records = [json.loads(path.read_text()) for path in Path("runs/search").glob("*/record.json")]
    assert {record["data"]["train"]["rows"] for record in records} == {18} and len(records) == 6
    code, record, _, err = call(last.removeprefix("layerdrop run "))
    assert code == 0 and record["data"]["validation"]["rows"] == 6, err


def test_a_study_and_its_report(call, bert, capsys, in_process):
    settings = {"model_name_or_path": bert, "use_cpu": True, "precision": "fp32", "max_steps": 1}
    grid = {"dataset_name": ["reviews"], "validation_share": [0.2, 0.3], "strategies": ["top"], "k": [2]}
    Path("study.yaml").write_text(json.dumps({"settings": settings, "grid": grid}))
    assert run_command("sweep", ["study.yaml", "--store", "runs/study", "--workers", "1"]) == 0
    assert run_command("sweep", ["study.yaml", "--store", "runs/study", "--workers", "1"]) == 0
    assert "2 done (2 of them before)" in capsys.readouterr().out
    assert run_command("report", ["runs/study"]) == 0
    table = capsys.readouterr().out
    assert "reviews (validation_share 0.2)" in table and "reviews (validation_share 0.3)" in table


def test_layers_of_a_run_and_choose_k(call, bert, capsys, in_process):
    assert call(f"{SHARE} --save_model yes")[0] == 0
    capsys.readouterr()
    assert run_command("layers", ["scores", "--models", "out", "--criteria", "cka"]) == 0
    assert "24 texts of train" in capsys.readouterr().out
    words = ["--model_name_or_path", bert, *SHARE.split(), "--use_cpu", "--precision", "fp32", "--max_steps", "1"]
    assert run_command("choose-k", [*words, "--k", "2", "--drop_strategy", "top", "--workers", "1"]) == 0
    assert "| reviews" in capsys.readouterr().out
    several = ["--tasks", "rte", "mrpc", *SHARE.split(), "--drop_strategy", "top"]
    assert run_command("choose-k", several) == 2 and "own data are one task" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--dataset_name reviews", "--validation_split validation: reviews has no such split. Name one"),
        ("--dataset_name reviews --validation_split test --label_column x", "has no column x. Name one of its columns"),
        ("--dataset_name nowhere/nothing --validation_share 0.1", "--dataset_name nowhere/nothing: no such folder"),
        ("--dataset_name reviews --validation_share 0.001", "--validation_share 0.001: the training set has 30 rows"),
    ],
)
def test_bad_input_is_one_line(call, words, message, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    code, _, _, err = call(words)
    errors = [line for line in err.splitlines() if not line.startswith("note:")]
    assert code == 2 and len(errors) == 1 and message in errors[0] and not Path("out").exists()


def test_export_of_a_moved_dataset(call, capsys):
    assert call(SHARE)[0] == 0
    os.rename("reviews", "moved")
    capsys.readouterr()
    assert run_command("export", ["out", "--validation_file", "x"]) == 2
    assert "--validation_file x: the run in out does not read it" in capsys.readouterr().err
    assert run_command("export", ["out", "--dataset_name", "moved"]) == 0
