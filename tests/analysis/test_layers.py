"""What layers do: against models with known answers, and as a command."""

import copy
import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from layerdrop.analysis import probing
from layerdrop.analysis.inputs import cached
from layerdrop.analysis.layers import Cosines, MinibatchCKA, drift, profile, similarity
from layerdrop.analysis.probing import features, fit_and_score, probe
from layerdrop.architectures import ModelSpec
from layerdrop.cli.command import run_command
from layerdrop.cli.layers import data_of
from layerdrop.cli.parsing import parse
from layerdrop.criteria.states import score_states
from layerdrop.data.batches import Collator
from layerdrop.data.examples import Examples
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import TASKS
from layerdrop.data.tokens import tokenize
from layerdrop.report.layer_report import AnalyzedModel, labels, means
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import RunSpec
from layerdrop.states import States, layer_states
from layerdrop.surgery import drop_layers, layer_list
from tests import tiny
from tests.small.test_surgery import MODEL_TYPES

PROBE = ("train", "validation")
"""Splits that a probe reads."""


def batches(model_type="bert", n=3):
    return [tiny.batch(4, left=model_type == "xlnet", seed=seed) for seed in range(n)]


def states_of(model, parts):
    """(points, real tokens of all batches, hidden)."""
    found = []
    for batch in parts:
        states, real = layer_states(model, batch), batch["attention_mask"].bool()
        found.append(torch.stack([state[real] for state in [*states.inputs, states.outputs[-1]]]))
    return torch.cat(found, dim=1).double()


# ---- similarity, drift, profile --------------------------------------------------------------------------------------
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_similarity(model_type):
    model = tiny.model(model_type).base_model
    found = similarity(model, batches(model_type))
    states = torch.nn.functional.normalize(states_of(model, batches(model_type)), dim=-1)
    expected = torch.einsum("atd,btd->ab", states, states) / states.shape[1]
    np.testing.assert_allclose(found["cosine"], expected, atol=1e-5)
    assert np.allclose(np.diag(found["cka"]), 1) and np.allclose(found["cka"], np.transpose(found["cka"]))
    assert [len(row) for row in found["blocks"]] == [6, 5, 4, 3, 2, 1]


def test_equal_layers_have_a_cka_of_1_and_independent_ones_of_0():
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(1, 400, 5, generator=generator) for _ in range(2))
    real, collector = torch.ones(1, 400, dtype=torch.bool), MinibatchCKA()
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator))[0]
    for part in (slice(0, 100), slice(100, 400)):
        states = States([x[:, part], 3 * x[:, part] @ rotation + 7], [None, y[:, part]])
        collector.add(states, real[:, part], torch.tensor([0]))
    cka = np.array(collector.rows())
    assert cka[0, 1] == pytest.approx(1, abs=1e-6) and abs(cka[0, 2]) < 0.02


