"""The folder of a run: its lock, its status, its checkpoints.

Files: `spec.json`, `record.json`, predictions, the model, `checkpoint-STEP` folders to resume from, `.lock`. The first
file is `spec.json`. It has the spec, the fingerprints of the inputs, and the list of the run's files.
"""

import json
import os
import shutil
import sys
import traceback
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from layerdrop.errors import UserError
from layerdrop.runs.command import flag_of
from layerdrop.runs.environment import peak_memory
from layerdrop.runs.predictions import predictions_file
from layerdrop.runs.record import RECORD_FILE, Clock, RunRecord, SplitRead
from layerdrop.runs.results import CARD_FILE, RESULT_FILES, result_files
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.status import LIST_LOST, Needs, Status, changed_inputs, need_model, status_of
from layerdrop.runs.store import find_record
from layerdrop.system.distributed import finish, from_first_process, log, world_size
from layerdrop.system.faults import fault
from layerdrop.system.files import read_json
from layerdrop.system.own_files import CHECKPOINTS, EVENTS, MODEL_PATTERNS, SPEC_FILE, OwnFiles, is_checkpoint
from layerdrop.system.process import is_first

LOCK_FILE = ".lock"
OTHER_VERSION = "the same settings, but of another version of layerdrop"


class Locked(Exception):
    """Another process uses the folder of a run."""


@dataclass(frozen=True)
class FolderState:
    """Remaining work of a run: nothing (only `done`), some outputs (`done` and `missing`), or the training."""

    done: RunRecord | None = None
    """The record of this run, if it has succeeded with the same inputs."""
    missing: tuple[str, ...] = ()
    """Requested outputs that a finished run lacks."""
    resume_from: str | None = None
    """The checkpoint to resume from."""
    notes: tuple[str, ...] = ()

    def lacks(self, split: str) -> bool:
        """Whether the run has to predict a split."""
        return self.done is None or predictions_file(self.done.task, split) in self.missing

    @property
    def has_model(self) -> bool:
        """Whether the folder holds the trained model, so that the run does not train."""
        return self.done is not None and self.done.spec.train is not None

    @property
    def needs_model(self) -> bool:
        """Whether the remaining work needs the model."""
        return self.done is None or need_model(self.done, self.missing)


@contextmanager
def run_folder(record: RunRecord, options: Options, clock: Clock) -> Iterator[FolderState]:
    """Lock a run's folder, yield the remaining work, and write the record at the end of the block.

    record: the block completes it. For a finished run, the block completes `FolderState.done` instead. A failure in the
    block is printed, recorded and suppressed. KeyboardInterrupt is recorded and raised. Also raises Locked, and
    UserError for conflicting contents.
    """
    with ExitStack() as stack:
        from_first_process(lambda: stack.enter_context(lock_folder(options.folder)))
        state = from_first_process(lambda: open_folder(record, options))
        record.notes += state.notes
        if state.done is None:
            with _recording(record, options, clock):
                yield state
            return
        added, repeat = f"; added: {', '.join(state.missing)}", ". To repeat the run, add --overwrite_output_dir"
        log(f"note: already done with these settings{added if state.missing else repeat}")
        yield state
        finish()
        if state.missing and is_first():
            _add_outputs(state.done, state.missing, record, options, clock)


@contextmanager
def _recording(record: RunRecord, options: Options, clock: Clock) -> Iterator[None]:
    """Write the record at the end of the block, also after an error. A failure is recorded and suppressed."""
    write = is_first()
    try:
        yield
        finish()
        record.status = "success"
    except KeyboardInterrupt as stop:
        record.status, record.error = "cancelled", str(stop) or "stopped by the user"
        raise
    except UserError:
        write = False
        raise
    except Exception as error:
        reason = fault(error)
        record.status, record.error = "failed", f"{type(error).__name__}: {reason or error}"
        if not (reason or isinstance(error, FloatingPointError)):
            traceback.print_exc()
        print(f"error: {reason or record.error}", file=sys.stderr)
        other = find_record(record.folder, record.spec) if world_size() > 1 else None
        write = not (other and other.status == "failed")  # this process failed because another process failed
    finally:
        if write:
            record.seconds, record.peak_memory_bytes = clock.total(), peak_memory()
            with suppress(*(() if record.status == "success" else (OSError,))):  # the first error is the reason
                record.write()
            if record.status == "success":
                _write_results(record, options)


