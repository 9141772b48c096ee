"""Read a dataset of the `datasets` library: from the hub, from its cache, or from a folder.

A folder holds a dataset written by `save_to_disk`, or csv, JSON or parquet files. No code of a dataset is executed: the
library reads data files only.
"""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerdrop.data.readers import FILE_TYPES, plain_cells
from layerdrop.data.tables import Table
from layerdrop.errors import UserError
from layerdrop.system.files import regular
from layerdrop.system.text import one_line

SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""Files of a folder written by `save_to_disk`: a dataset without splits, or a dataset with splits."""
FILES = "--train_file (layerdrop predict: FILE)"
"""How to give files instead of a dataset, for messages."""


def is_folder(name: str) -> bool:
    """Whether a dataset is a folder, not a hub name."""
    return Path(name).is_dir()


def read_dataset_split(
    name: str,
    config: str | None,
    split: str,
    flag: str,
    cache_dir: str | None = None,
    token: str | None = None,
) -> Table:
    """Read a split as a table with 1-based row numbers. Class ids are replaced by the names of the classes.

    split: also a part of a split or a sum, as in the library: `train[:90%]`, `train+validation`. flag: the user's flag
    that names the split. Raises UserError for an unknown dataset or split, and for a split without rows.
    """
    splits = load_splits(name, config, cache_dir, token)
    rows = _rows_of(splits, split, flag, name)
    names = {column: names for column, feature in rows.features.items() if (names := _class_names(feature))}
    cells = rows.with_format("arrow")[:].to_pylist()
    for row in cells:
        for column, known in names.items():
            row[column] = _named(row[column], known)
    if not cells:
        raise UserError(f"{flag} {split}: {name} has no rows in this split. Name another split.")
    table = Table(f"{name} ({split})", tuple(rows.column_names), dict(enumerate(cells, 1)), classes=names)
    return table.map(plain_cells, skip_bad_rows=True)


def load_splits(name: str, config: str | None, cache_dir: str | None = None, token: str | None = None) -> Mapping:
    """Split -> `datasets.Dataset`. Raises UserError for an unreadable dataset."""
    import datasets

    folder, flag = Path(name), "--dataset_name"
    if folder.is_file():
        raise UserError(f"{flag} {name}: is a file, not a dataset. Leave {flag} out, and give the file: {FILES}.")
    saved = is_folder(name) and any((folder / file).is_file() for file in (SAVED, SAVED_SPLITS))
    if saved and config:
        raise UserError(
            f"--dataset_config_name {config}: the saved dataset {name} has no configurations. Leave it out."
        )
    for path in folder.rglob("*") if is_folder(name) else ():
        if path.suffix in (".arrow", *FILE_TYPES) and path.is_file():
            regular(path)
    datasets.logging.set_verbosity(logging.CRITICAL)  # its errors are raised, too
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        if saved:
            found = datasets.load_from_disk(name)
        else:
            found = datasets.load_dataset(name, config, cache_dir=cache_dir, token=token)
    except Exception as error:  # the library raises OSError, ValueError, RuntimeError, ConnectionError and its own
        raise UserError(_unreadable(name, config, error)) from None
    return found if isinstance(found, Mapping) else {str(found.split or "train"): found}


def _unreadable(name: str, config: str | None, error: Exception) -> str:
    text = str(error.__cause__ or error).strip() or type(error).__name__
    reason = text.splitlines()[0].rstrip(".:")
    if isinstance(error, ValueError) and "config" in reason.lower():
        reason = one_line(text.partition("\nExample of usage")[0]).rstrip(".")
        return f"--dataset_config_name{f' {config}' if config else ''}: {name}: {reason}."
    if is_folder(name):
        advice = "Give a folder written by save_to_disk, or a folder of csv, JSON or parquet files"
        return f"--dataset_name {name}: the datasets library cannot read this folder ({reason}). {advice}."
    advice = f"Without a hub: --dataset_name FOLDER of a saved dataset, or {FILES}"
    return f"--dataset_name {name}: no such folder, and neither hub nor cache gives it ({reason}). {advice}."


def _rows_of(splits: Mapping, split: str, flag: str, name: str) -> Any:
    """The rows of a split, of a part of it, or of a sum. Raises UserError."""
    import datasets

    if split in splits:
        return splits[split]
    try:
        parts = datasets.ReadInstruction.from_spec(split).to_absolute({key: len(rows) for key, rows in splits.items()})
    except (ValueError, AssertionError):
        instead = ", or add --validation_share 0.1 (a fraction of the training set)" * (flag == "--validation_split")
        known = ", ".join(splits)
        raise UserError(f"{flag} {split}: {name} has no such split. Name one with {flag}: {known}{instead}.") from None
    return datasets.concatenate_datasets([splits[part.splitname].select(range(part.from_, part.to)) for part in parts])


def _class_names(feature: Any) -> tuple[str, ...]:
    """The names of a class label, or of a list of class labels. Empty for other columns."""
    import datasets

    while isinstance(feature, (datasets.List, datasets.LargeList)):
        feature = feature.feature
    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else ()


def _named(cell: Any, names: tuple[str, ...]) -> Any:
    """Class ids -> names; -1, which marks a row without a label, -> None."""
    if isinstance(cell, list):
        return [_named(item, names) for item in cell]
    return None if cell is None or cell < 0 else names[cell]
