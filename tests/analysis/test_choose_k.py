"""How many layers can go within a loss."""

import csv
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from layerdrop.analysis import choose_k
from layerdrop.analysis.choose_k import TaskTolerance, ToleranceSettings
from layerdrop.analysis.tolerance import Tolerance, halves, largest_k, loss, next_k, score, standard_error
from layerdrop.architectures import ModelSpec
from layerdrop.cli.command import run_command
from layerdrop.cli.engines import tasks_of
from layerdrop.cli.parsing import parse_settings
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import TASKS
from layerdrop.errors import UserError
from layerdrop.report.tables.tolerance import published_tolerance, tolerance_table
from layerdrop.runs.predictions import read_predictions
from layerdrop.runs.record import RunRecord, read_record
from layerdrop.runs.spec import RunSpec
from layerdrop.system.limits import RANGES, Range
from tests.processes import kill_at_checkpoint
from tests.running import assert_same_results


def test_halves():
    labels = np.array([0] * 30 + [1] * 10 + [2])
    a, b = halves(labels, TASKS["mnli"])
    assert sorted([*a, *b]) == list(range(41)) and list(a) == sorted(a)
    assert [list(labels[half]).count(c) for half in (a, b) for c in (0, 1, 2)] == [15, 5, 0, 15, 5, 1]
    again, _ = halves(labels, TASKS["mnli"])
    assert list(again) == list(a) != list(range(20))
    a, b = halves(np.linspace(0, 5, 9), TASKS["stsb"])
    assert (len(a), len(b)) == (4, 5)


def test_loss():
    assert loss([80, 90, 85], [80, 70, 84]) == 5  # of medians
    assert loss([80.0], [76.0], percent=True) == pytest.approx(5)
    assert loss([-10.0], [-20.0], percent=True) == 100 and loss([-10.0], [20.0], percent=True) == -300  # worse, better
    assert loss([0.0], [1.0], percent=True) == -1
    labels, rows = np.array([0, 1, 1, 0]), np.array([0, 1])
    assert score(np.array([0, 1, 0, 1]), labels, rows, TASKS["rte"]) == 100
    assert score(np.array([0, 1, 0, 1]), labels, np.array([2, 3]), TASKS["rte"]) == 0
    assert score(np.zeros(3), np.arange(3.0), np.arange(3), TASKS["stsb"]) == 0  # constant predictions: undefined


def test_standard_error():
    """Accuracy: 3 rows that only one model gets right, and 1 row of the other, give (4 - 4/10) / 90 + 1/100 = 0.05."""
    labels, full = np.zeros(10, int), np.zeros(10, int)
    full[9], cut = 1, np.array([1, 1, 1] + [0] * 7)
    assert standard_error(full, cut, labels, TASKS["rte"]) == pytest.approx(100 * 0.05**0.5)
    assert standard_error(cut, full, labels, TASKS["rte"]) == pytest.approx(100 * 0.05**0.5)
    assert standard_error(full, full, labels, TASKS["rte"]) == 10  # one row
    assert standard_error(full[:1], cut[:1], labels[:1], TASKS["rte"]) == 100
    # 200 rows in 50 blocks of 4: the last 20 blocks' first rows are errors of `cut`. Block means are 1/4 and 0.
    labels, cut = np.zeros(200, int), np.repeat([0, 1, 0], [30, 20, 150])
    by_block = 49 * np.var([20 / 196] * 30 + [19 / 196] * 20)
    assert standard_error(labels, cut, labels, TASKS["rte"]) == pytest.approx(100 * (by_block + 1 / 200**2) ** 0.5)


def test_another_metric():
    """3 of 4 positive rows and 0 of 2 negative rows are right: accuracy 1/2, F1 = 2 * 3 / (3 + 2 + 4)."""
    labels, predictions, task = np.array([1, 1, 1, 1, 0, 0]), np.array([1, 1, 1, 0, 1, 1]), TASKS["mrpc"]
    assert score(predictions, labels, np.arange(6), task) == pytest.approx(100 * 6 / 9)
    assert score(predictions, labels, np.arange(6), task, "accuracy") == 50
    accuracy = 100 * ((3 - 3 * 3 / 6) / 30 + 1 / 36) ** 0.5
    assert standard_error(labels, predictions, labels, task, "accuracy") == pytest.approx(accuracy)
    assert standard_error(labels, predictions, labels, task) != pytest.approx(accuracy)


