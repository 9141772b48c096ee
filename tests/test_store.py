"""The folder of a run: nothing is lost, nothing is done twice, a cut-off checkpoint stands in nobody's way."""

import dataclasses
import json
import multiprocessing

import pytest
import torch
from safetensors.torch import save_file

from layerdrop.errors import UserError
from layerdrop.runs.record import RunRecord, read_record
from layerdrop.runs.store import Busy, FolderState, Store, claim, find_record, is_whole, open_folder
from layerdrop.spec import DataSpec, DropSpec, ModelSpec, Options, RunSpec, TrainSpec

SPEC = RunSpec(ModelSpec("bert"), DataSpec("rte"), DropSpec("top", 2))
OTHER = RunSpec(ModelSpec("bert"), DataSpec("rte"), DropSpec("top", 3), TrainSpec(learning_rate=3e-5))


def opened(spec, folder, overwrite=False, resume=None, **inputs) -> FolderState:
    folder.mkdir(parents=True, exist_ok=True)
    options = Options(str(folder), overwrite=overwrite, resume=resume)
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
    RunRecord(SPEC, str(tmp_path), "success").write()
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
        ("train", {"data": {"train": {"rows": 4}}, "fingerprints": {"model": "a"}}),
        ("the model", {"data": {"train": {"rows": 3}}, "fingerprints": {"model": "b"}}),
    ],
)
def test_done_or_interrupted_on_other_data_or_weights_is_not_the_same(tmp_path, name, changed):
    inputs = {"data": {"train": {"rows": 3}, "test": {"rows": 1}}, "fingerprints": {"model": "a"}}
    RunRecord(SPEC, str(tmp_path / "done"), "success", **inputs).write()
    assert opened(SPEC, tmp_path / "done", **inputs).done
    with pytest.raises(UserError, match=f"same settings, but other contents of {name} since"):
        opened(SPEC, tmp_path / "done", **changed)
    opened(SPEC, tmp_path / "killed", **inputs)
    path = checkpoint(tmp_path / "killed", 10)
    more = inputs | {"data": inputs["data"] | {"test": {"rows": 2}}}  # has no part in the training
    assert opened(SPEC, tmp_path / "killed", resume="last", **more).resume_from == str(path)
    with pytest.raises(UserError, match=f"checkpoint-10 was made with .* other contents of {name} since"):
        opened(SPEC, tmp_path / "killed", resume="last", **changed)


