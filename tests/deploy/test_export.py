"""Exported models: the same logits, refused where they lose too much."""

import copy
import csv
import io
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import layerdrop
from layerdrop.architectures import ModelSpec
from layerdrop.cli.command import run_command
from layerdrop.data.kinds import Classes, Values
from layerdrop.data.spec import DataSpec
from layerdrop.deploy import export as exported
from layerdrop.deploy import onnx
from layerdrop.deploy.folder import check_output
from layerdrop.deploy.onnx import OnnxClassifier, export_onnx, latency, quantize
from layerdrop.errors import UserError
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import RunSpec
from layerdrop.surgery import drop_layers
from tests import tiny
from tests.processes import kill_at_checkpoint
from tests.running import QUICK, same, weights
from tests.small.test_surgery import MODEL_TYPES

pytestmark = pytest.mark.usefixtures("operators_once")
needs_onnx = pytest.mark.skipif(
    any(__import__("importlib.util").util.find_spec(name) is None for name in onnx.PACKAGES), reason="onnx is missing"
)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("model_type", [name for name in MODEL_TYPES if name != "longformer"])
def test_every_family_gives_its_logits(tmp_path, model_type):
    """Cut first, to two layers: ModernBERT's have global and local attention. Batches of 1 and 7, 1 to 128 tokens."""
    longer = {} if model_type == "xlnet" else {"max_position_embeddings": 132}
    model, left = drop_layers(tiny.model(model_type, **longer), [1, 2, 3, 5]), model_type == "xlnet"
    names = ["input_ids", "attention_mask"]
    if model_type not in ("distilbert", "roberta", "modernbert", "mpnet"):
        names.append("token_type_ids")
    export_onnx(model, names, tmp_path / "model.onnx")
    classifier = OnnxClassifier(tmp_path / "model.onnx")
    assert set(classifier.inputs) <= set(names) and "input_ids" in classifier.inputs
    for rows, tokens in ((1, 1), (7, 1), (7, 9), (1, 128), (7, 128)):
        ids = torch.randint(5, 60, (rows, tokens), generator=torch.Generator().manual_seed(rows))
        mask = torch.ones_like(ids)
        if tokens > 1:
            mask[0, 0 if left else -1] = 0
        batch = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
        batch = {name: batch[name] for name in names}
        with torch.no_grad():
            np.testing.assert_allclose(classifier(batch), model(**batch).logits, atol=2e-5)


def test_longformer_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="exporter cannot trace longformer. Use --format safetensors"):
        export_onnx(tiny.model("longformer"), ["input_ids"], tmp_path / "x")


@needs_onnx
def test_int8_is_smaller_and_close(tmp_path):
    model = tiny.model("bert", hidden_size=64, intermediate_size=128, num_hidden_layers=2)
    export_onnx(model, ["input_ids", "attention_mask"], tmp_path / "a.onnx")
    quantize(tmp_path / "a.onnx", tmp_path / "b.onnx")
    sizes = [sum(f.stat().st_size for f in tmp_path.glob(f"{name}.onnx*")) for name in "ab"]
    models = [OnnxClassifier(tmp_path / f"{name}.onnx") for name in "ab"]
    for model in models:
        inputs, (output,) = model.session.get_inputs(), model.session.get_outputs()
        assert [given.shape for given in inputs] == [["batch", "length"]] * 2 and output.shape == ["batch", 2]
    a, b = (model(tiny.batch()) for model in models)
    assert sizes[1] < 0.6 * sizes[0] and 0 < np.abs(a - b).max() < 0.3