@pytest.mark.parametrize(("name", "spread"), [("mrpc", 0.4), ("stsb", 0.3), ("cola", 0.4)])
def test_standard_error_is_that_of_resampled_rows(name, spread):
    """For F1, Spearman and Matthews: within 30% of the spread of the difference over 100 new sets of rows."""
    rng, task, errors, differences = np.random.default_rng(0), TASKS[name], [], []
    for _ in range(100):
        labels = rng.normal(size=120) if name == "stsb" else rng.integers(0, 2, 120)
        systems = []
        for noise in (0.1, spread):
            other = labels + 3 * noise * rng.normal(size=120) if name == "stsb" else 1 - labels
            systems.append(other if name == "stsb" else np.where(rng.random(120) < noise, other, labels))
        scores = [score(system, labels, np.arange(120), task) for system in systems]
        differences.append(scores[0] - scores[1])
        errors.append(standard_error(*systems, labels, task) if len(errors) < 4 else errors[0])
    assert np.mean(errors[:4]) == pytest.approx(np.std(differences), rel=0.3)


def test_losses_and_their_errors_of_files(tmp_path):
    """40 rows: the full model is right on 24, K = 1 on all of them and on 8 more, K = 2 on 24 others."""

    def record(k, right):
        folder = tmp_path / str(k)
        folder.mkdir()
        names = TASKS["rte"].labels
        rows = "".join(f"{i}\t{names[0]}\t{names[i not in right]}\n" for i in range(40))
        (folder / "predictions_dev.tsv").write_text(f"index\tlabel\tprediction\n{rows}")
        return RunRecord(RunSpec(ModelSpec(f"m{k}"), DataSpec("rte")), str(folder), "success")

    task = TaskTolerance.__new__(TaskTolerance)
    task.name = "rte"
    task.predictions = {}
    task.settings, task.scores = ToleranceSettings([1.0], [1], "x"), {}
    task.known = {0: [record(0, range(24))], 1: [record(1, range(32))], 2: [record(2, range(16, 40))]}
    assert task.metric == "accuracy" and [task.n_rows(half) for half in (0, 1)] == [20, 20]
    assert task.full_score(None) == 60 == (task.full_score(0) + task.full_score(1)) / 2
    assert task.loss_at(1, None) == -20 and task.loss_at(2, None) == 0
    expected = 100 * ((8 - 8 * 8 / 40) / (40 * 39) + 1 / 40**2) ** 0.5
    assert task.standard_error(1, None) == pytest.approx(expected)
    assert task.standard_error(2, None) == pytest.approx(100 * (32 / (40 * 39) + 1 / 40**2) ** 0.5)
    task.settings = ToleranceSettings([1.0], [1], "x", percent=True)
    assert task.standard_error(1, None) == pytest.approx(expected / 0.6)
    task.settings, task.scores = ToleranceSettings([1.0], [1], "x", select_on="f1"), {}
    with pytest.raises(UserError, match="--select_on f1: not a metric of rte. Allowed: accuracy"):
        task.full_score(0)


def test_select_on_decides_the_scores(tmp_path):
    names = TASKS["mrpc"].labels
    rows = "".join(f"{i}\t{names[i < 4]}\t{names[i != 3]}\n" for i in range(6))
    (tmp_path / "predictions_dev.tsv").write_text(f"index\tlabel\tprediction\n{rows}")
    task = TaskTolerance.__new__(TaskTolerance)
    task.name = "mrpc"
    task.predictions = {}
    task.known = {0: [RunRecord(RunSpec(ModelSpec("m"), DataSpec("mrpc")), str(tmp_path), "success")]}
    for metric, expected in ((None, 100 * 6 / 9), ("accuracy", 50)):
        task.settings, task.scores = ToleranceSettings([1.0], [1], "x", select_on=metric), {}
        assert task.full_score(None) == pytest.approx(expected) and task.metric == (metric or "f1")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "the file is missing"),
        ("index\tlabel\n0\t1\n", "'prediction'"),
        ("index\tlabel\tprediction\n0\tmaybe\tnever\n", "'maybe' is not a class"),
    ],
)
def test_predictions_that_cannot_be_read(tmp_path, content, reason):
    if content:
        (tmp_path / "predictions_dev.tsv").write_text(content)
    record = RunRecord(RunSpec(ModelSpec("m"), DataSpec("rte")), str(tmp_path), "success")
    tolerance = TaskTolerance.__new__(TaskTolerance)
    tolerance.known, tolerance.scores, tolerance.predictions = {0: [record]}, {}, {}
    with pytest.raises(UserError, match=f"its predictions for the validation set cannot be read .*{reason}"):
        tolerance._score(record, 0)


