"""Read the splits of a run: own files, a dataset, the demo, GLUE. Hold out rows of the training set."""

import os
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from layerdrop.checkpoints import Checkpoint
from layerdrop.data.examples import Examples, shortened
from layerdrop.data.files import Head, own_examples, read_tables
from layerdrop.data.glue import (
    DIAGNOSTIC_CONFIG,
    DIAGNOSTIC_SPLIT,
    read_glue_diagnostic,
    read_glue_split,
    read_hub_split,
)
from layerdrop.data.hub import is_folder
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import DEMO_TASKS, TASKS, Task, get_task
from layerdrop.errors import UserError

_fingerprints: dict[Hashable, dict[str, list[Any]]] = {}
"""Rows that this process has read: `_rows_key` -> {split: [number of rows, fingerprint]}."""
HOLD_OUT_SEED = 41
"""Seed of the held-out rows, as in GLP. The held-out rows are the same for all models and all seeds of runs."""

DEMO_FOLDER = Path(__file__).parent.parent / "demo"
"""Folder with the demo model's `checkpoint` and a folder for each task (`demo-RTE/train.tsv` ...)."""


@dataclass
class Data:
    """The task and the rows of a run."""

    task: Task
    """`task.texts`: the text columns that were read. For GLUE: the column names of the classical files."""
    examples: dict[str, Examples]
    """Split -> rows. MNLI has two validation and two test splits (`validation_matched`), and `test_ax` if present."""
    notes: list[str] = field(default_factory=list)
    """Notes for the user, one line each."""
    also_in_train: int = 0
    """Own data: number of validation rows whose texts are also in the training set."""

    def splits(self, kind: str) -> list[str]:
        """Names of the splits of a kind: `train`, `validation`, `test`."""
        return [split for split in self.examples if _kind(split) == kind]


def read_splits(
    spec: DataSpec,
    splits: Sequence[str],
    *,
    checkpoint: Checkpoint | None = None,
    test: str | None = None,
    max_predict_samples: int | None = None,
    cache_dir: str | None = None,
    token: str | None = None,
) -> Data:
    """Read kinds of splits (`train`, `validation`, `test`), each up to the number of rows that `spec` allows.

    checkpoint: its trained head decides the classes of own data without a training set. test: own data to predict, a
    file or a dataset's name of the split. With `spec.hold_out` or `spec.validation_share`, `validation` is a part of
    the training set. Raises UserError for unreadable data.
    """
    head = Head.of(checkpoint)
    limits = {"train": spec.max_train_samples, "validation": spec.max_eval_samples, "test": max_predict_samples}
    parted = spec.hold_out or spec.validation_share
    sources = ["train", *(["test"] if "test" in splits else [])] if parted else list(splits)
    own = spec.source in ("files", "dataset")
    if own:
        files = [(split, path) for split, path in (*spec.files, ("test", test)) if split in sources and path]
        if missing := [split for split in sources if split not in dict(files)]:
            instead = ", or --validation_share 0.1 (a fraction of the training set)" * (missing[0] == "validation")
            raise UserError(f"{spec.flag(missing[0])} is missing, but this run reads it. Give it{instead}.")
        whole = {"train": None} if spec.validation_share else {}  # the share is drawn from all rows
        tables = read_tables(spec, files, head, limits | whole, cache_dir, token)
        task, examples, notes = own_examples(spec, tables, (TASKS | DEMO_TASKS).get(spec.task), head)
    else:
        task = get_task(spec.task)
        examples, notes = _read_glue(spec, task, sources, cache_dir, token)
    notes += _notes_on_bad_rows(examples) + ([] if own else _notes_on_equal_rows(examples))
    if spec.validation_share:
        notes += _take_validation_set(examples, spec.validation_share, task)
    examples = {split: rows.head(limits[_kind(split)]) for split, rows in examples.items()}
    if spec.hold_out:
        notes += _replace_validation_set(examples, spec.hold_out, task, spec.max_eval_samples)
    also_in_train = _also_in_train(examples) if own and "validation" in splits else 0
    notes += [note_on_texts(also_in_train, len(examples["validation"]))] if also_in_train else []
    if parted:
        examples = {name: examples[name] for name in ("train", "validation", *examples) if _kind(name) in splits}
    for kind in splits:
        key = _rows_key(spec, splits, kind, head, test, max_predict_samples)
        kind_rows = {split: rows for split, rows in examples.items() if _kind(split) == kind}
        _fingerprints[key] = {split: [len(rows), rows.fingerprint()] for split, rows in kind_rows.items()}
    return Data(task, examples, notes, also_in_train)


