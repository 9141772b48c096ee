"""The table of GLUE tasks: columns, labels, metrics, file layout.

Label order, columns and metrics are those of the GLUE benchmark (Wang et al. 2019) in the hub's `nyu-mll/glue`. Peer et
al. (2022) select layers by `selection_metric`.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from layerdrop.errors import UserError, unknown


@dataclass(frozen=True)
class Task:
    """A task. Label ids count from 0. They index `labels` (names on the hub) and `words` (names in GLUE's files)."""

    name: str
    folder: str
    """Folder in the classical layout, and stem of the submission file."""
    texts: tuple[str, ...]
    """One or two text columns of the classical .tsv files."""
    hub_texts: tuple[str, ...]
    """The same columns on the hub."""
    label: str
    """Label column of the classical .tsv files."""
    labels: tuple[str, ...]
    """Class names; empty for regression."""
    words: tuple[str, ...]
    """Labels in the classical files and in GLUE's submissions."""
    metrics: tuple[str, ...]
    selection_metric: str
    header: tuple[str, ...] = ()
    """Column names of train.tsv and dev.tsv if these files have no header line (CoLA)."""
    suffixes: tuple[str, ...] = ("",)
    """Endings of the names of the validation and test splits. MNLI has two of each."""
    value_range: tuple[float, float] | None = None
    """Regression: the lowest and highest value."""
    positive: int = 1
    """Id of the class that `f1` measures."""
    label_type: str = "class"
    """The kind of the labels: a key of layerdrop.data.kinds.KINDS."""

    @property
    def positive_label(self) -> str | None:
        """Name of the class that `f1` measures. None if F1 is not a metric of the task."""
        return self.labels[self.positive] if "f1" in self.metrics else None

    @property
    def kind(self):
        """The kind of the labels, with the names of the classes."""
        from layerdrop.data.kinds import KINDS  # imports numpy, which workers must not import early

        return KINDS[self.label_type].of(self.labels, self)

    def splits(self, split: str) -> list[str]:
        """The splits of `train`, `validation` or `test`: for MNLI `validation_matched` and `validation_mismatched`."""
        return [split] if split == "train" else [split + suffix for suffix in self.suffixes]

    def recorded(self, metric: str) -> str:
        """A metric's name in records, on the first validation split: MNLI's accuracy is `matched_accuracy`."""
        return metric_prefix(self.splits("validation")[0]) + metric


def metric_prefix(split: str) -> str:
    """Prefix of a split's metrics in records: `validation_matched` -> `matched_`; empty for a task's only split."""
    ending = split.partition("_")[2]
    return f"{ending}_" if ending else ""


_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_MNLI = ("entailment", "neutral", "contradiction")
_PAIR = ("sentence1", "sentence2")

TASKS = {
    row.name: row
    for row in (
        Task(
            "cola",
            "CoLA",
            ("sentence",),
            ("sentence",),
            "label",
            ("unacceptable", "acceptable"),
            _BINARY,
            ("matthews_correlation", "accuracy"),
            "matthews_correlation",
            header=("source", "label", "star", "sentence"),
        ),
        Task(
            "sst2",
            "SST-2",
            ("sentence",),
            ("sentence",),
            "label",
            ("negative", "positive"),
            _BINARY,
            ("accuracy",),
            "accuracy",
        ),
        Task(
            "mrpc",
            "MRPC",
            ("#1 String", "#2 String"),
            _PAIR,
            "Quality",
            ("not_equivalent", "equivalent"),
            _BINARY,
            ("accuracy", "f1"),
            "f1",
        ),
        Task(
            "stsb",
            "STS-B",
            _PAIR,
            _PAIR,
            "score",
            (),
            (),
            ("pearson", "spearmanr"),
            "spearmanr",
            value_range=(0.0, 5.0),
            label_type="number",
        ),
        Task(
            "qqp",
            "QQP",
            ("question1", "question2"),
            ("question1", "question2"),
            "is_duplicate",
            ("not_duplicate", "duplicate"),
            _BINARY,
            ("accuracy", "f1"),
            "f1",
        ),
        Task(
            "mnli",
            "MNLI",
            _PAIR,
            ("premise", "hypothesis"),
            "gold_label",
            _MNLI,
            _MNLI,
            ("accuracy",),
            "accuracy",
            suffixes=("_matched", "_mismatched"),
        ),
        Task(
            "qnli",
            "QNLI",
            ("question", "sentence"),
            ("question", "sentence"),
            "label",
            _ENTAILMENT,
            _ENTAILMENT,
            ("accuracy",),
            "accuracy",
        ),
        Task("rte", "RTE", _PAIR, _PAIR, "label", _ENTAILMENT, _ENTAILMENT, ("accuracy",), "accuracy"),
        Task(
            "wnli", "WNLI", _PAIR, _PAIR, "label", ("not_entailment", "entailment"), _BINARY, ("accuracy",), "accuracy"
        ),
    )
}

DEMO_TASKS = {
    f"demo-{name}": replace(TASKS[name], name=f"demo-{name}", folder=f"demo-{TASKS[name].folder}")
    for name in ("sst2", "rte", "mrpc", "stsb", "cola")
}
"""Tasks on synthetic text (layerdrop/demo), with the columns and labels of the original tasks, and demo-ner."""
_CLASSES = ("animal", "building", "garment", "plant", "tool", "vehicle")
_ENTITY_TAGS = (*(f"{place}-{name}" for place in "BI" for name in _CLASSES), "O")
DEMO_TASKS["demo-ner"] = Task(
    "demo-ner",
    "demo-NER",
    ("tokens",),
    ("tokens",),
    "ner_tags",
    _ENTITY_TAGS,
    _ENTITY_TAGS,
    ("entity_f1", "entity_precision", "entity_recall", "accuracy"),
    "entity_f1",
    label_type="token",
)


def get_task(name: str, flag: str = "--task_name", own_data: bool = False) -> Task:
    """The task with a name, in any usual spelling (`RTE`, `sst-2`, `STS-B`). Raises UserError, which names the flag.

    own_data: whether the user's own data are given, which need no name of a task.
    """
    tasks = TASKS | DEMO_TASKS
    key = name.lower().replace("-", "").replace("_", "")
    if key.startswith("demo"):
        key = "demo-" + key.removeprefix("demo")
    if key not in tasks:
        error = unknown(flag, name, tasks)
        advice = " If your data have other labels, leave this flag out: the task is named after the data."
        raise UserError(error.text + advice, flag) if own_data else error
    return tasks[key]


def check_metric(flag: str, metric: str | None, task: str, allowed: Collection[str]) -> None:
    """Raise UserError for a metric that a task does not have."""
    if metric and metric not in allowed:
        raise UserError(f"{flag} {metric}: not a metric of {task}. Allowed: {', '.join(allowed)}.")


def custom_task(
    name: str,
    texts: tuple[str, ...],
    label: str,
    labels: tuple[str, ...],
    positive: int = 1,
    label_type: str | None = None,
) -> Task:
    """A task of own data. labels: class names in id order, empty for regression. positive: the class of `f1`.

    label_type: None for classes, or for regression without class names.
    """
    from layerdrop.data.kinds import KINDS

    label_type = label_type or ("class" if labels else "number")
    metrics, selection = KINDS[label_type].own_metrics(labels)
    columns = texts, texts, label, labels, labels
    return Task(name, "predictions_test", *columns, metrics, selection, positive=positive, label_type=label_type)