GROWING = {1: 0.1, 2: 0.4, 3: 0.9, 4: 1.5, 5: 4.0, 6: 9.0}
NOT_GROWING = {1: 0.1, 2: 2.0, 3: 0.9, 4: 1.5, 5: 0.8, 6: 9.0}


def search(losses, max_loss, exhaustive=False, all_k=None):
    """(answer, the K of each round)."""
    all_k, known, rounds = list(losses) if all_k is None else all_k, {}, []
    while wanted := next_k(all_k, known, max_loss, exhaustive):
        rounds.append(wanted)
        known |= {k: losses[k] for k in wanted}
    return largest_k(all_k, known, max_loss, exhaustive), rounds


@pytest.mark.parametrize(("most", "k"), [(0.05, 0), (0.1, 1), (0.5, 2), (1, 3), (2, 4), (5, 5), (9, 6), (99, 6)])
def test_bisection(most, k):
    found, rounds = search(GROWING, most)
    assert all(len(wanted) == 1 for wanted in rounds) and len(rounds) <= 3
    assert found.k == k and found.tried == sorted(k for (k,) in rounds) and not found.exceptions
    found, rounds = search(GROWING, most, exhaustive=True)
    assert found.k == k and rounds == [[1, 2, 3, 4, 5, 6]]  # side by side


def test_where_the_loss_does_not_grow():
    """Bisection asks for 4, 2 and 1, and ends at 1, whose successor is not within the loss; trying all finds 5."""
    found, rounds = search(NOT_GROWING, 1.0)
    assert found.k == 1 and found.tried == [1, 2, 4] and rounds == [[4], [2], [1]]
    whole, _ = search(NOT_GROWING, 1.0, exhaustive=True)
    assert whole.k == 5 and whole.exceptions == [2, 4] and whole.tried == [1, 2, 3, 4, 5, 6]
    assert search(NOT_GROWING, 1.0, all_k=[2, 4])[0].k == 0 and search({}, 1.0) == (Tolerance(1.0, 0), [])


def test_only_what_a_threshold_needed_counts_as_tried():
    """Losses that other thresholds needed change nothing."""
    assert next_k(list(GROWING), GROWING, 1.0) == [] and largest_k(list(GROWING), GROWING, 1.0).tried == [2, 3, 4]


# ---- the command -----------------------------------------------------------------------------------------------------
SELECTED = "`layerdrop choose-k` selected K on half of these rows, so these scores are too high on average."


@pytest.fixture
def call(bert, glue, tmp_path, monkeypatch, capsys, in_process):
    monkeypatch.chdir(tmp_path)

    def call(words, data=glue):
        argv = [*words.split(), "--model_name_or_path", bert, "--use_cpu", "--precision", "fp32"]
        argv += ["--data_dir", data] if data else []
        code = run_command("choose-k", [*argv, "--num_train_epochs", "1", "--workers", "1", "--report_to", "none"])
        return code, *capsys.readouterr()

    return call


def cells(out):
    return list(csv.DictReader(io.StringIO(out.split("\n\n")[0].split("\nrte: the model")[0])))


