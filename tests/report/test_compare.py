"""A few runs side by side."""

import re
from dataclasses import replace

from layerdrop.architectures import ModelSpec
from layerdrop.cli.command import run_command
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.report.compare import compare
from layerdrop.runs.record import Cut, RunRecord
from layerdrop.runs.spec import RunSpec
from layerdrop.system.process import BUSY


def record(kept, parameters=1000, metrics=None, seconds=None, folder="x", seed=42, task="demo-sst2"):
    dropped = [i for i in range(4) if i not in kept]
    drop = DropSpec("top", len(dropped)) if dropped else DropSpec()
    made = RunRecord(RunSpec(ModelSpec("demo"), DataSpec(task, "demo"), drop, seed=seed), folder, "success", n_layers=4)
    made.cuts = [Cut(0, dropped, kept, "top")]
    made.parameters_after, made.metrics = parameters, metrics or {"loss": 1.0, "accuracy": 0.9}
    made.seconds = {"train": 20.0, "evaluate": 4.0, "inference": 1.0} if seconds is None else seconds
    return made


def columns(*records):
    """The names, then the values of each run."""
    lines = [re.split(r"\s{2,}", line) for line in compare(list(records)).splitlines()]
    return [list(column) for column in zip(*lines, strict=True)]


def test_by_hand():
    full = record([0, 1, 2, 3], folder="a")
    half = record(
        [0, 1], 600, {"loss": 1.0, "accuracy": 0.85}, {"train": 11.0, "evaluate": 1.0, "inference": 0.5}, "b", 7
    )
    assert columns(full, half) == [
        ["folder", "model", "strategy", "K", "seed", "layers", "dropped", "parameters", "accuracy", "training",
         "inference"],
        ["a", "demo", "full", "0", "42", "4", "none", "1,000", "90.0", "20.0 s", "1.0 s"],
        ["b", "demo", "top", "2", "7", "2", "2,3", "600 (-40%)", "85.0 (-5.0)", "11.0 s (-45%)", "0.5 s (-50%)"],
    ]  # fmt: skip


def test_an_evaluation_may_come_first():
    table = columns(record([0, 1, 2, 3], seconds={"evaluate": 2.0, "inference": 2.0}), record([0, 1]))
    assert table[1][-2:] == ["-", "2.0 s"] and table[2][-2:] == ["20.0 s", "1.0 s (-50%)"]


def test_the_training_of_a_resumed_run_is_not_compared():
    resumed = record([0, 1])
    resumed.resumed_at_step = 5
    assert columns(record([0, 1, 2, 3]), resumed)[2][-2:] == ["-", "1.0 s (+0%)"]


def test_a_shared_training_that_was_resumed_is_not_compared():
    elastic = record([0, 1])
    elastic.prerequisites = {"trainings": 1, "steps": 9, "seconds": 3.0, "resumed": 1}
    assert columns(record([0, 1, 2, 3]), elastic)[2][-2:] == ["-", "1.0 s (+0%)"]


def test_other_settings_are_a_row():
    longer = record([0, 1])
    longer.spec = replace(longer.spec, train=replace(longer.spec.train, num_train_epochs=10.0))
    text = compare([record([0, 1, 2, 3]), longer])
    assert re.search(r"^settings +num_train_epochs 3 +num_train_epochs 10$", text, flags=re.MULTILINE), text
    assert "settings" not in compare([record([0, 1, 2, 3]), record([0, 1])])
    assert "settings" not in compare([longer, longer])  # tables name 10 epochs, but they are no difference


def test_a_shared_training_is_marked():
    """The seconds of all trainings count: those of the run, of its prerequisite run, and of the teacher's pass."""
    full, elastic = record([0, 1, 2, 3]), record([0, 1], seconds={"evaluate": 0.5, "inference": 0.5})
    again, taught = record([0, 1]), record([0, 1], seconds={"train": 20.0, "teacher": 5.0, "inference": 1.0})
    elastic.prerequisites = again.prerequisites = {"trainings": 1, "steps": 9, "seconds": 30.0}
    table, _, meaning = compare([full, elastic, again, taught]).rpartition("\nshared: ")
    training, inference = (re.split(r"\s{2,}", line)[1:] for line in table.splitlines()[-2:])
    assert training == ["20.0 s", "30.0 s shared (+50%)", "50.0 s shared (+150%)", "25.0 s (+25%)"]
    assert inference == ["1.0 s", "0.5 s (-50%)", "1.0 s (+0%)", "1.0 s (+0%)"]
    assert meaning == "seconds with those of prerequisite runs, which several runs can use"
    assert "shared" not in compare([full, taught])


def test_times_beside_other_processes_are_marked():
    quiet, busy = record([0, 1, 2, 3], folder="a"), record([0, 1], folder="b")
    busy.notes = [f"{BUSY} 1.0 of 2 cores, so the measured times are not comparable"]
    assert "*" not in compare([quiet, quiet])
    table, _, meaning = compare([quiet, busy, quiet]).rpartition("\n* ")
    assert meaning.startswith("other processes ran beside this run or its prerequisite run")
    for line in table.splitlines()[-2:]:
        assert re.findall(r"s(\*?)(?: |$)", line) == ["", "*", ""]


def test_constant_predictions_and_other_metrics():
    constant = record([0, 1], metrics={"pearson": float("nan")})
    assert columns(record([0, 1, 2, 3], metrics={"pearson": 0.5}), constant)[2][8] == "constant"
    assert columns(constant, record([0, 1, 2, 3], metrics={"pearson": 0.5}))[2][8] == "50.0"


def test_nothing_to_compare(tmp_path, capsys):
    assert run_command("compare", [str(tmp_path)]) == 2 and "no finished run" in capsys.readouterr().err
    (tmp_path / "record.json").write_text("[")
    assert run_command("compare", [str(tmp_path)]) == 2 and str(tmp_path / "record.json") in capsys.readouterr().err
    assert run_command("compare", []) == 2 and "required: FOLDER" in capsys.readouterr().err
    for name, task in (("a", "demo-sst2"), ("b", "demo-rte")):
        record([0, 1], folder=str(tmp_path / name), task=task).write()
    assert run_command("compare", [str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "several tasks (demo-rte, demo-sst2)" in capsys.readouterr().err
    assert run_command("compare", [str(tmp_path / "a")]) == 0 and str(tmp_path / "a") in capsys.readouterr().out
