"""What other tools look for beside a run's record: a card, results, the list of layers."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from transformers import AutoModelForSequenceClassification

from layerdrop.architectures import ModelSpec
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.runs.card import card
from layerdrop.runs.record import RunRecord
from layerdrop.runs.results import CARD_MARK
from layerdrop.runs.spec import RunSpec
from layerdrop.surgery import drop_layers
from tests.running import same, weights

WORDS = "--task_name rte --drop_strategy top --drop_k 2 --num_train_epochs 1 --learning_rate 1e-3"


def test_card(run):
    code, record, _, err = run(WORDS)
    assert code == 0, err
    loaded = ModelCard.load("out/README.md")
    assert loaded.data.base_model is None and loaded.data.library_name == "transformers"  # a local folder
    (result,) = [r for r in loaded.data.eval_results if r.metric_type == "accuracy"]
    assert result.metric_value == record["metrics"]["accuracy"] and result.dataset_config == "rte"
    index = loaded.data.to_dict()["model-index"]
    assert model_index_to_eval_results(index)[1] == loaded.data.eval_results
    text = loaded.content
    assert "Dropped: 4, 5 (ids count from 0" in text and "before fine-tuning" in text
    assert "--drop_strategy top --drop_k 2" in text and str(Path.cwd()) not in text.replace(
        record["spec"]["data"]["source"], ""
    )

    code, _, _, _ = run(f"{WORDS} --seed 7 --overwrite_output_dir")
    assert code == 0 and "Seed 7" in Path("out/README.md").read_text()  # its own card is written anew


def recorded(task="rte", model="some/bert", metrics=None, splits=("validation",), **data):
    made = RunRecord(RunSpec(ModelSpec(model), DataSpec(task, **data), DropSpec("top", 2)), "x", "success", n_layers=3)
    made.metrics, made.parameters_before, made.parameters_after = metrics or {"loss": 1.0, "accuracy": 0.5}, 3, 1
    made.data = {split: {"rows": 9} for split in splits}
    return made


def test_a_card_names_validation_rows_that_are_in_the_training_set():
    made, note = recorded(), "2 of 9 validation rows have texts that are also in the training set"
    assert "also in the training set" not in card(made).content
    made.data["validation"]["also_in_train"] = 2
    assert f"\nRows: 9 of validation.\n{note}, so scores may be too high.\n" in card(made).content
    made.data["validation"] |= {"rows": 9000, "also_in_train": 2000}
    assert "2,000 of 9,000 validation rows" in card(made).content
    assert RunRecord.from_dict(made.to_dict()).data == made.data


def test_a_card_shows_the_seconds_of_all_trainings():
    """With the prerequisite runs. A resumed training has no seconds, because its record covers only a part."""
    made = recorded()
    made.seconds, made.environment = {"train": 70.0, "teacher": 5.0}, {"device": "CPU-Z"}
    assert "75 s of training on CPU-Z. To repeat" in card(made).content
    made.prerequisites = {"seconds": 30.0}  # perhaps on another device
    assert "105 s of training. To repeat" in card(made).content
    for made.prerequisites, made.resumed_at_step in (({"seconds": 30.0, "resumed": True}, None), ({}, 5)):
        assert "s of training" not in card(made).content


def test_a_card_names_the_rows_that_were_measured():
    """Held-out training rows, and a part of the validation set, are not GLUE's validation set."""
    (held,) = card(recorded(hold_out=0.15)).data.eval_results
    assert (held.dataset_split, held.dataset_args) == ("train", {"hold_out": 0.15})
    assert "15% of the training set, held out; the validation set was not read" in card(recorded(hold_out=0.15)).content
    (part,) = card(recorded(max_eval_samples=9)).data.eval_results
    assert (part.dataset_split, part.dataset_args) == ("validation", {"max_eval_samples": 9})
    assert "the first 9 rows of validation" in card(recorded(max_eval_samples=9)).content
    (usual,) = card(recorded()).data.eval_results
    assert (usual.dataset_split, usual.dataset_args, usual.metric_value) == ("validation", None, 0.5)


def test_the_code_of_a_card_calls_the_pipeline():
    """With one text, or with a pair of texts."""
    assert 'classify({"text": "A first text.", "text_pair": "A second text."})' in card(recorded()).content
    assert 'classify("A first text.")' in card(recorded("sst2")).content
    own = recorded("mine", source="files", files=(("train", "a.csv"),))
    own.text_columns, own.labels = ["question", "answer"], ["no", "yes"]
    assert '"text_pair": "A second text."' in card(own).content
    own.text_columns = ["question"]
    assert "text_pair" not in card(own).content


