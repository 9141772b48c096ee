"""Files for other tools: the library's result files, and a portable list of layers."""

import json
from typing import Any

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
        "train_steps_per_second": now and now * steps / seconds,
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
    return {
        "base_model": record.spec.model.name,
        "revision": record.spec.model.revision,
        "n_layers": record.n_layers,
        "kept": record.kept,
        "dropped": record.dropped,
        "strategy": record.spec.drop.strategy,
        "why": record.cuts[-1].why if record.cuts else "",
        "task": record.spec.data.task,
        "run": record.id,
    }
