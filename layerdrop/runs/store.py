"""The folder of a run: the claim to it, its finished record, its checkpoints, its cleaning.

Files: `spec.json` (the spec and the inputs' fingerprints, written at the start), `record.json`, predictions, the model,
`checkpoint-STEP` folders to resume from, `.lock`.
"""

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from layerdrop.errors import UserError
from layerdrop.files import write_atomically
from layerdrop.runs.predictions import PREDICTION_PATTERNS
from layerdrop.runs.record import RECORD_FILE, RunRecord, read_record
from layerdrop.runs.results import CARD_FILE, CARD_MARK, RESULT_FILES
from layerdrop.spec import Options, RunSpec
from layerdrop.words import flag_of

SPEC_FILE = "spec.json"
LOCK_FILE = ".lock"
PRIOR_FOLDER = "prior"
"""In a run's or a study's folder: the store of searches and first trainings."""
SCORE_FOLDER = "scores"
"""In the folder of an analysis or in PRIOR_FOLDER: layer scores that need not be computed again."""
MODEL_FILES = ("config.json", "model.safetensors", "pytorch_model.bin")
MODEL_PATTERNS = (
    *("config.json", "generation_config.json", "training_args.bin", "*.safetensors", "*.safetensors.index.json"),
    *("pytorch_model*.bin", "pytorch_model*.bin.index.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "*.model"),
)
"""Files of a saved model and its tokenizer."""
FROM_LAST = ("last", "auto")


class Busy(Exception):
    """Another process works in the folder of a run."""


@dataclass(frozen=True)
class FolderState:
    """The contents of a run's folder."""

    done: RunRecord | None = None
    """The record of this very run, where it has succeeded with the same inputs."""
    resume_from: str | None = None
    """The checkpoint to resume from."""
    notes: tuple[str, ...] = ()


# ---- a store: the runs of a study or a search ------------------------------------------------------------------------
@dataclass(frozen=True)
class Store:
    """A folder of runs, each in a folder of its own, named by its spec."""

    root: str

    def folder(self, spec: RunSpec) -> str:
        """Where a run lies: ROOT/NAME_ID."""
        return str(Path(self.root) / f"{spec.name}_{spec.id[:8]}")

    def find(self, spec: RunSpec) -> RunRecord | None:
        """The record of this very run; None if there is none that can be read."""
        return find_record(self.folder(spec), spec)

    def done(self) -> Iterator[RunRecord]:
        """The records of all successful runs; unreadable ones are left out."""
        for path in sorted(Path(self.root).glob(f"*/{RECORD_FILE}")):
            with suppress(ValueError):
                record = read_record(path.parent)
                if record and record.status == "success":
                    yield record


def find_record(folder: str, spec: RunSpec) -> RunRecord | None:
    """The record in a folder if it is that of `spec`; None if there is none that can be read."""
    try:
        record = read_record(folder)
    except ValueError:
        return None
    return record if record and record.id == spec.id else None


def prior_store(options: Options) -> Store:
    """The store of the runs that a run does first."""
    return Store(options.prior_store or str(Path(options.folder) / PRIOR_FOLDER))


# ---- one run's folder ------------------------------------------------------------------------------------------------
@contextmanager
def claim(folder: str) -> Iterator[None]:
    """Keep other processes out of a run's folder, which is made if it does not exist.

    A folder in which nothing was written but the spec goes again at the end. The operating system frees the claim
    however the process ends. Raises Busy, and UserError for a folder that cannot be written.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise UserError(f"--output_dir {folder}: is a file. Choose a folder.")
    made, lock = not path.exists(), FileLock(path / LOCK_FILE, timeout=0)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise Busy(f"--output_dir {folder}: another process is at this run. Wait, or choose another folder.") from None
    except OSError as error:
        raise UserError(f"--output_dir {folder}: cannot write there ({error.strerror}). Choose another.") from None
    try:
        yield
    finally:
        if {file.name for file in path.iterdir()} <= {SPEC_FILE, LOCK_FILE}:
            (path / SPEC_FILE).unlink(missing_ok=True)
            if made:
                shutil.rmtree(path)
        lock.release()


def open_folder(record: RunRecord, options: Options) -> FolderState:
    """Make sure that a run can write into its folder, which it has claimed, without harming what is there.

    record: the run's, with the fingerprints of its inputs. Raises UserError where something else is in the way.
    """
    folder, auto = Path(record.folder), options.resume == "auto"
    if options.overwrite:
        clear(folder)
        return note_inputs(record)
    try:
        there = read_record(folder)
    except ValueError as error:
        if not auto:
            raise UserError(f"{error}. Move the file away, or start again with --overwrite_output_dir.") from None
        there = None
    if there and there.status == "success":
        if difference := _difference(there.spec.flat(), record.spec, there.id) or _changed_inputs(
            there.data, there.fingerprints, record
        ):
            raise UserError(
                f"--output_dir {folder}: holds a run with {difference}. "
                "Choose another --output_dir, or --overwrite_output_dir to lose it."
            )
        return FolderState(done=there)
    if not (there or (folder / SPEC_FILE).exists()):
        _refuse_foreign_model(folder)
    if options.resume:
        return _resume(record, options.resume)
    if found := checkpoints(folder):
        raise UserError(
            f"--output_dir {folder}: holds an interrupted run ({found[-1].name}). "
            "Go on with --resume_from_checkpoint, or start again with --overwrite_output_dir."
        )
    clear(folder)  # of a run that failed or died
    return note_inputs(record)


def clear(folder: Path) -> None:
    """Remove everything that a run writes, so that the folder holds nothing of an earlier one."""
    remove_checkpoints(folder)
    for pattern in (RECORD_FILE, SPEC_FILE, "trainer_state.json", *RESULT_FILES, *PREDICTION_PATTERNS, *MODEL_PATTERNS):
        for path in folder.glob(pattern):
            path.unlink()
    card = folder / CARD_FILE
    if card.is_file() and CARD_MARK in card.read_text(encoding="utf-8", errors="replace"):
        card.unlink()


def holds_model(folder: str | Path) -> list[str]:
    """Which of a checkpoint's files are in a folder."""
    return [name for name in MODEL_FILES if (Path(folder) / name).exists()]


def holds_trained(folder: str, spec: RunSpec) -> bool:
    """Whether a folder holds the record of this very run, which has succeeded, and its model."""
    record = find_record(folder, spec)
    return record is not None and record.status == "success" and bool(holds_model(folder))


def forget_unless_kept(folder: str, spec: RunSpec) -> None:
    """Remove a finished run that did not keep its model, because the model is needed now: the run is repeated."""
    with suppress(Busy), claim(folder):  # another process may be at it
        record = find_record(folder, spec)
        if record and record.status == "success" and not holds_model(folder):
            clear(Path(folder))


# ---- checkpoints to resume from --------------------------------------------------------------------------------------
def checkpoints(folder: str | Path) -> list[Path]:
    """The folders `checkpoint-STEP` of a run, oldest first."""
    found = (path for path in Path(folder).glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal())
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def remove_checkpoints(folder: str | Path) -> None:
    """Delete the folders `checkpoint-STEP` of a run."""
    for path in checkpoints(folder):
        shutil.rmtree(path, ignore_errors=True)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: a killed process leaves files out, or cuts them off."""
    files = list(checkpoint.glob("*.safetensors")) + list(checkpoint.glob("*.pt")) + list(checkpoint.glob("*.pth"))
    names = {path.name for path in files}
    needed = {"optimizer.pt", "scheduler.pt"} <= names and any(name.startswith("rng_state") for name in names)
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        return needed and any(name.endswith(".safetensors") for name in names) and all(map(_is_readable, files))
    except (OSError, ValueError):
        return False


def _is_readable(path: Path) -> bool:
    """Whether a file is not cut off: both formats say where they end."""
    if path.suffix != ".safetensors":
        return zipfile.is_zipfile(path)
    try:
        with safe_open(path, framework="np"):
            return True
    except (SafetensorError, OSError):
        return False


def _resume(record: RunRecord, resume: str) -> FolderState:
    folder = Path(record.folder)
    if resume not in FROM_LAST:
        return _resume_from(record, Path(resume))
    found = checkpoints(folder)
    broken = [path for path in found if not is_whole(path)]
    usable = [path for path in found if path not in broken]
    notes = tuple(f"{path.name} was cut off while it was written; it is not used" for path in broken)
    if usable:
        try:
            opened = _resume_from(record, usable[-1])
            return FolderState(resume_from=opened.resume_from, notes=notes)
        except UserError:
            if resume != "auto":
                raise
    elif resume != "auto" and not broken:
        raise UserError(
            f"--resume_from_checkpoint: no checkpoint in {folder}. Leave the flag out to start from the "
            "beginning, or give --output_dir of the interrupted run."
        )
    if resume == "auto":
        clear(folder)
    else:
        remove_checkpoints(folder)
        notes += ("no whole checkpoint is left; the training starts from the beginning",)
    return FolderState(notes=notes + note_inputs(record).notes)


def _resume_from(record: RunRecord, checkpoint: Path) -> FolderState:
    """Raises UserError where there is no whole checkpoint, or one of another run."""
    if not (checkpoint / "trainer_state.json").is_file():
        raise UserError(f"--resume_from_checkpoint {checkpoint}: no checkpoint there. Give a folder checkpoint-STEP.")
    if not is_whole(checkpoint):
        raise UserError(
            f"--resume_from_checkpoint {checkpoint}: was cut off while it was written. Give an older checkpoint, or "
            "start again with --overwrite_output_dir."
        )
    try:
        old = json.loads((checkpoint.parent / SPEC_FILE).read_text(encoding="utf-8"))
        differing = _difference(RunSpec.from_dict(old).flat(), record.spec, old.get("id"))
        read = old.get("read", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"--resume_from_checkpoint {checkpoint}: no readable {SPEC_FILE} beside it says which run it belongs to. "
            "Give a checkpoint of a run's folder."
        ) from None
    if differing:
        raise UserError(
            f"--resume_from_checkpoint: {checkpoint} was made with {differing}. Give the same flags as then."
        )
    if changed := _changed_inputs(read.get("data", {}), read.get("fingerprints", {}), record):
        raise UserError(
            f"--resume_from_checkpoint: {checkpoint} was made with {changed}. "
            "Start again with --overwrite_output_dir, which loses it."
        )
    note_inputs(record)
    return FolderState(resume_from=str(checkpoint))


# ---- details ---------------------------------------------------------------------------------------------------------
def note_inputs(record: RunRecord) -> FolderState:
    """Write the run that the folder belongs to, and the fingerprints of its inputs."""
    path = Path(record.folder) / SPEC_FILE
    read = {"data": record.data, "fingerprints": record.fingerprints}
    content = {"id": record.spec.id, **record.spec.to_dict(), "read": read}
    try:
        write_atomically(path, json.dumps(content, indent=1, default=str) + "\n")
    except OSError as error:
        raise UserError(f"--output_dir {path.parent}: cannot write there ({error.strerror}). Choose another.") from None
    return FolderState()


def _refuse_foreign_model(folder: Path) -> None:
    if files := holds_model(folder):
        raise UserError(
            f"--output_dir {folder}: holds a model ({', '.join(files)}) that is not this tool's. "
            "Choose another --output_dir, or --overwrite_output_dir to lose it."
        )


def _difference(old: Mapping[str, Any], spec: RunSpec, old_id: str | None) -> str:
    """The settings that differ, by flag: `other settings (--drop_k: 2, now 3)`; empty for the same id."""
    if old_id == spec.id:
        return ""
    new = json.loads(json.dumps(spec.flat(), default=str))
    old = json.loads(json.dumps(dict(old), default=str))
    names = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    words = "; ".join(f"{flag_of(name)}: {old.get(name)}, now {new.get(name)}" for name in names)
    return f"other settings ({words})" if words else "the same settings, made by another version of layerdrop"


def _changed_inputs(data: Mapping[str, Any], fingerprints: Mapping[str, str], record: RunRecord) -> str:
    """Inputs (splits, weights) whose contents differ from those of an earlier run. Empty if none."""
    scored = record.spec.drop.score_split
    splits = [split for split in record.data if not split.startswith("test") or scored == "test"]
    changed = [split for split in splits if data.get(split) not in (None, record.data[split])]
    changed += [
        f"the {name.replace('_', ' ')}"
        for name, fingerprint in record.fingerprints.items()
        if fingerprints.get(name) not in (None, fingerprint)
    ]
    return f"the same settings, but other contents of {', '.join(changed)} since" if changed else ""
