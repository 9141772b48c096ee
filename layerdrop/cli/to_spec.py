"""Translate checked flags into a run's identity (RunSpec) and the options that change no result (Options)."""

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from functools import cache
from typing import Any

from transformers import TrainingArguments

from layerdrop.architectures import ModelSpec
from layerdrop.checkpoints import Checkpoint
from layerdrop.cli.arguments import Flags
from layerdrop.criteria.orders import find_layers, published_note
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.errors import UserError
from layerdrop.finetune.spec import ADAPTIVE, OWN_SETTINGS, DistilSpec, TheseusSpec, TrainSpec, WhenSpec
from layerdrop.runs.spec import OWN_RECIPE, Options, RunSpec
from layerdrop.strategies import check_ids
from layerdrop.system.text import names_in

NO_EFFECT = (
    # folders, kept files, requested outputs
    *("cache_dir", "token", "trust_remote_code", "output_dir", "save_model", "overwrite_output_dir"),
    *("resume_from_checkpoint", "restore_callback_states_from_checkpoint", "dry_run", "json", "score_store"),
    *("do_eval", "do_predict", "test_file", "test_split", "max_predict_samples"),
    # evaluation
    *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "eval_accumulation_steps"),
    *("eval_do_concat_batches", "eval_use_gather_object", "per_device_eval_batch_size", "prediction_loss_only"),
    *("include_for_metrics", "batch_eval_metrics", "metric_for_best_model", "greater_is_better"),
    *("bf16_full_eval", "fp16_full_eval"),
    # logging
    *("logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter", "log_level"),
    *("log_level_replica", "log_on_each_node", "include_num_input_tokens_seen", "disable_tqdm", "report_to"),
    *("run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "debug"),
    # checkpoints and the hub
    *("save_strategy", "save_steps", "save_total_limit", "save_only_model", "save_on_each_node"),
    *("enable_jit_checkpoint", "push_to_hub", "hub_model_id", "hub_token", "hub_private_repo", "hub_strategy"),
    *("hub_always_push", "hub_revision"),
    # memory, data loading, processes
    *("use_cpu", "local_rank", "use_cache", "gradient_checkpointing", "activation_checkpointing"),
    *("torch_empty_cache_steps", "skip_memory_metrics", "remove_unused_columns", "length_column_name"),
    *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
    *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "ddp_backend", "ddp_timeout"),
    *("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph"),
)
"""Flags that change no result. All other flags do, including flags of newer versions of the library."""

DECIDE_BY_EVALUATION = ("eval_strategy", "eval_steps", "eval_delay", "metric_for_best_model", "greater_is_better")
"""Flags that change the result only if evaluations select the best checkpoint or the learning rate."""
DECIDE_BY_SAVING = ("save_strategy", "save_steps")
"""Flags that change the result only if the result is the best saved checkpoint."""

DISTILL_DEFAULTS = {
    "logits": {"distill_temperature": 5, "distill_weight": 0.5},
    "patient": {"distill_temperature": 5, "distill_weight": 0.5, "distill_states_weight": 100},
    "layers": {"distill_temperature": 1, "distill_weight": 1, "distill_states_weight": 1},
}
"""Kind of --distill -> its settings and their defaults."""
CARRIED = (
    *(f.name for f in dataclasses.fields(TrainSpec) if f.name not in OWN_SETTINGS),
    *("output_dir", "seed", "bf16", "fp16", "use_cpu", "do_train", "do_eval", "do_predict"),
    *("resume_from_checkpoint", "local_rank"),
)
"""Settings of TrainingArguments with a field in RunSpec or Options, or determined by each process."""


def to_spec(flags: Flags, notes: tuple[str, ...] = ()) -> tuple[RunSpec, Options]:
    """Translate flags into a RunSpec and Options.

    Raises UserError if a searched strategy has no search result, or the checkpoint lacks a layer of --keep_layers."""
    model, train, drop = flags.model, flags.train, _drop(flags)
    spec = RunSpec(
        model=ModelSpec(model.model_name_or_path, model.model_revision, model.tokenizer_name, model.from_scratch),
        data=_data(flags),
        drop=drop,
        when=_when(flags, drop),
        train=_train(flags) if train.do_train else None,
        seed=train.seed,
        precision=train.precision,
        processes=train.world_size,
        no_speedups=train.no_speedups,
        theseus=_theseus(flags),
    )
    spec = replace(spec, start=_start(flags, spec), distil=_distil(flags), teacher=_teacher(flags, spec))
    if flags.when.drop_when == "after" or (flags.when.drop_when == "elastic" and not flags.when.finetune_again):
        spec = replace(spec, train=None)
    return spec, _options(flags, spec, notes)


