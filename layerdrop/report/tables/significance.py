"""Whether rows differ from the full model, by paired tests on the predictions of each seed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pandas as pd

from layerdrop.analysis.significance import LEVEL, Comparison, compare_systems, holm
from layerdrop.report.model_results import ModelResults, model_results, task_name
from layerdrop.report.records import some
from layerdrop.report.table_row import TableRow
from layerdrop.report.tables.base import MISSING, Table, place, rows_of
from layerdrop.runs.predictions import read_predictions
from layerdrop.runs.record import RunRecord
from layerdrop.system.text import one_line


def significance_tables(
    runs: pd.DataFrame, tasks: list[str] | None = None, correct: bool = False, plain: bool = False
) -> list[Table]:
    """For each model: every row against the full model of the same seed. Classification: McNemar's test; regression: a
    paired bootstrap interval of the difference in Pearson's r. correct: Holm's correction for all tests of a table.
    plain: training variants only, each against the plain run of its strategy and K. A table without a row is left out,
    unless there is no other."""
    made = []
    for results in model_results(runs):
        wanted = results.columns(tasks)
        compared = [row for row in rows_of(results) if (row.variant if plain else not row.is_full)]
        base = {row: row.plain if plain else results.full(row) for row in compared}
        bad: dict[str, None] = {}
        tests = {(row, column): _tests(results, row, base[row], column, bad) for row in compared for column in wanted}
        n = sum(test.p is not None for cell in tests.values() for test in cell)
        if correct:
            tests = _corrected(tests)
        verdicts = {cell: Verdict.of(found) for cell, found in tests.items()}
        rows = [[*row.words, *(verdicts[row, column].words for column in wanted)] for row in compared]
        values = [
            place(results, row) | {"task": column} | dataclasses.asdict(verdict)
            for (row, column), verdict in verdicts.items()
        ]
        header = ["strategy", "K", *map(task_name, wanted)]
        notes = [_note(n, correct, plain)] + [f"Unreadable predictions: {some(list(bad))}."] * bool(bad)
        made.append(Table("significance", f"{results.title}: significance", header, rows, notes, values))
    return [table for table in made if table.rows] or made[:1]


@dataclass(frozen=True)
class Verdict:
    """The tests of a row on a task, one for each seed."""

    seeds: int
    worse: int
    """Seeds at which it is significantly worse than its reference."""
    better: int
    lowest_p: float | None
    """Over seeds; None where no test has one."""
    highest_p: float | None

    @classmethod
    def of(cls, tests: list[Comparison]) -> Verdict:
        """One for each seed that has the predictions of both."""
        worse = sum(test.significant and test.difference < 0 for test in tests)
        better = sum(test.significant and test.difference > 0 for test in tests)
        p = [test.p for test in tests if test.p is not None]
        return cls(len(tests), worse, better, min(p, default=None), max(p, default=None))

    @property
    def words(self) -> str:
        """For a person: `1 worse of 3 (p 0.002 to 0.4)`."""
        if not self.seeds:
            return MISSING
        marks = [f"{n} {word}" for n, word in ((self.worse, "worse"), (self.better, "better")) if n]
        p = ""
        if self.lowest_p is not None:
            ends = dict.fromkeys(f"{p:.2g}" for p in (self.lowest_p, self.highest_p))
            p = f" (p {' to '.join(ends)})"
        return f"{', '.join(marks) or 'none'} of {self.seeds}{p}"


def _tests(results: ModelResults, row: TableRow, base: TableRow, column: str, bad: dict[str, None]) -> list[Comparison]:
    """A comparison for each seed with predictions of both rows for the same examples. bad: collects read errors."""
    ours, theirs = (
        {record.spec.seed: record for record in results.runs_of(one, [column])["record"]} for one in (row, base)
    )
    pairs = []
    for seed in sorted(ours.keys() & theirs.keys()):
        try:
            pairs.append(compare_predictions(theirs[seed], ours[seed]))
        except ValueError as error:
            bad[one_line(str(error))] = None
    return [pair for pair in pairs if pair is not None]


def _corrected(tests: dict[tuple[TableRow, str], list[Comparison]]) -> dict[tuple[TableRow, str], list[Comparison]]:
    """The same with p values that are adjusted for all of them."""
    where = [(cell, i) for cell, found in tests.items() for i, test in enumerate(found) if test.p is not None]
    adjusted = dict(zip(where, holm([tests[cell][i].p for cell, i in where]), strict=True))

    def corrected(test: Comparison, p: float | None) -> Comparison:
        return test if p is None else dataclasses.replace(test, p=p, significant=p < LEVEL)

    return {
        cell: [corrected(test, adjusted.get((cell, i))) for i, test in enumerate(found)]
        for cell, found in tests.items()
    }


def _note(n: int, correct: bool, plain: bool) -> str:
    base = "plain run of the same strategy, K and seed" if plain else "full model of the same seed"
    tests = (
        f"Against the {base}, on the development set. McNemar's test (exact below 25 "
        "disagreements), for regression a paired bootstrap of the difference in Pearson's r: of how many seeds how "
        f"many are significantly worse or better at p = {LEVEL}, and the lowest and highest p of these seeds."
    )
    if correct:
        return f"{tests} p values are Holm's, for the {n} tests of this table."
    by_chance = f": of {n} tests without any difference about {LEVEL * n:.1f} would be significant" if n > 1 else ""
    return f"{tests} Without a correction for several tests{by_chance}; --holm makes it."


def compare_predictions(first: RunRecord, second: RunRecord) -> Comparison | None:
    """The second run against the first, on the (matched) development set; None if predictions are missing or for
    different examples. Raises ValueError for unreadable predictions."""
    a, b = read_predictions(first.folder), read_predictions(second.folder)
    if a is None or b is None or a[:2] != b[:2]:
        return None
    return compare_systems(a[2], b[2], a[1], regression="pearson" in first.metrics)
