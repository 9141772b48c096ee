"""The flags of run_glue.py in four groups, each with its --help text."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from layerdrop.checkpoints import HubOptions
from layerdrop.data import FILE_TYPES, OwnFiles
from layerdrop.strategies import STRATEGIES
from layerdrop.tasks import DEMO_TASKS, TASKS, Task, get_task


def flag(help: str, default: Any = None, **metadata) -> Any:
    """A dataclass field with its --help text."""
    return field(default=default, metadata={"help": help.replace("%", "%%"), **metadata})


@dataclass
class ModelArguments:
    """Which checkpoint."""

    model_name_or_path: str = flag(
        "Folder or hub name of a pre-trained checkpoint; demo: the embedded miniature.", "bert-base-uncased"
    )
    tokenizer_name: str | None = flag("Folder or hub name of the tokenizer, if not that of the model.")
    model_revision: str = flag("Branch, tag or commit on the hub.", "main")
    cache_dir: str | None = flag("Where downloads from the hub are kept.")
    token: str | None = flag("Access token for private models on the hub.")
    trust_remote_code: bool = flag("Run code that comes with the checkpoint.", False)
    from_scratch: bool = flag(
        "Random weights instead of the pre-trained ones: the baseline that shows what pre-training is worth. "
        "Strategies still look at the pre-trained layers.",
        False,
    )

    @property
    def hub(self) -> HubOptions:
        """How to look checkpoints up."""
        return HubOptions(self.model_revision, self.cache_dir, self.token, self.trust_remote_code)


@dataclass
class DataArguments:
    """Which task, and where its examples are. Without --data_dir or files, GLUE comes from the hub."""

    task_name: str | None = flag(f"Task (mrpc if no files are given): {', '.join([*TASKS, *DEMO_TASKS])}.")
    data_dir: str | None = flag("Local GLUE folder in the classical layout (RTE/train.tsv, ...).")
    train_file: str | None = flag(f"Own training file: {', '.join(FILE_TYPES)}.")
    validation_file: str | None = flag("Own development file.")
    test_file: str | None = flag("Own test file, without labels.")
    text_columns: str | None = flag("Own files: the one or two text columns, separated by a comma.")
    label_column: str = flag("Own files: the label column.", "label")
    label_type: Literal["auto", "class", "number"] = flag("Own files: classification or regression.", "auto")
    skip_bad_rows: bool = flag("Leave malformed rows out and count them, instead of stopping at the first.", False)
    max_seq_length: int = flag("Tokens; longer inputs are cut.", 128)
    pad_to_max_length: bool = flag("Pad every batch to --max_seq_length instead of its longest example.", False)
    max_train_samples: int | None = flag("Use the first N training examples only.")
    max_eval_samples: int | None = flag("Use the first N development examples only.")
    max_predict_samples: int | None = flag("Use the first N test examples only.")

    @property
    def own_files(self) -> OwnFiles | None:
        """The user's own files, if any were given."""
        given = (("train", self.train_file), ("validation", self.validation_file), ("test", self.test_file))
        files = tuple((split, path) for split, path in given if path)
        texts = tuple(name.strip() for name in self.text_columns.split(",")) if self.text_columns else ()
        regression = {"auto": None, "class": False, "number": True}[self.label_type]
        return OwnFiles(files, texts, self.label_column, regression) if files else None

    @property
    def source(self) -> str:
        """Where the examples come from: the paths of own files, the GLUE folder, `demo` or `hub`."""
        if self.own_files:
            return ", ".join(path for _, path in self.own_files.files)
        return "demo" if self.task.name in DEMO_TASKS else self.data_dir or "hub"

    @property
    def task(self) -> Task | None:
        """The GLUE task; None where own files define one."""
        if self.task_name is None and self.own_files:
            return None
        return get_task(self.task_name or "mrpc")


@dataclass
class DropArguments:
    """Which layers to drop or freeze. Layer ids count from 0, next to the embeddings."""

    drop_strategy: str | None = flag(f"Which layers to drop: {', '.join(STRATEGIES)}.")
    drop_k: int | None = flag("K: how many layers to drop.")
    drop_threshold: float | None = flag("contribution: drop every layer whose similarity is above this, instead of K.")
    drop_layers: str | None = flag("Ids of the layers to drop, as 9,10,11.", aliases=["--remove_layers"])
    drop_order_file: str | None = flag("greedy, optimal: a search's result, one id a line, first to drop first.")
    weight_scope: Literal["final", "layer"] = flag(
        "variance, aggregation: the second feed-forward matrix, or all of the layer's matrices.", "final"
    )
    score_on: str | None = flag("Compute the scores on this checkpoint of the same architecture instead of the model.")
    score_split: Literal["train", "validation", "test"] = flag(
        "contribution: the split to average over (MNLI: matched).", "validation"
    )
    max_score_samples: int | None = flag("contribution: use the first N examples of that split only.")
    freeze_layers: str | None = flag("Ids of kept layers that fine-tuning leaves as they are, as 0,1,2.")
    freeze_embeddings: bool = flag("Leave the embeddings as they are.", False)
    dry_run: bool = flag("Print what would be dropped and kept, scores and parameters, and stop.", False)
    json: bool = flag("With --dry_run: print one JSON object.", False)


@dataclass
class TrainArguments(TrainingArguments):
    """The library's TrainingArguments with the papers' recipe as defaults: 3 epochs, batch 32, AdamW 2e-5, linear."""

    output_dir: str | None = flag("Folder of the run. Default: runs/MODEL_TASK_STRATEGY_kK_seedS.")
    per_device_train_batch_size: int = flag("Training batch size on each device.", 32)
    per_device_eval_batch_size: int = flag("Evaluation batch size on each device.", 32)
    learning_rate: float = flag("Peak learning rate.", 2e-5)
    eval_strategy: str = flag("When to evaluate while training: no, steps, epoch.", "epoch")
    logging_strategy: str = flag("When to log the training loss: no, steps, epoch.", "epoch")
    logging_nan_inf_filter: bool | None = flag(
        "Leave steps whose loss is not finite out of what is logged. Default: with fp16, whose scaling skips them; it "
        "makes every step wait for the GPU."
    )
    save_strategy: str = flag(
        "When to save a checkpoint to resume from: no, steps, epoch, best. If not given, after each epoch (at least a "
        "minute apart), and what is there is removed once the run has succeeded.",
        "epoch",
    )
    save_total_limit: int | None = flag("How many checkpoints to keep.", 1)
    train_sampling_strategy: str = flag("group_by_length, random or sequential.", "group_by_length")
    remove_unused_columns: bool = flag("Without effect: batches hold what the model takes.", False)
    dataloader_pin_memory: bool = flag("Pin batches in memory for a GPU.", torch.cuda.is_available())
    precision: Literal["auto", "fp32", "bf16", "fp16"] = flag(
        "auto: bf16 where the hardware has it, else fp32.", "auto"
    )
    save_model: bool = flag("Keep the fine-tuned model in the run's folder.", True)
    overwrite_output_dir: bool = flag("Start again in a folder that holds a run, which is lost.", False)

    @property
    def n_gpu(self) -> int:
        """GPUs of this process: 0 or 1. The library would use all there are, with a batch for each: another recipe."""
        return min(1, super().n_gpu)


GROUPS = (ModelArguments, DataArguments, DropArguments, TrainArguments)
