"""The folder of a run: nothing is lost, nothing is done twice, a cut-off checkpoint stands in nobody's way."""

import dataclasses
import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from layerdrop.architectures import ModelSpec
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.errors import UserError
from layerdrop.finetune.spec import TrainSpec
from layerdrop.runs.folder import (
    FolderState,
    Locked,
    is_complete,
    keeps_model,
    lock_folder,
    open_folder,
    remove_checkpoints,
)
from layerdrop.runs.record import RunRecord, read_record
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.status import Needs, status_of
from layerdrop.runs.store import Store, find_record
from layerdrop.system.files import umask
from layerdrop.system.own_files import OwnFiles
from tests.made_up import write_run

SPEC = RunSpec(ModelSpec("bert"), DataSpec("rte"), DropSpec("top", 2))
OTHER = RunSpec(ModelSpec("bert"), DataSpec("rte"), DropSpec("top", 3), train=TrainSpec(learning_rate=3e-5))


def opened(spec, folder, overwrite=False, resume=None, save_model=False, **inputs) -> FolderState:
    folder.mkdir(parents=True, exist_ok=True)
    options = Options(str(folder), overwrite=overwrite, resume=resume, save_model=save_model)
    return open_folder(RunRecord(spec, str(folder), **inputs), options)


def checkpoint(folder, step: int):
    """As the library writes it."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    save_file({"w": torch.ones(100)}, path / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"x": torch.ones(100)}, path / name)
    return path


def cut(path, share: float = 0.5):
    """Cut a file off, as a kill or a full disk does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def test_new_folder(tmp_path):
    assert opened(SPEC, tmp_path / "a" / "b") == FolderState()
    assert json.loads((tmp_path / "a" / "b" / "spec.json").read_text())["id"] == SPEC.id


def test_done_is_not_done_again(tmp_path):
    write_run(RunRecord(SPEC, str(tmp_path), "success"))
    assert opened(SPEC, tmp_path).done == read_record(tmp_path)
    with pytest.raises(UserError, match="other settings .--drop_k: 2, now 3; --learning_rate: 2e-05, now 3e-05"):
        opened(OTHER, tmp_path)
    assert opened(OTHER, tmp_path, overwrite=True) == FolderState()
    assert read_record(tmp_path) is None


def test_settings_that_differ_are_named_by_their_flag(tmp_path):
    def spec(columns):
        return dataclasses.replace(SPEC, data=DataSpec("x", "files", text_columns=columns))

    RunRecord(spec(("a",)), str(tmp_path), "success").write()
    with pytest.raises(UserError, match=r"other settings \(--text_columns: \['a'\], now \['b'\]\)"):
        opened(spec(("b",)), tmp_path)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("the rows of train", {"data": {"train": {"rows": 4}}, "fingerprints": {"model": "a"}}),
        ("the model", {"data": {"train": {"rows": 3}}, "fingerprints": {"model": "b"}}),
    ],
)
def test_done_or_interrupted_on_other_data_or_weights_is_not_the_same(tmp_path, name, changed):
    inputs = {"data": {"train": {"rows": 3}, "test": {"rows": 1}}, "fingerprints": {"model": "a"}}
    write_run(RunRecord(SPEC, str(tmp_path / "done"), "success", **inputs))
    assert opened(SPEC, tmp_path / "done", **inputs).done
    with pytest.raises(UserError, match=f"same settings, but {name} changed since"):
        opened(SPEC, tmp_path / "done", **changed)
    opened(SPEC, tmp_path / "killed", **inputs)
    path = checkpoint(tmp_path / "killed", 10)
    more = inputs | {"data": inputs["data"] | {"test": {"rows": 2}}}  # has no part in the training
    assert opened(SPEC, tmp_path / "killed", resume="last", **more).resume_from == str(path)
    with pytest.raises(UserError, match=f"checkpoint-10 is of a run with .* but {name} changed since"):
        opened(SPEC, tmp_path / "killed", resume="last", **changed)


