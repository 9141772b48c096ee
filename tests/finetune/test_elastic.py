"""Elastic depth: losses, gradients and weights by hand."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer, TrainingArguments

import layerdrop
from layerdrop.errors import UserError
from layerdrop.finetune.elastic import ElasticDepth, ElasticDepthLoss
from layerdrop.finetune.objectives import TaskLoss
from layerdrop.finetune.speedups.first_token import first_token_only
from layerdrop.surgery import drop_layers
from tests import tiny
from tests.small.test_surgery import MODEL_TYPES
from tests.training import CLASSES, VALUES


def batch(model_type="bert"):
    return tiny.batch(left=model_type == "xlnet") | {"labels": torch.tensor([0, 1, 1, 0])}


def inputs_of(rows):
    return {name: tensor for name, tensor in rows.items() if name != "labels"}


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def at(progress):
    """A step of a training of 100 steps."""
    return SimpleNamespace(global_step=round(100 * progress), max_steps=100)


def test_the_full_model_alone_has_the_bits_of_a_plain_training():
    """Before `begin`, every other weight is 0."""
    model, rows = tiny.model("bert"), batch()
    plain = copy.deepcopy(model)
    elastic = ElasticDepth(CLASSES, model, [2, 4])
    elastic.on_step_begin(None, at(0.0), None)
    found, expected = elastic(model, rows), CLASSES(plain, rows)
    assert torch.equal(found, expected)
    found.backward()
    expected.backward()
    expected = gradients(plain)
    assert gradients(model).keys() == expected.keys()
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients(model).items())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_loss_is_the_mean_of_the_cut_models_losses(model_type):
    changes = {"attention_window": [8] * tiny.N_LAYERS} if model_type == "longformer" else {}
    model, rows = tiny.model(model_type, **changes), batch(model_type)
    loss = ElasticDepth(CLASSES, model, [2, 4], distill_weight=0.25)(model, rows)
    teacher = model(**inputs_of(rows)).logits.detach()
    expected = CLASSES(model, rows)
    for depth in (2, 4):
        cut = drop_layers(copy.deepcopy(model), range(depth, tiny.N_LAYERS))
        logits = cut(**inputs_of(rows)).logits
        expected = expected + 0.75 * CLASSES.of(logits, rows["labels"])
        expected = expected + 0.25 * CLASSES.kind.distillation_loss(logits, teacher, 1.0)
    assert loss.item() == pytest.approx(expected.item() / 3, rel=1e-6)
    loss.backward()
    assert model.config.num_hidden_layers == tiny.N_LAYERS


def test_class_weights_are_in_the_loss_of_every_depth():
    model, rows, weights = tiny.model("bert"), batch(), torch.tensor([0.5, 4.0])
    loss = ElasticDepth(TaskLoss(CLASSES.kind, class_weights=weights), model, [2], distill_weight=0.0)(model, rows)
    cut = drop_layers(copy.deepcopy(model), range(2, tiny.N_LAYERS))
    logits = [each(**inputs_of(rows)).logits for each in (model, cut)]
    expected = sum(torch.nn.functional.cross_entropy(each, rows["labels"], weights) for each in logits) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_one_depth_alone_has_the_gradients_of_the_cut_model():
    model, rows = tiny.model("bert"), batch()
    cut = drop_layers(copy.deepcopy(model), [3, 4, 5])
    elastic = ElasticDepth(CLASSES, model, [3], distill_weight=0.0)
    elastic.weights = torch.tensor([0.0, 1.0])
    elastic(model, rows).backward()
    CLASSES(cut, rows).backward()
    found, expected = gradients(model), gradients(cut)
    assert all(torch.allclose(found[name], expected[name], atol=1e-7) for name in expected)
    assert all(not found[name].any() for name in found.keys() - expected.keys())


def test_the_teacher_gets_no_gradient_of_the_distillation():
    model, rows = tiny.model("bert"), batch()
    elastic = ElasticDepth(CLASSES, model, [3], distill_weight=1.0)
    elastic.weights = torch.tensor([0.0, 1.0])
    elastic(model, rows).backward()
    assert not any(parameter.grad.any() for parameter in model.bert.encoder.layer[3:].parameters())


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("context", [nullcontext, first_token_only])
def test_activation_checkpointing_keeps_the_gradients(context, reentrant):
    """Also with the last layer at the first token only: the backward pass computes the full model's layers again."""

    def found(checkpointed):
        model = tiny.model("bert").train()
        model.apply(lambda module: setattr(module, "p", 0.0) if isinstance(module, torch.nn.Dropout) else None)
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        with context(model):
            ElasticDepth(CLASSES, model, [2, 4])(model, batch()).backward()
        return gradients(model)

    plain, checkpointed = found(False), found(True)
    assert plain.keys() == checkpointed.keys()
    assert all(torch.allclose(gradient, checkpointed[name], atol=1e-6) for name, gradient in plain.items())