def test_command(call):
    """As few runs as needed; the same again trains nothing; the model is kept; the losses are those of the files."""
    words = "--tasks rte --max_loss 100 --seeds 1 2 --format csv --figures figures"
    code, out, err = call(words)
    assert code == 0, err
    (cell,) = cells(out)
    assert (cell["k"], cell["tried"], cell["task"]) == ("5", "2", "rte")
    records = [json.loads(path.read_text()) for path in Path("runs/choose_k").glob("*/record.json")]
    assert sorted(len(r["dropped"]) for r in records) == [0, 0, 3, 3, 5, 5]
    folder = Path(out.split("the model of K = 5 is in ")[1].strip())
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 1
    assert list(Path("runs/choose_k").glob("*/model.safetensors")) == [folder / "model.safetensors"]
    assert Path("figures/loss_by_k.png").exists()
    assert SELECTED in (folder / "README.md").read_text()

    code, again, err = call(words)
    assert code == 0 and again == out and "done  " not in err

    for name in ("record.json", "model.safetensors"):  # as a process leaves it that is killed in the repetition
        (folder / name).unlink()
    code, again, err = call(words)
    assert code == 0 and again == out and err.count("done  ") == 1 and "repeating" not in err
    assert (folder / "model.safetensors").exists()
    assert SELECTED in (folder / "README.md").read_text()
    (folder / "model.safetensors").unlink()  # no process was killed
    assert "to keep its model" in call(words)[2] and (folder / "model.safetensors").exists()
    (folder / "README.md").unlink()  # killed after the record
    assert call(words)[0] == 0 and (folder / "README.md").exists()


@pytest.mark.parametrize("when", ["gradual", "elastic --finetune_chosen"])
def test_a_killed_run_continues_from_a_checkpoint_within_its_epoch(call, when):
    """The K, the losses, the predictions and the model are those of an undisturbed command."""
    words = f"--tasks rte --k 2 --max_loss 100 --per_device_train_batch_size 8 --drop_when {when} --store"
    code, out, err = call(f"{words} whole")
    assert code == 0, err
    kill_at_checkpoint(2, lambda: call(f"{words} killed")[0])
    code, again, err = call(f"{words} killed")
    assert code == 0 and again == out.replace("whole", "killed"), err
    assert_same_results("killed", "whole")
    assert [
        record for path in Path("killed").rglob("record.json") if (record := read_record(path.parent)).resumed_at_step
    ]


def test_flags_from_a_file_and_no_k_within_the_loss(call, monkeypatch):
    """The command line overrides the file. The table shows the loss of each tried K."""
    Path("recipe.yaml").write_text("learning_rate: 1e-4\nmax_train_samples: 8\nmax_seq_length: 16\n")
    monkeypatch.setattr(choose_k, "loss", lambda full, cut, percent: 5.0)
    code, out, err = call("recipe.yaml --tasks rte --k 2 --max_seq_length 24")
    assert code == 0 and out.splitlines()[-1].startswith("rte: no tried K is within the loss, so no model is kept."), (
        err
    )
    records = [read_record(path.parent) for path in Path("runs/choose_k").glob("*/record.json")]
    settings = {
        (r.spec.train.learning_rate, r.spec.data.max_train_samples, r.spec.data.max_seq_length) for r in records
    }
    assert len(records) == 2 and settings == {(1e-4, 8, 24)} and "| 2: 5.00 " in out
    for content, said in (
        ("drop_k: 2", "--drop_k: choosing K takes --k, --seeds and --drop_strategy instead"),
        ("seeds: [1]", "recipe.yaml: 'seeds' is a flag of layerdrop choose-k. Give it on the command line."),
        ("learning_rate: [1e-4, 2e-4]", "recipe.yaml: 'learning_rate' takes one value."),
        ("task_name: mrpc\nmax_steps: 0", "--max_steps 0: must be above 0"),
    ):
        Path("recipe.yaml").write_text(content)
        code, _, err = call("recipe.yaml --tasks rte")
        assert code == 2 and said in err, err
    code, _, err = call("rte")
    assert code == 2 and "'rte' is not the value of a flag" in err


def test_tasks_of_the_command_line_replace_the_task_of_the_file(call):
    Path("recipe.yaml").write_text("task_name: mrpc\nmax_train_samples: 8\nmax_seq_length: 16\n")
    assert call("recipe.yaml --tasks rte --k 2 --save_model no")[0] == 0
    records = [read_record(path.parent) for path in Path("runs/choose_k").glob("*/record.json")]
    assert {record.spec.data.task for record in records} == {"rte"}


