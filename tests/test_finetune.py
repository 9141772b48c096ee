import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from layerdrop.data import Collator, Examples, LengthGroupedSampler, tokenise
from layerdrop.errors import UserError
from layerdrop.finetune import FineTuner, _result_name, freeze
from layerdrop.tasks import TASKS
from tests import tiny


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "xlnet"])
def test_freezing(model_type):
    model = tiny.model(model_type)
    freeze(model, (1, 3), embeddings=True)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert any("embedding" in name for name in frozen)
    in_layers = {int(name.split("layer.")[1].split(".")[0]) for name in frozen if "layer." in name}
    assert in_layers == {1, 3} and "classifier.weight" not in frozen


def test_nothing_is_frozen_unasked():
    model = tiny.model("bert")
    freeze(model, (), embeddings=False)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_shared_layers_cannot_be_frozen_alone():
    with pytest.raises(UserError, match="layers share their weights"):
        freeze(tiny.model("albert"), (1,), embeddings=False)


@pytest.mark.parametrize(
    ("logged", "name"),
    [("loss", "train_loss"), ("eval_loss", "loss"), ("eval_matched_accuracy", "matched_accuracy"), ("eval_runtime", ""),
     ("eval_samples_per_second", ""), ("learning_rate", ""), ("train_runtime", ""), ("epoch", "")],
)  # fmt: skip
def test_names_of_results(logged, name):
    assert _result_name(logged) == name


# ---- numerics: what makes a run faster must not change what it computes ---------------------------------------------
def dataset(tokenizer, n: int = 24):
    """Pairs of 3 to 26 words with labels."""
    texts = [" ".join(tiny.WORDS[(7 * i + j) % 60] for j in range(1 + i % 13)) for i in range(2 * n)]
    return tokenise(Examples((texts[:n], texts[n:]), np.arange(n) % 2, [str(i) for i in range(n)]), tokenizer, 64)


def gradients(model, batch) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("model_type", sorted(tiny.CONFIGS))
def test_padding_changes_no_logits_and_no_gradient(model_type):
    """Each example alone, in a batch padded to its longest, and padded to 40 tokens."""
    tokenizer = tiny.tokenizer(left=model_type == "xlnet")
    if model_type in ("distilbert", "roberta", "modernbert", "mpnet", "longformer"):
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    model, data = tiny.model(model_type), dataset(tokenizer)
    if model_type == "mobilebert":  # joins each token's embedding to its neighbours': the last sees the padding's
        model.get_input_embeddings().weight.data[tokenizer.pad_token_id] = 0
    items = [data[i] for i in range(8)]
    by_batch, to_40 = Collator.of(tokenizer)(items), Collator.of(tokenizer, 40, fill=True)(items)
    assert by_batch["input_ids"].shape[1] < 40 == to_40["input_ids"].shape[1]
    with torch.no_grad():
        alone = torch.cat([model(**Collator.of(tokenizer)([item])).logits for item in items])
        for batch in (by_batch, to_40):
            assert torch.allclose(model(**batch).logits, alone, atol=2e-5)
    loss, found = gradients(model, by_batch)
    other_loss, others = gradients(model, to_40)
    assert loss == pytest.approx(other_loss, abs=1e-5)
    assert all(torch.allclose(a, b, atol=2e-5) for a, b in zip(found, others, strict=True))


def test_grouping_by_length_changes_the_batches_and_nothing_else(tmp_path):
    """Training on the sampler's batches is training on the same batches handed over one by one."""
    tokenizer = tiny.tokenizer()
    data = dataset(tokenizer)
    collator = Collator.of(tokenizer)
    batches = list(torch.utils.data.BatchSampler(LengthGroupedSampler(data.lengths, 8, seed=5), 8, drop_last=False))

    def model():
        made = tiny.model("bert")
        for module in made.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return made

    by_hand = model().train()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    losses = []
    for batch in batches:
        loss = by_hand(**collator([data[i] for i in batch])).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    args = TrainingArguments(
        str(tmp_path), seed=5, per_device_train_batch_size=8, num_train_epochs=1, learning_rate=0.1, optim="sgd",
        use_cpu=True, lr_scheduler_type="constant", train_sampling_strategy="group_by_length", report_to=[],
        disable_tqdm=True,
    )  # fmt: skip
    trainer = FineTuner(model(), args, collator, train_dataset=data, processing_class=tokenizer, task=TASKS["rte"])
    result = trainer.train()
    assert result.training_loss == pytest.approx(sum(losses) / len(losses), abs=1e-6)
    for ours, theirs in zip(trainer.model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_clipping_is_the_librarys(tmp_path, limit):
    args = TrainingArguments(str(tmp_path), max_grad_norm=limit, use_cpu=True, report_to=[])
    model, tokenizer = tiny.model("bert"), tiny.tokenizer()
    trainer = FineTuner(model, args, Collator.of(tokenizer), task=TASKS["rte"])
    items = [dataset(tokenizer)[i] for i in range(8)]
    _, found = gradients(model, Collator.of(tokenizer)(items))
    norm = torch.sqrt(sum(gradient.square().sum() for gradient in found))
    assert trainer._clip_grad_norm(model) == pytest.approx(norm.item(), rel=1e-5)
    clipped = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    factor = min(1.0, limit / (norm.item() + 1e-6))
    assert all(torch.allclose(a, b * factor, atol=1e-7) for a, b in zip(clipped, found, strict=True))