def test_a_card_of_a_checkpoint_that_lacks_layers(run):
    """A run of all its layers, and a run that drops further ones, on the folder of an earlier run."""
    assert run(f"{WORDS} --do_train")[0] == 0
    text = Path("out/README.md").read_text()
    assert "lacks" not in text and "Dropped: 4, 5 (ids" in text and " -> " in text.partition("## Use")[0]
    cut = WORDS.partition("--drop_strategy")[0] + "--max_steps 1 --do_train"
    assert run(cut, model="out", output="same")[0] == 0
    text = Path("same/README.md").read_text()
    assert "The starting checkpoint already lacks layers 4, 5 of the original model, which has\n6 layers.\n" in text
    assert "This run drops no further layer.\nParameters: " in text and " -> " not in text.partition("## Use")[0]
    assert "Dropped" not in text and "full" not in text.partition("## Use")[0] and "_4_of_6_layers_seed" in text
    assert run(f"{cut} --drop_strategy top --drop_k 1", model="out", output="fewer")[0] == 0
    text = Path("fewer/README.md").read_text()
    assert "already lacks layers 4, 5 of" in text and "Dropped by this run: 3 (ids count from 0" in text
    assert run(cut, output="whole")[0] == 0
    assert "\nDropped: none.\nParameters: " in Path("whole/README.md").read_text()


def test_a_card_names_a_dataset_of_the_hub(tmp_path):
    splits = (("train", "train"), ("validation", "dev"))
    how = {"source": "dataset", "files": splits, "dataset_name": "some/reviews", "dataset_config_name": "en"}
    made = card(recorded("reviews-en", **how)).data
    (result,) = made.eval_results
    assert made.datasets == ["some/reviews"] and result.dataset_type == "some/reviews"
    assert (result.dataset_config, result.dataset_split, result.dataset_name) == ("en", "dev", "reviews-en")
    share = card(recorded("reviews-en", **how | {"files": splits[:1], "validation_share": 0.1}))
    assert share.data.eval_results[0].dataset_split == "train" and "in the folder where" not in share.content
    local = card(recorded("reviews-en", **how | {"dataset_name": str(tmp_path)}))
    assert local.data.datasets is None and local.data.eval_results[0].dataset_type == "reviews-en"
    files = card(recorded("rte", source="files", files=(("train", "a.csv"), ("validation", "b.csv")))).data
    assert files.datasets is None and files.eval_results[0].dataset_name == "rte"  # GLUE's task on other rows


def test_a_card_shows_constant_predictions_classes_and_rows():
    """All classes up to 20, else the five lowest."""
    made = recorded()
    assert "Warning" not in card(made).content and "F1 of" not in card(made).content
    made.distinct_predictions = {"validation": 1, "test": 1}
    made.class_f1 = {"validation": {"yes": 0.25, "a|b": 0.5}}
    made.data = {"train": {"rows": 1200, "bad_rows": 1}, "validation": {"rows": 9, "bad_rows": 0}, "test": {"rows": 3}}
    text = card(made).content
    assert text.count("**Warning:** the model gives the same prediction for every row of validation.") == 1
    assert "Rows: 1,200 of train (1 malformed row left out), 9 of validation.\n" in text
    assert "F1 of each class on validation:\n\n| class | F1 |\n" in text
    assert "| yes | 0.2500 |\n| a\\|b | 0.5000 |\n" in text
    made.class_f1 = {"validation": {f"c{i}": 1 - i / 100 for i in range(20)}}
    assert card(made).content.count("| c") == 21  # with the heading
    made.class_f1["validation"]["c20"] = 0.8
    text = card(made).content
    shown = [line.split()[1] for line in text.splitlines() if line.startswith("| c")]
    assert shown == ["class", "c20", "c19", "c18", "c17", "c16"] and "F1 of the 5 lowest of 21 classes on" in text


def test_each_metric_of_mnli_is_of_its_split():
    metrics = {"matched_loss": 1.0, "matched_accuracy": 0.5, "mismatched_loss": 1.0, "mismatched_accuracy": 0.25}
    made = card(recorded("mnli", metrics=metrics, splits=("train", "validation_matched", "validation_mismatched")))
    found = [(r.dataset_split, r.metric_type, r.metric_value) for r in made.data.eval_results]
    assert found == [("validation_matched", "accuracy", 0.5), ("validation_mismatched", "accuracy", 0.25)]
    assert model_index_to_eval_results(made.data.to_dict()["model-index"])[1] == made.data.eval_results
    assert "on validation_matched and validation_mismatched" in made.content


def test_a_card_names_no_local_path(tmp_path, monkeypatch):
    """The record in a run's folder names the model that the run started from."""
    monkeypatch.chdir(tmp_path)
    first = recorded()
    first.folder = "runs/first"
    first.write()
    (tmp_path / "models" / "bert").mkdir(parents=True)
    path = str(tmp_path / "models" / "bert")
    names = {"some/bert": "some/bert", "runs/first": "some/bert", path: None, "models/bert": None, "demo": None}
    for name, base in (names | {"/nowhere/bert": None}).items():
        made = card(recorded(model=name))
        assert made.data.base_model == base, name
        assert name == "some/bert" or name not in made.text.partition("To repeat the run")[0] or name == "demo"
        assert f"--model_name_or_path {name}" in made.text