def test_test_rows_count_where_layers_were_scored_on_them(tmp_path):
    scored = dataclasses.replace(SPEC, drop=DropSpec("contribution", 2, score_split="test"))
    for spec, word in ((SPEC, "done"), (scored, "changed")):
        folder = str(tmp_path / word)
        write_run(RunRecord(spec, folder, "success", data={"test": {"rows": 1}}))
        assert status_of(folder, spec, {"test": [1, None]}, Needs()).word == "done"
        assert status_of(folder, spec, {"test": [2, None]}, Needs()).word == word


def test_a_run_without_training_never_trains_for_its_model(tmp_path):
    spec = dataclasses.replace(SPEC, train=None)
    write_run(RunRecord(spec, str(tmp_path), "success"), Options(str(tmp_path), save_model=False))
    status = status_of(str(tmp_path), spec, {}, Needs(model=True))
    assert status.missing == ("README.md", "the model") and not status.must_train
    assert opened(spec, tmp_path, save_model=True).missing == status.missing


def test_a_run_that_died_does_not_stand_in_the_way(tmp_path):
    opened(SPEC, tmp_path, save_model=True)
    OwnFiles(tmp_path).write({"config.json": "{}"})
    (tmp_path / ".layerdrop-tmp-x").mkdir()
    (tmp_path / ".layerdrop-tmp-config.json.abc").write_text("cut off")
    assert opened(SPEC, tmp_path, save_model=True) == FolderState() and files(tmp_path) == {"spec.json"}


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_failed_is_done_again(tmp_path, status):
    RunRecord(SPEC, str(tmp_path), status).write()
    assert opened(SPEC, tmp_path) == FolderState()


def test_never_resumes_unasked(tmp_path):
    opened(SPEC, tmp_path)
    checkpoint(tmp_path, 9)
    checkpoint(tmp_path, 10)
    with pytest.raises(UserError, match=r"interrupted run \(checkpoint-10\). Resume it with --resume_from_checkpoint"):
        opened(SPEC, tmp_path)
    assert (tmp_path / "checkpoint-10").exists()
    for resume in ("last", "auto"):
        assert opened(SPEC, tmp_path, resume=resume) == FolderState(resume_from=str(tmp_path / "checkpoint-10"))
    assert opened(SPEC, tmp_path, overwrite=True) == FolderState() and not list(tmp_path.glob("checkpoint-*"))


def test_resuming_as_something_else(tmp_path):
    opened(SPEC, tmp_path)
    path = checkpoint(tmp_path, 10)
    with pytest.raises(UserError, match="of a run with other settings .--drop_k: 2, now 3"):
        opened(OTHER, tmp_path, resume="last")
    assert opened(SPEC, tmp_path, resume=str(path)).resume_from == str(path)
    assert opened(SPEC, tmp_path / "elsewhere", resume=str(path)).resume_from == str(path)
    assert json.loads((tmp_path / "spec.json").read_text())["id"] == SPEC.id
    with pytest.raises(UserError, match="of a run with other settings"):
        opened(OTHER, tmp_path, resume="auto")
    assert path.exists() and opened(OTHER, tmp_path, overwrite=True) == FolderState() and not path.exists()


