"""The flags of run_glue.py in groups, each with its --help text, and conclusions from several of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from layerdrop.criteria.orders import read_layers_file
from layerdrop.criteria.table import STRATEGIES, Criterion, get_strategy
from layerdrop.data.files import own_task_name
from layerdrop.data.tasks import DEMO_TASKS, TASKS, Task, get_task
from layerdrop.errors import UserError
from layerdrop.runs.spec import TRAINER_DEFAULTS
from layerdrop.strategies import Strategy
from layerdrop.system.files import LocalPath


def flag(help: str, default: Any = None, **metadata) -> Any:
    """A dataclass field with its --help text."""
    return field(default=default, metadata={"help": help.replace("%", "%%"), **metadata})


@dataclass
class ModelArguments:
    """Which checkpoint."""

    model_name_or_path: LocalPath = flag(
        "Folder or hub name of a pre-trained checkpoint; demo: the embedded miniature.", "bert-base-uncased"
    )
    tokenizer_name: LocalPath | None = flag("Folder or hub name of another tokenizer. Default: the checkpoint's own.")
    model_revision: str = flag("Branch, tag or commit on the hub.", "main")
    cache_dir: LocalPath | None = flag("Folder of the download cache.")
    token: str | None = flag("Access token for private models on the hub.")
    trust_remote_code: bool = flag("Run code that comes with the checkpoint.", False)
    from_scratch: bool = flag(
        "Random weights instead of the pre-trained ones: the baseline without pre-training. "
        "Strategies still score the pre-trained layers.",
        False,
    )


@dataclass
class DataArguments:
    """Which task, and where its examples are. Without --data_dir or files, GLUE comes from the hub."""

    task_name: str | None = flag(f"Task (mrpc if no files are given): {', '.join([*TASKS, *DEMO_TASKS])}.")
    data_dir: LocalPath | None = flag("Local GLUE folder in the classical layout (RTE/train.tsv, ...).")
    train_file: LocalPath | None = flag("Own training file: .csv, .tsv, .json, .jsonl or .parquet.")
    validation_file: LocalPath | None = flag("Own development file.")
    test_file: LocalPath | None = flag("Own test file, without labels.")
    text_columns: str | None = flag("Own files: the one or two text columns, separated by a comma.")
    label_column: str = flag("Own files: the label column.", "label")
    label_type: Literal["auto", "class", "number"] = flag("Own files: classification or regression.", "auto")
    positive_label: str | None = flag(
        "Own files with two classes: the class that f1 measures. Default: by name (yes of yes and no), else the rarer."
    )
    skip_bad_rows: bool = flag(
        "Own files and --data_dir: skip and count malformed rows instead of stopping at the first.", False
    )
    max_seq_length: int = flag("Maximum number of tokens; longer inputs are truncated.", 128)
    pad_to_max_length: bool = flag("Pad every batch to --max_seq_length instead of its longest example.", False)
    max_train_samples: int | None = flag("Use the first N training examples only.")
    max_eval_samples: int | None = flag("Use the first N development examples only.")
    hold_out: float | None = flag(
        "Share of the training set that takes the place of the development set, which is not read: what a search "
        "chooses by."
    )
    max_predict_samples: int | None = flag("Use the first N test examples only.")

    @property
    def own_files(self) -> dict[str, str]:
        """Split -> path of the user's own files; empty if none were given."""
        given = {"train": self.train_file, "validation": self.validation_file, "test": self.test_file}
        return {split: path for split, path in given.items() if path}

    @property
    def task(self) -> Task | None:
        """The GLUE or demo task; None where own files define one. Raises UserError for an unknown name."""
        if self.task_name is None and self.own_files:
            return None
        return get_task(self.task_name or "mrpc")

    @property
    def source(self) -> str:
        """`files`, `demo`, the GLUE folder as given, or `hub`."""
        if self.own_files:
            return "files"
        return "demo" if self.task.name in DEMO_TASKS else self.data_dir or "hub"