def test_a_run_that_fails_ends_the_command(call):
    code, _, err = call("--tasks rte --max_loss 100 --learning_rate 1e30")
    last = err.splitlines()[-1]
    assert code == 2 and re.search("this run failed .*diverged.*[)]. Correct the cause, then repeat", last), err


def test_nothing_can_go(call, monkeypatch):
    """A negative tolerance, which no model of this test reaches, is refused on the command line."""
    monkeypatch.setitem(RANGES, "max_loss", Range(-1000))
    code, out, err = call("--tasks rte --max_loss -200 --exhaustive --k 2 4")
    assert code == 0 and "| 0 " in out and "the model of K" not in out, err
    assert "[3/3] done" in err  # every K and the full model at once


def test_tasks_are_trained_side_by_side(call):
    """The full models of both tasks, and the first K of each."""
    code, out, err = call("--tasks rte mrpc --max_loss 100 --k 1 2 --save_model no")
    assert code == 0 and "[4/4] done" in err and "| rte " in out and "| mrpc " in out, err


def test_one_training_serves_every_k(call):
    """Layers go after the training: the runs of every K are cuts of one model."""
    code, out, err = call("--tasks rte --max_loss 100 --drop_when after --layerdrop_rate 0.2 --exhaustive")
    assert code == 0 and "K = 5 within a loss of 100" in err and "can be dropped by top, after, layerdrop" in out, err
    records = [json.loads(path.read_text()) for path in Path("runs/choose_k").glob("*/record.json")]
    assert sorted(len(r["dropped"]) for r in records) == [0, 1, 2, 3, 4, 5]
    trained = [json.loads(path.read_text()) for path in Path("runs/choose_k/prior").glob("*/record.json")]
    assert len(trained) == 1 and trained[0]["steps"] and not any(record["steps"] for record in records)
    cards = [path.read_text() for path in Path("runs/choose_k").rglob("README.md")]  # of the cut model, of the training
    assert sorted(SELECTED in card for card in cards) == [False, True]


def test_elastic_depth_tries_every_k_of_one_training_and_fine_tunes_the_chosen_one_again(call):
    code, out, err = call("--tasks rte --max_loss 100 --drop_when elastic --k 2 3 5 --seeds 1 2 --finetune_chosen")
    assert code == 0 and "can be dropped by top, elastic" in out and re.search(r"\| 2: -?\d+\.\d\d, 3: .*, 5: ", out), (
        err
    )
    records = [json.loads(path.read_text()) for path in Path("runs/choose_k").glob("*/record.json")]
    (trained,) = [[record for record in records if record["spec"]["seed"] == seed and record["steps"]] for seed in (1,)]
    assert sorted(len(r["dropped"]) for r in records) == [0, 0, 2, 2, 3, 3, 5, 5, 5, 5] and len(trained[0]["kept"]) == 1
    prior = [json.loads(path.read_text()) for path in Path("runs/choose_k/prior").glob("*/record.json")]
    assert len(prior) == 2 and all(record["spec"]["when"]["elastic_k"] == [2, 3, 5] for record in prior)
    assert "rte: K = 5 fine-tuned once more loses " in out and "repeating" not in err
    folder = Path(out.split("the model of K = 5 is in ")[1].strip())
    assert "elastic-finetuned_seed1" in folder.name and (folder / "model.safetensors").is_file()
    assert SELECTED in (folder / "README.md").read_text()
    code, again, err = call("--tasks rte --max_loss 100 --drop_when elastic --k 2 3 5 --seeds 1 2 --finetune_chosen")
    assert code == 0 and again == out and "done  " not in err


def test_select_on_with_elastic_depth(call):
    """The losses are those of the metric, from the same runs; each metric has its own scores."""
    words = "--tasks mrpc --max_loss 100 --drop_when elastic --k 2 3 --format csv --save_model no"
    for metric, again in (("f1", False), ("accuracy", True)):
        code, out, err = call(f"{words} --select_on {metric}")
        assert code == 0 and ("done  " not in err) == again, err
        (cell,) = list(csv.DictReader(io.StringIO(out)))
        (full,) = [r for r in map(read_record, Path("runs/choose_k").glob("*k0*")) if r]
        task = TASKS["mrpc"]
        labels, predictions = (task.kind.read(shown) for shown in read_predictions(full.folder)[1:])
        for half, name in enumerate(("full_chosen_on", "full_reported")):
            rows = halves(labels, task)[half]
            assert float(cell[name]) == pytest.approx(score(predictions, labels, rows, task, metric), abs=1e-3)
        assert (cell["metric"], cell["k"], cell["tried"]) == (metric, "3", "2")


