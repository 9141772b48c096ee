"""A run asked for twice, stopped, overwritten, or by two at once: nothing is lost, nothing is done twice."""

import json
import math
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from layerdrop.cli.command import run_command
from layerdrop.finetune import interrupt
from layerdrop.finetune.trainer import FineTuner
from layerdrop.runs import folder
from layerdrop.runs.results import RESULT_FILES
from layerdrop.runs.spec import RunSpec
from layerdrop.runs.status import Needs, status_of
from layerdrop.system.own_files import CHECKPOINTS, OwnFiles
from tests.processes import kill_at_checkpoint, start_command
from tests.running import QUICK, assert_same_results, predictions, read_record, same, weights
from tests.runs.test_store import cut


def test_running_twice(run, bert):
    code, first, _, _ = run("--task_name rte")
    stamp = Path("out/model.safetensors").stat().st_mtime_ns
    code, second, out, err = run("--task_name rte")
    assert code == 0 and "already done" in err and second == first and "accuracy" in out
    code, _, _, err = run("--task_name rte --learning_rate 1e-5")
    assert code == 2 and "learning_rate: 2e-05, now 1e-05" in err
    assert Path("out/model.safetensors").stat().st_mtime_ns == stamp
    code, _, _, err = run("--task_name rte --overwrite_output_dir --drop_strategy top --drop_k 99")
    assert code == 2 and read_record("out") == first  # what cannot be done costs nothing
    code, third, _, _ = run("--task_name rte --learning_rate 1e-5 --overwrite_output_dir")
    assert code == 0 and third["id"] != first["id"]


