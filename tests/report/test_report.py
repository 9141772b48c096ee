"""Tables against figures worked out by hand, and against the papers' own."""

import csv
import dataclasses
import io
import itertools
import math
import re
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from layerdrop.architectures import ModelSpec
from layerdrop.cli.command import run_command
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import TASKS
from layerdrop.errors import UserError
from layerdrop.finetune.spec import DistilSpec, TrainSpec, WhenSpec
from layerdrop.report import figures, table_row
from layerdrop.report.frame import frame
from layerdrop.report.html import page
from layerdrop.report.marks import marks_of, style_of
from layerdrop.report.model_results import model_results, summarize
from layerdrop.report.notes import BUSY_MARKED, busy, constant_predictions, mixtures, repeated, without_full_model
from layerdrop.report.published import FOLDER, published
from layerdrop.report.records import StoredRuns, failures, incomplete_notes, read_store
from layerdrop.report.runs_csv import read_runs_csv, runs_csv
from layerdrop.report.table import Table, render
from layerdrop.report.table_row import FULL, WORDS, TableRow
from layerdrop.report.tables.cost import cost_tables
from layerdrop.report.tables.exports import exports_table
from layerdrop.report.tables.scores import glue_tables, task_tables
from layerdrop.report.tables.significance import significance_tables
from layerdrop.runs.record import Cut, RunRecord
from layerdrop.runs.spec import RunSpec
from layerdrop.runs.summary import summary
from layerdrop.system.process import BUSY
from tests.running import write_table

LARGE = ["sst2", "mnli", "qnli", "qqp", "stsb"]


def record(
    task="rte", k=0, seed=1, strategy="top", accuracy=0.5, train=10.0, inference=1.0, recipe=TrainSpec(), **changes
):
    """A successful run; `changes` go to the parts of its spec."""
    row = {"strategy": strategy, "k": k} if k != 0 else {}
    given = {"name": "bert-base-uncased", "task": task, "source": "glue"} | row | changes
    parts = {}
    for part, kind in (("model", ModelSpec), ("data", DataSpec), ("drop", DropSpec), ("when", WhenSpec)):
        names = {field.name for field in dataclasses.fields(kind)} & given.keys()
        parts[part] = kind(**{name: given.pop(name) for name in names})
    spec = RunSpec(**parts, seed=seed, train=recipe, **given)
    metrics = accuracy if isinstance(accuracy, dict) else {"loss": 1.0, "accuracy": accuracy}
    made = RunRecord(
        spec, f"run_{spec.id}", "success", metrics=metrics, parameters_after=110_000_000 - 7_000_000 * (k or 0)
    )
    made.seconds = {"train": train, "inference": inference, "total": 20.0}
    made.environment = {"device": "X", "threads": 1, "versions": {"torch": "2", "transformers": "5"}}
    return made


def table_of(tables, **kwargs):
    (table,) = tables
    return {tuple(row[:2]): dict(zip(table.header[2:], row[2:], strict=True)) for row in table.rows}


def test_the_csv_keeps_all_digits_of_counts():
    """Also beside a run without the number."""
    runs = [record(), record(k=2)]
    runs[1].parameters_after = None
    rows = csv.DictReader(io.StringIO(runs_csv(frame(runs))))
    assert [(row["parameters"], row["seed"], row["threads"]) for row in rows] == [
        ("110000000", "1", "1"),
        ("", "1", "1"),
    ]


def test_medians_spread_and_differences_by_hand():
    runs = [record(seed=s, accuracy=a) for s, a in ((1, 0.60), (2, 0.66), (3, 0.62))]
    runs += [record(k=2, seed=s, accuracy=a) for s, a in ((1, 0.55), (2, 0.61))]
    runs += [record("cola", seed=1, accuracy={"matthews_correlation": 0.5, "accuracy": 0.8})]
    runs += [record("cola", k=2, seed=1, accuracy={"matthews_correlation": 0.3, "accuracy": 0.7})]
    runs += [record(k=4, seed=1, accuracy=0.5)]
    cells = table_of(task_tables(frame(runs)))
    assert cells["full", "0"]["RTE acc"] == "62.0 [60.0, 66.0]"
    assert cells["top", "2"]["RTE acc"] == "58.0 [55.0, 61.0] n=2 -5.0"  # seeds 1 and 2 of the full model: 63.0
    assert cells["top", "2"]["CoLA Matthews"] == "30.0 n=1 -20.0"
    assert cells["full", "0"]["mean"] == "56.0" and cells["top", "2"]["mean"] == "44.0"  # (62 + 50) / 2, (58 + 30) / 2
    assert cells["top", "2"]["difference"] == "-12.5"  # (-5 - 20) / 2
    assert cells["top", "4"]["CoLA Matthews"] == cells["top", "4"]["mean"] == "missing"
    only = table_of(task_tables(frame(runs), ["rte"]))
    assert set(only["top", "4"]) == {"RTE acc", "mean", "difference"} and only["top", "4"]["difference"] == "-10.0"


def test_differences_are_over_the_seeds_of_both():
    """A full model with fewer or other seeds, in every format. Seed 2 is a bad one."""
    runs = [record(seed=s, accuracy=a) for s, a in ((1, 0.6), (2, 0.2))]
    runs += [record(k=2, seed=s, accuracy=a) for s, a in ((2, 0.1), (3, 0.6), (4, 0.6))]
    runs += [record(k=4, seed=3, accuracy=0.5)]
    tables = [*task_tables(frame(runs)), *glue_tables(frame(runs))]
    cells = table_of(tables[:1])
    assert cells["top", "2"] == {"RTE acc": "60.0 [10.0, 60.0] -10.0", "mean": "60.0", "difference": "-10.0"}
    assert cells["top", "4"]["RTE acc"] == "50.0 n=1 +10.0 (other seeds)"
    assert cells["top", "4"]["difference"] == "+10.0 (other seeds)"
    assert "difference to the full model over the seeds of both" in tables[0].notes[0]
    shares = table_of(tables[1:])
    assert [shares["top", k]["of the full model"] for k in ("2", "4")] == ["50.0%", "125.0% (other seeds)"]
    assert tables[1].notes[0].endswith("Last column: percent of the full model's mean over the seeds of both.")
    assert glue_tables(frame([record()]))[0].notes[0].endswith("percent of the full model's mean.")
    seeds = [(value["task"], value["difference_seeds"]) for value in tables[0].values]
    assert seeds == [("rte", None), ("mean", None), ("rte", 1), ("mean", 1), ("rte", 0), ("mean", 0)]


def test_the_difference_of_means_has_the_fewest_seeds_of_its_tasks():
    runs = [record(seed=s) for s in (1, 2)] + [record(k=2, seed=s) for s in (1, 2)]
    runs += [record("sst2"), record("sst2", k=2, seed=3)]
    (table,) = task_tables(frame(runs))
    assert table.values[-1]["difference_seeds"] == 0 and table.rows[-1][-1] == "+0.0 (other seeds)"


def test_a_repeated_seed_counts_as_often_as_in_the_median():
    """Seed 1 of the full model ran twice: the median of 40, 50 and 90 is 50."""
    runs = [record(seed=s, accuracy=a) for s, a in ((1, 0.4), (1, 0.5), (2, 0.9))]
    cells = table_of(task_tables(frame([*runs, *(record(k=2, seed=s, accuracy=0.3) for s in (1, 2))])))
    assert cells["full", "0"]["mean"] == "50.0" and cells["top", "2"]["difference"] == "-20.0"


def test_the_work_grows_with_the_rows(monkeypatch):
    """Three times as many table rows need three times as many calls of functions, and each row is parsed once."""

    def work(n):
        sets = [ids for k in range(1, 7) for ids in itertools.combinations(range(12), k)][:n]
        runs = frame([record(), *(record(k=None, strategy="list", layers=ids) for ids in sets)])
        events = Counter()
        words = SimpleNamespace(fullmatch=lambda text: events.update(["parsed"]) or WORDS.fullmatch(text))
        monkeypatch.setattr(table_row, "WORDS", words)
        sys.setprofile(lambda _, event, __: events.update([event]))
        try:
            task_tables(runs)
            cost_tables(runs)
            without_full_model(runs)
        finally:
            sys.setprofile(None)
        return events["call"], events["parsed"]

    (few, _), (many, parsed) = work(50), work(150)
    assert many < 3.3 * few and parsed < 155


def elastic_runs(scores=((0, 0.8), (2, 0.7), (4, 0.5))):
    """The runs of one elastic training: (K, accuracy)."""
    start = record(elastic_k=(2, 4)).spec
    return [record(k=k, recipe=None, start=start, accuracy=a, inference=6.0 - k) for k, a in scores]


