"""A run that goes on from the trained model of another one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import run_glue
from layerdrop.architectures import ModelSpec
from layerdrop.checkpoints import Checkpoint
from layerdrop.cli.parsing import parse, parse_settings
from layerdrop.criteria.selection import Selection
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.errors import UserError
from layerdrop.finetune.spec import TrainSpec, WhenSpec
from layerdrop.finetune.trainer import FineTuner
from layerdrop.report.records import read_store
from layerdrop.runs import prerequisites
from layerdrop.runs.folder import Locked
from layerdrop.runs.inputs import quiet_options
from layerdrop.runs.record import RunRecord, read_record
from layerdrop.runs.spec import RunSpec
from layerdrop.runs.summary import summary
from layerdrop.runs.variants import frozen_layers
from layerdrop.surgery import drop_layers
from layerdrop.sweeps.study import read_study
from layerdrop.system.own_files import CHECKPOINTS, OwnFiles
from layerdrop.system.process import BUSY
from tests import tiny
from tests.running import QUICK, same, weights
from tests.running import read_record as read_json


@pytest.fixture
def first(bert, glue, tmp_path, monkeypatch):
    """The spec and options of a run in full depth that is done in the folder `first`."""
    monkeypatch.chdir(tmp_path)
    words = ["--model_name_or_path", bert, "--data_dir", glue, "--task_name", "rte", *QUICK, "--output_dir", "first"]
    spec, options = parse([*words, "--max_steps", "2", "--learning_rate", "1e-2"]).to_spec()
    assert run_glue.run(spec, options).status == "success"
    return spec, options


def without(ids, start: RunSpec, **train) -> RunSpec:
    """The spec of a run that goes on from `start` without some layers; train: {} evaluates alone."""
    train = replace(start.train, **train) if train else None
    return replace(start, drop=DropSpec("list", layers=tuple(ids)), train=train, start=start)


def test_layers_go_from_the_trained_model(first):
    """Also from one that has lost layers already; ids are always those of the checkpoint."""
    spec, options = first
    one = without([3], spec, learning_rate=0.0)
    two = without([1, 3], one, learning_rate=0.0)
    a = run_glue.run(one, replace(options, folder="one", start="first"))
    b = run_glue.run(two, replace(options, folder="two", start="one"))
    assert (a.dropped, b.dropped, b.kept, b.status) == ([3], [1, 3], [0, 2, 4, 5], "success")
    assert a.parameters_before == b.parameters_before and a.folder == "one"
    model = AutoModelForSequenceClassification.from_pretrained("first")
    drop_layers(model, [1, 3]).save_pretrained("expected")
    assert same(weights("two"), weights("expected"))
    config = AutoModelForSequenceClassification.from_pretrained("two").config
    assert config.layer_dropping == {"n_layers": 6, "kept": [0, 2, 4, 5]}

    # evaluated alone it gives the same, without a training
    alone = run_glue.run(without([1, 3], spec), replace(options, folder="alone", start="first", save_model=False))
    assert alone.metrics == b.metrics


def test_the_cost_of_a_start_includes_that_of_its_own_start(first):
    spec, options = first
    two = without([1, 3], without([3], spec, max_steps=1), max_steps=1)
    record = run_glue.run(two, replace(options, folder="deep/two"))
    assert record.status == "success" and record.prerequisites["trainings"] == 2
    assert record.prerequisites["steps"] == 1 + spec.train.max_steps


def test_a_start_beside_other_processes_is_noted(first, monkeypatch):
    """Also if only the start of the start was, and by a run that reuses the trained start."""
    spec, options = first
    two = without([1, 3], without([3], spec, max_steps=1), max_steps=1).with_seed(3)
    notes = iter([None, None, f"{BUSY} 1.0 of 2 cores", None, None])  # the start is described after its dependent run
    monkeypatch.setattr("layerdrop.runs.describe.busy_note", lambda: next(notes))
    records = [run_glue.run(two, replace(options, folder="two", prior_store="prior"))]
    other = replace(two, drop=DropSpec("top", 3))
    records.append(run_glue.run(other, replace(options, folder="other", prior_store="prior")))
    for record in records:
        (note,) = [note for note in record.notes if note.startswith(BUSY)]
        assert note == f"{BUSY} cores during the prerequisite run {two.start.name}: its times are not comparable"
        assert record.busy and read_record(record.folder).busy
    assert not run_glue.run(without([3], spec), replace(options, folder="quiet", start="first")).busy


def test_a_prerequisite_publishes_nothing_and_makes_only_what_is_needed(first):
    _, options = first
    trainer = {"push_to_hub": True, "hub_model_id": "me/x", "hub_token": "t", "eval_strategy": "epoch", "seed": 1}
    asked = {"predict": True, "evaluate": False, "overwrite": True, "rolling_checkpoints": False, "start": "first"}
    quiet = quiet_options(replace(options, trainer=trainer, test="x.csv", notes=("a note",), **asked))
    assert quiet.trainer == {"eval_strategy": "no", "seed": 1, "disable_tqdm": True, "report_to": []}
    assert (quiet.predict, quiet.evaluate, quiet.overwrite, quiet.rolling_checkpoints) == (False, True, False, True)
    assert quiet.start is None and quiet.test is None and quiet.notes == ()


def test_another_start_is_another_run(first):
    spec, _ = first
    assert without([3], spec).id != replace(without([3], spec), start=None).id
    assert without([3], spec).id != without([3], replace(spec, seed=7)).id
    deep = without([1, 3], without([3], spec))
    assert RunSpec.from_dict(json.loads(json.dumps(deep.to_dict()))) == deep
    assert deep.name.endswith("_rte_list_1-3_after_seed42_eval") and RunSpec.from_dict(spec.to_dict()).start is None


def test_what_it_goes_on_from_is_recorded_and_looked_at(first):
    spec, options = first
    there = replace(options, folder="on", start="first")
    run_glue.run(without([3], spec), there)
    assert read_record("on").fingerprints["start"] not in ("", read_record("on").fingerprints["model"])
    drop_layers(AutoModelForSequenceClassification.from_pretrained("first"), []).half().save_pretrained("first")
    with pytest.raises(UserError, match="the start model changed since"):
        run_glue.run(without([3], spec), there)


def test_a_start_that_cannot_be(first):
    spec, options = first
    on = replace(options, folder="on", start="first")
    with pytest.raises(UserError, match="nowhere: no trained model of the run .*full_k0_seed42. Execute that run"):
        run_glue.run(without([3], spec), replace(on, start="nowhere"))
    with pytest.raises(UserError, match="first: no trained model of the run .*_seed7"):
        run_glue.run(without([3], replace(spec, seed=7)), on)
    one = without([3], spec, learning_rate=0.0)
    run_glue.run(one, replace(on, folder="one"))
    with pytest.raises(UserError, match="one: lacks layer 3, which this run keeps. Give --drop_layers with 3"):
        run_glue.run(without([1], one), replace(on, start="one"))
    run_glue.run(without([4], spec, max_steps=1), replace(on, folder="light", save_model=False))
    with pytest.raises(UserError, match="light: no trained model"):
        run_glue.run(without([4, 5], without([4], spec, max_steps=1)), replace(on, start="light"))


# ---- --drop_when finetuned, after ------------------------------------------------------------------------------------
TOP = "--task_name rte --num_train_epochs 1 --learning_rate 1e-3 --drop_strategy top --drop_k 2"


def prior(folder="out") -> list[dict]:
    """The records of the runs that a run has done first."""
    return [read_json(path.parent) for path in sorted(Path(folder, "prior").glob("*/record.json"))]


def test_the_cost_of_resumed_prerequisite_runs(monkeypatch):
    """Sums over direct and indirect runs. Records of earlier versions have no number of resumed trainings."""
    whole, resumed = (
        RunRecord(
            RunSpec(ModelSpec("x"), DataSpec("rte")),
            "x",
            "success",
            steps=5,
            seconds={"train": 2.0},
            resumed_at_step=step,
        )
        for step in (None, 3)
    )
    resumed.prerequisites = {"trainings": 1, "steps": 2, "seconds": 1.0}
    for records, n in ([whole], 0), ([resumed], 1), ([whole, resumed], 1), ([resumed, resumed], 2):
        monkeypatch.setattr(prerequisites.Prerequisites, "_records", records)
        cost = object.__new__(prerequisites.Prerequisites).cost
        assert cost["resumed"] == n and cost["steps"] == sum(5 + 2 * (record is resumed) for record in records)
        whole.prerequisites = cost
        assert ("a training was resumed: only its last part" in summary(whole)) == bool(n)
        whole.prerequisites = {}


def test_fine_tuned_first(run):
    """By hand: a run in full depth; a run that goes on from its folder without the top layers."""
    code, record, out, err = run(f"{TOP} --drop_when finetuned")
    assert code == 0, err
    (first,) = prior()
    assert "prerequisite run tinybert_rte_full_k0_seed42" in err and "requires   1 prerequisite run, 3 steps" in out
    assert record["prerequisites"] == {
        "trainings": 1,
        "steps": 3,
        "seconds": first["seconds"]["train"],
        "resumed": 0,
    }
    assert record["fingerprints"]["start"] and first["kept"] == list(range(6)) and record["kept"] == [0, 1, 2, 3]
    plain = TOP.replace("--drop_strategy top --drop_k 2", "")
    assert run(plain, output="full")[0] == 0
    code, by_hand, _, err = run(TOP, model="full", output="by_hand")
    assert code == 0 and same(weights("by_hand"), weights("out")) and by_hand["metrics"] == record["metrics"]

    # another K has the same first training; a run that is done needs none
    code, other, _, err = run(f"{TOP} --drop_when finetuned --drop_k 3 --overwrite_output_dir")
    assert code == 0 and "prerequisite run" not in err and len(prior()) == 1
    shutil.rmtree("out/prior")
    assert "already done" in run(f"{TOP} --drop_when finetuned --drop_k 3")[3] and not prior()


def test_a_run_that_has_been_done_before_is_not_done_again(run):
    """In the folder beside, under its own name, with its model."""
    plain = TOP.replace("--drop_strategy top --drop_k 2", "")
    assert run(plain, output=None)[0] == 0
    code, record, _, err = run(f"{TOP} --drop_when finetuned", output="runs/out")
    assert code == 0 and "prerequisite run" not in err and not prior("runs/out"), err
    assert "using the trained model of tinybert_rte_full_k0_seed42 in runs/" in err
    assert record["prerequisites"]["trainings"] == 1
    assert run(f"{plain} --save_model no --overwrite_output_dir", output=None)[0] == 0
    assert "prerequisite run" in run(f"{TOP} --drop_when finetuned --overwrite_output_dir", output="runs/out")[3]


def test_interrupted_in_the_first_training(run, monkeypatch):
    fine_tune = run_glue.fine_tune

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_glue, "fine_tune", interrupted)
    code, record, _, err = run(f"{TOP} --drop_when finetuned")
    assert code == 130 and err.splitlines()[-1] == "stopped. Repeat the command to continue."
    err = run(f"{TOP} --drop_when finetuned --overwrite_output_dir")[3]
    assert err.splitlines()[-1] == "stopped. Repeat the command to continue."
    monkeypatch.setattr(run_glue, "fine_tune", fine_tune)
    code, record, _, err = run(f"{TOP} --drop_when finetuned")
    assert code == 0 and record["status"] == "success" and len(prior()) == 1, err


@pytest.mark.parametrize(
    ("words", "stopped", "advice"),
    [
        (TOP, "fine_tune", "Repeat the command with --resume_from_checkpoint auto to continue."),
        (
            f"{TOP} --overwrite_output_dir",
            "fine_tune",
            "Repeat the command with --resume_from_checkpoint auto instead of --overwrite_output_dir to continue.",
        ),
        (f"{TOP} --dry_run", "preview", "Repeat the command to continue."),
        ("--task_name rte --do_eval", "predict", "Repeat the command to continue."),
    ],
)
def test_only_an_interrupted_training_is_resumed(run, monkeypatch, words, stopped, advice):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_glue, stopped, interrupted)
    code, _, _, err = run(words)
    assert code == 130 and err.splitlines()[-1] == f"stopped. {advice}"


def test_after_fine_tuning_without_another_one(run):
    code, record, _, err = run(f"{TOP} --drop_when after")
    assert code == 0 and record["steps"] is None and record["spec"]["train"] is None, err
    model = AutoModelForSequenceClassification.from_pretrained(prior()[0]["folder"])
    drop_layers(model, [4, 5]).save_pretrained("expected")
    assert same(weights("out"), weights("expected"))
    assert run("--task_name rte --do_eval", model="out", output="again")[1]["metrics"] == record["metrics"]
    assert record["prerequisites"]["trainings"] == 1 and "train" not in record["seconds"]
    assert "already done" in run(f"{TOP} --drop_when after")[3]


def test_what_will_go_is_frozen_in_the_first_training(run, bert):
    code, record, _, err = run(f"{TOP} --drop_when finetuned --freeze_dropped")
    assert code == 0 and record["kept"] == [0, 1, 2, 3], err
    (first,) = prior()
    assert first["cuts"][0]["why"] == "top, K = 2, frozen" and first["dropped"] == []
    assert first["parameters_after"] == first["parameters_before"] > record["parameters_after"]
    before, trained = weights(bert), weights(first["folder"])
    layers = {name: name.split(".layer.")[1][0] for name in before if ".layer." in name}
    moved = {layer for name, layer in layers.items() if not torch.equal(before[name], trained[name])}
    assert moved == {"0", "1", "2", "3"}
    assert run(f"{TOP} --drop_k 3 --drop_when finetuned --freeze_dropped --overwrite_output_dir")[0] == 0
    assert len(prior()) == 2  # other layers were frozen


def test_shared_layers_cannot_be_frozen(tmp_path):
    checkpoint = Checkpoint.open(tiny.save(tmp_path, "albert"))
    spec = RunSpec(checkpoint.model, DataSpec("rte"))
    dropped, kept = replace(spec, when=WhenSpec(frozen=True)), replace(spec, train=TrainSpec(freeze_layers=(0,)))
    for flag, one in (("--freeze_dropped", dropped), ("--freeze_layers", kept)):
        with pytest.raises(UserError, match=f"^{flag}: this model's layers share their weights"):
            frozen_layers(one, checkpoint, Selection([5]))


def test_the_first_training_has_its_own_recipe(run):
    words = f"{TOP} --drop_when finetuned --start_num_train_epochs 2 --start_learning_rate 5e-4"
    code, record, _, _ = run(words)
    (first,) = prior()
    assert first["steps"] == 6 and record["steps"] == 3 and first["spec"]["train"]["learning_rate"] == 5e-4
    spec = RunSpec.from_dict(record["spec"])
    assert spec.flat()["start_num_train_epochs"] == 2 and spec.flat()["start_learning_rate"] == 5e-4
    assert spec.drop_when == "finetuned" and spec.id == record["id"]


def test_a_first_training_that_fails(run):
    code, _, _, err = run(f"{TOP} --drop_when finetuned --learning_rate 1e30")
    assert code == 2 and "tinybert_rte_full_k0_seed42: the prerequisite run failed" in err.splitlines()[-1]
    assert "Its record is in out/prior/" in err and "diverged" in err and not Path("out/record.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--drop_when after --do_eval", "Add --do_train"),
        ("--freeze_dropped", "only with --drop_when finetuned and --drop_strategy"),
        ("--drop_when after --freeze_dropped", "only with --drop_when finetuned and --drop_strategy"),
        ("--drop_when finetuned --drop_step 2", "--drop_step: only with --drop_when gradual, not finetuned"),
        ("--start_num_train_epochs 2", "only with --drop_when finetuned, after and elastic, not"),
        ("--teacher x --teacher_num_train_epochs 2", "only with --teacher auto"),
        ("--drop_when finetuned --start_learning_rate 0", "--start_learning_rate 0.0: must be above 0"),
    ],
)
def test_what_cannot_be(run, words, said):
    code, _, _, err = run(f"{TOP} {words}")
    assert code == 2 and said in err and len(err.splitlines()) == 1, err


def test_the_runs_of_a_study_share_the_first_training(bert, glue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = {"settings": {"model_name_or_path": bert, "data_dir": glue, "use_cpu": True}, "grid": {"k": [1, 2]}}
    study["grid"] |= {"tasks": "rte", "strategies": "top", "drop_when": ["finetuned", "after"]}
    Path("study.yaml").write_text(json.dumps(study))
    jobs = read_study("study.yaml", "store", parse_settings).jobs
    assert len({job.spec.start.id for job in jobs}) == 1 and len(jobs) == 4
    assert {job.options.prior_store for job in jobs} == {"store/prior"}
    for job in jobs:
        assert run_glue.run(job.spec, job.options).status == "success"
    assert len(list(Path("store/prior").glob("*/record.json"))) == 1 and len(read_store(["store"]).done) == 4


def test_a_study_trains_its_full_models_once(bert, glue, tmp_path, monkeypatch):
    """K = 0 keeps its model where other runs need it, and only there."""
    monkeypatch.chdir(tmp_path)
    study = {"settings": {"model_name_or_path": bert, "data_dir": glue, "use_cpu": True, "task_name": "rte"}}
    study["grid"] = [{"k": 0, "seeds": [1, 2]}, {"strategies": "top", "k": 1, "drop_when": "finetuned", "seeds": 1}]
    study["grid"].append({"strategies": "top", "k": 2, "teacher": "auto", "distill": "logits", "seeds": 1})
    Path("study.yaml").write_text(json.dumps(study))
    jobs = read_study("study.yaml", "store", parse_settings).jobs
    assert [job.options.save_model for job in jobs] == [True, False, False, False]
    for job in (jobs[0], *jobs[2:]):
        assert run_glue.run(job.spec, job.options).status == "success"
    assert not list(Path("store").glob("prior/*/record.json")) and len(read_store(["store"]).done) == 3


# ---- a start that has changed ----------------------------------------------------------------------------------------
def flipped(glue, folder="flipped") -> str:
    """A copy of the GLUE folder; `flip` turns its labels round in place."""
    shutil.copytree(glue, folder)
    return folder


def flip(folder: str) -> None:
    path = Path(folder, "RTE", "train.tsv")
    text = path.read_text().replace("not_entailment", "@").replace("entailment", "not_entailment")
    path.write_text(text.replace("@", "entailment"))


@pytest.mark.parametrize("how", ["--drop_when finetuned", "--drop_when after", "--teacher auto --distill logits"])
def test_a_start_or_teacher_on_data_that_have_changed_is_trained_again(run, glue, how):
    """Labels that were turned round in place: the old model is not used under the same id."""
    data = flipped(glue)
    words = f"{TOP} {how}"
    _, before, _, _ = run(words, data=data)
    name = "teacher" if "teacher" in how else "start"
    flip(data)
    code, _, _, err = run(words, data=data)
    assert code == 2 and "but the rows of train changed since" in err
    code, after, _, err = run(words + " --overwrite_output_dir", data=data)
    assert code == 0 and "again (the rows of train" in err and len(prior()) == 1, err
    assert after["fingerprints"][name] != before["fingerprints"][name] and after["id"] == before["id"]
    assert prior()[0]["data"]["train"] == after["data"]["train"] != before["data"]["train"]
    code, again, _, err = run(words, data=data)
    assert code == 0 and "already done" in err and again == after


def test_a_full_model_beside_on_other_data_is_not_taken(run, glue):
    """Also one under its own name."""
    data = flipped(glue)
    plain = TOP.replace("--drop_strategy top --drop_k 2", "")
    assert run(plain, output=None, data=data)[0] == 0
    flip(data)
    code, record, _, err = run(f"{TOP} --drop_when finetuned", output="runs/out", data=data)
    assert code == 0 and len(prior("runs/out")) == 1 and "prerequisite run" in err, err


def test_a_prerequisite_whose_model_vanishes_ends_with_an_error(run, monkeypatch):
    """It is trained once."""
    save, trained = FineTuner.save_run, []

    def lost(trainer):
        save(trainer)
        if "prior" in trainer.args.output_dir:
            trained.append(trainer)
            Path(trainer.args.output_dir, "model.safetensors").unlink()

    monkeypatch.setattr(FineTuner, "save_run", lost)
    code, record, _, err = run(f"{TOP} --drop_when finetuned")
    assert code == 2 and len(trained) == 1 and "was trained, but its model is not in out/prior" in err, err
    assert err.splitlines()[-1].startswith("error: tinybert_rte_full_k0_seed42: this prerequisite run was trained")


def test_a_lost_start_beside_other_validation_rows_is_trained_again(run, glue):
    """Its model is gone and its own metrics are of old rows: neither stands in the way."""
    data = flipped(glue)
    words = f"{TOP} --drop_when finetuned"
    assert run(words, data=data)[0] == 0
    Path(prior()[0]["folder"], "model.safetensors").unlink()
    path = Path(data, "RTE", "dev.tsv")
    path.write_text(path.read_text().replace("\tentailment", "\tnot_entailment"))
    code, record, _, err = run(words + " --overwrite_output_dir", data=data)
    assert code == 0 and "again (the rows of validation changed since)" in err and len(prior()) == 1, err
    assert prior()[0]["data"]["validation"] == record["data"]["validation"]


@pytest.mark.parametrize("stale", [False, True])
def test_a_prerequisite_that_another_process_trains_meanwhile_is_used(run, glue, monkeypatch, stale):
    """Also where its inputs have changed since the last time: the other process's new model is not replaced."""
    data, words, trained = flipped(glue), f"{TOP} --drop_when finetuned", []
    if stale:
        assert run(words, data=data)[0] == 0
        flip(data)
    execute = run_glue.run

    def taken(spec, options):
        if spec.start is None and not trained:
            assert execute(spec, options).status == "success"
            trained.append(Path(options.folder, "model.safetensors").stat().st_mtime_ns)
            raise Locked("another process")
        return execute(spec, options)

    monkeypatch.setattr(run_glue, "run", taken)
    monkeypatch.setattr(prerequisites, "POLL", 0.0)
    code, _, _, err = run(f"{words} --overwrite_output_dir", data=data)
    assert code == 0 and err.count("another process trains tinybert_rte_full_k0_seed42: waiting for it") == 1, err
    assert [Path(prior()[0]["folder"], "model.safetensors").stat().st_mtime_ns] == trained


@pytest.mark.parametrize("name", ["README.md", "layers.json", "spec.json"])
def test_files_of_a_prerequisite_run_that_a_kill_prevented_are_added(run, name):
    """Without a second training, also the end of its reservation in spec.json."""
    words = f"{TOP} --drop_when finetuned --max_steps 2"
    run(f"{words} --drop_k 3")
    folder = Path(prior()[0]["folder"])
    content, trained = (folder / name).read_text(), (folder / "model.safetensors").stat().st_mtime_ns
    if name == "spec.json":
        OwnFiles(folder).reserve([CHECKPOINTS])
    else:
        (folder / name).unlink()
    code, _, _, err = run(f"{words} --drop_k 2 --overwrite_output_dir")
    assert code == 0 and f"added: {name}" in err and (folder / name).read_text() == content
    assert (folder / "model.safetensors").stat().st_mtime_ns == trained


def test_a_preview_of_predictions_names_the_missing_file(run, tmp_path):
    (tmp_path / "x.csv").write_text("text,label\nw1 w,a\nw2 w,b\n")
    words = "--train_file x.csv --validation_file x.csv --do_predict --dry_run"
    code, _, _, err = run(words, data=None)
    assert code == 2 and "--test_file is missing" in err and err.count("error:") == 1