def test_shallower_models_join_one_by_one_deepest_first():
    model = tiny.model("bert")
    elastic = ElasticDepth(CLASSES, model, [2, 3, 4], begin=0.3, end=0.7)
    assert elastic.depths == [4, 3, 2]
    expected = {0.0: [0, 0, 0], 0.29: [0, 0, 0], 0.3: [1, 0, 0], 0.5: [1, 1, 0], 0.69: [1, 1, 0], 0.7: [1, 1, 1]}
    tensor = elastic.weights
    for progress, joined in expected.items():
        elastic.on_step_begin(None, at(progress), None)
        assert elastic.weights.tolist() == [1, *joined]
    assert elastic.weights is tensor, "a CUDA graph reads this tensor"
    assert ElasticDepth(CLASSES, model, [2], begin=0.3, end=0.7).joined(0.3) == [True]


def test_values():
    model = tiny.model("bert", num_labels=1, problem_type="regression")
    rows = batch() | {"labels": torch.tensor([0.0, 1.5, 2.0, 5.0])}
    loss = ElasticDepth(VALUES, model, [2])(model, rows)
    cut = drop_layers(copy.deepcopy(model), range(2, tiny.N_LAYERS))
    full, shallow = (m(**inputs_of(rows)).logits.squeeze() for m in (model, cut))
    errors = [(full - rows["labels"]), (shallow - rows["labels"]), (shallow - full)]
    by_hand = [(error**2).mean().item() for error in errors]
    assert loss.item() == pytest.approx((by_hand[0] + 0.5 * by_hand[1] + 0.5 * by_hand[2]) / 2, rel=1e-5)


# ---- any Trainer -----------------------------------------------------------------------------------------------------
AT_ONCE = {"begin": 0.0, "end": 0.0}
"""All models are trained from the first step, without a callback."""


def rows_of(n=16):
    generator = torch.Generator().manual_seed(0)
    return [
        {"input_ids": torch.randint(5, 30, (6,), generator=generator), "attention_mask": torch.ones(6, dtype=int)}
        | {"labels": i % 2}
        for i in range(n)
    ]


def trained(tmp_path, loss_of, **changes):
    """A model after two epochs, and its loss object."""
    torch.manual_seed(0)
    model = tiny.model("bert")
    loss = loss_of(model)
    args = TrainingArguments(
        tmp_path, num_train_epochs=2, per_device_train_batch_size=4, use_cpu=True, report_to="none", **changes
    )
    functions = {"compute_loss_func": loss, "callbacks": [loss]} if loss else {}
    trainer = Trainer(model, args, train_dataset=rows_of(), eval_dataset=rows_of(4), **functions)
    trainer.train()
    return model, loss, trainer


def test_the_public_loss_trains_every_depth(tmp_path):
    model, loss, trainer = trained(tmp_path, lambda model: layerdrop.ElasticDepthLoss(model, [2, 4], begin=0.2))
    assert loss.weights.tolist() == [1, 1, 1] and model.config.num_hidden_layers == 6 and not loss.scheduled
    plain, _, other = trained(tmp_path, lambda model: None)
    assert not torch.equal(model.classifier.weight, plain.classifier.weight)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(CLASSES(model, trainer.data_collator(rows_of(4))).item())
    loss.remove()
    assert not model._forward_pre_hooks and not any(layer._forward_hooks for layer in model.bert.encoder.layer)


