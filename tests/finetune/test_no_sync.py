"""Without a GPU: on PyTorch's meta device tensors have no values, so that asking for one is an error."""

import pytest
import torch
from transformers import TrainingArguments

from layerdrop.finetune.speedups import speedups
from layerdrop.finetune.speedups.no_sync import ATTENTION, EAGER, no_sync
from tests import tiny

MODEL_TYPES = (
    "bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "mobilebert", "distilbert", "albert",
    "modernbert",
)  # fmt: skip
"""Those with the library's sdpa attention."""

EAGER_TYPES = ("mpnet", "rembert", "roformer", "megatron-bert")
"""Those with eager attention and the library's mask for it."""


class OnDevice(TrainingArguments):
    """Settings of a training on some other device; `device_name`: which."""

    device_name = "meta"

    @property
    def device(self) -> torch.device:
        assert super().device.type == "cpu"  # sets up what other properties read
        return torch.device(self.device_name)


def arguments(folder, kind=TrainingArguments, **changes):
    return kind(str(folder), use_cpu=True, report_to=[], **changes)


def batch_on(device: str) -> dict[str, torch.Tensor]:
    batch = {name: tensor.to(device) for name, tensor in tiny.batch().items()}
    return batch | {"labels": torch.zeros(len(batch["input_ids"]), dtype=torch.long, device=device)}


def step(model, batch, optimizer) -> None:
    model(**batch).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_training_step_reads_no_value(model_type, tmp_path):
    model, batch = tiny.model(model_type).train().to("meta"), batch_on("meta")
    with pytest.raises(RuntimeError, match="item"):
        model(**batch)  # the library's own way: is there padding?
    with speedups(model, arguments(tmp_path, OnDevice), train=True, used_ids=tiny.batch()["input_ids"].numpy()):
        step(model, batch, torch.optim.AdamW(model.parameters(), foreach=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("model_type", [*MODEL_TYPES, *EAGER_TYPES])
def test_a_training_step_does_not_synchronise(model_type, tmp_path):
    model, batch = tiny.model(model_type).train().to("cuda"), batch_on("cuda")
    args = arguments(tmp_path, OnDevice)
    args.device_name = "cuda"
    with speedups(model, args, train=True, used_ids=tiny.batch()["input_ids"].numpy()):
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        step(model, batch, optimizer)  # the first one allocates the optimizer's state
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(model, batch, optimizer)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_same_logits(model_type, tmp_path):
    model, batch = tiny.model(model_type), tiny.batch()
    whole = {name: tensor[:1, :4] for name, tensor in batch.items()}  # without padding
    assert whole["attention_mask"].all() and not batch["attention_mask"].all()
    before = [model(**rows).logits for rows in (batch, whole)]
    with no_sync(model, arguments(tmp_path)):
        assert model.config._attn_implementation == ATTENTION
        inside = [model(**rows).logits for rows in (batch, whole)]
    after = [model(**rows).logits for rows in (batch, whole)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(inside, before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("model_type", [*EAGER_TYPES, "xlnet", "deberta-v2", "longformer"])
def test_models_with_eager_attention_alone_change_the_mask_at_most(model_type, tmp_path):
    model, batch = tiny.model(model_type), tiny.batch(left=model_type == "xlnet")
    before = model(**batch).logits
    with no_sync(model, arguments(tmp_path)):
        assert model.config._attn_implementation == EAGER
        assert torch.equal(model(**batch).logits, before)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("enabled", [True, False])
def test_cudnn_is_left_out(enabled, tmp_path):
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(enabled)
    try:
        with pytest.raises(KeyboardInterrupt), no_sync(tiny.model("bert"), arguments(tmp_path)):
            assert not torch.backends.cuda.cudnn_sdp_enabled()
            raise KeyboardInterrupt
        assert torch.backends.cuda.cudnn_sdp_enabled() == enabled
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_pinned_batches_are_copied_asynchronously(pinned, before, tmp_path):
    args, model = arguments(tmp_path), tiny.model("bert")
    args.dataloader_pin_memory = pinned  # with use_cpu the library itself says no
    args.accelerator_config.non_blocking = before
    with pytest.raises(KeyboardInterrupt), no_sync(model, args):
        assert args.accelerator_config.non_blocking == pinned
        raise KeyboardInterrupt
    assert args.accelerator_config.non_blocking == before and model.config._attn_implementation == "sdpa"


def test_buckets_of_positions_are_computed_once_for_each_length(tmp_path):
    model = tiny.model("mpnet")
    encoder, batch = model.mpnet.encoder, tiny.batch()
    expected, original = model(**batch).logits, encoder.relative_position_bucket
    positions = torch.arange(9)[None] - torch.arange(9)[:, None]
    with no_sync(model, arguments(tmp_path)):
        first, again = (encoder.relative_position_bucket(positions) for _ in range(2))
        assert first is again
        assert not torch.equal(encoder.relative_position_bucket(torch.zeros(4, 4, dtype=torch.long)), first[:4, :4])
        assert torch.equal(model(**batch).logits, expected)
    assert encoder.relative_position_bucket is original
