"""Cost of models, from the records of `layerdrop cost`, as in Sajjad et al.'s Table 3 and Peer et al.'s Table 2."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from layerdrop.report.published import published_cost
from layerdrop.report.table import Table
from layerdrop.system.files import read_json

PATTERN = "cost_*.json"


def read_costs(folders: Iterable[str]) -> tuple[list[dict], list[str]]:
    """Read the cost records in and below some folders. Returns (records, a line for each unreadable file)."""
    records, unreadable = [], []
    for path in sorted({path for folder in folders for path in Path(folder).rglob(PATTERN)}):
        try:
            record = read_json(path)
            model_cost_table(record)
            records.append(record)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            unreadable.append(f"{path}: not a cost record: {type(error).__name__}: {error}")
    return records, unreadable


def model_cost_table(record: dict, paper: str | None = None) -> Table:
    """One row for each model. Ratios are to the first model, within a round.

    paper: sajjad2023 or peer2022, to add its published figures.
    """
    settings, where, first = record["settings"], record["environment"], record["models"][0]
    theirs = published_cost(paper, first["model_type"]) if paper else {}
    headings = sorted({heading for cells in theirs.values() for heading in cells}, reverse=True)
    header = ["model", "parameters, M", "layers, M", "embeddings, M", "MB", "GFLOPs", "FLOPs ratio"]
    header += ["one text (ratio)", f"text in batches of {settings['batch_size']} (ratio)"]
    header += ["training, 1,000 texts (speed-up)", "peak MB, inference", "peak MB, training", *headings]
    notes = [*_notes(settings, where), *(f"{note[0].upper()}{note[1:]}." for note in record.get("notes", ()))]
    table = Table("model cost", f"Cost relative to {first['name']}", header, notes=notes)
    for model in record["models"]:
        value = _value(model, first, settings)
        published = theirs.get(first["layers"] - model["layers"], {})
        row = [model["name"], *(f"{model[key] / 1e6:.1f}" for key in ("parameters", "encoder", "embeddings"))]
        row += [f"{model['megabytes']:.0f}", f"{model['flops'] / 1e9:.2f}", f"{value['flops_ratio']:.2f}"]
        for kind in ("single", "batch"):
            ratio = _spread(ratios(model["inference"][kind], first["inference"][kind]))
            row.append(f"{1000 * value[f'{kind}_seconds']:.1f} ms ({ratio})")
        speed_up = _spread(ratios(first["training"], model["training"]))
        row.append(f"{value['training_seconds_per_1000']:.1f} s ({speed_up} x)")
        row += [f"{model[key] / 1e6:,.0f}" for key in ("peak_inference", "peak_training")]
        table.rows.append([*row, *(published.get(heading, "") for heading in headings)])
        table.values.append(value)
    return table


def _value(model: dict, first: dict, settings: dict) -> dict[str, Any]:
    """A model's machine-readable row."""
    same = ("layers", "parameters", "encoder", "embeddings", "megabytes", "flops")
    value = {"model": model["name"], **{key: model[key] for key in same}}
    value["flops_ratio"] = model["flops"] / first["flops"]
    for kind, texts in (("single", settings["singles"]), ("batch", settings["texts"])):
        value[f"{kind}_seconds"] = statistics.median(model["inference"][kind]) / texts
        value[f"{kind}_ratio"] = ratios(model["inference"][kind], first["inference"][kind])[0]
    value["training_seconds_per_1000"] = statistics.median(model["training"])
    value["training_speed_up"] = ratios(first["training"], model["training"])[0]
    return value | {f"{key}_bytes": model[key] for key in ("peak_inference", "peak_training")}


def _notes(settings: dict, where: dict) -> list[str]:
    versions = where["versions"]
    return [
        f"Medians of {settings['repeats']} round{'s' * (settings['repeats'] > 1)}. "
        "Ratios to the first row: median [lowest, highest] over the rounds. "
        f"One text: {settings['length']} tokens, also for the FLOPs. Batches and training: {settings['texts']:,} "
        f"random texts of {settings['mean_length']:.0f} tokens on average, padded to the longest text of a batch. "
        "Peak memory: of the process with its libraries. On a GPU: of its allocations.",
        f"{where['device']}, threads: {where['threads']}, {settings['precision']}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}, {settings['date']}.",
    ]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """(median, lowest, highest) ratio of two models' seconds, round by round."""
    of_rounds = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(of_rounds), min(of_rounds), max(of_rounds)


def _spread(ratio: tuple[float, float, float]) -> str:
    return f"{ratio[0]:.2f} [{ratio[1]:.2f}, {ratio[2]:.2f}]"