def test_a_useless_model_is_warned_of():
    """Constant predictions, also of values; and a score of the most frequent class alone. Scores in points."""
    made = exported.ExportedRun.__new__(exported.ExportedRun)
    made.labels, made.metric = SimpleNamespace(to_task=lambda labels: labels), "accuracy"
    made.task, made.data = SimpleNamespace(kind=Classes(("a", "b"))), SimpleNamespace(labels=np.array([0, 1, 1, 1]))
    assert "the same prediction for every row" in made._warning(np.array([1, 1, 1, 1]), 75.0)
    said = "scores 75.0, not more than a constant prediction of 'b' for every row (75.0)"
    assert made._warning(np.array([1, 0, 1, 1]), 75.0) == said
    assert made._warning(np.array([0, 1, 1, 1]), 100.0) is None
    made.task.kind, made.data.labels, made.metric = Values(), np.array([0.0, 1, 2, 3]), "spearman"
    assert "the same prediction" in made._warning(np.array([1.0, 1.01, 1.0, 1.02]), 50.0)
    assert made._warning(np.array([0.0, 1, 2, 3]), 50.0) is None


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "x: not the folder of a finished run. Give the folder of a run that kept its model."),
        ("{", "x/record.json: cannot be read (Expecting property name enclosed in double quotes"),
    ],
)
def test_what_is_no_run(content, line, tmp_path, monkeypatch, capsys):
    """A file, and a run whose record is cut off."""
    monkeypatch.chdir(tmp_path)
    if content is None:
        Path("x").write_text("text,label")
    else:
        Path("x").mkdir()
        Path("x/record.json").write_text(content)
    code, _, err = call("x", capsys)
    assert code == 2 and err.startswith(f"error: {line}") and err.endswith("again.\n" if content else "its model.\n")


def test_models_take_turns():
    order = []
    text = {"input_ids": torch.ones(4, 2)}
    work = [(lambda part, name=name: order.append(name), [text] * n) for name, n in (("a", 1), ("b", 2))]
    found = latency(work, 2)
    assert order == ["a", "b", "b"] * 3 and [len(times) for times in found] == [2, 2]


@pytest.fixture
def made(run):
    """A run without four of its six layers, in the folder `made`."""
    assert (
        run("--task_name rte --drop_strategy top --drop_k 4 --max_steps 3 --learning_rate 1e-3", output="made")[0] == 0
    )
    return "made"


def call(words, capsys):
    code = run_command("export", words.split())
    return code, *capsys.readouterr()


def test_safetensors(made, capsys):
    """Plain transformers and its pipeline load it; nothing of the training travels along."""
    code, out, err = call("made", capsys)
    assert code == 0 and "0 of 12 predictions differ" in err, err
    folder = Path("made/export")
    assert {path.name for path in folder.iterdir()} >= {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "export.json",
    }
    assert not {"training_args.bin", "record.json", "spec.json"} & {path.name for path in folder.iterdir()}
    (found,) = pipeline("text-classification", str(folder))(["w1 w2"])
    assert found["label"] in ("entailment", "not_entailment")
    a, b = (AutoModelForSequenceClassification.from_pretrained(name) for name in ("made", folder))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    said = json.loads((folder / "export.json").read_text())
    assert said["kept"] == [0, 1] and said["task"] == "rte" and said["loss"] == 0


@pytest.mark.parametrize("k", [0, 2])
def test_the_card_of_an_elastic_run_whose_training_was_killed(run, bert, glue, capsys, k):
    """It has the scores, no seconds of a part of the training, and a command that gives the same model."""
    drop = f"--drop_strategy top --drop_k {k}" if k else ""
    words = f"--task_name rte --drop_when elastic --elastic_k 2 {drop} --num_train_epochs 1 --learning_rate 1e-2"
    argv = ["--model_name_or_path", bert, "--data_dir", glue, *QUICK, "--output_dir", "made", *words.split()]
    kill_at_checkpoint(2, lambda: run_command("run", argv))
    code, _, _, err = run(f"{words} --resume_from_checkpoint auto", output="made")
    assert code == 0 and call("made", capsys)[0] == 0, err
    card = ModelCard.load("made/export/README.md")
    words = card.content.split("```bash\nlayerdrop run ")[1].split("\n```")[0]
    code, record, _, err = run(words, output="again")
    assert code == 0 and same(weights("made"), weights("again")), err
    scores = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert scores == {name: value for name, value in record["metrics"].items() if name != "loss"}
    assert "s of training" not in card.content and f"with {6 - k} of 6 layers" in card.content
    seconds = record["prerequisites"]["seconds"]
    assert (
        call("again", capsys)[0] == 0 and f", {seconds:.0f} s of training" in Path("again/export/README.md").read_text()
    )


