import json
import math
import os
from dataclasses import replace

import pytest

from layerdrop.architectures import ModelSpec
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.finetune.spec import DistilSpec, WhenSpec
from layerdrop.runs import environment
from layerdrop.runs.record import Clock, Cut, RunRecord, read_record
from layerdrop.runs.spec import RunSpec
from layerdrop.runs.summary import summary
from tests import tiny

SPEC = RunSpec(ModelSpec("bert"), DataSpec("rte"), DropSpec("top", 2))


def test_record_is_written_whole(tmp_path, monkeypatch):
    RunRecord(SPEC, str(tmp_path), "success", metrics={"accuracy": 0.5, "spearmanr": math.nan}).write()
    values = json.loads((tmp_path / "record.json").read_text())
    assert values["metrics"] == {"accuracy": 0.5, "spearmanr": None} and values["id"] == SPEC.id
    assert set(values) >= tiny.RECORD_KEYS

    def broken(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        RunRecord(SPEC, str(tmp_path), "failed").write()
    assert read_record(tmp_path).status == "success" and {path.name for path in tmp_path.iterdir()} == {
        *("record.json", "spec.json")
    }


def test_record_comes_back(tmp_path):
    cuts = [Cut(0, [11], list(range(11)), "top, K = 1", [0.5]), Cut(7, [10, 11], list(range(10)), "top, K = 2")]
    record = RunRecord(SPEC, str(tmp_path), "success", n_layers=12, cuts=cuts, epochs=[{"step": 3, "loss": 0.5}])
    record.write()
    again = read_record(tmp_path)
    assert again == record and again.id == SPEC.id
    assert (again.dropped, again.kept, again.scores) == ([10, 11], list(range(10)), None)  # those of the last cut
    values = record.to_dict() | {"search": {"trainings": 5, "steps": 40, "seconds": 3.0}}  # of version 0.2.0
    assert RunRecord.from_dict(values) == record
    os.rename(tmp_path / "record.json", tmp_path.parent / "record.json")
    assert read_record(tmp_path.parent).folder == str(tmp_path.parent)  # where it lies now


def test_a_layer_without_a_score_is_shown(tmp_path):
    """At the last layers of a model no block can begin; NaN is null in the file."""
    record = RunRecord(SPEC, str(tmp_path), "success", n_layers=2, cuts=[Cut(0, [0], [1], "why", [0.5, math.nan])])
    record.write()
    again = read_record(tmp_path)
    assert math.isnan(again.scores[1]) and "0: 0.5  1: nan" in summary(again)


def test_a_record_without_a_cut_kept_everything():
    record = RunRecord(SPEC, "x", n_layers=3)
    assert (record.dropped, record.kept, record.scores) == ([], [0, 1, 2], None)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"3",
        b"null",
        b"\xff\xfe\x00",
        b'{"spec": 3}',
        b'{"status": "success"}',
        b'{"spec": {"version": 2, "model": {}}}',
    ],
)
def test_unreadable_records_are_named(tmp_path, content):
    assert read_record(tmp_path) is None
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(ValueError, match="record.json: "):
        read_record(tmp_path)


def test_records_of_version_1_are_refused(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps({"spec": {"model": "m", "task": "rte", "train": True}}))
    with pytest.raises(ValueError, match="version 1"):
        read_record(tmp_path)


def test_a_record_keeps_its_id_when_it_is_read():
    """Also that of a later version, some of whose fields mean nothing here."""
    values = RunRecord(SPEC, "x").to_dict()
    values["spec"] = values["spec"] | {"version": 3, "later": 1, "train": values["spec"]["train"] | {"later": 2}}
    values |= {"id": "0123456789abcdef", "later": 3}
    record = RunRecord.from_dict(values)
    assert record.id == "0123456789abcdef" and record.spec == SPEC and record.to_dict()["id"] == "0123456789abcdef"


def test_the_clock_adds_up(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 5.0, 9.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = Clock()
    for _ in range(2):
        with clock("load"):
            pass
    clock.add("train", 2.5)
    assert clock.total() == {"load": 6.0, "train": 2.5, "total": 10.0}
    assert clock.only("train", "predict") == {"train": 2.5}


def test_environment_and_memory():
    found = environment.environment()
    assert found["versions"]["torch"] and found["device"] and found["cores"] >= 1 and len(found["commit"]) == 40
    assert environment.peak_memory()["host"] > 10_000_000


def test_environment_of_a_run_on_the_processor_beside_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a GPU")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    found = environment.environment()
    assert found["device"] == "a GPU" and found["device_count"] == 4
    beside = environment.environment(use_cpu=True)
    assert beside["device"] not in ("", "a GPU") and beside["device_count"] == 0


def test_summary_says_what_happened():
    record = RunRecord(SPEC, "runs/x", status="success", n_layers=12, cuts=[Cut(0, [9, 10, 11], list(range(9)), "")])
    record.dropped_before, record.parameters_before, record.parameters_after = [9], 1000, 750
    record.metrics, record.seconds = {"accuracy": 0.5, "loss": 1.0}, {"train": 2.0}
    text = summary(record)
    for part in (
        "rte (hub)",
        "top, K = 2",
        "9, 10, 11 (3 of 12 layers; 9 were dropped before)",
        "1,000 -> 750 (-25.0%)",
        "accuracy 0.5000",
        "train 2.0",
        "success",
        "runs/x",
    ):
        assert part in text
    assert "loss" not in text and "one and the same" not in text
    record.distinct_predictions = {"validation_matched": 1, "validation_mismatched": 2}
    assert "the same prediction for every row of validation_matched\n" in summary(record)


def test_version_2_had_the_fields_of_when_in_drop():
    """A record of 0.2.0: gradual dropping and frozen layers stay what they were."""
    values = RunSpec(ModelSpec("m"), DataSpec("rte"), DropSpec("top", 2)).to_dict()
    del values["when"]
    values |= {"version": 2, "drop": values["drop"] | {"frozen": None, "step": 1, "every_epochs": 2}}
    spec = RunSpec.from_dict(values)
    assert (spec.drop, spec.when) == (DropSpec("top", 2), WhenSpec(step=1, every_epochs=2))
    assert spec.drop_when == "gradual"
    values["drop"] |= {"frozen": True, "step": None, "every_epochs": None}
    assert RunSpec.from_dict(values).when == WhenSpec(frozen=True)


def test_the_names_of_0_2_in_version_3():
    """`plain` is now `no_speedups`, and the run of the teacher has left `distil`. Both decide the result."""
    teacher = RunSpec(ModelSpec("m"), DataSpec("rte"), no_speedups=True)
    spec = replace(teacher, drop=DropSpec("top", 2), distil=DistilSpec("logits"), teacher=teacher)

    def old(values):
        values = dict(values)
        values["plain"] = values.pop("no_speedups")
        run = values.pop("teacher")
        if values["distil"]:
            values["distil"] = values["distil"] | {"teacher_run": run and old(run)}
        return values

    values = old(spec.to_dict())
    assert "teacher" not in values and values["version"] == 3
    assert RunSpec.from_dict(json.loads(json.dumps(values))) == spec