@dataclass
class DropArguments:
    """Which layers to drop or freeze. Layer ids count from 0, next to the embeddings."""

    drop_strategy: str | None = flag(f"Which layers to drop: {', '.join(STRATEGIES)}.")
    drop_k: int | None = flag("K: how many layers to drop.")
    drop_threshold: float | None = flag("contribution: drop every layer whose similarity is above this, instead of K.")
    drop_layers: str | None = flag("Ids of the layers to drop, as 9,10,11.", aliases=["--remove_layers"])
    keep_layers: str | None = flag("Ids of the layers to keep, as 0,1,2: all others are dropped.")
    drop_order_file: LocalPath | None = flag(
        "A search's result. greedy, shortlist: one id a line, first to drop first; optimal: on line k the best set "
        "of k, as 10-11; list: the layers.json of a run."
    )
    drop_order: str | None = flag("The ids that a search found, as 9,2,11: first to drop first.")
    weight_scope: Literal["final", "layer"] = flag(
        "variance, aggregation: the second feed-forward matrix, or all of the layer's matrices.", "final"
    )
    score_on: LocalPath | None = flag(
        "Compute the scores on this checkpoint of the same architecture instead of the model."
    )
    score_split: Literal["train", "validation", "test"] | None = flag(
        "Criteria that look at texts: the split to score (MNLI: matched). Default: train; contribution: validation."
    )
    max_score_samples: int | None = flag("Criteria that look at texts: use the first N examples of that split only.")
    score_store: LocalPath | None = flag("Folder of scores (scripts/layers.py scores). Scores in it are reused.")
    freeze_layers: str | None = flag("Ids of kept layers that fine-tuning does not change, as 0,1,2.")
    freeze_embeddings: bool = flag("Do not change the embeddings in fine-tuning.", False)
    dry_run: bool = flag("Print the dropped and kept layers, scores and parameters, and stop.", False)
    json: bool = flag("With --dry_run: print one JSON object.", False)


@dataclass
class WhenArguments:
    """When layers go, and how the others take their place."""

    drop_when: Literal["pretrained", "finetuned", "after", "gradual"] = flag(
        "pretrained: before fine-tuning. finetuned: after a first fine-tuning in full depth, and a second one follows. "
        "after: the same without the second. gradual: one after the other while fine-tuning.",
        "pretrained",
    )
    freeze_dropped: bool = flag("finetuned: the first training does not change the layers that will go.", False)
    drop_step: int | None = flag("gradual: how many layers go at once. Default: 1.")
    drop_every_epochs: int | None = flag(
        "gradual: epochs before each drop. Default: 2. --num_train_epochs follow after the last one."
    )
    layerdrop_rate: float | None = flag(
        "Leave each layer out of a training step with this probability (Fan et al.'s LayerDrop). Evaluation uses every "
        "layer."
    )
    theseus: bool = flag(
        "Module replacing (Xu et al.): kept layers replace those of the fine-tuned full model at random, and alone are "
        "trained. Full model: the first training of --drop_when finetuned, else the checkpoint.",
        False,
    )
    replacing_rate: float | None = flag(
        "theseus: probability at the first step with which a kept layer takes its place. Default: 0.5."
    )
    replacing_schedule: Literal["linear", "constant"] | None = flag("theseus: how the rate reaches 1. Default: linear.")
    replacing_steps: float | None = flag(
        "theseus: the step, or the share of all steps if below 1, from which on the rate is 1. Default: 0.5."
    )
    first_num_train_epochs: float | None = flag(
        "Epochs of the training in full depth that a run does first (finetuned, --teacher auto). Default: the run's."
    )
    first_learning_rate: float | None = flag("Its peak learning rate. Default: the run's.")


