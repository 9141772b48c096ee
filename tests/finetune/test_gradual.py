"""Layers that go while the model trains."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback

from layerdrop.architectures import ModelSpec
from layerdrop.criteria.spec import DropSpec
from layerdrop.criteria.table import get_strategy
from layerdrop.data.spec import DataSpec
from layerdrop.finetune.gradual import DropSchedule, GradualDrop
from layerdrop.finetune.spec import WhenSpec
from layerdrop.runs.spec import RunSpec
from layerdrop.runs.training_arguments import gradual_epochs
from layerdrop.strategies import order_of_dropping
from layerdrop.surgery import layer_list
from tests import tiny
from tests.finetune.test_finetune import COLLATE, arguments, dataset
from tests.running import same, weights
from tests.training import CLASSES, train

WORDS = "--task_name rte --drop_strategy top --drop_k 3 --drop_when gradual --num_train_epochs 1 --learning_rate 1e-3"


def epochs(drop, when):
    return gradual_epochs(RunSpec(ModelSpec("m"), DataSpec("rte"), drop, when))


def test_plan():
    plan = DropSchedule((5, 4, 3, 2, 1), 2, 3)
    assert [plan.dropped(epochs) for epochs in (0, 2, 3, 5, 6)] == [(), (), (5, 4), (5, 4), (5, 4, 3, 2)]
    assert plan.drops() == [3, 6, 9] and plan.dropped(9) == plan.dropped(30) == plan.order
    assert epochs(DropSpec("top", k=5), WhenSpec(step=2, every_epochs=3)) == 9
    assert epochs(DropSpec("list", layers=(1, 2)), WhenSpec(step=1, every_epochs=2)) == 4
    assert epochs(DropSpec("top", k=5), WhenSpec()) == 0
    assert WhenSpec(every_epochs=2).gradual == (1, 2) and WhenSpec().gradual is None
    assert epochs(DropSpec("top", k=5), WhenSpec(every_epochs=2)) == 10  # one layer at a time


@pytest.mark.parametrize(("done", "left"), [(None, 6), (0.5, 6), (1 - 1e-9, 5), (1.0, 5)])
def test_an_epoch_that_is_done_but_for_rounding_counts(done, left):
    """The library computes it from steps, as a float."""
    model = tiny.model("bert")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    GradualDrop(model, DropSchedule((5, 4), 1, 1)).on_epoch_begin(None, SimpleNamespace(epoch=done), None, optimizer)
    assert model.config.num_hidden_layers == left


@pytest.mark.parametrize(
    ("strategy", "more", "order"),
    [
        ("top", {"k": 2}, [5, 4]),
        ("bottom", {"k": 2}, [0, 1]),
        ("symmetric", {"k": 2}, [3, 2]),
        ("list", {"layers": (1, 4)}, [4, 1]),
        ("contribution", {"k": 3, "scores": [0.5, 0.1, 0.9, 0.5, 0, 0]}, [2, 3, 0]),
        ("contribution", {"threshold": 0.4, "scores": [0.5, 0.1, 0.9, 0.6, 0, 0]}, [2, 3, 0]),
        ("variance", {"k": 2, "scores": [0.5, 0.1, 0.9, 0.8, 1, 1]}, [1, 0]),
        ("angular-block", {"k": 2, "scores": [0.5, 0.1, 0.9, 0.1, 0.2]}, [4, 3]),
        ("sleb", {"k": 2, "scores": [[0.3, 0.1, 0.9, 0.4, 1, 1], [0.2, math.nan, 0.9, 0.1, 1, 1], []]}, [1, 3]),
        ("greedy", {"k": 3, "found": (5, 2, 0)}, [5, 2, 0]),
    ],
)
def test_order(strategy, more, order):
    assert order_of_dropping(get_strategy(strategy), 6, **more) == order


class Spy(TrainerCallback):
    """Which layers are there in each epoch, and whether the optimizer holds their parameters with old moments."""

    def __init__(self, model):
        self.model, self.depths, self.moments = model, [], {}

    def on_epoch_begin(self, args, state, control, optimizer=None, **kwargs):
        there = {id(p) for p in self.model.parameters()}
        held = [p for group in optimizer.param_groups for p in group["params"]]
        assert {id(p) for p in held} == there and len(held) == len(there)
        assert all(torch.equal(optimizer.state[p]["exp_avg"], m) for p, m in self.moments.items() if id(p) in there)
        assert {id(p) for p in optimizer.state} <= there
        self.depths.append(len(layer_list(self.model)))

    def on_epoch_end(self, args, state, control, optimizer=None, **kwargs):
        self.moments = {p: optimizer.state[p]["exp_avg"].clone() for p in optimizer.state}


@pytest.mark.parametrize("model_type", ["bert", "xlnet", "modernbert"])
def test_what_is_kept_keeps_its_moments(tmp_path, model_type):
    model = tiny.model(model_type)
    layers = list(layer_list(model))
    plan = DropSchedule((5, 2, 4), 1, 1)
    spy, drop = Spy(model), GradualDrop(model, plan)
    args = arguments(tmp_path, num_train_epochs=5, optim="adamw_torch", weight_decay=0.01)
    train(model, args, dataset(), COLLATE, CLASSES, save=False, callbacks=[drop, spy])
    assert spy.depths == [6, 5, 4, 3, 3]
    assert list(layer_list(model)) == [layers[i] for i in (0, 1, 3)] and spy.moments
    assert model.config.layer_dropping == {"n_layers": 6, "kept": [0, 1, 3]}


def test_a_layer_that_is_shared_stays(tmp_path):
    model = tiny.model("albert")
    drop = GradualDrop(model, DropSchedule((5,), 1, 1))
    args = arguments(tmp_path, num_train_epochs=2, optim="adamw_torch")
    train(model, args, dataset(), COLLATE, CLASSES, save=False, callbacks=[drop])
    assert model.config.num_hidden_layers == 5 and len(layer_list(model)) == 1


def test_a_whole_run(run, tmp_path):
    """3 layers, one after every 2 epochs, then 1 epoch; interrupted at any depth it goes on to the same bits."""
    more = "--save_strategy epoch --save_total_limit 9"
    code, record, out, err = run(f"{WORDS} {more}", output="whole")
    assert code == 0, err
    cuts = [(cut["step"], cut["dropped"]) for cut in record["cuts"]]
    assert cuts == [(0, []), (6, [5]), (12, [4, 5]), (18, [3, 4, 5])] and record["steps"] == 21
    assert record["dropped"] == [3, 4, 5] and record["kept"] == [0, 1, 2]
    assert record["cuts"][2]["why"] == "top, K = 3: after 4 epochs"
    config = json.loads(Path("whole/config.json").read_text())
    assert config["num_hidden_layers"] == 3 and config["layer_dropping"]["kept"] == [0, 1, 2]
    assert record["parameters_after"] == sum(tensor.numel() for tensor in weights("whole").values())
    for step in (3, 6, 12, 15, 18):
        resume = f"--resume_from_checkpoint {tmp_path}/whole/checkpoint-{step}"
        code, again, _, err = run(f"{WORDS} {more} {resume}", output=f"from{step}")
        assert code == 0, err
        assert same(weights("whole"), weights(f"from{step}")) and again["metrics"] == record["metrics"]
        assert [(cut["step"], cut["dropped"]) for cut in again["cuts"]] == cuts


def test_a_dry_run_says_what_will_go(run):
    code, _, out, err = run(f"{WORDS} --dry_run --json", output=None)
    found = json.loads(out)
    assert code == 0 and found["dropped"] == [3, 4, 5] and [c["dropped"] for c in found["cuts"]] == [
        [], [5], [4, 5], [3, 4, 5],
    ]  # fmt: skip


def test_in_the_middle_of_an_epoch_too(run, tmp_path):
    more = "--save_strategy steps --save_steps 4 --save_total_limit 9"
    assert run(f"{WORDS} {more}", output="whole")[0] == 0
    for step in (4, 8, 20):  # one layer, two layers gone by then, and none
        resume = f"--resume_from_checkpoint {tmp_path}/whole/checkpoint-{step}"
        assert run(f"{WORDS} {more} {resume}", output=f"from{step}")[0] == 0
        assert same(weights("whole"), weights(f"from{step}"))


def test_one_schedule_over_the_whole_run(run):
    code, record, _, _ = run(f"{WORDS} --drop_every_epochs 1 --drop_step 2 --logging_strategy epoch")
    assert code == 0 and [cut["step"] for cut in record["cuts"]] == [0, 3, 6] and record["steps"] == 9
    assert record["cuts"][1]["dropped"] == [4, 5] and record["cuts"][2]["dropped"] == [3, 4, 5]
    states = list(Path("out").glob("checkpoint-*"))
    assert states == [] and record["spec"]["when"]["every_epochs"] == 1


def test_greedy_goes_in_its_order(run):
    Path("order.txt").write_text("2\n5\n0\n")
    words = "--task_name rte --drop_strategy greedy --drop_k 2 --drop_order_file order.txt --num_train_epochs 1"
    code, record, _, err = run(f"{words} --drop_when gradual --drop_every_epochs 1")
    assert code == 0, err
    assert [cut["dropped"] for cut in record["cuts"]] == [[], [2], [2, 5]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--drop_k 0", "needs layers to drop"),
        ("--drop_strategy contribution --drop_threshold 0.9", "Use --drop_k instead of --drop_threshold"),
        ("--drop_strategy top --drop_k 1 --max_steps 3", "Use --num_train_epochs instead of --max_steps"),
        ("--drop_strategy top --drop_k 1 --drop_step 0", "--drop_step 0: must be 1 or more"),
        ("--drop_strategy top --drop_k 1 --load_best_model_at_end", "Leave --load_best_model_at_end out"),
        ("--drop_strategy top --drop_k 1 --do_eval", "Add --do_train"),
    ],
)
def test_what_cannot_be(run, words, said):
    code, _, _, err = run(f"--task_name rte --drop_when gradual {words}")
    assert code == 2 and said in err and len(err.splitlines()) == 1, err
