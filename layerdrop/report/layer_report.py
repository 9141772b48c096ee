"""Tables and figures of the analyses of layers: one function for each analysis.

`results` holds the values of each model and task by its label. `means` names the labels whose mean is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib.pyplot as plt

from layerdrop.report.figures import Series, heat, lines
from layerdrop.report.table import Table

THRESHOLDS = (0.95, 0.925, 0.9)
"""Thresholds of the contribution: Sajjad et al. (2023), Section 3."""
Values = Mapping[str, Mapping[str, Any]]
"""Label -> values of an analysis."""
Means = Mapping[str, Iterable[str]]
"""Label of a mean -> labels of its rows."""
Report = tuple[list[Table], dict[str, plt.Figure]]
"""Tables, and figures by name."""


# ---- labels ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class AnalyzedModel:
    """A model, and the task whose texts it reads."""

    model: str
    training: str
    """How a run has trained the model (`fine-tuned`, `top, K = 6`); empty for other checkpoints."""
    task: str
    folder: str
    """Name of the model's folder."""

    @property
    def parts(self) -> tuple[str, str, str]:
        """(model, training, task)."""
        return self.model, self.training, self.task


def labels(models: Sequence[AnalyzedModel]) -> list[str]:
    """Label each model with the parts in which it differs from the others; with its folder if all parts are equal."""
    all_parts = [entry.parts for entry in models]
    several_models, several_trainings, several_tasks = (len(set(values)) > 1 for values in zip(*all_parts, strict=True))
    names = []
    for entry in models:
        model = entry.model if several_models or several_trainings or not several_tasks else ""
        parts = [model, entry.training if several_trainings else ""]
        if all_parts.count(entry.parts) > 1:
            parts = [entry.folder]
        names.append(_joined(*parts, entry.task if several_tasks else "") or entry.model)
    return names


def means(models: Sequence[AnalyzedModel]) -> dict[str, list[str]]:
    """Label of a mean -> labels of its rows, for each model that is analyzed on several tasks, once on each."""
    all_parts, groups = [entry.parts for entry in models], {}
    for entry, label in zip(models, labels(models), strict=True):
        if all_parts.count(entry.parts) == 1:
            groups.setdefault(_joined(entry.model, entry.training), []).append(label)
    return {"mean" if len(groups) == 1 else f"{name}, mean": of for name, of in groups.items() if len(of) > 1}


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _with_means(rows: Mapping[str, Series], means: Means) -> dict[str, Series]:
    return dict(rows) | {
        name: [None if None in values else fmean(values) for values in zip(*(rows[label] for label in of), strict=True)]
        for name, of in means.items()
    }


# ---- tables ----------------------------------------------------------------------------------------------------------
def _by_layer(
    kind: str,
    title: str,
    rows: Mapping[str, Series],
    columns: Iterable[object],
    notes: Iterable[str] = (),
    first: str = "layer",
) -> Table:
    """A row of numbers for each name. first: heading of the names."""
    table = Table(kind, title, [first, *map(str, columns)], notes=list(notes))
    for name, values in rows.items():
        table.rows.append([name, *("" if v is None else f"{v:.4g}" for v in values)])
        cells = zip(columns, values, strict=True)
        table.values += [{"title": title, "row": name, "column": column, "value": value} for column, value in cells]
    return table


def _orders(title: str, orders: Mapping[str, Sequence[int]]) -> Table:
    """The order of dropping by each criterion."""
    rows = [[name, " ".join(map(str, order))] for name, order in orders.items()]
    values = [{"title": title, "criterion": name, "order": order} for name, order in rows]
    return Table("orders", title, ["criterion", "order of dropping"], rows, values=values)


def _agreement(title: str, orders: Mapping[str, Sequence[int]]) -> Table:
    """Kendall's tau of every two orders: 1 for equal, 0 for unrelated, -1 for opposite orders."""
    from scipy.stats import kendalltau

    places = {name: [list(order).index(i) for i in sorted(order)] for name, order in orders.items()}
    table = Table("agreement", title, ["Kendall's tau", *places])
    for a in places:
        taus = {b: float(kendalltau(places[a], places[b]).statistic) for b in places}
        table.rows.append([a, *(f"{tau:.2f}" for tau in taus.values())])
        table.values += [{"title": title, "criterion": a, "other": b, "tau": tau} for b, tau in taus.items()]
    return table


def _points(ids: Iterable[int]) -> list[int | str]:
    return ["emb" if i < 0 else i for i in ids]


# ---- analyses --------------------------------------------------------------------------------------------------------
def scores(results: Values, means: Means) -> Report:
    """results: `scores`: criterion -> one score for each layer; `orders`: criterion -> all layers in order of dropping;
    `notes`."""
    tables, figures = [], {}
    for label, values in results.items():
        orders, n = values["orders"], len(next(iter(values["orders"].values())))
        title = f"{label}: scores"
        tables.append(_by_layer("scores", title, values["scores"], range(n), values["notes"], "criterion"))
        tables += [_orders(f"{label}: orders", orders), _agreement(f"{label}: agreement", orders)]
        places = [[order.index(i) for i in range(n)] for order in orders.values()]
        panel = {f"{label}: rank in the order of dropping (dark is last)": places}
        figures[label] = heat(panel, "layer", "", names=list(orders))
    return tables, figures