def row_fingerprints(
    spec: DataSpec,
    splits: Sequence[str],
    checkpoint: Checkpoint | None = None,
    test: str | None = None,
    max_predict_samples: int | None = None,
) -> dict[str, list[Any]]:
    """Split -> [number of rows, fingerprint] of the rows of `read_splits`. Unchanged files are read once.

    Rows of a hub dataset are left out unless this process has read them, because reading takes seconds.
    Raises UserError for unreadable data.
    """
    to_predict = {"test": test, "max_predict_samples": max_predict_samples}
    keys = [_rows_key(spec, splits, kind, Head.of(checkpoint), **to_predict) for kind in splits]
    if not on_hub(spec) and any(key not in _fingerprints for key in keys):
        read_splits(spec, splits, checkpoint=checkpoint, **to_predict)
    return {split: row for key in keys for split, row in _fingerprints.get(key, {}).items()}


def on_hub(spec: DataSpec) -> bool:
    """Whether the data come from the hub or its cache, not from a folder or files."""
    return spec.source == "hub" or (spec.dataset_name is not None and not is_folder(spec.dataset_name))


def _rows_key(
    spec: DataSpec,
    splits: Sequence[str],
    kind: str,
    head: Head,
    test: str | None,
    max_predict_samples: int | None,
) -> Hashable:
    """Cache key of the rows of a kind of splits: the arguments, and size, time and inode of the files."""
    files, others = [], ()
    to_predict = (test, max_predict_samples) if kind == "test" else (None, None)
    if spec.source in ("files", "dataset"):  # the head and the other splits decide columns and classes
        others = head.labels, head.label_type, *sorted(split for split in splits if split != "test")
    if spec.source == "files":
        files = [path for _, path in (*spec.files, ("test", to_predict[0])) if path]
    elif spec.source == "dataset":
        files = sorted(path for path in Path(spec.dataset_name).rglob("*") if path.is_file())
    elif spec.source not in ("hub", "demo"):
        files = sorted(
            path for pattern in ("*.tsv", "*/*.tsv") for path in Path(os.path.expanduser(spec.source)).glob(pattern)
        )
    states = [path.stat() for file in files if (path := Path(os.path.expanduser(file))).exists()]
    return spec, kind, to_predict, others, tuple((state.st_size, state.st_mtime_ns, state.st_ino) for state in states)


def _kind(split: str) -> str:
    return split.partition("_")[0]


def _read_glue(
    spec: DataSpec, task: Task, splits: Sequence[str], cache_dir: str | None, token: str | None
) -> tuple[dict[str, Examples], list[str]]:
    names = [name for split in splits for name in task.splits(split)]
    with_diagnostic = task.name == "mnli" and "test" in splits
    if spec.source != "hub":
        folder = str(DEMO_FOLDER) if spec.source == "demo" else spec.source
        examples = {name: read_glue_split(folder, task, name, spec.skip_bad_rows) for name in names}
        if with_diagnostic and (rows := read_glue_diagnostic(folder, task, spec.skip_bad_rows)):
            examples[DIAGNOSTIC_SPLIT] = rows
        return examples, []
    examples = {name: read_hub_split(task, name, cache_dir, token) for name in names}
    if with_diagnostic:
        try:
            examples[DIAGNOSTIC_SPLIT] = read_hub_split(task, "test", cache_dir, token, DIAGNOSTIC_CONFIG)
        except UserError:
            return examples, ["GLUE's diagnostic set is neither on the hub nor in the cache, so AX.tsv is not written"]
    return examples, []


