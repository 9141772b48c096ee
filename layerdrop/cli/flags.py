"""The flags of one run, with their --help texts and sections. Imports neither torch nor transformers."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from layerdrop.architectures import HubOptions
from layerdrop.criteria.spec import ScoreSplit, WeightScope
from layerdrop.criteria.table import STRATEGIES
from layerdrop.data.spec import LabelType
from layerdrop.data.tasks import DEMO_TASKS, TASKS, Task, get_task
from layerdrop.finetune.spec import Distill, ReplacingSchedule, SamplingStrategy
from layerdrop.runs.spec import TRAINER_DEFAULTS
from layerdrop.system.files import LocalPath


def flag(help: str, default: Any = None, **metadata) -> Any:
    """A dataclass field with its --help text."""
    return field(default=default, metadata={"help": help.replace("%", "%%"), **metadata})


@dataclass
class ModelArguments:
    """The pre-trained checkpoint."""

    model_name_or_path: LocalPath = flag(
        "Folder or hub name of a pre-trained checkpoint. demo: the bundled demo model.", "bert-base-uncased"
    )
    tokenizer_name: LocalPath | None = flag("Folder or hub name of another tokenizer. Default: the checkpoint's own.")
    model_revision: str = flag("Branch, tag or commit on the hub.", "main")
    cache_dir: LocalPath | None = flag("Folder of the download cache.")
    token: str | None = flag("Access token for private models and data on the hub.")
    trust_remote_code: bool = flag("Run Python code that comes with the checkpoint.", False)
    from_scratch: bool = flag(
        "Train from random weights, as a baseline without pre-training. Strategies still score the pre-trained layers.",
        False,
    )

    @property
    def hub(self) -> HubOptions:
        """Access to the hub."""
        return HubOptions(self.cache_dir, self.token, self.trust_remote_code)


@dataclass
class DataArguments:
    """The task and its data: GLUE, or own data (files, a dataset). Without --data_dir, GLUE is loaded from the hub."""

    task_name: str | None = flag(f"Task: {', '.join([*TASKS, *DEMO_TASKS])}. Default without own data: mrpc.")
    data_dir: LocalPath | None = flag("Local GLUE folder with one subfolder for each task (RTE/train.tsv, ...).")
    train_file: LocalPath | None = flag("Own training file: .csv, .tsv, .json, .jsonl, .parquet or .conll.")
    validation_file: LocalPath | None = flag("Own validation file.")
    test_file: LocalPath | None = flag("Own test file, without labels.")
    dataset_name: LocalPath | None = flag(
        "Dataset: its name on the hub, a folder written by save_to_disk, or a folder of csv, JSON or parquet files."
    )
    dataset_config_name: str | None = flag("Configuration of the dataset.")
    train_split: str | None = flag("Training split of the dataset. Default: train.")
    validation_split: str | None = flag("Validation split of the dataset. Default: validation.")
    test_split: str | None = flag("Test split of the dataset. Default: test.")
    validation_share: float | None = flag(
        "Own data without a validation set: fraction of the training set to use as the validation set."
    )
    text_columns: str | None = flag("Own data: the one or two text columns, separated by a comma.")
    label_column: str = flag("Own data: the label column.", "label")
    label_type: LabelType = flag(
        "Own data: whether a row has a class, a number, several labels (multi), or a label for each token. "
        "auto: infer it from the data.",
        "auto",
        aliases=["--task_type"],
    )
    label_separator: str | None = flag(
        "Own data with several labels in a row: the separator between labels. "
        'Default: each cell is a list, as ["a", "b"].'
    )
    positive_label: str | None = flag(
        "Own data with two classes: the positive class of f1. Default: by name (yes/no: yes), else the rarer class."
    )
    skip_bad_rows: bool = flag(
        "Own data and --data_dir: skip and count malformed rows. Default: stop at the first malformed row.",
        False,
    )
    max_seq_length: int = flag("Maximum number of tokens. Longer inputs are truncated.", 128)
    pad_to_max_length: bool = flag("Pad every batch to --max_seq_length instead of its longest example.", False)
    max_train_samples: int | None = flag("Use the first N training examples only.")
    max_eval_samples: int | None = flag("Use the first N validation examples only.")
    hold_out: float | None = flag(
        "Fraction of the training set to hold out and use instead of the validation set. Default in searches: 0.15."
    )
    max_predict_samples: int | None = flag("Use the first N test examples only.")

    @property
    def own(self) -> dict[str, str]:
        """The user's own data: split -> path of a file, or a dataset's name of the split. Empty for GLUE."""
        splits = ("train", "validation", "test")
        given = {split: getattr(self, f"{split}_{'split' if self.dataset_name else 'file'}") for split in splits}
        if self.dataset_name:
            return {split: name or split for split, name in given.items()}
        return {split: path for split, path in given.items() if path}

    @property
    def task(self) -> Task | None:
        """The GLUE or demo task; None if own data define it. Raises UserError for an unknown name."""
        if self.task_name is None and self.own:
            return None
        return get_task(self.task_name or "mrpc", own_data=bool(self.own))

    @property
    def source(self) -> str:
        """`files`, `dataset`, `demo`, the GLUE folder as given, or `hub`."""
        if self.own:
            return "dataset" if self.dataset_name else "files"
        return "demo" if self.task.name in DEMO_TASKS else self.data_dir or "hub"


@dataclass
class DropArguments:
    """The layers to drop or freeze. Layer ids count from 0. Layer 0 is next to the embeddings."""

    drop_strategy: str | None = flag(f"Strategy that selects the layers to drop: {', '.join(STRATEGIES)}.")
    drop_k: int | None = flag("K: number of layers to drop.")
    drop_threshold: float | None = flag(
        "contribution: drop every layer with a cosine similarity above X, instead of K layers."
    )
    drop_layers: str | None = flag("Ids of the layers to drop, as 9,10,11.", aliases=["--remove_layers"])
    keep_layers: str | None = flag("Ids of the layers to keep, as 0,1,2. All others are dropped.")
    drop_order_file: LocalPath | None = flag(
        "Layers to drop, from a file. greedy, shortlist: one id per line, in the order of dropping. optimal: the best "
        "set of k layers on line k, as 10-11. list: the layers.json of a run."
    )
    drop_order: str | None = flag(
        "greedy, shortlist, optimal: the search result as ids in the order of dropping, as 9,2,11."
    )
    weight_scope: WeightScope = flag(
        "variance, aggregation: score the second feed-forward matrix of each layer (final), or all matrices (layer).",
        "final",
    )
    score_on: LocalPath | None = flag(
        "Compute the scores on this checkpoint instead of the model. It must have the same architecture."
    )
    score_split: ScoreSplit | None = flag(
        "Criteria that read texts: the split to read (MNLI: the matched set). Default: train, or validation for "
        "contribution."
    )
    max_score_samples: int | None = flag("Criteria that read texts: use only the first N examples of --score_split.")
    score_store: LocalPath | None = flag(
        "Folder of cached scores to reuse and extend. `layerdrop layers scores` writes runs/layers/scores, or "
        "STORE/scores with --store STORE."
    )
    freeze_layers: str | None = flag("Ids of kept layers to freeze during fine-tuning, as 0,1,2.")
    freeze_embeddings: bool = flag("Freeze the embeddings during fine-tuning.", False)
    dry_run: bool = flag("Print the dropped and kept layers, scores and parameters, without training.", False)
    json: bool = flag("With --dry_run: print one JSON object.", False)


@dataclass
class WhenArguments:
    """Training variants: time of dropping, LayerDrop, module replacing."""

    drop_when: Literal["pretrained", "finetuned", "after", "gradual", "elastic"] = flag(
        "pretrained: drop before fine-tuning. finetuned: fine-tune the full model, drop, fine-tune again. after: "
        "fine-tune the full model, then drop. gradual: drop layers during fine-tuning. "
        "elastic: fine-tune the full model and shallower models in one training, then drop the last layers.",
        "pretrained",
    )
    elastic_k: list[str] | None = flag(
        "elastic: the values of K to train, such as 2 4 6, or all. Default: 1 to --drop_k. --output_dir contains the "
        "run of --drop_k, or of K = 0 without --drop_k. The other runs are in subfolders: k0, k2, k4 ..."
    )
    finetune_again: bool = flag(
        "elastic: fine-tune the model of --drop_k once more. The run before that is in a subfolder.",
        False,
    )
    freeze_dropped: bool = flag(
        "finetuned: in the fine-tuning before layers are dropped, freeze the layers that will be dropped.", False
    )
    drop_step: int | None = flag("gradual: layers to drop at a time. Default: 1.")
    drop_every_epochs: int | None = flag(
        "gradual: number of epochs before each drop. Default: 2. After the last drop, training continues for "
        "--num_train_epochs."
    )
    start_num_train_epochs: float | None = flag(
        "finetuned, after, elastic: number of epochs of the fine-tuning before layers are dropped. Default: "
        "--num_train_epochs."
    )
    start_learning_rate: float | None = flag(
        "finetuned, after, elastic: peak learning rate of the fine-tuning before layers are dropped. Default: "
        "--learning_rate."
    )
    layerdrop_rate: float | None = flag(
        "Probability of skipping a layer in a training step (LayerDrop, Fan et al.). Evaluation uses every layer."
    )
    theseus: bool = flag(
        "Module replacing (Xu et al.): in training, each kept layer randomly replaces a group of layers of the "
        "fine-tuned full model. --drop_when finetuned fine-tunes the full model first. Otherwise, give a fine-tuned "
        "model as --model_name_or_path.",
        False,
    )
    replacing_rate: float | None = flag(
        "theseus: probability of replacing a group of layers at the first step. Default: 0.5."
    )
    replacing_schedule: ReplacingSchedule | None = flag(
        "theseus: raise the probability linearly to 1 (linear), or keep it until --replacing_steps (constant). "
        "Default: linear."
    )
    replacing_steps: float | None = flag(
        "theseus: training step from which the probability is 1. Below 1: a fraction of all steps. Default: 0.5."
    )


@dataclass
class TeacherArguments:
    """Loss: (1 - w) task loss + w logits loss + s states loss. w: --distill_weight, s: --distill_states_weight."""

    teacher: LocalPath | None = flag(
        "Folder or hub name of the fine-tuned teacher. auto: fine-tune the full model first."
    )
    teacher_num_train_epochs: float | None = flag(
        "--teacher auto: number of epochs of the teacher's training. Default: --num_train_epochs."
    )
    teacher_learning_rate: float | None = flag(
        "--teacher auto: peak learning rate of the teacher's training. Default: --learning_rate."
    )
    distill: Distill | None = flag(
        "logits: match the logits (Hinton et al.). patient: also match the states of the sentence token (Sun et al.). "
        "layers: also match the states of every token after each kept layer. Default with --teacher: logits."
    )
    distill_temperature: float | None = flag(
        "Temperature: divisor of the teacher's and the student's logits. Default: 5, or 1 with --distill layers."
    )
    distill_weight: float | None = flag("Weight of the logits loss, 0 to 1. Default: 0.5, or 1 with --distill layers.")
    distill_states_weight: float | None = flag("Weight of the states loss. Default: patient 100, layers 1.")
    distill_attention: bool = flag(
        "layers: also match the attention weights. The weight of this loss is --distill_states_weight.", False
    )


@dataclass
class TrainFlags:
    """The defaults are the papers' recipe: 3 epochs, batch size 32, AdamW with a linear schedule."""

    output_dir: LocalPath | None = flag("Folder of the run. Default: runs/MODEL_TASK_STRATEGY_kK_seedS.")
    per_device_train_batch_size: int = flag("Training batch size on each device.", 32)
    per_device_eval_batch_size: int = flag(
        "Evaluation batch size on each device.", TRAINER_DEFAULTS["per_device_eval_batch_size"]
    )
    learning_rate: float = flag("Peak learning rate.", 2e-5)
    eval_strategy: Literal["no", "steps", "epoch"] = flag(
        "When to evaluate during training. steps: see --eval_steps in --help_all.", TRAINER_DEFAULTS["eval_strategy"]
    )
    logging_strategy: Literal["no", "steps", "epoch"] = flag(
        "When to log the training loss. steps: see --logging_steps in --help_all.", TRAINER_DEFAULTS["logging_strategy"]
    )
    logging_nan_inf_filter: bool | None = flag(
        "Exclude non-finite losses from the logged loss. This waits for the GPU at each step. Default: on with fp16, "
        "else off."
    )
    save_strategy: Literal["no", "steps", "epoch", "best"] = flag(
        "When to save a checkpoint. steps: see --save_steps in --help_all. Default: at the end of an epoch, at most "
        "once a minute. Only a run with the default deletes its checkpoints at the end.",
        TRAINER_DEFAULTS["save_strategy"],
    )
    save_total_limit: int | None = flag("Number of checkpoints to keep.", TRAINER_DEFAULTS["save_total_limit"])
    train_sampling_strategy: SamplingStrategy = flag("Order of the training examples.", "group_by_length")
    class_weights: Literal["balanced"] | None = flag(
        "balanced: weight the training loss so that rare classes count as much as frequent classes."
    )
    remove_unused_columns: bool = flag("No effect: batches contain only the model's inputs.", False)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = flag(
        "auto: bf16 if the hardware supports it, else fp32.", "auto"
    )
    no_speedups: bool = flag("Turn off the speed-ups of the model and of the training step.", False)
    save_model: bool = flag("Keep the fine-tuned model in the run's folder. --save_model no: do not keep it.", True)
    resume_from_checkpoint: LocalPath | None = flag(
        "Folder of the checkpoint to resume from. Without a value, or last: the last complete checkpoint in the run's "
        "folder. auto: like last, but start from the beginning if the folder has no checkpoint."
    )
    overwrite_output_dir: bool = flag("Delete the run in the output folder and start over.", False)


