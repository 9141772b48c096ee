"""The data part of a run's spec."""

from dataclasses import dataclass
from typing import Literal

LabelType = Literal["auto", "class", "number", "multi", "token"]
"""`auto`, or a key of layerdrop.data.kinds.KINDS."""


@dataclass(frozen=True)
class DataSpec:
    """Task, source of the rows, and limits of rows and tokens."""

    task: str
    """Name of a GLUE or demo task. For own data: a name derived from the name of the first file or the dataset."""
    source: str = "hub"
    """`hub` (GLUE), `demo`, `files`, `dataset`, or the path of a GLUE folder."""
    files: tuple[tuple[str, str], ...] = ()
    """Own data: (split, path of a file, or a dataset's name of the split) of each split that the run reads."""
    text_columns: tuple[str, ...] = ()
    """Own data: one or two names. Empty: choose by the contents of the data."""
    label_column: str = "label"
    label_type: LabelType = "auto"
    """Own data: the kind of the labels."""
    label_separator: str | None = None
    """Own data with several labels in a row: the text between two labels of a cell. None: cells are lists."""
    positive_label: str | None = None
    """Own data with two classes: the class that `f1` measures. None: choose by name and frequency."""
    skip_bad_rows: bool = False
    max_seq_length: int = 128
    """Tokens."""
    pad_to_max_length: bool = False
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    hold_out: float | None = None
    """Fraction of the training set to hold out and use instead of the validation set. None: no held-out rows."""
    dataset_name: str | None = None
    """Hub name or folder of a dataset."""
    dataset_config_name: str | None = None
    validation_share: float | None = None
    """Own data: fraction of the training set that is the validation set. None: the data have a validation set."""

    def flag(self, split: str) -> str:
        """The flag of own data that names a split: `--train_file`, or `--train_split` for a dataset."""
        return f"--{split}_{'split' if self.dataset_name else 'file'}"