def _full_model_run(spec: RunSpec, own: Mapping[str, float | None], **changes: Any) -> RunSpec:
    """The prerequisite run that fine-tunes the full model. own: its recipe settings; None: the value of the run."""
    train = replace(spec.train, **{name: float(value) for name, value in own.items() if value is not None})
    return replace(spec, drop=DropSpec(), when=WhenSpec(), train=train, theseus=None, **changes)


def _start(flags: Flags, spec: RunSpec) -> RunSpec | None:
    when = flags.when
    if when.drop_when not in ("finetuned", "after", "elastic"):
        return None
    start = _full_model_run(spec, {name: getattr(when, f"start_{name}") for name in OWN_RECIPE})
    if when.drop_when == "elastic":
        every_k = flags.elastic_k if flags.when.elastic_k != ["all"] else tuple(range(1, _n_layers(flags)))
        if not every_k:
            raise UserError("--drop_when elastic: no layer to drop. Add --elastic_k 2 4 6, or --drop_k N above 0.")
        return replace(start, when=WhenSpec(elastic_k=every_k))
    freeze = when.freeze_dropped and spec.drop.strategy
    return replace(start, drop=spec.drop, when=WhenSpec(frozen=True)) if freeze else start


def _distil(flags: Flags) -> DistilSpec | None:
    given = flags.teacher
    if given.teacher is None:
        return None
    kind = given.distill or "logits"
    defaults = DISTILL_DEFAULTS[kind]
    values = {
        name: float(default if getattr(given, name) is None else getattr(given, name))
        for name, default in defaults.items()
    }
    return DistilSpec(
        distill=kind,
        teacher=None if given.teacher == "auto" else given.teacher,
        distill_attention=given.distill_attention or None,
        **values,
    )


def _teacher(flags: Flags, spec: RunSpec) -> RunSpec | None:
    if flags.teacher.teacher != "auto":
        return None
    own = {name: getattr(flags.teacher, f"teacher_{name}") for name in OWN_RECIPE}
    return _full_model_run(spec, own, model=replace(spec.model, from_scratch=False))


def _theseus(flags: Flags) -> TheseusSpec | None:
    when = flags.when
    if not when.theseus:
        return None
    return TheseusSpec(
        replacing_rate=0.5 if when.replacing_rate is None else when.replacing_rate,
        replacing_steps=0.5 if when.replacing_steps is None else when.replacing_steps,
        replacing_schedule=when.replacing_schedule or "linear",
    )


def _data(flags: Flags) -> DataSpec:
    data, own = flags.data, flags.data.own
    read = flags.run_splits
    needed = [split for split in own if split in read and (split != "test" or split == flags.scored_split)]
    columns = {
        "files": tuple((split, own[split]) for split in needed),
        "dataset_name": data.dataset_name,
        "dataset_config_name": data.dataset_config_name,
        "validation_share": data.validation_share,
        "text_columns": names_in(data.text_columns),
        "label_column": data.label_column,
        "label_type": "multi" if data.label_separator and data.label_type == "auto" else data.label_type,
        "label_separator": data.label_separator,
        "positive_label": data.positive_label,
    }
    return DataSpec(
        task=flags.task_name,
        source=data.source,
        **(columns if own else {}),
        skip_bad_rows=data.skip_bad_rows and data.source not in ("hub", "demo"),
        max_seq_length=data.max_seq_length,
        pad_to_max_length=data.pad_to_max_length,
        max_train_samples=data.max_train_samples if "train" in read else None,
        max_eval_samples=data.max_eval_samples,
        hold_out=data.hold_out,
    )


def _drop(flags: Flags) -> DropSpec:
    drop, row, criterion = flags.drop, flags.strategy, flags.criterion
    if row is None:
        return DropSpec()
    reads_texts = criterion is not None and criterion.needs_data
    gradual = flags.when.drop_when == "gradual"
    layers = flags.drop_layers if drop.keep_layers is None else _complement(flags)
    if row.listed and not layers:
        return DropSpec()
    model = flags.model.model_name_or_path
    found = find_layers(row.name, drop.drop_k, drop.drop_order_file, model, flags.task_name, flags.drop_order)
    return DropSpec(
        strategy=row.name,
        k=None if row.listed else drop.drop_k,
        threshold=drop.drop_threshold,
        layers=layers,
        found=found if gradual else tuple(sorted(found)),
        score_on=drop.score_on if criterion else None,
        score_split=flags.scored_split,
        score_samples=drop.max_score_samples if reads_texts else None,
        weight_scope=drop.weight_scope if criterion and not reads_texts else None,
    )


