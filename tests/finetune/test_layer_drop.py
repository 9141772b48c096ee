"""Layers left out at random while training."""

import copy

import numpy as np
import pytest
import torch

from layerdrop.finetune.layer_drop import LayerDropLoss
from layerdrop.finetune.speedups.first_token import first_token_only
from layerdrop.surgery import drop_layers, layer_list
from tests import tiny
from tests.running import same, weights
from tests.training import CLASSES, loss_at


def objective(model, rate=0.5, seed=3):
    return LayerDropLoss(model, rate, seed)


def batch(model_type="bert"):
    return tiny.batch(left=model_type == "xlnet") | {"labels": torch.tensor([0, 1, 1, 0])}


def test_draws():
    drop = objective(tiny.model("bert"), rate=0.25)
    draws = [drop.draw(step) for step in range(2000)]
    assert np.mean([len(dropped) for dropped in draws]) == pytest.approx(6 * 0.25, abs=0.1)
    counts = np.bincount(np.concatenate(draws).astype(int), minlength=6)
    assert (abs(counts - 500) < 80).all()  # four standard deviations
    assert draws[:9] == [drop.draw(step) for step in range(9)]  # the step and the seed alone
    known = objective(tiny.model("bert"))  # the draws of every version
    assert [known.draw(step) for step in range(3)] == [[0, 1, 4, 5], [0, 1, 2, 3], [0, 3, 4, 5]]
    other, often = objective(tiny.model("bert"), 0.25, seed=4), objective(tiny.model("bert"), rate=0.95)
    assert draws[:9] != [other.draw(step) for step in range(9)]
    assert max(len(often.draw(step)) for step in range(300)) == 5  # one stays
    modern = objective(tiny.model("modernbert"))
    assert all(0 not in modern.draw(step) for step in range(100))


@pytest.mark.parametrize("model_type", ["bert", "xlnet", "modernbert", "albert", "deberta-v2"])
def test_the_loss_is_that_of_the_model_without_these_layers(model_type):
    model = tiny.model(model_type)
    drop = objective(model)
    at = next(step for step in range(99) if 0 < len(drop.draw(step)) < 5)
    dropped = drop.draw(at)
    reduced = drop_layers(copy.deepcopy(model), dropped)
    loss, expected = loss_at(drop, at, model, batch(model_type)), CLASSES(reduced, batch(model_type))
    assert torch.equal(loss, expected) and model.config.num_hidden_layers == 6
    loss.backward()
    if model_type != "albert":
        left_out = [all(p.grad is None for p in layer.parameters()) for layer in layer_list(model)]
        assert [i for i, out in enumerate(left_out) if out] == dropped


def test_a_whole_run(run, tmp_path):
    """Evaluated in full depth; bit-equal where it is resumed; other weights than without."""
    words = "--task_name rte --num_train_epochs 2 --layerdrop_rate 0.5"
    code, record, _, err = run(words, output="once")
    assert code == 0 and record["kept"] == list(range(6)) and record["spec"]["train"]["layerdrop_rate"] == 0.5
    assert run(f"{words} --max_steps 6 --save_strategy epoch --save_total_limit 5", output="all")[0] == 0
    more = f"--max_steps 6 --resume_from_checkpoint {tmp_path}/all/checkpoint-3"
    assert run(f"{words} {more}", output="resumed")[0] == 0
    assert same(weights("all"), weights("resumed")) and same(weights("all"), weights("once"))
    assert run(words.replace("0.5", "0"), output="without")[0] == 0
    assert not same(weights("once"), weights("without"))
    assert "layerdrop_rate" not in str({k: v for k, v in record["spec"].items() if k != "train"})


def test_rate_0_changes_no_bit(run):
    words = "--task_name rte --drop_strategy top --drop_k 3 --max_steps 3"
    plain, zero = run(words, output="plain")[1], run(f"{words} --layerdrop_rate 0", output="zero")[1]
    assert same(weights("plain"), weights("zero")) and zero["id"] == plain["id"]
    drop = objective(model := tiny.model("bert"), rate=0)
    assert drop.draw(0) == [] and torch.equal(loss_at(drop, 0, model, batch()), CLASSES(model, batch()))


def test_each_step_draws_anew(run, monkeypatch):
    """Once for all batches that it accumulates."""
    steps = []
    monkeypatch.setattr(LayerDropLoss, "draw", lambda self, step: steps.append(step) or [])
    assert run("--task_name rte --max_steps 3 --gradient_accumulation_steps 2 --layerdrop_rate 0.5")[0] == 0
    assert steps == [0, 1, 2]


def test_a_rate_out_of_range(run):
    code, _, _, err = run("--task_name rte --layerdrop_rate 1")
    said = "error: --layerdrop_rate 1.0: must be 0 or more and below 1. Give a probability, such as 0.2.\n"
    assert code == 2 and err == said


def test_the_short_last_layer_agrees_whatever_is_left_out():
    """The speed-up shortens the model's last layer; where that is left out, another one is the last."""
    model = tiny.model("bert")
    drop = objective(model)
    steps = [step for step in range(40) if len(drop.draw(step)) < 5]
    assert len({5 in drop.draw(step) for step in steps}) == 2
    for step in steps:
        whole = loss_at(drop, step, model, batch())
        with first_token_only(model):
            assert loss_at(drop, step, model, batch()).item() == pytest.approx(whole.item(), abs=1e-6), drop.draw(step)