def test_k_that_the_variant_cannot_drop_are_left_out(call):
    words = "--teacher auto --distill patient --k 4 5 --save_model no"
    code, out, err = call(f"--tasks rte --max_loss 100 {words}")
    assert (
        code == 0
        and "note: K = 5 is not tried: --distill patient: pairs all layers but the last" in err
        and "K = 4 within" in err
    ), err


def test_k_that_the_strategy_cannot_drop_are_left_out(call):
    code, out, err = call("--tasks rte --max_loss 100 --drop_strategy symmetric --save_model no")
    assert (
        code == 0 and "K = 4 within a loss of 100" in err and "must be even" in err and "the model of K" not in out
    ), err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--tasks rte --k 6", "--k 6: must be from 1 to 5 for this model. Leave out 6"),
        ("--tasks rte --drop_when elastic --k 2 6", "--k 6: must be from 1 to 5 for this model. Leave out 6"),
        ("--tasks rte --drop_when elastic --k 0", "--k 0: must be from 1 to 5 for this model. Leave out 0"),
        ("--tasks rte --seed 1 --drop_k=2", "error: --seed, --drop_k: choosing K takes --k, --seeds and"),
        ("--tasks rte --drop_strategy symmetric --k 3", "error: K = 3: symmetric"),
        ("--tasks rte --do_eval", "error: --do_eval: choosing K trains and evaluates"),
        ("--tasks rte --max_k 2", "--max_k: no such flag. Did you mean --k?"),
        ("--tasks rte --max_los 1", "Did you mean --max_loss?"),
        ("--tasks rt", "--tasks: unknown"),
        ("--tasks rte --drop_strategy greedy", "greedy: nothing is published for tinybert"),
        ("--tasks rte --finetune_chosen", "--finetune_chosen: fine-tunes a model of an elastic training"),
        ("--tasks rte --select_on f1", "--select_on f1: not a metric of rte. Allowed: accuracy."),
        ("--tasks rte --select_on loss", "--select_on loss: not a metric of rte. Allowed: accuracy."),
        ("--tasks rte --output_dir x", "--output_dir: is the folder of a single run"),
    ],
)
def test_bad_input_is_one_line(call, words, said):
    code, _, err = call(words)
    assert code == 2 and said in err and len(err.splitlines()) == 1, err


def test_a_model_of_one_layer(bert, tmp_path, capsys):
    one = str(tmp_path / "one")
    assert run_command("cut", [bert, "--keep_layers", "0", "--output_dir", one]) == 0
    for command in (["choose-k", "--tasks", "demo-rte"], ["search", "--task_name", "demo-rte", "--method", "greedy"]):
        capsys.readouterr()
        assert run_command(command[0], [*command[1:], "--model_name_or_path", one]) == 2
        assert "a model of one layer has no layer to drop. Give a deeper model." in capsys.readouterr().err


