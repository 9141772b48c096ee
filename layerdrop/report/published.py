"""The papers' figures as a frame, so that they stand beside one's own and pass through the same tables."""

import csv
from pathlib import Path

import pandas as pd

from layerdrop.data.tasks import get_task
from layerdrop.errors import unknown
from layerdrop.report.frame import published_frame
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


def _rows(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def published(paper: str) -> pd.DataFrame:
    """The figures of `sajjad2023` (Tables 2, 5, 6 and 7) or `peer2022` (Table 1), seed 0. Raises UserError."""
    if paper not in NOTES:
        raise unknown("--compare", paper, NOTES)
    return published_frame(_sajjad2023() if paper == "sajjad2023" else _peer2022())


VARIANTS = {
    "Vanilla-KD": ("bert-base", "distill-logits"),
    "BERT-PKD": ("bert-base", "distill-patient"),
    "BERT-of-Theseus": ("bert-base", "finetuned, theseus"),
    "BERT-FT-6": ("bert-base", "finetuned"),
    "XLNet-FT-6": ("xlnet-base", "finetuned"),
}
"""Rows of Sajjad et al.'s Tables 6 and 7 without the top six layers -> model, RunSpec.variants."""


def _sajjad2023() -> list[dict]:
    found = []
    for file in ("sajjad2023_table2_top_dropping.csv", "sajjad2023_table5_albert.csv"):
        for row in _rows(file):
            k = int(row["dropped"])
            found.append(_sajjads_cell(row["model"], TableRow("top", k) if k else TableRow(), row))
    for file in ("sajjad2023_table6_distilled_models.csv", "sajjad2023_table7_finetuned_first.csv"):
        for row in _rows(file):
            if row["model"] in VARIANTS:
                model, variant = VARIANTS[row["model"]]
                found.append(_sajjads_cell(model, TableRow("top", 6, variant=variant), row))
    return found


def _sajjads_cell(model: str, row: TableRow, line: dict[str, str]) -> dict:
    task = get_task(line["task"])
    metric = task.recorded(task.metrics[0])
    return {"model": MODELS[model], "row": row, "task": task.name, "metrics": {metric: float(line["score"]) / 100}}


def _peer2022() -> list[dict]:
    cells: dict[tuple, dict[str, float]] = {}
    for line in _rows("peer2022_table1_greedy.csv"):
        if line["task"] == "glue":
            continue
        k = int(line["dropped"])
        row = TableRow(line["method"], k) if k else TableRow()
        metric = get_task(line["task"]).recorded(line["metric"])
        cells.setdefault((MODELS[line["base"]], row, line["task"]), {})[metric] = float(line["score"]) / 100
    return [
        {"model": model, "row": row, "task": task, "metrics": metrics} for (model, row, task), metrics in cells.items()
    ]


COST_NAMES = {"bert": "bert-base", "xlnet": "xlnet-base", "distilbert": "distilbert-base", "roberta": "roberta-base"}
"""Model type -> the paper's short name."""


def published_cost(paper: str, model_type: str) -> dict[int, dict[str, str]]:
    """Number of dropped layers -> a title and the words of its cell: Sajjad et al.'s Table 3, Peer et al.'s Table 2
    (ratios to their full model). Empty for a model that is not there. Raises UserError."""
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
    rows = {line["model"]: line for line in _rows("peer2022_table2_cost.csv")}
    names = {"bert": "BERT", "roberta": "RoBERTa"}
    if model_type not in names:
        return {}
    full = rows[names[model_type]]
    return {
        k: {
            f"published {where.upper()} inference ratio": f"{float(line[key]) / float(full[key]):.2f}"
            for where, key in (("cpu", "cpu_inference_s"), ("gpu", "gpu_inference_s"))
        }
        for k, line in ((0, full), (6, rows[f"{names[model_type]} top-6"]))
    }