def _add_outputs(done: RunRecord, missing: Sequence[str], read: RunRecord, options: Options, clock: Clock) -> None:
    """Write the missing outputs of a finished run, and its completed record.

    read: a record with the splits that this process has read.
    """
    splits = [split for split in read.data if predictions_file(done.task, split) in missing]
    done.data |= {split: read.data[split] for split in splits}
    done.seconds |= clock.only("evaluate", "inference", "predict")
    done.write()
    names = set(missing)
    if splits:
        names = {CARD_FILE, *result_files(done)}
        for name in OwnFiles(done.folder).clashes(names):
            log(f"note: {name} was changed since the run wrote it, so it is not replaced")
            names.discard(name)
    _write_results(done, options, names)


def _write_results(record: RunRecord, options: Options, names: Iterable[str] | None = None) -> None:
    """Write the files for other tools: results, the list of layers, the model's card. names: only these files.

    The first call also deletes the run's rolling checkpoints.
    """
    own, files = OwnFiles(record.folder), result_files(record)
    if options.rolling_checkpoints and own.reserving:
        remove_checkpoints(record.folder)
    if options.save_model:
        from layerdrop.runs.card import card, push_card

        files[CARD_FILE] = str(card(record))
    own.write({name: text for name, text in files.items() if names is None or name in names})
    own.settle()
    if options.trainer.get("push_to_hub") and CARD_FILE in files:
        push_card(record, options.trainer.get("hub_model_id"), options.trainer.get("hub_token"))


# ---- lock ------------------------------------------------------------------------------------------------------------
@contextmanager
def lock_folder(folder: str) -> Iterator[None]:
    """Lock a run's folder. Create it if it does not exist.

    On exit, delete `spec.json` if the folder contains only `spec.json` and the lock file. Delete the lock file if there
    is no `spec.json`. Delete the folder if it was created here and is empty. The operating system frees the lock of a
    killed process. Raises Locked, and UserError for a folder that cannot be written.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise UserError(f"--output_dir {folder}: is a file. Choose a folder.")
    created, lock_file = not path.exists(), path / LOCK_FILE
    if lock_file.exists() and (not lock_file.is_file() or lock_file.stat().st_size):
        raise UserError(f"--output_dir {folder}: holds a {LOCK_FILE} of another program. Choose another folder.")
    lock = FileLock(lock_file, timeout=0)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise Locked(f"--output_dir {folder}: another process uses this folder. Wait, or use another folder.") from None
    except OSError as error:
        raise _not_writable(folder, error) from None
    try:
        yield
    finally:
        own = OwnFiles(path)
        if own.spec and {file.name for file in path.iterdir()} == {SPEC_FILE, LOCK_FILE}:
            own.remove()
        if own.spec is None:  # the run was refused, or wrote nothing
            lock_file.unlink(missing_ok=True)
        if created:
            with suppress(OSError):  # not empty
                path.rmdir()
        lock.release()


def _not_writable(folder: str, error: OSError) -> UserError:
    return UserError(f"--output_dir {folder}: cannot write there ({error.strerror}). Choose another folder.")


# ---- opening ---------------------------------------------------------------------------------------------------------
def open_folder(record: RunRecord, options: Options) -> FolderState:
    """Prepare a run's locked folder for writing. Files of the user are not changed.

    record: must have the fingerprints of the run's inputs. Raises UserError for conflicting contents.
    """
    folder = record.folder
    if options.overwrite:
        return _start(record, options)
    status = status_of(folder, record.spec, record.inputs, Needs.of(options))
    if status.word == "changed":
        raise UserError(f"--output_dir {status.note}. {_alternatives(folder)}")
    _refuse(status, record.spec, folder)
    if status.must_train:
        missing = ", ".join(status.missing)
        if options.resume != "auto":
            raise UserError(
                f"--output_dir {folder}: the run is done, but its model was not kept, so {missing} cannot be written. "
                "Run it again with --overwrite_output_dir."
            )
        note = f"the run is done, but its model was not kept. The model is trained again to write {missing}"
        return _start(record, options, note)
    if status.word in ("done", "incomplete"):
        return FolderState(status.record, status.missing)
    if options.resume:
        return _resume(record, options.resume, options)
    if paths := checkpoints(folder):
        OwnFiles(folder).refuse_clashes([path.name for path in paths])
        raise UserError(
            f"--output_dir {folder}: holds an interrupted run ({paths[-1].name}). "
            "Resume it with --resume_from_checkpoint, or start over with --overwrite_output_dir."
        )
    return _start(record, options)  # replaces a failed or killed run


def check_folder(spec: RunSpec, options: Options) -> None:
    """Raise UserError if a run's folder holds another finished run, an unreadable record, or files of the user that the
    run would replace.

    Changes nothing. `open_folder` repeats these checks when the run starts. A finished run replaces no files.
    """
    if not os.path.lexists(options.folder):
        return
    if not options.overwrite:
        status = status_of(options.folder, spec, {}, Needs.of(options))
        _refuse(status, spec, options.folder)
        if status.word in ("done", "incomplete"):
            return
    data: dict[str, SplitRead] = {split: {} for split in RunRecord(spec, options.folder).task.splits("validation")}
    record = RunRecord(spec, options.folder, data=data)
    OwnFiles(options.folder).refuse_clashes(_names(record, options))


def _refuse(status: Status, spec: RunSpec, folder: str) -> None:
    """Raise UserError if the folder holds an unreadable record, a finished run with other settings, or a run to which
    no file can be added. status: of `spec` in the folder."""
    record = status.record
    if status.note and status.word in ("missing", "incomplete"):
        raise UserError(f"{status.note}, or choose another folder.")
    if status.word == "other" and record and record.status == "success":
        difference = _difference(record.spec, spec, record.id)
        raise UserError(f"--output_dir {folder}: holds a run with {difference}. {_alternatives(folder)}")


def _alternatives(folder: str) -> str:
    """The advice in messages about a folder that holds another finished run."""
    if OwnFiles(folder).spec is None:
        return f"{LIST_LOST.capitalize()}. Choose another folder, or move this folder away."
    return "Choose another folder, or delete the run (layerdrop run: add --overwrite_output_dir)."


def _start(record: RunRecord, options: Options, *notes: str) -> FolderState:
    """Delete the files of an earlier run and begin the new run.

    Raises UserError, and deletes nothing, if a file of the user has a name that the run would write.
    """
    own = OwnFiles(record.folder)
    own.refuse_clashes(_names(record, options))
    own.clear({"keeps_model": options.save_model})
    _begin(record, options)
    return FolderState(notes=notes)


def _begin(record: RunRecord, options: Options) -> None:
    """Write the run's spec into `spec.json`, and reserve the names of the files that the Trainer writes."""
    own = OwnFiles(record.folder)
    own.refuse_clashes(_names(record, options))
    own.remove_leftovers()
    note_inputs(record, options)
    hub = (*MODEL_PATTERNS, CARD_FILE) if options.trainer.get("push_to_hub") else ()
    own.reserve([CHECKPOINTS, *hub, *_events(options)])


