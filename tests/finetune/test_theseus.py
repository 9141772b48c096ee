"""Module replacing."""

import copy

import numpy as np
import pytest
import torch

from layerdrop.finetune.theseus import TheseusLoss, freeze_outside_layers, modules
from layerdrop.surgery import drop_layers, layer_list, with_layers
from tests import tiny
from tests.finetune.test_finetune import COLLATE, arguments, dataset
from tests.running import same, weights
from tests.training import CLASSES, loss_at, train

TYPES = ["bert", "xlnet", "distilbert", "modernbert", "longformer", "deberta-v2"]
WORDS = "--task_name rte --num_train_epochs 2 --learning_rate 1e-3 --drop_strategy top --drop_k 3 --theseus"


def pair(model_type="bert"):
    """A predecessor of 6 layers, and a successor of its first three that has moved away from it."""
    predecessor = tiny.model(model_type)
    successor = drop_layers(copy.deepcopy(predecessor), [3, 4, 5])
    with torch.no_grad():
        for parameter in layer_list(successor).parameters():
            parameter.add_(0.1)
    return predecessor, successor


def batch(model_type):
    return tiny.batch(left=model_type == "xlnet") | {"labels": torch.tensor([0, 1, 1, 0])}


def objective(predecessor, successor, rate=0.5, steps=100.0, schedule="constant"):
    theseus = TheseusLoss(successor, predecessor, rate, steps, schedule, seed=3)
    theseus.until = steps
    predecessor.eval()
    return theseus


def test_modules_are_runs_of_layers():
    assert modules(12, 6) == [range(i, i + 2) for i in range(0, 12, 2)]
    assert modules(12, 5) == [range(0, 3), range(3, 6), range(6, 8), range(8, 10), range(10, 12)]
    assert modules(6, 6) == [range(i, i + 1) for i in range(6)]


@pytest.mark.parametrize("model_type", TYPES)
def test_at_rate_1_it_is_the_successors_loss_and_at_rate_0_the_predecessors(model_type):
    predecessor, successor = pair(model_type)
    one, zero = (objective(predecessor, successor, rate=rate) for rate in (1.0, 0.0))
    of_predecessor, of_successor = (CLASSES(model, batch(model_type)) for model in (predecessor, successor))
    assert torch.equal(loss_at(one, 0, successor, batch(model_type)), of_successor) and of_predecessor != of_successor
    assert torch.equal(loss_at(zero, 0, successor, batch(model_type)), of_predecessor)
    assert successor.config.num_hidden_layers == 3 and len(layer_list(successor)) == 3


@pytest.mark.parametrize("model_type", TYPES)
def test_in_between_it_is_the_loss_of_the_mixed_model(model_type):
    predecessor, successor = pair(model_type)
    theseus = objective(predecessor, successor)
    at = next(step for step in range(99) if theseus.draw(step) == [False, True, False])
    mixed = copy.deepcopy(predecessor)  # layer 1 of the successor in place of layers 2 and 3
    layers = layer_list(mixed)
    layers[2] = copy.deepcopy(layer_list(successor)[1])
    if "layer_types" in mixed.config.to_dict():
        mixed.config.layer_types[2] = successor.config.layer_types[1]
    if "attention_window" in mixed.config.to_dict():
        mixed.config.attention_window[2] = successor.config.attention_window[1]
    expected = CLASSES(drop_layers(mixed, [3]), batch(model_type))
    loss = loss_at(theseus, at, successor, batch(model_type))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    loss.backward()
    moved = [any(p.grad is not None for p in layer.parameters()) for layer in layer_list(successor)]
    assert moved == [False, True, False]


def test_rate_and_draws():
    linear = objective(*pair(), rate=0.4, steps=10, schedule="linear")
    assert [linear.rate(step) for step in (0, 5, 10, 99)] == pytest.approx([0.4, 0.7, 1.0, 1.0])
    constant = objective(*pair(), rate=0.4, steps=10)
    assert [constant.rate(step) for step in (0, 9, 10)] == [0.4, 0.4, 1.0]
    long = objective(*pair(), rate=0.3, steps=10**6)
    draws = [long.draw(step) for step in range(2000)]
    assert np.mean(draws, axis=0) == pytest.approx([0.3] * 3, abs=0.04)
    assert draws[:9] == [long.draw(step) for step in range(9)]
    assert objective(*pair(), rate=0.0).draw(100) == [True] * 3


def test_what_is_frozen_does_not_move(tmp_path):
    predecessor, successor = pair()
    before = [copy.deepcopy(model.state_dict()) for model in (predecessor, successor)]
    freeze_outside_layers(successor)
    theseus = TheseusLoss(successor, predecessor, 0.5, 0.5, "linear", seed=3)
    train(successor, arguments(tmp_path, num_train_epochs=2), dataset(), COLLATE, theseus, save=False)
    assert theseus.until == 3 and not predecessor.base_model.encoder.layer[0].output.dense.weight.requires_grad
    assert same(predecessor.state_dict(), before[0])
    after = successor.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[1][name])}
    still = {name for name in after if name.endswith("key.bias")}  # softmax takes no notice of it
    assert moved | still == {name for name in after if ".encoder.layer." in name}


