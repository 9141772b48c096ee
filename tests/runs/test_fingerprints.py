"""Fingerprints of a run's inputs, before it is run: those that its record will have."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import run_glue
from layerdrop.cli.parsing import parse
from layerdrop.criteria.spec import DropSpec
from layerdrop.data import read as reading
from layerdrop.errors import UserError
from layerdrop.finetune.spec import DistilSpec
from layerdrop.runs.fingerprints import Fingerprints
from layerdrop.runs.record import read_record
from layerdrop.sweeps.engines.base import Job
from layerdrop.sweeps.execute import execute, statuses
from tests.made_up import InProcessEngine
from tests.running import QUICK


@pytest.fixture
def job(bert, glue, tmp_path, monkeypatch):
    """job("--flags ...") -> a job on copies of the model and the data, which may be changed."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bert, "model")
    shutil.copytree(bert, "other")
    shutil.copytree(Path(glue, "RTE"), "glue/RTE")
    first = ["--model_name_or_path", "model", "--data_dir", "glue", "--task_name", "rte", "--max_steps", "2", *QUICK]

    def make(words="", folder="out"):
        spec, options = parse([*first, *words.split(), "--output_dir", folder]).to_spec()
        return Job(spec, replace(options, resume="auto"))

    return make


def do(job):
    return execute([job], InProcessEngine(run_glue.run))


def change(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


WAYS = {
    "plain": "--drop_strategy top --drop_k 2",
    "predicted": "--drop_strategy top --drop_k 2 --do_train --do_eval --do_predict",
    "held out": "--hold_out 0.25",
    "scored": "--drop_strategy contribution --drop_k 2 --score_on other",
    "finetuned": "--drop_strategy top --drop_k 2 --drop_when finetuned",
    "distilled": "--drop_strategy top --drop_k 2 --teacher auto",
    "tokenizer": "--tokenizer_name other",
}


def test_distillation_without_a_teacher(job):
    """The flags always name one; a spec made in Python may not."""
    made = job("--drop_strategy top --drop_k 2")
    spec = replace(made.spec, distil=DistilSpec("logits"))
    assert Fingerprints().teacher(spec, made.options) is None
    with pytest.raises(UserError, match="--distill logits: the run has no teacher. Add --teacher."):
        run_glue.run(spec, made.options)


@pytest.mark.parametrize("way", WAYS)
def test_they_are_those_of_the_record(job, way):
    made = job(WAYS[way])
    assert not do(made).failed
    record = read_record("out")
    assert Fingerprints().of(made.spec, made.options) == record.inputs
    names = {"scored": "score_on", "finetuned": "start", "distilled": "teacher", "predicted": "test"}
    assert {"model", "tokenizer", "train", "validation", names.get(way, "model")} == record.inputs.keys()
    assert statuses([made])[0].word == "done"


CHANGES = {
    "the rows of train": ("plain", "glue/RTE/train.tsv", "\tentailment", "\tnot_entailment"),
    "the rows of validation": ("plain", "glue/RTE/dev.tsv", "\tentailment", "\tnot_entailment"),
    "the model": ("plain", "model/config.json", '"hidden_dropout_prob": 0.1', '"hidden_dropout_prob": 0.2'),
    "the tokenizer": ("plain", "model/tokenizer_config.json", "{", '{"x": 1, '),
    "the model of --score_on": (
        "scored",
        "other/config.json",
        '"hidden_dropout_prob": 0.1',
        '"hidden_dropout_prob": 0.2',
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_sweep_sees_what_has_changed_in_place(job, name):
    """It does the run neither silently nor over the old results: another store, or the folder deleted."""
    way, *edit = CHANGES[name]
    made = job(WAYS[way])
    assert not do(made).failed and statuses([made])[0].word == "done"
    before = Path("out/record.json").read_bytes()
    change(*edit)
    assert statuses([made])[0].changed == (name,)
    ((_, error),) = do(made).failed
    assert f"but {name} changed since" in error and "Choose another --store" in error
    assert Path("out/record.json").read_bytes() == before


def test_other_test_rows_are_other_predictions_and_no_other_run(job):
    made = job(WAYS["predicted"])
    assert not do(made).failed
    before = read_record("out")
    change("glue/RTE/test.tsv", "w1", "w2")
    status = statuses([made])[0]
    assert (status.word, status.missing) == ("incomplete", ("RTE.tsv",))
    assert not do(made).failed and statuses([made])[0].word == "done"
    after = read_record("out")
    assert after.inputs["test"] != before.inputs["test"] and after.metrics == before.metrics
    assert after.seconds["train"] == before.seconds["train"]


def test_inputs_that_cannot_be_read_here_are_left_out(job):
    made = job()
    shutil.rmtree("glue")
    assert Fingerprints().of(made.spec, made.options).keys() == {"model", "tokenizer"}
    shutil.rmtree("model")
    assert Fingerprints().of(made.spec, made.options) == {}


def test_rows_are_read_once(job, monkeypatch):
    made, read, read_splits = job(), [], reading.read_splits
    monkeypatch.setattr(reading, "read_splits", lambda *a, **k: read.append(a) or read_splits(*a, **k))
    inputs = Fingerprints()
    for k in (1, 2, 3):
        inputs.of(job(f"--drop_strategy top --drop_k {k}").spec, made.options)
    assert len(read) == 1


def test_a_start_that_is_trained_again_has_another_fingerprint(job):
    """Also for a sweep that has looked at it before."""
    made, inputs = job(WAYS["finetuned"]), Fingerprints()
    assert not do(made).failed
    before = inputs.of(made.spec, made.options)
    (model,) = Path("out/prior").glob("*/model.safetensors")
    tensors = load_file(model)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, model)
    after = inputs.of(made.spec, made.options)
    assert {name for name in before if before[name] != after[name]} == {"start"}
    assert statuses([made], inputs)[0].changed == ("the start model",)


def test_validation_rows_do_not_change_a_trained_model(job):
    """A prerequisite run is not trained again for them; where they choose its layers, it is."""
    made = job(WAYS["finetuned"])
    assert not do(made).failed
    (folder,) = Path("out").glob("prior/*/")
    change("glue/RTE/dev.tsv", "\tentailment", "\tnot_entailment")
    assert Fingerprints().status(made.spec.start, str(folder), made.options).has_model
    assert statuses([made])[0].changed == ("the rows of validation",)
    scored = replace(made.spec.start, drop=DropSpec("contribution", 2, score_split="validation"))
    record = replace(read_record(folder), spec=scored, id="")
    record.write()
    assert Fingerprints().status(scored, str(folder), made.options).changed == ("the rows of validation",)