def test_nothing_to_resume(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        opened(SPEC, tmp_path, resume="last")
    assert opened(SPEC, tmp_path / "new", resume="auto") == FolderState()
    with pytest.raises(UserError, match="no checkpoint there"):
        opened(SPEC, tmp_path, resume=str(tmp_path))
    path = checkpoint(tmp_path / "foreign", 3)
    for content in (None, {"files": {}, "reserved": []}, {"files": {}, "reserved": [], "id": SPEC.id}):  # no version
        if content:
            (tmp_path / "foreign" / "spec.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="its folder has no readable spec.json"):
            opened(SPEC, tmp_path, resume=str(path))


@pytest.mark.parametrize("resume", ["last", "auto", "checkpoint-9"])
def test_resuming_a_run_that_is_done_leaves_its_record(tmp_path, resume):
    opened(SPEC, tmp_path)
    checkpoint(tmp_path, 9)
    write_run(RunRecord(SPEC, str(tmp_path), "success"))
    assert opened(SPEC, tmp_path, resume=resume).done  # a script may always ask to go on
    with pytest.raises(UserError, match="other settings"):
        opened(OTHER, tmp_path, resume=resume)
    assert read_record(tmp_path).status == "success" and (tmp_path / "checkpoint-9").exists()


BROKEN = ["trainer_state.json", "optimizer.pt", "scheduler.pt", "model.safetensors", "rng_state.pth"]


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("missing", [True, False])
def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path, name, missing):
    opened(SPEC, tmp_path)
    older, newer = checkpoint(tmp_path, 3), checkpoint(tmp_path, 6)
    assert is_complete(newer)
    (newer / name).unlink() if missing else cut(newer / name)
    assert not is_complete(newer) and is_complete(older)
    for resume in ("last", "auto"):
        found = opened(SPEC, tmp_path, resume=resume)
        assert found.resume_from == str(older) and "checkpoint-6 is incomplete" in found.notes[0]
    with pytest.raises(UserError, match="checkpoint-6: is incomplete"):
        opened(SPEC, tmp_path, resume=str(newer)) if (newer / "trainer_state.json").exists() else cut_off(newer)
    (older / name).unlink() if missing else cut(older / name, 0.9)
    for resume in ("last", "auto"):
        found = opened(SPEC, tmp_path, resume=resume)
        assert found.resume_from is None and not list(tmp_path.glob("checkpoint-*"))
        checkpoint(tmp_path, 3)
        (tmp_path / "checkpoint-3" / name).unlink()


def cut_off(path):
    raise UserError(f"{path.name}: is incomplete")


# ---- files that are not the run's ------------------------------------------------------------------------------------
def files(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


RUNS = ["record.json", "layers.json", "all_results.json", "predictions_dev.tsv", "README.md", "config.json",
        "model.safetensors", "model-00001-of-00002.safetensors", "tokenizer.json", "vocab.txt", "training_args.bin",
        "trainer_state.json"]  # fmt: skip
"""Names of files that a run of RTE that keeps its model may write."""
DATA = {"data": {"validation": {"rows": 1}}}


def test_an_earlier_runs_files_go_and_the_users_stay(tmp_path):
    opened(SPEC, tmp_path, save_model=True, **DATA)
    OwnFiles(tmp_path).write(dict.fromkeys(RUNS, "{}"))
    mine = ["notes.txt", "RTE.tsv", "predictions_test.tsv", "AX.tsv", "demo-RTE.tsv", "MNLI-m.tsv", "results.tsv"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    checkpoint(tmp_path, 3)
    assert opened(OTHER, tmp_path, overwrite=True, save_model=True, **DATA) == FolderState()
    assert files(tmp_path) == {*mine, "spec.json"} and all((tmp_path / name).read_text() == "mine" for name in mine)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("resume", [None, "auto", "last"])
@pytest.mark.parametrize("name", [*RUNS, "spec.json", "checkpoint-7"])
def test_a_users_file_is_refused_by_its_name(tmp_path, name, resume, overwrite):
    """Whether the folder holds nothing else, or a run that was killed: nothing is deleted and nothing written."""
    (tmp_path / "checkpoint-7").mkdir() if name == "checkpoint-7" else (tmp_path / name).write_text("mine")
    before = files(tmp_path)
    with pytest.raises(UserError, match=f"{name}|no checkpoint in" if resume == "last" else name):
        opened(SPEC, tmp_path, overwrite, resume, save_model=True, **DATA)
    assert files(tmp_path) == before
    assert name == "checkpoint-7" or (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", RUNS)
def test_a_file_that_the_user_has_changed_is_the_users(tmp_path, name):
    opened(SPEC, tmp_path, save_model=True, **DATA)
    own = OwnFiles(tmp_path)
    own.write(dict.fromkeys(RUNS, "{}"))
    own.settle()
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        UserError, match=f"holds {name}. This run did not write it, or it was changed since. Move it away"
    ):
        opened(OTHER, tmp_path, overwrite=True, save_model=True, **DATA)
    assert files(tmp_path) == {*RUNS, "spec.json"}, "nothing is deleted"
    with pytest.raises(UserError, match=name):
        own.write({name: "again", "new.txt": ""})
    assert (tmp_path / name).read_text() == "mine" and "new.txt" not in files(tmp_path)


def test_a_file_that_is_not_in_the_way_is_no_reason_to_refuse(tmp_path):
    """A data folder, a repository: as long as no name is the same."""
    for name in ("train.csv", "setup.py", "RTE.tsv", "vocab.txt", "README.md"):
        (tmp_path / name).write_text("mine")
    assert opened(SPEC, tmp_path, **DATA) == FolderState()  # without a model and without predictions for the test set
    with pytest.raises(UserError, match=r"holds README.md, vocab.txt\. This run did not write these files"):
        opened(SPEC, tmp_path, save_model=True, **DATA)


def test_a_message_names_up_to_three_files(tmp_path):
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        (tmp_path / name).write_text("mine")
    for n, named in ((1, "a"), (3, "a, b, c"), (5, "a, b, c and 2 more")):
        with pytest.raises(UserError, match=f"holds {named}. This run did not write (it|these files), or"):
            OwnFiles(tmp_path).write(dict.fromkeys(names[:n], "other"))


@pytest.mark.parametrize("ended", [False, True])
def test_names_that_are_nearly_the_runs_are_the_users(tmp_path, ended):
    """A copy of a checkpoint, an editor's swap file, a backup."""
    opened(SPEC, tmp_path, save_model=True, **DATA)
    OwnFiles(tmp_path).write({"record.json": "{}", "README.md": "card"})
    checkpoint(tmp_path, 3)
    mine = [".README.md.swp", ".record.json.bak", "record.json.old", "checkpoint-3-backup", ".model-mine"]
    for name in mine:
        (tmp_path / name).mkdir() if name.startswith(("checkpoint", ".model")) else (tmp_path / name).write_text("mine")
    OwnFiles(tmp_path).settle() if ended else None
    assert opened(OTHER, tmp_path, overwrite=True, save_model=True, **DATA) == FolderState()
    assert files(tmp_path) == {*mine, "spec.json"}


def test_a_folder_without_a_list_is_not_said_to_be_overwritten(tmp_path):
    """One of version 0.2.0."""
    write_run(RunRecord(SPEC, str(tmp_path), "success"))
    (tmp_path / "spec.json").unlink()
    with pytest.raises(UserError, match=r"Its list of files \(spec.json\) is missing or damaged. Choose another"):
        opened(OTHER, tmp_path)


def test_every_content_that_a_run_has_written_is_its_own(tmp_path):
    """A process may be killed between the list and the file."""
    own = OwnFiles(tmp_path)
    own.write({"a": "1"})
    own.write({"a": "2"})
    for content, owned in (("1", True), ("2", True), ("3", False)):
        (tmp_path / "a").write_text(content)
        assert own.owns("a") == owned
    (tmp_path / "a").unlink()
    assert own.clashes(["a"]) == [] and not own.owns("b")


def test_a_name_is_listed_before_its_file_is_written(tmp_path, monkeypatch):
    """So that a killed run leaves no file that it does not own."""
    own, replace = OwnFiles(tmp_path), os.replace

    def killed(source, target):
        replace(source, target)
        if Path(target).name == "a":
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        own.write({"a": "1", "b": "2"})
    assert own.owns("a") and own.clashes(["a", "b"]) == []
    own.write({"b": "2"})
    with pytest.raises(KeyboardInterrupt), own.saving() as folder:
        (folder / "a").write_text("2")
    assert own.owns("a") and (tmp_path / "a").read_text() == "2"
    own.remove()
    assert files(tmp_path) == set()


def test_a_removal_that_is_cut_off_can_be_repeated(tmp_path, monkeypatch):
    own, unlink = OwnFiles(tmp_path), Path.unlink
    own.write({"a": "1", "b": "2"})

    def killed(path, **kwargs):
        unlink(path, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        own.remove()
    with pytest.raises(KeyboardInterrupt):
        own.clear({"keeps_model": True})
    assert own.spec["keeps_model"]
    monkeypatch.undo()
    own.clear({"keeps_model": True})
    assert own.spec == {"files": {}, "reserved": [], "keeps_model": True} and files(tmp_path) == {"spec.json"}
    own.remove()
    assert files(tmp_path) == set()


def test_what_the_library_writes_is_the_runs_until_it_ends(tmp_path):
    own = OwnFiles(tmp_path)
    own.reserve(["checkpoint-[0-9]*", "README.md"])
    (tmp_path / "README.md").write_text("of the Trainer")
    checkpoint(tmp_path, 4)
    assert own.clashes(["README.md", "checkpoint-*"]) == []
    own.settle()
    assert own.owns("README.md") and own.owns("checkpoint-4") and not own.owns("checkpoint-5")
    (tmp_path / "README.md").write_text("mine")
    checkpoint(tmp_path, 5)
    assert own.clashes(["README.md", "checkpoint-*"]) == ["README.md", "checkpoint-5"]
    remove_checkpoints(tmp_path)
    assert files(tmp_path) == {"README.md", "checkpoint-5", "spec.json"}
    own.remove()
    assert files(tmp_path) == {"README.md", "checkpoint-5"}


@pytest.mark.parametrize(
    "content", ["{}", "[]", "mine", '{"id": "0123", "model": {}}', '{"files": [], "reserved": []}']
)
def test_a_foreign_spec_does_not_make_a_folder_ours(tmp_path, content):
    (tmp_path / "spec.json").write_text(content)
    (tmp_path / "model.safetensors").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="--output_dir .* This run did not write"):
            opened(SPEC, tmp_path, overwrite, save_model=True)
    with lock_folder(str(tmp_path)):
        pass
    assert files(tmp_path) >= {"spec.json", "model.safetensors"}
    for write in (RunRecord(SPEC, str(tmp_path)).write, lambda: OwnFiles(tmp_path).reserve(["a"])):
        with pytest.raises(UserError, match="spec.json"):
            write()
    assert (tmp_path / "spec.json").read_text() == content


def test_a_saved_model_is_moved_whole(tmp_path):
    own = OwnFiles(tmp_path)
    with own.saving() as folder:
        (folder / "model.safetensors").write_text("new")
        (folder / "config.json").write_text("{}")
    assert own.owns("model.safetensors") and own.owns("config.json") and not list(tmp_path.glob(".layerdrop-tmp-*"))
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask()
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(UserError, match="holds config.json"), own.saving() as folder:
        (folder / "model.safetensors").write_text("newer")
        (folder / "config.json").write_text("{}")
    assert (tmp_path / "config.json").read_text() == "mine" and (tmp_path / "model.safetensors").read_text() == "new"


def test_a_lock_of_another_program(tmp_path):
    (tmp_path / ".lock").write_text("pid 17")
    with pytest.raises(UserError, match="holds a .lock of another program"), lock_folder(str(tmp_path)):
        pass
    assert (tmp_path / ".lock").read_text() == "pid 17"
    with pytest.raises(UserError, match="is a file"), lock_folder(str(tmp_path / ".lock")):
        pass


def test_an_unreadable_record_is_never_overwritten(tmp_path):
    (tmp_path / "record.json").write_bytes(b"[1]")
    for options in ({}, {"resume": "auto"}, {"overwrite": True}):
        with pytest.raises(UserError, match="record.json"):
            opened(SPEC, tmp_path, **options)
    assert find_record(str(tmp_path), SPEC) is None and (tmp_path / "record.json").read_bytes() == b"[1]"


def test_an_interrupted_run_on_data_that_have_changed_starts_again(tmp_path):
    """With `auto`, as in a sweep: its checkpoint is of no use, and it has no results."""
    opened(SPEC, tmp_path, data={"train": {"rows": 3}})
    path = checkpoint(tmp_path, 10)
    state = opened(SPEC, tmp_path, resume="auto", data={"train": {"rows": 4}})
    assert state.resume_from is None and not path.exists() and "written with other inputs" in state.notes[0]
    path = checkpoint(tmp_path, 10)
    with pytest.raises(UserError, match="of a run with other settings"):
        opened(OTHER, tmp_path, resume="auto", data={"train": {"rows": 5}})
    assert path.exists()


def test_a_kill_before_the_spec_is_written_does_not_forget_that_the_model_is_kept(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    opened(SPEC, tmp_path)
    assert not keeps_model(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("layerdrop.runs.folder._begin", killed)
        opened(SPEC, tmp_path, resume="auto", save_model=True)
    assert keeps_model(tmp_path)
    opened(SPEC, tmp_path, resume="auto")
    assert not keeps_model(tmp_path)


def test_a_model_that_was_not_kept_is_trained_again_where_it_is_asked_for(tmp_path):
    write_run(RunRecord(SPEC, str(tmp_path), "success"), Options(str(tmp_path), save_model=False))
    assert opened(SPEC, tmp_path).done
    with pytest.raises(UserError, match="its model was not kept, so README.md, the model cannot be written"):
        opened(SPEC, tmp_path, save_model=True)
    state = opened(SPEC, tmp_path, save_model=True, resume="auto")  # as in a sweep
    assert state.done is None and "its model was not kept. The model is trained again" in state.notes[0]


def test_done_by_another_version_is_said(tmp_path):
    record = RunRecord(SPEC, str(tmp_path), "success", id="0123456789abcdef")
    record.write()
    with pytest.raises(UserError, match="the same settings, but of another version"):
        opened(SPEC, tmp_path)


def test_a_checkpoint_of_another_version_cannot_be_resumed(tmp_path):
    """The flags are the same, so the message does not ask for other flags."""
    opened(SPEC, tmp_path)
    checkpoint(tmp_path, 10)
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id": "0123456789abcdef"}))
    with pytest.raises(UserError, match="of another version of layerdrop. Start over with --overwrite_output_dir"):
        opened(SPEC, tmp_path, resume="last")


# ---- claims ----------------------------------------------------------------------------------------------------------
def hold(folder, ready, done):
    with lock_folder(folder):
        ready.set()
        done.wait(30)


def test_a_folder_is_one_process_at_a_time(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(tmp_path / "run"), ready, done))
    other.start()
    assert ready.wait(30)
    with pytest.raises(Locked, match="another process uses this folder"), lock_folder(str(tmp_path / "run")):
        pass
    done.set()
    other.join()
    with lock_folder(str(tmp_path / "run")):
        pass


def test_a_killed_process_frees_its_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(tmp_path), ready, done))
    other.start()
    assert ready.wait(30)
    other.kill()
    other.join()
    with lock_folder(str(tmp_path)):
        pass


def test_a_folder_in_which_nothing_was_done_goes_again(tmp_path):
    with lock_folder(str(tmp_path / "new")):
        opened(SPEC, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with lock_folder(str(tmp_path / "old")):
        opened(SPEC, tmp_path / "old")
    assert (tmp_path / "old").exists() and not (tmp_path / "old" / "spec.json").exists()
    with lock_folder(str(tmp_path / "kept")):
        RunRecord(SPEC, str(tmp_path / "kept")).write()
    assert (tmp_path / "kept" / "record.json").exists()


def test_a_store_finds_its_runs(tmp_path):
    store = Store(str(tmp_path))
    assert store.folder(SPEC) == str(tmp_path / f"bert_rte_top_k2_seed42_{SPEC.id[:8]}") and not find_record(
        store.folder(SPEC), SPEC
    )
    RunRecord(SPEC, store.folder(SPEC), "failed").write()
    assert (
        status_of(store.folder(SPEC), SPEC, {}, Needs()).word == "failed"
        and status_of(store.folder(OTHER), OTHER, {}, Needs()).word == "missing"
    )
