"""The whole script on small models and artificial tasks."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import run_glue
from layerdrop.cli.command import run_command
from layerdrop.data.tasks import TASKS
from layerdrop.finetune import evaluate as module
from layerdrop.runs.results import RESULT_FILES
from layerdrop.system import process
from tests import tiny
from tests.running import ROOT, read_record, same, weights, write_table


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task(run, name):
    code, record, out, err = run(f"--task_name {name} --drop_strategy top --drop_k 4 --do_train --do_eval --do_predict")
    task = TASKS[name]
    assert code == 0, err
    assert record["status"] == "success" and record["error"] is None
    assert (record["n_layers"], record["dropped"], record["kept"]) == (6, [2, 3, 4, 5], [0, 1])
    prefixes = ["matched_", "mismatched_"] if name == "mnli" else [""]
    assert set(record["metrics"]) == {prefix + metric for prefix in prefixes for metric in (*task.metrics, "loss")}
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2, 3]
    assert all(set(epoch) == {"step", "epoch", "train_loss", *record["metrics"]} for epoch in record["epochs"])
    assert {name: record["epochs"][-1][name] for name in record["metrics"]} == record["metrics"]
    stages = {"load", "read", "select", "tokenize", "train", "evaluate", "inference", "predict", "total"}
    assert stages == set(record["seconds"])
    assert record["parameters_after"] < record["parameters_before"] and record["tokens_per_second"] > 0
    assert "status     success" in out and "success" in out
    for suffix in task.suffixes:
        predictions = Path("out", f"predictions_dev{suffix}.tsv").read_text().splitlines()
        assert len(predictions) == 13
        submission = Path("out", task.folder + {"": "", "_matched": "-m", "_mismatched": "-mm"}[suffix] + ".tsv")
        rows = [line.split("\t") for line in submission.read_text().splitlines()]
        assert rows[0] == ["index", "prediction"] and [row[0] for row in rows[1:]] == [str(i) for i in range(12)]
        assert not task.words or {row[1] for row in rows[1:]} <= set(task.words)


@pytest.mark.parametrize("words", ["", "--train_sampling_strategy random"])
def test_predictions_are_in_the_order_of_the_rows(run, words):
    """Row by row what the saved model says of that row, for the validation and the test set."""
    texts = [" ".join(tiny.WORDS[i % 50 : i % 50 + 1 + (7 * i) % 11]) for i in range(90)]
    labels = [str(int(i % 50 < 25)) for i in range(90)]
    write_table(Path("own.tsv"), ("text", "label"), zip(texts, labels, strict=True))
    write_table(Path("test.tsv"), ("text",), zip(texts[::-1]))
    code, record, _, err = run(
        "--train_file own.tsv --validation_file own.tsv --test_file test.tsv --do_train --do_eval --do_predict "
        f"--per_device_eval_batch_size 2 --learning_rate 2e-3 --num_train_epochs 3 {words}",
        data=None,
    )
    assert code == 0, err
    model, tokenizer = (kind.from_pretrained("out") for kind in (AutoModelForSequenceClassification, AutoTokenizer))
    with torch.no_grad():
        expected = [str(int(model(**tokenizer(t, return_tensors="pt")).logits.argmax())) for t in texts]
    rows = [line.split("\t") for line in Path("out/predictions_dev.tsv").read_text().splitlines()[1:]]
    assert len(set(expected)) == 2 and [row[2] for row in rows] == expected and [row[1] for row in rows] == labels
    assert record["metrics"]["accuracy"] == sum(a == b for a, b in zip(expected, labels, strict=True)) / 90
    rows = [line.split("\t") for line in Path("out/predictions_test.tsv").read_text().splitlines()[1:]]
    assert [row[1] for row in rows] == expected[::-1]


@pytest.mark.parametrize("model_type", ["roberta", "distilbert", "xlnet", "albert"])
def test_families(run, tmp_path, model_type):
    model = tiny.save(tmp_path / "model", model_type)
    code, record, out, err = run("--task_name rte --drop_strategy contribution --drop_k 2", model)
    assert code == 0, err
    assert len(record["scores"]) == 6 and len(record["dropped"]) == 2
    shared = model_type == "albert"
    assert (record["parameters_after"] == record["parameters_before"]) == shared
    assert ("all strategies give the same model" in err) == shared
    again = AutoModelForSequenceClassification.from_pretrained("out")
    assert again.config.num_hidden_layers == 4 and again.num_parameters() == record["parameters_after"]
    assert AutoTokenizer.from_pretrained("out").padding_side == ("left" if model_type == "xlnet" else "right")


@pytest.mark.parametrize(
    ("words", "dropped"),
    [
        ("--drop_strategy bottom --drop_k 2", [0, 1]),
        ("--drop_strategy symmetric --drop_k 2", [2, 3]),
        ("--drop_strategy odd-alternate --drop_k 2", [2, 4]),
        ("--drop_strategy even-alternate --drop_k 2", [3, 5]),
        ("--drop_layers 5,1", [1, 5]),
        ("--remove_layers 5,1", [1, 5]),
        ("--drop_strategy greedy --drop_order_file order.txt --drop_k 2", [1, 4]),
        ("--drop_strategy optimal --drop_order_file sets.txt --drop_k 2", [0, 3]),
        ("--drop_strategy contribution --drop_threshold 1", []),
    ],
)
def test_dry_run_of_every_strategy(run, words, dropped):
    Path("order.txt").write_text("4\n1\n0\n")
    Path("sets.txt").write_text("4\n0-3\n")
    code, _, out, err = run(f"{words} --task_name rte --dry_run --json")
    record = json.loads(out)
    assert code == 0 and record["dropped"] == dropped and record["status"] == "dry_run"
    assert record["kept"] == [i for i in range(6) if i not in dropped]
    assert set(record) >= tiny.RECORD_KEYS
    assert not Path("out").exists()


def test_dry_run_needs_neither_data_nor_weights(run, tmp_path):
    tiny.config("bert").save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    code, _, out, _ = run("--drop_strategy top --drop_k 2 --dry_run", str(tmp_path / "model"), data=None)
    assert code == 0 and "4, 5 (2 of 6 layers)" in out and "->" in out


@pytest.mark.parametrize("strategy", ["variance", "aggregation", "contribution"])
def test_scores_on_another_checkpoint(run, tmp_path, strategy):
    other = tiny.save(tmp_path / "other", seed=5)
    words = f"--task_name rte --drop_strategy {strategy} --drop_k 2 --dry_run --json"
    own, others = (json.loads(run(words + more)[2]) for more in ("", f" --score_on {other}"))
    direct = json.loads(run(words, model=other)[2])
    assert others["scores"] == direct["scores"] != own["scores"] and others["dropped"] == direct["dropped"]
    small = tiny.save(tmp_path / "small", num_hidden_layers=3)
    code, _, _, err = run(f"{words} --score_on {small}")
    assert code == 2 and "has 3 layers, the model 6" in err


def test_published_greedy_order_by_model_and_task(run, tmp_path):
    model = tiny.save(tmp_path / "bert-base-uncased", num_hidden_layers=12)
    code, _, out, _ = run("--task_name rte --drop_strategy greedy --drop_k 3 --dry_run --json", model)
    assert code == 0 and json.loads(out)["dropped"] == [0, 5, 7]


def test_same_seed_same_result_and_same_head(run):
    run("--task_name rte --drop_strategy top --drop_k 2", output="a")
    run("--task_name rte --drop_strategy top --drop_k 2", output="b")
    run("--task_name rte --drop_strategy top --drop_k 2 --seed 1", output="c")
    assert same(weights("a"), weights("b")) and not same(weights("a"), weights("c"))
    records = [read_record(name) for name in "ab"]
    assert records[0]["metrics"] == records[1]["metrics"] and records[0]["id"] == records[1]["id"]


def test_a_new_head_follows_the_seed_and_not_what_is_dropped(run, bert, tmp_path):
    """Also where something else has drawn random numbers before."""
    AutoModelForSequenceClassification.from_pretrained(bert).base_model.save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    heads = []
    for i, words in enumerate(("", "--drop_strategy top --drop_k 3", "--seed 1")):
        torch.rand(i + 1)
        code, *_ = run(
            f"--task_name rte --max_steps 1 --learning_rate 0 {words}", str(tmp_path / "base"), output=str(i)
        )
        assert code == 0
        heads.append(weights(str(i))["classifier.weight"])
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_how_often_is_evaluated_logged_or_saved_changes_nothing(run):
    ids, metrics = [], []
    for name, words in (
        ("a", ""),
        ("b", "--eval_strategy no"),
        ("c", "--eval_strategy steps --eval_steps 2 --save_strategy no"),
        ("d", "--logging_strategy steps --logging_steps 1 --per_device_eval_batch_size 5"),
    ):
        _, record, _, _ = run("--task_name rte --learning_rate 1e-3 " + words, output=name)
        ids.append(record["id"])
        metrics.append(record["metrics"])
    assert len(set(ids)) == 1
    assert all(these == pytest.approx(metrics[0]) for these in metrics)  # of the final model
    assert all(same(weights("a"), weights(name)) for name in "bcd")


def test_evaluation_alone_gives_what_training_reported(run, bert):
    _, trained, _, _ = run("--task_name mrpc --drop_strategy symmetric --drop_k 2", output="trained")
    code, record, _, err = run("--task_name mrpc --do_eval", "trained", output="evaluated")
    assert code == 0 and record["metrics"] == trained["metrics"]
    assert (record["n_layers"], record["dropped"], record["dropped_before"]) == (6, [2, 3], [2, 3])
    assert "4 of 6 layers: it was already reduced" in err
    files = [Path(name, "predictions_dev.tsv").read_text() for name in ("trained", "evaluated")]
    assert files[0] == files[1]
    assert not Path("evaluated", "model.safetensors").exists()


def test_evaluation_alone_honours_the_drop_flags(run):
    run("--task_name rte", output="full")
    code, record, _, _ = run("--task_name rte --do_eval --drop_strategy top --drop_k 3", "full", output="dropped")
    assert code == 0 and record["dropped"] == [3, 4, 5]
    code, record, _, _ = run("--task_name rte --do_eval --drop_strategy bottom --drop_k 1", "full", output="other")
    assert record["dropped"] == [0]


def test_untrained_head_is_said(run, bert, tmp_path):
    AutoModelForSequenceClassification.from_pretrained(bert).base_model.save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    code, record, _, err = run("--task_name rte --do_eval", str(tmp_path / "base"))
    assert code == 0 and "this run does not train them" in err and "the checkpoint lacks" in record["notes"][-1]


def test_a_head_that_does_not_fit_is_replaced_by_training_alone(run, tmp_path):
    three = tiny.save(tmp_path / "three", num_labels=3)
    code, record, _, err = run("--task_name rte --do_eval", three)
    assert code == 2 and record is None and "gives 3 classes, the task has 2 classes" in err, err
    assert run("--task_name rte --max_steps 1", three)[0] == 0


def test_from_scratch(run, bert):
    words = "--task_name rte --drop_strategy top --drop_k 2 --from_scratch"
    code, record, out, _ = run(f"{words} --num_train_epochs 0.1 --learning_rate 0")
    _, *rows = Path("out/predictions_dev.tsv").read_text().splitlines()
    assert record["distinct_predictions"] == {"validation": len({row.split("\t")[2] for row in rows})}
    assert ("the same prediction" in out) == (record["distinct_predictions"]["validation"] == 1)
    assert code == 0 and record["kept"] == [0, 1, 2, 3] and record["spec"]["model"]["from_scratch"]
    pretrained, trained = load_file(Path(bert) / "model.safetensors"), weights("out")
    assert trained.keys() == {name for name in pretrained if ".layer.4" not in name and ".layer.5" not in name}
    matrices = [name for name in trained if trained[name].dim() == 2]
    assert not any(torch.equal(trained[name], pretrained[name]) for name in matrices)
    assert {round(float(trained[name].std()), 2) for name in matrices} == {0.02}  # BERT's own initialisation
    code, _, _, _ = run(words, output=None)
    assert code == 0 and Path("runs/tinybert_rte_top_k2_scratch_seed42/record.json").exists()


def test_without_the_model(run):
    code, record, _, _ = run("--task_name rte --save_model no")
    assert code == 0 and {path.name for path in Path("out").iterdir()} == {
        *("spec.json", "record.json", "predictions_dev.tsv", ".lock", *RESULT_FILES)
    }
    code, again, _, err = run("--task_name rte")
    assert code == 2 and again == record and "its model was not kept, so README.md, the model cannot be written" in err


def test_labels_in_the_checkpoints_own_order(run, tmp_path):
    """A checkpoint whose labels have another order, not its own inverse, scores and learns what it would with ours."""
    order = [2, 0, 1]
    names = ["entailment", "neutral", "contradiction"]
    ordinary, turned = tiny.model("bert", num_labels=3), tiny.model("bert", num_labels=3)
    ordinary.config.id2label = dict(enumerate(names))
    turned.config.id2label = {i: names[task].upper() for i, task in enumerate(order)}
    with torch.no_grad():
        for parameter in turned.classifier.parameters():
            parameter.copy_(parameter[order].clone())
    for name, model in (("ordinary", ordinary), ("turned", turned)):
        model.save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
    results = [
        run("--task_name mnli --do_eval", str(tmp_path / name), output=f"{name}_out") for name in ("ordinary", "turned")
    ]
    metrics = [record["metrics"] for _, record, _, _ in results]
    assert metrics[0].keys() == metrics[1].keys() and metrics[0] == pytest.approx(metrics[1])
    assert "checkpoint's order of labels" in results[1][3] and "order of labels" not in results[0][3]
    files = [Path(f"{name}_out", "predictions_dev_matched.tsv").read_text() for name in ("ordinary", "turned")]
    assert files[0] == files[1]
    trained = [
        run("--task_name mnli --max_steps 4", str(tmp_path / name), output=f"{name}_trained")[1]["metrics"]
        for name in ("ordinary", "turned")
    ]
    assert trained[0] == pytest.approx(trained[1], abs=1e-5)
    saved = AutoModelForSequenceClassification.from_pretrained("turned_trained").config.id2label
    assert list(saved.values()) == ["contradiction", "entailment", "neutral"]


def test_labels_of_other_names_are_noted(run, tmp_path):
    """Notes on the heads of the model, the teacher and the scored model. A head that is not used has no note."""
    flags = "--task_name sst2 --dry_run --drop_strategy loss-drop --drop_k 1"
    names = {0: "POS", 1: "NEG"}
    turned = tiny.save(tmp_path / "turned", id2label=names, label2id={name: i for i, name in names.items()})
    three = tiny.save(tmp_path / "three", num_labels=3)
    how = "POS counts as negative, NEG counts as positive"
    _, _, _, err = run(flags, turned, output=None)
    assert f"turned: its labels differ from those of sst2: {how}" in err
    assert f"scores are measured with the checkpoint's classifier ({how})" in err
    _, _, _, err = run(f"{flags} --score_on {turned}", output=None)
    assert "its labels" not in err and f"classifier ({how})" in err
    assert "its labels" not in run("--task_name sst2 --dry_run --drop_strategy top --drop_k 1", three, output=None)[3]

    (tmp_path / "mine.csv").write_text("text,label\nw1,neg\nw2,pos\n")
    flags = f"--train_file {tmp_path}/mine.csv --validation_file {tmp_path}/mine.csv --dry_run"
    _, _, _, err = run(f"{flags} --teacher {tiny.save(tmp_path / 'plain')}", three, data=None, output=None)
    assert "plain: its labels differ from those of mine: LABEL_0 counts as neg, LABEL_1 counts as pos" in err


def test_seconds_of_inference_are_those_of_the_last_pass(run, monkeypatch):
    """Those of all passes are `evaluate`, and are in no other stage."""
    usual = module.evaluate

    def ten_seconds(*args, **kwargs):
        return dataclasses.replace(usual(*args, **kwargs), seconds=10.0)

    monkeypatch.setattr(module, "evaluate", ten_seconds)
    seconds = run("--task_name mnli")[1]["seconds"]
    assert seconds["inference"] == 20 and seconds["evaluate"] == 60  # two splits, three epochs


def test_speed_ups_are_on_unless_plain(run, monkeypatch):
    """In training and in evaluation; and each way gives the same scores up to chance."""
    seen = []
    usual = run_glue.speedups

    def spy(*args, **kwargs):
        seen.append((kwargs["train"], kwargs["no_speedups"], kwargs.get("used_ids") is not None))
        return usual(*args, **kwargs)

    monkeypatch.setattr(run_glue, "speedups", spy)
    ids = []
    for words, plain in (("", False), (" --no_speedups", True)):
        seen.clear()
        code, record, _, _ = run("--task_name rte --do_train --do_eval --do_predict" + words, output=f"out{plain}")
        assert code == 0 and seen == [(True, plain, True), (False, plain, False)]
        ids.append(record["id"])
    assert ids[0] != ids[1]


def test_freezing(run, bert):
    code, _, _, err = run("--task_name rte --drop_strategy bottom --drop_k 2 --freeze_layers 2,3 --freeze_embeddings")
    assert code == 0, err
    before, after = weights(bert), weights("out")
    changed = {name for name, value in after.items() if name in before and not torch.equal(value, before[name])}
    layer = "bert.encoder.layer.{}.output.dense.weight"
    assert not any(
        "embeddings" in name or ".layer.0." in name or ".layer.1." in name
        for name in changed
        - {
            n
            for n in changed
            if ".layer.0." in n
            and torch.equal(after[n], before[n.replace("layer.0", "layer.2")])
            or ".layer.1." in n
            and torch.equal(after[n], before[n.replace("layer.1", "layer.3")])
        }
    )
    assert torch.equal(after[layer.format(0)], before[layer.format(2)])
    assert not torch.equal(after[layer.format(2)], before[layer.format(4)])
    code, _, _, err = run("--task_name rte --drop_strategy bottom --drop_k 2 --freeze_layers 0", output="no")
    assert code == 2 and "layer 0 is not kept. Kept: 2, 3, 4, 5" in err and not Path("no").exists()


def test_own_files(run, tmp_path):
    lines = [f'"w{i} w{i + 1}",{"good" if i % 2 else "bad"}\n' for i in range(20)]
    for name in ("train", "dev", "test"):
        Path(f"{name}.csv").write_text("text,label\n" + "".join(lines[name == "train" :]))
    words = "--train_file train.csv --validation_file dev.csv --test_file test.csv --drop_layers 1"
    words += " --do_train --do_eval --do_predict"
    code, record, _, err = run(words, data=None)
    assert code == 0, err
    note = "19 of 20 validation rows have texts that are also in the training set, so scores may be too high"
    assert note in record["notes"] and note in Path("out/README.md").read_text() and err.count(note) == 1
    assert (
        set(record["metrics"]) == {"accuracy", "f1", "f1_macro", "loss"}
        and record["spec"]["data"]["task"] == tmp_path.name
    )
    assert {line.split("\t")[1] for line in Path("out/predictions_test.tsv").read_text().splitlines()[1:]} <= {
        "good",
        "bad",
    }
    assert AutoModelForSequenceClassification.from_pretrained("out").config.id2label == {0: "bad", 1: "good"}
    code, again, _, _ = run("--validation_file dev.csv --do_eval", "out", data=None, output="eval")
    assert code == 0 and again["metrics"] == record["metrics"]


def test_validation_texts_of_unknown_tokens_are_noted(run):
    """The cause of the same prediction for every row."""
    Path("train.csv").write_text("text,label\n" + "w1 w2,good\nw3,bad\n" * 4)
    Path("dev.csv").write_text("text,label\n" + "neue Worte,good\nalte Worte,bad\n" * 4)
    code, record, out, err = run("--train_file train.csv --validation_file dev.csv --max_steps 1", data=None)
    assert code == 0 and "the same prediction for every row of validation" in out, err
    note = "100% of the tokens of validation are unknown to the tokenizer ([UNK]), so predictions hardly depend on"
    assert err.count(note) == 1 and any(text.startswith(note) for text in record["notes"])


def test_bad_rows_stop_or_are_counted(run, tmp_path):
    folder = tiny.glue(tmp_path / "data", "rte")
    path = folder / "RTE" / "train.tsv"
    path.write_text(path.read_text() + "25\tw1\tentailment\n")
    code, record, _, err = run("--task_name rte", data=str(folder))
    assert (
        code == 2
        and "train.tsv:26: 3 columns instead of 4" in err
        and "Traceback" not in err
        and not Path("out").exists()
    )
    code, record, _, err = run("--task_name rte --skip_bad_rows", data=str(folder))
    assert (
        code == 0 and "1 malformed row of train left out: line 26" in err and record["data"]["train"]["bad_rows"] == 1
    )


def test_label_smoothing_of_values_is_said_to_do_nothing(run):
    said = "--label_smoothing_factor has no effect on stsb"
    assert said in run("--task_name stsb --max_steps 1 --label_smoothing_factor 0.1", output="a")[3]
    assert said not in run("--task_name rte --max_steps 1 --label_smoothing_factor 0.1", output="b")[3]


# ---- what a user can get wrong
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--drop_strategy top --drop_k 6", "--drop_k 6: a model of 6 layers must keep at least one. Choose 0 to 5."),
        ("--drop_layers 9,9", "no layer 9 in a model of 6 layers"),
        ("--drop_layers 1,1", "given more than once"),
        ("--drop_strategy symmetric --drop_k 3", "--drop_k 3: symmetric keeps"),
        ("--drop_strategy greedy --drop_k 2", "nothing is published for tinybert"),
        ("--drop_strategy optimal --drop_k 2", "nothing is published for tinybert"),
        ("--drop_strategy top", "needs the number of layers"),
        ("--data_dir nowhere", "no such folder"),
        ("--report_to clearml", "clearml"),
        ("--push_to_hub", "--push_to_hub: the hub cannot be reached"),
        ("--optim galore_adamw", "galore"),
        ("--metric_for_best_model f1", "--metric_for_best_model f1: not a metric of rte. Allowed: loss, accuracy"),
        ("--learning_rate nan", "--learning_rate nan: must be a finite number"),
        (
            "--max_seq_length 3",
            "--max_seq_length 3: 3 special tokens mark the start and end of texts. Choose 4 or more.",
        ),
        ("--dataloader_drop_last --per_device_train_batch_size 5000", "fewer than one batch of 5000"),
        ("--seed -1", "--seed -1: must be from 0"),
        (
            "--model_name_or_path nowhere/at-all",
            "not in the local cache (no config.json), and the hub",
        ),
        ("--resume_from_checkpoint", "no checkpoint in out"),
    ],
)
def test_one_line_and_exit_code_2(run, words, said):
    code, record, out, err = run("--task_name rte " + words)
    assert code == 2 and said in err and "Traceback" not in err and out == ""
    assert len([line for line in err.splitlines() if not line.startswith("note:")]) == 1
    assert record is None and not Path("out").exists()


def test_no_hub_is_said_within_seconds(tmp_path):
    """The flags of the README alone, in a process of its own, where no hub can be reached."""
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, ROOT / "run_glue.py", "--drop_strategy", "top", "--drop_k", "6"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and time.perf_counter() - start < 30
    error = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(error) == 1 and "Traceback" not in done.stderr and not (tmp_path / "runs").exists()
    for word in ("bert-base-uncased", "hub cannot be reached", "--data_dir", "folder of a checkpoint"):
        assert word in error[0]


def test_default_output_folder(run):
    code, _, out, _ = run("--task_name rte --drop_strategy top --drop_k 1", output=None)
    assert code == 0 and read_record("runs/tinybert_rte_top_k1_seed42")["status"] == "success"


def test_failure_is_recorded(run):
    code, record, _, err = run("--task_name rte --learning_rate 1e30")
    assert code == 1 and record["status"] == "failed" and "diverged" in record["error"] and "Traceback" not in err
    code, record, _, _ = run("--task_name rte")  # a failed run does not stand in the way
    assert code == 0 and record["status"] == "success"


def test_constant_predictions_are_null_not_a_crash(run, tmp_path):
    constant = tiny.model("bert", num_labels=1)
    with torch.no_grad():
        constant.classifier.weight.zero_()
    constant.save_pretrained(tmp_path / "constant")
    tiny.tokenizer().save_pretrained(tmp_path / "constant")
    code, record, out, _ = run("--task_name stsb --do_eval", str(tmp_path / "constant"))
    assert code == 0 and record["metrics"]["pearson"] is None and "pearson nan" in out
    assert "warning    the same prediction for every row of validation" in out


def test_help(capsys):
    def printed(flag):
        assert run_command("run", [flag]) == 0
        return capsys.readouterr().out

    short, whole = printed("--help"), printed("--help_all")
    for flag in ("--drop_strategy", "odd-alternate", "--learning_rate", "--num_train_epochs", "--save_model"):
        assert flag in short and flag in whole
    assert "--adam_beta1" in whole and "--adam_beta1" not in short and len(short.splitlines()) < 300  # 100 flags
    assert "--drop-strategy" not in whole


@pytest.mark.parametrize(("seconds", "noted"), [(0.0, False), (100.0, True)])
def test_the_load_of_other_processes_is_in_the_record(run, monkeypatch, seconds, noted):
    """conftest.py turns the measurement off for all other tests."""
    clock = iter((0.0, seconds))
    monkeypatch.setattr(process, "_busy_seconds", lambda cores: next(clock))
    monkeypatch.setattr("layerdrop.runs.describe.busy_note", process.busy_note)
    code, record, _, err = run("--task_name rte --max_steps 1")
    notes = [note for note in record["notes"] if note.startswith(process.BUSY)]
    assert code == 0 and len(notes) == noted == ("times are not comparable" in err), err
