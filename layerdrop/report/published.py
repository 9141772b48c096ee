"""The papers' figures as a frame, for the same tables as the user's own runs."""

import csv
from pathlib import Path

import pandas as pd

from layerdrop.data.tasks import get_task
from layerdrop.errors import unknown
from layerdrop.report.frame import RUN_COLUMNS
from layerdrop.report.table_row import TableRow

FOLDER = Path(__file__).parent / "published"
MODELS = {
    "bert-base": "bert-base-uncased",
    "roberta-base": "roberta-base",
    "xlnet-base": "xlnet-base-cased",
    "distilbert-base": "distilbert-base-uncased",
    "albert-base": "albert-base-v1",
    "mobilebert": "google/mobilebert-uncased",
}
"""A paper's short name -> the checkpoint on the hub."""
NOTES = {
    "sajjad2023": (
        "Sajjad et al. (2023), Tables 2, 5, 6 (distillation and module replacing) and 7. Accuracy; STS-B: correlation "
        "x 100. Their Table 3 gives mean losses over seven tasks for BERT and XLNet, over the five large ones (SST-2, "
        "MNLI, QNLI, QQP, STS-B) for RoBERTa at K = 4 and 6; RoBERTa's K = 2 (-0.42) follows from neither."
    ),
    "peer2022": (
        "Peer et al. (2022), Table 1. F1 for MRPC and QQP, Spearman for STS-B, Matthews for CoLA. The mean GLUE score "
        "of BERT GLP-6 is 78.1 there and 78.4 in their Table 2."
    ),
}
VARIANTS = {
    "Vanilla-KD": ("bert-base", "distill-logits"),
    "BERT-PKD": ("bert-base", "distill-patient"),
    "BERT-of-Theseus": ("bert-base", "finetuned, theseus"),
    "BERT-FT-6": ("bert-base", "finetuned"),
    "XLNet-FT-6": ("xlnet-base", "finetuned"),
}
"""Rows of Sajjad et al.'s Tables 6 and 7 without the top six layers -> model, RunSpec.variants."""
COST_NAMES = {"bert": "bert-base", "xlnet": "xlnet-base", "distilbert": "distilbert-base", "roberta": "roberta-base"}
"""Model type -> the paper's short name."""


def published(paper: str) -> pd.DataFrame:
    """A frame of `sajjad2023` (Tables 2, 5, 6 and 7) or `peer2022` (Table 1), seed 0. Raises UserError."""
    if paper not in NOTES:
        raise unknown("--compare", paper, NOTES)
    lines = _sajjad2023() if paper == "sajjad2023" else _peer2022()
    cells: dict[tuple, dict[str, float]] = {}
    for model, row, line, metric in lines:
        task = get_task(line["task"])
        cell = cells.setdefault((MODELS[model], row, task.name), {})
        cell[task.recorded(metric or task.metrics[0])] = float(line["score"])
    places = [
        {"model": m, "row": row, "task": task, "column": task, "setting": "", "seed": 0} for m, row, task in cells
    ]
    empty = dict.fromkeys(RUN_COLUMNS)
    return pd.DataFrame([empty | place | cell for place, cell in zip(places, cells.values(), strict=True)])


def _rows(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _sajjad2023() -> list[tuple]:
    """(short name of the model, row, line of the file, None: the task's main metric)."""
    lines = []
    for line in _rows("sajjad2023_table2_top_dropping.csv") + _rows("sajjad2023_table5_albert.csv"):
        k = int(line["dropped"])
        lines.append((line["model"], TableRow("top", str(k)) if k else TableRow(), line, None))
    for line in _rows("sajjad2023_table6_distilled_models.csv") + _rows("sajjad2023_table7_finetuned_first.csv"):
        if line["model"] in VARIANTS:
            model, variant = VARIANTS[line["model"]]
            lines.append((model, TableRow(f"top, {variant}", "6"), line, None))
    return lines


def _peer2022() -> list[tuple]:
    """(short name of the model, row, line of the file, metric)."""
    lines = [line for line in _rows("peer2022_table1_greedy.csv") if line["task"] != "glue"]
    rows = [TableRow(line["method"], line["dropped"]) if line["dropped"] != "0" else TableRow() for line in lines]
    return [(line["base"], row, line, line["metric"]) for line, row in zip(lines, rows, strict=True)]


def published_cost(paper: str, model_type: str) -> dict[int, dict[str, str]]:
    """Number of dropped layers -> heading and words of a cell: Sajjad et al.'s Table 3, Peer et al.'s Table 2 (ratios
    to their full model). Empty for a model that is not in the table. Raises UserError."""
    if paper == "sajjad2023":
        rows = [line for line in _rows("sajjad2023_table3_cost.csv") if line["model"] == COST_NAMES.get(model_type)]
        return {
            int(line["dropped"]): {
                "published training speed-up": f"{float(line['finetuning_speedup']):.2f} x",
                "published inference ratio": f"{1 - float(line['inference_time_reduction_percent']) / 100:.2f}",
            }
            for line in rows
            if line["finetuning_speedup"]
        }
    if paper != "peer2022":
        raise unknown("--compare", paper, NOTES)
    name = {"bert": "BERT", "roberta": "RoBERTa"}.get(model_type)
    if name is None:
        return {}
    rows = {line["model"]: line for line in _rows("peer2022_table2_cost.csv")}
    return {
        k: {
            f"published {where.upper()} inference ratio": f"{float(line[key]) / float(rows[name][key]):.2f}"
            for where, key in (("cpu", "cpu_inference_s"), ("gpu", "gpu_inference_s"))
        }
        for k, line in ((0, rows[name]), (6, rows[f"{name} top-6"]))
    }


def published_tolerance() -> dict[tuple[str, str, float], tuple[int, float]]:
    """(model, task, threshold in percent) -> (K, loss on the other half): Sajjad et al. (2023), Table 4."""
    return {
        (line["model"], line["task"], float(line["threshold_percent"])): (
            int(line["layers_dropped"]),
            float(line["holdout_loss_points"]),
        )
        for line in _rows("sajjad2023_table4_layers_within_threshold.csv")
    }
