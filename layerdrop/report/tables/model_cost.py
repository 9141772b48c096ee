"""The cost of models side by side, from the records of layerdrop cost, as Sajjad et al.'s Table 3 and Peer et al.'s
Table 2."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from layerdrop.report.published import published_cost
from layerdrop.report.tables.base import Table

PATTERN = "cost_*.json"
HEADER = ["model", "parameters, M", "of the layers, M", "embeddings, M", "MB", "GFLOPs", "ratio"]


def read_costs(folders: Iterable[str]) -> tuple[list[dict], list[str]]:
    """(records of layerdrop cost in and below the folders, a line for each unreadable file)."""
    found, unreadable = [], []
    for path in sorted({path for folder in folders for path in Path(folder).rglob(PATTERN)}):
        try:
            record = json.loads(path.read_bytes())
            model_cost_table(record)
            found.append(record)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            unreadable.append(f"{path}: not a record of layerdrop cost: {type(error).__name__}: {error}")
    return found, unreadable


def model_cost_table(record: dict, paper: str | None = None) -> Table:
    """A row for each model; ratios are to the first, round by round. paper: its figures beside (sajjad2023,
    peer2022)."""
    settings, where = record["settings"], record["environment"]
    first = record["models"][0]
    theirs = published_cost(paper, first["model_type"]) if paper else {}
    words = sorted({word for row in theirs.values() for word in row}, reverse=True)
    rows, values = [], []
    for model in record["models"]:
        k = first["layers"] - model["layers"]
        single = ratios(model["inference"]["single"], first["inference"]["single"])
        batch = ratios(model["inference"]["batch"], first["inference"]["batch"])
        training = ratios(first["training"], model["training"])
        seconds_single = statistics.median(model["inference"]["single"]) / settings["singles"]
        seconds_batch = statistics.median(model["inference"]["batch"]) / settings["texts"]
        share = model["flops"] / first["flops"]
        row = [model["name"], *(f"{model[key] / 1e6:.1f}" for key in ("parameters", "encoder", "embeddings"))]
        row += [f"{model['megabytes']:.0f}", f"{model['flops'] / 1e9:.2f}", f"{share:.2f}"]
        row += [
            f"{1000 * seconds_single:.1f} ms ({_spread(single)})",
            f"{1000 * seconds_batch:.1f} ms ({_spread(batch)})",
        ]
        row += [f"{statistics.median(model['training']):.1f} s ({_spread(training)} x)"]
        row += [f"{model['peak_inference'] / 1e6:,.0f}", f"{model['peak_training'] / 1e6:,.0f}"]
        rows.append([*row, *(theirs.get(k, {}).get(word, "") for word in words)])
        same = ("name", "layers", "parameters", "encoder", "embeddings", "megabytes", "flops")
        values.append(
            {("model" if key == "name" else key): model[key] for key in same}
            | {"flops_ratio": share, "single_seconds": seconds_single, "single_ratio": single[0]}
            | {"batch_seconds": seconds_batch, "batch_ratio": batch[0]}
            | {"training_seconds_per_1000": statistics.median(model["training"]), "training_speed_up": training[0]}
            | {"peak_inference_bytes": model["peak_inference"], "peak_training_bytes": model["peak_training"]}
        )
    header = [*HEADER, "one text (ratio)", f"text in batches of {settings['batch_size']} (ratio)"]
    header += ["training, 1,000 texts (speed-up)", "peak MB, inference", "peak MB, training"]
    versions = where["versions"]
    notes = [
        f"Medians of {settings['repeats']} rounds; ratios to the first row, round by round: median [lowest, highest]. "
        f"One text: {settings['length']} tokens, as for the FLOPs. Batches and training: {settings['texts']:,} random "
        f"texts of {settings['mean_length']:.0f} tokens on average, padded by batch. Peak memory: of a process, "
        "libraries included; on a GPU what is allocated there.",
        f"{where['device']}, {where['threads']} threads, {settings['precision']}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}, {record['settings']['date']}.",
    ]
    return Table("model cost", f"Cost beside {first['name']}", [*header, *words], rows, notes, values)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """(median, lowest, highest) of the ratios of two models' seconds, round by round."""
    found = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(found), min(found), max(found)


def _spread(ratio: tuple[float, float, float]) -> str:
    return f"{ratio[0]:.2f} [{ratio[1]:.2f}, {ratio[2]:.2f}]"
