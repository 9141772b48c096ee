"""Tables and pictures of the analyses of layers: one function for each analysis.

`found` holds the values of each model and task by its label. `means` names the labels whose mean is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib.pyplot as plt

from layerdrop.report.layer_figures import Series, heat, lines
from layerdrop.report.layer_tables import agreement, by_layer, orders
from layerdrop.report.tables.base import Table

THRESHOLDS = (0.95, 0.925, 0.9)
"""Of the contribution: Sajjad et al. (2023), Section 3."""
Values = Mapping[str, Mapping[str, Any]]
"""Label -> the values of an analysis."""
Report = tuple[list[Table], dict[str, plt.Figure]]
"""Tables, and pictures by name."""


# ---- labels ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class AnalysedModel:
    """A model and the task whose texts it is analysed on."""

    model: str
    training: str
    """How a run has trained it (`fine-tuned`, `top, K = 6`); empty for other checkpoints."""
    task: str
    folder: str
    """Name of the folder that the model lies in."""


def labels(named: Sequence[AnalysedModel]) -> list[str]:
    """For each the parts in which it differs from the others; where model, run and task are the same, its folder."""
    models, trainings, tasks = (
        len({getattr(one, part) for one in named}) > 1 for part in ("model", "training", "task")
    )
    of_all = [(one.model, one.training, one.task) for one in named]
    found = []
    for one in named:
        parts = [one.model if models or trainings or not tasks else "", one.training if trainings else ""]
        if of_all.count((one.model, one.training, one.task)) > 1:
            parts = [one.folder]
        found.append(_joined(*parts, one.task if tasks else "") or one.model)
    return found


def means(named: Sequence[AnalysedModel]) -> dict[str, list[str]]:
    """Label of a mean -> the labels of its rows: for each model that is analysed on several tasks, once on each."""
    of_all = [(one.model, one.training, one.task) for one in named]
    groups: dict[str, list[str]] = {}
    for one, label in zip(named, labels(named), strict=True):
        if of_all.count((one.model, one.training, one.task)) == 1:
            groups.setdefault(_joined(one.model, one.training), []).append(label)
    return {"mean" if len(groups) == 1 else f"{name}, mean": of for name, of in groups.items() if len(of) > 1}


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _with_means(rows: Mapping[str, Series], means: Mapping[str, Iterable[str]]) -> dict[str, Series]:
    return dict(rows) | {
        name: [None if None in values else fmean(values) for values in zip(*(rows[label] for label in of), strict=True)]
        for name, of in means.items()
    }


# ---- analyses --------------------------------------------------------------------------------------------------------
def scores(found: Values, means: Mapping[str, Iterable[str]]) -> Report:
    """found: `scores`: criterion -> one for each layer; `orders`: criterion -> every layer, first to go first;
    `notes`."""
    tables, figures = [], {}
    for label, values in found.items():
        order, n = values["orders"], len(next(iter(values["orders"].values())))
        tables.append(by_layer("scores", f"{label}: scores", values["scores"], range(n), values["notes"], "criterion"))
        tables += [orders(f"{label}: orders", order), agreement(f"{label}: agreement", order)]
        places = [[ids.index(i) for i in range(n)] for ids in order.values()]
        figures[label] = heat({f"{label}: place in the order (dark goes last)": places}, "layer", "", names=list(order))
    return tables, figures


def probe(found: Values, means: Mapping[str, Iterable[str]]) -> Report:
    """found: `scores`: one for each point from the embeddings on; `token`."""
    scores = {
        label: [None if score is None else 100 * score for score in values["scores"]] for label, values in found.items()
    }
    rows = _with_means(scores, means)
    points, token = range(-1, len(next(iter(rows.values()))) - 1), next(iter(found.values()))["token"]
    note = (
        f"Logistic or ridge regression on the {token} token's states; regularisation chosen on 15% of the training "
        "set; points on the development set: F1 for MRPC and QQP, Spearman for STS-B, Matthews for CoLA, else accuracy."
    )
    table = by_layer("probe", "probe: score behind each layer", rows, ["emb", *points[1:]], [note])
    return [table], {"layers": lines({name: (points, values) for name, values in rows.items()}, "score of a probe")}


def drift(found: Values, means: Mapping[str, Iterable[str]]) -> Report:
    """found: `ids`: -1 for the embeddings, then layers; `mean`, `spread`, `sentence`: one for each id."""
    tables = []
    for label, values in found.items():
        rows = {kind: row for kind, row in values.items() if kind != "ids"}
        title = f"{label}: cosine of the states before and after fine-tuning"
        tables.append(by_layer("drift", title, rows, _points(values["ids"])))
    series = {label: (values["ids"], values["mean"]) for label, values in found.items()}
    ids = next(iter(found.values()))["ids"]
    if len(found) > 1 and all(values["ids"] == ids for values in found.values()):
        rows = _with_means({label: values["mean"] for label, values in found.items()}, means)
        tables.append(by_layer("drift", "cosine before and after fine-tuning, side by side", rows, _points(ids)))
        series = {name: (ids, values) for name, values in rows.items()}
    spread = {label: values["spread"] for label, values in found.items()}
    return tables, {"layers": lines(series, "cosine before, after", spread=spread, shade_below=0.7)}


def _points(ids: Iterable[int]) -> list[int | str]:
    return ["emb" if i < 0 else i for i in ids]


def profile(found: Values, means: Mapping[str, Iterable[str]]) -> Report:
    """found: `sentence`, `tokens`, `variance`, `aggregation`: one for each layer."""
    tables = []
    for label, values in found.items():
        notes = []
        for kind in ("sentence", "tokens"):
            gone = {t: [i for i, value in enumerate(values[kind]) if value > t] for t in THRESHOLDS}
            said = "; ".join(f"{t}: {' '.join(map(str, ids)) or 'none'}" for t, ids in gone.items())
            notes.append(f"Similar above the threshold by {kind}: {said}.")
        tables.append(by_layer("profile", f"{label}: profile", values, range(len(values["sentence"])), notes))
    words = {"sentence": "similarity, sentence token", "tokens": "similarity, all tokens"}
    figures = {
        kind: lines(
            {label: (range(len(values[kind])), values[kind]) for label, values in found.items()},
            words.get(kind, kind),
            levels=THRESHOLDS if kind in words else (),
        )
        for kind in ("sentence", "tokens", "variance", "aggregation")
    }
    return tables, figures


def similarity(found: Values, means: Mapping[str, Iterable[str]]) -> Report:
    """found: `cosine`, `cka`: a row for each point; `blocks`: for K = 1, 2, ... the angle across each block of K."""
    tables, figures = [], {}
    for label, values in found.items():
        n = len(values["cka"]) - 1
        points = ["emb", *range(n)]
        for kind, words in (("cosine", "mean cosine"), ("cka", "linear CKA")):
            rows = {str(point): row for point, row in zip(points, values[kind], strict=True)}
            tables.append(by_layer(kind, f"{label}: {words} of the states behind each layer", rows, points))
        blocks = dict(enumerate(values["blocks"], 1))
        best = {k: min(range(len(row)), key=lambda i, row=row: (row[i], -i)) for k, row in blocks.items()}
        note = "Most redundant block: " + ", ".join(f"K = {k}: {i} to {i + k - 1}" for k, i in best.items()) + "."
        padded = {f"K = {k}": [*row, *[None] * (n - len(row))] for k, row in blocks.items()}
        title = f"{label}: angle across the block of K that begins at"
        tables.append(by_layer("blocks", title, padded, range(n), [note]))
        panels = {"cosine": values["cosine"], "CKA": values["cka"]}
        figures[f"{label} states"] = heat(panels, "behind layer", "behind layer", names=points, columns=points)
        figures[f"{label} blocks"] = heat(
            {"angle across a block": values["blocks"]}, "first layer", "K", names=range(1, n + 1)
        )
    return tables, figures


REPORTS = {"scores": scores, "probe": probe, "drift": drift, "profile": profile, "similarity": similarity}
"""Name of an analysis -> (found, means) -> Report."""
