"""One bad record never ends a report: types are checked when it is read, and it is set aside by name."""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import pytest

from layerdrop.architectures import ModelSpec
from layerdrop.cli.command import run_command
from layerdrop.cli.report import TABLES
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.finetune.spec import DistilSpec, TheseusSpec, TrainSpec, WhenSpec
from layerdrop.report.frame import frame
from layerdrop.report.html import page
from layerdrop.report.records import incomplete_notes, read_store
from layerdrop.report.runs_csv import runs_csv
from layerdrop.report.table import render
from layerdrop.report.tables.significance import significance_tables
from layerdrop.runs.record import Cut, RunRecord
from layerdrop.runs.spec import RunSpec
from layerdrop.system.typecheck import check_type
from tests.report.test_report import record

WRONG = (None, True, -3, 2.5, 1e999, 10**400, "x", "\ud800", [], [["x"]], {}, {"x": {}}, "DELETED")
"""Replacements of each value. DELETED removes it."""


def full_record() -> dict:
    """A record in which every field has a value."""
    first = RunSpec(ModelSpec("m"), DataSpec("rte", "glue"))
    spec = RunSpec(
        ModelSpec("m", tokenizer="t"),
        DataSpec(
            "rte", "files", (("train", "a.csv"), ("validation", "b.csv")), text_columns=("x", "y"), max_eval_samples=9
        ),
        DropSpec("contribution", 2, score_on="s", score_split="train", score_samples=9),
        WhenSpec(step=1, every_epochs=1),
        TrainSpec(freeze_layers=(0, 1), layerdrop_rate=0.1, data_seed=3, other={"a": 1}),
        start=first,
        teacher=first,
        distil=DistilSpec("layers", distill_states_weight=1.0, distill_attention=True),
        theseus=TheseusSpec(0.5, 0.5, "linear"),
    )
    made = RunRecord(
        spec,
        "x",
        "success",
        n_layers=6,
        cuts=[Cut(0, [4], [0, 1, 2, 3, 5], "why", [0.1, None]), Cut(3, [4, 5], [0, 1, 2, 3], "why")],
        dropped_before=[6],
        parameters_before=10,
        parameters_after=8,
        metrics={"loss": 1.0, "accuracy": 0.5, "pearson": math.nan},
        epochs=[{"step": 3, "epoch": 1.0, "train_loss": 0.5, "loss": None}],
        seconds={"train": 1.0, "teacher": 1.0, "inference": 1.0, "total": 3.0},
        steps=3,
        prerequisites={"trainings": 1, "steps": 3, "seconds": 1.0},
        resumed_at_step=1,
        tokens_per_second=1.0,
        padding_share=0.1,
        peak_memory_bytes={"host": 1},
        data={"train": {"rows": 3, "bad_rows": 0, "fingerprint": "f"}, "validation": {"rows": 3, "fingerprint": "g"}},
        text_columns=["x"],
        labels=["a", "b"],
        distinct_predictions={"validation": 1},
        fingerprints={"model": "f", "start": "g", "teacher": "h"},
        notes=["n"],
        environment={"versions": {"torch": "2"}, "device": "X", "threads": 1, "commit": "c", "dirty": True},
        error="e",
    )
    return json.loads(json.dumps(made.to_dict()))


def places(value: Any, path: tuple = ()):
    """Every path to a value inside a record; a first run's spec has the parts of the run's own."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        yield (*path, key)
        if key not in ("start", "teacher"):
            yield from places(item, (*path, key))


def mutated(values: dict, path: tuple, wrong: Any) -> dict:
    copy = json.loads(json.dumps(values))
    owner = copy
    for key in path[:-1]:
        owner = owner[key]
    if wrong == "DELETED":
        del owner[path[-1]]
    else:
        owner[path[-1]] = wrong
    return copy


def write(folder, values: dict) -> None:
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(values))


@pytest.fixture(scope="module")
def mutants() -> list[tuple[tuple, Any, dict]]:
    """(place, what stands there, the record)."""
    values = full_record()
    return [(path, wrong, mutated(values, path, wrong)) for path in places(values) for wrong in WRONG]


def is_of(value: Any, wrong: Any) -> bool:
    """Whether a value may take another's place in JSON: the same type, or none known."""
    return type(value) is type(wrong) or {type(value), type(wrong)} == {int, float}


def test_every_value_of_a_wrong_type_is_set_aside(mutants):
    """Whatever the record's own types allow: a number for a text, a text for a list ..."""
    values, taken = full_record(), []
    for path, wrong, mutant in mutants:
        value = values
        for key in path:
            value = value[key]
        free = path[:2] == ("spec", "version") or path[0] in ("dropped", "kept", "scores") or "other" in path
        if wrong in (None, [], {}, "DELETED") or value is None or is_of(value, wrong) or free:
            continue  # nothing counts as absent
        try:
            RunRecord.from_dict(mutant)
            taken.append((path, wrong))
        except ValueError:
            pass
    assert len(mutants) > 1200 and not taken, taken


