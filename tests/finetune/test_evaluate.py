"""One pass over a dataset: rows in their order, labels in the task's."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertForTokenClassification, set_seed

from layerdrop.data.batches import Collator
from layerdrop.data.examples import Examples
from layerdrop.data.kinds import Values
from layerdrop.data.labels import Labels
from layerdrop.data.tasks import TASKS, custom_task
from layerdrop.data.tokens import TokenizedDataset, ragged, tokenize
from layerdrop.finetune.evaluate import evaluate
from tests import tiny
from tests.finetune.test_finetune import COLLATE, TOKENIZER, dataset


@pytest.mark.parametrize("batch_size", [1, 4, 5, 100])
def test_rows_are_in_the_order_of_the_source(batch_size):
    model, data = tiny.model("bert"), dataset()
    found = evaluate(model, data, Labels(TASKS["rte"]), COLLATE, batch_size=batch_size)
    with torch.no_grad():
        alone = torch.cat([model(**COLLATE([data[i]])).logits for i in range(len(data))]).numpy()
    np.testing.assert_allclose(found.logits, alone, atol=1e-5)
    assert found.logits.dtype == np.float32 and found.predictions.tolist() == alone.argmax(-1).tolist()
    assert found.metrics["accuracy"] == (alone.argmax(-1) == data.labels).mean()


@pytest.mark.parametrize("labels", [2, 1])
def test_the_loss_is_the_librarys_as_a_mean_over_rows(labels):
    model, data = tiny.model("bert", num_labels=labels), dataset()
    if labels == 1:
        data.labels = data.labels.astype(np.float32) * 2.5
    task = TASKS["rte" if labels == 2 else "stsb"]
    losses = [model(**COLLATE([data[i]])).loss.item() for i in range(len(data))]
    assert evaluate(model, data, Labels(task), COLLATE, batch_size=7).metrics["loss"] == pytest.approx(
        np.mean(losses), rel=1e-5
    )


def test_a_checkpoints_own_order_of_labels():
    """A 3-cycle is not its own inverse: the model's class 0 is the task's 1, its 1 the task's 2, its 2 the task's 0."""
    task = custom_task("own", ("text",), "label", ("a", "b", "c"))
    own = Labels(task, SimpleNamespace(label_names=["b", "c", "a"]))
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]] * 10
    labels = np.array([0, 1, 2, 1])  # the model's: of four rows the last is wrong
    data = TokenizedDataset({}, np.arange(5), labels)
    assert own.decide(logits, data).tolist() == [1, 2, 0, 1]
    found = own.score(logits, data)
    assert found["accuracy"] == 0.75
    right = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    assert found["loss"] == pytest.approx(right.item())
    # f1_macro in the task's classes: a 1 (1 of 1), b 2/3, c 2/3
    assert found["f1_macro"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite(value):
    model = tiny.model("bert")
    with torch.no_grad():
        model.classifier.bias[0] = value
    with pytest.raises(FloatingPointError, match="not finite"):
        evaluate(model, dataset(), Labels(TASKS["rte"]), COLLATE)


@pytest.mark.parametrize("training", [True, False])
def test_model_and_random_state_stay_as_they_are(training):
    model = tiny.model("bert").train(training)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = evaluate(model, dataset(), Labels(TASKS["rte"]), COLLATE, precision="bf16")
    assert torch.equal(torch.get_rng_state(), before) and model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())
    again = evaluate(model, dataset(), Labels(TASKS["rte"]), COLLATE, precision="bf16")  # no dropout
    assert np.array_equal(first.logits, again.logits) and "forward" not in vars(model)


def test_without_labels_there_are_no_metrics():
    data = dataset()
    data.labels = None
    found = evaluate(tiny.model("bert"), data, Labels(TASKS["rte"]), COLLATE)
    assert found.metrics == {} and len(found.predictions) == len(data) and found.seconds > 0


def test_values_are_the_logits():
    data = TokenizedDataset({}, np.arange(3))
    assert Labels(TASKS["stsb"]).decide(np.array([[1.5], [-2.0]], dtype=np.float32), data).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("order", [None, ["B-y", "O", "B-x"]])
def test_labels_of_tokens(order):
    """Loss and predictions are those of each row alone, also with another order of the classes."""
    names = ("B-x", "B-y", "O")
    words = [tiny.sentence(random.Random(i), 9).split() for i in range(7)]
    tags = ragged([np.array([(i + j) % 3 for j in range(len(row))]) for i, row in enumerate(words)])
    task = custom_task("own", ("tokens",), "ner_tags", names, label_type="token")
    labels = Labels(task, order and SimpleNamespace(label_names=order))
    data = tokenize(Examples((words,), tags, list("0123456")), tiny.tokenizer(), 64, labels.to_model(tags))
    set_seed(0)
    model = BertForTokenClassification(tiny.config("bert", num_labels=3)).eval()
    found = evaluate(model, data, labels, Collator.of(tiny.tokenizer()), batch_size=3)
    rows = [
        model(torch.tensor([[2, *tiny.tokenizer().convert_tokens_to_ids(row), 3]])).logits[0, 1:-1] for row in words
    ]
    ids = labels.ids[torch.cat(rows).argmax(-1).numpy()]
    assert np.concatenate(found.predictions).tolist() == ids.tolist()
    assert found.metrics["accuracy"] == pytest.approx((ids == np.concatenate(tags)).mean())
    targets = torch.from_numpy(np.argsort(labels.ids)[np.concatenate(tags)])
    loss = torch.nn.functional.cross_entropy(torch.cat(rows), targets)
    assert found.metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_loss_in_fp32_whatever_the_logits_are():
    logits = torch.tensor([[2.0], [0.0]], dtype=torch.bfloat16)
    assert Values().loss(logits, torch.tensor([1.0, 3.0])).dtype == torch.float32


def test_values_in_bf16_stay_apart():
    """The head computes in fp32; in bf16 hardly a third of the values would differ."""
    model = tiny.model("bert", num_labels=1)
    texts = [" ".join(tiny.WORDS[(i * j + 3 * i) % 60] for j in range(1, 6)) for i in range(400)]
    data = tokenize(Examples((texts,), None, [str(i) for i in range(400)]), TOKENIZER, 64)
    exact = evaluate(model, data, Labels(TASKS["stsb"]), Collator.of(TOKENIZER))
    found = evaluate(model, data, Labels(TASKS["stsb"]), Collator.of(TOKENIZER), precision="bf16")
    n = len(np.unique(exact.predictions))
    assert n > 50 and len(np.unique(found.predictions)) > 0.9 * n
    rounded = torch.from_numpy(found.predictions).to(torch.bfloat16).unique()
    assert len(rounded) < 0.9 * len(np.unique(found.predictions))
    np.testing.assert_allclose(found.predictions, exact.predictions, atol=0.1)