def test_a_run_that_died_does_not_stand_in_the_way(tmp_path):
    opened(SPEC, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert opened(SPEC, tmp_path) == FolderState() and not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_failed_is_done_again(tmp_path, status):
    RunRecord(SPEC, str(tmp_path), status).write()
    assert opened(SPEC, tmp_path) == FolderState()


def test_never_resumes_unasked(tmp_path):
    opened(SPEC, tmp_path)
    checkpoint(tmp_path, 9)
    checkpoint(tmp_path, 10)
    with pytest.raises(UserError, match=r"interrupted run \(checkpoint-10\). Go on with --resume_from_checkpoint"):
        opened(SPEC, tmp_path)
    assert (tmp_path / "checkpoint-10").exists()
    for resume in ("last", "auto"):
        assert opened(SPEC, tmp_path, resume=resume) == FolderState(resume_from=str(tmp_path / "checkpoint-10"))
    assert opened(SPEC, tmp_path, overwrite=True) == FolderState() and not list(tmp_path.glob("checkpoint-*"))


def test_resuming_as_something_else(tmp_path):
    opened(SPEC, tmp_path)
    path = checkpoint(tmp_path, 10)
    with pytest.raises(UserError, match="made with other settings .--drop_k: 2, now 3"):
        opened(OTHER, tmp_path, resume="last")
    assert opened(SPEC, tmp_path, resume=str(path)).resume_from == str(path)
    assert opened(SPEC, tmp_path / "elsewhere", resume=str(path)).resume_from == str(path)
    assert json.loads((tmp_path / "spec.json").read_text())["id"] == SPEC.id
    assert opened(OTHER, tmp_path, resume="auto") == FolderState() and not path.exists()


def test_nothing_to_resume(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        opened(SPEC, tmp_path, resume="last")
    assert opened(SPEC, tmp_path / "new", resume="auto") == FolderState()
    with pytest.raises(UserError, match="no checkpoint there"):
        opened(SPEC, tmp_path, resume=str(tmp_path))
    path = checkpoint(tmp_path / "foreign", 3)
    with pytest.raises(UserError, match="no readable spec.json beside it"):
        opened(SPEC, tmp_path, resume=str(path))


@pytest.mark.parametrize("resume", ["last", "auto", "checkpoint-9"])
def test_resuming_a_run_that_is_done_leaves_its_record(tmp_path, resume):
    opened(SPEC, tmp_path)
    checkpoint(tmp_path, 9)
    RunRecord(SPEC, str(tmp_path), "success").write()
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
    assert is_whole(newer)
    (newer / name).unlink() if missing else cut(newer / name)
    assert not is_whole(newer) and is_whole(older)
    for resume in ("last", "auto"):
        found = opened(SPEC, tmp_path, resume=resume)
        assert found.resume_from == str(older) and "checkpoint-6 was cut off" in found.notes[0]
    with pytest.raises(UserError, match="checkpoint-6: was cut off"):
        opened(SPEC, tmp_path, resume=str(newer)) if (newer / "trainer_state.json").exists() else cut_off(newer)
    (older / name).unlink() if missing else cut(older / name, 0.9)
    for resume in ("last", "auto"):
        found = opened(SPEC, tmp_path, resume=resume)
        assert found.resume_from is None and not list(tmp_path.glob("checkpoint-*"))
        checkpoint(tmp_path, 3)
        (tmp_path / "checkpoint-3" / name).unlink()


def cut_off(path):
    raise UserError(f"{path.name}: was cut off")


def test_what_is_overwritten_goes(tmp_path):
    """Of an earlier run nothing that it wrote stays, whatever the new one writes; the user's own files stay."""
    opened(SPEC, tmp_path)
    ours = ["record.json", "predictions_dev.tsv", "predictions_dev_matched.tsv", "predictions_test.tsv", "RTE.tsv",
            "MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv", "demo-RTE.tsv", "config.json", "model.safetensors",
            "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json",
            "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "training_args.bin"]  # fmt: skip
    mine = ["notes.txt", "tokenizer_notes.md", "results.tsv", "log.txt"]
    for name in ours + mine:
        (tmp_path / name).write_text("{}")
    checkpoint(tmp_path, 3)
    assert opened(OTHER, tmp_path, overwrite=True) == FolderState()
    assert {path.name for path in tmp_path.iterdir()} == {*mine, "spec.json"}


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_users_model_is_not_overwritten(tmp_path, resume):
    (tmp_path / "model.safetensors").write_text("mine")
    with pytest.raises(UserError, match="holds a model .model.safetensors. that is not this tool's"):
        opened(SPEC, tmp_path, resume=resume)
    with pytest.raises(UserError, match="is a file"), claim(str(tmp_path / "model.safetensors")):
        pass
    assert (tmp_path / "model.safetensors").read_text() == "mine"


def test_an_unreadable_record_is_not_overwritten_unasked(tmp_path):
    (tmp_path / "record.json").write_bytes(b"[1]")
    with pytest.raises(UserError, match="record.json: no record of a run.* Move the file away"):
        opened(SPEC, tmp_path)
    assert find_record(str(tmp_path), SPEC) is None
    assert opened(SPEC, tmp_path, resume="auto") == FolderState()


def test_done_by_another_version_is_said(tmp_path):
    record = RunRecord(SPEC, str(tmp_path), "success", id="0123456789abcdef")
    record.write()
    with pytest.raises(UserError, match="the same settings, made by another version"):
        opened(SPEC, tmp_path)


# ---- claims ----------------------------------------------------------------------------------------------------------
def hold(folder, ready, done):
    with claim(folder):
        ready.set()
        done.wait(30)


def test_a_folder_is_one_process_at_a_time(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(tmp_path / "run"), ready, done))
    other.start()
    assert ready.wait(30)
    with pytest.raises(Busy, match="another process is at this run"), claim(str(tmp_path / "run")):
        pass
    done.set()
    other.join()
    with claim(str(tmp_path / "run")):
        pass


def test_a_killed_process_frees_its_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(tmp_path), ready, done))
    other.start()
    assert ready.wait(30)
    other.kill()
    other.join()
    with claim(str(tmp_path)):
        pass


def test_a_folder_in_which_nothing_was_done_goes_again(tmp_path):
    with claim(str(tmp_path / "new")):
        opened(SPEC, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with claim(str(tmp_path / "old")):
        opened(SPEC, tmp_path / "old")
    assert (tmp_path / "old").exists() and not (tmp_path / "old" / "spec.json").exists()
    with claim(str(tmp_path / "kept")):
        RunRecord(SPEC, str(tmp_path / "kept")).write()
    assert (tmp_path / "kept" / "record.json").exists()


def test_a_store_finds_its_runs(tmp_path):
    store = Store(str(tmp_path))
    assert store.folder(SPEC) == str(tmp_path / f"bert_rte_top_k2_seed42_{SPEC.id[:8]}") and store.find(SPEC) is None
    RunRecord(SPEC, store.folder(SPEC), "failed").write()
    assert store.find(SPEC).status == "failed" and store.find(OTHER) is None
