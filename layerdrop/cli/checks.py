"""Every check of a flag that needs no model and no data, and a note for each flag without effect."""

import inspect
import os
from collections.abc import Iterable, Iterator

import torch
from torch.utils.checkpoint import checkpoint
from transformers import Trainer, get_scheduler
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from layerdrop.cli.arguments import Flags, TrainArguments
from layerdrop.cli.limits import out_of_range
from layerdrop.cli.to_spec import DISTILL_DEFAULTS, has_effect
from layerdrop.criteria.table import CRITERIA, STRATEGIES
from layerdrop.data.tasks import custom_task
from layerdrop.errors import UserError
from layerdrop.runs.spec import OWN_RECIPE
from layerdrop.system.text import one_line

OWN_FILES_ONLY = ("text_columns", "label_column", "label_type", "positive_label")
SCORES_ONLY = ("score_split", "max_score_samples", "weight_scope")
TRAINING_ONLY = ("freeze_layers", "freeze_embeddings", "layerdrop_rate", "max_train_samples")
GRADUAL_ONLY = ("drop_step", "drop_every_epochs")
THESEUS_ONLY = ("replacing_rate", "replacing_schedule", "replacing_steps")
START_ONLY = tuple(f"start_{name}" for name in OWN_RECIPE)
NOT_TRAINING_ALONE = ("do_train", "seed", "precision", "bf16", "fp16", "no_speedups")
"""Flags among TrainArguments that change the result of an evaluation too."""


def check(flags: Flags) -> None:
    """Raise one UserError that names everything that is wrong with the flags, one line each, each problem once."""
    problems: list[str] = []
    for one in (
        _layers,
        _number_of_layers,
        _strategys_own,
        _frozen,
        _when,
        _theseus,
        _teacher,
        _task,
        _files,
        _numbers,
        _training,
        _optimizer,
        _library,
        _best,
        _folder,
    ):
        try:
            problems += one(flags)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))


def ranges(ids: Iterable[int]) -> str:
    """Layer ids for a message: (0, 3, 4, 5) -> `0, 3 to 5`."""
    runs: list[list[int]] = []
    for i in sorted(set(ids)):
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


# ---- layers ----------------------------------------------------------------------------------------------------------
def _layers(flags: Flags) -> Iterator[str]:
    drop = flags.drop
    yield from _kept(flags)
    if drop.drop_layers is not None and not flags.drop_layers:
        yield "--drop_layers: names no layer. Write ids as 9,10,11, or leave the flag out to drop none."
    if flags.drop_layers and drop.drop_strategy not in (None, "list"):
        yield f"--drop_layers and --drop_strategy {drop.drop_strategy} both choose layers. Give one of them."
    if negative := [i for i in flags.drop_layers if i < 0]:
        yield f"--drop_layers {ranges(negative)}: no layer id. Ids count from 0."


def _kept(flags: Flags) -> Iterator[str]:
    drop = flags.drop
    if drop.keep_layers is None:
        return
    if not flags.keep_layers:
        yield "--keep_layers: names no layer. Write ids as 0,1,2."
    if negative := [i for i in flags.keep_layers if i < 0]:
        yield f"--keep_layers {ranges(negative)}: no layer id. Ids count from 0."
    names = ("drop_layers", "drop_k", "drop_threshold", "drop_order_file", "drop_order")
    others = {name: getattr(drop, name) for name in names}
    others[f"drop_strategy {drop.drop_strategy}"] = None if drop.drop_strategy == "list" else drop.drop_strategy
    for name in (name for name, value in others.items() if value is not None):
        yield f"--keep_layers and --{name} both choose layers. Give one of them."
        return
    if gone := set(flags.freeze_layers) - set(flags.keep_layers):
        yield f"--freeze_layers {ranges(gone)}: --keep_layers drops this. Name kept layers only."