@pytest.mark.parametrize(("strategy", "stop"), [("group_by_length", 3), ("group_by_length", 5), ("random", 5)])
def test_resumed_is_bit_identical(run, monkeypatch, strategy, stop):
    """Stopped at the end of an epoch (3 steps each) and in the middle of one."""
    words = f"--task_name rte --drop_strategy top --drop_k 2 --train_sampling_strategy {strategy}"
    _, whole, _, _ = run(words, output="whole")

    usual = interrupt.Interrupt.on_step_end

    def stop_there(self, args, state, control, **kwargs):
        if state.global_step == stop:
            os.kill(os.getpid(), signal.SIGINT)
        usual(self, args, state, control, **kwargs)

    monkeypatch.setattr(interrupt.Interrupt, "on_step_end", stop_there)
    code, record, _, err = run(words)
    assert code == 130 and record["status"] == "cancelled" and f"checkpoint-{stop}" in err
    monkeypatch.setattr(interrupt.Interrupt, "on_step_end", usual)
    code, _, _, err = run(words)
    assert code == 2 and "--resume_from_checkpoint" in err
    more = " --do_train --do_eval --do_predict --resume_from_checkpoint"  # what else is read changes nothing
    code, resumed, out, err = run(words + more)
    assert code == 0, err
    assert same(weights("whole"), weights("out")) and Path("out/RTE.tsv").is_file()
    assert resumed["metrics"] == whole["metrics"] and resumed["id"] == whole["id"]
    assert [entry["step"] for entry in resumed["epochs"]] == [3, 6, 9]
    assert resumed["epochs"][0] == whole["epochs"][0]  # measured before the stop
    for name in ("train_loss", "loss", "accuracy"):  # the loss of an epoch is over all its steps
        for ours, theirs in zip(resumed["epochs"], whole["epochs"], strict=True):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name
    assert resumed["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-5)
    results, state = (json.loads(Path(f"{where}/{name}.json").read_text())
                      for where, name in (("out", "train_results"), ("whole", "trainer_state")))  # fmt: skip
    assert whole["train_loss"] == state["log_history"][-1]["train_loss"]  # the library's own, to the bit
    assert results["train_loss"] == resumed["train_loss"]
    state = json.loads(Path("out/trainer_state.json").read_text())
    assert state["log_history"][-1]["train_loss"] == resumed["train_loss"]
    done = 9 - stop
    assert results["train_steps_per_second"] == pytest.approx(done / resumed["seconds"]["train"])
    assert results["train_samples_per_second"] == pytest.approx(8 * done / resumed["seconds"]["train"])
    assert f"resumed    at step {stop}: seconds count from this step" in out
    assert resumed["resumed_at_step"] == stop and resumed["tokens_per_second"] is None
    assert not list(Path("out").glob("checkpoint-*"))
    code, again, _, err = run(words + more)
    assert code == 0 and again == resumed and "already done" in err


@pytest.mark.parametrize(
    ("words", "checkpoint"),
    [
        ("--train_sampling_strategy random --gradient_accumulation_steps 2 --per_device_train_batch_size 2", 5),
        ("--max_steps 8 --gradient_accumulation_steps 2 --per_device_train_batch_size 3 --layerdrop_rate 0.3", 7),
        ("--drop_when gradual --drop_step 1 --drop_every_epochs 1 --train_sampling_strategy random", 5),
        ("--drop_when finetuned --theseus", 7),  # of the second training
        ("--teacher auto --distill layers --logging_strategy steps --logging_steps 2", 7),
        ("--drop_when elastic --elastic_k 2 4 --finetune_again", 4),
    ],
)
def test_killed_within_an_epoch_is_bit_identical(run, bert, glue, words, checkpoint):
    """Killed after a rolling checkpoint, also of a prerequisite run."""
    words = f"--task_name rte --drop_strategy top --drop_k 2 --num_train_epochs 2 --learning_rate 1e-3 {words}"
    code, whole, _, err = run(words, output="whole/run")
    assert code == 0, err
    words += " --resume_from_checkpoint auto"
    argv = ["--model_name_or_path", bert, "--data_dir", glue, *QUICK, "--output_dir", "killed/run", *words.split()]
    kill_at_checkpoint(checkpoint, lambda: run_command("run", argv))
    code, record, _, err = run(words, output="killed/run")
    assert code == 0, err
    assert record["resumed_at_step"] or record["prerequisites"]["resumed"]
    assert_same_results("killed", "whole")
    for name in ("metrics", "cuts", "steps"):
        assert record[name] == whole[name], name
    assert [pytest.approx(entry, rel=1e-5) for entry in whole["epochs"]] == record["epochs"]


@pytest.mark.parametrize("save", ["", "--save_strategy steps --save_steps 4"])
def test_a_training_that_is_complete_trains_no_further(run, monkeypatch, save):
    """Stopped after the last of 4 steps, within the second epoch."""
    words = f"--task_name rte --max_steps 4 --learning_rate 1e-3 {save}"
    _, whole, _, _ = run(words, output="whole")

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for name in ("CHECKPOINT_SECONDS", "WITHIN_EPOCH_SECONDS"):
            patch.setattr(interrupt, name, 0.0)
        patch.setattr(interrupt, "CHECKPOINT_SHARE", math.inf)
        patch.setattr(FineTuner, "save_run", killed)
        assert run(words)[0] == 130
    last = "checkpoint-4" if save else "checkpoint-3"  # a rolling checkpoint of the last step would be useless
    assert sorted(path.name for path in Path("out").glob("checkpoint-*"))[-1] == last
    code, record, _, _ = run(words + " --resume_from_checkpoint")
    assert code == 0 and record["steps"] == 4 and record["metrics"] == whole["metrics"]
    assert [pytest.approx(entry, rel=1e-5) for entry in whole["epochs"]] == record["epochs"]
    assert same(weights("whole"), weights("out"))


@pytest.mark.parametrize(("seconds", "saved"), [(0.0, [3, 6]), (3600.0, [])])
def test_checkpoints_to_resume_from_are_not_written_all_the_time(run, monkeypatch, seconds, saved):
    steps = []
    monkeypatch.setattr(interrupt, "CHECKPOINT_SECONDS", seconds)
    monkeypatch.setattr(
        interrupt.Interrupt, "on_save", lambda self, args, state, *_, **__: steps.append(state.global_step)
    )
    assert run("--task_name rte")[0] == 0 and steps == saved


def test_checkpoints_that_were_asked_for_stay(run):
    run("--task_name rte --save_strategy steps --save_steps 4 --save_total_limit 2")
    assert sorted(path.name for path in Path("out").glob("checkpoint-*")) == ["checkpoint-8", "checkpoint-9"]


def test_a_run_killed_after_its_record_leaves_no_checkpoint(run, monkeypatch):
    """Repeating it deletes the rolling checkpoints and writes the results."""
    monkeypatch.setattr(interrupt, "CHECKPOINT_SECONDS", 0.0)

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "_write_results", killed)
        assert run("--task_name rte")[0] == 130
    assert read_record("out")["status"] == "success" and list(Path("out").glob("checkpoint-*"))
    code, _, _, err = run("--task_name rte")
    assert code == 0 and "already done" in err
    assert not list(Path("out").glob("checkpoint-*")) and Path("out/all_results.json").is_file()


