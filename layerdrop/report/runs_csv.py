"""A line of csv for each run, for other tools and a paper's supplement."""

import numpy as np
import pandas as pd

from layerdrop.report.frame import metric_names

CSV_MARK = rb"\Aid,model,setting,task,strategy,k,"
"""At the start of every file of `runs_csv`."""


def runs_csv(runs: pd.DataFrame) -> str:
    """The runs of a frame. Metrics are in points, times in seconds, ids of layers from 0 and separated by spaces; empty
    where something was not measured, or is not defined."""
    records, words = runs["record"], runs["row"].map(lambda row: row.words)
    table = pd.DataFrame(
        {
            "id": records.map(lambda record: record.id),
            "model": runs["model"],
            "setting": runs["setting"],
            "task": runs["column"],
            "strategy": words.str[0],
            "k": words.str[1],
            "dropped": records.map(lambda record: " ".join(map(str, record.dropped))),
            "seed": runs["seed"],
            "precision": records.map(lambda record: record.spec.precision),
            **{name: runs[name] for name in metric_names(runs)},
            "parameters": runs["parameters"],
            "train_seconds": runs["train"],
            "inference_seconds": runs["inference"],
            "tokens_per_second": records.map(lambda record: record.tokens_per_second),
            **{name: runs[name] for name in ("device", "threads", "torch", "transformers", "commit")},
        }
    )
    return table.replace([np.inf, -np.inf], np.nan).to_csv(index=False, float_format="%.6g", lineterminator="\n")