def test_a_readme_of_the_users_stays(run):
    Path("out").mkdir()
    Path("out/README.md").write_text("mine")
    code, _, _, err = run(f"{WORDS} --overwrite_output_dir")
    assert code == 2 and Path("out/README.md").read_text() == "mine" and "out: holds README.md" in err
    assert run(f"{WORDS} --save_model no")[0] == 0 and Path("out/README.md").read_text() == "mine"


def test_no_card_without_a_model(run):
    assert run(f"{WORDS} --save_model no")[0] == 0 and not Path("out/README.md").exists()
    assert Path("out/all_results.json").exists()


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("--drop_when finetuned", "after fine-tuning the full model, before a second fine-tuning"),
        ("--drop_when gradual --drop_every_epochs 1", "one by one during fine-tuning"),
        ("--teacher auto", "Distilled from the full model, fine-tuned first (`--distill logits`)"),
    ],
)
def test_a_card_says_how(run, way, said):
    assert run(f"{WORDS} {way}")[0] == 0 and said in Path("out/README.md").read_text()


def test_results_under_the_librarys_names(run):
    """As the library's own test of its example script reads them."""
    code, record, _, _ = run(WORDS)
    results = json.loads(Path("out/all_results.json").read_text())
    assert results["eval_accuracy"] == record["metrics"]["accuracy"] and results["eval_samples"] == 12
    assert results["train_samples"] == 24 and results["epoch"] == 1 and results["train_loss"] > 0
    parts = [json.loads(Path(f"out/{name}_results.json").read_text()) for name in ("train", "eval")]
    assert parts[0] | parts[1] == results
    assert json.loads(Path("out/trainer_state.json").read_text())["global_step"] == record["steps"] == 3
    assert run("--task_name stsb --drop_strategy top --drop_k 5 --max_steps 1 --learning_rate 0", output="nan")[0] == 0
    json.loads(Path("nan/all_results.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_layers_file_cuts_the_same_layers(run, bert):
    """By a run, and by plain transformers in three lines."""
    code, record, _, _ = run(f"{WORDS} --drop_strategy symmetric")
    portable = json.loads(Path("out/layers.json").read_text())
    assert (portable["kept"], portable["dropped"], portable["n_layers"]) == ([0, 1, 4, 5], [2, 3], 6)
    words = WORDS.replace("top --drop_k 2", "list --drop_order_file out/layers.json")
    code, again, _, err = run(words, output="again")
    assert code == 0 and again["dropped"] == [2, 3] and same(weights("out"), weights("again")), err

    model = AutoModelForSequenceClassification.from_pretrained(bert)
    layer = model.bert.encoder.layer
    model.bert.encoder.layer = type(layer)([layer[i] for i in portable["kept"]])
    ours = drop_layers(AutoModelForSequenceClassification.from_pretrained(bert), [2, 3])
    assert same(dict(model.named_parameters()), dict(ours.named_parameters()))

    Path("bad.json").write_text("[]")
    code, _, _, err = run("--task_name rte --drop_strategy list --drop_order_file bad.json", output="bad")
    said = "bad.json: names no dropped layers. The layers.json of a run is expected."
    assert code == 2 and err.splitlines()[-1].endswith(said), err

    Path("none.json").write_text('{"dropped": []}')
    code, _, _, err = run(f"{words} --drop_k 5", output="bad")
    assert code == 2 and "--drop_k 5: --drop_order_file out/layers.json names 2 layers. Leave --drop_k out." in err, err
    code, _, _, err = run("--task_name rte --drop_strategy list --drop_order_file none.json", output="bad")
    assert code == 2 and "--drop_order_file none.json: this run dropped no layer." in err, err


def test_the_card_is_pushed(run, monkeypatch):
    """A stand-in of the hub's client: the Trainer's own card is replaced, and ours goes after it."""
    import layerdrop.runs.card as module

    pushed = []

    class Repository:
        repo_id = "me/out"

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, name, exist_ok):
            assert exist_ok
            return Repository

        def upload_file(self, path_or_fileobj, path_in_repo, repo_id):
            pushed.append((path_in_repo, repo_id, Path(path_or_fileobj).read_text()))

    monkeypatch.setattr(module, "HfApi", Api)
    monkeypatch.setattr("layerdrop.finetune.trainer.FineTuner.init_hf_repo", lambda self, **kwargs: None)
    trainers_own = Path("out/README.md")
    push = "layerdrop.finetune.trainer.FineTuner.push_to_hub"
    monkeypatch.setattr(push, lambda self, *args, **kwargs: trainers_own.write_text("of the Trainer"))
    monkeypatch.setattr("layerdrop.checkpoints.work_offline_unless_reachable", lambda: True)
    code, _, _, err = run(f"{WORDS} --push_to_hub")
    assert code == 0, err
    ((path, repository, text),) = pushed
    assert (path, repository) == ("README.md", "me/out") and CARD_MARK in text
