"""Flags that are not ours: legacy flags of older versions and of the papers' scripts, with their present names or the
reason why they have no effect, and common misnomers."""

RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "no_cuda": "use_cpu",
    "warmup_ratio": "warmup_steps",
    "use_auth_token": "token",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_token": "hub_token",
    "num_epochs": "num_train_epochs",
}
WITHOUT_EFFECT = {
    "model_type": "the checkpoint's configuration says it",
    "do_lower_case": "the checkpoint's tokenizer says it",
    "overwrite_cache": "nothing is cached",
    "group_by_length": "it is the default; --train_sampling_strategy random turns it off",
    "save_safetensors": "checkpoints are always safetensors",
    "use_fast_tokenizer": "the library chooses the tokenizer",
    "fp16_opt_level": "use --precision",
    "fp16_backend": "use --precision",
    "half_precision_backend": "use --precision",
    "logging_dir": "the logging integration's own environment variable says it",
    "evaluate_during_training": "it is the default; --eval_strategy no turns it off",
    "eval_all_checkpoints": "every epoch is evaluated; --eval_strategy no turns it off",
    "server_ip": "attach a debugger with the debugger's own means",
    "server_port": "attach a debugger with the debugger's own means",
    "config_name": "the configuration is the checkpoint's",
    "ignore_mismatched_sizes": "a head of another size is always replaced",
}
_HINTS = {
    "--model_name_or_path": "model model_name model_path checkpoint",
    "--tokenizer_name": "tokenizer",
    "--model_revision": "revision",
    "--task_name": "task",
    "--train_file": "train train_data",
    "--validation_file": "dev_file eval_file valid_file validation_data",
    "--text_columns": "text_column text_column_name text_column_names",
    "--label_column": "label_column_name",
    "--label_type number": "do_regression regression",
    "--per_device_train_batch_size": "batch_size train_batch_size bs",
    "--per_device_eval_batch_size": "eval_batch_size",
    "--gradient_accumulation_steps": "accumulation_steps grad_accum",
    "--learning_rate": "lr",
    "--num_train_epochs": "epochs n_epochs",
    "--max_seq_length": "max_length max_len seq_length",
    "--warmup_steps": "warmup",
    "--lr_scheduler_type": "scheduler lr_scheduler",
    "--optim": "optimizer",
    "--precision": "amp mixed_precision dtype",
    "--output_dir": "output out out_dir save_dir",
    "--overwrite_output_dir": "overwrite",
    "--resume_from_checkpoint": "resume",
    "--report_to wandb": "wandb",
    "--drop_strategy": "strategy",
    "--drop_k": "k num_layers n_layers num_hidden_layers",
    "--drop_threshold": "threshold",
    "--drop_layers or --keep_layers": "layers",
    "--teacher": "teacher_model",
    "--distill_weight": "alpha",
    "--distill_temperature": "temperature",
    "A configuration file comes first, without a flag: run_glue.py X.yaml.": "config config_file",
    "Data sets other than GLUE are given as --train_file and --validation_file.": "dataset dataset_name",
    "Every row has the same weight in the loss.": "class_weights class_weight",
    "The metrics are the task's; --metric_for_best_model chooses the best checkpoint.": "metric metric_name",
    "There is no early stopping; --load_best_model_at_end keeps the best epoch.": "early_stopping patience "
    "early_stopping_patience",
    "A GPU is used where there is one; --use_cpu uses none.": "device gpu cpu",
    "For several GPUs: torchrun --nproc_per_node N run_glue.py ...": "gpus n_gpu num_gpus",
}
TYPED = {name: hint for hint, names in _HINTS.items() for name in names.split()}
"""Common misnomer -> the flag that is meant, or a sentence."""


def translate(argv: list[str], notes: list[str]) -> list[str]:
    """Older flags under their present names; a note for each change is appended to `notes`."""
    out: list[str] = []
    i = 0
    while i < len(argv):
        word, equals, value = argv[i].partition("=")
        name = word[2:].replace("-", "_") if word.startswith("--") else ""
        has_value = i + 1 < len(argv) and not argv[i + 1].startswith("--")
        if name == "remove_layers" and (not value if equals else has_value and not argv[i + 1]):
            i += not equals  # the fork's default: no layer
        elif name == "use_auth_token" and (value or (argv[i + 1] if has_value else "True")).lower() in (
            "true",
            "false",
        ):
            notes.append("--use_auth_token has no effect: the token stored on this machine is used anyway")
            i += has_value and not equals
        elif name in RENAMED:
            notes.append(f"--{name} is now --{RENAMED[name]}")
            out.append(f"--{RENAMED[name]}{equals}{value}")
        elif name in WITHOUT_EFFECT:
            notes.append(f"--{name} has no effect: {WITHOUT_EFFECT[name]}")
            i += has_value and not equals
        elif name == "resume_from_checkpoint" and not equals and not has_value:
            out += [word, "True"]
        else:
            out.append(argv[i])
        i += 1
    return out
