"""Convert settings to flags: the flag of a setting for messages, and the command that repeats a run."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from layerdrop.architectures import ModelSpec
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import DEMO_TASKS, TASKS
from layerdrop.runs.spec import RunSpec

FLAG_OF = {
    "model": "model_name_or_path",
    "revision": "model_revision",
    "tokenizer": "tokenizer_name",
    "task": "task_name",
    "files": "train_file/--validation_file/--train_split/--validation_split",
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
"""Keys of `RunSpec.flat()` -> the flag, if it has another name."""
WITHOUT_FLAG = {
    "source": "source of the data",
    "processes": "torchrun --nproc_per_node",
    "frozen": "freezing instead of dropping",
}
"""Keys of `RunSpec.flat()` that are no flag of run_glue.py -> their description."""
SOURCES = ("hub", "demo", "files", "dataset")
"""Sources of rows that are not a GLUE folder."""
DEFAULTS = RunSpec(ModelSpec(""), DataSpec("")).flat()


def flag_of(setting: str) -> str:
    """The flag that sets a key of `RunSpec.flat()`: `k` -> `--drop_k`."""
    return WITHOUT_FLAG.get(setting) or f"--{FLAG_OF.get(setting, setting)}"


def command_of(spec: RunSpec) -> str:
    """`layerdrop run --model_name_or_path ...`, with every setting that is not at its default."""
    torchrun = ["torchrun", "--nproc_per_node", str(spec.processes), "-m"] if spec.processes > 1 else []
    return shlex.join([*torchrun, "layerdrop", "run", *_flags(spec)])


def data_flags(data: DataSpec, splits: Sequence[str]) -> list[str]:
    """Flags to read some splits of a run's data again, with all settings of the data."""
    task = ["--task_name", data.task] if not data.files or data.task in TASKS | DEMO_TASKS else []
    folder = [f"--data_dir={data.source}"] if data.source not in SOURCES else []
    files = [f"{data.flag(split)}={path}" for split, path in data.files]
    elsewhere = {"task", "source", "files"} | ({"max_train_samples"} if "train" not in splits else set())
    names = [field.name for field in fields(data) if field.name not in elsewhere]
    options = [f"--{name}={_word(getattr(data, name))}" for name in names if getattr(data, name) != DEFAULTS[name]]
    return [*task, *folder, *files, *options]


def _flags(spec: RunSpec) -> Iterator[str]:
    values, data, drop = spec.flat(), spec.data, spec.drop
    yield from ("--model_name_or_path", spec.model.name)
    if not data.files or data.task in TASKS | DEMO_TASKS:  # own data name their task
        yield from ("--task_name", data.task)
    for split, path in data.files:
        yield from (data.flag(split), path)
    if drop.found:  # --drop_order keeps the order of dropping
        yield from ("--drop_order", ",".join(map(str, drop.found)))
    skipped = {"model", "task", "files", "found", "training", "no_speedups", "precision", *WITHOUT_FLAG}
    if data.source not in SOURCES:
        yield from ("--data_dir", data.source)
    skipped |= {"strategy"} if drop.strategy == "list" else set()
    for name, value in values.items():
        if name not in skipped and value is not None and value != DEFAULTS.get(name) and value not in ((), {}, []):
            yield from (flag_of(name), _word(value))
    yield from ("--precision", spec.precision)
    yield from ["--no_speedups"] * spec.no_speedups
    yield from ["--theseus"] * (spec.theseus is not None)
    yield from ["--do_eval"] * (not values["training"])


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(dict(value))
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