@dataclass
class TeacherArguments:
    """The teacher that the model learns from, besides the labels: (1 - weight) task loss + weight logits + states
    weight states."""

    teacher: LocalPath | None = flag(
        "Fine-tuned model: a run's folder, or any folder or hub name; auto: this model in full depth, fine-tuned first."
    )
    distill: Literal["logits", "patient", "layers"] | None = flag(
        "logits (Hinton et al.); patient: the sentence token's states too (Sun et al.); layers: each kept layer's "
        "states too, of every token. Default with --teacher: logits."
    )
    distill_temperature: float | None = flag("Divides both logits. Default: 5; layers: 1.")
    distill_weight: float | None = flag("Weight of the logits, from 0 to 1. Default: 0.5; layers: 1.")
    distill_states_weight: float | None = flag("Weight of the states. Default: patient 100, layers 1.")
    distill_attention: bool = flag("layers: match attention too, with the states' weight.", False)


@dataclass
class TrainArguments(TrainingArguments):
    """The library's TrainingArguments with the papers' recipe as defaults: 3 epochs, batch 32, AdamW 2e-5, linear."""

    output_dir: LocalPath | None = flag("Folder of the run. Default: runs/MODEL_TASK_STRATEGY_kK_seedS.")
    per_device_train_batch_size: int = flag("Training batch size on each device.", 32)
    per_device_eval_batch_size: int = flag(
        "Evaluation batch size on each device.", TRAINER_DEFAULTS["per_device_eval_batch_size"]
    )
    learning_rate: float = flag("Peak learning rate.", 2e-5)
    eval_strategy: Literal["no", "steps", "epoch"] = flag(
        "When to evaluate while training: no, steps, epoch.", TRAINER_DEFAULTS["eval_strategy"]
    )
    logging_strategy: Literal["no", "steps", "epoch"] = flag(
        "When to log the training loss: no, steps, epoch.", TRAINER_DEFAULTS["logging_strategy"]
    )
    logging_nan_inf_filter: bool | None = flag(
        "Leave steps whose loss is not finite out of the logged loss. Each step then synchronises with the GPU. "
        "Default: with fp16 only, whose loss scaling skips these steps."
    )
    save_strategy: Literal["no", "steps", "epoch", "best"] = flag(
        "When to save a checkpoint: no, steps, epoch, best. Default: at the end of an epoch, at most once a minute, to "
        "resume from; a successful run removes these checkpoints.",
        TRAINER_DEFAULTS["save_strategy"],
    )
    save_total_limit: int | None = flag("Number of checkpoints to keep.", TRAINER_DEFAULTS["save_total_limit"])
    train_sampling_strategy: Literal["group_by_length", "random", "sequential"] = flag(
        "Order of the training examples.", "group_by_length"
    )
    remove_unused_columns: bool = flag("Without effect: batches hold the model's inputs only.", False)
    dataloader_pin_memory: bool = flag("Pin batches in memory for a GPU.", torch.cuda.is_available())
    precision: Literal["auto", "fp32", "bf16", "fp16"] = flag(
        "auto: bf16 where the hardware has it, else fp32.", "auto"
    )
    no_speedups: bool = flag("Without this project's speed-ups.", False)
    save_model: bool = flag("Keep the fine-tuned model in the run's folder.", True)
    resume_from_checkpoint: LocalPath | None = flag(
        "Resume from the last usable checkpoint in the run's folder (alone, or last), from a checkpoint's folder, or "
        "auto: from the last usable one, else from the beginning."
    )
    overwrite_output_dir: bool = flag("Start again in a folder that holds a run, and delete that run.", False)

    @property
    def n_gpu(self) -> int:
        """GPUs of this process: 0 or 1. The library would use all GPUs, with a batch for each: another recipe."""
        return min(1, super().n_gpu)


GROUPS = (ModelArguments, DataArguments, DropArguments, WhenArguments, TeacherArguments, TrainArguments)