def test_no_mutated_record_ends_a_report(mutants, tmp_path, capsys):
    """All those that are read, beside two good ones; every table, form and output."""
    read = []
    for path, wrong, mutant in mutants:
        try:
            read.append(RunRecord.from_dict(mutant))
        except ValueError as error:
            assert str(error), (path, wrong)
    assert len(read) > 200
    for at_once in [[made, record(), record(k=2)] for made in read[::40]] + [[*read, record(), record(k=2)]]:
        runs = frame(at_once)
        assert len(runs) == len(at_once)
    for i, made in enumerate(read[::5]):
        made.folder = str(tmp_path / "store" / str(i))
        made.write()
    store = str(tmp_path / "store")
    for form in ("md", "latex", "csv"):
        assert run_command("report", [store, "--table", *TABLES, "--format", form]) == 0
    assert (
        run_command("report", [store, "--html", str(tmp_path / "page.html"), "--runs", str(tmp_path / "runs.csv")]) == 0
    )
    capsys.readouterr()


def test_a_bad_record_is_named_and_the_others_are_shown(tmp_path, capsys):
    for name, values in (("good", full_record()), ("bad", full_record() | {"seconds": {"train": "long"}})):
        write(tmp_path / name, values)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "record.json").write_text("[" * 100_000)
    (tmp_path / "constant").mkdir()
    (tmp_path / "constant" / "record.json").write_text(json.dumps(full_record() | {"tokens_per_second": math.nan}))
    found = read_store([str(tmp_path)])
    assert len(found.done) == 1
    (note,) = incomplete_notes(found)
    assert note.startswith("3 unreadable records, in no table: ")
    assert (
        f"{tmp_path / 'bad' / 'record.json'}: cannot be read (not the record of a run: seconds.train: float is "
        "expected, not 'long')" in note
    )
    assert run_command("report", [str(tmp_path)]) == 0 and "seconds.train" in capsys.readouterr().err


def test_bad_predictions_are_missing(tmp_path):
    """Cut off, of other columns, no text, numbers that are none."""
    good = "index\tlabel\tprediction\n0\t1.0\t1.5\n1\t2.0\t2.5\n2\t3.0\t2.0\n"
    runs = []
    contents = [good.encode(), b"", b"index\n0\n", b"\xff\xfe", good.replace("1.5", "x").encode(), good[:-4].encode()]
    for i, content in enumerate(contents):
        run = record("stsb", k=i, accuracy={"pearson": 0.5, "spearmanr": 0.5})
        run.folder = str(tmp_path / str(i))
        run.write()
        (tmp_path / str(i) / "predictions_dev.tsv").write_bytes(content)
        runs.append(run)
    (table,) = significance_tables(frame(runs))
    assert [row[2] for row in table.rows] == ["missing"] * (len(contents) - 1)
    assert "Not compared: " in table.notes[1] and f"{tmp_path / '3'}" in table.notes[1]


def test_a_bad_cost_record_is_set_aside(tmp_path, capsys):
    write(tmp_path / "run", full_record())
    for i, text in enumerate(("{", "[]", '{"settings": {}, "environment": {}, "models": [{}]}')):
        (tmp_path / f"cost_{i}.json").write_text(text)
    assert run_command("report", [str(tmp_path)]) == 0
    assert "3 unreadable records" in (err := capsys.readouterr().err) and "cost_0.json" in err


# ---- the check itself ------------------------------------------------------------------------------------------------
class Typed(TypedDict, total=False):
    a: int


@dataclass
class Part:
    b: float | None = None


@pytest.mark.parametrize(
    ("value", "hint", "place"),
    [
        (1, float, None), (math.nan, float, None), (math.inf, float, "x"), (True, int, "x"), (True, float, "x"),
        (2**63, int, "x"), (1.0, int, "x"), ("a", str, None), ("\udc00", str, "x"), (None, int | None, None),
        ("a", int | None, "x"), ([1, "a"], list[int], "x[1]"), ((1, 2), tuple[int, ...], None),
        ((1,), tuple[str, str], "x"), ((("a", 1),), tuple[tuple[str, str], ...], "x[0][1]"),
        ([1], tuple[int, ...], "x"), ({"a": 1}, dict[str, int], None), ("b", Literal["a"], "x"),
        ("a", Literal["a"] | None, None), ([], Literal["a"] | None, "x"),
        ({"a": []}, dict[str, int], "x.a"), ({1: 1}, dict[str, int], "a key of x"),
        ({"a": "b", "c": 1}, Typed, "x.a"), ({"c": object()}, Typed, None), ([], Typed, "x"),
        (Part("a"), Part, "x.b"), (Part(), Part, None), ({}, Part, "x"), (object(), Any, None),
    ],
)  # fmt: skip
def test_check_type(value, hint, place):
    if place is None:
        check_type(value, hint, "x")
    else:
        with pytest.raises(TypeError, match=f"^{place}".replace("[", r"\[").replace("]", r"\]") + ": "):
            check_type(value, hint, "x")


def test_render_of_everything_is_text(tmp_path):
    """A page and a csv of a record with every field."""
    made = RunRecord.from_dict(full_record())
    runs = frame([made])
    assert "m" in runs_csv(runs) and page(read_store_of(made, tmp_path), runs, []) and render([], "md") == ""


def read_store_of(made, folder):
    made.folder = str(folder / "run")
    made.write()
    return read_store([str(folder)])