@pytest.fixture
def stopped(run, monkeypatch):
    """A run that was stopped in its second epoch, with checkpoints of the steps 3 and 5; gives its flags."""
    words = "--task_name rte --drop_strategy top --drop_k 2"
    monkeypatch.setattr(interrupt, "CHECKPOINT_SECONDS", 0.0)
    usual = interrupt.Interrupt.on_step_end

    def stop_there(self, args, state, control, **kwargs):
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        usual(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(interrupt.Interrupt, "on_step_end", stop_there)
        assert run(words + " --save_total_limit 5")[0] == 130
    assert sorted(path.name for path in Path("out").glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-5"]
    return words + " --save_total_limit 5"


@pytest.mark.parametrize(
    ("resume", "name", "missing"),
    [
        ("--resume_from_checkpoint", "trainer_state.json", True),
        ("--resume_from_checkpoint auto", "optimizer.pt", False),
    ],
)
def test_a_checkpoint_that_a_kill_cut_off(run, stopped, resume, name, missing):
    """The one before it is used, and the result is that of an uninterrupted run."""
    _, whole, _, _ = run(stopped, output="whole")
    path = Path("out/checkpoint-5", name)
    path.unlink() if missing else cut(path)
    code, record, _, err = run(f"{stopped} {resume}")
    assert code == 0 and "checkpoint-5 is incomplete and is not used" in err
    assert record["resumed_at_step"] == 3 and record["metrics"] == whole["metrics"]
    assert same(weights("whole"), weights("out")) and any("checkpoint-5 is incomplete" in n for n in record["notes"])


def test_when_every_checkpoint_was_cut_off(run, stopped):
    for path in Path("out").glob("checkpoint-*"):
        cut(path / "optimizer.pt")
    code, record, _, err = run(f"{stopped} --resume_from_checkpoint")
    assert code == 0 and "starts from the beginning" in err and record["resumed_at_step"] is None
    assert [entry["step"] for entry in record["epochs"]] == [3, 6, 9]


def test_a_resumed_run_is_marked(run, stopped):
    """Seconds, tokens/s and memory are those of a part."""
    assert run(stopped + " --resume_from_checkpoint")[0] == 0
    record = read_record("out")
    assert record["resumed_at_step"] == 5 and record["tokens_per_second"] is None


def test_a_resumed_run_outlives_the_checkpoint_that_it_resumed_from(run, stopped):
    """Later checkpoints take its place."""
    words = stopped.replace("--save_total_limit 5", "--save_total_limit 1")
    code, record, _, err = run(words + " --resume_from_checkpoint")
    assert code == 0 and record["resumed_at_step"] == 5, err


def test_overwriting_without_a_model_leaves_no_old_one(run):
    run("--task_name rte")
    assert Path("out/model.safetensors").exists()
    code, record, _, _ = run("--task_name rte --drop_strategy top --drop_k 2 --overwrite_output_dir --save_model no")
    assert code == 0 and record["kept"] == [0, 1, 2, 3]
    expected = {".lock", "spec.json", "record.json", "predictions_dev.tsv", *RESULT_FILES}
    assert {path.name for path in Path("out").iterdir()} == expected


def test_predictions_asked_for_later_are_made_and_nothing_else_is_redone(run):
    words = "--task_name mrpc --drop_strategy top --drop_k 2 --do_train --do_eval"
    _, first, _, _ = run(words)
    stamps = {name: Path("out", name).stat().st_mtime_ns for name in ("model.safetensors", "predictions_dev.tsv")}
    _, at_once, _, _ = run(words + " --do_predict", output="at_once")
    code, record, _, err = run(words + " --do_predict")
    assert code == 0 and "already done" in err and "added: MRPC.tsv" in err
    assert predictions("out/MRPC.tsv") == predictions("at_once/MRPC.tsv")
    assert stamps == {name: Path("out", name).stat().st_mtime_ns for name in stamps}
    assert record["seconds"] == first["seconds"] | {"predict": record["seconds"]["predict"]}
    assert record["metrics"] == first["metrics"] and record["epochs"] == first["epochs"]
    assert record["data"].keys() == at_once["data"].keys() and record["seconds"]["train"] == first["seconds"]["train"]
    assert record["distinct_predictions"] == at_once["distinct_predictions"]
    code, again, _, err = run(words + " --do_predict")
    assert code == 0 and "already done" in err and again == record


def test_evaluation_asked_for_later(run):
    words = "--task_name mnli --drop_strategy top --drop_k 2 --do_train"
    _, first, _, _ = run(words)
    assert not first["metrics"] and not Path("out/predictions_dev_matched.tsv").exists()
    code, record, _, _ = run(words + " --do_eval")
    _, at_once, _, _ = run(words + " --do_eval", output="at_once")
    assert code == 0 and record["metrics"] == at_once["metrics"] and record["id"] == first["id"]
    for suffix in ("matched", "mismatched"):
        name = f"predictions_dev_{suffix}.tsv"
        assert predictions(f"out/{name}") == predictions(f"at_once/{name}")


def test_predictions_asked_for_later_of_a_run_that_neither_trains_nor_keeps_its_model(run):
    words = "--task_name rte --drop_strategy top --drop_k 2 --save_model no --do_eval"
    _, first, _, _ = run(words)
    run(words + " --do_predict", output="at_once")
    code, record, _, err = run(words + " --do_predict")
    assert code == 0 and "added: RTE.tsv" in err and record["metrics"] == first["metrics"], err
    assert predictions("out/RTE.tsv") == predictions("at_once/RTE.tsv")


def test_predictions_without_a_kept_model(run):
    run("--task_name rte --save_model no --do_train --do_eval")
    before = read_record("out")
    code, record, _, err = run("--task_name rte --save_model no --do_train --do_eval --do_predict")
    assert code == 2 and "its model was not kept, so RTE.tsv cannot be written" in err and record == before


def test_a_finished_run_with_kept_checkpoints_keeps_its_record(run):
    words = "--task_name rte --save_strategy steps --save_steps 4"
    _, first, _, _ = run(words)
    code, again, _, err = run(words + " --resume_from_checkpoint")
    assert code == 0 and again == first and "already done" in err
    code, again, _, err = run(words + " --resume_from_checkpoint out/checkpoint-4")
    assert again == first


def test_two_at_once_in_one_folder(run, bert, glue, tmp_path):
    """The second is told, and the first is not disturbed."""
    flags = ["--model_name_or_path", bert, "--data_dir", glue, *QUICK, "--output_dir", "out", "--task_name", "rte"]
    first = start_command("run", [*flags, "--num_train_epochs", "400"])
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "out" / "spec.json").exists():
            assert time.monotonic() < deadline and first.process.is_alive()
            time.sleep(0.05)
        code, _, out, err = run("--task_name rte --overwrite_output_dir")
        assert code == 2 and "another process uses this folder" in err and len(err.splitlines()) == 1 and out == ""
        assert (tmp_path / "out" / "spec.json").exists() and first.process.is_alive()
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert run("--task_name rte --overwrite_output_dir")[0] == 0  # who was killed holds nothing


def test_a_tokenizer_is_part_of_what_was_done(run, bert, tmp_path):
    """Another one in the same folder is another run; a changed one under the same name is said."""
    shutil.copytree(bert, tmp_path / "other")
    run("--task_name rte")
    code, _, _, err = run(f"--task_name rte --tokenizer_name {tmp_path / 'other'}")
    assert code == 2 and "--tokenizer_name: None, now" in err
    words = f"--task_name rte --tokenizer_name {tmp_path / 'other'}"
    assert run(words, output="with")[0] == 0
    path = tmp_path / "other" / "tokenizer.json"
    path.write_text(path.read_text().replace('"w1"', '"w0"', 1).replace('"w0"', '"w1"', 1))
    code, _, _, err = run(words, output="with")
    assert code == 0 or "the tokenizer changed since" in err


def test_the_same_run_by_zero_or_by_no_flag(run):
    _, first, _, _ = run("--task_name rte")
    code, again, _, err = run("--task_name rte --drop_strategy top --drop_k 0")
    assert code == 0 and again == first and "already done" in err


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b"{"])
def test_an_unreadable_record(run, content):
    Path("out").mkdir()
    Path("out/record.json").write_bytes(content)
    code, _, _, err = run("--task_name rte")
    assert code == 2 and "out/record.json" in err and "Move the file away" in err
    code, _, _, err = run("--task_name rte --overwrite_output_dir")
    assert code == 2 and "out: holds record.json. This run did not write it" in err
    assert Path("out/record.json").read_bytes() == content


