"""What one run is (RunSpec), what happened in it (RunRecord), and its file."""

import dataclasses
import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from layerdrop.data import Examples
from layerdrop.errors import UserError
from layerdrop.tasks import Task

RECORD_FILE = "record.json"
VERSION_OF = ("torch", "transformers", "accelerate", "datasets", "numpy", "scikit-learn", "scipy", "tokenizers")


@dataclass(frozen=True)
class RunSpec:
    """Everything that can change the result of a run, and nothing else. Its hash is the run's identity.

    Layer ids count from 0 in the numbering of the checkpoint `model`.
    """

    model: str
    task: str
    data: str
    """`hub`, or where the local files are, as given."""
    strategy: str | None = None
    k: int | None = None
    threshold: float | None = None
    layers: tuple[int, ...] = ()
    """Strategy `list`: the ids."""
    order: tuple[int, ...] = ()
    """Strategies `greedy` and `optimal`: the ids in the order of dropping."""
    score_on: str | None = None
    score_split: str | None = None
    score_samples: int | None = None
    weight_scope: str | None = None
    freeze_layers: tuple[int, ...] = ()
    freeze_embeddings: bool = False
    seed: int = 42
    max_seq_length: int = 128
    pad_to_max_length: bool = False
    precision: str = "fp32"
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    revision: str = "main"
    processes: int = 1
    train: bool = True
    from_scratch: bool = False
    """Random weights instead of the pre-trained ones."""
    training: dict[str, Any] = field(default_factory=dict)
    """The recipe: settings of `TrainingArguments` that change the result."""

    @property
    def id(self) -> str:
        """16 hexadecimal digits; equal for equal specs, on every machine.

        What is at its default does not count, so that a field that is added later leaves older runs their identity.
        """
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        chosen = {name: value for name, value in dataclasses.asdict(self).items() if value != defaults[name]}
        text = json.dumps(chosen, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class RunRecord:
    """What happened. Layer ids are those of the original model, from 0; `kept` and `dropped` part 0..n_layers-1."""

    spec: RunSpec
    folder: str
    status: str = "running"
    """`success`, `failed`, `cancelled`; `dry_run` where nothing was to happen."""
    n_layers: int | None = None
    """Depth of the original model."""
    dropped: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    dropped_before: list[int] = field(default_factory=list)
    """Those of `dropped` that the checkpoint lacked already."""
    scores: list[float] | None = None
    """One for each layer of the checkpoint, where the strategy scores."""
    parameters_before: int | None = None
    parameters_after: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """On the development set, as fractions; MNLI's carry the prefix `matched_` or `mismatched_`."""
    epochs: list[dict[str, float]] = field(default_factory=list)
    """After each epoch (or wherever was logged): `train_loss`, and `loss` and metrics on the development set."""
    seconds: dict[str, float] = field(default_factory=dict)
    """load, read, select, tokenise, train, evaluate (all passes over the development set), inference (the last of
    them), predict, total."""
    tokens_per_second: float | None = None
    """Real (not padding) tokens in training."""
    padding_share: float | None = None
    """Share of padding in the tokens that training processed."""
    peak_memory_bytes: dict[str, int] = field(default_factory=dict)
    """Largest resident size of the process (`host`), largest allocation on the GPU (`cuda`)."""
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For each split: rows, bad rows left out, fingerprint."""
    distinct_predictions: dict[str, int] = field(default_factory=dict)
    """For each split: how many different classes or values were predicted."""
    model_fingerprint: str | None = None
    """Which weights the name of the model stood for."""
    notes: list[str] = field(default_factory=list)
    """What the user was told."""
    environment: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes null. `id` is the spec's."""
        return _plain({"id": self.spec.id, **dataclasses.asdict(self)})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunRecord":
        """The record that `to_dict` gave these values."""
        known = {f.name for f in dataclasses.fields(RunSpec)}
        spec = {k: tuple(v) if isinstance(v, list) else v for k, v in values["spec"].items() if k in known}
        known = {f.name for f in dataclasses.fields(cls)}
        record = cls(**{name: value for name, value in values.items() if name in known} | {"spec": RunSpec(**spec)})
        record.metrics = {name: float("nan") if v is None else v for name, v in record.metrics.items()}
        return record

    def constant_predictions(self) -> list[str]:
        """The splits for every row of which the model predicts the same."""
        return [split for split, n in self.distinct_predictions.items() if n == 1]

    def write(self) -> Path:
        """Write `record.json` into the run's folder, whole or not at all."""
        path = Path(self.folder) / RECORD_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(self.to_dict(), indent=1, default=str) + "\n")
        return path


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def umask() -> int:
    """The permissions that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_record(folder: str | os.PathLike) -> dict[str, Any] | None:
    """The record of a run's folder as plain values; None if there is none that can be read."""
    try:
        return json.loads((Path(folder) / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


SPEC_FILE = "spec.json"
"""Written when a run starts, so that it can only be resumed as what it was."""
MODEL_FILES = ("config.json", "model.safetensors", "pytorch_model.bin")


def holds_model(folder: str | os.PathLike) -> list[str]:
    """Which of a checkpoint's files are in a folder."""
    return [name for name in MODEL_FILES if (Path(folder) / name).exists()]


def checkpoints(folder: str | os.PathLike) -> list[Path]:
    """The folders `checkpoint-STEP` of a run, oldest first."""
    found = (path for path in Path(folder).glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal())
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def remove_checkpoints(folder: str | os.PathLike) -> None:
    """Delete the folders `checkpoint-STEP` of a run."""
    for path in checkpoints(folder):
        shutil.rmtree(path, ignore_errors=True)


LAST = ("true", "last")
"""--resume_from_checkpoint without a folder: from the last checkpoint there is."""


def open_folder(record: RunRecord, *, overwrite: bool, resume: str | None) -> tuple[bool, str | None]:
    """Make sure that a run can write into its folder without harming what is there.

    record: the run's, with what it reads (data and weights). resume: a checkpoint's folder, or `True` for the last one
    in the folder. Returns (whether the same run is already done there, the checkpoint to resume from). Raises UserError
    where something else is in the way.
    """
    spec, folder = record.spec, record.folder
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise UserError(f"--output_dir {folder}: is a file. Choose a folder.")
    there, found = read_record(folder), checkpoints(folder)
    finished = bool(there) and there.get("status") == "success"
    if overwrite:
        remove_checkpoints(folder)
        for name in (RECORD_FILE, SPEC_FILE, *(path.name for path in path.glob("predictions_*.tsv"))):
            (path / name).unlink(missing_ok=True)
    elif resume and not (finished and not found and resume.lower() in LAST):
        checkpoint = _checkpoint_to_resume(record, resume, found)
        _write_spec(record)
        return False, checkpoint
    elif finished:
        same = there.get("id") == spec.id
        difference = _other_input(there, record) if same else f"other settings ({_difference(there['spec'], spec)})"
        if not difference:
            return True, None
        raise UserError(
            f"--output_dir {folder}: holds a run with {difference}. "
            "Choose another --output_dir, or --overwrite_output_dir to lose it."
        )
    elif found:
        raise UserError(
            f"--output_dir {folder}: holds an interrupted run ({found[-1].name}). "
            "Go on with --resume_from_checkpoint, or start again with --overwrite_output_dir."
        )
    elif there is None and not (path / SPEC_FILE).exists() and (files := holds_model(folder)):
        raise UserError(
            f"--output_dir {folder}: holds a model ({', '.join(files)}) that is not this tool's. "
            "Choose another --output_dir, or --overwrite_output_dir to lose it."
        )
    _write_spec(record)
    return False, None


def _other_input(old: dict[str, Any], record: RunRecord) -> str:
    """What the recorded run read that this one would read otherwise, though under the same name; empty if nothing."""
    changed = [split for split, rows in record.data.items() if old["data"].get(split) not in (None, rows)]
    if old.get("model_fingerprint") != record.model_fingerprint:
        changed.append("the model's weights")
    return f"the same settings, but other contents of {', '.join(changed)} since" if changed else ""


def leave_folder(folder: str) -> None:
    """Undo open_folder where the run could not begin: a folder that holds nothing else goes, any other stays."""
    if [path.name for path in Path(folder).iterdir()] == [SPEC_FILE]:
        shutil.rmtree(folder)


def _write_spec(record: RunRecord) -> None:
    spec, path = record.spec, Path(record.folder)
    read = {"data": record.data, "model_fingerprint": record.model_fingerprint}
    content = {"id": spec.id, **dataclasses.asdict(spec), "read": read}
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / SPEC_FILE, json.dumps(content, indent=1, default=str) + "\n")
    except OSError as error:
        raise UserError(f"--output_dir {path}: cannot write there ({error.strerror}). Choose another folder.") from None


def _checkpoint_to_resume(record: RunRecord, resume: str, found: list[Path]) -> str:
    if resume.lower() not in LAST:
        checkpoint = Path(resume)
        if not (checkpoint / "trainer_state.json").is_file():
            raise UserError(f"--resume_from_checkpoint {resume}: no checkpoint there. Give a folder checkpoint-STEP.")
    elif found:
        checkpoint = found[-1]
    else:
        raise UserError(
            f"--resume_from_checkpoint: no checkpoint in {record.folder}. Leave the flag out to start from the "
            "beginning, or give --output_dir of the interrupted run."
        )
    try:
        old = json.loads((checkpoint.parent / SPEC_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return str(checkpoint)
    if old.get("id") != record.spec.id:
        raise UserError(
            f"--resume_from_checkpoint: {checkpoint} was made with other settings ({_difference(old, record.spec)}). "
            "Give the same flags as then."
        )
    if "read" in old and (difference := _other_input(old["read"], record)):
        raise UserError(
            f"--resume_from_checkpoint: {checkpoint} was made with {difference}. "
            "Start again with --overwrite_output_dir, which loses it."
        )
    return str(checkpoint)


def _difference(old: dict[str, Any], spec: RunSpec) -> str:
    """`name: old, now new` for the settings that differ."""
    new = json.loads(json.dumps(dataclasses.asdict(spec), default=str))
    old, new = ({**values, **values.get("training", {})} for values in (old, new))
    names = [name for name in new if name != "training" and old.get(name) != new[name]]
    return "; ".join(f"{name}: {old.get(name)}, now {new[name]}" for name in names) or "of another version"


def write_table(path: Path, header: tuple[str, ...], rows: Iterable[tuple]) -> None:
    """A tab-separated file, without quoting."""
    lines = ["\t".join(map(str, row)) for row in (header, *rows)]
    write_atomically(path, "\n".join(lines) + "\n")


def write_predictions(folder: str, task: Task, split: str, examples: Examples, predictions: np.ndarray) -> Path:
    """predictions_dev.tsv (MNLI: two): index, label, prediction, as class names or values."""

    def shown(values: np.ndarray) -> list[str]:
        return [f"{v:.6g}" for v in values] if task.is_regression else [task.labels[v] for v in values]

    path = Path(folder) / f"predictions_{split.replace('validation', 'dev')}.tsv"
    rows = zip(examples.index, shown(examples.labels), shown(predictions), strict=True)
    write_table(path, ("index", "label", "prediction"), rows)
    return path


def write_submission(folder: str, task: Task, split: str, examples: Examples, predictions: np.ndarray) -> Path:
    """GLUE's submission file for a test split (RTE.tsv, MNLI-m.tsv ...): index, prediction in GLUE's label words."""
    suffix = {"": "", "_matched": "-m", "_mismatched": "-mm"}[split.removeprefix("test")]
    if task.is_regression:
        low, high = task.value_range or (-np.inf, np.inf)
        words = [f"{value:.3f}" for value in np.clip(predictions, low, high)]
    else:
        words = [task.words[value] for value in predictions]
    path = Path(folder) / f"{task.folder}{suffix}.tsv"
    write_table(path, ("index", "prediction"), zip(examples.index, words, strict=True))
    return path


def environment(use_cpu: bool = False) -> dict[str, Any]:
    """Versions, hardware and the commit of the code: what a reader of the record needs to know about where it ran.

    use_cpu: whether it ran on the processor even if there is a GPU.
    """
    from importlib.metadata import PackageNotFoundError, version

    import torch

    versions = {"python": platform.python_version()}
    for name in VERSION_OF:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    cuda = torch.cuda.is_available() and not use_cpu
    return {
        "versions": versions,
        "device": torch.cuda.get_device_name() if cuda else _processor(),
        "device_count": torch.cuda.device_count() if cuda else 0,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        **_commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@cache
def _commit() -> dict[str, Any]:
    """The commit that the code was checked out at when this process first asked (it goes on with that code whatever is
    checked out later), and whether tracked files differed from it; None outside of git."""
    root = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD") if (root / ".git").exists() else None
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "-uno")) if commit else None}


def peak_memory() -> dict[str, int]:
    """Bytes: `host`, the process's largest resident size so far; `cuda`, the largest allocation on the GPU."""
    import torch

    peaks = {"host": _peak_resident()}
    if torch.cuda.is_available():
        peaks["cuda"] = torch.cuda.max_memory_allocated()
    return peaks


def forget_peak_memory() -> None:
    """Let peak_memory begin anew: a process may do several runs."""
    import torch

    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_resident() -> int:
    try:  # Linux; getrusage would start from what the parent process had
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def summary(record: RunRecord) -> str:
    """The run in a few lines for a person."""
    spec = record.spec
    before, after = record.parameters_before, record.parameters_after
    lines = [("task", f"{spec.task} ({spec.data})"), ("model", spec.model)]
    if record.n_layers is not None:
        how = spec.strategy or "none"
        how += f", K = {spec.k}" if spec.k is not None else ""
        how += f", threshold {spec.threshold}" if spec.threshold is not None else ""
        lines.append(("strategy", how))
        before_too = f"; {_ids(record.dropped_before)} were gone before" if record.dropped_before else ""
        lines.append(
            ("dropped", f"{_ids(record.dropped)} ({len(record.dropped)} of {record.n_layers} layers{before_too})")
        )
        lines.append(("kept", _ids(record.kept)))
    if record.scores:
        lines.append(("scores", "  ".join(f"{i}: {score:.4g}" for i, score in enumerate(record.scores))))
    if after is not None:
        lines.append(("parameters", f"{before:,} -> {after:,} ({100 * (after - before) / before:+.1f}%)"))
    if record.metrics:
        shown = {name: value for name, value in record.metrics.items() if not name.endswith("loss")}
        lines.append(("metrics", "  ".join(f"{name} {value:.4f}" for name, value in shown.items())))
    if constant := record.constant_predictions():
        lines.append(("careful", f"one and the same prediction for every row of {', '.join(constant)}"))
    if record.seconds:
        lines.append(("seconds", "  ".join(f"{name} {value:.1f}" for name, value in record.seconds.items())))
    if record.tokens_per_second:
        padding = f", {100 * record.padding_share:.1f}% padding" if record.padding_share is not None else ""
        lines.append(("training", f"{record.tokens_per_second:,.0f} tokens/s in {spec.precision}{padding}"))
    lines.append(("status", record.status + (f": {record.error}" if record.error else "")))
    if record.status != "dry_run":
        lines.append(("folder", record.folder))
    return "\n".join(f"{name:<11}{value}" for name, value in lines)


def _ids(ids: list[int]) -> str:
    return ", ".join(map(str, ids)) if ids else "none"
