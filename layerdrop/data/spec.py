"""What a run reads: its task, examples and tokens."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSpec:
    """Which task and examples, and how many tokens of each."""

    task: str
    """Name of a GLUE or demo task; for own files a name derived from theirs."""
    source: str = "hub"
    """`hub`, `demo`, `files`, or a GLUE folder as given."""
    files: tuple[tuple[str, str], ...] = ()
    """Own files: (split, path) of `train` and `validation`, as far as the run reads them."""
    text_columns: tuple[str, ...] = ()
    """Own files: one or two names; empty: found in the files."""
    label_column: str = "label"
    label_type: str = "auto"
    """Own files: `class`, `number`, or `auto`."""
    positive_label: str | None = None
    """Own files with two classes: the class that `f1` measures; None: chosen by name and frequency."""
    skip_bad_rows: bool = False
    max_seq_length: int = 128
    """Tokens."""
    pad_to_max_length: bool = False
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    hold_out: float | None = None
    """Share of the training set that takes the place of the development set; None: none."""