def probe(results: Values, means: Means) -> Report:
    """results: `scores`: one score for the embeddings and one for each layer; `token`."""
    token, rows = next(iter(results.values()))["token"], {}
    for label, values in results.items():
        rows[label] = [None if score is None else 100 * score for score in values["scores"]]
    features = {"sentence": "the states of the sentence token", "mean": "the mean state of all tokens"}[token]
    rows = _with_means(rows, means)
    ids = range(-1, len(next(iter(rows.values()))) - 1)
    note = (
        f"Logistic or ridge regression on {features}; regularization chosen on 15% of the training "
        "set; points on the validation set: F1 for MRPC and QQP, Spearman for STS-B and numbers, Matthews for "
        "CoLA, micro F1 for several labels, else accuracy."
    )
    table = _by_layer("probe", "probe: score after each layer", rows, _points(ids), [note])
    return [table], {"layers": lines({name: (ids, values) for name, values in rows.items()}, "score of a probe")}


def drift(results: Values, means: Means) -> Report:
    """results: `ids`: -1 for the embeddings, then layers; `mean`, `spread`, `sentence`: one value for each id."""
    tables = []
    for label, values in results.items():
        rows = {kind: row for kind, row in values.items() if kind != "ids"}
        title = f"{label}: cosine of the states before and after fine-tuning"
        tables.append(_by_layer("drift", title, rows, _points(values["ids"])))
    series = {label: (values["ids"], values["mean"]) for label, values in results.items()}
    ids = next(iter(results.values()))["ids"]
    if len(results) > 1 and all(values["ids"] == ids for values in results.values()):
        rows = _with_means({label: values["mean"] for label, values in results.items()}, means)
        tables.append(_by_layer("drift", "cosine before and after fine-tuning, all models", rows, _points(ids)))
        series = {name: (ids, values) for name, values in rows.items()}
    spread = {label: values["spread"] for label, values in results.items()}
    return tables, {"layers": lines(series, "cosine before, after", spread=spread, shade_below=0.7)}


def profile(results: Values, means: Means) -> Report:
    """results: `sentence`, `tokens`, `variance`, `aggregation`: one value for each layer."""
    tables = []
    for label, values in results.items():
        notes = []
        for kind, where in (("sentence", "at the sentence token"), ("tokens", "over all tokens")):
            above = {t: [i for i, value in enumerate(values[kind]) if value > t] for t in THRESHOLDS}
            words = "; ".join(f"{t}: {' '.join(map(str, ids)) or 'none'}" for t, ids in above.items())
            notes.append(f"Layers with a cosine {where} above a threshold: {words}.")
        tables.append(_by_layer("profile", f"{label}: profile", values, range(len(values["sentence"])), notes))
    words = {"sentence": "similarity, sentence token", "tokens": "similarity, all tokens"}
    figures = {
        kind: lines(
            {label: (range(len(values[kind])), values[kind]) for label, values in results.items()},
            words.get(kind, kind),
            levels=THRESHOLDS if kind in words else (),
        )
        for kind in ("sentence", "tokens", "variance", "aggregation")
    }
    return tables, figures


def similarity(results: Values, means: Means) -> Report:
    """results: `cosine`, `cka`: a row for each point; `blocks`: in row K - 1, the angle across each block of K."""
    tables, figures = [], {}
    for label, values in results.items():
        n = len(values["cka"]) - 1
        points = _points(range(-1, n))
        for kind, words in (("cosine", "mean cosine"), ("cka", "linear CKA")):
            rows = {str(point): row for point, row in zip(points, values[kind], strict=True)}
            tables.append(_by_layer(kind, f"{label}: {words} of the states after each layer", rows, points))
        blocks = dict(enumerate(values["blocks"], 1))
        best = {k: min(range(len(row)), key=lambda i, row=row: (row[i], -i)) for k, row in blocks.items()}
        note = "Most redundant block: " + ", ".join(f"K = {k}: {i} to {i + k - 1}" for k, i in best.items()) + "."
        padded = {f"K = {k}": [*row, *[None] * (n - len(row))] for k, row in blocks.items()}
        title = f"{label}: angle across a block of K layers, by its first layer"
        tables.append(_by_layer("blocks", title, padded, range(n), [note]))
        panels = {"cosine": values["cosine"], "CKA": values["cka"]}
        figures[f"{label} states"] = heat(panels, "after layer", "after layer", names=points, columns=points)
        panel = {"angle across a block": values["blocks"]}
        figures[f"{label} blocks"] = heat(panel, "first layer", "K", names=range(1, n + 1))
    return tables, figures


REPORTS = {"scores": scores, "probe": probe, "drift": drift, "profile": profile, "similarity": similarity}
"""Analysis -> (results, means) -> Report."""
