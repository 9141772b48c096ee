"""Legacy flags, of older versions and of the papers' scripts: their present names, or why they have no effect."""

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
