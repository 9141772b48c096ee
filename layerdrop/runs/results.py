"""Files for other tools: the library's result files, and a portable list of layers."""

import json
from collections.abc import Sequence
from typing import Any

from layerdrop.architectures import ModelSpec
from layerdrop.runs.record import RunRecord, plain

LAYERS_FILE = "layers.json"
CARD_FILE = "README.md"
CARD_MARK = "<!-- written by layerdrop -->"
"""First line of a model card, after its metadata."""
RESULT_FILES = ("all_results.json", "train_results.json", "eval_results.json", LAYERS_FILE)


def result_files(record: RunRecord) -> dict[str, str]:
    """Name -> content of each result file of the run. A file without results is omitted."""
    train, evaluated = train_results(record), eval_results(record)
    files: dict[str, Any] = {"all_results.json": train | evaluated, LAYERS_FILE: layers(record)}
    files |= {"train_results.json": train} if train else {}
    files |= {"eval_results.json": evaluated} if evaluated else {}
    return {name: json.dumps(plain(content), indent=4) + "\n" for name, content in files.items()}


def train_results(record: RunRecord) -> dict[str, float]:
    """Results of training under the names of the library's example scripts; empty without training."""
    seconds, rows = record.seconds.get("train"), record.data.get("train", {}).get("rows")
    if seconds is None or not (record.epochs or record.steps):
        return {}
    epochs, steps = record.epochs[-1].get("epoch") if record.epochs else None, record.steps
    now = (
        (steps - (record.resumed_at_step or 0)) / steps if steps else None
    )  # fraction of the steps that the seconds cover
    results = {
        "epoch": epochs,
        "train_loss": record.train_loss,
        "train_runtime": seconds,
        "train_samples": rows,
        "train_samples_per_second": now and epochs and rows and now * epochs * rows / seconds,
        "train_steps_per_second": now and steps and now * steps / seconds,
    }
    return {name: value for name, value in results.items() if value is not None}


def eval_results(record: RunRecord) -> dict[str, float]:
    """Results of evaluation, `eval_accuracy` ...; empty without evaluation."""
    if not record.metrics:
        return {}
    rows = sum(values["rows"] for split, values in record.data.items() if split.startswith("validation"))
    seconds = record.seconds.get("inference")
    metrics = {f"eval_{name}": value for name, value in record.metrics.items()}
    more = {"eval_runtime": seconds, "eval_samples": rows, "eval_samples_per_second": seconds and rows / seconds}
    return metrics | {name: value for name, value in more.items() if value}


def layers(record: RunRecord) -> dict[str, Any]:
    """The kept layers and the model, to drop the same layers with another tool."""
    spec, why = record.spec, record.cuts[-1].why if record.cuts else ""
    facts = layer_facts(spec.model, record.n_layers or 0, record.kept, spec.drop.strategy, why)
    return facts | {"task": spec.data.task, "run": record.id}


def layer_facts(model: ModelSpec, n_layers: int, kept: Sequence[int], strategy: str | None, why: str) -> dict[str, Any]:
    """The content of LAYERS_FILE of any reduced model. Ids count in the original model with n_layers layers."""
    return {
        "base_model": model.name,
        "revision": model.revision,
        "n_layers": n_layers,
        "kept": list(kept),
        "dropped": [i for i in range(n_layers) if i not in kept],
        "strategy": strategy,
        "why": why,
    }
