"""Read GLUE's splits from a folder in the classical layout, or from the hub's `nyu-mll/glue` and its local cache."""

import os
from pathlib import Path

from layerdrop.data.examples import Examples
from layerdrop.data.readers import BOM, check_width, not_utf8
from layerdrop.data.tables import Table
from layerdrop.data.tasks import Task
from layerdrop.errors import UserError
from layerdrop.system.files import regular

HUB_DATASET = "nyu-mll/glue"
DIAGNOSTIC_SPLIT = "test_ax"
"""GLUE's diagnostic set: an additional test set of MNLI."""
DIAGNOSTIC_CONFIG = "ax"
"""Name of the diagnostic set on the hub. It has the split `test` and MNLI's columns."""
DIAGNOSTIC_FILES = ("diagnostic.tsv", "MNLI/diagnostic.tsv", "AX/AX.tsv", "diagnostic/diagnostic.tsv")
"""Usual paths of the diagnostic set, below the GLUE folder or MNLI's own folder."""


def read_glue_split(data_dir: str, task: Task, split: str, skip_bad_rows: bool = False) -> Examples:
    """Read a split of a GLUE folder: `train`, `validation`, `test`; for MNLI with `_matched` or `_mismatched`.

    data_dir: the folder that contains the task's folder (`RTE`), or the task's folder.
    """
    folder = Path(os.path.expanduser(data_dir))
    if not folder.is_dir():
        raise UserError(f"--data_dir {data_dir}: no such folder. {_expected_layout(task)}")
    if (folder / task.folder).is_dir():
        folder = folder / task.folder
    file = folder / f"{split.replace('validation', 'dev')}.tsv"
    return read_glue_tsv(file, task, not split.startswith("test"), skip_bad_rows)


def read_glue_diagnostic(data_dir: str, task: Task, skip_bad_rows: bool = False) -> Examples | None:
    """Read GLUE's diagnostic set with MNLI's columns, without labels. None if the folder does not contain it."""
    path = next(
        (path for name in DIAGNOSTIC_FILES if (path := Path(os.path.expanduser(data_dir)) / name).is_file()), None
    )
    return None if path is None else read_glue_tsv(path, task, False, skip_bad_rows)


def read_glue_tsv(path: Path, task: Task, labeled: bool, skip_bad_rows: bool = False) -> Examples:
    """Read a file of the classical layout: tab-separated, no quoting, a header (except CoLA's labeled files).

    Raises UserError for a missing file or column, and with file and line for a malformed row.
    """
    try:
        text = regular(path).read_bytes().decode()
    except OSError as error:
        raise UserError(f"--data_dir: cannot read {path} ({error.strerror}). {_expected_layout(task)}") from None
    except UnicodeDecodeError as error:
        raise not_utf8(str(path), error) from None
    lines = {number: line.lstrip(BOM).rstrip("\r") for number, line in enumerate(text.split("\n"), 1)}
    header = task.header if task.header and labeled else tuple(lines.pop(1).split("\t"))
    columns = (*task.texts, task.label) if labeled else task.texts
    if missing := [column for column in columns if column not in header]:
        raise UserError(
            f"{path}:1: no column {', '.join(missing)}; found: {', '.join(header)}. {_expected_layout(task)}"
        )
    index = next((name for name in ("index", "id") if name in header), None)
    positions = {name: header.index(name) for name in (*columns, *([index] if index else []))}

    def parse(line: str) -> dict[str, str]:
        fields = check_width(header, line.split("\t"))
        return {name: fields[position] for name, position in positions.items()}

    table = Table(str(path), header, {number: line for number, line in lines.items() if line})
    class_ids = {word: i for i, word in enumerate(task.words)}
    return table.map(parse, skip_bad_rows).examples(task, class_ids, index, labeled, skip_bad_rows)


def _expected_layout(task: Task) -> str:
    folder = task.folder
    return f"Expected for {task.name}: {folder}/train.tsv, {folder}/dev{task.suffixes[0]}.tsv ... as GLUE ships them."


def read_hub_split(
    task: Task, split: str, cache_dir: str | None = None, token: str | None = None, config: str | None = None
) -> Examples:
    """Read a split of a GLUE task from the hub or its local cache.

    config: the dataset's configuration; None: the task's name. Raises UserError if the split is neither on the hub nor
    in the cache.
    """
    import datasets

    config = config or task.name
    try:
        rows = datasets.load_dataset(HUB_DATASET, config, split=split, cache_dir=cache_dir, token=token)
    except Exception as error:  # the library raises OSError, ValueError, ConnectionError and its own
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"--task_name {task.name}: cannot get {HUB_DATASET} ({config}, {split}) from the hub or the local cache "
            f"({reason}). Without a hub: --data_dir FOLDER of GLUE's .tsv files."
        ) from error
    labels = task.kind.stacked(rows["label"])
    texts = tuple(list(rows[column]) for column in task.hub_texts)
    return Examples(texts, None if split.startswith("test") else labels, [str(i) for i in rows["idx"]])
