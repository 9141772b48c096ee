"""Checks of flags that need no model and no data, and notes on flags without effect."""

import os
from collections.abc import Iterable, Iterator

import torch
from torch.utils.checkpoint import checkpoint

from layerdrop.cli.arguments import Flags, TrainArguments
from layerdrop.cli.to_spec import DISTILL_DEFAULTS, has_effect
from layerdrop.criteria.table import CRITERIA, STRATEGIES
from layerdrop.data.kinds import KINDS
from layerdrop.data.tasks import metric_prefix
from layerdrop.errors import UserError
from layerdrop.finetune.spec import ADAPTIVE
from layerdrop.runs.spec import OWN_RECIPE
from layerdrop.system.limits import RANGES, STRATEGY_OF, out_of_range
from layerdrop.system.text import one_line

EXCLUSIVE = {
    "keep_layers": ("drop_layers", "drop_strategy", "drop_k", "drop_threshold", "drop_order_file", "drop_order"),
    "drop_layers": ("drop_strategy", "drop_order_file"),
    "drop_k": ("drop_threshold",),
    "drop_order": ("drop_order_file",),
    "data_dir": ("train_file", "validation_file", "test_file"),
    "dataset_name": ("data_dir", "train_file", "validation_file", "test_file"),
    "validation_share": ("validation_file", "validation_split"),
    "theseus": ("layerdrop_rate", "freeze_layers", "from_scratch"),
    "resume_from_checkpoint": ("overwrite_output_dir",),
}
"""Flag -> flags that contradict it."""
FITTING = {
    "drop_threshold": [name for name, criterion in CRITERIA.items() if criterion.threshold],
    "drop_order_file": [name for name, row in STRATEGIES.items() if row.searched or row.listed],
    "drop_order": [name for name, row in STRATEGIES.items() if row.searched],
    "score_on": list(CRITERIA),
}
"""Flag -> the only strategies that use it."""
OWN_DATA_ONLY = ("text_columns", "label_column", "label_type", "label_separator", "positive_label", "validation_share")
DATASET_ONLY = ("dataset_config_name", "train_split", "validation_split", "test_split")
DATA_SCORES_ONLY, WEIGHT_SCORES_ONLY = ("score_split", "max_score_samples"), ("weight_scope",)
TRAINING_ONLY = ("freeze_layers", "freeze_embeddings", "layerdrop_rate", "max_train_samples")
NOT_TRAINING_ALONE = ("do_train", "seed", "precision", "bf16", "fp16", "no_speedups")
"""Flags among TrainArguments that also change the result of an evaluation."""
OPTIMIZER = ("optim", "optim_args", "optim_target_modules", "lr_scheduler_type", "lr_scheduler_kwargs")
"""Flags of the optimizer and the schedule whose values the library checks."""


def check(flags: Flags) -> None:
    """Raise one UserError for all problems with the flags, one line each."""
    problems: list[UserError] = []
    checks = (
        _exclusive,
        _ids,
        _strategy,
        _only_with,
        _variants,
        _data,
        _numbers,
        _optimizer,
        _checkpointing,
        _library,
        _best,
    )
    for find_problems in checks:
        try:
            problems += find_problems(flags)
        except UserError as error:
            problems.append(error)
    if problems:
        raise UserError.joined(problems)


def ranges(ids: Iterable[int]) -> str:
    """Layer ids for a message: (0, 3, 4, 5) -> `0, 3 to 5`."""
    runs: list[list[int]] = []
    for i in sorted(set(ids)):
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _given(values: dict, names: Iterable[str]) -> list[str]:
    """The names of the flags that have a value."""
    return [name for name in names if values[name] is not None and values[name] is not False]


def _exclusive(flags: Flags) -> Iterator[UserError]:
    values = flags.values()
    if values["drop_strategy"] == "list":
        values["drop_strategy"] = None
    for flag, others in EXCLUSIVE.items():
        for other in _given(values, others)[:1] if _given(values, [flag]) else ():
            shown = f"{other} {values[other]}" if other == "drop_strategy" else other
            yield UserError(f"--{flag} and --{shown} contradict each other. Give one of them.")


