"""The snippets of docs/api.md, and what they promise, with the library's own Trainer."""

import ast
import copy
import re

import pytest
import torch
from transformers import Trainer, TrainingArguments

import layerdrop
from layerdrop.finetune.theseus import freeze_outside_layers
from layerdrop.surgery import layer_list
from tests import tiny
from tests.running import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
VALUES = re.findall(r"^(\S.*?)  # ([\[('\d].*)$", PAGE, flags=re.MULTILINE)
"""Lines with their value as the comment."""


def rows(n: int = 12) -> list[dict]:
    batch = tiny.batch(n)
    return [{name: tensor[i] for name, tensor in batch.items()} | {"labels": torch.tensor(i % 2)} for i in range(n)]


def names(folder, **changes) -> dict:
    """The names that snippets use."""
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "use_cpu": True}
    args = TrainingArguments(
        str(folder), num_train_epochs=4, per_device_train_batch_size=4, learning_rate=1e-2, **quiet | changes
    )
    model = tiny.model("bert")
    return {
        "layerdrop": layerdrop,
        "Trainer": Trainer,
        "model": model,
        "teacher": tiny.model("bert", 1),
        "predecessor": tiny.model("bert"),
        "args": args,
        "data": rows(),
    }


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet(number, bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    its = names(tmp_path)
    layerdrop.drop_layers(its["model"], [3, 4, 5] if "Theseus" in SNIPPETS[number] else [])
    before = copy.deepcopy(its["model"].state_dict())
    exec(snippet := SNIPPETS[number].replace("FOLDER", bert), its)
    if "run_glue" in snippet:
        assert its["record"].status == its["same"].status == "success"
    for expression, value in VALUES:
        if expression in snippet and " = " not in expression:
            assert eval(expression, its) == ast.literal_eval(value), expression
    if "Trainer(" in SNIPPETS[number]:
        after = its["model"].state_dict()
        assert any(not torch.equal(before[name], after[name]) for name in after)
    assert its["model"].config.num_hidden_layers == len(layer_list(its["model"]))


def test_every_public_name_has_its_place():
    """In a snippet or in the table of names, and the callables in a snippet."""
    code = "\n".join(SNIPPETS)
    assert len(VALUES) >= 6
    for name in layerdrop.__all__:
        assert re.search(rf"\b{name}\b", code), name
    for name in re.findall(r"^\| (.*?) \| ", PAGE, flags=re.MULTILINE):
        for word in re.findall(r"`(?:run_glue\.)?(\w+)`", name):
            assert word == "run" or word in layerdrop.__all__, word


def test_gradual_drop_leaves_the_scheduled_layers(tmp_path):
    its = names(tmp_path)
    callback = layerdrop.GradualDrop(its["model"], layerdrop.DropSchedule((5, 4), 1, 1))
    Trainer(its["model"], its["args"], train_dataset=its["data"], callbacks=[callback]).train()
    assert its["model"].config.layer_dropping == {"n_layers": 6, "kept": [0, 1, 2, 3]}


def test_module_replacing_with_the_models_own_loss_and_nothing_to_train_in_a_step(tmp_path):
    """As the paper does: embeddings and head are frozen. A step may replace no module."""
    its = names(tmp_path)
    model = layerdrop.drop_layers(its["model"], [3, 4, 5])
    before = copy.deepcopy(model.state_dict())
    freeze_outside_layers(model)
    callback = layerdrop.TheseusLoss(model, its["predecessor"], rate=0.0, steps=0.99, schedule="constant")
    Trainer(model, its["args"], train_dataset=its["data"], callbacks=[callback]).train()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert not moved or all(".layer." in name for name in moved)  # the last step is the successor's


@pytest.mark.parametrize("variant", ["layer_drop", "theseus"])
def test_after_a_step_that_was_broken_off_the_next_training_begins_in_full_depth(tmp_path, variant):
    its = names(tmp_path)
    model, depths = its["model"], []
    callback = layerdrop.LayerDropLoss(model, rate=0.5, seed=91)  # step 0 skips the layers 0 and 3
    if variant == "theseus":
        callback = layerdrop.TheseusLoss(layerdrop.drop_layers(model, [3, 4, 5]), its["predecessor"], rate=0.0)
    depth = model.config.num_hidden_layers

    def stop(*args, **kwargs):
        depths.append(model.config.num_hidden_layers)
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            trainer = Trainer(model, its["args"], train_dataset=its["data"], callbacks=[callback])
            trainer.compute_loss = stop
            trainer.train()
    assert depths == ([4, 4] if variant == "layer_drop" else [6, 6])
    callback.restore()
    assert model.config.num_hidden_layers == depth == len(layer_list(model))


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


LOSSES = {
    "logits": lambda model, teacher: layerdrop.DistillationLoss(model, teacher),
    "layers": lambda model, teacher: layerdrop.DistillationLoss(
        model, teacher, "layers", pairs=[(0, 1)], distill_states_weight=2.0
    ),
    "elastic": lambda model, teacher: layerdrop.ElasticDepthLoss(model, [2], begin=0, end=0),
}


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_evaluation_is_of_the_task_loss_also_after_remove(tmp_path, name, removed):
    """Right after a training: the inputs and states of its last batch play no part."""
    its = names(tmp_path)
    model = its["model"]
    loss = LOSSES[name](model, tiny.model("bert", 1))
    trainer = Trainer(model, its["args"], train_dataset=its["data"], eval_dataset=its["data"], compute_loss_func=loss)
    trainer.train()
    if removed:
        loss.remove()
    plain = Trainer(model, its["args"], eval_dataset=its["data"]).evaluate()["eval_loss"]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain, rel=1e-6)
    if removed:
        with pytest.raises(layerdrop.UserError, match="its model has not computed this batch. Create a new loss"):
            trainer.train()


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_of_the_model_that_is_trained(tmp_path, name):
    """A model of another object, which the Trainer does not train, would be a training with the task loss alone."""
    its = names(tmp_path)
    loss = LOSSES[name](copy.deepcopy(its["model"]), tiny.model("bert", 1))
    trainer = Trainer(its["model"], its["args"], train_dataset=its["data"], compute_loss_func=loss)
    with pytest.raises(layerdrop.UserError, match="its model has not computed this batch"):
        trainer.train()


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_a_loop_of_one_s_own(name):
    """In evaluation mode, which turns dropout off, a pass with gradients has the loss of a training."""
    model, batch, labels = tiny.model("bert"), tiny.batch(4), torch.tensor([0, 1, 1, 0])
    loss = LOSSES[name](model, tiny.model("bert", 1))
    layers = layer_list(model)
    with torch.no_grad():
        task = loss(model(**batch), labels)
    assert loss.batch.stored is None and not any(layer._forward_hooks for layer in layers)
    outputs = model(**batch)
    first = loss(outputs, labels)
    assert first.item() != pytest.approx(task.item(), rel=1e-3)
    assert torch.equal(loss(outputs, labels), first)  # a second call on the same pass
    assert torch.equal(loss(model(**batch, labels=labels), labels), first)  # the teacher takes no labels
    for _ in range(2):
        model(**batch)  # a step that an error has ended before its loss
    assert all(len(layer._forward_hooks) <= 1 for layer in layers)
    with torch.no_grad():
        model(**batch)
    with pytest.raises(layerdrop.UserError, match="its model has not computed this batch"):
        loss(outputs, labels)
    model(**batch)
    loss.remove()
    assert not any(layer._forward_hooks for layer in layers) and loss.batch.stored is None


