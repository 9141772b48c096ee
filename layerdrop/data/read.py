"""Where the examples of a run come from: own files, the demo, a GLUE folder, or else the hub."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from layerdrop.checkpoints import Checkpoint
from layerdrop.data.examples import Examples, shortened
from layerdrop.data.files import read_own_files
from layerdrop.data.glue import DIAGNOSTIC_SPLIT, read_demo_split, read_glue_diagnostic, read_glue_split
from layerdrop.data.hold_out import hold_out
from layerdrop.data.hub import DIAGNOSTIC_CONFIG, read_hub_split
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import DEMO_TASKS, TASKS, Task, get_task
from layerdrop.errors import UserError


@dataclass
class Data:
    """What a run reads."""

    task: Task
    """`task.texts` are the columns that the texts were taken from (of GLUE: as in the classical files)."""
    examples: dict[str, Examples]
    """Split -> rows. MNLI has two development and test splits (`validation_matched`), and `test_ax` where it exists."""
    notes: list[str] = field(default_factory=list)
    """Notes for the user, one line each."""

    def splits(self, kind: str) -> list[str]:
        """The splits of a kind (`train`, `validation`, `test`) that were read."""
        return [split for split in self.examples if split.partition("_")[0] == kind]


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
    """The task and the first rows (as many as `spec` allows) of each of `splits`: `train`, `validation`, `test`.

    checkpoint: for own files without a training file, its trained head tells the classes or that labels are numbers.
    test_file: the own file to predict. Only requested splits are read. With `spec.hold_out`, a part of the training set
    is `validation`, and the development set is not read. Raises UserError for unreadable data.
    """
    if spec.hold_out:
        return _with_part_held_out(
            spec,
            splits,
            read_splits(
                replace(spec, hold_out=None),
                ["train", *(split for split in splits if split == "test")],
                checkpoint=checkpoint,
                test_file=test_file,
                max_predict_samples=max_predict_samples,
                cache_dir=cache_dir,
                token=token,
            ),
        )
    if spec.source == "files":
        files = [(split, path) for split, path in (*spec.files, ("test", test_file)) if split in splits and path]
        if missing := [split for split in splits if split not in dict(files)]:
            instead = ", or --hold_out 0.15 (a share of the training set)" if missing[0] == "validation" else ""
            raise UserError(f"--{missing[0]}_file is missing, but this run reads it. Give it{instead}.")
        task = (TASKS | DEMO_TASKS).get(spec.task)
        task, examples, notes = read_own_files(spec, files, task, checkpoint)
    else:
        task = get_task(spec.task)
        examples, notes = _read_glue(spec, task, splits, cache_dir, token)
    notes += _notes(examples)
    limits = {"train": spec.max_train_samples, "validation": spec.max_eval_samples, "test": max_predict_samples}
    cut = {split: rows.head(limits[split.partition("_")[0]]) for split, rows in examples.items()}
    return Data(task, cut, notes)


def _with_part_held_out(spec: DataSpec, splits: Sequence[str], data: Data) -> Data:
    """The same with `validation` taken from the training set, as far as `splits` are wanted."""
    whole = data.examples.pop("train")
    rest, held = hold_out(whole, spec.hold_out, data.task)
    held = held.head(spec.max_eval_samples)
    parts = {split: rows for split, rows in {"train": rest, "validation": held}.items() if split in splits}
    how = "of each class at random" if data.task.labels else "at random"
    note = (
        f"{len(held):,} of {len(whole):,} training rows are held out ({spec.hold_out:.0%} {how}) and take the place "
        "of the development set, which is not read"
    )
    return Data(data.task, parts | data.examples, [*data.notes, note])


def _read_glue(
    spec: DataSpec, task: Task, splits: Sequence[str], cache_dir: str | None, token: str | None
) -> tuple[dict[str, Examples], list[str]]:
    names = [name for split in splits for name in task.splits(split)]
    with_diagnostic = task.name == "mnli" and "test" in splits
    if task.name in DEMO_TASKS:
        return {name: read_demo_split(task, name) for name in names}, []
    if spec.source != "hub":
        examples = {name: read_glue_split(spec.source, task, name, spec.skip_bad_rows) for name in names}
        if with_diagnostic and (rows := read_glue_diagnostic(spec.source, task, spec.skip_bad_rows)):
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
            what, where = ("row", "line") if n == 1 else ("rows", "lines")
            notes.append(f"{n} malformed {what} of {split} left out: {where} {shortened(rows.bad_lines)}")
    train = examples.get("train")
    for split, rows in examples.items():
        if split.startswith("validation") and train and len(rows) == len(train) and _same(rows, train):
            notes.append(f"{split} holds the same rows as train: its scores say nothing about new examples")
    return notes


def _same(one: Examples, other: Examples) -> bool:
    return one.fingerprint() == other.fingerprint()