def test_minibatch_cka_of_one_batch_is_the_unbiased_estimate():
    """HSIC_1 of Song et al. (2012), written out."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(1, 30, 4, generator=generator), torch.randn(1, 30, 4, generator=generator)
    y = y + x
    collector = MinibatchCKA()
    collector.add(States([x], [y]), torch.ones(1, 30, dtype=torch.bool), torch.tensor([0]))

    def hsic(a, b):
        n, one = len(a), np.ones(len(a))
        k, m = a @ a.T, b @ b.T
        np.fill_diagonal(k, 0), np.fill_diagonal(m, 0)
        inner = (
            np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ m @ one
        )
        return inner / (n * (n - 3))

    a, b = x[0].numpy().astype(float), y[0].numpy().astype(float)
    assert collector.rows()[0][1] == pytest.approx(hsic(a, b) / np.sqrt(hsic(a, a) * hsic(b, b)))


def test_drift():
    model = tiny.model("bert").base_model
    still = drift(model, tiny.model("bert").base_model, batches())
    assert still["ids"] == [-1, 0, 1, 2, 3, 4, 5]
    assert np.allclose(still["mean"], 1) and np.allclose(still["spread"], 0, atol=1e-6)
    moved = tiny.model("bert").base_model
    with torch.no_grad():
        layer_list(moved)[3].output.dense.weight.mul_(3)
    found = drift(moved, model, batches())
    a, b = states_of(moved, batches()), states_of(model, batches())
    cosines = torch.cosine_similarity(a, b, dim=-1)
    np.testing.assert_allclose(found["mean"], cosines.mean(1), atol=1e-6)
    np.testing.assert_allclose(found["spread"], cosines.std(1, correction=0), atol=1e-5)
    assert np.allclose(found["mean"][:4], 1) and max(found["mean"][4:]) < 0.999
    last = [[layer_states(m, part).outputs[5][:, 0] for part in batches()] for m in (moved, model)]
    sentence = torch.cosine_similarity(torch.cat(last[0]), torch.cat(last[1]), dim=-1)
    assert found["sentence"][6] == pytest.approx(float(sentence.mean()), abs=1e-6)


def test_drift_of_a_model_that_lacks_layers():
    model = tiny.model("bert").base_model
    cut = drop_layers(copy.deepcopy(model), [2, 5])
    found = drift(cut, model, batches())
    assert found["ids"] == [-1, 0, 1, 3, 4] and np.allclose(found["mean"][:3], 1) and found["mean"][3] < 0.999


def test_profile():
    model = tiny.model("bert").base_model
    layer_list(model)[2].forward = lambda states, *args, **kwargs: states
    found = profile(model, batches())
    assert found["sentence"][2] == pytest.approx(1) and found["tokens"][2] == pytest.approx(1)
    assert set(found) == {"sentence", "tokens", "variance", "aggregation"} and all(len(v) == 6 for v in found.values())


def test_no_collector_keeps_what_it_has_seen():
    """Twice the data, the same memory: sums of a fixed size."""
    model, sizes = tiny.model("bert").base_model, []
    for n in (2, 8):
        collectors = {"cosine": Cosines(), "cka": MinibatchCKA()}
        score_states(collectors, model, batches(n=n))
        held = [v for c in collectors.values() for v in vars(c).values() if torch.is_tensor(v)]
        sizes.append(sum(v.numel() for v in held))
    assert sizes[0] == sizes[1]


# ---- probes ----------------------------------------------------------------------------------------------------------
def test_a_probe_on_separable_features_and_on_noise():
    generator = np.random.default_rng(1)
    y, y_dev = generator.integers(0, 2, 400), generator.integers(0, 2, 400)
    noise, noise_dev = generator.normal(size=(400, 8)), generator.normal(size=(400, 8))
    apart, apart_dev = noise.copy(), noise_dev.copy()
    apart[:, 0] += 9 * y
    apart_dev[:, 0] += 9 * y_dev
    assert fit_and_score(apart, y, apart_dev, y_dev, TASKS["rte"]) == 1
    assert abs(fit_and_score(noise, y, noise_dev, y_dev, TASKS["rte"]) - 0.5) < 0.08
    values, values_dev = noise @ np.arange(8.0), noise_dev @ np.arange(8.0)
    assert fit_and_score(noise, values, noise_dev, values_dev, TASKS["stsb"]) > 0.999


@pytest.mark.filterwarnings("error")
def test_a_probe_that_does_not_converge_says_nothing(monkeypatch):
    monkeypatch.setattr(probing, "ITERATIONS", 1)
    x = np.random.default_rng(5).normal(size=(60, 8)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    assert fit_and_score(x, y, x, y, TASKS["rte"]) > 0.8


@pytest.mark.parametrize("model_type", ["bert", "xlnet", "albert"])
@pytest.mark.parametrize("token", ["sentence", "mean"])
def test_features_are_the_states_in_the_order_of_the_source(tmp_path, model_type, token):
    model, words = tiny.model(model_type).base_model, tiny.tokenizer(left=model_type == "xlnet")
    texts = [" ".join(tiny.WORDS[i : i + 2 + i % 7]) for i in range(11)]
    data = tokenize(Examples((texts,), np.arange(11) % 2, [""] * 11), words, 64)
    found = features(model, data, Collator.of(words), token, 4, tmp_path / "x")
    assert len(found.files) == 7 and found.at(6).shape == (11, 16)
    for row in (0, 6, 10):
        batch = Collator.of(words)([data[row]])
        states = layer_states(model, {name: value for name, value in batch.items() if name != "labels"})
        for point, state in enumerate([*states.inputs, states.outputs[-1]]):
            expected = state[0].mean(0) if token == "mean" else state[0, -1 if model_type == "xlnet" else 0]
            np.testing.assert_allclose(found.at(point)[row], expected, atol=1e-5)


def test_probe_of_a_model():
    model, words = tiny.model("bert").base_model, tiny.tokenizer()
    texts = [f"w{i % 2} w{3 + i % 5}" for i in range(60)]  # the first word is the class
    data = tokenize(Examples((texts,), np.arange(60) % 2, [""] * 60), words, 64)
    scores = probe(model, data, data, TASKS["rte"], Collator.of(words), token="mean")
    assert len(scores) == 7 and scores[0] == 1


# ---- kept results, the command ---------------------------------------------------------------------------------------
def test_results_are_kept(tmp_path):
    asked = []

    def compute():
        asked.append(1)
        return {"a": [1.0, float("nan")], "b": np.float64(2.0)}

    first = cached(str(tmp_path / "s"), "x", {"of": 1}, compute)
    assert (
        first == cached(str(tmp_path / "s"), "x", {"of": 1}, compute) == {"a": [1.0, None], "b": 2.0}
        and len(asked) == 1
    )
    cached(str(tmp_path / "s"), "x", {"of": 2}, compute)
    assert len(asked) == 2


@pytest.fixture
def call(bert, glue, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(words, models=(bert,)):
        argv = [*words.split(), "--models", *models, "--data_dir", glue, "--figures", "figures", "--use_cpu"]
        code = run_command("layers", argv)
        return code, *capsys.readouterr()

    return call


def test_scores_side_by_side(call, run, bert):
    code, out, err = call("scores --tasks rte stsb")
    assert code == 0 and out.count("scores\n") == 2 and "Kendall's tau" in out, err
    assert "sleb: scores of the first step only." in out and "blocks of one layer (K = 1)." in out
    assert "use the checkpoint's classifier" in out and len(list(Path("figures").glob("scores_*.png"))) == 2
    assert "Needed: a classifier trained on this task, or a masked-LM head" in out  # stsb has neither
    code, record, _, err = run(
        "--task_name rte --max_steps 1 --drop_strategy linearity --drop_k 2 --score_store runs/layers/scores"
    )
    order = next(line for line in out.splitlines() if line.startswith("| linearity") and "." not in line)
    assert code == 0 and set(map(int, order.split("|")[2].split()[:2])) == set(record["dropped"])
    code, out, err = call("scores --tasks rte --criteria variance block-influence")
    assert code == 0 and "texts of train.*" in out and "sleb" not in out and "angular-block" not in out, err


def test_probe_drift_profile_similarity(call, bert, tmp_path):
    other = tiny.save(tmp_path / "tuned", seed=3)
    code, out, err = call("probe --tasks rte stsb", (bert, other))
    assert code == 0 and "tinybert, mean" in out and "tuned, mean" in out and "tuned, rte" in out, err
    assert call("drift --tasks rte", (other,))[0] == 2
    code, out, err = call(f"drift --tasks rte --pretrained {bert}", (other,))
    assert code == 0 and "before and after fine-tuning" in out, err
    code, out, _ = call("profile --tasks rte", (bert, other))
    assert code == 0 and "Layers with a cosine at the sentence token above a threshold: 0.95:" in out
    code, out, _ = call("similarity --tasks rte --split validation --format csv")
    assert code == 0 and out.startswith("table,title,row,column,value")
    names = {path.stem for path in Path("figures").glob("*.png")}
    assert {"probe_layers", "drift_layers", "profile_sentence", "similarity_tinybert_states"} <= names
    stored = list(Path("runs/layers").glob("profile_*.json"))
    before = [path.stat().st_mtime_ns for path in stored]
    assert call("profile --tasks rte", (bert, other))[0] == 0
    assert [path.stat().st_mtime_ns for path in stored] == before and json.loads(stored[0].read_text())["sentence"]


def test_runs_are_looked_at_on_their_own_task(call, run, bert):
    """Runs of one model are told apart by their tasks, and have a mean; those of one task by what was dropped, or by
    their folders, and have none."""
    cut = "--drop_strategy top --drop_k 2"
    for task, name, words in (("rte", "a", ""), ("stsb", "b", ""), ("rte", "c", cut), ("rte", "d", "--seed 5")):
        assert run(f"--task_name {task} --max_steps 2 --learning_rate 1e-2 {words}", output=name)[0] == 0
    code, out, err = call(f"drift --pretrained {bert} --format csv", ("a", "b"))
    assert code == 0, err
    rows = {}
    for row in csv.DictReader(io.StringIO(out)):
        if row["title"].endswith("all models"):
            rows.setdefault(row["row"], []).append(float(row["value"]))
    assert list(rows) == ["rte", "stsb", "mean"] and len(rows["mean"]) == 7
    np.testing.assert_allclose(rows["mean"], np.mean([rows["rte"], rows["stsb"]], 0), atol=1e-5)
    code, out, err = call(f"drift --pretrained {bert} --format csv", ("a", "c"))
    assert code == 0 and "fine-tuned: cosine of" in out and "top, K = 2: cosine of" in out, err
    assert "all models" not in out
    code, out, err = call("probe --format csv", ("a", "b"))
    assert code == 0 and {row["row"] for row in csv.DictReader(io.StringIO(out))} == {"rte", "stsb", "mean"}, err
    fine_tuned = "tinybert, fine-tuned"
    of_both = {f"{name}, {task}" for name in ("tinybert", fine_tuned) for task in ("rte", "stsb", "mean")}
    for words, models, rows in (
        ("rte", (bert, "a"), {"tinybert", fine_tuned}),
        ("rte", ("a", "d"), {"a", "d"}),
        ("rte stsb", (bert, "a"), of_both),
    ):
        code, out, err = call(f"probe --format csv --tasks {words}", models)
        assert code == 0 and {row["row"] for row in csv.DictReader(io.StringIO(out))} == rows, err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("score --tasks rte", "Did you mean 'scores'?"),
        ("scores --tasks rte --criteria linear", "Did you mean 'linearity'?"),
        ("profile --tasks rt", "--tasks: unknown"),
        (
            "profile --tasks rte --drop_strategy top --drop_k 2",
            "--drop_strategy, --drop_k: layerdrop layers does not drop layers or",
        ),
        (
            "profile --tasks rte --drop_k 2",
            "--drop_k: layerdrop layers does not drop layers or train. Leave --drop_k out.",
        ),
        ("profile --tasks rte --figure x", "--figure: no such flag. Did you mean --figures?"),
        ("profile --k 3", "--k: no such flag. All flags: layerdrop layers --help, layerdrop run --help_all.\n"),
    ],
)
def test_bad_input_is_one_line(call, words, said):
    code, _, err = call(words)
    assert code == 2 and said in err and len(err.splitlines()) == 1, err


# ---- labels ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("named", "expected", "expected_means"),
    [
        (["a//rte"], ["a"], {}),
        (["a//rte", "a//stsb"], ["rte", "stsb"], {"mean": ["rte", "stsb"]}),
        (["a//rte", "b//rte"], ["a", "b"], {}),
        (["a//rte", "a/fine-tuned/rte"], ["a", "a, fine-tuned"], {}),
        (["a/fine-tuned/rte/x", "a/fine-tuned/rte/y"], ["x", "y"], {}),
        (["a//rte/x", "a//rte/y", "a//stsb/z"], ["x, rte", "y, rte", "stsb"], {}),
        (
            ["a//rte", "a//stsb", "b//rte", "b//stsb"],
            ["a, rte", "a, stsb", "b, rte", "b, stsb"],
            {"a, mean": ["a, rte", "a, stsb"], "b, mean": ["b, rte", "b, stsb"]},
        ),
    ],
)
def test_labels_name_what_differs(named, expected, expected_means):
    named = [AnalyzedModel(*(parts := one.split("/"))[:3], parts[-1]) for one in named]
    assert labels(named) == expected and means(named) == expected_means


# ---- own files -------------------------------------------------------------------------------------------------------
@pytest.fixture
def own(tmp_path, monkeypatch):
    """A run of own files, in the folder `made`; the data is in reviews.csv."""
    monkeypatch.chdir(tmp_path)
    rows = [f"w{i} w{i + 1},x,{'good' if i % 3 else 'bad'}" for i in range(12)]
    Path("reviews.csv").write_text("\n".join(["review,source,grade", *rows]) + "\n")
    tiny.save(tmp_path / "made", num_labels=2, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
    files = tuple((split, "reviews.csv") for split in ("train", "validation"))
    data = DataSpec("reviews", "files", files, text_columns=("review",), label_column="grade")
    RunRecord(RunSpec(ModelSpec("tinybert"), data), "made", "success", n_layers=6).write()
    return tmp_path


def test_a_run_of_own_files_is_looked_at_on_them(own, capsys):
    words = ["--models", "made", "--use_cpu"]
    assert run_command("layers", ["scores", "--criteria", "linearity", "taylor", *words]) == 0
    out, err = capsys.readouterr()
    assert "12 texts of train" in out + err and "the checkpoint's classifier" in out + err
    assert run_command("layers", ["probe", *words]) == 0
    own_words = ["--train_file", "reviews.csv", "--text_columns", "review", "--label_column", "grade"]
    other = tiny.save(own / "plain")
    assert run_command("layers", ["profile", "--models", other, *own_words, "--use_cpu"]) == 0
    Path("test.csv").write_text("review\nw1 w2\nw3 w4\n")
    test = ["--split", "test", "--test_file", "test.csv", "--text_columns", "review"]
    assert run_command("layers", ["profile", *words, *test]) == 0
    assert run_command("layers", ["profile", *words, *own_words, "--tasks", "rte", "mrpc"]) == 2
    assert "--tasks rte mrpc: own data are one task" in capsys.readouterr().err


def test_a_run_is_looked_at_on_its_own_folder_of_data(glue):
    data = DataSpec("rte", glue)
    record = RunRecord(RunSpec(ModelSpec("m"), data), "f")
    assert data_of(record, None, [], PROBE) == [["--task_name", "rte", f"--data_dir={glue}"]]
    assert data_of(record, ["sst2"], [], PROBE) == [["--task_name", "sst2"]]
    assert data_of(None, None, [], PROBE) == [["--task_name", "mrpc"]]
    assert data_of(None, None, ["--train-file=x.csv"], PROBE) == [[]]


OWN = DataSpec(
    "x", "files", (("train", "x.csv"), ("validation", "y.csv")), ("a", "b"), "l", "multi", ";", skip_bad_rows=True
)


@pytest.mark.parametrize(
    "data",
    [
        DataSpec(
            "demo-rte", "demo", max_seq_length=32, pad_to_max_length=True, max_train_samples=5, max_eval_samples=3
        ),
        DataSpec("rte", "glue", hold_out=0.25, skip_bad_rows=True, max_train_samples=8),
        replace(OWN, positive_label="p", label_separator=None, label_type="class"),
        replace(OWN, max_train_samples=7, max_eval_samples=2, max_seq_length=16),
        replace(OWN, task="d", source="dataset", files=(("train", "train"),), dataset_name="d", validation_share=0.2),
    ],
)
def test_a_run_is_looked_at_with_all_its_data_settings(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("glue").mkdir()
    Path("x.csv").write_text("a,b,l\n")
    Path("y.csv").write_text("a,b,l\n")
    flags = data_of(RunRecord(RunSpec(ModelSpec("m"), data), "f"), None, [], PROBE)[0]
    assert parse(["--do_train", "--do_eval", "--use_cpu", *flags]).to_spec()[0].data == data


def test_a_run_is_looked_at_with_its_kind_of_labels():
    record = RunRecord(RunSpec(ModelSpec("m"), replace(OWN, label_separator=None, label_type="auto")), "f")
    record.label_type = "number"
    assert "--label_type=number" in data_of(record, None, [], PROBE)[0]


def test_a_run_is_looked_at_on_its_rows(own, capsys):
    """`made` was trained on all rows, `few` on the first 6."""
    words = ["--models", "few", "--use_cpu"]
    shutil.copytree("made", "few")
    record = json.loads(Path("few/record.json").read_text())
    record["spec"]["data"] |= {"max_train_samples": 6, "max_eval_samples": 5}
    Path("few/record.json").write_text(json.dumps(record))
    for limit, more in ((6, []), (8, ["--max_train_samples", "8"]), (5, ["--split", "validation"])):
        assert run_command("layers", ["scores", "--criteria", "linearity", *words, *more]) == 0
        out, err = capsys.readouterr()
        assert f"{limit} texts of" in out + err