@pytest.mark.parametrize("accumulated", [1, 2])
def test_distillation_from_itself_with_all_weight_on_the_logits_changes_nothing(tmp_path, accumulated):
    """The divergence of equal logits is 0, and so is its gradient. Evaluation mode: dropout would make them differ."""
    its = names(tmp_path, optim="sgd", gradient_accumulation_steps=accumulated)
    model = its["model"]
    without_dropout(model)
    before = copy.deepcopy(model.state_dict())
    loss = layerdrop.DistillationLoss(model, copy.deepcopy(model), distill_weight=1.0)
    Trainer(model, its["args"], train_dataset=its["data"], compute_loss_func=loss).train()
    assert all(torch.allclose(before[name], value, atol=1e-6) for name, value in model.state_dict().items())


def test_distillation_without_a_mask_is_with_a_mask_of_ones():
    """And its hooks are gone after `remove`."""
    model, teacher = without_dropout(tiny.model("bert")).train(), tiny.model("bert", seed=1)
    loss = layerdrop.DistillationLoss(model, teacher, "patient", pairs=[(0, 1)], distill_states_weight=2.0)
    ids = tiny.batch(4)["input_ids"]
    labels = torch.tensor([0, 1, 1, 0])
    a, b = (loss(model(input_ids=ids, **more), labels) for more in ({}, {"attention_mask": torch.ones_like(ids)}))
    assert torch.equal(a, b)
    loss.remove()
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("distill", ["logits", "patient", "layers"])
def test_distillation_is_the_recipes(tmp_path, distill):
    """The same loss as with a teacher's stored outputs."""
    from layerdrop.finetune.distillation import Distillation
    from layerdrop.finetune.spec import DistilSpec
    from layerdrop.states import layer_states
    from tests.training import CLASSES

    student, teacher, batch = without_dropout(tiny.model("bert")).train(), tiny.model("bert", 1), tiny.batch(4)
    labels, weight = torch.tensor([0, 1, 1, 0]), None if distill == "logits" else 2.0
    pairs = [] if distill == "logits" else [(0, 1), (2, 3)]
    spec = DistilSpec(distill, None, 3.0, 0.25, weight)
    stored = batch | {"labels": labels, "teacher_logits": teacher(**batch).logits.detach()}
    if pairs:
        states = torch.stack([layer_states(teacher, batch).outputs[i].clone() for _, i in pairs], dim=1)
        stored["teacher_states"] = states[:, :, 0] if distill == "patient" else states
    expected = Distillation(CLASSES, student, spec, [i for i, _ in pairs])(student, stored)
    loss = layerdrop.DistillationLoss(
        student,
        teacher,
        distill,
        pairs=pairs,
        distill_temperature=3.0,
        distill_weight=0.25,
        distill_states_weight=weight,
    )
    assert loss(student(**batch), labels).item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss(student(**batch), labels, torch.tensor(8)).item() == pytest.approx(expected.item() / 2, rel=1e-5)