@dataclass
class Flags:
    """All flags of one run, and conclusions from several of them."""

    model: ModelArguments
    data: DataArguments
    drop: DropArguments
    when: WhenArguments
    teacher: TeacherArguments
    train: TrainArguments
    given: frozenset[str] = frozenset()
    """Names of the flags that were given, not left at their default."""

    @property
    def drop_layers(self) -> tuple[int, ...]:
        """The ids of --drop_layers, ascending; of a layers.json where `list` is given one."""
        drop = self.drop
        if drop.drop_strategy == "list" and drop.drop_order_file and drop.drop_layers is None is drop.keep_layers:
            return read_layers_file(drop.drop_order_file)
        return parse_ids("--drop_layers", drop.drop_layers)

    @property
    def keep_layers(self) -> tuple[int, ...]:
        """The ids of --keep_layers, ascending."""
        return parse_ids("--keep_layers", self.drop.keep_layers)

    @property
    def drop_order(self) -> tuple[int, ...]:
        """The ids of --drop_order, in its order."""
        return parse_ids("--drop_order", self.drop.drop_order, in_order=True)

    @property
    def freeze_layers(self) -> tuple[int, ...]:
        """The ids of --freeze_layers, ascending."""
        return parse_ids("--freeze_layers", self.drop.freeze_layers)

    @property
    def named_strategy(self) -> Strategy | None:
        """The row of --drop_strategy; `list` if only layers are named. Raises UserError."""
        name = self.drop.drop_strategy or ("list" if self.drop_layers or self.keep_layers else None)
        return get_strategy(name) if name else None

    @property
    def drops_nothing(self) -> bool:
        """Whether --drop_k 0 turns every strategy into dropping nothing."""
        return self.drop.drop_k == 0 and not self.drop_layers and not self.keep_layers

    @property
    def strategy(self) -> Strategy | None:
        """The strategy that chooses layers; None where nothing is dropped. Raises UserError."""
        return None if self.drops_nothing else self.named_strategy

    @property
    def criterion(self) -> Criterion | None:
        """The strategy, if it is a criterion."""
        row = self.strategy
        return row if isinstance(row, Criterion) else None

    @property
    def task_name(self) -> str:
        """Name of the task; for own files without --task_name the first file's name, or its folder's name where the
        file's only says which split it is. `-files` is added where that is the name of a GLUE task."""
        if (task := self.data.task) is not None:
            return task.name
        return own_task_name(tuple(self.data.own_files.items()))

    @property
    def scored_split(self) -> str | None:
        """The split that scores are averaged over; None where no score needs data."""
        row = self.criterion
        return (self.drop.score_split or row.split) if row and row.needs_data else None

    @property
    def run_splits(self) -> list[str]:
        """`train`, `validation`, `test`: the splits that the run reads from files or the hub."""
        train = self.train
        needed = {"train": train.do_train, "validation": train.do_eval, "test": train.do_predict}
        return self._read_for(split for split, wanted in needed.items() if wanted or split == self.scored_split)

    def _read_for(self, splits: Iterable[str]) -> list[str]:
        """The splits to read for these: a part of the training set may take the development set's place."""
        held_out = self.data.hold_out is not None
        return list(dict.fromkeys("train" if held_out and split == "validation" else split for split in splits))

    @property
    def splits(self) -> list[str]:
        """The splits to read: for a dry run the scored ones, and one own file for the classes."""
        if not self.drop.dry_run:
            return self.run_splits
        first = next(iter(self.data.own_files)) if self.data.task is None else None
        return self._read_for(s for s in ("train", "validation", "test") if s in (first, self.scored_split))


def parse_ids(flag_name: str, text: str | None, in_order: bool = False) -> tuple[int, ...]:
    """Parse `9,11,10` into (9, 10, 11), or into (9, 11, 10) if the order counts. Raises UserError."""
    words = str(text or "").replace(" ", ",").strip("[]").split(",")
    try:
        ids = [int(word) for word in words if word]
        return tuple(ids if in_order else sorted(ids))
    except ValueError:
        raise UserError(f"{flag_name} '{text}': not a list of layer ids. Write them as 9,10,11.") from None
