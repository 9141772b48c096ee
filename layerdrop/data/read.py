"""Read the splits of a run: own files, the demo, a GLUE folder or the hub. Hold out rows of the training set."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from layerdrop.checkpoints import Checkpoint
from layerdrop.data.examples import Examples, shortened
from layerdrop.data.files import Head, read_own_files
from layerdrop.data.glue import (
    DIAGNOSTIC_CONFIG,
    DIAGNOSTIC_SPLIT,
    read_glue_diagnostic,
    read_glue_split,
    read_hub_split,
)
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

    def splits(self, kind: str) -> list[str]:
        """Names of the splits of a kind: `train`, `validation`, `test`."""
        return [split for split in self.examples if _kind(split) == kind]


def read_splits(
    spec: DataSpec,
    splits: Sequence[str],
    *,
    checkpoint: Checkpoint | None = None,
    test_file: str | None = None,
    max_predict_samples: int | None = None,
    cache_dir: str | None = None,
    token: str | None = None,
) -> Data:
    """Read kinds of splits (`train`, `validation`, `test`), each up to the number of rows that `spec` allows.

    checkpoint: its trained head decides the classes of own files without a training file. test_file: own file to
    predict. With `spec.hold_out`, `validation` is a part of the training set. Raises UserError for unreadable data.
    """
    head = Head.of(checkpoint)
    sources = ["train", *(["test"] if "test" in splits else [])] if spec.hold_out else list(splits)
    if spec.source == "files":
        files = [(split, path) for split, path in (*spec.files, ("test", test_file)) if split in sources and path]
        if missing := [split for split in sources if split not in dict(files)]:
            instead = ", or --hold_out 0.15 (a share of the training set)" if missing[0] == "validation" else ""
            raise UserError(f"--{missing[0]}_file is missing, but this run reads it. Give it{instead}.")
        task = (TASKS | DEMO_TASKS).get(spec.task)
        task, examples, notes = read_own_files(spec, files, task, head)
    else:
        task = get_task(spec.task)
        examples, notes = _read_glue(spec, task, sources, cache_dir, token)
    notes += _notes(examples)
    limits = {"train": spec.max_train_samples, "validation": spec.max_eval_samples, "test": max_predict_samples}
    examples = {split: rows.head(limits[_kind(split)]) for split, rows in examples.items()}
    if spec.hold_out:
        train = examples.pop("train")
        rest, held = hold_out(train, spec.hold_out, task)
        parts = {"train": rest, "validation": held.head(spec.max_eval_samples)}
        examples = {split: rows for split, rows in parts.items() if split in splits} | examples
        draw = "of each class at random" if len(task.kind.strata(train.labels)) > 1 else "at random"
        notes.append(
            f"{len(parts['validation']):,} of {len(train):,} training rows are held out ({spec.hold_out:.0%} {draw}) "
            "and used instead of the validation set, which is not read"
        )
    for kind in splits:
        key = _rows_key(spec, splits, kind, head, test_file, max_predict_samples)
        kind_rows = {split: rows for split, rows in examples.items() if _kind(split) == kind}
        _fingerprints[key] = {split: [len(rows), rows.fingerprint()] for split, rows in kind_rows.items()}
    return Data(task, examples, notes)


def row_fingerprints(
    spec: DataSpec,
    splits: Sequence[str],
    checkpoint: Checkpoint | None = None,
    test_file: str | None = None,
    max_predict_samples: int | None = None,
) -> dict[str, list[Any]]:
    """Split -> [number of rows, fingerprint] of the rows of `read_splits`. Unchanged files are read once.

    Rows of a hub dataset are left out unless this process has read them, because reading takes seconds.
    Raises UserError for unreadable data.
    """
    test = {"test_file": test_file, "max_predict_samples": max_predict_samples}
    keys = [_rows_key(spec, splits, kind, Head.of(checkpoint), **test) for kind in splits]
    if spec.source != "hub" and any(key not in _fingerprints for key in keys):
        read_splits(spec, splits, checkpoint=checkpoint, **test)
    return {split: row for key in keys for split, row in _fingerprints.get(key, {}).items()}


def _rows_key(
    spec: DataSpec,
    splits: Sequence[str],
    kind: str,
    head: Head,
    test_file: str | None,
    max_predict_samples: int | None,
) -> Hashable:
    """Cache key of the rows of a kind of splits: the arguments, and size, time and inode of the files."""
    files, others = [], ()
    test = (test_file, max_predict_samples) if kind == "test" else (None, None)
    if spec.source == "files":  # the head and the other files decide columns and classes
        others = head.labels, head.label_type, *sorted(split for split in splits if split != "test")
        files = [path for _, path in (*spec.files, ("test", test[0])) if path]
    elif spec.source not in ("hub", "demo"):
        files = sorted(
            path for pattern in ("*.tsv", "*/*.tsv") for path in Path(spec.source).expanduser().glob(pattern)
        )
    states = [path.stat() for file in files if (path := Path(file).expanduser()).exists()]
    return spec, kind, test, others, tuple((state.st_size, state.st_mtime_ns, state.st_ino) for state in states)


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
            return examples, ["GLUE's diagnostic set is neither on the hub nor in the local cache: no AX.tsv"]
    return examples, []


def _notes(examples: dict[str, Examples]) -> list[str]:
    notes = []
    for split, rows in examples.items():
        if n := rows.bad_rows:
            row, line = ("row", "line") if n == 1 else ("rows", "lines")
            notes.append(f"{n} malformed {row} of {split} left out: {line} {shortened(rows.bad_lines)}")
    train = examples.get("train")
    for split, rows in examples.items():
        same_length = split.startswith("validation") and train and len(rows) == len(train)
        if same_length and rows.fingerprint() == train.fingerprint():
            notes.append(f"{split} contains the same rows as train: its scores do not measure generalization")
    return notes


def hold_out(train: Examples, share: float, task: Task) -> tuple[Examples, Examples]:
    """Split a training set into (rest, held-out rows), both in the order of the source.

    The share is drawn at random from each class if every row has one class, else from all rows. GLP (Peer et al. 2022)
    draws from all rows. Raises UserError for a class that is too small for both parts.
    """
    generator = np.random.default_rng(HOLD_OUT_SEED)
    held: list[int] = []
    for name, rows in task.kind.strata(train.labels).items():
        n = round(share * len(rows))
        if not 0 < n < len(rows):
            raise UserError(
                f"--hold_out {share:g}: {name} has {len(rows)} row{'s' * (len(rows) != 1)}, too few for training and "
                "for validation. Give another share, or more rows."
            )
        held += generator.permutation(rows)[:n].tolist()
    rest = np.setdiff1d(np.arange(len(train)), held).tolist()
    return train.take(rest), train.take(sorted(held))