# ---- layers ----------------------------------------------------------------------------------------------------------
def _ids(flags: Flags) -> Iterator[UserError]:
    drop, kept, dropped = flags.drop, flags.keep_layers, flags.drop_layers
    for name, ids in (("drop_layers", dropped), ("keep_layers", kept), ("freeze_layers", flags.freeze_layers)):
        if getattr(drop, name) is not None and not ids and name != "freeze_layers":
            yield UserError("has no layer ids. Write ids as 9,10,11, or leave the flag out.", f"--{name}")
        if negative := [i for i in ids if i < 0]:
            yield UserError("not a layer id. Ids count from 0.", f"--{name}", ranges(negative))
    if frozen := {i for i in flags.freeze_layers if i in dropped or (kept and i not in kept and i >= 0)}:
        yield UserError("dropped layers cannot be frozen. Name kept layers only.", "--freeze_layers", ranges(frozen))
    order = flags.drop_order
    if drop.drop_order is not None and (min(order, default=-1) < 0 or len(set(order)) < len(order)):
        yield UserError("must be ids from 0, each once. Write them as 9,2,11.", "--drop_order", drop.drop_order)


def _strategy(flags: Flags) -> Iterator[UserError]:
    """Find a missing or contradictory number of layers, and flags that need a strategy."""
    drop, row = flags.drop, flags.named_strategy
    if drop.keep_layers is not None:
        return
    if row is None:
        for_k = [name for name, row in STRATEGIES.items() if not row.listed]  # K is 0 or None without a strategy
        for name, fitting in (({"drop_k": for_k} if drop.drop_k else {}) | FITTING).items():
            if getattr(drop, name) is not None and drop.drop_layers is None:
                yield UserError(f"needs a strategy. Choose --drop_strategy: {', '.join(fitting)}.", f"--{name}")
    elif row.listed and not flags.drops_nothing:
        if not flags.drop_layers and drop.drop_layers is None:
            if file := drop.drop_order_file:
                yield UserError(
                    "this run dropped no layer. Give the layers.json of another run.", "--drop_order_file", file
                )
            else:
                yield UserError(
                    "needs the ids. Add --drop_layers 9,10,11, or --drop_order_file FILE.", "--drop_strategy", "list"
                )
        if drop.drop_k not in (None, len(flags.drop_layers)):
            source = "--drop_layers" if drop.drop_layers is not None else f"--drop_order_file {drop.drop_order_file}"
            yield UserError(
                f"{source} names {len(flags.drop_layers)} layers. Leave --drop_k out.", "--drop_k", drop.drop_k
            )
    elif drop.drop_k is None and drop.drop_threshold is None and not flags.drop_layers:
        also = " or --drop_threshold X" if row.threshold else ""
        yield UserError(f"needs the number of layers. Add --drop_k N{also}.", "--drop_strategy", row.name)


def _only_with(flags: Flags) -> Iterator[UserError]:
    """Find flags that are given without the flag that they need."""
    values, when, teacher = flags.values(), flags.when.drop_when, flags.teacher.teacher
    row = None if flags.drop.keep_layers is not None else flags.named_strategy
    kind = flags.teacher.distill or "logits"
    theseus = [name for name in values if name.startswith("replacing_")]
    distill = [name for name in values if name.startswith("distill") and teacher is None]
    unused = [name for name in values if name.startswith("distill_") and name not in DISTILL_DEFAULTS[kind]]
    rules = [
        (["elastic_k", "finetune_again"], when == "elastic", f"--drop_when elastic, not {when}"),
        (["drop_step", "drop_every_epochs"], when == "gradual", f"--drop_when gradual, not {when}"),
        (
            [f"start_{name}" for name in OWN_RECIPE],
            when in ("finetuned", "after", "elastic"),
            f"--drop_when finetuned, after and elastic, not {when}",
        ),
        ([f"teacher_{name}" for name in OWN_RECIPE], teacher == "auto", "--teacher auto"),
        (["freeze_dropped"], when == "finetuned" and flags.named_strategy, "--drop_when finetuned and --drop_strategy"),
        (theseus, flags.when.theseus, "--theseus"),
        (distill, False, "--teacher FOLDER or --teacher auto"),
        (["distill_attention"], kind == "layers", f"--distill layers, not {kind}"),
        (set(unused) - {"distill_attention"}, False, f"--distill patient and layers, not {kind}"),
        (DATASET_ONLY, flags.data.dataset_name, "--dataset_name"),
        (["json"], flags.drop.dry_run, "--dry_run. A run writes record.json into its folder"),
    ]
    if row is not None:
        rules += [
            ([name], row.name in fitting, f"--drop_strategy {', '.join(fitting)}, not {row.name}")
            for name, fitting in FITTING.items()
        ]
    for names, holds, needed in rules:
        for name in () if holds else _given(values, names):
            yield UserError(f"only with {needed}. Leave --{name} out.", f"--{name}")


