"""Elastic depth as a run: one training, a run for each K."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

import run_glue
from layerdrop.cli.command import run_command
from layerdrop.cli.parsing import parse
from layerdrop.cli.run import _other_depths
from layerdrop.runs.folder import lock_folder
from layerdrop.runs.record import RunRecord, read_record
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
        moment = "after one fine-tuning of the full model and shallower models"
        said = moment if k else "Dropped: none. Training variant: `--drop_when elastic`."
        assert said in (Path(folder) / "README.md").read_text()
    assert read_record("out/k0").metrics == training["metrics"]
    assert f"K = 0: accuracy {training['metrics']['accuracy']:.4f}  out/k0" in err
    code, again, _, err = run(f"{WORDS} --drop_k 3 --elastic_k 0 2 3")
    assert code == 0 and again == record and err.count("already done") == 3 and len(trainings("out")) == 1


def test_a_training_of_a_cut_checkpoint(run, bert):
    """The cards name the layers that the checkpoint lacks, and those that the run drops; ids count in the original."""
    assert run_command("cut", [bert, "--drop_layers", "1", "--output_dir", "cut"]) == 0
    code, _, _, err = run(f"{WORDS} --drop_k 2 --elastic_k 1 2 --max_steps 2", model="cut")
    assert code == 0, err
    dropped = {"out/k0": "", "out/k1": "Dropped by this run: 5 (ids", "out": "Dropped by this run: 4, 5 (ids"}
    for (folder, said), kept in zip(dropped.items(), ([0, 2, 3, 4, 5], [0, 2, 3, 4], [0, 2, 3]), strict=True):
        text = Path(folder, "README.md").read_text()
        assert "already lacks layer 1 of the original model, which has\n6 layers.\n" in text
        assert (said or "This run drops no further layer. Training variant: `--drop_when elastic`.") in text
        assert f"with {len(kept)} of 6 layers" in text and "full_k0" not in text.partition("## Use")[0]
        assert read_record(folder).kept == json.loads(Path(folder, "layers.json").read_text())["kept"] == kept
        assert AutoModelForSequenceClassification.from_pretrained(folder).config.num_hidden_layers == len(kept)


def test_notes_on_the_data_are_printed_once(run):
    """By a training and all its K. A malformed row counts once, also if the validation set is a part of the file."""
    rows = [f"w{i} w{i + 1},{'ab'[i % 2]}" for i in range(24)]
    Path("train.csv").write_text("\n".join(["text,label", *rows, ",b", ",a"]) + "\n")
    words = "--train_file train.csv --validation_share 0.25 --skip_bad_rows --max_steps 2"
    for _ in range(2):  # with the training, and with a training that is done
        code, record, _, err = run(
            f"{words} --drop_when elastic --drop_k 2 --elastic_k 1 2 --overwrite_output_dir", data=None
        )
        notes = [line for line in err.splitlines() if line.startswith("note: ")]
        assert code == 0 and len(notes) == len(set(notes)), err
        assert err.count("2 malformed rows of train left out: lines 26, 27") == 1, err
    assert {split: read["bad_rows"] for split, read in record["data"].items()} == {"train": 2, "validation": 0}
    assert run(words, data=None, output="plain")[0] == 0
    text = Path("plain/README.md").read_text()
    assert "Rows: 18 of train (2 malformed rows left out), 6 of validation." in text
    for k in (0, 1):
        assert read_record(f"out/k{k}").notes == read_record("out").notes
        assert "(2 malformed rows left out), 6 of validation." in Path(f"out/k{k}/README.md").read_text()


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


def test_the_other_depths_are_those_of_the_training_where_a_model_is_fine_tuned_again(run):
    words = f"{WORDS} --drop_k 2 --elastic_k 2 3 --max_steps 2"
    code, record, _, err = run(f"{words} --finetune_again")
    assert code == 0 and record["spec"]["train"] and record["kept"] == [0, 1, 2, 3], err
    assert sorted(path.name for path in Path("out").glob("k*")) == ["k0", "k2", "k3"]
    assert len(trainings("out")) == 2
    code, plain, _, err = run(words, output="plain")
    assert code == 0 and plain["metrics"] == read_record("out/k2").metrics, err
    assert read_record("out/k2").spec == read_record("plain").spec


def test_a_depth_that_fails_fails_the_command(run, monkeypatch):
    def fail(spec, options):
        if Path(options.folder).name == "k2":
            return RunRecord(spec, options.folder, "failed", error="it broke")
        return run_glue_run(spec, options)

    run_glue_run = run_glue.run
    monkeypatch.setattr(run_glue, "run", fail)
    code, record, out, _ = run(f"{WORDS} --drop_k 3 --max_steps 2")
    assert code == 1 and record["status"] == "success" and "it broke" in out
    assert Path("out/k1/record.json").is_file()
    monkeypatch.undo()


def test_a_depth_in_use_is_one_line(run):
    words = f"{WORDS} --drop_k 1 --max_steps 2"
    with lock_folder("out/k0"):
        code, record, _, err = run(words)
    assert code == 2 and record["status"] == "success" and "out/k0: another process uses this folder" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "name, said",
    [
        ("record.json", "out/k1/record.json: cannot be read ("),
        ("predictions_dev.tsv", "--output_dir out/k1: holds predictions_dev.tsv. This run did not write it"),
        ("config.json", "--output_dir out/k1: holds config.json. This run did not write it"),
    ],
)
def test_a_file_of_the_user_in_the_folder_of_a_depth_is_refused_before_the_training(run, name, said):
    Path("out/k1").mkdir(parents=True)
    (Path("out/k1") / name).write_text("mine")
    code, _, _, err = run(f"{WORDS} --drop_k 2 --max_steps 2")
    assert code == 2 and said in err and "Move" in err
    assert (Path("out/k1") / name).read_text() == "mine" and not Path("out/prior").exists()


def test_another_run_in_the_folder_of_a_depth_is_refused_before_the_training(run):
    assert run("--task_name rte --drop_strategy top --drop_k 1 --max_steps 2", output="out/k1")[0] == 0
    words = f"{WORDS} --drop_k 2 --max_steps 2"
    code, _, _, err = run(words)
    assert code == 2 and "out/k1: holds a run with other settings" in err and not Path("out/prior").exists()
    code, _, _, err = run(f"{words} --overwrite_output_dir")
    assert code == 0 and read_record("out/k1").spec.drop_when == "elastic", err


def test_a_file_of_a_finished_depth_that_the_user_has_changed_is_kept(run):
    words = f"{WORDS} --drop_k 2 --max_steps 2"
    assert run(words)[0] == 0
    Path("out/k1/README.md").write_text("mine")
    code, _, _, err = run(words)
    assert code == 0 and err.count("already done") == 3, err
    assert Path("out/k1/README.md").read_text() == "mine"
    code, _, _, err = run(f"{words} --overwrite_output_dir")
    assert code == 2 and "out/k1: holds README.md. This run did not write it" in err
    assert read_record("out").status == "success"


def test_a_preview_names_the_training_and_the_other_depths(run):
    code, record, _, err = run(f"{WORDS} --drop_k 3 --elastic_k 2 3 --dry_run")
    assert code == 0, err
    assert "prerequisite run: tinybert_rte_full_k0_elastic_seed" in err and "K = 0: out/k0\nK = 2: out/k2\n" in err
    assert not list(Path().rglob("record.json"))


def test_the_other_depths_are_not_uploaded_and_begin_anew():
    words = (
        "--model_name_or_path demo --task_name demo-rte --drop_when elastic --drop_k 2 --output_dir out --do_predict"
    )
    words += " --do_train --push_to_hub --hub_model_id a/b --overwrite_output_dir --logging_steps 7"
    spec, options = parse(words.split()).to_spec()
    others = {k: (other, own) for k, other, own in _other_depths(spec, replace(options, resume="last"))}
    assert sorted(others) == [0, 1] and options.trainer["push_to_hub"]
    for k, (other, own) in others.items():
        assert other.drop.k == (k or None) and other.start == spec.start and other.train is None
        assert own.folder == f"out/k{k}" and own.prior_store == "out/prior" and own.predict and own.overwrite
        assert own.resume is None and own.trainer["logging_steps"] == 7
        assert not {name for name in own.trainer if name.startswith(("push", "hub"))}


def test_overwriting_begins_every_depth_anew(run):
    words = f"{WORDS} --drop_k 2 --max_steps 2"
    assert run(words)[0] == 0
    code, _, _, err = run(f"{words} --seed 2")
    assert code == 2 and "--seed: 42, now 2" in err
    code, record, _, err = run(f"{words} --seed 2 --overwrite_output_dir")
    assert code == 0 and record["spec"]["seed"] == read_record("out/k1").spec.seed == 2, err


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
        (
            f"{WORDS} --drop_k 3 --elastic_k 2",
            "--drop_k 3: the elastic training has only K = 2 (--elastic_k). Choose one of them, or add 3 to",
        ),
        (
            f"{WORDS} --drop_k 7 --elastic_k 2 4",
            "--drop_k 7: a model of 6 layers must keep at least one, and the elastic training has only K = 2, 4 "
            "(--elastic_k). Choose one of them.\n",
        ),
        (f"{WORDS} --drop_k 8 --elastic_k 2 7", "the elastic training has only K = 2 (--elastic_k). Choose one"),
        (f"{WORDS} --drop_k 8 --elastic_k 7", "--drop_k 8: a model of 6 layers must keep at least one. Choose 0 to 5"),
        ("--task_name rte --drop_when elastic", "needs the numbers of layers. Add --elastic_k 2 4 6, or --drop_k N"),
        (f"{WORDS} --drop_k 2 --elastic_k two", "--elastic_k 'two': not a list of numbers of layers"),
        (f"{WORDS} --drop_k 2 --elastic_k -1 2", "--elastic_k -1: must be from 1 to 1000. Give numbers"),
        (f"{WORDS} --drop_k 2 --elastic_k 2 99999", "--elastic_k 99999: must be from 1 to 1000. Give numbers"),
        (f"{WORDS} --elastic_k 0", "needs the numbers of layers. Add --elastic_k 2 4 6, or --drop_k N"),
        (f"{WORDS} --drop_k 0", "--drop_when elastic: no layer to drop. Add --elastic_k 2 4 6, or --drop_k N above 0"),
        (f"{WORDS} --drop_k 2 --do_eval", "Add --do_train"),
        ("--task_name rte --drop_when elastic --drop_layers 4,5 --elastic_k 2", "Use --drop_strategy top, not list"),
        (f"{WORDS} --drop_k 6", "--drop_k 6: a model of 6 layers must keep at least one"),
        (f"{WORDS} --drop_k 2 --elastic_k 2 6", "--elastic_k 6: a model of 6 layers must keep at least one"),
        (
            "--task_name rte --drop_strategy bottom --drop_k 2 --drop_when elastic",
            "Use --drop_strategy top, not",
        ),
        ("--task_name rte --drop_strategy top --drop_k 2 --elastic_k 2", "--elastic_k: only with --drop_when elastic"),
        (f"{WORDS} --drop_k 2 --teacher auto", "--teacher: cannot be combined with --drop_when elastic"),
        (f"{WORDS} --drop_k 2 --theseus", "--theseus: needs --drop_when"),
        (f"{WORDS} --drop_k 2 --layerdrop_rate 0.1", "--layerdrop_rate: cannot be combined"),
    ],
)
def test_what_cannot_be_elastic(run, words, said):
    code, _, _, err = run(words)
    assert code == 2 and said in err
