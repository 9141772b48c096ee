"""Significance of the difference to the full model or another row, by paired tests on the predictions of each seed."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pandas as pd

from layerdrop.report.model_results import ModelResults, model_results, task_name
from layerdrop.report.records import shorten
from layerdrop.report.significance import (
    EXACT_BELOW,
    LEVEL,
    RESAMPLES,
    SMALLEST_P,
    Comparison,
    compare_systems,
    holm,
)
from layerdrop.report.table import Table
from layerdrop.report.table_row import TableRow
from layerdrop.report.tables.scores import MISSING
from layerdrop.runs.predictions import read_predictions
from layerdrop.runs.record import RunRecord
from layerdrop.system.text import one_line


def significance_tables(
    runs: pd.DataFrame,
    tasks: list[str] | None = None,
    correct: bool = False,
    plain: bool = False,
    against: str | None = None,
) -> list[Table]:
    """One table for each model: every row against the full model of the same seed.

    Classification: McNemar's test. Regression: paired bootstrap of the difference in Pearson's r. correct: apply Holm's
    correction to all tests of a table. plain: compare training variants, each with the plain run of its strategy and K.
    against: compare rows of other strategies, each with the row of this strategy and the same K, training and settings.
    A table without rows is left out, unless it is the only one.
    """
    tables = []
    for results in model_results(runs):
        columns = results.columns(tasks)
        base, title, partner = _base(results, plain, against)
        unreadable: dict[str, None] = {}
        tests = pd.DataFrame(
            [
                (row, column, test.difference, test.significant, test.p)
                for row, other in base.items()
                if other
                for column in columns
                for test in _tests(results, row, other, column, unreadable)
            ],
            columns=["row", "column", "difference", "significant", "p"],
        )
        tested = tests["p"].notna()
        if correct:
            tests.loc[tested, "p"] = holm(list(tests.loc[tested, "p"]))
            tests["significant"] = tests["p"].astype(float) < LEVEL
        table = Table("significance", f"{title}: significance", ["strategy", "K", *map(task_name, columns)])
        table.phrases = True
        kinds = [record.task.kind for row in base for record in results.records(row, columns) if record]
        table.notes = [_note(int(tested.sum()), correct, partner, {kind.correct_row for kind in kinds} - {""})]
        table.notes += [f"Not compared: {shorten(list(unreadable))}."] * bool(unreadable)
        for row, other in base.items():
            verdicts = {c: _verdict(tests[(tests["row"] == row) & (tests["column"] == c)]) for c in columns}
            table.rows.append([*row, *map(_words, verdicts.values())])
            place = results.place(row) | {"against": other and other.strategy}
            table.values += [place | {"task": c} | verdict for c, verdict in verdicts.items()]
        tables.append(table)
    return [table for table in tables if table.rows] or tables[:1]


def _base(results: ModelResults, plain: bool, against: str | None) -> tuple[dict[TableRow, TableRow | None], str, str]:
    """Row -> the row that it is tested against (None: no such row), the title of the table, and the legend's words."""
    if plain:
        plain_rows = dict(zip(results.runs["row"], results.runs["plain"], strict=True))
        base = {row: plain_rows[row] for row in results.rows if row.variant}
        return base, results.title, "plain run of the same strategy, K and seed"
    if against:
        base = {row: results.counterpart(row, against) for row in results.rows if row.name not in ("full", against)}
        words = f"run of {against} with the same K, seed, training variant and settings"
        return base, f"{results.title}, compared with {against}", words
    base = {row: results.full(row) for row in results.rows if not results.is_compared_with_itself(row)}
    return base, results.compared, "full model of the same seed"


def _verdict(tests: pd.DataFrame) -> dict[str, object]:
    """Summarize the tests of a cell, one for each seed: seeds, significantly worse and better seeds, range of p."""
    significant, p = tests["significant"].astype(bool), tests["p"].dropna()
    return {
        "seeds": len(tests),
        "worse": int((significant & (tests["difference"] < 0)).sum()),
        "better": int((significant & (tests["difference"] > 0)).sum()),
        "lowest_p": None if p.empty else float(p.min()),
        "highest_p": None if p.empty else float(p.max()),
    }


def _words(verdict: dict) -> str:
    """A verdict in words: `1 worse of 3 (p 0.002 to 0.4)`."""
    if not verdict["seeds"]:
        return MISSING
    counts = ", ".join(f"{verdict[word]} {word}" for word in ("worse", "better") if verdict[word])
    ends = dict.fromkeys(f"{verdict[end]:.2g}" for end in ("lowest_p", "highest_p") if verdict[end] is not None)
    return f"{counts or 'none'} of {verdict['seeds']}" + (f" (p {' to '.join(ends)})" if ends else "")


def _tests(
    results: ModelResults, row: TableRow, base: TableRow, column: str, unreadable: dict[str, None]
) -> Iterator[Comparison]:
    """Yield a comparison for each seed with predictions of both rows. unreadable: collects read errors."""
    ours, theirs = ({record.spec.seed: record for record in results.records(one, [column])} for one in (row, base))
    for seed in sorted(ours.keys() & theirs.keys()):
        try:
            if comparison := _compare(theirs[seed], ours[seed]):
                yield comparison
        except ValueError as error:
            unreadable[one_line(str(error))] = None


def _compare(first: RunRecord, second: RunRecord) -> Comparison | None:
    """Compare the second run with the first on the (matched) validation set. None if predictions are missing, or if the
    examples differ. Raises ValueError for unreadable predictions."""
    a, b = read_predictions(first.folder), read_predictions(second.folder)
    if a is None or b is None or a[:2] != b[:2]:
        return None
    try:
        return compare_systems(a[2], b[2], a[1], first.task.kind)
    except ValueError as error:
        raise ValueError(f"predictions of {first.folder} or {second.folder}: {error}") from error


def _note(n: int, correct: bool, partner: str, correct_rows: Collection[str] = ()) -> str:
    tests = (
        f"Against the {partner}, on the validation set. McNemar's test (exact below {EXACT_BELOW} disagreements), for "
        f"regression a paired bootstrap of the difference in Pearson's r ({RESAMPLES:,} resamples, so p is at least "
        f"{SMALLEST_P:.1g}). "
        + "".join(f"{sentence} " for sentence in sorted(correct_rows))
        + f"A cell has the number of seeds that are significantly worse or better at p = {LEVEL}, and the lowest and "
        "highest p of the seeds."
    )
    if correct:
        return f"{tests} p values are Holm's, for the {n} tests of this table."
    by_chance = f": among {n} tests without any difference, about {LEVEL * n:.1f} would be significant" if n > 1 else ""
    return f"{tests} Not corrected for multiple tests{by_chance}. Add --holm to correct the p values."
