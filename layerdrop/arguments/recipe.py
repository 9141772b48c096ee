"""Which of the library's settings change the result of a run."""

from typing import Any

from layerdrop.arguments.groups import TrainArguments

RECIPE = (
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "weight_decay",
    "max_grad_norm",
    "label_smoothing_factor",
    "train_sampling_strategy",
)
"""Always part of a run's identity."""
NO_EFFECT = (
    "auto_find_batch_size bf16 bf16_full_eval debug disable_tqdm do_eval do_predict do_train fp16 "
    "fp16_full_eval full_determinism gradient_checkpointing activation_checkpointing "
    "half_precision_backend ignore_data_skip json include_for_metrics include_num_input_tokens_seen "
    "local_rank output_dir overwrite_output_dir per_device_eval_batch_size precision prediction_loss_only "
    "project remove_unused_columns report_to restore_callback_states_from_checkpoint "
    "resume_from_checkpoint run_name seed skip_memory_metrics torch_empty_cache_steps use_cache use_cpu "
    "label_names batch_eval_metrics length_column_name enable_jit_checkpoint"
).split()
NO_EFFECT_PREFIX = (
    "dataloader_",
    "ddp_",
    "eval_",
    "hub_",
    "log_",
    "logging_",
    "push_to_",
    "save_",
    "trackio_",
    "torch_compile",
)


def recipe(train: TrainArguments) -> dict[str, Any]:
    """The settings that change the result: RECIPE, and every other one that is not at its default."""
    values = train.to_dict()
    defaults = TrainArguments(output_dir=train.output_dir, use_cpu=train.use_cpu, report_to=[]).to_dict()

    def matters(name: str) -> bool:
        if name in RECIPE or name == "dataloader_drop_last":
            return True
        ignored = name in NO_EFFECT or name.startswith(NO_EFFECT_PREFIX)
        if ignored and not (train.load_best_model_at_end and name.startswith(("eval_", "save_st"))):
            return False
        return values[name] != defaults.get(name)

    return {name: values[name] for name in sorted(values) if matters(name)}
