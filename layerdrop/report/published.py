"""The papers' results as a frame, for the same tables as the user's own runs."""

import csv
from pathlib import Path

import pandas as pd

from layerdrop.errors import unknown
from layerdrop.report.frame import RUN_COLUMNS
from layerdrop.report.table_row import TableRow

FOLDER = Path(__file__).parent / "published"
NOTES = {
    "sajjad2023": (
        "Sajjad et al. (2023), Tables 2, 5, 6 (distillation and module replacing) and 7. Accuracy; STS-B: correlation "
        "x 100. The mean losses in their Table 3 cover seven tasks for BERT and XLNet, and five tasks (SST-2, MNLI, "
        "QNLI, QQP, STS-B) for RoBERTa at K = 4 and 6. Neither set gives the mean of RoBERTa at K = 2 (-0.42)."
    ),
    "peer2022": (
        "Peer et al. (2022), Table 1. F1 for MRPC and QQP, Spearman for STS-B, Matthews for CoLA. The mean GLUE score "
        "of BERT GLP-6 is 78.1 in Table 1 and 78.4 in Table 2."
    ),
}
COST_NAMES = {"bert": "bert-base", "xlnet": "xlnet-base", "distilbert": "distilbert-base", "roberta": "roberta-base"}
"""Model type -> the paper's short name."""


def published(paper: str) -> pd.DataFrame:
    """A frame of `sajjad2023` (Tables 2, 5, 6 and 7) or `peer2022` (Table 1), seed 0. Raises UserError."""
    if paper not in NOTES:
        raise unknown("--compare", paper, NOTES)
    scores = pd.read_csv(FOLDER / f"{paper}_scores.csv", dtype={"k": str}).query("task != 'glue'")
    place = ["model", "strategy", "k", "task"]
    cells = scores.pivot_table("score", place, "metric", sort=False).reset_index()
    cells["row"] = [TableRow(strategy, k) for strategy, k in zip(cells.pop("strategy"), cells.pop("k"), strict=True)]
    cells = cells.assign(column=cells["task"], setting="", seed=0)
    return cells.reindex(columns=[*RUN_COLUMNS, *scores["metric"].unique()])


def _rows(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def published_cost(paper: str, model_type: str) -> dict[int, dict[str, str]]:
    """Read Sajjad et al.'s Table 3 or Peer et al.'s Table 2 (ratios to the full model).

    Returns number of dropped layers -> column heading -> text of the cell. Empty for a model that is not in the table.
    Raises UserError."""
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