def _names(record: RunRecord, options: Options) -> list[str]:
    """Name patterns of the files that a run would write."""
    names = [RECORD_FILE, *RESULT_FILES, CHECKPOINTS, *_events(options)]
    for split in record.data:
        if {"validation": options.evaluate, "test": options.predict}.get(split.partition("_")[0]):
            names.append(predictions_file(record.task, split))
    return names + ([*MODEL_PATTERNS, CARD_FILE] if options.save_model else [])


def _events(options: Options) -> list[str]:
    """The pattern of TensorBoard's files, if the run writes them."""
    return [EVENTS] if "tensorboard" in (options.trainer.get("report_to") or ()) else []


def note_inputs(record: RunRecord, options: Options) -> None:
    """Write the spec, the input fingerprints and `keeps_model` into `spec.json`.

    Raises UserError if the folder is not writable.
    """
    read = {"data": record.data, "fingerprints": record.fingerprints}
    try:
        values = {"id": record.spec.id, **record.spec.to_dict(), "read": read, "keeps_model": options.save_model}
        OwnFiles(record.folder).describe(values)
    except OSError as error:
        raise _not_writable(record.folder, error) from None


def keeps_model(folder: str | Path) -> bool:
    """Whether the run in a folder was started with --save_model, also if its process was killed."""
    return (OwnFiles(folder).spec or {}).get("keeps_model") is True


