"""What models cost."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import layerdrop.deploy.measure
from layerdrop.cli.command import run_command
from layerdrop.deploy.cost import (
    MeasuredModel,
    Setting,
    batches,
    count_flops,
    describe,
    lengths_like_qqp,
    peaks,
    time_inference,
    time_training,
)
from layerdrop.deploy.measure import measure
from layerdrop.errors import UserError
from layerdrop.report.published import published_cost
from layerdrop.report.tables.model_cost import ratios
from layerdrop.surgery import drop_layers
from layerdrop.system.process import BUSY
from tests import tiny
from tests.small.test_surgery import MODEL_TYPES

N, H, F, HEADS = 10, 16, 24, 2
"""Tokens; hidden and inner size of the tiny BERT."""


def test_operations_by_hand():
    """Of a layer: four projections, two products of attention, two of the feed-forward network, two operations each."""
    each = 4 * 2 * N * H * H + 2 * 2 * N * N * H + 2 * 2 * N * H * F
    head = 2 * H * H + 2 * H * 2  # pooler and classifier, of one token
    model = tiny.model("bert")
    assert count_flops(model, N) == 6 * each + head
    assert describe(drop_layers(tiny.model("bert"), [3, 4, 5]), N).flops == 3 * each + head
    assert model.config._attn_implementation == "sdpa" and model.config.num_hidden_layers == 6


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_family(model_type):
    model = tiny.model(model_type)
    costs = {"a": describe(model, 8)}
    assert costs["a"].parameters == sum(p.numel() for p in model.parameters())
    assert 0 < costs["a"].encoder < costs["a"].parameters
    assert costs["a"].megabytes == costs["a"].parameters * 4 / 1e6
    setting = Setting((8, 5, 9), 2)
    time_inference({"a": model}, costs, "x", setting, 2)
    time_training({"a": model}, costs, setting, 2)
    assert len(costs["a"].inference["x"]) == len(costs["a"].training) == 2 and min(costs["a"].training) > 0


def test_models_take_turns(monkeypatch):
    order = []
    monkeypatch.setattr(
        "layerdrop.deploy.cost._timed", lambda work, device: order.append(work.args[0].name) or len(order) * 1.0
    )
    models = {name: tiny.model("bert") for name in "ab"}
    for name, model in models.items():
        model.name = name
    costs = {name: describe(model, 8) for name, model in models.items()}
    time_inference(models, costs, "x", Setting((8,), 1), 2)
    assert order == ["a", "b"] * 3 and costs["a"].inference["x"] == [3.0, 5.0]  # the first round does not count


def test_texts():
    lengths = lengths_like_qqp(4000, 128)
    assert abs(np.mean(lengths) - 30) < 1 and abs(np.std(lengths) - 13) < 1 and lengths == lengths_like_qqp(4000, 128)
    assert max(lengths_like_qqp(4000, 40)) == 40 and min(lengths) >= 8
    parts = batches(Setting((3, 9, 5), 2), 65, 0)
    assert [part["attention_mask"].sum(1).tolist() for part in parts] == [[9, 5], [3]]
    assert Setting((3, 9, 6), 2).mean_length == 6


def test_ratios():
    assert ratios([1.0, 4.0, 3.0], [2.0, 4.0, 2.0]) == (1.0, 0.5, 1.5)


def test_peak_memory(bert):
    """Of a process of its own: libraries, weights; a training step has gradients and two moments besides."""
    assert layerdrop.deploy.measure.peaks is peaks  # other tests replace it: see the fixture `in_process`
    setting = Setting((30,) * 8, 8)
    inference, training = peaks(MeasuredModel("random:distilbert", k=3), setting, use_cpu=True)
    parameters = 4 * describe(MeasuredModel("random:distilbert", k=3).load(use_cpu=True), 8).parameters
    assert parameters + 1e8 < inference < parameters + 1.5e9
    assert inference + 2.5 * parameters < training < inference + 4 * parameters + 1e9


def test_published():
    assert published_cost("sajjad2023", "bert")[4] == {
        "published training speed-up": "1.48 x",
        "published inference ratio": "0.67",
    }
    assert published_cost("peer2022", "bert")[6] == {
        "published CPU inference ratio": "0.52",
        "published GPU inference ratio": "0.57",
    }
    assert published_cost("sajjad2023", "gpt2") == published_cost("peer2022", "gpt2") == {}


# ---- the command -----------------------------------------------------------------------------------------------------
def test_command(bert, tmp_path, capsys, monkeypatch, in_process):
    monkeypatch.chdir(tmp_path)
    words = [bert, "--k", "0", "3", "--texts", "8", "--repeats", "2", "--use_cpu", "--format", "csv"]
    assert run_command("cost", [*words, "--compare", "sajjad2023"]) == 0
    out, err = capsys.readouterr()
    full, cut = csv.DictReader(io.StringIO(out))
    assert (full["layers"], cut["layers"]) == ("6", "3") and float(cut["flops_ratio"]) < 0.6
    assert float(full["single_ratio"]) == float(full["training_speed_up"]) == 1
    assert "takes 64 tokens" not in err and "the models read at most 64 tokens, so 64 is used" in err
    (path,) = Path("runs/cost").glob("cost_*.json")
    result = json.loads(path.read_text())
    assert set(result) == {"settings", "environment", "notes", "models"} and len(result["models"]) == 2
    fields = {"parameters", "encoder", "embeddings", "megabytes", "flops", "inference", "training"}
    fields |= {"peak_inference", "peak_training"}
    assert fields <= set(result["models"][1]) and result["models"][1]["name"] == "tinybert, top K = 3"
    assert run_command("report", ["runs/cost", "--table", "cost", "--format", "csv"]) == 0
    assert capsys.readouterr().out == out
    assert run_command("report", ["runs/cost", "--table", "cost", "--compare", "sajjad2023"]) == 0
    assert "published training speed-up" in capsys.readouterr().out
    path.write_text("{}")
    assert run_command("report", ["runs/cost", "--table", "cost"]) == 2
    assert "not a cost record" in capsys.readouterr().err


def test_folders_of_the_same_name(bert, tmp_path, monkeypatch):
    """Their rows have the whole paths; a folder that is given twice is refused."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/plain", "b/plain"):
        shutil.copytree(bert, name)
    monkeypatch.setattr("layerdrop.deploy.measure.peaks", lambda *_: (None, None))
    how = {"ks": [2], "strategy": "top", "texts": 8, "length": 8, "batch_size": 4, "repeats": 1, "use_cpu": True}
    found = measure(["a/plain", "b/plain", bert], **how)["models"]
    assert [row["name"] for row in found] == ["a/plain, top K = 2", "b/plain, top K = 2", "tinybert, top K = 2"]
    with pytest.raises(UserError, match="'tinybert, top K = 2' is given twice"):
        measure([bert, bert], **how)


