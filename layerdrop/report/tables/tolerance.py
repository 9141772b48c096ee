"""How many layers can go within a loss, as Sajjad et al.'s Table 4."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from layerdrop.analysis.choose_k import TaskTolerance
from layerdrop.report.published import FOLDER
from layerdrop.report.tables.base import Table
from layerdrop.system.text import short_name


def tolerance_table(tasks: Sequence[TaskTolerance], compare: bool = False) -> Table:
    """For each task and threshold: K, its loss on both halves, the runs that it took. compare: the published figures
    beside."""
    rows, values = [], []
    published, settings = published_tolerance() if compare else {}, tasks[0].settings
    for task in tasks:
        name = short_name(task.model)
        short = name.removesuffix("-uncased").removesuffix("-cased")
        for tolerance in task.tolerances:
            on = [task.loss_at(tolerance.k, half) for half in (0, 1)]
            value = {"model": name, "task": task.name, "max_loss": tolerance.max_loss, "k": tolerance.k}
            value |= {"loss_chosen_on": on[0], "loss_reported": on[1], "tried": len(tolerance.tried)}
            theirs = published.get((short, task.name, tolerance.max_loss))
            row = [task.name, f"{tolerance.max_loss:g}", str(tolerance.k), f"{on[0]:.2f}", f"{on[1]:.2f}"]
            row.append(" ".join(map(str, tolerance.tried)))
            if compare:
                row.append(f"K = {theirs[0]}, {theirs[1]:.2f}" if theirs else "")
                value |= {"published_k": theirs and theirs[0], "published_loss": theirs and theirs[1]}
            rows.append(row)
            values.append(value)
    unit = "percent of the full model's score" if settings.percent else "points"
    seeds = f"{len(settings.seeds)} seed{'s' * (len(settings.seeds) > 1)}"
    notes = [
        f"Losses in {unit}, median over {seeds}. K is chosen on one half of the development set; its loss on the other "
        "half is what to expect.",
    ]
    if not settings.exhaustive:
        notes.append("By bisection, which assumes that the loss grows with K; --exhaustive tries every K.")
    odd = {t.name: a.exceptions for t in tasks for a in t.tolerances if a.exceptions}
    notes += [f"{name}: a larger K loses less than K = {', '.join(map(str, of))}." for name, of in odd.items()]
    for task in tasks:
        numbers = {
            k: [n for record in of for n in record.constant_predictions("validation").values()]
            for k, of in task.known.items()
        }
        constant = [f"K = {k} ({len(of)} of {len(task.known[k])} seeds)" for k, of in sorted(numbers.items()) if of]
        nearly = ", or nearly one," if max((n for of in numbers.values() for n in of), default=1) > 1 else ""
        if constant:
            notes.append(
                f"{task.name}: one prediction{nearly} for every row at {', '.join(constant)}. That loss says no more "
                "than the labels' shares do."
            )
    header = ["task", "may lose", "K", "loss, chosen on", "loss, other half", "K tried"]
    header += ["published"] * compare
    title = f"{tasks[0].model}: layers that can go by {tasks[0].strategy}"
    return Table("tolerance", title, header, rows, notes, values)


def published_tolerance() -> dict[tuple[str, str, float], tuple[int, float]]:
    """(model, task, threshold) -> (K, loss on the other half): Sajjad et al. (2023), Table 4."""
    with open(FOLDER / "sajjad2023_table4_layers_within_threshold.csv", encoding="utf-8", newline="") as file:
        return {
            (row["model"], row["task"], float(row["threshold_percent"])): (
                int(row["layers_dropped"]),
                float(row["holdout_loss_points"]),
            )
            for row in csv.DictReader(file)
        }