GROUPS = (ModelArguments, DataArguments, DropArguments, WhenArguments, TeacherArguments, TrainFlags)
LIBRARY = {
    "do_train": ("", "Train. Without any --do_ flag: train and evaluate."),
    "do_eval": ("", "Evaluate on the validation set."),
    "do_predict": ("", "Write predictions for the test set."),
    "num_train_epochs": ("X", "Number of epochs. Default: 3."),
    "max_steps": ("N", "Number of optimizer steps, instead of --num_train_epochs."),
    "gradient_accumulation_steps": ("N", "Batches in each optimizer step. Default: 1."),
    "optim": ("VALUE", "Optimizer: adamw_torch, adafactor ... Default: adamw_torch_fused."),
    "weight_decay": ("X", "Weight decay. Default: 0."),
    "warmup_steps": ("X", "Number of warm-up steps. Below 1: a fraction of all steps. Default: 0."),
    "lr_scheduler_type": ("VALUE", "Schedule: linear, cosine, constant_with_warmup ... Default: linear."),
    "max_grad_norm": ("X", "Maximum norm of the gradient. Default: 1."),
    "seed": ("N", "Random seed. Default: 42."),
    "load_best_model_at_end": (
        "",
        "Keep the checkpoint with the lowest loss, or the best --metric_for_best_model (in --help_all).",
    ),
    "report_to": ("VALUE", "Experiment tracker: none, tensorboard, trackio, wandb, mlflow ... Default: none."),
    "project": ("NAME", "Name of the tracker's project. In a study: the study's name. Default: huggingface."),
    "use_cpu": ("", "Run on the CPU, without a GPU."),
}
"""Flags of the library's TrainingArguments that --help shows -> (name of the value, help). --help_all shows all."""
LIBRARY_HELP = {
    **dict.fromkeys(
        (
            *("prediction_loss_only", "eval_do_concat_batches", "eval_use_gather_object", "eval_accumulation_steps"),
            *("include_for_metrics", "batch_eval_metrics", "bf16_full_eval", "fp16_full_eval"),
        ),
        "No effect: layerdrop does not use the library's evaluation.",
    ),
    **{name: f"True: the same as --precision {name}. False: not {name}." for name in ("bf16", "fp16")},
    "disable_tqdm": "Show no progress bars. Default: False on a terminal, else True.",
    "length_column_name": "No effect: layerdrop computes the lengths.",
    "local_rank": "No effect: torchrun sets the environment variable LOCAL_RANK.",
}
"""Flags that only --help_all shows -> help, where the library's own text does not hold."""


