"""Flags by the names of a run's settings: messages below the command line name them without knowing its parser."""

FLAG_OF = {
    "model": "model_name_or_path",
    "revision": "model_revision",
    "tokenizer": "tokenizer_name",
    "task": "task_name",
    "source": "data_dir",
    "files": "train_file/--validation_file",
    "strategy": "drop_strategy",
    "k": "drop_k",
    "threshold": "drop_threshold",
    "layers": "drop_layers",
    "found": "drop_order_file",
    "step": "drop_step",
    "every_epochs": "drop_every_epochs",
    "score_samples": "max_score_samples",
    "training": "do_train",
}
"""Keys of `RunSpec.flat()` -> the flag, where its name is another one."""
WITHOUT_FLAG = {"processes": "torchrun --nproc_per_node", "frozen": "the layers of --drop_strategy only frozen"}
"""Keys of `RunSpec.flat()` that no flag of run_glue.py sets -> words for them."""


def flag_of(field: str) -> str:
    """The flag that sets a key of `RunSpec.flat()`: `k` -> `--drop_k`."""
    return WITHOUT_FLAG.get(field) or f"--{FLAG_OF.get(field, field)}"
