"""Number of layers that can be dropped within a maximum loss, as Sajjad et al.'s Table 4."""

from collections.abc import Sequence
from typing import Any

from layerdrop.report.published import published_tolerance
from layerdrop.report.table import Table
from layerdrop.system.text import short_name

TRIED = "K tried: loss, selection half"


def tolerance_table(tasks: Sequence[Any], compare: bool = False) -> Table:
    """One row for each task and threshold: K, its loss on both halves, the tried K.

    tasks: layerdrop.analysis.choose_k.TaskTolerance. compare: show published figures.
    """
    header = ["task", "max loss", "K", "loss, selection half", "loss, other half", TRIED, *["published"] * compare]
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
            value |= {"metric": task.metric, "full_chosen_on": task.full_score(0), "full_reported": task.full_score(1)}
            value |= {"rows_chosen_on": task.n_rows(0), "rows_reported": task.n_rows(1)}
            row = [task.name, f"{tolerance.max_loss:g}", str(tolerance.k), f"{on[0]:.2f}", f"{on[1]:.2f}"]
            row.append(", ".join(f"{k}: {task.loss_at(k, 0):.2f}" for k in tolerance.tried))
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
    notes += [_full_model(task) for task in tasks]
    notes += [note for task in tasks for note in (_undertrained(task), _imprecise(task)) if note]
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
        nearly = ", or nearly the same," if max((n for of in numbers.values() for n in of), default=1) > 1 else ""
        if constant:
            notes.append(
                f"{task.name}: the same prediction{nearly} for every row at {', '.join(constant)}. This loss reflects "
                "only the label frequencies."
            )
    return notes


def _full_model(task: Any) -> str:
    scores = [f"{task.full_score(i):.2f} on {task.n_rows(i)} rows ({('selection', 'other')[i]} half)" for i in (0, 1)]
    note = f"{task.name}: {task.metric} of the full model is {', '.join(scores)}."
    if task.elastic:
        note += (
            " This is the full model of the elastic training. A separate full model can score higher: compare it by "
            "the same command without --drop_when."
        )
    return note


def _undertrained(task: Any) -> str | None:
    """A note if reduced models are better than the full model by more than the standard error of the difference."""
    gains = {k: -task.loss_at(k, None) for k in sorted(task.known) if k}
    better = [k for k, gain in gains.items() if gain > 0 and gain > task.standard_error(k, None)]
    if not better:
        return None
    k = max(better, key=lambda k: gains[k])
    return (
        f"{task.name}: the full model may be undertrained. Train for more epochs. On all rows, K = {k} is better by "
        f"{gains[k]:.2f} (standard error {task.standard_error(k, None):.2f})."
    )


def _imprecise(task: Any) -> str | None:
    """A note if --max_loss is below one standard error on the selection half: at K, or at the smallest tried K."""
    below = {}
    for tolerance in task.tolerances:
        k = tolerance.k or tolerance.tried[0]
        error = task.standard_error(k, 0)
        if abs(tolerance.max_loss) < error:
            below[f"{tolerance.max_loss:g}"] = f"{error:.2f} at K = {k}"
    if not below:
        return None
    errors = ", ".join(dict.fromkeys(below.values()))
    return (
        f"{task.name}: --max_loss {' '.join(below)} is below one standard error of the loss on the {task.n_rows(0)} "
        f"rows of the selection half ({errors}). Use more validation rows, or a larger --max_loss."
    )
