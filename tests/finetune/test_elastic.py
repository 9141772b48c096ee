"""Elastic depth: losses and gradients by hand."""

import copy

import pytest
import torch

from layerdrop.finetune.elastic import ElasticDepth, _Exit
from layerdrop.surgery import drop_layers
from tests import tiny
from tests.small.test_surgery import MODEL_TYPES
from tests.training import CLASSES, VALUES


def batch(model_type="bert"):
    return tiny.batch(left=model_type == "xlnet") | {"labels": torch.tensor([0, 1, 1, 0])}


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_without_shallower_models_it_is_the_task_loss():
    model = tiny.model("bert")
    assert torch.equal(ElasticDepth(CLASSES, model, [])(model, batch()), CLASSES(model, batch()))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_loss_is_the_mean_of_the_cut_models_losses(model_type):
    changes = {"attention_window": [8] * tiny.N_LAYERS} if model_type == "longformer" else {}
    model, rows = tiny.model(model_type, **changes), batch(model_type)
    loss = ElasticDepth(CLASSES, model, [2, 4], distill_weight=0.25, full_weight=0.5)(model, rows)
    full = CLASSES(model, rows)
    teacher = model(**{k: v for k, v in rows.items() if k != "labels"}).logits.detach()
    expected = 0.5 * full
    for depth in (2, 4):
        cut = drop_layers(copy.deepcopy(model), range(depth, tiny.N_LAYERS))
        logits = cut(**{k: v for k, v in rows.items() if k != "labels"}).logits
        expected = expected + 0.75 * CLASSES.of(logits, rows["labels"])
        expected = expected + 0.25 * CLASSES.kind.distillation_loss(logits, teacher, 1.0)
    assert loss.item() == pytest.approx(expected.item() / 2.5, rel=1e-6)
    loss.backward()
    assert model.config.num_hidden_layers == tiny.N_LAYERS


def test_one_depth_alone_has_the_gradients_of_the_cut_model():
    """Weight 0 for the full model: nothing comes from above, so the gradient is not enlarged."""
    model, rows = tiny.model("bert"), batch()
    cut = drop_layers(copy.deepcopy(model), [3, 4, 5])
    ElasticDepth(CLASSES, model, [3], distill_weight=0.0, full_weight=0.0)(model, rows).backward()
    CLASSES(cut, rows).backward()
    found, expected = gradients(model), gradients(cut)
    assert all(torch.allclose(found[name], expected[name], atol=1e-7) for name in expected)
    assert all(not found[name].any() for name in found.keys() - expected.keys())


@pytest.mark.parametrize(("above", "factor"), [(6.0, 3.0), (2.0, 1.0), (0.5, 1.0), (0.0, 1.0)])
def test_the_heads_gradient_is_enlarged_to_the_gradient_from_above(above, factor):
    """By hand: norms 2 and `above`."""
    state = torch.zeros(4, requires_grad=True)
    upward, head = _Exit.apply(state)
    (upward * torch.tensor([above, 0, 0, 0]) + head * torch.tensor([0, 2.0, 0, 0])).sum().backward()
    assert torch.equal(state.grad, torch.tensor([above, 2.0 * factor, 0, 0]))


def test_values():
    model = tiny.model("bert", num_labels=1, problem_type="regression")
    rows = batch() | {"labels": torch.tensor([0.0, 1.5, 2.0, 5.0])}
    ElasticDepth(VALUES, model, [2])(model, rows).backward()