def _number_of_layers(flags: Flags) -> Iterator[str]:
    drop, row = flags.drop, flags.named_strategy
    if row is None or flags.drops_nothing or drop.keep_layers is not None:
        return
    if row.listed:
        if not flags.drop_layers and drop.drop_layers is None:
            yield "--drop_strategy list: needs the ids. Add --drop_layers 9,10,11, or --drop_order_file layers.json."
        if drop.drop_k not in (None, len(flags.drop_layers)):
            yield f"--drop_k {drop.drop_k}: --drop_layers names {len(flags.drop_layers)} layers. Leave --drop_k out."
    elif drop.drop_k is None and drop.drop_threshold is None and not flags.drop_layers:
        also = " or --drop_threshold X" if row.threshold else ""
        yield f"--drop_strategy {row.name}: how many layers? Add --drop_k N{also}."


def _strategys_own(flags: Flags) -> Iterator[str]:
    """Flags that only some strategies take."""
    drop, row = flags.drop, flags.named_strategy
    if drop.keep_layers is not None:
        return
    if row is None:
        for name in ("drop_k", "drop_threshold", "drop_order_file", "drop_order", "score_on"):
            if getattr(drop, name) not in (None, 0) and drop.drop_layers is None:
                yield f"--{name} needs a strategy. Choose --drop_strategy: {', '.join(STRATEGIES)}."
        return
    if drop.drop_threshold is not None:
        if not row.threshold:
            names = ", ".join(name for name, row in CRITERIA.items() if row.threshold)
            yield f"--drop_threshold: only for --drop_strategy {names}, not {row.name}. Use --drop_k."
        elif drop.drop_k is not None:
            yield "--drop_k and --drop_threshold both say how many layers. Give one of them."
    if drop.drop_order_file and not (row.searched or row.listed):
        searched = ", ".join(name for name, row in STRATEGIES.items() if row.searched)
        yield f"--drop_order_file: only for {searched}, not {row.name}. Leave it out."
    if drop.drop_order is not None:
        ids = flags.drop_order
        if not row.searched:
            searched = ", ".join(name for name, row in STRATEGIES.items() if row.searched)
            yield f"--drop_order: only for {searched}, not {row.name}. Use --drop_layers."
        if drop.drop_order_file:
            yield "--drop_order and --drop_order_file both give a search's result. Give one of them."
        if min(ids, default=-1) < 0 or len(set(ids)) < len(ids):
            yield f"--drop_order {drop.drop_order}: must be ids from 0, each once. Write them as 9,2,11."
    if drop.score_on and row.name not in CRITERIA:
        yield f"--score_on: {row.name} has no scores. It goes with {', '.join(CRITERIA)}."


def _frozen(flags: Flags) -> Iterator[str]:
    if negative := [i for i in flags.freeze_layers if i < 0]:
        yield f"--freeze_layers {ranges(negative)}: no layer id. Ids count from 0."
    if gone := set(flags.freeze_layers) & set(flags.drop_layers):
        yield f"--freeze_layers {ranges(gone)}: --drop_layers drops this. Name kept layers only."


# ---- when layers go, and whom the rest learns from -------------------------------------------------------------------
def _given(group: object, names: Iterable[str]) -> list[str]:
    """Those of the flags that were given."""
    return [name for name in names if getattr(group, name) is not None and getattr(group, name) is not False]