@pytest.mark.parametrize("name", ["README.md", "layers.json", "all_results.json", "eval_results.json", "RTE.tsv"])
def test_a_file_that_a_kill_prevented_is_made_by_the_same_command(run, name):
    words = "--task_name rte --do_train --do_eval --do_predict --num_train_epochs 1"
    _, first, _, _ = run(words)
    path, stamp = Path("out", name), Path("out/model.safetensors").stat().st_mtime_ns
    content = path.read_text()
    path.unlink()
    code, again, _, err = run(words)
    assert code == 0 and path.read_text() == content and f"added: {name}" in err
    assert again["metrics"] == first["metrics"] and Path("out/model.safetensors").stat().st_mtime_ns == stamp


def test_a_list_of_files_that_a_kill_left_incomplete_is_completed(run):
    """Until then, every folder checkpoint-N counts as the run's own. A sweep finds it by the same status."""
    words = "--task_name rte --num_train_epochs 1"
    run(words)
    own = OwnFiles("out")
    whole, stamp = own.spec, Path("out/model.safetensors").stat().st_mtime_ns
    own.reserve([CHECKPOINTS])
    Path("out/.layerdrop-tmp-spec.json").write_text("{")
    spec = RunSpec.from_dict(whole)
    assert status_of("out", spec, {}, Needs()).missing == ("spec.json",)
    code, _, _, err = run(words)
    assert code == 0 and "added: spec.json" in err and own.spec == whole and not own.reserving
    assert status_of("out", spec, {}, Needs()).word == "done"
    assert Path("out/model.safetensors").stat().st_mtime_ns == stamp and not list(Path("out").glob(".layerdrop*"))