def _when(flags: Flags, drop: DropSpec) -> WhenSpec:
    if flags.when.drop_when != "gradual" or drop.strategy is None:
        return WhenSpec()
    return WhenSpec(step=flags.when.drop_step or 1, every_epochs=flags.when.drop_every_epochs or 2)


def _n_layers(flags: Flags) -> int:
    """Number of layers of the checkpoint. Raises UserError if it cannot be read."""
    model = flags.model
    return Checkpoint.open(ModelSpec(model.model_name_or_path, model.model_revision), model.hub).n_layers


def _complement(flags: Flags) -> tuple[int, ...]:
    """The layers of the checkpoint that --keep_layers does not name. Raises UserError."""
    n_layers = _n_layers(flags)
    check_ids("--keep_layers", flags.keep_layers, n_layers)
    return tuple(i for i in range(n_layers) if i not in flags.keep_layers)


def _train(flags: Flags) -> TrainSpec:
    train = flags.train
    values = {}
    for f in dataclasses.fields(TrainSpec):
        if f.name not in OWN_SETTINGS:
            value = _plain(getattr(train, f.name))
            values[f.name] = float(value) if isinstance(f.default, float) else value  # 0 and 0.0 are one setting
    return TrainSpec(
        **values,
        freeze_layers=flags.freeze_layers,
        freeze_embeddings=flags.drop.freeze_embeddings,
        class_weights=train.class_weights,
        layerdrop_rate=flags.when.layerdrop_rate or None,
        other=_changed_settings(train, effect=True),
    )


def _options(flags: Flags, spec: RunSpec, notes: tuple[str, ...]) -> Options:
    model, data, train = flags.model, flags.data, flags.train
    result = flags.drop.drop_order_file or flags.drop.drop_order
    if published := published_note(spec.drop.strategy, result, flags.task_name):
        notes = (*notes, published)
    return Options(
        folder=train.output_dir or f"runs/{spec.name}",
        evaluate=train.do_eval,
        predict=train.do_predict,
        test=data.own.get("test"),
        max_predict_samples=data.max_predict_samples,
        save_model=train.save_model and train.do_train,
        overwrite=train.overwrite_output_dir,
        resume=train.resume_from_checkpoint,
        rolling_checkpoints="save_strategy" not in flags.given and not train.load_best_model_at_end,
        use_cpu=train.use_cpu,
        score_store=flags.drop.score_store,
        cache_dir=model.cache_dir,
        token=model.token,
        trust_remote_code=model.trust_remote_code,
        trainer=_changed_settings(train, effect=False) | {"logging_nan_inf_filter": train.logging_nan_inf_filter},
        notes=tuple(notes),
    )


def has_effect(name: str, train: TrainingArguments) -> bool:
    """Whether a flag can change the result of a run with these settings."""
    if train.load_best_model_at_end and name in DECIDE_BY_EVALUATION + DECIDE_BY_SAVING:
        return True
    if train.lr_scheduler_type in ADAPTIVE and name in DECIDE_BY_EVALUATION:
        return True
    return name not in NO_EFFECT


def _changed_settings(train: TrainingArguments, effect: bool) -> dict[str, Any]:
    """Settings that differ from the library's default. effect: whether they can change the result."""
    default = _library_defaults(train.use_cpu)
    given = {name: value for name in default if (value := getattr(train, name)) != default[name]}
    values = {name: _plain(value) for name, value in given.items() if has_effect(name, train) == effect}
    if best := values.get("metric_for_best_model"):
        values["metric_for_best_model"] = best.removeprefix("eval_")
    return {name: value for name, value in values.items() if value != default[name]}


@cache
def _library_defaults(use_cpu: bool) -> Mapping[str, Any]:
    """Default of every setting of TrainingArguments without a field in RunSpec or Options."""
    default = TrainingArguments(output_dir="unused", use_cpu=use_cpu)
    names = [f.name for f in dataclasses.fields(TrainingArguments) if f.init and f.name not in CARRIED]
    return {name: _plain(getattr(default, name)) for name in names}


def _plain(value: Any) -> Any:
    """The JSON form of a value."""
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