def test_a_step_that_replaces_nothing_stops_nobody(tmp_path):
    predecessor, successor = pair()
    before = copy.deepcopy(successor.state_dict())
    freeze_outside_layers(successor)
    theseus = TheseusLoss(successor, predecessor, 0.0, 0.99, "constant", seed=3)
    train(successor, arguments(tmp_path), dataset(), COLLATE, theseus, save=False)
    assert same(successor.state_dict(), before)


def test_a_rate_that_never_reaches_1_is_refused(run):
    code, _, _, err = run(f"{WORDS} --drop_when finetuned --replacing_steps 6")
    assert (
        code == 2 and "--replacing_steps 6: the training has 6 steps, so the model of the kept layers would" in err
    ), err
    assert run(f"{WORDS} --drop_when finetuned --replacing_steps 5", output="five")[0] == 0


def test_the_predecessor_has_its_dropout():
    theseus = objective(*pair())
    state = type("State", (), {"max_steps": 101})
    theseus.on_train_begin(None, state, None)
    assert theseus.predecessor.training and all(layer.training for layer in layer_list(theseus.predecessor))


def test_with_layers_is_undone():
    predecessor, successor = pair("modernbert")
    types, layers = list(successor.config.layer_types), list(layer_list(successor))
    with pytest.raises(KeyError), with_layers(successor, [(predecessor, i) for i in range(6)]):
        assert successor.config.num_hidden_layers == 6 and len(successor.config.layer_types) == 6
        raise KeyError
    assert list(layer_list(successor)) == layers and successor.config.layer_types == types
    assert successor.config.num_hidden_layers == 3


# ---- whole runs ------------------------------------------------------------------------------------------------------
def test_a_whole_run(run, tmp_path):
    words = f"{WORDS} --drop_when finetuned --save_strategy epoch --save_total_limit 5"
    code, record, _, err = run(words, output="whole")
    assert code == 0 and record["prerequisites"]["trainings"] == 1 and record["kept"] == [0, 1, 2], err
    first, own = weights(next((tmp_path / "whole" / "prior").glob("*/model.safetensors")).parent), weights("whole")
    assert all(torch.equal(own[name], first[name]) for name in own if ".encoder.layer." not in name)
    again = f"{words} --resume_from_checkpoint {tmp_path}/whole/checkpoint-3"
    assert run(again, output="again")[0] == 0 and same(weights("again"), own)
    plain = f"{words} --replacing_rate 1 --overwrite_output_dir"  # fine-tuning of the layers alone
    assert run(plain, output="whole")[0] == 0
    code, _, _, err = run(f"{words} --replacing_steps 0", output="never")
    assert code == 0 and same(weights("whole"), weights("never")), err


def test_a_fine_tuned_checkpoint_is_its_own_predecessor(run):
    code, record, _, err = run(f"{WORDS} --drop_when finetuned", output="a")
    assert code == 0, err
    plain = "--task_name rte --num_train_epochs 2 --learning_rate 1e-3"
    assert run(plain, output="full")[0] == 0
    code, other, _, err = run(WORDS, model="full", output="b")
    assert code == 0 and same(weights("a"), weights("b")) and other["metrics"] == record["metrics"], err


def test_what_cannot_be(run, tmp_path):
    code, _, _, err = run(WORDS)
    assert code == 0, err  # the tiny checkpoint has a head of its own
    albert = tiny.save(tmp_path / "albert", "albert")
    code, _, _, err = run(WORDS, model=albert, output="shared")
    assert code == 2 and "ALBERT shares one layer, so modules cannot be replaced. Leave it out." in err, err
    encoder = tiny.save(tmp_path / "other", num_labels=3)
    code, _, _, err = run(WORDS, model=encoder, output="new")
    assert code == 2 and "other is missing or has another size (classifier" in err, err
    assert "Add --drop_when finetuned, or give a model that is fine-tuned on this task" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--layerdrop_rate 0.1", "--theseus and --layerdrop_rate contradict each other"),
        ("--freeze_layers 0", "--theseus and --freeze_layers contradict each other"),
        ("--drop_when gradual", "not gradual"),
        ("--replacing_rate 1.5", "--replacing_rate 1.5: must be from 0 to 1"),
        ("--replacing_steps -1", "--replacing_steps -1.0: must be 0 or more"),
    ],
)
def test_flags_that_do_not_fit(run, words, said):
    code, _, _, err = run(f"{WORDS} {words}")
    assert code == 2 and said in err and len(err.splitlines()) == 1, err


def test_flags_of_theseus_need_it(run):
    code, _, _, err = run("--task_name rte --replacing_rate 0.5")
    assert code == 2 and "--replacing_rate: only with --theseus" in err