# ---- training variants -----------------------------------------------------------------------------------------------
def _variants(flags: Flags) -> Iterator[UserError]:
    when, train, teacher = flags.when, flags.train, flags.teacher
    variant = f"--drop_when {when.drop_when}"
    if when.drop_when != "pretrained" and not train.do_train:
        yield UserError("needs fine-tuning, but --do_train is off. Add --do_train.", "--drop_when", when.drop_when)
    if when.drop_when == "gradual":
        if flags.named_strategy is None:
            yield UserError("needs layers to drop. Add --drop_strategy and --drop_k.", "--drop_when", when.drop_when)
        if flags.drop.drop_threshold is not None:
            yield UserError(
                "needs the number of layers in advance. Use --drop_k instead of --drop_threshold.",
                "--drop_when",
                when.drop_when,
            )
        if train.max_steps > 0:
            yield UserError(
                "counts epochs. Use --num_train_epochs instead of --max_steps.", "--drop_when", when.drop_when
            )
        if train.load_best_model_at_end:
            yield UserError(
                "its checkpoints have different depths. Leave --load_best_model_at_end out.",
                "--drop_when",
                when.drop_when,
            )
    if when.drop_when == "elastic":
        yield from _elastic(flags)
    if when.theseus and when.drop_when in ("after", "gradual", "elastic"):
        yield UserError(f"needs --drop_when pretrained or finetuned, not {when.drop_when}.", "--theseus")
    if teacher.teacher and when.drop_when in ("after", "elastic"):
        yield UserError(
            f"cannot be combined with {variant}. Leave it out, or use --drop_when pretrained, finetuned or gradual.",
            "--teacher",
        )
    elif teacher.teacher and not train.do_train:
        yield UserError("needs training, but --do_train is off. Leave it out, or add --do_train.", "--teacher")
    changing = {
        "--layerdrop_rate": when.layerdrop_rate,
        "--theseus": when.theseus,
        "--drop_when gradual": when.drop_when == "gradual",
    }
    for name in (name for name, value in changing.items() if value and teacher.distill in ("patient", "layers")):
        yield UserError(
            f"pairs layers, but {name} changes them in training. Use --distill logits.", "--distill", teacher.distill
        )


def _elastic(flags: Flags) -> Iterator[UserError]:
    row, k = flags.named_strategy, flags.drop.drop_k
    if row is not None and row.name != "top":
        yield UserError(f"drops the last layers. Use --drop_strategy top, not {row.name}.", "--drop_when", "elastic")
    given = flags.when.elastic_k
    allowed = RANGES["elastic_k"]
    if outside := [k for k in flags.elastic_k if k not in allowed]:
        yield allowed.refusal("--elastic_k", outside[0])
    if not flags.elastic_k and given != ["all"] and (k is None or given is not None):
        yield UserError("needs the numbers of layers. Add --elastic_k 2 4 6, or --drop_k N.", "--drop_when", "elastic")
    if flags.when.layerdrop_rate:
        yield UserError("cannot be combined with --drop_when elastic. Leave --layerdrop_rate out.", "--layerdrop_rate")


# ---- data and numbers ------------------------------------------------------------------------------------------------
def _data(flags: Flags) -> Iterator[UserError]:
    data, own = flags.data, flags.data.own
    if data.task is not None and own and data.positive_label is not None:
        yield UserError(
            f"the positive class of {data.task.name} is fixed. Leave it out, or leave --task_name out.",
            "--positive_label",
            data.positive_label,
        )
    if data.label_separator is not None and data.label_type not in ("auto", "multi"):
        yield UserError(
            f"only with --label_type multi, not {data.label_type}. Leave --label_separator out.", "--label_separator"
        )
    if data.label_separator == "":
        yield UserError("is empty. Give the text between two labels, such as ';'.", "--label_separator")
    if flags.scored_split == "test" and data.max_predict_samples is not None:
        yield UserError(
            "cannot be combined with --score_split test, which scores the whole test set. "
            "Leave it out, or score another split.",
            "--max_predict_samples",
        )
    instead = " --validation_share 0.1 uses a fraction of the training set instead."
    steps = {"train": "do_train", "validation": "do_eval", "test": "do_predict"}
    usual = "" if set(steps.values()) & flags.given else " (without any --do_ flag, a run trains and evaluates)"
    lacking = [split for split in flags.splits if split not in own] if own else []
    for split, path in own.items():
        if lacking and not os.path.exists(path):  # if no flag is missing, another machine may have the file
            yield UserError("no such file. Check the path.", f"--{split}_file", path)
    for split in lacking:
        why = usual if getattr(flags.train, steps[split]) else " for held-out rows"
        why = f" for --score_split {split}" if split == flags.scored_split else why
        needed = f"--{split}_file is missing, but the {split} set is read{why}."
        yield UserError(needed + (instead if split == "validation" else ""))
    name, folder = flags.model.model_name_or_path, flags.train.output_dir
    if folder and os.path.isdir(name) and os.path.realpath(name) == os.path.realpath(folder):
        yield UserError("is the folder of the checkpoint. Choose another --output_dir.", "--output_dir", folder)


