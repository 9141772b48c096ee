"""Unusable values in the Python API: one line, when a function is called, or before a run reads or writes."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import layerdrop
import run_glue
from layerdrop import DataSpec, DropSpec, ModelSpec, Options, RunSpec, TrainSpec
from layerdrop.finetune.spec import DistilSpec, TheseusSpec, WhenSpec
from layerdrop.runs.checks import check_values
from tests import tiny

NAN = float("nan")


def refused(make) -> str:
    with pytest.raises(layerdrop.UserError) as error:
        make()
    text = str(error.value)
    assert "\n" not in text and text.endswith(".")
    return text


# ---- functions -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"strategy": "tpo", "k": 1}, "'tpo'. Did you mean 'top'.* Allowed: top, .*cka, .*list"),
        ({"strategy": None, "k": 1}, "unknown value 'None'"),
        ({"strategy": "top"}, "top: needs the number of layers. Give k"),
        ({"strategy": "top", "k": "2"}, "'2': must be a whole number. Choose 0 to 3"),
        ({"strategy": "top", "k": 1.5}, "1.5: must be a whole number"),
        ({"strategy": "top", "k": True}, "True: must be a whole number"),
        ({"strategy": "top", "k": 4}, "must keep at least one. Choose 0 to 3"),
        ({"strategy": "top", "k": 1, "n_layers": "12"}, "n_layers '12': must be a number of layers from 1 to 1000"),
        ({"strategy": "top", "k": 1, "n_layers": 0}, "n_layers 0: must be"),
        ({"strategy": "top", "k": 1, "n_layers": 10**9}, "n_layers 1000000000: must be"),
        ({"strategy": "cka"}, "cka: needs the number of layers. Give k"),
        ({"strategy": "cka", "k": 1}, "cka: is given no scores. Give a score for each layer"),
        (
            {"strategy": "cka", "k": 1, "scores": [1, 2, 3]},
            "cka: 3 scores for a model of 4 layers. Give 4, one for each",
        ),
        ({"strategy": "cka", "k": 1, "scores": [1, 2, "x", 4]}, "score of layer 2 is not a finite number"),
        ({"strategy": "cka", "k": 1, "scores": [1, None, NAN, 4]}, "score of layer 1 .the first of 2. is not a finite"),
        (
            {"strategy": "angular-block", "k": 2, "scores": [1, 2]},
            "2 scores for .* 4 layers. Give 3, one for each block",
        ),
        ({"strategy": "sleb", "k": 2, "scores": [[1, 2, 3, 4]]}, "sleb: 4 scores .* Give 4, 4, one for each steps"),
        ({"strategy": "sleb", "k": 1, "scores": [[1, 2]]}, "sleb: 2 scores .* Give 4"),
        (
            {"strategy": "cka", "threshold": 0.5, "scores": [1] * 4},
            "cka drops K layers, not all above a threshold. Give",
        ),
        ({"strategy": "contribution", "threshold": 0.5}, "contribution: is given no scores"),
        ({"strategy": "contribution", "threshold": 2, "scores": [1] * 4}, "threshold 2: must be from -1 to 1"),
        (
            {"strategy": "contribution", "threshold": "x", "scores": [1] * 4},
            "threshold x: must be a finite number, from",
        ),
        ({"strategy": "list", "layers": 0}, "0 is no list of layer ids. Give whole numbers, such as"),
        ({"strategy": "list", "layers": ["1"]}, "is no list of layer ids"),
        ({"strategy": "list", "layers": "12"}, "'12' is no list of layer ids"),
        ({"strategy": "list", "layers": [4]}, "no layer 4 in a model of 4 layers"),
        ({"strategy": "greedy", "k": 1}, "the search found 0 layers"),
        ({"strategy": "greedy", "k": 1, "found": [9]}, "no layer 9"),
        ({"strategy": "greedy", "k": 1, "found": [0.5]}, "is no list of layer ids"),
        ({"strategy": "greedy", "k": 1, "found": 3}, "search result: 3 is no list of layer ids"),
        ({"strategy": "cka", "k": 1, "scores": [1] * 4, "among": 3}, "among: 3 is no list of layer ids"),
        ({"strategy": "random", "k": 1, "among": [4]}, "among: no layer 4"),
        (
            {"strategy": "cka", "k": 2, "scores": 0.5},
            "cka: 0.5 is no list of scores. Give a list with a score for each layer",
        ),
        ({"strategy": "cka", "k": 2, "scores": np.array(0.5)}, "is no list of scores"),
        ({"strategy": "cka", "k": 2, "scores": {0: 0.5}}, "is no list of scores"),
        (
            {"strategy": "angular-block", "k": 2, "scores": 0.5},
            "0.5 is no list of scores. Give a list with a score for each block",
        ),
        ({"strategy": "contribution", "threshold": 0.5, "scores": 0.1}, "contribution: 0.1 is no list of scores"),
        ({"strategy": "sleb", "k": 2, "scores": 0.1}, "sleb: 0.1 is no list of scores"),
        (
            {"strategy": "sleb", "k": 2, "scores": [0.1] * 4},
            "is no list of scores. Give a list with a row of scores for each step",
        ),
    ],
)
def test_select(words, said):
    with pytest.raises(layerdrop.UserError, match=said):
        layerdrop.select(**{"n_layers": 4} | words)


def test_select_takes_every_name():
    """With the scores that it needs: a number for each layer, for each block, or a row for each step."""
    scores = {"layer": [0.4, 0.3, 0.2, 0.1], "block": [0.4, 0.2, 0.3], "steps": [[0.4, 0.3, 0.2, 0.1]] * 2}
    for name, row in layerdrop.STRATEGIES.items():
        more = {"scores": scores[row.unit]} if row.drops else {"found": [1, 2], "layers": [1, 2]}
        assert len(layerdrop.select(name, 4, k=2, **more)) == 2, name
        assert layerdrop.select(name, 4, k=0) == [], name
        if row.drops:  # arrays are as good as lists
            assert layerdrop.select(name, 4, k=2, scores=np.array(scores[row.unit])) == layerdrop.select(
                name, 4, k=2, **more
            )


@pytest.mark.parametrize(
    ("dropped", "said"),
    [
        (0, "0 is no list of layer ids"),
        (3, "3 is no list of layer ids"),
        ("34", "'34' is no list of layer ids"),
        ([1.0], "is no list of layer ids"),
        ([True], "is no list of layer ids"),
        ([6], "no layer 6 in a model of 6 layers"),
        ([-1], "no layer -1"),
        ([3, 3], "layer 3 is given more than once"),
        (range(6), "must keep at least one"),
    ],
)
def test_layers_to_drop(dropped, said, bert):
    model = tiny.model("bert")
    within = partial(layerdrop.without, model, dropped)
    calls = [
        lambda: layerdrop.drop_layers(model, dropped),
        lambda: within().__enter__(),
        lambda: layerdrop.reduced_config(model.config, dropped),
        lambda: layerdrop.load_classifier(bert, dropped),
    ]
    for call in calls:
        assert said in refused(call)
    assert model.config.num_hidden_layers == 6


def test_checkpoints_and_predictions(bert, tmp_path):
    load = partial(layerdrop.load_classifier, bert)
    assert layerdrop.load_classifier(Path(bert))[1] == [] and layerdrop.Checkpoint.open(Path(bert)).n_layers == 6
    assert "no such folder" in refused(lambda: layerdrop.load_classifier(str(tmp_path / "none")))
    for labels in ("ab", ["a", "a"], ["a", 1], 5, [5]):
        assert "must be a list of names of classes, each once" in refused(lambda labels=labels: load(labels=labels))
    assert "problem_type: unknown value 'x'" in refused(lambda: load(labels=["a", "b"], problem_type="x"))
    assert "auto_class: unknown value 'AutoModel'" in refused(lambda: load(auto_class="AutoModel"))
    for length in (0, 1, -3, 2.5, "64"):
        assert f"max_seq_length {length}: must be" in refused(lambda length=length: layerdrop.load(bert, length))
    classify = layerdrop.load(Path(bert))
    for size in (0, 1.5, None):
        assert f"batch_size {size}: must be" in refused(lambda size=size: classify("a text", size))
    for texts in (5, None, ["a", 5], ["a", ("a", "b")]):
        assert re.match(
            r"texts(\[1\]: must|: must be a text|: the list mixes)", refused(lambda texts=texts: classify(texts))
        )


# ---- losses and callbacks --------------------------------------------------------------------------------------------
def test_values_of_losses_and_callbacks():
    model, teacher, shallow = tiny.model("bert"), tiny.model("bert", 1), layerdrop.drop_layers(tiny.model("bert"), [0])
    wide, other = tiny.model("bert", hidden_size=32), tiny.model("bert", num_labels=3)
    loss, weight = partial(layerdrop.DistillationLoss, model, teacher), {"distill_states_weight": 1.0}
    theseus, schedule = partial(layerdrop.TheseusLoss, model, teacher), layerdrop.DropSchedule
    elastic = partial(layerdrop.ElasticDepthLoss, model)
    for rate in (2.0, 1.0, -0.1, NAN, "0.2", None):
        assert f"rate {rate}: must be" in refused(lambda rate=rate: layerdrop.LayerDropLoss(model, rate))
    for seed in (-1, 0.5, "1", 2**32):
        assert f"seed {seed}: must be" in refused(lambda seed=seed: layerdrop.LayerDropLoss(model, 0.2, seed))
        assert f"seed {seed}: must be" in refused(lambda seed=seed: theseus(seed=seed))
    assert "distill: unknown value 'foo'" in refused(lambda: loss("foo"))
    assert "needs pairs and distill_states_weight" in refused(lambda: loss("patient", **weight))
    assert "needs pairs and distill_states_weight" in refused(lambda: loss("layers", pairs=[(0, 1)]))
    assert "needs no pairs" in refused(lambda: loss("logits", pairs=[(0, 1)]))
    for pair in ((0, 9), (0,), (0, 1, 2), 0, (0, 1.0), (0, "1"), "01"):
        assert f"{pair} is no pair of layers" in refused(lambda pair=pair: loss("layers", pairs=[pair], **weight))
    for temperature in (0, -1.0, NAN, "2", None):
        assert "distill_temperature" in refused(lambda value=temperature: loss(distill_temperature=value))
    assert "distill_weight 1.5: must be from 0 to 1" in refused(lambda: loss(distill_weight=1.5))
    states = {"pairs": [(0, 1)], "distill_states_weight": -1.0}
    assert "distill_states_weight -1.0: must be 0 or more" in refused(lambda: loss("layers", **states))
    assert "num_labels is 2 in the one model and 3 in" in refused(lambda: layerdrop.DistillationLoss(model, other))
    layerdrop.DistillationLoss(model, wide).remove()
    distill = partial(layerdrop.DistillationLoss, model, wide, "layers", pairs=[(0, 1)])
    assert "hidden_size is 16 in the one model and 32 in" in refused(lambda: distill(**weight))
    assert "hidden_size" in refused(lambda: layerdrop.TheseusLoss(model, wide))
    assert "model_type" in refused(lambda: layerdrop.TheseusLoss(model, tiny.model("roberta")))
    assert "has 5 layers, and the model has 6" in refused(lambda: layerdrop.TheseusLoss(model, shallow))
    assert "schedule: unknown value 'x'" in refused(lambda: theseus(schedule="x"))
    assert "rate 2: must be" in refused(lambda: theseus(rate=2))
    assert "steps -1: must be 0 or more" in refused(lambda: theseus(steps=-1))
    for ks in ([], [6], [0], [2.5], ["2"], "2", 2, {2}):
        assert "must be a list of numbers of layers to drop, from 1 to 5" in refused(lambda ks=ks: elastic(ks))
    assert "distill_weight x: must be a finite number" in refused(lambda: elastic([2], distill_weight="x"))
    for begin, end in ((0.7, 0.5), (0, 1.0), (-0.1, 0.5), ("0", 0.5), (NAN, 0.5)):
        assert "begin <= end < 1" in refused(lambda part=(begin, end): elastic([2], begin=part[0], end=part[1]))
    for step in (0, 1.5, "1", None):
        assert f"step {step}: must be" in refused(lambda step=step: schedule((5,), step, 1))
        assert f"every_epochs {step}: must be" in refused(lambda step=step: schedule((5,), 1, step))
    for order, said in (((14,), "no layer 14"), (tuple(range(6)), "must keep at least one"), (("5",), "no list of")):
        assert said in refused(lambda order=order: layerdrop.GradualDrop(model, schedule(order, 1, 1)))


# ---- runs ------------------------------------------------------------------------------------------------------------
SPEC = RunSpec(ModelSpec("demo"), DataSpec("demo-rte", "demo"), DropSpec("top", 2), train=TrainSpec(max_steps=1))
WRONG_SETTINGS = {
    "learning_rate": (-1, "x", NAN, None),
    "num_train_epochs": (0, -1, "3"),
    "max_steps": (0, -2, 1.5),
    "per_device_train_batch_size": (0, 2.5, "8"),
    "gradient_accumulation_steps": (0,),
    "lr_scheduler_type": ("linaer", 1),
    "optim": ("adam", 1),
    "train_sampling_strategy": ("shortest", 1),
    "adam_beta1": (1, -0.1),
    "label_smoothing_factor": (1.0,),
    "data_seed": (-1, 0.5),
    "layerdrop_rate": (1.0, "x"),
    "class_weights": ("balance", 1),
    "freeze_layers": ([0], ("0",), (99,)),
    "freeze_embeddings": ("no",),
    "other": ({"nosuch": 1}, {"seed": 1}, {"neftune_noise_alpha": -1}, [1]),
}


def wrong_specs():
    for name, values in WRONG_SETTINGS.items():
        for value in values:
            yield f"{name}={value}", replace(SPEC, train=replace(SPEC.train, **{name: value}))
    drops = [DropSpec("nosuch", 2), DropSpec("top"), DropSpec("top", -1), DropSpec("top", 99), DropSpec("top", "2")]
    drops += [DropSpec("cka", 2, score_split="dev"), DropSpec("cka", 2, score_split="train", score_samples=0)]
    drops += [DropSpec("variance", 2, weight_scope="all"), DropSpec("list", layers=(99,)), DropSpec("list", layers=[1])]
    drops += [DropSpec("contribution", threshold=2, score_split="train"), DropSpec(5, 2), DropSpec("greedy", 2)]
    parts = {
        "drop": [*drops, "top", None],
        "data": [
            *(DataSpec("nosuch", "demo"), DataSpec("rte", "no/folder"), DataSpec("demo-rte", "demo", max_seq_length=1)),
            *(DataSpec("demo-rte", "demo", max_train_samples=0), DataSpec("demo-rte", "demo", hold_out=1.0)),
            *(DataSpec("a", "files", files=(("train", "none.csv"),)), DataSpec("a", "files", label_type="word")),
            *(DataSpec("demo-rte", "demo", skip_bad_rows="no"), DataSpec(None), "demo-rte"),
        ],
        "model": [ModelSpec("no/folder"), ModelSpec(""), ModelSpec(None), ModelSpec("demo", from_scratch=1), "demo"],
        "when": [WhenSpec(every_epochs=0), WhenSpec(step=0, every_epochs=1), WhenSpec(elastic_k=(0,)), "after"],
        "theseus": [TheseusSpec(2.0, 0.5, "linear"), TheseusSpec(0.5, -1, "linear"), TheseusSpec(0.5, 0.5, "square")],
        "distil": [DistilSpec("logit"), DistilSpec("logits", "no/folder"), DistilSpec("logits", distill_temperature=0)],
        "start": ["after", replace(SPEC, train=TrainSpec(learning_rate=-1))],
        "train": ["fast", {}],
        "seed": [-1, 0.5, "1", None],
        "precision": ["fp64", "auto", None],
        "processes": ["1"],
        "no_speedups": ["yes"],
    }
    for part, values in parts.items():
        for value in values:
            yield f"{part}={value}", replace(SPEC, **{part: value})


@pytest.mark.parametrize("spec", [pytest.param(spec, id=name[:60]) for name, spec in wrong_specs()])
def test_a_run_refuses_a_value_before_it_writes(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(lambda: run_glue.run(spec, Options("out", use_cpu=True)))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    "words",
    [
        {"folder": None},
        {"folder": 5},
        {"folder": "out", "max_predict_samples": 0},
        {"folder": "out", "resume": "nosuch"},
        {"folder": "out", "start": "no/folder", "evaluate": "yes"},
        {"folder": "out", "trainer": {"nosuch": 1}},
        {"folder": "out", "trainer": {"eval_strategy": "sometimes"}},
        {"folder": "out", "trainer": {"logging_strategy": "steps", "logging_steps": -1}},
        {"folder": "out", "notes": ["x"]},
        {"folder": "out", "test": 5},
    ],
)
def test_a_run_refuses_options_before_it_writes(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(lambda: run_glue.run(SPEC, Options(**words)))
    assert not list(tmp_path.rglob("*.json"))


def test_paths_of_a_run(tmp_path):
    """A `Path` is as good as its text: also in the id and the record of the run."""
    folder, text = tmp_path / "out", str(tmp_path / "out")
    names = ("folder", "test", "resume", "cache_dir", "start", "prior_store", "score_store")
    assert Options(**dict.fromkeys(names, folder)) == Options(**dict.fromkeys(names, text))
    spec = replace(SPEC, model=ModelSpec(folder, tokenizer=folder))
    assert spec == replace(SPEC, model=ModelSpec(text, tokenizer=text))
    check_values(spec, Options(folder))
    with pytest.raises(layerdrop.UserError, match="spec.seed: int is expected"):
        check_values(replace(SPEC, seed=np.int64(3)), Options(folder))


def test_a_run_of_something_else():
    assert "spec: RunSpec is expected, not 'x'" in refused(lambda: run_glue.run("x", Options("out")))
    assert "options: Options is expected, not 'out'" in refused(lambda: run_glue.run(SPEC, "out"))


def test_messages_name_the_value_and_the_range(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = partial(run_glue.run, options=Options("out"))
    train = replace(SPEC.train, learning_rate=-1)
    assert refused(lambda: run(replace(SPEC, train=train))) == "--learning_rate -1: must be 0 or more."
    assert "--drop_k 1001: must be from 0 to 1000" in refused(lambda: run(replace(SPEC, drop=DropSpec("top", 1001))))
    start = replace(SPEC, train=TrainSpec(weight_decay=-1))  # checked before the model of the run is opened
    assert "--weight_decay -1" in refused(lambda: run(replace(SPEC, model=ModelSpec("no/folder"), start=start)))
    assert refused(lambda: run(replace(SPEC, seed="1"))) == "spec.seed: int is expected, not '1'."
    said = "spec.precision: unknown value 'fp64'. Allowed: fp32, bf16, fp16."
    assert refused(lambda: run(replace(SPEC, precision="fp64"))) == said