def test_one_elastic_training_is_compared_with_its_own_full_model(tmp_path, capsys):
    """In tables, figures, notes, and on the page. With a plain full model, that one is compared with."""
    for run in elastic_runs():
        run.prerequisites = {"trainings": 1, "steps": 1, "seconds": 20.0}
        run.folder = str(tmp_path / "store" / run.spec.id)
        run.write()
    words = [str(tmp_path / "store"), "--html", str(tmp_path / "p.html")]
    assert run_command("report", [*words, "--table", "tasks", "glue", "cost", "significance"]) == 0
    out, err = capsys.readouterr()
    title = "bert-base-uncased, compared with full, elastic"
    assert [line for line in out.splitlines() if line.startswith("#")] == [
        f"### {title}{kind}" for kind in ("", ": GLUE", ": cost", ": significance")
    ]
    assert f"no plain full model (K = 0 without a training variant): {title}" in err and "no full model" not in err
    assert title in (tmp_path / "p.html").read_text()
    runs = frame(elastic_runs())
    cells = table_of(task_tables(runs))
    assert list(cells) == [("full, elastic", "0"), ("top, elastic", "2"), ("top, elastic", "4")]
    assert [cell["RTE acc"] for cell in cells.values()] == ["80.0", "70.0 -10.0", "50.0 -30.0"]
    assert [cell["difference"] for cell in cells.values()] == ["", "-10.0", "-30.0"]
    assert table_of(glue_tables(runs))["top, elastic", "4"]["of the full model"] == "62.5%"
    assert table_of(cost_tables(runs))["top, elastic", "4"]["inference time"] == "-67%"
    assert [row[0] for row in significance_tables(runs)[0].rows] == ["top, elastic"] * 2
    for flags, said in ((["--plain", "--table", "significance"], False), (["--table", "significance"], True)):
        assert run_command("report", [words[0], *flags]) == 0
        assert ("no plain full model" in capsys.readouterr().err) == said
    figure = figures.strategies(model_results(runs)[0], ["rte"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["top, elastic", "full, elastic"]
    figures.plt.close("all")

    again = record(k=4, start=record(elastic_k=(2, 4)).spec, accuracy=0.9)
    cells = table_of(task_tables(frame([*elastic_runs(), again])))
    assert cells["top, elastic-finetuned", "4"]["difference"] == "+10.0" and ("full", "0") not in cells
    (table,) = task_tables(both := frame([record(accuracy=0.9), *elastic_runs()]))
    assert table.title == "bert-base-uncased" and without_full_model(both) == []
    assert [row[-1] for row in table.rows] == ["", "-10.0", "-20.0", "-40.0"]
    (table,) = task_tables(mixed := frame([record(k=2), *elastic_runs()]))
    assert [row[-1] for row in table.rows] == ["", "", "", "-10.0", "-30.0"]  # full is missing, full, elastic ...
    assert table.rows[0][:3] == ["full", "0", "missing"] and len(without_full_model(mixed)) == 2
    assert [row[0] for row in significance_tables(mixed)[0].rows] == ["top", "top, elastic", "top, elastic"]


def test_a_variant_without_a_plain_full_model_is_compared_with_its_own_settings():
    """Two elastic trainings and a distillation; LayerDrop has no K = 0."""
    other = record(elastic_k=(2,)).spec
    runs = elastic_runs() + [record(k=k, recipe=None, start=other, accuracy=0.4 - 0.1 * k) for k in (0, 2)]
    runs += [record(k=k, accuracy=0.3 - 0.01 * k, distil=DistilSpec("logits", teacher="t")) for k in (0, 2)]
    runs += [record(k=2, recipe=TrainSpec(layerdrop_rate=0.2))]
    (table,) = task_tables(frame(runs))
    found = {(row[0], row[1]): row[-1] for row in table.rows}
    assert found["top, elastic (elastic_k 2,4)", "2"] == "-10.0" and found["top, elastic (elastic_k 2)", "2"] == "-20.0"
    assert found["top, distill-logits", "2"] == "-2.0" and found["top, layerdrop", "2"] == ""
    assert table.title == "bert-base-uncased, each row compared with K = 0 of its own training"
    (table,) = task_tables(frame([run for run in runs if not run.spec.distil]))
    names = "full, elastic (elastic_k 2) and full, elastic (elastic_k 2,4)"
    assert table.title == f"bert-base-uncased, compared with {names}"


def differences(runs, rows=()):
    """The title of the only table, `strategy K` -> difference in points, and the notes on full models."""
    (table,) = task_tables(found := frame(runs, rows))
    return table.title, {f"{row[0]} {row[1]}": row[-1] for row in table.rows}, without_full_model(found)


def test_a_row_that_is_finetuned_again_is_no_other_full_model():
    """`--drop_when elastic --finetune_again` gives K = 0 of the elastic training, and the same fine-tuned again."""
    again = [record(k=k, start=record(elastic_k=(2, 4)).spec, accuracy=a) for k, a in ((0, 0.85), (4, 0.75))]
    title, found, notes = differences([*again, *elastic_runs()])
    assert title == "bert-base-uncased, compared with full, elastic"
    assert found == {
        **{"full, elastic 0": "", "full, elastic-finetuned 0": "+5.0"},
        **{"top, elastic 2": "-10.0", "top, elastic 4": "-30.0", "top, elastic-finetuned 4": "-5.0"},
    }
    assert len(notes) == 1 and "no plain full model" in notes[0]


def test_dropping_after_the_training_has_the_same_full_model():
    """With and without LayerDrop: `full, after` has the weights of `full`."""
    for recipe, words in ((TrainSpec(layerdrop_rate=0.2), ", layerdrop"), (TrainSpec(), "")):
        runs = [record(k=k, recipe=recipe, accuracy=0.9 - 0.05 * k) for k in (0, 2)]
        after = [record(k=k, recipe=None, start=runs[0].spec, accuracy=0.9 - 0.1 * k) for k in (0, 2)]
        title, found, notes = differences([*after, *runs])
        assert title == "bert-base-uncased" + f", compared with full{words}" * bool(words)
        assert list(found)[:2] == [f"full{words} 0", f"full, after{words} 0"]  # the row to compare with is the first
        expected = {f"full{words} 0": "", f"full, after{words} 0": "+0.0", f"top, after{words} 2": "-20.0"}
        assert found == expected | {f"top{words} 2": "-10.0"} and len(notes) == bool(words)
        title, found, notes = differences(after)
        assert title == "bert-base-uncased" + f", compared with full, after{words}" * bool(words)
        assert found == {f"full, after{words} 0": "", f"top, after{words} 2": "-20.0"} and len(notes) == bool(words)


def test_freezing_the_dropped_layers_does_not_change_the_full_model():
    """K = 0 of `--drop_when finetuned --freeze_dropped` has nothing to freeze."""
    frozen = record(k=2, start=record(k=2, frozen=True).spec, accuracy=0.8)
    assert frozen.spec.variants == ("finetuned", "freeze")
    title, found, _ = differences([record(start=record().spec, accuracy=0.9), frozen])
    assert title == "bert-base-uncased, compared with full, finetuned"
    assert found == {"full, finetuned 0": "", "top, finetuned, freeze 2": "-10.0"}


def test_from_scratch_is_a_training_like_any_other():
    """Without a plain full model, rows from scratch are compared with K = 0 from scratch, in every table."""
    scratch = [record(k=k, from_scratch=True, accuracy=0.6 - 0.05 * k) for k in (0, 2)]
    title, found, notes = differences([*scratch, record(k=2, accuracy=0.7)])
    assert title == "bert-base-uncased, compared with full, from scratch"
    assert found == {"full 0": "", "full, from scratch 0": "", "top 2": "", "top, from scratch 2": "-10.0"}
    assert len(notes) == 2
    assert [row[0] for row in cost_tables(frame(scratch))[0].rows] == ["full, from scratch", "top, from scratch"]
    _, found, notes = differences([*scratch, record(accuracy=0.9)])
    assert found == {"full 0": "", "full, from scratch 0": "-30.0", "top, from scratch 2": "-40.0"} and not notes


def test_a_title_names_only_full_models_that_rows_are_compared_with():
    title, _, notes = differences([*elastic_runs(), record(from_scratch=True)])
    assert title == "bert-base-uncased, compared with full, elastic" and len(notes) == 1


def test_the_title_of_many_full_models_is_short():
    runs = []
    for rate in (1e-5, 2e-5, 3e-5, 4e-5):
        start = record(elastic_k=(2, 4), recipe=TrainSpec(learning_rate=rate)).spec
        runs += [record(k=k, recipe=None, start=start, accuracy=0.5 - rate * 1e3 * k) for k in (0, 2)]
    title, found, (note,) = differences(runs, ["learning_rate"])
    assert title == "bert-base-uncased, each row compared with K = 0 of its own training" and title in note
    assert list(found.values()) == [""] * 4 + ["-2.0", "-4.0", "-6.0", "-8.0"] and len(note) < 150


def test_the_full_model_may_be_missing():
    cells = table_of(task_tables(frame([record(k=2)])))
    assert cells["full", "0"]["RTE acc"] == "missing" and cells["top", "2"]["difference"] == ""


def test_nan_ranks_below_every_number():
    constant = -math.inf
    assert summarize([50, constant, 70]).median == 50 and math.isnan(summarize([50, constant, 70]).low)
    assert math.isnan(summarize([constant, constant, 70]).median) and math.isnan(summarize([50, constant]).median)
    assert summarize([constant, 50, 60, 70]).median == 55  # of an even number the mean of the middle two, as ever
    constant = {"pearson": math.nan, "spearmanr": math.nan}
    cells = table_of(task_tables(frame([record("stsb", accuracy=constant), record("stsb", k=2, accuracy=constant)])))
    assert cells["top", "2"]["STS-B Pearson"] == "constant"


def test_glue_score_by_hand():
    def scores(f1, r):
        return [{"accuracy": 0.9, "f1": f1}, {"pearson": 0.1, "spearmanr": r}]

    runs = [record(task, accuracy=m) for task, m in zip(("mrpc", "stsb"), scores(0.8, 0.6), strict=True)]
    runs += [record(task, k=2, accuracy=m) for task, m in zip(("mrpc", "stsb"), scores(0.7, 0.5), strict=True)]
    cells = table_of(glue_tables(frame(runs)))
    assert cells["top", "2"] == {
        "MRPC F1": "70.0",
        "STS-B Spearman": "50.0",
        "mean GLUE score": "60.0",
        "of the full model": "85.7%",
    }


def test_glue_score_of_rows_held_out_of_mnli():
    """One split instead of two."""
    cells = table_of(glue_tables(frame([record("mnli", hold_out=0.15, accuracy=0.7)])))
    assert cells["full", "0"]["mean GLUE score"] == "70.0"


@pytest.mark.parametrize("form", ["md", "latex", "csv"])
def test_the_reason_for_no_glue_table(tmp_path, capsys, form):
    """Not an empty line."""
    own = record("messages", source="files", files=(("train", "a.csv"),))
    own.folder = str(tmp_path / "own")
    own.write()
    assert run_command("report", [str(tmp_path), "--table", "glue", "--format", form]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "note: no table 'glue', which needs runs on a task of GLUE. For other tasks, use --table tasks\n" in err
    assert run_command("report", [str(tmp_path), "--table", "glue", "tasks", "--format", form]) == 0
    assert "messages" in (captured := capsys.readouterr()).out and "no table 'glue'" in captured.err
    other = record()
    other.folder = str(tmp_path / "other")
    other.write()
    assert run_command("report", [str(tmp_path), "--table", "glue", "--format", form]) == 0
    assert "RTE" in (captured := capsys.readouterr()).out.upper() and "no table 'glue'" not in captured.err


def test_replaced_files_are_named(tmp_path, capsys):
    """Figures are named after the model, so another report into the same folder replaces them."""
    for store, seed in (("a", 1), ("b", 2)):
        for run in (record(seed=seed), record(k=2, seed=seed, train=5.0)):
            run.folder = str(tmp_path / store / run.spec.id)
            run.write()
    html, figure_folder = str(tmp_path / "p.html"), tmp_path / "figures"
    words = ["--figures", str(figure_folder), "--html", html, "--runs", str(tmp_path / "r.csv")]
    assert run_command("report", [str(tmp_path / "a"), *words]) == 0
    first = capsys.readouterr().err
    assert "(replaced)" not in first and len(names := [*map(str, figure_folder.iterdir()), html, words[-1]]) == 6
    (figure_folder / "bert-base-uncased_speed.pdf").unlink()
    assert run_command("report", [str(tmp_path / "b"), *words]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert {line for line in lines if line.endswith(" (replaced)")} == {
        f"{name} (replaced)" for name in names if not name.endswith("speed.pdf")
    }


def test_cost_by_hand():
    runs = [record(train=10, inference=2), record("cola", train=40, inference=4)]
    runs += [record(k=6, train=5, inference=1), record("cola", k=6, train=20, inference=3)]
    cells = table_of(cost_tables(frame(runs)))
    assert cells["full", "0"]["fine-tuning speed-up"] == "1.00"
    assert cells["top", "6"] == {
        "parameters (millions)": "68.0",
        "fine-tuning speed-up": "2.00",
        "inference time": "-38%",  # (1/2 + 3/4) / 2
    }


def test_settings_part_tables_but_rows_do_not():
    runs = [record(), record(k=2), record(from_scratch=True), record(max_seq_length=64), record(k=2, strategy="bottom")]
    made = task_tables(frame(runs))
    assert [table.title for table in made] == [
        "bert-base-uncased (max_seq_length 128)",
        "bert-base-uncased (max_seq_length 64)",
    ]
    assert [tuple(row[:2]) for row in made[0].rows] == [
        ("full", "0"),
        ("full, from scratch", "0"),
        ("top", "2"),
        ("bottom", "2"),
    ]


def test_less_data_is_always_said():
    (table,) = task_tables(frame([record(max_train_samples=64), record(k=2, max_train_samples=64)]))
    assert table.title == "bert-base-uncased (max_train_samples 64)"
    (table,) = task_tables(frame([record(hold_out=0.15)]))
    assert table.title == "bert-base-uncased (hold_out 0.15)"  # its scores are not those of the validation set
    tables = task_tables(frame([record(hold_out=0.15), record(), record(hold_out=0.3)]))
    titles = {f"bert-base-uncased{words}" for words in (" (hold_out 0.15)", "", " (hold_out 0.3)")}
    assert {table.title for table in tables} == titles


@pytest.mark.parametrize(
    ("changes", "title", "column"),
    [
        ({"recipe": TrainSpec(max_steps=20, num_train_epochs=9.0)}, " (max_steps 20)", "RTE acc"),
        ({"recipe": TrainSpec(num_train_epochs=0.5)}, " (num_train_epochs 0.5)", "RTE acc"),
        ({"recipe": TrainSpec(freeze_layers=(0, 1))}, " (freeze_layers 0,1)", "RTE acc"),
        ({"recipe": TrainSpec(freeze_embeddings=True)}, " (freeze_embeddings True)", "RTE acc"),
        ({"max_eval_samples": 9}, " (max_eval_samples 9)", "RTE acc"),
        ({"validation_share": 0.2}, "", "RTE (validation_share 0.2) acc"),
        ({"recipe": TrainSpec(learning_rate=1e-3)}, "", "RTE acc"),
        ({"recipe": None}, "", "RTE acc"),
    ],
)
def test_less_training_is_always_said(changes, title, column):
    """Also if all runs have the same; a learning rate is no part of the training."""
    (table,) = task_tables(frame([record(**changes), record(k=2, **changes)]))
    assert (table.title, table.header[2]) == (f"bert-base-uncased{title}", column)


def test_steps_instead_of_epochs_part_tables():
    runs = [record(), record(recipe=TrainSpec(max_steps=20)), record(seed=2, recipe=TrainSpec(max_steps=20))]
    titles = [table.title for table in task_tables(frame(runs))]
    assert titles == [f"bert-base-uncased ({n})" for n in ("num_train_epochs 3", "max_steps 20")]


@pytest.mark.parametrize("setting", ["max_steps", "num_train_epochs"])
def test_steps_and_epochs_move_together(tmp_path, setting):
    """To rows or columns of one table, also from a csv file, and from a file of version 0.2."""
    runs = [record(k=k, recipe=r) for r in (TrainSpec(), TrainSpec(max_steps=20)) for k in (0, 2)]
    new = runs_csv(frame(runs))
    old = new.replace("num_train_epochs 3", '"max_steps -1, num_train_epochs 3.0"')
    old = old.replace("max_steps 20", '"max_steps 20, num_train_epochs 3.0"')
    for name, text in (("new.csv", new), ("old.csv", old)):
        (tmp_path / name).write_text(text)
    names = ["num_train_epochs 3", "max_steps 20"]
    for make in (frame, *(lambda _, *a, f=f: read_runs_csv(str(tmp_path / f), *a) for f in ("new.csv", "old.csv"))):
        (table,) = task_tables(make(runs, [setting]))
        rows = [(row[0], row[-1]) for row in table.rows]
        assert sorted(rows) == sorted((f"{s} ({n})", d) for s, d in (("full", ""), ("top", "+0.0")) for n in names)
        (table,) = task_tables(make(runs, (), [setting]))
        assert sorted(table.header[2:4]) == sorted(f"RTE ({n}) acc" for n in names)
        assert [table.title for table in task_tables(make(runs))] == [f"bert-base-uncased ({n})" for n in names]


def test_scoring_parts_the_rows_of_its_strategy_alone():
    runs = [record(), record(k=2), record(k=2, strategy="contribution", score_split="validation")]
    assert [row[0] for table in task_tables(frame(runs)) for row in table.rows] == ["full", "top", "contribution"]
    runs.append(record(k=2, strategy="contribution", score_split="train"))
    (table,) = task_tables(frame(runs))
    assert [row[0] for row in table.rows][2:] == [
        "contribution (score_split train)",
        "contribution (score_split validation)",
    ]


def test_mixed_machines_are_said():
    runs = [record(), record(seed=2)]
    assert not mixtures(frame(runs))
    runs[1].environment = runs[1].environment | {"versions": {"torch": "3", "transformers": "5"}, "device": "Y"}
    notes = mixtures(frame(runs))
    assert len(notes) == 2 and "mixed torch (2, 3)" in notes[1] and "mixed device (X, Y)" in notes[0]
    assert any("Not comparable" in note for table in cost_tables(frame(runs)) for note in table.notes) is True


def test_links_are_followed_once(tmp_path):
    run = record()
    run.folder = str(tmp_path / "disk" / "run")
    run.write()
    (tmp_path / "disk" / "killed").mkdir()
    (tmp_path / "disk" / "killed" / "spec.json").write_text("{}")
    (tmp_path / "runs" / "prior").mkdir(parents=True)
    for name, target in (("a", "disk"), ("b", "disk"), ("loop", "runs"), ("prior/candidate", "disk/run")):
        (tmp_path / "runs" / name).symlink_to(tmp_path / target)
    found = read_store([str(tmp_path / "runs")])
    assert [run.folder for run in found.done] == [str(tmp_path / "runs" / "a" / "run")] and found.unfinished == 1


def test_store(tmp_path):
    runs = [record(), record(seed=2), record(seed=3)]
    runs[1].status, runs[1].error = "failed", "x"
    for i, run in enumerate((*runs, runs[0])):
        run.folder = str(tmp_path / "deep" / str(i))
        run.write()
    (tmp_path / "record.json").write_text("{")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "spec.json").write_text("{}")
    found = read_store([str(tmp_path)])
    assert sorted(run.spec.seed for run in found.done) == [1, 3] and [run.spec.seed for run in found.failed] == [2]
    (bad, killed) = incomplete_notes(found)
    assert bad.startswith("1 unreadable record, in no table: ") and str(tmp_path / "record.json") in bad
    assert killed == "1 run without a record (running, or killed)"
    assert failures(found) == [f"1 run has failed and is in no table; {tmp_path / 'deep' / '1'}: x"]
    with pytest.raises(UserError, match="no record of a successful run. 1 run has failed .*1: x"):
        read_store([str(tmp_path / "deep" / "1")])
    runs[1].status = "success"
    runs[1].folder = str(tmp_path / "again")
    runs[1].write()
    assert read_store([str(tmp_path)]).failed == []  # the same run has succeeded elsewhere
    with pytest.raises(UserError, match="no such folder"):
        read_store([str(tmp_path / "none")])


# ---- the papers -----------------------------------------------------------------------------------------------------
def losses(paper: str, tasks: list[str] | None) -> dict[tuple[str, int], float]:
    """(model, K) -> mean over tasks below the full model."""
    found = {}
    for results in model_results(published(paper)):
        wanted = results.main_cells(results.columns(tasks))
        for row in (row for row in results.rows if "," not in row.strategy):
            found[results.model, int(row.k)] = results.mean(FULL, wanted) - results.mean(row, wanted)
    return found


def test_sajjads_own_loss_column():
    """BERT, XLNet and DistilBERT: over seven tasks; RoBERTa: over the five large ones, its K = 2 over neither."""
    seven, five = losses("sajjad2023", None), losses("sajjad2023", LARGE)
    with open(FOLDER / "sajjad2023_table3_cost.csv", newline="") as file:
        printed = {(row["model"], int(row["dropped"])): float(row["mean_loss_points"]) for row in csv.DictReader(file)}
    assert len(printed) == 15
    for (model, k), loss in printed.items():
        name = {"bert-base": "bert-base-uncased", "xlnet-base": "xlnet-base-cased"}.get(model, model)
        name = "distilbert-base-uncased" if model == "distilbert-base" else name
        if model == "roberta-base" and k == 2:
            assert abs(seven[name, k] - loss) > 0.3 and abs(five[name, k] - loss) > 0.05
        else:
            ours = (five if model == "roberta-base" else seven)[name, k]
            assert ours == pytest.approx(loss, abs=0.0101), (model, k)


def test_peers_own_mean_scores():
    with open(FOLDER / "peer2022_scores.csv", newline="") as file:
        printed = {
            (row["model"], row["strategy"], int(row["k"])): float(row["score"])
            for row in csv.DictReader(file)
            if row["task"] == "glue"
        }
    ours = {}
    for table in glue_tables(published("peer2022")):
        for row in table.rows:
            ours[table.title.removesuffix(": GLUE"), row[0], int(row[1])] = float(row[-2])
    assert len(printed) == 16
    for (model, method, k), score in printed.items():
        mean = ours[Path(model).name, method, k]
        assert mean == pytest.approx(score, abs=0.101), (model, method, k)


def test_published_ways_stand_beside_ones_own():
    """Table 6 prints 91.3 for BERT-PKD on SST-2, Table 7 88.16 for BERT-FT-6 on STS-B."""
    lines = [line for line in published("sajjad2023").itertuples() if "," in line.row.strategy]
    assert {line.model for line in lines} == {"bert-base-uncased", "xlnet-base-cased"}
    cells = {(line.row.strategy, line.task): line for line in lines if line.model == "bert-base-uncased"}
    assert cells["top, distill-patient", "sst2"].accuracy == pytest.approx(91.3)
    assert cells["top, finetuned", "stsb"].pearson == pytest.approx(88.16)
    assert cells["top, finetuned, theseus", "mnli"].matched_accuracy == pytest.approx(82.1)


def test_published_figures_stand_beside_ones_own():
    cells = table_of(
        task_tables(frame([record(accuracy=0.7), record(k=2, accuracy=0.6)]), published=published("sajjad2023"))
    )
    assert cells["full", "0"]["RTE acc"] == "70.0 published 67.9 (+2.1)"
    assert cells["top", "2"]["RTE acc"] == "60.0 -10.0 published 62.8 (-2.8)"
    with pytest.raises(UserError, match="Did you mean 'peer2022'"):
        published("peer2021")


def test_constant_predictions_are_named():
    runs = [record(), record(k=2), record(k=2, seed=2)]
    for run, predictions in zip(runs, (2, 1, 2), strict=True):
        run.distinct_predictions = {"validation": predictions}
    assert constant_predictions(frame(runs)) == [
        "constant predictions in 1 cell: bert-base-uncased, top 2, RTE (1 of 2 seeds)"
    ]


def test_notes_follow_the_tasks(tmp_path, capsys):
    """Notes on runs and on failures of other tasks are left out; the page has all tasks, and all notes."""
    runs = [record(task, k=k) for task in ("rte", "cola") for k in (0, 2)]
    failed = [record(task, k=4) for task in ("rte", "cola")]
    for run in runs:
        run.distinct_predictions = {"validation": 1}
    for run in failed:
        run.status, run.error, run.metrics = "failed", f"{run.spec.data.task} broke", {}
    for run in (*runs, *failed):
        run.folder = str(tmp_path / "store" / run.spec.id)
        run.write()
    words = [str(tmp_path / "store"), "--html", str(tmp_path / "p.html")]
    for flags, cells, failures_of in ((["--tasks", "rte"], 2, {"rte"}), ([], 4, {"rte", "cola"})):
        assert run_command("report", [*words, *flags]) == 0
        err, page = capsys.readouterr().err, (tmp_path / "p.html").read_text()
        assert f"constant predictions in {cells} cells" in err and ("CoLA" in err) == ("cola" in failures_of)
        n = len(failures_of)
        assert f"{n} run{'s have' if n > 1 else ' has'} failed" in err
        assert "constant predictions in 4 cells" in page


def test_nearly_constant_predictions_are_said_with_their_number():
    """195 values are not one prediction."""
    runs = [record("stsb", k=2, accuracy={"pearson": 0.1}), record("stsb", k=2, seed=2, accuracy={"pearson": 0.1})]
    for run, width in zip(runs, (0.02, 0.9), strict=True):
        run.distinct_predictions, run.prediction_range = {"validation": 195}, {"validation": width}
        run.parameters_before = run.parameters_after
    (note,) = constant_predictions(frame(runs))
    where = "bert-base-uncased, top 2, STS-B (1 of 2 seeds: 195 different values in a narrow range)"
    assert note == f"nearly constant predictions in 1 cell: {where}"
    assert "nearly the same prediction" in summary(runs[0]) and "195 values within 0.02" in summary(runs[0])
    assert "the same prediction" not in summary(runs[1])
    assert TASKS["stsb"].kind.range_in_deviations(np.array([1.0, 1.1]), np.array([1.0, 3.0])) == pytest.approx(0.1)
    assert TASKS["rte"].kind.range_in_deviations(np.array([1, 1]), np.array([0, 1])) is None
    assert TASKS["stsb"].kind.range_in_deviations(np.array([1.0]), None) is None


def test_mixed_and_uncommitted_code_is_said():
    """Also between the rows of a table, which are compared with each other."""
    runs = [record(), record(k=2), record(k=4)]
    assert mixtures(frame(runs)) == []  # records without a commit say nothing
    for run, commit, dirty in zip(runs, ("a" * 40, "b" * 40, "b" * 40), (False, True, None), strict=True):
        run.environment = run.environment | {"commit": commit, "dirty": dirty}
    title = "bert-base-uncased"
    assert mixtures(frame(runs)) == [
        f"{title}: mixed commit (aaaaaaaa, bbbbbbbb, bbbbbbbb with changes)",
        f"{title}: the code of 1 of 3 runs was not committed",
    ]
    assert next(csv.DictReader(io.StringIO(runs_csv(frame(runs)))))["commit"] == "aaaaaaaa"


# ---- rendering and the command --------------------------------------------------------------------------------------
def test_formats():
    tables = task_tables(frame([record(accuracy=0.6), record(k=2, accuracy=0.5)]))
    rows = list(csv.DictReader(io.StringIO(render(tables, "csv"))))
    assert [(row["strategy"], row["k"], row["task"], row["score"], row["difference"]) for row in rows] == [
        ("full", "0", "rte", "60.0", ""),
        ("full", "0", "mean", "60.0", ""),
        ("top", "2", "rte", "50.0", "-10.0"),
        ("top", "2", "mean", "50.0", "-10.0"),
    ]
    runs = frame([record(accuracy=0.6), record(k=2, accuracy=0.5)])
    blocks = render([*task_tables(runs), *glue_tables(runs)], "csv").split("\n\n")
    kinds = [{row["table"] for row in csv.DictReader(io.StringIO(block))} for block in blocks]
    assert kinds == [{"tasks"}, {"glue"}]  # their means are over other metrics
    latex = " ".join(render(tables, "latex").split())
    assert r"\toprule" in latex and "50.0 & $-$10.0" in latex
    markdown = render(tables, "md")
    assert "### bert-base-uncased" in markdown and "| top " in markdown and "over RTE (acc)" in markdown


def test_significance_from_predictions(tmp_path):
    runs = [record(), record(k=2), record(k=4)]
    a, b = "entailment", "not_entailment"
    right = [[a] * 40, [a] * 30 + [b] * 10, [a] * 39 + [b]]
    for i, (run, words) in enumerate(zip(runs, right, strict=True)):
        run.folder = str(tmp_path / str(i))
        Path(run.folder).mkdir()
        rows = zip(range(40), [a] * 40, words, strict=True)
        write_table(Path(run.folder) / "predictions_dev.tsv", ("index", "label", "prediction"), rows)
    runs.append(record(k=6))
    cells = table_of(significance_tables(frame(runs)))
    assert cells["top", "2"]["RTE"] == "1 worse of 1 (p 0.002)"  # 2 * 0.5 ** 10
    assert cells["top", "4"]["RTE"] == "none of 1 (p 1)" and cells["top", "6"]["RTE"] == "missing"


def test_a_line_for_each_run():
    runs = [record(accuracy=0.625), record(k=2, seed=3, accuracy={"accuracy": 0.5, "f1": float("nan")}, train=12.5)]
    runs[1].cuts = [Cut(0, [4, 5], [0, 1, 2, 3], "top")]
    full, cut = csv.DictReader(io.StringIO(runs_csv(frame(runs))))
    assert (full["strategy"], full["k"], full["seed"], full["accuracy"], full["f1"]) == ("full", "0", "1", "62.5", "")
    assert (cut["strategy"], cut["k"], cut["dropped"], cut["accuracy"], cut["f1"]) == ("top", "2", "4 5", "50", "")
    assert (cut["id"], cut["seed"], cut["train_seconds"], cut["parameters"]) == (runs[1].id, "3", "12.5", "96000000")
    assert (cut["model"], cut["task"], cut["device"], cut["torch"]) == ("bert-base-uncased", "rte", "X", "2")
    assert cut["precision"] == "fp32"


def test_command(tmp_path, capsys):
    for run in [record(seed=s, k=k, accuracy=0.5 + 0.01 * s) for s in (1, 2) for k in (0, 2)]:
        run.folder = str(tmp_path / "store" / run.spec.id)
        run.write()
    words = [str(tmp_path / "store"), "--figures", str(tmp_path / "figures"), "--compare", "sajjad2023"]
    lines = str(tmp_path / "csv" / "runs.csv")
    assert run_command("report", [*words, "--table", "tasks", "cost", "glue", "significance", "--runs", lines]) == 0
    assert len(Path(lines).read_text().splitlines()) == 5
    out, err = capsys.readouterr()
    assert out.count("### bert-base-uncased") == 4 and "The mean losses in their Table 3" in err
    drawn = {path.name: path.stat().st_size for path in (tmp_path / "figures").iterdir()}
    names = {f"bert-base-uncased_{kind}.{ending}" for kind in ("strategies", "speed") for ending in ("png", "pdf")}
    assert set(drawn) == names and min(drawn.values()) > 2000
    assert "no published values" not in err
    run = RunRecord(
        RunSpec(ModelSpec("demo"), DataSpec("demo-rte", "demo")),
        str(tmp_path / "demo"),
        "success",
        metrics={"accuracy": 0.5},
    )
    run.write()
    assert run_command("report", [str(tmp_path / "demo"), "--compare", "sajjad2023"]) == 0
    assert "no published values" in capsys.readouterr().err
    assert run_command("report", [str(tmp_path / "none")]) == 2
    assert run_command("report", [*words, "--tasks", "cola"]) == 2
    assert "--tasks cola: no run of these tasks. Allowed: rte." in capsys.readouterr().err
    assert run_command("report", [*words, "--tasks", "rte", "cola"]) == 0
    assert "| RTE acc" in (out := capsys.readouterr().out) and "| CoLA Matthews" in out
    assert run_command("report", [*words, "--tasks", "rto"]) == 2 and "Did you mean 'rte'" in capsys.readouterr().err
    own = record("reviews", source="files", files=(("train", "reviews.csv"),))
    own.folder = str(tmp_path / "own")
    own.write()
    assert run_command("report", [str(tmp_path), "--tasks", "reviews", "rte", "--table", "tasks"]) == 0
    assert "| reviews acc" in (out := capsys.readouterr().out) and "| RTE acc" in out
    assert run_command("report", [str(tmp_path), "--tasks", "reviews"]) == 0
    out = capsys.readouterr().out
    assert out.count("### bert") == 2 and "| reviews acc" in out and "RTE" not in out  # its scores, and their cost
    other = record("reviews", name="other", source="files", files=(("train", "reviews.csv"),))
    other.folder = str(tmp_path / "other")
    other.write()
    assert (
        run_command("report", [str(tmp_path), "--tasks", "rte", "reviews", "--table", "tasks", "--runs", "r.csv"]) == 0
    )
    out = capsys.readouterr().out
    assert "(acc)" in out.split("### other")[1] and {"bert-base-uncased", "other"} <= set(pd.read_csv("r.csv")["model"])


@pytest.mark.parametrize(
    ("full", "cut", "limits"),
    [(0.6, 0.601, (58.05, 62.05)), (0.6, 0.5, None), (1.0, 0.9, None), (0.999, 1.0, (96, 100))],
)
def test_figures_do_not_magnify_noise(full, cut, limits):
    """A tenth of a point is drawn on an axis of four points around it; a large difference on one as it needs. No axis
    goes beyond 100 points, and dots on its end are whole."""
    (results,) = model_results(frame([record(accuracy=full), record(k=2, accuracy=cut, train=5.0)]))
    for draw in (figures.strategies, figures.speed):
        axes = draw(results, ["rte"]).axes[0]
        low, high = axes.get_ylim()
        assert (low, high) == pytest.approx(limits) if limits else 10 < high - low < 14
        assert high <= 100 and not any(
            line.get_clip_on() for line in axes.lines if line.get_marker() not in ("", "None")
        )
        figures.plt.close("all")


def labels_of(runs) -> list[str]:
    """The labels of the speed figure, which must not cover anything."""
    (results,) = model_results(frame(runs))
    figure = figures.speed(results, ["rte"])
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    for i, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[:i]) and axes.bbox.count_contains(box.corners()) == 4
        for line in axes.lines:
            path = line.get_transform().transform_path(line.get_path())
            assert not box.count_contains(path.vertices)
            assert line.get_linestyle() == "None" or not path.intersects_bbox(box, filled=False)
    figures.plt.close("all")
    return [text.get_text() for text in axes.texts]


def test_labels_cover_nothing():
    """Dots in the same place share a label; every line has labels; a label without a place is left out."""
    elastic = record(elastic_k=tuple(range(1, 12))).spec
    runs = [record(accuracy=1.0), record(k=6, accuracy=1.0, train=5.0)]
    one = [record(k=k, recipe=None, start=elastic, train=9.0, accuracy=1.0 - 0.7 * (k == 11)) for k in range(12)]
    assert sorted(labels_of(runs + one)) == ["K = 0 to 10", "K = 11", "K = 6"]
    assert sorted(labels_of(runs + one[::4])) == ["K = 0, 4, 8", "K = 6"]
    two = [record(k=k, strategy=s, train=t, accuracy=a) for s, k, t, a in (("top", 2, 8, 0.9), ("bottom", 2, 9, 0.5))]
    assert labels_of([*runs, *two]).count("K = 2") == 2
    crowd = [record(k=k, recipe=None, start=elastic, train=9.0, accuracy=0.9 - 0.01 * k) for k in range(12)]
    crowd += [
        record(k=k, strategy=s, train=9.0 - k / 10, accuracy=0.9 - 0.01 * k)
        for s in ("top", "bottom")
        for k in range(1, 9)
    ]
    assert 3 < len(labels_of(runs[:1] + crowd)) < 20


def test_a_long_title_has_several_lines():
    """A title is as wide as the figure at most, and no setting is torn apart."""
    recipe = TrainSpec(learning_rate=3e-4, max_steps=5, per_device_train_batch_size=16, warmup_steps=100)
    runs = [record(), record(k=2, train=5.0), record(recipe=recipe), record(k=2, train=5.0, recipe=recipe)]
    for results in model_results(frame(runs)):
        for figure in (figures.strategies(results, ["rte"]), figures.speed(results, ["rte"])):
            figure.canvas.draw()
            title = figure._suptitle
            assert title.get_text().replace("\n", " ") == results.title
            assert all(line.endswith(",") for line in title.get_text().splitlines()[1:-1])
            assert figure.bbox.count_contains(title.get_window_extent().corners()) == 4
            figures.plt.close("all")


@pytest.mark.parametrize("scores", [[0.6, 0.9, 0.7], [0.7], [0.7, math.nan, 0.7]])
def test_the_full_model_has_a_band_from_its_lowest_to_its_highest_seed(scores):
    """A seed with constant predictions has no score."""
    runs = [record(accuracy=score, seed=seed) for seed, score in enumerate(scores, 1)]
    (results,) = model_results(frame([*runs, record(k=2, accuracy=0.5)]))
    figure = figures.strategies(results, ["rte"])
    words = "one seed" if len(scores) == 1 else "median over seeds, whiskers and band from lowest to highest"
    assert figure.legends[0].get_title().get_text() == words
    axes = figure.axes[0]
    (band,) = axes.patches
    low, high = band.get_y(), band.get_y() + band.get_height()
    assert (low, high) == pytest.approx((60, 90) if len(set(scores)) == 3 and scores[0] == 0.6 else (70, 70))
    assert axes.lines[-1].get_ydata() == [70, 70]
    assert figures.speed(results, ["rte"]).axes[0].get_ylabel() == "acc, points"
    figures.plt.close("all")


def test_figures_show_every_row():
    """A training variant is not its strategy; several sets of as many layers are one strategy's dots."""
    runs = [record(accuracy=0.6), record(k=2, accuracy=0.5, train=5.0)]
    runs += [record(k=2, accuracy=0.3, train=20.0, distil=DistilSpec("logits", teacher="t"))]
    sets = ((1, 3), (0, 5))
    runs += [record(strategy="list", k=None, layers=ids, accuracy=0.4 + 0.01 * ids[0], train=5.0) for ids in sets]
    (results,) = model_results(frame(runs))
    figure = figures.strategies(results, ["rte"])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["top", "top, distill-logits", "list", "full model"]
    dots = sorted(y for bar in figure.axes[0].containers for y in bar.lines[0].get_ydata())
    assert dots == pytest.approx([30, 40, 41, 50])
    lines = {line.get_label(): line for line in figures.speed(results, ["rte"]).axes[0].get_lines()}
    assert list(lines["top"].get_xydata()[1]) == [2.0, 50.0]
    assert list(lines["top, distill-logits"].get_xydata()[1]) == [0.5, 30.0]
    assert sorted(lines["list"].get_ydata()) == [40, 41, 60] and lines["list"].get_linestyle() == "None"
    figures.plt.close("all")


def test_a_line_is_of_one_training():
    """Elastic depth, and LayerDrop before `after`, start at K = 0 of their own training, or at their first K."""
    elastic, layerdrop = record(elastic_k=(2, 4)).spec, TrainSpec(layerdrop_rate=0.2)
    dropping = record(recipe=layerdrop)
    ways = {"elastic": elastic, "after, layerdrop": dropping.spec, "after": record().spec}
    runs = [record(accuracy=0.9, train=20.0)]
    for start in ways.values():
        runs += [record(k=k, recipe=None, start=start, accuracy=0.7 - 0.1 * k, train=10.0) for k in (2, 4)]
    own = [record(recipe=None, start=elastic, accuracy=0.8), record(recipe=layerdrop, accuracy=0.85)]

    def lines(runs):
        (results,) = model_results(frame(runs))
        drawn = figures.speed(results, ["rte"]).axes[0].get_lines()
        figures.plt.close("all")
        return {line.get_label(): [round(y) for y in line.get_ydata()] for line in drawn}

    below = {"top, elastic": [50, 30], "top, after": [90, 50, 30], "top, after, layerdrop": [50, 30]}
    assert lines(runs) == below | {"full model": [90]}
    expected = {"top, elastic": [80, 50, 30], "top, after, layerdrop": [85, 50, 30], "top, after": [90, 50, 30]}
    assert lines(runs + own) == expected | {"full model": [90]}
    again = [record(k=k, start=elastic, accuracy=0.7 - 0.1 * k, train=10.0) for k in (0, 2)]
    expected |= {"top, elastic-finetuned": [80, 50], "full, elastic-finetuned": [70]}
    assert lines(runs + own + again) == expected | {"full model": [90]}
    dropped_after = [record(k=k, recipe=None, start=record().spec, accuracy=0.7 - 0.1 * k) for k in (0, 2)]
    assert lines(dropped_after) == {"top, after": [70, 50], "full model": [70]}
    assert lines([runs[0], *own]) == {"full, elastic": [80], "full, layerdrop": [85], "full model": [90]}


def test_a_title_is_no_formula(tmp_path):
    runs = frame([record(name="a$x^$b"), record(name="a$x^$b", k=2, train=5.0)])
    assert len(figures.draw(runs, str(tmp_path))[0]) == 4


@pytest.mark.parametrize("name", ["angular-block", "taylor", "odd-alternate", "own"])
def test_no_strategy_has_the_color_of_another_while_colors_are_left(name):
    """Nor a mark of a usual strategy that is not shown."""
    marks = marks_of([TableRow("top", "2"), TableRow("bottom", "2"), TableRow("own-too", "2"), TableRow(name, "2")])
    assert (marks["top"], marks["bottom"]) == (0, 1) and not {marks[name], marks["own-too"]} & set(range(6))
    assert len({style_of(mark)["color"] for mark in marks.values()}) == 4


def test_a_usual_strategy_looks_the_same_in_every_picture():
    """Whatever else is shown; and no two look alike in one."""
    few = [record(), record(k=2, train=5.0), record(k=2, strategy="random", train=5.0)]
    more = [
        *few,
        *(record(k=2, strategy=name, train=5.0) for name in ("bottom", "symmetric", "taylor", "contribution")),
    ]
    more += [record(k=2, train=5.0, distil=DistilSpec("logits", "t", distill_weight=w)) for w in (0.1, 0.5)]
    looks = []
    for runs in (few, more):
        (results,) = model_results(frame(runs))
        for figure in (figures.strategies(results, ["rte"]), figures.speed(results, ["rte"])):
            (legend,) = figure.legends
            names = [text.get_text() for text in legend.get_texts()]
            looks.append(
                dict(zip(names, [(h.get_color(), h.get_marker()) for h in legend.legend_handles], strict=True))
            )
    figures.plt.close("all")
    assert all(look["top"] == looks[0]["top"] and look["random"] == looks[0]["random"] for look in looks)
    assert len(looks[2]) == len(set(looks[2].values())) == 9 and len({colour for colour, _ in looks[2].values()}) > 7
    assert list(looks[2].items())[:-1] == list(looks[3].items())[:-1]  # the full model is a line and a dot


def test_a_long_name_fits_into_a_figure():
    long = record(
        k=2, recipe=TrainSpec(layerdrop_rate=0.2, num_train_epochs=10.25, learning_rate=1e-6, warmup_steps=17)
    )
    rows = ["num_train_epochs", "learning_rate", "warmup_steps"]
    figure = figures.strategies(model_results(frame([record(k=2), long], rows))[0], ["rte"])
    (legend,) = figure.legends
    assert figures.FULL_NAME not in [text.get_text() for text in legend.get_texts()]  # there is none
    assert max(len(text.get_text()) for text in legend.get_texts()) > 75
    figure.canvas.draw()
    assert legend.get_window_extent().x0 >= 0 and legend.get_window_extent().x1 <= figure.bbox.x1


def test_rows_are_in_order():
    scratch = TableRow("full, from scratch")
    hows = [TableRow("bottom", "2"), TableRow("top", "4"), TableRow(), TableRow("top", "2"), scratch]
    assert sorted(hows, key=TableRow.order) == [
        FULL,
        scratch,
        TableRow("top", "2"),
        TableRow("top", "4"),
        TableRow("bottom", "2"),
    ]
    assert TableRow.of(record(k=None, strategy="contribution", threshold=0.95).spec) == ("contribution > 0.95", "")
    assert TableRow.of(record(strategy="list", k=None, layers=(3, 4)).spec) == ("list 3,4", "2")
    assert [results.title for results in model_results(frame([record()]))] == ["bert-base-uncased"]


# ---- what parts rows, columns and tables ----------------------------------------------------------------------------
def shown(table) -> list[tuple]:
    return [tuple(row[:3]) for row in table.rows]


def test_what_searches_found_for_the_same_k_are_rows_of_their_own():
    runs = [record(), record(k=2, strategy="greedy", found=(0, 5), accuracy=0.6)]
    (table,) = task_tables(frame([*runs, record("cola", k=2, strategy="greedy", found=(1, 2))]))
    assert [row[0] for row in table.rows] == ["full", "greedy"]  # other layers for each task are no difference
    (table,) = task_tables(frame([*runs, record(k=3, strategy="greedy", found=(0, 3, 5))]))
    assert [row[0] for row in table.rows] == ["full", "greedy", "greedy"]  # nor are they for each K
    runs.append(record(k=2, strategy="greedy", found=(1, 2), accuracy=0.7))
    (table,) = task_tables(frame(runs))
    assert shown(table)[1:] == [
        ("greedy (layers 0,5)", "2", "60.0 +10.0"),
        ("greedy (layers 1,2)", "2", "70.0 +20.0"),
    ]


def test_data_folders_are_columns_of_their_own():
    runs = [record(), record(accuracy=0.7, source="other"), record("cola", source="third")]
    (table,) = task_tables(frame(runs))
    assert table.header[2:5] == ["CoLA acc", "RTE (data glue) acc", "RTE (data other) acc"]
    assert table.rows[0][3:5] == ["50.0", "70.0"]


def test_equal_ids_on_other_contents_are_not_merged(tmp_path):
    runs = [record(accuracy=0.5), record(accuracy=0.7), record(k=2)]
    for i, (run, weights) in enumerate(zip(runs, ("aaa", "bbb", "aaa"), strict=True)):
        run.folder, run.fingerprints = str(tmp_path / str(i)), {"model": weights}
        run.write()
    found = read_store([str(tmp_path)])
    tables = task_tables(frame(found.done))
    assert [table.title for table in tables] == ["bert-base-uncased (weights aaa)", "bert-base-uncased (weights bbb)"]
    assert [table.rows[0][2] for table in tables] == ["50.0", "70.0"]
    for weights in ("a" * 8 + "1", "a" * 8 + "2"):  # equal in the first characters that titles show
        runs[weights[-1] == "2"].fingerprints = {"model": weights}
    assert [table.title[-10:] for table in task_tables(frame(runs[:2]))] == ["aaaaaaaa1)", "aaaaaaaa2)"]
    for run, rows in zip(runs, ("one", "two", "one"), strict=True):
        run.fingerprints, run.data = {}, {"validation": {"rows": 3, "fingerprint": rows}}
        run.write()
    (table,) = task_tables(frame(read_store([str(tmp_path)]).done))
    assert table.header[2:4] == ["RTE (rows one) acc", "RTE (rows two) acc"]


def test_a_text_column_that_is_named_and_one_that_is_found_are_one_column():
    """If the same rows were read. Other rows are other columns of the table, with the name of the text column."""
    files = {"source": "files", "files": (("train", "a.csv"),), "task": "a"}
    runs = [record(**files, text_columns=("x",)), record(**files, k=2), record(**files, k=2, text_columns=("y",))]
    for run, rows in zip(runs, ("one", "one", "two"), strict=True):
        run.data = {"train": {"rows": 3, "fingerprint": rows}, "validation": {"rows": 3, "fingerprint": rows}}
    (table,) = task_tables(frame(runs[:2]))
    assert [row[2] for row in table.rows] == ["50.0", "50.0 +0.0"]
    (table,) = task_tables(frame(runs))
    assert len(table.header) > 4 and "(text_columns y" in " ".join(table.header)
    for several in (runs, runs[:2]):  # a setting of the data is never one that the user can move, also if joined
        with pytest.raises(UserError, match="^--columns: unknown value 'text_columns'. Allowed: revision, "):
            frame(several, column_settings=["text_columns"])


def test_contents_that_no_record_names_part_nothing():
    runs = [record(), record(k=2)]
    runs[0].fingerprints = {"model": "aaa"}
    assert len(task_tables(frame(runs))) == 1


def test_runs_of_one_cell_and_seed_are_said():
    runs = [record(), record(), record(seed=2)]
    assert repeated(frame(runs)) == [
        "2 runs are in the same table cell with the same seed, so the median counts this seed more than once: "
        f"{runs[0].folder}; {runs[1].folder}"
    ]
    assert repeated(frame(runs[1:])) == []


def test_two_models_of_one_name_are_told_apart():
    titles = [table.title for table in task_tables(frame([record(name="a/bert"), record(name="b/bert")]))]
    assert titles == ["a/bert", "b/bert"]


def test_resumed_runs_are_not_in_the_speed_up():
    runs = [record(train=10), record(k=6, train=5), record(k=6, train=1, seed=2)]
    runs[2].resumed_at_step = 7
    (table,) = cost_tables(frame(runs))
    assert table.rows[1][3] == "2.00" and "Training seconds exclude 1 resumed run." in table.notes


@pytest.mark.parametrize("disturbed", [None, (0, "rte"), (2, "cola")])
def test_times_beside_other_processes_are_marked(disturbed):
    """In the rows of such runs, in all rows if the full model's run is one of them, and on the web page."""
    by_place = {(k, task): record(task, k=k, train=10 - k) for task in ("rte", "cola") for k in (0, 2, 4)}
    runs = list(by_place.values())
    for place, run in by_place.items():
        if place == disturbed:
            run.notes = [f"{BUSY} 1.3 of 2 cores, so the measured times are not comparable"]
    (table,) = cost_tables(frame(runs))
    marked = {None: [], (0, "rte"): ["0", "2", "4"], (2, "cola"): ["2"]}[disturbed]
    assert [row[1] for row in table.rows if row[3].endswith("*")] == marked
    assert [row[1] for row in table.rows if row[4].endswith("*")] == marked
    assert [value["k"] for value in table.values if value["busy"]] == marked
    (only_rte,) = cost_tables(frame(runs), ["rte"])
    assert any(value["busy"] for value in only_rte.values) == (disturbed == (0, "rte"))
    assert table.notes[-1].endswith(f"{BUSY_MARKED.capitalize()}.") == bool(marked)
    html = page(StoredRuns(runs), frame(runs), [])
    assert (BUSY_MARKED in html) == ('"1.25*"' in html) == bool(marked)
    if marked:
        assert "1.25 & *" in " ".join(render([table], "latex").split())
    for run in runs:
        run.resumed_at_step = 7 if run.notes else None  # its training seconds are left out
    (resumed,) = cost_tables(frame(runs))
    assert [row[1] for row in resumed.rows if row[3].endswith("*")] == []
    assert [row[1] for row in resumed.rows if row[4].endswith("*")] == marked


def test_times_beside_other_processes_are_said(tmp_path, capsys):
    """In the legend of the cost table, in one note, in the figure; also from a csv file of runs."""
    runs = [record(k=k, seed=s) for k in (0, 2) for s in (1, 2)] + [record("cola", k=k) for k in (0, 2)]
    assert busy(frame(runs)) == [] and "beside" not in render(cost_tables(frame(runs)), "md")
    for run in (runs[1], runs[4]):
        run.notes = ["another note", f"{BUSY} 1.3 of 2 cores, so the measured times are not comparable"]
    for run in runs:
        run.folder = str(tmp_path / "store" / run.spec.id)
        run.write()
    file = tmp_path / "runs.csv"
    file.write_text(runs_csv(frame(runs)))
    for found in (frame(runs), read_runs_csv(str(file))):
        of_all = "imes of 2 of 6 runs were measured beside other processes and are not comparable"
        assert busy(found) == [f"t{of_all}"] and f"*T{of_all}. An asterisk" in render(cost_tables(found), "md")
        assert f"*T{of_all.replace('2 of 6', '1 of 4')}. " in render(cost_tables(found, ["rte"]), "md")
        (results,) = model_results(found)
        drawn = figures.speed(results, results.columns())
        assert drawn.legends[0].get_title().get_text() == f"t{of_all}".replace(" and", "\nand")
        figures.plt.close(drawn)
    assert run_command("report", [str(tmp_path / "store")]) == 0
    assert capsys.readouterr().err.count("beside other processes") == 1


def test_no_share_of_nothing():
    def scores(value):
        return {"matthews_correlation": value, "accuracy": 0.5}

    runs = [record("cola", accuracy=scores(0.0)), record("cola", k=2, accuracy=scores(0.2))]
    assert table_of(glue_tables(frame(runs)))["top", "2"]["of the full model"] == "-"


def test_a_table_without_the_full_model_is_said():
    assert without_full_model(frame([record(), record(k=2)])) == []
    (note,) = without_full_model(frame([record(k=2), record(k=2, recipe=TrainSpec(num_train_epochs=9.0))]))
    tables = "bert-base-uncased (num_train_epochs 3); bert-base-uncased (num_train_epochs 9)"
    assert f"no full model to compare with in {tables}" in note


def test_a_full_model_that_lacks_a_task_is_said():
    """On a task without any other row, the full model is not needed. Of two full models, the nearest one counts."""
    runs = [record(), record(k=2), record("cola"), record("mrpc", k=2), record("stsb", k=2)]
    (note,) = without_full_model(frame(runs))
    cells = "bert-base-uncased, full 0, MRPC; bert-base-uncased, full 0, STS-B"
    assert note == (
        f"no run of the full model in 2 cells that rows are compared with: {cells}. Add K = 0 of these tasks to the "
        "study"
    )
    assert without_full_model(frame([record(), record(k=2), record("cola")])) == []
    many = [record(name=f"m{i}", task=task, k=k) for i in range(6) for task, k in (("rte", 0), ("rte", 2), ("mrpc", 2))]
    (note,) = without_full_model(frame(many))
    assert "in 6 cells" in note and note.count("MRPC") == 3 and "and 3 more" in note
    fast = TrainSpec(learning_rate=1e-4)
    both = [
        record(task, k=k, recipe=recipe) for task in ("rte", "mrpc") for k in (0, 2) for recipe in (TrainSpec(), fast)
    ]
    lacking = [r for r in both if (r.spec.data.task, r.spec.drop.k or 0, r.spec.train) != ("mrpc", 0, fast)]
    (note,) = without_full_model(frame(lacking, row_settings=["learning_rate"]))
    assert "in 1 cell " in note and "full (learning_rate 0.0001) 0, MRPC" in note


def test_many_degenerate_cells_are_one_note():
    runs = [record(k=k) for k in range(1, 10)]
    for run in runs:
        run.distinct_predictions = {"validation": 1}
    (note,) = constant_predictions(frame(runs))
    assert note.startswith("constant predictions in 9 cells: ") and note.endswith("and 6 more")


def test_a_failure_is_cut_between_words():
    run = record()
    run.error = "ValueError: " + "word " * 100
    (note,) = failures(StoredRuns([], [run]))
    assert len(note) < 320 and note.removesuffix("\u2026").endswith("word")


def test_latex_meets_at_the_decimal_point():
    runs = [record(seed=s, accuracy=a) for s, a in ((1, 0.6), (2, 0.7))] + [record(k=2, accuracy=0.05)]
    lines = [" ".join(line.split()) for line in render(task_tables(frame(runs)), "latex").splitlines()]
    assert r"\begin{tabular}{lrr@{ }lrr}" in lines
    assert r"strategy & K & RTE acc & & mean & difference \\" in lines
    assert r"full & 0 & 65.0 & [60.0, 70.0] & 65.0 & \\" in lines
    assert r"top & 2 & 5.0 & n=1 $-$55.0 & 5.0 & $-$55.0 \\" in lines
    assert r"contribution \ensuremath{>} 0.9" in render(
        task_tables(frame([record(k=None, strategy="contribution", threshold=0.9) for _ in "a"])), "latex"
    )


def test_latex_names_its_package_once():
    """Before the first table; a legend is a comment below its table."""
    tables = [Table("cost", title, ["strategy", "K"], [["full", "0"]], ["A legend."]) for title in ("t", "u")]
    lines = render(tables, "latex").splitlines()
    assert lines[:2] == [r"% needs \usepackage{booktabs}", "% t"] and lines.count(lines[0]) == 1
    assert lines.count("% A legend.") == 2 and render([], "latex") == "" and "usepackage" not in render(tables, "md")


def test_latex_of_powers_and_percentages():
    rows = [["a 2e-05", "0", "-20%", "4.6e-05 [-1e-05, 2]"], ["b1e-05", "1", "+0%", "-3e+20"]]
    table = Table("cost", "t", ["strategy", "K", "time", "value"], rows)
    lines = [" ".join(line.split()) for line in render([table], "latex").splitlines()]
    assert r"\begin{tabular}{lrrr@{ }l}" in lines
    assert r"a $2\times10^{-5}$ & 0 & $-$20\% & $4.6\times10^{-5}$ & [$-1\times10^{-5}$, 2] \\" in lines
    assert r"b1e-05 & 1 & +0\% & $-3\times10^{20}$ & \\" in lines


def test_latex_keeps_a_verdict_in_one_column(tmp_path):
    found = predicted(tmp_path, [record(), record(k=2)], [[RIGHT] * 40, [WRONG] * 20 + [RIGHT] * 20])
    lines = [" ".join(line.split()) for line in render(significance_tables(found), "latex").splitlines()]
    assert r"\begin{tabular}{lrl}" in lines and r"strategy & K & RTE \\" in lines
    assert "% " in lines[-1] and "(2,000 resamples, so p is at least 0.001)" in lines[-1]
    assert r"top & 2 & 1 worse of 1 (p $1.9\times10^{-6}$) \\" in lines


RIGHT, WRONG = "entailment", "not_entailment"


def predicted(tmp_path, runs, words):
    for i, (run, predictions) in enumerate(zip(runs, words, strict=True)):
        run.folder = str(tmp_path / str(i))
        Path(run.folder).mkdir()
        rows = zip(range(40), [RIGHT] * 40, predictions, strict=True)
        write_table(Path(run.folder) / "predictions_dev.tsv", ("index", "label", "prediction"), rows)
    return frame(runs)


def test_the_p_values_of_several_seeds_are_a_range(tmp_path):
    """Not a median that belongs to none of them."""
    runs = [record(seed=s, k=k) for s in (1, 2) for k in (0, 2)]
    right, worse = [RIGHT] * 40, [RIGHT] * 20 + [WRONG] * 20
    found = predicted(tmp_path, runs, [right, worse, right, right])
    assert table_of(significance_tables(found))["top", "2"]["RTE"] == "1 worse of 2 (p 1.9e-06 to 1)"
    (row,) = csv.DictReader(io.StringIO(render(significance_tables(found), "csv")))
    assert float(row["lowest_p"]) == pytest.approx(2 * 0.5**20, rel=1e-5) and float(row["highest_p"]) == 1
    assert (row["seeds"], row["worse"], row["better"]) == ("2", "1", "0")


def test_ways_are_tested_against_the_ordinary_run(tmp_path):
    """Not against the full model, which is far better than both."""
    names = [RIGHT, WRONG]
    labels = [i % 2 for i in range(40)]
    wrong = [1 - label for label in labels]
    runs = []
    for made, predicted in (
        (record(), labels),
        (record(k=2), wrong),
        (record(k=2, start=record().spec), labels[:20] + wrong[20:]),
    ):
        made.folder = str(tmp_path / made.id)
        Path(made.folder).mkdir()
        rows = [[str(i), names[label], names[p]] for i, (label, p) in enumerate(zip(labels, predicted, strict=True))]
        write_table(Path(made.folder) / "predictions_dev.tsv", ["index", "label", "prediction"], rows)
        runs.append(made)
    (table,) = significance_tables(frame(runs), plain=True)
    assert [row[:2] for row in table.rows] == [["top, finetuned", "2"]] and table.rows[0][2].startswith("1 better of 1")
    assert "plain run of the same strategy" in table.notes[0] and "  " not in table.notes[0]
    (table,) = significance_tables(frame([*elastic_runs(), *runs[1:]]), plain=True)
    assert table.title == "bert-base-uncased: significance"  # without the full model of the differences
    (table,) = significance_tables(frame(runs))
    assert [row[2][:7] for row in table.rows] == ["1 worse", "1 worse"]
    longer = record(k=2, recipe=TrainSpec(num_train_epochs=6.0))
    (table,) = significance_tables(frame([*runs, longer]), plain=True)
    assert len(table.rows) == 1 and "num_train_epochs 3" in table.title
    (table,) = significance_tables(frame([*runs, longer], ["num_train_epochs"]), plain=True)
    assert table.rows[0][0] == "top, finetuned (num_train_epochs 3)" and table.rows[0][2].startswith("1 better of 1")
    (table,) = significance_tables(frame([*runs, longer], ["num_train_epochs"]))
    assert [row[2][:7] for row in table.rows] == ["1 worse", "missing", "1 worse"]  # the longer run has no predictions
    (table,) = significance_tables(frame([longer]), plain=True)  # it says what would be compared
    assert table.rows == [] and "plain run of the same strategy" in table.notes[0]


def test_holms_correction_is_offered_and_made(tmp_path):
    """6 of 6 disagreements have p = 0.031; of two tests 0.0625."""
    runs = [record(), record(k=2), record(k=4)]
    found = predicted(tmp_path, runs, [[RIGHT] * 40, [RIGHT] * 34 + [WRONG] * 6, [RIGHT] * 40])
    (plain,), (holm,) = significance_tables(found), significance_tables(found, correct=True)
    assert plain.rows[0][2] == "1 worse of 1 (p 0.031)" and holm.rows[0][2] == "none of 1 (p 0.062)"
    assert "among 2 tests without any difference, about 0.1 would be significant. Add --holm" in plain.notes[0]
    assert "Holm's, for the 2 tests" in holm.notes[0]


@pytest.mark.parametrize("table", ["tasks", "glue", "cost", "significance"])
def test_tables_of_a_single_run_without_the_full_model(tmp_path, table, capsys):
    run = record(k=2)
    run.folder = str(tmp_path / "run")
    run.write()
    for form in ("md", "latex", "csv"):
        assert run_command("report", [str(tmp_path), "--table", table, "--format", form]) == 0
    assert "missing" in capsys.readouterr().out


def test_ways_of_training_are_rows_of_their_own():
    """Also in full depth; the settings of a variant are named where they differ."""
    full, layerdrop = record().spec, TrainSpec(layerdrop_rate=0.2)
    runs = [record(), record(k=2), record(k=2, start=full), record(k=2, recipe=None, start=full)]
    runs += [record(k=2, every_epochs=2, step=1), record(recipe=layerdrop), record(k=2, recipe=layerdrop)]
    teacher = {"distill": "logits", "teacher": "x"}
    runs += [record(k=2, distil=DistilSpec(**teacher)), record(k=2, distil=DistilSpec(**teacher, distill_weight=0.9))]
    (table,) = task_tables(frame(runs))
    assert [tuple(row[:2]) for row in table.rows] == [
        ("full", "0"),
        ("full, layerdrop", "0"),
        ("top", "2"),
        ("top, after", "2"),
        ("top, distill-logits (distill_weight 0.5)", "2"),
        ("top, distill-logits (distill_weight 0.9)", "2"),
        ("top, finetuned", "2"),
        ("top, gradual", "2"),
        ("top, layerdrop", "2"),
    ]


def test_a_recipe_of_the_first_training_is_named_where_it_has_one():
    full = record().spec
    longer = [record(recipe=TrainSpec(num_train_epochs=10), **changes) for changes in ({}, {"k": 2, "start": full})]
    rows = {tuple(row[:2]) for table in task_tables(frame([record(k=2, start=full), *longer])) for row in table.rows}
    assert rows == {("top, finetuned", "2"), ("full", "0"), ("top, finetuned (start_num_train_epochs 3)", "2")}


def test_settings_that_make_rows(tmp_path, capsys):
    """Every row names its recipe, and is compared with the full model whose recipe is most like its own."""
    short, long = (TrainSpec(num_train_epochs=n) for n in (3.0, 10.0))
    full, longer = record(accuracy=0.5, train=10.0), record(accuracy=0.7, train=40.0, recipe=long)
    runs = [full, record(k=2, accuracy=0.4, train=5.0), record(k=2, recipe=long, accuracy=0.45, train=20.0)]
    runs += [record(k=2, recipe=long, accuracy=0.6, start=record(recipe=long).spec)]
    epochs = ["(num_train_epochs 3)", "(num_train_epochs 10)"]
    names = [f"top {epochs[0]}", f"top {epochs[1]}", f"top, finetuned {epochs[1]}"]

    def last(tables):
        (table,) = tables
        return [(row[0], row[-1]) for row in table.rows]

    def frame_of(*runs):
        return frame(runs, ["num_train_epochs", "num_train_epochs"])

    assert len(task_tables(frame(runs))) == 2
    assert last(task_tables(frame_of(*runs))) == [(f"full {epochs[0]}", ""), *zip(names, LOSSES[0], strict=True)]
    both = [(f"full {epochs[0]}", ""), (f"full {epochs[1]}", "")]
    found = frame_of(*runs, longer)
    assert last(task_tables(found)) == [*both, *zip(names, LOSSES[1], strict=True)]
    (glue,), (cost,) = glue_tables(found), cost_tables(found)
    assert [row[-1] for row in glue.rows] == ["100.0%", "100.0%", "80.0%", "64.3%", "85.7%"]
    assert [row[3] for row in cost.rows] == ["1.00", "1.00", "2.00", "2.00", "4.00"]
    (results,) = model_results(found)
    drawn = figures.speed(results, ["rte"]).axes[0].get_lines()
    assert list(drawn[-1].get_ydata()) == [50.0, 70.0] and list(drawn[0].get_xdata()) == [2.0]
    assert without_full_model(found) == []
    for run in [*runs, longer]:
        run.folder = str(tmp_path / run.id)
        run.write()
    assert run_command("report", [str(tmp_path), "--rows", "num_train_epochs", "--table", "tasks"]) == 0
    assert f"top, finetuned {epochs[1]}" in capsys.readouterr().out


LOSSES = [("-10.0", "-5.0", "+10.0"), ("-10.0", "-25.0", "-10.0")]


def test_the_full_model_of_the_most_similar_recipe():
    """By two settings: the full model of fewer samples has other epochs, but the same samples."""
    few = {"max_train_samples": 6400}
    longer = TrainSpec(num_train_epochs=9.0)
    runs = [record(accuracy=0.9), record(accuracy=0.5, **few), record(k=2, accuracy=0.6, **few)]
    runs += [record(k=2, accuracy=0.6, recipe=longer, **few), record(k=2, accuracy=0.6, recipe=longer)]
    (table,) = task_tables(frame(runs, ["num_train_epochs", "max_train_samples"]))
    assert [row[-1] for row in table.rows] == ["", "", "+10.0", "+10.0", "-30.0"]
    # two full models are as much like it as each other
    runs += [record(accuracy=0.8, recipe=TrainSpec(num_train_epochs=2.0), **few)]
    found = frame(runs, ["num_train_epochs", "max_train_samples"])
    (table,) = task_tables(found)
    assert [row[-1] for row in table.rows] == ["", "", "", "+10.0", "", "-30.0"]
    assert without_full_model(found) == [
        "several full models are equally near to rows in bert-base-uncased, so these rows have no differences. "
        "Add K = 0 with the settings of these rows"
    ]


def test_a_tie_is_no_comparison_with_the_row_without_settings():
    runs = [record(), record(hold_out=0.1), record(k=2, hold_out=0.2)]
    _, found, notes = differences(runs, ["hold_out"])
    assert found == {"full 0": "", "full (hold_out 0.1) 0": "", "top (hold_out 0.2) 2": ""}
    assert [note[:26] for note in notes] == ["several full models are eq"]


def test_settings_that_make_no_tables_make_no_rows():
    with pytest.raises(UserError, match="--rows: unknown value 'k'. Allowed: .*num_train_epochs"):
        frame([record()], ["k"])


def test_the_first_training_counts():
    first = record(k=2, train=10.0, start=record().spec)
    first.prerequisites = {"trainings": 1, "steps": 9, "seconds": 20.0}
    distilled = record(k=2, train=10.0, distil=DistilSpec("logits", "x"))
    distilled.seconds["teacher"] = 5.0
    assert list(frame([record(), first, distilled])["train"]) == [10.0, 30.0, 15.0]


# ---- runs whose inputs differ are never one row ----------------------------------------------------------------------
TAUGHT = {"distil": DistilSpec("logits", teacher="t")}
SCORED = {"strategy": "contribution", "score_split": "validation"}
CONTENTS_OF = {
    "model": ({}, "weights"),
    "tokenizer": ({}, "tokenizer files"),
    "train": ({}, "train rows"),
    "validation": ({}, "rows"),
    "start": ({"start": record().spec}, "start"),
    "teacher": (TAUGHT, "teacher weights"),
    "score_on": (SCORED | {"score_on": "s"}, "scored weights"),
    "test": (SCORED | {"score_split": "test"}, "scored rows"),
}
"""Input -> (a run that has it, the words that tell two contents apart)."""


def with_input(run, name, fingerprint):
    if name in ("train", "validation", "test"):
        run.data = {name: {"rows": 3, "fingerprint": fingerprint}}
    else:
        run.fingerprints = {name: fingerprint}
    return run


@pytest.mark.parametrize("name", CONTENTS_OF)
def test_runs_whose_inputs_differ_are_never_one_row(tmp_path, name):
    changes, words = CONTENTS_OF[name]
    runs = [record(accuracy=0.5)]
    runs += [with_input(record(k=2, accuracy=a, **changes), name, found) for a, found in ((0.6, "aaa"), (0.9, "bbb"))]
    runs.append(record(k=2, accuracy=0.6, **changes))  # a record of before there were fingerprints
    for i, run in enumerate(runs):
        run.folder = str(tmp_path / str(i))
        run.write()
    found = read_store([str(tmp_path)]).done
    assert [run.metrics["accuracy"] for run in found] == [0.5, 0.6, 0.9]  # the old one is one of them
    text = render(task_tables(frame(found)), "md")
    assert f"{words} aaa" in text and f"{words} bbb" in text and "75.0" not in text
    alike = [with_input(record(k=2, accuracy=a, seed=s, **changes), name, "aaa") for a, s in ((0.6, 1), (0.9, 2))]
    assert "75.0 [60.0, 90.0]" in render(task_tables(frame(alike)), "md")


def test_a_start_of_its_own_for_each_seed_is_no_difference():
    """Nor for each task, nor for each checkpoint."""
    runs = [record()]
    for i, (task, seed, weights) in enumerate([("rte", 1, "a"), ("rte", 2, "a"), ("cola", 1, "a"), ("rte", 1, "b")]):
        run = record(task, k=2, seed=seed, start=record(task, seed=seed).spec)
        run.fingerprints = {"start": f"start{i}", "model": weights}
        runs.append(run)
    assert "start" not in render(task_tables(frame(runs)), "md").replace("started", "")


def test_a_run_of_other_inputs_does_not_excuse_a_failure(tmp_path):
    for i, (status, weights) in enumerate((("success", "aaa"), ("failed", "bbb"))):
        run = with_input(record(), "model", weights)
        run.status, run.folder = status, str(tmp_path / str(i))
        run.write()
    assert len(read_store([str(tmp_path)]).failed) == 1


def test_predictions_beside_make_no_other_run(tmp_path):
    """The test set is no input of a run that does not score it."""
    for i, more in enumerate(
        ({}, {"test": {"rows": 1, "fingerprint": "x"}}, {"test": {"rows": 1, "fingerprint": "y"}})
    ):
        run = record()
        run.data, run.folder = {"train": {"fingerprint": "t"}} | more, str(tmp_path / str(i))
        run.write()
    assert len(read_store([str(tmp_path)]).done) == 1


# ---- --plain where a strategy was run in two ways --------------------------------------------------------------------
@pytest.mark.parametrize(
    "ways",
    [
        [{"strategy": "contribution", "score_split": split} for split in ("train", "validation")],
        [{"strategy": "greedy", "found": found} for found in ((0, 5), (1, 2))],
    ],
    ids=["scored", "searched"],
)
@pytest.mark.parametrize("variant", ["finetuned", "gradual"])
def test_plain_of_a_strategy_in_two_ways(tmp_path, ways, variant):
    """Each variant has the plain run of its own scores, or of the layers that its own search found."""
    runs, right, wrong = [], [RIGHT] * 40, [RIGHT] * 20 + [WRONG] * 20
    for way in ways:
        turned = {"found": way["found"][::-1]} if "found" in way else {}  # gradual dropping has an order
        more = {"start": record().spec} if variant == "finetuned" else {"every_epochs": 1, "step": 1} | turned
        runs += [record(k=2, **way), record(k=2, **way | more)]
    found = predicted(tmp_path, runs, [right, wrong, wrong, right])
    (table,) = significance_tables(found, plain=True)
    assert [row[2][:8] for row in table.rows] == ["1 worse ", "1 better"], table.rows


# ---- --against: another strategy with the same K ---------------------------------------------------------------------
BETTER, WORSE = [WRONG] + [RIGHT] * 39, [RIGHT] + [WRONG] * 9 + [RIGHT] * 30
"""10 disagreements, 1 for WORSE: McNemar's p is 2 * (C(10,0) + C(10,1)) / 2 ** 10 = 0.0215."""


def cells_against(strategy, runs, **settings):
    (table,) = significance_tables(runs, against=strategy, **settings)
    return {(row[0], row[1]): row[2] for row in table.rows}


def test_strategies_are_tested_against_another_with_the_same_k(tmp_path):
    """Seed by seed: seed 1 is better, seed 2 equal, and seed 3 has no run of `top`. Not against the full model."""
    runs = [record(), record(k=2), record(k=2, seed=2), record(k=4)]
    runs += [record(k=2, strategy="bottom", seed=seed) for seed in (1, 2, 3)] + [record(k=6, strategy="bottom")]
    words = [[RIGHT] * 40, WORSE, WORSE, WORSE, BETTER, WORSE, BETTER, BETTER]
    runs = predicted(tmp_path, runs, words)
    assert cells_against("top", runs) == {("bottom", "2"): "1 better of 2 (p 0.021 to 1)", ("bottom", "6"): "missing"}
    assert cells_against("bottom", runs) == {("top", "2"): "1 worse of 2 (p 0.021 to 1)", ("top", "4"): "missing"}
    assert cells_against("top", runs, correct=True)["bottom", "2"] == "1 better of 2 (p 0.043 to 1)"


def test_a_comparison_of_strategies_is_named_in_every_format(tmp_path):
    runs = predicted(tmp_path, [record(k=2), record(k=2, strategy="bottom")], [WORSE, BETTER])
    tables = significance_tables(runs, against="top")
    assert tables[0].title == "bert-base-uncased, compared with top: significance"
    legend = "Against the run of top with the same K, seed, training variant and settings, on the validation set."
    for form, mark in (("md", "### "), ("latex", "% ")):
        text = render(tables, form)
        assert mark + tables[0].title in text and legend in text and "1 better of 1 (p 0.021)" in text
    (row,) = csv.DictReader(io.StringIO(render(tables, "csv")))
    assert (row["strategy"], row["k"], row["against"], row["better"]) == ("bottom", "2", "top", "1")
    assert float(row["lowest_p"]) == pytest.approx(22 / 1024, rel=1e-5)
    (row,) = csv.DictReader(io.StringIO(render(significance_tables(runs, against="bottom"), "csv")))
    assert (row["strategy"], row["against"], row["worse"]) == ("top", "bottom", "1")


def test_strategies_are_compared_within_a_training_and_its_settings(tmp_path):
    """A setting separates runs even if it differs only between the strategies, so that no row names it."""
    six = TrainSpec(num_train_epochs=6.0)
    runs = [record(k=2), record(k=2, elastic_k=(2, 4)), record(k=2, recipe=six)]
    runs += [record(k=2, strategy="bottom", elastic_k=(2, 4)), record(k=2, strategy="symmetric", elastic_k=(2, 6))]
    runs += [record(k=2, strategy="bottom", start=record().spec), record(k=2, strategy="bottom", recipe=six)]
    runs += [record(k=4), record(k=4, strategy="bottom", recipe=six)]
    runs = predicted(tmp_path, runs, [[RIGHT] * 40, WORSE, BETTER, BETTER, BETTER, BETTER, WORSE, WORSE, BETTER])
    better, worse = "1 better of 1 (p 0.021)", "1 worse of 1 (p 0.021)"
    (table,) = significance_tables(frame([*runs["record"]], ["num_train_epochs"]), against="top")
    assert {(row[0], row[1]): row[2] for row in table.rows} == {
        ("bottom (num_train_epochs 6)", "2"): worse,
        ("bottom (num_train_epochs 6)", "4"): "missing",
        ("bottom, elastic (num_train_epochs 3)", "2"): better,
        ("bottom, finetuned (num_train_epochs 3)", "2"): "missing",
        ("symmetric, elastic (num_train_epochs 3)", "2"): "missing",  # trained with other depths
    }


@pytest.mark.parametrize(("starts", "cell"), [("ab", "missing"), ("aa", "1 better of 1 (p 0.021)")])
def test_strategies_are_compared_from_the_same_start_model(tmp_path, starts, cell):
    runs = [record(k=2, strategy=strategy, start=record().spec) for strategy in ("top", "bottom")]
    for run, weights in zip(runs, starts, strict=True):
        run.fingerprints = {"start": weights}
    assert list(cells_against("top", predicted(tmp_path, runs, [WORSE, BETTER])).values()) == [cell]


def test_strategies_are_compared_between_runs_that_were_trained_again(tmp_path):
    """After --finetune_again, each seed has its own elastic training. A resumed run counts as any other."""
    runs = []
    for seed in (1, 2):
        start = record(elastic_k=(2, 4), seed=seed).spec
        runs += [record(k=2, strategy=strategy, seed=seed, start=start) for strategy in ("top", "bottom")]
        runs += [record(k=2, seed=seed, start=start, recipe=None), record(k=2, strategy="bottom", seed=seed)]
    for run in runs:
        run.fingerprints = {"start": f"weights of seed {run.spec.seed}"} if run.spec.start else {}
        run.resumed_at_step = 5
    found = predicted(tmp_path, runs, [WORSE, BETTER, BETTER, WORSE] * 2)
    cells = {("bottom", "2"): "missing", ("bottom, elastic-finetuned", "2"): "2 better of 2 (p 0.021)"}
    assert cells_against("top", found) == cells


def test_settings_of_a_criterion_are_no_settings_of_the_training(tmp_path):
    """`contribution` is scored in two ways: each is compared with `top`, but `top` with neither."""
    splits = [{"strategy": "contribution", "score_split": split} for split in ("train", "validation")]
    runs = [record(k=2), *(record(k=2, **way) for way in splits)]
    runs += [record(k=2, strategy="cka", score_split=split) for split in ("train", "validation")]
    runs += [record(k=None, strategy="contribution", threshold=0.9), record(k=None, strategy="cka", threshold=0.9)]
    words = [WORSE, BETTER, WORSE, WORSE, BETTER, BETTER, BETTER]
    found = predicted(tmp_path, runs, words)
    cells = cells_against("top", found)
    assert [cells[f"contribution (score_split {split})", "2"][:8] for split in ("train", "validation")] == [
        "1 better",
        "none of ",
    ]
    cells = cells_against("contribution", found)
    assert cells["top", "2"] == "missing"  # as near to one as to the other
    assert [cells[f"cka (score_split {split})", "2"][:8] for split in ("train", "validation")] == [
        "1 worse ",
        "1 better",
    ]
    assert [cell for (row, _), cell in cells.items() if "> 0.9" in row] == ["missing"]  # a threshold has no fixed K


def test_the_flag_against(tmp_path, capsys):
    runs = predicted(tmp_path, [record(k=2), record(k=2, strategy="bottom")], [WORSE, BETTER])
    for run in runs["record"]:
        run.write()
    table = [str(tmp_path), "--table", "significance"]
    assert run_command("report", [*table, "--against", "top"]) == 0
    out, err = capsys.readouterr()
    assert "1 better of 1 (p 0.021)" in out and "full model" not in err
    for words, message in (
        ([*table, "--against", "botom"], "unknown strategy 'botom'. Did you mean 'bottom'? Allowed: bottom, top."),
        ([*table, "--against", "full"], "unknown strategy 'full'. Allowed: bottom, top."),
        ([*table, "--against", "top", "--plain"], "--against and --plain: compare with different runs. Leave one"),
        ([str(tmp_path), "--against", "top"], "--against: changes only the tests of significance. Add --table"),
    ):
        assert run_command("report", words) == 2
        out, err = capsys.readouterr()
        assert message in err and err.count("\n") == 1 and not out


def test_the_name_of_own_files_beside_tasks_of_glue(tmp_path, capsys):
    """--tasks with published values, another strategy, and a csv file of the runs."""
    own = {"task": "mine", "source": "files", "files": (("train", "a.csv"), ("validation", "b.csv"))}
    runs = [record(k=2, strategy=strategy, **task) for task in ({}, own) for strategy in ("top", "bottom")]
    for run in runs[2:]:
        run.labels, run.label_type = [RIGHT, WRONG], "class"
    for run in predicted(tmp_path, runs, [WORSE, WORSE, WORSE, BETTER])["record"]:
        run.write()
    assert run_command("report", [str(tmp_path), "--tasks", "mine", "--table", "significance", "--against", "top"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"\| bottom +\| 2 +\| 1 better of 1 \(p 0.021\) \|", out) and "RTE" not in out
    for store in (str(tmp_path), file := str(tmp_path / "runs.csv")):
        for tasks, lacks in ((["mine"], True), (["mine", "rte"], False)):
            more = ["--runs", file] if store != file else []
            assert run_command("report", [store, "--tasks", *tasks, "--compare", "sajjad2023", *more]) == 0
            out, err = capsys.readouterr()
            assert ("no published values for these models and tasks" in err) == lacks
            assert ("published 62.8" in out) == ("RTE" in out) == (not lacks) and "mine acc" in out


# ---- figures of a csv file -------------------------------------------------------------------------------------------
def test_a_csv_of_runs_gives_the_same_tables(tmp_path, capsys):
    """As docs/results has them: with a variant, lists, a threshold, a constant prediction, settings of tables."""
    constant = {"pearson": math.nan, "spearmanr": math.nan}
    runs = [record(seed=s, accuracy=a) for s, a in ((1, 0.5), (2, 0.61))] + [record(k=2, accuracy=0.5, train=4.0)]
    runs += [record("stsb", accuracy=constant), record("stsb", k=2, accuracy={"pearson": 0.5, "spearmanr": 0.25})]
    runs += [record(strategy="list", k=None, layers=(1, 3)), record(k=None, strategy="contribution", threshold=0.9)]
    runs += [
        record(k=2, start=record().spec),
        record(k=2, recipe=TrainSpec(layerdrop_rate=0.2)),
        record(from_scratch=True),
    ]
    runs += [
        record("cola", k=k, accuracy={"matthews_correlation": 0.5, "accuracy": 0.7}, max_train_samples=64)
        for k in (0, 2)
    ]
    file = tmp_path / "runs.csv"
    file.write_text(runs_csv(frame(runs)))
    for columns in ([], ["max_train_samples"]):
        tables = [
            (table.title, table.header, table.rows)
            for found in (frame(runs, column_settings=columns), read_runs_csv(str(file), column_settings=columns))
            for table in (*task_tables(found), *cost_tables(found), *glue_tables(found))
        ]
        assert tables[: len(tables) // 2] == tables[len(tables) // 2 :]
        assert len(tables) == 2 * 3 * (1 if columns else 2)
    assert "CoLA (max_train_samples 64) Matthews" in tables[0][1]
    words = [
        str(file),
        "--columns",
        "max_train_samples",
        "--figures",
        str(tmp_path),
        "--html",
        str(tmp_path / "p.html"),
    ]
    assert run_command("report", words) == 0 and "mean over" not in capsys.readouterr().err
    for flags, said in (
        (["--columns", "max_train_sample"], "Did you mean 'max_train_samples'"),
        (["--table", "significance"], "needs the folders of the runs"),
        ([str(tmp_path)], "one csv file"),
    ):
        assert run_command("report", [str(file), *flags]) == 2 and said in capsys.readouterr().err
    for bad in ("id\n1\n", "", file.read_text().replace(",1,fp32", ",x,fp32")):
        (tmp_path / "bad.csv").write_text(bad)
        assert run_command("report", [str(tmp_path / "bad.csv")]) == 2 and "bad.csv" in capsys.readouterr().err
    assert run_command("report", [str(tmp_path / "none.csv")]) == 2


@pytest.mark.parametrize("file", sorted((Path(__file__).parent.parent.parent / "docs" / "results").glob("*.csv")))
def test_the_published_runs_can_be_read(file):
    """Each is in a row of its own words."""
    found = read_runs_csv(str(file))
    with open(file, newline="") as lines:
        words = [line["strategy"].replace(".0", "") for line in csv.DictReader(lines)]  # files of 0.2 have `epochs 3.0`
    assert [row.strategy for row in found["row"]] == words
    assert not any(".0" in results.title for results in model_results(found))


def test_a_task_may_be_named_by_a_number(tmp_path):
    """As the task of a folder `2024`."""
    runs = frame([record("2024", source="files", files=(("train", "t.csv"),))])
    (tmp_path / "runs.csv").write_text(runs_csv(runs))
    assert list(read_runs_csv(str(tmp_path / "runs.csv"))["column"]) == ["2024"]


def test_settings_that_make_columns():
    """A task with fewer rows stands beside the others, and counts in their mean."""
    runs = [record(task, k=k, max_train_samples=n) for task, n in (("rte", None), ("sst2", 64)) for k in (0, 2)]
    assert len(task_tables(frame(runs))) == 2
    (table,) = task_tables(frame(runs, column_settings=["max_train_samples"]))
    assert table.header[2:5] == ["SST-2 (max_train_samples 64) acc", "RTE acc", "mean"] and table.rows[1][4] == "50.0"
    with pytest.raises(UserError, match="--columns: unknown value 'k'"):
        frame(runs, column_settings=["k"])


def test_the_files_of_different_columns_have_their_splits():
    files = ((("train", "a.csv"), ("validation", "b.csv")), (("validation", "b.csv"),))
    columns = frame([record("own", files=these, source="files") for these in files])["column"]
    assert ["train=a.csv,validation=b.csv" in columns[0], "(files validation=b.csv)" in columns[1]] == [True, True]


def test_f1_of_different_classes_is_never_one_figure():
    """Records of 0.2 do not name the class: it was the last one by name."""
    runs = [record("own", seed=seed, files=(("train", "t.csv"),), source="files") for seed in (1, 2, 3)]
    for run, positive in zip(runs, ("ham", None, "spam"), strict=True):
        run.labels, run.positive_label = ["ham", "spam"], positive
    columns = frame(runs)["column"]
    assert columns[0] != columns[1] == columns[2] and "ham" in columns[0] and "spam" in columns[1]
    assert frame(runs[1:])["column"].nunique() == 1


def test_constant_predictions_for_the_test_set_do_not_mark_a_score():
    run = record()
    run.distinct_predictions = {"validation": 2, "test": 1}
    assert run.constant_predictions() == {"test": 1} and run.constant_predictions("validation") == {}
    assert pd.isna(frame([run])["constant"][0])


# ---- exports --------------------------------------------------------------------------------------------------------
def test_validation_sets_are_compared_by_content():
    """Equal rows may have two task names, and different rows the same name and number."""

    def notes(a, b):
        form = SimpleNamespace(name="torch fp32", megabytes=9.0, score=90.0, latency={})
        runs = [{"run": "a", "validation_set": a}, {"run": "b", "validation_set": b}]
        exports = [SimpleNamespace(metric="f1", variants=[form], **run) for run in runs]
        return exports_table(exports).notes[1:]

    assert notes(("reviews", 9, "aaa"), ("mails", 9, "aaa")) == []
    differ = "The scores are not comparable: the validation sets differ"
    assert notes(("x", 9, "aaa"), ("x", 8, "bbb")) == [f"{differ} (a: x, 9 rows; b: x, 8 rows)."]
    words = "a: x, 9 rows with fingerprint aaa; b: x, 9 rows with fingerprint bbb"
    assert notes(("x", 9, "aaa"), ("x", 9, "bbb")) == [f"{differ} ({words})."]