# ---- checkpoints to resume from --------------------------------------------------------------------------------------
def checkpoints(folder: str | Path) -> list[Path]:
    """The folders `checkpoint-STEP` of a run, lowest step first."""
    paths = (path for path in Path(folder).glob(CHECKPOINTS) if is_checkpoint(path.name))
    return sorted(paths, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def remove_checkpoints(folder: str | Path) -> None:
    """Delete the folders `checkpoint-STEP` that the run has written."""
    own = OwnFiles(folder)
    for path in checkpoints(folder):
        if own.owns(path.name):
            shutil.rmtree(path, ignore_errors=True)


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint is complete. If a process is killed while it saves, files are missing or truncated."""
    files = [path for pattern in ("*.safetensors", "*.pt", "*.pth") for path in checkpoint.glob(pattern)]
    names = {path.name for path in files}
    needed = {"optimizer.pt", "scheduler.pt"} <= names and any(name.startswith("rng_state") for name in names)
    try:
        read_json(checkpoint / "trainer_state.json")
        return needed and any(name.endswith(".safetensors") for name in names) and all(map(_is_readable, files))
    except (OSError, ValueError):
        return False


def _is_readable(path: Path) -> bool:
    """Whether a file of tensors can be opened. Truncated files cannot."""
    if path.suffix != ".safetensors":
        return zipfile.is_zipfile(path)
    try:
        with safe_open(path, framework="np"):
            return True
    except (SafetensorError, OSError):
        return False


def _resume(record: RunRecord, resume: str, options: Options) -> FolderState:
    """Resume from a checkpoint. resume: `last`, `auto` or the checkpoint's folder.

    Raises UserError for a checkpoint of another run, and for a user's file with a name that the run would write.
    """
    folder, auto = Path(record.folder), resume == "auto"
    if resume not in ("last", "auto"):
        return _resume_from(record, Path(resume), options)
    paths = checkpoints(folder)
    usable = list(filter(is_complete, paths))
    notes = [f"{path.name} is incomplete and is not used" for path in paths if path not in usable]
    if not usable:
        if not paths and not auto:
            raise UserError(
                f"--resume_from_checkpoint: no checkpoint in {folder}. Leave the flag out to start from the "
                "beginning, or give --output_dir of the interrupted run."
            )
        if not auto:
            notes.append("there is no complete checkpoint, so the training starts from the beginning")
        return _start(record, options, *notes)
    old = OwnFiles(folder).spec or {}
    if auto and old.get("id") == record.spec.id and _changed_since(old, record):
        notes.append(f"{usable[-1].name} was written with other inputs, so the training starts from the beginning")
        return _start(record, options, *notes)
    return _resume_from(record, usable[-1], options, *notes)


def _resume_from(record: RunRecord, checkpoint: Path, options: Options, *notes: str) -> FolderState:
    """Resume from a checkpoint. Raises UserError for an incomplete checkpoint, or a checkpoint of another run."""
    if not (checkpoint / "trainer_state.json").is_file():
        raise UserError(f"--resume_from_checkpoint {checkpoint}: no checkpoint there. Give a folder checkpoint-STEP.")
    if not is_complete(checkpoint):
        raise UserError(
            f"--resume_from_checkpoint {checkpoint}: is incomplete. Give an older checkpoint, or "
            "start over with --overwrite_output_dir."
        )
    old = OwnFiles(checkpoint.parent).spec or {}
    try:
        differing = _difference(RunSpec.from_dict(old), record.spec, old.get("id"))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(
            f"--resume_from_checkpoint {checkpoint}: its folder has no readable {SPEC_FILE} that identifies its run. "
            "Give a checkpoint of a run's folder."
        ) from None
    if differing == OTHER_VERSION:
        raise UserError(
            f"--resume_from_checkpoint: {checkpoint} is of a run with {differing}. Start over with "
            "--overwrite_output_dir, which deletes the checkpoint."
        )
    if differing:
        raise UserError(
            f"--resume_from_checkpoint: {checkpoint} is of a run with {differing}. Give the flags of that run."
        )
    if changed := _changed_since(old, record):
        raise UserError(
            f"--resume_from_checkpoint: {checkpoint} is of a run with the same settings, but "
            f"{', '.join(changed)} changed since. Start over with --overwrite_output_dir, which deletes the checkpoint."
        )
    _begin(record, options)
    return FolderState(resume_from=str(checkpoint), notes=notes)


def _changed_since(old: Mapping[str, Any], record: RunRecord) -> list[str]:
    """Names of the inputs whose contents differ from the fingerprints in `spec.json`."""
    read = old.get("read") or {}
    before = RunRecord(record.spec, "", data=read.get("data", {}), fingerprints=read.get("fingerprints", {}))
    return changed_inputs(before.inputs, record.inputs, record.spec)


def _difference(old: RunSpec, new: RunSpec, old_id: str | None) -> str:
    """The settings that differ, by flag: `other settings (--drop_k: 2, now 3)`; empty for the same id.

    OTHER_VERSION if the ids differ, and no setting does.
    """
    if old_id == new.id:
        return ""
    before, now = (json.loads(json.dumps(spec.flat(), default=str)) for spec in (old, new))
    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    changes = "; ".join(f"{flag_of(name)}: {before.get(name)}, now {now.get(name)}" for name in names)
    return f"other settings ({changes})" if changes else OTHER_VERSION