def test_an_export_is_cut(made, capsys):
    """To a checkpoint with its head, with ids of the original model; an ONNX file has no weights to cut."""
    assert call("made", capsys)[0] == 0
    before = files_in("made/export")
    assert run_command("cut", ["made/export", "--drop_layers", "0", "--output_dir", "cut"]) == 0
    assert files_in("made/export") == before and json.loads(Path("cut/layers.json").read_text())["kept"] == [1]
    exported_model, cut = (AutoModelForSequenceClassification.from_pretrained(name) for name in ("made/export", "cut"))
    expected = dict(drop_layers(exported_model, [0]).named_parameters())
    assert all(torch.equal(weight, expected[name]) for name, weight in cut.named_parameters())
    assert cut.config.id2label == exported_model.config.id2label
    Path("made/export/model.safetensors").rename("made/export/model.onnx")
    capsys.readouterr()
    assert run_command("cut", ["made/export", "--drop_layers", "0", "--output_dir", "other"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "made/export" in err and "weights" in err, err


def files_in(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.parametrize(
    ("name", "content"),
    [("model.safetensors", "mine"), ("export.json", "{}"), ("export.json", "[1]"), ("export.json", '{"files": [1]}')],
)
def test_a_folder_of_the_users_own_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        check_output("--output", str(tmp_path), "export.json")
    assert str(error.value) == (
        f"--output {tmp_path}: holds {name}. This command did not write it, or it was changed since. "
        "Move it away, or choose another folder."
    )
    assert files_in(tmp_path) == {name: content.encode()}


def test_an_earlier_export_is_replaced_unless_something_was_added_or_changed(made, capsys):
    """A file that is added while the new export is made counts too."""
    for _ in range(2):
        assert call("made", capsys)[0] == 0
    before = files_in("made/export")
    for name in ("notes.txt", "README.md"):
        Path("made/export", name).write_text("mine")
        code, _, err = call("made", capsys)
        assert code == 2 and f"--output made/export: holds {name}. This command did not write it, or" in err
        assert files_in("made/export") == before | {name: b"mine"}
        Path("made/export", name).unlink()
        if name in before:
            Path("made/export", name).write_bytes(before[name])
    run = exported.ExportedRun("made")
    run.input.checkpoint.tokenizer.save_pretrained = lambda folder: Path("made/export/late").write_text("mine")
    with pytest.raises(UserError, match="holds late"):
        run.export("safetensors", "made/export")
    assert files_in("made/export") == before | {"late": b"mine"}


def test_folders_that_cannot_be_replaced(made, capsys, monkeypatch):
    """The working folder, a file; all outputs are looked at before anything is computed. A link stays a link."""
    folder = Path("made").absolute()
    Path("work").mkdir()
    monkeypatch.chdir("work")
    code, _, err = call(f"{folder} --output .", capsys)
    assert code == 2 and err.startswith("error: --output .: is the working folder")
    Path("file").write_text("mine")
    code, _, err = call(f"{folder} --output file", capsys)
    assert code == 2 and "--output file: is not a folder" in err and Path("file").read_text() == "mine"
    Path("elsewhere").mkdir()
    Path("link").symlink_to("elsewhere")
    assert call(f"{folder} --output link", capsys)[0] == 0
    assert Path("link").is_symlink() and Path("elsewhere/model.safetensors").exists()
    monkeypatch.setattr(exported.ExportedRun, "export", None)
    (folder / "export").mkdir()
    (folder / "export" / "mine").write_text("mine")
    code, _, err = call(f"{folder} {folder}", capsys)
    assert code == 2 and "holds mine" in err


def test_an_export_that_breaks_off_leaves_the_old_one(made, capsys, monkeypatch):
    """tests/system/test_files.py kills at every change of the disk."""
    assert call("made", capsys)[0] == 0
    before = files_in("made/export")
    steps = {
        "_safetensors": exported.ExportedRun,
        "_write_other_files": exported.ExportedRun,
        "replace_folder": exported,
    }
    for step, where in steps.items():
        with monkeypatch.context() as broken:
            broken.setattr(where, step, lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                call("made", capsys)
        assert files_in("made/export") == before and not list(Path("made").glob(".export*"))
    assert call("made", capsys)[0] == 0 and files_in("made/export") == before


# ---- what the model is checked on ------------------------------------------------------------------------------------
@pytest.fixture
def own(run):
    """own(flags) -> the record of a run on csv files, in the folder `made`."""

    def call(words):
        for name, rows in (("train", 24), ("dev", 12)):
            lines = [f"w{i} w{i + 1},{'ab'[i % 2]}" for i in range(rows)]
            Path(f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
        words += " --drop_strategy top --drop_k 4 --max_steps 1 --max_seq_length 32"
        code, record, _, err = run(words, data=None, output="made")
        assert code == 0, err
        return record

    return call


def test_held_out_rows_are_the_validation_set(own, capsys):
    """Also from another place; a validation file can be given instead."""
    record = own("--train_file train.csv --hold_out 0.25")
    for words in ("", "--train_file moved.csv"):
        code, out, err = call(f"made {words}", capsys)
        assert code == 0 and f"of {record['data']['validation']['rows']} predictions differ" in err, err
        assert f"{100 * record['metrics']['accuracy']:.1f}" in out
        if Path("train.csv").exists():
            Path("train.csv").rename("moved.csv")
    code, _, err = call("made", capsys)
    assert code == 2 and err == (
        "error: --train_file train.csv: the run in made reads this path, but the path does not exist. "
        "Give the new path with --train_file.\n"
    )
    code, _, err = call("made --train_file lost.csv", capsys)
    assert code == 2 and err == "error: --train_file lost.csv: does not exist. Check the path.\n"
    code, _, err = call("made --validation_file dev.csv", capsys)
    assert code == 0 and "of 12 predictions differ" in err


def test_a_run_without_a_validation_set(own, capsys):
    own("--train_file train.csv --do_train")
    code, _, err = call("made", capsys)
    assert code == 2 and err == (
        "error: made: the run had no validation set, and an export needs a validation set. Add --validation_file.\n"
    )
    code, _, err = call("made --validation_file dev.csv", capsys)
    assert code == 0 and "of 12 predictions differ" in err


def test_data_that_has_moved(own, capsys, monkeypatch):
    """The text columns are the run's: a further one in the validation file does not count."""
    own("--train_file train.csv --validation_file dev.csv")
    Path("moved.csv").write_text("".join(f"more,{line}\n" for line in Path("dev.csv").read_text().splitlines()))
    made = Path("made").absolute()
    monkeypatch.chdir("/")
    code, _, err = call(str(made), capsys)
    assert code == 2 and "--validation_file dev.csv: the run in" in err and "Give the new path" in err
    code, _, err = call(f"{made} --validation_file {made.parent / 'moved.csv'}", capsys)
    assert code == 0 and "of 12 predictions differ" in err, err


def test_other_rows_than_the_runs(own, capsys):
    """The scores would be taken for the run's. Equal rows pass, whatever the order of the head's classes."""
    own("--train_file train.csv --validation_file dev.csv")
    content = Path("dev.csv").read_text()
    for words in ("--validation_file train.csv", ""):
        code, out, err = call(f"made {words}", capsys)
        assert (code, out) == (2, "") and not Path("made/export").exists()
        assert "the texts or labels of the rows of validation are not those of the run in made (record.json has" in err
        Path("dev.csv").write_text(content.replace("w3 w4,b", "w3 w4,a"))
    Path("dev.csv").write_text(content)
    config = json.loads(Path("made/config.json").read_text())
    assert config["id2label"] == {"0": "a", "1": "b"}
    config |= {"id2label": {"0": "b", "1": "a"}, "label2id": {"b": 0, "a": 1}}
    Path("made/config.json").write_text(json.dumps(config))
    assert call("made", capsys)[0] == 0


def test_flags_that_only_a_run_has(own, capsys):
    """Advice on data that have changed names the command of each flag that an export lacks."""
    own("--train_file train.csv --validation_file dev.csv")
    content = Path("dev.csv").read_text()
    of_run = "layerdrop run, not of layerdrop export."
    Path("dev.csv").write_text(f"{content},b\n")
    code, _, err = call("made", capsys)
    assert code == 2 and "add --skip_bad_rows to" in err and f" --skip_bad_rows is a flag of {of_run}\n" in err, err
    Path("dev.csv").write_text(content.replace("text,label", "words,label"))
    code, _, err = call("made", capsys)
    assert code == 2 and "no column text" in err and f" --text_columns is a flag of {of_run}\n" in err, err
    code, _, err = call("made --label_column x --seed 1", capsys)
    assert code == 2 and "--label_column: no such flag." in err and f" --label_column is a flag of {of_run}" in err
    code, _, err = call("made --validation_file lost.csv", capsys)
    assert code == 2 and "is a flag" not in err


def test_a_glue_folder_that_has_moved(made, capsys, glue):
    said = json.loads(Path("made/record.json").read_text())
    said["spec"]["data"]["source"] = "gone"
    Path("made/record.json").write_text(json.dumps(said))
    code, _, err = call("made", capsys)
    assert code == 2 and "--data_dir gone: the run in made reads this path, but the path does not exist" in err
    assert call(f"made --data_dir {glue}", capsys)[0] == 0


@pytest.mark.parametrize("label_type", ["class", "number"])
def test_held_out_rows_whose_labels_are_decimals(run, capsys, label_type):
    """`0.0` and `1.0`, which no file alone calls classes or numbers."""
    rows = [f"w{i} w{i + 1},{i % 2}.0" for i in range(24)]
    Path("train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    words = f"--train_file train.csv --hold_out 0.25 --label_type {label_type} --drop_strategy top --drop_k 4"
    code, record, _, err = run(f"{words} --max_steps 3 --learning_rate 1e-3", data=None, output="made")
    assert code == 0 and record["label_type"] == label_type, err
    code, out, err = call("made --max_loss 100", capsys)
    n = record["data"]["validation"]["rows"]
    assert code == 0 and n == 6 and f"0 of {n} predictions differ" in err, err
    metric = {"class": "accuracy", "number": "spearmanr"}[label_type]
    assert f"| {metric}" in out and f"| {100 * record['metrics'][metric]:.1f}" in out, out
    labels = json.loads(Path("made/export/export.json").read_text())["labels"]
    assert labels == (["0.0", "1.0"] if label_type == "class" else [])
    card = Path("made/export/README.md").read_text()
    assert "measured on 25% of the training set, held out" in card and "6 of validation" in card
    Path("dev.csv").write_text("\n".join(["text,label", *rows[:12]]) + "\n")
    assert call("made --max_loss 100 --validation_file dev.csv", capsys)[0] == 0
    card = Path("made/export/README.md").read_text()  # the scores are those of the given rows
    assert "measured on validation." in card and "Rows: 18 of train, 12 of validation." in card
    assert re.search("--hold_out[= ]0.25", card)  # in the command that repeats the run
    (result, *_) = ModelCard(card).data.eval_results
    assert (result.dataset_split, result.dataset_args) == ("validation", None)


def test_whole_numbers_that_a_run_took_for_numbers():
    """`0.0` and `1.0`, without other decimals: the file alone leaves the kind unclear. Classes are found again."""
    files = ("train", __file__), ("validation", __file__)
    spec = DataSpec("x", "files", files, validation_share=0.2)
    record = RunRecord(RunSpec(ModelSpec("bert"), spec), "made", label_type="number")
    assert exported.validation_data(record, {}).label_type == "number"
    record.labels, record.label_type = ["a", "b"], "class"
    assert exported.validation_data(record, {}).label_type == "auto"


@pytest.mark.parametrize(
    ("spec", "flag"),
    [
        (DataSpec("rte", "glue"), "train_file"),
        (DataSpec("rte", "hub"), "validation_file"),
        (DataSpec("demo-rte", "demo"), "data_dir"),
        (DataSpec("x", "files", (("train", "t"), ("validation", "v"))), "train_file"),
        (DataSpec("x", "files", (("train", "t"), ("validation", "v"))), "data_dir"),
    ],
)
def test_a_place_that_the_run_does_not_read(spec, flag):
    record = RunRecord(RunSpec(ModelSpec("bert"), spec), "made")
    with pytest.raises(UserError, match=rf"--{flag} x: the run in made does not read it\. Leave it out\."):
        exported.validation_data(record, {flag: "x"})


# ---- use -------------------------------------------------------------------------------------------------------------
OUTPUTS = {"mnli": 3, "stsb": 1, "sst2": 2}
"""Tasks of two texts, of values, of one text -> outputs."""


@pytest.mark.parametrize("task", OUTPUTS)
def test_the_lines_of_the_card_run(run, capsys, monkeypatch, task):
    """In the folder, as they stand; the values are those of the run's model in plain transformers."""
    words = f"--task_name {task} --drop_strategy top --drop_k 4 --max_steps 1 --max_seq_length 32"
    assert run(words, output="made")[0] == 0
    monkeypatch.chdir("made")
    words, model = AutoTokenizer.from_pretrained("."), AutoModelForSequenceClassification.from_pretrained(".").eval()
    texts = ["A first text."] if task == "sst2" else ["A first text.", "A second text."]
    with torch.no_grad():
        logits = model(**words(*texts, return_tensors="pt")).logits[0]
    assert len(logits) == OUTPUTS[task]
    best = logits[0] if task == "stsb" else logits.softmax(-1).max()
    assert float(re.search(r"'score': (-?[\d.e-]+)", lines_of_the_card("safetensors", capsys))[1]) == pytest.approx(
        float(best), abs=1e-4
    )
    if not needs_onnx.args[0]:
        *name, score = lines_of_the_card("onnx", capsys).split()
        assert float(score) == pytest.approx(float(best), abs=1e-4)
        assert name == ([] if task == "stsb" else [model.config.id2label[int(logits.argmax())]])


def lines_of_the_card(form, capsys):
    """Printed output."""
    folder, here = Path("export"), os.getcwd()
    assert call(f". --format {form}", capsys)[0] == 0
    text = (folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "max_length=32" in code and len([line for line in code.splitlines() if "import" not in line and line]) <= 7
    library = "onnx" if form == "onnx" else "transformers"  # which has no pipeline for ONNX files
    assert ModelCard(text).data.library_name == library
    assert "`top`" in text and f"as {form}" in text and "mismatched" not in text  # MNLI: only the matched set is scored
    listed = json.loads((folder / "export.json").read_text())["files"]
    assert {*listed, "export.json"} == {path.name for path in folder.iterdir()}
    os.chdir(folder)
    exec(code, {})
    os.chdir(here)
    return capsys.readouterr().out


# ---- ONNX ------------------------------------------------------------------------------------------------------------


@needs_onnx
def test_onnx_and_its_predictions(made, capsys):
    code, out, err = call("made --format onnx --quantize int8 --max_loss 100", capsys)
    assert code == 0 and all(f"| {form}" in out for form in ("torch fp32", "onnx fp32", "onnx int8")), err
    assert {path.name for path in Path("made/export").iterdir()} >= {"model.onnx", "config.json", "tokenizer.json"}
    assert not list(Path("made/export").glob("*int8*"))
    said = re.search(r"onnx int8 is in made/export\. .*logits differ by at most (\S+), and \d+ of 12", err)
    run = exported.ExportedRun("made")  # the int8 file's own difference
    logits = OnnxClassifier("made/export/model.onnx").logits(run.data, run.input.collate)
    expected = np.abs(logits - run._torch_logits(run.model)).max()
    assert float(said[1]) == pytest.approx(expected, rel=0.1) and float(said[1]) > 1e-4
    Path("texts.txt").write_text("w1 w2 w3\tw4\nw5\tw6 w7\n")
    for folder in ("made", "made/export"):
        assert run_command("predict", [folder, "texts.txt"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "index\tprediction\tprobability" and len(lines) == 3
        assert all(line.split("\t")[1] in ("entailment", "not_entailment") for line in lines[1:])
    (first, _), torch_first = (
        layerdrop.load("made/export")([("w1 w2 w3", "w4"), ("w5", "w6 w7")]),
        layerdrop.load("made"),
    )
    assert [first.label, f"{first.score:.4f}"] == lines[1].split("\t")[1:]
    assert torch_first(("w1 w2 w3", "w4")).score == pytest.approx(first.score, abs=0.05)  # int8
    assert run_command("predict", ["made/export", "texts.txt", "--output", "out.tsv"]) == 0
    assert Path("out.tsv").read_text().splitlines() == lines


@needs_onnx
def test_a_pointer_of_git_lfs_is_no_export(tmp_path):
    (tmp_path / "model.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match="model.onnx is a pointer of Git LFS, not the file. Fetch it: git lfs pull"):
        OnnxClassifier(tmp_path / "model.onnx")


def test_predictions_are_those_of_plain_transformers(made, capsys):
    pairs = [("w1 w2 w3", "w4"), ("w5 w9 w11 w12 w13", "w6 w7")]
    Path("texts.txt").write_text("".join("\t".join(pair) + "\n" for pair in pairs))
    assert run_command("predict", ["made", "texts.txt"]) == 0
    words = AutoTokenizer.from_pretrained("made")
    model = AutoModelForSequenceClassification.from_pretrained("made").eval()
    for line, pair in zip(capsys.readouterr().out.splitlines()[1:], pairs, strict=True):
        with torch.no_grad():
            odds = model(**words(*pair, return_tensors="pt")).logits.softmax(-1)[0]
        _, name, p = line.split("\t")
        assert name == model.config.id2label[int(odds.argmax())]
        assert float(p) == pytest.approx(float(odds.max()), abs=1e-4)


@needs_onnx
def test_a_model_that_is_spoilt_is_refused(run, capsys, monkeypatch):
    """The validation set's labels become the run's own predictions, so that it scores 100; the exported classifier is
    turned round, so that the file scores 0."""
    texts = [f"w{i} w{i + 1}" for i in range(12)]
    for name in ("train.tsv", "dev.tsv"):
        Path(name).write_text("sentence\tlabel\n" + "".join(f"{t}\t{'ab'[i % 2]}\n" for i, t in enumerate(texts)))
    words = "--train_file train.tsv --validation_file dev.tsv --drop_strategy top --drop_k 4 --max_steps 3"
    assert run(words, data=None, output="made")[0] == 0
    found = [line.split("\t")[2] for line in Path("made/predictions_dev.tsv").read_text().splitlines()[1:]]
    Path("dev.tsv").write_text("sentence\tlabel\n" + "".join(f"{t}\t{y}\n" for t, y in zip(texts, found, strict=True)))
    monkeypatch.setattr(exported.ExportedRun, "_check_rows", lambda *_: None)
    assert call("made --format onnx --max_loss 0 --output good", capsys)[0] == 0  # as it is, it loses nothing
    monkeypatch.setattr(exported, "export_onnx", export_turned_round)
    code, out, err = call("made --format onnx --max_loss 99.5", capsys)
    assert code == 2 and "| onnx fp32  | 0.0" in out and "12 of 12 predictions differ" in err, out + err
    assert "error: made: onnx fp32 scores 0.0, 100.0 points below the run's model (100.0)" in err
    assert not Path("made/export").exists() and not list(Path("made").glob(".export*"))
    code, out, err = call("made --format onnx --quantize int8 --output eight --max_loss 100", capsys)
    assert code == 0 and "outputs depend slightly on the other texts of a" in Path("eight/README.md").read_text(), err
    code, out, err = call("made --format onnx --max_loss 1 --force", capsys)
    assert code == 0 and Path("made/export/model.onnx").exists()
    card = Path("made/export/README.md").read_text()  # the scores are those of the exported file
    assert "| accuracy | 0.0000 |" in card and "| a | 0.0000 |" in card and "(torch fp32: 100.0)" in card
    assert "1.0000" not in card and "other texts" not in card and "Rows: 12 of train, 12 of validation." in card
    results = ModelCard(card).data.eval_results
    assert {result.metric_type: result.metric_value for result in results}["accuracy"] == 0.0
    Path("made/model.safetensors").unlink()
    code, _, err = call("made --format onnx", capsys)
    assert code == 2 and "made: this run did not keep its model. To train it again: layerdrop run --model_name" in err


def export_turned_round(model, inputs, path):
    """As export_onnx, but of a model whose logits are negated. The second time, the file is a copy of the first."""
    kept = Path("turned_round.onnx")
    if not kept.exists():
        spoilt = copy.deepcopy(model)
        with torch.no_grad():
            spoilt.classifier.weight.neg_()
            spoilt.classifier.bias.neg_()
        export_onnx(spoilt, inputs, kept)
    shutil.copy(kept, path)


@needs_onnx
def test_several_runs_are_timed_in_turn(made, capsys, monkeypatch):
    """The table's ratios are to the first form of the first run; one that is refused does not stop the others."""
    order = []
    times = [[2.0 - i / 8] for i in range(6)]
    monkeypatch.setattr(exported, "latency", lambda work: order.append(len(work)) or times)
    code, out, err = call("made made --format onnx --quantize int8 --max_loss 100 --table_format csv", capsys)
    assert code == 0 and order == [6, 6]
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["form"] for row in rows] == ["torch fp32", "onnx fp32", "onnx int8"] * 2
    assert float(rows[5]["speed_up_batch_1"]) == pytest.approx(2 / 1.375, rel=1e-5)


@needs_onnx
def test_the_table_says_what_is_not_comparable(run, capsys, monkeypatch):
    """Scores on different validation sets by different metrics; times beside other processes."""
    assert run("--task_name rte --drop_strategy top --drop_k 4 --max_steps 1", output="made")[0] == 0
    assert run("--task_name mrpc --drop_strategy top --drop_k 4 --max_steps 1 --max_eval_samples 9", output="b")[0] == 0
    monkeypatch.setattr("layerdrop.system.process.busy_note", lambda: "other processes occupy 1.3 of 2 cores")
    code, out, err = call("made b --format onnx --max_loss 100", capsys)
    assert code == 0 and "| score " in out and re.search(r"\| b +\| torch fp32 \| \d+\.\d f1 +\|", out), out + err
    assert "*The scores are not comparable: the validation sets differ (made: rte, 12 rows; b: mrpc, 9 rows).*" in out
    assert "*Other processes occupy 1.3 of 2 cores.*" in out
    code, out, _ = call("made made", capsys)  # safetensors are not timed
    assert code == 0 and "not comparable" not in out and "cores" not in out and "milliseconds" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nowhere", "nowhere: not the folder of a finished run"),
        ("made --quantize int8", "--quantize int8: needs --format onnx"),
        ("made made --output x", "--output: takes one run"),
        ("made --output made/record.json/x", "made/record.json: cannot write there"),
    ],
)
def test_bad_input_is_one_line(made, capsys, words, said):
    code, _, err = call(words, capsys)
    assert code == 2 and said in err and len(err.splitlines()) == 1, err


def test_a_damaged_checkpoint_is_that_of_the_run(made, capsys):
    shutil.copytree("made", "damaged")
    Path("damaged/config.json").write_text('{"model_type": "bert", "num_hidden_layers": 0}')
    code, _, err = call("damaged", capsys)
    assert code == 2 and err.startswith("error: RUN damaged: config.json has 0 layers"), err


def test_without_the_packages(made, capsys, monkeypatch):
    monkeypatch.setattr(onnx.importlib.util, "find_spec", lambda name: None)
    code, _, err = call("made --format onnx", capsys)
    assert code == 2 and "needs onnx, onnxscript, onnxruntime. Install: pip install -e '.[onnx]'" in err


def test_an_output_that_cannot_be_written(made, capsys):
    assert run_command("predict", ["made", "--text", "w1", "w2", "--output", "made"]) == 2
    assert "--output made: is a folder. Give a file" in capsys.readouterr().err