def test_a_card_that_the_user_has_edited_stays(run):
    words = "--task_name rte --num_train_epochs 1 --do_train"
    run(words)
    Path("out/README.md").write_text("mine")
    code, record, _, err = run(words + " --do_eval")
    assert code == 0 and record["metrics"] and "README.md was changed since the run wrote it" in err
    code, _, _, err = run(words + " --seed 3 --overwrite_output_dir")
    assert code == 2 and "holds README.md" in err and Path("out/README.md").read_text() == "mine"


def test_a_folder_with_the_users_files(run):
    """Names that the run would write are refused before anything is read; other files stay."""
    mine = {"RTE.tsv": "MINE", "vocab.txt": "MINE", "notes.md": "MINE", "predictions_test.tsv": "MINE"}
    Path("out").mkdir()
    for name, text in mine.items():
        Path("out", name).write_text(text)
    for words in ("", " --overwrite_output_dir", " --resume_from_checkpoint auto"):
        code, _, out, err = run("--task_name rte" + words)
        assert code == 2 and "out: holds vocab.txt. This run did not write it" in err.splitlines()[-1] and not out
        assert {path.name: path.read_text() for path in Path("out").iterdir()} == mine
    Path("out/vocab.txt").rename("out/mine.txt")
    assert run("--task_name rte --num_train_epochs 1")[0] == 0
    assert Path("out/RTE.tsv").read_text() == Path("out/mine.txt").read_text() == "MINE"
    code, _, _, err = run("--task_name rte --num_train_epochs 1 --do_train --do_eval --do_predict")
    assert code == 2 and "holds RTE.tsv" in err and Path("out/RTE.tsv").read_text() == "MINE"
    assert run("--task_name rte --num_train_epochs 1 --seed 2 --overwrite_output_dir")[0] == 0
    assert Path("out/RTE.tsv").read_text() == Path("out/predictions_test.tsv").read_text() == "MINE"