def _when(flags: Flags) -> Iterator[str]:
    when, row, train, said = flags.when, flags.named_strategy, flags.train, f"--drop_when {flags.when.drop_when}"
    gradual = when.drop_when == "gradual"
    if when.drop_when != "pretrained" and not train.do_train:
        yield f"{said}: is about fine-tuning, which --do_eval and --do_predict alone leave out. Add --do_train."
    if when.freeze_dropped and (when.drop_when != "finetuned" or row is None):
        yield "--freeze_dropped: goes with --drop_when finetuned and --drop_strategy. Give both, or leave it out."
    for name in _given(when, GRADUAL_ONLY):
        if not gradual:
            yield f"--{name}: only for --drop_when gradual, not {when.drop_when}. Leave it out."
    if gradual and row is None:
        yield f"{said}: needs layers to drop. Add --drop_strategy and --drop_k."
    if gradual and flags.drop.drop_threshold is not None:
        yield f"{said}: how many layers go must be known before. Use --drop_k instead of --drop_threshold."
    if gradual and train.max_steps > 0:
        yield f"{said}: counts epochs. Use --num_train_epochs instead of --max_steps."
    if gradual and train.load_best_model_at_end:
        yield f"{said}: its checkpoints have different depths. Leave --load_best_model_at_end out."
    for name in _given(when, START_ONLY):
        if when.drop_when not in ("finetuned", "after"):
            yield f"--{name}: only for --drop_when finetuned and after, not {when.drop_when}. Leave it out."


def _theseus(flags: Flags) -> Iterator[str]:
    when, drop = flags.when, flags.drop
    if not when.theseus:
        yield from (f"--{name}: only with --theseus. Leave it out." for name in _given(when, THESEUS_ONLY))
        return
    if when.drop_when in ("after", "gradual"):
        yield f"--theseus: goes with --drop_when pretrained or finetuned, not {when.drop_when}."
    others = {
        "--layerdrop_rate": when.layerdrop_rate,
        "--freeze_layers": drop.freeze_layers,
        "--from_scratch": flags.model.from_scratch,
    }
    for name in (name for name, value in others.items() if value):
        yield f"--theseus and {name} contradict each other: it trains the kept layers and nothing else. Give one."


def _teacher(flags: Flags) -> Iterator[str]:
    given, when = flags.teacher, flags.when
    if given.teacher is None:
        for name in _given(given, vars(given)):
            yield f"--{name}: needs a teacher. Add --teacher FOLDER or --teacher auto."
        return
    for name in _given(given, (f"teacher_{name}" for name in OWN_RECIPE)):
        if given.teacher != "auto":
            yield f"--{name}: only for --teacher auto. Leave it out."
    kind = given.distill or "logits"
    if not flags.train.do_train or when.drop_when == "after":
        yield "--teacher: teaches a training, and this run has none of its own. Leave it out."
    for name in _given(given, ("distill_temperature", "distill_weight", "distill_states_weight")):
        if name not in DISTILL_DEFAULTS[kind]:
            yield f"--{name}: only for --distill patient and layers, not {kind}. Leave it out."
    if given.distill_attention and kind != "layers":
        yield f"--distill_attention: only for --distill layers, not {kind}. Leave it out."
    changing = {
        "--layerdrop_rate": when.layerdrop_rate,
        "--theseus": when.theseus,
        "--drop_when gradual": when.drop_when == "gradual",
    }
    for name in (name for name, value in changing.items() if value and kind != "logits"):
        yield f"--distill {kind}: pairs layers, which {name} changes while it trains. Use --distill logits."


# ---- data ------------------------------------------------------------------------------------------------------------
def _task(flags: Flags) -> Iterator[str]:
    flags.data.task  # noqa: B018  raises for an unknown name
    return iter(())


def _files(flags: Flags) -> Iterator[str]:
    data, own = flags.data, flags.data.own_files
    if own and data.data_dir:
        yield "--data_dir and --train_file/--validation_file/--test_file both say where the data is. Give one."
    if own and data.positive_label is not None and data.task is not None:
        yield (
            f"--positive_label {data.positive_label}: the F1 of {data.task.name}'s own classes is fixed. Leave it out, "
            "or leave --task_name out."
        )
    if flags.scored_split == "test" and data.max_predict_samples is not None:
        yield (
            "--max_predict_samples: cannot be combined with --score_split test, which scores the whole test set. "
            "Leave it out, or score another split."
        )
    instead = " --hold_out 0.15 takes a share of the training set instead."
    for split in flags.splits if own else ():
        if split not in own:
            steps = {"train": "--do_train", "validation": "--do_eval", "test": "--do_predict"}
            yield (
                f"--{split}_file is missing: {steps[split]} or --score_split {split} needs it "
                f"(without any --do_* flag, training and evaluation are on).{instead if split == 'validation' else ''}"
            )