def _notes_on_bad_rows(examples: dict[str, Examples]) -> list[str]:
    notes = []
    for split, rows in examples.items():
        if n := rows.bad_rows:
            row, line = ("row", "line") if n == 1 else ("rows", "lines")
            notes.append(f"{n} malformed {row} of {split} left out: {line} {shortened(rows.bad_lines)}")
    return notes


def _notes_on_equal_rows(examples: dict[str, Examples]) -> list[str]:
    """A note for each validation split with the same rows as the training set."""
    notes, train = [], examples.get("train")
    for split, rows in examples.items():
        same_length = split.startswith("validation") and train and len(rows) == len(train)
        if same_length and rows.fingerprint() == train.fingerprint():
            notes.append(f"{split} contains the same rows as train: its scores do not measure generalization")
    return notes


def _also_in_train(examples: dict[str, Examples]) -> int:
    """Number of validation rows whose texts are also in the training set. All text columns count, labels do not."""
    if not {"train", "validation"} <= examples.keys():
        return 0
    trained = set(_text_hashes(examples["train"]))
    return sum(text in trained for text in _text_hashes(examples["validation"]))


def note_on_texts(n: int, of: int) -> str:
    """The note on `n` of `of` validation rows whose texts are also in the training set."""
    have = "has a text that is" if n == 1 else "have texts that are"
    return f"{n:,} of {of:,} validation rows {have} also in the training set, so scores may be too high"


def _text_hashes(rows: Examples) -> Iterator[int]:
    """A hash of each row's texts, which takes less memory than the texts."""
    for row in zip(*rows.texts, strict=True):
        yield hash(tuple(text if isinstance(text, str) else tuple(text) for text in row))


def _take_validation_set(examples: dict[str, Examples], share: float, task: Task) -> list[str]:
    """Make a part of the training set the validation set, in place. Returns notes."""
    train = examples["train"]
    examples["train"], examples["validation"] = hold_out(train, share, task, all_classes=False)
    held = f"{len(examples['validation']):,} of {len(train):,} training rows"
    return [f"{held} are the validation set ({share:.0%} {_draw(task, train)}, the same for every seed)"]


def _replace_validation_set(examples: dict[str, Examples], share: float, task: Task, limit: int | None) -> list[str]:
    """Replace the validation set by a part of the training set, in place. Returns notes."""
    train = examples["train"]
    examples["train"], held = hold_out(train, share, task)
    examples["validation"] = held.head(limit)
    rows = f"{len(examples['validation']):,} of {len(train):,} training rows are held out"
    return [f"{rows} ({share:.0%} {_draw(task, train)}) and used instead of the validation set, which is not read"]


def _draw(task: Task, train: Examples) -> str:
    return "of each class at random" if len(task.kind.strata(train.labels)) > 1 else "at random"


def hold_out(train: Examples, share: float, task: Task, *, all_classes: bool = True) -> tuple[Examples, Examples]:
    """Split a training set into (rest, held-out rows), both in the order of the source.

    The share is drawn at random from each class if every row has one class, else from all rows. GLP (Peer et al. 2022)
    draws from all rows. all_classes: raise UserError for a class that is too small for both parts, as for --hold_out.
    Otherwise such a class stays in the training set, as for --validation_share. Raises UserError if a part is empty.
    """
    generator = np.random.default_rng(HOLD_OUT_SEED)
    held: list[int] = []
    for name, rows in task.kind.strata(train.labels).items():
        n = round(share * len(rows))
        if all_classes and not 0 < n < len(rows):
            raise _too_few("--hold_out", share, name, len(rows))
        held += generator.permutation(rows)[: min(n, len(rows) - 1)].tolist()
    if not held:
        raise _too_few("--validation_share", share, "the training set", len(train))
    rest = np.setdiff1d(np.arange(len(train)), held).tolist()
    return train.take(rest), replace(train.take(sorted(held)), bad_lines=())  # malformed rows count once


def _too_few(flag: str, share: float, name: str, n: int) -> UserError:
    return UserError(
        f"{flag} {share:g}: {name} has {n} row{'s' * (n != 1)}, too few for training and for validation. Give another "
        "share, or more rows."
    )