@pytest.mark.parametrize("busy", [f"{BUSY} 1.9 of 2 cores, so the measured times are not comparable", None])
def test_times_beside_other_processes_are_said(bert, tmp_path, capsys, monkeypatch, busy):
    """On stderr, below the table, and in a later report."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("layerdrop.deploy.measure.peaks", lambda *_: (1, 1))
    monkeypatch.setattr("layerdrop.deploy.measure.busy_note", lambda: busy)
    assert run_command("cost", f"{bert} --texts 8 --length 8 --batch_size 4 --repeats 1 --use_cpu".split()) == 0
    out, err = capsys.readouterr()
    note = "*Other processes occupy 1.9 of 2 cores, so the measured times are not comparable.*"
    assert (f"note: {busy}" in err) == (note in out.splitlines()) == bool(busy)
    assert run_command("report", ["runs/cost", "--table", "cost"]) == 0 and capsys.readouterr().out == out
    (path,) = Path("runs/cost").glob("cost_*.json")
    record = json.loads(path.read_text())
    del record["notes"]  # a record of an earlier version
    path.write_text(json.dumps(record))
    assert run_command("report", ["runs/cost", "--table", "cost"]) == 0 and note not in capsys.readouterr().out


def test_an_onnx_model_is_refused(bert, tmp_path, capsys):
    """Unless the folder has torch weights, too."""
    both, onnx = tmp_path / "both", tmp_path / "onnx"
    for folder in (both, onnx):
        shutil.copytree(bert, folder)
        (folder / "model.onnx").write_bytes(b"x")
    (onnx / "model.safetensors").unlink()
    assert run_command("cost", [str(onnx), "--use_cpu"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: MODEL {onnx}: is an ONNX model, and layerdrop cost measures torch models. Give the folder of the run. "
        "layerdrop export RUN --format onnx prints the times of ONNX models."
    )
    assert MeasuredModel(str(both)).load(use_cpu=True).num_parameters() > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("random:bertt", "MODEL random:bertt: unknown value 'bertt'. Did you mean 'bert'? Allowed: bert, "),
        ("random:t5", "MODEL random:t5: model type 't5' cannot be reduced"),
        ("nowhere/x --k 0", "nowhere/x"),
        (
            "demo --drop_strategy contribution",
            "--drop_strategy contribution: does not select layers by position. Allowed: top, bottom",
        ),
        (
            "demo --drop_strategy foo",
            "'foo'. Allowed: top, bottom, odd-alternate, even-alternate, every-other, symmetric.",
        ),
        ("demo --drop_k 2", "--drop_k: no such flag. Did you mean --k?"),
        ("demo --drop_strategy symmetric --k 1", "error: --k 1: symmetric keeps the same number of layers at each end"),
        ("demo --k 12", "--k 12"),
        ("demo --repeats 0", "--repeats 0: must be 1 or more"),
        ("demo --k 2 2", "'demo, top K = 2' is given twice"),
    ],
)
def test_bad_input_is_one_line(words, said, capsys, monkeypatch):
    monkeypatch.setattr("layerdrop.checkpoints.work_offline_unless_reachable", lambda: False)
    assert run_command("cost", [*words.split(), "--use_cpu"]) == 2
    err = capsys.readouterr().err
    assert said in err and len([line for line in err.splitlines() if line.startswith("error")]) == 1, err
