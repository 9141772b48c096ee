"""Without a GPU: on PyTorch's meta device tensors have no values, so that asking for one is an error."""

import pytest
import torch
from transformers import TrainingArguments

from layerdrop.arguments import parse
from layerdrop.first_token import compute_first_token_alone
from layerdrop.gpu import do_not_wait
from tests import tiny

MODEL_TYPES = (
    "bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "mobilebert", "distilbert", "albert",
    "modernbert",
)  # fmt: skip
"""Those with the library's sdpa attention."""


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_training_step_asks_for_no_value(model_type, tmp_path):
    model = tiny.model(model_type).train().to("meta")
    compute_first_token_alone(model)
    batch = {name: tensor.to("meta") for name, tensor in tiny.batch().items()}
    batch["labels"] = torch.zeros(len(batch["input_ids"]), dtype=torch.long, device="meta")
    with pytest.raises(RuntimeError, match="item"):
        model(**batch)  # the library's own way: is there padding?
    do_not_wait(model, TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]))
    model(**batch).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    torch.optim.AdamW(model.parameters(), foreach=True).step()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_same_logits(model_type, tmp_path):
    model, batch = tiny.model(model_type), tiny.batch()
    whole = {name: tensor[:1, :4] for name, tensor in batch.items()}  # nothing is padded
    assert whole["attention_mask"].all() and not batch["attention_mask"].all()
    before = [model(**rows).logits for rows in (batch, whole)]
    do_not_wait(model, TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]))
    after = [model(**rows).logits for rows in (batch, whole)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(after, before, strict=True))


def test_models_with_attention_of_their_own_are_left_alone(tmp_path):
    model = tiny.model("xlnet")
    do_not_wait(model, TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]))
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("pinned", [True, False])
def test_batches_are_copied_without_waiting_where_they_are_pinned(pinned, tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    args.dataloader_pin_memory = pinned  # with use_cpu the library itself says no
    do_not_wait(tiny.model("bert"), args)
    assert args.accelerator_config.non_blocking == pinned


def test_no_step_waits_for_its_loss(tmp_path):
    flags = ["--output_dir", str(tmp_path)]
    assert parse(flags).train.logging_nan_inf_filter is False
    assert parse([*flags, "--logging_nan_inf_filter"]).train.logging_nan_inf_filter is True
