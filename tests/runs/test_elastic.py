"""Elastic depth as a run: one training, a run for each K."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

import run_glue
from layerdrop.cli.parsing import parse
from layerdrop.runs.record import read_record
from tests.running import QUICK, same, weights

WORDS = "--task_name rte --drop_strategy top --drop_when elastic"


def trainings(folder: str) -> list[Path]:
    return [path for path in Path(folder).rglob("record.json") if json.loads(path.read_text())["spec"]["train"]]


def test_one_training_and_a_run_for_each_k(run):
    code, record, out, err = run(f"{WORDS} --drop_k 3 --elastic_k 0 2 3")
    assert code == 0, err
    assert record["kept"] == [0, 1, 2] and record["prerequisites"]["trainings"] == 1
    assert [path.parent.parent.name for path in trainings("out")] == ["prior"]
    training = json.loads(trainings("out")[0].read_text())
    assert training["spec"]["when"]["elastic_k"] == [2, 3] and training["kept"] == list(range(6))
    for k, folder in ((0, "out/k0"), (2, "out/k2"), (3, "out")):
        its = read_record(folder)
        assert its.kept == list(range(6 - k)) and its.spec.start.id == training["id"] and its.metrics
        assert its.spec.drop_when == "elastic" and (Path(folder) / "predictions_dev.tsv").is_file()
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        assert model.config.num_hidden_layers == 6 - k
    assert read_record("out/k0").metrics == training["metrics"]
    code, again, _, err = run(f"{WORDS} --drop_k 3 --elastic_k 0 2 3")
    assert code == 0 and again == record and err.count("already done") == 3 and len(trainings("out")) == 1


def test_every_k_by_default(run):
    code, record, _, err = run(f"{WORDS} --drop_k 2 --max_steps 2")
    assert code == 0 and read_record("out/k1").kept == [0, 1, 2, 3, 4], err
    assert record["spec"]["start"]["when"]["elastic_k"] == [1, 2]


def test_without_a_k_of_its_own_the_folder_is_about_the_full_model(run):
    code, record, _, err = run("--task_name rte --drop_when elastic --elastic_k all --max_steps 2")
    assert code == 0 and record["kept"] == list(range(6)) and record["spec"]["start"]["when"]["elastic_k"], err
    assert sorted(path.name for path in Path("out").glob("k*")) == ["k1", "k2", "k3", "k4", "k5"]
    words = "--task_name rte --drop_when elastic --drop_k 2 --elastic_k all --max_steps 2"
    code, again, _, err = run(words, output="b")
    assert code == 0 and again["spec"]["start"] == record["spec"]["start"] and again["kept"] == [0, 1, 2, 3]


def test_a_resumed_training_has_the_same_bits(bert, glue, tmp_path, monkeypatch):
    """The shallower models join at their steps, as in a training without an interruption."""
    monkeypatch.chdir(tmp_path)
    words = ["--model_name_or_path", bert, "--data_dir", glue, "--output_dir", "out", *QUICK, *WORDS.split()]
    spec, options = parse([*words, "--drop_k", "3", "--elastic_k", "2", "3", "--num_train_epochs", "2"]).to_spec()
    saving = options.trainer | {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 99}
    options = replace(options, trainer=saving, resume="auto", rolling_checkpoints=False)
    whole = run_glue.run(spec.start, replace(options, folder="whole"))
    assert whole.status == "success" and whole.steps == 6
    for step in (1, 2, 4):
        (folder := Path(f"from{step}")).mkdir()
        shutil.copy("whole/spec.json", folder)
        shutil.copytree(f"whole/checkpoint-{step}", folder / f"checkpoint-{step}")
        again = run_glue.run(spec.start, replace(options, folder=str(folder)))
        assert again.resumed_at_step == step and same(weights(folder), weights("whole")), step
        assert again.epochs[-1] == whole.epochs[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (f"{WORDS} --drop_k 3 --elastic_k 2", "--drop_k 3: is not trained. --elastic_k names 2"),
        ("--task_name rte --drop_when elastic", "needs the numbers of layers. Add --elastic_k 2 4 6, or --drop_k N"),
        (f"{WORDS} --drop_k 2 --elastic_k two", "--elastic_k 'two': not a list of layer"),
        (f"{WORDS} --drop_k 2 --do_eval", "Add --do_train"),
        ("--task_name rte --drop_when elastic --drop_layers 4,5 --elastic_k 2", "Use --drop_strategy top, not list"),
        (f"{WORDS} --drop_k 2 --elastic_k 2 6", "--elastic_k 6: a model of 6 layers must keep at least one"),
        (
            "--task_name rte --drop_strategy bottom --drop_k 2 --drop_when elastic",
            "Use --drop_strategy top, not",
        ),
        ("--task_name rte --drop_strategy top --drop_k 2 --elastic_k 2", "--elastic_k: only with --drop_when elastic"),
        (f"{WORDS} --drop_k 2 --teacher auto", "--teacher: needs training"),
        (f"{WORDS} --drop_k 2 --theseus", "--theseus: needs --drop_when"),
        (f"{WORDS} --drop_k 2 --layerdrop_rate 0.1", "--layerdrop_rate: cannot be combined"),
    ],
)
def test_what_cannot_be_elastic(run, words, said):
    code, _, _, err = run(words)
    assert code == 2 and said in err