def _names(group: type, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    return tuple(f.name for f in fields(group) if f.name not in without)


_FREEZE, _STEPS = ("freeze_layers", "freeze_embeddings"), ("do_train", "do_eval", "do_predict", "dry_run", "json")
SECTIONS = {
    "model": ("The pre-trained checkpoint, its tokenizer, and access to the hub.", _names(ModelArguments)),
    "data": (
        "A GLUE task, or your own files or dataset. Without --data_dir, GLUE is loaded from the hub.",
        _names(DataArguments),
    ),
    "layers to drop": (
        "Layer ids count from 0. Layer 0 is next to the embeddings.",
        _names(DropArguments, (*_FREEZE, *_STEPS)),
    ),
    "when layers are dropped": (
        "Training variants: time of dropping, LayerDrop, and module replacing.",
        _names(WhenArguments),
    ),
    "distillation from a teacher": (TeacherArguments.__doc__, _names(TeacherArguments)),
    "training": (
        TrainFlags.__doc__,
        (
            *("num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps"),
            *("per_device_train_batch_size", "gradient_accumulation_steps", "optim", "weight_decay", "max_grad_norm"),
            *("seed", "class_weights", *_FREEZE, "train_sampling_strategy", "remove_unused_columns"),
        ),
    ),
    "precision and speed": (
        "These flags change the speed and the memory of a run. Scores change only slightly.",
        ("precision", "no_speedups", "use_cpu"),
    ),
    "steps": ("Without any --do_ flag, the run trains and evaluates.", _STEPS),
    "evaluation and logging": (
        "Evaluations during training, and reports of the training.",
        (
            *("per_device_eval_batch_size", "eval_strategy", "load_best_model_at_end", "logging_strategy"),
            *("logging_nan_inf_filter", "report_to", "project"),
        ),
    ),
    "output and checkpoints": (
        "The run's folder contains record.json, the predictions and the fine-tuned model.",
        (
            *("output_dir", "overwrite_output_dir", "save_model", "save_strategy", "save_total_limit"),
            "resume_from_checkpoint",
        ),
    ),
}
"""Sections of `layerdrop run --help`: title -> (description, flags)."""
