import json
import os

import numpy as np
import pytest

from layerdrop import runs
from layerdrop.data import Examples
from layerdrop.errors import UserError
from layerdrop.runs import RunRecord, RunSpec, open_folder
from layerdrop.tasks import TASKS
from tests import tiny

SPEC = RunSpec("bert", "rte", "hub", "top", 2, training={"learning_rate": 2e-5})
OTHER = RunSpec("bert", "rte", "hub", "top", 3, training={"learning_rate": 3e-5})


def opened(spec, folder, overwrite=False, resume=None):
    return open_folder(RunRecord(spec, str(folder)), overwrite=overwrite, resume=resume)


def checkpoint(folder, step: int):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "trainer_state.json").write_text("{}")
    return path


def test_record_is_written_whole(tmp_path, monkeypatch):
    RunRecord(SPEC, str(tmp_path), "success", metrics={"accuracy": 0.5, "spearmanr": float("nan")}).write()
    record = runs.read_record(tmp_path)
    assert record["metrics"] == {"accuracy": 0.5, "spearmanr": None} and record["id"] == SPEC.id
    assert set(record) >= tiny.RECORD_KEYS

    def broken(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        RunRecord(SPEC, str(tmp_path), "failed").write()
    assert runs.read_record(tmp_path)["status"] == "success" and len(list(tmp_path.iterdir())) == 1


def test_record_comes_back(tmp_path):
    record = RunRecord(
        SPEC, str(tmp_path), "success", n_layers=12, dropped=[10, 11], kept=list(range(10)), scores=[0.5]
    )
    record.write()
    again = RunRecord.from_dict(runs.read_record(tmp_path))
    assert again == record and again.spec.id == SPEC.id


def test_reading_what_is_no_record(tmp_path):
    assert runs.read_record(tmp_path) is None
    (tmp_path / "record.json").write_text("{")
    assert runs.read_record(tmp_path) is None


def test_environment_and_memory():
    environment = runs.environment()
    assert environment["versions"]["torch"] and environment["device"] and environment["cores"] >= 1
    assert runs.peak_memory()["host"] > 10_000_000


def test_environment_of_a_run_on_the_processor_beside_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a GPU")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert runs.environment()["device"] == "a GPU" and runs.environment()["device_count"] == 4
    beside = runs.environment(use_cpu=True)
    assert beside["device"] not in ("", "a GPU") and beside["device_count"] == 0


def test_new_folder(tmp_path):
    assert opened(SPEC, tmp_path / "a" / "b") == (False, None)
    assert json.loads((tmp_path / "a" / "b" / "spec.json").read_text())["id"] == SPEC.id


def test_done_is_not_done_again(tmp_path):
    RunRecord(SPEC, str(tmp_path), "success").write()
    assert opened(SPEC, tmp_path) == (True, None)
    with pytest.raises(UserError, match="other settings .k: 2, now 3; learning_rate: 2e-05, now 3e-05"):
        opened(OTHER, tmp_path)
    assert opened(OTHER, tmp_path, overwrite=True) == (False, None)
    assert runs.read_record(tmp_path) is None


def test_done_on_other_data_or_weights_is_not_the_same(tmp_path):
    def record(rows, weights):
        return RunRecord(SPEC, str(tmp_path), "success", data={"train": {"rows": rows}}, model_fingerprint=weights)

    record(3, "a").write()
    assert open_folder(record(3, "a"), overwrite=False, resume=None) == (True, None)
    for other, what in ((record(4, "a"), "train"), (record(3, "b"), "the model's weights")):
        with pytest.raises(UserError, match=f"same settings, but other contents of {what} since"):
            open_folder(other, overwrite=False, resume=None)


def test_resuming_on_other_data_or_weights(tmp_path):
    """Also where a run was killed and has no record."""

    def record(rows, weights):
        return RunRecord(SPEC, str(tmp_path), data={"train": {"rows": rows}}, model_fingerprint=weights)

    open_folder(record(3, "a"), overwrite=False, resume=None)
    path = checkpoint(tmp_path, 10)
    assert open_folder(record(3, "a"), overwrite=False, resume="last") == (False, str(path))
    for other, what in ((record(4, "a"), "train"), (record(3, "b"), "the model's weights")):
        with pytest.raises(UserError, match=f"checkpoint-10 was made with .* other contents of {what} since"):
            open_folder(other, overwrite=False, resume="last")


def test_a_run_that_died_does_not_stand_in_the_way(tmp_path):
    opened(SPEC, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert opened(SPEC, tmp_path) == (False, None)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_failed_is_done_again(tmp_path, status):
    RunRecord(SPEC, str(tmp_path), status).write()
    assert opened(SPEC, tmp_path) == (False, None)


def test_never_resumes_unasked(tmp_path):
    checkpoint(tmp_path, 9)
    checkpoint(tmp_path, 10)
    with pytest.raises(UserError, match=r"interrupted run \(checkpoint-10\). Go on with --resume_from_checkpoint"):
        opened(SPEC, tmp_path)
    assert (tmp_path / "checkpoint-10").exists()
    assert opened(SPEC, tmp_path, resume="True") == (False, str(tmp_path / "checkpoint-10"))
    assert opened(SPEC, tmp_path, overwrite=True) == (False, None) and not list(tmp_path.glob("checkpoint-*"))


def test_resuming_as_something_else(tmp_path):
    opened(SPEC, tmp_path)
    path = checkpoint(tmp_path, 10)
    with pytest.raises(UserError, match="made with other settings .k: 2, now 3"):
        opened(OTHER, tmp_path, resume="True")
    assert opened(SPEC, tmp_path, resume=str(path)) == (False, str(path))
    assert json.loads((tmp_path / "spec.json").read_text())["id"] == SPEC.id


def test_nothing_to_resume(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        opened(SPEC, tmp_path, resume="True")
    with pytest.raises(UserError, match="no checkpoint there"):
        opened(SPEC, tmp_path, resume=str(tmp_path))
    RunRecord(SPEC, str(tmp_path), "success").write()
    assert opened(SPEC, tmp_path, resume="last") == (True, None)  # done: a script may always ask to go on
    with pytest.raises(UserError, match="other settings"):
        opened(OTHER, tmp_path, resume="last")


def test_a_users_model_is_not_overwritten(tmp_path):
    (tmp_path / "model.safetensors").write_text("mine")
    with pytest.raises(UserError, match="holds a model .model.safetensors. that is not this tool's"):
        opened(SPEC, tmp_path)
    with pytest.raises(UserError, match="is a file"):
        opened(SPEC, tmp_path / "model.safetensors")


def table(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def examples(labels, n=3):
    return Examples((["w"] * n,), labels, [str(10 + i) for i in range(n)])


def test_predictions(tmp_path):
    path = runs.write_predictions(
        tmp_path, TASKS["rte"], "validation", examples(np.array([0, 1, 1])), np.array([0, 0, 1])
    )
    assert path.name == "predictions_dev.tsv"
    assert table(path) == [
        ["index", "label", "prediction"],
        ["10", "entailment", "entailment"],
        ["11", "not_entailment", "entailment"],
        ["12", "not_entailment", "not_entailment"],
    ]
    path = runs.write_predictions(
        tmp_path, TASKS["mnli"], "validation_matched", examples(np.zeros(3, int)), np.arange(3)
    )
    assert path.name == "predictions_dev_matched.tsv"
    path = runs.write_predictions(
        tmp_path, TASKS["stsb"], "validation", examples(np.zeros(3)), np.array([1.25, 6.0, -1.0])
    )
    assert [row[2] for row in table(path)[1:]] == ["1.25", "6", "-1"]


@pytest.mark.parametrize(
    ("task", "split", "values", "name", "words"),
    [
        ("rte", "test", [0, 1, 0], "RTE.tsv", ["entailment", "not_entailment", "entailment"]),
        ("wnli", "test", [0, 1, 0], "WNLI.tsv", ["0", "1", "0"]),
        ("cola", "test", [0, 1, 0], "CoLA.tsv", ["0", "1", "0"]),
        ("mnli", "test_matched", [0, 1, 2], "MNLI-m.tsv", ["entailment", "neutral", "contradiction"]),
        ("mnli", "test_mismatched", [2, 1, 0], "MNLI-mm.tsv", ["contradiction", "neutral", "entailment"]),
        ("stsb", "test", [-0.5, 2.5, 7.0], "STS-B.tsv", ["0.000", "2.500", "5.000"]),
    ],
)
def test_submissions(tmp_path, task, split, values, name, words):
    path = runs.write_submission(tmp_path, TASKS[task], split, examples(None), np.array(values))
    assert path.name == name
    assert table(path) == [["index", "prediction"], *([str(10 + i), word] for i, word in enumerate(words))]


def test_summary_says_what_happened():
    record = RunRecord(
        SPEC,
        "runs/x",
        status="success",
        n_layers=12,
        dropped=[9, 10, 11],
        kept=list(range(9)),
        dropped_before=[9],
        parameters_before=1000,
        parameters_after=750,
        metrics={"accuracy": 0.5, "loss": 1.0},
        seconds={"train": 2.0},
    )
    text = runs.summary(record)
    for part in (
        "rte (hub)",
        "top, K = 2",
        "9, 10, 11 (3 of 12 layers; 9 were gone before)",
        "1,000 -> 750 (-25.0%)",
        "accuracy 0.5000",
        "train 2.0",
        "success",
        "runs/x",
    ):
        assert part in text
    assert "loss" not in text and "one and the same" not in text
    record.distinct_predictions = {"validation_matched": 1, "validation_mismatched": 2}
    assert "one and the same prediction for every row of validation_matched\n" in runs.summary(record)
