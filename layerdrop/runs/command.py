"""The command that does a run again: its spec as flags of run_glue.py."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from layerdrop.architectures import ModelSpec
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import TASKS
from layerdrop.runs.spec import RunSpec
from layerdrop.runs.words import WITHOUT_FLAG, flag_of

USUAL = RunSpec(ModelSpec(""), DataSpec("")).flat()
"""Every setting at its default."""
OTHERWISE = ("training", "files", "found", "no_speedups", "precision", *WITHOUT_FLAG)
"""Keys of RunSpec.flat() that have no flag of their own."""


def command_of(spec: RunSpec) -> str:
    """`python run_glue.py --model_name_or_path ...`, with every setting that is not at its default."""
    words = ["python", "run_glue.py"]
    if spec.processes > 1:
        words = ["torchrun", "--nproc_per_node", str(spec.processes), "run_glue.py"]
    return shlex.join([*words, *_flags(spec)])


def data_flags(data: DataSpec) -> list[str]:
    """Flags that read the data of a run again, without its limits on rows and tokens."""
    if not data.files:
        folder = [] if data.source in ("hub", "demo") else [f"--data_dir={data.source}"]
        return ["--task_name", data.task, *folder]
    named = ("text_columns", "label_column", "label_type", "positive_label", "skip_bad_rows", "hold_out")
    values = {name: getattr(data, name) for name in named}
    given = {name: value for name, value in values.items() if value != getattr(DataSpec(""), name)}
    task = ["--task_name", data.task] if data.task in TASKS else []
    files = [f"--{split}_file={path}" for split, path in data.files]
    return [*task, *files, *(f"--{name}={_word(value)}" for name, value in given.items())]


def _flags(spec: RunSpec) -> Iterator[str]:
    values = spec.flat()
    task = values.pop("task")
    yield from ("--model_name_or_path", values.pop("model"))
    if not spec.data.files:  # own files name their task
        yield from ("--task_name", task)
    for split, path in values["files"] or ():
        yield from (f"--{split}_file", path)
    if values["source"] in ("hub", "demo", "files"):
        values.pop("source")
    if values["strategy"] == "list":
        values.pop("strategy")
    if values["found"]:  # keep its order
        yield from ("--drop_order", ",".join(map(str, values["found"])))
    for name, value in values.items():
        if name in OTHERWISE or value is None or value == USUAL.get(name) or value in ((), {}, []):
            continue
        yield from (flag_of(name), _word(value))
    yield from ("--precision", spec.precision)
    if spec.no_speedups:
        yield "--no_speedups"
    if spec.theseus:
        yield "--theseus"
    if values["training"] is False:
        yield "--do_eval"


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(dict(value))
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