def test_the_public_loss_equals_the_objective():
    model, rows = tiny.model("bert"), batch()
    expected = ElasticDepth(CLASSES, model, [2, 4])(model, rows)
    loss = ElasticDepthLoss(model.train(), [2, 4], **AT_ONCE)
    model.apply(lambda module: setattr(module, "p", 0.0) if isinstance(module, torch.nn.Dropout) else None)
    found = loss(model(**inputs_of(rows)), rows["labels"])
    loss.remove()
    model.eval()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_defaults_are_those_of_the_docs():
    model = tiny.model("bert")
    public = ElasticDepthLoss(model, [1, 3])
    for loss in (ElasticDepth(CLASSES, model, [5, 3]), public):
        assert (loss.depths, loss.distill_weight, loss.begin, loss.end) == ([5, 3], 0.5, 0.25, 0.5)
    public.remove()


def test_the_public_loss_leaves_no_recording_behind():
    """The passes of the head are not recorded, which would keep their activations."""
    model, rows = tiny.model("bert").train(), batch()
    loss = ElasticDepthLoss(model, [2, 4], **AT_ONCE)
    loss(model(**inputs_of(rows)), rows["labels"])
    assert not any(layer._forward_hooks for layer in model.bert.encoder.layer) and not loss.batch.in_use
    loss.remove()


def test_the_public_loss_needs_its_callback():
    """Without it, the shallower models would not join one by one."""
    model, rows = tiny.model("bert").train(), batch()
    loss = ElasticDepthLoss(model, [2])
    with pytest.raises(UserError, match=r"begin 0.25 and end 0.5 need a callback. Add callbacks=\[loss\]"):
        loss(model(**inputs_of(rows)), rows["labels"])
    with torch.no_grad():
        loss(model.eval()(**inputs_of(rows)), rows["labels"])  # evaluation needs no schedule
    loss.on_step_begin(None, SimpleNamespace(global_step=0, max_steps=8), None)
    assert loss.weights.tolist() == [1, 0]
    loss(model.train()(**inputs_of(rows)), rows["labels"])
    loss.remove()
    at_once = ElasticDepthLoss(model, [2], begin=0.0)  # a single shallower model joins at the first step
    at_once(model(**inputs_of(rows)), rows["labels"])
    at_once.remove()


def test_accumulated_batches_have_the_gradients_of_one_batch():
    model, rows = tiny.model("bert"), batch()
    loss = ElasticDepthLoss(model, [2], **AT_ONCE)
    model.train()
    model.apply(lambda module: setattr(module, "p", 0.0) if isinstance(module, torch.nn.Dropout) else None)
    loss(model(**inputs_of(rows)), rows["labels"]).backward()
    whole = {name: gradient.clone() for name, gradient in gradients(model).items()}
    model.zero_grad()
    for part in (slice(0, 1), slice(1, 4)):
        some = {name: tensor[part] for name, tensor in rows.items()}
        loss(model(**inputs_of(some)), some["labels"], torch.tensor(4)).backward()
    assert all(torch.allclose(gradient, whole[name], atol=1e-6) for name, gradient in gradients(model).items())


def test_accumulated_batches_of_several_labels_a_row():
    """The Trainer counts labels: with several labels a row, more than rows."""
    model, rows = tiny.model("bert", num_labels=3, problem_type="multi_label_classification"), batch()
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 1, 0], [1, 1, 0]])
    loss = ElasticDepthLoss(model.train(), [2], **AT_ONCE)
    model.apply(lambda module: setattr(module, "p", 0.0) if isinstance(module, torch.nn.Dropout) else None)
    whole = loss(model(**inputs_of(rows)), labels)
    parts = [
        loss(model(**{name: tensor[part] for name, tensor in inputs_of(rows).items()}), labels[part], torch.tensor(12))
        for part in (slice(0, 1), slice(1, 4))
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-5)
    loss.remove()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"ks": []}, "ks .. must be .* from 1 to 5"),
        ({"ks": [6]}, "ks .6. must be .* from 1 to 5"),
        ({"ks": [0, 2]}, "must be .* from 1 to 5"),
        ({"ks": [2], "distill_weight": 1.5}, "distill_weight 1.5: must be from 0 to 1"),
        ({"ks": [2], "begin": 0.7, "end": 0.5}, "begin <= end"),
        ({"ks": [2], "end": 1.0}, "begin <= end < 1"),
    ],
)
def test_values_out_of_range(words, said):
    with pytest.raises(UserError, match=said):
        ElasticDepthLoss(tiny.model("bert"), **words)