def _numbers(flags: Flags) -> Iterator[UserError]:
    return out_of_range(flags.values())


# ---- the library's flags ---------------------------------------------------------------------------------------------
def _optimizer(flags: Flags) -> Iterator[UserError]:
    """Find unusable settings: build the optimizer and the schedule for one parameter, unless this needs the model.

    The default optimizer and schedule need no check.
    """
    train, fields = flags.train, TrainArguments.__dataclass_fields__
    if all(getattr(train, name) == fields[name].default for name in OPTIMIZER):
        return
    if train.optim_target_modules or list(_numbers(flags)):
        return
    from transformers import Trainer, get_scheduler  # takes as long to import as the parser of all flags

    model, reasons = torch.nn.Linear(1, 1), (ValueError, TypeError, ImportError, KeyError, ArithmeticError)
    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(train, model)
        optimizer = kind(model.parameters(), **settings)
    except reasons as error:
        given = train.optim.value + (f" --optim_args {train.optim_args}" if train.optim_args else "")
        why = f"cannot be used ({one_line(str(error))}). --optim_args takes name=value,name=value."
        yield UserError(why, "--optim", given)
        return
    try:
        schedule = get_scheduler(train.lr_scheduler_type, optimizer, 1, 10, train.lr_scheduler_kwargs)
        if train.lr_scheduler_type in ADAPTIVE:
            schedule.step(1.0)
        for rate in getattr(schedule, "lr_lambdas", ()):
            list(map(rate, range(11)))
    except reasons as error:
        how = "--lr_scheduler_kwargs '{\"name\": value}'"
        why = f"cannot be used ({one_line(str(error))}). Give its settings as {how}."
        yield UserError(why, "--lr_scheduler_type", train.lr_scheduler_type.value)


def _checkpointing(flags: Flags) -> Iterator[UserError]:
    """Find unusable settings of activation checkpointing: checkpoint a layer without parameters."""
    train = flags.train
    if not (train.activation_checkpointing and train.activation_checkpointing_kwargs):
        return
    settings, name = dict(train.activation_checkpointing_kwargs), "activation_checkpointing_kwargs"
    try:
        _ = 0 % settings.pop("every_n_layers", 1), settings.pop("offload", False)  # the library's own two settings
        checkpoint(torch.nn.Identity(), torch.ones(1, requires_grad=True), **(settings or {"use_reentrant": False}))
    except (ValueError, TypeError, ArithmeticError) as error:
        name = name if name in flags.given else "gradient_checkpointing_kwargs"
        yield UserError(f"cannot be used ({one_line(str(error))}). Correct it, or leave it out.", f"--{name}")


def _library(flags: Flags) -> Iterator[UserError]:
    """Find problems that the library would report only when training begins."""
    train = flags.train
    if not (train.do_train or train.do_eval or train.do_predict or flags.drop.dry_run):
        yield UserError("nothing to do: --do_train, --do_eval and --do_predict are all off. Add one of these flags.")
    if train.report_to:
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        from layerdrop.finetune.tracking import missing_package
    for name in train.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            yield UserError(
                f"unknown value '{name}'. Allowed: none, all, {', '.join(INTEGRATION_TO_CALLBACK)}.", "--report_to"
            )
        elif package := missing_package(name):
            yield UserError(f"needs a package that is not installed. Run: pip install {package}", "--report_to", name)
    if train.fsdp and train.world_size == 1:
        start = "torchrun --nproc_per_node N run_glue.py ..."
        yield UserError(f"needs several processes, but this run has one. Start them: {start}", "--fsdp")
    for name in ("dataloader_persistent_workers", "dataloader_multiprocessing_context"):
        if getattr(train, name) and not train.dataloader_num_workers:
            yield UserError(f"needs --dataloader_num_workers above 0. Give both, or leave --{name} out.", f"--{name}")
    if train.torch_compile:
        try:  # looks up the names, compiles nothing
            torch.compile(torch.nn.Identity(), backend=train.torch_compile_backend, mode=train.torch_compile_mode)
        except RuntimeError as error:
            yield UserError(
                f"cannot be used ({one_line(str(error))}). Change --torch_compile_backend or _mode.", "--torch_compile"
            )
    launched = {"ACCELERATE_USE_FSDP": train.fsdp, "ACCELERATE_USE_DEEPSPEED": train.deepspeed}
    launched |= dict.fromkeys(("ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_TORCH_DEVICE"))
    for name, flag in launched.items():
        if (value := os.environ.get(name, "no")).lower() not in ("no", "false", "0", "") and not flag:
            yield UserError(
                f"{name}={value}, set by `accelerate launch`: changes the result but is not recorded. "
                "Leave it out of the launcher's settings, or start with torchrun."
            )