def test_what_a_reader_must_know_is_said():
    """A loss that does not grow, and models that predict the same for every row."""
    spec = RunSpec(ModelSpec("m"), DataSpec("rte"))
    runs = [RunRecord(spec, "x", "success", distinct_predictions={"validation": n}) for n in (1, 2)]
    task = SimpleNamespace(
        name="rte", model="m", strategy="top", task=TASKS["rte"],
        settings=ToleranceSettings([1.0], [1, 2], "x", exhaustive=True),
        tolerances=[Tolerance(1.0, 3, [1, 2, 3], [2])], loss_at=lambda k, half: 0.5, exhaustive=True, finetuned=[],
        elastic=False,
        metric="accuracy", full_score=lambda half: 60.0 + half, n_rows=lambda half: 6 + half,
        standard_error=lambda k, half: 0.9,
        known={0: [runs[1], runs[1]], 2: [runs[1], runs[0]], 3: [runs[0], runs[0]]},
    )  # fmt: skip
    notes = " ".join(tolerance_table([task]).notes)
    assert "rte: a larger K loses less than K = 2." in notes
    assert "rte: the same prediction for every row at K = 2 (1 of 2 seeds), K = 3 (2 of 2 seeds)." in notes
    assert "rte: accuracy of the full model is 60.00 on 6 rows (selection half), 61.00 on 7 rows (other half)." in notes
    assert "undertrained" not in notes and "standard error" not in notes and "elastic" not in notes
    task.elastic = True
    notes = " ".join(tolerance_table([task]).notes)
    assert "(other half). This is the full model of the elastic training. A separate full model can score" in notes
    (value,) = tolerance_table([task]).values
    assert [value[name] for name in ("metric", "full_chosen_on", "full_reported")] == ["accuracy", 60, 61]
    assert [value[name] for name in ("rows_chosen_on", "rows_reported")] == [6, 7]

    task.tolerances = [Tolerance(most, k, [2, 3]) for most, k in ((-2, 0), (1.0, 2), (1.5, 2), (4.0, 3))]
    task.standard_error = lambda k, half: {2: 2.0, 3: 3.0}[k] + (half is None)
    task.loss_at = lambda k, half: {2: -3.5, 3: -4.0}[k] if half is None else -9.0 * (k > 0)
    notes = " ".join(tolerance_table([task]).notes)  # the loss of K = 3 is not beyond its error
    assert (
        "rte: the full model may be undertrained. Train for more epochs. On all rows, K = 2 is better by 3.50 "
        "(standard error 3.00)." in notes
    )
    assert (
        "rte: --max_loss 1 1.5 is below one standard error of the loss on the 6 rows of the selection half (2.00 at "
        "K = 2). Use more validation rows, or a larger --max_loss." in notes
    )


def test_published_figures_stand_beside():
    found = published_tolerance()
    assert found["bert-base", "sst2", 1.0] == (7, 1.6) and found["xlnet-base", "stsb", 3.0] == (9, 2.46)
    assert len(found) == 45


# ---- own files -------------------------------------------------------------------------------------------------------
def test_own_files_are_one_task(bert, tmp_path, monkeypatch, capsys):
    """Their runs read the files; --tasks may say which task of GLUE they are."""
    monkeypatch.chdir(tmp_path)
    own = ["--train_file", "a/reviews.csv", "--validation_file=dev.csv", "--model_name_or_path", bert, "--use_cpu"]
    assert tasks_of(None, own) == [None] and tasks_of(["rte"], own) == ["rte"] and tasks_of(None, []) == ["mrpc"]
    task = TaskTolerance(None, own, ToleranceSettings([1.0], [1], "store", k=[1, 2]), parse_settings)
    assert task.name == "reviews" and task.job(2, 1).spec.data.source == "files"
    assert task.job(2, 1).spec.data.files == (("train", "a/reviews.csv"), ("validation", "dev.csv"))
    assert run_command("choose-k", [*own, "--tasks", "rte", "mrpc"]) == 2
    assert "--tasks rte mrpc: own data are one task" in capsys.readouterr().err


def test_own_files(call, tmp_path):
    rows = "".join(f"w{i} w{i % 7},{'good' if i % 3 else 'bad'}\n" for i in range(24))
    Path("reviews.csv").write_text(f"text,label\n{rows}")
    words = "--train_file reviews.csv --hold_out 0.4 --max_loss 100 --k 2 --max_steps 1 --save_model no"
    code, out, err = call(f"{words} --select_on f1_macro", data=None)
    assert code == 0 and "| reviews " in out and "K = 2 within a loss of 100" in err, err
    assert "reviews: f1_macro of the full model is " in out
    code, _, err = call(f"{words} --select_on loss", data=None)
    assert code == 2 and err.startswith("error: --select_on loss: not a metric of reviews. Allowed: ")
    code, _, err = call(f"{words} --select_on pearson", data=None)  # the data decide the kind of labels
    assert code == 2 and "error: --select_on pearson: not a metric of reviews. Allowed: accuracy, f1, f1_macro." in err