def _numbers(flags: Flags) -> Iterator[str]:
    return out_of_range(
        vars(flags.data) | vars(flags.drop) | vars(flags.when) | vars(flags.teacher) | vars(flags.train)
    )


# ---- training --------------------------------------------------------------------------------------------------------
def _training(flags: Flags) -> Iterator[str]:
    train = flags.train
    if not (train.do_train or train.do_eval or train.do_predict or flags.drop.dry_run):
        yield "nothing to do: --do_train, --do_eval and --do_predict are all off. Turn one on."
    if train.resume_from_checkpoint and train.overwrite_output_dir:
        yield "--resume_from_checkpoint and --overwrite_output_dir contradict each other. Give one of them."
    if flags.drop.json and not flags.drop.dry_run:
        yield "--json goes with --dry_run; a run's own JSON is record.json in its folder."


def _optimizer(flags: Flags) -> Iterator[str]:
    """Try to build the optimizer and the learning-rate schedule for one parameter, unless that needs the model."""
    train = flags.train
    if train.optim_target_modules or list(_numbers(flags)):
        return
    model, reasons = torch.nn.Linear(1, 1), (ValueError, TypeError, ImportError, KeyError)
    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(train, model)
        optimizer = kind(model.parameters(), **settings)
    except reasons as error:
        given = f"--optim {train.optim.value}" + (f" --optim_args {train.optim_args}" if train.optim_args else "")
        yield f"{given}: cannot be used ({one_line(str(error))}). --optim_args takes name=value,name=value."
        return
    try:
        get_scheduler(train.lr_scheduler_type, optimizer, 1, 10, scheduler_specific_kwargs=train.lr_scheduler_kwargs)
    except reasons as error:
        given = f"--lr_scheduler_type {train.lr_scheduler_type.value}"
        how = "--lr_scheduler_kwargs '{\"name\": value}'"
        yield f"{given}: cannot be used ({one_line(str(error))}). Give its settings as {how}."


def _library(flags: Flags) -> Iterator[str]:
    """Problems that the library would report only when training begins."""
    train = flags.train
    for name in train.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            yield f"--report_to: unknown value '{name}'. Allowed: none, all, {', '.join(INTEGRATION_TO_CALLBACK)}."
    if train.fsdp and train.world_size == 1:
        yield "--fsdp: shards a model over several processes. Start them: torchrun --nproc_per_node N run_glue.py ..."
    if train.dataloader_persistent_workers and not train.dataloader_num_workers:
        yield "--dataloader_persistent_workers: needs --dataloader_num_workers above 0. Give both, or leave it out."
    known = [name for name in inspect.signature(checkpoint).parameters if name not in ("function", "args", "kwargs")]
    for name in train.activation_checkpointing_kwargs or ():
        if name not in known:
            yield f"--activation_checkpointing_kwargs: unknown setting '{name}'. Allowed: {', '.join(known)}."
    if train.torch_compile:
        yield from _compile(train)
    launched = {"ACCELERATE_USE_FSDP": train.fsdp, "ACCELERATE_USE_DEEPSPEED": train.deepspeed}
    launched |= {"ACCELERATE_USE_MEGATRON_LM": None, "ACCELERATE_DYNAMO_BACKEND": None}
    for name, flag in launched.items():
        if (value := os.environ.get(name, "no")).lower() not in ("no", "false", "0", "") and not flag:
            yield (
                f"{name}={value}, set by `accelerate launch`: changes the result without a trace in the record. "
                "Leave it out of the launcher's settings, or start with torchrun."
            )