def _best(flags: Flags) -> Iterator[UserError]:
    best = flags.train.metric_for_best_model
    if flags.train.save_strategy == "best" and not best:
        yield UserError(
            f"needs --metric_for_best_model. Allowed: {', '.join(logged_metrics(flags))}.", "--save_strategy", "best"
        )
    if best and best.removeprefix("eval_") not in (allowed := logged_metrics(flags)):
        yield UserError(
            f"not a metric of {flags.task_name}. Allowed: {', '.join(allowed)}.", "--metric_for_best_model", best
        )


def logged_metrics(flags: Flags) -> list[str]:
    """The metrics that an evaluation logs.

    MNLI: metrics of the matched split without a prefix, and metrics of both splits with a prefix. Own data: metrics of
    every kind of task that --label_type allows.
    """
    task, own = flags.data.task, flags.data.own
    if task is not None:
        prefixes = dict.fromkeys(["", *map(metric_prefix, () if own else task.splits("validation"))])
        return [prefix + name for prefix in prefixes for name in ("loss", *task.metrics)]
    kinds = reversed(KINDS.values()) if flags.data.label_type == "auto" else [KINDS[flags.data.label_type]]
    examples = ("a", "b"), ("a", "b", "c"), ("B-a", "O")  # the class names also decide the metrics
    metrics = [name for kind in kinds for names in examples for name in kind.own_metrics(names)[0]]
    return list(dict.fromkeys(["loss", *metrics]))


# ---- flags without effect --------------------------------------------------------------------------------------------
def idle_flags(flags: Flags) -> list[str]:
    """Make a note for each given flag that has no effect on this run."""
    given, data, row = flags.given, flags.data, flags.strategy
    notes = []
    if flags.drops_nothing and flags.drop.drop_strategy:
        notes.append(f"--drop_strategy {flags.drop.drop_strategy} has no effect: --drop_k 0 drops nothing")
    used = () if flags.criterion is None else DATA_SCORES_ONLY if flags.scored_split else WEIGHT_SCORES_ONLY
    scores_only = (name for name in (*DATA_SCORES_ONLY, *WEIGHT_SCORES_ONLY) if name in given and name not in used)
    chosen = f"--drop_strategy {row.name}" if row else "a run that drops nothing"
    notes += [f"--{name} has no effect on {chosen}" for name in scores_only]
    if not data.own:
        notes += [f"--{name} has no effect without own files or a dataset" for name in OWN_DATA_ONLY if name in given]
    if data.source in ("hub", "demo") and "skip_bad_rows" in given:
        notes.append("--skip_bad_rows has no effect without own files, a dataset or --data_dir")
    if data.source == "demo" and data.data_dir:
        notes.append(f"--data_dir has no effect on {flags.task_name}")
    if "test_file" in given and not flags.train.do_predict and flags.scored_split != "test":
        notes.append("--test_file has no effect without --do_predict")
    values = flags.values()
    by_epoch = [(name, kind) for name, kind in STRATEGY_OF.items() if name in given and values[kind] != "steps"]
    notes += [f"--{name} has no effect without --{kind} steps" for name, kind in by_epoch]
    if flags.when.drop_when in ("after", "elastic") and not flags.when.finetune_again:
        replaced = [name for name in OWN_RECIPE if {name, f"start_{name}"} <= given]
        notes += [f"--{name} has no effect: --start_{name} replaces it" for name in replaced]
    if not flags.train.do_train and (idle := _given_training_flags(flags)):
        notes.append(f"no effect without training: {', '.join(f'--{name}' for name in idle)}")
    return notes


def _given_training_flags(flags: Flags) -> list[str]:
    """The given flags that only training uses."""
    known = set(TrainArguments.__dataclass_fields__) - set(NOT_TRAINING_ALONE)
    names = [name for name in known if has_effect(name, flags.train)]
    names += [name for name in TRAINING_ONLY if name != "max_train_samples" or flags.scored_split != "train"]
    return sorted(set(names) & flags.given)
