"""Number of layers that can be dropped within a maximum loss, as Sajjad et al.'s Table 4."""

from collections.abc import Sequence
from typing import Any

from layerdrop.report.published import published_tolerance
from layerdrop.report.table import Table
from layerdrop.system.text import short_name


def tolerance_table(tasks: Sequence[Any], compare: bool = False) -> Table:
    """One row for each task and threshold: K, its loss on both halves, the tried K.

    tasks: layerdrop.analysis.choose_k.TaskTolerance. compare: show published figures.
    """
    header = ["task", "max loss", "K", "loss, selection half", "loss, other half", "K tried", *["published"] * compare]
    title = f"{tasks[0].model}: layers that can be dropped by {tasks[0].strategy}"
    table = Table("tolerance", title, header, notes=_notes(tasks))
    published = published_tolerance() if compare else {}
    for task in tasks:
        name = short_name(task.model)
        short = name.removesuffix("-uncased").removesuffix("-cased")
        for tolerance in task.tolerances:
            on = [task.loss_at(tolerance.k, half) for half in (0, 1)]
            value = {"model": name, "task": task.name, "max_loss": tolerance.max_loss, "k": tolerance.k}
            value |= {"loss_chosen_on": on[0], "loss_reported": on[1], "tried": len(tolerance.tried)}
            row = [task.name, f"{tolerance.max_loss:g}", str(tolerance.k), f"{on[0]:.2f}", f"{on[1]:.2f}"]
            row.append(" ".join(map(str, tolerance.tried)))
            if compare:
                theirs = published.get((short, task.name, tolerance.max_loss))
                row.append(f"K = {theirs[0]}, {theirs[1]:.2f}" if theirs else "")
                value |= {"published_k": theirs and theirs[0], "published_loss": theirs and theirs[1]}
            table.rows.append(row)
            table.values.append(value)
    return table


def _notes(tasks: Sequence[Any]) -> list[str]:
    settings = tasks[0].settings
    unit = "percent of the full model's score" if settings.percent else "points"
    seeds = f"{len(settings.seeds)} seed{'s' * (len(settings.seeds) > 1)}"
    notes = [
        f"Losses in {unit}, median over {seeds}. K is chosen on one half of the validation set. The loss on "
        "the other half is unbiased."
    ]
    if not all(task.exhaustive for task in tasks):
        notes.append("By bisection, which assumes that the loss grows with K. Add --exhaustive to try every K.")
    for task in (task for task in tasks if task.finetuned):
        on = [f"{task.loss_finetuned(half):.2f}" for half in (0, 1)]
        k = task.tolerances[-1].k
        notes.append(f"{task.name}: K = {k} fine-tuned once more loses {on[0]} (selection half), {on[1]} (other half).")
    for task in tasks:
        smaller = next((a.exceptions for a in reversed(task.tolerances) if a.exceptions), [])
        if smaller:
            notes.append(f"{task.name}: a larger K loses less than K = {', '.join(map(str, smaller))}.")
    for task in tasks:
        numbers = {
            k: [n for record in records for n in record.constant_predictions("validation").values()]
            for k, records in sorted(task.known.items())
        }
        constant = [f"K = {k} ({len(of)} of {len(task.known[k])} seeds)" for k, of in numbers.items() if of]
        nearly = ", or nearly one," if max((n for of in numbers.values() for n in of), default=1) > 1 else ""
        if constant:
            notes.append(
                f"{task.name}: one prediction{nearly} for every row at {', '.join(constant)}. This loss reflects only "
                "the label frequencies."
            )
    return notes