def _compile(train: TrainArguments) -> Iterator[str]:
    backends = torch._dynamo.list_backends(exclude_tags=())
    if train.torch_compile_backend not in backends:
        yield f"--torch_compile_backend {train.torch_compile_backend}: unknown. Allowed: {', '.join(backends)}."
    modes = list(torch._inductor.list_mode_options())
    if train.torch_compile_mode not in (None, *modes):
        yield f"--torch_compile_mode {train.torch_compile_mode}: unknown. Allowed: {', '.join(modes)}."


def _best(flags: Flags) -> Iterator[str]:
    best = flags.train.metric_for_best_model
    if flags.train.save_strategy == "best" and not best:
        yield f"--save_strategy best: needs --metric_for_best_model. Allowed: {', '.join(logged_metrics(flags))}."
    if best and best.removeprefix("eval_") not in (allowed := logged_metrics(flags)):
        yield f"--metric_for_best_model {best}: no metric of {flags.task_name}. Allowed: {', '.join(allowed)}."


def logged_metrics(flags: Flags) -> list[str]:
    """What an evaluation logs. MNLI: its matched split's without prefix, and both splits' with theirs. Own files: the
    metrics of every kind of task that --label_type leaves open."""
    task, own = flags.data.task, flags.data.own_files
    if task is not None:
        prefixes = [suffix.removeprefix("_") + "_" for suffix in task.suffixes if suffix and not own]
        return [prefix + name for prefix in ("", *prefixes) for name in ("loss", *task.metrics)]
    kinds = {"number": [()], "class": [("a", "b"), ("a", "b", "c")]}
    kinds["auto"] = [*kinds["class"], *kinds["number"]]
    tasks = [custom_task("own", (), "", labels) for labels in kinds[flags.data.label_type]]
    return list(dict.fromkeys(["loss", *(name for task in tasks for name in task.metrics)]))


def _folder(flags: Flags) -> Iterator[str]:
    name, folder = flags.model.model_name_or_path, flags.train.output_dir
    if folder and os.path.isdir(name) and os.path.realpath(name) == os.path.realpath(folder):
        yield f"--output_dir {folder}: is the checkpoint's own folder. Choose another --output_dir."


# ---- flags without effect --------------------------------------------------------------------------------------------
def idle_flags(flags: Flags) -> list[str]:
    """A note for each flag that was given and that this run does not look at."""
    given, data, row = flags.given, flags.data, flags.strategy
    notes = []
    if flags.drops_nothing and flags.drop.drop_strategy:
        notes.append(f"--drop_strategy {flags.drop.drop_strategy} has no effect: --drop_k 0 drops nothing")
    used = () if flags.criterion is None else SCORES_ONLY[:2] if flags.scored_split else SCORES_ONLY[2:]
    chosen = f"--drop_strategy {row.name}" if row else "a run that drops nothing"
    notes += [f"--{name} has no effect on {chosen}" for name in SCORES_ONLY if name in given and name not in used]
    if not data.own_files:
        notes += [f"--{name} has no effect without own files" for name in OWN_FILES_ONLY if name in given]
    if data.source in ("hub", "demo") and "skip_bad_rows" in given:
        notes.append("--skip_bad_rows has no effect without own files or --data_dir")
    if data.source == "demo" and data.data_dir:
        notes.append(f"--data_dir has no effect on {flags.task_name}")
    if not flags.train.do_train and (idle := _of_training(flags)):
        notes.append(f"without training no effect: {', '.join(f'--{name}' for name in idle)}")
    return notes


def _of_training(flags: Flags) -> list[str]:
    """The flags that were given and that only training looks at."""
    known = set(TrainArguments.__dataclass_fields__) - set(NOT_TRAINING_ALONE)
    names = [name for name in known if has_effect(name, flags.train)]
    names += [name for name in TRAINING_ONLY if name != "max_train_samples" or flags.scored_split != "train"]
    return sorted(set(names) & flags.given)
